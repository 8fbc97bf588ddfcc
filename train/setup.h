/* setup: from what the user asked for to sizes, losses, schedule. Checks options against each other and against the
 * data. */
#ifndef QF_SETUP_H
#define QF_SETUP_H
#include "data/wordpiece.h"
#include "train/options.h"
#include "train/trainer.h"

/* Where to compute and in which type: device, precision (auto: bf16 where the device multiplies it faster). */
Status setup_backend(const Backend **b, const Options *o);

/* Sizes from model.*; E and P from the data (P, E > 0), V and ids from the vocabulary (NULL: those
 * of bert-base-uncased). */
Status setup_dims(Dims *d, const Options *o, const Wordpiece *wp, int64_t P, int64_t E);

void setup_step(StepSpec *s, const Options *o);
void setup_params(ParamsSpec *s, const Options *o);          /* strings live as long as o */
void setup_adam(AdamSpec *a, const Options *o);
void setup_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch);
float setup_init_std(const Options *o, const Dims *d);       /* 0.02 sqrt(768 / C) unless given */

#endif
