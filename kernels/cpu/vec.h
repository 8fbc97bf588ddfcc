/* vec: sixteen f32 at a time, for the loops whose reductions or masks the compiler does not get right by itself: AVX-512 where
 * the build has it, else the compiler's generic vectors.
 *
 * ldv and stv move n <= 16 elements of a row (the rest of the vector is zero); sums of a vector run as a fixed tree. */
#ifndef QF_CPU_VEC_H
#define QF_CPU_VEC_H
#include "kernels/cpu/cpu.h"

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t v16u __attribute__((vector_size(64), aligned(4), may_alias));

#define VEC_FN static inline __attribute__((always_inline, unused))

#ifdef __AVX512F__
#include <immintrin.h>

typedef __mmask16 mask16;

VEC_FN v16 v16_set(float x) { return (v16)_mm512_set1_ps(x); }
VEC_FN v16 v16_fma(v16 a, v16 b, v16 c) { return (v16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
VEC_FN v16 v16_max(v16 a, v16 b) { return (v16)_mm512_max_ps((__m512)a, (__m512)b); }                  /* b when one is NaN */
VEC_FN v16 v16_where(mask16 m, v16 x) { return (v16)_mm512_maskz_mov_ps(m, (__m512)x); }               /* else zero */
VEC_FN v16 v16_pick(mask16 m, v16 x, v16 y) { return (v16)_mm512_mask_mov_ps((__m512)y, m, (__m512)x); }     /* m ? x : y */
VEC_FN mask16 v16_at_least(v16u a, uint32_t b) { return _mm512_cmpge_epu32_mask((__m512i)a, _mm512_set1_epi32((int)b)); }
VEC_FN mask16 v16_negative(v16 x) { return _mm512_movepi32_mask((__m512i)x); }
VEC_FN v16 v16_inverse(v16 x) {         /* 14 bits, and one step of Newton: 2^-24 */
    __m512 r = _mm512_rcp14_ps((__m512)x);
    return (v16)_mm512_fmadd_ps(_mm512_fnmadd_ps((__m512)x, r, _mm512_set1_ps(1.0f)), r, r);
}
VEC_FN float v16_sum(v16 x) { return _mm512_reduce_add_ps((__m512)x); }
VEC_FN mask16 v16_first(int64_t n) { return (mask16)(n >= 16 ? 0xffffu : (1u << n) - 1u); }

#if ELEM_BF16
VEC_FN v16 ldv(const elem *p, int64_t n) {
    __m256i h = n >= 16 ? _mm256_loadu_si256((const __m256i *)(const void *)p) : _mm256_maskz_loadu_epi16(v16_first(n), p);
    return (v16)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}
VEC_FN void stv(elem *p, v16 x, int64_t n) {
#ifdef __AVX512BF16__                   /* to nearest even as st() does, but subnormals become zero */
    __m256i h = (__m256i)_mm512_cvtneps_pbh((__m512)x);
#else
    __m512i u = (__m512i)x, odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    __m256i h = _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fc0)));
#endif
    if (n >= 16) _mm256_storeu_si256((__m256i *)(void *)p, h);
    else _mm256_mask_storeu_epi16(p, v16_first(n), h);
}
#else
VEC_FN v16 ldv(const elem *p, int64_t n) {
    return n >= 16 ? *(const v16 *)p : (v16)_mm512_maskz_loadu_ps(v16_first(n), p);
}
VEC_FN void stv(elem *p, v16 x, int64_t n) {
    if (n >= 16) *(v16 *)p = x;
    else _mm512_mask_storeu_ps(p, v16_first(n), (__m512)x);
}
#endif
VEC_FN v16 ldf(const float *p, int64_t n) { return n >= 16 ? *(const v16 *)p : (v16)_mm512_maskz_loadu_ps(v16_first(n), p); }
VEC_FN void stf(float *p, v16 x, int64_t n) {
    if (n >= 16) *(v16 *)p = x;
    else _mm512_mask_storeu_ps(p, v16_first(n), (__m512)x);
}
VEC_FN v16u ld_bits(const uint16_t *p) { return (v16u)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)); }

#else   /* generic vectors; every function is inlined, so what a call of it would look like does not matter */
#pragma GCC diagnostic ignored "-Wpsabi"

typedef int32_t mask16 __attribute__((vector_size(64)));            /* -1 or 0 a lane */

