/* rotary: positions as angles of pairs of columns, in place.
 *
 *   a' = a cos - b sin      b' = b cos + a sin          (inverse, which is the backward: sin negated)
 *
 * Pairs are (j, j + R/2) or neighbours (2j, 2j+1) of the first R columns of each head. A thread turns eight pairs
 * (four, of neighbours): two (one) eights of columns, with their cosines and sines.
 *
 * Bytes: 2 N H R e; 4 N R of tables, once a head more from L1. Limited by memory. Limits of the fast kernel: halves
 * (heads, of neighbours) of whole eights, strides multiples of 8, 16-byte addresses; else a pair a thread. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 128 };

/* Row of the tables, or -1: stays as it is. */
DEVICE int64_t table_row(const Rotary &a, int64_t i) { return a.at ? a.at[i] : i % a.period; }

DEVICE void turn(float *x, float *y, float c, float s) {
    float a = *x, b = *y;
    *x = fmaf(a, c, -(b * s));
    *y = fmaf(b, c, a * s);
}

/* Eights a head: R / 16 of halves, R / 8 of neighbours. */
template <class T, bool NEIGHBOURS> static __global__ void rotary_fast(Rotary a, int eights) {
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = at / (a.H * eights);
    if (i >= a.N) return;
    int rest = (int)(at - i * a.H * eights), h = rest / eights, j = rest % eights * (NEIGHBOURS ? 4 : 8);
    int64_t row = table_row(a, i);
    if (row < 0) return;
    T *x = (T *)a.x + i * a.ld + h * a.D + (NEIGHBOURS ? 2 * j : j);
    const float *cs = a.cos + row * (a.R / 2) + j, *sn = a.sin + row * (a.R / 2) + j;
    float u[8], v[8], c[8], s[8], sign = a.inverse ? -1.0f : 1.0f;
    ld8(u, x);
    if (NEIGHBOURS) {
        ld4(c, cs);
        ld4(s, sn);
        UNROLL for (int e = 0; e < 4; e++) turn(&u[2 * e], &u[2 * e + 1], c[e], s[e] * sign);
    } else {
        ld8(v, x + a.R / 2);
        ld8(c, cs);
        ld8(s, sn);
        UNROLL for (int e = 0; e < 8; e++) turn(&u[e], &v[e], c[e], s[e] * sign);
        st8(x + a.R / 2, v);
    }
    st8(x, u);
}

template <class T> static __global__ void rotary_simple(Rotary a) {
    int n = a.R / 2;
    int64_t at = (int64_t)blockIdx.x * THREADS + threadIdx.x, i = at / (a.H * n);
    if (i >= a.N) return;
    int rest = (int)(at - i * a.H * n), j = rest % n;
    int64_t row = table_row(a, i);
    if (row < 0) return;
    T *x = (T *)a.x + i * a.ld + rest / n * a.D + (a.interleaved ? 2 * j : j), *y = x + (a.interleaved ? 1 : n);
    float u = ld1(x), v = ld1(y);
    turn(&u, &v, a.cos[row * n + j], a.inverse ? -a.sin[row * n + j] : a.sin[row * n + j]);
    st1(x, u);
    st1(y, v);
}

template <class T> static void rotary_(const Rotary *a) {
    if (!a->N || !a->H || !a->R) return;
    int whole = a->interleaved ? 8 : 16, eights = a->R / whole;
    bool fast = a->R % whole == 0 && a->D % 8 == 0 && a->ld % 8 == 0 && aligned16(a->x) && aligned16(a->cos) &&
                aligned16(a->sin);
    unsigned grid = (unsigned)ceil_div(a->N * a->H * (fast ? eights : a->R / 2), THREADS);
    if (!fast) rotary_simple<T><<<grid, THREADS, 0, cuda.compute>>>(*a);
    else if (a->interleaved) rotary_fast<T, true><<<grid, THREADS, 0, cuda.compute>>>(*a, eights);
    else rotary_fast<T, false><<<grid, THREADS, 0, cuda.compute>>>(*a, eights);
    cuda_launched("rotary");
}
EXPORT(rotary, (const Rotary *a), (a))
