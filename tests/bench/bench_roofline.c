/* bench_roofline: a full-size training step on one H100 SXM, predicted: what the first run on a GPU is held against.
 *
 *     bench_roofline [B]
 *
 * One real step (two waves, three losses, backward, norm, AdamW; 186.7 M parameters, images of 257 tokens of 1408,
 * captions of 13 word pieces, bf16) on measuring arenas and a backend that executes nothing but adds up what promise.h
 * says of each op. Needs neither a GPU nor CUDA nor memory. Prints a line an op, totals, and a JSON line. Exit code 1
 * when the arithmetic counted differs from DESIGN.md's 121.7 GFLOP a pair by more than 3 %.
 *
 * Taken for granted, none of it measured:
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
 * Useful arithmetic leaves out what attention's backward computes twice: 14 D operations a visible pair, 10 needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "tests/bench/promise.h"
#include "train/optim.h"
#include "train/stage1.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static const double SHARE = 0.65, PROMISED_GFLOP = 121.7, GOAL_PAIRS = 4000;
static const Dims FULL = {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = 1408, .P = 257, .Z = 256, .V = 30523,
                          .N = 512, .X = 2, .T = 32, .cls = 1, .sep = 2, .dec = 30522};
enum { TOKENS = 13, LINES = 48 };

/* ---- adding up ------------------------------------------------------------------------------------------------- */

/* likely: seconds with products at SHARE. */
typedef struct { const char *name; Promise p; double likely; } Line;

static struct {
    Line line[LINES];
    int lines;
    double useful, prefetched;                               /* operations; bytes beside compute */
} sum;

static void add(const char *name, Promise p, double likely) {
    int i = 0;
    while (i < sum.lines && strcmp(sum.line[i].name, name)) i++;
    if (i == LINES) exit(1);
    if (i == sum.lines) sum.line[sum.lines++] = (Line){.name = name};
    sum.line[i].p = promise_then(sum.line[i].p, p);
    sum.line[i].likely += likely;
}
static void count(const char *name, Promise p) { add(name, p, p.seconds); }

static void gemm(const Gemm *g) {
    const char *name = g->ta ? "product, dW = dy^T x" : g->tb ? "product, y = x W^T" : "product, dx = dy W";
    add(name, promise_gemm(g, H100_FLOPS), promise_gemm(g, SHARE * H100_FLOPS).seconds);
    sum.useful += 2 * (double)g->m * (double)g->n * (double)g->k;
}

static bool is_cross(const Attn *a) { return a->plan->max_nk == FULL.P; }
static void attention(const Attn *a) {
    Promise p = promise_attention(a);
    count(is_cross(a) ? "attention, cross" : "attention, self", p);
    sum.useful += p.flops;
}
static void attention_bwd(const Attn *a, const AttnGrad *g) {
    Promise p = promise_attention_bwd(a, g);
    count(is_cross(a) ? "attention_bwd, cross" : "attention_bwd, self", p);
    sum.useful += p.flops * 10 / 14;
}

static void zero(void *p, size_t bytes) { count("zero", promise_zero(bytes)); }
static void copy(void *dst, const void *src, size_t bytes) { count("copy", promise_copy(bytes)); }
static void upload(void *dst, const void *src, size_t bytes) { count("upload", promise_host(bytes)); }
static void fetch(void *dst, const void *src, size_t bytes) { count("fetch", promise_host(bytes)); }
static void prefetch(void *dst, const void *src, size_t bytes) { sum.prefetched += (double)bytes; }

static void colsum(float *db, const void *dy, int64_t N, int64_t C, int64_t ld) {
    count("colsum", promise_colsum(N, C, ld));
}
static void act(const Act *a) { count("act", promise_act(a)); }
static void act_bwd(const Act *a, const ActGrad *g) { count("act_bwd", promise_act_bwd(a, g)); }
static void add_norm(const AddNorm *a) { count("add_norm", promise_add_norm(a)); }
static void add_norm_bwd(const AddNorm *a, const AddNormGrad *g) { count("add_norm_bwd", promise_add_norm_bwd(a, g)); }
static void embed(const Embed *e) { count("embed", promise_embed(e)); }
static void embed_bwd(const Embed *e, const EmbedGrad *g) { count("embed_bwd", promise_embed_bwd(e)); }

static void normalize(void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E, int64_t P,
                      float eps) {
    count("normalize", promise_normalize(t, N, E));
}
static void fold(void *Wf, void *cf, const float *W, const float *b, const float *gamma, const float *beta, int64_t M,
                 int64_t E) {
    count("fold", promise_fold(M, E));
}
static void unfold(float *dW, float *db, float *dgamma, float *dbeta, const float *G, const float *s, const float *W,
                   const float *gamma, const float *beta, int64_t M, int64_t E) {
    count("unfold", promise_unfold(M, E));
}

static void l2norm(float *y, float *norm, const void *x, int64_t N, int64_t Z) {
    count("l2norm", promise_l2norm(N, Z));
}
static void l2norm_bwd(void *dx, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z) {
    count("l2norm_bwd", promise_l2norm_bwd(N, Z));
}
static void segment_mean(void *y, const void *x, int64_t n, int64_t Q, int64_t C) {
    count("segment_mean", promise_segment_mean(n, Q, C, false));
}
static void segment_mean_bwd(void *dx, const void *dy, int64_t n, int64_t Q, int64_t C, bool add_dx) {
    count("segment_mean_bwd", promise_segment_mean(n, Q, C, add_dx));
}
static void simmax(float *S, int32_t *arg, const float *I, const float *T, int64_t ni, int64_t nt, int64_t Q, int64_t Z,
                   int64_t si, int64_t sj) {
    count("simmax", promise_simmax(ni, nt, Q, Z));
}
static void simmax_bwd_image(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t ni, int64_t nt,
                             int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    count("simmax_bwd_image", promise_simmax_bwd_image(ni, nt, Q, Z));
}
static void simmax_bwd_text(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni, int64_t nt,
                            int64_t Q, int64_t Z, int64_t si, int64_t sj) {
    count("simmax_bwd_text", promise_simmax_bwd_text(ni, nt, Z));
}
static void itc_loss(const ItcLoss *l) { count("itc_loss", promise_itc_loss(l)); }
static void negatives(const Negatives *n) { count("negatives", promise_negatives(n)); }
static void xent(const Xent *x) { count("xent", promise_xent(x)); }

