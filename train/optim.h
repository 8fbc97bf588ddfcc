/* optim: learning rate, gradient norm, AdamW over the parameter table's ranges (training.md 1 to 3). */
#pragma once
#include "kernels/model/params.h"

/*   id           name          */
#define SCHEDULE_LIST(X)        \
    X(COSINE,      "cosine")      /* cosine over all steps, warm-up included */ \
    X(COSINE_TAIL, "cosine_tail") /* cosine over the steps after the warm-up */ \
    X(LAVIS_EPOCH, "lavis_epoch") /* cosine by epoch, warm-up inside epoch 0 only */ \
    X(LAVIS_STEP,  "lavis_step")  /* decay_rate ^ epoch, warm-up inside epoch 0 only */ \
    X(CONSTANT,    "constant")    /* the peak after the warm-up */ \
    X(LAVIS_CONSTANT, "lavis_constant") /* the same, warm-up inside epoch 0 only */

typedef enum {
#define X(id, name) SCHED_##id,
    SCHEDULE_LIST(X)
#undef X
} ScheduleKind;

typedef struct {
    ScheduleKind kind;
    double peak, min, warmup_lr, decay_rate;
    int64_t warmup, steps, steps_per_epoch;
} Schedule;

double schedule_lr(const Schedule *s, int64_t step);         /* of step 0, 1, ...; set before the step's forward */

/* clip 0: none; ema 0: none; beside: where the device can, updates run beside the forward that follows, same bits */
typedef struct { float beta1, beta2, eps, weight_decay, clip, ema; bool beside; } AdamSpec;

size_t optim_scratch(void); /* bytes of device scratch that the two below share */

/* An update is enqueued whole, before the host knows the norm: a gradient that is not finite changes nothing.
 *
 *     optim_norm      norm of the trainable gradients over all ranks' sum, and the factor that clips it
 *     optim_update    AdamW number t (1, 2, ...); the forward that follows waits for what it reads. Sharded: each rank
 *                     updates its part and gets the rest from the others, in order
 *     (wait)          *norm, in pinned memory, is there
 *     optim_end       the gradient is used: what decays (matrices) is overwritten by the next backward's first product,
 *                     the rest is zero. Not finite: names the first tensor that is not (bad may be NULL) */
Status optim_norm(const Params *p, void *scratch, float clip, float *norm);
Status optim_update(const Params *p, const void *scratch, const AdamSpec *a, double lr, int64_t t);
void optim_end(const Params *p, bool finite, const ParamTensor **bad);
