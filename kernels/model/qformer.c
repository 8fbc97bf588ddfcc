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
    int last = (dims_cross_layers(d) - 1) * d->X;
    void *xhat = tape_push(t, rows * d->E, dtype_size(e));
    t->b->normalize(xhat, features, dt, scale, rows, d->E, d->P / dims_scales(d), dims_eps_vision(d));
    Tensor all = tape_new(t, rows, width * dims_cross_layers(d), e);
    op_fold_linear(t, all, tape_leaf(xhat, rows, d->E, e), params_joined(&m->params, P_CROSS_K_W, P_CROSS_V_W, 0, last),
                   params_joined(&m->params, P_CROSS_K_B, P_CROSS_V_B, 0, last), param(m, P_LN_VISION_W, -1),
                       param(m, P_LN_VISION_B, -1));
    kv->images = images;
    for (int l = 0, i = 0; l < d->L; l++)
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
    return (BlockAttention){.norm = {param(m, a->ln_w, l), param(m, a->ln_b, l), dims_eps(&m->d), false}, .behind = true,
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
    block_attend(t, &x, &c, block_qkv(t, &x, &c), kv->kv[l], 0, &w->cross, NOTHING);
    return x.x;
}

Tensor qformer_qkv(Tape *t, const QFormer *m, int l, Tensor x) {
    BlockAttention w = self_attention(m, l, (Noise){0}, NULL);
    return block_qkv(t, &(BlockStream){.x = x}, &w);
}

/* ---- behind self-attention: query rows and text rows part -------------------------------------------------------- */

static void project_all(Tape *t, const BlockAttention *self, Tensor a[2], Tensor x, Tensor seen, const Wave *w) {
    BlockStream s = {.x = x};
    block_project(t, &s, self, seen, NOTHING);
    a[0] = tensor_rows(s.x, 0, w->NQ), a[1] = tensor_rows(s.x, w->NQ, w->NT);
}

static bool picks_in(const QFormer *m, int l, const Wave *w) { return w->picks && l + 1 == m->d.L; }

static Tensor picked(Tape *t, Tensor x, const Wave *w) {
    Tensor y = tape_new(t, w->npicked, x.cols, t->b->elem);
    op_gather(t, y, tensor_rows(x, w->NQ, w->NT), w->picked);
    return y;
}

/* In the last layer: all text rows were keys, and only those that are read go on. */
static void project_picked(Tape *t, const QFormer *m, int l, Tensor a[2], Tensor x, Tensor seen, const Wave *w,
                           Noise noise) {
    for (int text = 0; text < 2; text++) {
        a[text] = NOTHING;
        if (!(text ? w->npicked : w->NQ)) continue;
        BlockAttention self = self_attention(m, l, noise, text ? w->picked_rows : w->rows);
        BlockStream s = {.x = text ? picked(t, x, w) : tensor_rows(x, 0, w->NQ)};
        block_project(t, &s, &self, text ? picked(t, seen, w) : tensor_rows(seen, 0, w->NQ), NOTHING);
        a[text] = s.x;
    }
}

void qformer_layer(Tape *t, const QFormer *m, int l, Tensor y, Tensor x, Tensor qkv, Tensor xkv, int64_t k_at,
                   const Wave *w, const ImageKV *kv, Noise noise) {
    bool picks = picks_in(m, l, w);
    BlockAttention self = self_attention(m, l, noise, w->rows);
    Tensor seen = block_look(t, &self, qkv, xkv, k_at, &w->self), a[2];
    if (picks) project_picked(t, m, l, a, x, seen, w, noise);
    else project_all(t, &self, a, x, seen, w);
    int64_t NQ = w->NQ, NT = a[1].rows;
    if (NQ && dims_is_cross(&m->d, l)) a[0] = cross_attention(t, m, l, a[0], w, kv, noise);
    if (NQ) feed_forward(t, m, l, &QUERY_FFN, tensor_rows(y, 0, NQ), a[0], drop_at(noise, l, SITE_FFN_OUT, w->rows));
    if (NT)
        feed_forward(t, m, l, &TEXT_FFN, tensor_rows(y, NQ, NT), a[1],
                     drop_at(noise, l, SITE_FFN_OUT, picks ? w->picked_rows : w->rows + NQ));
}

void qformer_embed(Tape *t, const QFormer *m, Tensor x, const Wave *w, Noise noise) {
    Embed e = w->embed;
    e.eps = dims_eps(&m->d);
    e.drop = drop_at(noise, -1, SITE_EMBED, w->rows);
    bool text = m->d.V > 0;
    op_embed(t, x, e, param(m, P_QUERY, -1), text ? param(m, P_WORD, -1) : NONE, text ? param(m, P_POSITION, -1) : NONE,
             param(m, P_EMB_LN_W, -1), param(m, P_EMB_LN_B, -1));
}

Tensor qformer_forward(Tape *t, const QFormer *m, const Wave *w, const ImageKV *kv, Noise noise) {
    int64_t N = w->NQ + w->NT, C = m->d.C;
    Tensor x = tape_new(t, N, C, t->b->elem), other = x;
    tape_place(t, QFORMER_EMBEDDED);
    qformer_embed(t, m, x, w, noise);
    if (!t->recording) other = tape_new(t, N, C, t->b->elem);
    for (int l = 0; l < m->d.L; l++) {
        int64_t rows = picks_in(m, l, w) ? w->NQ + w->npicked : N;
        Tensor y = t->recording ? tape_new(t, rows, C, t->b->elem) : tensor_rows(other, 0, rows);
        size_t mark = arena_mark(t->step);
        tape_place(t, l);
        Tensor qkv = qformer_qkv(t, m, l, x);
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
    op_linear(t, logits, mean, param(m, P_ITM_W, -1), param(m, P_ITM_B, -1));
    return logits;
}
