/* gemm: C(m,n) = [add] C + op(A) op(B) + bias(n).
 *
 * oneDNN where it is found; the caller's row counts change with every batch of packed text, so the question is which of
 * its doors costs no compilation for a new m. Measured with 2.6.3 on two Zen 4 cores (GFLOP/s; "fixed" = a matmul
 * primitive for exact sizes, 0.3-0.8 ms to make; "open" = one whose m, or k when A is transposed, is known at run time,
 * made once):
 *
 *                                    f32: sgemm  fixed  open      bf16: fixed  open
 *      1500 x  3072 x  768  B^T           218    214    219            422    407
 *      1500 x   768 x 3072  B^T           160    215    159            435    416
 *      1500 x   768 x 3072                220    210    220            414    414
 *      3072 x   768 x 1500  A^T           207    203    206            375    402
 *       400 x 30523 x  768  B^T           187    195    194            399    282
 *      4000 x    64 x   64  B^T           195    194    197            442    347
 *      4000 x   256 x   64                220    228    220            440    389
 *        64 x   256 x 4000  A^T           233    227    232            371    374
 *
 * So f32 goes to sgemm, and to matmul where sgemm stumbles (B^T with a long k) or a bias comes along: a pass over C of
 * its own would cost more. bf16 is "open" under A^T, else "fixed". A fixed primitive has the exact m when the product
 * is long enough to pay for it, else the largest m of a coarse grid (8 steps an octave), and the rows that remain take
 * an open one.
 *
 * What oneDNN refuses (bf16 on a processor without it, f32 into bf16),
 * and builds without it or any CBLAS, take blocked(). */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/tile.h"

#ifdef HAVE_DNNL
#include <dnnl.h>
#elif defined(HAVE_CBLAS)
#include <cblas.h>
#endif

#if !ELEM_BF16      /* once for both element types */
bool cpu_has_bf16(void) {
#if defined(HAVE_DNNL) && defined(__x86_64__)
    return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
#else
    return false;
#endif
}
#endif

static float load(const void *p, DType t, int64_t i) {
    return t == DT_F32 ? ((const float *)p)[i] : bf16_to_f32(((const bf16 *)p)[i]);
}

/* ---- the plain one: any shape, any types --------------------------------------------------------------------------
 * op(B) is packed in panels of NR columns, op(A) in strips of MR rows, both f32;
 * a tile of C stays in registers (tile.h). */
enum { MR = TILE_M, NR = 2 * LANES };

static void store_tile(const Gemm *g, const float acc[MR][NR], int64_t i0, int64_t j0) {
    for (int64_t i = i0; i < MIN(g->m, i0 + MR); i++)
        for (int64_t j = j0; j < MIN(g->n, j0 + NR); j++) {
            float v = acc[i - i0][j - j0] + (g->bias ? ld(((const elem *)g->bias)[j]) : 0.0f);
            /* in f32, rounded once: bf16 sums would lose what a small gradient adds */
            if (g->add) v += load(g->c, g->ct, i * g->ldc + j);
            if (g->ct == DT_F32) ((float *)g->c)[i * g->ldc + j] = v;
            else ((bf16 *)g->c)[i * g->ldc + j] = bf16_from_f32(v);
        }
}

