/* loss: softmax losses over rows of f32 scores, and the draw of hard negatives (losses.md 2, 2a, 3, 5, 6).
 *
 *   itc    z = S / temp;  t_j = (1 - e) pos_j / n_pos + e / n;  loss = lse(z) - sum t z;  dz = p - t
 *          dS = scale dz / temp;  dtemp = -scale sum dz z / temp
 *   xent   loss = (1 - e)(lse - z_t) + e (lse - mean z);  dz = scale (p - (1 - e) [j = t] - e / n)
 *   draw   w = softmax over the columns that are not the row's own; the first j whose running sum exceeds u * total
 *
 * A row is one thread's: its exponentials are f32, its sums f64 (in pieces of 1024), so nothing depends on its length.
 * xent reads a row three times (maximum, sums, gradient): 122 KB at V = 30523, 608 KB at 152,000, which L2 holds. */
#include "kernels/cpu/vec.h"

enum { PIECE = 1024 };

static float row_max(const float *z, int64_t n) {
    vec m = vec_set(-INFINITY);
    float lanes[LANES], max;
    /* lanes beyond n keep what they had: zeros there could be the maximum */
    for (int64_t j = 0; j < n; j += LANES) m = vec_max(m, vec_pick(vec_first(n - j), ldf(z + j, n - j), m));
    memcpy(lanes, &m, sizeof lanes);
    max = lanes[0];
    for (int i = 1; i < LANES; i++) max = MAX(max, lanes[i]);
    return max;
}

/* sum of exp(z - max), and the sum of z */
static double row_sums(const float *z, int64_t n, float max, double *sum_z) {
    double total = 0.0, plain = 0.0;
    for (int64_t j0 = 0; j0 < n; j0 += PIECE) {
        vec s = vec_set(0.0f), q = s;
        for (int64_t j = j0; j < MIN(n, j0 + PIECE); j += LANES) {
            vec x = ldf(z + j, n - j);
            /* lanes beyond n would add exp(-max) each */
            s += vec_where(vec_first(n - j), vec_exp(x - max));
            q += x;
        }
        /* 1,024 in f32, those in f64: 152,000 terms in f32 lose three digits */
        total += (double)vec_sum(s);
        plain += (double)vec_sum(q);
    }
    *sum_z = plain;
    return total;
}

static bool own(const int32_t *target, const int64_t *row_id, const int64_t *col_id, int64_t i, int64_t j) {
    return row_id ? row_id[i] == col_id[j] : target[i] == j;
}

void FN(itc_loss)(const ItcLoss *l) {
    int64_t n = l->n;
    float *rows = cpu_scratch((size_t)omp_get_max_threads() * (size_t)n * sizeof(float));
    if (!rows) return;
    float inv = 1.0f / *l->temp;
#pragma omp parallel for schedule(static) if (PARALLEL(l->rows * n))
    for (int64_t i = 0; i < l->rows; i++) {
        float *z = rows + omp_get_thread_num() * n;
        const float *S = l->S + i * l->si;
        int64_t npos = 0;
        for (int64_t j = 0; j < n; j++) {
            z[j] = S[j * l->sj] * inv;
            /* by image id a picture's other captions are right answers too */
            npos += own(l->target, l->row_id, l->col_id, i, j);
        }
        /* in double: losses of thousands of columns differ in the digits that float has not */
        double sum_z, max = (double)row_max(z, n), lse = max + log(row_sums(z, n, (float)max, &sum_z));
        double e = (double)l->smoothing, spread = e / (double)n, hit = (1.0 - e) / (double)MAX(npos, (int64_t)1);
        double loss = 0.0, dt = 0.0;
        for (int64_t j = 0; j < n; j++) {
            double t = spread + (own(l->target, l->row_id, l->col_id, i, j) ? hit : 0.0);
            double logp = (double)z[j] - lse, dz = exp(logp) - t;
            /* logp, not log(p): where p is 0 in f32 the loss still is a number */
            loss -= t * logp;
            /* d/dtemp of S/temp is -z/temp; the sign comes below */
            dt += dz * (double)z[j];
            if (l->dS) l->dS[i * l->si + j * l->sj] = (float)((double)l->scale * dz * (double)inv);
        }
        l->loss[i] = (float)loss;
        if (l->dtemp) l->dtemp[i] = (float)(-(double)l->scale * dt * (double)inv);
    }
}

