/* lm_model: forward of a language model over a wave, and its loss. Backward is the tape's, into the visual rows (and
 * the weights of one that learns).
 *
 *     soft (S, E)      visual rows, elem: their gradient is what stage 2 learns from. No data: texts alone
 *     hidden (T, E)    what the head multiplies, a row a target, in the order of the wave's rounds
 *     nll (T)          f32 on the device, in that order: -log p(target) */
#pragma once
#include "kernels/model/lm_family.h"
#include "kernels/model/lm_wave.h"

/* The model of d's family: memory from `run`; see lm.h. lm_open_learner: one whose weights learn,
 * of the Llama family. */
Status lm_open(Lm *m, const LmDims *d, const Backend *b, Arena *run, int32_t rows);
Status lm_open_learner(Lm *m, const LmDims *d, const Backend *b, Arena *run, int32_t rows, const ParamsSpec *spec);

/* When the tape does not record, a layer's memory serves all of them. */
Tensor lm_hidden(Tape *t, const Lm *m, const LmWave *w, Tensor soft);

/* nll[i]; the backward puts scale * its gradient. The product with the head is made in chunks of rows. */
void lm_loss(Tape *t, const Lm *m, const LmWave *w, Tensor hidden, float *nll, float scale);

/* Its parts, for decoding with cached keys too. lm_rows: N rows enter (ids < 0: visual row -1 - id). lm_attend: how
 * rows attend in a plan; side 1: T5's decoder. lm_stack: through the layers, of T5: the encoder's. lm_decoder_stack:
 * through the decoder's, kv (M) being the encoder's keys and values. lm_finish: what the head multiplies. */
Tensor lm_rows(Tape *t, const Lm *m, int64_t N, const int32_t *ids, const int32_t *pos, Tensor soft);
LmAttend lm_attend(const Lm *m, int side, const AttnPlan *plan, const int32_t *pos);
BlockStream lm_stack(Tape *t, const Lm *m, Tensor x, LmAttend how);
BlockStream lm_decoder_stack(Tape *t, const Lm *m, Tensor x, LmAttend how, const Tensor *kv, const AttnPlan *cross);
Tensor lm_finish(Tape *t, const Lm *m, BlockStream *x);

/* logits (T, V) f32 of the same rows, whole: for tests and decoding. */
void lm_logits(Tape *t, const Lm *m, Tensor logits, Tensor hidden);
