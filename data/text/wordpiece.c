/* wordpiece: see wordpiece.h. */
#include "data/text/wordpiece.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/mapfile.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

/*   field   text       needed */
#define SPECIALS(X)         \
    X(pad,  "[PAD]",  true)  \
    X(unk,  "[UNK]",  true)  \
    X(cls,  "[CLS]",  true)  \
    X(sep,  "[SEP]",  true)  \
    X(mask, "[MASK]", false) \
    X(dec,  "[DEC]",  false)

enum {
#define X(name, text, needed) SPECIAL_##name,
    SPECIALS(X)
#undef X
    SPECIAL_COUNT,
    WORD_BYTES = WP_MAX_WORD * UTF8_MAX,
    VOCAB_BYTES = 1 << 28,
};

static const struct { const char *text; size_t n; bool needed; } specials[SPECIAL_COUNT] = {
#define X(name, text, needed) {text, sizeof text - 1, needed},
    SPECIALS(X)
#undef X
};

/* A probe compares the 32 bits, then the bytes of the piece. id + 1, so that 0 is an empty slot. */
typedef struct { uint32_t check, id1; } Slot;

struct Wordpiece {
    char *bytes;             /* the pieces in order of id, each followed by a NUL */
    uint32_t *start;         /* (size + 1) offsets into bytes */
    int size;
    size_t longest;          /* bytes of the longest piece, without "##" */
    Slot *slots;             /* (1 << bits), linear probing, at most half full */
    int bits;
    uint64_t hash;
    int32_t special[SPECIAL_COUNT];
};

/* ---- splitting into words ---- */

enum { C_DROP, C_SPACE, C_PUNCT };   /* what else a byte can be; a letter's class is its lower case, above these */

/* A table made by the compiler: nothing to set up, nothing to lock. */
#define IN(c, low, high) ((c) >= (low) && (c) <= (high))
#define PUNCT(c) (IN(c, 33, 47) || IN(c, 58, 64) || IN(c, 91, 96) || IN(c, 123, 126))
#define CLASS(c) ((c) == ' ' || (c) == '\t' || (c) == '\n' || (c) == '\r' ? C_SPACE : (c) < 32 || (c) >= 127 ? C_DROP \
    : PUNCT(c) ? C_PUNCT : (c) >= 'A' && (c) <= 'Z' ? (c) + 32 : (c))
#define CLASS4(c) CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define CLASS16(c) CLASS4(c), CLASS4((c) + 4), CLASS4((c) + 8), CLASS4((c) + 12)
static const unsigned char ascii_class[128] = {
    CLASS16(0), CLASS16(16), CLASS16(32), CLASS16(48), CLASS16(64), CLASS16(80), CLASS16(96), CLASS16(112)
};

/* The word being collected. A word too long keeps its first bytes and goes on counting. */
typedef struct {
    WpWordFn *fn;
    void *ctx;
    size_t n;
    int points;
    char word[WORD_BYTES];
} Splitter;

static Status flush(Splitter *s) {
    if (!s->points) return OK;
    Status st = s->fn(s->ctx, s->word, s->n, s->points);
    s->n = 0;
    s->points = 0;
    return st;
}

static void append(Splitter *s, uint32_t c) {
    if (s->points < WP_MAX_WORD) s->n += utf8_put(c, s->word + s->n);
    if (s->points <= WP_MAX_WORD) s->points++;
}

static Status alone(Splitter *s, uint32_t c) {
    Status st = flush(s);
    if (st != OK) return st;
    append(s, c);
    return flush(s);
}

static Status split_ascii(Splitter *s, const char *text, size_t n) {
    Status st = OK;
    for (size_t i = 0; i < n && st == OK; i++) {
        unsigned char class = ascii_class[(unsigned char)text[i]];
        if (class > C_PUNCT) {
            if (s->points < WP_MAX_WORD) s->word[s->n++] = (char)class;
            if (s->points <= WP_MAX_WORD) s->points++;
        } else if (class == C_SPACE) st = flush(s);
        else if (class == C_PUNCT) st = alone(s, (unsigned char)text[i]);
    }
    return st == OK ? flush(s) : st;
}

