/* bench_roofline: a full-size training step, predicted: what the first run on a GPU is held against.
 *
 *     bench_roofline [B]                      bounds, and products by their model, on an H100 SXM
 *     bench_roofline B shapes                 (under vgpu) runs each kernel once at each of its shapes: for timeline.sh
 *     bench_roofline B products               each product shape of the step, a line each: for bench_products
 *     bench_roofline B h100|h200 TIMES        the step as a timeline; TIMES: what timeline.sh made of that
 *     bench_roofline B LM [TEXTS]             a step of stage 2 with a published language model (opt-2.7b): B pictures
 *                                             of TEXTS (1) captions, products by their model, all else by BESIDE
 *
 * One real step (two waves, three losses, backward, norm, AdamW; 186.7 M parameters, images of 257 tokens of 1408,
 * captions of 13 word pieces, bf16) on measuring arenas and a backend that executes nothing but adds up what promise.h
 * says of each op. Needs neither a GPU nor CUDA nor memory. Prints a line an op, totals, and a JSON line. Exit code 1
 * when the arithmetic counted differs from DESIGN.md's 121.7 GFLOP a pair by more than 3 %.
 *
 * The bounds take for granted, none of it measured:
 * - bound: a launch takes the longest of its bytes at 3.35 TB/s, its operations at 989 TFLOP/s (bf16 products; f32 work
 *   67), and 3 us. Launches follow one another without gaps or overlap, the host is never late.
 * - at 65 %: products reach 0.65 of 989 TFLOP/s: a guess of what cuBLASLt keeps up at k = 768 under the card's power
 *   limit. It has no source; a measurement (bench_step's gemm_peak) is to replace it. All else is at its bound.
 * - Every byte comes from memory. What L2 (50 MB) still holds of the op before comes faster, so for small operands the
 *   bound is no bound; on the other hand nothing reaches 3.35 TB/s (copies on an H100 about 0.9 of it).
 * - Each image and each text is drawn as a negative once. The two waits of a step cost nothing: generation covers the
 *   draws, and the report comes back while nothing is left to do.
 * - Features of the next batch come over PCIe 5 x16 at 55 GB/s beside compute, the lists of a wave in order with it.
 *   One GPU: no collectives.
 *
 * The timeline predicts instead of bounding: kernels as VGPU_TIME says (within 10 % for tensor-core kernels and long
 * streaming ones, a factor of 2 below 10 us), each shape run once in a model of LAYERS layers, which are the step's;
 * what depends on the number of layers (optimizer, folding) is scaled by its bytes. Products by product.h. No gaps
 * between launches and no overlap but one, which is assumed: AdamW runs beside the next forward, on UPDATE_SMS of the
 * SMs, in the order and up to the waits that the step has. Meanwhile a product has the other SMs, so other waves of
 * tiles, and the bandwidth that is left; any other kernel takes as much longer as it lacks SMs or, where that is
 * longer, its bytes at that bandwidth. Column sums in the epilogue of the product that reads the same rows cost
 * nothing: a guess, the library's kernels with it are chosen only where they are faster than the two (gemm.c).
 *
 * Useful arithmetic leaves out what attention's backward may do twice: 10 D operations a visible pair are needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/lm_config.h"
#include "kernels/base/mem.h"
#include "tests/bench/product.h"
#include "tests/bench/promise.h"
#include "train/optim.h"
#include "train/stage1.h"
#include "train/stage2.h"
#include "train/trainer.h"
#include "tests/bench/must.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static const double SHARE = 0.65, PROMISED_GFLOP = 121.7, GOAL_PAIRS = 4000;
/* What is no product against its bound: 15.2 ms of 11.9 in the step of stage 1 (timeline.sh). */
static const double BESIDE = 1.28;
static const double PRODUCT_HOST = 7e-6; /* seconds of the host for a product's calls of cuBLASLt; an estimate */
static const Dims FULL = {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = 1408, .P = 257, .Z = 256, .V = 30523,
                          .N = 512, .X = 2, .T = 32, .cls = 1, .sep = 2, .dec = 30522};
enum { TOKENS = 13, SAID = TOKENS + 2, LINES = 48, SHAPES = 512, LAYERS = 4, EVENTS = 8192 };

/* ---- adding up ------------------------------------------------------------------------------------------------- */

/* likely: seconds with products at SHARE; predicted, host: seconds of device and host by the timeline. */
typedef struct { const char *name; Promise p; double likely, predicted, host; int launches; } Line;

/* A launch of its own size: what it promises tells it from the others of its op. us, host_us: of one, predicted. */
typedef struct { const char *name; double bytes, flops, us, host_us; int count, launches; bool known; } Shape;
typedef struct { Gemm g; Product p; int count; } ProductShape;

/* What a step enqueues, in order. at: the shape's number, or the product's; number: of AdamW (AdamW.beside). */
typedef enum { KERNEL, PRODUCT, UPDATE, WAIT } What;
typedef struct { What what; int at, number; } Event;

