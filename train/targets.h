/* targets: a loss that is a mean over all ids to be said in the global batch: of stage 2, and of a language model that
 * learns to read. Counted before the losses are enqueued, since gradients are divided by it;
 * read after the update is. */
#pragma once
#include "train/objective.h"

/* sum: on the device, where losses are added up. report: pinned, where it is read. total:
 * targets of the global batch. */
typedef struct { const Backend *b; float *sum, *report; double total; uint32_t number; } Targets;

/* A step of that number begins: `report` from the room, the sum 0, and what the ranks' batches hold together counted
 * (measuring: this rank's alone). targets_room: what that takes of the room. */
Status targets_begin(Targets *t, Staging *room, const ObjectiveBatch *batch, uint32_t number, bool measuring);
static inline size_t targets_room(void) { return staging_bytes(1, sizeof(float)); }

/* The factor of gradients: `scale` over the count. */
static inline float targets_share(const Targets *t, float scale) {
    return t->total > 0 ? scale / (float)t->total : 0.0f;
}

/* Waits. The losses of a step whose values are TARGETS_VALUES: the mean, and how many targets that is over all
 * ranks. */
Status targets_read(const Targets *t, ObjectiveLosses *out);
#define TARGETS_VALUES .values = {{"lm", true}, {"targets", false}}, .nvalues = 2
