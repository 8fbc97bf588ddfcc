/* table: a language model that is a table: its logits follow from a hash of all that was said. For tests of searches. */
#pragma once
#include <stdint.h>

/* V logits in [-3, 3) that depend on the model's number and on every token so far; `start` never comes again. */
void table_logits(uint64_t model, const int32_t *tokens, int32_t len, int32_t V, int32_t start, float *logits);
