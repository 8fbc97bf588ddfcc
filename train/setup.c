/* setup: see setup.h. */
#include "train/setup.h"

#include <math.h>
#include <string.h>

#include "kernels/dist.h"

Status setup_backend(const Backend **b, const Options *o) {
    const char *device = opt_str(o, "device"), *precision = opt_str(o, "precision");
    bool cuda = strcmp(device, "cpu") != 0 && backend_open(b, "cuda", DT_BF16, dist_local_rank()) == OK;
    if (strcmp(device, "cuda") == 0 && !cuda) return ERR_DEVICE;
    bool half = strcmp(precision, "bf16") == 0 || (strcmp(precision, "auto") == 0 && (cuda || cpu_has_bf16()));
    err_clear();                                             /* auto: no GPU is no error */
    if (cuda && !half) backend_close(*b);
    Status st = cuda && half ? OK : backend_open(b, cuda ? "cuda" : "cpu", half ? DT_BF16 : DT_F32, dist_local_rank());
    if (st != OK || strcmp(opt_str(o, "attention"), "cudnn") != 0) return st;
    return (*b)->use_cudnn ? (*b)->use_cudnn(true) : err_set(ERR_USAGE, "attention=cudnn needs device=cuda");
}

static Status from_data(const Options *o, const char *key, const char *what, int64_t data, int32_t *out) {
    int64_t asked = opt_int(o, key);
    if (asked && asked != data)
        return err_set(ERR_USAGE, "%s=%lld, but the data has %lld %s", key, (long long)asked, (long long)data, what);
    *out = (int32_t)data;
    return OK;
}

Status setup_dims(Dims *d, const Options *o, const Wordpiece *wp, int64_t P, int64_t E) {
    *d = (Dims){.L = (int32_t)opt_int(o, "model.layers"), .C = (int32_t)opt_int(o, "model.hidden"),
                .H = (int32_t)opt_int(o, "model.heads"),
                .F = (int32_t)opt_int(o, "model.ffn"), .Q = (int32_t)opt_int(o, "model.queries"),
                    .Z = (int32_t)opt_int(o, "model.proj"),
                .X = (int32_t)opt_int(o, "model.cross_every"), .N = (int32_t)opt_int(o, "model.positions"),
                .T = (int32_t)opt_int(o, "data.max_tokens"), .V = 30523, .pad = 0, .cls = 101, .sep = 102,
                    .dec = 30522};
    if (wp) d->V = wp_size(wp), d->pad = wp_pad(wp), d->cls = wp_cls(wp), d->sep = wp_sep(wp), d->dec = wp_dec(wp);
    if (!d->F) d->F = 4 * d->C;
    Status st = from_data(o, "model.image_width", "numbers in an image token", E, &d->E);
    if (st == OK) st = from_data(o, "model.image_tokens", "tokens an image", P, &d->P);
    if (st != OK) return st;
    if (d->C % d->H) return err_set(ERR_USAGE, "model.heads=%d does not divide model.hidden=%d", d->H, d->C);
    if (d->T > d->N) return err_set(ERR_USAGE, "data.max_tokens=%d is more than model.positions=%d", d->T, d->N);
    return OK;
}

void setup_step(StepSpec *s, const Options *o) {
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

void setup_params(ParamsSpec *s, const Options *o) {
    *s = (ParamsSpec){.training = true, .ema = opt_num(o, "optim.ema") > 0, .sharded = opt_bool(o, "dist.zero"),
                      .rule = strcmp(opt_str(o, "optim.decay_rule"), "paper") == 0 ? DECAY_PAPER : DECAY_LAVIS,
                      .freeze = opt_str(o, "optim.freeze")};
}

void setup_adam(AdamSpec *a, const Options *o) {
    *a = (AdamSpec){.beta1 = (float)opt_num(o, "optim.beta1"), .beta2 = (float)opt_num(o, "optim.beta2"),
                    .eps = (float)opt_num(o, "optim.eps"),
                    .weight_decay = (float)opt_num(o, "optim.weight_decay"), .clip = (float)opt_num(o, "optim.clip"),
                    .ema = (float)opt_num(o, "optim.ema")};
}

void setup_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch) {
    *s = (Schedule){.kind = (ScheduleKind)opt_choice(o, "optim.schedule"), .peak = opt_num(o, "optim.lr"),
                    .min = opt_num(o, "optim.min_lr"),
                    .warmup_lr = opt_num(o, "optim.warmup_lr"), .decay_rate = opt_num(o, "optim.decay_rate"),
                    .warmup = opt_int(o, "optim.warmup_steps"), .steps = steps, .steps_per_epoch = steps_per_epoch};
}

float setup_init_std(const Options *o, const Dims *d) {
    double std = opt_num(o, "model.init_std");
    return std > 0 ? (float)std : (float)(0.02 * sqrt(768.0 / d->C));
}
