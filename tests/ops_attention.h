/* ops_attention: the attention cases of test_ops.c (included there, once). A plan is written as groups: sizes of the
 * two key ranges, and items saying which of them their rows see. */

/* b: 1 the whole range 1, OWN the next nq keys of it */
typedef struct { int nq; bool a; int b, causal, pos; } ItemSpec;
typedef struct { int nk[2]; ItemSpec item[4]; } GroupSpec;
enum { OWN = 2, SPAN = 5 };

static const GroupSpec plan_small[] = {
    {{3, 5}, {{3, 1, 0, 0, 0}, {5, 1, 1, 1, 0}}},                                /* ITC image and ITG text */
    {{6, 0}, {{6, 1, 0, 0, 0}}},                                                 /* ITC text */
    {{4, 0}, {{0, 0, 0, 0, 0}}},                                                 /* keys nobody looks at */
    {{3, 7}, {{3, 1, 1, 0, 0}, {7, 1, 1, 0, 0}}},                                /* ITM */
    {{0, 4}, {{4, 0, 1, 1, 0}}},                                                 /* text alone, causal */
    {{1, 1}, {{1, 1, 1, 0, 0}}},
};
static const GroupSpec plan_real[] = {
    {{32, 13}, {{32, 1, 0, 0, 0}, {13, 1, 1, 1, 0}}}, {{11, 0}, {{11, 1, 0, 0, 0}}},
    {{32, 9}, {{32, 1, 1, 0, 0}, {9, 1, 1, 0, 0}}}, {{32, 32}, {{32, 1, 0, 0, 0}, {32, 1, 1, 1, 0}}},
};
static const GroupSpec plan_cross[] = {{{257, 0}, {{32, 1, 0, 0, 0}, {32, 1, 0, 0, 0}, {7, 1, 0, 0, 0}}},
                                       {{40, 0}, {{32, 1, 0, 0, 0}}}};
static const GroupSpec plan_one[] = {{{35, 0}, {{1, 1, 0, 0, 0}}}};
/* A prefix that sees itself up to each row, and three texts behind it, each of which sees it and itself; another
 * alone. */
static const GroupSpec plan_prefix[] = {
    {{9, 16}, {{9, 1, 0, CAUSAL_A, 0}, {7, 1, OWN, CAUSAL_B, 9}, {1, 1, OWN, CAUSAL_B, 9}, {8, 1, OWN, CAUSAL_B, 9}}},
    {{5, 0}, {{5, 1, 0, CAUSAL_A, 0}}},
};
/* More rows than are taken at a time, before and behind a prefix; both ways, as an encoder has it. */
static const GroupSpec plan_long[] = {{{70, 83}, {{70, 1, 0, CAUSAL_A, 0}, {83, 1, 1, CAUSAL_B, 70}}},
                                      {{67, 0}, {{67, 1, 0, 0, 0}}}};
/* A new row a beam: keys of a prefix, and of its own past. */
static const GroupSpec plan_decode[] = {
    {{40, 17}, {{1, 1, OWN, 0, 40}, {1, 1, 1, 0, 56}, {1, 1, 0, 0, 40}}}, {{3, 9}, {{1, 1, 1, 0, 11}, {1, 0, 1, 0, 4}}},
};
/* The same with so many keys that they are cut into stretches. */
static const GroupSpec plan_cache[] = {{{257, 130}, {{1, 1, OWN, 0, 257}, {1, 1, 1, 0, 386}, {1, 0, 1, CAUSAL_B, 0}}}};

/* Many images with more than half of the keys that the CUDA kernel keeps: a block of it takes several heads. */
#define IMAGES                                                                                                         \
    {{129, 0}, {{2, 1, 0, 0, 0}}}, {{145, 0}, {{2, 1, 0, 0, 0}}}, {{160, 0}, {{1, 1, 0, 0, 0}}}, {{9}, {{3, 1, 0, 0, 0}}}
