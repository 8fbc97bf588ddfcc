/* act: activations between two linear layers, with the bias of the first in front, plain or gated (h = f * v).
 *
 *   x = u + bias,  v = up + up_bias (1 when there is no gate)
 *   h = f(x) v      du = dh v f'(x)      dup = dh f(x)      dbias, dup_bias = sums of du, dup over rows
 *
 * f is act.cuh's.
 *
 * A thread keeps eight columns, with their bias, and walks down a strip of rows. Bytes (T of e bytes, m = NF e):
 * forward 2m (gated 3m), backward 3m (gated 5m; one more with h) plus F f32 of partial sums a strip and vector that is
 * wanted, once written and once read; each bias once a strip. With h the backward makes again what the next product
 * needs, in u's place: one reading of u serves both. Limited by memory: at N = 20,000, F = 3072, bf16 gelu 246 MB, 73
 * us of an H100; predicted within 5 % of that (23 warp instructions for 32 elements forward, 32 backward).
 *
 * Limits of the fast kernels: F and strides multiples of 8, 16-byte addresses; the simple ones take anything. */
#include "kernels/cuda/act.cuh"

enum { THREADS = 128, STRIP = 16 };

/* Registers that leave an SM more than half of its warps; sm_100's compiler takes more unless told. */
enum { FORWARD_BLOCKS = 10, BACKWARD_BLOCKS = 5 };

template <class T, ActKind K, bool GATED>
static __global__ __launch_bounds__(THREADS, FORWARD_BLOCKS) void act_fast(Act a, int64_t per) {
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8, end = min(a.N, ((int64_t)blockIdx.y + 1) * per);
    int64_t first = c - (threadIdx.x & 31) * 8; /* the warp's: vector8 reads as lanes lie */
    float b[8], vb[8], x[8], v[8], slope;
    vector8(b, a.bias, first, a.F);
    if (GATED) vector8(vb, a.up_bias, first, a.F);
    if (c >= a.F) return; /* only now: all lanes of a warp hand numbers on in vector8 */
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        ld8(x, (const T *)a.u + r * a.ldu + c);
        if (GATED) ld8(v, (const T *)a.up + r * a.ldu + c);
        UNROLL for (int e = 0; e < 8; e++) {
            x[e] = activation<K>(x[e] + b[e], &slope);
            if (GATED) x[e] *= v[e] + vb[e];
        }
        st8((T *)a.h + r * a.ldh + c, x);
    }
}

template <class T, ActKind K, bool GATED> static __global__ void act_simple(Act a) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, r = i / a.F, c = i - r * a.F;
    if (r >= a.N) return;
    float slope, y = activation<K>(ld1((const T *)a.u + r * a.ldu + c) + (a.bias ? a.bias[c] : 0.0f), &slope);
    if (GATED) y *= ld1((const T *)a.up + r * a.ldu + c) + (a.up_bias ? a.up_bias[c] : 0.0f);
    st1((T *)a.h + r * a.ldh + c, y);
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

template <class T, ActKind K, bool GATED>
static __global__ __launch_bounds__(THREADS, GATED ? 4 : BACKWARD_BLOCKS) void act_bwd_fast(Act a, ActGrad g,
                                                                                            float *partial,
                                                                                            int64_t per) {
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8, end = min(a.N, ((int64_t)blockIdx.y + 1) * per);
    int64_t first = c - (threadIdx.x & 31) * 8;
    float b[8], vb[8], sum[8] = {0}, vsum[8] = {0}, x[8], v[8], d[8], slope;
    vector8(b, a.bias, first, a.F);
    if (GATED) vector8(vb, a.up_bias, first, a.F);
    if (c >= a.F) return;
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        ld8(x, (const T *)a.u + r * a.ldu + c);
        if (GATED) ld8(v, (const T *)a.up + r * a.ldu + c);
        ld8(d, (const T *)g.dh + r * g.lddh + c);
        UNROLL for (int e = 0; e < 8; e++) {
            float f = activation<K>(x[e] + b[e], &slope);
            x[e] = f;
            if (GATED) {
                float up = v[e] + vb[e];
                v[e] = d[e] * f;
                vsum[e] += v[e];
                x[e] *= up, slope *= up; /* h = f v again, for who asked for it */
            }
            d[e] *= slope;
            sum[e] += d[e];
        }
        st8((T *)g.du + r * g.lddu + c, d);
        if (GATED) st8((T *)g.dup + r * g.lddu + c, v);
        if (a.h) st8((T *)a.h + r * a.ldh + c, x);
    }
    if (g.dbias) st8(partial + blockIdx.y * a.F + c, sum);
    if (GATED && g.dup_bias) st8(partial + ((int64_t)gridDim.y + blockIdx.y) * a.F + c, vsum);
}

