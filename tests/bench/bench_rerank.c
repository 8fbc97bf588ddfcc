/* bench_rerank: matching logits of image-text pairs, many to an image, as retrieval re-ranks them.
 *
 *     bench_rerank [full|small|demo] [f32|bf16] [images] [pairs an image] [device]
 *
 * Prints a table row and a JSON line: pairs a second with the keys of their images, GFLOP a pair and an image,
 * share of the matrix-product peak measured in the same run, and the arithmetic of the reference, which pads texts
 * to 35 pieces and computes an image's keys and values anew for every pair. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "eval/encode.h"
#include "kernels/peak.h"
#include "kernels/base/status.h"
#include "tests/bench/must.h"

enum { BATCH = 32, PADDED = 35 };

static const struct { const char *name; Dims d; int tokens, images, pairs; } sizes[] = {
    {"full",  {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = 1408, .P = 257, .Z = 256, .V = 30523, .N = 512,
               .X = 2}, 13, 2, 64},
    {"small", {.L = 4, .C = 128, .H = 2, .F = 512, .Q = 8, .E = 320, .P = 49, .Z = 128, .V = 2001, .N = 64,
               .X = 2}, 12, 32, 128},
    {"demo",  {.L = 4, .C = 64, .H = 2, .F = 256, .Q = 8, .E = 784, .P = 16, .Z = 64, .V = 301, .N = 64,
               .X = 1}, 16, 64, 128},
};

/* One pair as the reference computes it: Q queries and 35 padded pieces through every layer, keys and values of the
 * image anew. */
static double reference_flops(const Dims *d) {
    double C = d->C, F = d->F, Q = d->Q, n = Q + PADDED, x = dims_cross_layers(d);
    double self = 2 * n * 4 * C * C + 4 * n * n * C, ffn = 2 * n * 2 * C * F;
    double cross = 2 * Q * 2 * C * C + 4 * Q * d->P * C, keys = 2.0 * d->P * 2 * C * d->E;
    return d->L * (self + ffn) + x * (cross + keys) + Q * 4 * C;
}

typedef struct { int32_t *image, *ids, *len; uint16_t *features; float *logits; } Input;

static void fill(Input *in, const Dims *d, int64_t images, int64_t pairs, int tokens) {
    int64_t n = images * pairs, elements = images * d->P * d->E;
    in->features = mem_new((size_t)elements, sizeof *in->features);
    in->image = mem_new((size_t)n, sizeof *in->image);
    in->len = mem_new((size_t)n, sizeof *in->len);
    in->ids = mem_new((size_t)(n * d->T), sizeof *in->ids);
    in->logits = mem_new((size_t)n, 2 * sizeof *in->logits);
    if (!in->features || !in->image || !in->len || !in->ids || !in->logits) exit(1);
    for (int64_t i = 0; i < elements; i++)
        in->features[i] = f16_from_f32(2 * rng_unit(philox((uint32_t)i, 0, 0, 0, 1, 2).v[0]) - 1);
    for (int64_t i = 0; i < n; i++) {
        in->image[i] = (int32_t)(i / pairs);
        in->len[i] = tokens;
        for (int t = 0; t < tokens; t++)
            in->ids[i * d->T + t] = (int32_t)(5 + philox((uint32_t)(i * 64 + t), 0, 0, 0, 3, 4).v[0] %
                                                      (uint32_t)(d->V - 6));
    }
}

static void open_model(QFormer *p, Arena *mem, const Backend *b, const Dims *d) {
    must(qformer_open_alone(p, mem, d, b, &(ParamsSpec){0}));
    must(params_init(&p->params, 1, 0.02f));
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "small", *type = argc > 2 ? argv[2] : "f32",
               *device = argc > 5 ? argv[5] : "cpu";
    size_t k = 0;
    while (k < sizeof sizes / sizeof *sizes && strcmp(sizes[k].name, which)) k++;
    if (k == sizeof sizes / sizeof *sizes) return fprintf(stderr, "bench_rerank: full, small or demo\n"), 2;
    int64_t images = argc > 3 ? atoi(argv[3]) : sizes[k].images, pairs = argc > 4 ? atoi(argv[4]) : sizes[k].pairs,
            n = images * pairs;
    if (images < 1 || pairs < 1) return fprintf(stderr, "bench_rerank: at least one image and one pair\n"), 2;
    const Backend *b;
    must(backend_open(&b, device, strcmp(type, "bf16") ? DT_F32 : DT_BF16, 0));
    double peak = peak_rate(b);

    Dims d = sizes[k].d;
    d.T = PADDED, d.cls = 1, d.sep = 2, d.dec = d.V - 1;
    QFormer p;
    Arena mem;
    Encoder e;
    Input in;
    open_model(&p, &mem, b, &d);
    must(encoder_open(&e, b, &p, BATCH, DT_F16));
    fill(&in, &d, images, pairs, sizes[k].tokens);

    double best = INFINITY, best_keys = INFINITY, key_flops = 0, pair_flops = 0;
    for (int round = 0; round < 3; round++) {                /* the first is not counted */
        double keys = 0, start = status_clock();
        key_flops = pair_flops = 0;
        for (int64_t i = 0; i < images; i += BATCH) {
            int64_t m = images - i < BATCH ? images - i : BATCH, at = i * pairs;
            double t = status_clock(), f = e.f.tape.flops;
            must(encode_image_keys(&e, (FeatureRows){in.features + i * d.P * d.E, NULL}, (int)m));
            b->sync();
            keys += status_clock() - t, key_flops += e.f.tape.flops - f, f = e.f.tape.flops;
            for (int64_t j = 0; j < m * pairs; j++) in.image[at + j] = (int32_t)(j / pairs);
            must(encode_pairs(&e, in.image + at, in.ids + at * d.T, in.len + at, m * pairs, in.logits + 2 * at));
            pair_flops += e.f.tape.flops - f;
        }
        double took = status_clock() - start;
        if (round && took < best) best = took, best_keys = keys;
    }
    double all = key_flops + pair_flops, gf = pair_flops / 1e9 / (double)n, gi = key_flops / 1e9 / (double)images,
           reference = reference_flops(&d) / 1e9;
    printf("%-6s %-5s %4lld images of %4lld pairs %9.1f pairs/s  %7.1f GFLOP/s of %.1f = %4.1f %%   ", which, type,
           (long long)images, (long long)pairs, (double)n / best, all / best / 1e9, peak / 1e9, 100 * all / best / peak);
    printf("%.4f GFLOP a pair, %.4f an image: %.4f in all a pair, the reference %.4f (%.2f times)   keys %.1f %% of "
           "the time\n", gf, gi, all / 1e9 / (double)n, reference, reference / (all / 1e9 / (double)n),
           100 * best_keys / best);
    printf("{\"bench\":\"rerank\",\"size\":\"%s\",\"type\":\"%s\",\"device\":\"%s\",\"images\":%lld,"
           "\"pairs_per_image\":%lld,\"pairs_per_s\":%.2f,\"gflops\":%.2f,", which, type, device, (long long)images,
           (long long)pairs, (double)n / best, all / best / 1e9);
    printf("\"gemm_peak\":%.2f,\"share\":%.4f,\"gflop_per_pair\":%.5f,\"gflop_per_image\":%.5f,"
           "\"reference_gflop_per_pair\":%.5f}\n", peak / 1e9, all / best / peak, gf, gi, reference);
    free(in.features), free(in.image), free(in.len), free(in.ids), free(in.logits);
    encoder_close(&e);
    qformer_close(&p);
    arena_close(&mem, b);
    backend_close(b);
    return 0;
}
