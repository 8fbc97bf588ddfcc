/* norm: residual, dropout and LayerNorm.
 *
 *   z = x + dropout(s + bias)        mean, rstd over the C channels of a row        y = (z - mean) rstd gamma + beta
 *
 *   backward through the norm with dn = dy (norm.cuh); dz of that:
 *   dx = dz,  ds = dz dropped out as s was,  dbias = sum ds                                          (sums over rows)
 *
 * y is the norm of z as it is stored (rounded to T), so that the backward's x^ is the forward's. One warp a row, the
 * row in registers, eight neighbouring channels a lane and chunk of 256; gamma, beta, bias once a block, in shared
 * memory.
 *
 * Bytes (T elements of e bytes): forward reads s, x and writes z, y: 4NC e, plus 8N, plus 12C a block (up to 6 blocks
 * an SM). Backward reads dy, z and writes ds, dx: 4NC e (5NC when dx is added to), plus 8N, 4C and 12C of partial sums
 * a block (3 an SM), and those once more. Both limited by memory: at N = 20,000, C = 768, bf16 forward 123 MB, 37 us of
 * an H100.
 *
 * Limits of the fast kernels: C % 8 == 0, C <= 1536 forward, C <= 768 backward; the simple kernels take anything.
 * Registers: forward 72 at C = 768 (28 warps an SM), backward 168 (12 warps an SM, 6 loads of 16 bytes a lane in
 * flight). */
#include "kernels/cuda/norm.cuh"

/* Blocks of the backward an SM must hold: sm_100's compiler needs more registers than that leaves. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
enum { BACK_BLOCKS = 2 };
#else
enum { BACK_BLOCKS = 3 };
#endif

template <class T, int K> static __global__ __launch_bounds__(WARPS * 32) void add_norm_fast(AddNorm a) {
    __shared__ __align__(16) float gamma[K * CHUNK], beta[K * CHUNK], bias[K * CHUNK];
    int lane = threadIdx.x & 31, C = a.C;
    columns_load<K>(gamma, a.gamma, C);
    columns_load<K>(beta, a.beta, C);
    if (a.bias) columns_load<K>(bias, a.bias, C);
    __syncthreads();
    for (int64_t r = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5); r < a.N; r += (int64_t)gridDim.x * WARPS) {
        T *s = (T *)a.s + r * C;
        const T *x = (const T *)a.x + r * C;
        float z[K][8];
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
#pragma unroll
            for (int e = 0; e < 8; e++) z[k][e] = 0;
            if (c < C) ld8(z[k], s + c);
        }
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            float v[8];
            if (a.bias) {
                columns_get(v, bias, k, lane);
#pragma unroll
                for (int e = 0; e < 8; e++) z[k][e] += v[e];
            }
            if (a.drop.p > 0) drop8(z[k], a.drop, a.drop.rows[r], (uint32_t)c >> 3);
            if (a.x) {
                ld8(v, x + c);
#pragma unroll
                for (int e = 0; e < 8; e++) z[k][e] += v[e];
            }
#pragma unroll
            for (int e = 0; e < 8; e++) z[k][e] = as_stored(s, z[k][e]);
            st8(s + c, z[k]);
        }
        float mean, rstd;
        row_statistics<K>(z, C, lane, a.eps, &mean, &rstd);
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            float y[8];
            norm8(y, z[k], gamma, beta, k, lane, mean, rstd);
            st8((T *)a.y + r * C + c, y);
        }
        if (lane == 0) a.mean[r] = mean, a.rstd[r] = rstd;
    }
}

/* One block a row, any C: each thread meets the elements that it wrote itself. */
template <class T> static __global__ void add_norm_simple(AddNorm a) {
    int64_t r = blockIdx.x;
    int C = a.C;
    T *s = (T *)a.s + r * C, *y = (T *)a.y + r * C;
    const T *x = (const T *)a.x + r * C;
    for (int c = threadIdx.x; c < C; c += blockDim.x) {
        float v = ld1(s + c) + (a.bias ? a.bias[c] : 0.0f);
        if (a.drop.p > 0) v = drop1(v, a.drop, a.drop.rows[r], (uint32_t)c);
        st1(s + c, a.x ? v + ld1(x + c) : v);
    }
    float mean, rstd;
    block_statistics(C, a.eps, &mean, &rstd, [&](int c) { return ld1(s + c); });
    for (int c = threadIdx.x; c < C; c += blockDim.x) st1(y + c, (ld1(s + c) - mean) * rstd * a.gamma[c] + a.beta[c]);
    if (threadIdx.x == 0) a.mean[r] = mean, a.rstd[r] = rstd;
}

static bool aligned(const AddNorm *a) {
    return a->C % 8 == 0 && aligned16(a->s) && aligned16(a->x) && aligned16(a->y) && aligned16(a->bias) &&
           aligned16(a->gamma) && aligned16(a->beta);
}

