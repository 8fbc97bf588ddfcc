/* tokenizer: see tokenizer.h. */
#include "data/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer_parts.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

Status tokenizer_new(Tokenizer **t) {
    *t = mem_new(1, sizeof **t);
    if (!*t) return ERR_MEMORY;
    (*t)->ids.bos = (*t)->ids.eos = (*t)->ids.pad = (*t)->ids.unk = -1;
    (*t)->bpe.unk = (*t)->unigram.unk = -1;
    (*t)->cleans = true;                                     /* what transformers does when no file says */
    (*t)->chat = "";
    return OK;
}

void tokenizer_close(Tokenizer *t) {
    if (!t) return;
    for (size_t i = 0; i < t->nlist; i++) free(t->list[i].text);
    free(t->list);
    normalizer_close(&t->norm);
    bpe_close(&t->bpe);
    unigram_close(&t->unigram);
    wp_close(&t->wp);
    pieces_close(&t->added);
    mem_free(t->special, t);
}

/* ---- added tokens ---- */

Status tokenizer_add(Tokenizer *t, const char *s, size_t n, int64_t id, bool special, const char *name) {
    if (!n || n > PIECE_LONGEST || id < 0 || id >= PIECES_MAX_IDS)
        return err_set(ERR_FORMAT,
                       "%s: the added token \"%.*s\" has the id %lld; it needs 1 to %d bytes and an id from 0 to %d",
                       name, (int)(n < 40 ? n : 40), s, (long long)id, PIECE_LONGEST, PIECES_MAX_IDS - 1);
    for (size_t i = 0; i < t->nlist; i++) {
        AddedToken *a = &t->list[i];
        if (a->n != n || memcmp(a->text, s, n)) continue;
        if (a->id == id) return OK;                          /* files beside each other list the same ones */
        return err_set(ERR_FORMAT, "%s: the added token \"%.*s\" has the ids %lld and %lld", name,
                       (int)(n < 40 ? n : 40), s,
                       (long long)a->id, (long long)id);
    }
    if (mem_room(&t->list, t->nlist, 1, sizeof *t->list) != OK) return ERR_MEMORY;
    char *copy = mem_new(n + 1, 1);
    if (!copy) return ERR_MEMORY;
    memcpy(copy, s, n);
    t->list[t->nlist++] = (AddedToken){copy, n, id, special};
    return OK;
}

static Status add_length(Tokenizer *t, int n, const char *name) {
    int at = 0;
    while (at < t->nlengths && t->lengths[at] > n) at++;
    if (at < t->nlengths && t->lengths[at] == n) return OK;
    if (t->nlengths == (int)(sizeof t->lengths / sizeof *t->lengths))
        return err_set(ERR_FORMAT, "%s: added tokens of more than %d different lengths", name, t->nlengths);
    /* longest first, which is how added_at asks */
    memmove(t->lengths + at + 1, t->lengths + at, (size_t)(t->nlengths++ - at) * sizeof *t->lengths);
    t->lengths[at] = n;
    return OK;
}

static Status index_added(Tokenizer *t, const char *name) {
    int64_t size = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < t->nlist; i++) {
        size = t->list[i].id >= size ? t->list[i].id + 1 : size;
        bytes += t->list[i].n;
    }
    Status st = pieces_open(&t->added, size, (int64_t)t->nlist, bytes, name);
    if (st == OK && !(t->special = mem_new((size_t)size + 1, sizeof *t->special))) st = ERR_MEMORY;
    for (size_t i = 0; i < t->nlist && st == OK; i++) {
        const AddedToken *a = &t->list[i];
        st = pieces_set(&t->added, a->id, a->text, a->n, true, name);
        if (st == OK) st = add_length(t, (int)a->n, name);
        if (st != OK) return st;
        t->special[a->id] = a->special;
        t->starts[(unsigned char)a->text[0]] = true; /* so most characters cost a look instead of a probe a length */
    }
    return st;
}

/* The added token that begins s, the longest; -1: none. */
static int32_t added_at(const Tokenizer *t, const char *s, size_t n, size_t *len) {
    for (int k = 0; k < t->nlengths; k++) {
        *len = (size_t)t->lengths[k];
        int32_t id = *len <= n ? pieces_find(&t->added, s, *len) : -1;
        if (id >= 0) return id;
    }
    return -1;
}

/* ---- encoding ---- */

typedef struct {
    const Tokenizer *t;
    TokenIds *out;
    NormalRoom room;
    TextBytes words;
} Encoder;

