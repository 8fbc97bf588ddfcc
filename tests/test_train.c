/* test_train: properties of a whole training step that need no reference: pieces equal the whole, image tokens have no
 * order, the plan is what is taken, repeated is the same bits, frozen stays, a gradient that is not finite is named,
 * bf16 follows f32. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/mem.h"
#include "eval/encode.h"
#include "kernels/watch.h"
#include "tests/kit/distance.h"
#include "tests/kit/learner.h"
#include "train/stage1.h"
#include "train/trainer.h"

static const Dims DIMS = {.L = 3, .C = 40, .H = 2, .F = 72, .Q = 5, .E = 28, .P = 9, .Z = 20, .V = 90, .N = 16, .X = 2,
                          .T = 10, .pad = 0, .cls = 1, .sep = 2, .dec = 89};
enum { B = 8 };

typedef struct { float features[B * 9 * 28]; int32_t ids[B * 10],
                len[B]; int64_t image_id[B]; ObjectiveBatch batch; } Data;

static float noise(uint32_t i, uint32_t k) { return 2 * rng_unit(philox(i, k, 0, 0, 9, 9).v[0]) - 1; }

static void make(Data *d) {
    *d = (Data){.batch = {.dt = DT_F32}};
    for (uint32_t i = 0; i < B * 9 * 28; i++) d->features[i] = 2 * noise(i, 1) + noise(i, 2);
    for (int i = 0; i < B; i++) {
        d->len[i] = 2 + i % 7;
        d->image_id[i] = i / 2 * 3;
        for (int t = 0; t < d->len[i]; t++) d->ids[i * 10 + t] = t == 0 ? 1 : t == d->len[i] - 1 ? 2 : 3 + (int32_t)(philox((uint32_t)(i * 10 + t), 3, 0, 0, 9, 9).v[0] % 80u);
    }
    d->batch.features = d->features, d->batch.ids = d->ids, d->batch.len = d->len, d->batch.image_id = d->image_id;
}

static const Backend *cpu(DType dt) { return backend_cpu(dt); }

typedef struct { TrainerSpec trainer; Stage1Spec step; } Spec;

static Spec spec_of(int micro, float dropout) {
    return (Spec){{.d = DIMS, .tokens = 10, .features = DT_F32, .params = {.training = true}, .B = B, .micro = micro,
                   .objective = &stage1_objective},
                  {.itc = 1, .itm = 0.7f, .itg = 1.3f, .smoothing = 0.1f, .dropout = dropout, .seed = 5}};
}

static const Stage1 *stage1_of(const Trainer *t) { return t->self; }

static void open_trainer(Trainer *t, const Spec *s, DType dt) {
    TrainerSpec spec = s->trainer;
    spec.spec = &s->step;
    assert_int_equal(trainer_open(t, cpu(dt), &spec), OK);
    assert_int_equal(params_init(&t->model.params, 3, 0.08f), OK);
}

static float *grads_of(const Spec *s, const Data *d, DType dt, Stage1Losses *l) {
    Trainer t;
    open_trainer(&t, s, dt);
    assert_int_equal(stage1_losses(t.self, &d->batch, 7, 1.0f, true, l), OK);
    float *g = mem_new((size_t)t.model.params.total, sizeof *g);
    memcpy(g, t.model.params.g, (size_t)t.model.params.total * sizeof *g);
    trainer_close(&t);
    return g;
}

static int64_t total_of(const Spec *s) {
    Trainer t;
    open_trainer(&t, s, DT_F32);
    int64_t n = t.model.params.total;
    trainer_close(&t);
    return n;
}

/* Dropout on: random bits belong to pairs, not to pieces. */
static void pieces_equal_the_whole(void **state) {
    (void)state;
    Data d;
    Stage1Losses a, b;
    make(&d);
    for (int ids = 0; ids < 2; ids++)
        for (int full = 0; full < 2; full++) {
            Spec one = spec_of(1, 0.1f), four = spec_of(4, 0.1f);
            one.step.image_ids = four.step.image_ids = ids;
            one.step.itc_full = four.step.itc_full = full;
            float *x = grads_of(&one, &d, DT_F32, &a), *y = grads_of(&four, &d, DT_F32, &b);
            assert_float_equal(a.loss, b.loss, 2e-6);
            assert_int_equal(a.itm_pairs, b.itm_pairs);
            assert_true(distance(y, x, total_of(&one)) < 2e-6);
            free(x);
            free(y);
        }
}

