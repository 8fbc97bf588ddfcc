/* test_tape: ops put together as models put them, on a backend's tape: two pre-norm layers with key heads for several
 * heads, norms of queries and keys, rotary positions, a bias by distance and a gated feed-forward.
 *
 *     build/test_tape          QFORMER_DEVICE=cuda: there
 *
 * What is held against what: gradients of all parameters against differences of the loss; the same gradients when all
 * but the first layer's input is frozen, to the bit; a prefix shared by many texts against a prefix for each; rows
 * decoded one by one behind cached keys against all rows at once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "tests/kit/check.h"

enum { H = 4, KH = 2, D = 8, C = 24, F = 20, QKV = (H + 2 * KH) * D, LAYERS = 2, SPAN = 4, POSITIONS = 64, WORDS = 5 };
static const Param NONE = {0};
static const Tensor NOTHING = {0};

/* ---- arrays and parameters --------------------------------------------------------------------------------------- */

enum { MOST = 256 };
static const Backend *K;
static DType E;
static Arena arena;
static Tape tape, *const T = &tape;
static void *arrays[MOST];
static int narrays;
static uint64_t stream;

static double uniform(double lo, double hi) {
    stream = stream * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(stream >> 11) * 0x1p-53;
}

static void *host(size_t bytes) {
    void *p = calloc(bytes + 1, 1);
    assert_non_null(p);
    return p;
}

/* A copy on the device, until device_close. */
static void *device(const void *src, size_t bytes) {
    void *p;
    assert_true(narrays < MOST);
    assert_int_equal(K->alloc(&p, bytes), OK);
    K->upload(p, src, bytes);
    K->sync();
    return arrays[narrays++] = p;
}

static void put(void *dst, DType t, const float *x, int64_t n) {
    void *cells = host((size_t)n * (size_t)dtype_size(t));
    dtype_from_f32(cells, t, x, (size_t)n);
    K->upload(dst, cells, (size_t)n * (size_t)dtype_size(t));
    K->sync();
    free(cells);
}

static float *read_back(const void *src, DType t, int64_t n) {
    float *x = host((size_t)n * sizeof *x);
    void *cells = host((size_t)n * (size_t)dtype_size(t));
    K->download(cells, src, (size_t)n * (size_t)dtype_size(t));
    dtype_to_f32(x, cells, t, (size_t)n);
    free(cells);
    return x;
}

/* A parameter, its values, and a direction to walk in. */
typedef struct { Param p; float *x, *v; int64_t n; } Learned;

enum { NORM_IN, QKV_W, QKV_B, NORM_Q, OUT_W, OUT_B, NORM_FF, UP_W, DOWN_W, NORM_OUT_G, NORM_OUT_O, A_LAYER };
enum { FIRST_W = LAYERS * A_LAYER, FIRST_B, ALL };
static const struct { int rows, cols; double lo, hi; } shapes[A_LAYER] = {
    {1, C, 0.5, 1.5}, {QKV, C, -0.4, 0.4}, {1, QKV, -0.2, 0.2}, {1, D, 0.5, 1.5}, {C, H * D, -0.3, 0.3}, {1, C, -0.2,
            0.2},
    {1, C, 0.5, 1.5}, {2 * F, C, -0.4, 0.4}, {C, F, -0.4, 0.4}, {1, C, 0.5, 1.5}, {1, C, -0.2, 0.2}};
static Learned all[ALL];
static Param word, position;
static float *bias, *cosines, *sines;

static Learned learned(int rows, int cols, double lo, double hi) {
    Learned l = {.n = (int64_t)rows * cols, .p = {.rows = rows, .cols = cols}};
    l.x = host((size_t)l.n * sizeof *l.x), l.v = host((size_t)l.n * sizeof *l.v);
    float *zero = host((size_t)l.n * sizeof *zero);
    for (int64_t i = 0; i < l.n; i++) l.x[i] = (float)uniform(lo, hi), l.v[i] = (float)uniform(-1, 1);
    l.p.w = device(l.x, (size_t)l.n * sizeof *l.x), l.p.g = device(zero, (size_t)l.n * sizeof *zero);
    l.p.copy = E == DT_F32 ? (void *)l.p.w : device(zero, (size_t)l.n * sizeof *zero);
    put(l.p.copy, E, l.x, l.n);
    free(zero);
    return l;
}

