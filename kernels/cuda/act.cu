/* act: activations between two linear layers, with the bias of the first in front, plain or gated (h = f * v).
 *
 *   x = u + bias,  v = up + up_bias (1 when there is no gate)
 *   h = f(x) v      du = dh v f'(x)      dup = dh f(x)      dbias, dup_bias = sums of du, dup over rows
 *
 * f is act.cuh's.
 *
 * A thread keeps eight columns (or one), with their bias, and walks down a strip of rows. Bytes (T of e bytes,
 * m = NF e): forward 2m (gated 3m), backward 3m (gated 5m; one more with h) plus F f32 of partial sums a strip and
 * vector that is wanted, once written and once read; each bias once a strip. With h the backward makes again what the
 * next product needs, in u's place: one reading of u serves both. Limited by memory: at N = 20,000, F = 3072, bf16 gelu
 * 246 MB, 73 us of an H100; predicted within 5 % of that (23 warp instructions for 32 elements forward, 32 backward).
 *
 * Eight columns a thread: F and strides multiples of 8, 16-byte addresses; else one, and slowly. */
#include "kernels/cuda/act.cuh"

enum { THREADS = 128, STRIP = 16 };

/* Registers that leave an SM more than half of its warps; sm_100's compiler takes more unless told. */
enum { FORWARD_BLOCKS = 10, BACKWARD_BLOCKS = 5 };

/* W columns a thread: eight, or one where rows or addresses do not allow it. */
template <int W> DEVICE void bias_of(float b[W], const float *bias, int64_t c, int64_t F) {
    if constexpr (W == 8) vector8(b, bias, c - (threadIdx.x & 31) * 8, F); /* as lanes lie, from the warp's first on */
    else b[0] = bias && c < F ? bias[c] : 0.0f;
}

