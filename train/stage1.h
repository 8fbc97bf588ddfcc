/* stage1: contrast, matching and generation of a batch of pairs: two waves, three losses, one backward sweep (DESIGN.md
 * 1).
 *
 *     wave 1   ITC image + ITC text + ITG + ITM of the true pairs      -> similarities -> hard negatives
 *     wave 2   ITM of the two groups of negative pairs
 *     losses, one backward sweep, gradients joined over ranks; AdamW is the trainer's
 *
 * The sweep goes over the rows of both waves at once (tape_first): a weight's gradient is one product instead of two,
 * an image's keys meet all their users. It costs less than one per cent of memory.
 *
 * With micro > 1 the batch of B pairs runs in pieces: features of all pieces first (forward only), then each piece
 * again, recording; a negative pair belongs to the piece (or rank) that owns its image. That changes memory, not
 * mathematics.
 *
 * The host runs ahead of the device and waits for it twice a step: in the middle for who was drawn (wave 2 is packed by
 * the lengths of those texts), while the device has the generation loss to do, so that it never stands still; and in
 * stage1_read, which comes after the optimizer was enqueued. Sums of gradients over ranks run beside the backward
 * sweep, layer by layer; features of the next piece or batch travel beside this one's compute.
 *
 * Reading order: stage1.c (the whole machine), pairs.c (who stands against whom), piece.c (waves and losses of a
 * piece), contrast.c, join.c, optim.c. */
#pragma once
#include "kernels/model/features.h"
#include "train/contrast.h"
#include "train/join.h"
#include "train/objective.h"

extern const Objective stage1_objective;                     /* spec: a Stage1Spec, self: a Stage1 */

typedef struct {
    float itc, itm, itg; /* weights of the losses; 0 leaves a loss out (ITC features are made all the same) */
    float smoothing, dropout;
    bool itc_full, image_ids, itg_rank_mean, keep_weights;
    bool wire_bf16;                     /* gradients travel as bf16 */
    NegativeRule negatives;
    uint64_t seed;
} Stage1Spec;

typedef struct {
    double loss, itc, itm, itg;         /* weighted sum; means over the global batch */
    int64_t itm_pairs, itg_tokens;      /* over all ranks */
    float temp;                         /* the temperature as it is now, after an update if one was enqueued */
    int bad_rank;                       /* the first whose own losses are not finite; -1: none */
} Stage1Losses;

enum { SUM_ITC, SUM_ITM, SUM_ITG, SUM_COUNT };

/* What stage1_read reads, in pinned memory. */
typedef struct { float sums[SUM_COUNT], temp; } Stage1Report;

typedef struct Stage1 {
    const Backend *b;
    QFormer *model;
    Stage1Spec spec;
    Arena *run, *step;
    int64_t B;                          /* pairs on this rank, in `micro` pieces */
    int micro;
    bool together;                      /* both waves are walked back as one, where there is a second */
    Tape tape;
    Join join;
    Staging room;
    Contrast contrast;
    int64_t G, itm_cap;                 /* global pairs; most negative pairs of one piece */
    bool crowd;                         /* measuring: as many negative pairs fall to the first piece as may */
    /* the texts of all ranks, and who was drawn for whom: host, by global index */
    int32_t *ids, *len, *negative_image, *negative_text;
    int64_t *image_id;
    Features features;
    const ObjectiveBatch *next;              /* what comes after this batch, when that is known */
    float *sums;                        /* device: SUM_COUNT running sums of row losses */
    /* of the step under way, until it is read */
    int32_t *drawn;                     /* pinned (2B): contrast's negatives */
    Stage1Report *report;
    int64_t itm_pairs, itg_tokens;
    double itg_over;
    uint32_t number;
} Stage1;

/* Members of stage1_objective; stage1_losses is run and read, with counts that the log does not want. */
Status stage1_open(void *self, const ObjectiveSite *site, const void *spec);
void stage1_close(void *self);
Status stage1_run(void *self, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step, float scale,
                  bool grad);
Status stage1_read(Stage1 *s, Stage1Losses *out);
Status stage1_losses(Stage1 *s, const ObjectiveBatch *batch, uint32_t step, float scale, bool grad, Stage1Losses *out);
