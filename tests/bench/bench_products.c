/* bench_products: every matrix product of a full-size step by cuBLASLt, under each rule of how a sum that was split over blocks may be joined.
 *
 *     bench_roofline 128 products | bench_products [times]
 *
 * A line a shape on standard input: how often, m, n, k, ta, tb, add, bias, f32 result, predicted us. Of each rule the fastest of the
 * heuristic's eight answers counts, on random bf16 operands that take turns so that L2 does not hold them. The
 * program itself takes `compute type` (the same input gives the same bits); what the others would be worth is what this
 * tells. A product that is not offered is a dash. The last line adds up a step. */
#include <stdio.h>
#ifndef HAVE_CUDA
int main(void) {
    printf("bench_products: built without CUDA\n");
    return 0;
}
#else
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

#include "kernels/base/rng.h"
#include "tests/bench/seconds.h"

enum { RULES = 4, ANSWERS = 8, SETS = 8, ALL = CUBLASLT_REDUCTION_SCHEME_MASK };
static const struct { const char *name; uint32_t mask; } rules[RULES] = {
    {"not split", CUBLASLT_REDUCTION_SCHEME_NONE}, {"in place", CUBLASLT_REDUCTION_SCHEME_INPLACE},
    {"compute type", CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}, {"any", ALL}};
static const size_t ROOM = (size_t)640 << 20, DRAWN = (size_t)1 << 20, SCRATCH = (size_t)32 << 20;

#define LT(X) X(cublasLtCreate) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy) X(cublasLtMatmulDescSetAttribute) \
    X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy) X(cublasLtMatmulPreferenceCreate) \
    X(cublasLtMatmulPreferenceDestroy) X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmul)
#define X(f) static __typeof__(f) *p_##f;
LT(X)
#undef X

typedef struct { long long count, m, n, k; int ta, tb, add, bias, f32; double predicted; } Shape;
typedef struct { char *a, *b, *c, *bias, *scratch; cublasLtHandle_t lt; int times; } Bench;

static void must(int status, const char *what) {
    if (status == 0) return;
    fprintf(stderr, "bench_products: %s: error %d\n", what, status);
    exit(1);
}

static void load(void) {
    char name[32];
    snprintf(name, sizeof name, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    void *library = dlopen(name, RTLD_NOW);
    if (!library) fprintf(stderr, "bench_products: %s\n", dlerror()), exit(1);
#define X(f) *(void **)&p_##f = dlsym(library, #f);
    LT(X)
#undef X
}

/* Uniform in [-1, 1), drawn once and repeated: the upper half of an f32 is a bf16. */
static char *numbers(size_t bytes) {
    void *device;
    uint16_t *host = malloc(DRAWN);
    if (!host) exit(1);
    for (size_t i = 0; i < DRAWN / 2; i++) {
        union { float f; uint32_t u; } v = {2 * rng_unit(philox((uint32_t)i, 0, 0, 0, 1, 2).v[0]) - 1};
        host[i] = (uint16_t)(v.u >> 16);
    }
    must(cudaMalloc(&device, bytes), "memory");
    for (size_t at = 0; at < bytes; at += DRAWN) must(cudaMemcpy((char *)device + at, host, DRAWN, cudaMemcpyHostToDevice), "copy");
    free(host);
    return device;
}

/* Row-major C(m,n) = op(A) op(B) is, column-major, C'(n,m) = op(B') op(A'). */
typedef struct { cublasLtMatmulDesc_t op; cublasLtMatrixLayout_t a, b, c; size_t bytes[3]; } Product;

static void describe(Product *p, const Bench *bench, const Shape *s) {
    cudaDataType_t ct = s->f32 ? CUDA_R_32F : CUDA_R_16BF;
    cublasOperation_t ta = s->ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb = s->tb ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint64_t m = (uint64_t)s->m, n = (uint64_t)s->n, k = (uint64_t)s->k;
    must(p_cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
    must(p_cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &tb, sizeof tb), "transposed");
    must(p_cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &ta, sizeof ta), "transposed");
    if (s->bias) {
        cublasLtEpilogue_t e = CUBLASLT_EPILOGUE_BIAS;
        must(p_cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_EPILOGUE, &e, sizeof e), "epilogue");
        must(p_cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bench->bias, sizeof bench->bias), "bias");
    }
    must(p_cublasLtMatrixLayoutCreate(&p->a, CUDA_R_16BF, s->ta ? m : k, s->ta ? k : m, (int64_t)(s->ta ? m : k)), "A");
    must(p_cublasLtMatrixLayoutCreate(&p->b, CUDA_R_16BF, s->tb ? k : n, s->tb ? n : k, (int64_t)(s->tb ? k : n)), "B");
    must(p_cublasLtMatrixLayoutCreate(&p->c, ct, n, m, (int64_t)n), "C");
    p->bytes[0] = m * k * 2, p->bytes[1] = n * k * 2, p->bytes[2] = m * n * (s->f32 ? 4 : 2);
}

