/* norm: residual, dropout and a norm, LayerNorm or RMS (norm.cuh).
 *
 *   z = x + dropout(s + bias)        y = (z - mean) rstd gamma + beta        s NULL: z = x
 *
 *   backward through the norm with dn = dy (norm.cuh); dz of that, plus z's gradient from elsewhere:
 *   dx = dz,  ds = dz dropped out as s was,  dbias = sum ds                                          (sums over rows)
 *
 * y is the norm of z as it is stored (rounded to T), so that the backward's x^ is the forward's. C <= 768: one warp a
 * row, the row in registers, eight neighbouring channels a lane and chunk of 256; gamma, beta, bias once a block, in
 * shared memory. C <= 8192: one block a row, eight channels a thread, gamma, beta, bias in its registers. Loads of a
 * row are all under way before anything is stored.
 *
 * Bytes (T elements of e bytes): forward reads s, x and writes z, y: 4NC e (2NC without s), plus 8N, plus 12C a block.
 * Backward reads dy, z and writes ds, dx: 4NC e (one NC more when dx is added to, one for z's other gradient), plus 8N,
 * 4C and 12C of partial sums a block (0 when nobody wants the sums of gamma, beta, bias), and those once more. Both
 * limited by memory: at N = 20,000, C = 768, bf16 forward 123 MB, 37 us of an H100.
 *
 * Limits of the fast kernels: C % 8 == 0, C <= 8192 (4096 backward when gamma, beta or bias learn), 16-byte addresses;
 * the simple kernels take anything. */
#include "kernels/cuda/norm.cuh"

enum { NARROW = 768, LEARNING = 4096, WIDEST = 8192 };

/* Blocks of the backward an SM must hold: sm_100's compiler needs more registers than three leave. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
enum { BACK_BLOCKS = 2 };
#else
enum { BACK_BLOCKS = 3 };
#endif

/* z of eight columns from c on, in v as s was: bias in b, x in raw. Rounded as stored, and stored over s. */
template <class T>
DEVICE void sum8(float v[8], const AddNorm &a, const float b[8], const Raw8<T> &raw, int64_t r, int c) {
    float x[8];
    T *s = (T *)a.s;
    UNROLL for (int e = 0; e < 8; e++) v[e] += b[e];
    if (a.drop.p > 0) drop8(v, a.drop, a.drop.rows[r], (uint32_t)c >> 3);
    if (a.x) {
        unpack8(x, raw);
        UNROLL for (int e = 0; e < 8; e++) v[e] += x[e];
    }
    /* the statistics are of what the backward will read, not of what was rounded away */
    UNROLL for (int e = 0; e < 8; e++) v[e] = as_stored(s, v[e]);
    st8(s + r * a.C + c, v);
}

template <class T, int K> static __global__ __launch_bounds__(WARPS * 32) void add_norm_fast(AddNorm a) {
    __shared__ __align__(16) float gamma[K * CHUNK], beta[K * CHUNK], bias[K * CHUNK];
    int lane = threadIdx.x & 31, C = a.C;
    columns_load<K>(gamma, a.gamma, C);
    columns_load<K>(beta, a.beta, C);
    columns_load<K>(bias, a.bias, C);
    __syncthreads();
    for (int64_t r = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5); r < a.N; r += (int64_t)gridDim.x * WARPS) {
        const T *in = (const T *)(a.s ? a.s : a.x) + r * C, *x = (const T *)a.x + r * C;
        Raw8<T> first[K], raw[K];
        float z[K][8];
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            raw8(&first[k], in + c);
            /* both loads before either is used: a row's bytes are all under way at once */
            if (a.s && a.x) raw8(&raw[k], x + c);
        }
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            UNROLL for (int e = 0; e < 8; e++) z[k][e] = 0;
            if (c >= C) continue;
            unpack8(z[k], first[k]);
            float b[8];
            columns_get(b, bias, k, lane);
            if (a.s) sum8<T>(z[k], a, b, raw[k], r, c);
        }
        float mean, rstd;
        row_statistics<K>(z, C, lane, a.eps, a.rms, &mean, &rstd);
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            float y[8];
            norm8(y, z[k], gamma, beta, k, lane, mean, rstd);
            st8((T *)a.y + r * C + c, y);
        }
        if (lane) continue; /* the sums were a butterfly: all lanes have them */
        a.rstd[r] = rstd;
        if (!a.rms) a.mean[r] = mean;
    }
}

