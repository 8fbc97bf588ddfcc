/* heads: from hidden rows to normalised features and their similarities.
 *
 *   l2norm        n = max(|x|, 1e-12),  y = x / n          dx = (dy - y <y, dy>) / n   (dy / n below the bound)
 *   segment_mean  y[i] = mean of rows i Q .. i Q + Q of x  dx = dy / Q
 *   simmax        S[i,j] = max_q <I[i,q], T[j]>,           dI[i, arg[i,j]] += dS[i,j] T[j]
 *                 arg = the lowest such q                  dT[j] += dS[i,j] I[i, arg[i,j]]
 *
 * simmax is an f32 product (ni Q, Z) x (Z, nt) whose maximum over q is taken in the block that made it: a block owns
 * one image and 64 texts, multiplies 32 queries x 64 texts at a time out of shared memory (4 x 4 a thread), and keeps
 * the running maximum; the (ni, nt, Q) products never lie in memory. 2 ni Q nt Z operations: 0.27 GFLOP at B = G = 128
 * (10 us of an H100), 2.1 at G = 1024. Bytes: I once for each 64 texts, T once an image (L2), S and arg written once.
 * 56 registers, 17 KB of shared memory: 9 blocks (36 warps) an SM; no bank conflicts.
 *
 * Its backward reads one row a pair: 2 ni nt Z operations. A block owns an image (a text) and 64 (128) of its columns
 * and walks over the texts (images) in order: no atomics. T (I) comes from L2 each time: ni nt Z 4 bytes.
 *
 * l2norm moves NZ (e + 4) bytes forward, NZ (8 + e) backward; segment_mean (Q + 1) / Q of its larger side. */
#include "kernels/cuda/device.cuh"

enum { WARPS = 4 };

/* ---- l2norm ---------------------------------------------------------------------------------------------------- */

template <class T> static __global__ void l2norm_kernel(float *y, float *norm, const T *x, int64_t N, int64_t Z) {
    int lane = threadIdx.x & 31;
    int64_t r = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (r >= N) return;
    float s = 0;
    for (int64_t c = lane; c < Z; c += 32) s += ld1(x + r * Z + c) * ld1(x + r * Z + c);
    /* the bound of torch.nn.functional.normalize: a row of zeros stays zeros */
    float n = fmaxf(sqrtf(warp_sum(s)), 1e-12f), inv = 1.0f / n;
    for (int64_t c = lane; c < Z; c += 32) y[r * Z + c] = ld1(x + r * Z + c) * inv;
    if (lane == 0) norm[r] = n;
}

template <class T> static __global__ void l2norm_bwd_kernel(T *dx, const float *dy, const float *y, const float *norm,
                                                            int64_t N, int64_t Z) {
    int lane = threadIdx.x & 31;
    int64_t r = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    if (r >= N) return;
    float dot = 0, n = norm[r], inv = 1.0f / n;
    for (int64_t c = lane; c < Z; c += 32) dot += dy[r * Z + c] * y[r * Z + c];
    dot = warp_sum(dot);
    if (n <= 1e-12f) dot = 0; /* the norm was the constant */
    for (int64_t c = lane; c < Z; c += 32) st1(dx + r * Z + c, (dy[r * Z + c] - y[r * Z + c] * dot) * inv);
}

template <class T> static void l2norm_(float *y, float *norm, const void *x, int64_t N, int64_t Z) {
    if (!N) return;
    l2norm_kernel<T><<<(unsigned)ceil_div(N, WARPS), WARPS * 32, 0, cuda.compute>>>(y, norm, (const T *)x, N, Z);
    cuda_launched("l2norm");
}
template <class T>
static void l2norm_bwd_(void *dx, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z) {
    if (!N) return;
    l2norm_bwd_kernel<T><<<(unsigned)ceil_div(N, WARPS), WARPS * 32, 0, cuda.compute>>>((T *)dx, dy, y, norm, N, Z);
    cuda_launched("l2norm_bwd");
}
EXPORT(l2norm, (float *y, float *norm, const void *x, int64_t N, int64_t Z), (y, norm, x, N, Z))
EXPORT(l2norm_bwd, (void *dx, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z),
       (dx, dy, y, norm, N, Z))

/* ---- segment mean ---------------------------------------------------------------------------------------------- */

template <class T> static __global__ void mean_kernel(T *y, const T *x, int64_t n, int64_t Q, int64_t C) {
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, i = at / C, c = at - i * C;
    if (i >= n) return;
    float s = 0;
#pragma unroll 4
    /* in f32 whatever T is, in the order of the rows */
    for (int64_t q = 0; q < Q; q++) s += ld1(x + (i * Q + q) * C + c);
    st1(y + at, s / (float)Q);
}

