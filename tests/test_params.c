/* test_params: the table of learned tensors as a value: names, places and shapes that follow from rows; the frozen
 * store, its size and what goes in and out; what a frozen model does not allocate, and that it leaves the others'
 * gradients alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/mem.h"
#include "tests/kit/learner.h"
#include "train/stage1.h"
#include "train/trainer.h"

/* A decoder with pre-norm layers, as OPT has them; B says whether there are biases, W whether words have a width of
 * their own. */
enum { WORD, POSITION, IN, NORM_W, NORM_B, Q_W, K_W, V_W, O_W, Q_B, K_B, V_B, O_B, FC1_W, FC1_B, FC2_W, FC2_B, LAST_W,
      ROWS };
static const ParamRow rows[ROWS] = {
    {.name = "decoder.embed_tokens.weight", .shape = "VW", .where = "", .also = "lm_head.weight"},
    {.name = "decoder.embed_positions.weight", .shape = "NC", .where = ""},
    {.name = "decoder.project_in.weight", .shape = "CW", .where = "?J"},
    {.name = "decoder.layers.%d.norm.weight", .shape = "C", .where = "L", .block = 1, .start = START_ONES},
    {.name = "decoder.layers.%d.norm.bias", .shape = "C", .where = "L", .block = 1, .start = START_ZEROS},
    {.name = "decoder.layers.%d.q.weight", .shape = "CC", .where = "L", .block = 1, .also = "h.%d.q.w old.%d.q"},
    {.name = "decoder.layers.%d.k.weight", .shape = "CC", .where = "L", .block = 1, .join = true},
    {.name = "decoder.layers.%d.v.weight", .shape = "CC", .where = "L", .block = 1, .join = true},
    {.name = "decoder.layers.%d.o.weight", .shape = "CC", .where = "L", .block = 1},
    {.name = "decoder.layers.%d.q.bias", .shape = "C", .where = "L?B", .block = 1, .start = START_ZEROS},
    {.name = "decoder.layers.%d.k.bias", .shape = "C", .where = "L?B", .block = 1, .join = true, .start = START_ZEROS},
    {.name = "decoder.layers.%d.v.bias", .shape = "C", .where = "L?B", .block = 1, .join = true, .start = START_ZEROS},
    {.name = "decoder.layers.%d.o.bias", .shape = "C", .where = "L?B", .block = 1, .start = START_ZEROS},
    {.name = "decoder.layers.%d.fc1.weight", .shape = "FC", .where = "L", .block = 1},
    {.name = "decoder.layers.%d.fc1.bias", .shape = "F", .where = "L?B", .block = 1, .start = START_ZEROS},
    {.name = "decoder.layers.%d.fc2.weight", .shape = "CF", .where = "L", .block = 1},
    {.name = "decoder.layers.%d.fc2.bias", .shape = "C", .where = "L?B", .block = 1, .start = START_ZEROS},
    {.name = "last.%d.every_third", .shape = "1C22", .where = "L/X", .block = 2, .flags = PARAM_KEEP_F32},
};
static const ParamTable table = {rows, ROWS};

static ParamSizes sizes_of(int64_t L, int64_t C, int64_t F, int64_t V, int64_t N, bool biases) {
    ParamSizes s = {{0}};
    s.of['L'] = L, s.of['C'] = s.of['W'] = C, s.of['F'] = F, s.of['V'] = V, s.of['N'] = N, s.of['X'] = 3;
    s.of['B'] = biases;
    return s;
}

static void open_store(Params *p, Arena *mem, const Backend *b, const ParamSizes *s, ParamsSpec spec) {
    Arena measure;
    arena_measure(&measure, "test");
    assert_int_equal(params_open(p, table, s, backend_null(b->elem), &measure, &spec), OK);
    params_close(p);
    assert_int_equal(arena_open(mem, "test's", b, measure.peak), OK);
    assert_int_equal(params_open(p, table, s, b, mem, &spec), OK);
}

