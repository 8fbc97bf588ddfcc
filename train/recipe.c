/* recipe: see recipe.h. */
#include "train/recipe.h"

#include <math.h>
#include <string.h>

void recipe_step(StepSpec *s, const Options *o) {
    *s = (StepSpec){.B = opt_int(o, "train.batch"), .micro = (int)opt_int(o, "optim.accum"),
                    .itc = (float)opt_num(o, "loss.itc"),
                    .itm = (float)opt_num(o, "loss.itm"), .itg = (float)opt_num(o, "loss.itg"),
                        .smoothing = (float)opt_num(o, "loss.smoothing"), .dropout = (float)opt_num(o, "model.dropout"),
                        .itc_full = strcmp(opt_str(o, "loss.itc_gradient"), "full") == 0,
                    .image_ids = opt_bool(o, "loss.image_ids"),
                        .itg_rank_mean = strcmp(opt_str(o, "loss.itg_mean"), "rank") == 0,
                    .negatives = (NegativeRule)opt_choice(o, "loss.negatives"),
                    .wire_bf16 = strcmp(opt_str(o, "dist.wire"), "bf16") == 0, .seed = (uint64_t)opt_int(o, "seed")};
}

void recipe_params(ParamsSpec *s, const Options *o) {
    *s = (ParamsSpec){.training = true, .ema = opt_num(o, "optim.ema") > 0, .sharded = opt_bool(o, "dist.zero"),
                      .rule = strcmp(opt_str(o, "optim.decay_rule"), "paper") == 0 ? DECAY_PAPER : DECAY_LAVIS,
                      .freeze = opt_str(o, "optim.freeze")};
}

void recipe_adam(AdamSpec *a, const Options *o) {
    *a = (AdamSpec){.beta1 = (float)opt_num(o, "optim.beta1"), .beta2 = (float)opt_num(o, "optim.beta2"),
                    .eps = (float)opt_num(o, "optim.eps"),
                    .weight_decay = (float)opt_num(o, "optim.weight_decay"), .clip = (float)opt_num(o, "optim.clip"),
                    .ema = (float)opt_num(o, "optim.ema")};
}

void recipe_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch) {
    *s = (Schedule){.kind = (ScheduleKind)opt_choice(o, "optim.schedule"), .peak = opt_num(o, "optim.lr"),
                    .min = opt_num(o, "optim.min_lr"),
                    .warmup_lr = opt_num(o, "optim.warmup_lr"), .decay_rate = opt_num(o, "optim.decay_rate"),
                    .warmup = opt_int(o, "optim.warmup_steps"), .steps = steps, .steps_per_epoch = steps_per_epoch};
}

float recipe_init_std(const Options *o, const Dims *d) {
    double std = opt_num(o, "model.init_std");
    return std > 0 ? (float)std : (float)(0.02 * sqrt(768.0 / d->C));
}
