/* gemm: matrix products by cuBLASLt. The only file that includes cublasLt.h; the library is loaded at the first
 * product.
 *
 *   C(m,n) = [C +] op(A) op(B) + bias(n), row-major        is, column-major,        C'(n,m) = [C' +] op(B') op(A') +
 * bias
 *
 * so A and B change places and a row-major (r,c) matrix is handed over as a column-major (c,r) one. The bias is added
 * to the f32 sums before rounding (epilogue BIAS, exact); with f32 results and bf16 operands cuBLASLt wants it in f32,
 * so it is converted first (V numbers). f32 operands are multiplied in f32 (no TF32), bf16 ones with f32 sums.
 *
 * Which algorithm. Packed rows make sizes change from batch to batch. Sizes are rounded up to four significant bits
 * (steps of 6 to 12 %), the heuristic is asked once for each rounded shape and its answer kept: a few hundred questions
 * of about 50 us in a run. It is asked about the ROUNDED shape, so the answer does not depend on which batch came
 * first: a resumed run picks what the first run picked. No timing, for the same reason. Split-k is allowed only with a
 * reduction in the compute type in the workspace (fixed order): the same input gives the same bits. An algorithm that
 * cannot do the exact shape (AlgoCheck) is asked for anew, for this shape alone.
 *
 * What cuBLASLt has no product for goes to the plain kernel of product.cu: f32 operands with a bf16 result, the empty
 * sum (k = 0), a shape without an algorithm, and one that the library refuses when it is called: such a shape is
 * remembered, so it is refused once. None of these is known to occur in training. */
#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/cuda/cuda.h"

#define LT_LIST(X)                                                                                                     \
    X(cublasLtCreate) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy)                                         \
    X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy)                     \
    X(cublasLtMatrixLayoutSetAttribute) X(cublasLtMatmulPreferenceCreate)                                              \
    X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulAlgoCheck)               \
    X(cublasLtMatmul) X(cublasLtGetStatusString)

static struct {
#define X(f) __typeof__(f) *f;
    LT_LIST(X)
#undef X
} lt;

/* What decides the algorithm. align: the addresses' alignment, up to 16 bytes, as shifts; of the bias too, whose
 * address the heuristic sees. Compared as bytes: no padding. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc;
    uint8_t ab, ct, ta, tb, add, bias, align_a, align_b, align_c, align_bias, zero[6];
} Key;

/* An answer, with descriptors that fit it; sizes and the bias's address are set before each use. */
typedef struct {
    Key key;
    bool used, found, refused;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c; /* a: the caller's A */
    cublasLtMatmulAlgo_t algo;
    int64_t m, n, k; /* the last exact shape that AlgoCheck agreed to */
} Plan;

enum { SLOTS = 4096, MOST = 3072 };
static struct {
    void *library;
    cublasLtHandle_t handle;
    cublasLtMatmulPreference_t preference;
    Plan *plan; /* SLOTS, open addressing */
    int plans;
} my;

/* An answer about what was asked for, not about the GPU: nothing was enqueued. */
static bool is_refusal(cublasStatus_t s) {
    return s == CUBLAS_STATUS_NOT_SUPPORTED || s == CUBLAS_STATUS_INVALID_VALUE || s == CUBLAS_STATUS_ARCH_MISMATCH;
}

static bool ok(cublasStatus_t s, const char *what, const Gemm *g) {
    if (s == CUBLAS_STATUS_SUCCESS) return true;
    cuda_fail(ERR_DEVICE, "cuBLASLt: %s: %s (product of (%lld,%lld) and (%lld,%lld), %s)", what,
              lt.cublasLtGetStatusString(s), (long long)g->m, (long long)g->k, (long long)g->k, (long long)g->n,
              dtype_name(g->ab));
    return false;
}

static bool load(const Gemm *g) {
    if (my.handle) return true;
    if (cuda_failed()) return false;
    char soname[32];
    snprintf(soname, sizeof soname, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
#define X(f) {#f, &lt.f},
    static const CudaSymbol symbols[] = {LT_LIST(X)};
#undef X
    const char *why = NULL;
    my.library = cuda_library(soname, symbols, (int)(sizeof symbols / sizeof *symbols), &why);
    if (!my.library) {
        cuda_fail(ERR_MISSING, "matrix products need cuBLASLt of CUDA %d: %s", CUBLAS_VER_MAJOR, why);
        return false;
    }
    my.plan = mem_new(SLOTS, sizeof *my.plan);
    if (!my.plan) {
        cuda_fail(ERR_MEMORY, "no host memory for the table of matrix products");
        return false;
    }
    if (!ok(lt.cublasLtCreate(&my.handle), "create", g) ||
        !ok(lt.cublasLtMatmulPreferenceCreate(&my.preference), "preference", g))
        return false;
    uint64_t scratch = WS_GEMM;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    return ok(lt.cublasLtMatmulPreferenceSetAttribute(my.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &scratch,
                                                      sizeof scratch),
              "workspace", g) &&
           ok(lt.cublasLtMatmulPreferenceSetAttribute(my.preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                      &schemes, sizeof schemes),
              "reduction scheme", g);
}

static void forget(Plan *p) {
    if (!p->used) return;
    if (p->op) lt.cublasLtMatmulDescDestroy(p->op);
    if (p->a) lt.cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) lt.cublasLtMatrixLayoutDestroy(p->b);
    if (p->c) lt.cublasLtMatrixLayoutDestroy(p->c);
    *p = (Plan){0};
}

