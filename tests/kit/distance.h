/* distance: how far two vectors are apart: |a - b| / |b|. */
#pragma once
#include <stdint.h>

double distance(const float *a, const float *b, int64_t n);
