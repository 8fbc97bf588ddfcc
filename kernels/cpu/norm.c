/* norm: residual, dropout and a norm: LayerNorm (LN) or, with the root of the mean square alone, RMS.
 *
 *   z = x + dropout(s + bias)        LN: mean, rstd over the C channels of a row; RMS: mean = 0
 *   x^ = (z - mean) rstd,  rstd = 1 / sqrt(mean((z - mean)^2) + eps)        y = x^ gamma + beta
 *
 *   g = dy gamma,  dz = rstd (g - mean(g) - x^ mean(g x^)) + (z's gradient from elsewhere);  RMS: without mean(g)
 *   dx = dz,  ds = dz dropped out as s was,  dbias = sum ds,  dgamma = sum dy x^,  dbeta = sum dy      (sums over rows)
 *
 * y is the norm of z as it is stored (rounded to elem), so that the backward's x^ is the forward's. A row stays in L1
 * between the three passes over it: forward reads s, x and writes s, y: 4NC elements (2NC without s); backward reads
 * dy, z and writes ds, dx: 4NC (5NC when dx is added to, and one more for dz). Mean and variance are taken in two
 * passes: no cancellation. */
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
            /* of what was stored, rounded: the mean must be that of z as the backward reads it */
            sum += ELEM == DT_F32 && C - c >= LANES ? v : ldv(s + c, C - c);
        }
    }
    return vec_sum(sum);
}

static float plain_sum(const elem *z, int64_t C) {
    vec sum = vec_set(0.0f);
    for (int64_t c = 0; c < C; c += LANES) sum += ldv(z + c, C - c);
    return vec_sum(sum);
}

/* y = x^ gamma + beta of a row (y may be z); returns rstd. */
static float norm_row(elem *y, const elem *z, float mean, const float *gamma, const float *beta, int64_t C, float eps) {
    vec sq = vec_set(0.0f);
    for (int64_t c = 0; c < C; c += LANES) {
        /* lanes beyond C would add mean^2 each */
        vec t = vec_where(vec_first(C - c), ldv(z + c, C - c) - mean);
        sq = vec_fma(t, t, sq);
    }
    float rstd = 1.0f / sqrtf(vec_sum(sq) / (float)C + eps);
    for (int64_t c = 0; c < C; c += LANES) {
        int64_t n = C - c;
        vec b = beta ? ldf(beta + c, n) : vec_set(0.0f);
        stv(y + c, vec_fma((ldv(z + c, n) - mean) * rstd, ldf(gamma + c, n), b), n);
    }
    return rstd;
}

void FN(add_norm)(const AddNorm *a) {
    int64_t N = a->N, C = a->C;
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, &a->drop);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < N; r++) {
            elem *s = a->s ? (elem *)a->s + r * C : NULL;
            /* without s the norm is of x itself, and nothing is added to the stream */
            const elem *x = a->x ? (const elem *)a->x + r * C : NULL, *z = s ? s : x;
            float sum = s ? sum_row(s, x, a->bias, C, &m, r) : a->rms ? 0.0f : plain_sum(x, C);
            float mean = a->rms ? 0.0f : sum / (float)C;
            a->rstd[r] = norm_row((elem *)a->y + r * C, z, mean, a->gamma, a->beta, C, a->eps);
            if (!a->rms) a->mean[r] = mean;
        }
    }
}

/* What a row's backward needs of its forward, and the block's sums (each may be NULL). */
typedef struct {
    int64_t C;
    const float *gamma;
    float mean, rstd, mg, mgx;          /* mg, mgx: means of g (0 with RMS) and of g x^ */
    float *dgamma, *dbeta, *dbias;
} Row;

/* First pass: mg and mgx, and what the row adds to dgamma and dbeta. Beyond C dy is zero,
 * and so is all that is added up. */
static void row_means(Row *w, const elem *dy, const elem *z, bool rms) {
    vec sg = vec_set(0.0f), sgx = sg;
    for (int64_t c = 0; c < w->C; c += LANES) {
        int64_t n = w->C - c;
        vec d = ldv(dy + c, n), xh = (ldv(z + c, n) - w->mean) * w->rstd, gg = d * ldf(w->gamma + c, n);
        sg += gg;
        sgx = vec_fma(gg, xh, sgx);
        if (w->dgamma) stf(w->dgamma + c, vec_fma(d, xh, ldf(w->dgamma + c, n)), n);
        if (w->dbeta) stf(w->dbeta + c, ldf(w->dbeta + c, n) + d, n);
    }
    /* the mean's own gradient: RMS subtracts none */
    w->mg = rms ? 0.0f : vec_sum(sg) / (float)w->C;
    w->mgx = vec_sum(sgx) / (float)w->C;
}

VEC_FN vec row_slope(const Row *w, const elem *dy, const elem *z, int64_t c) {
    int64_t n = w->C - c;
    vec xh = (ldv(z + c, n) - w->mean) * w->rstd, gg = ldv(dy + c, n) * ldf(w->gamma + c, n);
    return w->rstd * (gg - w->mg - xh * w->mgx);
}