static void close_store(Params *p, Arena *mem) {
    arena_close(mem, p->b);
    params_close(p);
}

/* ---- what follows from rows -------------------------------------------------------------------------------------- */

static void rows_make_tensors(void **state) {
    (void)state;
    ParamSizes s = sizes_of(4, 8, 24, 11, 5, true);
    Params p;
    Arena mem;
    open_store(&p, &mem, backend_cpu(DT_F32), &s, (ParamsSpec){.training = true});
    assert_int_equal(p.n, 2 + 4 * 14 + 2);
    assert_false(params_has(&p, IN, -1));
    assert_true(params_has(&p, LAST_W, 3) && !params_has(&p, LAST_W, 2) && !params_has(&p, LAST_W, -1));
    assert_string_equal(params_tensor(&p, V_W, 3)->name, "decoder.layers.3.v.weight");
    assert_ptr_equal(params_find(&p, "decoder.layers.2.q.weight"), params_tensor(&p, Q_W, 2));
    assert_ptr_equal(params_find(&p, "h.2.q.w"), params_tensor(&p, Q_W, 2));
    assert_ptr_equal(params_find(&p, "old.1.q"), params_tensor(&p, Q_W, 1));
    assert_ptr_equal(params_find(&p, "lm_head.weight"), params_tensor(&p, WORD, -1));
    assert_null(params_find(&p, "old.4.q"));
    assert_null(params_find(&p, "h.1.q"));
    const ParamTensor *t = params_tensor(&p, LAST_W, 3);     /* (1, C, 2, 2): C rows of four */
    assert_int_equal(t->ndim, 4);
    assert_true(t->shape[0] == 1 && t->shape[3] == 2 && t->rows == 8 && t->cols == 4 && t->n == 32);
    Param qkv = params_joined(&p, Q_W, V_W, 1, 1), v = params_get(&p, V_W, 1), b = params_joined(&p, Q_B, V_B, 1, 1);
    assert_true(qkv.rows == 24 && qkv.cols == 8 && qkv.w + 128 == v.w && b.rows == 1 && b.cols == 24);
    close_store(&p, &mem);
    s.of['B'] = 0, s.of['J'] = 1, s.of['W'] = 6;
    open_store(&p, &mem, backend_cpu(DT_F32), &s, (ParamsSpec){.training = true});
    assert_int_equal(p.n, 3 + 4 * 8 + 2);
    assert_true(params_has(&p, IN, -1) && !params_has(&p, FC1_B, 0) && params_get(&p, WORD, -1).cols == 6);
    close_store(&p, &mem);
}

/* ---- an update beside the forward ------------------------------------------------------------------------------- */

static struct { float *updated[64]; int given[64], updates, waited[64], waits; } told;
static void tell_update(const AdamW *a) {
    told.given[told.updates] = a->beside;
    told.updated[told.updates++] = a->p;
}
static void tell_wait(int number) { told.waited[told.waits++] = number; }

static void update(const Params *p, void *scratch) {
    memset(&told, 0, sizeof told);
    assert_int_equal(optim_update(p, scratch, &(AdamSpec){.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .beside = true}, 1e-3, 1),
                     OK);
    assert_int_equal(told.updates, p->nranges);
    for (int i = 1; i < told.updates; i++) assert_in_range(told.given[i], told.given[i - 1], ADAMW_BESIDE);
}

/* Numbers of the tensor's range among the last update's, from 0. */
static int turn_of(const Params *p, int row, int layer) {
    const ParamRange *r = &p->range[params_tensor(p, row, layer)->range];
    for (int i = 0; i < told.updates; i++)
        if (told.updated[i] == p->w + r->at) return i;
    return -1;
}

