/* gold_train: the fixture kinds step, negatives, train and schedule (README of the stage-1 fixtures). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "tests/gold.h"
#include "tests/kit/learner.h"

typedef struct { double loss, grad, feature, sim, weights; } Tolerance;

/* Ten times what the reference itself loses in f32; twice in bf16. */
static Tolerance tolerance(const Case *c) {
    if (c->precision == DT_F32) return (Tolerance){1e-5, 1e-4, 1e-4, 1e-4, 1e-4};
    return (Tolerance){6e-2, 8e-2, 2e-2, 0.3, 0.3};
}

static void compare_device(Case *c, const char *what, const float *x, int64_t n, float factor, const StFile *f,
                           const char *name, double tol) {
    float *h = mem_new((size_t)n, sizeof *h);
    BUG_ON(!h, "out of memory");
    c->b->download(h, x, (size_t)n * sizeof *h);
    for (int64_t i = 0; i < n; i++) h[i] *= factor;
    gold_tensor(c, what, h, n, st_find(f, name), tol, 0);
    free(h);
}

/* Gradients of one mixture of losses against one file; silently nothing when the case has no such file. */
static Status grads_case(Case *c, GoldBatch *batch, Stage1Spec spec, const char *stem, bool total) {
    Tolerance tol = tolerance(c);
    Trainer t;
    StFile *f = NULL;
    Stage1Losses l;
    if (gold_open_first(c, stem, &f) != OK) return total ? ERR_IO : OK;
    Status st = gold_trainer(c, &t, spec);
    if (st != OK) goto done;
    st = stage1_losses(t.self, &batch->batch, 0, 1.0f, true, &l);
    if (st == OK) gold_params(c, &t, t.model.params.g, f, stem, tol.grad, false);
    if (st == OK && total) {
        gold_value(c, "loss", l.loss, tol.loss);
        gold_value(c, "loss_itc", l.itc, tol.loss);
        gold_value(c, "loss_itm", l.itm, tol.loss);
        gold_value(c, "loss_lm", l.itg, tol.loss);
        gold_check(c, "lm_targets", (double)l.itg_tokens - gold_num(c->json, "lm_targets"), 0.5);
    }
    trainer_close(&t);
done:
    st_close(f);
    return st;
}

static void weights_check(Case *c, const Trainer *t, const StFile *out, double tol) {
    const Contrast *k = &((const Stage1 *)t->self)->contrast;
    compare_device(c, "weights_t2i", k->weights, k->B * k->G, 1, out, "weights_t2i", tol);
    compare_device(c, "weights_i2t", k->weights + k->B * k->G, k->B * k->G, 1, out, "weights_i2t", tol);
}

static Status forward_case(Case *c, GoldBatch *batch, Stage1Spec spec, bool negatives_only) {
    Tolerance tol = tolerance(c);
    Trainer t;
    StFile *out = NULL;
    Stage1Losses l;
    spec.keep_weights = true;
    Status st = gold_trainer(c, &t, spec);
    if (st != OK) return st;
    st = gold_open(c, NULL, "outputs.safetensors", &out);
    if (st == OK) st = stage1_losses(t.self, &batch->batch, 0, 1.0f, false, &l);
    if (st == OK) {
        const Contrast *k = &((const Stage1 *)t.self)->contrast;
        float itemp = 1.0f / (float)gold_num(c->json, "temp");
        weights_check(c, &t, out, tol.weights);
        compare_device(c, "sim_i2t", k->S_i2t, k->B * k->G, itemp, out, "sim_i2t", tol.sim);
        compare_device(c, "sim_t2i", k->S_t2i, k->B * k->G, itemp, out, "sim_t2i", tol.sim);
        if (!negatives_only) {
            compare_device(c, "image_feats", k->I, k->B * k->Q * k->Z, 1, out, "image_feats", tol.feature);
            compare_device(c, "text_feats", k->T, k->B * k->Z, 1, out, "text_feats", tol.feature);
        }
    }
    st_close(out);
    trainer_close(&t);
    return st;
}

static Status open_batch(Case *c, GoldBatch *batch) {
    StFile *f = NULL;
    const Json *j = json_get(c->json, "dims");
    Dims d = {.P = (int32_t)gold_int(j, "P"), .E = (int32_t)gold_int(j, "E"), .T = (int32_t)gold_int(j, "T")};
    *batch = (GoldBatch){0};
    Status st = gold_open(c, "batch", "batch.safetensors", &f);
    if (st == OK) st = gold_batch(c, f, 0, &d, gold_int(j, "B"), batch);
    st_close(f);
    return st;
}

