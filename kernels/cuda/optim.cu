/* optim: the gradient's norm, and AdamW with decoupled weight decay (training.md 1).
 *
 *   g' = g scale;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
 *   p  = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps)                c1 = 1 - b1^t, c2 = 1 - b2^t
 *
 * adamw is one pass: reads p, g, m, v, writes p, m, v and the copy: 28 n bytes, 30 n with a bf16 copy, 4 n more where g
 * becomes zero, 8 n for the running mean; 5.6 GB for 186.7 M parameters, 1.7 ms of an H100. Four neighbours a thread
 * (16 bytes of f32); a range that starts at an odd place goes one by one. 40 registers: 48 warps an SM. sumsq reads 4 n
 * bytes: f64 partial sums of fixed pieces, added in order by one block.
 *
 * Beside compute it takes a fifth of the SMs, a block of 1,024 threads each, which keeps 64 KB on their way: a
 * product's blocks fill an SM's registers, so what is spread over all SMs would stand before or behind products, not
 * beside them. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256, BESIDE = 1024, SHARE = 5 };

/* p, g, m, v of W neighbours: four, or one. */
template <int W> struct Four { float p[W], g[W], m[W], v[W]; };
template <int W> DEVICE void read(Four<W> *x, const AdamW &a, int64_t i) {
    load<W>(x->p, a.p + i);
    load<W>(x->g, a.g + i);
    load<W>(x->m, a.m + i);
    load<W>(x->v, a.v + i);
}

template <int W, class T> DEVICE void update(Four<W> &x, const AdamW &a, int64_t i, float scale) {
    float decay = 1.0f - a.lr * a.weight_decay, step = a.lr / a.c1, inv_c2 = 1.0f / a.c2;
    UNROLL for (int e = 0; e < W; e++) {
        float gs = x.g[e] * scale;
        /* written out: which of two products is fused with the sum must be the same in every form of the kernel */
        x.m[e] = fmaf(a.beta1, x.m[e], (1.0f - a.beta1) * gs);
        x.v[e] = fmaf(a.beta2, x.v[e], (1.0f - a.beta2) * gs * gs);
        x.p[e] = fmaf(x.p[e], decay, -(step * x.m[e] / (sqrtf(x.v[e] * inv_c2) + a.eps)));
        x.g[e] = 0;
    }
    store<W>(a.p + i, x.p);
    store<W>(a.m + i, x.m);
    store<W>(a.v + i, x.v);
    if (!a.keep_g) store<W>(a.g + i, x.g);
    if (a.copy) store<W>((T *)a.copy + i, x.p);
    if (a.ema) {
        float mean[W];
        load<W>(mean, a.ema + i);
        UNROLL for (int e = 0; e < W; e++) mean[e] = fmaf(1.0f - a.ema_decay, x.p[e] - mean[e], mean[e]);
        store<W>(a.ema + i, mean);
    }
}

template <int W, class T> static __global__ __launch_bounds__(THREADS) void adamw_kernel(AdamW a, int64_t from) {
    int64_t i = from + ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W;
    float scale = *a.gscale;
    if (i >= a.n || scale == 0) return;
    Four<W> x;
    read<W>(&x, a, i);
    update<W, T>(x, a, i, scale);
}

/* What comes next is on its way while this is worked on: one block an SM has nobody else to hide behind. */
template <class T> static __global__ __launch_bounds__(BESIDE) void adamw_beside_kernel(AdamW a) {
    int64_t i = ((int64_t)blockIdx.x * BESIDE + threadIdx.x) * 4, all = (int64_t)gridDim.x * BESIDE * 4;
    float scale = *a.gscale;
    if (i >= a.n || scale == 0) return;
    Four<4> x, next;
    for (read<4>(&x, a, i); i < a.n; i += all, x = next) {
        if (i + all < a.n) read<4>(&next, a, i + all);
        update<4, T>(x, a, i, scale);
    }
}

