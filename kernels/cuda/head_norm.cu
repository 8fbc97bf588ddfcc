/* head_norm: norms of neighbouring blocks of C columns, in place (norm.cuh): queries and keys, of each head or whole.
 *
 *   x = (z - mean) rstd gamma + beta, z kept when asked          dx = the norm's backward of dx, through z
 *
 * C <= 256: a row's block is 8, 16 or 32 lanes of eight columns, so a warp has 4, 2 or 1 of them. C <= 8192: it is a
 * whole block of threads. A thread keeps its columns' gamma and beta, and the sums for their gradients, in registers.
 *
 * Bytes (m = N blocks C e): forward 2m (3m when z is kept), backward 3m, and 8 N blocks of statistics; 8C of partial
 * sums a block of threads. Limited by memory. Limits of the fast kernels: C and strides multiples of 8, C <= 8192 (4096
 * backward when gamma or beta learn), 16-byte addresses; else a block of threads a block of columns, any C. */
#include "kernels/cuda/norm.cuh"

enum { THREADS = 128, LEARNING = 4096, WIDEST = 8192 };

/* N sums over a group of L lanes, or (L = 0) the block. */
template <int L, int N> DEVICE void group_sums(float (&x)[N], WideRoom *w, int *turn) {
    if (L == 0) block_sums(x, w->room[*turn ^= 1]);
    UNROLL for (int i = 0; i < N; i++)
        UNROLL for (int d = L / 2; d; d >>= 1) x[i] += __shfl_xor_sync(~0u, x[i], d);
}

/* Where a thread stands: its group's first item and the step to the next, its columns from c on. */
typedef struct {
    int64_t items, step;
    int per, group, c;
    bool column; /* c is one */
} Place;
template <int L> DEVICE Place place_of(const HeadNorm &a) {
    /* eight columns a lane: as few lanes as a head needs, so that none of the warp is idle */
    int lanes = L ? L : (int)blockDim.x, per = (int)blockDim.x / lanes, c = (int)threadIdx.x % lanes * 8;
    return Place{a.N * a.blocks, (int64_t)gridDim.x * per, per, (int)threadIdx.x / lanes, c, c < a.C};
}

template <class T, int L>
static __global__ __launch_bounds__(L ? THREADS : WIDEST / 8) void head_norm_fast(HeadNorm a) {
    __shared__ WideRoom room;
    Place p = place_of<L>(a);
    int turn = 0;
    float gamma[8] = {0}, beta[8] = {0}, z[8];
    if (p.column) ld8(gamma, a.gamma + p.c);
    if (p.column && a.beta) ld8(beta, a.beta + p.c);
    for (int64_t base = (int64_t)blockIdx.x * p.per; base < p.items; base += p.step) {
        int64_t i = base + p.group;
        bool there = i < p.items && p.column;
        T *x = (T *)a.x + i / a.blocks * a.ld + i % a.blocks * a.C + p.c;
        UNROLL for (int e = 0; e < 8; e++) z[e] = 0;
        if (there) ld8(z, x);
        if (there && a.z) st8((T *)a.z + i * a.C + p.c, z);
        float sum[1] = {0}, var[1] = {0}, mean = 0;
        if (!a.rms) {
            UNROLL for (int e = 0; e < 8; e++) sum[0] += z[e];
            group_sums<L>(sum, &room, &turn);
            mean = sum[0] / (float)a.C;
        }
        /* a group's idle lanes would add mean^2 each */
        UNROLL for (int e = 0; e < 8; e++) var[0] += there ? (z[e] - mean) * (z[e] - mean) : 0.0f;
        group_sums<L>(var, &room, &turn);
        float rstd = 1.0f / sqrtf(var[0] / (float)a.C + a.eps);
        if (!there) continue;
        UNROLL for (int e = 0; e < 8; e++) z[e] = beta[e] + (z[e] - mean) * rstd * gamma[e];
        st8(x, z);
        if (p.c == 0 && a.rstd) a.rstd[i] = rstd; /* NULL where nothing is walked back */
        if (p.c == 0 && a.mean && !a.rms) a.mean[i] = mean;
    }
}

