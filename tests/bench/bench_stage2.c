/* bench_stage2: a training step of stage 2 against the matrix-product peak measured in the same run, its counted
 * arithmetic against that of each text by itself, and texts written a second with cached keys.
 *
 *     bench_stage2 [smollm2-135m] [f32|bf16] [pictures] [texts] [ids] [steps] [device]
 *
 * A Q-Former of full size speaks to a language model of a published one's sizes (lm_config.h names them) with random
 * weights; ids a text, all of them targets; no texts: no step. Apart is how LAVIS runs it: every text with its picture,
 * padded to 32 ids. Written are 20 tokens behind each picture and no prompt, greedily; the first of them comes with the
 * pictures' rows. One line and a JSON line for each. Under VGPU_TIME the range "decoding step" has a token's launches and
 * host time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "checkpoints/lm_config.h"
#include "eval/decode.h"
#include "kernels/base/mem.h"
#include "kernels/model/lm_decoder.h"
#include "kernels/peak.h"
#include "train/stage2.h"
#include "train/trainer.h"
#include "tests/bench/seconds.h"
#include "tests/bench/must.h"

enum { PADDED = 32, WRITTEN = 20 };

typedef struct {
    const char *name, *type, *device;
    const Backend *b;
    int64_t B;
    int texts, ids, steps;
    LmDims ld;
    Lm lm;
    Arena mem;
} Bench;

static TrainerSpec spec_of(const Bench *x, Stage2Spec *s, int64_t B, int texts, int ids) {
    *s = (Stage2Spec){.lm = &x->lm, .texts = texts, .ids = ids, .dropout = 0.1f, .one_prompt = true, .seed = 1};
    return (TrainerSpec){.d = {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = 1408, .P = 257, .X = 2, .T = 32,
                               .W = x->ld.E},
                         .features = DT_F16, .params = {.training = true}, .B = B, .micro = 1, .tokens = ids,
                         .objective = &stage2_objective, .spec = s};
}

static void open_lm(Bench *x) {
    Backend null = backend_measuring(x->b);
    Arena a;
    Lm sizes;
    if (!lm_config_known(&x->ld, x->name)) {
        fprintf(stderr, "bench_stage2: %s is none of %s\n", x->name, lm_config_names());
        exit(2);
    }
    x->ld.nends = 0;                                         /* nothing ends what is written */
    arena_measure(&a, "language model");
    must(lm_open(&sizes, &x->ld, &null, &a, 32 + PADDED + WRITTEN));
    lm_close(&sizes);
    must(arena_open(&x->mem, "language model's", x->b, a.peak));
    must(lm_open(&x->lm, &x->ld, x->b, &x->mem, 32 + PADDED + WRITTEN));
    must(params_init(&x->lm.params, 1, 0.02f));
    must(lm_ready(&x->lm));
}

static void fill(const Bench *x, ObjectiveBatch *batch, const Dims *d) {
    void *pinned = NULL;
    int64_t n = x->B * d->P * d->E, said = x->B * x->texts;
    must(x->b->host_alloc(&pinned, (size_t)n * sizeof(uint16_t)));
    uint16_t *f = pinned;
    LmItem *items = mem_new((size_t)said, sizeof *items);
    int32_t *ids = mem_new((size_t)(said * x->ids), sizeof *ids);
    if (!items || !ids) exit(1);
    for (int64_t i = 0; i < n; i++) f[i] = f16_from_f32(2 * rng_unit(philox((uint32_t)i, 0, 0, 0, 1, 2).v[0]) - 1);
    for (int64_t i = 0; i < said * x->ids; i++)
        ids[i] = (int32_t)(philox((uint32_t)i, 0, 0, 0, 3, 4).v[0] % (uint32_t)x->ld.V);
    for (int64_t i = 0; i < said; i++)
        items[i] = (LmItem){.image = (int32_t)(i / x->texts), .ids = ids + i * x->ids, .n = x->ids};
    *batch = (ObjectiveBatch){.features = f, .dt = DT_F16, .said = items, .nsaid = (int)said};
}

/* Of the whole step as LAVIS has it, on paper. */
static double flops_apart(const Bench *x) {
    Stage2Spec s;
    Plan plan;
    TrainerSpec spec = spec_of(x, &s, x->B * x->texts, 1, PADDED);
    must(trainer_plan(&plan, x->b, &spec));
    return plan.flops;
}

