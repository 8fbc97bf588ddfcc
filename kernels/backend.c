/* backend: see backend.h. Chooses a backend by name, and holds the one that does nothing. */
#include "kernels/backend.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

extern const Backend backend_cpu_f32, backend_cpu_bf16;

const Backend *backend_cpu(DType elem) { return elem == DT_BF16 ? &backend_cpu_bf16 : &backend_cpu_f32; }

/* The bits say what the processor has; that the system saves its registers (XCR0) decides whether it may be used. */
bool cpu_has_bf16(void) {
#if defined(__x86_64__)
    unsigned a, b, c, d, xcr0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(d) : "c"(0));
    bool zmm = (xcr0 & 0xe6) == 0xe6, tiles = (xcr0 & 0x60000) == 0x60000;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    bool amx = (d & (1u << 22)) != 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d)) return amx && tiles;
    return (amx && tiles) || ((a & (1u << 5)) != 0 && zmm);
#else
    return false;
#endif
}

#ifndef HAVE_CUDA
Status backend_cuda(const Backend **b, DType elem, int local_rank) {
    (void)elem, (void)local_rank;
    *b = NULL;
    return err_set(ERR_MISSING, "this build has no CUDA backend: build it where nvcc is found, or choose device=cpu");
}
#endif

Status backend_open(const Backend **b, const char *device, DType elem, int local_rank) {
    *b = NULL;
    BUG_ON(elem != DT_F32 && elem != DT_BF16, "backend_open: element type %s", dtype_name(elem));
    if (strcmp(device, "cuda") == 0) return backend_cuda(b, elem, local_rank);
    if (strcmp(device, "auto") == 0) {
        if (backend_cuda(b, elem, local_rank) == OK) return OK;
        err_clear();
    } else if (strcmp(device, "cpu") != 0) {
        return err_set(ERR_USAGE, "device is \"%s\"; it can be cpu, cuda or auto", device);
    }
    *b = backend_cpu(elem);
    return OK;
}

/* Processes hold one backend to their end; what it allocated is released piece by piece. */
void backend_close(const Backend *b) {
    if (b && b->sync) b->sync();
}

/* ---- the backend that does nothing ----------------------------------------------------------------------------- */

#pragma GCC diagnostic ignored "-Wunused-parameter"

static Status null_alloc(void **p, size_t bytes) { *p = NULL; return OK; }
static void null_release(void *p) {}
static void null_set_workspace(void *p, size_t bytes) {}
static void null_zero(void *p, size_t bytes) {}
static void null_upload(void *dst, const void *src, size_t bytes) {}
static void null_sync(void) {}
static Status null_status(void) { return OK; }
static void null_mark(const char *name) {}
static void null_gemm(const Gemm *g) {}
static void null_colsum(float *db, const void *dy, int64_t N, int64_t C, int64_t ld) {}
static void null_gelu(void *h, const void *u, const float *bias, int64_t N, int64_t F) {}
static void null_gelu_bwd(void *du, void *h, float *dbias, const void *dh, const void *u, const float *bias, int64_t N,
        int64_t F) {}
static void null_add_norm(const AddNorm *a) {}
static void null_add_norm_bwd(const AddNorm *a, const AddNormGrad *g) {}
static void null_embed(const Embed *e) {}
static void null_embed_bwd(const Embed *e, const EmbedGrad *g) {}
static void null_attention(const Attn *a) {}
static void null_attention_bwd(const Attn *a, const AttnGrad *g) {}
static void null_normalize(void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E, int64_t P,
        float eps) {}
static void null_fold(void *Wf, void *cf, const float *W, const float *b, const float *gamma, const float *beta,
        int64_t M, int64_t E) {}
static void null_unfold(float *dW, float *db, float *dgamma, float *dbeta, const float *G, const float *s,
        const float *W, const float *gamma, const float *beta, int64_t M, int64_t E) {}