Status gold_step(Case *c) {
    GoldBatch b;
    Status st = open_batch(c, &b);
    Stage1Spec all = {.itc = 1, .itm = 1, .itg = 1, .image_ids = b.image_id != NULL};
    Stage1Spec itc = all, itm = all, itg = all, full;
    itc.itm = itc.itg = 0, itm.itc = itm.itg = 0, itg.itc = itg.itm = 0;
    full = itc, full.itc_full = true;
    if (st == OK) st = forward_case(c, &b, all, false);
    if (st == OK) st = grads_case(c, &b, all, "grads", true);
    if (st == OK) st = grads_case(c, &b, itc, "grads_itc", false);
    if (st == OK) st = grads_case(c, &b, itm, "grads_itm", false);
    if (st == OK) st = grads_case(c, &b, itg, "grads_lm", false);
    if (st == OK) st = grads_case(c, &b, full, "grads_itc_undetached", false);
    gold_batch_free(&b);
    return st;
}

Status gold_negatives(Case *c) {
    GoldBatch b;
    const char *rule = json_str(json_get(c->json, "negatives"), NULL);
    Status st = open_batch(c, &b);
    Stage1Spec spec = {.itc = 1, .itm = 1, .itg = 1, .negatives = rule && strcmp(rule, "head") == 0 ? NEG_SAMPLE
                     : NEG_SAMPLE_ALL};
    if (st == OK) st = forward_case(c, &b, spec, true);
    gold_batch_free(&b);
    return st;
}

/* ---- training ---------------------------------------------------------------------------------------------------- */

static Schedule schedule_of(const Json *run, int64_t steps) {
    const char *name = json_str(json_get(run, "schedule"), NULL);
    return (Schedule){.kind = name && strstr(name, "per-step") ? SCHED_COSINE : SCHED_LAVIS_EPOCH,
                      .peak = gold_num(run, "peak_lr"),
                      .min = gold_num(run, "min_lr"), .warmup_lr = gold_num(run, "warmup_lr"),
                          .warmup = gold_int(run, "warmup_steps"),
                      .steps = steps, .steps_per_epoch = gold_int(run, "steps_per_epoch")};
}

static double weight_norm(const Trainer *t) {
    double s = 0;
    for (int i = 0; i < t->model.params.n; i++) {
        const ParamTensor *p = &t->model.params.tensor[i];
        float *x = mem_new((size_t)p->n, sizeof *x);
        BUG_ON(!x, "out of memory");
        params_read(&t->model.params, p, t->model.params.w, x);
        for (int64_t k = 0; k < p->n; k++) s += (double)x[k] * x[k];
        free(x);
    }
    return sqrt(s);
}

static void relative(Case *c, const char *run, int64_t i, const Json *step, const char *key, double got, double tol) {
    double want;
    if (!json_num(json_get(step, key), &want)) return;
    char what[120];
    snprintf(what, sizeof what, "%s step %lld %s", run, (long long)i, key);
    gold_check(c, what, got - want, tol * fmax(fabs(want), key[0] == 'l' && key[1] == 'r' ? 0 : 1.0));
}

static Status train_step(Case *c, Trainer *t, const char *name, const Json *run, const StFile *f, int64_t i,
                         int64_t steps, int64_t *updates) {
    const Json *want = json_at(json_get(run, "steps"), (size_t)i), *betas = json_get(run, "betas");
    double b1, b2, tol = c->precision == DT_F32 ? 1e-5 : 6e-2;
    json_num(json_at(betas, 0), &b1);
    json_num(json_at(betas, 1), &b2);
    int64_t accum = gold_int(run, "accum_grad_iters");
    AdamSpec adam = {.beta1 = (float)b1, .beta2 = (float)b2, .eps = (float)gold_num(c->json, "adam_eps"),
                     .weight_decay = (float)gold_num(run, "weight_decay")};
    Schedule sched = schedule_of(run, steps);
    GoldBatch batch;
    Stage1Losses l;
    Status st = gold_batch(c, f, i, &t->model.d, ((const Stage1 *)t->self)->B, &batch);
    if (st == OK) st = stage1_losses(t->self, &batch.batch, (uint32_t)i, 1.0f / (float)accum, true, &l);
    if (st == OK) {
        relative(c, name, i, want, "lr", schedule_lr(&sched, i), 1e-12);
        relative(c, name, i, want, "loss", l.loss, tol);
        relative(c, name, i, want, "loss_itc", l.itc, tol);
        relative(c, name, i, want, "loss_itm", l.itm, tol);
        relative(c, name, i, want, "loss_lm", l.itg, tol);
        if ((i + 1) % accum == 0) {
            st = learner_update(t, &adam, schedule_lr(&sched, i), ++*updates, NULL);
            relative(c, name, i, want, "gradient_norm", *t->norm, 10 * tol);
            relative(c, name, i, want, "weight_norm", weight_norm(t), 10 * tol);
        }
    }
    gold_batch_free(&batch);
    return st;
}

