/* bpe: see bpe.h. */
#include "data/text/bpe.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

/* ---- GPT-2's letters for bytes ---- */

/* Bytes that print stand for the character of that number; the other 68, in order, for U+0100 and what follows. */
static bool prints(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

static int byte_of_letter(uint32_t c) {
    if (c < 0x100) return prints(c) ? (int)c : -1;
    unsigned k = c - 0x100;
    if (k < 33) return (int)k;                       /* 0 .. 32 */
    return k < 67 ? (int)(127 + k - 33) : k == 67 ? 173 : -1; /* 127 to 160, then 173, the soft hyphen */
}

int64_t bpe_bytes_of_letters(const char *s, size_t n, char *out) {
    int64_t count = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += utf8_next(s + i, n - i, &c);
        int b = byte_of_letter(c);
        if (b < 0) return -1;
        out[count++] = (char)b;
    }
    return count;
}

/* ---- merges ---- */

static struct BpeMerge *merge_of(const Bpe *b, int32_t left, int32_t right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, h = pair * 0x9E3779B97F4A7C15u;
    size_t mask = ((size_t)1 << b->bits) - 1;
    h ^= h >> 32;
    /* the upper bits of a product are the mixed ones */
    for (size_t i = (size_t)(h * 0xC3A5C85C97CB3127u >> (64 - b->bits));; i = (i + 1) & mask) {
        struct BpeMerge *m = &b->merges[i];
        if (!m->rank || m->pair == pair) return m;
    }
}

Status bpe_begin_merges(Bpe *b, int64_t most, const char *name) {
    enum { MOST = 1 << 24 };
    if (most > MOST) return err_set(ERR_FORMAT, "%s: %lld merges; at most %d are taken", name, (long long)most, MOST);
    /* at most half full: a probe must meet an empty place */
    for (b->bits = 4; (int64_t)1 << b->bits < 2 * (most + 1); b->bits++) {}
    b->merges = mem_new((size_t)1 << b->bits, sizeof *b->merges);
    return b->merges ? OK : ERR_MEMORY;
}

Status bpe_add_merge(Bpe *b, const char *left, size_t nleft, const char *right, size_t nright, const char *name) {
    char made[PIECE_LONGEST];
    int32_t l = pieces_find(&b->pieces, left, nleft), r = pieces_find(&b->pieces, right, nright), m = -1;
    if (nleft + nright <= sizeof made) {
        memcpy(made, left, nleft);
        memcpy(made + nleft, right, nright);
        m = pieces_find(&b->pieces, made, nleft + nright);
    }
    b->nmerges++;                                            /* from 1: rank 0 is an empty place */
    if (l < 0 || r < 0 || m < 0)
        return err_set(ERR_FORMAT, "%s: merge %lld joins \"%.*s\" and \"%.*s\", and %s is no piece of the vocabulary",
                       name, (long long)b->nmerges, (int)(nleft < 40 ? nleft : 40), left,
                       (int)(nright < 40 ? nright : 40), right,
                       l < 0 ? "the first" : r < 0 ? "the second" : "what comes out");
    struct BpeMerge *at = merge_of(b, l, r);
    /* of two equal lines the last counts, as in a dictionary */
    *at = (struct BpeMerge){(uint64_t)(uint32_t)l << 32 | (uint32_t)r, (uint32_t)b->nmerges, m};
    return OK;
}

/* ---- one word ---- */

/* A symbol of the word: its id, the neighbours that are left, and the merge with the one on its right (rank 0: none).
 * id -1: joined to its left neighbour. */
typedef struct { int32_t id, before, after; uint32_t rank; int32_t made; } Symbol;

/* rank << 32 | place: the smallest is the merge to do next. An entry whose symbol has another merge by now is stale. */
typedef struct { uint64_t *v; size_t n; } Heap;

static void heap_push(Heap *h, uint64_t x) {
    size_t i = h->n++;
    for (size_t up; i > 0 && h->v[up = (i - 1) / 2] > x; i = up) h->v[i] = h->v[up];
    h->v[i] = x;
}

static uint64_t heap_pop(Heap *h) {
    uint64_t top = h->v[0], x = h->v[--h->n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < h->n; i = k) {
        if (k + 1 < h->n && h->v[k + 1] < h->v[k]) k++;
        if (h->v[k] >= x) break;
        h->v[i] = h->v[k];
    }
    h->v[i] = x;
    return top;
}

static void find_merge(const Bpe *b, Symbol *s, int32_t at, Heap *h) {
    if (at < 0 || s[at].after < 0) {
        if (at >= 0) s[at].rank = 0;
        return;
    }
    const struct BpeMerge *m = merge_of(b, s[at].id, s[s[at].after].id);
    s[at].rank = m->rank;
    s[at].made = m->made;
    if (m->rank) heap_push(h, (uint64_t)m->rank << 32 | (uint32_t)at);
}

static void join(const Bpe *b, Symbol *s, int32_t at, Heap *h) {
    int32_t gone = s[at].after;
    s[at].id = s[at].made;
    s[at].after = s[gone].after;
    if (s[at].after >= 0) s[s[at].after].before = at;
    s[gone].id = -1;
    s[gone].rank = 0;                                        /* what the heap has of it is stale now */
    find_merge(b, s, at, h);
    find_merge(b, s, s[at].before, h);                       /* its right neighbour is another piece now */
}

