/* attention: rows attend to the keys of their segment, H heads.
 *
 *   s_ij = scale <q_i, k_j>,  lse_i = log sum_j exp s_ij,  P = exp(s - lse),  P' = P m / (1 - p),
 *       o_i = sum_j P'_ij v_j
 *   dP'_ij = <do_i, v_j>,  dP = dP' m / (1 - p),  ds_ij = P_ij (dP_ij - sum_j P_ij dP_ij)
 *   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i P'_ij do_i
 *
 * A task is one (group, head); it takes the group's items one after the other, ROWS rows at a time. Their scores lie in
 * a tile turned around, a line a key and a lane a row: sums over keys are then plain vector sums without a fold at the
 * end, a vector of rows draws its dropout bits together, and the softmax of ten rows over ten keys is not all
 * overhead. All products are tile_product, whose left operand may be read along rows or columns and whose right one
 * has whole vectors:
 *
 *   S^T (n,R) = K Q^T      O = (S^T)^T V      dP^T = V dO^T      dQ = (dS^T)^T K      dV = P'^T dO      dK = dS^T Q
 *
 * So only Q^T and dO^T are transposed, R = the rows rounded up to LANES. Of causal ranges only the lines are made that
 * some row of the block sees. A bias is added to the scores when they stand; its table lies by row - key, so that the
 * lanes of a line read neighbours. Keys and values are used where they lie when they
 * are f32 with whole vectors and few; else the task copies them to f32 once, for all its items. dk and dv of the group
 * are added up in f32 and written once: no atomics, and the order of items is the order of sums. Where heads share
 * keys, a task of the backward is a key head with all of them.
 *
 * Arithmetic is f32 for either element type: forward 4 nq n D flops a head, backward 10 nq n D. Scratch: a few hundred
 * KB a thread at full size. */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/tile.h"

/* ---- copies in f32 --------------------------------------------------------------------------------------------- */

/* dst (D, R) = the n rows at src, transposed; columns from n to R are zero. */
static void pack_columns(float *dst, int64_t R, const elem *src, int64_t lds, int64_t n, int64_t D) {
    for (int64_t j = 0; j < R; j += LANES)
        for (int64_t d = 0; d < D; d += LANES) {
            vec r[LANES];
            for (int64_t i = 0; i < LANES; i++) r[i] = j + i < n ? ldv(src + (j + i) * lds + d, D - d) : vec_set(0.0f);
            /* LANES loads and stores of whole vectors: a column at a time would touch LANES lines for each number */
            vec_transpose(r);
            for (int64_t e = 0; e < MIN((int64_t)LANES, D - d); e++) *(vec *)(dst + (d + e) * R + j) = r[e];
        }
}

/* ---- what a task works on -------------------------------------------------------------------------------------- */

/* Rows that are taken together: n x ROWS scores of some hundred keys stay in L2. */
enum { ROWS = 64 };

typedef struct {
    const float *k, *v;                 /* f32 rows of whole vectors */
    int64_t ldk, ldv, first;            /* number of its first row */
    float *dk, *dv;                     /* (n, Dp) */
} Range;

typedef struct {
    int64_t D, Dp;                      /* D rounded up to LANES */
    float *k, *v, *dk, *dv;             /* (2 max_group_nk, Dp) */
    float *qt, *dot, *q, *d_o, *o;      /* (D, R) twice, (R, Dp) three times */
    float *s, *dp;                      /* (n, R) */
    float *bias;                        /* by row - key, from -span - LANES on */
    Range range[2];
} Task;

/* Lays a task's arrays out in memory; with NULL only measures. Returns floats. */
static int64_t task_layout(Task *t, const Attn *a, float *memory, bool backward) {
    const AttnPlan *p = a->plan;
    /* a short batch takes short tiles: scratch follows the plan, not the model */
    int64_t at = 0, R = MIN(padded(p->max_nq), (int64_t)ROWS), n = p->max_nk, keys = 2 * (int64_t)p->max_group_nk;
    t->D = a->D;
    t->Dp = padded(a->D);
/* rounded to 16 floats, so that every array begins on a line of its own */
#define TAKE(field, count) do { t->field = memory ? memory + at : NULL; at += ((count) + 15) / 16 * 16; } while (0)
    TAKE(k, keys * t->Dp);
    TAKE(v, keys * t->Dp);
    TAKE(qt, MAX(t->D, (int64_t)1) * R);
    TAKE(o, R * t->Dp);
    /* for the block with the most keys: a plan's largest item sets it */
    TAKE(s, n * R);
    /* by distance, LANES further on either side: a vector of it may begin anywhere */
    TAKE(bias, a->bias ? 2 * a->span + 2 * LANES : 0);
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
    /* bf16 is always copied: converting at each use would cost more than once */
    if (D % LANES == 0 && n <= IN_PLACE) {
        *ldf32 = lds;
        return src;
    }
#endif
    pack_rows(copy, src, lds, n, D);
    *ldf32 = padded(D);
    return copy;
}