/* Parameters of a run: x + step v of one of them. */
static void walk(int which, float step) {
    Learned *l = &all[which];
    float *x = host((size_t)l->n * sizeof *x);
    for (int64_t i = 0; i < l->n; i++) x[i] = l->x[i] + step * l->v[i];
    put(l->p.w, DT_F32, x, l->n);
    put(l->p.copy, E, x, l->n);
    free(x);
}

/* The bias is steep enough to matter; the tables are those of 10000^(-2j/D). */
static void tables(void) {
    enum { HALF = D / 2 };
    float b[H * (2 * SPAN + 1)], c[POSITIONS * HALF], s[POSITIONS * HALF];
    for (int i = 0; i < H * (2 * SPAN + 1); i++) b[i] = (float)uniform(-1, 1);
    for (int i = 0; i < POSITIONS * HALF; i++) {
        double angle = i / HALF * pow(10000.0, -2.0 * (i % HALF) / D);
        c[i] = (float)cos(angle), s[i] = (float)sin(angle);
    }
    bias = device(b, sizeof b), cosines = device(c, sizeof c), sines = device(s, sizeof s);
}

static Param frozen_table(int rows) {
    Learned l = learned(rows, C, -1, 1);
    free(l.x), free(l.v);
    l.p.frozen = true;
    return l.p;
}

static void open_all(DType elem) {
    const char *name = getenv("QFORMER_DEVICE");
    E = elem, stream = 7, narrays = 0;
    if (backend_open(&K, name ? name : "cpu", elem, 0) != OK) fail_msg("%s", err_message());
    assert_int_equal(K->alloc(&arrays[narrays++], K->workspace + 1), OK);
    K->set_workspace(arrays[0], K->workspace);
    assert_int_equal(arena_open(&arena, "step", K, 16 << 20), OK);
    assert_int_equal(tape_open(T, K, &arena), OK);
    for (int i = 0; i < ALL; i++) {
        if (i < FIRST_W) all[i] = learned(shapes[i % A_LAYER].rows, shapes[i % A_LAYER].cols, shapes[i % A_LAYER].lo,
                                          shapes[i % A_LAYER].hi);
        else all[i] = learned(i == FIRST_W ? C : 1, C, -0.5, 0.5);
    }
    word = frozen_table(WORDS), position = frozen_table(POSITIONS);
    tables();
}

static void close_all(void) {
    assert_int_equal(tape_status(T), OK);
    for (int i = 0; i < ALL; i++) free(all[i].x), free(all[i].v);
    tape_close(T);
    arena_close(&arena, K);
    while (narrays) K->release(arrays[--narrays]);
    backend_close(K);
}

static void freeze(bool frozen) {
    for (int i = 0; i < FIRST_W; i++) {
        Param *p = &all[i].p;
        p->frozen = frozen;
    }
}

/* ---- who sees what ----------------------------------------------------------------------------------------------- */

enum { MOST_ROWS = 64, MOST_ITEMS = 8 };

/* Rows in the order of their items: where each stands, and what it is made of (-1 - r: given row r; else a word). */
typedef struct {
    AttnItem item[MOST_ITEMS];
    AttnGroup group[MOST_ITEMS];
    int32_t at[MOST_ROWS], ids[MOST_ROWS];
    const int32_t *dev_at, *dev_ids;
    AttnPlan plan;
} Rows;

/* A group: `prefix` rows that see themselves up to each, and texts behind it; keys are the rows themselves. The rows'
 * given rows begin at `given`, and -given of the texts behind them. */