template <class T> static __global__ __launch_bounds__(WIDEST / 8) void add_norm_wide(AddNorm a) {
    __shared__ WideRoom room;
    int C = a.C, c = (int)threadIdx.x * 8, turn = 0;
    bool there = c < C;
    float gamma[8], beta[8], bias[8], z[8], mean, rstd;
    /* a warp's first: vector8 reads as lanes lie and hands the numbers on */
    int first_column = (int)threadIdx.x / 32 * 256;
    vector8(gamma, a.gamma, first_column, C);
    vector8(beta, a.beta, first_column, C);
    vector8(bias, a.bias, first_column, C);
    for (int64_t r = blockIdx.x; r < a.N; r += gridDim.x) {
        Raw8<T> first, raw;
        UNROLL for (int e = 0; e < 8; e++) z[e] = 0;
        if (there) {
            raw8(&first, (const T *)(a.s ? a.s : a.x) + r * C + c);
            if (a.s && a.x) raw8(&raw, (const T *)a.x + r * C + c);
            unpack8(z, first);
            if (a.s) sum8<T>(z, a, bias, raw, r, c);
        }
        wide_statistics(z, C, there, a.eps, a.rms, &room, &turn, &mean, &rstd);
        UNROLL for (int e = 0; e < 8; e++) z[e] = beta[e] + (z[e] - mean) * rstd * gamma[e];
        if (there) st8((T *)a.y + r * C + c, z);
        if (threadIdx.x) continue;
        a.rstd[r] = rstd;
        if (!a.rms) a.mean[r] = mean;
    }
}

/* One block a row, any C: each thread meets the elements that it wrote itself. */
template <class T> static __global__ void add_norm_simple(AddNorm a) {
    int64_t r = blockIdx.x;
    int C = a.C;
    T *s = (T *)a.s + r * C, *y = (T *)a.y + r * C;
    const T *x = (const T *)a.x + r * C, *z = a.s ? s : x;
    for (int c = threadIdx.x; a.s && c < C; c += blockDim.x) {
        float v = ld1(s + c) + (a.bias ? a.bias[c] : 0.0f);
        if (a.drop.p > 0) v = drop1(v, a.drop, a.drop.rows[r], (uint32_t)c);
        st1(s + c, a.x ? v + ld1(x + c) : v);
    }
    float mean, rstd;
    block_statistics(C, a.eps, a.rms, &mean, &rstd, [&](int c) { return ld1(z + c); });
    for (int c = threadIdx.x; c < C; c += blockDim.x)
        st1(y + c, (ld1(z + c) - mean) * rstd * a.gamma[c] + (a.beta ? a.beta[c] : 0.0f));
    /* one thread writes what all know */
    if (threadIdx.x) return;
    a.rstd[r] = rstd;
    if (!a.rms) a.mean[r] = mean;
}

static bool aligned(const AddNorm *a) {
    return a->C % 8 == 0 && a->C <= WIDEST && aligned16(a->s) && aligned16(a->x) && aligned16(a->y) &&
           aligned16(a->bias) && aligned16(a->gamma) && aligned16(a->beta);
}

/* Blocks of the wide kernels: as many as the SMs hold at 64 registers a thread. */
static int wide_blocks(int C) {
    int fit = WIDEST / 8 / wide_threads(C); /* 1,024 threads of 64 registers are all that an SM has */
    return cuda.sms * (fit < 1 ? 1 : fit);
}

