/* gelu: bias and the exact GELU.
 *
 *   h = x Phi(x),  x = u + bias,  Phi(x) = (1 + erf(x / sqrt 2)) / 2
 *   du = dh (Phi(x) + x phi(x)),  phi(x) = exp(-x^2 / 2) / sqrt(2 pi),  dbias = sum over rows of du
 *
 * A thread keeps eight columns, with their bias, and walks down a strip of rows. Bytes (T of e bytes): forward 2NF e,
 * backward 3NF e (4NF with h) plus F f32 of partial sums a strip, once written and once read; the bias once a strip.
 * With h the backward makes again what the next product needs, in u's place: one reading of u serves both. Limited by
 * memory: at N = 20,000, F = 3072, bf16 forward 246 MB, 73 us of an H100; its 25 instructions an element take about 45
 * us beside it.
 *
 * Limits of the fast kernels: F % 8 == 0 and 16-byte addresses; the simple ones take anything. 32 and 64 registers: 64
 * and 32 warps an SM. */
#include "kernels/cuda/device.cuh"

enum { THREADS = 128, STRIP = 32 };

DEVICE float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }
DEVICE float gelu_slope(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.39894228f * expf(-0.5f * x * x);
}

template <class T>
static __global__ void gelu_fast(T *h, const T *u, const float *bias, int64_t N, int64_t F, int64_t per) {
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8, end = min(N, ((int64_t)blockIdx.y + 1) * per);
    if (c >= F) return;
    float b[8] = {0}, v[8];
    if (bias) ld8(b, bias + c);
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        ld8(v, u + r * F + c);
#pragma unroll
        for (int e = 0; e < 8; e++) v[e] = gelu(v[e] + b[e]);
        st8(h + r * F + c, v);
    }
}

template <class T> static __global__ void gelu_simple(T *h, const T *u, const float *bias, int64_t N, int64_t F) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < N * F) st1(h + i, gelu(ld1(u + i) + (bias ? bias[i % F] : 0.0f)));
}

template <class T> static void gelu_(void *h, const void *u, const float *bias, int64_t N, int64_t F) {
    if (!N || !F) return;
    if (F % 8 || !aligned16(h) || !aligned16(u) || !aligned16(bias)) {
        gelu_simple<T>
            <<<(unsigned)ceil_div(N * F, THREADS), THREADS, 0, cuda.compute>>>((T *)h, (const T *)u, bias, N, F);
    } else {
        int64_t strips = ceil_div(N, STRIP), per = strips > 65535 ? ceil_div(N, 65535) : (int64_t)STRIP;
        dim3 grid((unsigned)ceil_div(F, THREADS * 8), (unsigned)ceil_div(N, per));
        gelu_fast<T><<<grid, THREADS, 0, cuda.compute>>>((T *)h, (const T *)u, bias, N, F, per);
    }
    cuda_launched("gelu");
}
EXPORT(gelu, (void *h, const void *u, const float *bias, int64_t N, int64_t F), (h, u, bias, N, F))

/* ---- backward -------------------------------------------------------------------------------------------------- */

/* H: h is wanted too. */
template <class T, bool H>
static __global__ void gelu_bwd_fast(T *du, T *h, float *partial, const T *dh, const T *u, const float *bias, int64_t N,
                                     int64_t F, int64_t per) {
    int64_t c = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * 8, end = min(N, ((int64_t)blockIdx.y + 1) * per);
    if (c >= F) return;
    float b[8] = {0}, sum[8] = {0}, v[8], d[8];
    if (bias) ld8(b, bias + c);
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        ld8(v, u + r * F + c);
        ld8(d, dh + r * F + c);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float x = v[e] + b[e];
            d[e] *= gelu_slope(x);
            sum[e] += d[e];
            if (H) v[e] = gelu(x);
        }
        st8(du + r * F + c, d);
        if (H) st8(h + r * F + c, v);
    }
    st8(partial + blockIdx.y * F + c, sum);
}

template <class T>
static __global__ void gelu_bwd_simple(T *du, T *h, float *partial, const T *dh, const T *u, const float *bias,
                                       int64_t N, int64_t F, int64_t per) {
    int64_t c = (int64_t)blockIdx.x * THREADS + threadIdx.x, end = min(N, ((int64_t)blockIdx.y + 1) * per);
    if (c >= F) return;
    float sum = 0;
    for (int64_t r = blockIdx.y * per; r < end; r++) {
        float x = ld1(u + r * F + c) + (bias ? bias[c] : 0.0f), d = ld1(dh + r * F + c) * gelu_slope(x);
        sum += d;
        st1(du + r * F + c, d);
        if (h) st1(h + r * F + c, gelu(x));
    }
    partial[blockIdx.y * F + c] = sum;
}

template <class T>
static void gelu_bwd_(void *du, void *h, float *dbias, const void *dh, const void *u, const float *bias, int64_t N,
                      int64_t F) {
    if (!N || !F) return;
    bool fast = F % 8 == 0 && aligned16(du) && aligned16(h) && aligned16(dh) && aligned16(u) &&
                aligned16(bias);
    int columns = (int)ceil_div(F, fast ? THREADS * 8 : THREADS);
    int parts = row_parts(N, F, 1, STRIP, (int)ceil_div(cuda.sms * 8, columns));
    float *partial = (float *)cuda_workspace((size_t)(parts * F) * sizeof(float), "gelu_bwd");
    if (!partial) return;
    int64_t per = ceil_div(N, parts);
    dim3 grid((unsigned)columns, (unsigned)parts);
    auto *kernel = !fast ? gelu_bwd_simple<T> : h ? gelu_bwd_fast<T, true> : gelu_bwd_fast<T, false>;
    kernel<<<grid, THREADS, 0, cuda.compute>>>((T *)du, (T *)h, partial, (const T *)dh, (const T *)u, bias, N, F, per);
    cuda_launched("gelu_bwd");
    float *dst[3] = {dbias, NULL, NULL};
    if (dbias) cuda_add_partials(dst, partial, parts, F, F);
}
EXPORT(gelu_bwd,
       (void *du, void *h, float *dbias, const void *dh, const void *u, const float *bias, int64_t N, int64_t F),
       (du, h, dbias, dh, u, bias, N, F))
