/* test_cuda_graph: passes that recur (Backend.repeat) as CUDA graphs: which calls are made when, and what happens to a
 * pass that cannot be recorded; captions of stage 1 and texts of all families of language models by graphs against
 * the same launch by launch, to the bit, with beams, several pictures, and prefixes of several lengths; and how many
 * launches a token is left: none but the graph, and one more where beams move. Skipped where there is no GPU. */
#include "tests/kit/check.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/generate.h"
#include "kernels/base/mem.h"
#include "kernels/model/lm_decoder.h"

/* What a device is asked for: memory; and in steps of decoding ops, and passes that may recur. */
static const Backend *gpu;
static Backend counting;
static int64_t ops, repeats, taken;
static bool in_step;

#define OP(kind, name, params, args) static void count_##name params { ops += in_step, gpu->name args; }
#include "kernels/backend.def"
static Status count_alloc(void **p, size_t bytes) { return taken++, gpu->alloc(p, bytes); }
static void count_repeat(void **kept, uint64_t key, EnqueueFn *enqueue, void *ctx) {
    repeats += in_step, gpu->repeat(kept, key, enqueue, ctx);
}
static void count_plain(void **kept, uint64_t key, EnqueueFn *enqueue, void *ctx) {
    repeats += in_step, backend_enqueue(kept, key, enqueue, ctx);
}

static void count_mark(const char *name) { in_step = name, gpu->mark(name); }

/* graphs false: as if there were none. */
static const Backend *device(DType elem, bool graphs) {
    if (backend_cuda(&gpu, elem, 0) != OK) {
        print_message("no GPU: %s\n", err_message());
        skip();
    }
    counting = *gpu;
    counting.alloc = count_alloc, counting.mark = count_mark, counting.repeat = graphs ? count_repeat : count_plain;
#define OP(kind, name, params, args) counting.name = count_##name;
#include "kernels/backend.def"
    return &counting;
}

static void count_from_here(void) { ops = repeats = taken = 0; }

static float number(uint32_t i, uint32_t k) { return 2 * rng_unit(philox(i, k, 0, 0, 5, 6).v[0]) - 1; }

/* ---- a pass ------------------------------------------------------------------------------------------------------ */

enum { N = 1000 };
typedef struct { const Backend *b; float *x, *y, sum[N]; void *kept; int calls; bool waits; } Addition;

static void add(void *ctx) {
    Addition *p = ctx;
    p->calls++;
    p->b->axpy(p->y, p->x, 2.0f, N);
    if (p->waits) p->b->sync();
    p->b->axpy(p->y, p->x, 1.0f, N);
}

static void open_pass(Addition *p) {
    const Backend *b = device(DT_F32, true);
    void *x = NULL, *y = NULL;
    passes(b->alloc(&x, N * sizeof(float)));
    passes(b->alloc(&y, N * sizeof(float)));
    *p = (Addition){.b = b, .x = x, .y = y};
    b->zero(y, N * sizeof(float));
}

static void close_pass(Addition *p) {
    p->b->forget(&p->kept);
    assert_null(p->kept);
    p->b->release(p->x);
    p->b->release(p->y);
    passes(p->b->status());
}

/* x is another each time: y must be 3 times the sum of all. */
static void pass_again(Addition *p, uint64_t key) {
    float x[N], y[N];
    for (int i = 0; i < N; i++) x[i] = (float)(key + 1) + (float)i;
    p->b->upload(p->x, x, sizeof x);
    p->b->sync();
    p->b->repeat(&p->kept, key, add, p);
    p->b->download(y, p->y, sizeof y);
    for (int i = 0; i < N; i++) assert_true((p->sum[i] += 3 * x[i]) == y[i]);
}

static void asked_twice_and_never_again(void **state) {
    (void)state;
    void *other = NULL;
    Addition p;
    open_pass(&p);
    const Backend *b = p.b;
    for (int i = 1; i <= 6; i++) {
        pass_again(&p, 7);
        assert_int_equal(p.calls, i < 2 ? i : 2);
    }
    /* with another workspace once more: its address is in the graph */
    passes(b->alloc(&other, b->workspace));
    b->set_workspace(other, b->workspace);
    for (int i = 0; i < 3; i++) pass_again(&p, 7);
    assert_int_equal(p.calls, 3);
    b->forget(&p.kept);
    assert_null(p.kept);
    /* whoever looks for an error has every kernel by its name */
    setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
    for (int i = 0; i < 3; i++) pass_again(&p, 7);
    unsetenv("CUDA_LAUNCH_BLOCKING");
    assert_int_equal(p.calls, 6);
    b->forget(&p.kept);
    b->set_workspace(NULL, 0);
    b->release(other);
    close_pass(&p);
}

static void what_waits_is_no_graph(void **state) {
    (void)state;
    Addition p;
    open_pass(&p);
    p.waits = true;
    for (int i = 0; i < 5; i++) pass_again(&p, 7);
    assert_int_equal(p.calls, 6);            /* one of them in vain */
    close_pass(&p);
}

