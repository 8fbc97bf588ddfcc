/* tile: products of small packed f32 matrices, the inner loop of attention and of the plain gemm.
 *
 *   C(m,n) = [add] C + A(m,k) B(k,n)      A[i as + p ap]; B and C row-major, n a multiple of 16 (their rows are padded)
 *
 * A tile of TILE_M rows by 32 columns of C stays in registers: an element of A is broadcast, B comes in whole vectors. So A may
 * be read along rows or columns (its transpose costs nothing), and B wants packing. Columns are the outer loop: a panel of B
 * stays in L1 while the rows pass. */
#ifndef QF_CPU_TILE_H
#define QF_CPU_TILE_H
#include "kernels/cpu/vec.h"

#ifdef __AVX512F__
enum { TILE_M = 8 };
#else
enum { TILE_M = 4 };                    /* two registers a vector, sixteen of them */
#endif

/* m and nv are constants where this is inlined. */
static inline __attribute__((always_inline)) void tile_kernel(float *c, int64_t ldc, const float *a, int64_t as, int64_t ap,
                                                              const float *b, int64_t ldb, int64_t k, bool add, const int m,
                                                              const int nv) {
    v16 acc[TILE_M][2];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < nv; j++) acc[i][j] = add ? *(const v16 *)(c + i * ldc + 16 * j) : (v16){0.0f};
    for (int64_t p = 0; p < k; p++) {
        v16 row[2];
        for (int j = 0; j < nv; j++) row[j] = *(const v16 *)(b + p * ldb + 16 * j);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < nv; j++) acc[i][j] = v16_fma(v16_set(a[i * as + p * ap]), row[j], acc[i][j]);
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < nv; j++) *(v16 *)(c + i * ldc + 16 * j) = acc[i][j];
}

static inline __attribute__((always_inline)) void tile_columns(float *c, int64_t ldc, const float *a, int64_t as, int64_t ap,
                                                               const float *b, int64_t ldb, int64_t m, int64_t k, bool add,
                                                               const int nv) {
    int64_t i = 0;
#define ROWS(h) for (; i + (h) <= m; i += (h)) tile_kernel(c + i * ldc, ldc, a + i * as, as, ap, b, ldb, k, add, h, nv)
    ROWS(TILE_M);
    if (TILE_M > 4) ROWS(4);
    ROWS(2);
    ROWS(1);
#undef ROWS
}

static void tile_product(float *c, int64_t ldc, const float *a, int64_t as, int64_t ap, const float *b, int64_t ldb, int64_t m,
                         int64_t n, int64_t k, bool add) {
    int64_t j = 0;
    for (; j + 32 <= n; j += 32) tile_columns(c + j, ldc, a, as, ap, b + j, ldb, m, k, add, 2);
    if (j < n) tile_columns(c + j, ldc, a, as, ap, b + j, ldb, m, k, add, 1);
}

#endif
