/* norm: what every kernel through a LayerNorm (LN), or the same without a mean (RMS), shares (norm.cu, embed.cu,
 * image.cu).
 *
 *   x^ = (z - mean) rstd,  y = x^ gamma + beta                                                          RMS: mean = 0
 * g = dn gamma,  dz = rstd (g - mean(g) - x^ mean(g x^)),  dgamma = sum dn x^,  dbeta = sum dn   (sums over rows; RMS:
 *   without mean(g))
 *
 * Three forms. A warp a row: C <= 256 K columns in registers, lane l has 8 l .. 8 l + 7 of each chunk of 256, lanes
 * beyond C hold zeros (z of the backward: the mean); gamma and beta lie in shared memory (columns_load). A block a row,
 * wide: thread t has columns 8 t .. 8 t + 7, so C <= 8192. A block a row, any C: the row comes through functions of the
 * column, so that each kernel says what z and dn are. */
#pragma once
#include "kernels/cuda/device.cuh"

enum { WARPS = 4 }; /* a block, of the kernels with a warp a row */

/* ---- a warp a row ---- */

template <int K> DEVICE void row_statistics(const float (*z)[8], int C, int lane, float eps, bool rms, float *mean,
                                            float *rstd) {
    float sum = 0, var = 0, m = 0;
    if (!rms) {
        UNROLL for (int k = 0; k < K; k++)
            UNROLL for (int e = 0; e < 8; e++) sum += z[k][e];
        m = warp_sum(sum) / (float)C;
    }
    UNROLL for (int k = 0; k < K; k++)
        if (k * 256 + lane * 8 < C)
            /* a second pass over registers: one pass would lose digits where the mean is large */
            UNROLL for (int e = 0; e < 8; e++) var += (z[k][e] - m) * (z[k][e] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(warp_sum(var) / (float)C + eps);
}

/* y of eight columns of chunk k. */
DEVICE void norm8(float y[8], const float z[8], const float *gamma, const float *beta, int k, int lane, float mean,
                  float rstd) {
    float w[8];
    columns_get(w, gamma, k, lane);
    columns_get(y, beta, k, lane);
    UNROLL for (int e = 0; e < 8; e++) y[e] += (z[e] - mean) * rstd * w[e];
}

/* dz in place of dn, x^ in place of z; adds the row to sum[0] (dgamma) and sum[1] (dbeta). */
template <int K> DEVICE void norm_backward(float (*dn)[8], float (*z)[8], float (*sum)[K][8], const float *gamma, int C,
                                           int lane, float mean, float rstd) {
    float sg = 0, sgx = 0;
    UNROLL for (int k = 0; k < K; k++) {
        float w[8];
        columns_get(w, gamma, k, lane);
        UNROLL for (int e = 0; e < 8; e++) {
            z[k][e] = (z[k][e] - mean) * rstd;
            sum[0][k][e] += dn[k][e] * z[k][e];
            sum[1][k][e] += dn[k][e];
            dn[k][e] *= w[e];
            sg += dn[k][e];
            sgx += dn[k][e] * z[k][e];
        }
    }
    sg = warp_sum(sg) / (float)C, sgx = warp_sum(sgx) / (float)C;
    UNROLL for (int k = 0; k < K; k++)
        UNROLL for (int e = 0; e < 8; e++) dn[k][e] = rstd * (dn[k][e] - sg - z[k][e] * sgx);
}

/* The block's sums over its rows: row i gridDim.x + block of `partial` is sum[i] of all warps, added in order. */
template <int K, int N>
DEVICE void leave_sums(float *partial, float (*room)[K * CHUNK], const float (*sum)[K][8], int n, int C) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    UNROLL for (int i = 0; i < N; i++) {
        if (i == n) break;
        __syncthreads();
        UNROLL for (int k = 0; k < K; k++) columns_put(room[warp], k, lane, sum[i][k]);
        __syncthreads();
        for (int c = threadIdx.x; c < C; c += WARPS * 32) {
            float t = 0;
            /* warps in order: the same bits every time */
            UNROLL for (int w = 0; w < WARPS; w++) t += room[w][column_at(c)];
            partial[((int64_t)i * gridDim.x + blockIdx.x) * C + c] = t;
        }
    }
}

