/* pieces: see pieces.h. */
#include "data/text/pieces.h"

#include <string.h>

#include "kernels/base/mem.h"

Status pieces_open(Pieces *p, int64_t size, int64_t count, size_t bytes, const char *name) {
    *p = (Pieces){.bits = 4};
    if (size > PIECES_MAX_IDS || count > PIECES_MAX_IDS || bytes > PIECES_MAX_BYTES)
        return err_set(ERR_FORMAT, "%s: %lld pieces of %zu bytes, ids up to %lld; a vocabulary has at most %d of %d",
                       name, (long long)count, bytes, (long long)size - 1, PIECES_MAX_IDS, PIECES_MAX_BYTES);
    p->room = bytes;
    p->size = (int32_t)size;
    while ((int64_t)1 << p->bits < 2 * count) p->bits++; /* half empty at least: a search ends soon */
    p->bytes = mem_new(bytes + 1, 1);
    p->start = mem_new((size_t)size + 1, sizeof *p->start);
    p->len = mem_new((size_t)size + 1, sizeof *p->len);
    p->slots = mem_new((size_t)1 << p->bits, sizeof *p->slots);
    if (p->bytes && p->start && p->len && p->slots) return OK;
    pieces_close(p);
    return ERR_MEMORY;
}

void pieces_close(Pieces *p) {
    mem_free(p->bytes, p->start, p->len, p->slots);
    *p = (Pieces){0};
}

/* n bytes, 1 to 7, as a number, by loads that overlap: memcpy of a length that is not known is a call. */
static uint64_t few_bytes(const char *s, size_t n) {
    uint32_t low, high;
    if (n < 4)
        return (uint64_t)(unsigned char)s[0] | (uint64_t)(unsigned char)s[n / 2] << 8 * (n / 2) |
               (uint64_t)(unsigned char)s[n - 1] << 8 * (n - 1);
    memcpy(&low, s, 4);
    memcpy(&high, s + n - 4, 4);
    return low | (uint64_t)high << 8 * (n - 4);
}

/* Eight bytes a multiplication; words are short, so this is most of what a lookup costs. */
static uint64_t hash_of(const char *s, size_t n) {
    uint64_t h = n * 0x9E3779B97F4A7C15u, x;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&x, s, 8);
        h = (h ^ x) * 0xC3A5C85C97CB3127u;
        h ^= h >> 32;
    }
    h = (h ^ (n ? few_bytes(s, n) : 0)) * 0x9AE16A3B2F90404Fu;  /* the rest, as if zeros stood behind */
    return (h ^ h >> 29) * 0xC3A5C85C97CB3127u;
}

static struct PieceSlot *slot_of(const Pieces *p, uint64_t h, const char *s, size_t n) {
    size_t mask = ((size_t)1 << p->bits) - 1;
    for (size_t i = (size_t)(h >> (64 - p->bits));; i = (i + 1) & mask) {
        struct PieceSlot *slot = &p->slots[i];
        if (!slot->id1) return slot;
        uint32_t id = slot->id1 - 1;
        /* 32 bits of the hash spare most compares */
        if (slot->check == (uint32_t)h && p->len[id] == n && !memcmp(p->bytes + p->start[id], s, n)) return slot;
    }
}

int32_t pieces_find(const Pieces *p, const char *s, size_t n) {
    /* no piece is as long: not even a hash */
    return !n || n > p->longest ? -1 : (int32_t)slot_of(p, hash_of(s, n), s, n)->id1 - 1;
}

Status pieces_set(Pieces *p, int64_t id, const char *s, size_t n, bool find, const char *name) {
    if (id < 0 || id >= p->size || !n || n > PIECE_LONGEST || n > p->room - p->used)
        return err_set(ERR_FORMAT,
                       "%s: the piece \"%.*s\" has the id %lld; ids go from 0 to %d, and a piece has 1 to %d bytes",
                       name, (int)(n < 40 ? n : 40), s, (long long)id, p->size - 1, PIECE_LONGEST);
    uint64_t h = hash_of(s, n);
    struct PieceSlot *slot = slot_of(p, h, s, n);
    if (p->len[id] || (find && slot->id1))
        return err_set(ERR_FORMAT, "%s: the piece \"%.*s\" or its id %lld stands there twice", name,
                       (int)(n < 40 ? n : 40), s, (long long)id);
    memcpy(p->bytes + p->used, s, n);
    p->start[id] = (uint32_t)p->used;
    p->len[id] = (uint32_t)n;
    p->used += n;
    if (!find) return OK;                                    /* an added token's text must not be found in words */
    *slot = (struct PieceSlot){(uint32_t)h, (uint32_t)id + 1};
    if (n > p->longest) p->longest = n;
    return OK;
}

const char *pieces_get(const Pieces *p, int32_t id, size_t *n) {
    *n = id >= 0 && id < p->size ? p->len[id] : 0;
    return *n ? p->bytes + p->start[id] : NULL;
}

uint64_t pieces_hash(const Pieces *p, uint64_t h) {
    for (int32_t id = 0; id < p->size; id++) {
        h = hash_bytes(h, &p->len[id], sizeof p->len[id]);
        h = hash_bytes(h, p->bytes + p->start[id], p->len[id]);
    }
    return h;
}

Status pieces_whole(const Pieces *p, PiecesCut *cut, const void *model, unsigned char **whole) {
    Status st = (*whole = mem_new((size_t)p->size + 1, 1)) ? OK : ERR_MEMORY;
    for (int32_t id = 0; id < p->size && st == OK; id++) {
        size_t n;
        const char *s = pieces_get(p, id, &n);
        int32_t one[2];                              /* a second one is enough to know */
        TokenIds out = {.v = one, .cap = 2, .fixed = true};
        if (!s || n > PIECES_SHORT || pieces_find(p, s, n) != id) continue;
        st = cut(model, s, n, &out);
        (*whole)[id] = out.n == 1 && one[0] == id;
    }
    return st;
}
