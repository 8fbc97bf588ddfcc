/* slots: where the pasts of running texts lie (decoder.h): keys and values of all layers in one matrix, so that pasts
 * move from slot to slot in one launch.
 *
 *     all (layers rows, width)     | layer 0: other rows; from `first` on slots of `length` rows | layer 1 ... */
#pragma once
#include "kernels/model/decoder.h"
#include "kernels/model/staging.h"
#include "kernels/tensor.h"

typedef struct { Tensor all; int32_t layers, first, slots, length; } Slots;

static inline int32_t slots_row(const Slots *s, int32_t slot) { return s->first + slot * s->length; }
static inline int64_t slots_rows(const Slots *s) { return slots_row(s, s->slots); }     /* of a layer */
Tensor slots_layer(const Slots *s, int32_t layer);

/* The first `at` rows of slots that move, in all layers. Its lists are the last of a step, slots_bytes at most: the
 * others lie where they lay in the step before, with moves or without. */
size_t slots_bytes(const Slots *s);
void slots_move(const Slots *s, Staging *room, int32_t at, const DecoderCopy *copies, int n);
