/* The captioner with cached keys against the same network run whole, without a cache, through wave_build; and what
 * must not change a caption: the batch, the order of slots, one beam or greedy. Random weights, made here; the
 * smallest fixture of the reference (tests/golden/stage1/tiny) says that both are right. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/safetensors.h"
#include "eval/generate.h"
#include "kernels/base/mem.h"

enum { IMAGES = 7, LONGEST = 14 };

static const Dims DIMS = {.L = 3, .C = 32, .H = 4, .F = 48, .Q = 5, .E = 18, .P = 6, .Z = 8, .V = 61, .N = 16, .X = 2,
                          .T = 12, .pad = 0, .cls = 1, .sep = 2, .dec = 60};

typedef struct { const Backend *b; Dims d; Arena mem; QFormer model; float *features; } Model;

static void model_open(Model *m, const Dims *d, DType elem) {
    *m = (Model){.b = backend_cpu(elem), .d = *d};
    assert_int_equal(qformer_open_alone(&m->model, &m->mem, d, m->b, &(ParamsSpec){0}), OK);
    assert_int_equal(params_init(&m->model.params, 3, 0.5f), OK);       /* large: captions then differ from image to image */
    const ParamTensor *bias = params_find(&m->model.params, "Qformer.cls.predictions.bias");
    float *x = mem_new((size_t)bias->n, sizeof *x);
    assert_non_null(x);
    x[d->sep] = 3;                                           /* and some end */
    params_write(&m->model.params, bias, m->model.params.w, x);
    params_refresh(&m->model.params);
    free(x);
}

static void model_features_random(Model *m) {
    int64_t n = (int64_t)IMAGES * m->d.P * m->d.E;
    m->features = mem_new((size_t)n, sizeof(float));
    assert_non_null(m->features);
    for (int64_t i = 0; i < n; i++) m->features[i] = rng_unit(philox((uint32_t)i, 0, 0, 99, 7, 7).v[0]) * 4 - 2;
}

static void model_close(Model *m) {
    qformer_close(&m->model);
    arena_close(&m->mem, m->b);
    free(m->features);
}

static SearchSpec spec_of(const Model *m, SearchMode mode, int32_t beams) {
    return (SearchSpec){.mode = mode, .beams = beams, .max_length = LONGEST, .length_penalty = 1,
                        .repetition_penalty = 1, .temperature = 1, .top_p = 0.95, .top_k = 20, .seed = 11,
                        .start = m->d.dec, .ends = {m->d.sep}, .nends = 1};
}

/* ---- what was found --------------------------------------------------------------------------------------------- */

typedef struct { int32_t len, tokens[LONGEST]; bool ended; double score; } Found;
typedef struct { Found best[IMAGES]; int64_t n; } Captions;

static Status collect(void *ctx, int64_t i, const Search *s) {
    Captions *c = ctx;
    const Hypothesis *h = &s->closed[0];
    assert_true(i == c->n && i < IMAGES);
    Found *f = &c->best[c->n++];
    f->len = h->len, f->ended = h->ended, f->score = h->score;
    memcpy(f->tokens, h->tokens, (size_t)h->len * sizeof *h->tokens);
    return OK;
}

static void captions_with_cache(const Model *m, SearchSpec search, int images, Captions *out) {
    Generator g;
    GenerateSpec spec = {.search = search, .images = images, .features = DT_F32};
    *out = (Captions){.n = 0};
    assert_int_equal(generate_open(&g, m->b, &m->model, &spec), OK);
    assert_int_equal(generate_captions(&g, (FeatureRows){m->features, NULL}, IMAGES, 0, collect, out), OK);
    assert_int_equal(out->n, IMAGES);
    generate_close(&g);
}

static void assert_same(const Captions *a, const Captions *b, double tolerance) {
    for (int i = 0; i < IMAGES; i++) {
        assert_int_equal(a->best[i].len, b->best[i].len);
        assert_int_equal(a->best[i].ended, b->best[i].ended);
        assert_memory_equal(a->best[i].tokens, b->best[i].tokens, (size_t)a->best[i].len * sizeof(int32_t));
        assert_true(fabs(a->best[i].score - b->best[i].score) <= tolerance * fmax(1, fabs(a->best[i].score)));
    }
}

/* ---- without a cache -------------------------------------------------------------------------------------------- */

typedef struct { Arena fixed, mem; Tape tape; Staging room; } Whole;

