/* stage2, lm: a tiny Q-Former that speaks to tiny frozen language models of each family. Gradients against differences
 * of losses; pieces, shared prefixes and single texts against each other; cached keys against whole passes; and the
 * language model's weights stay as they were. Numbers of the published models' arithmetic: make golden,
 * golden/stage2. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/lm_decoder.h"
#include "tests/kit/check.h"
#include "tests/kit/learner.h"
#include "train/optim.h"
#include "train/stage2.h"

enum { B = 4, P = 5, E = 12, Q = 3, TEXTS = 3, IDS = 9, V = 31, ROWS = 40 };

static const LmDims families[] = {
    {.family = LM_OPT, .L = 2, .C = 16, .E = 16, .H = 4, .K = 4, .D = 4, .F = 24, .V = V, .N = 48, .eps = 1e-5,
     .act = ACT_RELU, .pre_norm = true, .last_norm = true, .qkv_bias = true, .out_bias = true, .ffn_bias = true},
    {.family = LM_OPT, .L = 2, .C = 16, .E = 12, .H = 2, .K = 2, .D = 8, .F = 24, .V = V, .N = 48, .eps = 1e-5,
     .act = ACT_GELU, .qkv_bias = true, .out_bias = true, .ffn_bias = true},
    {.family = LM_LLAMA, .L = 2, .C = 16, .E = 16, .H = 4, .K = 2, .D = 6, .F = 24, .V = V, .N = 48, .eps = 1e-6,
     .act = ACT_SILU, .gated = true, .pre_norm = true, .last_norm = true, .qkv_bias = true, .head = LM_HEAD_OWN,
     .rope = {.theta = 100.0}},
    {.family = LM_T5, .L = 2, .M = 2, .C = 16, .E = 16, .H = 2, .K = 2, .D = 6, .F = 24, .V = V, .eps = 1e-6,
     .act = ACT_GELU_TANH, .gated = true, .pre_norm = true, .last_norm = true, .head = LM_HEAD_OWN, .buckets = 8,
     .distance = 20},
};
enum { FAMILIES = sizeof families / sizeof *families };

typedef struct {
    const Backend *b;
    Arena run, step;
    QFormer model;
    Lm lm;
    Stage2 s;
    void *scratch;
} Fixture;

static Status build(Fixture *f, const LmDims *d, const Stage2Spec *spec, int micro) {
    Dims q = {.L = 2, .C = 16, .H = 2, .F = 20, .Q = Q, .E = E, .P = P, .X = 2, .W = d->E};
    Status st = qformer_open(&f->model, &q, f->b, &f->run, &(ParamsSpec){.training = true});
    if (st == OK) st = lm_open(&f->lm, d, f->b, &f->run, ROWS);
    f->scratch = arena_push(&f->run, optim_scratch(), 1);
    f->b->set_workspace(arena_push(&f->run, f->b->workspace, 1), f->b->workspace);
    Stage2Spec s = *spec;
    s.lm = &f->lm;
    return st == OK ? stage2_open(&f->s, &(ObjectiveSite){f->b, &f->model, &f->run, &f->step, B, micro}, &s) : st;
}

static void shut(Fixture *f) {
    stage2_close(&f->s);
    lm_close(&f->lm);
    qformer_close(&f->model);
}

/* Memory is measured as the trainer does it: the largest batch on the null backend. */
static void open_spec(Fixture *f, const LmDims *d, int micro, Stage2Spec spec) {
    Backend null = backend_measuring(backend_cpu(DT_F32));
    Fixture m = {.b = &null};
    ObjectiveBatch worst;
    ObjectiveLosses l;
    void *room;
    arena_measure(&m.run, "run");
    arena_measure(&m.step, "step");
    assert_int_equal(build(&m, d, &spec, micro), OK);
    assert_int_equal(stage2_worst_batch(&worst, &m.s, DT_F32, &room), OK);
    assert_int_equal(stage2_losses(&m.s, &worst, 0, 1, true, &l), OK);
    free(room);
    *f = (Fixture){.b = backend_cpu(DT_F32)};
    assert_int_equal(arena_open(&f->run, "run's", f->b, m.run.peak), OK);
    assert_int_equal(arena_open(&f->step, "step's", f->b, m.step.peak), OK);
    shut(&m);
    assert_int_equal(build(f, d, &spec, micro), OK);
    assert_int_equal(params_init(&f->model.params, 5, 0.3f), OK);
    assert_int_equal(params_init(&f->lm.params, 7, 0.3f), OK);
    assert_int_equal(lm_ready(&f->lm), OK);
    f->b->zero(f->model.params.g, (size_t)f->model.params.learns * sizeof(float));
}

