/* embed: the rows that enter the first layer.
 *
 *   row r < nq:      u = query[r % Q]                            y = dropout((u - mean) rstd gamma + beta)
 *   row nq + t:      u = word[ids[t]] + pos[pos_id[t]]
 *
 *   dn = dy dropped out as y was;  g = dn gamma;  du = rstd (g - mean(g) - x^ mean(g x^));  dgamma = sum dn x^;
 *       dbeta = sum dn
 *   dquery[j] += sum of du over r % Q == j;  dword[w] += sum over its rows;  dpos[p] likewise
 *
 * u is not stored: the backward adds the table rows up again. Its second half is a gather, not a scatter: the text rows
 * come sorted by id and by position, each table row is written by one thread, in the order of the rows. Bytes: forward
 * reads 2NC at most and writes NC; backward moves about 8NC. */
#include "kernels/cpu/vec.h"

/* The one or two table rows whose sum is row r. */
typedef struct { const elem *a, *b; } Rows;

static Rows table_rows(const Embed *e, int64_t r) {
    int64_t C = e->C;
    /* queries are the same Q rows for every picture, and have no position */
    if (r < e->nq) return (Rows){(const elem *)e->query + r % e->Q * C, NULL};
    return (Rows){(const elem *)e->word + e->ids[r - e->nq] * C, (const elem *)e->pos + e->pos_id[r - e->nq] * C};
}

static inline vec table_sum(Rows t, int64_t c, int64_t n) {
    vec v = ldv(t.a + c, n);
    if (t.b) v += ldv(t.b + c, n);
    return v;
}

void FN(embed)(const Embed *e) {
    int64_t N = e->nq + e->nt, C = e->C;
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, &e->drop);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < N; r++) {
            Rows t = table_rows(e, r);
            elem *y = (elem *)e->y + r * C;
            vec sum = vec_set(0.0f), sq = sum;
            for (int64_t c = 0; c < C; c += LANES) sum += table_sum(t, c, C - c);
            float mean = vec_sum(sum) / (float)C;
            /* two passes: the sum of squares less the square of the sum loses all digits where the mean is large */
            for (int64_t c = 0; c < C; c += LANES) {
                vec d = vec_where(vec_first(C - c), table_sum(t, c, C - c) - mean);
                sq = vec_fma(d, d, sq);
            }
            float rstd = 1.0f / sqrtf(vec_sum(sq) / (float)C + e->eps);
            e->mean[r] = mean;
            e->rstd[r] = rstd;
            /* a chunk at a time: the mask of a row of any width has room on the stack */
            for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
                int64_t end = MIN(C, c0 + CHUNK);
                mask_draw(&m, r, c0, end - c0);
                for (int64_t c = c0; c < end; c += LANES) {
                    int64_t n = C - c;
                    vec v = vec_fma((table_sum(t, c, n) - mean) * rstd, ldf(e->gamma + c, n), ldf(e->beta + c, n));
                    stv(y + c, masked(&m, v, c - c0), n);
                }
            }
        }
    }
}

/* du of a row; dgamma and dbeta are the block's sums. The mask is drawn twice, since C has no upper bound and neither
 * the bits nor dn are kept. */
static void row_bwd(const Embed *e, const EmbedGrad *g, int64_t r, float *dgamma, float *dbeta, Mask *m) {
    int64_t C = e->C;
    Rows t = table_rows(e, r);
    const elem *dy = (const elem *)g->dy + r * C;
    elem *du = (elem *)g->dsum + r * C;
    float mean = e->mean[r], rstd = e->rstd[r], mg = 0.0f, mgx = 0.0f;
    vec sg = vec_set(0.0f), sgx = sg;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
            int64_t end = MIN(C, c0 + CHUNK);
            /* of a row of one chunk the mask is still there */
            if (pass == 0 || C > CHUNK) mask_draw(m, r, c0, end - c0);
            for (int64_t c = c0; c < end; c += LANES) {
                int64_t n = C - c;
                vec dn = masked(m, ldv(dy + c, n), c - c0), xh = (table_sum(t, c, n) - mean) * rstd,
                    gg = dn * ldf(e->gamma + c, n);
                if (pass == 0) {
                    sg += gg;
                    sgx = vec_fma(gg, xh, sgx);
                    stf(dgamma + c, vec_fma(dn, xh, ldf(dgamma + c, n)), n);
                    stf(dbeta + c, ldf(dbeta + c, n) + dn, n);
                } else {
                    stv(du + c, rstd * (gg - mg - xh * mgx), n);
                }
            }
        }
        if (pass == 0) mg = vec_sum(sg) / (float)C, mgx = vec_sum(sgx) / (float)C;
    }
}

/* dst row id[u] += sum of the rows row[ptr[u] .. ptr[u+1]). */
static void gather_rows(float *dst, const elem *rows, const int32_t *id, const int32_t *ptr, const int32_t *row,
                        int64_t n, int64_t C, int64_t nt) {
    (void)nt;                                                /* without OpenMP nobody asks how much work this is */
/* a word that stands often takes long: whoever is free takes the next eight */
#pragma omp parallel for schedule(dynamic, 8) if (PARALLEL(nt * C))
    for (int64_t u = 0; u < n; u++) {
        float *d = dst + (int64_t)id[u] * C;
        for (int32_t i = ptr[u]; i < ptr[u + 1]; i++) {
            const elem *s = rows + (int64_t)row[i] * C;
#pragma omp simd
            for (int64_t c = 0; c < C; c++) d[c] += ld(s[c]);
        }
    }
}

/* dst row q += sum of rows q, q + Q, ... */
static void add_queries(float *dst, const elem *rows, int64_t nq, int64_t Q, int64_t C) {
#pragma omp parallel for schedule(static) if (PARALLEL(nq * C))
    /* one thread a query, its pictures in their order: no two write one row */
    for (int64_t q = 0; q < MIN(nq, Q); q++)
        for (int64_t r = q; r < nq; r += Q) {
            float *d = dst + q * C;
#pragma omp simd
            for (int64_t c = 0; c < C; c++) d[c] += ld(rows[r * C + c]);
        }
}

void FN(embed_bwd)(const Embed *e, const EmbedGrad *g) {
    int64_t N = e->nq + e->nt, C = e->C, R = row_block(N), nb = row_blocks(N);
    /* sums by blocks of rows, added in their order: the same bits with any number of threads */
    float *partial = cpu_scratch((size_t)(nb * 2 * C) * sizeof(float));
    if (!partial) return;
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, &e->drop);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < nb; b++) {
            float *dgamma = partial + b * 2 * C, *dbeta = dgamma + C;
            memset(dgamma, 0, (size_t)(2 * C) * sizeof(float));
            for (int64_t r = b * R; r < MIN(N, b * R + R); r++) row_bwd(e, g, r, dgamma, dbeta, &m);
        }
    }
    if (g->dgamma) cpu_add_partials(g->dgamma, partial, nb, 2 * C, C);
    if (g->dbeta) cpu_add_partials(g->dbeta, partial + C, nb, 2 * C, C);
    const elem *du = g->dsum;
    if (g->dquery) add_queries(g->dquery, du, e->nq, e->Q, C);
    if (g->dword) gather_rows(g->dword, du + e->nq * C, e->tok_id, e->tok_ptr, e->tok_row, e->ntok, C, e->nt);
    if (g->dpos) gather_rows(g->dpos, du + e->nq * C, e->posn_id, e->posn_ptr, e->posn_row, e->nposn, C, e->nt);
}
