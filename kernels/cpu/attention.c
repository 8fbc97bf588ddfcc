/* attention: rows attend to the keys of their segment, H heads.
 *
 *   s_ij = scale <q_i, k_j>,  lse_i = log sum_j exp s_ij,  P = exp(s - lse),  P' = P m / (1 - p),
 *       o_i = sum_j P'_ij v_j
 *   dP'_ij = <do_i, v_j>,  dP = dP' m / (1 - p),  ds_ij = P_ij (dP_ij - sum_j P_ij dP_ij)
 *   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i P'_ij do_i
 *
 * A task is one (group, head); it takes the group's items one after the other. An item's scores lie in a tile turned
 * around, a line a key and a lane a row: sums over keys are then plain vector sums without a fold at the end, a vector
 * of rows draws its dropout bits together, and the softmax of ten rows over ten keys is not all overhead. All products
 * are tile_product, whose left operand may be read along rows or columns and whose right one has whole vectors:
 *
 *   S^T (n,R) = K Q^T      O = (S^T)^T V      dP^T = V dO^T      dQ = (dS^T)^T K      dV = P'^T dO      dK = dS^T Q
 *
 * So only Q^T and dO^T are transposed, R = nq rounded up to LANES. Keys and values are used where they lie when they
 * are f32 with whole vectors and few; else the task copies them to f32 once, for all its items. dk and dv of the group
 * are added up in f32 and written once: no atomics, and the order of items is the order of sums.
 *
 * Arithmetic is f32 for either element type: forward 4 nq n D flops a head, backward 10 nq n D. Scratch: a few hundred
 * KB a thread at full size. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile.h"

/* ---- copies in f32 --------------------------------------------------------------------------------------------- */

/* n rows of D elements to f32 rows of padded(D); what is beyond D is zero. */
static void pack_rows(float *dst, const elem *src, int64_t lds, int64_t n, int64_t D) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < D; d += LANES) *(vec *)(dst + i * padded(D) + d) = ldv(src + i * lds + d, D - d);
}

/* dst (D, R) = the n rows at src, transposed; columns from n to R are zero. */
static void pack_columns(float *dst, int64_t R, const elem *src, int64_t lds, int64_t n, int64_t D) {
    for (int64_t j = 0; j < R; j += LANES)
        for (int64_t d = 0; d < D; d += LANES) {
            vec r[LANES];
            for (int64_t i = 0; i < LANES; i++) r[i] = j + i < n ? ldv(src + (j + i) * lds + d, D - d) : vec_set(0.0f);
            vec_transpose(r);
            for (int64_t e = 0; e < MIN((int64_t)LANES, D - d); e++) *(vec *)(dst + (d + e) * R + j) = r[e];
        }
}

/* ---- what a task works on -------------------------------------------------------------------------------------- */

typedef struct {
    const float *k, *v;                 /* f32 rows of whole vectors */
    int64_t ldk, ldv;
    float *dk, *dv;                     /* (n, Dp) */
} Range;

typedef struct {
    int64_t D, Dp;                      /* D rounded up to LANES */
    float *k, *v, *dk, *dv;             /* (2 max_group_nk, Dp) */
    float *qt, *dot, *q, *d_o, *o;      /* (D, R) twice, (nq, Dp) three times */
    float *s, *dp;                      /* (n, R) */
    Range range[2];
} Task;

/* Lays a task's arrays out in memory; with NULL only measures. Returns floats. */
static int64_t task_layout(Task *t, const Attn *a, float *memory, bool backward) {
    const AttnPlan *p = a->plan;
    int64_t at = 0, R = padded(p->max_nq), n = p->max_nk, keys = 2 * (int64_t)p->max_group_nk;
    t->D = a->D;
    t->Dp = padded(a->D);
#define TAKE(field, count) do { t->field = memory ? memory + at : NULL; at += (count + 15) / 16 * 16; } while (0)
    TAKE(k, keys * t->Dp);
    TAKE(v, keys * t->Dp);
    TAKE(qt, t->D * R);
    TAKE(o, R * t->Dp);
    TAKE(s, n * R);
    if (backward) {
        TAKE(dk, keys * t->Dp);
        TAKE(dv, keys * t->Dp);
        TAKE(dot, t->D * R);
        TAKE(q, R * t->Dp);
        TAKE(d_o, R * t->Dp);
        TAKE(dp, n * R);
    }
#undef TAKE
    return at;
}

