/* gemm_thin: few rows times a large matrix, C(m,n) = [add] C + A B^T + bias: a token of each beam through a language
 * model.
 *
 * Bound by reading B once, from memory: 2 m flops for each of its elements. A strip of STRIP rows of B goes by while
 * the rows of A, which stay in L2, are taken TAKE at a time; STRIP x TAKE sums of vectors stay in registers and are
 * folded at the end. Libraries pack B first, which is to read it twice and write it once.
 *
 * GB/s of B with one Zen 4 core (a copy gives 28), beside oneDNN 2.6.3's:
 *
 *                             f32  m 5    m 8    m 12     bf16  m 3    m 5    m 8    m 12
 *     n 10240  k  2560   thin     18.5   14.9    11.3          16.5   15.7   12.6    10.3
 *                        oneDNN   12.2   11.2     9.3           9.2    8.8   10.3     8.7
 *     n  2560  k 10240   thin     19.9   15.3     9.9          21.4   17.5   13.8    11.5
 *                        oneDNN   12.8   11.3     9.7           5.3    5.1   10.7     9.0
 *
 * Of fewer rows oneDNN's are as fast (f32: up to 3 rows, bf16: one), of more too. */
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/vec.h"

enum { STRIP = LANES == 16 ? 4 : 2, TAKE = LANES == 16 ? 6 : 4 };

/* Elements a step: a vector of f32, or twice that of bf16 where the processor multiplies pairs. */
#if ELEM_BF16 && LANES == 16 && defined(__AVX512BF16__)
enum { STEP = 32 };
typedef __m512bh part;
VEC_FN part part_load(const elem *p, int64_t n) {
    return n >= STEP ? (part)_mm512_loadu_si512(p) : (part)_mm512_maskz_loadu_epi16((1u << n) - 1u, p);
}
VEC_FN vec part_add(vec sum, part a, part b) { return (vec)_mm512_dpbf16_ps((__m512)sum, a, b); }
#else
enum { STEP = LANES };
typedef vec part;
VEC_FN part part_load(const elem *p, int64_t n) { return ldv(p, n); }
VEC_FN vec part_add(vec sum, part a, part b) { return vec_fma(a, b, sum); }
#endif

static void thin_store(const Gemm *g, int64_t i, int64_t j, float v) {
    int64_t at = i * g->ldc + j;
    /* in f32 before the one rounding, as the other products have it */
    if (g->bias) v += ld(((const elem *)g->bias)[j]);
    if (g->ct == DT_F32) ((float *)g->c)[at] = g->add ? ((float *)g->c)[at] + v : v;
    else ((elem *)g->c)[at] = st(g->add ? ld(((elem *)g->c)[at]) + v : v);
}

/* Asks for what comes AHEAD elements after element p of a strip's row: further on in it, or in the same row of the next
 * strip. The hardware asks ahead within a page, and a row is few pages. */
enum { AHEAD = 1024 / sizeof(elem) };
VEC_FN void thin_ahead(const elem *row, int64_t ldb, int64_t p, int64_t k) {
    __builtin_prefetch(p + AHEAD < k ? row + p + AHEAD : row + STRIP * ldb + p + AHEAD - k);
}

/* One step of a tile; m and n are constants where this is inlined, `left` too but at a row's end. */
VEC_FN void thin_step(vec sum[TAKE][STRIP], const elem *a, int64_t lda, const elem *b, int64_t ldb, int64_t left,
                      const int m, const int n) {
    part row[STRIP];
    for (int y = 0; y < n; y++) row[y] = part_load(b + y * ldb, left);
    for (int x = 0; x < m; x++) {
        part v = part_load(a + x * lda, left);
        for (int y = 0; y < n; y++) sum[x][y] = part_add(sum[x][y], v, row[y]);
    }
}

/* Rows i.. of A by rows j.. of B; m and n are constants where this is inlined. */
VEC_FN void thin_tile(const Gemm *g, int64_t i, int64_t j, const int m, const int n) {
    int64_t lda = g->lda, ldb = g->ldb, k = g->k, p = 0;
    const elem *a = (const elem *)g->a + i * lda, *b = (const elem *)g->b + j * ldb;
    vec sum[TAKE][STRIP];
    for (int x = 0; x < m; x++)
        for (int y = 0; y < n; y++) sum[x][y] = vec_set(0.0f);
    for (; p + STEP <= k; p += STEP) {
        /* only the first rows of A: for the others the strip is in the cache */
        for (int y = 0; y < n && i == 0; y++) thin_ahead(b + y * ldb, ldb, p, k);
        thin_step(sum, a + p, lda, b + p, ldb, STEP, m, n);
    }
    /* what is beyond the row is loaded as zeros */
    if (p < k) thin_step(sum, a + p, lda, b + p, ldb, k - p, m, n);
    for (int x = 0; x < m; x++)
        for (int y = 0; y < n; y++) thin_store(g, i + x, j + y, vec_sum(sum[x][y]));
}

VEC_FN void thin_strip(const Gemm *g, int64_t j, const int n) {
    for (int64_t i = 0; i < g->m; i += TAKE) {
        /* constants, so that STRIP x m sums have registers of their own */
        switch (MIN(g->m - i, (int64_t)TAKE)) {
        case 1: thin_tile(g, i, j, 1, n); break;
        case 2: thin_tile(g, i, j, 2, n); break;
        case 3: thin_tile(g, i, j, 3, n); break;
        case 4: thin_tile(g, i, j, 4, n); break;
#if LANES == 16
        case 5: thin_tile(g, i, j, 5, n); break;
#endif
        default: thin_tile(g, i, j, TAKE, n);
        }
    }
}

#if defined(HAVE_DNNL) && (!ELEM_BF16 || defined(__AVX512BF16__))
enum { LEAST = ELEM_BF16 ? 2 : 4 };
#else
enum { LEAST = 1 };
#endif
/* Rows; elements of B: from there on memory is what a product waits for. Not that one matrix outgrows the caches: the
 * model that it is a part of does. (SmolLM2's 576 x 960 through the library too: 11 % longer in bf16.) */
enum { MOST = 12, LARGE = 1 << 17 };

bool FN(gemm_thin)(const Gemm *g) {
    if (g->ta || !g->tb || g->ab != ELEM || g->m < LEAST || g->m > MOST || g->n * g->k < LARGE) return false;
    int64_t strips = g->n / STRIP;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < strips; s++) thin_strip(g, s * STRIP, STRIP);
    /* at most STRIP - 1 rows of B: not worth a team */
    for (int64_t j = strips * STRIP; j < g->n; j++) thin_strip(g, j, 1);
    return true;
}