static void row_bwd(const AddNorm *a, const AddNormGrad *g, int64_t r, Row w, Mask *m) {
    int64_t C = a->C;
    const elem *dy = (const elem *)g->dy + r * C, *z = (const elem *)(a->s ? a->s : a->x) + r * C;
    const elem *later = g->dz ? (const elem *)g->dz + r * C : NULL;
    elem *ds = g->ds ? (elem *)g->ds + r * C : NULL, *dx = g->dx ? (elem *)g->dx + r * C : NULL;
    w.mean = a->rms ? 0.0f : a->mean[r], w.rstd = a->rstd[r];
    /* two passes over a row that is in the cache; one would have to keep C slopes */
    row_means(&w, dy, z, a->rms);
    for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
        int64_t end = MIN(C, c0 + CHUNK);
        mask_draw(m, r, c0, end - c0);
        for (int64_t c = c0; c < end; c += LANES) {
            int64_t n = C - c;
            vec dz = row_slope(&w, dy, z, c);
            if (later) dz += ldv(later + c, n);
            vec t = dz;
            if (dx && g->add_dx) t += ldv(dx + c, n);
            /* the residual takes dz undropped; only the branch behind it was dropped */
            if (dx) stv(dx + c, t, n);
            dz = masked(m, dz, c - c0);
            if (w.dbias) stf(w.dbias + c, ldf(w.dbias + c, n) + dz, n);
            if (ds) stv(ds + c, dz, n);
        }
    }
}

/* Sums of a block lie in a row of `partial` one after the other, those that are wanted. */
static Row open_row(int64_t C, const float *gamma, float *sums, bool dgamma, bool dbeta, bool dbias) {
    Row w = {.C = C, .gamma = gamma};
    if (dgamma) w.dgamma = sums, sums += C;
    if (dbeta) w.dbeta = sums, sums += C;
    if (dbias) w.dbias = sums;
    return w;
}

static void close_rows(float *const out[3], const float *partial, int64_t nb, int64_t stride, int64_t C) {
    for (int i = 0; i < 3; i++) {
        if (!out[i]) continue;
        cpu_add_partials(out[i], partial, nb, stride, C);
        partial += C;
    }
}

void FN(add_norm_bwd)(const AddNorm *a, const AddNormGrad *g) {
    float *const sums[3] = {g->dgamma, g->dbeta, g->dbias};
    int64_t N = a->N, C = a->C, R = row_block(N), nb = row_blocks(N);
    int64_t stride = C * ((sums[0] != NULL) + (sums[1] != NULL) + (sums[2] != NULL));
    /* 1: stride is 0 when nobody wants sums */
    float *partial = cpu_scratch((size_t)(nb * stride + 1) * sizeof(float));
    if (!partial) return;
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, &a->drop);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < nb; b++) {
            memset(partial + b * stride, 0, (size_t)stride * sizeof(float));
            Row w = open_row(C, a->gamma, partial + b * stride, sums[0], sums[1], sums[2]);
            for (int64_t r = b * R; r < MIN(N, b * R + R); r++) row_bwd(a, g, r, w, &m);
        }
    }
    close_rows(sums, partial, nb, stride, C);
}

/* ---- norms of column blocks, in place ---------------------------------------------------------------------------- */

void FN(head_norm)(const HeadNorm *a) {
    int64_t C = a->C, width = a->blocks * C;
#pragma omp parallel for schedule(static) if (PARALLEL(a->N * width))
    for (int64_t r = 0; r < a->N; r++) {
        elem *x = (elem *)a->x + r * a->ld;
        /* it is overwritten below, and the walk back wants it; without one nobody does */
        if (a->z) memcpy((elem *)a->z + r * width, x, (size_t)width * sizeof(elem));
        for (int64_t b = 0; b < a->blocks; b++, x += C) {
            float mean = a->rms ? 0.0f : plain_sum(x, C) / (float)C;
            float rstd = norm_row(x, x, mean, a->gamma, a->beta, C, a->eps);
            if (a->rstd) a->rstd[r * a->blocks + b] = rstd;
            if (a->mean && !a->rms) a->mean[r * a->blocks + b] = mean;
        }
    }
}

void FN(head_norm_bwd)(const HeadNorm *a, void *dx0, float *dgamma, float *dbeta) {
    float *const sums[3] = {dgamma, dbeta, NULL};
    int64_t N = a->N, C = a->C, H = a->blocks, R = row_block(N), nb = row_blocks(N);
    int64_t stride = C * ((dgamma != NULL) + (dbeta != NULL));
    float *partial = cpu_scratch((size_t)(nb * stride + 1) * sizeof(float));
    if (!partial) return;
#pragma omp parallel for schedule(static) if (PARALLEL(N * H * C))
    for (int64_t b = 0; b < nb; b++) {
        memset(partial + b * stride, 0, (size_t)stride * sizeof(float));
        Row w = open_row(C, a->gamma, partial + b * stride, dgamma, dbeta, false);
        for (int64_t i = b * R * H; i < MIN(N, b * R + R) * H; i++) {
            const elem *z = (const elem *)a->z + i * C;
            elem *dx = (elem *)dx0 + i / H * a->lddx + i % H * C;
            w.mean = a->rms ? 0.0f : a->mean[i], w.rstd = a->rstd[i];
            /* dx holds dy when it comes in: the norm was in place, its gradient is too */
            row_means(&w, dx, z, a->rms);
            for (int64_t c = 0; c < C; c += LANES) stv(dx + c, row_slope(&w, dx, z, c), C - c);
        }
    }
    close_rows(sums, partial, nb, stride, C);
}