template <class T> static void add_norm_(const AddNorm *a) {
    if (!a->N) return;
    int grid = at_most(ceil_div(a->N, WARPS), cuda.sms * 6);
    if (!aligned(a) || a->C > 1536) add_norm_simple<T><<<(unsigned)a->N, 128, 0, cuda.compute>>>(*a);
    else if (a->C <= 256) add_norm_fast<T, 1><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    else if (a->C <= 768) add_norm_fast<T, 3><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    else add_norm_fast<T, 6><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    cuda_launched("add_norm");
}
EXPORT(add_norm, (const AddNorm *a), (a))

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* Partial sums of a block: dgamma, dbeta, dbias, each a row of C in partial[k gridDim.x + block]. */
template <class T, int K>
static __global__ __launch_bounds__(WARPS * 32, BACK_BLOCKS) void add_norm_bwd_fast(AddNorm a, AddNormGrad g,
                                                                                    float *partial) {
    __shared__ __align__(16) float gamma[K * CHUNK], room[WARPS][K * CHUNK];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, C = a.C;
    columns_load<K>(gamma, a.gamma, C);
    __syncthreads();
    float sum[3][K][8]; /* dgamma, dbeta, dbias */
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int e = 0; e < 8; e++) sum[0][k][e] = sum[1][k][e] = sum[2][k][e] = 0;
    for (int64_t r = (int64_t)blockIdx.x * WARPS + warp; r < a.N; r += (int64_t)gridDim.x * WARPS) {
        const T *dy = (const T *)g.dy + r * C, *z = (const T *)a.s + r * C;
        float mean = a.mean[r], rstd = a.rstd[r], zz[K][8], gg[K][8];
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
#pragma unroll
            for (int e = 0; e < 8; e++) zz[k][e] = mean, gg[k][e] = 0;
            if (c < C) ld8(zz[k], z + c), ld8(gg[k], dy + c);
        }
        norm_backward<K>(gg, zz, sum, gamma, C, lane, mean, rstd);
#pragma unroll
        for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            if (g.dx) {
                T *dx = (T *)g.dx + r * C + c;
                float old[8] = {0};
                if (g.add_dx) ld8(old, dx);
#pragma unroll
                for (int e = 0; e < 8; e++) old[e] += gg[k][e];
                st8(dx, old);
            }
            if (a.drop.p > 0) drop8(gg[k], a.drop, a.drop.rows[r], (uint32_t)c >> 3);
#pragma unroll
            for (int e = 0; e < 8; e++) sum[2][k][e] += gg[k][e];
            st8((T *)g.ds + r * C + c, gg[k]);
        }
    }
    leave_sums<K, 3>(partial, room, sum, g.dbias ? 3 : 2, C);
}

template <class T> static __global__ void add_norm_bwd_simple(AddNorm a, AddNormGrad g) {
    int64_t r = blockIdx.x;
    int C = a.C;
    const T *dy = (const T *)g.dy + r * C, *z = (const T *)a.s + r * C;
    T *ds = (T *)g.ds + r * C, *dx = (T *)g.dx + r * C;
    auto put = [&](int c, float dz) {
        if (g.dx) st1(dx + c, g.add_dx ? ld1(dx + c) + dz : dz);
        st1(ds + c, a.drop.p > 0 ? drop1(dz, a.drop, a.drop.rows[r], (uint32_t)c) : dz);
    };
    block_norm_backward(
        C, a.gamma, a.mean[r], a.rstd[r], [&](int c) { return ld1(dy + c); }, [&](int c) { return ld1(z + c); }, put);
}

template <class T> static __global__ void affine_simple(AddNorm a, const T *dy, float *partial, int64_t per) {
    strip_affine(
        partial, a.mean, a.rstd, a.N, a.C, per, [&](int64_t r, int c) { return ld1(dy + r * a.C + c); },
        [&](int64_t r, int c) { return ld1((const T *)a.s + r * a.C + c); });
}

/* ds may be dy's memory: what needs dy goes first. dbias sums ds as stored. */
template <class T> static void bwd_simple(const AddNorm *a, const AddNormGrad *g) {
    int parts = row_parts(a->N, a->C, 2, 64, cuda.sms * 2);
    float *partial = (float *)cuda_workspace((size_t)parts * 2 * (size_t)a->C * sizeof(float), "add_norm_bwd");
    if (!partial) return;
    affine_simple<T><<<dim3((unsigned)ceil_div(a->C, 128), (unsigned)parts), 128, 0, cuda.compute>>>(
        *a, (const T *)g->dy, partial, ceil_div(a->N, parts));
    float *dst[3] = {g->dgamma, g->dbeta, NULL};
    cuda_add_partials(dst, partial, parts, a->C, a->C);
    add_norm_bwd_simple<T><<<(unsigned)a->N, 128, 0, cuda.compute>>>(*a, *g);
    cuda_launched("add_norm_bwd");
    if (!g->dbias) return;
    if (sizeof(T) == 4) cuda_f32_colsum(g->dbias, g->ds, a->N, a->C, a->C);
    else cuda_bf16_colsum(g->dbias, g->ds, a->N, a->C, a->C);
}

template <class T> static void add_norm_bwd_(const AddNorm *a, const AddNormGrad *g) {
    if (!a->N) return;
    if (!aligned(a) || a->C > 768 || !aligned16(g->dy) || !aligned16(g->ds) || !aligned16(g->dx)) {
        bwd_simple<T>(a, g);
        return;
    }
    int grid = row_parts(a->N, a->C, 3, WARPS, cuda.sms * 3);
    float *partial = (float *)cuda_workspace((size_t)grid * 3 * (size_t)a->C * sizeof(float), "add_norm_bwd");
    if (!partial) return;
    if (a->C <= 256) add_norm_bwd_fast<T, 1><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, *g, partial);
    else add_norm_bwd_fast<T, 3><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, *g, partial);
    cuda_launched("add_norm_bwd");
    float *dst[3] = {g->dgamma, g->dbeta, g->dbias};
    cuda_add_partials(dst, partial, grid, a->C, a->C);
}
EXPORT(add_norm_bwd, (const AddNorm *a, const AddNormGrad *g), (a, g))