/* Where operand i of the set-th turn begins: as many turns as fit. */
static char *turn(char *room, size_t bytes, int set) {
    size_t step = (bytes + 255) / 256 * 256, fit = ROOM / step;
    return room + (size_t)set % (fit ? fit : 1) * step;
}

static int launch(const Bench *b, const Product *p, const Shape *s, const cublasLtMatmulAlgo_t *algo, int set) {
    float one = 1, beta = s->add ? 1 : 0;
    char *c = turn(b->c, p->bytes[2], set);
    return (int)p_cublasLtMatmul(b->lt, p->op, &one, turn(b->b, p->bytes[1], set), p->b, turn(b->a, p->bytes[0], set), p->a,
                                 &beta, c, p->c, c, p->c, algo, b->scratch, SCRATCH, 0);
}

/* us of the fastest answer under the rule; 0: there is none. */
static double fastest(const Bench *b, const Product *p, const Shape *s, uint32_t mask) {
    cublasLtMatmulPreference_t want;
    cublasLtMatmulHeuristicResult_t got[ANSWERS];
    int n = 0;
    double best = 0;
    must(p_cublasLtMatmulPreferenceCreate(&want), "preference");
    must(p_cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &mask, sizeof mask), "rule");
    must(p_cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &SCRATCH, sizeof SCRATCH), "room");
    if (p_cublasLtMatmulAlgoGetHeuristic(b->lt, p->op, p->b, p->a, p->c, p->c, want, ANSWERS, got, &n)) n = 0;
    for (int i = 0; i < n; i++) {
        if (got[i].state != CUBLAS_STATUS_SUCCESS || launch(b, p, s, &got[i].algo, 0)) continue;
        must(cudaDeviceSynchronize(), "product");
        double start = seconds(CLOCK_MONOTONIC);
        for (int k = 0; k < b->times; k++) launch(b, p, s, &got[i].algo, k % SETS);
        must(cudaDeviceSynchronize(), "product");
        double us = (seconds(CLOCK_MONOTONIC) - start) / b->times * 1e6;
        if (best == 0 || us < best) best = us;
    }
    p_cublasLtMatmulPreferenceDestroy(want);
    return best;
}

static void measure(const Bench *b, const Shape *s, double all[RULES + 1]) {
    Product p;
    describe(&p, b, s);
    if (p.bytes[0] > ROOM || p.bytes[1] > ROOM || p.bytes[2] > ROOM) {
        printf("%lld %lld %lld: larger than this program takes\n", s->m, s->n, s->k);
        return;
    }
    printf("%5lld %7lld %6lld %6lld %c%c %s%s%s %9.1f", s->count, s->m, s->n, s->k, s->ta ? 't' : 'n', s->tb ? 't' : 'n',
           s->add ? "+" : " ", s->bias ? "b" : " ", s->f32 ? "4" : "2", s->predicted);
    all[RULES] += (double)s->count * s->predicted;
    double best = 0, us;
    for (int r = 0; r < RULES; r++) {
        if ((us = fastest(b, &p, s, rules[r].mask)) > 0) printf(" %12.1f", us);
        else printf(" %12s", "-");
        all[r] += (double)s->count * us;
        if (us > 0 && (best == 0 || us < best)) best = us;
    }
    printf(" %8.0f\n", best > 0 ? 2e-6 * (double)s->m * (double)s->n * (double)s->k / best : 0);
    p_cublasLtMatrixLayoutDestroy(p.a), p_cublasLtMatrixLayoutDestroy(p.b), p_cublasLtMatrixLayoutDestroy(p.c);
    p_cublasLtMatmulDescDestroy(p.op);
}

int main(int argc, char **argv) {
    Bench b = {.times = argc > 1 ? atoi(argv[1]) : 20};
    Shape s;
    double all[RULES + 1] = {0};
    char line[200];
    if (b.times < 1) return 2;
    load();
    must(p_cublasLtCreate(&b.lt), "cublasLtCreate");
    void *room;
    must(cudaMalloc(&room, SCRATCH), "memory"), b.scratch = room;
    must(cudaMalloc(&room, ROOM), "memory"), b.c = room;
    must(cudaMemset(b.c, 0, ROOM), "zero");
    b.a = numbers(ROOM), b.b = numbers(ROOM), b.bias = numbers(DRAWN);
    printf("%5s %7s %6s %6s %2s %3s %9s", "times", "m", "n", "k", "", "", "predicted");
    for (int r = 0; r < RULES; r++) printf(" %12s", rules[r].name);
    printf(" %8s\n", "TFLOP/s");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "%lld %lld %lld %lld %d %d %d %d %d %lf", &s.count, &s.m, &s.n, &s.k, &s.ta, &s.tb, &s.add, &s.bias,
                   &s.f32, &s.predicted) == 10 && s.m > 0 && s.n > 0 && s.k > 0)
            measure(&b, &s, all);
    }
    printf("%5s %7s %6s %6s %2s %3s %9.0f", "all", "", "", "", "", "", all[RULES]);
    for (int r = 0; r < RULES; r++) printf(" %12.0f", all[r]);
    printf(" us a step\n");
    return 0;
}
#endif