static struct {
    Line line[LINES];
    Shape shape[SHAPES];
    ProductShape product[SHAPES];
    Event event[EVENTS];
    int lines, shapes, products, events;
    double useful, prefetched;                               /* operations; bytes beside compute */
} sum;

static const Hopper *gpu = &HOPPER[0];
static const Backend *real;             /* what runs each shape once; else the null backend */
static bool running;

static Line *line_of(const char *name) {
    int i = 0;
    while (i < sum.lines && strcmp(sum.line[i].name, name)) i++;
    if (i == LINES) exit(1);
    if (i == sum.lines) sum.line[sum.lines++] = (Line){.name = name};
    return &sum.line[i];
}

static Line *add(const char *name, Promise p, double likely) {
    Line *l = line_of(name);
    l->p = promise_then(l->p, p);
    l->likely += likely;
    return l;
}

static void happens(What what, int at, int number) {
    if (sum.events == EVENTS) exit(1);
    sum.event[sum.events++] = (Event){what, at, number};
}

/* True when this shape is to be run, as range "shape N" of the profile. */
static bool count(const char *name, Promise p) {
    int i = 0;
    add(name, p, p.seconds);
    while (i < sum.shapes && (sum.shape[i].bytes != p.bytes || sum.shape[i].flops != p.flops ||
                              strcmp(sum.shape[i].name, name)))
        i++;
    if (i == SHAPES) exit(1);
    happens(KERNEL, i, 0);
    if (i < sum.shapes) return sum.shape[i].count++, false;
    sum.shape[sum.shapes++] = (Shape){.name = name, .bytes = p.bytes, .flops = p.flops, .count = 1};
    if (!running) return false;
    char range[32];
    snprintf(range, sizeof range, "shape %d", i);
    real->mark(range);
    printf("SHAPE|%d|%s|%.0f|%.0f\n", i, name, p.bytes, p.flops);
    return true;
}
static void done(void) { real->mark(NULL); }
#define RUN(op, promise, ...) do { if (count(#op, promise)) real->op(__VA_ARGS__), done(); } while (0)

static const char *product_name(const Gemm *g) {
    return g->ta ? "product, dW = dy^T x" : g->tb ? "product, y = x W^T" : "product, dx = dy W";
}

/* With an activation around it: a shape that is run, in one kernel or two, as the backend has it. */
static void multiply_act(const Gemm *g) {
    Promise p = promise_product_act(g);
    if (count(g->grad ? "product, act_bwd" : "product, act", p)) real->gemm(g), done();
    sum.useful += p.flops;
}

static void multiply(const Gemm *g) {
    int i = 0;
    Product p = product_predict(gpu, g);
    Line *l = add(product_name(g), promise_gemm(g, H100_FLOPS), promise_gemm(g, SHARE * H100_FLOPS).seconds);
    l->predicted += p.seconds, l->host += PRODUCT_HOST, l->launches++;
    sum.useful += 2 * (double)g->m * (double)g->n * (double)g->k;
    for (; i < sum.products; i++) {
        const Gemm *o = &sum.product[i].g;
        if (o->m == g->m && o->n == g->n && o->k == g->k && o->ta == g->ta && o->tb == g->tb && o->add == g->add &&
            o->ct == g->ct) break;
    }
    if (i == SHAPES) exit(1);
    if (i == sum.products) sum.product[sum.products++] = (ProductShape){.g = *g, .p = p};
    sum.product[i].count++;
    happens(PRODUCT, i, 0);
}

static void gemm(const Gemm *g) {
    if (g->act) multiply_act(g);
    else multiply(g);
}

/* Several of one call: in one launch, where that is less than each by itself, as a run's timing would find. The table
 * of products has them each; the group's time is the line's. */
static void gemms(const Gemm *g, int n) {
    Line *l = line_of(product_name(g));
    double before = l->predicted, one = product_group(gpu, g, n);
    int launches = l->launches;
    for (int i = 0; i < n; i++) gemm(&g[i]);
    if (n == 1 || one >= l->predicted - before) return;
    l->predicted = before + one, l->launches = launches + 1; /* the host describes each */
}

static bool is_cross(const Attn *a) { return a->plan->max_nk == FULL.P; }
static void attention(const Attn *a) {
    Promise p = promise_attention(a);
    if (count(is_cross(a) ? "attention, cross" : "attention, self", p)) real->attention(a), done();
    sum.useful += p.flops;
}
static void attention_bwd(const Attn *a, const AttnGrad *g) {
    Promise p = promise_attention_bwd(a, g);
    if (count(is_cross(a) ? "attention_bwd, cross" : "attention_bwd, self", p)) real->attention_bwd(a, g), done();
    sum.useful += 10 * (double)a->plan->products * a->H * a->D;
}