static const GroupSpec plan_images[] = {IMAGES, IMAGES, IMAGES, IMAGES, IMAGES, IMAGES};
/* More rows than a block's threads have tiles at once. */
static const GroupSpec plan_rows[] = {{{9, 0}, {{300, 1, 0, 0, 0}, {250, 1, 0, CAUSAL_A, 0}}}};
/* Keys beyond sixteen times sixteen, of which rows see all, some, or one. */
static const GroupSpec plan_beyond[] = {
    {{200, 72}, {{3, 1, 1, CAUSAL_B, 0}, {72, 1, 1, CAUSAL_B, 200}, {2, 0, 1, 0, 0}}}, {{0, 270}, {{5, 0, 1, 0, 0}}},
};

/* Images whose rows all see all keys: whole in shared memory on Hopper, with a last part of another length, or, beyond
 * 272, in steps of 64; a single key is left, or more than a short step takes; several lists of rows on the same keys. */
static const GroupSpec plan_grid[] = {{{257, 0}, {{120, 1, 0, 0, 0}}}, {{190, 0}, {{64, 1, 0, 0, 0}}}};
static const GroupSpec plan_grids[] = {{{321, 0}, {{64, 1, 0, 0, 0}, {120, 1, 0, 0, 0}}},
                                       {{150, 0}, {{60, 1, 0, 0, 0}}}, {{282, 0}, {{64, 1, 0, 0, 0}}}};

#define PLAN(name) #name, plan_##name, (int)COUNT(plan_##name)
enum { ADD_DKV = 1, BIASED = 2, FORWARD = 4 };     /* dk, dv are added to; scores have a bias; no gradients (slow) */
typedef struct { const char *name; const GroupSpec *groups; int ngroups, H, KH, D, pad; float p; int how; } AttnCase;
static const AttnCase attn_cases[] = {
    {PLAN(small), 2, 2, 5, 0, 0, 0}, {PLAN(small), 1, 1, 16, 3, 0.2f, ADD_DKV}, {PLAN(small), 3, 3, 33, 0, 0.1f, 0},
    {PLAN(real), 2, 2, 64, 8, 0.1f, ADD_DKV}, {PLAN(real), 4, 4, 16, 0, 0, 0}, {PLAN(cross), 1, 1, 64, 0, 0.1f, 0},
    {PLAN(cross), 2, 2, 20, 4, 0, ADD_DKV}, {PLAN(one), 2, 2, 80, 0, 0.5f, 0}, {PLAN(small), 1, 1, 1, 1, 0, 0},
    {PLAN(real), 1, 1, 80, 0, 0, 0}, {PLAN(prefix), 2, 2, 16, 0, 0, 0}, {PLAN(prefix), 6, 2, 8, 4, 0.2f, ADD_DKV},
    {PLAN(prefix), 4, 1, 7, 0, 0, BIASED}, {PLAN(long), 2, 1, 16, 0, 0, 0},
    {PLAN(long), 1, 1, 12, 0, 0.1f, ADD_DKV | BIASED}, {PLAN(small), 4, 2, 72, 0, 0, ADD_DKV | BIASED},
    {PLAN(small), 3, 1, 88, 8, 0, 0}, {PLAN(small), 2, 2, 96, 0, 0, BIASED}, {PLAN(decode), 6, 2, 64, 0, 0, 0},
    {PLAN(decode), 4, 4, 72, 8, 0, ADD_DKV | BIASED}, {PLAN(cache), 6, 1, 64, 0, 0, BIASED},
    {PLAN(cache), 2, 2, 88, 8, 0, 0}, {PLAN(decode), 5, 1, 128, 0, 0, BIASED}, {PLAN(decode), 3, 3, 9, 0, 0.3f, 0},
    {PLAN(images), 12, 12, 40, 0, 0.1f, ADD_DKV}, {PLAN(beyond), 2, 1, 64, 0, 0.2f, 0},
    {PLAN(beyond), 1, 1, 56, 8, 0, ADD_DKV}, {PLAN(cross), 2, 2, 40, 8, 0, ADD_DKV}, {PLAN(long), 2, 1, 64, 0, 0.1f, 0},
    {PLAN(prefix), 6, 2, 40, 8, 0.2f, ADD_DKV | BIASED}, {PLAN(small), 2, 2, 48, 0, 0.1f, 0},
    {PLAN(rows), 1, 1, 40, 0, 0.1f, 0}, {PLAN(grid), 1, 1, 72, 0, 0, FORWARD}, {PLAN(grid), 2, 2, 80, 8, 0, FORWARD},
    {PLAN(grids), 2, 1, 64, 0, 0, FORWARD}, {PLAN(grids), 1, 1, 88, 8, 0, FORWARD}, {PLAN(grids), 1, 1, 128, 0, 0, FORWARD},
};

