/* recipe: see recipe.h. */
#include "train/recipe.h"

#include <math.h>
#include <string.h>

static bool is(Pick p, const char *choice) { return strcmp(p.name, choice) == 0; }

void recipe_stage1(Stage1Spec *s, const Options *o) {
    *s = (Stage1Spec){.itc = (float)o->loss.itc, .itm = (float)o->loss.itm, .itg = (float)o->loss.itg,
                      .smoothing = (float)o->loss.smoothing, .dropout = (float)o->model.dropout,
                      .itc_full = is(o->loss.itc_gradient, "full"), .image_ids = o->loss.image_ids,
                      .itg_rank_mean = is(o->loss.itg_mean, "rank"), .negatives = (NegativeRule)o->loss.negatives.i,
                      .wire_bf16 = is(o->dist.wire, "bf16"), .seed = (uint64_t)o->run.seed};
}

void recipe_stage2(Stage2Spec *s, const Options *o, const Lm *lm, int32_t ids) {
    bool all = is(o->data.sample, "images");
    *s = (Stage2Spec){.lm = lm, .texts = all ? (int32_t)o->stage2.texts : 1, .ids = ids, .one_prompt = !o->stage2.split,
                      .asked = o->stage2.instruct ? (int32_t)o->data.max_tokens : 0, .dropout = (float)o->model.dropout,
                      .wire_bf16 = is(o->dist.wire, "bf16"), .seed = (uint64_t)o->run.seed};
}

void recipe_params(ParamsSpec *s, const Options *o) {
    *s = (ParamsSpec){.training = true, .ema = o->optim.ema > 0, .sharded = o->dist.zero,
                      .rule = is(o->optim.decay_rule, "paper") ? DECAY_PAPER : DECAY_LAVIS, .freeze = o->optim.freeze};
}

void recipe_adam(AdamSpec *a, const Options *o) {
    *a = (AdamSpec){.beta1 = (float)o->optim.beta1, .beta2 = (float)o->optim.beta2, .eps = (float)o->optim.eps,
                    .weight_decay = (float)o->optim.weight_decay, .clip = (float)o->optim.clip,
                    .ema = (float)o->optim.ema};
}

void recipe_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch) {
    *s = (Schedule){.kind = (ScheduleKind)o->optim.schedule.i, .peak = o->optim.lr, .min = o->optim.min_lr,
                    .warmup_lr = o->optim.warmup_lr, .decay_rate = o->optim.decay_rate,
                    .warmup = o->optim.warmup_steps < 1 ? llround(o->optim.warmup_steps * (double)steps)
                                                      : (int64_t)o->optim.warmup_steps,
                    .steps = steps, .steps_per_epoch = steps_per_epoch};
}

float recipe_init_std(const Options *o, const Dims *d) {
    double std = o->model.init_std;
    return std > 0 ? (float)std : (float)(0.02 * sqrt(768.0 / d->C));
}
