/* attention: rows attend to the keys of their segment.  (simple form)
 *
 *   s_ij = scale <q_i, k_j>,  lse_i = log sum_j exp s_ij,  P = exp(s - lse),  P' = P m / (1 - p),  o_i = sum_j P'_ij v_j
 *   dP'_ij = <do_i, v_j>,  dP = dP' m / (1 - p),  ds_ij = P_ij (dP_ij - sum_j P_ij dP_ij)
 *   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i P'_ij do_i */
#include "kernels/cpu/cpu.h"

/* Row of key number k of an item. */
static inline int64_t key_row(const AttnItem *it, int64_t k) { return k < it->na ? it->a0 + k : it->b0 + (k - it->na); }
static inline int64_t visible(const AttnItem *it, int64_t i) { return it->na + (it->causal ? MIN(i + 1, (int64_t)it->nb) : it->nb); }

static void row_mask(float *m, uint16_t *bits, const Attn *a, int64_t row, int64_t h, int64_t n) {
    if (a->drop.p <= 0.0f) {
        for (int64_t k = 0; k < n; k++) m[k] = 1.0f;
        return;
    }
    uint32_t threshold = dropout_threshold(a->drop.p);
    float keep = 1.0f / (1.0f - a->drop.p);
    cpu_dropout_bits(bits, &a->drop, a->drop.rows[row], (uint32_t)h << 20, (n + 7) / 8);
    for (int64_t k = 0; k < n; k++) m[k] = bits[k] >= threshold ? keep : 0.0f;
}

void FN(attention)(const Attn *a) {
    const AttnPlan *p = a->plan;
    int64_t D = a->D, H = a->H, nk = p->max_nk + DROP_PAD;
    float *buf = cpu_scratch((size_t)omp_get_max_threads() * (size_t)(3 * nk) * sizeof(float));
    if (!buf) return;
#pragma omp parallel for schedule(static) collapse(2) if (PARALLEL(p->products * H * D / 4))
    for (int64_t t = 0; t < p->nitems; t++)
        for (int64_t h = 0; h < H; h++) {
            const AttnItem *it = &p->items[t];
            float *s = buf + omp_get_thread_num() * 3 * nk, *m = s + nk;
            for (int64_t i = 0; i < it->nq; i++) {
                int64_t row = it->q0 + i, n = visible(it, i);
                const elem *q = (const elem *)a->q + row * a->ldq + h * D;
                float max = -INFINITY, sum = 0.0f;
                for (int64_t k = 0; k < n; k++) {
                    const elem *kk = (const elem *)a->k + key_row(it, k) * a->ldk + h * D;
                    float dot = 0.0f;
                    for (int64_t d = 0; d < D; d++) dot += ld(q[d]) * ld(kk[d]);
                    s[k] = dot * a->scale;
                    max = fmaxf(max, s[k]);
                }
                for (int64_t k = 0; k < n; k++) {
                    s[k] = exp_f32(s[k] - max);
                    sum += s[k];
                }
                a->lse[row * H + h] = max + logf(sum);
                row_mask(m, (uint16_t *)(m + nk), a, row, h, n);
                elem *o = (elem *)a->o + row * a->ldo + h * D;
                for (int64_t d = 0; d < D; d++) {
                    float acc = 0.0f;
                    for (int64_t k = 0; k < n; k++)
                        acc += s[k] * m[k] * ld(((const elem *)a->v)[key_row(it, k) * a->ldv + h * D + d]);
                    o[d] = st(acc / sum);
                }
            }
        }
}

void FN(attention_bwd)(const Attn *a, const AttnGrad *g) {
    const AttnPlan *p = a->plan;
    int64_t D = a->D, H = a->H, nk = p->max_nk + DROP_PAD, gk = 2 * p->max_group_nk, per = 4 * nk + 2 * gk * D + D;
    float *buf = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!buf) return;
#pragma omp parallel for schedule(dynamic) collapse(2) if (PARALLEL(p->products * H * D / 4))
    for (int64_t t = 0; t < p->ngroups; t++)
        for (int64_t h = 0; h < H; h++) {
            const AttnGroup *gr = &p->groups[t];
            float *P = buf + omp_get_thread_num() * per, *m = P + nk, *ds = m + nk, *dq = ds + 2 * nk, *dk = dq + D,
                  *dv = dk + gk * D;
            uint16_t *bits = (uint16_t *)(ds + nk);
            memset(dk, 0, (size_t)(2 * gk * D) * sizeof(float));
            for (int64_t x = gr->item0; x < gr->item0 + gr->nitems; x++) {
                const AttnItem *it = &p->items[x];
                for (int64_t i = 0; i < it->nq; i++) {
                    int64_t row = it->q0 + i, n = visible(it, i);
                    const elem *q = (const elem *)a->q + row * a->ldq + h * D;
                    const elem *d_o = (const elem *)g->d_o + row * a->ldo + h * D;
                    float delta = 0.0f;
                    row_mask(m, bits, a, row, h, n);
                    for (int64_t k = 0; k < n; k++) {
                        const elem *kk = (const elem *)a->k + key_row(it, k) * a->ldk + h * D;
                        const elem *vv = (const elem *)a->v + key_row(it, k) * a->ldv + h * D;
                        float dot = 0.0f, dp = 0.0f;
                        for (int64_t d = 0; d < D; d++) {
                            dot += ld(q[d]) * ld(kk[d]);
                            dp += ld(d_o[d]) * ld(vv[d]);
                        }
                        P[k] = exp_f32(dot * a->scale - a->lse[row * H + h]);
                        ds[k] = dp * m[k];
                        delta += P[k] * ds[k];
                    }
                    memset(dq, 0, (size_t)D * sizeof(float));
                    for (int64_t k = 0; k < n; k++) {
                        const elem *kk = (const elem *)a->k + key_row(it, k) * a->ldk + h * D;
                        int64_t at = k < it->na ? k : p->max_group_nk + k - it->na;
                        float w = P[k] * (ds[k] - delta) * a->scale, pm = P[k] * m[k];
                        for (int64_t d = 0; d < D; d++) {
                            dq[d] += w * ld(kk[d]);
                            dk[at * D + d] += w * ld(q[d]);
                            dv[at * D + d] += pm * ld(d_o[d]);
                        }
                    }
                    for (int64_t d = 0; d < D; d++) ((elem *)g->dq)[row * g->lddq + h * D + d] = st(dq[d]);
                }
            }
            for (int64_t part = 0; part < 2; part++)
                for (int64_t k = 0; k < gr->nk[part]; k++) {
                    elem *ok = (elem *)g->dk + (gr->k0[part] + k) * g->lddk + h * D;
                    elem *ov = (elem *)g->dv + (gr->k0[part] + k) * g->lddv + h * D;
                    int64_t at = (part * p->max_group_nk + k) * D;
                    for (int64_t d = 0; d < D; d++) {
                        ok[d] = st(dk[at + d] + (g->add ? ld(ok[d]) : 0.0f));
                        ov[d] = st(dv[at + d] + (g->add ? ld(ov[d]) : 0.0f));
                    }
                }
        }
}
