/* attention_single: single rows that attend to the keys of their items, as decoding has them: a new row a beam.
 *
 *   s_k = scale <q, k> + bias,  P = exp(s - max s),  o = sum_k P_k v_k / sum P,  lse = max + log sum P
 *
 * Bound by reading keys and values once, where they lie: 2 n KH D elements an item. A task is an item with as many
 * neighbouring key heads as leave something for every thread: it walks along the rows of keys, which is along memory,
 * and takes AHEAD of them at a time, each for all heads that share it. (A head at a time jumps a page a key: half as
 * fast.) A head's sums run in the order of the keys, however heads are dealt out. */
#include "kernels/cpu/attention.h"

enum { AHEAD = 4 };

/* An item, its heads [h0, h0 + H) on key heads [kh0, kh0 + KH); n keys are seen, the first na of them in range a. */
typedef struct {
    const Attn *a;
    const AttnItem *it;
    int64_t h0, H, kh0, KH, na, n, Dp;
    float *q, *o, *s;                   /* (H, Dp) twice, (H, n) */
} Single;

/* Rows of keys k.. (or values: pass v), at key head kh0; returns how many of AHEAD there are. */
static int next_rows(const elem *row[AHEAD], const Single *w, const void *base, int64_t ld, int64_t k) {
    int many = (int)MIN((int64_t)AHEAD, w->n - k);
    for (int i = 0; i < many; i++) {
        int64_t at = k + i < w->na ? w->it->a0 + k + i : w->it->b0 + k + i - w->na;
        row[i] = (const elem *)base + at * ld + w->kh0 * w->a->D;
    }
    return many;
}

/* to[i] = <q, row i>; many and whole (D is of whole vectors) are constants here. */
VEC_FN void some_scores(float *to, const float *q, const elem *const *row, int64_t at, int64_t D, const int many,
                        const bool whole) {
    /* AHEAD chains of fma at once: one alone would wait for its own result */
    vec sum[AHEAD];
    for (int i = 0; i < many; i++) sum[i] = vec_set(0.0f);
    for (int64_t d = 0; d < D; d += LANES)
        for (int i = 0; i < many; i++)
            sum[i] = vec_fma(*(const vec *)(q + d), ldv(row[i] + at + d, whole ? LANES : D - d), sum[i]);
    for (int i = 0; i < many; i++) to[i] = vec_sum(sum[i]);
}

static void scores(const Single *w) {
    int64_t D = w->a->D, G = w->H / w->KH;
    for (int64_t k = 0; k < w->n; k += AHEAD) {
        const elem *row[AHEAD];
        int many = next_rows(row, w, w->a->k, w->a->ldk, k);
        for (int64_t h = 0; h < w->H; h++) {
            float *to = w->s + h * w->n + k;
            const float *q = w->q + h * w->Dp;
            /* the last few keys one by one: `many` must be a constant for the sums to stay in registers */
            if (many < AHEAD) for (int i = 0; i < many; i++) some_scores(to + i, q, row + i, h / G * D, D, 1, false);
            else if (D % LANES) some_scores(to, q, row, h / G * D, D, AHEAD, false);
            else some_scores(to, q, row, h / G * D, D, AHEAD, true);
        }
    }
}

/* The scores of head h become exp(s - max); returns the sum, *lse its logarithm with the maximum put back. */
static float softmax(const Single *w, int64_t h, float *lse) {
    float *s = w->s + h * w->n, max = -INFINITY, top[LANES];
    vec m = vec_set(-INFINITY), total = vec_set(0.0f);
    for (int64_t k = 0; k < w->n; k++) {
        int64_t number = k < w->na ? k : k - w->na + w->it->na;
        /* before the maximum: a bias can make another key the largest */
        s[k] = s[k] * w->a->scale + (w->a->bias ? bias_at(w->a, w->h0 + h, number - w->it->pos) : 0.0f);
    }
    for (int64_t k = 0; k < w->n; k += LANES) m = vec_max(m, vec_pick(vec_first(w->n - k), ldf(s + k, w->n - k), m));
    memcpy(top, &m, sizeof top);
    /* a vector's maximum has no order that matters: the same bits as one by one */
    for (int i = 0; i < LANES; i++) max = MAX(max, top[i]);
    for (int64_t k = 0; k < w->n; k += LANES) {
        vec e = vec_where(vec_first(w->n - k), vec_exp(ldf(s + k, w->n - k) - max));
        total += e;
        stf(s + k, e, w->n - k);
    }
    float sum = vec_sum(total);
    /* as the other kernel leaves it: the walk back does not know which of the two ran */
    *lse = max + logf(sum);
    return sum;
}

