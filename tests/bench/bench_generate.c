/* bench_generate: decoder rows and captions a second, keys and values cached, on random weights.
 *
 *     bench_generate [full|demo] [f32|bf16] [images] [beams] [length] [device]
 *
 * Captions never end before `length` tokens, so each round computes the same rows. Beams 1 is greedy. The best of
 * some rounds, in wall time and in processor time (which says more on a busy machine), with the counted arithmetic
 * of a row. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "eval/generate.h"
#include "kernels/base/mem.h"
#include "tests/bench/seconds.h"
#include "tests/bench/must.h"

static const struct { const char *name; Dims d; } sizes[] = {
    {"full",
     {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = 1408, .P = 257, .Z = 256, .V = 30523, .N = 512, .X = 2,
      .T = 32, .sep = 102, .dec = 30522}},
    {"demo",
     {.L = 4, .C = 64, .H = 2, .F = 256, .Q = 8, .E = 784, .P = 16, .Z = 64, .V = 301, .N = 64, .X = 1, .T = 32,
      .sep = 2, .dec = 300}},
};

static void open_weights(QFormer *p, Arena *a, const Dims *d, const Backend *b) {
    must(qformer_open_alone(p, a, d, b, &(ParamsSpec){0}));
    must(params_init(&p->params, 1, 0.05f));
}

static Status ignore(void *ctx, int64_t i, const Search *s) {
    (void)ctx, (void)i, (void)s;
    return OK;
}

int main(int argc, char **argv) {
    const char *size = argc > 1 ? argv[1] : "demo";
    DType elem = argc > 2 && strcmp(argv[2], "bf16") == 0 ? DT_BF16 : DT_F32;
    int images = argc > 3 ? atoi(argv[3]) : 32, beams = argc > 4 ? atoi(argv[4]) : 1,
        length = argc > 5 ? atoi(argv[5]) : 20;
    const Backend *b;
    Dims d = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(sizes[i].name, size) == 0) d = sizes[i].d;
    if (!d.L || images < 1 || beams < 1 || beams > SEARCH_MAX_BEAMS || length < 2) {
        fprintf(stderr, "usage: bench_generate [full|demo] [f32|bf16] [images] [beams] [length] [device]\n");
        return 2;
    }
    must(backend_open(&b, argc > 6 ? argv[6] : "cpu", elem, 0));
    QFormer p;
    Arena mem;
    Generator g;
    open_weights(&p, &mem, &d, b);
    int64_t n = (int64_t)images * d.P * d.E;
    float *features = mem_new((size_t)n, sizeof *features);
    if (!features) return 1;
    for (int64_t i = 0; i < n; i++) features[i] = rng_unit(philox((uint32_t)i, 0, 0, 0, 1, 1).v[0]) - 0.5f;
    GenerateSpec spec = {.images = images, .features = DT_F32,
                         .search = {.mode = beams > 1 ? SEARCH_BEAM : SEARCH_GREEDY,
                                    .beams = beams,
                                    .max_length = length,
                                    .min_length = length,
                                    .length_penalty = 1,
                                    .repetition_penalty = 1,
                                    .start = d.dec,
                                    .ends = {d.sep}, .nends = 1}};
    must(generate_open(&g, b, &p, &spec));
    double wall = INFINITY, cpu = INFINITY, prefix = INFINITY;
    int64_t rows = 0;
    for (int round = 0; round < (d.C > 256 || !b->unified ? 3 : 20); round++) {
        double w = seconds(CLOCK_MONOTONIC);
        must(generate_prefix(&g, (FeatureRows){features, NULL}, images));
        prefix = fmin(prefix, seconds(CLOCK_MONOTONIC) - w);
        double c = seconds(CLOCK_PROCESS_CPUTIME_ID);
        w = seconds(CLOCK_MONOTONIC);
        rows = g.decode.tokens;
        must(generate_captions(&g, (FeatureRows){features, NULL}, images, 0, ignore, NULL));
        rows = g.decode.tokens - rows;
        wall = fmin(wall, seconds(CLOCK_MONOTONIC) - w);
        cpu = fmin(cpu, seconds(CLOCK_PROCESS_CPUTIME_ID) - c);
    }
    double row_flop = 2.0 * ((double)d.L * (4.0 * d.C * d.C + 2.0 * d.C * d.F) + (double)d.C * d.C + (double)d.V * d.C);
    printf("%s %s  %d images x %d beams, %d tokens: %lld rows in %.2f ms (queries %.2f ms, processor %.2f ms)\n", size,
           dtype_name(elem), images, beams, length, (long long)rows, 1e3 * wall, 1e3 * prefix, 1e3 * cpu);
    printf("  %.0f rows/s, %.1f captions/s; %.4g MFLOP a row, %.1f GFLOP/s\n", (double)rows / wall, images / wall,
           row_flop / 1e6, row_flop * (double)rows / (wall - prefix) / 1e9);
    generate_close(&g);
    qformer_close(&p);
    arena_close(&mem, b);
    free(features);
    return 0;
}
