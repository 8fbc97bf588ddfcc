/* qformer: see qformer.h. Post-LN BERT layers with one self-attention for queries and text, cross-attention for queries
 * in every X-th layer, and two feed-forward nets: one for the query slab, one for the text slab (spec/model.md 4). */
#include "kernels/model/qformer.h"

#include "kernels/model/block.h"

static const Param NONE = {0};
static const Tensor NOTHING = {0};

#define EMBED "Qformer.bert.embeddings."
#define LAYER "Qformer.bert.encoder.layer.%d."
#define HEAD  "Qformer.cls.predictions."

Status qformer_open(QFormer *m, const Dims *d, const Backend *b, Arena *run, const ParamsSpec *spec) {
    static const ParamRow rows[P_COUNT] = {
#define X(id, name_, shape_, where_, block_, join_, start_, ...)                                                       \
    {.name = name_, .shape = shape_, .where = where_, .block = block_, .join = join_, .start = START_##start_,         \
     __VA_ARGS__},
        QFORMER_TABLE(X)
#undef X
    };
    ParamSizes s = {{0}};
    s.of['L'] = d->L, s.of['C'] = d->C, s.of['F'] = d->F, s.of['Q'] = d->Q, s.of['E'] = d->E, s.of['Z'] = d->Z;
    s.of['V'] = d->V, s.of['N'] = d->N, s.of['X'] = d->X, s.of['W'] = d->W;
    m->d = *d;
    return params_open(&m->params, (ParamTable){rows, P_COUNT}, &s, b, run, spec);
}

void qformer_close(QFormer *m) { params_close(&m->params); }

Status qformer_open_alone(QFormer *m, Arena *mem, const Dims *d, const Backend *b, const ParamsSpec *spec) {
    Backend null = backend_measuring(b);
    Arena measure;
    arena_measure(&measure, "weights");
    /* measured first: an arena is taken once, at its size */
    Status st = qformer_open(m, d, &null, &measure, spec);
    qformer_close(m);
    if (st == OK) st = arena_open(mem, "weights'", b, measure.peak + b->workspace + 256);
    if (st == OK) st = qformer_open(m, d, b, mem, spec);
    if (st == OK) b->set_workspace(arena_push(mem, b->workspace, 1), b->workspace);
    return st;
}

static Param param(const QFormer *m, int row, int layer) { return params_get(&m->params, row, layer); }
static ActForm act_of(const QFormer *m) { return (ActForm){.f = (ActKind)m->d.act}; }

static Dropout drop_at(Noise n, int layer, int site, const RowKey *rows) {
    uint32_t where = (uint32_t)(layer < 0 ? site : SITE_LAYER + layer * SITE_PER_LAYER + site);
    return (Dropout){.p = n.p, .seed = n.seed, .step = n.step, .site = where, .rows = rows};
}

void qformer_image(ImageKV *kv, Tape *t, const QFormer *m, const void *features, DType dt, const float *scale,
                 int images) {
    const Dims *d = &m->d;
    DType e = t->b->elem;
    int64_t rows = (int64_t)images * d->P, width = 2LL * d->C;
    /* the last layer that looks at the image */
    int last = (dims_cross_layers(d) - 1) * d->X;
    void *xhat = tape_push(t, rows * d->E, dtype_size(e));
    t->b->normalize(xhat, features, dt, scale, rows, d->E, d->P / dims_scales(d), dims_eps_vision(d));
    Tensor all = tape_new(t, rows, width * dims_cross_layers(d), e);
    op_fold_linear(t, all, tape_leaf(xhat, rows, d->E, e), params_joined(&m->params, P_CROSS_K_W, P_CROSS_V_W, 0, last),
                   params_joined(&m->params, P_CROSS_K_B, P_CROSS_V_B, 0, last), param(m, P_LN_VISION_W, -1),
                   param(m, P_LN_VISION_B, -1));
    kv->images = images;
    for (int l = 0, i = 0; l < d->L; l++)
        /* layer by layer side by side: one product wrote them, and one walks back */
        if (dims_is_cross(d, l)) kv->kv[l] = tape_columns(t, all, width * i++, width);
}

/* ---- one layer --------------------------------------------------------------------------------------------------- */