/* The walk back over the rows of both waves at once is the two walks, one after the other; also where some pairs, or
 * all, have no negatives. */
static void one_walk_is_two(void **state) {
    (void)state;
    Data d;
    Stage1Losses a, b;
    for (int same = 0; same < 3; same++) {
        make(&d);
        for (int i = 0; i < B; i++) d.image_id[i] = same == 2 ? 4 : same == 1 ? i / 4 : i;
        Spec s = spec_of(1, 0.1f);
        s.step.image_ids = true;
        float *x = grads_of(&s, &d, DT_F32, &a);
        Trainer t;
        open_trainer(&t, &s, DT_F32);
        ((Stage1 *)t.self)->together = false;
        assert_int_equal(stage1_losses(t.self, &d.batch, 7, 1.0f, true, &b), OK);
        assert_float_equal(a.loss, b.loss, 1e-6);
        assert_int_equal(a.itm_pairs, b.itm_pairs);
        assert_true(distance(x, t.model.params.g, t.model.params.total) < 2e-6);
        trainer_close(&t);
        free(x);
    }
}

/* What is kept for the walk back is what would be made again. */
static void room_changes_no_bit(void **state) {
    (void)state;
    Data d;
    Stage1Losses a, b;
    make(&d);
    for (int k = 0; k < 2; k++) {
        Spec s = spec_of(1, 0.1f), roomy = s;
        roomy.trainer.roomy = true;
        float *x = grads_of(&s, &d, k ? DT_BF16 : DT_F32, &a), *y = grads_of(&roomy, &d, k ? DT_BF16 : DT_F32, &b);
        assert_memory_equal(x, y, (size_t)total_of(&s) * sizeof *x);
        free(x);
        free(y);
    }
}

static void repeated_is_the_same_bits(void **state) {
    (void)state;
    Data d;
    Stage1Losses a, b;
    make(&d);
    Spec s = spec_of(1, 0.1f);
    for (int k = 0; k < 2; k++) {
        DType dt = k ? DT_BF16 : DT_F32;
        float *x = grads_of(&s, &d, dt, &a), *y = grads_of(&s, &d, dt, &b);
        assert_memory_equal(x, y, (size_t)total_of(&s) * sizeof *x);
        free(x);
        free(y);
    }
}

static void image_tokens_have_no_order(void **state) {
    (void)state;
    Data d, p;
    Stage1Losses a, b;
    make(&d);
    make(&p);
    for (int i = 0; i < B; i++)
        for (int k = 0; k < 9; k++) memcpy(p.features + (i * 9 + (k * 4 + 5) % 9) * 28, d.features + (i * 9 + k) * 28,
                                           28 * sizeof(float));
    Spec s = spec_of(1, 0);
    float *x = grads_of(&s, &d, DT_F32, &a), *y = grads_of(&s, &p, DT_F32, &b);
    assert_float_equal(a.loss, b.loss, 2e-6);
    assert_true(distance(y, x, total_of(&s)) < 5e-6);
    free(x);
    free(y);
}

/* Loss along the gradient: (f(w + h u) - f(w - h u)) / 2h = |g| for u = g / |g|. Everything but the arg-max is smooth,
 * and the objective of `full` is a function of the weights, so its gradient must be this one. */
