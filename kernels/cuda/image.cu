/* image: features in, and the fold of ln_vision into the key and value weights (DESIGN.md 1).
 *
 *   normalize   x^ = (v - mean) rstd,  v = f scale[row / P]           f of f16, bf16, f32, e4m3 or i8; no affine part
 *   fold        W'[m][j] = W[m][j] gamma[j],  c'[m] = b[m] + sum_j W[m][j] beta[j]
 *   unfold      dW[m][j] += G[m][j] gamma[j] + s[m] beta[j],  db[m] += s[m]
 *               dgamma[j] += sum_m G[m][j] W[m][j],  dbeta[j] += sum_m W[m][j] s[m]
 *
 * Bytes (T of e bytes, f of t): normalize NE (t + e); fold ME (4 + e); unfold 12 ME (G and W read, dW written; 16 ME
 * where it is added to) and 16 E of partial sums a strip. Limited by memory: at B = 128, P = 257, E = 1408 in bf16,
 * normalize 185 MB, 56 us of an H100; unfold of all layers (M = 9216) 156 MB, 47 us.
 *
 * The scaled number is rounded before anything is done with it (left alone, ptxas makes f scale - mean one operation):
 * a row of one byte a number gives the bits of the same row in f32.
 *
 * One warp a row with the row in registers (E % 8 == 0, E <= 1536: 72 registers, 28 warps an SM), else one block a row.
 * unfold: a thread a column, strips of rows, partial sums in the workspace, added in order. */
#include "kernels/cuda/norm.cuh"

#include <cuda_fp16.h>

/* e4m3 without infinities: shifted into place it is an f32 whose exponent is 120 too small, subnormals included. */
DEVICE float from_e4m3(uint32_t x) {
    float v = (x & 0x7f) == 0x7f ? __int_as_float(0x7fffffff) : __uint_as_float((x & 0x7f) << 20) * 0x1p120f;
    return x & 0x80 ? -v : v;
}
DEVICE float from_f16(uint32_t x) { return __half2float(__ushort_as_half((unsigned short)x)); }

DEVICE float feature1(const void *f, DType t, int64_t i) {
    switch (t) {
    case DT_F16: return from_f16(((const uint16_t *)f)[i]);
    case DT_BF16: return ld1((const bf16 *)f + i);
    case DT_E4M3: return from_e4m3(((const uint8_t *)f)[i]);
    case DT_I8: return (float)((const int8_t *)f)[i];
    default: return ((const float *)f)[i];
    }
}

DEVICE void feature8(float v[8], const void *f, DType t, int64_t i) {
    if (t == DT_F32) {
        ld8(v, (const float *)f + i);
    } else if (t == DT_BF16) {
        ld8(v, (const bf16 *)f + i);
    } else if (t == DT_F16) {
        uint4 u = *(const uint4 *)((const uint16_t *)f + i);
        uint32_t w[4] = {u.x, u.y, u.z, u.w};
        UNROLL for (int e = 0; e < 8; e++) v[e] = from_f16(w[e >> 1] >> (16 * (e & 1)) & 0xffff);
    } else {
        uint2 u = *(const uint2 *)((const uint8_t *)f + i);
        uint32_t w[2] = {u.x, u.y};
        UNROLL for (int e = 0; e < 8; e++) {
            uint32_t x = w[e >> 2] >> (8 * (e & 3)) & 0xff;
            v[e] = t == DT_I8 ? (float)(int8_t)x : from_e4m3(x);
        }
    }
}

template <class T, int K>
static __global__ __launch_bounds__(WARPS * 32) void normalize_fast(T *xhat, const void *f, DType t, const float *scale,
                                                                    int64_t N, int E, int64_t P, float eps) {
    int lane = threadIdx.x & 31;
    int64_t r = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (r >= N) return;
    float k1 = scale ? scale[r / P] : 1.0f, v[K][8], mean, rstd;
    UNROLL for (int k = 0; k < K; k++) {
        int c = k * 256 + lane * 8;
        UNROLL for (int e = 0; e < 8; e++) v[k][e] = 0;
        if (c < E) feature8(v[k], f, t, r * E + c);
    }
    UNROLL for (int k = 0; k < K; k++)
        UNROLL for (int e = 0; e < 8; e++) v[k][e] = __fmul_rn(v[k][e], k1); /* rounded here (see above) */
    row_statistics<K>(v, E, lane, eps, false, &mean, &rstd);
    UNROLL for (int k = 0; k < K; k++) {
        int c = k * 256 + lane * 8;
        if (c >= E) continue;
        UNROLL for (int e = 0; e < 8; e++) v[k][e] = (v[k][e] - mean) * rstd;
        st8(xhat + r * E + c, v[k]);
    }
}

template <class T> static __global__ void normalize_simple(T *xhat, const void *f, DType t, const float *scale, int E,
                                                           int64_t P, float eps) {
    int64_t r = blockIdx.x;
    float k = scale ? scale[r / P] : 1.0f, mean, rstd;
    auto v = [&](int c) { return __fmul_rn(feature1(f, t, r * E + c), k); };
    block_statistics(E, eps, false, &mean, &rstd, v);
    for (int c = threadIdx.x; c < E; c += blockDim.x) st1(xhat + r * E + c, (v(c) - mean) * rstd);
}