typedef struct { int in_w, in_b, out_w, out_b, ln_w, ln_b; } Rows;
static const Rows TEXT_FFN = {P_FFN_IN_W, P_FFN_IN_B, P_FFN_OUT_W, P_FFN_OUT_B, P_FFN_LN_W, P_FFN_LN_B};
static const Rows QUERY_FFN = {P_QFFN_IN_W, P_QFFN_IN_B, P_QFFN_OUT_W, P_QFFN_OUT_B, P_QFFN_LN_W, P_QFFN_LN_B};
static const Rows CROSS = {P_CROSS_Q_W, P_CROSS_Q_B, P_CROSS_O_W, P_CROSS_O_B, P_CROSS_LN_W, P_CROSS_LN_B};
static const Rows SELF = {P_SELF_Q_W, P_SELF_Q_B, P_SELF_O_W, P_SELF_O_B, P_SELF_LN_W, P_SELF_LN_B};

/* y = LN(x + dropout(gelu(x Wi + bi) Wo + bo)) */
static void feed_forward(Tape *t, const QFormer *m, int l, const Rows *f, Tensor y, Tensor x, Dropout drop) {
    BlockFeedForward w = {.norm = {param(m, f->ln_w, l), param(m, f->ln_b, l), dims_eps(&m->d), false}, .behind = true,
                          .in = param(m, f->in_w, l), .in_bias = param(m, f->in_b, l), .out = param(m, f->out_w, l),
                          .out_bias = param(m, f->out_b, l), .act = act_of(m), .drop = drop};
    block_feed_forward(t, &(BlockStream){.x = x}, &w, y);
}

/* LN(x + dropout(attend(x Wi + bi) Wo + bo)); prob, out: sites of its dropouts */
static BlockAttention attention(const QFormer *m, int l, const Rows *a, Noise noise, int prob, int out,
                                const RowKey *rows) {
    return (BlockAttention){.norm = {param(m, a->ln_w, l), param(m, a->ln_b, l), dims_eps(&m->d), false},
                            .behind = true,
                            .in = param(m, a->in_w, l), .in_bias = param(m, a->in_b, l), .out = param(m, a->out_w, l),
                            .out_bias = param(m, a->out_b, l), .heads = op_heads(m->d.H, m->d.H, m->d.C / m->d.H),
                            .D = m->d.C / m->d.H, .prob = drop_at(noise, l, prob, rows),
                            .drop = drop_at(noise, l, out, rows)};
}

static BlockAttention self_attention(const QFormer *m, int l, Noise noise, const RowKey *rows) {
    BlockAttention w = attention(m, l, &SELF, noise, SITE_SELF_PROB, SITE_SELF_OUT, rows);
    w.in = params_joined(&m->params, P_SELF_Q_W, P_SELF_V_W, l, l);
    w.in_bias = params_joined(&m->params, P_SELF_Q_B, P_SELF_V_B, l, l);
    return w;
}

static Tensor cross_attention(Tape *t, const QFormer *m, int l, Tensor a, const Wave *w, const ImageKV *kv,
                              Noise noise) {
    BlockAttention c = attention(m, l, &CROSS, noise, SITE_CROSS_PROB, SITE_CROSS_OUT, w->rows);
    BlockStream x = {.x = a};
    block_attend(t, &x, &c, block_qkv(t, &x, &c, NOTHING), kv->kv[l], 0, &w->cross, NOTHING);
    return x.x;
}

Tensor qformer_qkv(Tape *t, const QFormer *m, int l, Tensor x) {
    BlockAttention w = self_attention(m, l, (Noise){0}, NULL);
    return block_qkv(t, &(BlockStream){.x = x}, &w, NOTHING);
}

/* Rows of x that are the wave's: all, or its query rows and its text rows where others' lie between. */
typedef struct { int n; struct { int64_t at, rows; } part[2]; } Parts;
static Parts parts_of(const Wave *w) {
    /* the usual case: both slabs in one product */
    if (w->text == w->NQ) return (Parts){1, {{0, w->NQ + w->NT}}};
    return (Parts){2, {{0, w->NQ}, {w->text, w->NT}}};
}