/* In the order in which tensors were asked for; each range is waited for once, where it is first asked for. */
static void an_update_is_waited_for_where_it_is_read(void **state) {
    (void)state;
    ParamSizes s = sizes_of(4, 8, 24, 11, 5, true);
    Params p;
    Arena mem;
    Backend b = *backend_cpu(DT_F32);
    b.adamw = tell_update, b.adamw_wait = tell_wait;
    void *scratch = mem_new(optim_scratch(), 1);
    open_store(&p, &mem, &b, &s, (ParamsSpec){.training = true, .freeze = "*.fc1.weight", .rates = "last.*=2"});
    params_get(&p, LAST_W, 3), params_get(&p, Q_W, 2), params_get(&p, FC1_W, 0), params_get(&p, WORD, -1);
    assert_int_equal(told.waits, 0);
    update(&p, scratch);
    assert_true(turn_of(&p, LAST_W, 3) == 0 && turn_of(&p, Q_W, 2) == 1 && turn_of(&p, WORD, -1) == 2);
    params_get(&p, Q_W, 2), params_get(&p, Q_W, 2), params_get(&p, FC1_W, 0);
    assert_true(told.waits == 1 && told.waited[0] == told.given[1]);
    params_joined(&p, Q_W, V_W, 1, 1);
    assert_true(told.waits == 2 && told.waited[1] == told.given[turn_of(&p, Q_W, 1)]);
    params_arrived(&p), params_arrived(&p), params_get(&p, WORD, -1);
    assert_true(told.waits == 3 && told.waited[2] == told.given[told.updates - 1]);
    update(&p, scratch);
    assert_true(turn_of(&p, Q_W, 2) == 0 && turn_of(&p, Q_W, 1) == 1 && turn_of(&p, WORD, -1) == 2);
    float x[88];
    params_read(&p, params_tensor(&p, WORD, -1), p.w, x);    /* who reads an array reads it whole */
    assert_true(told.waits == 1 && told.waited[0] == told.given[told.updates - 1]);
    close_store(&p, &mem);
    free(scratch);
}

/* No two tensors share a number, whatever is frozen; what learns stands in front; a layer is one piece of it. */
static void places_do_not_overlap(void **state) {
    (void)state;
    static const char *const freeze[] = {NULL, "*", "*.k.*", "*layers.1.*", "decoder.embed*,*.bias"};
    ParamSizes s = sizes_of(4, 8, 24, 11, 5, true);
    for (size_t f = 0; f < sizeof freeze / sizeof *freeze; f++) {
        Params p;
        Arena mem;
        open_store(&p, &mem, backend_cpu(DT_F32), &s, (ParamsSpec){.training = true, .freeze = freeze[f]});
        char *taken = mem_new((size_t)p.total, 1);
        int64_t ranges = 0, learns = 0;
        for (int i = 0; i < p.n; i++) {
            const ParamTensor *t = &p.tensor[i];
            for (int64_t k = 0; k < t->n; k++) assert_int_equal(taken[t->at + k]++, 0);
            assert_true(t->frozen || t->at + t->n <= p.learns);
            if (!t->frozen) learns += t->n;
            DistPart block = params_block(&p, t->row, t->layer);
            if (t->at < p.learns) assert_true(block.at <= t->at && block.at + block.n >= t->at + t->n);
        }
        for (int i = 0; i < p.nranges; i++) ranges += p.range[i].n;
        assert_true(ranges >= learns && ranges <= p.learns);
        assert_true(f != 1 || (!p.learns && !p.nranges && !p.g && !p.m && !p.v));
        free(taken);
        close_store(&p, &mem);
    }
}

