/* pairs: whose text stands against whose image in a step, over all ranks: texts and ids of everybody, who was drawn as
 * a negative for whom, how many count, and the worst batch there could be. Small integers,
 * on the host; losses.md 3 to 6. */
#pragma once
#include "train/stage1.h"

/* Texts, lengths and image ids of all ranks. */
Status pairs_gather(Stage1 *s, const ObjectiveBatch *batch, uint32_t step);

/* Who stands against whom: drawn by the device (waits for it), or given by the batch. */
Status pairs_draw(Stage1 *s, const ObjectiveBatch *batch);

const int32_t *pairs_text(const Stage1 *s, int64_t g);       /* word pieces of text g */
bool pairs_is_target(const Stage1 *s, int64_t g, int32_t t); /* whether generation counts word piece t of text g */
/* how many it counts of texts [first, first + n) */
int64_t pairs_targets(const Stage1 *s, int64_t first, int64_t n);
/* whether pairs a and b (global) may stand as a negative */
bool pairs_is_negative(const Stage1 *s, int64_t a, int64_t b);
int64_t pairs_matched(const Stage1 *s);                      /* true pairs and negatives, once they are drawn */

/* The largest batch a plan allows for: every caption `tokens` long. The arrays live as long as *room. */
Status pairs_worst(ObjectiveBatch *batch, const Stage1 *s, int tokens, DType features, void **room);
