/* planner: makes an attention plan (backend.h), group by group, in lists that travel to the device. Called by the waves
 * of both kinds of model, which know who sees whom. */
#pragma once
#include "kernels/model/staging.h"

typedef struct { AttnPlan *p; AttnItem *items; AttnGroup *groups; const Staging *r; } Planner;

Planner planner_begin(AttnPlan *p, Staging *r, int items, int groups);    /* room for so many of each */
void planner_group(Planner *a, int32_t a0, int32_t na, int32_t b0, int32_t nb);
void planner_item(Planner *a, AttnItem it);                 /* of the last group; one of no rows is left out */
void planner_end(const Planner *a);

/* For passes that recur (Backend.repeat): max_nk becomes the next 64 2^k: a few launches serve texts that grow. */
void planner_round(AttnPlan *p);