template <class T> static void adamw_(const AdamW *a) {
    if (!a->n) return;
    bool vector = aligned16(a->p) && aligned16(a->g) && aligned16(a->m) && aligned16(a->v) && aligned16(a->ema) &&
                  aligned16(a->copy);
    /* four at a time as far as they go; what is left of a range, or one at an odd place, one by one */
    int64_t body = vector ? a->n / 4 * 4 : 0;
    int sms = at_most(ceil_div(body, BESIDE * 4), cuda.sms / SHARE > 0 ? cuda.sms / SHARE : 1);
    cudaStream_t s = cuda_update(a->beside, sms);
    AdamW first = *a;
    first.n = body;
    if (body && a->beside) adamw_beside_kernel<T><<<(unsigned)sms, BESIDE, 0, s>>>(first);
    else if (body) adamw_kernel<4, T><<<(unsigned)ceil_div(body, THREADS * 4), THREADS, 0, s>>>(first, 0);
    if (body < a->n) adamw_kernel<1, T><<<(unsigned)ceil_div(a->n - body, THREADS), THREADS, 0, s>>>(*a, body);
    cuda_launched("adamw");
    /* the event of this number alone: a forward waits for the range that it reads, not for all */
    cuda_updated(a->beside);
}
EXPORT(adamw, (const AdamW *a), (a))

/* ---- norm of the gradient -------------------------------------------------------------------------------------- */

enum { PIECE = 16384, PIECES = 4096 };
static __global__ __launch_bounds__(THREADS) void sumsq_pieces(double *partial, const float *g, int64_t n,
                                                               int64_t piece, bool vector) {
    __shared__ double room[32];
    int64_t lo = blockIdx.x * piece, hi = min(n, lo + piece);
    double s = 0;
    if (vector) {
        int64_t body = lo + (hi - lo) / 4 * 4;
#pragma unroll 4
        for (int64_t i = lo + threadIdx.x * 4; i < body; i += THREADS * 4) {
            float4 v = *(const float4 *)(g + i);
            s += (double)v.x * v.x + (double)v.y * v.y + ((double)v.z * v.z + (double)v.w * v.w);
        }
        /* at most three are left of a piece whose size is a multiple of four: the last one's */
        if (body + threadIdx.x < hi) s += (double)g[body + threadIdx.x] * g[body + threadIdx.x];
    } else {
        for (int64_t i = lo + threadIdx.x; i < hi; i += THREADS) s += (double)g[i] * g[i];
    }
    s = block_sum64(s, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = s;
}

static __global__ __launch_bounds__(THREADS) void sumsq_total(double *out, const double *partial, int64_t n, bool add) {
    __shared__ double room[32];
    double s = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) s += partial[i];
    s = block_sum64(s, room);
    if (threadIdx.x == 0) *out = add ? *out + s : s;
}

void cuda_sumsq(double *out, const float *g, int64_t n, bool add) {
    /* pieces of one size for one n, whatever the GPU: the norm decides the clipping, and must have the same bits */
    int64_t piece = PIECE;
    while (ceil_div(n, piece) > PIECES) piece *= 2; /* so that one block adds them up, in the workspace's first 32 KB */
    int64_t pieces = ceil_div(n, piece);
    double *partial = (double *)cuda_workspace((size_t)PIECES * sizeof(double), "sumsq");
    if (!partial) return;
    if (n) sumsq_pieces<<<(unsigned)pieces, THREADS, 0, cuda.compute>>>(partial, g, n, piece, aligned16(g));
    sumsq_total<<<1, THREADS, 0, cuda.compute>>>(out, partial, pieces, add);
    cuda_launched("sumsq");
}

static __global__ void grad_scale_kernel(float *scale, float *norm_out, const double *sumsq, int n, float max_norm) {
    double norm = 0; /* by one thread: a handful of numbers, in order */
    for (int i = 0; i < n; i++) norm += sumsq[i];
    norm = sqrt(norm);
    *norm_out = (float)norm;
    *scale = !isfinite(norm) ? 0.0f : max_norm > 0 && norm > (double)max_norm ? (float)((double)max_norm / norm) : 1.0f;
}

void cuda_grad_scale(float *scale, float *norm_out, const double *sumsq, int n, float max_norm) {
    grad_scale_kernel<<<1, 1, 0, cuda.compute>>>(scale, norm_out, sumsq, n, max_norm);
    cuda_launched("grad_scale");
}