template <class T, ActKind K, bool GATED, int W>
static __global__ __launch_bounds__(THREADS, FORWARD_BLOCKS) void act_kernel(Act a, int64_t per) {
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W, end = min(a.N, ((int64_t)blockIdx.y + 1) * per);
    float b[W], vb[W], x[W], v[W], slope;
    bias_of<W>(b, a.bias, c, a.F);
    if (GATED) bias_of<W>(vb, a.up_bias, c, a.F);
    if (c >= a.F) return; /* only now: all lanes of a warp hand numbers on in vector8 */
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        load<W>(x, (const T *)a.u + r * a.ldu + c);
        if (GATED) load<W>(v, (const T *)a.up + r * a.ldu + c);
        UNROLL for (int e = 0; e < W; e++) {
            x[e] = activation<K>(x[e] + b[e], &slope);
            if (GATED) x[e] *= v[e] + vb[e];
        }
        store<W>((T *)a.h + r * a.ldh + c, x);
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

template <class T, ActKind K, bool GATED, int W>
static __global__ __launch_bounds__(THREADS, GATED ? 4 : BACKWARD_BLOCKS) void act_bwd_kernel(Act a, ActGrad g,
                                                                                              float *partial,
                                                                                              int64_t per) {
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W, end = min(a.N, ((int64_t)blockIdx.y + 1) * per);
    float b[W], vb[W], sum[W] = {0}, vsum[W] = {0}, x[W], v[W], d[W], slope;
    bias_of<W>(b, a.bias, c, a.F);
    if (GATED) bias_of<W>(vb, a.up_bias, c, a.F);
    if (c >= a.F) return;
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        /* all of a row's columns are read before any is written: h may lie where u does, du where dh does */
        load<W>(x, (const T *)a.u + r * a.ldu + c);
        if (GATED) load<W>(v, (const T *)a.up + r * a.ldu + c);
        load<W>(d, (const T *)g.dh + r * g.lddh + c);
        UNROLL for (int e = 0; e < W; e++) {
            float f = activation<K>(x[e] + b[e], &slope);
            x[e] = f;
            if (GATED) {
                float up = v[e] + vb[e];
                v[e] = d[e] * f;
                vsum[e] += v[e];
                x[e] *= up, slope *= up; /* h = f v again, for who asked for it */
            }
            d[e] *= slope;
            sum[e] += d[e]; /* in f32 as they are made, not as they are rounded into du */
        }
        store<W>((T *)g.du + r * g.lddu + c, d);
        if (GATED) store<W>((T *)g.dup + r * g.lddu + c, v);
        if (a.h) store<W>((T *)a.h + r * a.ldh + c, x);
    }
    /* strips leave rows of sums, which add_partials takes in order: no atomics, the same bits */
    if (g.dbias) store<W>(partial + blockIdx.y * a.F + c, sum);
    if (GATED && g.dup_bias) store<W>(partial + ((int64_t)gridDim.y + blockIdx.y) * a.F + c, vsum);
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

static bool is_whole(const Act *a, int64_t ldh) {
    return a->F % 8 == 0 && a->ldu % 8 == 0 && ldh % 8 == 0 && aligned16(a->u) && aligned16(a->up) && aligned16(a->h) &&
           aligned16(a->bias) && aligned16(a->up_bias);
}

template <class T, ActKind K, bool GATED> struct Launch {
    static void forward(const Act *a) {
        bool eights = is_whole(a, a->ldh);
        /* grid.y ends at 65,535: strips of more rows then */
        int64_t strips = ceil_div(a->N, STRIP), per = strips > 65535 ? ceil_div(a->N, 65535) : (int64_t)STRIP;
        dim3 grid((unsigned)ceil_div(a->F, eights ? THREADS * 8 : THREADS), (unsigned)ceil_div(a->N, per));
        auto *kernel = eights ? act_kernel<T, K, GATED, 8> : act_kernel<T, K, GATED, 1>;
        kernel<<<grid, THREADS, 0, cuda.compute>>>(*a, per);
    }
    static void backward(const Act *a, const ActGrad *g, float *partial, bool eights, int parts) {
        dim3 grid((unsigned)ceil_div(a->F, eights ? THREADS * 8 : THREADS), (unsigned)parts);
        auto *kernel = eights ? act_bwd_kernel<T, K, GATED, 8> : act_bwd_kernel<T, K, GATED, 1>;
        kernel<<<grid, THREADS, 0, cuda.compute>>>(*a, *g, partial, ceil_div(a->N, parts));
    }
};

/* f(Launch of the kind, gated or not). */
template <class T, ActKind K, class F> static void gated_or_not(const Act *a, F f) {
    if (a->up) f(Launch<T, K, true>());
    else f(Launch<T, K, false>());
}
template <class T, class F> static void of_kind(const Act *a, F f) {
    switch (a->kind) {
    case ACT_GELU: gated_or_not<T, ACT_GELU>(a, f); break;
    case ACT_GELU_TANH: gated_or_not<T, ACT_GELU_TANH>(a, f); break;
    case ACT_GELU_QUICK: gated_or_not<T, ACT_GELU_QUICK>(a, f); break;
    case ACT_RELU: gated_or_not<T, ACT_RELU>(a, f); break;
    case ACT_SILU: gated_or_not<T, ACT_SILU>(a, f); break;
    }
}

template <class T> static void act_(const Act *a) {
    if (!a->N || !a->F) return;
    of_kind<T>(a, [&](auto launch) { launch.forward(a); });
    cuda_launched("act");
}
EXPORT(act, (const Act *a), (a))

template <class T> static void act_bwd_(const Act *a, const ActGrad *g) {
    if (!a->N || !a->F) return;
    bool eights = is_whole(a, a->h ? a->ldh : 0) && g->lddh % 8 == 0 && g->lddu % 8 == 0 && aligned16(g->dh) &&
                  aligned16(g->du) && aligned16(g->dup);
    int columns = (int)ceil_div(a->F, eights ? THREADS * 8 : THREADS);
    /* sixteen blocks an SM over columns and strips, a third of them at once: the last ones end at about one time */
    int parts = row_parts(a->N, a->F, 2, STRIP, (int)ceil_div(cuda.sms * 16, columns));
    float *partial = (float *)cuda_workspace((size_t)(parts * 2 * a->F) * sizeof(float), "act_bwd");
    if (!partial) return;
    of_kind<T>(a, [&](auto launch) { launch.backward(a, g, partial, eights, parts); });
    cuda_launched("act_bwd");
    float *dst[3] = {g->dbias, g->dup_bias, NULL};
    if (g->dbias || g->dup_bias) cuda_add_partials(dst, partial, parts, a->F, a->F);
}
EXPORT(act_bwd, (const Act *a, const ActGrad *g), (a, g))
