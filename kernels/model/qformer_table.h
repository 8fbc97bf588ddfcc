/* qformer_table: the learned tensors of the Q-Former (columns: ParamRow of params.h; names: model.md 10).
 *
 * Block 1 is all of a layer but its image keys and values (3 and 4), which stand together for all layers: they are one
 * (2 C Lx, E) matrix, made once a step. Inside a block matrices come before vectors, so the optimizer meets two ranges
 * in it, with decay and without. The query feed-forward starts as the text one; words and their bias grow by [DEC].
 * Sizes that are 0 take rows away: V (stage 2: no text; InstructBLIP's Q-Former reads prompts and keeps it), Z (stage
 * 1's heads), W (stage 2's projection into the language model). EMBED, LAYER and HEAD are how names begin: qformer.c
 * has the strings. */
#pragma once
#include "kernels/model/params.h"

/*    id             name                                            shape  where  block join start ... */
#define QFORMER_TABLE(X) \
    X(QUERY,         "query_tokens",                                 "1QC", "",    0, 0, NORMAL) \
    X(WORD,          EMBED "word_embeddings.weight",                 "VC",  "?V",    0, 0, NORMAL, \
      .flags = PARAM_GROWS, .also = HEAD "decoder.weight") \
    X(POSITION,      EMBED "position_embeddings.weight",             "NC",  "?V",    0, 0, NORMAL, \
      .flags = PARAM_GROWS) \
    X(EMB_LN_W,      EMBED "LayerNorm.weight",                       "C",   "",    0, 0, ONES) \
    X(EMB_LN_B,      EMBED "LayerNorm.bias",                         "C",   "",    0, 0, ZEROS) \
    X(SELF_Q_W,      LAYER "attention.self.query.weight",            "CC",  "L",   1, 0, NORMAL) \
    X(SELF_K_W,      LAYER "attention.self.key.weight",              "CC",  "L",   1, 1, NORMAL) \
    X(SELF_V_W,      LAYER "attention.self.value.weight",            "CC",  "L",   1, 1, NORMAL) \
    X(SELF_O_W,      LAYER "attention.output.dense.weight",          "CC",  "L",   1, 0, NORMAL) \
    X(FFN_IN_W,      LAYER "intermediate.dense.weight",              "FC",  "L?V",   1, 0, NORMAL) \
    X(FFN_OUT_W,     LAYER "output.dense.weight",                    "CF",  "L?V",   1, 0, NORMAL) \
    X(QFFN_IN_W,     LAYER "intermediate_query.dense.weight",        "FC",  "L",   1, 0, COPY, .arg = P_FFN_IN_W) \
    X(QFFN_OUT_W,    LAYER "output_query.dense.weight",              "CF",  "L",   1, 0, COPY, .arg = P_FFN_OUT_W) \
    X(CROSS_Q_W,     LAYER "crossattention.self.query.weight",       "CC",  "L/X", 1, 0, NORMAL) \
    X(CROSS_O_W,     LAYER "crossattention.output.dense.weight",     "CC",  "L/X", 1, 0, NORMAL) \
    X(SELF_Q_B,      LAYER "attention.self.query.bias",              "C",   "L",   1, 0, ZEROS) \
    X(SELF_K_B,      LAYER "attention.self.key.bias",                "C",   "L",   1, 1, ZEROS) \
    X(SELF_V_B,      LAYER "attention.self.value.bias",              "C",   "L",   1, 1, ZEROS) \
    X(SELF_O_B,      LAYER "attention.output.dense.bias",            "C",   "L",   1, 0, ZEROS) \
    X(SELF_LN_W,     LAYER "attention.output.LayerNorm.weight",      "C",   "L",   1, 0, ONES) \
    X(SELF_LN_B,     LAYER "attention.output.LayerNorm.bias",        "C",   "L",   1, 0, ZEROS) \
    X(FFN_IN_B,      LAYER "intermediate.dense.bias",                "F",   "L?V",   1, 0, ZEROS) \
    X(FFN_OUT_B,     LAYER "output.dense.bias",                      "C",   "L?V",   1, 0, ZEROS) \
    X(FFN_LN_W,      LAYER "output.LayerNorm.weight",                "C",   "L?V",   1, 0, ONES) \
    X(FFN_LN_B,      LAYER "output.LayerNorm.bias",                  "C",   "L?V",   1, 0, ZEROS) \
    X(QFFN_IN_B,     LAYER "intermediate_query.dense.bias",          "F",   "L",   1, 0, COPY, .arg = P_FFN_IN_B) \
    X(QFFN_OUT_B,    LAYER "output_query.dense.bias",                "C",   "L",   1, 0, COPY, .arg = P_FFN_OUT_B) \
    X(QFFN_LN_W,     LAYER "output_query.LayerNorm.weight",          "C",   "L",   1, 0, COPY, .arg = P_FFN_LN_W) \
    X(QFFN_LN_B,     LAYER "output_query.LayerNorm.bias",            "C",   "L",   1, 0, COPY, .arg = P_FFN_LN_B) \
    X(CROSS_Q_B,     LAYER "crossattention.self.query.bias",         "C",   "L/X", 1, 0, ZEROS) \
    X(CROSS_O_B,     LAYER "crossattention.output.dense.bias",       "C",   "L/X", 1, 0, ZEROS) \
    X(CROSS_LN_W,    LAYER "crossattention.output.LayerNorm.weight", "C",   "L/X", 1, 0, ONES) \
    X(CROSS_LN_B,    LAYER "crossattention.output.LayerNorm.bias",   "C",   "L/X", 1, 0, ZEROS) \
    X(CROSS_K_W,     LAYER "crossattention.self.key.weight",         "CE",  "L/X", 3, 1, NORMAL, \
      .flags = PARAM_KEEP_F32) \
    X(CROSS_V_W,     LAYER "crossattention.self.value.weight",       "CE",  "L/X", 3, 1, NORMAL, \
      .flags = PARAM_KEEP_F32) \
    X(CROSS_K_B,     LAYER "crossattention.self.key.bias",           "C",   "L/X", 4, 1, ZEROS) \
    X(CROSS_V_B,     LAYER "crossattention.self.value.bias",         "C",   "L/X", 4, 1, ZEROS) \
    X(LM_DENSE_W,    HEAD "transform.dense.weight",                  "CC",  "?Z",    5, 0, NORMAL) \
    X(VISION_PROJ_W, "vision_proj.weight",                           "ZC",  "?Z",    5, 0, LINEAR, .arg = 'C') \
    X(TEXT_PROJ_W,   "text_proj.weight",                             "ZC",  "?Z",    5, 0, LINEAR, .arg = 'C') \
    X(ITM_W,         "itm_head.weight",                              "2C",  "?Z",    5, 0, LINEAR, .arg = 'C') \
    X(TEMP,          "temp",                                         "",    "?Z",    5, 0, VALUE, .arg = 0.07) \
    X(SPEAK_W,       "language_projection.weight",                   "WC",  "?W",  5, 0, LINEAR, .arg = 'C', \
      .also = "opt_proj.weight t5_proj.weight llm_proj.weight") \
    X(LM_DENSE_B,    HEAD "transform.dense.bias",                    "C",   "?Z",    5, 0, ZEROS) \
    X(LM_LN_W,       HEAD "transform.LayerNorm.weight",              "C",   "?Z",    5, 0, ONES) \
    X(LM_LN_B,       HEAD "transform.LayerNorm.bias",                "C",   "?Z",    5, 0, ZEROS) \
    X(LM_BIAS,       HEAD "bias",                                    "V",   "?Z",    5, 0, ZEROS, \
      .flags = PARAM_GROWS, .also = HEAD "decoder.bias") \
    X(LN_VISION_W,   "ln_vision.weight",                             "E",   "",    5, 0, ONES) \
    X(LN_VISION_B,   "ln_vision.bias",                               "E",   "",    5, 0, ZEROS) \
    X(VISION_PROJ_B, "vision_proj.bias",                             "Z",   "?Z",    5, 0, LINEAR, .arg = 'C') \
    X(TEXT_PROJ_B,   "text_proj.bias",                               "Z",   "?Z",    5, 0, LINEAR, .arg = 'C') \
    X(SPEAK_B,       "language_projection.bias",                     "W",   "?W",  5, 0, LINEAR, .arg = 'C', \
      .also = "opt_proj.bias t5_proj.bias llm_proj.bias") \
    X(ITM_B,         "itm_head.bias",                                "2",   "?Z",    5, 0, LINEAR, .arg = 'C')

enum {
#define X(id, ...) P_##id,
    QFORMER_TABLE(X)
#undef X
    P_COUNT
};