static void whole_open(Whole *w, const Model *m) {
    assert_int_equal(arena_open(&w->fixed, "test", m->b, 1 << 20), OK);
    assert_int_equal(arena_open(&w->mem, "test", m->b, 32 << 20), OK);
    assert_int_equal(tape_open(&w->tape, m->b, &w->mem), OK);
    assert_int_equal(staging_open(&w->room, m->b, &w->fixed, wave_bytes(16 * m->d.Q, 16 * LONGEST, 32, 1)), OK);
}

static void whole_close(Whole *w, const Model *m) {
    tape_close(&w->tape);
    staging_close(&w->room);
    arena_close(&w->mem, m->b);
    arena_close(&w->fixed, m->b);
}

/* Last logits of `rows` sequences of `len` tokens on one image: queries and text in one pass, as in training. */
static void whole_logits(Whole *w, const Model *m, int image, const int32_t *tokens, int32_t ld, int32_t rows,
                         int32_t len, float *logits) {
    Segment seg[32];
    Wave wave;
    ImageKV kv;
    Tape *t = &w->tape;
    tape_reset(t, false);
    staging_reset(&w->room);
    for (int32_t r = 0; r < rows; r++) {
        seg[r] = (Segment){.nq = m->d.Q, .first_id = -1, .sees = -1, .image = 0, .pass = PASS_ITC_IMAGE};
        seg[rows + r] = (Segment){.nt = len, .ids = tokens + r * ld, .first_id = -1, .sees = r, .causal = true,
                                  .image = -1, .pass = PASS_ITG};
    }
    assert_int_equal(wave_build(&wave, &w->room, &m->d, seg, 2 * rows, 1), OK);
    staging_upload(&w->room);
    qformer_image(&kv, t, &m->model, m->features + (int64_t)image * m->d.P * m->d.E, DT_F32, NULL, 1);
    Tensor x = qformer_forward(t, &m->model, &wave, &kv, (Noise){0});
    Tensor h = qformer_lm_transform(t, &m->model, tensor_rows(x, wave.NQ, wave.NT)), y = tape_new(t, wave.NT, m->d.V, DT_F32);
    op_linear(t, y, h, params_get(&m->model.params, P_WORD, -1), params_get(&m->model.params, P_LM_BIAS, -1));
    assert_int_equal(tape_status(t), OK);
    for (int32_t r = 0; r < rows; r++)
        memcpy(logits + (int64_t)r * m->d.V, (float *)y.data + (int64_t)(seg[rows + r].t0 + len - 1) * m->d.V,
               (size_t)m->d.V * sizeof *logits);
}

static void captions_without_cache(const Model *m, SearchSpec spec, Captions *out) {
    Whole w;
    Search s;
    float *logits = mem_new(16 * (size_t)m->d.V, sizeof *logits);
    assert_non_null(logits);
    *out = (Captions){.n = 0};
    whole_open(&w, m);
    assert_int_equal(search_open(&s, &spec, m->d.V), OK);
    for (int i = 0; i < IMAGES; i++) {
        search_begin(&s, (uint32_t)i);
        while (s.rows) {
            whole_logits(&w, m, i, s.tokens, spec.max_length, s.rows, s.len, logits);
            assert_int_equal(search_step(&s, logits, m->d.V), OK);
        }
        assert_int_equal(collect(out, i, &s), OK);
    }
    search_close(&s);
    whole_close(&w, m);
    free(logits);
}

static void cached_is_uncached(void **state) {
    (void)state;
    Model m;
    model_open(&m, &DIMS, DT_F32);
    model_features_random(&m);
    const struct { SearchMode mode; int32_t beams, min_length; double length, repeat; bool early; } runs[] = {
        {SEARCH_GREEDY, 1, 0, 1, 1, false}, {SEARCH_BEAM, 3, 0, 1, 1, false}, {SEARCH_BEAM, 5, 6, 0.5, 1.2, false},
        {SEARCH_BEAM, 4, 0, 0, 1, true}, {SEARCH_GREEDY, 1, 8, 1, 1.4, false}, {SEARCH_SAMPLE, 1, 0, 1, 1, false}};
    int different = 0, ended = 0;
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        SearchSpec spec = spec_of(&m, runs[r].mode, runs[r].beams);
        Captions a, b;
        spec.min_length = runs[r].min_length, spec.length_penalty = runs[r].length;
        spec.repetition_penalty = runs[r].repeat, spec.early_stopping = runs[r].early;
        captions_without_cache(&m, spec, &a);
        captions_with_cache(&m, spec, IMAGES, &b);
        assert_same(&a, &b, 1e-5);
        for (int i = 0; i < IMAGES; i++) {
            ended += a.best[i].ended;
            different += i && (a.best[i].len != a.best[0].len ||
                               memcmp(a.best[i].tokens, a.best[0].tokens, (size_t)a.best[i].len * sizeof(int32_t)));
        }
    }
    assert_in_range(ended, 5, 6 * IMAGES - 1); /* the model is worth the test: captions differ, some end */
    assert_true(different > IMAGES);
    model_close(&m);
}

