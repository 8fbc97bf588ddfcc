/* hash: FNV-1a in 64 bits, wherever a name, a table or a file wants a number. Start with HASH_START and feed what
 * counts; the same bytes in the same order give the same number on every machine. Tells accidents apart, not attacks.
 * Source: Fowler, Noll, Vo, "The FNV Non-Cryptographic Hash Algorithm" (draft-eastlake-fnv). */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_START UINT64_C(0xcbf29ce484222325)

/* One round: a byte, or (where speed counts and only this process looks) a whole word. */
static inline uint64_t hash_word(uint64_t h, uint64_t word) { return (h ^ word) * UINT64_C(0x100000001b3); }

static inline uint64_t hash_bytes(uint64_t h, const void *x, size_t n) {
    const unsigned char *p = x;
    for (size_t i = 0; i < n; i++) h = hash_word(h, p[i]);
    return h;
}

/* With its final zero, so that "ab", "c" is not "a", "bc". */
static inline uint64_t hash_text(uint64_t h, const char *s) { return hash_bytes(h, s, strlen(s) + 1); }

static inline uint64_t hash_int(uint64_t h, int64_t v) {
    for (int i = 0; i < 8; i++) h = hash_word(h, (uint64_t)v >> (8 * i) & 0xff);
    return h;
}
