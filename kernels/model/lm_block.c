/* lm_block: see lm_block.h. */
#include "kernels/model/lm_block.h"

static Norm norm_of(const Lm *m, LmNorm n) {
    return (Norm){.g = n.w, .o = n.b, .eps = (float)m->d.eps, .rms = !n.b.w};
}

void lm_norm(Tape *t, const Lm *m, Tensor y, BlockStream *x, LmNorm n) { block_norm(t, y, x, norm_of(m, n)); }

Dropout lm_drop(const LmAttend *how, int site, float p) {
    if (!how->noise.on) return (Dropout){0};
    uint32_t where = (uint32_t)(SITE_LM + how->side * SITE_LM_SIDE + how->layer * SITE_PER_LAYER + site);
    return (Dropout){.p = p, .seed = how->noise.seed, .step = how->noise.step, .site = where, .rows = how->rows};
}

static BlockAttention attention_of(const Lm *m, const LmAttention *w, const LmAttend *how, int prob, int out) {
    return (BlockAttention){.norm = norm_of(m, w->norm), .behind = !m->d.pre_norm, .in = w->q, .in_bias = w->q_bias,
                            .out = w->out, .out_bias = w->out_bias, .D = m->d.D,
                            .prob = lm_drop(how, prob, m->d.prob_dropout), .drop = lm_drop(how, out, m->d.dropout)};
}

void lm_self_attention(Tape *t, const Lm *m, BlockStream *x, const LmAttention *w, const LmAttend *how) {
    const LmDims *d = &m->d;
    int64_t A = (int64_t)d->H * d->D;
    BlockAttention a = attention_of(m, w, how, SITE_SELF_PROB, SITE_SELF_OUT);
    a.heads = (Heads){.H = d->H, .KH = d->K, .scale = how->scale, .bias = how->bias, .span = d->distance};
    if (how->pos) a.rotary = (Rotary){.cos = m->cos, .sin = m->sin, .at = how->pos};
    Tensor qkv = block_qkv(t, x, &a, (Tensor){0});
    /* turned already: a cached key keeps the position it had */
    if (how->keep) how->keep(how->ctx, t, how->layer, qkv, A);
    if (how->caches) block_attend(t, x, &a, qkv, how->caches[how->layer], 0, how->plan, (Tensor){0});
    else block_attend(t, x, &a, qkv, qkv, A, how->plan, (Tensor){0});
}

void lm_cross_attention(Tape *t, const Lm *m, BlockStream *x, const LmAttention *w, Tensor kv, const AttnPlan *plan,
                        const LmAttend *how) {
    BlockAttention a = attention_of(m, w, how, SITE_CROSS_PROB, SITE_CROSS_OUT);
    /* T5 folded the scale into its start values, and has no distance between two texts */
    a.heads = (Heads){.H = m->d.H, .KH = m->d.H, .scale = 1.0f};
    block_attend(t, x, &a, block_qkv(t, x, &a, (Tensor){0}), kv, 0, plan, (Tensor){0});
}

void lm_feed_forward(Tape *t, const Lm *m, BlockStream *x, const LmFeedForward *w, const LmAttend *how) {
    /* the others drop behind the second product alone */
    float inner = m->d.family == LM_T5 ? m->d.dropout : 0;
    BlockFeedForward f = {.norm = norm_of(m, w->norm), .behind = !m->d.pre_norm, .in = w->in, .in_bias = w->in_bias,
                          .out = w->out, .out_bias = w->out_bias,
                          .act = {.f = m->d.act, .gated = m->d.gated}, .hidden = lm_drop(how, SITE_FFN_IN, inner),
                          .drop = lm_drop(how, SITE_FFN_OUT, m->d.dropout)};
    block_feed_forward(t, x, &f, (Tensor){0});
}
