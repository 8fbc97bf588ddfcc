/* gemm_trial: see gemm_trial.h. */
#include "kernels/cuda/gemm_trial.h"

#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/cuda/gemm_choice.h"

static size_t matrix_bytes(int64_t rows, int64_t ld, DType t) { return (size_t)(rows * ld) * (size_t)dtype_size(t); }

/* bytes of numbers from -1 to 1: a GPU is faster on zeros. */
static Status numbers(void **p, size_t bytes, DType t) {
    enum { SOME = 1 << 16 };
    static float f[SOME]; /* static: 256 KB would be much of a thread's stack, and this runs once */
    uint32_t state = 1;
    for (int i = 0; i < SOME; i++) state = state * 1664525u + 1013904223u, f[i] = (float)(int32_t)state / 2147483648.0f;
    char *host = mem_new(SOME, (size_t)dtype_size(t));
    if (!host) return ERR_MEMORY;
    dtype_from_f32(host, t, f, SOME);
    size_t piece = SOME * (size_t)dtype_size(t);
    Status st = cuda_alloc(p, bytes);
    for (size_t at = 0; st == OK && at < bytes; at += piece)
        cuda_ok(cudaMemcpy((char *)*p + at, host, bytes - at < piece ? bytes - at : piece, cudaMemcpyHostToDevice),
                "upload");
    free(host);
    return st;
}

Status gemm_trial_open(GemmTrial *t, const Gemm *g, int n, DType elem) {
    size_t a = 1, b = 1, c = 1, h = 1, bias = 1, cs = 0, biases = 0;
    int left = 0;                       /* of a group, which wants room for all it writes */
    *t = (GemmTrial){0};
    for (int i = 0; i < n; i++) {
        GemmKey key = gemm_key(&g[i], g[i].bias);
        Gemm r = gemm_rounded(&key, &g[i]);
        size_t x = matrix_bytes(r.ta ? r.k : r.m, r.lda, r.ab), y = matrix_bytes(r.tb ? r.n : r.k, r.ldb, r.ab),
               z = matrix_bytes(r.m, r.ldc, r.ct), v = (size_t)(r.sums ? r.m : r.n) * sizeof(float);
        bool first = left == 0;
        left = g[i].together ? g[i].together : first ? 0 : left - 1;
        /* products of one group run at once, so their results lie side by side */
        cs = first ? z : cs + z, biases = first ? v : biases + v;
        /* the largest of each: products are timed one after the other in the same memory */
        a = x > a ? x : a, b = y > b ? y : b, c = cs > c ? cs : c, bias = biases > bias ? biases : bias;
        int64_t ld = g[i].act ? g[i].act->ldu > g[i].act->ldh ? g[i].act->ldu : g[i].act->ldh : 0;
        z = matrix_bytes(r.m, ld, r.ct), h = z > h ? z : h;
    }
    Status st = numbers(&t->a, a, elem);
    if (st == OK) st = numbers(&t->b, b, elem);
    if (st == OK) st = cuda_alloc(&t->c, c);
    if (st == OK) st = numbers(&t->bias, bias, DT_F32);
    if (st == OK) st = numbers(&t->u, h, elem);
    if (st == OK) st = cuda_alloc(&t->h, h);
    /* sums that grow from what lay there before could reach infinity, and be timed as such */
    cuda_zero(t->c, st == OK ? c : 0);
    if (st == OK && !(cuda_ok(cudaEventCreate(&t->from), "event") && cuda_ok(cudaEventCreate(&t->to), "event")))
        st = cuda_error();
    return st;
}

void gemm_trial_close(GemmTrial *t) {
    void *all[] = {t->a, t->b, t->c, t->h, t->u, t->bias};
    for (int i = 0; i < 6; i++) cuda_release(all[i]);
    if (t->from) cudaEventDestroy(t->from);
    if (t->to) cudaEventDestroy(t->to);
}

void gemm_trial_place(GemmWhole *w, const Gemm *g, const GemmTrial *t) {
    w->g = *g;
    w->g.a = t->a, w->g.b = t->b, w->g.c = t->c, w->g.act = NULL, w->g.grad = NULL;
    /* a gated one is never in the epilogue: what follows is the same whoever made the product */
    if (!g->act || g->act->up) return;
    bool h = !g->grad || g->act->h;
    w->a = *g->act, w->a.N = g->m, w->a.F = g->n;
    /* forward u is the product itself; backward it was kept, and the product is dh */
    w->a.u = g->grad ? t->u : t->c, w->a.bias = g->act->bias ? t->bias : NULL, w->a.h = h ? t->h : NULL;
    if (g->grad) w->d = *g->grad, w->d.dh = w->d.du = t->c, w->d.lddu = g->ldc;
    if (g->grad && w->d.dbias) w->d.dbias = t->bias;
    w->g.act = &w->a, w->g.grad = g->grad ? &w->d : NULL;
}

void gemm_trial_group(Gemm *to, const Gemm *g, int n, const GemmTrial *t) {
    size_t c = 0, sums = 0;
    for (int i = 0; i < n; i++) {
        GemmKey key = gemm_key(&g[i], g[i].sums);
        GemmWhole w;
        Gemm r = gemm_rounded(&key, &g[i]);
        gemm_trial_place(&w, &r, t);
        to[i] = w.g;
        to[i].c = (char *)t->c + c, to[i].sums = r.sums ? (float *)t->bias + sums : NULL;
        c += matrix_bytes(r.m, r.ldc, r.ct), sums += (size_t)r.m;
    }
}
