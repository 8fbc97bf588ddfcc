/* ops_inner: what the files of ops share. Private to them. */
#pragma once
#include "kernels/ops.h"

#define SHAPE(x) (long long)(x).rows, (long long)(x).cols
#define SAME_ROWS(op, a, c) \
    BUG_ON((a).rows != (c).rows, op ": (%lld,%lld) and (%lld,%lld) differ in rows", SHAPE(a), SHAPE(c))
#define SAME_COLS(op, a, c) \
    BUG_ON((a).cols != (c).cols, op ": (%lld,%lld) and (%lld,%lld) differ in columns", SHAPE(a), SHAPE(c))

/* A product, counted; and one whose B is w (its transpose with tb), which may be held in 16 bits. */
void ops_gemm(Tape *t, const Gemm *g);
void ops_weights(Tape *t, const Gemm *g, Param w);

/* Gradients of f32 results (logits, features) enter products as elem: dy itself,
 * or a copy in *scratch (to be given back). */
const void *ops_as_elem(Tape *t, const void *dy, DType dt, int64_t n, void **scratch);

/* Element `first` of an array. */
static inline void *ops_columns(const void *base, int64_t first, DType dt) {
    return (char *)(uintptr_t)base + first * dtype_size(dt);
}