static void gradient_is_the_slope(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    make(&d);
    int32_t neg[B];
    for (int i = 0; i < B; i++) neg[i] = (i + 3) % B;
    d.batch.negative_image = d.batch.negative_text = neg;
    Spec s = spec_of(1, 0.1f);
    s.step.itc_full = true;
    Trainer t;
    open_trainer(&t, &s, DT_F32);
    int64_t n = t.model.params.total;
    assert_int_equal(stage1_losses(t.self, &d.batch, 7, 1.0f, true, &l), OK);
    double norm = 0, f[2];
    for (int64_t i = 0; i < n; i++) norm += (double)t.model.params.g[i] * t.model.params.g[i];
    norm = sqrt(norm);
    float *w = mem_new((size_t)n, sizeof *w), *g = mem_new((size_t)n, sizeof *g);
    memcpy(w, t.model.params.w, (size_t)n * sizeof *w);
    memcpy(g, t.model.params.g, (size_t)n * sizeof *g);
    const double h = 2.5e-4;             /* so small that no arg-max changes hands */
    for (int k = 0; k < 2; k++) {
        for (int64_t i = 0; i < n; i++) t.model.params.w[i] = w[i] + (float)((k ? -h : h) * g[i] / norm);
        assert_int_equal(stage1_losses(t.self, &d.batch, 7, 1.0f, true, &l), OK);   /* with dropout: the same masks */
        f[k] = l.loss;
    }
    assert_float_equal((float)((f[0] - f[1]) / (2 * h) / norm), 1.0f, 5e-3f);
    free(w);
    free(g);
    trainer_close(&t);
}

static void the_plan_is_what_is_taken(void **state) {
    (void)state;
    for (int micro = 1; micro <= 4; micro *= 2)
        for (int k = 0; k < 2; k++) {
            Spec s = spec_of(micro, 0.1f);
            Trainer t;
            Data d;
            Stage1Losses l;
            make(&d);
            for (int i = 0; i < B; i++) {                    /* the longest captions that were planned for */
                d.len[i] = 10;
                for (int j = 0; j < 10; j++) d.ids[i * 10 + j] = 4 + j;
            }
            int32_t neg[B];
            for (int i = 0; i < B; i++) neg[i] = (i + 1) % B;
            d.batch.negative_image = d.batch.negative_text = neg;
            open_trainer(&t, &s, k ? DT_BF16 : DT_F32);
            assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
            assert_int_equal(t.run.used, t.run.size);
            if (micro == 1) assert_int_equal(t.stepmem.peak, t.plan.step);
            else assert_true(t.stepmem.peak <= t.plan.step);  /* planned for draws that crowd on one piece */
            assert_float_equal(stage1_of(&t)->tape.flops, t.plan.flops, 0.5);
            trainer_close(&t);
        }
}

/* Sixty-four pieces: draws that crowd on one of them leave the others theirs. And a batch that nobody measures in full
 * is what it would be, but for where arrays begin. */
static void the_plan_of_many_pairs(void **state) {
    (void)state;
    Plan exact, seen;
    for (int64_t pairs = 1024; pairs <= 131072; pairs *= 128) {
        Spec s = spec_of(pairs == 1024 ? 64 : 2, 0.1f);
        s.trainer.spec = &s.step, s.trainer.B = pairs;
        assert_int_equal(trainer_plan(&exact, backend_null(DT_BF16), &s.trainer), OK);
        assert_int_equal(trainer_foresee(&seen, backend_null(DT_BF16), &s.trainer), OK);
        assert_true(fabs((double)plan_bytes(&seen) / (double)plan_bytes(&exact) - 1) < 1e-6);
        assert_true(fabs(seen.flops / exact.flops - 1) < 1e-6);
    }
}

