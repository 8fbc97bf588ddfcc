/* dtype: see dtype.h. */
#include "kernels/base/dtype.h"

#include <math.h>
#include <stddef.h>

#include "kernels/base/err.h"

static const struct { int bytes; const char *st, *cfg; } table[DT_COUNT] = {
#define X(id, bytes, st, cfg) {bytes, st, cfg},
    DTYPE_LIST(X)
#undef X
};

int dtype_size(DType t) { return table[t].bytes; }
const char *dtype_name(DType t) { return table[t].cfg; }
const char *dtype_safetensors(DType t) { return table[t].st; }

int dtype_from_name(const char *name) {
    for (int i = 0; i < DT_COUNT; i++)
        /* both spellings: files say BF16, people bf16 */
        if (strcmp(name, table[i].st) == 0 || strcmp(name, table[i].cfg) == 0) return i;
    return -1;
}

float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu, u;
    if (e == 0) {
        float f = ldexpf((float)m, -24);
        memcpy(&u, &f, sizeof u);
        u |= sign;
    } else {
        u = sign | (e == 31 ? 0x7f800000u | (m << 13) : ((e + 112u) << 23) | (m << 13));
    }
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t f16_from_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);  /* NaN stays one, quiet */
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);           /* 65520 and above round to infinity */
    if (u < 0x38800000u) { /* subnormal: let the FPU round to a multiple of 2^-24 */
        float a;
        memcpy(&a, &u, sizeof a);
        return (uint16_t)(sign | (uint16_t)lrintf(ldexpf(a, 24)));
    }
    /* half of what is cut off, less one when even: ties go to the even neighbour */
    u += 0xfffu + ((u >> 13) & 1u);
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}

float e4m3_to_f32(uint8_t v) {
    int e = (v >> 3) & 15, m = v & 7;
    float a = e == 15 && m == 7 ? NAN : e == 0 ? ldexpf((float)m, -9) : ldexpf((float)(8 + m), e - 10);
    return v & 0x80 ? -a : a;
}

uint8_t e4m3_from_f32(float f) {
    uint8_t sign = signbit(f) ? 0x80 : 0;
    float a = fabsf(f);
    if (isnan(f)) return (uint8_t)(sign | 0x7f);
    /* there is no infinity: the largest number takes its place */
    if (a >= 448.0f) return (uint8_t)(sign | 0x7e);
    if (a < 0.015625f) return (uint8_t)(sign | (uint8_t)lrintf(ldexpf(a, 9)));   /* 8 is the first normal number */
    int e;
    float m = frexpf(a, &e);                                          /* a = m 2^e, m in [0.5, 1) */
    long q = lrintf(m * 16.0f);                                       /* 8..16 */
    if (q == 16) { q = 8; e++; }
    long code = ((e + 6) << 3) + (q - 8);
    return (uint8_t)(sign | (uint8_t)(code > 0x7e ? 0x7e : code));
}

void dtype_to_f32(float *dst, const void *src, DType t, size_t n) {
#define EACH(type, expr) for (size_t i = 0; i < n; i++) { type v = ((const type *)src)[i]; dst[i] = (expr); } break
    switch (t) {
    case DT_F64: EACH(double, (float)v);
    case DT_F32: memcpy(dst, src, n * sizeof *dst); break;
    case DT_F16: EACH(uint16_t, f16_to_f32(v));
    case DT_BF16: EACH(uint16_t, bf16_to_f32(v));
    case DT_E4M3: EACH(uint8_t, e4m3_to_f32(v));
    case DT_I64: EACH(int64_t, (float)v);
    case DT_I32: EACH(int32_t, (float)v);
    case DT_I16: EACH(int16_t, (float)v);
    case DT_U16: EACH(uint16_t, (float)v);
    case DT_I8: EACH(int8_t, (float)v);
    case DT_U8: EACH(uint8_t, (float)v);
    default: BUG_ON(1, "dtype_to_f32: no conversion from %s", dtype_name(t));
    }
#undef EACH
}

void dtype_from_f32(void *dst, DType t, const float *src, size_t n) {
#define EACH(type, expr) for (size_t i = 0; i < n; i++) { float v = src[i]; ((type *)dst)[i] = (expr); } break
    switch (t) {
    case DT_F64: EACH(double, (double)v);
    case DT_F32: memcpy(dst, src, n * sizeof *src); break;
    case DT_F16: EACH(uint16_t, f16_from_f32(v));
    case DT_BF16: EACH(uint16_t, bf16_from_f32(v));
    case DT_E4M3: EACH(uint8_t, e4m3_from_f32(v));
    default: BUG_ON(1, "dtype_from_f32: no conversion to %s", dtype_name(t));
    }
#undef EACH
}