static void add_group(Rows *r, int prefix, const int *texts, int ntexts, const int *given) {
    AttnPlan *p = &r->plan;
    AttnGroup *g = &r->group[p->ngroups];
    int first = p->nrows, own = first + prefix, total = 0;
    for (int i = 0; i < ntexts; i++) total += texts[i];
    *g = (AttnGroup){.item0 = p->nitems, .nitems = ntexts + 1, .k0 = {first, own}, .nk = {prefix, total}};
    r->item[p->nitems++] = (AttnItem){.q0 = first, .nq = prefix, .a0 = first, .na = prefix, .causal = CAUSAL_A,
                                      .group = p->ngroups};
    for (int i = 0; i < prefix; i++) r->at[first + i] = i, r->ids[first + i] = -1 - i;
    for (int i = 0; i < ntexts; own += texts[i++]) {
        r->item[p->nitems++] = (AttnItem){.q0 = own, .nq = texts[i], .a0 = first, .na = prefix, .b0 = own,
                                          .nb = texts[i],
                                          .causal = CAUSAL_B, .group = p->ngroups, .pos = prefix};
        for (int j = 0; j < texts[i]; j++) r->at[own + j] = prefix + j, r->ids[own + j] = (given[i] + j) % WORDS;
    }
    p->nrows = own;
    p->ngroups++;
}