/* ---- what changes nothing --------------------------------------------------------------------------------------- */

static void the_batch_changes_nothing(void **state) {
    (void)state;
    Model m;
    model_open(&m, &DIMS, DT_F32);
    model_features_random(&m);
    const SearchMode modes[] = {SEARCH_GREEDY, SEARCH_BEAM, SEARCH_SAMPLE};
    for (int k = 0; k < 3; k++) {
        SearchSpec spec = spec_of(&m, modes[k], modes[k] == SEARCH_BEAM ? 4 : 1);
        Captions all, some;
        captions_with_cache(&m, spec, IMAGES, &all);
        for (int images = 1; images < IMAGES; images += 2) {
            captions_with_cache(&m, spec, images, &some);
            assert_same(&all, &some, 1e-5);
        }
    }
    model_close(&m);
}

static void one_beam_is_greedy(void **state) {
    (void)state;
    Model m;
    model_open(&m, &DIMS, DT_F32);
    model_features_random(&m);
    SearchSpec beam = spec_of(&m, SEARCH_BEAM, 1);
    Captions a, b;
    beam.early_stopping = true;
    captions_with_cache(&m, beam, 3, &a);
    captions_with_cache(&m, spec_of(&m, SEARCH_GREEDY, 1), 3, &b);
    assert_same(&a, &b, 1e-12);
    model_close(&m);
}