static Status encode_word(Encoder *e, const char *s, size_t n) {
    const Tokenizer *t = e->t;
    if (!n) return OK;
    return t->kind == KIND_UNIGRAM ? unigram_word(&t->unigram, s, n, e->out)
        : t->kind == KIND_WORDPIECE ? wp_pieces(&t->wp, s, n, e->out) : bpe_word(&t->bpe, s, n, e->out);
}

/* Cuts before each mark. */
static Status encode_cut(Encoder *e, const char *s, size_t n) {
    Status st = OK;
    size_t from = 0;
    if (!n) return OK;                                       /* a text of no bytes has no address either */
    for (size_t i = MARK_LEN; i + MARK_LEN <= n && st == OK; i++) {
        if (memcmp(s + i, MARK, MARK_LEN)) continue;
        st = encode_word(e, s + from, i - from);
        from = i;
    }
    return st == OK ? encode_word(e, s + from, n - from) : st;
}

/* Metaspace. */
static Status encode_marked(Encoder *e, const char *s, size_t n, bool at_start) {
    const Tokenizer *t = e->t;
    bool wanted = t->mark == MARK_ALWAYS || (t->mark == MARK_FIRST && at_start);
    Status st = OK;
    e->words.n = 0;
    if (wanted && n && s[0] != ' ' && (n < MARK_LEN || memcmp(s, MARK, MARK_LEN)))
        st = bytes_push(&e->words, MARK, MARK_LEN);
    for (size_t i = 0, run; i < n && st == OK; i += run) {
        for (run = 0; i + run < n && s[i + run] != ' '; run++) {}
        st = run ? bytes_push(&e->words, s + i, run) : bytes_push(&e->words, MARK, MARK_LEN);
        run += !run;
    }
    if (st != OK) return st;
    return t->cut ? encode_cut(e, e->words.v, e->words.n) : encode_word(e, e->words.v, e->words.n);
}

/* What lies between added tokens. */
static Status encode_stretch(Encoder *e, const char *s, size_t n, bool at_start) {
    const char *text;
    size_t len, word, skip;
    if (!n) return OK;
    Status st = normalize(&e->t->norm, s, n, &e->room, &text, &len);
    if (st == OK && e->t->blank_front && len && *text != ' ') {
        e->words.n = 0;
        st = bytes_push(&e->words, " ", 1);
        if (st == OK) st = bytes_push(&e->words, text, len);
        text = e->words.v, len = e->words.n;
    }
    for (size_t i = 0; i < len && st == OK; i += skip + word) {
        word = split_next(e->t->split, text + i, len - i, &skip);
        st = e->t->mark != MARK_OFF ? encode_marked(e, text + i + skip, word, at_start && i + skip == 0)
                                    : encode_word(e, text + i + skip, word);
    }
    return st;
}

static Status encode_text(Encoder *e, const char *s, size_t n) {
    const Tokenizer *t = e->t;
    Status st = OK;
    size_t from = 0, len;
    for (size_t i = 0; t->nlengths && i < n && st == OK;) {
        /* before all else: added tokens are found in the raw text */
        int32_t id = t->starts[(unsigned char)s[i]] ? added_at(t, s + i, n - i, &len) : -1;
        if (id < 0) { i++; continue; }
        st = encode_stretch(e, s + from, i - from, from == 0);
        if (st == OK) st = ids_push(e->out, id);
        from = i += len;
    }
    return st == OK ? encode_stretch(e, s + from, n - from, from == 0) : st;
}

Status tokenizer_valid(const char *s, size_t n, TextBytes *out) {
    Status st = OK;
    for (size_t i = 0; i < n && st == OK;) {
        uint32_t c;
        char utf8[UTF8_MAX];
        i += utf8_next(s + i, n - i, &c);
        st = bytes_push(out, utf8, utf8_put(c, utf8));
    }
    return st;
}

static bool is_ascii(const char *s, size_t n) {
    unsigned char any = 0;
    for (size_t i = 0; i < n; i++) any |= (unsigned char)s[i];
    return any < 0x80;
}

Status tokenizer_pieces(const Tokenizer *t, const char *text, size_t n, TokenIds *out) {
    Encoder e = {.t = t, .out = out};
    TextBytes valid = {0};
    Status st = OK;
    if (!is_ascii(text, n) && !utf8_valid(text, n, NULL)) {  /* nearly all text is ASCII, and that is quick to see */
        st = tokenizer_valid(text, n, &valid);
        text = valid.v, n = valid.n;
    }
    if (st == OK) st = encode_text(&e, text, n);
    mem_free(valid.v, e.room.now.v, e.room.next.v, e.words.v);
    return st;
}