static double gemm_peak(const Backend *b, const LmDims *d) {
    const int64_t shapes[][3] = {{776, 2LL * d->F, d->C}, {776, d->C, d->F}, {520, d->V, d->C}, {2056, 9216, 1408}};
    double best = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        best = fmax(best, peak_of_product(b, shapes[i][0], shapes[i][1], shapes[i][2]));
    return best;
}

static void bench_step(Bench *x) {
    Stage2Spec s;
    Trainer t;
    ObjectiveBatch batch;
    ObjectiveLosses l = {0};
    AdamSpec adam = {.beta1 = 0.9f, .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = 0.05f, .beside = true};
    const ParamTensor *bad;
    double best = INFINITY, cpu = INFINITY, flops = 0, apart = flops_apart(x);
    TrainerSpec spec = spec_of(x, &s, x->B, x->texts, x->ids);
    must(trainer_open(&t, x->b, &spec));
    must(params_init(&t.model.params, 1, 0.02f));
    double peak = x->b->unified ? gemm_peak(x->b, &x->ld) : peak_rate(x->b);
    fill(x, &batch, &spec.d);
    for (int i = 0; i <= x->steps; i++) {                    /* the first step is not counted */
        double before = trainer_flops(&t), at = seconds(CLOCK_MONOTONIC), cpu0 = seconds(CLOCK_PROCESS_CPUTIME_ID);
        must(trainer_step(&t, &batch, &batch, (uint32_t)i, &adam, 1e-4, i + 1, &l, &bad));
        if (i) best = fmin(best, seconds(CLOCK_MONOTONIC) - at);
        if (i) cpu = fmin(cpu, seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu0);
        flops = trainer_flops(&t) - before;
    }
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    double pairs = (double)(x->B * x->texts), planned = (double)(plan_bytes(&t.plan) + x->mem.size);
    printf("step   %s %s: %lld x %d texts of %d ids: %.1f ms (%.2f CPU-s), %.2f pairs/s, %.1f GFLOP/s of %.1f = "
           "%.1f %%\n",
           x->name, x->type, (long long)x->B, x->texts, x->ids, best * 1e3, cpu, pairs / best, flops / best / 1e9,
           peak / 1e9, 100 * flops / best / peak);
    printf("       %.2f GFLOP a pair, %.3f of texts apart; plan %.3f GiB, took %.3f; loss %.4f\n", flops / 1e9 / pairs,
           flops / apart, planned / (1 << 30), (double)ru.ru_maxrss / (1 << 20), l.loss);
    printf("{\"bench\":\"stage2\",\"lm\":\"%s\",\"type\":\"%s\",\"device\":\"%s\",\"pictures\":%lld,\"texts\":%d,"
           "\"ids\":%d,\"ms\":%.3f,\"cpu_s\":%.3f,\"pairs_s\":%.3f,\"gflops\":%.2f,\"gemm_peak\":%.2f,\"share\":%.4f,"
           "\"of_apart\":%.4f}\n", x->name, x->type, x->device, (long long)x->B, x->texts, x->ids, best * 1e3, cpu,
           pairs / best, flops / best / 1e9, peak / 1e9, flops / best / peak, flops / apart);
    fflush(stdout);
    x->b->host_release((void *)(uintptr_t)batch.features);
    free((void *)(uintptr_t)batch.said->ids);
    free((void *)(uintptr_t)batch.said);
    trainer_close(&t);
}

static Status ignore(void *ctx, int64_t i, const Search *s) {
    (void)ctx, (void)i, (void)s;
    return OK;
}

/* The decoder whose prefix is timed, and the seconds it took so far: wall, processor. */
static struct { Decoder d; double wall, cpu; } timed;

static Status prefix(void *self, const void *input, int64_t first, int n, const float **logits) {
    double at = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    Status st = timed.d.prefix(self, input, first, n, logits);
    timed.wall += seconds(CLOCK_MONOTONIC) - at, timed.cpu += seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    return st;
}