/* The group's keys and values of key head h. */
static void open_ranges(Task *t, const Attn *a, const AttnGroup *g, int64_t h) {
    for (int64_t r = 0, at = 0; r < 2; at += g->nk[r], r++) {
        Range *x = &t->range[r];
        const elem *k = (const elem *)a->k + g->k0[r] * a->ldk + h * t->D;
        const elem *v = (const elem *)a->v + g->k0[r] * a->ldv + h * t->D;
        /* once a group and key head, whatever the number of items that look at them */
        x->k = f32_rows(t->k + at * t->Dp, k, a->ldk, g->nk[r], t->D, &x->ldk);
        x->v = f32_rows(t->v + at * t->Dp, v, a->ldv, g->nk[r], t->D, &x->ldv);
        x->first = g->k0[r];
        if (t->dk) x->dk = t->dk + at * t->Dp, x->dv = t->dv + at * t->Dp;
    }
}

static void open_bias(Task *t, const Attn *a, int64_t h) {
    for (int64_t i = 0; a->bias && i < 2 * a->span + 2 * LANES; i++) t->bias[i] = bias_at(a, h, a->span + LANES - i);
}

/* ---- a block of an item's rows, and the lines of keys that it sees ----------------------------------------------- */

typedef struct {
    const AttnItem *it;
    const Attn *a;
    int64_t h, row0, nq, R;             /* the item's rows row0 .. row0 + nq - 1; nq rounded up to LANES */
    int64_t n[2];                       /* keys of a and of b that any of them sees: lines 0.. and n[0].. */
    float scale;                        /* of what stands in the tile: a bias comes with the scale applied */
} Block;

static Block open_block(const Attn *a, const AttnItem *it, int64_t h, int64_t row0) {
    Block b = {.it = it, .a = a, .h = h, .row0 = row0, .nq = MIN((int64_t)ROWS, it->nq - row0), .n = {it->na, it->nb}};
    b.R = padded(b.nq);
    /* keys behind the block's last row are seen by none of it: half the work of a long text */
    if (it->causal & CAUSAL_A) b.n[0] = MIN(b.n[0], row0 + b.nq);
    if (it->causal & CAUSAL_B) b.n[1] = MIN(b.n[1], row0 + b.nq);
    /* without a bias the scale waits for the exponential: a product a score saved */
    b.scale = a->bias ? 1.0f : a->scale;
    return b;
}

/* Keys' (or values') rows of range r that the block sees, and their stride. */
static const float *block_rows(const Task *t, const Block *b, int r, bool values, int64_t *ld) {
    const Range *x = &t->range[r];
    *ld = values ? x->ldv : x->ldk;
    return (values ? x->v : x->k) + (b->n[r] ? (r ? b->it->b0 : b->it->a0) - x->first : 0) * *ld;
}

/* dst (n, R) = keys' (or values') rows times the columns at right (D, R). */
static void scores(float *dst, const Task *t, const Block *b, bool values, const float *right) {
    for (int r = 0; r < 2; r++) {
        int64_t ld;
        const float *rows = block_rows(t, b, r, values, &ld);
        tile_product(dst, b->R, rows, ld, 1, right, b->R, b->n[r], b->R, t->D, false);
        dst += b->n[r] * b->R;
    }
}

/* dst (nq, Dp) = weights (n, R) turned times values' (or keys') rows. */
static void mixture(float *dst, const Task *t, const Block *b, const float *weights, bool values) {
    for (int r = 0; r < 2; r++) {
        int64_t ld;
        const float *rows = block_rows(t, b, r, values, &ld);
        tile_product(dst, t->Dp, weights, 1, b->R, rows, ld, b->nq, t->Dp, b->n[r], r > 0);
        weights += b->n[r] * b->R;
    }
}

/* ---- softmax of a vector of rows ------------------------------------------------------------------------------- */

typedef struct {
    const Block *b;
    int64_t lane0;                      /* rows lane0 .. lane0 + LANES - 1 of the block */
    RowKey keys[LANES];
    uint32_t words[4][LANES], threshold;
} Lanes;