/* Memory is moved each time when shapes run: lists are what kernels find their rows by. */
static void moved(const char *name, Promise p) {
    Line *l = add(name, p, p.seconds);
    l->predicted += p.seconds, l->host += 2.2e-6, l->launches++;
}
static void zero(void *p, size_t bytes) { moved("zero", promise_zero(bytes)), real->zero(p, bytes); }
static void copy(void *dst, const void *src, size_t bytes) {
    moved("copy", promise_copy(bytes)), real->copy(dst, src, bytes);
}
static void upload(void *dst, const void *src, size_t bytes) {
    moved("upload", promise_host(bytes)), real->upload(dst, src, bytes);
}
static void fetch(void *dst, const void *src, size_t bytes) {
    moved("fetch", promise_host(bytes)), real->fetch(dst, src, bytes);
}
static void prefetch(void *dst, const void *src, size_t bytes) { sum.prefetched += (double)bytes; }

static void colsum(float *db, const void *dy, int64_t N, int64_t C, int64_t ld) {
    RUN(colsum, promise_colsum(N, C, ld), db, dy, N, C, ld);
}
static void act(const Act *a) { RUN(act, promise_act(a), a); }
static void act_bwd(const Act *a, const ActGrad *g) { RUN(act_bwd, promise_act_bwd(a, g), a, g); }
static void add_norm(const AddNorm *a) { RUN(add_norm, promise_add_norm(a), a); }
static void add_norm_bwd(const AddNorm *a, const AddNormGrad *g) {
    RUN(add_norm_bwd, promise_add_norm_bwd(a, g), a, g);
}
static void embed(const Embed *e) { RUN(embed, promise_embed(e), e); }
static void embed_bwd(const Embed *e, const EmbedGrad *g) { RUN(embed_bwd, promise_embed_bwd(e), e, g); }

static void normalize(void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E, int64_t P,
                      float eps) {
    RUN(normalize, promise_normalize(t, N, E), xhat, f, t, scale, N, E, P, eps);
}
static void fold(void *Wf, void *cf, const float *W, const float *b, const float *gamma, const float *beta, int64_t M,
                 int64_t E) {
    RUN(fold, promise_fold(M, E), Wf, cf, W, b, gamma, beta, M, E);
}
static void unfold(float *dW, bool add_dw, float *db, float *dgamma, float *dbeta, const float *G, const float *s,
                   const float *W, const float *gamma, const float *beta, int64_t M, int64_t E) {
    RUN(unfold, promise_unfold(M, E, add_dw), dW, add_dw, db, dgamma, dbeta, G, s, W, gamma, beta, M, E);
}

static void l2norm(float *y, float *norm, const void *x, int64_t N, int64_t Z) {
    RUN(l2norm, promise_l2norm(N, Z), y, norm, x, N, Z);
}
static void l2norm_bwd(void *dx, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z) {
    RUN(l2norm_bwd, promise_l2norm_bwd(N, Z), dx, dy, y, norm, N, Z);
}
static void segment_mean(void *y, const void *x, int64_t n, int64_t Q, int64_t C) {
    RUN(segment_mean, promise_segment_mean(n, Q, C, false), y, x, n, Q, C);
}
static void segment_mean_bwd(void *dx, const void *dy, int64_t n, int64_t Q, int64_t C, bool add_dx) {
    RUN(segment_mean_bwd, promise_segment_mean(n, Q, C, add_dx), dx, dy, n, Q, C, add_dx);
}
static void simmax(float *S, int32_t *arg, const float *I, const float *T, int64_t ni, int64_t nt, int64_t Q, int64_t Z,
                   int64_t si, int64_t sj) {
    RUN(simmax, promise_simmax(ni, nt, Q, Z), S, arg, I, T, ni, nt, Q, Z, si, sj);
}
static void simmax_bwd_image(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t ni, int64_t nt,
                             int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    RUN(simmax_bwd_image, promise_simmax_bwd_image(ni, nt, Q, Z), dI, dS, arg, T, ni, nt, Q, Z, si, sj);
}
static void simmax_bwd_text(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni, int64_t nt,
                            int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    RUN(simmax_bwd_text, promise_simmax_bwd_text(ni, nt, Z), dT, dS, arg, I, ni, nt, Q, Z, si, sj);
}
static void itc_loss(const ItcLoss *l) { RUN(itc_loss, promise_itc_loss(l), l); }
static void negatives(const Negatives *n) { RUN(negatives, promise_negatives(n), n); }
static void xent(const Xent *x) { RUN(xent, promise_xent(x), x); }

