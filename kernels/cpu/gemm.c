/* gemm: matrix products by oneDNN, else any CBLAS, else a loop. (simple form) */
#include "kernels/cpu/cpu.h"

#ifdef HAVE_DNNL
#include <dnnl.h>
#endif

static float load(const void *p, DType t, int64_t i) {
    return t == DT_F32 ? ((const float *)p)[i] : bf16_to_f32(((const bf16 *)p)[i]);
}

void FN(gemm)(const Gemm *g) {
    bool f32 = g->ab == DT_F32 && g->ct == DT_F32;
    float *scratch = NULL, *c = g->c;
    const float *a = g->a, *b = g->b;
    int64_t lda = g->lda, ldb = g->ldb, ldc = g->ldc;
    if (g->ab != DT_F32 || g->ct != DT_F32) {
        scratch = malloc((size_t)(g->m * g->k + g->k * g->n + g->m * g->n + 1) * sizeof(float));
        if (!scratch) { cpu_fail(ERR_MEMORY, "gemm"); return; }
        float *fa = scratch, *fb = fa + g->m * g->k;
        c = fb + g->k * g->n;
        int64_t ar = g->ta ? g->k : g->m, ac = g->ta ? g->m : g->k, br = g->tb ? g->n : g->k, bc = g->tb ? g->k : g->n;
        for (int64_t i = 0; i < ar; i++) for (int64_t j = 0; j < ac; j++) fa[i * ac + j] = load(g->a, g->ab, i * lda + j);
        for (int64_t i = 0; i < br; i++) for (int64_t j = 0; j < bc; j++) fb[i * bc + j] = load(g->b, g->ab, i * ldb + j);
        for (int64_t i = 0; i < g->m; i++) for (int64_t j = 0; j < g->n; j++) c[i * g->n + j] = g->add ? load(g->c, g->ct, i * ldc + j) : 0.0f;
        a = fa, b = fb, lda = ac, ldb = bc, ldc = g->n;
    }
#ifdef HAVE_DNNL
    if (g->m && g->n && g->k)
    dnnl_sgemm(g->ta ? 'T' : 'N', g->tb ? 'T' : 'N', g->m, g->n, g->k, 1.0f, a, lda, b, ldb, g->add ? 1.0f : 0.0f, c, ldc);
#else
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            float s = g->add ? c[i * ldc + j] : 0.0f;
            for (int64_t k = 0; k < g->k; k++) s += a[g->ta ? k * lda + i : i * lda + k] * b[g->tb ? j * ldb + k : k * ldb + j];
            c[i * ldc + j] = s;
        }
#endif
    if (g->bias)
        for (int64_t i = 0; i < g->m; i++) for (int64_t j = 0; j < g->n; j++) c[i * ldc + j] += ld(((const elem *)g->bias)[j]);
    if (!f32)
        for (int64_t i = 0; i < g->m; i++)
            for (int64_t j = 0; j < g->n; j++) {
                if (g->ct == DT_F32) ((float *)g->c)[i * g->ldc + j] = c[i * ldc + j];
                else ((bf16 *)g->c)[i * g->ldc + j] = bf16_from_f32(c[i * ldc + j]);
            }
    free(scratch);
}