/* What a list of patterns cannot mean is refused, with its word. */
static void patterns_mean_something(void **state) {
    (void)state;
    static const struct { const char *freeze, *rates, *said; } cases[] = {
        {"*.k.*,*embedings*", NULL, "optim.freeze: no tensor's name matches '*embedings*'"},
        {NULL, "*bias=2,nothing=3", "optim.rates: no tensor's name matches 'nothing'"},
        {NULL, "*bias", "optim.rates: '*bias' wants a factor"},
        {NULL, "*bias=-1", "optim.rates: '*bias' wants a factor"},
        {NULL, "*bias=1x", "optim.rates: '*bias' wants a factor"},
        {NULL, "*bias=nan", "optim.rates: '*bias' wants a factor"},
    };
    ParamSizes s = sizes_of(4, 8, 24, 11, 5, true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Params p;
        Arena measure;
        arena_measure(&measure, "test");
        ParamsSpec spec = {.training = true, .freeze = cases[i].freeze, .rates = cases[i].rates};
        assert_int_equal(params_open(&p, table, &s, backend_null(DT_F32), &measure, &spec), ERR_USAGE);
        if (!strstr(err_message(), cases[i].said)) fail_msg("'%s' is not: %s", err_message(), cases[i].said);
    }
}

/* Of an arena that is too small nothing is left to be closed. */
static void too_little_memory_is_said(void **state) {
    (void)state;
    ParamSizes s = sizes_of(2, 64, 128, 100, 30, true);
    s.of['X'] = 2;
    Params p;
    Arena small;
    assert_int_equal(arena_open(&small, "small", backend_cpu(DT_F32), 4096), OK);
    assert_int_equal(params_open(&p, table, &s, backend_cpu(DT_F32), &small, &(ParamsSpec){.frozen = true}),
                     ERR_MEMORY);
    if (!strstr(err_message(), "the parameters need more")) fail_msg("%s", err_message());
    assert_true(!p.tensor && !p.index && !p.n);
    arena_close(&small, backend_cpu(DT_F32));
}

/* ---- the frozen store -------------------------------------------------------------------------------------------- */

/* OPT 2.7 B: 32 layers of 2560, 50272 words: 2 bytes a number of every matrix, 6 of a vector, nothing else. */
static void a_frozen_model_takes_two_bytes_a_number(void **state) {
    (void)state;
    ParamSizes s = sizes_of(32, 2560, 10240, 50272, 2050, true);
    s.of['X'] = 32;
    Params p;
    Arena measure;
    arena_measure(&measure, "measured");
    assert_int_equal(params_open(&p, table, &s, backend_null(DT_BF16), &measure, &(ParamsSpec){.frozen = true}), OK);
    int64_t matrices = 0, vectors = 0;
    for (int i = 0; i < p.n; i++) *(p.tensor[i].rows > 1 && p.tensor[i].row != LAST_W ? &matrices
                                    : &vectors) += p.tensor[i].n;
    assert_true(p.count > 2600000000 && p.count == matrices + vectors);
    int64_t promised = 2 * matrices + 6 * vectors;
    assert_true((int64_t)measure.peak >= promised && (int64_t)measure.peak <= promised + 256 * p.n);
    assert_true((double)measure.peak < 2.003 * (double)p.count);
    assert_true(!p.g && !p.m && !p.v && !p.ema);
    Param w = params_get(&p, FC1_W, 31), b = params_get(&p, FC1_B, 31);
    assert_true(w.frozen && !w.g && !w.w && w.copy && b.frozen && !b.g && b.w && b.copy);
    params_close(&p);
    arena_measure(&measure, "measured");
    assert_int_equal(params_open(&p, table, &s, backend_null(DT_F32), &measure, &(ParamsSpec){.frozen = true}), OK);
    assert_true((double)measure.peak < 4.001 * (double)p.count && params_get(&p, FC1_W, 31).w);
    params_close(&p);
    /* 16 bits that came stay 16 bits, where products read them */
    Backend null = backend_measuring(backend_cpu(DT_F32));
    arena_measure(&measure, "measured");
    assert_int_equal(params_open(&p, table, &s, &null, &measure, &(ParamsSpec){.frozen = true, .held = DT_F16}), OK);
    assert_true((int64_t)measure.peak >= promised && (int64_t)measure.peak <= promised + 256 * p.n);
    w = params_get(&p, FC1_W, 31), b = params_get(&p, FC1_B, 31);
    assert_true(w.held == DT_F16 && !w.w && !b.held && b.copy == (void *)b.w);
    params_close(&p);
}

