/* gemm: matrix products by cuBLASLt. The only file that includes cublasLt.h; the library is loaded at the first
 * product.
 *
 *   C(m,n) = [C +] op(A) op(B) + bias(n), row-major   is, column-major,   C'(n,m) = [C' +] op(B') op(A') + bias
 *
 * so A and B change places and a row-major (r,c) matrix is handed over as a column-major (c,r) one. The bias is added
 * to the f32 sums before rounding (epilogue BIAS, exact); with f32 results and bf16 operands cuBLASLt wants it in f32,
 * so it is converted first (V numbers). f32 operands are multiplied in f32 (no TF32), bf16 ones with f32 sums.
 *
 * Which algorithm. Packed rows make sizes change from batch to batch. Sizes are rounded up to four significant bits
 * (steps of 6 to 12 %), the heuristic is asked once for each rounded shape and its answer kept: a few hundred questions
 * of about 50 us in a run. It is asked about the ROUNDED shape, so the answer does not depend on which batch came
 * first: a resumed run picks what the first run picked. Large products that are known to come can be timed before a run
 * begins (choose_products): of CANDIDATES answers the fastest is taken, and which one is kept in the run's folder
 * (gemm_choice), for the same reason: a clock never says the same twice. Split-k is allowed only with a
 * reduction in the compute type in the workspace (fixed order): the same input gives the same bits. An algorithm that
 * cannot do the exact shape (AlgoCheck) is asked for anew, for this shape alone.
 *
 * Column sums beside a product come of the epilogue BGRADB, which overwrites. Where it is slower than the plain product
 * and the kernel of rows.cu (APART), or there is no algorithm with it, those two run.
 *
 * What cuBLASLt has no product for goes to the plain kernel of product.cu: f32 operands with a bf16 result, the empty
 * sum (k = 0), a shape without an algorithm, and one that the library refuses when it is called: such a shape is
 * remembered, so it is refused once. None of these is known to occur in training. */
#include <cublasLt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/gemm_choice.h"
#include "kernels/cuda/gemm_trial.h"

#define LT_LIST(X)                                                                                                     \
    X(cublasLtCreate) X(cublasLtMatmulDescCreate) X(cublasLtMatmulDescDestroy)                                         \
    X(cublasLtMatmulDescSetAttribute) X(cublasLtMatrixLayoutCreate) X(cublasLtMatrixLayoutDestroy)                     \
    X(cublasLtMatrixLayoutSetAttribute) X(cublasLtMatmulPreferenceCreate)                                              \
    X(cublasLtMatmulPreferenceSetAttribute) X(cublasLtMatmulAlgoGetHeuristic) X(cublasLtMatmulAlgoCheck)               \
    X(cublasLtMatmul) X(cublasLtGetStatusString) X(cublasLtGetVersion)

static struct {
#define X(f) __typeof__(f) *f;
    LT_LIST(X)
#undef X
} lt;

