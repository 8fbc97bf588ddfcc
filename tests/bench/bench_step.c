/* bench_step: one whole training step (two waves, backward, AdamW) against the matrix-product peak measured in the same
 * run.
 *
 *     bench_step [full|demo|small] [f32|bf16] [B] [steps] [device]
 *
 * Prints a table row and a JSON line: time, GFLOP/s and its share of peak, counted GFLOP a pair (DESIGN.md promises
 * 121.7 at full size with captions of 13 word pieces), planned memory and what the process really took. The step is the
 * training loop's own; on a GPU it is timed once more with AdamW in order. Under mpirun each rank takes B pairs; rank 0
 * prints its line: held against a rank alone, what sums over ranks cost. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "kernels/dist/dist.h"
#include "kernels/base/mem.h"
#include "kernels/peak.h"
#include "train/run.h"
#include "tests/bench/must.h"

static const struct { const char *name; Dims d; int tokens, B; } sizes[] = {
    {"full", {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = 1408, .P = 257, .Z = 256, .V = 30523, .N = 512,
              .X = 2, .T = 32}, 13, 8},
    {"small", {.L = 4, .C = 128, .H = 2, .F = 512, .Q = 8, .E = 320, .P = 49, .Z = 128, .V = 2001, .N = 64, .X = 2,
               .T = 32}, 12, 128},
    {"demo", {.L = 4, .C = 64, .H = 2, .F = 256, .Q = 8, .E = 784, .P = 16, .Z = 64, .V = 301, .N = 64, .X = 1,
              .T = 32}, 16, 32}, };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The best rate over products as large as the step's own. */
static double gemm_peak(const Backend *b) {
    static const int64_t shapes[][3] = {{1536, 3072, 768}, {2056, 9216, 1408}, {1024, 1024, 1024}, {1536, 768, 3072}};
    double best = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        best = fmax(best, peak_of_product(b, shapes[s][0], shapes[s][1], shapes[s][2]));
    return best;
}

static void fill(const Backend *b, ObjectiveBatch *batch, const Dims *d, int64_t B, int tokens) {
    void *pinned = NULL;
    must(b->host_alloc(&pinned, (size_t)(B * d->P * d->E) * sizeof(uint16_t)));
    uint16_t *f = pinned;
    int32_t *ids = mem_new((size_t)(B * d->T), sizeof *ids), *len = mem_new((size_t)B, sizeof *len);
    int64_t *image = mem_new((size_t)B, sizeof *image);
    if (!ids || !len || !image) exit(1);
    for (int64_t i = 0; i < B * d->P * d->E; i++) {
        Philox x = philox((uint32_t)i, 0, 0, 0, 1, 2);
        f[i] = f16_from_f32(2 * rng_unit(x.v[0]) - 1 + rng_unit(x.v[1]));
    }
    for (int64_t i = 0; i < B; i++) {
        len[i] = tokens;
        image[i] = i;
        for (int t = 0; t < tokens; t++) ids[i * d->T + t] = (int32_t)(5 + philox((uint32_t)(i * 64 + t), 0, 0, 0, 3,
                4).v[0] % (uint32_t)(d->V - 6));
    }
    *batch = (ObjectiveBatch){.features = f, .dt = DT_F16, .ids = ids, .len = len, .image_id = image};
}

typedef struct { double mean, best, cpu; } Times;

