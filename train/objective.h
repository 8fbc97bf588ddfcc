/* objective: what a trainer trains: the losses of a batch, and their gradient in the parameters.
 *
 * One value of functions stands between the trainer (run, resume, accumulation, ranks, log, report, failures) and what
 * is learned: stage1.h is the first. A state of `size` bytes, zero at first, belongs to the trainer, which passes it
 * as self.
 *
 *     learner   the model that learns, laid out in the run arena, when that is not the Q-Former; else NULL
 *     open      its buffers from the run arena, its tape on the step arena (both may only measure)
 *     measure   the largest batch a plan allows for, on measuring arenas and the null backend: what it needs is counted
 *               there
 *     run       enqueues the losses of a batch; with `grad` their gradient times `scale` is added to the parameters'
 *               and the whole summed over ranks (so with several ranks one call an update). `step` is where random bits
 *               come from. The batch's memory must stay until read. next: the batch of the coming step, in pinned
 *               memory and left alone until then, or NULL: its features travel meanwhile
 *     read      waits, and says what came of it
 *
 * A column of the log is a value by name (log_fields.h has the list). */
#pragma once
#include "kernels/model/lm_wave.h"
#include "kernels/model/qformer.h"

/* A pass of the Q-Former over an image: what its queries see beside it (InstructBLIP: the prompt's word pieces). */
typedef struct { int32_t image; const int32_t *ids; int32_t n; } ObjectiveView;

/* One rank's pairs, on the host. Token ids are (B,T), zero padded. Of stage 2 it is images, and what is said of them:
 * items of a view, views of an image, images in order. views NULL: one an image, queries alone. LmItem.image is the
 * number of the view. */
typedef struct {
    const void *features;               /* (B,P,E) raw, type dt */
    const float *scale;                 /* (B) or NULL */
    const int32_t *ids, *len;           /* (B,T), (B) */
    const int64_t *image_id;            /* (B) or NULL */
    const int32_t *negative_image, *negative_text;           /* (B) global indices: given draws (tests), else NULL */
    DType dt;
    const ObjectiveView *views;
    int nviews;
    const LmItem *said;
    int nsaid;
} ObjectiveBatch;

/* loss: a mean over the batch's pairs, which an average over batches makes sense of; else a state as it is now. */
typedef struct { const char *name; bool loss; } ObjectiveValue;

enum { OBJECTIVE_VALUES = 6 };
typedef struct {
    double loss;                        /* what is made smaller */
    double value[OBJECTIVE_VALUES];     /* by Objective.values */
    int bad_rank;                       /* the first whose own losses are not finite; -1: none */
} ObjectiveLosses;

/* Where it works: B pairs on this rank, in `micro` pieces (B % micro == 0). */
typedef struct { const Backend *b; QFormer *model; Arena *run, *step; int64_t B; int micro; } ObjectiveSite;

typedef struct {
    const char *name;
    ObjectiveValue values[OBJECTIVE_VALUES];
    int nvalues;
    size_t size, tape;                  /* of self, and where in it the Tape is that everything runs on */
    Status (*learner)(void *self, const ObjectiveSite *site, const void *spec, const ParamsSpec *how, Params **params);
    Status (*open)(void *self, const ObjectiveSite *site, const void *spec);
    void (*close)(void *self);
    /* tokens: of the longest text. flops: counted arithmetic of a step, forward and backward; attention's part of it */
    Status (*measure)(void *self, int tokens, DType features, bool grad, double flops[2]);
    Status (*run)(void *self, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step, float scale,
                  bool grad);
    Status (*read)(void *self, ObjectiveLosses *out);
} Objective;

/* What it computes on: counts arithmetic, can be watched. */
static inline Tape *objective_tape(const Objective *o, void *self) { return (Tape *)(void *)((char *)self + o->tape); }
