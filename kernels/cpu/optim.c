/* optim: the gradient's norm, and AdamW with decoupled weight decay (training.md 1).
 *
 *   g' = g scale;  m = b1 m + (1 - b1) g';  v = b2 v + (1 - b2) g'^2
 *   p  = p (1 - lr wd) - lr (m / c1) / (sqrt(v / c2) + eps)                c1 = 1 - b1^t, c2 = 1 - b2^t
 *
 * One pass: reads p, g, m, v, writes p, m, v and the elem copy: 28 bytes a parameter, 30 with a bf16 copy, 4 more where
 * g becomes zero. */
#include "kernels/cpu/cpu.h"

enum { BLOCK = 1 << 15 };

void FN(sumsq)(double *out, const float *g, int64_t n, bool add) {
    int64_t nb = (n + BLOCK - 1) / BLOCK;
    double *partial = cpu_scratch((size_t)nb * sizeof(double)), total = add ? out[0] : 0.0;
    if (!partial) return;
#pragma omp parallel for schedule(static) if (PARALLEL(n))
    for (int64_t b = 0; b < nb; b++) {
        double s = 0.0;
#pragma omp simd reduction(+ : s)
        for (int64_t i = b * BLOCK; i < MIN(n, b * BLOCK + BLOCK); i++) s += (double)g[i] * (double)g[i];
        partial[b] = s;
    }
    /* blocks of a fixed size, in order: the norm decides the clipping of all ranks */
    for (int64_t b = 0; b < nb; b++) total += partial[b];
    out[0] = total;
}

void FN(grad_scale)(float *scale, float *norm_out, const double *sumsq, int n, float max_norm) {
    double norm = 0;
    for (int i = 0; i < n; i++) norm += sumsq[i];
    norm = sqrt(norm);
    *norm_out = (float)norm;
    bool clip = max_norm > 0.0f && norm > (double)max_norm;
    /* 0 says: leave everything as it is (adamw) */
    *scale = !isfinite(norm) ? 0.0f : clip ? (float)((double)max_norm / norm) : 1.0f;
}

void FN(adamw)(const AdamW *a) {
    float *p = a->p, *g = a->g, *m = a->m, *v = a->v, *ema = a->ema;
    elem *copy = a->copy;
    float scale = *a->gscale, decay = 1.0f - a->lr * a->weight_decay, step = a->lr / a->c1, inv_c2 = 1.0f / a->c2;
    float b1 = a->beta1, b2 = a->beta2, d1 = 1.0f - b1, d2 = 1.0f - b2, eps = a->eps, e = 1.0f - a->ema_decay;
    /* a block fits the cache: copy and ema read p there, not from memory again */
    int64_t n = a->n, nb = (n + BLOCK - 1) / BLOCK;
    if (scale == 0.0f) return;
#pragma omp parallel for schedule(static) if (PARALLEL(4 * n))
    for (int64_t b = 0; b < nb; b++) {
        int64_t i0 = b * BLOCK, i1 = MIN(n, i0 + BLOCK);
#pragma omp simd
        for (int64_t i = i0; i < i1; i++) {
            float gi = g[i] * scale, mi = fmadd(b1, m[i], d1 * gi), vi = fmadd(b2, v[i], d2 * gi * gi);
            m[i] = mi;
            v[i] = vi;
            /* decay first and on p alone: AdamW's, not an L2 term in the gradient */
            p[i] = fmadd(p[i], decay, -(step * mi / (sqrtf(vi * inv_c2) + eps)));
        }
        if (!a->keep_g) memset(g + i0, 0, (size_t)(i1 - i0) * sizeof *g);
        if (copy) {
#pragma omp simd
            for (int64_t i = i0; i < i1; i++) copy[i] = st(p[i]);
        }
        if (ema) {
#pragma omp simd
            /* by the difference: d ema + (1 - d) p loses the small steps when d is near 1 */
            for (int64_t i = i0; i < i1; i++) ema[i] = fmadd(e, p[i] - ema[i], ema[i]);
        }
    }
}
