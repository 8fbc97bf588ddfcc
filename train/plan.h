/* plan: what a step moves between ranks, and how long that takes beside computing: arithmetic on paper, without data.
 *
 * Called by the command plan and by tests, which hold wire_ours against the bytes that a real step receives
 * (dist_received). Model of time: gradients are summed beside part of the walk back, nothing else overlaps;
 * rings, whose W ranks each receive n (W-1)/W bytes in a gather of n bytes and twice that in a sum; a latency for each
 * operation that grows with log2 W. */
#pragma once
#include "configs/options.h"
#include "kernels/model/dims.h"

/* Bytes that one rank receives in a step (and sends). G = B W pairs. */
typedef struct {
    double image_tokens;                /* the reference gathers them, and sums their gradient back */
    double features;                    /* of the contrastive loss */
    double texts;                       /* ids, lengths, negatives: host memory */
    double gradients;
    double window, tail; /* of compute, during which gradients move; of gradients, finished only after it */
    int device_ops, host_ops;           /* operations, for their latency */
} Wire;

Wire wire_ours(const Dims *d, int64_t params, int64_t B, int64_t W, int gradient_bytes);
/* LAVIS: image tokens gathered with gradient in f16, ids and masks in int64, features in f32, DistributedDataParallel
 * in f32. */
Wire wire_reference(const Dims *d, int64_t params, int64_t B, int64_t W);
static inline double wire_total(const Wire *w) { return w->image_tokens + w->features + w->texts + w->gradients; }

/* Links: bytes a second that a rank receives and sends at once, inside a machine and between machines. */
typedef struct { const char *name; double node, net; int gpus_per_node; } Links;

typedef struct {
    double compute, similarity, waiting, moving, latency; /* seconds: the work of one rank; what more ranks add to it */
    double efficiency;                                       /* compute / sum */
} StepTime;

/* `compute` seconds of a rank alone. negative_share: part of it that n negative pairs of one kind take. A pair is
 * computed where its image is, and images are drawn unevenly, so the rank with the most keeps the others waiting: the
 * expected largest of W binomial counts, B + sqrt(2 ln W) standard deviations; 0 for the reference, which moves the
 * image instead. */
StepTime step_time(const Dims *d, const Wire *w, const Links *l, int64_t B, int64_t W, double compute,
                   double negative_share);

/* Buffers of the contrastive loss that grow with the number of ranks, in bytes. */
double contrast_bytes(const Dims *d, int64_t B, int64_t W);

/* plan_stage2.c: what stage 2 takes: memory with the frozen language model in it, arithmetic, time; before there is
 * data, and before anybody has the model's weights (its config.json, or a published name, is enough). */
Status plan_stage2(const Options *o);
