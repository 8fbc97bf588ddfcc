/* stage2: one step of stage 2 over a batch: the Q-Former speaks to a frozen language model (DESIGN.md 12).
 *
 *     features -> Q-Former (queries only) -> projection -> visual rows -> language model -> loss on the targets' ids
 *
 * An image's visual rows stand once, for all its texts; the loss is the mean over all targets of the global batch.
 * Learned: ln_vision, queries, Q-Former, projection; the walk back goes through the language model and leaves it as it
 * is.
 *
 * With micro > 1 the batch's images run in pieces: that changes memory, not mathematics. */
#pragma once
#include "kernels/model/features.h"
#include "kernels/model/lm_model.h"
#include "train/join.h"
#include "train/targets.h"

typedef struct {
    const Lm *lm;                       /* frozen, loaded */
    int32_t texts, ids;                 /* most texts an image has, most ids of a text */
    int32_t asked;                      /* most word pieces that enter the Q-Former beside the queries; 0: none do */
    float dropout;                      /* of the Q-Former */
    bool lm_dropout;                    /* the language model's own (LmDims.dropout) is on */
    /* all texts of an image have the same prompt: T5's memory is planned for that */
    bool one_prompt;
    bool apart;                         /* each text with a prefix of its own, as the reference runs them (tests) */
    bool wire_bf16;                     /* gradients travel as bf16 */
    uint64_t seed;
} Stage2Spec;

typedef struct {
    const Backend *b;
    QFormer *model;
    const Lm *lm;
    Stage2Spec spec;
    Arena *run, *step;
    int64_t B;                          /* images on this rank */
    int micro;                          /* pieces they run in */
    Join join;
    Tape tape;
    Staging room, lm_room;
    Features features;
    const ObjectiveBatch *next;         /* while a step is enqueued: whose features come next; NULL: unknown */
    Targets targets;
    Segment *seg;                       /* (B / micro texts) */
    LmPrefix *prefix;                   /* (B / micro texts) each */
    LmText *text;
    int32_t *image;
} Stage2;

extern const Objective stage2_objective;                     /* spec: a Stage2Spec, self: a Stage2 */

/* Members of it, for tests that have no trainer; stage2_losses is Objective.run and read. */
Status stage2_open(void *self, const ObjectiveSite *site, const void *spec);
void stage2_close(void *self);
Status stage2_losses(Stage2 *s, const ObjectiveBatch *batch, uint32_t step, float scale, bool grad,
                     ObjectiveLosses *out);

/* The largest batch that the spec allows: every image with all its texts, every text as long as may be. To be measured
 * with stage2_losses on measuring arenas and the null backend. Free *room. */
Status stage2_worst_batch(ObjectiveBatch *batch, const Stage2 *s, DType features, void **room);