static void open_fixture(Fixture *f, const LmDims *d, int micro, bool apart) {
    open_spec(f, d, micro, (Stage2Spec){.texts = TEXTS, .ids = IDS, .apart = apart, .seed = 3});
}

static void close_fixture(Fixture *f) {
    shut(f);
    arena_close(&f->step, f->b);
    arena_close(&f->run, f->b);
}

/* ---- a batch ----------------------------------------------------------------------------------------------------- */

typedef struct { float features[B * P * E]; int32_t ids[B * TEXTS][IDS]; LmItem items[B * TEXTS]; ObjectiveBatch batch;
                } Data;

/* Images with 3, 1, 2 and no texts; of two prompts. */
static void make_batch(Data *x) {
    static const int counts[B] = {3, 1, 2, 0};
    uint32_t k = 0;
    x->batch = (ObjectiveBatch){.features = x->features, .dt = DT_F32, .said = x->items};
    for (int i = 0; i < B * P * E; i++) x->features[i] = 2 * rng_unit(philox((uint32_t)i, 1, 2, 3, 4, 5).v[0]) - 1;
    for (int i = 0; i < B; i++)
        for (int t = 0; t < counts[i]; t++) {
            int n = x->batch.nsaid++;
            x->items[n] = (LmItem){.image = i, .ids = x->ids[n], .n = IDS - t, .target = 2 + t % 2};
            for (int j = 0; j < IDS; j++) x->ids[n][j] = j < 2 ? 4 + j : (int32_t)(philox(k++, 7, 7, 7, 7, 7).v[0] % V);
        }
}

static ObjectiveLosses losses_at(Fixture *f, const Data *x, uint32_t step, bool grad) {
    ObjectiveLosses l;
    if (stage2_losses(&f->s, &x->batch, step, 1, grad, &l) != OK) fail_msg("%s", err_message());
    return l;
}

static ObjectiveLosses losses(Fixture *f, const Data *x, bool grad) { return losses_at(f, x, 0, grad); }

static float *gradients(Fixture *f) {
    float *g = mem_new((size_t)f->model.params.learns, sizeof *g);
    assert_non_null(g);
    f->b->download(g, f->model.params.g, (size_t)f->model.params.learns * sizeof *g);
    return g;
}

static void near(const float *a, const float *b, int64_t n, double tolerance) {
    double d = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) d += pow((double)a[i] - b[i], 2), norm += pow(b[i], 2);
    assert_true(norm > 0);
    if (sqrt(d / norm) > tolerance) fail_msg("differ by %.3g of their norm", sqrt(d / norm));
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

/* Along a random direction of one tensor: (loss(+h) - loss(-h)) / 2h. */
static void check_direction(Fixture *f, const Data *x, const ParamTensor *t, const float *g) {
    const float h = 4e-3f;
    float *w = mem_new((size_t)t->n, sizeof *w), *moved = mem_new((size_t)t->n, sizeof *w);
    double slope = 0, got[2], norm = 0;
    assert_true(w && moved);
    params_read(&f->model.params, t, f->model.params.w, w);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < t->n; i++) {
            float v = 2 * rng_unit(philox((uint32_t)i, 9, 9, 9, 9, 9).v[0]) - 1;
            moved[i] = w[i] + (side ? -h : h) * v;
            if (!side) slope += (double)v * g[t->at + i], norm += pow(g[t->at + i], 2);
        }
        params_write(&f->model.params, t, f->model.params.w, moved);
        params_refresh(&f->model.params);
        got[side] = losses(f, x, f->s.spec.lm_dropout).loss;     /* nothing is dropped where nothing is learned */
    }
    params_write(&f->model.params, t, f->model.params.w, w);
    params_refresh(&f->model.params);
    double difference = (got[0] - got[1]) / (2 * h), error = fabs(difference - slope);
    if (error > 2e-2 * sqrt(norm) + 2e-4) fail_msg("%s: slope %.6g, difference %.6g", t->name, slope, difference);
    free(w);
    free(moved);
}

static void gradients_are_slopes(void **state) {
    (void)state;
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f;
        Data x;
        make_batch(&x);
        open_fixture(&f, &families[k], 1, false);
        losses(&f, &x, true);
        float *g = gradients(&f);
        const int rows[] = {P_QUERY, P_SPEAK_W, P_SPEAK_B, P_LN_VISION_W};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            check_direction(&f, &x, params_tensor(&f.model.params, rows[i], -1), g);
        check_direction(&f, &x, params_tensor(&f.model.params, P_QFFN_IN_W, 0), g);
        check_direction(&f, &x, params_tensor(&f.model.params, P_SELF_Q_W, 1), g);
        free(g);
        close_fixture(&f);
    }
}

