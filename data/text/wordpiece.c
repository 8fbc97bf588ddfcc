/* wordpiece: see wordpiece.h. */
#include "data/text/wordpiece.h"

#include <string.h>

#include "data/format/mapfile.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

enum { WORD_BYTES = WP_MAX_WORD * UTF8_MAX };

/* By WpSpecial. */
static const struct { const char *text; size_t n; bool needed; } specials[WP_SPECIALS] = {
    {"[PAD]", 5, true}, {"[UNK]", 5, true},   {"[CLS]", 5, true},
    {"[SEP]", 5, true}, {"[MASK]", 6, false}, {"[DEC]", 5, false}};

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
    if (s->points <= WP_MAX_WORD) s->points++;               /* one beyond the limit says that it was too long */
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
    /* also what Unicode has not assigned: the slow tokenizer drops it */
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
    for (int k = 0; k < WP_SPECIALS; k++)
        if (n >= specials[k].n && !memcmp(text, specials[k].text, specials[k].n)) return k;
    return -1;
}

Status wp_words(const char *text, size_t n, WpWordFn *fn, void *ctx) {
    Splitter s; /* not = {0}: its word need not be cleared for every text */
    s.fn = fn;
    s.ctx = ctx;
    s.n = 0;
    s.points = 0;
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        const char *bracket = memchr(text + i, '[', n - i);  /* every special token begins so */
        if (!bracket) break;
        i = (size_t)(bracket - text);
        int k = special_at(text + i, n - i);
        if (k < 0) { i++; continue; }                        /* an ordinary bracket */
        Status st = split_plain(&s, text + from, i - from);
        if (st == OK) st = fn(ctx, specials[k].text, specials[k].n, 0);
        if (st != OK) return st;
        from = i += specials[k].n;
    }
    return split_plain(&s, text + from, n - from);
}

/* ---- the table of pieces ---- */

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
    int32_t before = pieces_find(&wp->pieces, s, n);
    if (before >= 0)
        return err_set(ERR_FORMAT, "%s:%d: the piece \"%.*s\" stands on line %d already", name, wp->size + 1, (int)n, s,
                       before + 1);
    wp->hash = hash_word(hash_bytes(wp->hash, s, n), '\n');
    return pieces_set(&wp->pieces, wp->size++, s, n, true, name);
}

static Status add_lines(Wordpiece *wp, const char *text, size_t n, const char *name) {
    for (size_t i = 0; i < n;) {
        const char *end = memchr(text + i, '\n', n - i);
        size_t stop = end ? (size_t)(end - text) : n, len = stop - i;
        if (len && text[stop - 1] == '\r') len--;            /* files from Windows */
        Status st = add_line(wp, text + i, len, name);
        if (st != OK) return st;
        i = stop + 1;
    }
    return OK;
}

static Status find_specials(Wordpiece *wp, const char *name) {
    for (int k = 0; k < WP_SPECIALS; k++) {
        wp->special[k] = pieces_find(&wp->pieces, specials[k].text, specials[k].n);
        if (specials[k].needed && wp->special[k] < 0)
            return err_set(ERR_FORMAT, "%s: no line is %s, which a BERT vocabulary must have", name, specials[k].text);
    }
    if (wp->special[WP_DEC] >= 0) return OK;
    wp->special[WP_DEC] = wp->size;
    return add_line(wp, specials[WP_DEC].text, specials[WP_DEC].n, name);
}

Status wp_open_lines(Wordpiece *wp, const char *text, size_t n, const char *name) {
    int64_t lines = 2;        /* one may lack its newline; [DEC] */
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;     /* a byte order mark is no part of [PAD] */
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    *wp = (Wordpiece){.hash = HASH_START};
    Status st = pieces_open(&wp->pieces, lines, lines, n + specials[WP_DEC].n, name);
    if (st == OK) st = add_lines(wp, text, n, name);
    if (st == OK) st = find_specials(wp, name);
    wp->pieces.size = wp->size;                      /* fewer than there was room for */
    return st;
}

Status wp_open(Wordpiece *wp, const char *path) {
    MapFile m;
    Status st = mapfile_open(&m, path);
    if (st != OK) return st;
    st = wp_open_lines(wp, (const char *)m.bytes, m.n, path);
    mapfile_close(&m);
    return st;
}

void wp_close(Wordpiece *wp) {
    pieces_close(&wp->pieces);
    *wp = (Wordpiece){0};
}

/* ---- encoding ---- */

typedef struct {
    const Wordpiece *wp;
    TokenIds *out;
} Sink;

/* Longest piece first. Returns the number of pieces, 0 when some part of the word has none. */
static int cut_word(const Pieces *p, const char *word, size_t n, int32_t pieces[WP_MAX_WORD]) {
    char room[2 + WORD_BYTES];
    int count = 0;
    memcpy(room + 2, word, n);
    for (size_t at = 0, len; at < n; at += len) {
        size_t mark = at ? 2 : 0;
        char *s = memcpy(room + 2 + at - mark, "##", mark);           /* over what is cut off already */
        for (len = n - at; len && (pieces[count] = pieces_find(p, s, mark + len)) < 0;) len--;
        if (!len) return 0;
        count++;              /* pieces are whole characters, so there are no more than the word has */
    }
    return count;
}

static Status encode_word(void *ctx, const char *word, size_t n, int points) {
    Sink *k = ctx;
    int32_t pieces[WP_MAX_WORD];
    const Pieces *p = &k->wp->pieces;
    int count = points > WP_MAX_WORD ? 0 : points ? cut_word(p, word, n, pieces) : 1;
    if (!points) pieces[0] = pieces_find(p, word, n);                  /* a special token, which the file may lack */
    if (!count || pieces[0] < 0) pieces[0] = k->wp->special[WP_UNK], count = 1;
    Status st = OK;
    for (int i = 0; i < count && st == OK; i++) st = ids_push(k->out, pieces[i]);
    return st;
}

Status wp_pieces(const Wordpiece *wp, const char *text, size_t n, TokenIds *out) {
    return wp_words(text, n, encode_word, &(Sink){wp, out});
}

/* ---- decoding ---- */

static bool is_special(const Wordpiece *wp, int32_t id) {
    for (int k = 0; k < WP_SPECIALS; k++)
        if (wp->special[k] == id) return true;
    return false;
}

Status wp_join(const Wordpiece *wp, const int32_t *ids, size_t n, TextBytes *out) {
    Status st = OK;
    for (size_t i = 0; i < n && st == OK; i++) {
        size_t len;
        const char *piece = pieces_get(&wp->pieces, ids[i], &len);
        if (!piece || is_special(wp, ids[i])) continue;
        bool inner = out->n && len >= 2 && !memcmp(piece, "##", 2);
        if (!inner && out->n) st = bytes_push(out, " ", 1);
        if (st == OK) st = bytes_push(out, piece + (inner ? 2 : 0), len - (inner ? 2 : 0));
    }
    return st;
}