static void copy_rows(void *dst, int64_t ldd, const int32_t *di, const void *src, int64_t lds, const int32_t *si,
                      int64_t n, int64_t width, bool add_rows) {
    RUN(copy_rows, promise_copy_rows(n, width, add_rows), dst, ldd, di, src, lds, si, n, width, add_rows);
}
static void cast(void *dst, DType dt, const void *src, DType st, int64_t n) {
    RUN(cast, promise_cast(dt, st, n), dst, dt, src, st, n);
}
static void axpy(float *y, const float *x, float a, int64_t n) { RUN(axpy, promise_axpy(n), y, x, a, n); }
static void sum_up(float *out, const float *x, int64_t n, bool add_out) {
    RUN(sum, promise_sum(n), out, x, n, add_out);
}
static void sumsq(double *out, const float *g, int64_t n, bool add_out) {
    RUN(sumsq, promise_sumsq(n), out, g, n, add_out);
}
static void grad_scale(float *scale, float *norm_out, const double *squares, int n, float max_norm) {
    RUN(grad_scale, promise_grad_scale(), scale, norm_out, squares, n, max_norm);
}
static void adamw(const AdamW *a) {
    bool run = count("adamw", promise_adamw(a));
    sum.event[sum.events - 1].what = UPDATE, sum.event[sum.events - 1].number = a->beside;
    if (run) real->adamw(a), done();
}
static void adamw_wait(int number) { happens(WAIT, 0, number), real->adamw_wait(number); }
static void rotary(const Rotary *r) { RUN(rotary, promise_rotary(r), r); }
static void lookup(const Lookup *a) { RUN(lookup, promise_lookup(a), a); }

/* Calls that the null backend answers and a step on one GPU makes, each replaced. */
static Backend adding(void) {
    Backend b = *backend_null(DT_BF16);
    b.unified = false;
    if (running) {
        b = *real;
        b.mark = backend_null(DT_BF16)->mark;
        b.prefetch_wait = backend_null(DT_BF16)->sync;
    }
    b.zero = zero, b.copy = copy, b.upload = upload, b.fetch = fetch, b.prefetch = prefetch;
    b.gemm = gemm, b.gemms = gemms, b.colsum = colsum, b.act = act, b.act_bwd = act_bwd;
    b.add_norm = add_norm, b.add_norm_bwd = add_norm_bwd, b.embed = embed, b.embed_bwd = embed_bwd;
    b.attention = attention, b.attention_bwd = attention_bwd;
    b.normalize = normalize, b.fold = fold, b.unfold = unfold;
    b.l2norm = l2norm, b.l2norm_bwd = l2norm_bwd, b.segment_mean = segment_mean, b.segment_mean_bwd = segment_mean_bwd;
    b.simmax = simmax, b.simmax_bwd_image = simmax_bwd_image, b.simmax_bwd_text = simmax_bwd_text;
    b.itc_loss = itc_loss, b.negatives = negatives, b.xent = xent;
    b.rotary = rotary, b.lookup = lookup, b.copy_rows = copy_rows, b.cast = cast, b.axpy = axpy, b.sum = sum_up;
    b.sumsq = sumsq, b.grad_scale = grad_scale, b.adamw = adamw;
    b.adamw_wait = adamw_wait;
    return b;
}

/* ---- the step -------------------------------------------------------------------------------------------------- */

/* Memory that only counts, or, where shapes are run, as much as trainer_plan says. */
static void open_arenas(Arena *run, Arena *mem, const Dims *d, int64_t B) {
    arena_measure(run, "run");
    arena_measure(mem, "step");
    if (!running) return;
    Stage1Spec spec = {.itc = 1, .itm = 1, .itg = 1, .dropout = 0.1f};
    TrainerSpec all = {.d = *d, .tokens = TOKENS, .features = DT_F16, .params = {.training = true}, .B = B, .micro = 1,
                       .roomy = true, .objective = &stage1_objective, .spec = &spec};
    Plan plan;
    must(trainer_plan(&plan, real, &all));
    must(arena_open(run, "run's", real, plan.weights + plan.state + plan.buffers));
    must(arena_open(mem, "step's", real, plan.step));
}

/* Captions of words drawn alike; features are read where shapes are run. Each image, each text is drawn once. Returns
 * what is to be freed. */
static void *fill(ObjectiveBatch *batch, int64_t B) {
    int64_t T = FULL.T, *image = mem_new((size_t)B, sizeof *image + (size_t)(T + 2) * sizeof(int32_t));
    if (!image) exit(1);
    int32_t *ids = (int32_t *)(image + B), *len = ids + B * T, *drawn = len + B;
    void *features = ids;
    if (running) must(real->host_alloc(&features, (size_t)(B * FULL.P * FULL.E) * sizeof(uint16_t)));
    for (int64_t i = 0; i < B; i++) {
        len[i] = TOKENS, image[i] = i, drawn[i] = (int32_t)((i + 1) % B);
        for (int t = 0; t < TOKENS; t++)
            ids[i * T + t] = (int32_t)(5 + philox((uint32_t)(i * 64 + t), 0, 0, 0, 3, 4).v[0] % (uint32_t)(FULL.V - 6));
    }
    *batch = (ObjectiveBatch){.features = features, .dt = DT_F16, .ids = ids, .len = len, .image_id = image,
                               .negative_image = drawn, .negative_text = drawn};
    return image;
}

/* The second of two steps, whose features came while the first one ran; or the first alone, of fewer layers, where
 * shapes are run. Returns the number of parameters. */
