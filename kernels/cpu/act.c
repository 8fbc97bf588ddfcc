/* act: activations between two linear layers, with the bias of the first in front, plain or gated (h = f * v).
 *
 *   x = u + bias,  v = up + up_bias (1 when there is no gate)
 *   h = f(x) v      du = dh v f'(x)      dup = dh f(x)      dbias, dup_bias = sums of du, dup over rows
 *
 *   gelu         f = x Phi(x)              f' = Phi + x phi
 *                Phi(x) = (1 + erf(x / sqrt 2)) / 2,  phi(x) = exp(-x^2 / 2) / sqrt(2 pi)
 *   tanh, quick, silu     f = x S(w)       f' = S + x S (1 - S) w',  S(w) = 1 / (1 + exp(-w)),  w = a x (1 + b x^2)
 *                a, b = sqrt(8 / pi), 0.044715 (since (1 + tanh y) / 2 = S(2 y));  1.702, 0;  1, 0
 *   relu         f = max(x, 0)             f' = 1 where x > 0
 *
 * Phi is taken from its lower tail, where nothing cancels:
 *
 *   Phi(-a) = exp(-a^2/2) g(a),  g(a) = exp(a^2/2) erfc(a / sqrt 2) / 2
 *
 * g is smooth and falls like 1/a: with t = 1 / (1 + 0.35 a) it is t P(t), P of degree 8, minimax in relative error on
 * [0, 13] (3.2e-8). The same exp serves phi: 2^(f + n), a polynomial in f. About 36 instructions for
 * 16 elements, which is what the time goes into; the others are bound by memory. Bytes: forward 2NF, backward 3NF
 * elements, 4NF with h; gated 3NF, 5NF, 6NF. */
#include "kernels/cpu/vec.h"

/* Phi(x), and e = exp(-x^2 / 2). */
static inline __attribute__((always_inline)) vec normal_cdf(vec x, vec *e) {
    vec t = vec_inverse(vec_fma(vec_max(x, -x), vec_set(0.35f), vec_set(1.0f)));
    vec p = vec_fma(vec_set(-0.0290924577f), t, vec_set(0.143707553f));
    p = vec_fma(p, t, vec_set(-0.255159273f));
    p = vec_fma(p, t, vec_set(0.158528175f));
    p = vec_fma(p, t, vec_set(-0.0226555977f));
    p = vec_fma(p, t, vec_set(0.105311059f));
    p = vec_fma(p, t, vec_set(0.119884109f));
    p = vec_fma(p, t, vec_set(0.139854581f));
    p = vec_fma(p, t, vec_set(0.139621837f));
    vec y = vec_max(vec_set(-126.0f), x * x * -0.721347520f);               /* log2 of e; NaN stays */
    /* 1.5 * 2^23: adding it rounds to a whole number, which then stands in the low bits */
    vec m = y + 12582912.0f, f = y - (m - 12582912.0f);
    vec q = vec_fma(vec_set(0.000153209928f), f, vec_set(0.00133902743f));
    q = vec_fma(q, f, vec_set(0.00961852788f));
    q = vec_fma(q, f, vec_set(0.0555036206f));
    q = vec_fma(q, f, vec_set(0.240226475f));
    q = vec_fma(q, f, vec_set(0.693147181f));
    q = vec_fma(q, f, vec_set(1.0f));
    *e = (vec)((uvec)q + ((uvec)m << 23));
    vec tail = *e * (t * p);                                 /* of |x|: both tails come out of the one polynomial */
    return vec_pick(vec_negative(x), tail, 1.0f - tail);     /* 1 - tail loses nothing that f32 could hold */
}

/* f(x), and its slope. S(w) is taken from e = exp(-|w|), which cannot overflow: 1 / (1 + e), or e times that. */
static inline __attribute__((always_inline)) vec activation(ActKind kind, vec x, vec *slope) {
    vec e, cdf, zero = vec_set(0.0f), one = vec_set(1.0f);
    if (kind == ACT_RELU) {
        *slope = vec_where(vec_positive(x), one);            /* 0 at 0, as PyTorch has it */
        return vec_max(zero, x);                             /* in this order a NaN stays one */
    }
    if (kind == ACT_GELU) {
        cdf = normal_cdf(x, &e);
        *slope = vec_fma(x * 0.398942280f, e, cdf);
        return x * cdf;
    }
    float a = kind == ACT_GELU_TANH ? 1.59576912f : kind == ACT_GELU_QUICK ? 1.702f : 1.0f;
    float b = kind == ACT_GELU_TANH ? 0.044715f : 0.0f;
    vec w = x * a * vec_fma(x * x, vec_set(b), one);
    e = vec_exp(-vec_max(w, -w));
    vec large = vec_inverse(e + 1.0f), small = e * large;
    cdf = vec_pick(vec_negative(w), small, large);
    *slope = vec_fma(x * a * vec_fma(x * x, vec_set(3.0f * b), one), large * small, cdf);
    return x * cdf;
}

