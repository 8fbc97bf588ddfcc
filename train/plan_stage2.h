/* plan_stage2: what stage 2 takes, on paper: memory with the frozen language model in it, arithmetic, time; before
 * there is data, and before anybody has the model's weights (its config.json, or a published name, is enough). */
#ifndef QF_PLAN_STAGE2_H
#define QF_PLAN_STAGE2_H
#include "configs/options.h"

Status plan_stage2(const Options *o);

#endif