/* bf16 rounds its own way: greedy captions of the two paths are compared by what each thinks of its choice. */
static void bf16_runs(void **state) {
    (void)state;
    Model m;
    model_open(&m, &DIMS, DT_BF16);
    model_features_random(&m);
    Captions a;
    captions_with_cache(&m, spec_of(&m, SEARCH_BEAM, 3), 3, &a);
    for (int i = 0; i < IMAGES; i++) {
        assert_in_range(a.best[i].len, 1, LONGEST);
        assert_true(isfinite(a.best[i].score));
    }
    model_close(&m);
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

static void too_few_positions(void **state) {
    (void)state;
    Model m;
    Generator g;
    model_open(&m, &DIMS, DT_F32);
    GenerateSpec spec = {.search = spec_of(&m, SEARCH_GREEDY, 1), .images = 2, .features = DT_F32};
    spec.search.max_length = DIMS.N + 2;
    assert_int_equal(generate_open(&g, m.b, &m.model, &spec), ERR_USAGE);
    assert_non_null(strstr(err_message(), "16"));
    spec.search.max_length = DIMS.N + 1;                     /* the last token is never fed */
    assert_int_equal(generate_open(&g, m.b, &m.model, &spec), OK);
    generate_close(&g);
    model_close(&m);
}

static void a_model_that_diverged(void **state) {
    (void)state;
    Model m;
    Generator g;
    Captions out = {.n = 0};
    model_open(&m, &DIMS, DT_F32);
    model_features_random(&m);
    m.features[4 * m.d.P * m.d.E] = NAN;
    GenerateSpec spec = {.search = spec_of(&m, SEARCH_BEAM, 2), .images = 3, .features = DT_F32};
    assert_int_equal(generate_open(&g, m.b, &m.model, &spec), OK);
    assert_int_equal(generate_captions(&g, (FeatureRows){m.features, NULL}, IMAGES, 0, collect, &out), ERR_NUMERIC);
    assert_non_null(strstr(err_message(), "image 4"));
    assert_int_equal(out.n, 3);
    generate_close(&g);
    model_close(&m);
}

/* ---- the reference's smallest case ------------------------------------------------------------------------------ */

static const Json *member(const Json *o, const char *key) {
    const Json *v = json_get(o, key);
    assert_non_null(v);
    return v;
}

static int32_t number(const Json *o, const char *key) {
    int64_t v = -1;
    assert_true(json_int(member(o, key), &v));
    return (int32_t)v;
}

static void greedy_of_the_reference(void **state) {
    (void)state;
    Json *doc = NULL;
    StFile *weights = NULL, *batch = NULL, *want = NULL;
    Model m;
    Captions out;
    assert_int_equal(json_parse_file(&doc, "tests/golden/stage1/tiny/case.json"), OK);
    assert_int_equal(st_open(&weights, "tests/golden/stage1/tiny/model.safetensors"), OK);
    assert_int_equal(st_open(&batch, "tests/golden/stage1/tiny/batch.safetensors"), OK);
    assert_int_equal(st_open(&want, "tests/golden/stage1/tiny/generate.safetensors"), OK);
    const Json *j = member(doc, "dims");
    Dims d = {.L = number(j, "L"), .C = number(j, "C"), .H = number(j, "H"), .F = number(j, "F"), .Q = number(j, "Q"),
              .E = number(j, "E"), .P = number(j, "P"), .Z = number(j, "Z"), .V = number(j, "V"), .N = number(j, "N"),
              .X = number(j, "X"), .T = number(j, "T"), .pad = number(j, "pad"), .cls = number(j, "cls"),
              .sep = number(j, "sep"), .dec = number(j, "dec")};
    model_open(&m, &d, DT_F32);
    for (int i = 0; i < m.model.params.n; i++) {
        const ParamTensor *t = &m.model.params.tensor[i];
        const StTensor *w = st_find(weights, t->name);
        assert_true(w && st_elements(w) == t->n);
        float *x = mem_new((size_t)t->n, sizeof *x);
        assert_non_null(x);
        dtype_to_f32(x, w->data, w->dtype, (size_t)t->n);
        params_write(&m.model.params, t, m.model.params.w, x);
        free(x);
    }
    params_refresh(&m.model.params);
    const StTensor *f = st_find(batch, "features"), *ids = st_find(want, "sequences"),
                   *logits = st_find(want, "logits");
    assert_true(f && ids && logits && ids->ndim == 2 && ids->shape[1] == logits->shape[1] + 1);
    int32_t B = (int32_t)ids->shape[0], T = (int32_t)ids->shape[1];
    m.features = mem_new((size_t)st_elements(f), sizeof(float));
    assert_non_null(m.features);
    dtype_to_f32(m.features, f->data, f->dtype, (size_t)st_elements(f));

    GenerateSpec spec = {.search = spec_of(&m, SEARCH_GREEDY, 1), .images = B, .features = DT_F32};
    spec.search.max_length = T;
    Generator g;
    out = (Captions){.n = 0};
    assert_int_equal(generate_open(&g, m.b, &m.model, &spec), OK);
    assert_int_equal(generate_captions(&g, (FeatureRows){m.features, NULL}, B, 0, collect, &out), OK);
    for (int32_t i = 0; i < B; i++)
        for (int32_t t = 0; t < out.best[i].len; t++)
            assert_int_equal(out.best[i].tokens[t], ((const int64_t *)ids->data)[i * T + t]);
    assert_int_equal(generate_prefix(&g, (FeatureRows){m.features, NULL}, B), OK);
    for (int32_t t = 0; t < T - 1; t++) {
        for (int32_t i = 0; i < B; i++)
            g.decode.rows[i] = (DecoderRow){i, i, (int32_t)((const int64_t *)ids->data)[i * T + t]};
        assert_int_equal(generate_step(&g, t, g.decode.rows, B, NULL, 0), OK);
        for (int32_t i = 0; i < B; i++)
            for (int32_t v = 0; v < d.V; v++)
                assert_true(fabs((double)g.logits[i * d.V + v] -
                                 ((const double *)logits->data)[(i * (T - 1) + t) * d.V + v]) < 1e-4);
    }
    generate_close(&g);
    model_close(&m);
    st_close(weights);
    st_close(batch);
    st_close(want);
    json_free(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cached_is_uncached),      cmocka_unit_test(the_batch_changes_nothing),
        cmocka_unit_test(one_beam_is_greedy),      cmocka_unit_test(bf16_runs),
        cmocka_unit_test(too_few_positions),       cmocka_unit_test(a_model_that_diverged),
        cmocka_unit_test(greedy_of_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