static void copy_rows(void *dst, int64_t ldd, const int32_t *di, const void *src, int64_t lds, const int32_t *si,
                      int64_t n, int64_t width, bool add_rows) {
    count("copy_rows", promise_copy_rows(n, width, add_rows));
}
static void cast(void *dst, DType dt, const void *src, DType st, int64_t n) { count("cast", promise_cast(dt, st, n)); }
static void axpy(float *y, const float *x, float a, int64_t n) { count("axpy", promise_axpy(n)); }
static void sum_up(float *out, const float *x, int64_t n, bool add_out) { count("sum", promise_sum(n)); }
static void sumsq(double *out, const float *g, int64_t n, bool add_out) { count("sumsq", promise_sumsq(n)); }
static void grad_scale(float *scale, float *norm_out, const double *squares, int n, float max_norm) {
    count("grad_scale", promise_grad_scale());
}
static void adamw(const AdamW *a) { count("adamw", promise_adamw(a)); }

/* Calls that the null backend answers and a step on one GPU makes, each replaced. */
static Backend adding(void) {
    Backend b = *backend_null(DT_BF16);
    b.unified = false;
    b.zero = zero, b.copy = copy, b.upload = upload, b.fetch = fetch, b.prefetch = prefetch;
    b.gemm = gemm, b.colsum = colsum, b.act = act, b.act_bwd = act_bwd;
    b.add_norm = add_norm, b.add_norm_bwd = add_norm_bwd, b.embed = embed, b.embed_bwd = embed_bwd;
    b.attention = attention, b.attention_bwd = attention_bwd;
    b.normalize = normalize, b.fold = fold, b.unfold = unfold;
    b.l2norm = l2norm, b.l2norm_bwd = l2norm_bwd, b.segment_mean = segment_mean, b.segment_mean_bwd = segment_mean_bwd;
    b.simmax = simmax, b.simmax_bwd_image = simmax_bwd_image, b.simmax_bwd_text = simmax_bwd_text;
    b.itc_loss = itc_loss, b.negatives = negatives, b.xent = xent;
    b.copy_rows = copy_rows, b.cast = cast, b.axpy = axpy, b.sum = sum_up;
    b.sumsq = sumsq, b.grad_scale = grad_scale, b.adamw = adamw;
    return b;
}

/* ---- the step -------------------------------------------------------------------------------------------------- */

static void check(Status st) {
    if (st == OK) return;
    fprintf(stderr, "bench_roofline: %s\n", err_message());
    exit(1);
}

/* Captions of words drawn alike; features are never read. Returns what is to be freed. */
static void *fill(ObjectiveBatch *batch, int64_t B) {
    int64_t T = FULL.T, *image = mem_new((size_t)B, sizeof *image + (size_t)(T + 1) * sizeof(int32_t));
    if (!image) exit(1);
    int32_t *ids = (int32_t *)(image + B), *len = ids + B * T;
    for (int64_t i = 0; i < B; i++) {
        len[i] = TOKENS, image[i] = i;
        for (int t = 0; t < TOKENS; t++)
            ids[i * T + t] = (int32_t)(5 + philox((uint32_t)(i * 64 + t), 0, 0, 0, 3, 4).v[0] % (uint32_t)(FULL.V - 6));
    }
    *batch = (ObjectiveBatch){.features = ids, .dt = DT_F16, .ids = ids, .len = len, .image_id = image};
    return image;
}

/* The second of two steps, whose features came while the first one ran. Returns the number of parameters. */
static int64_t run_step(int64_t B) {
    Backend b = adding();
    Arena run, mem;
    QFormer model;
    Stage1 s;
    ObjectiveBatch batch;
    Stage1Losses losses;
    Stage1Spec spec = {.itc = 1, .itm = 1, .itg = 1, .smoothing = 0.1f, .dropout = 0.1f, .seed = 1};
    AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f};
    float norm;
    arena_measure(&run, "run");
    arena_measure(&mem, "step");
    check(qformer_open(&model, &FULL, &b, &run, &(ParamsSpec){.training = true}));
    void *scratch = arena_push(&run, optim_scratch(), 1);
    check(stage1_open(&s, &(ObjectiveSite){&b, &model, &run, &mem, B, 1}, &spec));
    void *room = fill(&batch, B);
    for (int i = 0; i < 2; i++) {
        memset(&sum, 0, sizeof sum);
        check(stage1_run(&s, &batch, &batch, (uint32_t)i, 1.0f, true));
        check(optim_norm(&model.params, scratch, adam.clip, &norm));
        check(optim_update(&model.params, scratch, &adam, 1e-4, i + 1));
        check(stage1_read(&s, &losses));
    }
    int64_t learned = model.params.count;
    stage1_close(&s);
    qformer_close(&model);
    free(room);
    return learned;
}

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

int main(int argc, char **argv) {
    int64_t B = argc > 1 ? atoll(argv[1]) : 128;
    if (B < 2 || B > 4096) return fprintf(stderr, "bench_roofline: 2 to 4096 pairs\n"), 2;
    int64_t params = run_step(B);

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
