/* cpu: what the kernels of this folder share. Private to it.
 *
 * Every file here is compiled twice, with ELEM_BF16 0 and 1: `elem` is the element type, ld() and st() convert it from
 * and to f32, FN(x) gives each function of the backend its name (add_norm_f32, add_norm_bf16). Arithmetic is f32
 * everywhere.
 *
 * Loops are plain C that the compiler vectorises; what it cannot guess is written out: fma() (C11 mode never
 * contracts), exp and erf as polynomials without branches, Philox many calls side by side.
 *
 * Sums over rows are taken in at most ROW_BLOCKS blocks whose borders depend on the number of rows alone, each block in
 * order, then the blocks in order. So no result of this backend depends on timing or on the number of threads. */
#pragma once
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"

#if ELEM_BF16
typedef bf16 elem;
#define FN(name) name##_bf16
#define ELEM DT_BF16
static inline float ld(elem x) { return bf16_to_f32(x); }
static inline elem st(float x) { return bf16_from_f32(x); }
#else
typedef float elem;
#define FN(name) name##_f32
#define ELEM DT_F32
static inline float ld(elem x) { return x; }
static inline elem st(float x) { return x; }
#endif

/* says of each `omp simd` loop that it could not vectorise; what matters is written in vectors (vec.h) */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Work (elements touched, or a quarter of the products) below which a team of threads costs more than it gives. */
enum { PAR_WORK = 16384 };
#define PARALLEL(work) ((work) > PAR_WORK)

static inline float fmadd(float a, float b, float c) {
#ifdef __FMA__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

static inline float from_bits(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }
static inline uint32_t to_bits(float f) { uint32_t u; memcpy(&u, &f, sizeof u); return u; }

/* exp(x) within 1 ulp for x in [-87.3, 88]; x beyond is taken as that bound (softmax subtracts the maximum first, and
 * 1e-38 of it is nothing). NaN stays. n = round(x / ln 2), r = x - n ln 2, e^r = 1 + r + r^2 P(r) with P minimax
 * (2e-9), times 2^n. */
static inline float exp_f32(float x) {
    float c = x < -87.3f ? -87.3f : x;
    c = c > 88.0f ? 88.0f : c;
    /* 1.5 * 2^23: the sum's low bits are the integer */
    float m = fmadd(c, 1.44269504f, 12582912.0f), n = m - 12582912.0f;
    float r = fmadd(n, -1.42860677e-6f, fmadd(n, -0.693145752f, c));
    float p = fmadd(0.00138144673f, r, 0.00836878034f);
    p = fmadd(p, r, 0.0416683942f);
    p = fmadd(p, r, 0.166665201f);
    p = fmadd(p, r, 0.499999934f);
    p = fmadd(p * r, r, r) + 1.0f;
    return p * from_bits((to_bits(m) + 127u) << 23);
}

/* ---- sums over rows ---- */
enum { ROW_BLOCKS = 64, ROW_BLOCK_MIN = 16 };
static inline int64_t row_block(int64_t N) { return MAX((int64_t)ROW_BLOCK_MIN, (N + ROW_BLOCKS - 1) / ROW_BLOCKS); }
static inline int64_t row_blocks(int64_t N) { return (N + row_block(N) - 1) / row_block(N); }

/* out(n) += sum over blocks of partial(blocks, stride), in order. */
void cpu_add_partials(float *out, const float *partial, int64_t blocks, int64_t stride, int64_t n);

/* Scratch of the calling thread, 64-byte aligned, kept and grown; the next call gives the same memory again. NULL when
 * there is none (the error sticks). Kernels take it once, in front of their parallel region, for all threads. */
void *cpu_scratch(size_t bytes);
void cpu_fail(Status st, const char *what);   /* the first failure sticks until status() has told it */
Status cpu_status(void);

/* ---- dropout: bits of many blocks at once (rng.h says which bits belong where) ---- */

/* bits[8 i + e] = element e of block first + i of a row, i < n. Writes 8 n values rounded up to DROP_PAD. */
void cpu_dropout_bits(uint16_t *bits, const Dropout *d, RowKey row, uint32_t first, int64_t n);
enum { DROP_PAD = 64 };

/* ---- the kernels ---- */
#define OP(kind, name, params, args) void FN(name) params;
#include "kernels/backend.def"

extern const Backend backend_cpu_f32, backend_cpu_bf16;