/* Inside the language model: the gradient goes by what was dropped; bits hang on the step and the text, not on pieces;
 * without a gradient nothing is dropped. */
static void the_language_model_drops(void **state) {
    (void)state;
    const Stage2Spec spec = {.texts = TEXTS, .ids = IDS, .lm_dropout = true, .seed = 3};
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f, pieces, plain;
        Data x;
        LmDims d = families[k];
        d.dropout = d.family == LM_LLAMA ? 0 : 0.2f, d.prob_dropout = 0.15f;
        make_batch(&x);
        open_spec(&f, &d, 1, spec);
        open_spec(&pieces, &d, 2, spec);
        open_fixture(&plain, &d, 1, false);
        double loss = losses(&f, &x, true).loss, quiet = losses(&plain, &x, true).loss;
        float *g = gradients(&f), *h;
        check_direction(&f, &x, params_tensor(&f.model.params, P_QUERY, -1), g);
        check_direction(&f, &x, params_tensor(&f.model.params, P_SPEAK_W, -1), g);
        assert_true(losses(&f, &x, true).loss == loss && losses_at(&f, &x, 1, true).loss != loss && loss != quiet);
        assert_true(losses(&f, &x, false).loss == losses(&plain, &x, false).loss);
        assert_true(fabs(losses(&pieces, &x, true).loss - loss) < 1e-6 * fabs(loss));
        near(h = gradients(&pieces), g, f.model.params.learns, 1e-5);
        free(g);
        free(h);
        close_fixture(&f);
        close_fixture(&pieces);
        close_fixture(&plain);
    }
}

/* Pieces, and texts each with a prefix of its own: the same loss and the same gradient. */
static void the_same_by_other_ways(void **state) {
    (void)state;
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f, other;
        Data x;
        make_batch(&x);
        open_fixture(&f, &families[k], 1, false);
        ObjectiveLosses l = losses(&f, &x, true);
        float *g = gradients(&f);
        for (int way = 0; way < 2; way++) {
            open_fixture(&other, &families[k], way ? 1 : 2, way);
            ObjectiveLosses m = losses(&other, &x, true);
            float *h = gradients(&other);
            assert_true(fabs(m.loss - l.loss) < 1e-6 * fabs(l.loss));
            assert_true(m.value[1] == l.value[1]);           /* targets */
            near(h, g, f.model.params.learns, 1e-5);
            free(h);
            close_fixture(&other);
        }
        free(g);
        close_fixture(&f);
    }
}

/* The loss of all texts is the mean of each by itself, by their targets. */
static void packed_is_one_by_one(void **state) {
    (void)state;
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f;
        Data x;
        double sum = 0;
        make_batch(&x);
        open_fixture(&f, &families[k], 1, false);
        ObjectiveLosses l = losses(&f, &x, false);
        for (int i = 0; i < x.batch.nsaid; i++) {
            Data one = x;
            one.batch = (ObjectiveBatch){.features = one.features, .dt = DT_F32, .said = &x.items[i], .nsaid = 1};
            ObjectiveLosses m = losses(&f, &one, false);
            sum += m.loss * m.value[1];
        }
        assert_true(fabs(sum / l.value[1] - l.loss) < 1e-6 * fabs(l.loss));
        close_fixture(&f);
    }
}

static void the_language_model_stays(void **state) {
    (void)state;
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f;
        Data x;
        uint64_t before, after;
        float norm;
        make_batch(&x);
        open_fixture(&f, &families[k], 1, false);
        assert_int_equal(learner_checksum(&f.lm, &before), OK);
        double first = losses(&f, &x, false).loss;
        AdamSpec a = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f};
        for (int i = 1; i <= 20; i++) {
            losses(&f, &x, true);
            assert_int_equal(optim_norm(&f.model.params, f.scratch, 0, &norm), OK);
            assert_int_equal(optim_update(&f.model.params, f.scratch, &a, 1e-2, i), OK);
            optim_end(&f.model.params, true, NULL);
        }
        double last = losses(&f, &x, false).loss;
        if (last > 0.995 * first) fail_msg("%g, then %g", first, last);   /* it learns ... */
        assert_int_equal(learner_checksum(&f.lm, &after), OK);
        assert_true(before == after);                                   /* ... and leaves it alone */
        close_fixture(&f);
    }
}

