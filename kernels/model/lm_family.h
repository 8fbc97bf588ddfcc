/* lm_family: what a family gives to lm_model.c: its table, where rows enter, a layer,
 * what stands behind the last one. */
#pragma once
#include "kernels/model/lm_block.h"

typedef struct {
    /* N rows: ids (< 0: visual row -1 - id), positions */
    Tensor (*embed)(Tape *t, const Lm *m, int64_t N, const int32_t *ids, const int32_t *pos, Tensor soft);
    void (*layer)(Tape *t, const Lm *m, int l, BlockStream *x, const LmAttend *how);
    /* the last norm, and OPT-350m's way back to E */
    Tensor (*finish)(Tape *t, const Lm *m, BlockStream *x);
    int word, head;                     /* rows of the table */
    const LmTable *table;
} LmFamilyOps;

extern const LmFamilyOps opt_ops, llama_ops, t5_ops;         /* t5_ops: finish is the decoder's, layer the encoder's */

/* T5's second half: what the encoder gives, keys and values of it for a decoder layer, a decoder layer. */
Tensor t5_encoded(Tape *t, const Lm *m, BlockStream *x);
Tensor t5_cross_kv(Tape *t, const Lm *m, int l, Tensor encoded);
void t5_decoder_layer(Tape *t, const Lm *m, int l, BlockStream *x, const LmAttend *how, Tensor kv,
                      const AttnPlan *cross);

/* A family's rows as an enum and as a table, from its list. */
#define LM_ROW_ID(id, ...) id,
#define LM_ROW_VALUE(id, name_, shape_, where_, block_, join_, ...)                                                    \
    {.name = name_, .shape = shape_, .where = where_, .block = block_, .join = join_, __VA_ARGS__},
#define LM_TABLE(ROWS)                                                                                                 \
    enum { ROWS(LM_ROW_ID) ROW_COUNT };                                                                                \
    static const ParamRow rows[] = {ROWS(LM_ROW_VALUE)};