static void blocked(const Gemm *g) {
    int64_t m = g->m, n = g->n, k = g->k, panels = (n + NR - 1) / NR, strips = (m + MR - 1) / MR;
    float *pb, *pa;
    /* + 1: k may be 0, and posix_memalign may answer 0 bytes with NULL */
    int64_t floats = (panels * NR + omp_get_max_threads() * MR) * k + 1;
    if (posix_memalign((void **)&pb, 64, (size_t)floats * sizeof(float))) {
        cpu_fail(ERR_MEMORY, "gemm");
        return;
    }
    pa = pb + panels * NR * k;
#pragma omp parallel if (PARALLEL(m * n * k / 4))
    {
#pragma omp for schedule(static)
        /* B whole, once, for all threads; columns beyond n as zeros, so that every tile is a full one */
        for (int64_t q = 0; q < panels; q++)
            for (int64_t p = 0; p < k; p++)
                for (int64_t j = 0; j < NR; j++) {
                    int64_t c = q * NR + j;
                    int64_t from = g->tb ? c * g->ldb + p : p * g->ldb + c;
                    pb[(q * k + p) * NR + j] = c < n ? load(g->b, g->ab, from) : 0.0f;
                }
        /* a strip of A is read once a tile of its row, so it is packed where its thread's cache has it */
        float *a = pa + omp_get_thread_num() * MR * k;
#pragma omp for schedule(static)
        for (int64_t s = 0; s < strips; s++) {
            for (int64_t p = 0; p < k; p++)
                for (int64_t i = 0; i < MR; i++) {
                    int64_t r = s * MR + i;
                    a[p * MR + i] = r < m ? load(g->a, g->ab, g->ta ? p * g->lda + r : r * g->lda + p) : 0.0f;
                }
            for (int64_t q = 0; q < panels; q++) {
                float acc[MR][NR];
                tile_product(&acc[0][0], NR, a, 1, MR, pb + q * k * NR, NR, MR, NR, k, false);
                store_tile(g, (const float(*)[NR])acc, s * MR, q * NR);
            }
        }
    }
    free(pb);
}

#ifdef HAVE_DNNL
/* ---- oneDNN ---------------------------------------------------------------------------------------------------- */

/* What a primitive is made for. An open size is DNNL_RUNTIME_DIM_VAL. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t ab, ct, ta, tb, add, bias;
} Key;

typedef struct {
    Key key;
    dnnl_primitive_t prim;              /* NULL: oneDNN refused it */
    uint64_t used;                      /* when last; 0: the slot is empty */
} Slot;

/* Sets of WAYS slots, the oldest of a set gives way: the number of primitives alive has a bound. One thread calls. */
enum { SETS = 128, WAYS = 4 };
static Slot slots[SETS][WAYS];
static uint64_t uses;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t Desc;
static void desc_init(Desc *d, int64_t rows, int64_t cols, int64_t srow, int64_t scol, dnnl_data_type_t t) {
    *d = NULL;
    dnnl_memory_desc_create_with_strides(d, 2, (dnnl_dims_t){rows, cols}, t, (dnnl_dims_t){srow, scol});
}
static void desc_free(Desc *d) {
    if (*d) dnnl_memory_desc_destroy(*d);
}
static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, const Desc *a, const Desc *b, const Desc *bias,
                                 const Desc *c, dnnl_primitive_attr_t attr) {
    return dnnl_matmul_primitive_desc_create(pd, engine, *a, *b, bias ? *bias : NULL, *c, attr);
}
static void append_sum(dnnl_post_ops_t ops) { dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef); }
static void memory_create(dnnl_memory_t *m, const Desc *d, void *p) { dnnl_memory_create(m, *d, engine, p); }
#else
typedef dnnl_memory_desc_t Desc;
static void desc_init(Desc *d, int64_t rows, int64_t cols, int64_t srow, int64_t scol, dnnl_data_type_t t) {
    dnnl_memory_desc_init_by_strides(d, 2, (dnnl_dims_t){rows, cols}, t, (dnnl_dims_t){srow, scol});
}
static void desc_free(Desc *d) { (void)d; }
static dnnl_status_t matmul_desc(dnnl_primitive_desc_t *pd, const Desc *a, const Desc *b, const Desc *bias,
                                 const Desc *c, dnnl_primitive_attr_t attr) {
    dnnl_matmul_desc_t d;
    dnnl_status_t s = dnnl_matmul_desc_init(&d, a, b, bias, c);
    return s == dnnl_success ? dnnl_primitive_desc_create(pd, &d, attr, engine, NULL) : s;
}
static void append_sum(dnnl_post_ops_t ops) { dnnl_post_ops_append_sum(ops, 1.0f); }
static void memory_create(dnnl_memory_t *m, const Desc *d, void *p) { dnnl_memory_create(m, d, engine, p); }
#endif