static bool is_cjk(uint32_t c) {
    return c >= 0x3400 && ((c >= 0x4E00 && c <= 0x9FFF) || c <= 0x4DBF || (c >= 0x20000 && c <= 0x2A6DF) ||
                           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
                           (c >= 0x2B820 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
                           (c >= 0x2F800 && c <= 0x2FA1F));
}

bool wp_stands_alone(uint32_t c) {
    return c < 0x80 ? ascii_class[c] == C_PUNCT : is_cjk(c) || uni_is_punct(c);
}

/* Appends one lowered character, or a blank, or nothing. */
static Status push_clean(UniText *t, uint32_t c) {
    if (c == '\t' || c == '\n' || c == '\r' || c == ' ') return uni_push(t, ' ');
    if (c < 0x80) return ascii_class[c] == C_DROP ? OK : uni_push(t, c);
    if (c == UNI_REPLACEMENT || uni_is_control(c)) return OK;
    if (uni_is_space_separator(c)) return uni_push(t, ' ');
    if (!is_cjk(c)) return uni_push(t, c);
    Status st = uni_push(t, ' ');
    if (st == OK) st = uni_push(t, c);
    return st == OK ? uni_push(t, ' ') : st;
}

static Status clean(UniText *t, const char *text, size_t n) {
    UniText low = {0};
    Status st = OK;
    for (size_t i = 0; i < n && st == OK;) {
        uint32_t c;
        i += utf8_next(text + i, n - i, &c);
        low.n = 0;
        st = uni_push_lower(&low, c);
        for (size_t k = 0; k < low.n && st == OK; k++) st = push_clean(t, low.v[k]);
    }
    uni_free(&low);
    return st;
}

/* The reference composes (NFC), cuts at blanks, lowers again and decomposes (NFD). NFD of NFC is NFD, no character is
 * or becomes a blank by it, and what was lowered stays lowered, so NFD alone gives the same. */
static Status split_unicode(Splitter *s, const char *text, size_t n) {
    UniText t = {0};
    Status st = clean(&t, text, n);
    if (st == OK) st = uni_nfd(&t);
    for (size_t i = 0; i < t.n && st == OK; i++) {
        uint32_t c = t.v[i];
        if (c < 0x80) {
            if (ascii_class[c] > C_PUNCT) append(s, c);
            else st = ascii_class[c] == C_PUNCT ? alone(s, c) : flush(s);
        } else if (uni_is_mark_nonspacing(c)) continue;
        else if (uni_is_white(c)) st = flush(s);
        else if (uni_is_punct(c)) st = alone(s, c);
        else append(s, c);
    }
    uni_free(&t);
    return st == OK ? flush(s) : st;
}

static Status split_plain(Splitter *s, const char *text, size_t n) {
    unsigned char any = 0;
    for (size_t i = 0; i < n; i++) any |= (unsigned char)text[i];
    return any < 0x80 ? split_ascii(s, text, n) : split_unicode(s, text, n);
}

static int special_at(const char *text, size_t n) {
    for (int k = 0; k < SPECIAL_COUNT; k++)
        if (n >= specials[k].n && !memcmp(text, specials[k].text, specials[k].n)) return k;
    return -1;
}

Status wp_words(const char *text, size_t n, WpWordFn *fn, void *ctx) {
    Splitter s;
    s.fn = fn;
    s.ctx = ctx;
    s.n = 0;
    s.points = 0;
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        const char *bracket = memchr(text + i, '[', n - i);
        if (!bracket) break;
        i = (size_t)(bracket - text);
        int k = special_at(text + i, n - i);
        if (k < 0) { i++; continue; }
        Status st = split_plain(&s, text + from, i - from);
        if (st == OK) st = fn(ctx, specials[k].text, specials[k].n, 0);
        if (st != OK) return st;
        from = i += specials[k].n;
    }
    return split_plain(&s, text + from, n - from);
}

/* ---- the table of pieces ---- */

/* Hash of a prefix from the hash of the prefix one byte shorter; two seeds keep "ing" and "##ing" apart. */
static uint64_t hash_start(bool inner) { return inner ? 0x9AE16A3B2F90404Fu : 0xC3A5C85C97CB3127u; }
static uint64_t hash_add(uint64_t h, char c) { return (h ^ (unsigned char)c) * 0x9E3779B97F4A7C15u; }

static const Slot *slot_of(const Wordpiece *wp, uint64_t h, const char *s, size_t n, bool inner) {
    size_t mask = ((size_t)1 << wp->bits) - 1;
    for (size_t i = (size_t)(h >> (64 - wp->bits));; i = (i + 1) & mask) {
        const Slot *slot = &wp->slots[i];
        if (!slot->id1) return slot;
        if (slot->check != (uint32_t)h) continue;
        const char *piece = wp->bytes + wp->start[slot->id1 - 1] + (inner ? 2 : 0);
        size_t len = wp->start[slot->id1] - wp->start[slot->id1 - 1] - 1;
        if (inner && (len < 2 || piece[-2] != '#' || piece[-1] != '#')) continue;
        if (len == n + (inner ? 2 : 0) && !memcmp(piece, s, n)) return slot;
    }
}