/* Keys beyond this many rows are copied even if they could be used in place: rows far apart cost a page each. */
enum { IN_PLACE = 64 };

/* n rows of D as f32 with whole vectors: where they lie, or copied to `copy`. */
static const float *f32_rows(float *copy, const elem *src, int64_t lds, int64_t n, int64_t D, int64_t *ldf32) {
#if !ELEM_BF16
    if (D % LANES == 0 && n <= IN_PLACE) {
        *ldf32 = lds;
        return src;
    }
#endif
    pack_rows(copy, src, lds, n, D);
    *ldf32 = padded(D);
    return copy;
}

static void open_ranges(Task *t, const Attn *a, const AttnGroup *g, int64_t h) {
    for (int64_t r = 0, at = 0; r < 2; at += g->nk[r], r++) {
        Range *x = &t->range[r];
        const elem *k = (const elem *)a->k + g->k0[r] * a->ldk + h * t->D;
        const elem *v = (const elem *)a->v + g->k0[r] * a->ldv + h * t->D;
        x->k = f32_rows(t->k + at * t->Dp, k, a->ldk, g->nk[r], t->D, &x->ldk);
        x->v = f32_rows(t->v + at * t->Dp, v, a->ldv, g->nk[r], t->D, &x->ldv);
        if (t->dk) x->dk = t->dk + at * t->Dp, x->dv = t->dv + at * t->Dp;
    }
}

/* dst (n, R) = keys' (or values') rows times the columns at right (D, R). */
static void scores(float *dst, const Task *t, const AttnItem *it, bool values, const float *right, int64_t R) {
    const Range *r = t->range;
    const float *a = values ? r[0].v : r[0].k, *b = values ? r[1].v : r[1].k;
    tile_product(dst, R, a, values ? r[0].ldv : r[0].ldk, 1, right, R, it->na, R, t->D, false);
    tile_product(dst + it->na * R, R, b, values ? r[1].ldv : r[1].ldk, 1, right, R, it->nb, R, t->D, false);
}

/* dst (nq, Dp) = weights (n, R) turned times values' (or keys') rows. */
static void mixture(float *dst, const Task *t, const AttnItem *it, const float *weights, bool values, int64_t R) {
    const Range *r = t->range;
    const float *a = values ? r[0].v : r[0].k, *b = values ? r[1].v : r[1].k;
    tile_product(dst, t->Dp, weights, 1, R, a, values ? r[0].ldv : r[0].ldk, it->nq, t->Dp, it->na, false);
    tile_product(dst, t->Dp, weights + it->na * R, 1, R, b, values ? r[1].ldv : r[1].ldk, it->nq, t->Dp, it->nb, true);
}

/* ---- softmax of a vector of rows ------------------------------------------------------------------------------- */

typedef struct {
    const AttnItem *it;
    const Attn *a;
    int64_t h, row0, R;                 /* the item's rows row0 .. row0 + LANES - 1 */
    RowKey keys[LANES];
    uint32_t words[4][LANES], threshold;
} Block;

static Block open_block(const Attn *a, const AttnItem *it, int64_t h, int64_t row0, int64_t R) {
    Block b = {.it = it, .a = a, .h = h, .row0 = row0, .R = R, .threshold = dropout_threshold(a->drop.p)};
    if (a->drop.p > 0.0f)
        memcpy(b.keys, a->drop.rows + it->q0 + row0, (size_t)MIN((int64_t)LANES, it->nq - row0) * sizeof *b.keys);
    return b;
}

/* Rows that see key j: all, but for causal ones before it. */
static inline mask seeing(const Block *b, int64_t j) {
    int64_t hidden = j - b->it->na - b->row0;                   /* rows of the block before the key's own */
    if (!b->it->causal || hidden <= 0) return vec_first(LANES);
    return vec_not(vec_first(hidden));
}

/* Rows that keep key j; keys must come in order. */
static inline mask keeping(Block *b, int64_t j) {
    if (j % 8 == 0) cpu_dropout_words(b->words, &b->a->drop, b->keys, (uint32_t)b->h << 20 | (uint32_t)(j / 8));
    uvec w = *(const uvec *)b->words[j % 8 / 2];
    return vec_at_least(w >> (uint32_t)(j & 1) * 16u & 0xffffu, b->threshold);
}

/* s: <k, q>, becomes exp(scale (s - max)), dropped out; row sums (before dropout) and maxima to the lanes of sum and
 * max. */
