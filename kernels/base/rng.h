/* rng: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the same on host and
 * device.
 *
 * Random bits depend on where, not on when: the counter is the place (site, pair, token, channel), the key is (seed,
 * step). Nothing is stored: backward draws the mask that forward drew, CUDA the mask that the CPU draws, a resumed run
 * the mask it would have drawn, and a pair its own masks on whichever rank it stands. */
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define RNG_FN static __host__ __device__ __forceinline__
#else
#define RNG_FN static inline
#endif

typedef struct { uint32_t v[4]; } Philox;

/* Where a row of activations comes from: the pair's index in the global batch;
 * token = index in its segment | pass << 16. */
typedef struct { uint32_t pair, token; } RowKey;

/* One dropout: p in [0, 1), the run's seed, the step, the place in the model.
 * p = 0 switches it off (rows may be NULL). */
typedef struct { float p; uint32_t site; uint64_t seed; uint32_t step; const RowKey *rows; } Dropout;

/* Places that draw. A layer has SITE_PER_LAYER of its own from SITE_LAYER on. */
enum { SITE_EMBED = 0, SITE_NEGATIVE_IMAGE = 1, SITE_NEGATIVE_TEXT = 2, SITE_INIT = 3, SITE_DATA = 4, SITE_SAMPLE = 5,
       SITE_LAYER = 16, SITE_PER_LAYER = 8,
       SITE_SELF_PROB = 0, SITE_SELF_OUT = 1, SITE_CROSS_PROB = 2, SITE_CROSS_OUT = 3, SITE_FFN_OUT = 4,
       SITE_FFN_IN = 5, SITE_ENTER = 6, SITE_LEAVE = 7,
       /* of a language model: its layers, and behind those of T5's encoder the decoder's */
       SITE_LM = 1 << 15, SITE_LM_SIDE = 1 << 14 };

RNG_FN Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
    for (int r = 0; r < 10; r++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Philox out = {{c0, c1, c2, c3}};
    return out;
}

/* The same for many blocks (c0) of many rows (c1, c2), in pieces, so that who draws them all does each piece once: the
 * keys of the rounds, and what a row alone and a block alone bring to the first two rounds. */
typedef struct { uint32_t k0[10], k1[10]; } PhiloxKeys;
typedef struct { uint32_t c0, c2, c3; } PhiloxRow;
typedef struct { uint32_t c0, c1, c2; } PhiloxBlock;

RNG_FN PhiloxKeys philox_keys(uint32_t k0, uint32_t k1) {
    PhiloxKeys k;
    for (uint32_t r = 0; r < 10; r++) k.k0[r] = k0 + r * 0x9E3779B9u, k.k1[r] = k1 + r * 0xBB67AE85u;
    return k;
}
RNG_FN PhiloxRow philox_row(const PhiloxKeys *k, uint32_t c1, uint32_t c2) {
    uint64_t b = (uint64_t)0xCD9E8D57u * c2, a = (uint64_t)0xD2511F53u * ((uint32_t)(b >> 32) ^ c1 ^ k->k0[0]);
    PhiloxRow row = {(uint32_t)b ^ k->k0[1], (uint32_t)(a >> 32) ^ k->k1[1], (uint32_t)a};
    return row;
}
RNG_FN PhiloxBlock philox_block(const PhiloxKeys *k, uint32_t c0, uint32_t c3) {
    uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * ((uint32_t)(a >> 32) ^ c3 ^ k->k1[0]);
    PhiloxBlock block = {(uint32_t)(b >> 32), (uint32_t)b, (uint32_t)a};
    return block;
}
RNG_FN Philox philox_join(const PhiloxKeys *k, PhiloxRow row, PhiloxBlock block) {
    uint32_t c0 = block.c0 ^ row.c0, c1 = block.c1, c2 = block.c2 ^ row.c2, c3 = row.c3;
    for (int r = 2; r < 10; r++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k->k0[r], c2 = (uint32_t)(a >> 32) ^ c3 ^ k->k1[r];
        c1 = (uint32_t)b, c3 = (uint32_t)a;
    }
    Philox out = {{c0, c1, c2, c3}};
    return out;
}

RNG_FN uint32_t rng_key0(uint64_t seed) { return (uint32_t)seed ^ ((uint32_t)(seed >> 32) * 0x85EBCA6Bu); }

/* Sixteen random bits an element, eight elements a call. Element e of a row belongs to block e / 8.
 * Activations: e = channel. Attention probabilities: block = (head << 20) + key / 8,
 * key counted in the item's key list. */
RNG_FN Philox dropout_block(const Dropout *d, RowKey row, uint32_t block) {
    return philox(block, row.token, row.pair, d->site, rng_key0(d->seed), d->step);
}

RNG_FN uint32_t dropout_bits(Philox x, uint32_t e) {       /* e in [0, 8) */
    return (x.v[e >> 1] >> ((e & 1u) * 16u)) & 0xffffu;
}

/* An element is kept when its bits are >= the threshold; kept values are multiplied by 1 / (1 - p). */
RNG_FN uint32_t dropout_threshold(float p) { return (uint32_t)(p * 65536.0f + 0.5f); }

RNG_FN int dropout_keep(const Dropout *d, RowKey row, uint32_t e) {
    return dropout_bits(dropout_block(d, row, e >> 3), e & 7u) >= dropout_threshold(d->p);
}

RNG_FN float rng_unit(uint32_t bits) { return (float)(bits >> 8) * (1.0f / 16777216.0f); }   /* [0, 1) */