/* More text than was planned: a sentence, and nothing is written past the end. */
static void too_much_is_a_sentence(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    Trainer t;
    make(&d);
    Spec s = spec_of(1, 0);
    s.trainer.tokens = 2;
    open_trainer(&t, &s, DT_F32);
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), ERR_MEMORY);
    assert_non_null(strstr(err_message(), "more text than the plan allowed"));
    trainer_close(&t);
}

static void frozen_stays(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    Trainer t;
    make(&d);
    Spec s = spec_of(1, 0);
    s.trainer.params.freeze = "*embeddings*,*layer.1.*";
    open_trainer(&t, &s, DT_F32);
    float *before = mem_new((size_t)t.model.params.total, sizeof *before);
    memcpy(before, t.model.params.w, (size_t)t.model.params.total * sizeof *before);
    AdamSpec a = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .clip = 1};
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
    assert_int_equal(learner_update(&t, &a, 1e-2, 1, NULL), OK);
    for (int i = 0; i < t.model.params.n; i++) {
        const ParamTensor *p = &t.model.params.tensor[i];
        bool frozen = strstr(p->name, "embeddings") || strstr(p->name, "layer.1.");
        assert_int_equal(p->frozen, frozen);
        bool same = memcmp(before + p->at, t.model.params.w + p->at, (size_t)p->n * sizeof *before) == 0;
        if (frozen) assert_true(same);
        else if (!strstr(p->name, "key.bias")) assert_false(same);
    }
    free(before);
    trainer_close(&t);
}

/* A tensor moves as far as its factor says: AdamW's first step without decay is the rate alone. */
static void rates_scale_steps(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    Trainer t[2];
    make(&d);
    Spec s = spec_of(1, 0);
    AdamSpec a = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f};
    float *before = NULL;
    for (int k = 0; k < 2; k++) {
        s.trainer.params.rates = k ? "*.bias=0,*layer.1.*=0.5,*proj*=4" : NULL;
        open_trainer(&t[k], &s, DT_F32);
        if (!k) before = mem_new((size_t)t[k].model.params.total, sizeof *before);
        if (!k) memcpy(before, t[k].model.params.w, (size_t)t[k].model.params.total * sizeof *before);
        assert_int_equal(stage1_losses(t[k].self, &d.batch, 0, 1.0f, true, &l), OK);
        assert_int_equal(learner_update(&t[k], &a, 1e-2, 1, NULL), OK);
    }
    assert_true(t[1].model.params.nranges > t[0].model.params.nranges);
    for (int i = 0; i < t[0].model.params.n; i++) {
        const ParamTensor *p = &t[0].model.params.tensor[i];
        size_t n = strlen(p->name);
        double factor = n > 5 && strcmp(p->name + n - 5, ".bias") == 0 ? 0 : strstr(p->name, "layer.1.") ? 0.5
                      : strstr(p->name, "proj") ? 4 : 1;
        assert_true(t[1].model.params.tensor[i].rate == (float)factor && t[1].model.params.tensor[i].at == p->at);
        for (int64_t j = p->at; j < p->at + p->n; j++) {
            double plain = (double)t[0].model.params.w[j] - before[j], own = (double)t[1].model.params.w[j] - before[j];
            /* weights are below 4: a step is known to their last bit */
            if (fabs(own - factor * plain) > 4e-6) fail_msg("%s moved by %g, not %g times %g", p->name, own, factor, plain);
        }
    }
    free(before);
    for (int k = 0; k < 2; k++) trainer_close(&t[k]);
}

/* Holes between blocks of gradients may cost more in a batch that is smaller than the measured one: the walk back then
 * takes what is missing from outside, and the numbers are the same. */
