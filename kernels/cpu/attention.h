/* attention: what its two files share. Private to them. */
#pragma once
#include "kernels/cpu/vec.h"

/* n rows of D elements to f32 rows of padded(D); what is beyond D is zero. */
static inline void pack_rows(float *dst, const elem *src, int64_t lds, int64_t n, int64_t D) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < D; d += LANES) *(vec *)(dst + i * padded(D) + d) = ldv(src + i * lds + d, D - d);
}

/* Head h's bias at key - row = d, held within the table. */
static inline float bias_at(const Attn *a, int64_t h, int64_t d) {
    int64_t span = a->span, at = MAX(-span, MIN(span, d)) + span;
    return a->bias[h * (2 * span + 1) + at];
}

/* A plan whose items are single rows, without dropout: decoding. */
void FN(attention_single)(const Attn *a);