enum { MAX_ITEMS = 256 };
typedef struct {
    Attn a;
    AttnGrad g;
    AttnPlan plan;
    AttnItem items[MAX_ITEMS];
    AttnGroup groups[MAX_ITEMS];
    Buf *q, *k, *v, *rows, *d_o, *bias;
    int64_t nkeys;
} AttnRun;
static void launch_attention(void *at) { K->attention(&((AttnRun *)at)->a); }
static void launch_attention_bwd(void *context) {
    AttnRun *at = context;
    K->attention_bwd(&at->a, &at->g);
}

/* How many keys of a range row r of an item sees. */
static int32_t seen(const AttnItem *t, int64_t r, int range) {
    int32_t n = range ? t->nb : t->na;
    return t->causal & (range ? CAUSAL_B : CAUSAL_A) && r + 1 < n ? (int32_t)r + 1 : n;
}

static void make_plan(AttnRun *at, const GroupSpec *spec, int ngroups) {
    AttnPlan *p = &at->plan;
    int32_t key = 0, row = 0;
    *p = (AttnPlan){.ngroups = ngroups, .host_items = at->items, .host_groups = at->groups};
    for (int i = 0; i < ngroups; i++) {
        AttnGroup *g = &at->groups[i];
        *g = (AttnGroup){.item0 = p->nitems, .k0 = {key, key + spec[i].nk[0]}, .nk = {spec[i].nk[0], spec[i].nk[1]}};
        key += spec[i].nk[0] + spec[i].nk[1];
        int own = 0;
        for (int r = 0; r < 2; r++)
            if (g->nk[r] > p->max_group_nk) p->max_group_nk = g->nk[r];
        for (int j = 0; j < 4 && spec[i].item[j].nq; j++) {
            const ItemSpec *s = &spec[i].item[j];
            AttnItem *t = &at->items[p->nitems++];
            *t = (AttnItem){.q0 = row, .nq = s->nq, .a0 = g->k0[0], .na = s->a ? g->nk[0] : 0, .b0 = g->k0[1],
                            .nb = s->b ? g->nk[1] : 0, .causal = s->causal, .group = i, .pos = s->pos};
            if (s->b == OWN) t->b0 += own, t->nb = s->nq, own += s->nq;
            row += s->nq;
            g->nitems++;
            if (t->nq > p->max_nq) p->max_nq = t->nq;
            if (t->na + t->nb > p->max_nk) p->max_nk = t->na + t->nb;
            for (int r = 0; r < t->nq; r++) p->products += seen(t, r, 0) + seen(t, r, 1);
        }
    }
    p->nrows = row;
    at->nkeys = key;
    p->items = raw("items", at->items, sizeof at->items)->p;
    p->groups = raw("groups", at->groups, sizeof at->groups)->p;
}

enum { MAX_KEYS = 512 };
typedef struct { const double *k[MAX_KEYS], *v[MAX_KEYS]; double bias[MAX_KEYS], mask[MAX_KEYS]; int64_t n; } Seen;

