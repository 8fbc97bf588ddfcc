/* trainer: a model, its optimizer state and a step, in memory that was measured before it was taken.
 *
 * One step of the largest batch runs on measuring arenas and the null backend: that is the plan. Then the arenas are
 * allocated once: roomy on a GPU (or when asked) where a quarter as much stays free, which changes no number. Used by
 * runs, fine-tuning, --dry-run, bench and tests; does not read data or files. */
#pragma once
#include "train/optim.h"
#include "train/objective.h"

typedef struct {
    Dims d;
    ParamsSpec params;
    const Objective *objective;
    const void *spec;                   /* the objective's own; it must live until trainer_open is back */
    int64_t B;                          /* pairs on this rank */
    int micro;                          /* pieces they run in; B % micro == 0 */
    int tokens;                         /* word pieces of the longest caption; at most d.T */
    DType features;                     /* element type of the data's features */
    void (*product)(const Gemm *g);     /* trainer_plan tells it of each; or NULL */
    void (*products)(const Gemm *g, int n);     /* and of those of one call, when there is `product` */
    bool roomy;                         /* the tape keeps what it could make again (tape.h) */
} TrainerSpec;

typedef struct {
    /* run arena: parameters and copies; gradient, moments, average; the step's buffers */
    size_t weights, state, buffers;
    size_t step;                        /* step arena */
    double flops, flops_attention;      /* arithmetic of a step, forward and backward */
    int64_t params;                     /* learned numbers */
    bool roomy;
} Plan;

typedef struct {
    const Backend *b;
    Arena run, stepmem;
    QFormer model;                      /* what learns, where the objective has no learner of its own */
    Params *params;                     /* of what learns */
    const Objective *objective;
    void *self;                         /* the objective's state */
    void *scratch;                      /* of optim_norm and optim_update */
    float *norm;                        /* pinned: where optim_norm leaves it */
    Plan plan;
} Trainer;

Status trainer_plan(Plan *plan, const Backend *b, const TrainerSpec *spec);
/* The same within a second whatever the batch, for who asks and does not train: from some 50,000 pairs on, memory and
 * arithmetic are what three smaller plans have, continued as polynomials of second degree in the pairs. */
Status trainer_foresee(Plan *plan, const Backend *b, const TrainerSpec *spec);
Status trainer_open(Trainer *t, const Backend *b, const TrainerSpec *spec);   /* weights are zero: init or load them */
void trainer_close(Trainer *t);

/* The losses of a batch, and with `grad` their gradient, scaled, added to what is there; waits for it. */
Status trainer_losses(Trainer *t, const ObjectiveBatch *batch, uint32_t step, float scale, bool grad,
                      ObjectiveLosses *l);

/* A training step and its update, enqueued whole and then waited for; the norm is then in *t->norm. step, next: as
 * Objective.run; lr, number, bad: as optim_update and optim_end. A gradient that is not finite changes nothing. */
Status trainer_step(Trainer *t, const ObjectiveBatch *batch, const ObjectiveBatch *next, uint32_t step,
                    const AdamSpec *a, double lr, int64_t number, ObjectiveLosses *l, const ParamTensor **bad);

/* counted so far */
static inline double trainer_flops(const Trainer *t) { return objective_tape(t->objective, t->self)->flops; }
/* "weights 1.30, optimizer 2.60, buffers 0.40", in GiB: what a plan takes but for its step. */
enum { PLAN_TEXT = 96 };
const char *plan_text(const Plan *p, char buf[PLAN_TEXT]);
static inline double plan_gib(double bytes) { return bytes / (double)(1 << 30); }
static inline size_t plan_bytes(const Plan *p) { return p->weights + p->state + p->buffers + p->step; }
