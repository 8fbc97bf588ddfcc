/* gemm_thin: few rows times a large matrix, C(m,n) = [add] C + A B^T + bias: a token of each beam through a language
 * model.
 *
 * Bound by reading B once, from memory: 2 m flops for each of its elements. A strip of STRIP rows of B goes by while
 * the rows of A, which stay in L2, are taken TAKE at a time; STRIP x TAKE sums of vectors stay in registers and are
 * folded at the end. Libraries pack B first, which is to read it twice and write it once.
 *
 * GB/s of B with one Zen 4 core beside other work; reading alone gives 25 to 29:
 *
 *                                          m 1     2     4     8    16    24
 *     n 49152  k  576   bf16              19.8  22.1  20.8  19.3  10.0   6.6
 *                       held, under f32   21.2  25.0  20.3  12.0   5.7   3.9
 *     n 12000  k 1536   bf16              23.3  24.1  23.1  21.8  10.5   7.1
 *                       held, under f32   25.2  25.6  21.1  12.5   6.3   4.2
 *
 * From 8 rows on that is arithmetic: 96 GFLOP/s of 111. oneDNN 2.6.3 is up to a third slower at 32 rows, and as fast at
 * 40. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

/* Rows of A at a time, and for so many of them the rows of B that go by together: their sums fill the registers. */
enum { TAKE = LANES == 16 ? 8 : 6, SUMS = LANES == 16 ? 24 : 12, WIDEST = LANES == 16 ? 6 : 4 };
#define STRIP(m) (LANES == 16 ? ((m) <= 3 ? 6 : (m) <= 6 ? 4 : 3) : ((m) <= 2 ? 4 : 2))

/* Elements a step: a vector of f32, or twice that of bf16 where the processor multiplies pairs. */
#if ELEM_BF16 && LANES == 16 && defined(__AVX512BF16__)
enum { STEP = 32 };
typedef __m512bh part;
VEC_FN part part_load(const void *b, int64_t at, const DType held, int64_t n) {
    const elem *p = (const elem *)b + at;
    (void)held;
    return n >= STEP ? (part)_mm512_loadu_si512(p) : (part)_mm512_maskz_loadu_epi16((1u << n) - 1u, p);
}
VEC_FN vec part_add(vec sum, part a, part b) { return (vec)_mm512_dpbf16_ps((__m512)sum, a, b); }
#else
enum { STEP = LANES };
typedef vec part;
VEC_FN part part_load(const void *b, int64_t at, const DType held, int64_t n) { return ld_held(b, at, held, n); }
VEC_FN vec part_add(vec sum, part a, part b) { return vec_fma(a, b, sum); }
#endif

VEC_FN void thin_store(const Gemm *g, int64_t i, int64_t j, float v) {
    int64_t at = i * g->ldc + j;
    /* in f32 before the one rounding, as the other products have it */
    if (g->bias) v += ld(((const elem *)g->bias)[j]);
    if (g->ct == DT_F32) ((float *)g->c)[at] = g->add ? ((float *)g->c)[at] + v : v;
    else ((elem *)g->c)[at] = st(g->add ? ld(((elem *)g->c)[at]) + v : v);
}

/* Bytes ahead, at least, in whole strips. */
enum { AHEAD = 16 << 10 };

/* One step of a tile; m and n are constants where this is inlined, `left` too but at a row's end. */
VEC_FN void thin_step(vec *sum, const elem *a, int64_t lda, const void *b, int64_t ldb, int64_t left, const int m,
                      const int n, const DType held) {
    part row[WIDEST];
#pragma GCC unroll 8
    for (int y = 0; y < n; y++) row[y] = part_load(b, y * ldb, held, left);
#pragma GCC unroll 8
    for (int x = 0; x < m; x++) {
        part v = part_load(a, x * lda, ELEM, left);
#pragma GCC unroll 8
        for (int y = 0; y < n; y++) sum[x * n + y] = part_add(sum[x * n + y], v, row[y]);
    }
}