static float value(int64_t i) { return (float)(i % 251 - 125) / 64.0f; }      /* exact in f16 and bf16 */

/* Rows go in one by one or all at once, from any type, and come out as they were; their neighbours stay. */
static void put(DType elem, DType from, bool frozen) {
    ParamSizes s = sizes_of(3, 8, 24, 11, 5, true);
    Params p;
    Arena mem;
    float x[11 * 8], y[11 * 8];
    char host[11 * 8 * 4];
    open_store(&p, &mem, backend_cpu(elem), &s, (ParamsSpec){.frozen = frozen, .held = from});
    for (int i = 0; i < p.n; i++) {
        const ParamTensor *t = &p.tensor[i];
        if (t->n > 11 * 8) continue;
        for (int64_t k = 0; k < t->n; k++) x[k] = value(k + i);
        dtype_from_f32(host, from, x, (size_t)t->n);
        for (int64_t r = 0; r < t->rows; r++)
            assert_int_equal(params_put(&p, t, r * t->cols, t->cols, host + r * t->cols * dtype_size(from), from), OK);
    }
    for (int i = 0; i < p.n; i++) {
        const ParamTensor *t = &p.tensor[i];
        if (t->n > 11 * 8) continue;
        for (int64_t k = 0; k < t->n; k++) x[k] = value(k + i);
        assert_int_equal(params_values(&p, t, y), OK);
        assert_memory_equal(x, y, (size_t)t->n * sizeof *x);
        Param v = params_get(&p, t->row, t->layer);
        dtype_to_f32(y, v.copy, v.held ? v.held : elem, (size_t)t->n);
        assert_memory_equal(x, y, (size_t)t->n * sizeof *x);
        if (v.w) assert_memory_equal(x, v.w, (size_t)t->n * sizeof *x);
        bool half = frozen && (elem == DT_BF16 || from != DT_F32) && t->rows > 1 && t->row != LAST_W;
        assert_true(half == !v.w && (v.held == from) == (half && elem == DT_F32));
    }
    close_store(&p, &mem);
}

static void what_goes_in_comes_out(void **state) {
    (void)state;
    static const DType elem[] = {DT_F32, DT_BF16}, from[] = {DT_F32, DT_F16, DT_BF16};
    for (int e = 0; e < 2; e++)
        for (int f = 0; f < 3; f++)
            for (int frozen = 0; frozen < 2; frozen++) put(elem[e], from[f], frozen);
}

/* ---- a Q-Former that learns in part, or not at all --------------------------------------------------------------- */

enum { B = 6, TEXT = 9 };
static const Dims DIMS = {.L = 3, .C = 40, .H = 2, .F = 72, .Q = 5, .E = 28, .P = 7, .Z = 20, .V = 60, .N = 16, .X = 2,
                          .T = TEXT, .pad = 0, .cls = 1, .sep = 2, .dec = 59};

static float *gradients(Trainer *t, DType elem, const char *freeze, Stage1Losses *l) {
    static float features[B * 7 * 28];
    static int32_t ids[B * TEXT], len[B];
    for (uint32_t i = 0; i < B * 7 * 28; i++) features[i] = 4 * rng_unit(philox(i, 1, 0, 0, 7, 7).v[0]) - 2;
    for (int i = 0; i < B; i++) {
        len[i] = 4 + i % 4;
        for (int k = 0; k < len[i]; k++)
            ids[i * TEXT + k] = k == 0 ? 1 : k + 1 == len[i] ? 2 : 3 + (i * 7 + k * 11) % 50;
    }
    Stage1Spec losses = {.itc = 1, .itm = 1, .itg = 1, .smoothing = 0.1f, .dropout = 0.1f, .seed = 5};
    TrainerSpec s = {.d = DIMS, .tokens = TEXT, .features = DT_F32, .params = {.training = true, .freeze = freeze},
                     .B = B, .micro = 1, .objective = &stage1_objective, .spec = &losses};
    ObjectiveBatch batch = {.features = features, .ids = ids, .len = len, .dt = DT_F32};
    assert_int_equal(trainer_open(t, backend_cpu(elem), &s), OK);
    assert_int_equal(params_init(&t->model.params, 3, 0.08f), OK);
    assert_int_equal(stage1_losses(t->self, &batch, 7, 1.0f, true, l), OK);
    const Params *p = &t->model.params;
    float *g = mem_new((size_t)p->learns + 1, sizeof *g);
    if (p->g) memcpy(g, p->g, (size_t)p->learns * sizeof *g);
    return g;
}

