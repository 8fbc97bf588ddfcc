/* norm: residual, dropout and LayerNorm.
 *
 *   z = x + dropout(s + bias)        mean, rstd over the C channels of a row        y = (z - mean) rstd gamma + beta
 *
 *   g = dy gamma,  x^ = (z - mean) rstd,  dz = rstd (g - mean(g) - x^ mean(g x^))
 *   dx = dz,  ds = dz dropped out as s was,  dbias = sum ds,  dgamma = sum dy x^,  dbeta = sum dy      (sums over rows)
 *
 * y is the norm of z as it is stored (rounded to elem), so that the backward's x^ is the forward's. A row stays in L1
 * between the three passes over it: forward reads s, x and writes s, y: 4NC elements; backward reads dy, z and writes
 * ds, dx: 4NC (5NC when dx is added to). Mean and variance are taken in two passes: no cancellation. */
#include "kernels/cpu/vec.h"

/* z = x + dropout(s + bias), stored over s; x and bias may be NULL. Returns the sum of what was stored. */
static float sum_row(elem *s, const elem *x, const float *bias, int64_t C, Mask *m, int64_t row) {
    vec sum = vec_set(0.0f);
    for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
        int64_t end = MIN(C, c0 + CHUNK);
        mask_draw(m, row, c0, end - c0);
        for (int64_t c = c0; c < end; c += LANES) {
            vec v = ldv(s + c, C - c);
            if (bias) v += ldf(bias + c, C - c);
            v = masked(m, v, c - c0);
            if (x) v += ldv(x + c, C - c);
            stv(s + c, v, C - c);
            sum += ELEM == DT_F32 && C - c >= LANES ? v : ldv(s + c, C - c);
        }
    }
    return vec_sum(sum);
}

void FN(add_norm)(const AddNorm *a) {
    int64_t N = a->N, C = a->C;
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, &a->drop);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < N; r++) {
            elem *s = (elem *)a->s + r * C, *y = (elem *)a->y + r * C;
            float mean = sum_row(s, a->x ? (const elem *)a->x + r * C : NULL, a->bias, C, &m, r) / (float)C;
            vec sq = vec_set(0.0f);
            for (int64_t c = 0; c < C; c += LANES) {
                vec t = vec_where(vec_first(C - c), ldv(s + c, C - c) - mean);
                sq = vec_fma(t, t, sq);
            }
            float rstd = 1.0f / sqrtf(vec_sum(sq) / (float)C + a->eps);
            for (int64_t c = 0; c < C; c += LANES) {
                int64_t n = C - c;
                stv(y + c, vec_fma((ldv(s + c, n) - mean) * rstd, ldf(a->gamma + c, n), ldf(a->beta + c, n)), n);
            }
            a->mean[r] = mean;
            a->rstd[r] = rstd;
        }
    }
}

/* One row; dgamma, dbeta, dbias (or NULL) are the block's sums. */
static void row_bwd(const AddNorm *a, const AddNormGrad *g, int64_t r, float *dgamma, float *dbeta, float *dbias,
                    Mask *m) {
    int64_t C = a->C;
    const elem *dy = (const elem *)g->dy + r * C, *z = (const elem *)a->s + r * C;
    elem *ds = (elem *)g->ds + r * C, *dx = g->dx ? (elem *)g->dx + r * C : NULL;
    float mean = a->mean[r], rstd = a->rstd[r];
    vec sg = vec_set(0.0f), sgx = sg;
    for (int64_t c = 0; c < C; c += LANES) {               /* beyond C dy is zero, and so is all that is added up */
        int64_t n = C - c;
        vec d = ldv(dy + c, n), xh = (ldv(z + c, n) - mean) * rstd, gg = d * ldf(a->gamma + c, n);
        sg += gg;
        sgx = vec_fma(gg, xh, sgx);
        stf(dgamma + c, vec_fma(d, xh, ldf(dgamma + c, n)), n);
        stf(dbeta + c, ldf(dbeta + c, n) + d, n);
    }
    float mg = vec_sum(sg) / (float)C, mgx = vec_sum(sgx) / (float)C;
    for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
        int64_t end = MIN(C, c0 + CHUNK);
        mask_draw(m, r, c0, end - c0);
        for (int64_t c = c0; c < end; c += LANES) {
            int64_t n = C - c;
            vec xh = (ldv(z + c, n) - mean) * rstd, gg = ldv(dy + c, n) * ldf(a->gamma + c, n);
            vec dz = rstd * (gg - mg - xh * mgx), t = dz;
            if (dx && g->add_dx) t += ldv(dx + c, n);
            if (dx) stv(dx + c, t, n);
            dz = masked(m, dz, c - c0);
            if (dbias) stf(dbias + c, ldf(dbias + c, n) + dz, n);
            stv(ds + c, dz, n);
        }
    }
}

void FN(add_norm_bwd)(const AddNorm *a, const AddNormGrad *g) {
    int64_t N = a->N, C = a->C, R = row_block(N), nb = row_blocks(N), parts = g->dbias ? 3 : 2, stride = parts * C;
    float *partial = cpu_scratch((size_t)(nb * stride) * sizeof(float));
    if (!partial) return;
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, &a->drop);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < nb; b++) {
            float *dgamma = partial + b * stride, *dbeta = dgamma + C, *dbias = g->dbias ? dbeta + C : NULL;
            memset(dgamma, 0, (size_t)stride * sizeof(float));
            for (int64_t r = b * R; r < MIN(N, b * R + R); r++) row_bwd(a, g, r, dgamma, dbeta, dbias, &m);
        }
    }
    cpu_add_partials(g->dgamma, partial, nb, stride, C);
    cpu_add_partials(g->dbeta, partial + C, nb, stride, C);
    if (g->dbias) cpu_add_partials(g->dbias, partial + 2 * C, nb, stride, C);
}
