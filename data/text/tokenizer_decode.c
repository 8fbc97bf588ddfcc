/* tokenizer_decode: from ids back to text; see tokenizer.h. */
#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer_parts.h"
#include "kernels/base/unicode.h"

static bool is_special(const Tokenizer *t, int32_t id) {
    return id >= 0 && id < t->added.size && t->added.len[id] && t->special[id];
}

static const char *piece_of(const Tokenizer *t, int32_t id, size_t *n) {
    const char *s = pieces_get(&t->added, id, n);            /* first: an added token may have a piece's id */
    return s ? s : pieces_get(tokenizer_vocabulary(t), id, n);
}

/* The next of n ids from *i on that has something to say; NULL behind the last. */
static const char *next_piece(const Tokenizer *t, const int32_t *ids, size_t n, size_t *i, size_t *len) {
    while (*i < n) {
        int32_t id = ids[(*i)++];
        const char *s = is_special(t, id) ? NULL : piece_of(t, id, len);
        if (s) return s;
    }
    return NULL;
}

/* ---- byte-level BPE: the pieces are the bytes ---- */

static Status decode_bytes(const Tokenizer *t, const int32_t *ids, size_t n, TextBytes *out) {
    TextBytes raw = {0};
    Status st = OK;
    const char *s;
    for (size_t i = 0, len; st == OK && (s = next_piece(t, ids, n, &i, &len));) st = bytes_push(&raw, s, len);
    if (st == OK) st = tokenizer_valid(raw.v, raw.n, out);   /* a model may stop in the middle of a character */
    free(raw.v);
    return st;
}

/* ---- SentencePiece: marks are blanks ---- */

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10
        : -1;
}

/* The byte that a piece "<0x..>" stands for; -1: none. */
static int byte_piece(const char *s, size_t n) {
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || hex(s[3]) < 0 || hex(s[4]) < 0) return -1;
    return hex(s[3]) << 4 | hex(s[4]);
}

/* A run of byte pieces is text when it is UTF-8, else U+FFFD for each byte. */
static Status put_run(TextBytes *run, TextBytes *out) {
    Status st = OK;
    if (utf8_valid(run->v, run->n, NULL)) st = bytes_push(out, run->v, run->n);
    else for (size_t i = 0; i < run->n && st == OK; i++) st = bytes_push(out, "\xEF\xBF\xBD", 3);
    run->n = 0;
    return st;
}

static Status put_marked(const char *s, size_t n, bool drop, TextBytes *out) {
    Status st = OK;
    for (size_t i = 0; i < n && st == OK;) {
        bool mark = n - i >= MARK_LEN && !memcmp(s + i, MARK, MARK_LEN);
        if (!mark) st = bytes_push(out, s + i, 1);
        else if (!drop) st = bytes_push(out, " ", 1);
        i += mark ? MARK_LEN : 1;
    }
    return st;
}

static Status decode_marks(const Tokenizer *t, const int32_t *ids, size_t n, TextBytes *out) {
    TextBytes run = {0};
    Status st = OK;
    const char *s;
    for (size_t i = 0, len; st == OK && (s = next_piece(t, ids, n, &i, &len));) {
        int byte = byte_piece(s, len);                       /* bytes of one character come as several pieces */
        if (byte >= 0) {
            st = bytes_push(&run, (char[]){(char)byte}, 1);
            continue;
        }
        st = put_run(&run, out);
        if (st == OK) st = put_marked(s, len, false, out);
    }
    if (st == OK) st = put_run(&run, out);
    free(run.v);
    /* the mark that encoding put in front */
    if (st == OK && !t->keep_front && out->n && out->v[0] == ' ') memmove(out->v, out->v + 1, --out->n);
    return st;
}

/* Unigram: the first piece loses its mark. */
static Status decode_words(const Tokenizer *t, const int32_t *ids, size_t n, TextBytes *out) {
    bool first = !t->keep_front;
    Status st = OK;
    const char *s;
    for (size_t i = 0, len; st == OK && (s = next_piece(t, ids, n, &i, &len)); first = false)
        st = put_marked(s, len, first, out);
    return st;
}

/* ---- cleaning up ---- */

/* Replaces in place, from left to right; `to` is not longer than `from`. The text may hold NULs. */
static size_t replace(char *s, size_t n, const char *from, const char *to) {
    size_t nfrom = strlen(from), nto = strlen(to), out = 0, i = 0;
    for (const char *found; (found = memmem(s + i, n - i, from, nfrom)) != NULL; i += nfrom) {
        size_t gap = (size_t)(found - (s + i));
        memmove(s + out, s + i, gap);
        memcpy(s + out + gap, to, nto);
        out += gap + nto;
        i += gap;
    }
    memmove(s + out, s + i, n - i);
    return out + n - i;
}

static size_t clean_up(char *s, size_t n) {
    static const char *const tidy[][2] = {   /* clean_up_tokenization, in its order */
        {" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
        {" 've", "'ve"}, {" 're", "'re"},
    };
    for (size_t i = 0; n && i < sizeof tidy / sizeof *tidy; i++) n = replace(s, n, tidy[i][0], tidy[i][1]);
    return n;
}

static Status decode_text(const Tokenizer *t, const int32_t *ids, size_t n, TextBytes *out) {
    if (t->kind == KIND_WORDPIECE) return wp_join(&t->wp, ids, n, out);
    return t->decode == DECODE_BYTES ? decode_bytes(t, ids, n, out)
        : t->decode == DECODE_MARKS ? decode_marks(t, ids, n, out) : decode_words(t, ids, n, out);
}

Status tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, char **text, size_t *len) {
    TextBytes out = {0};
    *text = NULL;
    Status st = decode_text(t, ids, n, &out);
    if (st == OK && t->cleans) out.n = clean_up(out.v, out.n);
    if (len) *len = out.n;
    if (st == OK) st = bytes_push(&out, "", 1);              /* the NUL; n is told without it */
    if (st == OK) *text = out.v;
    else free(out.v);
    return st;
}
