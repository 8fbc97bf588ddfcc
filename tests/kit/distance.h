/* distance: how far two vectors are apart: |a - b| / |b|. */
#ifndef QF_KIT_DISTANCE_H
#define QF_KIT_DISTANCE_H
#include <stdint.h>

double distance(const float *a, const float *b, int64_t n);

#endif
