/* features: small things that everything which brings features into a shard needs. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

/* Whether all n elements are finite. F64 F32 F16 BF16 E4M3; integers always are. One NaN would end a training run. */
bool features_finite(const void *x, DType t, size_t n);

/* A row of elements of `size` bytes: all zero, which no network gives; all one number, which a file may have been
 * filled with before anybody wrote there (a row of one element is only ever zero). */
typedef enum { ROW_COMPUTED, ROW_ZERO, ROW_FLAT } RowKind;
RowKind features_kind(const void *row, size_t bytes, size_t size);

/* n numbers to e4m3 or i8: dst, and the scale with which they become numbers again.
 * ERR_NUMERIC when one is not finite. */
Status features_quantise(void *dst, float *scale, DType to, const float *x, size_t n);

/* P tokens of E, each with a scale of its own. square (may be NULL) and error are added to: the squares of all numbers,
 * and of what the new type loses of them. */
Status features_quantise_tokens(void *dst, float *scales, DType to, const float *x, int64_t P, int64_t E,
                                double *square, double *error);