static Tensor qkv_of_wave(Tape *t, const QFormer *m, int l, Tensor x, const Wave *w) {
    BlockAttention a = self_attention(m, l, (Noise){0}, NULL);
    Tensor q = tape_like(t, x, a.in.rows, t->b->elem);
    Parts p = parts_of(w);
    for (int i = 0; i < p.n; i++) {
        int64_t at = p.part[i].at, n = p.part[i].rows;
        /* rows between the two slabs are another wave's: they must not be computed, nor overwritten */
        if (n) block_qkv(t, &(BlockStream){.x = tensor_rows(x, at, n)}, &a, tensor_rows(q, at, n));
    }
    return q;
}

/* ---- behind self-attention: query rows and text rows part -------------------------------------------------------- */

static void project_all(Tape *t, const QFormer *m, int l, Tensor a[2], Tensor x, Tensor seen, const Wave *w,
                        Noise noise) {
    Tensor s = tape_like(t, x, x.cols, x.dt), y = tape_like(t, x, x.cols, x.dt);
    Parts p = parts_of(w);
    for (int i = 0; i < p.n; i++) {
        int64_t at = p.part[i].at, n = p.part[i].rows;
        if (!n) continue;
        BlockAttention self = self_attention(m, l, noise, w->rows + at);
        BlockStream stream = {.x = tensor_rows(x, at, n), .next = tensor_rows(s, at, n)};
        block_project(t, &stream, &self, tensor_rows(seen, at, n), tensor_rows(y, at, n));
    }
    a[0] = tensor_rows(y, 0, w->NQ), a[1] = tensor_rows(y, w->text, w->NT);
}

static bool picks_in(const QFormer *m, int l, const Wave *w) { return w->picks && l + 1 == m->d.L; }

static Tensor picked(Tape *t, Tensor x, const Wave *w) {
    Tensor y = tape_kept(t, w->npicked, x.cols, t->b->elem, false, false);
    op_gather(t, y, tensor_rows(x, w->text, w->NT), w->picked);
    return y;
}

/* Query rows from there to the end of the layer. */
static void query_part(Tape *t, const QFormer *m, int l, Tensor y, Tensor a, const Wave *w, const ImageKV *kv,
                       Noise noise) {
    if (!w->NQ) return;
    /* text rows never look at the image: they see it through the queries */
    if (dims_is_cross(&m->d, l)) a = cross_attention(t, m, l, a, w, kv, noise);
    feed_forward(t, m, l, &QUERY_FFN, tensor_rows(y, 0, w->NQ), a, drop_at(noise, l, SITE_FFN_OUT, w->rows));
}

/* The last layer: all text rows were keys, and only those that are read go on. Queries first: a second wave, of which
 * no text is read, ends with them. */
static void picked_part(Tape *t, const QFormer *m, int l, Tensor y, Tensor x, Tensor seen, const Wave *w,
                        const ImageKV *kv, Noise noise) {
    BlockAttention q = self_attention(m, l, noise, w->rows), k = self_attention(m, l, noise, w->picked_rows);
    if (w->NQ) {
        BlockStream s = {.x = tensor_rows(x, 0, w->NQ)};
        block_project(t, &s, &q, tensor_rows(seen, 0, w->NQ), NOTHING);
        query_part(t, m, l, y, s.x, w, kv, noise);
    }
    if (!w->npicked) return;
    BlockStream s = {.x = picked(t, x, w)};
    block_project(t, &s, &k, picked(t, seen, w), NOTHING);
    feed_forward(t, m, l, &TEXT_FFN, tensor_rows(y, w->NQ, w->npicked), s.x,
                 drop_at(noise, l, SITE_FFN_OUT, w->picked_rows));
}

void qformer_layer(Tape *t, const QFormer *m, int l, Tensor y, Tensor x, Tensor qkv, Tensor xkv, int64_t k_at,
                   const Wave *w, const ImageKV *kv, Noise noise) {
    BlockAttention self = self_attention(m, l, noise, w->rows);
    Tensor seen = block_look(t, &self, qkv, xkv, k_at, &w->self), a[2];
    if (picks_in(m, l, w)) {
        picked_part(t, m, l, y, x, seen, w, kv, noise);
        return;
    }
    project_all(t, m, l, a, x, seen, w, noise);
    query_part(t, m, l, y, a[0], w, kv, noise);
    if (w->NT)
        feed_forward(t, m, l, &TEXT_FFN, tensor_rows(y, w->text, w->NT), a[1],
                     drop_at(noise, l, SITE_FFN_OUT, w->rows + w->text));
}

