/* gemm_choice: what decides the algorithm of a product, and which of several answers is kept for it, in memory and as
 * the text of a run's file. Knows nothing of the library whose answers they are. */
#pragma once
#include "kernels/backend.h"

/* What decides the algorithm. align: the addresses' alignment, up to 16 bytes, as shifts; of the bias too, whose
 * address the heuristic sees. Compared as bytes: no padding. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc;
    uint8_t ab, ct, ta, tb, add, bias, align_a, align_b, align_c, align_bias;
    uint8_t act, grad, group, zero[3];  /* act: 1 + its kind; grad: 2 with h made again; group: gemm_group_key */
} GemmKey;

/* GemmKey.bias: none, one that is added, or sums that come out. APART: the answer that no epilogue is; OURS: that
 * product_act.cu or product_group.cu is. */
enum { NO_BIAS, ADDED, SUMS };
enum { CANDIDATES = 8, APART = CANDIDATES, OURS = CANDIDATES };

/* Of a product, sizes rounded up to four significant bits; bias: where it lies when it is added, or the sums go. */
GemmKey gemm_key(const Gemm *g, const void *bias);
/* Of n products of one call: the first one's, and how many they are. */
GemmKey gemm_group_key(const Gemm *g, int n);
/* The rounded shape, as far as it fits the strides that it is described with. */
Gemm gemm_rounded(const GemmKey *key, const Gemm *g);

int gemm_choice(const GemmKey *key);                         /* which answer; -1: none was chosen */
Status gemm_choose(const GemmKey *key, int answer);          /* what is chosen already stays */

/* A line a choice behind a first one, `title`: whose answers they are. Text of another title, or one that is not whole,
 * is left alone from there on: that is OK, and shapes are timed anew. *text is the caller's to free. */
Status gemm_choices_read(const char *text, const char *title);
Status gemm_choices_write(char **text, const char *title);