/* What row r of an item sees with head h. */
static void look(AttnRun *at, Seen *s, const AttnItem *t, int64_t r, int64_t h) {
    int64_t D = at->a.D, kh = h / (at->a.H / at->a.KH);
    s->n = 0;
    for (int range = 0; range < 2; range++)
        for (int64_t j = 0; j < seen(t, r, range); j++, s->n++) {
            int64_t row = (range ? t->b0 : t->a0) + j, number = (range ? t->na : 0) + j, d = number - t->pos - r;
            s->k[s->n] = at->k->x + row * at->a.ldk + kh * D;
            s->v[s->n] = at->v->x + row * at->a.ldv + kh * D;
            s->mask[s->n] = dropped(&at->a.drop, at->rows, t->q0 + r, (uint32_t)(h << 23) + (uint32_t)number);
            d = d < -SPAN ? -SPAN : d > SPAN ? SPAN : d;
            s->bias[s->n] = at->bias ? at->bias->x[h * (2 * SPAN + 1) + d + SPAN] : 0.0;
        }
}

static void exact_attention(AttnRun *at, double *o, double *lse, bool plain) {
    static Seen s;
    int64_t D = at->a.D;
    for (int32_t i = 0; i < at->plan.nitems; i++) {
        const AttnItem *t = &at->items[i];
        for (int64_t r = 0; r < t->nq; r++)
            for (int64_t h = 0; h < at->a.H; h++) {
                int64_t row = t->q0 + r;
                look(at, &s, t, r, h);
                (plain ? plain_attend : exact_attend)(o + row * at->a.ldo + h * D, lse + h * at->plan.nrows + row,
                                                      at->q->x + row * at->a.ldq + h * D, s.k, s.v, s.bias, s.mask,
                                                          s.n, D,
                                                      (double)at->a.scale);
            }
    }
}

static double loss_attention(void *context) {
    AttnRun *at = context;
    int64_t n = at->plan.nrows * at->a.ldo;
    double l = 0.0, *o = doubles(n), *lse = doubles(at->plan.nrows * at->a.H);
    exact_attention(at, o, lse, false);
    for (int64_t i = 0; i < n; i++)
        if (i % at->a.ldo < at->a.H * at->a.D) l += o[i] * at->d_o->x[i];
    free(o);
    free(lse);
    return l;
}

static Buf *make_attention(AttnRun *at, int H, int KH, int D, int pad, float p, bool bias, Buf **lse) {
    int64_t n = at->plan.nrows, ld = H * D + pad, ldk = KH * D + pad;
    at->q = in("q", E, n * ld, -2, 2), at->k = in("k", E, at->nkeys * ldk, -2, 2);
    at->v = in("v", E, at->nkeys * ldk, -2, 2);
    at->rows = row_keys(n), at->bias = bias ? in("bias", DT_F32, H * (2 * SPAN + 1), -3, 3) : NULL;
    Buf *o = out("o", E, n * ld);
    *lse = out("lse", DT_F32, n * H);
    at->a = (Attn){.plan = &at->plan, .q = at->q->p, .k = at->k->p, .v = at->v->p, .o = o->p, .lse = (*lse)->p,
                   .ldq = ld, .ldk = ldk, .ldv = ldk, .ldo = ld, .H = H, .KH = KH, .D = D,
                   .scale = (float)(1.0 / sqrt(D)),
                   .bias = at->bias ? at->bias->p : NULL, .span = SPAN, .drop = {p, 21, 99, 4, at->rows->p}};
    return o;
}

/* Columns between the heads' end and the stride are nobody's: expected unchanged. */
static void keep_padding(double *want, double *plain, const Buf *b, int64_t width, int64_t ld) {
    for (int64_t i = 0; i < b->n; i++)
        if (i % ld >= width) want[i] = plain[i] = b->x[i];
}

/* A gradient of strided rows: padding must be as it was; the rest goes to differentiate(). */
static void differentiate_strided(AttnRun *at, Buf *g, bool added, Buf *x, int64_t width, int64_t ld) {
    for (int64_t i = 0; i < g->n; i++)
        if (i % ld >= width) {
            if (g->y[i] != g->x[i]) WRONG("%s: written between rows at %lld", g->name, (long long)i);
            g->y[i] = added ? g->x[i] : 0.0;             /* padding of q, k, v has no gradient */
        }
    differentiate(g, added, x->x, loss_attention, at);
}

