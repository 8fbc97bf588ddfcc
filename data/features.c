/* features: see features.h. An element is not finite when all bits of its exponent are set. */
#include "data/features.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define SCAN(type, mask)                                   \
    do {                                                   \
        const type *v = x;                                 \
        bool bad = false;                                  \
        for (size_t i = 0; i < n; i++) bad |= (v[i] & (mask)) == (mask); \
        return !bad;                                       \
    } while (0)

bool features_finite(const void *x, DType t, size_t n) {
    switch (t) {
    case DT_F64:  SCAN(uint64_t, 0x7ff0000000000000u);
    case DT_F32:  SCAN(uint32_t, 0x7f800000u);
    case DT_F16:  SCAN(uint16_t, 0x7c00u);
    case DT_BF16: SCAN(uint16_t, 0x7f80u);
    case DT_E4M3: SCAN(uint8_t, 0x7fu);
    default:      return true;
    }
}

RowKind features_kind(const void *row, size_t bytes, size_t size) {
    static const char zero[8];
    /* each element equals the next: one memcmp of the row with itself */
    bool flat = bytes == size || !memcmp(row, (const char *)row + size, bytes - size);
    if (!flat) return ROW_COMPUTED;
    return !memcmp(row, zero, size) ? ROW_ZERO : bytes > size ? ROW_FLAT : ROW_COMPUTED;
}

/* ---- to a byte a number ---- */

Status features_quantise(void *dst, float *scale, DType to, const float *x, size_t n) {
    float most = 0, limit = to == DT_I8 ? 127.0f : 448.0f;
    bool finite = true;
    BUG_ON(to != DT_I8 && to != DT_E4M3, "quantise to %s", dtype_name(to));
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        finite &= a <= 3.4028234e38f;                        /* false for NaN, too */
        most = a > most ? a : most;
    }
    if (!finite) return err_set(ERR_NUMERIC, "a number is not finite");
    *scale = most / limit;
    if (*scale < 1e-37f) *scale = 1;                       /* all zero, or as good as zero */
    for (size_t i = 0; i < n; i++) {
        float v = x[i] / *scale;
        if (to == DT_I8) ((int8_t *)dst)[i] = (int8_t)lrintf(v);
        else ((uint8_t *)dst)[i] = e4m3_from_f32(v);
    }
    return OK;
}

static float value_of(const void *q, DType t, int64_t i, float scale) {
    return scale * (t == DT_I8 ? (float)((const int8_t *)q)[i] : e4m3_to_f32(((const uint8_t *)q)[i]));
}

Status features_quantise_tokens(void *dst, float *scales, DType to, const float *x, int64_t P, int64_t E,
                                double *square, double *error) {
    for (int64_t p = 0; p < P; p++, x += E) {
        void *q = (char *)dst + p * E;                       /* both types have a byte */
        Status st = features_quantise(q, &scales[p], to, x, (size_t)E);
        if (st != OK) return st;
        for (int64_t i = 0; square && i < E; i++) {
            double d = (double)value_of(q, to, i, scales[p]) - (double)x[i];
            *square += (double)x[i] * (double)x[i];
            *error += d * d;
        }
    }
    return OK;
}
