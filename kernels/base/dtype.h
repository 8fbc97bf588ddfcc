/* dtype: the element types of files and tensors, and their conversion to and from f32.
 *
 * Rounding is to nearest, ties to even; NaN stays NaN.
 * e4m3 is the "fn" form of fp8 (no infinities, 448 is the largest). */
#pragma once
#include <stdint.h>
#include <string.h>

/*   id    bytes  name in safetensors  name in configs */
#define DTYPE_LIST(X)                  \
    X(F64,  8,    "F64",               "f64")  \
    X(F32,  4,    "F32",               "f32")  \
    X(F16,  2,    "F16",               "f16")  \
    X(BF16, 2,    "BF16",              "bf16") \
    X(E4M3, 1,    "F8_E4M3",           "e4m3") \
    X(I64,  8,    "I64",               "i64")  \
    X(I32,  4,    "I32",               "i32")  \
    X(I16,  2,    "I16",               "i16")  \
    X(U16,  2,    "U16",               "u16")  \
    X(I8,   1,    "I8",                "i8")   \
    X(U8,   1,    "U8",                "u8")   \
    X(BOOL, 1,    "BOOL",              "bool")

typedef enum {
#define X(id, bytes, st, cfg) DT_##id,
    DTYPE_LIST(X)
#undef X
    DT_COUNT
} DType;

int dtype_size(DType t);                       /* bytes an element */
const char *dtype_name(DType t);               /* "bf16" */
const char *dtype_safetensors(DType t);        /* "BF16" */
int dtype_from_name(const char *name);         /* either spelling; -1 when unknown */

/* n elements at src (any type but BOOL) to f32, and f32 to any of F64 F32 F16 BF16 (e4m3 and i8 need a scale: see
 * data). */
void dtype_to_f32(float *dst, const void *src, DType t, size_t n);
void dtype_from_f32(void *dst, DType t, const float *src, size_t n);

typedef uint16_t bf16;

static inline float bf16_to_f32(bf16 x) {
    uint32_t u = (uint32_t)x << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline bf16 bf16_from_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint32_t nan = (u & 0x7fffffffu) > 0x7f800000u;
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (bf16)(nan ? ((u >> 16) | 0x40u) : rounded);
}

float f16_to_f32(uint16_t h);
uint16_t f16_from_f32(float f);
float e4m3_to_f32(uint8_t v);
uint8_t e4m3_from_f32(float f);                /* saturates at +-448 */