Status tokenizer_encode(const Tokenizer *t, const char *text, size_t n, int max_len, int32_t *ids, int *count,
                        int64_t *full) {
    const TokenizerIds *s = &t->ids;
    BUG_ON(max_len <= s->nbegin + s->nend, "tokenizer: room for %d ids, %d stand around a text", max_len,
           s->nbegin + s->nend);
    /* counts on beyond its room: `full` wants to know */
    TokenIds out = {.v = ids, .cap = (size_t)(max_len - s->nend), .fixed = true};
    for (int i = 0; i < s->nbegin; i++) ids[out.n++] = s->begin[i];
    Status st = tokenizer_pieces(t, text, n, &out);
    if (full) *full = (int64_t)out.n + s->nend;
    *count = (int)(out.n < out.cap ? out.n : out.cap);
    for (int i = 0; i < s->nend; i++) ids[(*count)++] = s->end[i];
    return st;
}

/* ---- what it is ---- */

const Pieces *tokenizer_vocabulary(const Tokenizer *t) {
    return t->kind == KIND_WORDPIECE ? &t->wp.pieces : t->kind == KIND_UNIGRAM ? &t->unigram.pieces : &t->bpe.pieces;
}

const char *tokenizer_kind(const Tokenizer *t) {
    static const char *const names[] = {"WordPiece", "byte-level BPE", "SentencePiece BPE", "Unigram"};
    return names[t->kind];
}

int32_t tokenizer_size(const Tokenizer *t) {
    int32_t size = tokenizer_vocabulary(t)->size;
    return size > t->added.size ? size : t->added.size;
}

const TokenizerIds *tokenizer_ids(const Tokenizer *t) { return &t->ids; }
uint64_t tokenizer_hash(const Tokenizer *t) { return t->hash; }
void tokenizer_set_cleans(Tokenizer *t, bool cleans) { t->cleans = cleans; }
const char *tokenizer_chat(const Tokenizer *t) { return t->chat; }

int32_t tokenizer_find(const Tokenizer *t, const char *piece) {
    size_t n = strlen(piece);
    char bytes[PIECE_LONGEST];
    int32_t id = t->added.size ? pieces_find(&t->added, piece, n) : -1;
    if (id >= 0 || n > sizeof bytes) return id;              /* an added token goes before a piece, as in the text */
    if (t->kind != KIND_BYTES) return pieces_find(tokenizer_vocabulary(t), piece, n);
    int64_t count = bpe_bytes_of_letters(piece, n, bytes);
    return count < 0 ? -1 : pieces_find(&t->bpe.pieces, bytes, (size_t)count);
}

/* ---- opening ---- */

void tokenizer_take_wordpiece(Tokenizer *t) {
    const int32_t *special = t->wp.special;
    t->kind = KIND_WORDPIECE;
    t->ids = (TokenizerIds){.begin = {special[WP_CLS]}, .nbegin = 1, .end = {special[WP_SEP]}, .nend = 1,
                            .bos = special[WP_DEC], .eos = special[WP_SEP], .pad = special[WP_PAD],
                            .unk = special[WP_UNK]};
}

/* What decides the ids of a text; how ids become text again does not matter. */
static uint64_t hash_of(const Tokenizer *t) {
    if (t->kind == KIND_WORDPIECE) return t->wp.hash;
    const int32_t rules[] = {(int32_t)t->kind, (int32_t)t->split, (int32_t)t->mark, t->cut, t->ids.nbegin, t->ids.nend};
    uint64_t h = hash_bytes(HASH_START, rules, sizeof rules);
    h = hash_bytes(h, t->ids.begin, (size_t)t->ids.nbegin * sizeof *t->ids.begin);
    h = hash_bytes(h, t->ids.end, (size_t)t->ids.nend * sizeof *t->ids.end);
    h = pieces_hash(&t->added, normalizer_hash(&t->norm, h));
    return t->kind == KIND_UNIGRAM ? unigram_hash(&t->unigram, h) : bpe_hash(&t->bpe, h);
}

Status tokenizer_ready(Tokenizer *t, const char *name) {
    Status st = index_added(t, name);
    if (st == OK && t->kind == KIND_UNIGRAM) st = unigram_ready(&t->unigram, name);
    if (st == OK && (t->kind == KIND_BYTES || t->kind == KIND_MARKS)) st = bpe_ready(&t->bpe);
    if (st == OK) t->hash = hash_of(t);
    return st;
}