template <class T> static void add_norm_(const AddNorm *a) {
    if (!a->N) return;
    /* gamma, beta and bias are read once a block: few blocks of many rows */
    int grid = at_most(ceil_div(a->N, WARPS), cuda.sms * 6), wide = wide_threads(a->C);
    if (!aligned(a)) add_norm_simple<T><<<(unsigned)a->N, 128, 0, cuda.compute>>>(*a);
    else if (a->C <= 256) add_norm_fast<T, 1><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    else if (a->C <= NARROW) add_norm_fast<T, 3><<<grid, WARPS * 32, 0, cuda.compute>>>(*a);
    else add_norm_wide<T><<<at_most(a->N, wide_blocks(a->C)), wide, 0, cuda.compute>>>(*a);
    cuda_launched("add_norm");
}
EXPORT(add_norm, (const AddNorm *a), (a))

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* z's other gradient and the old dx at eight columns: asked for before the row's sums, or they would wait for these and
 * for the stores of the columns before. */
template <class T> struct Other8 { Raw8<T> dz, dx; };
template <class T> DEVICE void other8(Other8<T> *o, const AddNormGrad &g, int64_t at) {
    if (g.dz) raw8(&o->dz, (const T *)g.dz + at);
    if (g.dx && g.add_dx) raw8(&o->dx, (const T *)g.dx + at);
}

/* What a row's gradient leaves at eight columns: v is dz of the norm; becomes ds. */
template <class T>
DEVICE void leave8(float v[8], const Other8<T> &o, const AddNorm &a, const AddNormGrad &g, int64_t r, int c) {
    int64_t at = r * a.C + c;
    float x[8];
    if (g.dz) {
        unpack8(x, o.dz);
        UNROLL for (int e = 0; e < 8; e++) v[e] += x[e];
    }
    if (g.dx) {
        UNROLL for (int e = 0; e < 8; e++) x[e] = 0;
        if (g.add_dx) unpack8(x, o.dx);
        UNROLL for (int e = 0; e < 8; e++) x[e] += v[e];
        st8((T *)g.dx + at, x);
    }
    if (a.drop.p > 0) drop8(v, a.drop, a.drop.rows[r], (uint32_t)c >> 3);
    if (g.ds) st8((T *)g.ds + at, v);
}

/* x^, dn and gamma at eight columns. Made of the raw row twice: kept as floats between, what was loaded ahead would not
 * fit the registers. Beyond the last column dn is zero. */
template <class T>
DEVICE void hat8(float x[8], float d[8], float w[8], const Raw8<T> &z, const Raw8<T> &dy, const float *gamma, int k,
                 int lane, float mean, float rstd) {
    unpack8(x, z);
    unpack8(d, dy);
    columns_get(w, gamma, k, lane);
    UNROLL for (int e = 0; e < 8; e++) x[e] = (x[e] - mean) * rstd;
}

