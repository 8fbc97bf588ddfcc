/* heads: from hidden rows to normalised features and their similarities.
 *
 *   l2norm        n = max(|x|, 1e-12),  y = x / n                       dx = (dy - y <y, dy>) / n
 *       (dy / n below the bound)
 *   segment_mean  y[i] = mean of rows i Q .. i Q + Q of x               dx = dy / Q
 *   simmax        S[i,j] = max_q <I[i,q], T[j]>,  arg = the lowest such q
 *                 dI[i, arg[i,j]] += dS[i,j] T[j],   dT[j] += dS[i,j] I[i, arg[i,j]]
 *
 * simmax is a matrix product (ni Q, Z) x (Z, nt) that is never stored whole: tiles of images and texts go through gemm
 * into scratch (1 MB), and the maximum is taken there. Its backward is a sum of one row a pair: 2 ni nt Z
 * multiplications, a Q-th of the forward; each thread owns whole images (texts), in order. */
#include "kernels/cpu/cpu.h"

void FN(l2norm)(float *y, float *norm, const void *x0, int64_t N, int64_t Z) {
    const elem *x = x0;
#pragma omp parallel for schedule(static) if (PARALLEL(N * Z))
    for (int64_t r = 0; r < N; r++) {
        float s = 0.0f;
#pragma omp simd reduction(+ : s)
        for (int64_t c = 0; c < Z; c++) s += ld(x[r * Z + c]) * ld(x[r * Z + c]);
        /* the bound of torch.nn.functional.normalize: a row of zeros stays zeros */
        float n = fmaxf(sqrtf(s), 1e-12f), inv = 1.0f / n;
#pragma omp simd
        for (int64_t c = 0; c < Z; c++) y[r * Z + c] = ld(x[r * Z + c]) * inv;
        norm[r] = n;
    }
}

void FN(l2norm_bwd)(void *dx0, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z) {
    elem *dx = dx0;
#pragma omp parallel for schedule(static) if (PARALLEL(N * Z))
    for (int64_t r = 0; r < N; r++) {
        float dot = 0.0f, inv = 1.0f / norm[r];
#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < Z; c++) dot += dy[r * Z + c] * y[r * Z + c];
        if (norm[r] <= 1e-12f) dot = 0.0f;               /* the norm was the constant */
#pragma omp simd
        for (int64_t c = 0; c < Z; c++) dx[r * Z + c] = st((dy[r * Z + c] - y[r * Z + c] * dot) * inv);
    }
}

void FN(segment_mean)(void *y0, const void *x0, int64_t n, int64_t Q, int64_t C) {
    const elem *x = x0;
    elem *y = y0;
    enum { W = 64 };
#pragma omp parallel for schedule(static) if (PARALLEL(n * Q * C))
    for (int64_t i = 0; i < n; i++)
        for (int64_t c0 = 0; c0 < C; c0 += W) {
            int64_t w = MIN(C - c0, (int64_t)W);
            /* summed in f32 for either element type: Q rows of bf16 would lose digits */
            float s[W] = {0};
            for (int64_t q = 0; q < Q; q++) {
#pragma omp simd
                for (int64_t c = 0; c < w; c++) s[c] += ld(x[(i * Q + q) * C + c0 + c]);
            }
            for (int64_t c = 0; c < w; c++) y[i * C + c0 + c] = st(s[c] / (float)Q);
        }
}

void FN(segment_mean_bwd)(void *dx0, const void *dy0, int64_t n, int64_t Q, int64_t C, bool add) {
    elem *dx = dx0;
    const elem *dy = dy0;
    float inv = 1.0f / (float)Q;
#pragma omp parallel for schedule(static) if (PARALLEL(n * Q * C))
    for (int64_t r = 0; r < n * Q; r++) {
        const elem *d = dy + r / Q * C;
        elem *o = dx + r * C;
        if (add) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++) o[c] = st(ld(o[c]) + ld(d[c]) * inv);
        } else {
#pragma omp simd
            for (int64_t c = 0; c < C; c++) o[c] = st(ld(d[c]) * inv);
        }
    }
}

void FN(simmax)(float *S, int32_t *arg, const float *I, const float *T, int64_t ni, int64_t nt, int64_t Q, int64_t Z,
                int64_t si, int64_t sj) {
    /* a tile of 256 rows by 1,024 texts is 1 MB: it stays in L2 between product and maximum */
    int64_t ti = MAX((int64_t)1, MIN(ni, 256 / MAX(Q, (int64_t)1))), tj = MIN(nt, (int64_t)1024);
    float *tile;                                          /* (ti Q, tj) */
    if (posix_memalign((void **)&tile, 64, (size_t)(ti * Q * tj) * sizeof(float))) {
        cpu_fail(ERR_MEMORY, "simmax");
        return;
    }
    for (int64_t i0 = 0; i0 < ni; i0 += ti)
        for (int64_t j0 = 0; j0 < nt; j0 += tj) {
            int64_t mi = MIN(ti, ni - i0), mj = MIN(tj, nt - j0);
            FN(gemm)(&(Gemm){.m = mi * Q, .n = mj, .k = Z, .a = I + i0 * Q * Z, .lda = Z, .b = T + j0 * Z, .ldb = Z,
                             .tb = true, .c = tile, .ldc = mj, .ab = DT_F32, .ct = DT_F32});
#pragma omp parallel for schedule(static) if (PARALLEL(mi * Q * mj))
            for (int64_t i = 0; i < mi; i++)
                for (int64_t j = 0; j < mj; j++) {
                    const float *s = tile + i * Q * mj + j;
                    int64_t best = 0;
                    for (int64_t q = 1; q < Q; q++) /* a NaN is taken, and stays: no broken query vanishes */
                        if (s[q * mj] > s[best * mj] || (isnan(s[q * mj]) && !isnan(s[best * mj]))) best = q;
                    int64_t at = (i0 + i) * si + (j0 + j) * sj;
                    S[at] = s[best * mj];
                    /* retrieval wants no gradient, and passes NULL */
                    if (arg) arg[at] = (int32_t)best;
                }
        }
    free(tile);
}

void FN(simmax_bwd_image)(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t ni, int64_t nt,
                          int64_t Q, int64_t Z, int64_t si, int64_t sj) {
#pragma omp parallel for schedule(static) if (PARALLEL(ni * nt * Z))
    for (int64_t i = 0; i < ni; i++)
        for (int64_t j = 0; j < nt; j++) {
            /* the maximum's slope: 1 to the query that won, 0 to the others */
            float *d = dI + (i * Q + arg[i * si + j * sj]) * Z, s = dS[i * si + j * sj];
#pragma omp simd
            for (int64_t c = 0; c < Z; c++) d[c] = fmadd(s, T[j * Z + c], d[c]);
        }
}

void FN(simmax_bwd_text)(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni, int64_t nt,
                         int64_t Q, int64_t Z, int64_t si, int64_t sj) {
#pragma omp parallel for schedule(static) if (PARALLEL(ni * nt * Z))
    for (int64_t j = 0; j < nt; j++)
        for (int64_t i = 0; i < ni; i++) {
            const float *v = I + (i * Q + arg[i * si + j * sj]) * Z;
            float *d = dT + j * Z, s = dS[i * si + j * sj];
#pragma omp simd
            for (int64_t c = 0; c < Z; c++) d[c] = fmadd(s, v[c], d[c]);
        }
}