/* The longest texts that were planned for take what was planned, to the byte. */
static void the_plan_is_what_is_taken(void **state) {
    (void)state;
    for (int k = 0; k < FAMILIES; k++)
        for (int micro = 1; micro <= 2; micro++) {
            Fixture f;
            Data x;
            ObjectiveBatch worst;
            void *room;
            LmDims d = families[k];
            d.held = micro == 2 ? DT_BF16 : DT_F32;
            make_batch(&x);
            open_fixture(&f, &d, micro, false);
            losses(&f, &x, true);
            assert_true(f.step.peak < f.step.size);
            assert_int_equal(stage2_worst_batch(&worst, &f.s, DT_F32, &room), OK);
            x.batch = worst, x.batch.features = x.features;
            losses(&f, &x, true);
            assert_int_equal(f.step.peak, f.step.size);
            assert_int_equal(f.run.used, f.run.size);
            free(room);
            close_fixture(&f);
        }
}

/* ---- weights in 16 bits under f32 -------------------------------------------------------------------------------- */

/* The numbers that a holds, in f32. */
static void copy_numbers(Fixture *to, const Fixture *from) {
    for (int i = 0; i < from->lm.params.n; i++) {
        const ParamTensor *t = &from->lm.params.tensor[i];
        float *x = mem_new((size_t)t->n, sizeof *x);
        assert_int_equal(params_values(&from->lm.params, t, x), OK);
        assert_int_equal(params_put(&to->lm.params, &to->lm.params.tensor[i], 0, t->n, x, DT_F32), OK);
        free(x);
    }
    assert_int_equal(lm_ready(&to->lm), OK);
}

/* Losses of a batch and of one text, whose head's product is thin, and gradients. */
static void held_is_wide(void **state) {
    (void)state;
    enum { THIN = 1 << 14, PANELS = 140000 };
    static const int32_t words[] = {V, THIN, PANELS};
    for (int k = 0; k < 3 * FAMILIES; k++) {
        Fixture a, b;
        Data x;
        LmDims d = families[k / 3];
        make_batch(&x);
        d.V = words[k % 3], d.held = k % 2 ? DT_F16 : DT_BF16;
        /* once will do: it is half a gigabyte of logits and gradients */
        if (d.V == PANELS && d.family != LM_LLAMA) continue;
        open_fixture(&a, &d, 1, false);
        d.held = DT_F32;
        open_fixture(&b, &d, 1, false);
        copy_numbers(&b, &a);
        assert_true(a.run.size < b.run.size);
        assert_true(losses(&a, &x, true).loss == losses(&b, &x, true).loss);
        float *g = gradients(&a), *h = gradients(&b);
        /* the sum over words is taken in parts there */
        if (d.V == PANELS) near(g, h, a.model.params.learns, 1e-6);
        else assert_memory_equal(g, h, (size_t)a.model.params.learns * sizeof *g);
        free(g), free(h);
        x.batch.said += 3, x.batch.nsaid = 1;
        assert_true(losses(&a, &x, false).loss == losses(&b, &x, false).loss);
        close_fixture(&a);
        close_fixture(&b);
    }
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* Logits of all ids behind a prefix, from one pass. */
static void whole_pass(Fixture *f, LmPrefix p, const int32_t *ids, int32_t n, Tensor soft, float *logits) {
    LmText s = {.ids = ids, .n = n};
    LmWave w;
    tape_reset(&f->s.tape, false);
    staging_reset(&f->s.lm_room);
    lm_wave_build(&w, &f->s.lm_room, &f->lm.d, &p, 1, &s, 1);
    staging_upload(&f->s.lm_room);
    Tensor h = lm_hidden(&f->s.tape, &f->lm, &w, soft), out = tape_new(&f->s.tape, w.T, V, DT_F32);
    lm_logits(&f->s.tape, &f->lm, out, h);
    for (int32_t i = 0; i < n; i++)
        memcpy(logits + w.order[i] * V, (float *)out.data + i * V, V * sizeof *logits);
    assert_int_equal(tape_status(&f->s.tape), OK);
}

/* Three prefixes, two of them of one picture; a text behind each, one that moves to another slot half way. */
static void cached_is_uncached(void **state) {
    (void)state;
    static const int32_t prompt[2][3] = {{5, 9, 2}, {7, 1, 3}}, said[3][6] = {{3, 4, 8, 2, 9, 1}, {6, 6, 2, 1, 0, 5},
                                                                              {1, 2, 3, 4, 5, 6}};
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f;
        LmDecoder g;
        const LmDims *d = &families[k];
        bool t5 = d->family == LM_T5;
        float rows[2 * Q * 16], want[3][6 * V];
        const float *logits = NULL;
        open_fixture(&f, d, 1, false);
        for (int i = 0; i < 2 * Q * 16; i++) rows[i] = 2 * rng_unit(philox((uint32_t)i, 5, 2, 3, 4, 5).v[0]) - 1;
        Tensor soft = tape_leaf(rows, 2 * Q, d->E, DT_F32);
        LmPrefix p[3] = {{.nsoft = Q, .ids = prompt[0], .n = 3}, {.nsoft = Q, .ids = prompt[1], .n = 2},
                         {.soft = Q, .nsoft = Q, .ids = prompt[1], .n = 3}};
        for (int i = 0; i < 3; i++) whole_pass(&f, p[i], said[i], 6, soft, want[i]);
        assert_int_equal(lm_decoder_open(&g, f.b, &f.lm, &(LmDecoderSpec){3, 5, 6, Q + 3}), OK);
        Decoder dec = lm_decoder(&g);
        assert_int_equal(dec.prefix(dec.self, &(LmGiven){soft, p}, 0, 3, &logits), OK);
        for (int i = 0; i < 3 && !t5; i++) near(logits + i * V, want[i], V, 1e-5);
        for (int at = 0; at < 5; at++) {
            DecoderRow r[3];
            DecoderCopy copy = {1, 4};
            for (int i = 0; i < 3; i++)
                r[i] = (DecoderRow){i, i == 1 && at > 2 ? 4 : i, !t5 ? said[i][at] : at ? said[i][at - 1] : d->start};
            assert_int_equal(dec.step(dec.self, at, r, 3, &copy, at == 3, &logits), OK);
            for (int i = 0; i < 3; i++) near(logits + i * V, want[i] + (at + !t5) * V, V, 1e-5);
        }
        lm_decoder_close(&g);
        close_fixture(&f);
    }
}