template <class T> static __global__ void head_norm_simple(HeadNorm a) {
    int64_t i = blockIdx.x;
    int C = a.C;
    T *x = (T *)a.x + i / a.blocks * a.ld + i % a.blocks * C;
    float mean, rstd;
    for (int c = threadIdx.x; a.z && c < C; c += blockDim.x) ((T *)a.z)[i * C + c] = x[c];
    block_statistics(C, a.eps, a.rms, &mean, &rstd, [&](int c) { return ld1(x + c); });
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        st1(x + c, (ld1(x + c) - mean) * rstd * a.gamma[c] + (a.beta ? a.beta[c] : 0.0f));
    if (threadIdx.x) return;
    if (a.rstd) a.rstd[i] = rstd;
    if (a.mean && !a.rms) a.mean[i] = mean;
}

static bool is_fast(const HeadNorm *a, const void *x, int64_t ld) {
    return a->C % 8 == 0 && a->C <= WIDEST && ld % 8 == 0 && aligned16(x) && aligned16(a->z) && aligned16(a->gamma) &&
           aligned16(a->beta);
}

/* f(lanes, threads a block, items a block). */
template <class F> static void of_width(int C, F f) {
    struct Eight { enum { LANES = 8 }; };
    struct Sixteen { enum { LANES = 16 }; };
    struct Warp { enum { LANES = 32 }; };
    struct Block { enum { LANES = 0 }; };
    if (C <= 64) f(Eight(), THREADS, THREADS / 8);
    else if (C <= 128) f(Sixteen(), THREADS, THREADS / 16);
    else if (C <= 256) f(Warp(), THREADS, THREADS / 32);
    else f(Block(), wide_threads(C), 1);
}

template <class T> static void head_norm_(const HeadNorm *a) {
    int64_t items = a->N * a->blocks;
    if (!items) return;
    if (!is_fast(a, a->x, a->ld)) head_norm_simple<T><<<(unsigned)items, THREADS, 0, cuda.compute>>>(*a);
    else
        of_width(a->C, [&](auto width, int threads, int per) {
            int grid = at_most(ceil_div(items, per), cuda.sms * (WIDEST / 8 / threads));
            head_norm_fast<T, decltype(width)::LANES><<<grid, threads, 0, cuda.compute>>>(*a);
        });
    cuda_launched("head_norm");
}
EXPORT(head_norm, (const HeadNorm *a), (a))

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* What the block's groups have of dgamma and dbeta at each column, added up in order: rows blockIdx.x and gridDim.x +
 * blockIdx.x of `partial`. */
template <int L> DEVICE void leave_group_sums(float *partial, const float (*sum)[8], const Place &p, int C) {
    __shared__ __align__(16) float room[L ? THREADS / (L ? L : 1) : 1][L ? 8 * L : 1];
    UNROLL for (int i = 0; i < 2; i++) {
        float *out = partial + ((int64_t)i * gridDim.x + blockIdx.x) * C;
        if (L == 0) {
            if (p.column) st8(out + p.c, sum[i]);
            continue;
        }
        __syncthreads();
        UNROLL for (int e = 0; e < 8; e++) room[p.group][p.c + e] = sum[i][e];
        __syncthreads();
        for (int c = threadIdx.x; c < C; c += THREADS) {
            float t = 0;
            /* groups in order */
            for (int g = 0; g < p.per; g++) t += room[g][c];
            out[c] = t;
        }
    }
}

