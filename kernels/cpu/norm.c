/* norm: residual, dropout and LayerNorm.
 *
 *   z = x + dropout(s + bias)        mean, rstd over the C channels of a row        y = (z - mean) rstd gamma + beta
 *
 *   g = dy gamma,  x^ = (z - mean) rstd,  dz = rstd (g - mean(g) - x^ mean(g x^))
 *   dx = dz,  ds = dz dropped out as s was,  dbias = sum ds,  dgamma = sum dy x^,  dbeta = sum dy      (sums over rows)
 *
 * y is the norm of z as it is stored (rounded to elem), so that the backward's x^ is the forward's. A row stays in L1 between
 * the three passes over it: forward reads s, x and writes s, y: 4NC elements; backward reads dy, z and writes ds, dx: 4NC (5NC
 * when dx is added to). Mean and variance are taken in two passes: no cancellation. */
#include "kernels/cpu/cpu.h"

enum { CHUNK = 512 };    /* channels whose dropout bits are drawn together; a multiple of DROP_PAD */

/* z = x + dropout(s + bias), stored over s; x and bias may be NULL. */
static void sum_row(elem *s, const elem *x, const float *bias, int64_t C, const Dropout *d, int64_t row) {
    if (bias) {
        if (d->p > 0.0f) {
            /* below */
        } else if (x) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++) s[c] = st(ld(x[c]) + (ld(s[c]) + bias[c]));
            return;
        } else {
#pragma omp simd
            for (int64_t c = 0; c < C; c++) s[c] = st(ld(s[c]) + bias[c]);
            return;
        }
    } else if (d->p <= 0.0f) {
        if (!x) return;
#pragma omp simd
        for (int64_t c = 0; c < C; c++) s[c] = st(ld(x[c]) + ld(s[c]));
        return;
    }
    uint16_t bits[CHUNK];
    uint32_t threshold = dropout_threshold(d->p);
    float keep = 1.0f / (1.0f - d->p);
    for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
        int64_t n = MIN(C - c0, (int64_t)CHUNK);
        cpu_dropout_bits(bits, d, d->rows[row], (uint32_t)(c0 / 8), (n + 7) / 8);
        float v[CHUNK];
#pragma omp simd
        for (int64_t c = 0; c < n; c++) v[c] = ld(s[c0 + c]);
        if (bias) {
#pragma omp simd
            for (int64_t c = 0; c < n; c++) v[c] += bias[c0 + c];
        }
#pragma omp simd
        for (int64_t c = 0; c < n; c++) v[c] *= bits[c] >= threshold ? keep : 0.0f;
        if (x) {
#pragma omp simd
            for (int64_t c = 0; c < n; c++) v[c] += ld(x[c0 + c]);
        }
#pragma omp simd
        for (int64_t c = 0; c < n; c++) s[c0 + c] = st(v[c]);
    }
}

void FN(add_norm)(const AddNorm *a) {
    int64_t N = a->N, C = a->C;
#pragma omp parallel for schedule(static) if (PARALLEL(N * C))
    for (int64_t r = 0; r < N; r++) {
        elem *s = (elem *)a->s + r * C, *y = (elem *)a->y + r * C;
        sum_row(s, a->x ? (const elem *)a->x + r * C : NULL, a->bias, C, &a->drop, r);
        float sum = 0.0f, var = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++) sum += ld(s[c]);
        float mean = sum / (float)C;
#pragma omp simd reduction(+ : var)
        for (int64_t c = 0; c < C; c++) {
            float t = ld(s[c]) - mean;
            var += t * t;
        }
        float rstd = 1.0f / sqrtf(var / (float)C + a->eps);
#pragma omp simd
        for (int64_t c = 0; c < C; c++) y[c] = st(fmadd((ld(s[c]) - mean) * rstd, a->gamma[c], a->beta[c]));
        a->mean[r] = mean;
        a->rstd[r] = rstd;
    }
}

void FN(add_norm_bwd)(const AddNorm *a, const AddNormGrad *g) {
    int64_t N = a->N, C = a->C, R = row_block(N), nb = row_blocks(N), parts = g->dbias ? 3 : 2;
    int64_t stride = parts * C;
    float *partial = cpu_scratch((size_t)(nb * stride) * sizeof(float));
    if (!partial) return;
    uint32_t threshold = dropout_threshold(a->drop.p);
    float keep = 1.0f / (1.0f - a->drop.p);
#pragma omp parallel for schedule(static) if (PARALLEL(N * C))
    for (int64_t b = 0; b < nb; b++) {
        float *dgamma = partial + b * stride, *dbeta = dgamma + C, *dbias = dbeta + C;
        memset(dgamma, 0, (size_t)stride * sizeof(float));
        for (int64_t r = b * R; r < MIN(N, b * R + R); r++) {
            const elem *dy = (const elem *)g->dy + r * C, *z = (const elem *)a->s + r * C;
            elem *ds = (elem *)g->ds + r * C, *dx = g->dx ? (elem *)g->dx + r * C : NULL;
            float mean = a->mean[r], rstd = a->rstd[r], sg = 0.0f, sgx = 0.0f;
#pragma omp simd reduction(+ : sg, sgx)
            for (int64_t c = 0; c < C; c++) {
                float d = ld(dy[c]), xh = (ld(z[c]) - mean) * rstd, gg = d * a->gamma[c];
                sg += gg;
                sgx += gg * xh;
                dgamma[c] = fmadd(d, xh, dgamma[c]);
                dbeta[c] += d;
            }
            sg /= (float)C;
            sgx /= (float)C;
            for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
                int64_t n = MIN(C - c0, (int64_t)CHUNK);
                float dz[CHUNK];
#pragma omp simd
                for (int64_t c = 0; c < n; c++) {
                    float xh = (ld(z[c0 + c]) - mean) * rstd;
                    dz[c] = rstd * (ld(dy[c0 + c]) * a->gamma[c0 + c] - sg - xh * sgx);
                }
                if (dx && g->add_dx) {
#pragma omp simd
                    for (int64_t c = 0; c < n; c++) dx[c0 + c] = st(ld(dx[c0 + c]) + dz[c]);
                } else if (dx) {
#pragma omp simd
                    for (int64_t c = 0; c < n; c++) dx[c0 + c] = st(dz[c]);
                }
                if (a->drop.p > 0.0f) {
                    uint16_t bits[CHUNK];
                    cpu_dropout_bits(bits, &a->drop, a->drop.rows[r], (uint32_t)(c0 / 8), (n + 7) / 8);
#pragma omp simd
                    for (int64_t c = 0; c < n; c++) dz[c] *= bits[c] >= threshold ? keep : 0.0f;
                }
                if (g->dbias) {
#pragma omp simd
                    for (int64_t c = 0; c < n; c++) dbias[c0 + c] += dz[c];
                }
#pragma omp simd
                for (int64_t c = 0; c < n; c++) ds[c0 + c] = st(dz[c]);
            }
        }
    }
    cpu_add_partials(g->dgamma, partial, nb, stride, C);
    cpu_add_partials(g->dbeta, partial + C, nb, stride, C);
    if (g->dbias) cpu_add_partials(g->dbias, partial + 2 * C, nb, stride, C);
}