template <class T, ActKind K, bool GATED>
static __global__ void act_bwd_simple(Act a, ActGrad g, float *partial, int64_t per) {
    int64_t c = (int64_t)blockIdx.x * THREADS + threadIdx.x, end = min(a.N, ((int64_t)blockIdx.y + 1) * per);
    if (c >= a.F) return;
    float sum = 0, vsum = 0, slope;
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        float f = activation<K>(ld1((const T *)a.u + r * a.ldu + c) + (a.bias ? a.bias[c] : 0.0f), &slope);
        float d = ld1((const T *)g.dh + r * g.lddh + c), up = 1.0f;
        if (GATED) {
            up = ld1((const T *)a.up + r * a.ldu + c) + (a.up_bias ? a.up_bias[c] : 0.0f);
            vsum += d * f;
            st1((T *)g.dup + r * g.lddu + c, d * f);
        }
        d *= slope * up;
        sum += d;
        st1((T *)g.du + r * g.lddu + c, d);
        if (a.h) st1((T *)a.h + r * a.ldh + c, f * up);
    }
    partial[blockIdx.y * a.F + c] = sum;
    if (GATED) partial[((int64_t)gridDim.y + blockIdx.y) * a.F + c] = vsum;
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

static bool is_fast(const Act *a, int64_t ldh) {
    return a->F % 8 == 0 && a->ldu % 8 == 0 && ldh % 8 == 0 && aligned16(a->u) && aligned16(a->up) && aligned16(a->h) &&
           aligned16(a->bias) && aligned16(a->up_bias);
}

template <class T, ActKind K, bool GATED> struct Launch {
    static void forward(const Act *a) {
        if (!is_fast(a, a->ldh)) {
            act_simple<T, K, GATED><<<(unsigned)ceil_div(a->N * a->F, THREADS), THREADS, 0, cuda.compute>>>(*a);
            return;
        }
        /* grid.y ends at 65,535: strips of more rows then */
        int64_t strips = ceil_div(a->N, STRIP), per = strips > 65535 ? ceil_div(a->N, 65535) : (int64_t)STRIP;
        dim3 grid((unsigned)ceil_div(a->F, THREADS * 8), (unsigned)ceil_div(a->N, per));
        act_fast<T, K, GATED><<<grid, THREADS, 0, cuda.compute>>>(*a, per);
    }
    static void backward(const Act *a, const ActGrad *g, float *partial, bool fast, int parts) {
        dim3 grid((unsigned)ceil_div(a->F, fast ? THREADS * 8 : THREADS), (unsigned)parts);
        auto *kernel = fast ? act_bwd_fast<T, K, GATED> : act_bwd_simple<T, K, GATED>;
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
    bool fast = is_fast(a, a->h ? a->ldh : 0) && g->lddh % 8 == 0 && g->lddu % 8 == 0 && aligned16(g->dh) &&
                aligned16(g->du) && aligned16(g->dup);
    int columns = (int)ceil_div(a->F, fast ? THREADS * 8 : THREADS);
    int parts = row_parts(a->N, a->F, 2, STRIP, (int)ceil_div(cuda.sms * 16, columns));
    float *partial = (float *)cuda_workspace((size_t)(parts * 2 * a->F) * sizeof(float), "act_bwd");
    if (!partial) return;
    of_kind<T>(a, [&](auto launch) { launch.backward(a, g, partial, fast, parts); });
    cuda_launched("act_bwd");
    float *dst[3] = {g->dbias, g->dup_bias, NULL};
    if (g->dbias || g->dup_bias) cuda_add_partials(dst, partial, parts, a->F, a->F);
}
EXPORT(act_bwd, (const Act *a, const ActGrad *g), (a, g))
