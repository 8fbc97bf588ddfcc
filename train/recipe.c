/* recipe: see recipe.h. */
#include "train/recipe.h"

#include <math.h>
#include <string.h>

static bool is(Pick p, const char *choice) { return strcmp(p.name, choice) == 0; }

Learns recipe_learns(const Options *o) {
    return is(o->run.objective, "lm") ? LEARNS_LM : o->run.stage == 2 ? LEARNS_STAGE2 : LEARNS_STAGE1;
}

/* Width of a gated feed-forward that has the numbers of a plain one of four times the width, in whole 32s. */
static int32_t gated_width(int64_t C) { return (int32_t)((8 * C / 3 + 31) / 32 * 32); }

Status recipe_lm(LmDims *d, const Options *o, const Tokenizer *tok) {
    const TokenizerIds *k = tokenizer_ids(tok);
    int64_t C = o->lm.hidden, H = o->lm.heads;
    if (C % H || C / H % 2)                                  /* rotation turns pairs of a head's columns */
        return err_set(ERR_USAGE, "lm.hidden=%lld does not divide into lm.heads=%lld heads of an even width",
                       (long long)C, (long long)H);
    if (k->eos < 0) return err_set(ERR_FORMAT, "model.vocab=%s names no token that ends a text", o->model.vocab);
    *d = (LmDims){.family = LM_LLAMA, .L = (int32_t)o->lm.layers, .C = (int32_t)C, .E = (int32_t)C, .H = (int32_t)H,
                  .K = (int32_t)H, .D = (int32_t)(C / H), .F = o->lm.ffn ? (int32_t)o->lm.ffn : gated_width(C),
                  .V = tokenizer_size(tok), .N = (int32_t)o->lm.positions, .eps = 1e-5, .act = ACT_SILU, .gated = true,
                  .pre_norm = true, .last_norm = true, .head = LM_HEAD_TIED, .rope = {LM_ROPE_PLAIN, .theta = 1e4},
                  .bos = k->nbegin ? k->begin[0] : k->bos, .pad = k->pad, .start = -1, .end = {k->eos}, .nends = 1};
    return OK;
}

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
                      .lm_dropout = o->stage2.lm_dropout, .wire_bf16 = is(o->dist.wire, "bf16"),
                      .seed = (uint64_t)o->run.seed};
}

void recipe_reader(ReaderSpec *s, const Options *o, int32_t ids) {
    s->texts = (int32_t)o->stage2.texts, s->ids = ids, s->front = (int32_t)o->data.max_tokens;
    s->wire_bf16 = is(o->dist.wire, "bf16");
}

void recipe_params(ParamsSpec *s, const Options *o) {
    *s = (ParamsSpec){.training = true, .ema = o->optim.ema > 0, .sharded = o->dist.zero,
                      .rule = is(o->optim.decay_rule, "paper") ? DECAY_PAPER : DECAY_LAVIS, .freeze = o->optim.freeze,
                      .rates = o->optim.rates};
}

void recipe_adam(AdamSpec *a, const Options *o) {
    *a = (AdamSpec){.beta1 = (float)o->optim.beta1, .beta2 = (float)o->optim.beta2, .eps = (float)o->optim.eps,
                    .weight_decay = (float)o->optim.weight_decay, .clip = (float)o->optim.clip,
                    .ema = (float)o->optim.ema, .beside = o->optim.beside};
}

void recipe_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch) {
    *s = (Schedule){.kind = (ScheduleKind)o->optim.schedule.i, .peak = o->optim.lr, .min = o->optim.min_lr,
                    .warmup_lr = o->optim.warmup_lr, .decay_rate = o->optim.decay_rate,
                    /* below 1 it is a share of the run */
                    .warmup = o->optim.warmup_steps < 1 ? llround(o->optim.warmup_steps * (double)steps)
                                                      : (int64_t)o->optim.warmup_steps,
                    .steps = steps, .steps_per_epoch = steps_per_epoch};
}

float recipe_init_std(const Options *o, const Dims *d) {
    double std = o->model.init_std;
    /* at any width a sum of C products then has the spread that BERT's had */
    return std > 0 ? (float)std : (float)(0.02 * sqrt(768.0 / d->C));
}
