/* bench_vit: an image encoder with random weights against the matrix-product peak measured in the same run.
 *
 *     bench_vit [clip-l|eva-g|so400m|small] [f32|bf16] [images at once] [times] [device]
 *
 * Prints pictures a second, GFLOP/s and its share of peak, planned memory and what the process really took. Pixels are
 * made once: decoding is not in it. Times 0, for encoder.sh: each op of a pass of one block is run once as a range of
 * the profile, and printed with how often it stands in a block and beside the blocks. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/mem.h"
#include "kernels/model/vit.h"
#include "kernels/peak.h"
#include "tests/bench/must.h"

static const struct { const char *name; VitDims d; int size, blocks; } models[] = {
    {"clip-l", {.L = 24, .E = 1024, .H = 16, .D = 64, .F = 4096, .p = 14, .cls = true, .position = true,
                .cls_position = true, .pre = true, .act = ACT_GELU_QUICK, .eps = 1e-5f}, 224, 23},
    {"eva-g", {.L = 39, .E = 1408, .H = 16, .D = 88, .F = 6144, .p = 14, .cls = true, .position = true,
               .cls_position = true, .act = ACT_GELU, .eps = 1e-6f}, 224, 39},
    {"so400m", {.L = 27, .E = 1152, .H = 16, .D = 72, .F = 4304, .p = 14, .position = true, .post = true,
                .act = ACT_GELU_TANH, .eps = 1e-6f}, 384, 27},
    {"small", {.L = 4, .E = 384, .H = 6, .D = 64, .F = 1536, .p = 16, .cls = true, .position = true,
               .cls_position = true, .act = ACT_GELU, .eps = 1e-6f}, 224, 4}};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What lies in memory now: what was there before, the matrices of the peak, is given back and does not count. */