static int64_t run_step(int64_t B) {
    Backend b = adding();
    Arena run, mem;
    QFormer model;
    Stage1 s;
    ObjectiveBatch batch;
    Stage1Losses losses;
    Stage1Spec spec = {.itc = 1, .itm = 1, .itg = 1, .smoothing = 0.1f, .dropout = 0.1f, .seed = 1};
    AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .beside = true};
    Dims d = FULL;
    float norm, temp = 0.07f;            /* memory is zero: only this number must be one, or no step is made */
    if (running) d.L = LAYERS;
    open_arenas(&run, &mem, &d, B);
    must(qformer_open(&model, &d, &b, &run, &(ParamsSpec){.training = true}));
    void *scratch = arena_push(&run, optim_scratch(), 1);
    if (running) real->set_workspace(arena_push(&run, real->workspace, 1), real->workspace);
    must(stage1_open(&s, &(ObjectiveSite){&b, &model, &run, &mem, B, 1}, &spec));
    s.tape.roomy = true;                                     /* as a GPU with 24 GB has it at 128 pairs */
    void *room = fill(&batch, B);
    if (running) real->upload(params_get(&model.params, P_TEMP, -1).w, &temp, sizeof temp), real->sync();
    for (int i = 0; i < (running ? 1 : 2); i++) {
        memset(&sum, 0, sizeof sum);
        must(stage1_run(&s, &batch, &batch, (uint32_t)i, 1.0f, true));
        must(optim_norm(&model.params, scratch, adam.clip, &norm));
        must(optim_update(&model.params, scratch, &adam, 1e-4, i + 1));
        must(stage1_read(&s, &losses));
        optim_end(&model.params, true, NULL);
    }
    int64_t learned = model.params.count;
    stage1_close(&s);
    qformer_close(&model);
    free(room);
    return learned;
}

/* ---- the timeline ------------------------------------------------------------------------------------------------ */

/* Lines NAME|bytes|flops|us|host us|launches, of shapes that were run. */
static int read_times(const char *path, Shape *known) {
    FILE *f = fopen(path, "r");
    char name[64];
    int n = 0;
    if (!f) return fprintf(stderr, "bench_roofline: %s cannot be read: timeline.sh writes it\n", path), -1;
    while (n < SHAPES && fscanf(f, " %63[^|]|%lf|%lf|%lf|%lf|%d", name, &known[n].bytes, &known[n].flops, &known[n].us,
                                &known[n].host_us, &known[n].launches) == 6)
        known[n++].name = line_of(name)->name;
    fclose(f);
    return n;
}

/* Of the same size, or else of the same op and the nearest size, scaled. */
static bool time_shape(Shape *s, const Shape *known, int n) {
    const Shape *best = NULL;
    for (int i = 0; i < n; i++) {
        const Shape *k = &known[i];
        if (strcmp(k->name, s->name)) continue;
        if (!best || fabs(log((k->bytes + 1) / (s->bytes + 1))) < fabs(log((best->bytes + 1) / (s->bytes + 1))) ||
            (k->bytes == s->bytes && k->flops == s->flops))
            best = k;
    }
    if (!best) return false;
    bool same = best->bytes == s->bytes;
    s->us = same ? best->us : best->us * (s->bytes + 1) / (best->bytes + 1);
    s->host_us = best->host_us, s->launches = best->launches;
    return true;
}

static int longer_first(const void *a, const void *b) {
    double x = ((const Line *)a)->predicted, y = ((const Line *)b)->predicted;
    return (x < y) - (x > y);
}

static int more_first(const void *a, const void *b) {
    const ProductShape *x = a, *y = b;
    double s = x->count * x->p.seconds, t = y->count * y->p.seconds;
    return (s < t) - (s > t);
}

static void print_products(void) {
    qsort(sum.product, (size_t)sum.products, sizeof *sum.product, more_first);
    printf("\n%-22s %6s %6s %6s %5s %9s %6s %5s %8s %8s %8s\n", "products", "m", "n", "k", "count", "tile", "waves",
           "split", "us", "TFLOP/s", "ms");
    for (int i = 0; i < sum.products; i++) {
        const Gemm *g = &sum.product[i].g;
        const Product *p = &sum.product[i].p;
        char tile[32];
        snprintf(tile, sizeof tile, "%dx%d", p->tile_m, p->tile_n);
        printf("%-22s %6lld %6lld %6lld %5d %9s %6.2f %5d %8.1f %8.0f %8.3f\n", product_name(g) + 9, (long long)g->m,
               (long long)g->n, (long long)g->k, sum.product[i].count, tile, p->waves, p->split, p->seconds * 1e6,
               2.0 * (double)g->m * (double)g->n * (double)g->k / p->seconds / 1e12,
               sum.product[i].count * p->seconds * 1e3);
    }
}

/* Seconds of one event, alone or beside AdamW on what that leaves of the GPU. stays: a product's blocks are as many as
 * the GPU has SMs and share its tiles from the start, so those without an SM come when the others have done theirs. */