/* More passes than are kept, each as often as the others; and one among them that comes every time. */
static void many_passes(void **state) {
    (void)state;
    Addition p;
    int calls = 0;
    open_pass(&p);
    for (uint64_t i = 0; i < 300; i++) {
        pass_again(&p, 1 + i % 100);
        int before = p.calls;
        pass_again(&p, 0);
        calls += p.calls - before;
    }
    assert_int_equal(calls, 2);
    close_pass(&p);
}

/* ---- captions ---------------------------------------------------------------------------------------------------- */

/* a text begins with fewer than 64 keys and ends with more: its graph changes */
enum { IMAGES = 5, LONGEST = 16, TEXTS = 5, Q = 56 };
typedef struct { int32_t len, ids[LONGEST]; double score; } Text;
typedef struct { Text text[IMAGES]; int64_t n; } Texts;

static Status collect(void *ctx, int64_t i, const Search *s) {
    Texts *x = ctx;
    const Hypothesis *h = &s->closed[0];
    assert_true(i == x->n && i < IMAGES && h->len <= LONGEST);
    x->text[x->n].len = h->len, x->text[x->n].score = h->score;
    memcpy(x->text[x->n++].ids, h->tokens, (size_t)h->len * sizeof *h->tokens);
    return OK;
}

typedef Status Write(void *self, Texts *x);

/* Three times: what came once may come a second time in the second, and is a graph in the third. Nothing takes memory,
 * and all three are the same. moved: whether beams may. */
static void write_texts(Write *write, void *self, Texts *x, bool graphs, bool moved, const char *name) {
    Texts again;
    for (int i = 0; i < 3; i++) {
        count_from_here();
        memset(i ? &again : x, 0, sizeof again);
        passes(write(self, i ? &again : x));
        assert_int_equal(taken, 0);
        if (i) assert_memory_equal(x, &again, sizeof again);
    }
    print_message("  %-12s %s: %lld steps, %lld ops in them\n", name, graphs ? "graphs" : "plain", (long long)repeats,
                  (long long)ops);
    if (graphs) assert_true(moved ? ops <= repeats : ops == 0);
    else assert_true(ops > 15 * repeats);
}

static SearchSpec search_of(int32_t beams, int32_t longest, int32_t start) {
    return (SearchSpec){.mode = beams > 1 ? SEARCH_BEAM : SEARCH_GREEDY, .beams = beams, .max_length = longest,
                        .length_penalty = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 1, .start = start,
                        .ends = {2}, .nends = 1};
}

static Status caption(void *self, Texts *x) {
    static float features[IMAGES * 6 * 18];
    for (int i = 0; i < IMAGES * 6 * 18; i++) features[i] = 2 * number((uint32_t)i, 1);
    return generate_captions(self, (FeatureRows){features, NULL}, IMAGES, 0, collect, x);
}

static void write_captions(Texts *x, DType elem, int32_t beams, bool graphs) {
    Dims d = {.L = 2, .C = 64, .H = 4, .F = 48, .Q = Q, .E = 18, .P = 6, .Z = 8, .V = 61, .N = 96, .X = 2, .T = 12,
              .cls = 1, .sep = 2, .dec = 60};
    const Backend *b = device(elem, graphs);
    Arena mem;
    QFormer m;
    Generator g;
    passes(qformer_open_alone(&m, &mem, &d, b, &(ParamsSpec){0}));
    passes(params_init(&m.params, 3, 0.5f));
    GenerateSpec spec = {.search = search_of(beams, LONGEST, d.dec), .images = 3, .features = DT_F32};
    passes(generate_open(&g, b, &m, &spec));
    write_texts(caption, &g, x, graphs, beams > 1, elem == DT_F32 ? "captions" : "in bf16");
    generate_close(&g);
    qformer_close(&m);
    arena_close(&mem, b);
    passes(gpu->status());
}

static void captions_are_the_same(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        Texts by_graphs, plain;
        write_captions(&by_graphs, i ? DT_BF16 : DT_F32, i ? 3 : 1, true);
        write_captions(&plain, i ? DT_BF16 : DT_F32, i ? 3 : 1, false);
        assert_int_equal(plain.n, IMAGES);
        assert_memory_equal(&plain, &by_graphs, sizeof plain);
    }
}

/* ---- language models --------------------------------------------------------------------------------------------- */

enum { V = 97, ROWS = Q + 4 + LONGEST };
static const LmDims families[] = {
    {.family = LM_OPT, .L = 2, .C = 32, .E = 32, .H = 4, .K = 4, .D = 8, .F = 48, .V = V, .N = ROWS, .eps = 1e-5,
     .act = ACT_RELU, .pre_norm = true, .last_norm = true, .qkv_bias = true, .out_bias = true, .ffn_bias = true},
    {.family = LM_LLAMA, .L = 2, .C = 32, .E = 32, .H = 4, .K = 2, .D = 8, .F = 48, .V = V, .N = ROWS, .eps = 1e-6,
     .act = ACT_SILU, .gated = true, .pre_norm = true, .last_norm = true, .head = LM_HEAD_OWN, .rope = {.theta = 100}},
    {.family = LM_T5, .L = 2, .M = 2, .C = 32, .E = 32, .H = 2, .K = 2, .D = 16, .F = 48, .V = V, .eps = 1e-6,
     .act = ACT_GELU_TANH, .gated = true, .pre_norm = true, .last_norm = true, .head = LM_HEAD_OWN, .buckets = 8,
     .distance = 20}};