/* Partial sums of a block: dgamma, dbeta, dbias, each a row of C in partial[k gridDim.x + block]. SUMS: wanted. */
template <class T, int K, bool SUMS>
static __global__ __launch_bounds__(WARPS * 32, BACK_BLOCKS) void add_norm_bwd_fast(AddNorm a, AddNormGrad g,
                                                                                    float *partial) {
    __shared__ __align__(16) float gamma[K * CHUNK], room[SUMS ? WARPS : 1][K * CHUNK];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, C = a.C;
    columns_load<K>(gamma, a.gamma, C);
    __syncthreads();
    float sum[3][K][8]; /* dgamma, dbeta, dbias */
    UNROLL for (int k = 0; k < K; k++)
        UNROLL for (int e = 0; e < 8; e++) sum[0][k][e] = sum[1][k][e] = sum[2][k][e] = 0;
    for (int64_t r = (int64_t)blockIdx.x * WARPS + warp; r < a.N; r += (int64_t)gridDim.x * WARPS) {
        const T *dy = (const T *)g.dy + r * C, *z = (const T *)(a.s ? a.s : a.x) + r * C;
        /* of an RMS norm nobody wrote a mean */
        float mean = a.rms ? 0.0f : a.mean[r], rstd = a.rstd[r], sg = 0, sgx = 0;
        Raw8<T> zz[K] = {}, gg[K] = {};
        Other8<T> other[K];
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c < C) raw8(&zz[k], z + c), raw8(&gg[k], dy + c), other8(&other[k], g, r * C + c);
        }
        UNROLL for (int k = 0; k < K; k++) {
            float x[8], d[8], w[8];
            hat8(x, d, w, zz[k], gg[k], gamma, k, lane, mean, rstd);
            UNROLL for (int e = 0; e < 8; e++) {
                if (SUMS) sum[0][k][e] += d[e] * x[e];
                if (SUMS) sum[1][k][e] += d[e];
                sg += d[e] * w[e];
                sgx += d[e] * w[e] * x[e];
            }
        }
        sg = a.rms ? 0.0f : warp_sum(sg) / (float)C;
        sgx = warp_sum(sgx) / (float)C;
        UNROLL for (int k = 0; k < K; k++) {
            int c = k * 256 + lane * 8;
            if (c >= C) continue;
            float x[8], d[8], w[8];
            hat8(x, d, w, zz[k], gg[k], gamma, k, lane, mean, rstd);
            UNROLL for (int e = 0; e < 8; e++) d[e] = rstd * (d[e] * w[e] - sg - x[e] * sgx);
            leave8<T>(d, other[k], a, g, r, c);
            UNROLL for (int e = 0; e < 8; e++) sum[2][k][e] += d[e];
        }
    }
    if (SUMS) leave_sums<K, 3>(partial, room, sum, g.dbias ? 3 : 2, C);
}

/* Sums take registers that 1,024 threads do not have. */
template <class T, bool SUMS>
static __global__ __launch_bounds__((SUMS ? LEARNING : WIDEST) / 8) void add_norm_bwd_wide(AddNorm a, AddNormGrad g,
                                                                                          float *partial) {
    __shared__ WideRoom room;
    int C = a.C, c = (int)threadIdx.x * 8, turn = 0;
    bool there = c < C;
    float gamma[8], sum[3][8] = {{0}}, z[8], d[8];
    /* once a block, into registers: each thread has the same eight columns of every row */
    vector8(gamma, a.gamma, (int)threadIdx.x / 32 * 256, C);
    for (int64_t r = blockIdx.x; r < a.N; r += gridDim.x) {
        float mean = a.rms ? 0.0f : a.mean[r], rstd = a.rstd[r];
        Other8<T> other;
        /* threads beyond C: x^ is 0 there, and they still meet the others at barriers */
        UNROLL for (int e = 0; e < 8; e++) z[e] = mean, d[e] = 0;
        if (there) {
            ld8(z, (const T *)(a.s ? a.s : a.x) + r * C + c);
            ld8(d, (const T *)g.dy + r * C + c);
            other8(&other, g, r * C + c);
        }
        wide_backward<SUMS>(d, z, sum, gamma, C, &room, &turn, mean, rstd, a.rms);
        if (!there) continue;
        leave8<T>(d, other, a, g, r, c);
        UNROLL for (int e = 0; e < 8; e++) sum[2][e] += d[e];
    }
    UNROLL for (int i = 0; i < 3; i++)
        if (SUMS && there && (i < 2 || g.dbias)) st8(partial + ((int64_t)i * gridDim.x + blockIdx.x) * C + c, sum[i]);
}

template <class T> static __global__ void add_norm_bwd_simple(AddNorm a, AddNormGrad g) {
    int64_t r = blockIdx.x;
    int C = a.C;
    const T *dy = (const T *)g.dy + r * C, *z = (const T *)(a.s ? a.s : a.x) + r * C, *later = (const T *)g.dz + r * C;
    T *ds = (T *)g.ds + r * C, *dx = (T *)g.dx + r * C;
    auto put = [&](int c, float dz) {
        if (g.dz) dz += ld1(later + c);
        if (g.dx) st1(dx + c, g.add_dx ? ld1(dx + c) + dz : dz);
        if (g.ds) st1(ds + c, a.drop.p > 0 ? drop1(dz, a.drop, a.drop.rows[r], (uint32_t)c) : dz);
    };
    block_norm_backward(
        C, a.gamma, a.rms ? 0.0f : a.mean[r], a.rstd[r], a.rms, [&](int c) { return ld1(dy + c); },
        [&](int c) { return ld1(z + c); }, put);
}