static double event_time(const Event *e, const Hopper *left, bool stays) {
    if (e->what == PRODUCT && left && stays) return 2 * product_predict(gpu, &sum.product[e->at].g).seconds;
    if (e->what == PRODUCT) return product_predict(left ? left : gpu, &sum.product[e->at].g).seconds;
    double alone = sum.shape[e->at].us * 1e-6;
    return left ? fmax(alone * gpu->sms / left->sms, sum.shape[e->at].bytes / left->hbm) : alone;
}

/* How much longer the step's compute takes for the AdamW of the step before, which begins with it. *update: AdamW's own
 * seconds; *order: at least, on the whole GPU by itself. */
static double beside(double *update, double *order, bool stays) {
    double end[ADAMW_BESIDE + 1] = {0}, bytes = 0, all = 0, alone = 0, t = 0;
    for (int i = 0; i < sum.events; i++) {
        const Event *e = &sum.event[i];
        if (e->what != UPDATE) continue;
        all += sum.shape[e->at].us * 1e-6, bytes += sum.shape[e->at].bytes, end[e->number] = all;
    }
    Hopper left = *gpu;
    left.sms -= UPDATE_SMS, left.peak *= (double)left.sms / gpu->sms, left.hbm -= bytes / all;
    *update = all, *order = bytes / gpu->hbm;
    for (int i = 0; i < sum.events; i++) {
        const Event *e = &sum.event[i];
        if (e->what == WAIT) t = fmax(t, end[e->number]);
        if (e->what == WAIT || e->what == UPDATE) continue;
        double takes = event_time(e, NULL, stays), shared = event_time(e, &left, stays);
        double part = t < all ? fmin(1, (all - t) / shared) : 0;
        t += part * shared + (1 - part) * takes, alone += takes;
    }
    return t - alone;
}

/* The step, kernels as `path` says. */
static int timeline(int64_t B, const char *path) {
    static Shape known[SHAPES];
    int n = read_times(path, known);
    Line all = {.name = "all"}, products = {.name = "  of that, products"};
    if (n < 0) return 1;
    for (int i = 0; i < sum.shapes; i++) {
        Shape *s = &sum.shape[i];
        Line *l = line_of(s->name);
        if (!time_shape(s, known, n)) return fprintf(stderr, "bench_roofline: no time of %s in %s\n", s->name, path), 1;
        l->predicted += s->count * s->us * 1e-6, l->host += s->count * s->host_us * 1e-6;
        l->launches += s->count * s->launches;
    }
    double update, order, added = beside(&update, &order, false), most = beside(&update, &order, true);
    line_of("adamw")->predicted = added;
    qsort(sum.line, (size_t)sum.lines, sizeof *sum.line, longer_first);
    printf("%-22s %8s %12s %8s %9s\n", "op", "launches", "predicted ms", "share", "host ms");
    for (int i = 0; i < sum.lines; i++) {
        const Line *l = &sum.line[i];
        Line *to[] = {&all, strncmp(l->name, "product", 7) ? NULL : &products};
        for (int k = 0; k < 2 && to[k]; k++)
            to[k]->predicted += l->predicted, to[k]->host += l->host, to[k]->launches += l->launches;
    }
    for (int i = 0; i < sum.lines + 2; i++) {
        const Line *l = i < sum.lines ? &sum.line[i] : i == sum.lines ? &all : &products;
        printf("%-22s %8d %12.3f %6.1f %% %9.3f\n", l->name, l->launches, l->predicted * 1e3,
               100 * l->predicted / all.predicted, l->host * 1e3);
    }
    print_products();
    printf("\nAdamW beside the forward: %.2f ms on %d SMs, for which the rest takes %.2f ms longer (%.2f if products' "
           "blocks stay); in order %.2f\n", update * 1e3, UPDATE_SMS, added * 1e3, most * 1e3, order * 1e3);
    double step = fmax(fmax(all.predicted, all.host), sum.prefetched / H100_PCIE);
    printf("\n%s: %.2f ms a step of %lld pairs predicted, %.0f pairs/s; %d launches; the host works %.2f ms of it\n",
           gpu->name, step * 1e3, (long long)B, (double)B / step, all.launches, all.host * 1e3);
    printf("{\"bench\":\"timeline\",\"gpu\":\"%s\",\"B\":%lld,\"predicted_ms\":%.3f,\"products_ms\":%.3f,"
           "\"launches\":%d,\"host_ms\":%.3f,\"adamw_ms\":%.3f,\"adamw_adds_ms\":%.3f}\n", gpu->name, (long long)B,
           step * 1e3, products.predicted * 1e3, all.launches, all.host * 1e3, update * 1e3, added * 1e3);
    return 0;
}

/* ---- stage 2 ----------------------------------------------------------------------------------------------------- */