/* Up to the next number of four significant bits. */
static int64_t bucket(int64_t x) {
    int64_t step = 1;
    while (x / step >= 16) step *= 2;
    return (x + step - 1) / step * step;
}

static uint8_t alignment(const void *p) {
    uint8_t s = 0;
    while (s < 4 && !((uintptr_t)p >> s & 1)) s++;
    return s;
}

static Plan *slot(const Key *key) {
    uint64_t h = hash_bytes(HASH_START, key, sizeof *key);
    for (uint64_t i = h >> 20;; i++) {
        Plan *p = &my.plan[i % SLOTS];
        if (!p->used || !memcmp(&p->key, key, sizeof *key)) return p;
    }
}

static cudaDataType_t type_of(DType t) { return t == DT_F32 ? CUDA_R_32F : CUDA_R_16BF; }

/* Columns of a row-major matrix are the rows of the column-major one. */
static bool size_layout(cublasLtMatrixLayout_t l, int64_t rows, int64_t cols, const Gemm *g) {
    uint64_t r = (uint64_t)cols, c = (uint64_t)rows;
    return ok(lt.cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_ROWS, &r, sizeof r), "rows", g) &&
           ok(lt.cublasLtMatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_COLS, &c, sizeof c), "columns", g);
}

static bool size_plan(Plan *p, const Gemm *g, int64_t m, int64_t n, int64_t k) {
    return size_layout(p->a, g->ta ? k : m, g->ta ? m : k, g) && size_layout(p->b, g->tb ? n : k, g->tb ? k : n, g) &&
           size_layout(p->c, m, n, g);
}

#define SET(attribute, value)                                                                                          \
    ok(lt.cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_##attribute, &(value), sizeof(value)),            \
       #attribute, g)

static bool describe(Plan *p, const Gemm *g, const void *bias) {
    cublasOperation_t first = g->tb ? CUBLAS_OP_T : CUBLAS_OP_N, second = g->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    cudaDataType_t ab = type_of(g->ab), ct = type_of(g->ct);
    return ok(lt.cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor", g) &&
           SET(TRANSA, first) && SET(TRANSB, second) && SET(EPILOGUE, epilogue) &&
           (!bias || (SET(BIAS_DATA_TYPE, ct) && SET(BIAS_POINTER, bias))) &&
           ok(lt.cublasLtMatrixLayoutCreate(&p->a, ab, 1, 1, g->lda), "layout", g) &&
           ok(lt.cublasLtMatrixLayoutCreate(&p->b, ab, 1, 1, g->ldb), "layout", g) &&
           ok(lt.cublasLtMatrixLayoutCreate(&p->c, ct, 1, 1, g->ldc), "layout", g);
}

/* The heuristic's first answer for a shape. */
static bool ask(Plan *p, const Gemm *g, int64_t m, int64_t n, int64_t k) {
    const Key *key = &p->key;
    const struct {
        cublasLtMatmulPreferenceAttributes_t which;
        uint8_t shift;
    } align[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key->align_b},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key->align_a},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key->align_c},
                 {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key->align_c}};
    for (int i = 0; i < 4; i++) {
        uint32_t bytes = 1u << align[i].shift;
        if (!ok(lt.cublasLtMatmulPreferenceSetAttribute(my.preference, align[i].which, &bytes, sizeof bytes),
                "alignment", g))
            return false;
    }
    cublasLtMatmulHeuristicResult_t r;
    int n_found = 0;
    if (!size_plan(p, g, m, n, k)) return false;
    cublasStatus_t s =
        lt.cublasLtMatmulAlgoGetHeuristic(my.handle, p->op, p->b, p->a, p->c, p->c, my.preference, 1, &r, &n_found);
    p->found = s == CUBLAS_STATUS_SUCCESS && n_found == 1 && r.state == CUBLAS_STATUS_SUCCESS;
    if (p->found) p->algo = r.algo;
    return true;
}