/* The first of these steps is not counted. */
static Times time_steps(Trainer *t, const ObjectiveBatch *batch, int first, int steps, bool beside, ObjectiveLosses *l) {
    AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .beside = beside};
    const ParamTensor *bad;
    Times r = {.best = INFINITY};
    double cpu0 = 0;
    for (int i = 0; i <= steps; i++) {
        double before = ((const Stage1 *)t->self)->tape.flops, at = now();
        if (i == 1) cpu0 = (double)clock() / CLOCKS_PER_SEC;
        must(trainer_step(t, batch, batch, (uint32_t)(first + i), &adam, 1e-4, first + i + 1, l, &bad));
        at = now() - at;
        if (i) r.best = fmin(r.best, at), r.mean += at / steps;
        t->plan.flops = ((const Stage1 *)t->self)->tape.flops - before;
    }
    r.cpu = ((double)clock() / CLOCKS_PER_SEC - cpu0) / steps;
    return r;
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "full", *type = argc > 2 ? argv[2] : "f32", *device = argc > 5 ? argv[5]
        : "cpu";
    size_t k = 0;
    while (k < sizeof sizes / sizeof *sizes && strcmp(sizes[k].name, which)) k++;
    if (k == sizeof sizes / sizeof *sizes) return fprintf(stderr, "bench_step: full, small or demo\n"), 2;
    int64_t B = argc > 3 ? atoi(argv[3]) : sizes[k].B;
    int steps = argc > 4 ? atoi(argv[4]) : 3;
    const Backend *b;
    must(dist_open(&argc, &argv));
    must(backend_open(&b, device, strcmp(type, "bf16") ? DT_F32 : DT_BF16, dist_local_rank()));
    must(dist_open_device(b));

    Trainer t;
    Stage1Spec losses = {.itc = 1, .itm = 1, .itg = 1, .smoothing = 0.1f, .dropout = strcmp(which, "demo") ? 0.1f : 0,
                         .seed = 1};
    TrainerSpec spec = {.d = sizes[k].d, .tokens = sizes[k].tokens, .features = DT_F16, .params = {.training = true},
                        .B = B, .micro = 1, .objective = &stage1_objective, .spec = &losses};
    spec.d.cls = 1, spec.d.sep = 2, spec.d.dec = spec.d.V - 1;
    must(trainer_open(&t, b, &spec));
    /* A GPU's products want the trainer's scratch, and to be larger than a wait. */
    double peak = b->unified ? gemm_peak(b) : peak_rate(b);
    must(params_init(&t.model.params, 1, 0.02f));
    ObjectiveBatch batch;
    ObjectiveLosses l = {0};
    fill(b, &batch, &spec.d, B, sizes[k].tokens);
    Times r = time_steps(&t, &batch, 0, steps, true, &l);
    double mean = r.mean, best = r.best, cpu = r.cpu;
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    double rss = (double)ru.ru_maxrss * 1024, planned = (double)plan_bytes(&t.plan),
        gf = t.plan.flops / 1e9 / (double)B;
    if (dist_rank() == 0) printf("%-6s %-5s B %-4lld %8.1f ms a step (best %.1f; %.2f CPU-s)  %7.1f GFLOP/s of %.1f = %4.1f %%   %.2f GFLOP a pair   plan %.2f GiB, took %.2f   loss %.4f\n",
           which, type, (long long)B, mean * 1e3, best * 1e3, cpu, t.plan.flops / best / 1e9, peak / 1e9,
               100 * t.plan.flops / best / peak, gf, planned / (1 << 30), rss / (1 << 30), l.loss);
    if (dist_rank() == 0) printf("{\"bench\":\"step\",\"size\":\"%s\",\"type\":\"%s\",\"device\":\"%s\",\"B\":%lld,\"ms\":%.3f,\"best_ms\":%.3f,\"cpu_s\":%.3f,\"gflops\":%.2f,\"gemm_peak\":%.2f,"
           "\"share\":%.4f,\"gflop_per_pair\":%.3f,\"plan_bytes\":%.0f,\"peak_rss_bytes\":%.0f}\n",
           which, type, device, (long long)B, mean * 1e3, best * 1e3, cpu, t.plan.flops / best / 1e9, peak / 1e9,
               t.plan.flops / best / peak, gf, planned, rss);
    if (!b->unified && steps) {
        r = time_steps(&t, &batch, steps + 1, steps, false, &l);
        if (dist_rank() == 0) printf("AdamW in order, not beside the next forward: %.1f ms a step (best %.1f)\n",
                                     r.mean * 1e3, r.best * 1e3);
    }
    dist_close_device(b);
    trainer_close(&t);
    b->host_release((void *)(uintptr_t)batch.features);
    backend_close(b);
    dist_close();
    return 0;
}
