/* step: one training step over a batch: two waves, three losses, one backward sweep (DESIGN.md 1).
 *
 *     wave 1   ITC image + ITC text + ITG + ITM of the true pairs      -> similarities -> hard negatives
 *     wave 2   ITM of the two groups of negative pairs
 *     losses, one backward sweep, gradients joined over ranks, AdamW
 *
 * With micro > 1 the batch of B pairs runs in pieces: features of all pieces first (forward only), then each piece
 * again, recording; a negative pair belongs to the piece (or rank) that owns its image. That changes memory, not
 * mathematics.
 *
 * The host runs ahead of the device and waits for it twice a step: in the middle for who was drawn (wave 2 is packed by
 * the lengths of those texts), while the device has the generation loss to do, so that it never stands still; and in
 * step_read, which comes after the optimizer was enqueued. Sums of gradients over ranks run beside the backward sweep,
 * layer by layer; features of the next piece or batch travel beside this one's compute.
 *
 * Reading order: step.c (the whole machine), losses.c (waves and losses of a piece), contrast.c, optim.c.
 */
#ifndef QF_STEP_H
#define QF_STEP_H
#include "kernels/model/qformer.h"
#include "train/contrast.h"

typedef struct {
    int64_t B;                          /* pairs on this rank */
    int micro;                          /* pieces they run in; B % micro == 0 */
    float itc, itm, itg; /* weights of the losses; 0 leaves a loss out (ITC features are made all the same) */
    float smoothing, dropout;
    bool itc_full, image_ids, itg_rank_mean, keep_weights;
    bool wire_bf16;                     /* gradients travel as bf16 */
    NegativeRule negatives;
    uint64_t seed;
} StepSpec;

/* One rank's pairs, on the host. Token ids are (B,T), zero padded. */
typedef struct {
    const void *features;               /* (B,P,E) raw, type dt */
    const float *scale;                 /* (B) or NULL */
    const int32_t *ids, *len;           /* (B,T), (B) */
    const int64_t *image_id;            /* (B); needed when image_ids */
    const int32_t *negative_image, *negative_text;           /* (B) global indices: given draws (tests), else NULL */
    DType dt;
} StepBatch;

typedef struct {
    double loss, itc, itm, itg;         /* weighted sum; means over the global batch */
    int64_t itm_pairs, itg_tokens;      /* over all ranks */
    float temp;                         /* the temperature as it is now, after an update if one was enqueued */
    int bad_rank;                       /* the first whose own losses are not finite; -1: none */
} StepLosses;

enum { SUM_ITC, SUM_ITM, SUM_ITG, SUM_COUNT };

/* What step_read reads, in pinned memory. */
typedef struct { float sums[SUM_COUNT], temp; } StepReport;

/* Device room for one piece's features and scales (unified: unused). holds: the host's features on their way here. */
typedef struct { void *features; float *scale; const void *holds; } FeatureRoom;

typedef struct Step {
    const Backend *b;
    QFormer *model;
    StepSpec spec;
    Arena *run, *step;
    Tape tape;
    WaveRoom room;
    Contrast contrast;
    int64_t G, itm_cap;                 /* global pairs; most negative pairs of one piece */
    bool crowd;                         /* measuring: as many negative pairs fall to the first piece as may */
    /* the texts of all ranks, and who was drawn for whom: host, by global index */
    int32_t *ids, *len, *negative_image, *negative_text;
    int64_t *image_id;
    FeatureRoom ahead[2];
    int turn;                           /* which of them holds this piece's */
    const StepBatch *next;              /* what comes after this batch, when that is known */
    float *sums;                        /* device: SUM_COUNT running sums of row losses */
    int64_t summed_lo, summed_hi;       /* gradients [lo, hi) are being summed over ranks already */
    /* of the step under way, until it is read */
    int32_t *drawn;                     /* pinned (2B): contrast's negatives */
    StepReport *report;
    int64_t itm_pairs, itg_tokens;
    double itg_over;
    uint32_t number;
} Step;

Status step_open(Step *s, const Backend *b, QFormer *model, Arena *run, Arena *step, const StepSpec *spec);
void step_close(Step *s);

/* Enqueues losses of the batch; with `grad` their gradient times `scale` is added to the parameters' and the whole
 * summed over ranks (so with several ranks one call an update). `step` is where random bits come from. The batch's
 * memory must stay until step_read, which waits; step_losses is both. next: the batch of the coming step, in pinned
 * memory and left alone until then, or NULL: its features travel meanwhile. */
Status step_run(Step *s, const StepBatch *batch, const StepBatch *next, uint32_t step, float scale, bool grad);
Status step_read(Step *s, StepLosses *out);
Status step_losses(Step *s, const StepBatch *batch, uint32_t step, float scale, bool grad, StepLosses *out);

/* The largest batch a plan allows for: every caption `tokens` long. On measuring arenas and the null backend,
 * step_losses of it measures memory and arithmetic. The arrays live as long as *room. */
Status step_worst_batch(StepBatch *batch, const Step *s, int tokens, DType features, void **room);

#endif
