/* targets: a loss that is a mean over all ids to be said in the global batch: of stage 2, and of a language model that
 * learns to read. Counted before the losses are enqueued, since gradients are divided by it;
 * read after the update is. */
#ifndef QF_TARGETS_H
#define QF_TARGETS_H
#include "train/objective.h"

typedef struct {
    double loss;                        /* mean over the targets of the global batch */
    int64_t targets;                    /* over all ranks */
    int bad_rank;                       /* the first whose own loss is not finite; -1: none */
} TargetsLoss;

/* sum: on the device, where losses are added up. report: pinned, where it is read. total:
 * targets of the global batch. */
typedef struct { const Backend *b; float *sum, *report; double total; uint32_t number; } Targets;

/* What the ranks' batches hold together. measuring: this rank's alone. */
Status targets_count(Targets *t, const ObjectiveBatch *batch, bool measuring);

/* The factor of gradients: `scale` over the count. */
static inline float targets_share(const Targets *t, float scale) {
    return t->total > 0 ? scale / (float)t->total : 0.0f;
}

/* Waits. */
Status targets_read(const Targets *t, TargetsLoss *out);

#endif