static void null_l2norm(float *y, float *norm, const void *x, int64_t N, int64_t Z) {}
static void null_l2norm_bwd(void *dx, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z) {}
static void null_segment_mean(void *y, const void *x, int64_t n, int64_t Q, int64_t C) {}
static void null_segment_mean_bwd(void *dx, const void *dy, int64_t n, int64_t Q, int64_t C, bool add) {}
static void null_simmax(float *S, int32_t *arg, const float *I, const float *T, int64_t ni, int64_t nt, int64_t Q,
        int64_t Z, int64_t si, int64_t sj) {}
static void null_simmax_bwd_image(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t ni,
        int64_t nt, int64_t Q, int64_t Z, int64_t si, int64_t sj) {}
static void null_simmax_bwd_text(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni,
        int64_t nt, int64_t Q, int64_t Z, int64_t si, int64_t sj) {}
static void null_itc_loss(const ItcLoss *l) {}
static void null_negatives(const Negatives *n) {}
static void null_xent(const Xent *x) {}
static void null_copy_rows(void *dst, int64_t ldd, const int32_t *di, const void *src, int64_t lds,
        const int32_t *si, int64_t n, int64_t width, bool add) {}
static void null_cast(void *dst, DType dt, const void *src, DType st, int64_t n) {}
static void null_axpy(float *y, const float *x, float a, int64_t n) {}
static void null_sum(float *out, const float *x, int64_t n, bool add) {}
static void null_sumsq(double *out, const float *g, int64_t n, bool add) {}
static void null_grad_scale(float *scale, float *norm_out, const double *sumsq, int n, float max_norm) {}
static void null_adamw(const AdamW *a) {}
static void null_all_reduce(float *x, int64_t n, bool bf16_wire) {}
static void null_reduce_parts(float *x, int64_t at, int64_t n, int64_t part, bool bf16_wire) {}

#define NULL_BACKEND(type) { .name = "null", .elem = type, .unified = false, \
    .alloc = null_alloc, .release = null_release, .set_workspace = null_set_workspace, .zero = null_zero,         \
    .upload = null_upload, .sync = null_sync, .status = null_status, .mark = null_mark, .gemm = null_gemm,        \
    .colsum = null_colsum, .gelu = null_gelu, .gelu_bwd = null_gelu_bwd, .add_norm = null_add_norm,               \
    .add_norm_bwd = null_add_norm_bwd, .embed = null_embed, .embed_bwd = null_embed_bwd,                          \
    .attention = null_attention, .attention_bwd = null_attention_bwd, .normalize = null_normalize,                \
    .fold = null_fold, .unfold = null_unfold, .l2norm = null_l2norm, .l2norm_bwd = null_l2norm_bwd,               \
    .segment_mean = null_segment_mean, .segment_mean_bwd = null_segment_mean_bwd, .simmax = null_simmax,          \
    .simmax_bwd_image = null_simmax_bwd_image, .simmax_bwd_text = null_simmax_bwd_text,                           \
    .itc_loss = null_itc_loss, .negatives = null_negatives, .xent = null_xent, .copy_rows = null_copy_rows,       \
    .cast = null_cast, .axpy = null_axpy, .sum = null_sum, .sumsq = null_sumsq, .grad_scale = null_grad_scale,    \
    .adamw = null_adamw, .host_alloc = null_alloc, .host_release = null_release, .copy = null_upload,             \
    .download = null_upload, .fetch = null_upload, .fetch_wait = null_sync, .prefetch = null_upload,              \
    .prefetch_wait = null_sync, .all_reduce = null_all_reduce, .reduce_parts = null_reduce_parts,                 \
    .all_reduce_wait = null_sync, .all_gather = null_upload, }

const Backend *backend_null(DType elem) {
    static const Backend f32 = NULL_BACKEND(DT_F32), narrow = NULL_BACKEND(DT_BF16);
    return elem == DT_BF16 ? &narrow : &f32;
}
