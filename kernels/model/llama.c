/* llama: the Llama family's table and layers (spec/stage2.md 2b, 2c): Llama, Mistral, Qwen2. RMS norm, rotation of
 * queries and keys, fewer key heads than query heads, a gated feed-forward; biases where the file has them. */
#include "kernels/model/lm_family.h"

#define LAYER "model.layers.%d."

/*    id          name                                             shape where  block join, ...
 *    (lm.c has the letters) */
#define LLAMA_ROWS(X) \
    X(WORD,       "model.embed_tokens.weight",                     "VC", "",     0, 0, .also = "lm_head.weight") \
    X(HEAD,       "lm_head.weight",                                "VC", "?h",   0, 0) \
    X(LAST,       "model.norm.weight",                             "C",  "",     0, 0, .start = START_ONES) \
    X(Q_W,        LAYER "self_attn.q_proj.weight",                 "AC", "L",    1, 0) \
    X(K_W,        LAYER "self_attn.k_proj.weight",                 "BC", "L",    1, 1) \
    X(V_W,        LAYER "self_attn.v_proj.weight",                 "BC", "L",    1, 1) \
    X(O_W,        LAYER "self_attn.o_proj.weight",                 "CA", "L",    1, 0) \
    X(GATE_W,     LAYER "mlp.gate_proj.weight",                    "FC", "L",    1, 0) \
    X(UP_W,       LAYER "mlp.up_proj.weight",                      "FC", "L",    1, 1) \
    X(DOWN_W,     LAYER "mlp.down_proj.weight",                    "CF", "L",    1, 0) \
    X(Q_B,        LAYER "self_attn.q_proj.bias",                   "A",  "L?q",  1, 0) \
    X(K_B,        LAYER "self_attn.k_proj.bias",                   "B",  "L?q",  1, 1) \
    X(V_B,        LAYER "self_attn.v_proj.bias",                   "B",  "L?q",  1, 1) \
    X(O_B,        LAYER "self_attn.o_proj.bias",                   "C",  "L?o",  1, 0) \
    X(GATE_B,     LAYER "mlp.gate_proj.bias",                      "F",  "L?f",  1, 0) \
    X(UP_B,       LAYER "mlp.up_proj.bias",                        "F",  "L?f",  1, 1) \
    X(DOWN_B,     LAYER "mlp.down_proj.bias",                      "C",  "L?f",  1, 0) \
    X(NORM1,      LAYER "input_layernorm.weight",                  "C",  "L",    1, 0, .start = START_ONES) \
    X(NORM2,      LAYER "post_attention_layernorm.weight",         "C",  "L",    1, 0, .start = START_ONES)

LM_TABLE(LLAMA_ROWS)
static const LmTable table = {{rows, ROW_COUNT}, {-1, -1}};

static Tensor llama_embed(Tape *t, const Lm *m, int64_t N, const int32_t *ids, const int32_t *pos, Tensor soft) {
    (void)pos;                                               /* they turn queries and keys instead */
    Tensor x = tape_new(t, N, m->d.C, t->b->elem);
    op_lookup(t, x, (Lookup){.ids = ids, .scale = 1.0f}, lm_one(m, WORD, -1), soft, (Param){.frozen = true});
    return x;
}

static void llama_layer(Tape *t, const Lm *m, int l, BlockStream *x, const LmAttend *how) {
    lm_self_attention(t, m, x, &(LmAttention){
        .norm = {.w = lm_one(m, NORM1, l)}, .q = lm_get(m, Q_W, V_W, l), .q_bias = lm_get(m, Q_B, V_B, l),
        .out = lm_one(m, O_W, l), .out_bias = lm_one(m, O_B, l)}, how);
    lm_feed_forward(t, m, x, &(LmFeedForward){
        .norm = {.w = lm_one(m, NORM2, l)}, .in = lm_get(m, GATE_W, UP_W, l), .in_bias = lm_get(m, GATE_B, UP_B, l),
        .out = lm_one(m, DOWN_W, l), .out_bias = lm_one(m, DOWN_B, l)}, how);
}

static Tensor llama_finish(Tape *t, const Lm *m, BlockStream *x) {
    Tensor y = tape_new(t, x->x.rows, m->d.C, t->b->elem);
    lm_norm(t, m, y, x, (LmNorm){.w = lm_one(m, LAST, -1)});
    return y;
}

const LmFamilyOps llama_ops = {.embed = llama_embed, .layer = llama_layer, .finish = llama_finish, .word = WORD,
                               .head = HEAD, .table = &table};