template <class T> static void normalize_(void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E,
                                          int64_t P, float eps) {
    if (!N) return;
    /* a warp a row and no loop: rows are many, and nothing is shared between them */
    unsigned grid = (unsigned)ceil_div(N, WARPS);
    T *x = (T *)xhat;
    int C = (int)E;
    /* 1536: a row of more columns does not stay in a warp's registers */
    if (E % 8 || E > 1536 || !aligned16(xhat) || !aligned16(f))
        normalize_simple<T><<<(unsigned)N, 128, 0, cuda.compute>>>(x, f, t, scale, C, P, eps);
    else if (E <= 256) normalize_fast<T, 1><<<grid, WARPS * 32, 0, cuda.compute>>>(x, f, t, scale, N, C, P, eps);
    else normalize_fast<T, 6><<<grid, WARPS * 32, 0, cuda.compute>>>(x, f, t, scale, N, C, P, eps);
    cuda_launched("normalize");
}
EXPORT(normalize, (void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E, int64_t P, float eps),
       (xhat, f, t, scale, N, E, P, eps))

/* ---- fold ------------------------------------------------------------------------------------------------------ */

/* A warp a row; four neighbouring columns a lane where the row allows it. */
template <class T> static __global__ void fold_kernel(T *Wf, T *cf, const float *W, const float *b, const float *gamma,
                                                      const float *beta, int64_t M, int64_t E, bool vector) {
    int lane = threadIdx.x & 31;
    int64_t m = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (m >= M) return;
    float sum = 0;
    if (vector) {
        for (int64_t j = lane * 4; j < E; j += 128) {
            float4 w = *(const float4 *)(W + m * E + j), k = *(const float4 *)(gamma + j),
                   o = *(const float4 *)(beta + j);
            sum += w.x * o.x + w.y * o.y + w.z * o.z + w.w * o.w;
            float v[4] = {w.x * k.x, w.y * k.y, w.z * k.z, w.w * k.w};
            st4(Wf + m * E + j, v);
        }
    } else {
        for (int64_t j = lane; j < E; j += 32) {
            float w = W[m * E + j];
            sum += w * beta[j];
            st1(Wf + m * E + j, w * gamma[j]);
        }
    }
    sum = warp_sum(sum);
    if (lane == 0) st1(cf + m, (b ? b[m] : 0.0f) + sum);
}

template <class T> static void fold_(void *Wf, void *cf, const float *W, const float *b, const float *gamma,
                                     const float *beta, int64_t M, int64_t E) {
    if (!M) return;
    bool vector = E % 4 == 0 && aligned16(Wf) && aligned16(W) && aligned16(gamma) && aligned16(beta);
    fold_kernel<T><<<(unsigned)ceil_div(M, WARPS), WARPS * 32, 0, cuda.compute>>>((T *)Wf, (T *)cf, W, b, gamma, beta,
                                                                                  M, E, vector);
    cuda_launched("fold");
}
EXPORT(fold,
       (void *Wf, void *cf, const float *W, const float *b, const float *gamma, const float *beta, int64_t M,
        int64_t E),
       (Wf, cf, W, b, gamma, beta, M, E))

static __global__ void unfold_kernel(float *dW, bool add, float *db, float *partial, const float *G,
                                     const float *s, const float *W, const float *gamma, const float *beta,
                                     int64_t M, int64_t E, int64_t per) {
    int64_t j = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * per, end = min(M, first + per);
    if (blockIdx.x == 0 && db) /* the first columns' blocks alone: s is added once, not once a block of columns */
        for (int64_t m = first + threadIdx.x; m < end; m += blockDim.x) db[m] += s[m];
    if (j >= E) return;
    float k = gamma[j], o = beta[j], dgamma = 0, dbeta = 0;
#pragma unroll 4
    for (int64_t m = first; m < end; m++) {
        float g = G[m * E + j], w = W[m * E + j], sm = s[m];
        dgamma += g * w;
        dbeta += w * sm;
        /* of frozen weights gamma and beta may still learn */
        if (dW) dW[m * E + j] = (add ? dW[m * E + j] : 0.0f) + (g * k + sm * o);
    }
    partial[blockIdx.y * E + j] = dgamma;
    partial[((int64_t)gridDim.y + blockIdx.y) * E + j] = dbeta;
}

void cuda_unfold(float *dW, bool add, float *db, float *dgamma, float *dbeta, const float *G, const float *s,
                 const float *W, const float *gamma, const float *beta, int64_t M, int64_t E) {
    if (!M || !E) return;
    /* eight blocks an SM over columns and strips; strips of 16 rows at least, or partial sums would weigh more than
     * rows */
    int columns = (int)ceil_div(E, 128), parts = row_parts(M, E, 2, 16, (int)ceil_div(cuda.sms * 8, columns));
    float *partial = (float *)cuda_workspace((size_t)parts * 2 * (size_t)E * sizeof(float), "unfold");
    if (!partial) return;
    dim3 grid((unsigned)columns, (unsigned)parts);
    unfold_kernel<<<grid, 128, 0, cuda.compute>>>(dW, add, db, partial, G, s, W, gamma, beta, M, E, ceil_div(M, parts));
    cuda_launched("unfold");
    float *dst[3] = {dgamma, dbeta, NULL};
    cuda_add_partials(dst, partial, parts, E, E);
}