/* Captions of TOKENS word pieces, begin and end; of T5 half of them are the prompt. */
static void *say(ObjectiveBatch *batch, int64_t B, int texts, const LmDims *d) {
    int64_t n = B * texts;
    LmItem *items = mem_new((size_t)n * sizeof *items + SAID * sizeof(int32_t), 1);
    if (!items) exit(1);
    const int32_t *ids = (int32_t *)(items + n);             /* zeros: nothing is computed */
    for (int64_t i = 0; i < n; i++)
        items[i] = (LmItem){.image = (int32_t)(i / texts), .ids = ids, .n = SAID,
                            .target = d->family == LM_T5 ? SAID / 2 : 0};
    *batch = (ObjectiveBatch){.features = ids, .dt = DT_F16, .said = items, .nsaid = (int)n};
    return items;
}

/* A product and its activation in two kernels, as a run has them where timing finds that no slower. */
static void gemm_apart(const Gemm *g) {
    Gemm plain = *g;
    plain.act = NULL, plain.grad = NULL;
    multiply(&plain);
    if (g->act && g->grad) act_bwd(g->act, g->grad);
    else if (g->act) act(g->act);
}

/* The second of two steps, on measuring arenas. */
static void run_stage2(int64_t B, int texts, const LmDims *ld) {
    Backend b = adding();
    b.gemm = gemm_apart;                                     /* no shape runs here, so none has a time */
    Arena run, mem;
    QFormer model;
    Lm lm;
    Stage2 s;
    ObjectiveBatch batch;
    ObjectiveLosses losses;
    AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .beside = true};
    Dims d = FULL;
    float norm;
    d.Z = d.V = d.N = 0, d.W = ld->E;
    open_arenas(&run, &mem, &d, B);
    must(lm_open(&lm, ld, &b, &run, FULL.Q + SAID + 1));
    must(qformer_open(&model, &d, &b, &run, &(ParamsSpec){.training = true}));
    void *scratch = arena_push(&run, optim_scratch(), 1), *room = say(&batch, B, texts, ld);
    Stage2Spec spec = {.lm = &lm, .texts = texts, .ids = SAID, .dropout = 0.1f, .one_prompt = true, .seed = 1};
    must(stage2_open(&s, &(ObjectiveSite){&b, &model, &run, &mem, B, 1}, &spec));
    for (int i = 0; i < 2; i++) {
        memset(&sum, 0, sizeof sum);
        must(stage2_objective.run(&s, &batch, &batch, (uint32_t)i, 1.0f, true));
        must(stage2_objective.read(&s, &losses));
        must(optim_norm(&model.params, scratch, adam.clip, &norm));
        must(optim_update(&model.params, scratch, &adam, 1e-4, i + 1));
    }
    stage2_close(&s);
    qformer_close(&model);
    lm_close(&lm);
    free(room);
}

static int stage2(int64_t B, const char *name, int texts) {
    LmDims ld;
    double products = 0, rest = 0, pairs = (double)(B * texts);
    if (texts < 1 || !lm_config_known(&ld, name))
        return fprintf(stderr, "bench_roofline: %s is none of %s\n", name, lm_config_names()), 2;
    run_stage2(B, texts, &ld);
    for (int i = 0; i < sum.lines; i++) {
        const Line *l = &sum.line[i];
        bool product = !strncmp(l->name, "product", 7);
        double seconds = product ? l->predicted : BESIDE * l->p.seconds;
        *(product ? &products : &rest) += seconds;
        printf("%-22s %8d %9.3f GB %10.1f GFLOP %9.3f ms\n", l->name, l->p.launches, l->p.bytes / 1e9, l->p.flops / 1e9,
               seconds * 1e3);
    }
    print_products();
    double step = fmax(products + rest, sum.prefetched / H100_PCIE);
    printf("%s, %lld pictures of %d captions: %.1f ms predicted, %.1f of them products; %.1f GFLOP a pair, "
           "%.0f pairs/s\n", name, (long long)B, texts, step * 1e3, products * 1e3, sum.useful / pairs / 1e9,
           pairs / step);
    printf("{\"bench\":\"roofline_stage2\",\"lm\":\"%s\",\"B\":%lld,\"texts\":%d,\"predicted_ms\":%.3f,"
           "\"products_ms\":%.3f,\"tflops\":%.1f,\"pairs_s\":%.1f}\n", name, (long long)B, texts, step * 1e3,
           products * 1e3, sum.useful / step / 1e12, pairs / step);
    return 0;
}

/* ---- bounds ------------------------------------------------------------------------------------------------------ */

static int slower_first(const void *a, const void *b) {
    double x = ((const Line *)a)->p.seconds, y = ((const Line *)b)->p.seconds;
    return (x < y) - (x > y);
}

static void print_line(const Line *l, const Line *all) {
    printf("%-22s %8d %9.3f %10.1f %9.3f %6.1f %% %9.3f\n", l->name, l->p.launches, l->p.bytes / 1e9, l->p.flops / 1e9,
           l->p.seconds * 1e3, 100 * l->p.seconds / all->p.seconds, l->likely * 1e3);
}