template <class T, int L, bool SUMS>
static __global__ __launch_bounds__(L ? THREADS : (SUMS ? LEARNING : WIDEST) / 8) void head_norm_bwd_fast(
    HeadNorm a, T *dx0, float *partial) {
    __shared__ WideRoom room;
    Place p = place_of<L>(a);
    int turn = 0;
    float gamma[8] = {0}, sum[2][8] = {{0}}, z[8], d[8];
    if (p.column) ld8(gamma, a.gamma + p.c);
    for (int64_t base = (int64_t)blockIdx.x * p.per; base < p.items; base += p.step) {
        int64_t i = base + p.group;
        bool there = i < p.items && p.column;
        T *dx = dx0 + i / a.blocks * a.lddx + i % a.blocks * a.C + p.c;
        float mean = there && !a.rms ? a.mean[i] : 0.0f, rstd = there ? a.rstd[i] : 0.0f, s[2] = {0, 0};
        UNROLL for (int e = 0; e < 8; e++) z[e] = mean, d[e] = 0;
        if (there) ld8(z, (const T *)a.z + i * a.C + p.c), ld8(d, dx);
        UNROLL for (int e = 0; e < 8; e++) {
            z[e] = (z[e] - mean) * rstd;
            if (SUMS) sum[0][e] += d[e] * z[e], sum[1][e] += d[e];
            d[e] *= gamma[e];
            s[0] += d[e];
            s[1] += d[e] * z[e];
        }
        group_sums<L>(s, &room, &turn);
        float sg = a.rms ? 0.0f : s[0] / (float)a.C, sgx = s[1] / (float)a.C;
        UNROLL for (int e = 0; e < 8; e++) d[e] = rstd * (d[e] - sg - z[e] * sgx);
        if (there) st8(dx, d);
    }
    if (SUMS) leave_group_sums<L>(partial, sum, p, a.C);
}

template <class T> static __global__ void head_norm_bwd_simple(HeadNorm a, T *dx0) {
    int64_t i = blockIdx.x;
    T *dx = dx0 + i / a.blocks * a.lddx + i % a.blocks * a.C;
    const T *z = (const T *)a.z + i * a.C;
    block_norm_backward(
        a.C, a.gamma, a.rms ? 0.0f : a.mean[i], a.rstd[i], a.rms, [&](int c) { return ld1(dx + c); },
        [&](int c) { return ld1(z + c); }, [&](int c, float v) { st1(dx + c, v); });
}

/* Before dx is overwritten. */
template <class T> static __global__ void head_affine_simple(HeadNorm a, const T *dx, float *partial, int64_t per) {
    strip_affine(
        partial, a.rms ? NULL : a.mean, a.rstd, a.N * a.blocks, a.C, per,
        [&](int64_t i, int c) { return ld1(dx + i / a.blocks * a.lddx + i % a.blocks * a.C + c); },
        [&](int64_t i, int c) { return ld1((const T *)a.z + i * a.C + c); });
}

template <class T> static void head_norm_bwd_(const HeadNorm *a, void *dx, float *dgamma, float *dbeta) {
    int64_t items = a->N * a->blocks;
    if (!items) return;
    bool sums = dgamma || dbeta, fast = is_fast(a, dx, a->lddx) && !(sums && a->C > LEARNING);
    float *dst[3] = {dgamma, dbeta, NULL};
    int parts = row_parts(items, a->C, 2, 64, cuda.sms * 2); /* never more than the workspace holds */
    /* all of it: row_parts cut the strips to what fits */
    float *partial = (float *)cuda_workspace(WS_COMPUTE, "head_norm_bwd");
    if (fast) {
        of_width(a->C, [&](auto width, int threads, int per) {
            constexpr int L = decltype(width)::LANES;
            parts = row_parts(items, a->C, 2, per, cuda.sms * (WIDEST / 8 / threads));
            if (sums) head_norm_bwd_fast<T, L, true><<<parts, threads, 0, cuda.compute>>>(*a, (T *)dx, partial);
            else head_norm_bwd_fast<T, L, false><<<parts, threads, 0, cuda.compute>>>(*a, (T *)dx, partial);
        });
    } else {
        dim3 grid((unsigned)ceil_div(a->C, THREADS), (unsigned)parts);
        if (sums)
            head_affine_simple<T><<<grid, THREADS, 0, cuda.compute>>>(*a, (const T *)dx, partial,
                                                                      ceil_div(items, parts));
        if (sums) cuda_add_partials(dst, partial, parts, a->C, a->C);
        head_norm_bwd_simple<T><<<(unsigned)items, THREADS, 0, cuda.compute>>>(*a, (T *)dx);
    }
    cuda_launched("head_norm_bwd");
    if (fast && sums) cuda_add_partials(dst, partial, parts, a->C, a->C);
}
EXPORT(head_norm_bwd, (const HeadNorm *a, void *dx, float *dgamma, float *dbeta), (a, dx, dgamma, dbeta))