/* The slot of a piece as the file has it; *h is its hash. */
static const Slot *slot_of_line(const Wordpiece *wp, const char *s, size_t n, uint64_t *h) {
    bool inner = n >= 2 && s[0] == '#' && s[1] == '#';
    *h = hash_start(inner);
    for (size_t i = inner ? 2 : 0; i < n; i++) *h = hash_add(*h, s[i]);
    return slot_of(wp, *h, s + (inner ? 2 : 0), n - (inner ? 2 : 0), inner);
}

int32_t wp_find(const Wordpiece *wp, const char *piece, size_t n) {
    uint64_t h;
    return (int32_t)slot_of_line(wp, piece, n, &h)->id1 - 1;
}

static const char *line_fault(const char *s, size_t n) {
    if (!n) return "is empty";
    if (n > WP_MAX_PIECE) return "is longer than a piece can be";
    if (memchr(s, 0, n) || memchr(s, '\r', n)) return "holds a NUL or a carriage return";
    return utf8_valid(s, n, NULL) ? NULL : "is not valid UTF-8";
}

static Status add_line(Wordpiece *wp, const char *s, size_t n, const char *name) {
    const char *fault = line_fault(s, n);
    if (fault)
        return err_set(ERR_FORMAT, "%s:%d: the line %s; one piece of text a line is wanted", name, wp->size + 1, fault);
    uint64_t h;
    const Slot *slot = slot_of_line(wp, s, n, &h);
    if (slot->id1) return err_set(ERR_FORMAT, "%s:%d: the piece \"%.*s\" stands on line %u already", name, wp->size + 1,
                                  (int)n, s, slot->id1);
    uint32_t at = wp->start[wp->size];
    memcpy(wp->bytes + at, s, n);
    wp->bytes[at + n] = 0;
    wp->start[++wp->size] = at + (uint32_t)n + 1;
    wp->slots[slot - wp->slots] = (Slot){(uint32_t)h, (uint32_t)wp->size};
    if (n > wp->longest) wp->longest = n;
    wp->hash = hash_word(hash_bytes(wp->hash, s, n), '\n');
    return OK;
}

static Status add_lines(Wordpiece *wp, const char *text, size_t n, const char *name) {
    for (size_t i = 0; i < n;) {
        const char *end = memchr(text + i, '\n', n - i);
        size_t stop = end ? (size_t)(end - text) : n, len = stop - i;
        if (len && text[stop - 1] == '\r') len--;
        Status st = add_line(wp, text + i, len, name);
        if (st != OK) return st;
        i = stop + 1;
    }
    return OK;
}

static Status find_specials(Wordpiece *wp, const char *name) {
    for (int k = 0; k < SPECIAL_COUNT; k++) {
        wp->special[k] = wp_find(wp, specials[k].text, specials[k].n);
        if (specials[k].needed && wp->special[k] < 0)
            return err_set(ERR_FORMAT, "%s: no line is %s, which a BERT vocabulary must have", name, specials[k].text);
    }
    if (wp->special[SPECIAL_dec] >= 0) return OK;
    wp->special[SPECIAL_dec] = wp->size;
    return add_line(wp, specials[SPECIAL_dec].text, specials[SPECIAL_dec].n, name);
}

Status wp_open_lines(Wordpiece **out, const char *text, size_t n, const char *name) {
    *out = NULL;
    size_t lines = 2;   /* one may lack its newline; [DEC] */
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;     /* a byte order mark is no part of [PAD] */
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    if (n > VOCAB_BYTES || lines > WP_MAX_VOCAB)
        return err_set(ERR_FORMAT, "%s: %zu bytes in %zu lines; a vocabulary has at most %d bytes in %d lines", name, n,
                       lines, VOCAB_BYTES, WP_MAX_VOCAB);
    Wordpiece *wp = mem_new(1, sizeof *wp);
    if (!wp) return ERR_MEMORY;
    wp->hash = HASH_START;
    for (wp->bits = 4; (size_t)1 << wp->bits < 2 * lines; wp->bits++) {}
    wp->bytes = mem_new(n + lines + specials[SPECIAL_dec].n, 1);
    wp->start = mem_new(lines + 1, sizeof *wp->start);
    wp->slots = mem_new((size_t)1 << wp->bits, sizeof *wp->slots);
    Status st = wp->bytes && wp->start && wp->slots ? OK : ERR_MEMORY;
    if (st == OK) st = add_lines(wp, text, n, name);
    if (st == OK) st = find_specials(wp, name);
    if (st == OK) *out = wp;
    else wp_close(wp);
    return st;
}

Status wp_open(Wordpiece **wp, const char *path) {
    MapFile m;
    *wp = NULL;
    Status st = mapfile_open(&m, path);
    if (st != OK) return st;
    st = wp_open_lines(wp, (const char *)m.bytes, m.n, path);
    mapfile_close(&m);
    return st;
}