static dnnl_data_type_t type_of(int32_t t) { return t == DT_F32 ? dnnl_f32 : dnnl_bf16; }

/* The four matrices of a product: a, b, bias, c. */
static void descriptors(Desc d[4], const Key *k) {
    /* a transpose is a pair of strides: nothing is moved */
    desc_init(&d[0], k->m, k->k, k->ta ? 1 : k->lda, k->ta ? k->lda : 1, type_of(k->ab));
    desc_init(&d[1], k->k, k->n, k->tb ? 1 : k->ldb, k->tb ? k->ldb : 1, type_of(k->ab));
    desc_init(&d[2], 1, k->n, k->n, 1, type_of(ELEM));
    desc_init(&d[3], k->m, k->n, k->ldc, 1, type_of(k->ct));
}

static dnnl_primitive_t make_primitive(const Key *key) {
    Desc d[4];
    dnnl_primitive_t prim = NULL;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    descriptors(d, key);
    if (dnnl_primitive_attr_create(&attr) == dnnl_success && dnnl_post_ops_create(&ops) == dnnl_success) {
        if (key->add) append_sum(ops);
        dnnl_primitive_attr_set_post_ops(attr, ops);
        if (matmul_desc(&pd, &d[0], &d[1], key->bias ? &d[2] : NULL, &d[3], attr) == dnnl_success &&
            dnnl_primitive_create(&prim, pd) != dnnl_success)
            prim = NULL;
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (ops) dnnl_post_ops_destroy(ops);
    if (attr) dnnl_primitive_attr_destroy(attr);
    for (int i = 0; i < 4; i++) desc_free(&d[i]);
    return prim;
}

static dnnl_primitive_t find_primitive(const Key *key) {
    const int64_t *w = &key->m;
    uint64_t h = (uint64_t)(key->ta + 2 * key->tb + 4 * key->add + 8 * key->bias + 16 * key->ab + 256 * key->ct);
    for (int i = 0; i < 6; i++) h = (h ^ (uint64_t)w[i]) * 0x9E3779B97F4A7C15u;
    Slot *set = slots[h >> 57], *oldest = set;
    for (int i = 0; i < WAYS; i++) {
        if (set[i].used && memcmp(&set[i].key, key, sizeof *key) == 0) {
            set[i].used = ++uses;
            return set[i].prim;
        }
        if (set[i].used < oldest->used) oldest = &set[i];
    }
    if (oldest->prim) dnnl_primitive_destroy(oldest->prim);
    *oldest = (Slot){.key = *key, .prim = make_primitive(key), .used = ++uses};
    return oldest->prim;
}

static bool ready(void) {
    static int state;                   /* 0 unknown, 1 ready, -1 no engine */
    if (state == 0) {
        state = dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success &&
                dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success ? 1 : -1;
        dnnl_set_primitive_cache_capacity(0);        /* ours has a bound that fits; two would double the memory */
    }
    return state > 0;
}

/* One product by a primitive; `open` leaves m (k under A^T) to run time. False: oneDNN refused. */
static bool matmul(const Gemm *g, bool open) {
    Key key = {.m = g->m, .n = g->n, .k = g->k, .lda = g->lda, .ldb = g->ldb, .ldc = g->ldc, .ab = (int32_t)g->ab,
               .ct = (int32_t)g->ct, .ta = g->ta, .tb = g->tb, .add = g->add, .bias = g->bias != NULL}, exact = key;
    /* A^T comes with weights' gradients, where the rows are what is summed over */
    if (open && g->ta) key.k = DNNL_RUNTIME_DIM_VAL;
    else if (open) key.m = DNNL_RUNTIME_DIM_VAL;
    /* made on first use: a run whose products are all thin never starts oneDNN */
    dnnl_primitive_t prim = ready() ? find_primitive(&key) : NULL;
    if (!prim) return false;
    Desc d[4];
    dnnl_memory_t mem[4] = {NULL, NULL, NULL, NULL};
    void *data[4] = {(void *)(uintptr_t)g->a, (void *)(uintptr_t)g->b, (void *)(uintptr_t)g->bias, g->c};
    static const int arg[4] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST};
    dnnl_exec_arg_t args[4];
    int nargs = 0;
    descriptors(d, &exact);
    for (int i = 0; i < 4; i++) {
        if (!data[i]) continue;
        memory_create(&mem[i], &d[i], data[i]);
        args[nargs++] = (dnnl_exec_arg_t){arg[i], mem[i]};
    }
    if (dnnl_primitive_execute(prim, stream, nargs, args) != dnnl_success) cpu_fail(ERR_DEVICE, "oneDNN matmul");
    /* memory objects hold the caller's pointers: they go before anybody frees those */
    dnnl_stream_wait(stream);
    for (int i = 0; i < 4; i++) {
        if (mem[i]) dnnl_memory_destroy(mem[i]);
        desc_free(&d[i]);
    }
    return true;
}