/* dq, dk, dv by the formulas at the head of attention.cu: all of them, where differentiate() takes samples. */
static void exact_gradient(AttnRun *at, double *dq, double *dk, double *dv) {
    static Seen s;
    int64_t D = at->a.D;
    double scale = (double)at->a.scale;
    for (int64_t i = 0; i < at->plan.nitems; i++)
        for (int64_t r = 0; r < at->items[i].nq; r++)
            for (int64_t h = 0; h < at->a.H; h++) {
                int64_t q0 = (at->items[i].q0 + r) * at->a.ldq + h * D;
                const double *q = at->q->x + q0, *d_o = at->d_o->x + q0;
                double p[MAX_KEYS], dp[MAX_KEYS], sum = 0.0, delta = 0.0;
                look(at, &s, &at->items[i], r, h);
                for (int64_t j = 0; j < s.n; j++) {
                    double score = 0.0;
                    dp[j] = 0.0;
                    for (int64_t d = 0; d < D; d++) score += q[d] * s.k[j][d], dp[j] += d_o[d] * s.v[j][d] * s.mask[j];
                    sum += p[j] = exp(score * scale + s.bias[j]);
                }
                for (int64_t j = 0; j < s.n; j++) delta += (p[j] /= sum) * dp[j];
                for (int64_t j = 0; j < s.n; j++)
                    for (int64_t d = 0; d < D; d++) {
                        double ds = p[j] * (dp[j] - delta) * scale;
                        dq[q0 + d] += ds * s.k[j][d];
                        dk[s.k[j] - at->k->x + d] += ds * q[d];
                        dv[s.v[j] - at->v->x + d] += p[j] * s.mask[j] * d_o[d];
                    }
            }
}
static void compare_gradient(const Buf *g, bool added, double *want) {
    double bound = (E == DT_BF16 ? 0x1p-6 : 2e-5) * fmax(largest(want, g->n), added ? largest(g->x, g->n) : 0.0);
    for (int64_t i = 0; i < g->n; i++)
        if (!(fabs(g->y[i] - (added ? g->x[i] : 0.0) - want[i]) <= bound))
            WRONG("%s[%lld]: gradient %.9g, expected %.9g", g->name, (long long)i, g->y[i], want[i]);
    free(want);
}

/* Against differences and formulas, from the exact o and lse. */
static void attention_gradients(AttnRun *at, const AttnCase *c, const Buf *o, const double *want, const double *lse) {
    bool add = c->how & ADD_DKV;
    int64_t ld = at->a.ldq, ldk = at->a.ldk, n = at->plan.nrows;
    Buf *o2 = in("o", E, o->n, 0, 0), *l2 = in("lse", DT_F32, n * c->H, 0, 0);
    for (int64_t j = 0; j < o->n; j++) set(o2, j, want[j]);
    for (int64_t j = 0; j < n * c->H; j++) set(l2, j, lse[j]);
    at->d_o = in("do", E, n * ld, -1, 1);
    Buf *dq = out("dq", E, n * ld), *dk = out("dk", E, at->nkeys * ldk), *dv = out("dv", E, at->nkeys * ldk);
    at->a.o = o2->p, at->a.lse = l2->p;
    at->g = (AttnGrad){.d_o = at->d_o->p, .dq = dq->p, .dk = dk->p, .dv = dv->p, .lddq = ld, .lddk = ldk, .lddv = ldk,
                       .add = add};
    execute(launch_attention_bwd, at);
    differentiate_strided(at, dq, false, at->q, c->H * c->D, ld);
    differentiate_strided(at, dk, add, at->k, c->KH * c->D, ldk);
    differentiate_strided(at, dv, add, at->v, c->KH * c->D, ldk);
    double *wq = doubles(dq->n), *wk = doubles(dk->n), *wv = doubles(dv->n);
    exact_gradient(at, wq, wk, wv);
    compare_gradient(dq, false, wq);
    compare_gradient(dk, add, wk);
    compare_gradient(dv, add, wv);
}