/* Leaves p ready for exactly this product. */
static bool settle(Plan *p, const Gemm *g) {
    if (p->m == g->m && p->n == g->n && p->k == g->k) return size_plan(p, g, g->m, g->n, g->k);
    if (!size_plan(p, g, g->m, g->n, g->k)) return false;
    cublasLtMatmulHeuristicResult_t r;
    bool fits =
        p->found &&
        lt.cublasLtMatmulAlgoCheck(my.handle, p->op, p->b, p->a, p->c, p->c, &p->algo, &r) == CUBLAS_STATUS_SUCCESS &&
        r.workspaceSize <= (size_t)WS_GEMM;
    if (fits) p->m = g->m, p->n = g->n, p->k = g->k;
    return true;
}

static Key key_of(const Gemm *g, const void *bias) {
    return (Key){.m = bucket(g->m), .n = bucket(g->n), .k = bucket(g->k), .lda = g->lda, .ldb = g->ldb, .ldc = g->ldc,
                 .ab = (uint8_t)g->ab, .ct = (uint8_t)g->ct, .ta = g->ta, .tb = g->tb, .add = g->add,
                 .bias = bias != NULL, .align_a = alignment(g->a), .align_b = alignment(g->b),
                 .align_c = alignment(g->c), .align_bias = bias ? alignment(bias) : 0};
}

/* A new answer in p, for the rounded shape, as far as it fits the strides that it is described with. */
static bool plan_shape(Plan *p, const Gemm *g, const void *bias) {
    Gemm r = {.m = p->key.m, .n = p->key.n, .k = p->key.k};
    if (g->lda < (g->ta ? r.m : r.k)) r.m = g->ta ? g->m : r.m, r.k = g->ta ? r.k : g->k;
    if (g->ldb < (g->tb ? r.k : r.n)) r.k = g->tb ? g->k : r.k, r.n = g->tb ? r.n : g->n;
    if (g->ldc < r.n) r.n = g->n;
    return describe(p, g, bias) && ask(p, g, r.m, r.n, r.k);
}

/* By plan p, whose algorithm fits; by the plain kernel where the library refuses, now and from now on. */
static void run_plan(Plan *p, const Gemm *g, const void *bias, char *scratch, DType elem) {
    float one = 1.0f, beta = g->add ? 1.0f : 0.0f;
    if (!p->refused) {
        if (bias && !SET(BIAS_POINTER, bias)) return;
        cublasStatus_t s = lt.cublasLtMatmul(my.handle, p->op, &one, g->b, p->b, g->a, p->a, &beta, g->c, p->c, g->c,
                                             p->c, &p->algo, scratch, WS_GEMM, cuda.compute);
        p->refused = is_refusal(s);
        if (!p->refused && !ok(s, "matmul", g)) return;
    }
    if (p->refused) cuda_product(g, elem);
    cuda_launched("gemm");
}

/* The answer kept for the shape of g; asked for when it is new. NULL when the library failed. */
static Plan *kept_plan(const Gemm *g, const void *bias) {
    if (my.plans >= MOST) { /* never seen in training; a server of odd shapes starts over */
        for (int i = 0; i < SLOTS; i++) forget(&my.plan[i]);
        my.plans = 0;
    }
    Key key = key_of(g, bias);
    Plan *p = slot(&key);
    if (p->used) return p;
    *p = (Plan){.used = true, .key = key};
    my.plans++;
    return plan_shape(p, g, bias) ? p : NULL;
}

static void multiply(const Gemm *g, DType elem) {
    if (!load(g)) return;
    char *scratch = cuda_workspace(WS_COMPUTE, "gemm");
    const void *bias = g->bias;
    if (bias && g->ct != elem) {
        BUG_ON((size_t)g->n * sizeof(float) > WS_BIAS, "gemm: a bias of %lld", (long long)g->n);
        bias = scratch + WS_COMPUTE - WS_BIAS;
        cuda_cast(scratch + WS_COMPUTE - WS_BIAS, g->ct, g->bias, elem, g->n);
    }
    Plan *p = kept_plan(g, bias), single = {.used = true};
    if (!p || !settle(p, g)) return;
    if (p->m != g->m || p->n != g->n || p->k != g->k) { /* refused for the exact shape */
        single.key = p->key;
        if (!describe(&single, g, bias) || !ask(&single, g, g->m, g->n, g->k)) goto done;
        single.refused = !single.found;
        p = &single;
    }
    run_plan(p, g, bias, scratch, elem);
done:
    forget(&single);
}

static void gemm(const Gemm *g, DType elem) {
    if (!g->m || !g->n) return;
    if (!g->k || (g->ab == DT_F32 && g->ct != DT_F32)) cuda_product(g, elem);
    else multiply(g, elem);
}

void cuda_f32_gemm(const Gemm *g) { gemm(g, DT_F32); }
void cuda_bf16_gemm(const Gemm *g) { gemm(g, DT_BF16); }
