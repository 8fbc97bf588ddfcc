/* optim: the gradient's norm, and AdamW with decoupled weight decay (training.md 1).
 *
 *   g' = g scale;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
 *   p  = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps)                c1 = 1 - b1^t, c2 = 1 - b2^t
 *
 * adamw is one pass: reads p, g, m, v, writes p, m, v and the copy: 28 n bytes, 30 n with a bf16 copy, 4 n more where g
 * becomes zero, 8 n for the running mean; 5.6 GB for 186.7 M parameters, 1.7 ms of an H100. Four neighbours a thread (16
 * bytes of f32); a range that starts at an odd place goes one by one. 40 registers: 48 warps an SM. sumsq reads 4 n
 * bytes: f64 partial sums of fixed pieces, added in order by one block. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 256 };

DEVICE void load(float *v, const float *p, int64_t i, bool four) {
    if (four) ld4(v, p + i);
    else v[0] = p[i];
}
DEVICE void store(float *p, int64_t i, const float *v, bool four) {
    if (four) st4(p + i, v);
    else p[i] = v[0];
}

/* W: 4 neighbours a thread, or 1. */
template <int W, class T> static __global__ __launch_bounds__(THREADS) void adamw_kernel(AdamW a, int64_t from) {
    int64_t i = from + ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W;
    if (i >= a.n) return;
    constexpr bool four = W == 4;
    float scale = *a.gscale, decay = 1.0f - a.lr * a.weight_decay, step = a.lr / a.c1, inv_c2 = 1.0f / a.c2;
    if (scale == 0) return;
    float p[4], g[4], m[4], v[4];
    load(p, a.p, i, four);
    load(g, a.g, i, four);
    load(m, a.m, i, four);
    load(v, a.v, i, four);
#pragma unroll
    for (int e = 0; e < W; e++) {
        float gs = g[e] * scale;
        m[e] = a.beta1 * m[e] + (1.0f - a.beta1) * gs;
        v[e] = a.beta2 * v[e] + (1.0f - a.beta2) * gs * gs;
        p[e] = p[e] * decay - step * m[e] / (sqrtf(v[e] * inv_c2) + a.eps);
        g[e] = 0;
    }
    store(a.p, i, p, four);
    store(a.m, i, m, four);
    store(a.v, i, v, four);
    if (!a.keep_g) store(a.g, i, g, four);
    if (a.copy && four) st4((T *)a.copy + i, p);
    else if (a.copy) st1((T *)a.copy + i, p[0]);
    if (a.ema) {
        load(g, a.ema, i, four);
#pragma unroll
        for (int e = 0; e < W; e++) g[e] += (1.0f - a.ema_decay) * (p[e] - g[e]);
        store(a.ema, i, g, four);
    }
}

template <class T> static void adamw_(const AdamW *a) {
    if (!a->n) return;
    bool vector = aligned16(a->p) && aligned16(a->g) && aligned16(a->m) && aligned16(a->v) && aligned16(a->ema) &&
                  aligned16(a->copy);
    int64_t body = vector ? a->n / 4 * 4 : 0;
    AdamW first = *a;
    first.n = body;
    if (body) adamw_kernel<4, T><<<(unsigned)ceil_div(body, THREADS * 4), THREADS, 0, cuda.compute>>>(first, 0);
    if (body < a->n)
        adamw_kernel<1, T><<<(unsigned)ceil_div(a->n - body, THREADS), THREADS, 0, cuda.compute>>>(*a, body);
    cuda_launched("adamw");
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
    int64_t piece = PIECE;
    while (ceil_div(n, piece) > PIECES) piece *= 2;
    int64_t pieces = ceil_div(n, piece);
    double *partial = (double *)cuda_workspace((size_t)PIECES * sizeof(double), "sumsq");
    if (!partial) return;
    if (n) sumsq_pieces<<<(unsigned)pieces, THREADS, 0, cuda.compute>>>(partial, g, n, piece, aligned16(g));
    sumsq_total<<<1, THREADS, 0, cuda.compute>>>(out, partial, pieces, add);
    cuda_launched("sumsq");
}

static __global__ void grad_scale_kernel(float *scale, float *norm_out, const double *sumsq, int n, float max_norm) {
    double norm = 0;
    for (int i = 0; i < n; i++) norm += sumsq[i];
    norm = sqrt(norm);
    *norm_out = (float)norm;
    *scale = !isfinite(norm) ? 0.0f : max_norm > 0 && norm > (double)max_norm ? (float)((double)max_norm / norm) : 1.0f;
}

void cuda_grad_scale(float *scale, float *norm_out, const double *sumsq, int n, float max_norm) {
    grad_scale_kernel<<<1, 1, 0, cuda.compute>>>(scale, norm_out, sumsq, n, max_norm);
    cuda_launched("grad_scale");
}