void FN(negatives)(const Negatives *g) {
    int64_t n = g->n;
    float *rows = cpu_scratch((size_t)omp_get_max_threads() * (size_t)n * sizeof(float));
    if (!rows) return;
    float inv = 1.0f / *g->temp;
#pragma omp parallel for schedule(static) if (PARALLEL(g->rows * n))
    for (int64_t i = 0; i < g->rows; i++) {
        float *w = rows + omp_get_thread_num() * n, max = -INFINITY, old_max = -INFINITY;
        const float *S = g->S + i * g->si;
        int32_t hardest = -1;
        for (int64_t j = 0; j < n; j++) {
            w[j] = S[j * g->sj] * inv;
            old_max = fmaxf(old_max, w[j]);
            if (own(g->target, g->row_id, g->col_id, i, j)) continue;
            /* the first of equals, as on the device */
            if (hardest < 0 || w[j] > max) max = w[j], hardest = (int32_t)j;
        }
        bool old = g->rule == NEG_SAMPLE_ALL;
        /* LAVIS's 1e-4: every other pair can be drawn, however sure the model is */
        double total = 0.0, floor_ = old ? 1e-4 : 0.0, drawn = 0.0, below = 0.0;
        /* old: the softmax is over all columns, its sum includes the own ones */
        for (int64_t j = 0; j < n; j++) {
            bool mine = own(g->target, g->row_id, g->col_id, i, j);
            double e = mine && !old ? 0.0 : exp((double)w[j] - (double)(old ? old_max : max));
            total += e;
            w[j] = (float)e;
        }
        for (int64_t j = 0; j < n; j++) {
            bool mine = own(g->target, g->row_id, g->col_id, i, j);
            double p = mine || hardest < 0 ? 0.0 : (double)w[j] / total + floor_;
            if (g->rule == NEG_HARDEST) p = j == hardest ? 1.0 : 0.0;
            w[j] = (float)p;
            /* of what is stored, in float: the draw below adds up the same numbers */
            drawn += (double)w[j];
            if (g->weights) g->weights[i * n + j] = w[j];
        }
        /* by the pair's global number: the same draw on any number of ranks */
        Philox x = philox(0, 0, g->row_pair[i], g->site, rng_key0(g->seed), g->step);
        double u = (double)rng_unit(x.v[0]) * drawn;
        /* no other image in the batch: the own pair, which the caller leaves out; rounding past the end: hardest */
        int32_t pick = hardest < 0 ? g->target[i] : hardest;
        for (int64_t j = 0; hardest >= 0 && j < n; j++) {
            below += (double)w[j];
            /* an own column has no weight, and must not be drawn when u is where it stands */
            if (below > u && w[j] > 0.0f) {
                pick = (int32_t)j;
                break;
            }
        }
        g->out[i] = pick;
    }
}

/* A row that does not count: all zero. */
static void xent_skip(const Xent *x, int64_t i) {
    size_t size = (size_t)dtype_size(x->dt);
    /* written, not left: the sum over rows does not ask which count */
    x->loss[i] = 0.0f;
    if (x->nll) x->nll[i] = 0.0f;
    if (x->dlogits) memset((char *)x->dlogits + (size_t)(i * x->ldd) * size, 0, (size_t)x->n * size);
}

void FN(xent)(const Xent *x) {
    int64_t n = x->n;
    float spread = x->smoothing / (float)n, hit = 1.0f - x->smoothing;
#pragma omp parallel for schedule(static) if (PARALLEL(4 * x->rows * n))
    for (int64_t i = 0; i < x->rows; i++) {
        const float *z = x->logits + i * x->ld;
        int32_t t = x->target[i];
        if (t < 0) {
            xent_skip(x, i);
            continue;
        }
        double sum_z, max = (double)row_max(z, n), lse = max + log(row_sums(z, n, (float)max, &sum_z));
        /* of the target alone: what perplexity is made of, smoothing or not */
        double nll = lse - (double)z[t];
        x->loss[i] = (float)((double)hit * nll + (double)x->smoothing * (lse - sum_z / (double)n));
        if (x->nll) x->nll[i] = (float)nll;
        if (!x->dlogits) continue;
        float l = (float)lse, scale = x->scale, zt = z[t];
        /* the target's element by itself, so that the others need no comparison */
        float dt = scale * (exp_f32(zt - l) - spread - hit);
        if (x->dt == DT_F32) {
            float *d = (float *)x->dlogits + i * x->ldd;
            for (int64_t j = 0; j < n; j += LANES) stf(d + j, (vec_exp(ldf(z + j, n - j) - l) - spread) * scale, n - j);
            d[t] = dt;
        } else {
            elem *d = (elem *)x->dlogits + i * x->ldd;
            for (int64_t j = 0; j < n; j += LANES) stv(d + j, (vec_exp(ldf(z + j, n - j) - l) - spread) * scale, n - j);
            d[t] = st(dt);
        }
    }
}