/* Rows i.. of A by rows j.. of B; m, n and held are constants where this is inlined. */
VEC_FN void thin_tile(const Gemm *g, int64_t i, int64_t j, const int m, const int n, const DType held) {
    const int64_t size = held == ELEM ? (int64_t)sizeof(elem) : 2, line = 64 / size > STEP ? 64 / size : STEP;
    int64_t lda = g->lda, ldb = g->ldb, k = g->k, p = 0;
    const elem *a = (const elem *)g->a + i * lda;
    const char *b = (const char *)g->b + j * ldb * size;
    int64_t strip = n * ldb * size, ahead = (AHEAD + strip - 1) / strip * strip;
    vec sum[SUMS];
    float out[SUMS];
#pragma GCC unroll 24
    for (int x = 0; x < m * n; x++) sum[x] = vec_set(0.0f);
    for (; p + line <= k; p += line) {
        /* Only the first rows of A: for the others the strip is in the cache. Strips to come are asked for line by line
         * as they lie, though their rows are read side by side: so the hardware sees one stream, runs ahead of it, and
         * has more of L2's requests under way than L1 would hold. Row by row that was 11 GB/s. */
        for (int y = 0; y < n && i == 0; y++) __builtin_prefetch(b + ahead + (p * n) * size + 64 * y, 0, 2);
#pragma GCC unroll 4
        for (int64_t q = p; q < p + line; q += STEP) thin_step(sum, a + q, lda, b + q * size, ldb, STEP, m, n, held);
    }
    /* what is beyond the row is loaded as zeros */
    for (; p < k; p += STEP) thin_step(sum, a + p, lda, b + p * size, ldb, k - p, m, n, held);
#pragma GCC unroll 6
    for (int x = 0; x + 4 <= m * n; x += 4) vec_sum4(out + x, sum + x);
#pragma GCC unroll 3
    for (int x = m * n / 4 * 4; x < m * n; x++) out[x] = vec_sum(sum[x]);
    for (int x = 0; x < m; x++)
        for (int y = 0; y < n; y++) thin_store(g, i + x, j + y, out[x * n + y]);
}

/* The m rows of A from i on by a strip of n rows of B, which was chosen for m or m + 1. */
VEC_FN void thin_part(const Gemm *g, int64_t i, int64_t j, int64_t m, const int n, const DType held) {
    /* constants, so that each sum has a register of its own */
#define TILE(rows) case rows: if (STRIP(rows) == n || STRIP(rows + 1) == n) thin_tile(g, i, j, rows, n, held); break
    switch (m) {
        TILE(1); TILE(2); TILE(3); TILE(4); TILE(5); TILE(6);
#if LANES == 16
        TILE(7); TILE(8);
#endif
    }
#undef TILE
}

VEC_FN void thin_parts(const Gemm *g, int64_t j, int n, const DType held) {
    int64_t parts = (g->m + TAKE - 1) / TAKE;
    for (int64_t p = 0; p < parts; p++) {
        /* parts of nearly one size: a last one of a row or two would pass B for little */
        int64_t i = p * g->m / parts, m = (p + 1) * g->m / parts - i;
        switch (n) {
#if LANES == 16
        case 6: thin_part(g, i, j, m, 6, held); break;
        case 3: thin_part(g, i, j, m, 3, held); break;
#else
        case 2: thin_part(g, i, j, m, 2, held); break;
#endif
        case 4: thin_part(g, i, j, m, 4, held); break;
        /* what remains of B: at most WIDEST - 1 rows */
        default: for (int64_t x = i; x < i + m; x++) thin_tile(g, x, j, 1, 1, held);
        }
    }
}

static void thin_strip(const Gemm *g, int64_t j, int n) {
#if !ELEM_BF16
    if (g->held == DT_BF16) thin_parts(g, j, n, DT_BF16);
    else if (g->held == DT_F16) thin_parts(g, j, n, DT_F16);
    else
#endif
    thin_parts(g, j, n, ELEM);
}

/* Rows; elements of B: from there on memory is what a product waits for. Not that one matrix outgrows the caches: the
 * model that it is a part of does. (SmolLM2's 576 x 960 through the library too: 11 % longer in bf16.) */
enum { MOST = 32, LARGE = 1 << 17 };

bool FN(reads_held)(const Gemm *g) { return !g->ta && g->tb && g->ab == ELEM && g->m <= MOST && g->n * g->k >= LARGE; }

bool FN(gemm_thin)(const Gemm *g) {
    if (!FN(reads_held)(g)) return false;
    int64_t parts = (g->m + TAKE - 1) / TAKE, take = (g->m + parts - 1) / parts;
    int n = STRIP(take);
    int64_t strips = g->n / n;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < strips; s++) thin_strip(g, s * n, n);
    /* not worth a team */
    for (int64_t j = strips * n; j < g->n; j++) thin_strip(g, j, 1);
    return true;
}
