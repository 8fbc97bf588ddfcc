/* vec: LANES f32 at a time, for the loops whose reductions or masks the compiler does not get right by itself: sixteen
 * with AVX-512, eight with AVX, four elsewhere. Generic vectors of the compiler do most of it; intrinsics where they do
 * not.
 *
 * ldv and stv move n elements of a row, at most LANES (the rest of the vector is zero). `x OP y` works by lanes. */
#pragma once
#include "kernels/cpu/cpu.h"
#ifdef __AVX__
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t hvec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* n rounded up to whole vectors */
static inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

/* Every function is inlined, so how a call of it would pass vectors does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"
#define VEC_FN static inline __attribute__((always_inline, unused))

VEC_FN vec vec_set(float x) { return x - (vec){0.0f}; }                /* x - 0 is x, the sign of zero included */

/* a b + c;  the larger (b when one is NaN);  m ? x : y;  m ? x : 0;  lanes where a >= b, where x has its sign set,
 * where x > 0, first n */
#if LANES == 16
typedef __mmask16 mask;
VEC_FN vec vec_fma(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
VEC_FN vec vec_max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
VEC_FN vec vec_pick(mask m, vec x, vec y) { return (vec)_mm512_mask_mov_ps((__m512)y, m, (__m512)x); }
VEC_FN vec vec_where(mask m, vec x) { return (vec)_mm512_maskz_mov_ps(m, (__m512)x); }
VEC_FN mask vec_at_least(uvec a, uint32_t b) { return _mm512_cmpge_epu32_mask((__m512i)a, _mm512_set1_epi32((int)b)); }
VEC_FN mask vec_negative(vec x) { return _mm512_movepi32_mask((__m512i)x); }
VEC_FN mask vec_positive(vec x) { return _mm512_cmp_ps_mask((__m512)x, _mm512_setzero_ps(), _CMP_GT_OQ); }
VEC_FN mask vec_first(int64_t n) { return (mask)(n >= 16 ? 0xffffu : (1u << n) - 1u); }
VEC_FN mask vec_not(mask m) { return (mask)~m; }
VEC_FN float vec_sum(vec x) { return _mm512_reduce_add_ps((__m512)x); }
VEC_FN vec vec_inverse(vec x) {         /* 14 bits, and one step of Newton: 2^-24 */
    __m512 r = _mm512_rcp14_ps((__m512)x);
    return (vec)_mm512_fmadd_ps(_mm512_fnmadd_ps((__m512)x, r, _mm512_set1_ps(1.0f)), r, r);
}
#else
typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4)));            /* -1 or 0 a lane */
VEC_FN vec vec_where(mask m, vec x) { return (vec)((uvec)x & (uvec)m); }
#if LANES == 8
VEC_FN vec vec_pick(mask m, vec x, vec y) { return (vec)_mm256_blendv_ps((__m256)y, (__m256)x, (__m256)m); }
VEC_FN vec vec_max(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
#else
VEC_FN vec vec_pick(mask m, vec x, vec y) { return (vec)(((uvec)x & (uvec)m) | ((uvec)y & ~(uvec)m)); }
VEC_FN vec vec_max(vec a, vec b) { return vec_pick((mask)(a > b), a, b); }
#endif
#ifdef __FMA__
VEC_FN vec vec_fma(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
#else
VEC_FN vec vec_fma(vec a, vec b, vec c) { return a * b + c; }
#endif
VEC_FN mask vec_at_least(uvec a, uint32_t b) { return (mask)(a >= b); }
VEC_FN mask vec_negative(vec x) { return (mask)x < 0; }
VEC_FN mask vec_positive(vec x) { return (mask)(x > 0.0f); }
VEC_FN mask vec_first(int64_t n) {
    mask lane;
    for (int i = 0; i < LANES; i++) lane[i] = i;
    return lane < (int32_t)MIN(n, (int64_t)LANES);
}
VEC_FN mask vec_not(mask m) { return ~m; }
VEC_FN float vec_sum(vec x) {
    for (int h = LANES / 2; h; h /= 2)
        for (int i = 0; i < h; i++) x[i] += x[i + h];
    return x[0];
}
VEC_FN vec vec_inverse(vec x) { return 1.0f / x; }
#endif

/* The sums of four, each in vec_sum's order. */
VEC_FN void vec_sum4(float out[4], const vec x[4]) {
#if LANES == 16
    __m512 half[2];
    for (int i = 0; i < 2; i++) {
        __m512 a = (__m512)x[2 * i], b = (__m512)x[2 * i + 1];
        half[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
    }
    __m512 s = _mm512_add_ps(_mm512_shuffle_f32x4(half[0], half[1], 0x88),
                             _mm512_shuffle_f32x4(half[0], half[1], 0xDD));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4E));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xB1));
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s)));
#else
    for (int i = 0; i < 4; i++) out[i] = vec_sum(x[i]);
