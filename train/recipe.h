/* recipe: how a model is trained, from options: losses, parameters, optimizer, schedule. */
#ifndef QF_RECIPE_H
#define QF_RECIPE_H
#include "configs/options.h"
#include "train/stage1.h"
#include "train/stage2.h"
#include "train/trainer.h"

void recipe_stage1(Stage1Spec *s, const Options *o);
void recipe_stage2(Stage2Spec *s, const Options *o, const Lm *lm, int32_t ids);   /* ids: the most of a text */
void recipe_params(ParamsSpec *s, const Options *o);          /* strings live as long as o */
void recipe_adam(AdamSpec *a, const Options *o);
void recipe_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch);
float recipe_init_std(const Options *o, const Dims *d);       /* 0.02 sqrt(768 / C) unless given */

#endif
