/* tile: products of small packed f32 matrices, the inner loop of attention and of the plain gemm.
 *
 *   C(m,n) = [add] C + A(m,k) B(k,n)      A[i as + p ap]; B and C row-major, n a multiple of LANES (their rows are
 *       padded)
 *
 * A tile of TILE_M rows by two vectors of C stays in registers: an element of A is broadcast, B comes in whole vectors.
 * So A may be read along rows or columns (its transpose costs nothing), and B wants packing. Columns are the outer
 * loop: a panel of B stays in L1 while the rows pass. */
#pragma once
#include "kernels/cpu/vec.h"

enum { TILE_M = LANES == 16 ? 8 : 6 }; /* two vectors a row, of 32 registers, or of 16 */

#define TILE_FN static inline __attribute__((always_inline))

/* m and nv are constants where this is inlined. */
TILE_FN void tile_kernel(float *c, int64_t ldc, const float *a, int64_t as, int64_t ap, const float *b, int64_t ldb,
                         int64_t k, bool add, const int m, const int nv) {
    vec acc[TILE_M][2];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < nv; j++) acc[i][j] = add ? *(const vec *)(c + i * ldc + LANES * j) : (vec){0.0f};
    for (int64_t p = 0; p < k; p++) {
        vec row[2];
        for (int j = 0; j < nv; j++) row[j] = *(const vec *)(b + p * ldb + LANES * j);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < nv; j++) acc[i][j] = vec_fma(vec_set(a[i * as + p * ap]), row[j], acc[i][j]);
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < nv; j++) *(vec *)(c + i * ldc + LANES * j) = acc[i][j];
}

TILE_FN void tile_columns(float *c, int64_t ldc, const float *a, int64_t as, int64_t ap, const float *b, int64_t ldb,
                          int64_t m, int64_t k, bool add, const int nv) {
    int64_t i = 0;
#define ROWS(h) for (; i + (h) <= m; i += (h)) tile_kernel(c + i * ldc, ldc, a + i * as, as, ap, b, ldb, k, add, h, nv)
    ROWS(TILE_M);
    ROWS(4);
    ROWS(2);
    ROWS(1);
#undef ROWS
}

static void tile_product(float *c, int64_t ldc, const float *a, int64_t as, int64_t ap, const float *b, int64_t ldb,
                         int64_t m, int64_t n, int64_t k, bool add) {
    int64_t j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES) tile_columns(c + j, ldc, a, as, ap, b + j, ldb, m, k, add, 2);
    if (j < n) tile_columns(c + j, ldc, a, as, ap, b + j, ldb, m, k, add, 1);
}