enum { FAMILIES = sizeof families / sizeof *families };

typedef struct { Decode decode; LmGiven given; } Writer;
static Status say(void *self, Texts *x) {
    Writer *w = self;
    return decode_texts(&w->decode, &w->given, TEXTS, 0, collect, x);
}

static void open_lm(Lm *m, Arena *mem, const LmDims *d, const Backend *b) {
    Backend null = backend_measuring(b);
    Arena sizes;
    arena_measure(&sizes, "language model");
    passes(lm_open(m, d, &null, &sizes, ROWS));
    lm_close(m);
    passes(arena_open(mem, "language model's", b, sizes.peak));
    passes(lm_open(m, d, b, mem, ROWS));
    passes(params_init(&m->params, 1, 0.4f));
    passes(lm_ready(m));
}

/* Five prompts of two pictures, of several lengths, three at a time. */
static void write_answers(Texts *x, const LmDims *d, DType elem, int32_t beams, bool graphs) {
    static const int32_t words[4] = {5, 9, 33, 7};
    const Backend *b = device(elem, graphs);
    bool t5 = d->family == LM_T5;
    void *soft = NULL, *scratch = NULL, *rows = mem_new(2 * Q * 32, sizeof(float));
    float *wide = mem_new(2 * Q * 32, sizeof *wide);
    LmPrefix p[TEXTS];
    Arena mem;
    Lm m;
    LmDecoder dec;
    Writer w;
    SearchSpec s = search_of(beams, LONGEST, t5 ? d->start : -1);
    s.rule = SEARCH_V5;
    assert_true(rows && wide);
    passes(b->alloc(&scratch, b->workspace));
    b->set_workspace(scratch, b->workspace);
    open_lm(&m, &mem, d, b);
    for (uint32_t i = 0; i < 2 * Q * 32; i++) wide[i] = number(i, 2);
    dtype_from_f32(rows, elem, wide, 2 * Q * 32);
    passes(b->alloc(&soft, 2 * Q * 32 * (size_t)dtype_size(elem)));
    b->upload(soft, rows, 2 * Q * 32 * (size_t)dtype_size(elem));
    b->sync();
    for (int i = 0; i < TEXTS; i++) p[i] = (LmPrefix){.soft = i / 3 * Q, .nsoft = Q, .ids = words, .n = 1 + i % 4};
    passes(lm_decoder_open(&dec, b, &m, &(LmDecoderSpec){3, decode_slots(&s, 3), decode_length(&s, t5), Q + 4}));
    Decoder as = lm_decoder(&dec);
    passes(decode_open(&w.decode, &as, &s));
    w.given = (LmGiven){tape_leaf(soft, 2 * Q, d->E, elem), p};
    write_texts(say, &w, x, graphs, true, lm_family_name(d->family));
    decode_close(&w.decode);
    lm_decoder_close(&dec);
    lm_close(&m);
    arena_close(&mem, b);
    b->set_workspace(NULL, 0);
    b->release(scratch);
    b->release(soft);
    free(rows);
    free(wide);
    passes(gpu->status());
}

static void answers_are_the_same(void **state) {
    (void)state;
    for (int i = 0; i < 2 * FAMILIES; i++) {
        Texts by_graphs, plain;
        write_answers(&by_graphs, &families[i / 2], i & 1 ? DT_BF16 : DT_F32, i & 1 ? 3 : 1, true);
        write_answers(&plain, &families[i / 2], i & 1 ? DT_BF16 : DT_F32, i & 1 ? 3 : 1, false);
        assert_int_equal(plain.n, TEXTS);
        assert_memory_equal(&plain, &by_graphs, sizeof plain);
    }
}

static void *give_back_what_is_not_its(void *b) {
    int here;
    ((const Backend *)b)->release(&here);
    return NULL;
}

static void add_while_another_fails(void *ctx) {
    Addition *p = ctx;
    pthread_t other;
    add(ctx);
    if (p->calls != 2) return;
    assert_int_equal(pthread_create(&other, NULL, give_back_what_is_not_its, (void *)(uintptr_t)gpu), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
}

/* What fails in the pass that is recorded is forgotten, what fails beside it is told. It sticks: the last of the tests. */
static void what_fails_beside_is_told(void **state) {
    (void)state;
    Addition p;
    open_pass(&p);
    p.b->repeat(&p.kept, 7, add_while_another_fails, &p);
    passes(p.b->status());
    p.b->repeat(&p.kept, 7, add_while_another_fails, &p);
    assert_int_equal(p.b->status(), ERR_DEVICE);
    assert_non_null(strstr(err_message(), "cudaFree"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asked_twice_and_never_again), cmocka_unit_test(what_waits_is_no_graph),
        cmocka_unit_test(many_passes), cmocka_unit_test(captions_are_the_same), cmocka_unit_test(answers_are_the_same),
        cmocka_unit_test(what_fails_beside_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