#endif
}

/* ---- to and from memory ---- */
VEC_FN vec ldf(const float *p, int64_t n) {
    if (n >= LANES) return *(const vec *)p;
#if LANES == 16
    return (vec)_mm512_maskz_loadu_ps(vec_first(n), p);
#else
    vec v = {0.0f};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}

VEC_FN void stf(float *p, vec v, int64_t n) {
    if (n >= LANES) {
        *(vec *)p = v;
        return;
    }
#if LANES == 16
    _mm512_mask_storeu_ps(p, vec_first(n), (__m512)v);
#else
    for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}

/* numbers of 16 bits, which f32 holds exactly */
#if LANES == 16
VEC_FN __m256i half_load(const uint16_t *p, int64_t n) {
    if (n >= 16) return _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm256_maskz_loadu_epi16(vec_first(n), p);
}
VEC_FN vec ld_bf16(const bf16 *p, int64_t n) {
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half_load(p, n)), 16);
}
VEC_FN vec ld_f16(const uint16_t *p, int64_t n) { return (vec)_mm512_cvtph_ps(half_load(p, n)); }
#else
VEC_FN hvec half_load(const uint16_t *p, int64_t n) {
    if (n >= LANES) return *(const hvec *)p;
    hvec h = {0};
    for (int i = 0; i < n; i++) h[i] = p[i];
    return h;
}
VEC_FN vec ld_bf16(const bf16 *p, int64_t n) {
    return (vec)(__builtin_convertvector(half_load(p, n), uvec) << 16);
}
VEC_FN vec ld_f16(const uint16_t *p, int64_t n) {
    hvec h = half_load(p, n);
#ifdef __F16C__
    return (vec)_mm256_cvtph_ps((__m128i)h);
#else
    vec v;
    for (int i = 0; i < LANES; i++) v[i] = f16_to_f32(h[i]);
    return v;
#endif
}
#endif

#if ELEM_BF16
#if LANES == 16
VEC_FN __m256i narrowed(vec x) {
#ifdef __AVX512BF16__                   /* to nearest even as st() does, but subnormals become zero */
    return (__m256i)_mm512_cvtneps_pbh((__m512)x);
#else
    __m512i u = (__m512i)x, odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(r, nan, _mm512_set1_epi32(0x7fc0)));
#endif
}
VEC_FN void stv(elem *p, vec x, int64_t n) {
    if (n >= 16) _mm256_storeu_si256((__m256i *)(void *)p, narrowed(x));
    else _mm256_mask_storeu_epi16(p, vec_first(n), narrowed(x));
}
#else
VEC_FN hvec narrowed(vec x) {
    uvec u = (uvec)x, r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16, nan = (uvec)(x != x);
    return __builtin_convertvector((r & ~nan) | (0x7fc0u & nan), hvec);
}
VEC_FN void stv(elem *p, vec x, int64_t n) {
    hvec h = narrowed(x);
    if (n >= LANES) *(hvec *)p = h;
    else for (int i = 0; i < n; i++) p[i] = h[i];
}
#endif
VEC_FN vec ldv(const elem *p, int64_t n) { return ld_bf16(p, n); }
#else
VEC_FN vec ldv(const elem *p, int64_t n) { return ldf(p, n); }
VEC_FN void stv(elem *p, vec x, int64_t n) { stf(p, x, n); }
#endif

