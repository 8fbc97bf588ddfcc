/* features: small things that everything which brings features into a shard needs. */
#ifndef QF_FEATURES_H
#define QF_FEATURES_H
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/dtype.h"

/* Whether all n elements are finite. F64 F32 F16 BF16 E4M3; integers always are. One NaN would end a training run. */
bool features_finite(const void *x, DType t, size_t n);

/* Whether a row of elements of `size` bytes is one number throughout: zero, or what a file is filled with before
 * anybody has written there. No network gives that. A row of one element counts when it is zero. */
bool features_constant(const void *row, size_t bytes, size_t size);
const char *features_constant_word(const void *row, size_t size);          /* "all zero" or "all one number" */

#endif