static void holes_cost_memory_not_the_run(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    Trainer t;
    make(&d);
    Spec s = spec_of(1, 0);
    s.step.itg = 0;                                          /* else the most is wanted before the walk back */
    open_trainer(&t, &s, DT_F32);
    size_t bytes = (size_t)t.model.params.total * sizeof(float), most = t.stepmem.size;
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
    float *whole = mem_new(bytes, 1);
    memcpy(whole, t.model.params.g, bytes);
    int extra = 0;
    for (size_t less = 4096; t.stepmem.size > most / 2; less += less / 8) {
        memset(t.model.params.g, 0, bytes);
        t.stepmem.size = most - less;
        Status st = stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l);
        if (st == ERR_MEMORY) break;                           /* not even the forward pass has room */
        assert_int_equal(st, OK);
        extra += stage1_of(&t)->tape.nextra;
        assert_memory_equal(whole, t.model.params.g, bytes);
    }
    assert_true(extra > 0);
    free(whole);
    trainer_close(&t);
}

static void a_bad_gradient_is_named(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    Trainer t;
    make(&d);
    Spec s = spec_of(1, 0);
    open_trainer(&t, &s, DT_F32);
    const ParamTensor *bad;
    AdamSpec a = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f};
    size_t bytes = (size_t)t.model.params.total * sizeof(float);
    float *before = mem_new(bytes, 1);
    params_get(&t.model.params, P_ITM_W, -1).w[1] = INFINITY;
    memcpy(before, t.model.params.w, bytes);
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
    assert_int_equal(learner_update(&t, &a, 1e-2, 1, &bad), OK);
    bool finite = isfinite(*t.norm);
    assert_false(finite);
    assert_non_null(bad);
    assert_memory_equal(before, t.model.params.w, bytes);            /* enqueued all the same, it changed nothing */
    for (int64_t i = 0; i < t.model.params.total; i++) assert_true(t.model.params.m[i] == 0);
    /* and the next backward begins anew: nothing of it is left */
    params_get(&t.model.params, P_ITM_W, -1).w[1] = 0.5f;
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
    memcpy(before, t.model.params.g, bytes);
    for (int64_t i = 0; i < t.model.params.total; i++) assert_true(isfinite(before[i]));
    assert_int_equal(learner_update(&t, &a, 0, 1, &bad), OK);
    memset(t.model.params.g, 0x7f, bytes);                   /* what an update leaves is not read */
    for (int i = 0; i < t.model.params.nranges; i++) {
        const ParamRange *r = &t.model.params.range[i];
        if (!r->decay) memset(t.model.params.g + r->at, 0, (size_t)r->n * sizeof(float));
    }
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
    for (int i = 0; i < t.model.params.n; i++) {
        const ParamTensor *p = &t.model.params.tensor[i];
        assert_memory_equal(before + p->at, t.model.params.g + p->at, (size_t)p->n * sizeof *before);
    }
    free(before);
    trainer_close(&t);
}

/* Twenty steps on one batch: all losses fall, and bf16 follows f32 within 2 %. */
static void it_learns_in_both_types(void **state) {
    (void)state;
    Data d;
    make(&d);
    double loss[2] = {0, 0}, first = 0;
    for (int k = 0; k < 2; k++) {
        Spec s = spec_of(1, 0);
        Trainer t;
        Stage1Losses l;
        AdamSpec a = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f};
        int32_t neg[B];
        for (int i = 0; i < B; i++) neg[i] = (i + 3) % B;
        d.batch.negative_image = d.batch.negative_text = neg;
        open_trainer(&t, &s, k ? DT_BF16 : DT_F32);
        for (int i = 0; i < 20; i++) {
            assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
            if (i == 0) first = l.loss;
            assert_int_equal(learner_update(&t, &a, 2e-3, i + 1, NULL), OK);
        }
        loss[k] = l.loss;
        trainer_close(&t);
    }
    assert_true(loss[0] < 0.8 * first);
    assert_true(fabs(loss[1] - loss[0]) < 0.02 * loss[0]);
}