template <class T>
static __global__ void mean_bwd_kernel(T *dx, const T *dy, int64_t n, int64_t Q, int64_t C, bool add) {
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, r = at / C, c = at - r * C;
    if (r >= n * Q) return;
    float d = ld1(dy + r / Q * C + c) * (1.0f / (float)Q);
    st1(dx + at, add ? ld1(dx + at) + d : d);
}

template <class T> static void segment_mean_(void *y, const void *x, int64_t n, int64_t Q, int64_t C) {
    if (!n || !C) return;
    mean_kernel<T><<<(unsigned)ceil_div(n * C, 128), 128, 0, cuda.compute>>>((T *)y, (const T *)x, n, Q, C);
    cuda_launched("segment_mean");
}
template <class T> static void segment_mean_bwd_(void *dx, const void *dy, int64_t n, int64_t Q, int64_t C, bool add) {
    if (!n || !C || !Q) return;
    mean_bwd_kernel<T>
        <<<(unsigned)ceil_div(n * Q * C, 256), 256, 0, cuda.compute>>>((T *)dx, (const T *)dy, n, Q, C, add);
    cuda_launched("segment_mean_bwd");
}
EXPORT(segment_mean, (void *y, const void *x, int64_t n, int64_t Q, int64_t C), (y, x, n, Q, C))
EXPORT(segment_mean_bwd, (void *dx, const void *dy, int64_t n, int64_t Q, int64_t C, bool add), (dx, dy, n, Q, C, add))

/* ---- similarity-max -------------------------------------------------------------------------------------------- */

/* Whether x takes the place of the largest so far: a NaN does, and stays: no broken query may vanish in a maximum. */
DEVICE bool is_above(float x, float top) { return x > top || (isnan(x) && !isnan(top)); }

/* 128 threads: thread (tq, tj) = (t / 16, t % 16) owns queries 4 tq.. and texts 4 tj... Slices of 32 channels, stored
 * channel by channel; a row of 36 (68) floats keeps 16-byte reads aligned. A warp brings 8 channels (a sector) of 4
 * rows at a time: their banks 4 z + row are all different. */
enum { TQ = 32, TJ = 64, TZ = 32 };
static __global__ __launch_bounds__(128) void simmax_kernel(float *S, int32_t *arg, const float *I, const float *T,
                                                            int64_t nt, int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    __shared__ __align__(16) float a[TZ][TQ + 4], b[TZ][TJ + 4];
    __shared__ __align__(16) float best[TQ / 4][TJ];
    /* which query won travels with its value: gradients go back to it alone */
    __shared__ __align__(16) int32_t best_q[TQ / 4][TJ];
    int t = threadIdx.x, tq = t >> 4, tj = t & 15;
    int64_t i = blockIdx.x, j0 = (int64_t)blockIdx.y * TJ;
    float top[4]; /* of this thread's queries so far, a text each */
    int32_t top_q[4];
    UNROLL for (int y = 0; y < 4; y++) top[y] = -INFINITY, top_q[y] = 0;
    for (int64_t q0 = 0; q0 < Q; q0 += TQ) {
        float acc[4][4] = {{0}};
        for (int64_t z0 = 0; z0 < Z; z0 += TZ) { /* zeros beyond Q, nt and Z: they change no product */
            __syncthreads();
            for (int k = t; k < TQ * TZ; k += 128) {
                int r = (k >> 7) * 4 + (k >> 3 & 3), c = (k >> 5 & 3) * 8 + (k & 7);
                a[c][r] = q0 + r < Q && z0 + c < Z ? I[(i * Q + q0 + r) * Z + z0 + c] : 0.0f;
            }
            for (int k = t; k < TJ * TZ; k += 128) {
                int r = (k >> 7) * 4 + (k >> 3 & 3), c = (k >> 5 & 3) * 8 + (k & 7);
                b[c][r] = j0 + r < nt && z0 + c < Z ? T[(j0 + r) * Z + z0 + c] : 0.0f;
            }
            __syncthreads();
#pragma unroll 8
            for (int z = 0; z < TZ; z++) {
                float4 u = *(float4 *)&a[z][tq * 4], v = *(float4 *)&b[z][tj * 4];
                float x[4] = {u.x, u.y, u.z, u.w}, y[4] = {v.x, v.y, v.z, v.w};
                UNROLL for (int m = 0; m < 4; m++)
                    UNROLL for (int n = 0; n < 4; n++) acc[m][n] = fmaf(x[m], y[n], acc[m][n]);
            }
        }
        UNROLL for (int m = 0; m < 4; m++) {
            int64_t q = q0 + tq * 4 + m;
            UNROLL for (int n = 0; n < 4; n++)
                /* rows beyond Q would win with their 0 where all products are negative */
                if (q < Q && is_above(acc[m][n], top[n])) top[n] = acc[m][n], top_q[n] = (int32_t)q;
        }
    }
    *(float4 *)&best[tq][tj * 4] = make_float4(top[0], top[1], top[2], top[3]);
    *(int4 *)&best_q[tq][tj * 4] = make_int4(top_q[0], top_q[1], top_q[2], top_q[3]);
    __syncthreads();
    if (t >= TJ || j0 + t >= nt) return;
    float m = best[0][t];
    int32_t q = best_q[0][t];
    /* of equals the lowest query, as the CPU has it: gradients go to the same one */
    for (int k = 1; k < TQ / 4; k++)
        if (is_above(best[k][t], m) || (!is_above(m, best[k][t]) && best_q[k][t] < q)) m = best[k][t], q = best_q[k][t];
    int64_t at = i * si + (j0 + t) * sj;
    S[at] = m;
    if (arg) arg[at] = q;
}

