/* tensor: a view of a row-major matrix on the device, and its gradient.
 *
 * Everything that flows is a matrix of rows; a vector has one column. Views by rows share memory and gradient with what
 * they were cut from. grad is NULL for what wants no gradient. Owns nothing: data lie in an arena. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

/* The gradient of one allocated tensor, made when the backward walk first needs it. Which rows have been written is
 * kept as intervals: the first writer of a row overwrites, later ones add,
 * rows nobody wrote are zero (the first-write rule). */
enum { GRAD_SPANS = 8 };
typedef struct Grad {
    void *data;                          /* NULL until needed */
    int64_t rows, cols, ld;
    DType dt;
    int born;                            /* node before which it came to life: the walk frees it there */
    int nspans;
    struct { int64_t lo, hi; } span[GRAD_SPANS];   /* written rows, sorted, apart from each other */
    struct Grad *parent;                 /* a column block of that gradient, or NULL */
    int64_t column;
    bool blocks;                         /* written through column blocks that cover it, and no other way */
    /* of a tensor of two waves (tape_first): its memory, rows before and behind those of the first wave, and what
     * stands beside its rows (tape_beside) */
    char *home;
    int64_t before, behind;
    void *beside[2];
} Grad;

typedef struct {
    void *data;
    Grad *grad;
    int64_t rows, cols, ld;              /* elements */
    int64_t row0;                        /* first row, counted in grad's rows */
    DType dt;
} Tensor;

static inline int64_t tensor_count(Tensor x) { return x.rows * x.cols; }

static inline Tensor tensor_rows(Tensor x, int64_t first, int64_t n) {
    BUG_ON(first < 0 || n < 0 || first + n > x.rows, "rows %lld+%lld of %lld", (long long)first, (long long)n,
           (long long)x.rows);
    x.data = (char *)x.data + (size_t)(first * x.ld) * (size_t)dtype_size(x.dt);
    x.row0 += first;
    x.rows = n;
    return x;
}

/* What the gradient of one learned tensor of n elements holds: zeros that nobody added to, numbers that an update has
 * used (the next writer overwrites them), or a sum so far. */
typedef enum { GRAD_ZERO, GRAD_STALE, GRAD_SUM } GradState;
typedef struct { int64_t n; GradState state; } ParamGrad;

/* A learned matrix or vector: f32 master, the elem copy that enters products (the master itself in f32), f32 gradient.
 * A frozen one has no gradient (but for one joined to what learns: nobody reads it); in a frozen store a matrix has
 * the elem copy alone; held BF16 or F16: in that type, which had room for all its numbers, though elem is f32. */
typedef struct {
    float *w, *g;
    void *copy;
    int64_t rows, cols;                  /* (out, in); a vector has one row */
    DType held;                          /* anything else: the copy is elem */
    bool frozen;
    ParamGrad *grad;                     /* of the tensors that it is made of, in a row; NULL: g holds numbers */
    int grads;
} Param;

/* Where a parameter's gradient goes; NULL: nobody wants it (frozen, or not there). */
static inline float *param_grad(Param p) { return p.frozen ? NULL : p.g; }
