/* features: small things that everything which brings features into a shard needs. */
#ifndef QF_FEATURES_H
#define QF_FEATURES_H
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/dtype.h"

/* Whether all n elements are finite. F64 F32 F16 BF16 E4M3; integers always are. One NaN would end a training run. */
bool features_finite(const void *x, DType t, size_t n);

#endif