void qformer_embed(Tape *t, const QFormer *m, Tensor x, const Wave *w, Noise noise) {
    Param word = m->d.V > 0 ? param(m, P_WORD, -1) : NONE, pos = m->d.V > 0 ? param(m, P_POSITION, -1) : NONE;
    Parts p = parts_of(w);
    for (int i = 0; i < p.n; i++) {
        Embed e = w->embed;
        e.eps = dims_eps(&m->d);
        e.drop = drop_at(noise, -1, SITE_EMBED, w->rows + p.part[i].at);
        /* the slab's own rows alone */
        if (p.n == 2) *(i ? &e.nq : &e.nt) = 0;
        if (p.part[i].rows)
            op_embed(t, tensor_rows(x, p.part[i].at, p.part[i].rows), e, param(m, P_QUERY, -1), word, pos,
                     param(m, P_EMB_LN_W, -1), param(m, P_EMB_LN_B, -1));
    }
}

/* Rows behind the last layer: only of a wave that picks are they fewer, and of text none but those. */
static Tensor layer_result(Tape *t, const QFormer *m, int l, const Wave *w, Tensor other) {
    bool picks = picks_in(m, l, w);
    int64_t rows = picks ? w->NQ + w->npicked : w->text + w->NT;
    /* without a walk back two buffers take turns, whatever the depth */
    return t->recording ? tape_kept(t, rows, m->d.C, t->b->elem, true, !picks) : tensor_rows(other, 0, rows);
}

Tensor qformer_forward(Tape *t, const QFormer *m, const Wave *w, const ImageKV *kv, Noise noise) {
    int64_t N = w->text + w->NT, C = m->d.C;
    Tensor x = tape_kept(t, N, C, t->b->elem, true, true), other = x;
    tape_place(t, QFORMER_EMBEDDED);
    qformer_embed(t, m, x, w, noise);
    if (!t->recording) other = tape_new(t, N, C, t->b->elem);
    for (int l = 0; l < m->d.L; l++) {
        Tensor y = layer_result(t, m, l, w, other);
        size_t mark = arena_mark(t->step);
        tape_place(t, l);
        Tensor qkv = qkv_of_wave(t, m, l, x, w);
        qformer_layer(t, m, l, y, x, qkv, qkv, C, w, kv, noise);
        if (!t->recording) arena_reset(t->step, mark);       /* nobody walks back: what lay between is done with */
        other = x;
        x = y;
    }
    return x;
}

/* ---- heads ------------------------------------------------------------------------------------------------------- */

Tensor qformer_features(Tape *t, const QFormer *m, Tensor rows, int weight, int bias) {
    Tensor z = tape_new(t, rows.rows, m->d.Z, t->b->elem), y = tape_new(t, rows.rows, m->d.Z, DT_F32);
    op_linear(t, z, rows, param(m, weight, -1), param(m, bias, -1));
    op_l2norm(t, y, z);
    return y;
}

Tensor qformer_lm_transform(Tape *t, const QFormer *m, Tensor rows) {
    DType e = t->b->elem;
    int64_t n = rows.rows, C = m->d.C;
    Tensor u = tape_new(t, n, C, e), s = tape_new(t, n, C, e), y = tape_new(t, n, C, e);
    op_linear(t, u, rows, param(m, P_LM_DENSE_W, -1), NONE);
    op_act(t, s, u, act_of(m), param(m, P_LM_DENSE_B, -1));
    Norm ln = {param(m, P_LM_LN_W, -1), param(m, P_LM_LN_B, -1), dims_eps(&m->d), false};
    op_add_norm(t, y, s, NOTHING, NONE, ln, (Dropout){0});
    return y;
}

Tensor qformer_itm(Tape *t, const QFormer *m, Tensor rows) {
    int64_t n = rows.rows / m->d.Q;
    Tensor mean = tape_new(t, n, m->d.C, t->b->elem), logits = tape_new(t, n, 2, DT_F32);
    op_segment_mean(t, mean, rows, m->d.Q);
    /* the mean first: a linear head of it is the mean of heads */
    op_linear(t, logits, mean, param(m, P_ITM_W, -1), param(m, P_ITM_B, -1));
    return logits;
}