/* From element `at` of an array of elem, or of what is held in 16 bits. */
VEC_FN vec ld_held(const void *p, int64_t at, const DType held, int64_t n) {
    if (!ELEM_BF16 && held == DT_BF16) return ld_bf16((const bf16 *)p + at, n);
    if (!ELEM_BF16 && held == DT_F16) return ld_f16((const uint16_t *)p + at, n);
    return ldv((const elem *)p + at, n);
}

VEC_FN uvec ld_bits(const uint16_t *p) {
#if LANES == 16
    return (uvec)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
#else
    return __builtin_convertvector(*(const hvec *)p, uvec);
#endif
}

/* exp_f32 of x <= 88; below -87.3 as there. */
VEC_FN vec vec_exp(vec x) {
    vec c = vec_max(vec_set(-87.3f), x);
    vec m = vec_fma(c, vec_set(1.44269504f), vec_set(12582912.0f)), n = m - 12582912.0f;
    vec r = vec_fma(n, vec_set(-1.42860677e-6f), vec_fma(n, vec_set(-0.693145752f), c));
    vec p = vec_fma(vec_set(0.00138144673f), r, vec_set(0.00836878034f));
    p = vec_fma(p, r, vec_set(0.0416683942f));
    p = vec_fma(p, r, vec_set(0.166665201f));
    p = vec_fma(p, r, vec_set(0.499999934f));
    p = vec_fma(p * r, r, r) + 1.0f;
    return (vec)((uvec)p + ((uvec)m << 23));
}

/* ---- transposing LANES x LANES: rows i and i + LANES / 2 are interleaved, log2(LANES) times ---- */
#if LANES == 16
#define VEC_LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define VEC_HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif LANES == 8
#define VEC_LOW(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define VEC_HIGH(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define VEC_LOW(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define VEC_HIGH(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

VEC_FN void vec_transpose(vec r[LANES]) {
    for (int step = LANES; step > 1; step /= 2) {
        vec t[LANES];
        for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = VEC_LOW(r[i], r[i + LANES / 2]);
            t[2 * i + 1] = VEC_HIGH(r[i], r[i + LANES / 2]);
        }
        for (int i = 0; i < LANES; i++) r[i] = t[i];
    }
}

/* ---- dropout of a row: CHUNK channels are drawn together, then taken a vector at a time ---- */
enum { CHUNK = 512 };                   /* a multiple of DROP_PAD and of LANES */

typedef struct { const Dropout *d; vec keep; uint32_t threshold; bool on; uint16_t bits[CHUNK]; } Mask;

VEC_FN void mask_open(Mask *m, const Dropout *d) {
    m->d = d;
    m->on = d->p > 0.0f;
    m->threshold = dropout_threshold(d->p);
    m->keep = vec_set(1.0f / (1.0f - d->p));
}

/* Bits of n <= CHUNK channels from c0 on. */
VEC_FN void mask_draw(Mask *m, int64_t row, int64_t c0, int64_t n) {
    if (m->on) cpu_dropout_bits(m->bits, m->d, m->d->rows[row], (uint32_t)(c0 / 8), (n + 7) / 8);
}

/* The vector of channels from c on of what was drawn. */
VEC_FN vec masked(const Mask *m, vec x, int64_t c) {
    return m->on ? vec_where(vec_at_least(ld_bits(m->bits + c), m->threshold), x * m->keep) : x;
}

/* One block of LANES rows: word i of row r holds elements 2i (low half) and 2i + 1 of the block's eight. */
void cpu_dropout_words(uint32_t words[4][LANES], const Dropout *d, const RowKey rows[LANES], uint32_t block);
