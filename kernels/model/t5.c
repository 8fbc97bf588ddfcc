/* t5: T5's table and layers (spec/stage2.md 3a): T5, its version 1.1, Flan-T5. RMS norm, no bias anywhere, scores not
 * scaled but given a bias by distance, which the first layer of each stack holds for all;
 * a decoder that looks at the encoder. */
#include "kernels/model/lm_family.h"

#define ENC "encoder.block.%d.layer."
#define DEC "decoder.block.%d.layer."
#define BIAS "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
#define FFN "DenseReluDense."

/*    id          name                                             shape where  block join ... (letters: lm.c) */
#define T5_ROWS(X) \
    X(WORD,       "shared.weight",                                 "VC", "",     0, 0, \
      .also = "encoder.embed_tokens.weight") \
    X(HEAD,       "lm_head.weight",                                "VC", "?h",   0, 0) \
    X(BIAS_ENC,   "encoder." BIAS,                                "UH", "",     0, 0, .flags = PARAM_KEEP_F32) \
    X(BIAS_DEC,   "decoder." BIAS,                                "UH", "",     0, 0, .flags = PARAM_KEEP_F32) \
    X(LAST_ENC,   "encoder.final_layer_norm.weight",               "C",  "",     0, 0) \
    X(LAST_DEC,   "decoder.final_layer_norm.weight",               "C",  "",     0, 0) \
    X(Q_W,        ENC "0.SelfAttention.q.weight",                  "AC", "L",    1, 0) \
    X(K_W,        ENC "0.SelfAttention.k.weight",                  "AC", "L",    1, 1) \
    X(V_W,        ENC "0.SelfAttention.v.weight",                  "AC", "L",    1, 1) \
    X(O_W,        ENC "0.SelfAttention.o.weight",                  "CA", "L",    1, 0) \
    X(IN_W,       ENC "1." FFN "wi.weight",                        "FC", "L?p",  1, 0) \
    X(GATE_W,     ENC "1." FFN "wi_0.weight",                      "FC", "L?g",  1, 0) \
    X(UP_W,       ENC "1." FFN "wi_1.weight",                      "FC", "L?g",  1, 1) \
    X(DOWN_W,     ENC "1." FFN "wo.weight",                        "CF", "L",    1, 0) \
    X(NORM1,      ENC "0.layer_norm.weight",                       "C",  "L",    1, 0) \
    X(NORM2,      ENC "1.layer_norm.weight",                       "C",  "L",    1, 0) \
    X(D_Q_W,      DEC "0.SelfAttention.q.weight",                  "AC", "M",    2, 0) \
    X(D_K_W,      DEC "0.SelfAttention.k.weight",                  "AC", "M",    2, 1) \
    X(D_V_W,      DEC "0.SelfAttention.v.weight",                  "AC", "M",    2, 1) \
    X(D_O_W,      DEC "0.SelfAttention.o.weight",                  "CA", "M",    2, 0) \
    X(C_Q_W,      DEC "1.EncDecAttention.q.weight",                "AC", "M",    2, 0) \
    X(C_K_W,      DEC "1.EncDecAttention.k.weight",                "AC", "M",    2, 0) \
    X(C_V_W,      DEC "1.EncDecAttention.v.weight",                "AC", "M",    2, 1) \
    X(C_O_W,      DEC "1.EncDecAttention.o.weight",                "CA", "M",    2, 0) \
    X(D_IN_W,     DEC "2." FFN "wi.weight",                        "FC", "M?p",  2, 0) \
    X(D_GATE_W,   DEC "2." FFN "wi_0.weight",                      "FC", "M?g",  2, 0) \
    X(D_UP_W,     DEC "2." FFN "wi_1.weight",                      "FC", "M?g",  2, 1) \
    X(D_DOWN_W,   DEC "2." FFN "wo.weight",                        "CF", "M",    2, 0) \
    X(D_NORM1,    DEC "0.layer_norm.weight",                       "C",  "M",    2, 0) \
    X(D_NORM2,    DEC "1.layer_norm.weight",                       "C",  "M",    2, 0) \
    X(D_NORM3,    DEC "2.layer_norm.weight",                       "C",  "M",    2, 0)

LM_TABLE(T5_ROWS)
static const LmTable table = {{rows, ROW_COUNT}, {BIAS_ENC, BIAS_DEC}};

static Tensor t5_embed(Tape *t, const Lm *m, int64_t N, const int32_t *ids, const int32_t *pos, Tensor soft) {
    (void)pos;                                               /* distances count, not positions */
    Tensor x = tape_new(t, N, m->d.C, t->b->elem);
    op_lookup(t, x, (Lookup){.ids = ids, .scale = 1.0f}, lm_one(m, WORD, -1), soft, (Param){.frozen = true});
    return x;
}

static void t5_layer(Tape *t, const Lm *m, int l, BlockStream *x, const LmAttend *how) {
    lm_self_attention(t, m, x, &(LmAttention){.norm = {.w = lm_one(m, NORM1, l)}, .q = lm_get(m, Q_W, V_W, l),
                                              .out = lm_one(m, O_W, l)}, how);
    lm_feed_forward(t, m, x, &(LmFeedForward){.norm = {.w = lm_one(m, NORM2, l)}, .out = lm_one(m, DOWN_W, l),
                                              .in = m->d.gated ? lm_get(m, GATE_W, UP_W, l) : lm_one(m, IN_W, l)}, how);
}

void t5_decoder_layer(Tape *t, const Lm *m, int l, BlockStream *x, const LmAttend *how, Tensor kv,
                      const AttnPlan *cross) {
    lm_self_attention(t, m, x, &(LmAttention){.norm = {.w = lm_one(m, D_NORM1, l)}, .q = lm_get(m, D_Q_W, D_V_W, l),
                                              .out = lm_one(m, D_O_W, l)}, how);
    lm_cross_attention(t, m, x, &(LmAttention){.norm = {.w = lm_one(m, D_NORM2, l)}, .q = lm_one(m, C_Q_W, l),
                                               .out = lm_one(m, C_O_W, l)}, kv, cross, how);
    lm_feed_forward(t, m, x, &(LmFeedForward){.norm = {.w = lm_one(m, D_NORM3, l)}, .out = lm_one(m, D_DOWN_W, l),
                                              .in = m->d.gated ? lm_get(m, D_GATE_W, D_UP_W, l) : lm_one(m, D_IN_W, l)},
                    how);
}

static Tensor normed(Tape *t, const Lm *m, BlockStream *x, Param w) {
    Tensor y = tape_new(t, x->x.rows, m->d.C, t->b->elem);
    lm_norm(t, m, y, x, (LmNorm){.w = w});
    return y;
}

Tensor t5_encoded(Tape *t, const Lm *m, BlockStream *x) { return normed(t, m, x, lm_one(m, LAST_ENC, -1)); }
static Tensor t5_finish(Tape *t, const Lm *m, BlockStream *x) { return normed(t, m, x, lm_one(m, LAST_DEC, -1)); }

Tensor t5_cross_kv(Tape *t, const Lm *m, int l, Tensor encoded) {
    Tensor kv = tape_new(t, encoded.rows, 2LL * m->d.H * m->d.D, t->b->elem);
    op_linear(t, kv, encoded, lm_get(m, C_K_W, C_V_W, l), (Param){.frozen = true});
    return kv;
}

const LmFamilyOps t5_ops = {.embed = t5_embed, .layer = t5_layer, .finish = t5_finish, .word = WORD, .head = HEAD,
                               .table = &table};