template <class T> static __global__ void affine_simple(AddNorm a, const T *dy, float *partial, int64_t per) {
    const T *z = (const T *)(a.s ? a.s : a.x); /* what was normed: the sum where there is one, else the input itself */
    strip_affine(
        partial, a.rms ? NULL : a.mean, a.rstd, a.N, a.C, per, [&](int64_t r, int c) { return ld1(dy + r * a.C + c); },
        [&](int64_t r, int c) { return ld1(z + r * a.C + c); });
}

/* ds may be dy's memory: what needs dy goes first. dbias sums ds as stored. */
template <class T> static void bwd_simple(const AddNorm *a, const AddNormGrad *g) {
    /* at least 64 rows a strip: partial sums are little beside what is read */
    int parts = row_parts(a->N, a->C, 2, 64, cuda.sms * 2);
    float *partial = (float *)cuda_workspace((size_t)parts * 2 * (size_t)a->C * sizeof(float), "add_norm_bwd");
    if (!partial) return;
    if (g->dgamma || g->dbeta) {
        affine_simple<T><<<dim3((unsigned)ceil_div(a->C, 128), (unsigned)parts), 128, 0, cuda.compute>>>(
            *a, (const T *)g->dy, partial, ceil_div(a->N, parts));
        float *dst[3] = {g->dgamma, g->dbeta, NULL};
        cuda_add_partials(dst, partial, parts, a->C, a->C);
    }
    add_norm_bwd_simple<T><<<(unsigned)a->N, 128, 0, cuda.compute>>>(*a, *g);
    cuda_launched("add_norm_bwd");
    if (!g->dbias) return;
    if (sizeof(T) == 4) cuda_f32_colsum(g->dbias, g->ds, a->N, a->C, a->C);
    else cuda_bf16_colsum(g->dbias, g->ds, a->N, a->C, a->C);
}

template <class T, bool SUMS> static void bwd_fast(const AddNorm *a, const AddNormGrad *g) {
    bool narrow = a->C <= NARROW;
    /* as many blocks as stay at once: each leaves a row of partial sums */
    int grid = row_parts(a->N, a->C, 3, narrow ? WARPS : 1, narrow ? cuda.sms * 3 : wide_blocks(a->C));
    float *partial = (float *)cuda_workspace((size_t)grid * 3 * (size_t)a->C * sizeof(float), "add_norm_bwd");
    if (!partial) return;
    if (a->C <= 256) add_norm_bwd_fast<T, 1, SUMS><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, *g, partial);
    else if (narrow) add_norm_bwd_fast<T, 3, SUMS><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, *g, partial);
    else add_norm_bwd_wide<T, SUMS><<<grid, wide_threads(a->C), 0, cuda.compute>>>(*a, *g, partial);
    cuda_launched("add_norm_bwd");
    float *dst[3] = {g->dgamma, g->dbeta, g->dbias};
    if (SUMS) cuda_add_partials(dst, partial, grid, a->C, a->C);
}

template <class T> static void add_norm_bwd_(const AddNorm *a, const AddNormGrad *g) {
    if (!a->N) return;
    bool sums = g->dgamma || g->dbeta || g->dbias, fast = aligned(a) && aligned16(g->dy) && aligned16(g->ds) &&
                                                          aligned16(g->dx) && aligned16(g->dz);
    /* sums of wider rows take registers that a block has not */
    if (!fast || (sums && a->C > LEARNING)) bwd_simple<T>(a, g);
    /* a frozen model wants none: fewer registers, no partial sums to write */
    else if (sums) bwd_fast<T, true>(a, g);
    else bwd_fast<T, false>(a, g);
}
EXPORT(add_norm_bwd, (const AddNorm *a, const AddNormGrad *g), (a, g))