VEC_FN v16 v16_set(float x) { return (v16){0.0f} + x; }
VEC_FN v16 v16_fma(v16 a, v16 b, v16 c) { return a * b + c; }
VEC_FN v16 v16_where(mask16 m, v16 x) { return (v16)((v16u)x & (v16u)m); }
VEC_FN v16 v16_pick(mask16 m, v16 x, v16 y) { return (v16)(((v16u)x & (v16u)m) | ((v16u)y & ~(v16u)m)); }
VEC_FN v16 v16_max(v16 a, v16 b) { return v16_pick(a > b, a, b); }
VEC_FN mask16 v16_at_least(v16u a, uint32_t b) { return (mask16)(a >= (v16u){0} + b); }
VEC_FN mask16 v16_negative(v16 x) { return (mask16)x < 0; }
VEC_FN v16 v16_inverse(v16 x) { return 1.0f / x; }
VEC_FN float v16_sum(v16 x) {
    float s[16];
    memcpy(s, &x, sizeof s);
    for (int h = 8; h; h /= 2) for (int i = 0; i < h; i++) s[i] += s[i + h];
    return s[0];
}
VEC_FN mask16 v16_first(int64_t n) {
    const mask16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return lane < (int32_t)n;
}
VEC_FN v16 ldv(const elem *p, int64_t n) {
    float x[16] = {0.0f};
    v16 v;
    if (n >= 16) for (int i = 0; i < 16; i++) x[i] = ld(p[i]);
    else for (int i = 0; i < n; i++) x[i] = ld(p[i]);
    memcpy(&v, x, sizeof v);
    return v;
}
VEC_FN void stv(elem *p, v16 v, int64_t n) {
    float x[16];
    memcpy(x, &v, sizeof v);
    if (n >= 16) for (int i = 0; i < 16; i++) p[i] = st(x[i]);
    else for (int i = 0; i < n; i++) p[i] = st(x[i]);
}
VEC_FN v16 ldf(const float *p, int64_t n) {
    v16 v = {0.0f};
    memcpy(&v, p, (size_t)MIN(n, (int64_t)16) * sizeof *p);
    return v;
}
VEC_FN void stf(float *p, v16 v, int64_t n) { memcpy(p, &v, (size_t)MIN(n, (int64_t)16) * sizeof *p); }
VEC_FN v16u ld_bits(const uint16_t *p) {
    v16u v;
    for (int i = 0; i < 16; i++) v[i] = p[i];
    return v;
}
#endif

/* exp_f32 of x <= 88; below -87.3 as there. */
VEC_FN v16 v16_exp(v16 x) {
    v16 c = v16_max(v16_set(-87.3f), x);
    v16 m = v16_fma(c, v16_set(1.44269504f), v16_set(12582912.0f)), n = m - 12582912.0f;
    v16 r = v16_fma(n, v16_set(-1.42860677e-6f), v16_fma(n, v16_set(-0.693145752f), c));
    v16 p = v16_fma(v16_set(0.00138144673f), r, v16_set(0.00836878034f));
    p = v16_fma(p, r, v16_set(0.0416683942f));
    p = v16_fma(p, r, v16_set(0.166665201f));
    p = v16_fma(p, r, v16_set(0.499999934f));
    p = v16_fma(p * r, r, r) + 1.0f;
    return (v16)((v16u)p + ((v16u)m << 23));
}

/* ---- dropout of a row: CHUNK channels are drawn together, then taken sixteen at a time ---- */
enum { CHUNK = 512 };                   /* a multiple of DROP_PAD */

typedef struct { const Dropout *d; v16 keep; uint32_t threshold; bool on; uint16_t bits[CHUNK]; } Mask;

VEC_FN void mask_open(Mask *m, const Dropout *d) {
    m->d = d;
    m->on = d->p > 0.0f;
    m->threshold = dropout_threshold(d->p);
    m->keep = v16_set(1.0f / (1.0f - d->p));
}

/* Bits of n <= CHUNK channels from c0 on. */
VEC_FN void mask_draw(Mask *m, int64_t row, int64_t c0, int64_t n) {
    if (m->on) cpu_dropout_bits(m->bits, m->d, m->d->rows[row], (uint32_t)(c0 / 8), (n + 7) / 8);
}

/* Channels c .. c + 15 of what was drawn. */
VEC_FN v16 masked(const Mask *m, v16 x, int64_t c) {
    return m->on ? v16_where(v16_at_least(ld_bits(m->bits + c), m->threshold), x * m->keep) : x;
}

#endif