static void send(Rows *r) {
    AttnPlan *p = &r->plan;
    for (int i = 0; i < p->nitems; i++) {
        const AttnItem *t = &r->item[i];
        if (t->nq > p->max_nq) p->max_nq = t->nq;
        if (t->na + t->nb > p->max_nk) p->max_nk = t->na + t->nb;
    }
    for (int i = 0; i < p->ngroups; i++)
        for (int k = 0; k < 2; k++)
            if (r->group[i].nk[k] > p->max_group_nk) p->max_group_nk = r->group[i].nk[k];
    p->products = (int64_t)p->nrows * p->max_nk;
    p->host_items = r->item, p->host_groups = r->group;
    p->items = device(r->item, sizeof r->item), p->groups = device(r->group, sizeof r->group);
    r->dev_at = device(r->at, sizeof r->at), r->dev_ids = device(r->ids, sizeof r->ids);
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

static Tensor make(int64_t rows, int64_t cols) { return tape_new(T, rows, cols, E); }
static Param param(int layer, int which) { return all[layer * A_LAYER + which].p; }

/* Keys and values of a layer that earlier rows have left; new ones are put behind them. */
typedef struct { Tensor kv[LAYERS]; int rows; } Cache;

static Tensor attend(int l, Tensor h, const Rows *r, Cache *c) {
    Tensor qkv = make(h.rows, QKV), o = make(h.rows, H * D), s = make(h.rows, C), kv = qkv;
    op_linear(T, qkv, h, param(l, QKV_W), param(l, QKV_B));
    op_head_norm(T, qkv, 0, H, D, (Norm){param(l, NORM_Q), NONE, 1e-6f, true});
    op_rotary(T, qkv, 0, (Rotary){.H = H + KH, .D = D, .R = D, .cos = cosines, .sin = sines, .at = r->dev_at});
    int64_t keys = H * D;
    if (c) {
        kv = c->kv[l], keys = 0;
        K->copy_rows((char *)kv.data + c->rows * kv.ld * dtype_size(E), kv.ld, NULL,
                     (const char *)qkv.data + H * D * dtype_size(E), qkv.ld, NULL, h.rows, kv.cols, false);
    }
    Heads heads = op_heads(H, KH, D);
    if (l == 0) heads.bias = bias, heads.span = SPAN;
    op_attention(T, o, qkv, 0, kv, keys, keys + KH * D, heads, &r->plan, (Dropout){0});
    op_linear(T, s, o, param(l, OUT_W), NONE);
    return s;
}

/* The stream behind layer l, and *y, its norm. */
static Tensor layer(int l, Tensor x, Tensor *y, const Rows *r, Cache *c) {
    Tensor h = make(x.rows, C), f = make(x.rows, C), u = make(x.rows, 2 * F), s = make(x.rows, C);
    *y = make(x.rows, C);
    op_norm(T, h, x, (Norm){param(l, NORM_IN), NONE, 1e-5f, true});
    Tensor z = attend(l, h, r, c);
    op_add_norm(T, f, z, x, param(l, OUT_B), (Norm){param(l, NORM_FF), NONE, 1e-5f, true}, (Dropout){0});
    op_feed_forward(T, s, u, f, param(l, UP_W), (ActForm){ACT_SILU, true, false}, NONE, param(l, DOWN_W));
    op_add_norm(T, *y, s, z, NONE, (Norm){param(l, NORM_OUT_G), param(l, NORM_OUT_O), 1e-5f, false}, (Dropout){0});
    return s;
}

/* The last norm's rows; given rows are the first layer of `start`, a leaf. The norm of the stream behind the layer
 * before is used by nobody: its gradient is zero, the stream's goes through. */
static Tensor model(const Rows *r, Tensor start, Cache *c) {
    Tensor given = NOTHING, x = make(r->plan.nrows, C), y;
    if (start.data) {
        given = make(start.rows, C);
        op_linear(T, given, start, all[FIRST_W].p, all[FIRST_B].p);
    }
    op_lookup(T, x, (Lookup){.scale = 1.0f, .ids = r->dev_ids, .pos_id = r->dev_at}, word, given, position);
    for (int l = 0; l < LAYERS; l++) x = layer(l, x, &y, r, c);
    if (c) c->rows += r->plan.nrows;
    return y;
}

/* Sum of y times weights over the rows from `first` on. */
static double weighed(Tensor y, const float *weights) {
    float *v = read_back(y.data, E, y.rows * C);
    double l = 0.0;
    for (int64_t i = 0; i < y.rows * C; i++) l += (double)v[i] * (double)weights[i];
    free(v);
    return l;
}

static Tensor leaf(int64_t rows) {
    float *x = host((size_t)(rows * C) * sizeof *x);
    stream = 99;
    for (int64_t i = 0; i < rows * C; i++) x[i] = (float)uniform(-1, 1);
    Tensor t = tape_leaf(device(x, (size_t)(rows * C) * sizeof *x), rows, C, E);
    put(t.data, E, x, rows * C);
    free(x);
    return t;
}

/* Weights of the outputs: none for rows [0, skip) of each stretch of `each` rows. */
static float *weights_of(const Rows *r, int64_t skip) {
    float *w = host((size_t)(r->plan.nrows * C) * sizeof *w);
    for (int g = 0; g < r->plan.ngroups; g++)
        for (int i = r->group[g].item0; i < r->group[g].item0 + r->group[g].nitems; i++) {
            const AttnItem *t = &r->item[i];
            for (int j = 0; j < t->nq * C; j++) {
                int row = t->q0 + j / C;
                w[t->q0 * C + j] = r->at[row] < skip ? 0.0f : (float)sin(0.7 * (r->ids[row] * C + j));
            }
        }
    return w;
}

/* Forward and backward; gradients are in all[].p.g from zero on. */
static Tensor both_ways(const Rows *r, Tensor start, const float *weights) {
    for (int i = 0; i < ALL; i++) K->zero(all[i].p.g, (size_t)all[i].n * sizeof(float));
    tape_reset(T, true);
    void *d = device(weights, (size_t)(r->plan.nrows * C) * sizeof(float));
    put(d, E, weights, r->plan.nrows * C);
    Tensor y = model(r, start, NULL);
    tape_seed(T, y, d);
    tape_backward(T);
    assert_int_equal(tape_status(T), OK);
    return y;
}

/* The norm behind the first layer is used by nobody. */
static bool idle(int i) { return i == NORM_OUT_G || i == NORM_OUT_O; }

static const int TEXTS[] = {5, 1, 7}, IDS[] = {0, 3, 1};
enum { PREFIX = 6, NTEXTS = 3 };

static Tensor one_group(Rows *r) {
    *r = (Rows){0};
    add_group(r, PREFIX, TEXTS, NTEXTS, IDS);
    send(r);
    return leaf(PREFIX);
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

static double loss_at(int which, float step, const Rows *r, Tensor start, const float *weights) {
    walk(which, step);
    tape_reset(T, false);
    return weighed(model(r, start, NULL), weights);
}

/* Along a direction for each parameter: differences of fourth order, whose own error is 1e-6 here. */
static void test_gradients(void **state) {
    (void)state;
    open_all(DT_F32);
    Rows r;
    Tensor start = one_group(&r);
    float *w = weights_of(&r, 0);
    both_ways(&r, start, w);
    for (int i = 0; i < ALL; i++) {
        if (idle(i)) continue;
        const float h = 0x1p-8f;
        double got = 0.0, size = 0.0, d[4];
        float *g = read_back(all[i].p.g, DT_F32, all[i].n);
        for (int64_t j = 0; j < all[i].n; j++) got += (double)g[j] * (double)all[i].v[j], size += fabs((double)g[j]);
        for (int k = 0; k < 4; k++) d[k] = loss_at(i, h * (float)((k < 2 ? k - 2 : k - 1)), &r, start, w);
        walk(i, 0);
        double want = (8.0 * (d[2] - d[1]) - (d[3] - d[0])) / (12.0 * (double)h);
        if (!(fabs(got - want) < 2e-3 + 2e-3 * size / sqrt((double)all[i].n)) || size == 0.0)
            fail_msg("parameter %d of layer %d: gradient %.6g, differences give %.6g", i % A_LAYER, i / A_LAYER, got,
                     want);
        free(g);
    }
    free(w);
    close_all();
}

static void nothing_waits(void *ctx, Tape *t, const Node *n, double seconds, bool back) {
    (void)ctx, (void)n, (void)seconds, (void)back;
    assert_int_equal(t->later.n, 0);
}

/* Gradients of weights that wait for each other are those of one after the other, to the bit: what they read is not
 * given to others before they have run. Who watches an op finds its gradients there. */
static void test_waiting(void **state) {
    (void)state;
    open_all(DT_BF16);
    Rows r;
    Tensor start = one_group(&r);
    float *w = weights_of(&r, 0), *apart[ALL];
    T->waits = false;
    both_ways(&r, start, w);
    for (int i = 0; i < ALL; i++) apart[i] = read_back(all[i].p.g, DT_F32, all[i].n);
    T->waits = true;
    both_ways(&r, start, w);
    for (int i = 0; i < ALL; i++) {
        float *g = read_back(all[i].p.g, DT_F32, all[i].n);
        assert_memory_equal(g, apart[i], (size_t)all[i].n * sizeof *g);
        free(g), free(apart[i]);
    }
    T->watch = nothing_waits;
    both_ways(&r, start, w);
    free(w);
    close_all();
}

/* With everything between frozen, the first layer's gradient has the same bits, and nothing else is written. */
static void test_frozen(void **state) {
    (void)state;
    for (DType e = DT_F32; e <= DT_BF16; e = e == DT_F32 ? DT_BF16 : DT_COUNT) {
        open_all(e);
        Rows r;
        Tensor start = one_group(&r);
        float *w = weights_of(&r, 0), *g[2];
        for (int k = 0; k < 2; k++) {
            freeze(k);
            both_ways(&r, start, w);
            g[k] = read_back(all[FIRST_W].p.g, DT_F32, all[FIRST_W].n);
            for (int i = 0; i < FIRST_W; i++) {
                float *other = read_back(all[i].p.g, DT_F32, all[i].n), sum = 0.0f;
                for (int64_t j = 0; j < all[i].n; j++) sum += fabsf(other[j]);
                assert_true(k || idle(i) ? sum == 0.0f : sum > 0.0f);
                free(other);
            }
        }
        assert_memory_equal(g[0], g[1], (size_t)all[FIRST_W].n * sizeof(float));
        free(g[0]), free(g[1]), free(w);
        close_all();
    }
}

/* ---- a prefix once, or once for each text ------------------------------------------------------------------------ */

static void compare_rows(const float *got, const float *want, int64_t n, double bound, const char *what) {
    double worst = 0.0, size = 0.0;
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
        size = fmax(size, fabs((double)want[i]));
    }
    if (!(worst <= bound * size) || size == 0.0) fail_msg("%s: off by %.3g of %.3g", what, worst, size);
}

static void test_prefix(void **state) {
    (void)state;
    for (DType e = DT_F32; e <= DT_BF16; e = e == DT_F32 ? DT_BF16 : DT_COUNT) {
        double bound = e == DT_F32 ? 2e-6 : 0x1p-6;
        open_all(e);
        Rows shared = {0}, apart[NTEXTS] = {0};
        float *sums[ALL] = {0};
        add_group(&shared, PREFIX, TEXTS, NTEXTS, IDS);
        send(&shared);
        Tensor start = leaf(PREFIX);
        float *w = weights_of(&shared, PREFIX);
        Tensor y = both_ways(&shared, start, w);
        float *together = read_back(y.data, E, y.rows * C), *g[ALL];
        for (int i = 0; i < ALL; i++) g[i] = read_back(all[i].p.g, DT_F32, all[i].n),
            sums[i] = host((size_t)all[i].n * 4);
        for (int k = 0, row = PREFIX; k < NTEXTS; row += TEXTS[k++]) {
            add_group(&apart[k], PREFIX, &TEXTS[k], 1, &IDS[k]);
            send(&apart[k]);
            float *wk = weights_of(&apart[k], PREFIX);
            assert_memory_equal(wk + PREFIX * C, w + row * C, (size_t)(TEXTS[k] * C) * sizeof *w);
            Tensor one = both_ways(&apart[k], start, wk);
            float *alone = read_back(one.data, E, one.rows * C);
            compare_rows(together, alone, PREFIX * C, bound, "prefix");
            compare_rows(together + row * C, alone + PREFIX * C, TEXTS[k] * C, bound, "text");
            for (int i = 0; i < ALL; i++) {
                float *part = read_back(all[i].p.g, DT_F32, all[i].n);
                for (int64_t j = 0; j < all[i].n; j++) sums[i][j] += part[j];
                free(part);
            }
            free(alone), free(wk);
        }
        for (int i = 0; i < ALL; i++) {
            if (!idle(i)) compare_rows(g[i], sums[i], all[i].n, e == DT_F32 ? 1e-5 : 0x1p-4, "gradient");
            free(g[i]), free(sums[i]);
        }
        free(together), free(w);
        close_all();
    }
}

/* ---- row by row behind cached keys ------------------------------------------------------------------------------- */

/* One new row at position `at`, behind a prefix and the rows decoded since. */
static void one_row(Rows *r, int at, int id) {
    r->item[0] = (AttnItem){.nq = 1, .a0 = 0, .na = PREFIX, .b0 = PREFIX, .nb = at - PREFIX + 1, .pos = at};
    r->group[0] = (AttnGroup){.nitems = 1, .k0 = {0, PREFIX}, .nk = {PREFIX, at - PREFIX + 1}};
    r->plan = (AttnPlan){.nitems = 1, .ngroups = 1, .nrows = 1};
    r->at[0] = at, r->ids[0] = id;
    send(r);
}

static void test_cached(void **state) {
    (void)state;
    enum { TEXT = 9 };
    const int text[] = {TEXT}, id[] = {2};
    for (DType e = DT_F32; e <= DT_BF16; e = e == DT_F32 ? DT_BF16 : DT_COUNT) {
        double bound = e == DT_F32 ? 2e-6 : 0x1p-6;
        open_all(e);
        Rows whole = {0}, prefix = {0};
        add_group(&whole, PREFIX, text, 1, id);
        send(&whole);
        Tensor start = leaf(PREFIX);
        tape_reset(T, false);
        Tensor y = model(&whole, start, NULL);
        float *want = read_back(y.data, E, y.rows * C);
        Cache cache = {0};
        for (int l = 0; l < LAYERS; l++) {
            float *zero = host(MOST_ROWS * 2 * KH * D * sizeof *zero);
            cache.kv[l] = tape_leaf(device(zero, MOST_ROWS * 2 * KH * D * sizeof *zero), MOST_ROWS, 2 * KH * D, E);
            free(zero);
        }
        add_group(&prefix, PREFIX, NULL, 0, NULL);
        send(&prefix);
        tape_reset(T, false);
        y = model(&prefix, start, &cache);
        float *got = read_back(y.data, E, y.rows * C);
        compare_rows(got, want, PREFIX * C, bound, "prefix");
        free(got);
        for (int i = PREFIX; i < PREFIX + TEXT; i++) {
            Rows row = {0};
            one_row(&row, i, whole.ids[i]);
            tape_reset(T, false);
            y = model(&row, NOTHING, &cache);
            got = read_back(y.data, E, C);
            compare_rows(got, want + i * C, C, bound, "row");
            free(got);
        }
        free(want);
        close_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradients), cmocka_unit_test(test_frozen),
                                       cmocka_unit_test(test_waiting),
                                       cmocka_unit_test(test_prefix), cmocka_unit_test(test_cached)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