/* ---- a block a row, eight columns a thread ---- */

/* Where the block's sums meet; every sum takes the other half (block_sums). */
typedef struct {
    float room[2][2][32];
} WideRoom;

static inline int wide_threads(int C) { return (C / 8 + 31) / 32 * 32; }

DEVICE void wide_statistics(const float z[8], int C, bool there, float eps, bool rms, WideRoom *w, int *turn,
                            float *mean, float *rstd) {
    float sum[1] = {0}, var[1] = {0}, m = 0;
    if (!rms) {
        UNROLL for (int e = 0; e < 8; e++) sum[0] += z[e];
        block_sums(sum, w->room[*turn ^= 1]);
        m = sum[0] / (float)C;
    }
    if (there)
        UNROLL for (int e = 0; e < 8; e++) var[0] += (z[e] - m) * (z[e] - m);
    block_sums(var, w->room[*turn ^= 1]);
    *mean = m;
    *rstd = 1.0f / sqrtf(var[0] / (float)C + eps);
}

/* As norm_backward; gamma of the thread's columns. */
template <bool SUMS> DEVICE void wide_backward(float dn[8], float z[8], float (*sum)[8], const float gamma[8], int C,
                                               WideRoom *w, int *turn, float mean, float rstd, bool rms) {
    float s[2] = {0, 0};
    UNROLL for (int e = 0; e < 8; e++) {
        z[e] = (z[e] - mean) * rstd;
        if (SUMS) sum[0][e] += dn[e] * z[e];
        if (SUMS) sum[1][e] += dn[e];
        dn[e] *= gamma[e];
        s[0] += dn[e];
        s[1] += dn[e] * z[e];
    }
    block_sums(s, w->room[*turn ^= 1]);
    float sg = rms ? 0.0f : s[0] / (float)C, sgx = s[1] / (float)C;
    UNROLL for (int e = 0; e < 8; e++) dn[e] = rstd * (dn[e] - sg - z[e] * sgx);
}

/* ---- a block a row, any C: z(c), dn(c) ---- */

template <class Z> DEVICE void block_statistics(int C, float eps, bool rms, float *mean, float *rstd, Z z) {
    __shared__ float room[33];
    float sum = 0, var = 0, m = 0;
    if (!rms) {
        for (int c = threadIdx.x; c < C; c += blockDim.x) sum += z(c);
        m = block_sum(sum, room) / (float)C;
    }
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float d = z(c) - m;
        var += d * d;
    }
    *mean = m;
    *rstd = 1.0f / sqrtf(block_sum(var, room) / (float)C + eps);
}

/* put(c, dz) for each column. */
template <class N, class Z, class P>
DEVICE void block_norm_backward(int C, const float *gamma, float mean, float rstd, bool rms, N dn, Z z, P put) {
    __shared__ float room[33];
    float sg = 0, sgx = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float g = dn(c) * gamma[c];
        sg += g;
        sgx += g * (z(c) - mean) * rstd;
    }
    sg = rms ? 0.0f : block_sum(sg, room) / (float)C;
    sgx = block_sum(sgx, room) / (float)C;
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        put(c, rstd * (dn(c) * gamma[c] - sg - (z(c) - mean) * rstd * sgx));
}

/* dgamma and dbeta over strips of `per` rows (blockIdx.y), a thread a column, dn(r, c) and z(r, c); rows blockIdx.y and
 * gridDim.y + blockIdx.y of `partial`. mean NULL: RMS. */
template <class N, class Z> DEVICE void strip_affine(float *partial, const float *mean, const float *rstd, int64_t rows,
                                                     int C, int64_t per, N dn, Z z) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    int64_t end = min(rows, ((int64_t)blockIdx.y + 1) * per);
    float dgamma = 0, dbeta = 0;
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        float d = dn(r, c);
        dgamma += d * (z(r, c) - (mean ? mean[r] : 0.0f)) * rstd[r];
        dbeta += d;
    }
    partial[(int64_t)blockIdx.y * C + c] = dgamma;
    partial[((int64_t)gridDim.y + blockIdx.y) * C + c] = dbeta;
}
