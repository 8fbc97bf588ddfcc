/* image: the affine-free norm of raw features, and the norm's affine part folded into the weights behind it.
 *
 *   f' = f scale;  x^ = (f' - mean) / sqrt(var + eps)            over the E channels of a row
 *   W' = W diag(gamma),  c' = b + W beta;      W (M,E)
 *   dW += G diag(gamma) + s beta^T,  db += s,  dgamma += column sums of G W,  dbeta += W^T s
 *       G = dY^T x^, s = colsum dY
 *
 * Bytes: normalize reads a row of t and writes one of elem (three passes in L1); fold reads 4ME, writes ME elem; unfold
 * reads G, W, dW and writes dW: 16ME. */
#include "kernels/cpu/cpu.h"

/* Bits of f16 and e4m3 are moved into f32's fields; the multiplication mends the exponent, subnormals included. */
static inline float from_f16(uint16_t h) {
    float v = from_bits((uint32_t)(h & 0x7fffu) << 13) * from_bits(0x77800000u);          /* 2^112 */
    uint32_t u = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u | (uint32_t)(h & 0x3ffu) << 13 : to_bits(v);
    return from_bits(u | (uint32_t)(h & 0x8000u) << 16);
}

static inline float from_e4m3(uint8_t x) {
    float v = from_bits((uint32_t)(x & 0x7fu) << 20) * from_bits(0x7b800000u);            /* 2^120 */
    uint32_t u = (x & 0x7fu) == 0x7fu ? 0x7fc00000u : to_bits(v);
    return from_bits(u | (uint32_t)(x & 0x80u) << 24);
}

static void load_row(float *v, const void *f, DType t, int64_t row, int64_t E) {
#define EACH(type, expr) { \
        const type *p = (const type *)f + row * E; \
        _Pragma("omp simd") for (int64_t c = 0; c < E; c++) v[c] = (expr); \
    } break
    switch (t) {
    case DT_F32: EACH(float, p[c]);
    case DT_F16: EACH(uint16_t, from_f16(p[c]));
    case DT_BF16: EACH(bf16, bf16_to_f32(p[c]));
    case DT_E4M3: EACH(uint8_t, from_e4m3(p[c]));
    case DT_I8: EACH(int8_t, (float)p[c]);
    default: BUG_ON(1, "normalize: features of type %s", dtype_name(t));
    }
#undef EACH
}

void FN(normalize)(void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E, int64_t P, float eps) {
    float *rows = cpu_scratch((size_t)omp_get_max_threads() * (size_t)E * sizeof(float));
    if (!rows) return;
#pragma omp parallel for schedule(static) if (PARALLEL(N * E))
    for (int64_t r = 0; r < N; r++) {
        float *v = rows + omp_get_thread_num() * E, sum = 0.0f, var = 0.0f, s = scale ? scale[r / P] : 1.0f;
        elem *y = (elem *)xhat + r * E;
        load_row(v, f, t, r, E);
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < E; c++) {
            /* i8's scale first: mean and variance are those of the features, eps is not scaled with them */
            v[c] *= s;
            sum += v[c];
        }
        float mean = sum / (float)E;
#pragma omp simd reduction(+ : var)
        for (int64_t c = 0; c < E; c++) {
            /* two passes: raw features have channels far from zero, where one pass cancels */
            v[c] -= mean;
            var += v[c] * v[c];
        }
        float rstd = 1.0f / sqrtf(var / (float)E + eps);
#pragma omp simd
        for (int64_t c = 0; c < E; c++) y[c] = st(v[c] * rstd);
    }
}

void FN(fold)(void *Wf, void *cf, const float *W, const float *b, const float *gamma, const float *beta, int64_t M,
              int64_t E) {
#pragma omp parallel for schedule(static) if (PARALLEL(M * E))
    for (int64_t m = 0; m < M; m++) {
        const float *w = W + m * E;
        elem *o = (elem *)Wf + m * E;
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < E; c++) {
            o[c] = st(w[c] * gamma[c]);
            /* f32 masters: the fold is rounded once, not the weights and then the fold */
            dot += w[c] * beta[c];
        }
        ((elem *)cf)[m] = st(b[m] + dot);
    }
}

void FN(unfold)(float *dW, bool add, float *db, float *dgamma, float *dbeta, const float *G, const float *s,
                const float *W, const float *gamma, const float *beta, int64_t M, int64_t E) {
    int64_t R = row_block(M), nb = row_blocks(M);
    float *partial = cpu_scratch((size_t)(nb * 2 * E) * sizeof(float));
    if (!partial) return;
#pragma omp parallel for schedule(static) if (PARALLEL(M * E))
    for (int64_t b = 0; b < nb; b++) {
        /* E numbers for all M rows: by blocks, as every sum over rows */
        float *pg = partial + b * 2 * E, *pb = pg + E;
        memset(pg, 0, (size_t)(2 * E) * sizeof(float));
        for (int64_t m = b * R; m < MIN(M, b * R + R); m++) {
            const float *g = G + m * E, *w = W + m * E;
            float *d = dW ? dW + m * E : NULL, sm = s[m];
#pragma omp simd
            for (int64_t c = 0; c < E; c++) {
                pg[c] = fmadd(g[c], w[c], pg[c]);
                pb[c] = fmadd(sm, w[c], pb[c]);
            }
            if (d && !add) memset(d, 0, (size_t)E * sizeof *d);
#pragma omp simd
            for (int64_t c = 0; c < (d ? E : 0); c++) d[c] += fmadd(g[c], gamma[c], sm * beta[c]);
            /* a row is one thread's: no partial sum is wanted */
            if (db) db[m] += sm;
        }
    }
    if (dgamma) cpu_add_partials(dgamma, partial, nb, 2 * E, E);
    if (dbeta) cpu_add_partials(dbeta, partial + E, nb, 2 * E, E);
}
