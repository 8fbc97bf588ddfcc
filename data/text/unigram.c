/* unigram: see unigram.h. */
#include "data/text/unigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { ROOT = 1 };

/* ---- the tree ---- */

static struct UnigramEdge *edge_of(const Unigram *u, uint32_t node, char byte) {
    uint32_t from = node << 8 | (unsigned char)byte;
    size_t mask = ((size_t)1 << u->bits) - 1;
    for (size_t i = (size_t)((from * 0x9E3779B97F4A7C15u) >> (64 - u->bits));; i = (i + 1) & mask) {
        struct UnigramEdge *e = &u->edges[i];
        if (!e->to || e->from == from) return e;
    }
}

static void add_piece(Unigram *u, int32_t id, const char *s, size_t n) {
    uint32_t node = ROOT;
    for (size_t i = 0; i < n; i++) {
        struct UnigramEdge *e = edge_of(u, node, s[i]);
        if (!e->to) {
            *e = (struct UnigramEdge){node << 8 | (unsigned char)s[i], ++u->nodes};
            u->piece_at[u->nodes] = -1;
        }
        node = e->to;
    }
    u->piece_at[node] = id;
}

static Status make_tree(Unigram *u, const char *name) {
    size_t bytes = u->pieces.used;
    if (bytes > (1u << 24) - 2)                              /* node and byte are one number of 32 bits */
        return err_set(ERR_FORMAT, "%s: %zu bytes of pieces; a unigram vocabulary has at most %u", name, bytes,
                       (1u << 24) - 2);
    for (u->bits = 4; (size_t)1 << u->bits < 2 * bytes; u->bits++) {}
    u->edges = mem_new((size_t)1 << u->bits, sizeof *u->edges);
    u->piece_at = mem_new(bytes + 2, sizeof *u->piece_at);
    if (!u->edges || !u->piece_at) return ERR_MEMORY;
    u->nodes = ROOT;
    u->piece_at[ROOT] = -1;
    for (int32_t id = 0; id < u->pieces.size; id++) {
        size_t n;
        const char *s = pieces_get(&u->pieces, id, &n);
        /* one that only decodes is no way through a text */
        if (s && pieces_find(&u->pieces, s, n) == id) add_piece(u, id, s, n);
    }
    return OK;
}

/* ---- one word ---- */

/* The best way to a place: its score, where its last piece starts (-1: no way yet) and which it is. */
typedef struct { double score; int32_t from, id; } Best;

static void offer(Best *b, double score, size_t from, int32_t id) {
    if (b->from < 0 || score > b->score) *b = (Best){score, (int32_t)from, id};
}

static void search(const Unigram *u, const char *s, size_t n, Best *best) {
    for (size_t i = 1; i <= n; i++) best[i].from = -1;
    best[0] = (Best){0, 0, -1};
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t c, node = ROOT;
        bool single = false;
        len = utf8_next(s + i, n - i, &c);
        for (size_t k = i; k < n && (node = edge_of(u, node, s[k])->to) != 0; k++) {
            int32_t id = u->piece_at[node];
            if (id < 0) continue;
            offer(&best[k + 1], best[i].score + u->score[id], i, id);
            single |= k + 1 - i == len;
        }
        /* unknown only where no piece is this very character */
        if (!single) offer(&best[i + len], best[i].score + u->unk_score, i, u->unk);
    }
}

/* The way is found from its end; turned round, from says where the next piece ends. */
static Status best_path(const Unigram *u, const char *s, size_t n, Best *best, TokenIds *out) {
    search(u, s, n, best);
    int32_t next = -1, last = -1;
    for (int32_t at = (int32_t)n, from; at > 0; at = from) {
        from = best[at].from;
        best[at].from = next;
        next = at;
    }
    Status st = OK;
    for (; next >= 0 && st == OK; next = best[next].from) {
        /* neighbouring unknown ones are one */
        if (best[next].id != u->unk || last != u->unk) st = ids_push(out, best[next].id);
        last = best[next].id;
    }
    return st;
}

static Status cut_any(const void *u, const char *s, size_t n, TokenIds *out) {
    Best best[PIECES_SHORT + 1];
    if (n <= PIECES_SHORT) return best_path(u, s, n, best, out);
    /* places are 32 bits */
    if (n > INT32_MAX / 4) return err_set(ERR_USAGE, "a text of %zu bytes is too long for a tokenizer", n);
    Best *many = mem_new(n + 1, sizeof *many);
    Status st = many ? best_path(u, s, n, many, out) : ERR_MEMORY;
    free(many);
    return st;
}

Status unigram_word(const Unigram *u, const char *s, size_t n, TokenIds *out) {
    int32_t id = pieces_find(&u->pieces, s, n);
    return id >= 0 && u->whole[id] ? ids_push(out, id) : cut_any(u, s, n, out);
}

/* ---- opening ---- */

static Status find_least(Unigram *u, const char *name) {
    double least = INFINITY;
    for (int32_t id = 0; id < u->pieces.size; id++) {
        size_t n;
        if (!pieces_get(&u->pieces, id, &n)) continue;
        if (!isfinite(u->score[id])) return err_set(ERR_FORMAT, "%s: the score of piece %d is not finite", name, id);
        least = fmin(least, u->score[id]);
    }
    u->unk_score = least - 10;                               /* kUnkPenalty of SentencePiece */
    return OK;
}

Status unigram_ready(Unigram *u, const char *name) {
    Status st = find_least(u, name);
    if (st == OK) st = make_tree(u, name);
    return st == OK ? pieces_whole(&u->pieces, cut_any, u, &u->whole) : st;
}

void unigram_close(Unigram *u) {
    pieces_close(&u->pieces);
    mem_free(u->score, u->edges, u->piece_at, u->whole);
    *u = (Unigram){0};
}

uint64_t unigram_hash(const Unigram *u, uint64_t h) {
    h = hash_bytes(pieces_hash(&u->pieces, h), u->score, (size_t)u->pieces.size * sizeof *u->score);
    return hash_bytes(h, &u->unk, sizeof u->unk);
}
