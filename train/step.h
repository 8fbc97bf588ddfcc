/* step: one training step over a batch: two waves, three losses, one backward sweep (DESIGN.md 1).
 *
 *     wave 1   ITC image + ITC text + ITG + ITM of the true pairs      -> similarities -> hard negatives
 *     wave 2   ITM of the two groups of negative pairs
 *     losses, one backward sweep, gradients joined over ranks, AdamW
 *
 * With micro > 1 the batch of B pairs runs in pieces: features of all pieces first (forward only), then each piece
 * again, recording; a negative pair belongs to the piece (or rank) that owns its image. That changes memory, not
 * mathematics. Reading order: step.c (the whole machine), losses.c (waves and losses of a piece), contrast.c, optim.c.
 */
#ifndef QF_STEP_H
#define QF_STEP_H
#include "train/contrast.h"
#include "train/model.h"

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
    int bad_rank;                       /* the first whose own losses are not finite; -1: none */
} StepLosses;

typedef struct Step {
    const Backend *b;
    Params *p;
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
    void *features;                     /* device room for one piece's features and scales (unified: unused) */
    float *scales;
    float *sums;                        /* device: SUM_COUNT running sums of row losses */
} Step;

enum { SUM_ITC, SUM_ITM, SUM_ITG, SUM_COUNT };

Status step_open(Step *s, const Backend *b, Params *p, Arena *run, Arena *step, const StepSpec *spec);
void step_close(Step *s);

/* Losses of the batch; with `grad` their gradient times `scale` is added to the parameters' and the whole summed over
 * ranks (so with several ranks one call an update). `step` is where random bits come from. */
Status step_losses(Step *s, const StepBatch *batch, uint32_t step, float scale, bool grad, StepLosses *out);

/* The largest batch a plan allows for: every caption `tokens` long. On measuring arenas and the null backend,
 * step_losses of it measures memory and arithmetic. The arrays live as long as *room. */
Status step_worst_batch(StepBatch *batch, const Step *s, int tokens, DType features, void **room);

#endif