/* o += s[0] row 0 + s[1] row 1 + ...; constants as above */
VEC_FN void some_values(float *o, const float *s, const elem *const *row, int64_t at, int64_t D, const int many,
                        const bool whole) {
    for (int64_t d = 0; d < D; d += LANES) {
        vec sum = *(const vec *)(o + d);
        for (int i = 0; i < many; i++) sum = vec_fma(vec_set(s[i]), ldv(row[i] + at + d, whole ? LANES : D - d), sum);
        *(vec *)(o + d) = sum;
    }
}

static void mixture(const Single *w) {
    int64_t D = w->a->D, G = w->H / w->KH;
    memset(w->o, 0, (size_t)(w->H * w->Dp) * sizeof *w->o);
    for (int64_t k = 0; k < w->n; k += AHEAD) {
        const elem *row[AHEAD];
        int many = next_rows(row, w, w->a->v, w->a->ldv, k);
        for (int64_t h = 0; h < w->H; h++) {
            float *o = w->o + h * w->Dp, *s = w->s + h * w->n + k;
            if (many < AHEAD) for (int i = 0; i < many; i++) some_values(o, s + i, row + i, h / G * D, D, 1, false);
            else if (D % LANES) some_values(o, s, row, h / G * D, D, AHEAD, false);
            else some_values(o, s, row, h / G * D, D, AHEAD, true);
        }
    }
}

static void single_row(const Single *w) {
    const Attn *a = w->a;
    int64_t D = a->D, q0 = w->it->q0;
    pack_rows(w->q, (const elem *)a->q + q0 * a->ldq + w->h0 * D, D, w->H, D);
    scores(w);
    for (int64_t h = 0; h < w->H; h++) {
        float sum = softmax(w, h, a->lse + (w->h0 + h) * a->plan->nrows + q0), part = sum > 0.0f ? 1.0f / sum : 0.0f;
        for (int64_t k = 0; k < w->n; k++) w->s[h * w->n + k] *= part;
    }
    mixture(w);
    for (int64_t h = 0; h < w->H; h++) {
        elem *o = (elem *)a->o + q0 * a->ldo + (w->h0 + h) * D;
        for (int64_t d = 0; d < D; d += LANES) stv(o + d, *(const vec *)(w->o + h * w->Dp + d), D - d);
    }
}

/* Of a causal range a single row, which is its item's first, sees one key. */
static int64_t seen(const AttnItem *it, int32_t range, int64_t n) {
    return it->causal & range ? MIN(n, (int64_t)1) : n;
}

/* Key heads a task: all where there are items enough, else so few that every thread has four tasks. */
static int64_t heads_a_task(const Attn *a) {
    /* four, so that whoever is done early finds something */
    int64_t parts = 4 * (int64_t)omp_get_max_threads() / MAX(a->plan->nitems, 1);
    return MAX((int64_t)1, a->KH / MAX(parts, (int64_t)1));
}

void FN(attention_single)(const Attn *a) {
    const AttnPlan *p = a->plan;
    int64_t G = a->H / a->KH, Dp = padded(a->D), take = heads_a_task(a), per = take * G * (2 * Dp + p->max_nk);
    per = (per + 15) / 16 * 16;
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel for schedule(dynamic) collapse(2) if (PARALLEL(p->products * a->H * a->D / 4))
    for (int32_t i = 0; i < p->nitems; i++)
        for (int64_t kh = 0; kh < a->KH; kh += take) {
            Single w = {.a = a, .it = &p->items[i], .kh0 = kh, .KH = MIN(take, a->KH - kh), .h0 = kh * G, .Dp = Dp};
            w.na = seen(w.it, CAUSAL_A, w.it->na), w.n = w.na + seen(w.it, CAUSAL_B, w.it->nb), w.H = w.KH * G;
            w.q = memory + omp_get_thread_num() * per, w.o = w.q + w.H * Dp, w.s = w.o + w.H * Dp;
            single_row(&w);
        }
}