static void softmax(Block *b, float *s, float *max, float *sum) {
    int64_t n = b->it->na + b->it->nb, R = b->R;
    bool drop = b->a->drop.p > 0.0f;
    vec m = vec_set(-INFINITY), total = vec_set(0.0f), keep = vec_set(1.0f / (1.0f - b->a->drop.p)),
        scale = vec_set(b->a->scale);
    for (int64_t j = 0; j < n; j++) {
        vec x = *(const vec *)(s + j * R);
        if (b->it->causal) x = vec_pick(seeing(b, j), x, m);
        m = vec_max(m, x);
    }
    for (int64_t j = 0; j < n; j++) {
        vec e = vec_exp((*(const vec *)(s + j * R) - m) * scale);
        if (b->it->causal) e = vec_where(seeing(b, j), e);
        total += e;
        if (drop) e = vec_where(keeping(b, j), e * keep);
        *(vec *)(s + j * R) = e;
    }
    *(vec *)max = m;
    *(vec *)sum = total;
}

/* s: <k, q>, becomes P'; dp: <v, do>, becomes scale ds. Between the passes s is P, its sign the mask. */
static void softmax_bwd(Block *b, float *s, float *dp, const float *lse) {
    int64_t n = b->it->na + b->it->nb, R = b->R;
    bool drop = b->a->drop.p > 0.0f;
    vec delta = vec_set(0.0f), keep = vec_set(1.0f / (1.0f - b->a->drop.p)), scale = vec_set(b->a->scale),
        l = *(const vec *)lse;
    for (int64_t j = 0; j < n; j++) {
        vec P = vec_exp(vec_fma(*(const vec *)(s + j * R), scale, -l)), d = *(const vec *)(dp + j * R);
        if (b->it->causal) P = vec_where(seeing(b, j), P);
        *(vec *)(s + j * R) = P;
        if (drop) {
            mask kept = keeping(b, j);
            d = vec_where(kept, d * keep);
            *(vec *)(s + j * R) = vec_pick(kept, P, -P);
        }
        d *= P;
        delta += d;
        *(vec *)(dp + j * R) = d;
    }
    for (int64_t j = 0; j < n; j++) {
        vec x = *(const vec *)(s + j * R), P = drop ? vec_max(x, -x) : x;
        *(vec *)(dp + j * R) = scale * vec_fma(-P, delta, *(const vec *)(dp + j * R));
        if (drop) *(vec *)(s + j * R) = vec_max(x, vec_set(0.0f)) * keep;
    }
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

static void item_forward(const Task *t, const Attn *a, const AttnItem *it, int64_t h) {
    int64_t D = t->D, Dp = t->Dp, nq = it->nq, R = padded(nq);
    pack_columns(t->qt, R, (const elem *)a->q + it->q0 * a->ldq + h * D, a->ldq, nq, D);
    scores(t->s, t, it, false, t->qt, R);
    for (int64_t r0 = 0; r0 < nq; r0 += LANES) {
        float max[LANES], sum[LANES];
        Block b = open_block(a, it, h, r0, R);
        softmax(&b, t->s + r0, max, sum);
        for (int64_t i = 0; i < MIN((int64_t)LANES, nq - r0); i++) {
            a->lse[h * a->plan->nrows + it->q0 + r0 + i] = max[i] * a->scale + logf(sum[i]);
            t->qt[r0 + i] = sum[i] > 0.0f ? 1.0f / sum[i] : 0.0f;           /* q has served */
        }
    }
    mixture(t->o, t, it, t->s, true, R);
    for (int64_t i = 0; i < nq; i++) {
        elem *o = (elem *)a->o + (it->q0 + i) * a->ldo + h * D;
        for (int64_t d = 0; d < D; d += LANES) stv(o + d, *(const vec *)(t->o + i * Dp + d) * t->qt[i], D - d);
    }
}

/* Tasks of many small groups are handed out by the handful. */
enum { HANDFUL = 4 };

void FN(attention)(const Attn *a) {
    const AttnPlan *p = a->plan;
    Task measure;
    int64_t H = a->H, per = task_layout(&measure, a, NULL, false);
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel if (PARALLEL(p->products * H * a->D / 8))
    {
        Task t = {0};
        task_layout(&t, a, memory + omp_get_thread_num() * per, false);
#pragma omp for schedule(dynamic, HANDFUL) collapse(2)
        for (int32_t x = 0; x < p->ngroups; x++)
            for (int64_t h = 0; h < H; h++) {
                const AttnGroup *g = &p->groups[x];
                if (!g->nitems) continue;
                open_ranges(&t, a, g, h);
                for (int32_t i = g->item0; i < g->item0 + g->nitems; i++) item_forward(&t, a, &p->items[i], h);
            }
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

static void item_backward(const Task *t, const Attn *a, const AttnGrad *g, const AttnItem *it, int64_t h) {
    int64_t D = t->D, Dp = t->Dp, nq = it->nq, R = padded(nq), ldq, lddo;
    const elem *q0 = (const elem *)a->q + it->q0 * a->ldq + h * D;
    const elem *do0 = (const elem *)g->d_o + it->q0 * a->ldo + h * D;
    pack_columns(t->qt, R, q0, a->ldq, nq, D);
    pack_columns(t->dot, R, do0, a->ldo, nq, D);
    scores(t->s, t, it, false, t->qt, R);
    scores(t->dp, t, it, true, t->dot, R);
    for (int64_t r0 = 0; r0 < nq; r0 += LANES) {
        float lse[LANES] = {0.0f};
        Block b = open_block(a, it, h, r0, R);
        for (int64_t i = 0; i < MIN((int64_t)LANES, nq - r0); i++) lse[i] = a->lse[h * a->plan->nrows + it->q0 + r0 + i];
        softmax_bwd(&b, t->s + r0, t->dp + r0, lse);
    }
    mixture(t->o, t, it, t->dp, false, R);
    for (int64_t i = 0; i < nq; i++) {
        elem *dq = (elem *)g->dq + (it->q0 + i) * g->lddq + h * D;
        for (int64_t d = 0; d < D; d += LANES) stv(dq + d, *(const vec *)(t->o + i * Dp + d), D - d);
    }
    const float *q = f32_rows(t->q, q0, a->ldq, nq, D, &ldq), *d_o = f32_rows(t->d_o, do0, a->ldo, nq, D, &lddo);
    for (int64_t r = 0, at = 0; r < 2; at += it->na, r++) {
        int64_t n = r ? it->nb : it->na;
        tile_product(t->range[r].dv, Dp, t->s + at * R, R, 1, d_o, lddo, n, Dp, nq, true);
        tile_product(t->range[r].dk, Dp, t->dp + at * R, R, 1, q, ldq, n, Dp, nq, true);
    }
}

static void store_rows(elem *dst, int64_t ldd, const float *src, int64_t n, int64_t D, bool add) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t d = 0; d < D; d += LANES) {
            elem *o = dst + i * ldd + d;
            vec x = *(const vec *)(src + i * padded(D) + d);
            if (add) x += ldv(o, D - d);
            stv(o, x, D - d);
        }
}

void FN(attention_bwd)(const Attn *a, const AttnGrad *g) {
    const AttnPlan *p = a->plan;
    Task measure;
    int64_t D = a->D, H = a->H, per = task_layout(&measure, a, NULL, true);
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel if (PARALLEL(p->products * H * D / 4))
    {
        Task t = {0};
        task_layout(&t, a, memory + omp_get_thread_num() * per, true);
#pragma omp for schedule(dynamic, HANDFUL) collapse(2)
        for (int32_t x = 0; x < p->ngroups; x++)
            for (int64_t h = 0; h < H; h++) {
                const AttnGroup *gr = &p->groups[x];
                if (!gr->nitems && g->add) continue;
                size_t sums = (size_t)((gr->nk[0] + gr->nk[1]) * t.Dp) * sizeof(float);
                memset(t.dk, 0, sums);
                memset(t.dv, 0, sums);
                if (gr->nitems) open_ranges(&t, a, gr, h);
                for (int32_t i = gr->item0; i < gr->item0 + gr->nitems; i++) item_backward(&t, a, g, &p->items[i], h);
                for (int64_t r = 0, at = 0; r < 2; at += gr->nk[r], r++) {
                    elem *dk = (elem *)g->dk + gr->k0[r] * g->lddk + h * D;
                    elem *dv = (elem *)g->dv + gr->k0[r] * g->lddv + h * D;
                    store_rows(dk, g->lddk, t.dk + at * t.Dp, gr->nk[r], D, g->add);
                    store_rows(dv, g->lddv, t.dv + at * t.Dp, gr->nk[r], D, g->add);
                }
            }
    }
}
