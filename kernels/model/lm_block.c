/* lm_block: see lm_block.h. Memory: results that the backward reads (streams, qkv, what attention gave, what an
 * activation was made of) stay; what only the next product reads stands where that part's result will stand, or is
 * given back. */
#include "kernels/model/lm_block.h"

static const Tensor NOTHING = {0};
static const Param NONE = {.frozen = true};

static Tensor rows_of(Tape *t, Tensor x, int64_t cols) { return tape_new(t, x.rows, cols, t->b->elem); }

/* y = norm(stream); the op leaves the sum in s, which is the stream from then on. */
void lm_norm(Tape *t, const Lm *m, Tensor y, LmStream *x, LmNorm n) {
    Norm how = {.g = n.w, .o = n.b, .eps = (float)m->d.eps, .rms = !n.b.w};
    if (x->s.data) op_add_norm(t, y, x->s, x->x, x->bias, how, (Dropout){0});
    else op_norm(t, y, x->x, how);
    if (x->s.data) x->x = x->s;
    x->s = NOTHING;
    x->bias = NONE;
}

/* What a part reads: the stream itself, or normed, where the part's result will stand: a frozen product does not keep
 * its input. */
static Tensor read_stream(Tape *t, const Lm *m, LmStream *x, LmNorm n, Tensor result) {
    if (!m->d.pre_norm) return x->x;
    Tensor y = tape_reuse(t, result);
    lm_norm(t, m, y, x, n);
    return y;
}

/* What a part gave joins the stream: at once where the norm stands behind. */
static void join_stream(Tape *t, const Lm *m, LmStream *x, Tensor s, Param bias, LmNorm n) {
    x->s = s;
    x->bias = bias;
    if (m->d.pre_norm) return;
    Tensor y = rows_of(t, s, s.cols);
    lm_norm(t, m, y, x, n);
    *x = (LmStream){.x = y, .bias = NONE};
}

void lm_self_attention(Tape *t, const Lm *m, LmStream *x, const LmAttention *w, const LmAttend *how) {
    const LmDims *d = &m->d;
    int64_t A = (int64_t)d->H * d->D, B = (int64_t)d->K * d->D;
    Tensor s = rows_of(t, x->x, d->C), o = rows_of(t, x->x, A), qkv = rows_of(t, x->x, A + 2 * B);
    op_linear(t, qkv, read_stream(t, m, x, w->norm, s), w->q, w->q_bias);
    if (how->pos)
        op_rotary(t, qkv, 0, (Rotary){.H = d->H + d->K, .D = d->D, .R = d->D, .cos = m->cos, .sin = m->sin,
                                      .at = how->pos});
    if (how->keep) how->keep(how->ctx, t, how->layer, qkv, A);
    Heads heads = {.H = d->H, .KH = d->K, .scale = how->scale, .bias = how->bias, .span = d->distance};
    if (how->caches) op_attention(t, o, qkv, 0, how->caches[how->layer], 0, B, heads, how->plan, (Dropout){0});
    else op_attention(t, o, qkv, 0, qkv, A, A + B, heads, how->plan, (Dropout){0});
    op_linear(t, s, o, w->out, NONE);
    join_stream(t, m, x, s, w->out_bias, w->norm);
}

void lm_cross_attention(Tape *t, const Lm *m, LmStream *x, const LmAttention *w, Tensor kv, const AttnPlan *plan) {
    const LmDims *d = &m->d;
    int64_t A = (int64_t)d->H * d->D;
    Tensor s = rows_of(t, x->x, d->C), o = rows_of(t, x->x, A), q = rows_of(t, x->x, A);
    op_linear(t, q, read_stream(t, m, x, w->norm, s), w->q, w->q_bias);
    op_attention(t, o, q, 0, kv, 0, A, (Heads){.H = d->H, .KH = d->H, .scale = 1.0f}, plan, (Dropout){0});
    op_linear(t, s, o, w->out, NONE);
    join_stream(t, m, x, s, w->out_bias, w->norm);
}

static ActKind act_kind(LmAct a) {
    return a == LM_RELU ? ACT_RELU : a == LM_GELU ? ACT_GELU : a == LM_GELU_TANH ? ACT_GELU_TANH : ACT_SILU;
}

void lm_feed_forward(Tape *t, const Lm *m, LmStream *x, const LmFeedForward *w) {
    int64_t F = m->d.F, wide = m->d.gated ? 2 * F : F;
    Tensor s = rows_of(t, x->x, m->d.C), u = rows_of(t, x->x, wide);
    op_linear(t, u, read_stream(t, m, x, w->norm, s), w->in, NONE);
    size_t mark = arena_mark(t->step);
    Tensor h = rows_of(t, x->x, F);
    op_act(t, h, u, (ActForm){.f = act_kind(m->d.act), .gated = m->d.gated}, w->in_bias);
    op_linear(t, s, h, w->out, NONE);
    arena_reset(t->step, mark);
    join_stream(t, m, x, s, w->out_bias, w->norm);
}