/* An answer, with descriptors that fit it; sizes and the bias's address are set before each use. */
typedef struct {
    GemmKey key;
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
    if (cuda_failed()) return false; /* what failed would fail again, and say so in other words */
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

static Plan *slot(const GemmKey *key) {
    uint64_t h = hash_bytes(HASH_START, key, sizeof *key);
    /* not by the lowest bits, which are FNV's worst */
    for (uint64_t i = h >> 20;; i++) {
        Plan *p = &my.plan[i % SLOTS];
        if (!p->used || !memcmp(&p->key, key, sizeof *key)) return p;
    }
}

static cudaDataType_t type_of(DType t) { return t == DT_F32 ? CUDA_R_32F : CUDA_R_16BF; }

/* Columns of a row-major matrix are the rows of the column-major one. */
static bool size_layout(cublasLtMatrixLayout_t l, int64_t rows, int64_t cols, const Gemm *g) {
    /* set before each use: a descriptor is made once for all sizes that round to its key */
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
    cublasLtEpilogue_t epilogue = !bias ? CUBLASLT_EPILOGUE_DEFAULT
                                  : p->key.bias == SUMS ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_BIAS;
    cudaDataType_t ab = type_of(g->ab), ct = type_of(g->ct);
    return ok(lt.cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor", g) &&
           SET(TRANSA, first) && SET(TRANSB, second) && SET(EPILOGUE, epilogue) &&
           (!bias || (SET(BIAS_DATA_TYPE, ct) && SET(BIAS_POINTER, bias))) &&
           ok(lt.cublasLtMatrixLayoutCreate(&p->a, ab, 1, 1, g->lda), "layout", g) &&
           ok(lt.cublasLtMatrixLayoutCreate(&p->b, ab, 1, 1, g->ldb), "layout", g) &&
           ok(lt.cublasLtMatrixLayoutCreate(&p->c, ct, 1, 1, g->ldc), "layout", g);
}

/* The heuristic's first answers for a shape, at most `most`; how many in *found. */
static bool candidates(Plan *p, const Gemm *g, int64_t m, int64_t n, int64_t k, cublasLtMatmulHeuristicResult_t *r,
                       int most, int *found) {
    const GemmKey *key = &p->key;
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
    *found = 0;
    if (!size_plan(p, g, m, n, k)) return false;
    cublasStatus_t s =
        lt.cublasLtMatmulAlgoGetHeuristic(my.handle, p->op, p->b, p->a, p->c, p->c, my.preference, most, r, found);
    *found = s == CUBLAS_STATUS_SUCCESS ? *found : 0;
    return true;
}

/* The answer that was chosen for this shape, else the first. */
static bool ask(Plan *p, const Gemm *g, int64_t m, int64_t n, int64_t k) {
    /* all of them where one was chosen: answers are known by their place in the list */
    cublasLtMatmulHeuristicResult_t r[CANDIDATES];
    int answer = gemm_choice(&p->key), found;
    if (!candidates(p, g, m, n, k, r, answer < 0 ? 1 : CANDIDATES, &found)) return false;
    if (answer < 0 || answer >= found) answer = 0;    /* OURS, where it does not take the exact shape */
    p->found = found > 0 && r[answer].state == CUBLAS_STATUS_SUCCESS;
    if (p->found) p->algo = r[answer].algo;                 /* kept with the plan; asking takes some 50 us */
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

static bool plan_shape(Plan *p, const Gemm *g, const void *bias) {
    Gemm r = gemm_rounded(&p->key, g);
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
    GemmKey key = gemm_key(g, bias);
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
        /* behind what cuBLASLt may use: WS_GEMM from the front */
        BUG_ON((size_t)g->n * sizeof(float) > WS_BIAS, "gemm: a bias of %lld", (long long)g->n);
        bias = scratch + WS_COMPUTE - WS_BIAS;
        cuda_cast(scratch + WS_COMPUTE - WS_BIAS, g->ct, g->bias, elem, g->n);
    }
    Plan *p = kept_plan(g, bias), single = {.used = true};
    if (!p || !settle(p, g)) return;
    if (p->m != g->m || p->n != g->n || p->k != g->k) { /* refused for the exact shape */
        single.key = p->key; /* for this shape alone and not kept: the plan serves the other shapes of its key */
        if (!describe(&single, g, bias) || !ask(&single, g, g->m, g->n, g->k)) goto done;
        single.refused = !single.found;
        p = &single;
    }
    run_plan(p, g, bias, scratch, elem);
done:
    forget(&single);
}

/* By product_act.cu, with what follows: as timed, or else where that fills the GPU. */
static bool is_ours(const Gemm *g) {
    GemmKey key = gemm_key(g, g->bias);
    if (!cuda_product_act_takes(g)) return false;
    int answer = gemm_choice(&key);
    return answer < 0 ? cuda_product_act_fills(g) : answer == OURS;
}

static void activate(const Gemm *g, DType elem) {
    if (!g->act) return;
    if (g->grad) (elem == DT_F32 ? cuda_f32_act_bwd : cuda_bf16_act_bwd)(g->act, g->grad);
    else (elem == DT_F32 ? cuda_f32_act : cuda_bf16_act)(g->act);
}

static void colsum(float *sums, const void *a, const Gemm *g, DType elem) {
    (elem == DT_F32 ? cuda_f32_colsum : cuda_bf16_colsum)(sums, a, g->k, g->m, g->lda);
}

/* The product and its sums at once; false, and nothing done, where that is not to be had. */
static bool multiply_and_sum(const Gemm *g, DType elem) {
    /* of k = 0 the sums stay, where the epilogue would overwrite them */
    if (elem == DT_F32 || !g->k || (size_t)g->m * sizeof(float) > WS_BIAS || !load(g)) return false;
    char *scratch = cuda_workspace(WS_COMPUTE, "gemm");
    float *to = g->sums_zero ? g->sums : (float *)(scratch + WS_COMPUTE - WS_BIAS);
    Plan *p = kept_plan(g, to);
    if (!p || p->refused || gemm_choice(&p->key) == APART || !settle(p, g) || p->m != g->m || p->n != g->n ||
        p->k != g->k)
        return false;
    run_plan(p, g, to, scratch, elem);
    /* the library said no when it was called, and the plain kernel makes no sums */
    if (p->refused) colsum(g->sums, g->a, g, elem);
    else if (to != g->sums) cuda_axpy(g->sums, to, 1.0f, g->m);
    return true;
}

static void gemm(const Gemm *g, DType elem) {
    if (!g->m || !g->n || (g->sums && multiply_and_sum(g, elem))) return;
    if (is_ours(g) && cuda_product_act(g)) return;
    Gemm plain = *g;
    plain.sums = NULL;
    if (g->sums) colsum(g->sums, g->a, g, elem);
    if (!g->k || (g->ab == DT_F32 && g->ct != DT_F32)) cuda_product(&plain, elem);
    else multiply(&plain, elem);
    activate(g, elem);
}

/* Several in one launch: as timed, or else where their tiles fill the GPU. */
static bool is_group(const Gemm *g, int n) {
    if (n < 2) return false; /* one has a launch of its own anyway, and cuBLASLt may split its k */
    GemmKey key = gemm_group_key(g, n);
    int answer = gemm_choice(&key);
    return answer < 0 ? cuda_product_group_fills(g, n) : answer == OURS;
}

/* What the kernel for groups takes; how many. alone, when given, makes the others. */
static int together(Gemm some[CUDA_GROUP], const Gemm *g, int n, void (*alone)(const Gemm *g)) {
    int taken = 0;
    for (int i = 0; i < n; i++) {
        if (taken < CUDA_GROUP && cuda_product_group_takes(&g[i])) some[taken++] = g[i];
        else if (alone) alone(&g[i]);
    }
    return taken;
}

static void gemms(const Gemm *g, int n, void (*alone)(const Gemm *g)) {
    Gemm some[CUDA_GROUP];
    int taken = together(some, g, n, alone);
    if (is_group(some, taken) && cuda_product_group(some, taken)) return;
    for (int i = 0; i < taken; i++) alone(&some[i]);
}

/* ---- the fastest of several answers ------------------------------------------------------------------------------ */

/* Smaller products are launches more than work. */
static const double WORTH_TIMING = 1e9;                      /* operations */

static bool run_once(const Plan *p, const Gemm *g, const GemmTrial *t, const cublasLtMatmulAlgo_t *algo) {
    float one = 1.0f, beta = g->add ? 1.0f : 0.0f;
    if (g->sums && p->key.bias != SUMS) colsum(t->bias, t->a, g, g->ab);
    return lt.cublasLtMatmul(my.handle, p->op, &one, t->b, p->b, t->a, p->a, &beta, t->c, p->c, t->c, p->c, algo,
                             cuda_workspace(WS_COMPUTE, "gemm"), WS_GEMM, cuda.compute) == CUBLAS_STATUS_SUCCESS;
}

/* What is timed: an answer of cuBLASLt, with the activation behind it where there is one, or (r NULL) ours. Or n
 * products of one call: as they are chosen, or (group) in one launch. */
typedef struct {
    const Plan *p;
    const Gemm *g;
    const GemmTrial *t;
    const cublasLtMatmulHeuristicResult_t *r;
    int n;
    bool group;
} Timed;

static bool run_timed(const Timed *x) {
    if (x->group) return cuda_product_group(x->g, x->n);
    for (int i = 0; i < x->n; i++) gemm(&x->g[i], x->g->ab);
    if (x->n) return !cuda_failed();
    if (!x->r) return cuda_product_act(x->g);
    if (!run_once(x->p, x->g, x->t, &x->r->algo)) return false;
    activate(x->g, x->g->ab);
    return true;
}

/* Milliseconds of one of three, after one that nobody counts; infinite where the library refuses. */
static float time_answer(const Timed *x) {
    float ms = INFINITY; /* never the least: an answer that cannot run is not taken */
    const GemmTrial *t = x->t;
    if (x->r && (x->r->state != CUBLAS_STATUS_SUCCESS || x->r->workspaceSize > (size_t)WS_GEMM)) return ms;
    if (!run_timed(x)) return ms;                           /* the first one loads the kernel */
    bool well = cuda_ok(cudaEventRecord(t->from, cuda.compute), "event");
    for (int i = 0; i < 3; i++) well = well && run_timed(x);
    well = well && cuda_ok(cudaEventRecord(t->to, cuda.compute), "event") &&
           cuda_ok(cudaEventSynchronize(t->to), "a product") &&
           cuda_ok(cudaEventElapsedTime(&ms, t->from, t->to), "event");
    return well ? ms / 3 : INFINITY;
}

/* The fastest answer, or `otherwise` when none is faster than *least. */
static Status time_key(const GemmKey *key, const Gemm *g, const GemmTrial *t, int otherwise, float *least) {
    Plan p = {.used = true, .key = *key};
    GemmWhole w;
    Gemm r = gemm_rounded(key, g);
    gemm_trial_place(&w, &r, t);
    cublasLtMatmulHeuristicResult_t answer[CANDIDATES];
    int found = 0, best = otherwise;
    if (!describe(&p, g, key->bias ? t->bias : NULL) || !candidates(&p, g, r.m, r.n, r.k, answer, CANDIDATES, &found)) {
        forget(&p);
        return cuda_error();
    }
    for (int i = 0; i < found; i++) {
        float ms = time_answer(&(Timed){.p = &p, .g = &w.g, .t = t, .r = &answer[i]});
        if (ms < *least) *least = ms, best = i;
    }
    if (w.g.act && cuda_product_act_takes(&w.g) && time_answer(&(Timed){.p = &p, .g = &w.g, .t = t}) < *least)
        best = OURS;
    forget(&p);
    return found || best ? gemm_choose(key, best) : OK;
}

/* Sums twice: behind the plain product, which is chosen for itself too, and in its epilogue. */
static Status time_shape(const Gemm *g, const GemmTrial *t) {
    GemmKey key = gemm_key(g, g->sums ? NULL : g->bias), sums = gemm_key(g, g->sums);
    float least = INFINITY;
    Status st = OK;
    if (g->bias) key.align_bias = g->ct == g->ab ? key.align_bias : 4;         /* a copy in the workspace */
    if (gemm_choice(&key) < 0 || (g->sums && gemm_choice(&sums) < 0)) st = time_key(&key, g, t, 0, &least);
    if (st == OK && g->sums && g->ab == DT_BF16 && gemm_choice(&sums) < 0) st = time_key(&sums, g, t, APART, &least);
    return st;
}

/* Those of one call that can be together: that, or as each was chosen. */
static Status time_group(const Gemm *g, int n, const GemmTrial *t) {
    Gemm some[CUDA_GROUP], placed[CUDA_GROUP];
    int taken = together(some, g, n, NULL);
    if (taken < 2) return OK;
    GemmKey key = gemm_group_key(some, taken);
    if (gemm_choice(&key) >= 0) return OK;
    gemm_trial_group(placed, some, taken, t);
    Timed x = {.g = placed, .t = t, .n = taken};
    float apart = time_answer(&x);
    x.group = true;
    return gemm_choose(&key, time_answer(&x) < apart ? OURS : 0);
}

static void title(char *line, size_t size) {
    snprintf(line, size, "cuBLASLt %zu, %s, compute capability %d.%d", lt.cublasLtGetVersion(), cuda.name,
             cuda.cc / 10, cuda.cc % 10);
}

static bool worth_timing(const Gemm *g, DType elem) {
    return g->ab == elem && !(g->ab == DT_F32 && g->ct != DT_F32) &&
           2.0 * (double)g->m * (double)g->n * (double)g->k >= WORTH_TIMING;
}

static Status choose_products(const Gemm *given, int n, const char *kept, char **text, DType elem) {
    GemmTrial t = {0};
    *text = NULL;
    int some = 0;
    Gemm *g = mem_new((size_t)n + 1, sizeof *g);
    if (!g) return ERR_MEMORY;
    for (int i = 0; i < n; i++) g[some] = given[i], some += worth_timing(&given[i], elem);
    char whose[256] = "";
    Status st = !some || load(g) ? OK : cuda_error();
    if (st == OK && some) title(whose, sizeof whose);
    if (st == OK && some && kept) st = gemm_choices_read(kept, whose);
    if (st == OK && some) st = gemm_trial_open(&t, given, n, elem);
    for (int i = 0; st == OK && i < some; i++) st = time_shape(&g[i], &t);
    for (int i = 0; st == OK && i < n && some; i++)
        if (given[i].together) st = time_group(&given[i], given[i].together + 1, &t);
    gemm_trial_close(&t);
    free(g);
    /* plans asked for before the choice have the heuristic's first answer */
    for (int i = 0; i < SLOTS && my.plan; i++) forget(&my.plan[i]);
    my.plans = 0;
    return st == OK && some ? gemm_choices_write(text, whose) : st;
}

Status cuda_f32_choose_products(const Gemm *g, int n, const char *kept, char **text) {
    return choose_products(g, n, kept, text, DT_F32);
}
Status cuda_bf16_choose_products(const Gemm *g, int n, const char *kept, char **text) {
    return choose_products(g, n, kept, text, DT_BF16);
}

void cuda_f32_gemm(const Gemm *g) { gemm(g, DT_F32); }
void cuda_bf16_gemm(const Gemm *g) { gemm(g, DT_BF16); }
void cuda_f32_gemms(const Gemm *g, int n) { gemms(g, n, cuda_f32_gemm); }
void cuda_bf16_gemms(const Gemm *g, int n) { gemms(g, n, cuda_bf16_gemm); }