void wp_close(Wordpiece *wp) {
    if (!wp) return;
    free(wp->bytes);
    free(wp->start);
    free(wp->slots);
    free(wp);
}

int wp_size(const Wordpiece *wp) { return wp->size; }
uint64_t wp_hash(const Wordpiece *wp) { return wp->hash; }
#define X(name, text, needed) int32_t wp_##name(const Wordpiece *wp) { return wp->special[SPECIAL_##name]; }
SPECIALS(X)
#undef X

const char *wp_piece(const Wordpiece *wp, int32_t id) {
    BUG_ON(id < 0 || id >= wp->size, "token id %d, the vocabulary has %d", id, wp->size);
    return wp->bytes + wp->start[id];
}

/* ---- encoding ---- */

/* Ends the walk when `most` ids are there: the rest of a long text is not looked at. */
typedef struct {
    const Wordpiece *wp;
    TokenIds *out;
    size_t most;
} Sink;

/* Longest piece first. Returns the number of pieces, 0 when some part of the word has none. A piece is whole
 * characters, hence so is what is left of it. */
static int cut_word(const Wordpiece *wp, const char *s, size_t n, int32_t pieces[WP_MAX_WORD]) {
    uint64_t h[WORD_BYTES + 1];
    int count = 0;
    for (size_t at = 0; at < n;) {
        size_t most = n - at < wp->longest ? n - at : wp->longest, len = most;
        const Slot *slot = NULL;
        h[0] = hash_start(at > 0);
        for (size_t i = 0; i < most; i++) h[i + 1] = hash_add(h[i], s[at + i]);
        while (len && !(slot = slot_of(wp, h[len], s + at, len, at > 0))->id1) len--;
        if (!len) return 0;
        pieces[count++] = (int32_t)slot->id1 - 1;
        at += len;
    }
    return count;
}

static Status encode_word(void *ctx, const char *word, size_t n, int points) {
    Sink *k = ctx;
    int32_t pieces[WP_MAX_WORD];
    int32_t unk = k->wp->special[SPECIAL_unk];
    int count = points > WP_MAX_WORD ? 0 : points ? cut_word(k->wp, word, n, pieces) : 1;
    if (!points) pieces[0] = wp_find(k->wp, word, n);
    if (!count || pieces[0] < 0) pieces[0] = unk, count = 1;
    Status st = OK;
    for (int i = 0; i < count && st == OK; i++) st = ids_push(k->out, pieces[i]);
    return st == OK && k->out->n > k->most ? ERR_INTERRUPTED : st;   /* ends the walk, reaches nobody */
}

Status wp_pieces(const Wordpiece *wp, const char *text, size_t n, TokenIds *out) {
    Sink k = {wp, out, SIZE_MAX};
    return wp_words(text, n, encode_word, &k);
}

Status wp_encode(const Wordpiece *wp, const char *text, size_t n, int max_len, int32_t *ids, int *count,
                 int64_t *full) {
    BUG_ON(max_len < 2, "wp_encode: room for %d ids, [CLS] and [SEP] need 2", max_len);
    TokenIds out = {.v = ids, .n = 1, .cap = (size_t)max_len - 1, .fixed = true};
    Sink k = {wp, &out, full ? SIZE_MAX : (size_t)max_len};
    ids[0] = wp->special[SPECIAL_cls];
    Status st = wp_words(text, n, encode_word, &k);
    if (st == ERR_INTERRUPTED) st = OK;
    *count = (int)(out.n < out.cap ? out.n : out.cap);
    ids[(*count)++] = wp->special[SPECIAL_sep];
    if (full) *full = (int64_t)out.n + 1;
    return st;
}

/* ---- decoding ---- */

static bool is_special(const Wordpiece *wp, int32_t id) {
    for (int k = 0; k < SPECIAL_COUNT; k++)
        if (wp->special[k] == id) return true;
    return false;
}

Status wp_join(const Wordpiece *wp, const int32_t *ids, size_t n, TextBytes *out) {
    Status st = OK;
    for (size_t i = 0; i < n && st == OK; i++) {
        if (ids[i] < 0 || ids[i] >= wp->size || is_special(wp, ids[i])) continue;
        const char *piece = wp_piece(wp, ids[i]);
        bool inner = out->n && piece[0] == '#' && piece[1] == '#';
        if (!inner && out->n) st = bytes_push(out, " ", 1);
        if (st == OK) st = bytes_push(out, piece + (inner ? 2 : 0), strlen(piece) - (inner ? 2 : 0));
    }
    return st;
}
