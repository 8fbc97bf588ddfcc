/* act: the activations themselves, for the kernels that apply them (act.cu, product_act.cu).
 *
 *   gelu         f = x Phi(x)              f' = Phi + x phi,  phi(x) = exp(-x^2 / 2) / sqrt(2 pi)
 *   tanh, quick, silu     f = x S(w)       f' = S + x S (1 - S) w',  S(w) = 1 / (1 + exp(-w)),  w = a x (1 + b x^2)
 *                a, b = sqrt(8 / pi), 0.044715;  1.702, 0;  1, 0
 *   relu         f = max(x, 0)             f' = 1 where x > 0
 *
 * Phi as on the CPU (cpu/act.c): its lower tail is exp(-x^2/2) t P(t) with t = 1 / (1 + 0.35 |x|), P of degree 8: one
 * reciprocal, one exponential and 9 multiply-adds instead of erff's 25 instructions, and the exponential serves phi. */
#pragma once
#include "kernels/cuda/device.cuh"

DEVICE float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
DEVICE float inverse_fast(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* f(x) = x cdf, and its slope. */
template <ActKind K> DEVICE float activation(float x, float *slope) {
    if (K == ACT_RELU) {
        *slope = x > 0 ? 1.0f : 0.0f;
        return x > 0 ? x : x != x ? x : 0.0f; /* a NaN is not greater than 0, and must not become it */
    }
    if (K == ACT_GELU) {
        float t = inverse_fast(fmaf(fabsf(x), 0.35f, 1.0f)), e = exp2_fast(x * x * -0.721347520f);
        float p = fmaf(-0.0290924577f, t, 0.143707553f);
        p = fmaf(p, t, -0.255159273f);
        p = fmaf(p, t, 0.158528175f);
        p = fmaf(p, t, -0.0226555977f);
        p = fmaf(p, t, 0.105311059f);
        p = fmaf(p, t, 0.119884109f);
        p = fmaf(p, t, 0.139854581f);
        p = fmaf(p, t, 0.139621837f);
        /* by the lower tail: the digits of a small Phi stay */
        float tail = e * (t * p), cdf = x < 0 ? tail : 1.0f - tail;
        *slope = fmaf(x * 0.398942280f, e, cdf);
        return x * cdf;
    }
    const float a = K == ACT_GELU_TANH ? 1.59576912f : K == ACT_GELU_QUICK ? 1.702f : 1.0f;
    const float b = K == ACT_GELU_TANH ? 0.044715f : 0.0f;
    float w = x * a * fmaf(x * x, b, 1.0f), e = exp2_fast(fabsf(w) * -1.44269504f); /* cannot overflow */
    float large = inverse_fast(e + 1.0f), small = e * large, cdf = w < 0 ? small : large;
    *slope = fmaf(x * a * fmaf(x * x, 3.0f * b, 1.0f), large * small, cdf);
    return x * cdf;
}