/* The encoder's features and logits are those of the training step without dropout. */
static void encoder_agrees_with_the_step(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    Trainer t;
    Encoder e;
    make(&d);
    Spec s = spec_of(1, 0);
    open_trainer(&t, &s, DT_F32);
    assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, false, &l), OK);
    assert_int_equal(encoder_open(&e, cpu(DT_F32), &t.model, 3, DT_F32), OK);
    float I[B * 5 * 20], T[B * 20], logits[2 * B];
    assert_int_equal(encode_images(&e, (FeatureRows){d.features, NULL}, B, I), OK);
    assert_int_equal(encode_texts(&e, d.ids, d.len, B, T), OK);
    for (int i = 0; i < B * 100; i++) assert_float_equal(I[i], stage1_of(&t)->contrast.I[i], 2e-6);
    for (int i = 0; i < B * 20; i++) assert_float_equal(T[i], stage1_of(&t)->contrast.T[i], 2e-6);
    int32_t image[B];
    for (int i = 0; i < B; i++) image[i] = i % 3;
    assert_int_equal(encode_image_keys(&e, (FeatureRows){d.features, NULL}, 3), OK);
    assert_int_equal(encode_pairs(&e, image, d.ids, d.len, B, logits), OK);
    float again[2];
    for (int i = 0; i < B; i++) {                            /* a pair alone gives what it gave among others */
        assert_int_equal(encode_pairs(&e, image + i, d.ids + i * 10, d.len + i, 1, again), OK);
        assert_float_equal(again[1], logits[2 * i + 1], 2e-5);
    }
    encoder_close(&e);
    trainer_close(&t);
}

/* What -vv shows: every op once on the way there and once on the way back,
 * and who made the first number that is none. */
static struct { int forward, back, first_bad; char bad[256], last[256]; } seen;
static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(seen.last, sizeof seen.last, fmt, ap);
    va_end(ap);
    bool bad = strstr(seen.last, "not finite") != NULL;
    if (bad && !seen.first_bad++) snprintf(seen.bad, sizeof seen.bad, "%s", seen.last);
    seen.forward += !bad && strncmp(seen.last, "forward ", 8) == 0;
    seen.back += !bad && strncmp(seen.last, "back ", 5) == 0;
}

static void watched_ops_are_told(void **state) {
    (void)state;
    Data d;
    Stage1Losses l;
    make(&d);
    for (int broken = 0; broken < 2; broken++) {
        Trainer t;
        Watch w = {.say = note};
        Spec s = spec_of(1, 0);
        memset(&seen, 0, sizeof seen);
        open_trainer(&t, &s, DT_F32);
        if (broken) params_get(&t.model.params, P_ITM_W, -1).w[1] = INFINITY;
        watch_tape(&w, objective_tape(t.objective, t.self));
        assert_int_equal(stage1_losses(t.self, &d.batch, 0, 1.0f, true, &l), OK);
        if (seen.back != seen.forward || seen.forward < 50)
            fail_msg("%d forward, %d back", seen.forward, seen.back);
        assert_int_equal(seen.first_bad, broken);
        if (broken) assert_non_null(strstr(seen.bad, "forward linear: its result is the first number"));
        trainer_close(&t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_equal_the_whole),    cmocka_unit_test(one_walk_is_two),
        cmocka_unit_test(room_changes_no_bit),
            cmocka_unit_test(repeated_is_the_same_bits),
        cmocka_unit_test(image_tokens_have_no_order), cmocka_unit_test(gradient_is_the_slope),
        cmocka_unit_test(the_plan_is_what_is_taken), cmocka_unit_test(the_plan_of_many_pairs),
        cmocka_unit_test(too_much_is_a_sentence),
        cmocka_unit_test(frozen_stays), cmocka_unit_test(rates_scale_steps),              cmocka_unit_test(a_bad_gradient_is_named),
        cmocka_unit_test(holes_cost_memory_not_the_run),
        cmocka_unit_test(it_learns_in_both_types),   cmocka_unit_test(watched_ops_are_told),
        cmocka_unit_test(encoder_agrees_with_the_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