void cuda_simmax(float *S, int32_t *arg, const float *I, const float *T, int64_t ni, int64_t nt, int64_t Q, int64_t Z,
                 int64_t si, int64_t sj) {
    int64_t most = (int64_t)65535 * TJ; /* of grid.y: 4.2 million texts */
    for (int64_t j = 0; ni && j < nt; j += most) {
        int64_t n = nt - j < most ? nt - j : most;
        dim3 grid((unsigned)ni, (unsigned)ceil_div(n, TJ));
        simmax_kernel<<<grid, 128, 0, cuda.compute>>>(S + j * sj, arg ? arg + j * sj : NULL, I, T + j * Z, n, Q, Z, si,
                                                      sj);
        cuda_launched("simmax");
    }
}

/* A block: one image, 64 columns; the image's Q rows of them add up in shared memory. */
enum { BZ = 64, BQ = 128 };
static __global__ void simmax_image_kernel(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t nt,
                                           int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    __shared__ float sum[BQ][BZ];
    int64_t i = blockIdx.x, z = (int64_t)blockIdx.y * BZ + threadIdx.x, q0 = (int64_t)blockIdx.z * BQ;
    int nq = (int)min((int64_t)BQ, Q - q0);
    if (z >= Z) return; /* columns are a thread's own: no barriers below */
    /* added up here, written once: dI's rows would go over memory nt times */
    for (int q = 0; q < nq; q++) sum[q][threadIdx.x] = 0;
#pragma unroll 4
    for (int64_t j = 0; j < nt; j++) {
        int64_t at = i * si + j * sj, q = arg[at] - q0;
        /* columns are a thread's own, texts come in order: no atomics */
        if (q >= 0 && q < nq) sum[q][threadIdx.x] += dS[at] * T[j * Z + z];
    }
    for (int q = 0; q < nq; q++) dI[(i * Q + q0 + q) * Z + z] += sum[q][threadIdx.x];
}

void cuda_simmax_bwd_image(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t ni, int64_t nt,
                           int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    if (!ni || !nt) return;
    /* 128 rows of 64 columns are 32 KB of the 48 that need no asking: more queries are more blocks */
    dim3 grid((unsigned)ni, (unsigned)ceil_div(Z, BZ), (unsigned)ceil_div(Q, BQ));
    simmax_image_kernel<<<grid, BZ, 0, cuda.compute>>>(dI, dS, arg, T, nt, Q, Z, si, sj);
    cuda_launched("simmax_bwd_image");
}

static __global__ void simmax_text_kernel(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni,
                                          int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    int64_t j = blockIdx.x, z = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (z >= Z) return;
    float sum = 0;
#pragma unroll 4
    /* images in order, for the same reason */
    for (int64_t i = 0; i < ni; i++) {
        int64_t at = i * si + j * sj;
        sum += dS[at] * I[(i * Q + arg[at]) * Z + z];
    }
    dT[j * Z + z] += sum;
}

void cuda_simmax_bwd_text(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni, int64_t nt,
                          int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    if (!ni || !nt) return;
    simmax_text_kernel<<<dim3((unsigned)nt, (unsigned)ceil_div(Z, 128)), 128, 0, cuda.compute>>>(dT, dS, arg, I, ni, Q,
                                                                                                 Z, si, sj);
    cuda_launched("simmax_bwd_text");
}