VEC_FN vec biased(const elem *u, const float *bias, int64_t c, int64_t n) {
    vec x = ldv(u + c, n);
    if (bias) x += ldf(bias + c, n);
    return x;
}

/* One row; kind and gated are constants where this is inlined. */
VEC_FN void row_forward(const Act *a, int64_t r, ActKind kind, bool gated) {
    const elem *u = (const elem *)a->u + r * a->ldu, *up = gated ? (const elem *)a->up + r * a->ldu : NULL;
    elem *h = (elem *)a->h + r * a->ldh;
    for (int64_t c = 0; c < a->F; c += LANES) {
        vec slope, f = activation(kind, biased(u, a->bias, c, a->F - c), &slope);
        /* the gate is the half with the activation; which half comes first is act_of's (ops.c) business */
        if (gated) f *= biased(up, a->up_bias, c, a->F - c);
        stv(h + c, f, a->F - c);
    }
}

VEC_FN void add_to(float *sum, int64_t c, vec x, int64_t n) {
    if (sum) stf(sum + c, ldf(sum + c, n) + x, n);
}

/* One row; db, dub: the block's sums, or NULL. All of a vector is read before any of it is written: h may lie where u
 * lies, du where dh does. */
VEC_FN void row_backward(const Act *a, const ActGrad *g, int64_t r, float *db, float *dub, ActKind kind, bool gated) {
    const elem *u = (const elem *)a->u + r * a->ldu, *up = gated ? (const elem *)a->up + r * a->ldu : NULL;
    const elem *dh = (const elem *)g->dh + r * g->lddh;
    elem *du = (elem *)g->du + r * g->lddu, *dup = gated ? (elem *)g->dup + r * g->lddu : NULL;
    elem *h = a->h ? (elem *)a->h + r * a->ldh : NULL;
    for (int64_t c = 0; c < a->F; c += LANES) {
        int64_t n = a->F - c;
        vec slope, f = activation(kind, biased(u, a->bias, c, n), &slope), d = ldv(dh + c, n), dx = d * slope, y = f;
        if (gated) {
            vec v = biased(up, a->up_bias, c, n), dv = d * f;
            dx *= v, y *= v;
            stv(dup + c, dv, n);
            add_to(dub, c, dv, n);
        }
        stv(du + c, dx, n);
        if (h) stv(h + c, y, n);
        add_to(db, c, dx, n);
    }
}

/* call(kind, gated) with constants. */
#define EACH_KIND(call) \
    switch (a->kind) { \
    case ACT_GELU: if (a->up) call(ACT_GELU, true); else call(ACT_GELU, false); break; \
    case ACT_GELU_TANH: if (a->up) call(ACT_GELU_TANH, true); else call(ACT_GELU_TANH, false); break; \
    case ACT_GELU_QUICK: if (a->up) call(ACT_GELU_QUICK, true); else call(ACT_GELU_QUICK, false); break; \
    case ACT_RELU: if (a->up) call(ACT_RELU, true); else call(ACT_RELU, false); break; \
    case ACT_SILU: if (a->up) call(ACT_SILU, true); else call(ACT_SILU, false); break; \
    }

void FN(act)(const Act *a) {
#pragma omp parallel for schedule(static) if (PARALLEL(4 * a->N * a->F))
    for (int64_t r = 0; r < a->N; r++) {
#define FORWARD(kind, gated) row_forward(a, r, kind, gated)
        EACH_KIND(FORWARD)
    }
}

void FN(act_bwd)(const Act *a, const ActGrad *g) {
    int64_t N = a->N, F = a->F, R = row_block(N), nb = row_blocks(N), sums = (g->dbias != NULL) + (g->dup_bias != NULL);
    /* + 1: a size of 0 would be answered with no memory, which reads as a failure */
    float *partial = cpu_scratch((size_t)(nb * sums * F + 1) * sizeof(float));
    if (!partial) return;
#pragma omp parallel for schedule(static) if (PARALLEL(4 * N * F))
    for (int64_t b = 0; b < nb; b++) {
        float *at = partial + b * sums * F, *db = g->dbias ? at : NULL, *dub = g->dup_bias ? at + (sums - 1) * F : NULL;
        memset(at, 0, (size_t)(sums * F) * sizeof(float));
        for (int64_t r = b * R; r < MIN(N, b * R + R); r++) {
#define BACKWARD(kind, gated) row_backward(a, g, r, db, dub, kind, gated)
            EACH_KIND(BACKWARD)
        }
    }
    /* blocks in their order: the same bits with any number of threads */
    if (g->dbias) cpu_add_partials(g->dbias, partial, nb, sums * F, F);
    if (g->dup_bias) cpu_add_partials(g->dup_bias, partial + (sums - 1) * F, nb, sums * F, F);
}
