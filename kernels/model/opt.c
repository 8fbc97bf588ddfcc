/* opt: OPT's table and layers (spec/stage2.md 2a). Learned positions behind an offset of 2, LayerNorm before or (350m)
 * behind what it serves, biases everywhere but in the embedding, the head and 350m's projections between E and C. */
#include "kernels/model/lm_family.h"

#define ALL "model.decoder."
#define LAYER "model.decoder.layers.%d."

/*    id          name                                             shape where  block join ... (letters: lm.c) */
#define OPT_ROWS(X) \
    X(WORD,       ALL "embed_tokens.weight",                       "VE", "",     0, 0, .also = "lm_head.weight") \
    X(POSITION,   ALL "embed_positions.weight",                    "PC", "",     0, 0) \
    X(INTO,       ALL "project_in.weight",                         "CE", "?n",   0, 0) \
    X(OUT_OF,     ALL "project_out.weight",                        "EC", "?n",   0, 0) \
    X(HEAD,       "lm_head.weight",                                "VE", "?h",   0, 0) \
    X(LAST_W,     ALL "final_layer_norm.weight",                   "C",  "?l",   0, 0) \
    X(LAST_B,     ALL "final_layer_norm.bias",                     "C",  "?l",   0, 0) \
    X(Q_W,        LAYER "self_attn.q_proj.weight",                 "AC", "L",    1, 0) \
    X(K_W,        LAYER "self_attn.k_proj.weight",                 "AC", "L",    1, 1) \
    X(V_W,        LAYER "self_attn.v_proj.weight",                 "AC", "L",    1, 1) \
    X(O_W,        LAYER "self_attn.out_proj.weight",               "CA", "L",    1, 0) \
    X(IN_W,       LAYER "fc1.weight",                              "FC", "L",    1, 0) \
    X(DOWN_W,     LAYER "fc2.weight",                              "CF", "L",    1, 0) \
    X(Q_B,        LAYER "self_attn.q_proj.bias",                   "A",  "L?q",  1, 0) \
    X(K_B,        LAYER "self_attn.k_proj.bias",                   "A",  "L?q",  1, 1) \
    X(V_B,        LAYER "self_attn.v_proj.bias",                   "A",  "L?q",  1, 1) \
    X(O_B,        LAYER "self_attn.out_proj.bias",                 "C",  "L?o",  1, 0) \
    X(IN_B,       LAYER "fc1.bias",                                "F",  "L?f",  1, 0) \
    X(DOWN_B,     LAYER "fc2.bias",                                "C",  "L?f",  1, 0) \
    X(NORM1_W,    LAYER "self_attn_layer_norm.weight",             "C",  "L",    1, 0) \
    X(NORM1_B,    LAYER "self_attn_layer_norm.bias",               "C",  "L",    1, 0) \
    X(NORM2_W,    LAYER "final_layer_norm.weight",                 "C",  "L",    1, 0) \
    X(NORM2_B,    LAYER "final_layer_norm.bias",                   "C",  "L",    1, 0)

LM_TABLE(OPT_ROWS)
static const LmTable table = {{rows, ROW_COUNT}, {-1, -1}};

/* Where rows enter: words and visual rows in E columns, then C, then positions.
 * The table's first two rows are nobody's. */
static Tensor opt_embed(Tape *t, const Lm *m, int64_t N, const int32_t *ids, const int32_t *pos, Tensor soft) {
    int64_t C = m->d.C;
    Param at = lm_one(m, POSITION, -1), word = lm_one(m, WORD, -1), none = {.frozen = true};
    at.copy = (char *)at.copy + (size_t)(2 * C) * (size_t)dtype_size(at.held ? at.held : t->b->elem);
    /* fairseq's two rows for padding, which every OPT file still carries */
    at.rows -= 2;
    Tensor x = tape_new(t, N, C, t->b->elem);
    /* all but 350m: words and positions in one pass */
    if (m->d.E == m->d.C) {
        op_lookup(t, x, (Lookup){.ids = ids, .pos_id = pos, .scale = 1.0f}, word, soft, at);
        return x;
    }
    Tensor e = tape_new(t, N, m->d.E, t->b->elem), wide = tape_new(t, N, C, t->b->elem);
    op_lookup(t, e, (Lookup){.ids = ids, .scale = 1.0f}, word, soft, none);
    op_linear(t, wide, e, lm_one(m, INTO, -1), none);
    op_lookup(t, x, (Lookup){.pos_id = pos, .scale = 1.0f}, none, wide, at);
    return x;
}

static void opt_layer(Tape *t, const Lm *m, int l, BlockStream *x, const LmAttend *how) {
    lm_self_attention(t, m, x, &(LmAttention){
        .norm = {lm_one(m, NORM1_W, l), lm_one(m, NORM1_B, l)}, .q = lm_get(m, Q_W, V_W, l),
        .q_bias = lm_get(m, Q_B, V_B, l), .out = lm_one(m, O_W, l), .out_bias = lm_one(m, O_B, l)}, how);
    lm_feed_forward(t, m, x, &(LmFeedForward){
        .norm = {lm_one(m, NORM2_W, l), lm_one(m, NORM2_B, l)}, .in = lm_one(m, IN_W, l),
        .in_bias = lm_one(m, IN_B, l), .out = lm_one(m, DOWN_W, l), .out_bias = lm_one(m, DOWN_B, l)}, how);
}

static Tensor opt_finish(Tape *t, const Lm *m, BlockStream *x) {
    Tensor y = x->x;
    if (m->d.last_norm) {
        y = tape_new(t, x->x.rows, m->d.C, t->b->elem);
        lm_norm(t, m, y, x, (LmNorm){lm_one(m, LAST_W, -1), lm_one(m, LAST_B, -1)});
    }
    if (m->d.E == m->d.C) return y;
    Tensor e = tape_new(t, y.rows, m->d.E, t->b->elem);
    op_linear(t, e, y, lm_one(m, OUT_OF, -1), (Param){.frozen = true});
    return e;
}

const LmFamilyOps opt_ops = {.embed = opt_embed, .layer = opt_layer, .finish = opt_finish, .word = WORD, .head = HEAD,
                               .table = &table};