static void attention(void) {
    AttnRun at = {0};
    for (size_t i = 0; i < COUNT(attn_cases); i++) {
        const AttnCase *c = &attn_cases[i];
        CASE("%s H %d of %d D %d p %g", c->name, c->H, c->KH, c->D, (double)c->p);
        make_plan(&at, c->groups, c->ngroups);
        Buf *lse, *o = make_attention(&at, c->H, c->KH, c->D, c->pad, c->p, c->how & BIASED, &lse);
        double *want = doubles(o->n), *plain = doubles(o->n), *wl = doubles(lse->n), *pl = doubles(lse->n);
        exact_attention(&at, want, wl, false);
        exact_attention(&at, plain, pl, true);
        keep_padding(want, plain, o, c->H * c->D, at.a.ldo);
        execute(launch_attention, &at);
        compare(o, want, plain);
        compare(lse, wl, pl);
        if (!(c->how & FORWARD)) attention_gradients(&at, c, o, want, wl);
        for (int k = 0; k < 4; k++) free((double *[]){want, plain, wl, pl}[k]);
        forget();
    }
}
TEST(attention)

/* Keys and values in another order: the same rows come out. */
static void attention_permuted(void) {
    AttnRun at = {0};
    CASE("257 keys reversed");
    make_plan(&at, plan_cross, (int)COUNT(plan_cross));
    Buf *lse, *o = make_attention(&at, 2, 2, 20, 0, 0, false, &lse);
    double *first = doubles(o->n);
    execute(launch_attention, &at);
    memcpy(first, o->y, (size_t)o->n * sizeof *first);
    for (int32_t g = 0; g < at.plan.ngroups; g++)
        for (int64_t j = 0; j < at.groups[g].nk[0] / 2; j++)
            for (int64_t c = 0; c < at.a.ldk; c++) {
                int64_t x = (at.groups[g].k0[0] + j) * at.a.ldk + c,
                    y = (at.groups[g].k0[0] + at.groups[g].nk[0] - 1 - j) * at.a.ldk + c;
                double k = at.k->x[x], v = at.v->x[x];
                set(at.k, x, at.k->x[y]);
                set(at.v, x, at.v->x[y]);
                set(at.k, y, k);
                set(at.v, y, v);
            }
    execute(launch_attention, &at);
    for (int64_t i = 0; i < o->n; i++)
        if (fabs(o->y[i] - first[i]) > 16.0 * unit(E))
            WRONG("o[%lld]: %.9g, with keys reversed %.9g", (long long)i, first[i], o->y[i]);
    free(first);
}
TEST(attention_permuted)

/* Packed with others or alone in the plan: the same bits (dropout included: it depends on the rows' keys, not on the
 * plan). */
static void attention_alone(void) {
    AttnRun at = {0};
    CASE("one group of a plan alone");
    make_plan(&at, plan_real, (int)COUNT(plan_real));
    Buf *lse, *o = make_attention(&at, 2, 2, 16, 0, 0.1f, false, &lse);
    double *first = doubles(o->n);
    execute(launch_attention, &at);
    memcpy(first, o->y, (size_t)o->n * sizeof *first);
    AttnGroup alone = at.groups[2];
    AttnItem its[2] = {at.items[alone.item0], at.items[alone.item0 + 1]};
    int64_t from = its[0].q0 * at.a.ldo, to = (its[1].q0 + its[1].nq) * at.a.ldo;
    alone.item0 = 0;
    its[0].group = its[1].group = 0;
    at.plan.items = raw("items", its, sizeof its)->p, at.plan.groups = raw("groups", &alone, sizeof alone)->p;
    at.plan.host_items = its, at.plan.host_groups = &alone;
    at.plan.nitems = 2, at.plan.ngroups = 1;
    execute(launch_attention, &at);
    for (int64_t i = 0; i < o->n; i++)
        if (o->y[i] != (i >= from && i < to ? first[i] : o->x[i]))
            WRONG("o[%lld]: %.9g alone, %.9g among others", (long long)i, o->y[i], first[i]);
    free(first);
}
TEST(attention_alone)

/* So many groups that a GPU gives a block several heads: each group has the same queries, keys and origins of dropout,
 * so all give what the first does, and that what it gives alone. */