/* Weights and biases of the queries become zero in all layers: whoever asks nothing looks at all alike. */
static void ask_nothing(Params *p) {
    float *zero = mem_new(1 << 12, sizeof *zero);
    for (int i = 0; i < p->n; i++)
        if (strstr(p->tensor[i].name, "q_proj"))
            assert_int_equal(params_put(p, &p->tensor[i], 0, p->tensor[i].n, zero, DT_F32), OK);
    free(zero);
}

/* Shares of attention add up to one; of a model that asks nothing they are equal; a row alone looks at itself. */
static void gaze_is_attention(void **state) {
    (void)state;
    static const int32_t prompt[3] = {5, 9, 2};
    for (int k = 0; k < FAMILIES; k++) {
        Fixture f;
        LmDecoder g;
        float rows[Q * 16], share[Q + 3], sum = 0;
        if (families[k].family == LM_T5) continue;
        open_fixture(&f, &families[k], 1, false);
        for (int i = 0; i < Q * 16; i++) rows[i] = 2 * rng_unit(philox((uint32_t)i, 5, 2, 3, 4, 5).v[0]) - 1;
        Tensor soft = tape_leaf(rows, Q, families[k].E, DT_F32);
        LmPrefix p = {.nsoft = Q, .ids = prompt, .n = 3}, alone = {.ids = prompt, .n = 1};
        assert_int_equal(lm_decoder_open(&g, f.b, &f.lm, &(LmDecoderSpec){1, 1, 2, Q + 3}), OK);
        assert_int_equal(lm_decoder_gaze(&g, soft, &p, share), OK);
        for (int i = 0; i < Q + 3; i++) {
            sum += share[i];
            assert_true(share[i] > 0 && fabsf(share[i] - 1.0f / (Q + 3)) > 1e-6f);
        }
        assert_true(fabsf(sum - 1) < 1e-5f);
        ask_nothing(&f.lm.params);
        assert_int_equal(lm_decoder_gaze(&g, soft, &p, share), OK);
        for (int i = 0; i < Q + 3; i++) assert_true(fabsf(share[i] - 1.0f / (Q + 3)) < 1e-6f);
        assert_int_equal(lm_decoder_gaze(&g, (Tensor){0}, &alone, share), OK);
        assert_true(fabsf(share[0] - 1) < 1e-6f);
        lm_decoder_close(&g);
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_slopes), cmocka_unit_test(the_same_by_other_ways),
        cmocka_unit_test(the_language_model_drops),
        cmocka_unit_test(packed_is_one_by_one), cmocka_unit_test(the_language_model_stays),
        cmocka_unit_test(the_plan_is_what_is_taken), cmocka_unit_test(held_is_wide),
        cmocka_unit_test(cached_is_uncached), cmocka_unit_test(gaze_is_attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