static void bench_write(Bench *x) {
    int n = (int)x->B;
    size_t numbers = (size_t)n * 32 * (size_t)x->ld.E;
    void *soft = NULL, *scratch = NULL;
    LmDecoder dec;
    Decode decode;
    SearchSpec s = {.mode = SEARCH_GREEDY, .rule = SEARCH_V5, .beams = 1, .max_length = WRITTEN + 1,
                    .length_penalty = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 1,
                    .start = x->ld.family == LM_T5 ? x->ld.start : -1};
    bool fed = x->ld.family == LM_T5;
    LmPrefix *p = mem_new((size_t)n, sizeof *p);
    double best = INFINITY, cpu = INFINITY, then = INFINITY, then_cpu = INFINITY;
    must(x->b->alloc(&scratch, x->b->workspace));
    x->b->set_workspace(scratch, x->b->workspace);
    must(x->b->alloc(&soft, numbers * (size_t)dtype_size(x->b->elem)));
    x->b->zero(soft, numbers * (size_t)dtype_size(x->b->elem));
    for (int i = 0; p && i < n; i++) p[i] = (LmPrefix){.soft = i * 32, .nsoft = 32};
    LmDecoderSpec spec = {n, decode_slots(&s, n), decode_length(&s, fed), 32};
    must(lm_decoder_open(&dec, x->b, &x->lm, &spec));
    Decoder d = lm_decoder(&dec);
    timed.d = d, d.prefix = prefix;
    must(decode_open(&decode, &d, &s));
    LmGiven given = {tape_leaf(soft, (int64_t)n * 32, x->ld.E, x->b->elem), p};
    for (int i = 0; i <= x->steps; i++) {
        double at = seconds(CLOCK_MONOTONIC), cpu0 = seconds(CLOCK_PROCESS_CPUTIME_ID);
        timed.wall = timed.cpu = 0;
        must(decode_texts(&decode, &given, n, 0, ignore, NULL));
        at = seconds(CLOCK_MONOTONIC) - at, cpu0 = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu0;
        if (!i) continue;
        best = fmin(best, at), cpu = fmin(cpu, cpu0);
        then = fmin(then, at - timed.wall), then_cpu = fmin(then_cpu, cpu0 - timed.cpu);
    }
    printf("write  %s %s: %d pictures, %d tokens each: %.1f ms (%.2f CPU-s), %.1f tokens/s with the pictures' rows\n",
           x->name, x->type, n, WRITTEN, best * 1e3, cpu, n * WRITTEN / best);
    printf("       behind them %.1f ms (%.2f CPU-s), %.1f tokens/s\n", then * 1e3, then_cpu, n * (WRITTEN - 1) / then);
    printf("{\"bench\":\"stage2_write\",\"lm\":\"%s\",\"type\":\"%s\",\"device\":\"%s\",\"pictures\":%d,\"tokens\":%d,"
           "\"ms\":%.3f,\"cpu_s\":%.3f,\"tokens_s\":%.2f,\"then_ms\":%.3f,\"then_cpu_s\":%.3f}\n", x->name, x->type,
           x->device, n, WRITTEN, best * 1e3, cpu, n * WRITTEN / best, then * 1e3, then_cpu);
    decode_close(&decode);
    lm_decoder_close(&dec);
    x->b->release(soft);
    x->b->release(scratch);
    free(p);
}

int main(int argc, char **argv) {
    Bench x = {.name = argc > 1 ? argv[1] : "smollm2-135m", .type = argc > 2 ? argv[2] : "f32",
               .B = argc > 3 ? atoi(argv[3]) : 8, .texts = argc > 4 ? atoi(argv[4]) : 5,
               .ids = argc > 5 ? atoi(argv[5]) : 14, .steps = argc > 6 ? atoi(argv[6]) : 3,
               .device = argc > 7 ? argv[7] : "cpu"};
    must(backend_open(&x.b, x.device, strcmp(x.type, "bf16") ? DT_F32 : DT_BF16, 0));
    if (x.B < 1 || x.texts < 0 || x.ids < 2 || x.ids > PADDED || x.steps < 1)
        return fprintf(stderr, "bench_stage2: pictures, steps from 1, texts from 0, ids from 2 to %d\n", PADDED), 2;
    open_lm(&x);
    if (x.texts) bench_step(&x);
    bench_write(&x);
    lm_close(&x.lm);
    arena_close(&x.mem, x.b);
    backend_close(x.b);
    return 0;
}