static Lanes open_lanes(const Block *b, int64_t lane0) {
    const Dropout *d = &b->a->drop;
    Lanes l = {.b = b, .lane0 = lane0, .threshold = dropout_threshold(d->p)};
    if (d->p > 0.0f)
        memcpy(l.keys, d->rows + b->it->q0 + b->row0 + lane0,
               (size_t)MIN((int64_t)LANES, b->nq - lane0) * sizeof *l.keys);
    return l;
}

/* Rows that see key j of range r: all, but for causal ones before it. */
static inline mask seeing(const Lanes *l, int r, int64_t j) {
    int64_t hidden = j - l->b->row0 - l->lane0;                 /* rows of the lanes before the key's own */
    if (!(l->b->it->causal & (r ? CAUSAL_B : CAUSAL_A)) || hidden <= 0) return vec_first(LANES);
    return vec_not(vec_first(hidden));
}

/* How many of the lanes, from the first on, see one key alone: its score changes nothing,
 * so q and k get no gradient. */
static inline int64_t seeing_one(const Lanes *l) {
    const AttnItem *it = l->b->it;
    /* exactly, not up to rounding: P = 1 whatever the score is */
    if (it->na + it->nb == 1) return LANES;
    bool causal = it->na ? !it->nb && it->causal & CAUSAL_A : it->causal & CAUSAL_B;
    return causal && l->b->row0 + l->lane0 == 0;
}

/* Rows that keep key j of range r; keys must come in order. */
static inline mask keeping(Lanes *l, int r, int64_t j) {
    int64_t k = (r ? l->b->it->na : 0) + j;
    /* a Philox block holds eight keys' bits: it is drawn when its first key comes by */
    if (j == 0 || k % 8 == 0)
        cpu_dropout_words(l->words, &l->b->a->drop, l->keys, (uint32_t)l->b->h << 20 | (uint32_t)(k / 8));
    uvec w = *(const uvec *)l->words[k % 8 / 2];
    return vec_at_least(w >> (uint32_t)(k & 1) * 16u & 0xffffu, l->threshold);
}

/* The tile's lines of range r. */
static inline float *lines(const Lanes *l, float *tile, int r) { return tile + (r ? l->b->n[0] * l->b->R : 0); }

/* s: <k, q>, becomes scale <k, q> + bias. */
static void add_bias(const Task *t, const Lanes *l, float *s) {
    const Attn *a = l->b->a;
    for (int r = 0; r < 2; r++)
        for (int64_t j = 0; j < l->b->n[r]; j++) {
            float *x = lines(l, s, r) + j * l->b->R;
            int64_t ahead = l->b->it->pos + l->b->row0 + l->lane0 - (r ? l->b->it->na : 0) - j;
            /* beyond the span all distances share its last entry, as T5's buckets do */
            int64_t at = MAX(-(int64_t)a->span - LANES, MIN((int64_t)a->span, ahead)) + a->span + LANES;
            *(vec *)x = vec_fma(*(const vec *)x, vec_set(a->scale), *(const vec *)(t->bias + at));
        }
}

/* s: <k, q>, becomes exp(scale (s - max)), dropped out;
 * row sums (before dropout) and maxima to the lanes of sum and max. */
static void softmax(Lanes *l, float *s, float *max, float *sum) {
    const Block *b = l->b;
    int64_t R = b->R;
    bool drop = b->a->drop.p > 0.0f;
    vec m = vec_set(-INFINITY), total = vec_set(0.0f), keep = vec_set(1.0f / (1.0f - b->a->drop.p)),
        scale = vec_set(b->scale);
    for (int r = 0; r < 2; r++)
        for (int64_t j = 0; j < b->n[r]; j++) {
            vec x = *(const vec *)(lines(l, s, r) + j * R);
            /* a hidden key must not raise the maximum: all others could vanish below it */
            if (b->it->causal) x = vec_pick(seeing(l, r, j), x, m);
            m = vec_max(m, x);
        }
    for (int r = 0; r < 2; r++)
        for (int64_t j = 0; j < b->n[r]; j++) {
            float *x = lines(l, s, r) + j * R;
            /* below the maximum: nothing overflows, and the largest is exactly 1 */
            vec e = vec_exp((*(const vec *)x - m) * scale);
            if (b->it->causal) e = vec_where(seeing(l, r, j), e);
            /* before dropout: a row's weights sum to 1 in the mean, not always */
            total += e;
            if (drop) e = vec_where(keeping(l, r, j), e * keep);
            *(vec *)x = e;
        }
    *(vec *)max = m;
    *(vec *)sum = total;
}

