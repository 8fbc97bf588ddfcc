/* embed: the rows that enter the first layer.
 *
 *   row r < nq:      u = query[r % Q]                            y = dropout((u - mean) rstd gamma + beta)
 *   row nq + t:      u = word[ids[t]] + pos[pos_id[t]]
 *
 *   dn = dy dropped out as y was;  g = dn gamma;  du = rstd (g - mean(g) - x^ mean(g x^));  dgamma = sum dn x^;  dbeta = sum dn
 *   dquery[j] += sum of du over r % Q == j;  dword[w] += sum over its rows;  dpos[p] likewise
 *
 * u is not stored: the backward adds the table rows up again. Its second half is a gather, not a scatter: the text rows come
 * sorted by id and by position, each table row is written by one thread, in the order of the rows. Bytes: forward reads 2NC
 * at most and writes NC; backward moves about 8NC. */
#include "kernels/cpu/cpu.h"

enum { CHUNK = 512 };

static inline float table_sum(const elem *a, const elem *b, int64_t c) { return b ? ld(a[c]) + ld(b[c]) : ld(a[c]); }

/* The one or two table rows whose sum is row r. */
static void table_rows(const Embed *e, int64_t r, const elem **a, const elem **b) {
    int64_t C = e->C;
    if (r < e->nq) {
        *a = (const elem *)e->query + (r % e->Q) * C;
        *b = NULL;
    } else {
        *a = (const elem *)e->word + e->ids[r - e->nq] * C;
        *b = (const elem *)e->pos + e->pos_id[r - e->nq] * C;
    }
}

void FN(embed)(const Embed *e) {
    int64_t N = e->nq + e->nt, C = e->C;
    uint32_t threshold = dropout_threshold(e->drop.p);
    float keep = 1.0f / (1.0f - e->drop.p);
#pragma omp parallel for schedule(static) if (PARALLEL(N * C))
    for (int64_t r = 0; r < N; r++) {
        const elem *ta, *tb;
        table_rows(e, r, &ta, &tb);
        elem *y = (elem *)e->y + r * C;
        float sum = 0.0f, var = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < C; c++) sum += table_sum(ta, tb, c);
        float mean = sum / (float)C;
#pragma omp simd reduction(+ : var)
        for (int64_t c = 0; c < C; c++) {
            float t = table_sum(ta, tb, c) - mean;
            var += t * t;
        }
        float rstd = 1.0f / sqrtf(var / (float)C + e->eps);
        e->mean[r] = mean;
        e->rstd[r] = rstd;
        for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
            int64_t n = MIN(C - c0, (int64_t)CHUNK);
            float v[CHUNK];
#pragma omp simd
            for (int64_t c = 0; c < n; c++)
                v[c] = fmadd((table_sum(ta, tb, c0 + c) - mean) * rstd, e->gamma[c0 + c], e->beta[c0 + c]);
            if (e->drop.p > 0.0f) {
                uint16_t bits[CHUNK];
                cpu_dropout_bits(bits, &e->drop, e->drop.rows[r], (uint32_t)(c0 / 8), (n + 7) / 8);
#pragma omp simd
                for (int64_t c = 0; c < n; c++) v[c] *= bits[c] >= threshold ? keep : 0.0f;
            }
#pragma omp simd
            for (int64_t c = 0; c < n; c++) y[c0 + c] = st(v[c]);
        }
    }
}

/* du of all rows into dsum, partial sums of dgamma and dbeta. */
static void norm_bwd(const Embed *e, const EmbedGrad *g, float *partial, int64_t R, int64_t nb) {
    int64_t N = e->nq + e->nt, C = e->C;
    uint32_t threshold = dropout_threshold(e->drop.p);
    float keep = 1.0f / (1.0f - e->drop.p);
#pragma omp parallel for schedule(static) if (PARALLEL(N * C))
    for (int64_t b = 0; b < nb; b++) {
        float *dgamma = partial + b * 2 * C, *dbeta = dgamma + C;
        memset(dgamma, 0, (size_t)(2 * C) * sizeof(float));
        for (int64_t r = b * R; r < MIN(N, b * R + R); r++) {
            const elem *ta, *tb, *dy = (const elem *)g->dy + r * C;
            table_rows(e, r, &ta, &tb);
            elem *du = (elem *)g->dsum + r * C;
            float mean = e->mean[r], rstd = e->rstd[r], sg = 0.0f, sgx = 0.0f;
            /* Twice over the row, the mask drawn twice: C has no upper bound, so neither the bits nor dn are kept. */
            for (int pass = 0; pass < 2; pass++) {
                for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
                    int64_t n = MIN(C - c0, (int64_t)CHUNK);
                    float dn[CHUNK], xh[CHUNK];
#pragma omp simd
                    for (int64_t c = 0; c < n; c++) {
                        dn[c] = ld(dy[c0 + c]);
                        xh[c] = (table_sum(ta, tb, c0 + c) - mean) * rstd;
                    }
                    if (e->drop.p > 0.0f) {
                        uint16_t bits[CHUNK];
                        cpu_dropout_bits(bits, &e->drop, e->drop.rows[r], (uint32_t)(c0 / 8), (n + 7) / 8);
#pragma omp simd
                        for (int64_t c = 0; c < n; c++) dn[c] *= bits[c] >= threshold ? keep : 0.0f;
                    }
                    if (pass == 0) {
#pragma omp simd reduction(+ : sg, sgx)
                        for (int64_t c = 0; c < n; c++) {
                            float gg = dn[c] * e->gamma[c0 + c];
                            sg += gg;
                            sgx += gg * xh[c];
                            dgamma[c0 + c] = fmadd(dn[c], xh[c], dgamma[c0 + c]);
                            dbeta[c0 + c] += dn[c];
                        }
                    } else {
#pragma omp simd
                        for (int64_t c = 0; c < n; c++)
                            du[c0 + c] = st(rstd * (dn[c] * e->gamma[c0 + c] - sg - xh[c] * sgx));
                    }
                }
                if (pass == 0) sg /= (float)C, sgx /= (float)C;
            }
        }
    }
}

/* dst row id[u] += sum of the rows row[ptr[u] .. ptr[u+1]). */
static void gather_rows(float *dst, const elem *rows, const int32_t *id, const int32_t *ptr, const int32_t *row, int64_t n,
                        int64_t C, int64_t nt) {
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

void FN(embed_bwd)(const Embed *e, const EmbedGrad *g) {
    int64_t N = e->nq + e->nt, C = e->C, R = row_block(N), nb = row_blocks(N);
    float *partial = cpu_scratch((size_t)(nb * 2 * C) * sizeof(float));
    if (!partial) return;
    norm_bwd(e, g, partial, R, nb);
    cpu_add_partials(g->dgamma, partial, nb, 2 * C, C);
    cpu_add_partials(g->dbeta, partial + C, nb, 2 * C, C);
    const elem *du = g->dsum;
#pragma omp parallel for schedule(static) if (PARALLEL(e->nq * C))
    for (int64_t q = 0; q < MIN(e->nq, (int64_t)e->Q); q++)
        for (int64_t r = q; r < e->nq; r += e->Q) {
            float *d = g->dquery + q * C;
#pragma omp simd
            for (int64_t c = 0; c < C; c++) d[c] += ld(du[r * C + c]);
        }
    gather_rows(g->dword, du + e->nq * C, e->tok_id, e->tok_ptr, e->tok_row, e->ntok, C, e->nt);
    gather_rows(g->dpos, du + e->nq * C, e->posn_id, e->posn_ptr, e->posn_row, e->nposn, C, e->nt);
}