/* A step that takes so long. */
static void print_step(const char *name, double seconds, int64_t B, double useful) {
    printf("%-18s %6.2f ms a step of %lld pairs, %5.0f pairs/s, %3.0f TFLOP/s of useful arithmetic\n", name,
           seconds * 1e3, (long long)B, (double)B / seconds, useful / seconds / 1e12);
}

static int bounds(int64_t B, int64_t params) {
    Line all = {.name = "all"}, products = {.name = "  of that, products"};
    for (int i = 0; i < sum.lines; i++) {
        Line *l = &sum.line[i];
        all.p = promise_then(all.p, l->p), all.likely += l->likely;
        if (strncmp(l->name, "product", 7)) continue;
        products.p = promise_then(products.p, l->p), products.likely += l->likely;
    }
    qsort(sum.line, (size_t)sum.lines, sizeof *sum.line, slower_first);
    printf("%-22s %8s %9s %10s %9s %8s %9s\n", "op", "launches", "GB", "GFLOP", "bound ms", "share", "at 65 %");
    for (int i = 0; i < sum.lines; i++) print_line(&sum.line[i], &all);
    print_line(&all, &all);
    print_line(&products, &all);

    double sent = sum.prefetched / H100_PCIE, bound = fmax(all.p.seconds, sent), likely = fmax(all.likely, sent),
           pairs = (double)B, a_pair = sum.useful / pairs / 1e9;
    printf("features           %6.2f ms of PCIe beside that, %.1f MB\n", sent * 1e3, sum.prefetched / 1e6);
    printf("launches           %6.2f us the host has for each\n", bound * 1e6 / all.p.launches);
    printf("arithmetic         %6.2f GFLOP a pair, DESIGN.md promises %.1f; %.1f M parameters\n", a_pair,
           PROMISED_GFLOP, (double)params / 1e6);
    print_step("bound", bound, B, sum.useful);
    print_step("products at 65 %", likely, B, sum.useful);
    print_step("the goal", pairs / GOAL_PAIRS, B, sum.useful);
    printf("{\"bench\":\"roofline\",\"B\":%lld,\"launches\":%d,\"gbytes\":%.3f,\"gflop\":%.1f,\"gflop_per_pair\":%.3f,"
           "\"bound_ms\":%.3f,\"bound_pairs_s\":%.0f,\"bound_tflops\":%.1f,\"products_ms\":%.3f,\"likely_ms\":%.3f,"
           "\"likely_pairs_s\":%.0f,\"likely_tflops\":%.1f,\"prefetch_ms\":%.3f}\n",
           (long long)B, all.p.launches, all.p.bytes / 1e9, all.p.flops / 1e9, a_pair, bound * 1e3, pairs / bound,
           sum.useful / bound / 1e12, products.p.seconds * 1e3, likely * 1e3, pairs / likely,
           sum.useful / likely / 1e12, sent * 1e3);
    if (fabs(a_pair / PROMISED_GFLOP - 1) <= 0.03) return 0;
    fprintf(stderr, "bench_roofline: %.2f GFLOP a pair were counted, %.1f are promised\n", a_pair, PROMISED_GFLOP);
    return 1;
}

static int usage(void) {
    return fprintf(stderr, "bench_roofline: [2 to 4096 pairs [shapes | h100|h200 TIMES | LM [TEXTS]]]\n"), 2;
}

/* Every kernel once at each shape, on the GPU that is here (or vgpu). */
static int run_shapes(int64_t B) {
    must(backend_open(&real, "cuda", DT_BF16, 0));
    running = true;
    run_step(B);
    real->sync();
    must(real->status());
    return 0;
}

static int list_products(void) {
    for (int i = 0; i < sum.products; i++) {
        const ProductShape *s = &sum.product[i];
        const Gemm *g = &s->g;
        printf("%d %lld %lld %lld %d %d %d %d %d %.1f\n", s->count, (long long)g->m, (long long)g->n, (long long)g->k, g->ta,
               g->tb, g->add, g->bias != NULL, g->ct == DT_F32, s->p.seconds * 1e6);
    }
    return 0;
}

int main(int argc, char **argv) {
    int64_t B = argc > 1 ? atoll(argv[1]) : 128;
    real = backend_null(DT_BF16);
    if (B < 2 || B > 4096 || argc > 4) return usage();
    if (argc == 3 && !strcmp(argv[2], "shapes")) return run_shapes(B);
    if (argc == 3 && !strcmp(argv[2], "products")) return run_step(B), list_products();
    if (argc > 2 && strncmp(argv[2], "h", 1)) return stage2(B, argv[2], argc > 3 ? atoi(argv[3]) : 1);
    for (size_t i = 0; i < sizeof HOPPER / sizeof *HOPPER; i++)
        if (argc == 4 && !strcmp(argv[2], HOPPER[i].name)) {
            gpu = &HOPPER[i];
            run_step(B);
            return timeline(B, argv[3]);
        }
    return argc > 2 ? usage() : bounds(B, run_step(B));
}
