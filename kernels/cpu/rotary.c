/* rotary: positions as angles of pairs of columns, in place.
 *
 *   a' = a cos - b sin      b' = b cos + a sin          (inverse, which is the backward: sin negated)
 *
 * Pairs are (j, j + R/2) or neighbours (2j, 2j+1) of the first R columns of each head. A row's R/2 cosines and sines
 * serve all its heads and stay in L1. Bound by memory: reads and writes H R elements a row. */
#include "kernels/cpu/vec.h"

static void turn_halves(elem *x, const float *cos_, const float *sin_, int64_t n, float sign) {
    for (int64_t j = 0; j < n; j += LANES) {
        /* both before either is written: they turn into each other */
        vec a = ldv(x + j, n - j), b = ldv(x + n + j, n - j), c = ldf(cos_ + j, n - j), s = ldf(sin_ + j, n - j) * sign;
        stv(x + j, vec_fma(a, c, -(b * s)), n - j);
        stv(x + n + j, vec_fma(b, c, a * s), n - j);
    }
}

static void turn_neighbours(elem *x, const float *cos_, const float *sin_, int64_t n, float sign) {
    for (int64_t j = 0; j < n; j++) {
        float a = ld(x[2 * j]), b = ld(x[2 * j + 1]), c = cos_[j], s = sin_[j] * sign;
        x[2 * j] = st(fmadd(a, c, -(b * s)));
        x[2 * j + 1] = st(fmadd(b, c, a * s));
    }
}

void FN(rotary)(const Rotary *a) {
    int64_t n = a->R / 2;
    float sign = a->inverse ? -1.0f : 1.0f;
#pragma omp parallel for schedule(static) if (PARALLEL(a->N * a->H * a->R))
    for (int64_t i = 0; i < a->N; i++) {
        int64_t at = a->at ? a->at[i] : i % a->period;
        /* cls and registers stand nowhere in the picture */
        if (at < 0) continue;
        for (int64_t h = 0; h < a->H; h++) {
            elem *x = (elem *)a->x + i * a->ld + h * a->D;
            (a->interleaved ? turn_neighbours : turn_halves)(x, a->cos + at * n, a->sin + at * n, n, sign);
        }
    }
}