/* Fixed primitives where they are the fastest: see the top. */
static bool matmul_rows(const Gemm *g) {
    const double PAYS = 4e8;            /* flops; 2 ms in f32, against 0.5 ms for a primitive that many layers share */
    if (2.0 * (double)g->m * (double)g->n * (double)g->k >= PAYS) return matmul(g, false);
    /* few sizes of head: a fixed primitive is made for each, and packed rows make a new m every batch */
    int64_t step = 8;
    while (step * 16 <= g->m) step *= 2;
    Gemm head = *g, rest = *g;
    /* fewer rows than that are not worth a primitive of their own */
    head.m = g->m < 64 ? 0 : g->m / step * step;
    rest.m = g->m - head.m;
    rest.a = (const char *)g->a + head.m * g->lda * dtype_size(g->ab);
    rest.c = (char *)g->c + head.m * g->ldc * dtype_size(g->ct);
    if (head.m && !matmul(&head, false)) return false;
    if (rest.m && !matmul(&rest, true)) blocked(&rest);
    return true;
}

static bool library_gemm(const Gemm *g) {
    enum { LONG_K = 384 };
    if (g->ab == DT_F32 && g->ct == DT_F32 && !g->bias && !(g->tb && g->k >= LONG_K))
        return dnnl_sgemm(g->ta ? 'T' : 'N', g->tb ? 'T' : 'N', g->m, g->n, g->k, 1.0f, g->a, g->lda, g->b, g->ldb,
                          g->add ? 1.0f : 0.0f, g->c, g->ldc) == dnnl_success;
    if (g->ta || (g->ab == DT_F32 && !(g->tb && g->k >= LONG_K))) return matmul(g, true);
    return matmul_rows(g);
}
#elif defined(HAVE_CBLAS)
static bool library_gemm(const Gemm *g) {
    if (g->ab != DT_F32 || g->ct != DT_F32) return false;
    /* sgemm knows no bias: C becomes it first, and the product is added */
    for (int64_t i = 0; g->bias && i < g->m; i++) {
        float *c = (float *)g->c + i * g->ldc;
        for (int64_t j = 0; j < g->n; j++) c[j] = (g->add ? c[j] : 0.0f) + ld(((const elem *)g->bias)[j]);
    }
    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans, (int)g->m,
                (int)g->n, (int)g->k, 1.0f, g->a, (int)g->lda, g->b, (int)g->ldb, g->add || g->bias ? 1.0f : 0.0f,
                g->c, (int)g->ldc);
    return true;
}
#else
static bool library_gemm(const Gemm *g) { (void)g; return false; }
#endif

void FN(gemm)(const Gemm *g) {
    if (g->sums) FN(colsum)(g->sums, g->a, g->k, g->m, g->lda);
    if (g->m == 0 || g->n == 0) return;
    if (!FN(gemm_thin)(g) && (g->k == 0 || !library_gemm(g))) blocked(g);
    if (g->act && g->grad) FN(act_bwd)(g->act, g->grad);
    else if (g->act) FN(act)(g->act);
}

void FN(gemms)(const Gemm *g, int n) {
    for (int i = 0; i < n; i++) FN(gemm)(&g[i]);
}