static Status train_run(Case *c, const char *name, const Json *run) {
    Trainer t;
    StFile *f = NULL;
    int64_t steps = (int64_t)json_len(json_get(run, "steps")), updates = 0;
    Status st = gold_trainer(c, &t, (Stage1Spec){.itc = 1, .itm = 1, .itg = 1});
    if (st != OK) return st;
    st = gold_open(c, NULL, "batch.safetensors", &f);
    for (int64_t i = 0; st == OK && i < steps; i++) st = train_step(c, &t, name, run, f, i, steps, &updates);
    st_close(f);
    const struct { const char *stem; const float *flat; bool absolute; } ends[] = {
        {"model", t.model.params.w, true}, {"exp_avg", t.model.params.m, false}, {"exp_avg_sq", t.model.params.v, false}};
    for (size_t i = 0; st == OK && i < sizeof ends / sizeof *ends; i++) {
        char stem[128];
        StFile *want = NULL;
        snprintf(stem, sizeof stem, "%s_%s", name, ends[i].stem);
        if (gold_open_first(c, stem, &want) == OK) gold_params(c, &t, ends[i].flat, want, stem, tolerance(c).weights,
                                                               ends[i].absolute);
        st_close(want);
    }
    trainer_close(&t);
    return st;
}

/* Every name of the list stands in the table with that decay. */
static void decay_check(Case *c, const Trainer *t, const char *key, bool decay) {
    const Json *list = json_get(c->json, key);
    for (size_t i = 0; i < json_len(list); i++) {
        const ParamTensor *p = params_find(&t->model.params, json_str(json_at(list, i), NULL));
        gold_check(c, key, p && p->decay == decay ? 0 : 1, 0.5);
    }
}

Status gold_train(Case *c) {
    Trainer t;
    Status st = gold_trainer(c, &t, (Stage1Spec){.itc = 1, .itm = 1, .itg = 1});
    if (st != OK) return st;
    decay_check(c, &t, "decay", true);
    decay_check(c, &t, "no_decay", false);
    trainer_close(&t);
    const Json *runs = json_get(c->json, "runs"), *run;
    for (const char *name = json_next(runs, NULL, &run); st == OK && name; name = json_next(runs, name,
            &run)) st = train_run(c, name, run);
    return st;
}

/* ---- schedules --------------------------------------------------------------------------------------------------- */

static double optional(const Json *o, const char *key, double otherwise) {
    double v;
    return json_num(json_get(o, key), &v) ? v : otherwise;
}

static void schedule_rows(Case *c, const char *name, const Json *o, ScheduleKind kind, bool epochs) {
    Schedule s = {.kind = kind, .peak = gold_num(o, "peak"), .min = gold_num(o, "min"),
                  .warmup_lr = optional(o, "warmup_lr", -1),
                  .warmup = (int64_t)optional(o, "warmup_steps", 0), .decay_rate = optional(o, "decay_rate", 1)};
    s.steps_per_epoch = (int64_t)optional(o, "steps_per_epoch", 1);
    s.steps = epochs ? gold_int(o, "epochs") * s.steps_per_epoch : gold_int(o, "steps");
    const Json *rows = json_get(o, "rows");
    for (size_t i = 0; i < json_len(rows); i++) {
        double v[3];
        for (size_t k = 0; k < 3; k++) json_num(json_at(json_at(rows, i), k), &v[k]);
        int64_t step = epochs ? (int64_t)v[0] * s.steps_per_epoch + (int64_t)v[1] : (int64_t)v[0];
        double want = epochs || kind == SCHED_COSINE_TAIL ? v[2] : v[1];
        gold_check(c, name, schedule_lr(&s, step) - want, 1e-12 * fabs(want));
    }
}

Status gold_schedule(Case *c) {
    static const struct { const char *name; ScheduleKind kind; bool epochs; } forms[] = {
        {"linear_warmup_cosine_lr", SCHED_LAVIS_EPOCH, true}, {"linear_warmup_step_lr", SCHED_LAVIS_STEP, true},
        {"constant_lr", SCHED_LAVIS_CONSTANT, true}, {"per_step", SCHED_COSINE, false},
            {"per_step", SCHED_COSINE_TAIL, false}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const Json *list = json_get(c->json, forms[i].name);
        for (size_t k = 0; k < json_len(list); k++) schedule_rows(c, forms[i].name, json_at(list,
                k), forms[i].kind, forms[i].epochs);
    }
    return OK;
}