/* s: <k, q>, becomes P'; dp: <v, do>, becomes scale ds. Between the passes s is P, its sign the mask. */
static void softmax_bwd(Lanes *l, float *s, float *dp, const float *lse) {
    const Block *b = l->b;
    int64_t R = b->R, n = b->n[0] + b->n[1];
    bool drop = b->a->drop.p > 0.0f;
    vec delta = vec_set(0.0f), keep = vec_set(1.0f / (1.0f - b->a->drop.p)), back = vec_set(b->a->scale),
        scale = vec_set(b->scale), sums = *(const vec *)lse;
    for (int r = 0; r < 2; r++)
        for (int64_t j = 0; j < b->n[r]; j++) {
            float *x = lines(l, s, r) + j * R, *dx = lines(l, dp, r) + j * R;
            /* lse is the forward's: P sums to 1 without being summed again */
            vec P = vec_exp(vec_fma(*(const vec *)x, scale, -sums)), d = *(const vec *)dx;
            if (b->it->causal) P = vec_where(seeing(l, r, j), P);
            *(vec *)x = P;
            if (drop) {
                mask kept = keeping(l, r, j);
                d = vec_where(kept, d * keep);
                /* P is needed undropped below; a weight is never negative, so its sign is free */
                *(vec *)x = vec_pick(kept, P, -P);
            }
            d *= P;
            delta += d;
            *(vec *)dx = d;
        }
    mask moved = vec_not(vec_first(seeing_one(l)));
    for (int64_t j = 0; j < n; j++) {
        vec x = *(const vec *)(s + j * R), P = drop ? vec_max(x, -x) : x;
        *(vec *)(dp + j * R) = vec_where(moved, back * vec_fma(-P, delta, *(const vec *)(dp + j * R)));
        if (drop) *(vec *)(s + j * R) = vec_max(x, vec_set(0.0f)) * keep;
    }
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

static void block_forward(const Task *t, const Block *b) {
    const Attn *a = b->a;
    int64_t D = t->D, Dp = t->Dp, row = b->it->q0 + b->row0;
    pack_columns(t->qt, b->R, (const elem *)a->q + row * a->ldq + b->h * D, a->ldq, b->nq, D);
    scores(t->s, t, b, false, t->qt);
    for (int64_t r0 = 0; r0 < b->nq; r0 += LANES) {
        float max[LANES], sum[LANES];
        Lanes l = open_lanes(b, r0);
        if (a->bias) add_bias(t, &l, t->s + r0);
        softmax(&l, t->s + r0, max, sum);
        for (int64_t i = 0; i < MIN((int64_t)LANES, b->nq - r0); i++) {
            /* the backward makes P of it in one exponential, without the maximum */
            a->lse[b->h * a->plan->nrows + row + r0 + i] = max[i] * b->scale + logf(sum[i]);
            /* no key seen: sum 0, output 0 */
            t->qt[r0 + i] = sum[i] > 0.0f ? 1.0f / sum[i] : 0.0f;           /* q has served */
        }
    }
    /* divided by the sum afterwards: D numbers a row instead of one a key */
    mixture(t->o, t, b, t->s, true);
    for (int64_t i = 0; i < b->nq; i++) {
        elem *o = (elem *)a->o + (row + i) * a->ldo + b->h * D;
        for (int64_t d = 0; d < D; d += LANES) stv(o + d, *(const vec *)(t->o + i * Dp + d) * t->qt[i], D - d);
    }
}

static void group_forward(Task *t, const Attn *a, const AttnGroup *g, int64_t h) {
    open_ranges(t, a, g, h / (a->H / a->KH));
    open_bias(t, a, h);
    for (int32_t i = g->item0; i < g->item0 + g->nitems; i++)
        for (int64_t r = 0; r < a->plan->items[i].nq; r += ROWS) {
            Block b = open_block(a, &a->plan->items[i], h, r);
            block_forward(t, &b);
        }
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

static void block_backward(const Task *t, const AttnGrad *g, const Block *b) {
    const Attn *a = b->a;
    int64_t D = t->D, Dp = t->Dp, row = b->it->q0 + b->row0, ldq, lddo;
    const elem *q0 = (const elem *)a->q + row * a->ldq + b->h * D;
    const elem *do0 = (const elem *)g->d_o + row * a->ldo + b->h * D;
    pack_columns(t->qt, b->R, q0, a->ldq, b->nq, D);
    pack_columns(t->dot, b->R, do0, a->ldo, b->nq, D);
    scores(t->s, t, b, false, t->qt);
    scores(t->dp, t, b, true, t->dot);
    for (int64_t r0 = 0; r0 < b->nq; r0 += LANES) {
        float lse[LANES] = {0.0f};
        Lanes l = open_lanes(b, r0);
        if (a->bias) add_bias(t, &l, t->s + r0);
        memcpy(lse, a->lse + b->h * a->plan->nrows + row + r0, (size_t)MIN((int64_t)LANES, b->nq - r0) * sizeof *lse);
        softmax_bwd(&l, t->s + r0, t->dp + r0, lse);
    }
    mixture(t->o, t, b, t->dp, false);
    for (int64_t i = 0; i < b->nq; i++) {
        elem *dq = (elem *)g->dq + (row + i) * g->lddq + b->h * D;
        for (int64_t d = 0; d < D; d += LANES) stv(dq + d, *(const vec *)(t->o + i * Dp + d), D - d);
    }
    const float *q = f32_rows(t->q, q0, a->ldq, b->nq, D, &ldq), *d_o = f32_rows(t->d_o, do0, a->ldo, b->nq, D, &lddo);
    for (int64_t r = 0, at = 0; r < 2; at += b->n[r], r++) {
        int64_t first = b->n[r] ? (r ? b->it->b0 : b->it->a0) - t->range[r].first : 0;
        tile_product(t->range[r].dv + first * Dp, Dp, t->s + at * b->R, b->R, 1, d_o, lddo, b->n[r], Dp, b->nq, true);
        tile_product(t->range[r].dk + first * Dp, Dp, t->dp + at * b->R, b->R, 1, q, ldq, b->n[r], Dp, b->nq, true);
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

/* Key head kh of a group, with all heads that use it. */
static void group_backward(Task *t, const Attn *a, const AttnGrad *g, const AttnGroup *gr, int64_t kh) {
    int64_t D = a->D, G = a->H / a->KH;
    size_t sums = (size_t)((gr->nk[0] + gr->nk[1]) * t->Dp) * sizeof(float);
    /* heads of a key head and items of a group add here in their order; nobody else does: the same bits */
    memset(t->dk, 0, sums);
    memset(t->dv, 0, sums);
    if (gr->nitems) open_ranges(t, a, gr, kh);
    for (int64_t h = kh * G; h < kh * G + G; h++) {
        open_bias(t, a, h);
        for (int32_t i = gr->item0; i < gr->item0 + gr->nitems; i++)
            for (int64_t r = 0; r < a->plan->items[i].nq; r += ROWS) {
                Block b = open_block(a, &a->plan->items[i], h, r);
                block_backward(t, g, &b);
            }
    }
    for (int64_t r = 0, at = 0; r < 2; at += gr->nk[r], r++) {
        elem *dk = (elem *)g->dk + gr->k0[r] * g->lddk + kh * D;
        elem *dv = (elem *)g->dv + gr->k0[r] * g->lddv + kh * D;
        store_rows(dk, g->lddk, t->dk + at * t->Dp, gr->nk[r], D, g->add);
        store_rows(dv, g->lddv, t->dv + at * t->Dp, gr->nk[r], D, g->add);
    }
}

/* ---- both ------------------------------------------------------------------------------------------------------ */

/* Every group and head, or with g every group and key head, as a task. */
static void each_task(const Attn *a, const AttnGrad *g) {
    const AttnPlan *p = a->plan;
    Task measure;
    int64_t heads = g ? a->KH : a->H, per = task_layout(&measure, a, NULL, g);
    /* many small groups are handed out by the handful, few one by one: they differ in length by a factor of ten */
    int chunk = p->ngroups * heads > 16 * omp_get_max_threads() ? 4 : 1;
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel if (PARALLEL(p->products * a->H * a->D / (g ? 4 : 8)))
    {
        Task t = {0};
        task_layout(&t, a, memory + omp_get_thread_num() * per, g);
#pragma omp for schedule(dynamic, chunk) collapse(2)
        for (int32_t x = 0; x < p->ngroups; x++)
            for (int64_t h = 0; h < heads; h++) {
                if (!g && p->groups[x].nitems) group_forward(&t, a, &p->groups[x], h);
                /* keys that nobody looks at have gradient zero, which must be written */
                if (g && (p->groups[x].nitems || !g->add)) group_backward(&t, a, g, &p->groups[x], h);
            }
    }
}

void FN(attention)(const Attn *a) {
    if (a->plan->max_nq == 1 && a->drop.p <= 0.0f) FN(attention_single)(a);
    else each_task(a, NULL);
}

void FN(attention_bwd)(const Attn *a, const AttnGrad *g) { each_task(a, g); }