/* Symbols of a word that is not one piece; at most n. Over bytes one without a piece vanishes. */
static int32_t symbols_of_bytes(const Bpe *b, const char *s, size_t n, Symbol *out) {
    int32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->first[(unsigned char)s[i]];
        if (id >= 0) out[count++].id = id;
    }
    return count;
}

static bool has_bytes(const Bpe *b, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (b->first[(unsigned char)s[i]] < 0) return false;
    return b->fallback;
}

static int32_t symbols_of_characters(const Bpe *b, const char *s, size_t n, Symbol *out) {
    int32_t count = 0;
    bool unknown = false;
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c;
        len = utf8_next(s + i, n - i, &c);
        int32_t id = pieces_find(&b->pieces, s + i, len);
        bool was_unknown = unknown;
        unknown = false;
        if (id >= 0) out[count++].id = id;
        else if (has_bytes(b, s + i, len))
            for (size_t k = 0; k < len; k++) out[count++].id = b->first[(unsigned char)s[i + k]];
        else if (b->unk >= 0) {
            unknown = true;
            /* a run of them is one, where the file says so */
            if (!was_unknown || !b->fuse_unk) out[count++].id = b->unk;
        }
    }
    return count;
}

static Status merge_word(const Bpe *b, const char *s, size_t n, Symbol *sym, Heap h, TokenIds *out) {
    int32_t count = b->of_bytes ? symbols_of_bytes(b, s, n, sym) : symbols_of_characters(b, s, n, sym);
    for (int32_t i = 0; i < count; i++) sym[i].before = i - 1, sym[i].after = i + 1 < count ? i + 1 : -1;
    for (int32_t i = 0; i < count; i++) find_merge(b, sym, i, &h);
    while (h.n) {
        uint64_t top = heap_pop(&h);
        int32_t at = (int32_t)(uint32_t)top;
        if (sym[at].rank == top >> 32) join(b, sym, at, &h); /* else stale: the symbol has another merge, or is gone */
    }
    Status st = OK;
    for (int32_t i = count ? 0 : -1; i >= 0 && st == OK; i = sym[i].after) st = ids_push(out, sym[i].id);
    return st;
}

/* A heap entry is made for each symbol at first and for two at each of the fewer than n merges. */
static Status merge_long(const Bpe *b, const char *s, size_t n, TokenIds *out) {
    /* three entries a byte, places in 32 bits */
    if (n > INT32_MAX / 4) return err_set(ERR_USAGE, "a text of %zu bytes is too long for a tokenizer", n);
    Symbol *sym = mem_new(n, sizeof *sym);
    uint64_t *heap = mem_new(3 * n, sizeof *heap);
    Status st = sym && heap ? merge_word(b, s, n, sym, (Heap){heap, 0}, out) : ERR_MEMORY;
    mem_free(sym, heap);
    return st;
}

/* Most words are short: their room is on the stack. */
static Status merge_any(const void *b, const char *s, size_t n, TokenIds *out) {
    Symbol sym[PIECES_SHORT];
    uint64_t heap[3 * PIECES_SHORT];
    return n <= PIECES_SHORT ? merge_word(b, s, n, sym, (Heap){heap, 0}, out) : merge_long(b, s, n, out);
}

Status bpe_word(const Bpe *b, const char *s, size_t n, TokenIds *out) {
    int32_t id = pieces_find(&b->pieces, s, n);
    return id >= 0 && (b->ignore_merges || b->whole[id]) ? ids_push(out, id) : merge_any(b, s, n, out);
}

/* ---- opening ---- */

static void find_bytes(Bpe *b) {
    for (int c = 0; c < 256; c++) {
        char text[8] = {(char)c};
        if (!b->of_bytes) snprintf(text, sizeof text, "<0x%02X>", (unsigned)c);
        b->first[c] = pieces_find(&b->pieces, text, b->of_bytes ? 1 : 6);
    }
}

Status bpe_ready(Bpe *b) {
    find_bytes(b);
    return pieces_whole(&b->pieces, merge_any, b, &b->whole);
}

void bpe_close(Bpe *b) {
    pieces_close(&b->pieces);
    mem_free(b->merges, b->whole);
    *b = (Bpe){0};
}

/* Merges in no order of theirs: their hashes are added up. */
uint64_t bpe_hash(const Bpe *b, uint64_t h) {
    uint64_t sum = 0;
    for (size_t i = 0; b->merges && i < (size_t)1 << b->bits; i++) {
        const struct BpeMerge *m = &b->merges[i];
        /* a sum: places in the table depend on its size */
        if (m->rank) sum += hash_bytes(hash_bytes(HASH_START, &m->pair, sizeof m->pair), &m->rank, sizeof m->rank);
    }
    const int32_t flags[] = {b->of_bytes, b->ignore_merges, b->fallback, b->fuse_unk, b->unk};
    return hash_bytes(hash_bytes(pieces_hash(&b->pieces, h), &sum, sizeof sum), flags, sizeof flags);
}