static void frozen_parts_change_no_gradient(DType elem, const char *freeze) {
    Trainer a, b;
    Stage1Losses la, lb;
    float *whole = gradients(&a, elem, NULL, &la), *part = gradients(&b, elem, freeze, &lb);
    const Params *p = &a.model.params, *q = &b.model.params;
    assert_true(la.loss == lb.loss && p->n == q->n);
    int64_t state = 0;
    for (int i = 0; i < p->n; i++) {
        const ParamTensor *t = &p->tensor[i], *u = &q->tensor[i];
        assert_string_equal(t->name, u->name);
        if (u->at < q->learns) state += u->n;
        if (u->frozen) continue;
        assert_memory_equal(whole + t->at, part + u->at, (size_t)t->n * sizeof *whole);
    }
    /* keys stand between queries and values: they keep a gradient's place, that nobody reads */
    assert_true(strcmp(freeze, "*.key.*") == 0 || q->learns < p->learns);
    assert_true(q->learns >= state && q->learns < state + 64 * q->n && q->learns <= p->learns);
    assert_true((int64_t)a.plan.state - (int64_t)b.plan.state >= 12 * (p->learns - q->learns) - 4 * 256);
    free(whole);
    free(part);
    trainer_close(&a);
    trainer_close(&b);
}

static void what_is_frozen_costs_nothing(void **state) {
    (void)state;
    static const char *const freeze[] = {"*embeddings*", "*layer.1.*", "*.key.*", "ln_vision*", "*crossattention*",
                                         "*.bias",
                                         "*LayerNorm*", "*cls*,itm*", "temp", "Qformer.*"};
    for (size_t f = 0; f < sizeof freeze / sizeof *freeze; f++)
        for (int e = 0; e < 2; e++) frozen_parts_change_no_gradient(e ? DT_BF16 : DT_F32, freeze[f]);
}

static void all_frozen_has_no_state(void **state) {
    (void)state;
    Trainer a, b;
    Stage1Losses la, lb;
    const ParamTensor *bad;
    float *whole = gradients(&a, DT_BF16, NULL, &la), *none = gradients(&b, DT_BF16, "*", &lb);
    const Params *p = &b.model.params;
    assert_true(!p->g && !p->m && !p->v && !p->learns && !p->nranges && b.plan.state < 256 && la.loss == lb.loss);
    size_t bytes = (size_t)p->total * sizeof(float);
    float *before = mem_new(bytes, 1);
    memcpy(before, p->w, bytes);
    AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .clip = 1};
    assert_int_equal(learner_update(&b, &adam, 1e-2, 1, &bad), OK);
    assert_true(!bad && *b.norm == 0);
    assert_memory_equal(before, p->w, bytes);
    free(before);
    free(whole);
    free(none);
    trainer_close(&a);
    trainer_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_make_tensors), cmocka_unit_test(places_do_not_overlap),
        cmocka_unit_test(an_update_is_waited_for_where_it_is_read), cmocka_unit_test(patterns_mean_something),
        cmocka_unit_test(too_little_memory_is_said),
        cmocka_unit_test(a_frozen_model_takes_two_bytes_a_number), cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(what_is_frozen_costs_nothing), cmocka_unit_test(all_frozen_has_no_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