static void attention_many(void) {
    enum { MANY = 100, H = 12, ROWS = 9, ALL = 12 };
    static const GroupSpec one = {{5, 7}, {{2, 1, 0, 0, 0}, {7, 1, 1, CAUSAL_B, 0}}};
    static const struct { int D; float p; } cases[] = {{64, 0.1f}, {40, 0}, {80, 0.2f}};
    static GroupSpec spec[MANY];
    static RowKey from[MANY * ROWS];
    AttnRun at = {0};
    for (int i = 0; i < MANY; i++) spec[i] = one;
    for (size_t i = 0; i < COUNT(cases); i++) {
        CASE("%d groups alike, D %d", MANY, cases[i].D);
        make_plan(&at, spec, MANY);
        Buf *lse, *o = make_attention(&at, H, H, cases[i].D, 0, cases[i].p, false, &lse);
        int64_t rows = ROWS * at.a.ldq, keys = ALL * at.a.ldk;
        for (int64_t j = rows; j < at.q->n; j++) set(at.q, j, at.q->x[j % rows]);
        for (int64_t j = keys; j < at.k->n; j++) set(at.k, j, at.k->x[j % keys]), set(at.v, j, at.v->x[j % keys]);
        for (uint32_t j = 0; j < MANY * ROWS; j++) from[j] = (RowKey){7 + j % ROWS, 3 * (j % ROWS)};
        at.a.drop.rows = raw("origins", from, sizeof from)->p;
        execute(launch_attention, &at);
        for (int64_t j = rows; j < o->n; j++)
            if (o->y[j] != o->y[j % rows])
                WRONG("o[%lld]: %.9g, in the first group %.9g", (long long)j, o->y[j], o->y[j % rows]);
        double *first = doubles(rows);
        memcpy(first, o->y, (size_t)rows * sizeof *first);
        at.plan.ngroups = 1, at.plan.nitems = 2;
        execute(launch_attention, &at);
        for (int64_t j = 0; j < rows; j++)
            if (o->y[j] != first[j])
                WRONG("o[%lld]: %.9g among others, %.9g alone", (long long)j, first[j], o->y[j]);
        free(first);
        forget();
    }
}
TEST(attention_many)

static void launch_both_ways(void *context) {
    AttnRun *at = context;
    K->attention(&at->a);
    K->attention_bwd(&at->a, &at->g);
}

/* A softmax over one key is 1 whatever the score: q and k have no gradient, not even the rounding of one. */
static void attention_one_key(void) {
    AttnRun at = {0};
    static const GroupSpec plan[] = {{{1, 0}, {{5, 1, 0, 0, 0}}}, {{0, 1}, {{2, 0, 1, CAUSAL_B, 0}}}};
    static const struct { int D; float p; } cases[] = {{64, 0}, {88, 0.3f}, {33, 0}, {56, 0.3f}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        CASE("one key, D %d", cases[i].D);
        make_plan(&at, plan, (int)COUNT(plan));
        Buf *lse;
        make_attention(&at, 2, 2, cases[i].D, 0, cases[i].p, false, &lse);
        int64_t ld = at.a.ldq, n = at.plan.nrows;
        at.d_o = in("do", E, n * ld, -1, 1);
        Buf *dq = out("dq", E, n * ld), *dk = out("dk", E, at.nkeys * ld), *dv = out("dv", E, at.nkeys * ld);
        at.g = (AttnGrad){.d_o = at.d_o->p, .dq = dq->p, .dk = dk->p, .dv = dv->p, .lddq = ld, .lddk = ld, .lddv = ld};
        execute(launch_both_ways, &at);
        double some = 0.0;
        for (int64_t j = 0; j < dq->n; j++)
            if (dq->y[j] != 0.0) WRONG("dq[%lld] is %g", (long long)j, dq->y[j]);
        for (int64_t j = 0; j < dk->n; j++) {
            if (dk->y[j] != 0.0) WRONG("dk[%lld] is %g", (long long)j, dk->y[j]);
            some += fabs(dv->y[j]);
        }
        if (!(some > 0.0)) WRONG("dv is zero too");
        forget();
    }
}
TEST(attention_one_key)
