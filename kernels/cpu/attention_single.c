/* attention_single: single rows that attend to the keys of their items, as decoding has them: a new row a beam.
 *
 *   s_k = scale <q, k> + bias,  P = exp(s - max s),  o = sum_k P_k v_k / sum P,  lse = max + log sum P
 *
 * Bound by reading keys and values once, where they lie: 2 n D elements a key head. A task is one (item, key head),
 * which takes each key for all the heads that share it; the sums of a row are one thread's, in the order of the keys.
 * */
#include "kernels/cpu/attention.h"

/* The keys of an item, number by number: row of key k. */
static inline int64_t key_row(const AttnItem *it, int64_t k) { return k < it->na ? it->a0 + k : it->b0 + k - it->na; }

/* s[j n + k] = scale <q_j, k> + bias for the G heads from h0 on, which share their keys. q: (G, Dp) f32. */
static void row_scores(float *s, const float *q, const Attn *a, const AttnItem *it, int64_t h0, int64_t G) {
    int64_t n = it->na + it->nb, D = a->D, Dp = padded(D);
    for (int64_t k = 0; k < n; k++) {
        const elem *key = (const elem *)a->k + key_row(it, k) * a->ldk + h0 / G * D;
        for (int64_t j = 0; j < G; j++) {
            vec sum = vec_set(0.0f);
            for (int64_t d = 0; d < D; d += LANES) sum = vec_fma(*(const vec *)(q + j * Dp + d), ldv(key + d, D - d),
                                                                 sum);
            s[j * n + k] = vec_sum(sum) * a->scale + (a->bias ? bias_at(a, h0 + j, k - it->pos) : 0.0f);
        }
    }
}

/* s[0..n) becomes exp(s - max); returns the sum, *lse its logarithm with the maximum put back. */
static float row_softmax(float *s, int64_t n, float *lse) {
    float max = -INFINITY, top[LANES];
    vec m = vec_set(-INFINITY), total = vec_set(0.0f);
    for (int64_t k = 0; k < n; k += LANES) m = vec_max(m, vec_pick(vec_first(n - k), ldf(s + k, n - k), m));
    memcpy(top, &m, sizeof top);
    for (int i = 0; i < LANES; i++) max = MAX(max, top[i]);
    for (int64_t k = 0; k < n; k += LANES) {
        vec e = vec_where(vec_first(n - k), vec_exp(ldf(s + k, n - k) - max));
        total += e;
        stf(s + k, e, n - k);
    }
    float sum = vec_sum(total);
    *lse = max + logf(sum);
    return sum;
}

/* o = sum of s[k] v_k, times `factor`; four vectors of columns at a time stay in registers. */
static void row_mixture(elem *o, const float *s, const Attn *a, const AttnItem *it, int64_t kh, float factor) {
    int64_t n = it->na + it->nb, D = a->D;
    for (int64_t d0 = 0; d0 < D; d0 += 4 * LANES) {
        vec sum[4] = {{0.0f}, {0.0f}, {0.0f}, {0.0f}};
        int64_t nv = MIN((int64_t)4, (D - d0 + LANES - 1) / LANES);
        for (int64_t k = 0; k < n; k++) {
            const elem *v = (const elem *)a->v + key_row(it, k) * a->ldv + kh * D + d0;
            for (int64_t i = 0; i < nv; i++) sum[i] = vec_fma(vec_set(s[k]), ldv(v + i * LANES, D - d0 - i * LANES),
                                                              sum[i]);
        }
        for (int64_t i = 0; i < nv; i++) stv(o + d0 + i * LANES, sum[i] * factor, D - d0 - i * LANES);
    }
}

static void single_row(const Attn *a, const AttnItem *it, int64_t kh, float *memory) {
    int64_t n = it->na + it->nb, D = a->D, Dp = padded(D), G = a->H / a->KH, h0 = kh * G;
    float *q = memory, *s = memory + G * Dp;
    pack_rows(q, (const elem *)a->q + it->q0 * a->ldq + h0 * D, D, G, D);
    row_scores(s, q, a, it, h0, G);
    for (int64_t j = 0; j < G; j++) {
        float sum = row_softmax(s + j * n, n, a->lse + (h0 + j) * a->plan->nrows + it->q0);
        elem *o = (elem *)a->o + it->q0 * a->ldo + (h0 + j) * D;
        row_mixture(o, s + j * n, a, it, kh, sum > 0.0f ? 1.0f / sum : 0.0f);
    }
}

void FN(attention_single)(const Attn *a) {
    const AttnPlan *p = a->plan;
    int64_t G = a->H / a->KH, per = G * (padded(a->D) + p->max_nk);
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel for schedule(static) collapse(2) if (PARALLEL(p->products * a->H * a->D / 4))
    for (int32_t i = 0; i < p->nitems; i++)
        for (int64_t kh = 0; kh < a->KH; kh++) single_row(a, &p->items[i], kh, memory + omp_get_thread_num() * per);
}