static double resident(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double most_resident(void) {
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    return (double)ru.ru_maxrss * 1024;
}

static void random_weights(Vit *v) {
    for (int i = 0; i < v->params.n; i++) {
        const ParamTensor *t = &v->params.tensor[i];
        float x[4096];
        bool gain = t->rows == 1 && strstr(t->name, ".weight");
        for (int64_t at = 0; at < t->n; at += 4096) {
            int64_t n = t->n - at < 4096 ? t->n - at : 4096;
            for (int64_t k = 0; k < n; k++)
                x[k] = gain ? 1 : 0.05f * (2 * rng_unit(philox((uint32_t)(at + k), (uint32_t)i, 0, 0, 1, 2).v[0]) - 1);
            must(params_put(&v->params, t, at, n, x, DT_F32));
        }
    }
}

typedef struct { Vit v; Tape t; Arena run, step; } Model;

static Tensor forward(Model *m, const void *pixels, int images, int blocks) {
    VitPixels in = {.pixels = pixels, .type = DT_U8, .scale = {0.01f, 0.01f, 0.01f}, .shift = {-1, -1, -1}};
    tape_reset(&m->t, false);
    return vit_forward(&m->t, &m->v, &in, images, blocks, m->v.d.post);
}

/* What it takes: a pass on arenas that only count. */
static double measure(const Backend *null, VitDims d, int size, int images, int blocks, size_t *run, size_t *step) {
    Model c = {0};
    arena_measure(&c.run, "weights");
    arena_measure(&c.step, "encoder");
    must(vit_open(&c.v, &d, size, size, images, null, &c.run));
    must(tape_open(&c.t, null, &c.step));
    forward(&c, NULL, images, blocks);
    *run = c.run.peak, *step = c.step.peak;
    double flops = c.t.flops;
    tape_close(&c.t);
    vit_close(&c.v);
    return flops;
}

static size_t open_model(Model *m, const Backend *b, VitDims d, int size, int images, int blocks) {
    Backend null = backend_measuring(b);
    size_t run, step;
    measure(&null, d, size, images, blocks, &run, &step);
    run += b->workspace + 4096;
    must(arena_open(&m->run, "weights", b, run));
    b->set_workspace(arena_push(&m->run, b->workspace, 1), b->workspace);
    must(arena_open(&m->step, "encoder", b, step));
    must(vit_open(&m->v, &d, size, size, images, b, &m->run));
    must(tape_open(&m->t, b, &m->step));
    random_weights(&m->v);
    return run + step;
}

static void close_model(Model *m, const Backend *b) {
    tape_close(&m->t);
    vit_close(&m->v);
    arena_close(&m->run, b);
    arena_close(&m->step, b);
}

static void *some_pixels(const Backend *b, size_t bytes) {
    void *pixels = NULL, *host = mem_new(bytes, 1);
    must(b->alloc(&pixels, bytes));
    for (size_t i = 0; host && i < bytes; i++) ((uint8_t *)host)[i] = (uint8_t)(i * 2654435761u >> 24);
    b->upload(pixels, host, bytes);
    b->sync();
    free(host);
    return pixels;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

enum { PARTS = 32 };
static struct { char name[64]; int count; } part[PARTS];
static int parts;
static const Backend *real;

static void begin(const char *format, ...) {
    char name[sizeof part->name];
    int i = 0;
    va_list a;
    va_start(a, format);
    vsnprintf(name, sizeof name, format, a);
    va_end(a);
    while (i < parts && strcmp(part[i].name, name)) i++;
    if (i == PARTS) exit(1);
    if (i == parts) strcpy(part[parts++].name, name);
    part[i].count++;
    real->mark(part[i].name);
}
static void end(void) { real->mark(NULL); }

static void gemm(const Gemm *g) {
    begin("product%s, %lld x %lld x %lld", g->act ? " and activation" : g->add ? " and residual" : "", (long long)g->m,
          (long long)g->n, (long long)g->k);
    real->gemm(g), end();
}
static void attention(const Attn *a) { begin("attention"), real->attention(a), end(); }
static void add_norm(const AddNorm *a) { begin("norm"), real->add_norm(a), end(); }
static void act(const Act *a) { begin("activation"), real->act(a), end(); }
static void patches(const Patches *p) { begin("pixels as rows"), real->patches(p), end(); }
static void lookup(const Lookup *l) { begin("rows with positions"), real->lookup(l), end(); }

static Backend telling(const Backend *b) {
    Backend t = *b;
    real = b;
    t.gemm = gemm, t.attention = attention, t.add_norm = add_norm, t.act = act, t.patches = patches, t.lookup = lookup;
    return t;
}

/* Counted in one block and in two, the difference is a block; run in one. */
static void run_parts(const Backend *b, size_t k, int images) {
    VitDims d = models[k].d;
    Backend null = backend_measuring(b), told = telling(&null);
    size_t run, step;
    int size = models[k].size, one[PARTS] = {0};
    double flops = measure(&null, d, size, images, models[k].blocks, &run, &step);
    printf("WORK|%d|%d|%.0f\n", images, models[k].blocks, flops);
    d.L = 2;
    for (int blocks = 1; blocks <= 2; blocks++) {
        for (int i = 0; i < parts; i++) one[i] = part[i].count, part[i].count = 0;
        measure(&told, d, size, images, blocks, &run, &step);
    }
    for (int i = 0; i < parts; i++)
        printf("PART|%s|%d|%d\n", part[i].name, part[i].count - one[i], 2 * one[i] - part[i].count);
    d.L = 1;
    told = telling(b);
    Model m = {0};
    open_model(&m, &told, d, size, images, 1);
    void *pixels = some_pixels(b, (size_t)images * 3 * (size_t)size * (size_t)size);
    forward(&m, pixels, images, 1);
    b->sync();
    must(tape_status(&m.t));
    close_model(&m, b);
    b->release(pixels);
}

/* On a GPU once the kernels have their scratch; on the CPU before anything else is taken, so that its matrices do not
 * count as the model's memory. */
static double gemm_peak(const Backend *b, int64_t E) {
    int64_t rows = 2048;
    double wide = fmax(peak_of_product(b, rows, 4 * E, E), peak_of_product(b, rows, 3 * E, E));
    return fmax(wide, peak_of_product(b, rows, E, 4 * E));
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "clip-l", *type = argc > 2 ? argv[2] : "f32";
    int images = argc > 3 ? atoi(argv[3]) : 8, times = argc > 4 ? atoi(argv[4]) : 3;
    size_t k = 0;
    while (k < sizeof models / sizeof *models && strcmp(models[k].name, which)) k++;
    if (k == sizeof models / sizeof *models || images < 1 || times < 0)
        return fprintf(stderr, "bench_vit: clip-l, eva-g, so400m or small\n"), 2;
    const Backend *b;
    must(backend_open(&b, argc > 5 ? argv[5] : "cpu", strcmp(type, "bf16") ? DT_F32 : DT_BF16, 0));
    if (!times) return run_parts(b, k, images), backend_close(b), 0;
    double peak = b->unified ? gemm_peak(b, models[k].d.E) : 0, before = resident();
    Model m = {0};
    int size = models[k].size;
    size_t planned = open_model(&m, b, models[k].d, size, images, models[k].blocks);
    if (!b->unified) peak = gemm_peak(b, models[k].d.E);
    void *pixels = some_pixels(b, (size_t)images * 3 * (size_t)size * (size_t)size);
    double best = INFINITY, flops = 0;
    for (int i = 0; i <= times; i++) {                       /* the first is not counted */
        double at = now(), had = m.t.flops;
        forward(&m, pixels, images, models[k].blocks);
        b->sync();
        must(tape_status(&m.t));
        if (i) best = fmin(best, now() - at);
        flops = m.t.flops - had;
    }
    double took = most_resident() - before, rate = flops / best;
    printf("%-6s %-5s %3d images: %8.1f ms, %6.2f pictures/s  %7.1f GFLOP/s of %.1f = %4.1f %%  plan %.3f GB, took "
           "%.3f\n",
           which, type, images, best * 1e3, images / best, rate / 1e9, peak / 1e9, 100 * rate / peak,
           (double)planned / 1e9, took / 1e9);
    printf("{\"bench\":\"vit\",\"model\":\"%s\",\"type\":\"%s\",\"images\":%d,\"ms\":%.3f,\"pictures_per_s\":%.3f,"
           "\"gflops\":%.2f,\"gemm_peak\":%.2f,\"share\":%.4f,\"plan_bytes\":%zu,\"took_bytes\":%.0f}\n",
           which, type, images, best * 1e3, images / best, rate / 1e9, peak / 1e9, rate / peak, planned, took);
    close_model(&m, b);
    b->release(pixels);
    backend_close(b);
    return 0;
}
