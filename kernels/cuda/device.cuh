/* device: what the kernels share. Loads and stores of eight elements, conversions, sums over a warp and a block,
 * dropout.
 *
 * T is float or bf16 (the bits, as in dtype.h). Eight elements are the unit of everything: 16 bytes of bf16, one Philox
 * call of dropout. Sums run in a fixed order (butterfly in a warp, warps in order),
 * so the same input gives the same bits. */
#pragma once
#include <cuda_runtime.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define _Noreturn [[noreturn]] /* C's word, in err.h */
extern "C" {
#include "kernels/cuda/cuda.h"
}

/* The two functions of the struct that a template makes. */
#define EXPORT(name, params, args)                                                                                     \
    extern "C" void cuda_f32_##name params { name##_<float> args; }                                                    \
    extern "C" void cuda_bf16_##name params { name##_<bf16> args; }

#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll") /* in front of a loop: on its line, where #pragma would need one of its own */

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int at_most(int64_t a, int64_t limit) { return (int)(a < limit ? a : limit); }
static inline bool aligned16(const void *p) { return ((uintptr_t)p & 15) == 0; }

/* ---- elements ---- */
DEVICE float ld1(const float *p) { return *p; }
DEVICE float ld1(const bf16 *p) { return __uint_as_float((uint32_t)*p << 16); }
DEVICE bf16 to_bf16(float x) {
    bf16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return r;
}
DEVICE uint32_t pack_bf16(float lo, float hi) {
    uint32_t r;
    /* the instruction's first operand goes into the high half */
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}
DEVICE float low_bf16(uint32_t u) { return __uint_as_float(u << 16); }
DEVICE float high_bf16(uint32_t u) { return __uint_as_float(u & 0xffff0000u); }
DEVICE void st1(float *p, float x) { *p = x; }
DEVICE void st1(bf16 *p, float x) { *p = to_bf16(x); }

DEVICE float as_stored(const float *, float x) { return x; }
DEVICE float as_stored(const bf16 *, float x) { return __uint_as_float((uint32_t)to_bf16(x) << 16); }

/* Stores to global memory, written out: the compiler takes a uint4 apart when its parts are computed apart. */
DEVICE void store16(void *p, float a, float b, float c, float d) {
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
}
DEVICE void store16(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}
DEVICE void store8(void *p, uint32_t a, uint32_t b) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(a), "r"(b) : "memory");
}

DEVICE void st8(float *p, const float v[8]) {
    store16(p, v[0], v[1], v[2], v[3]);
    store16(p + 4, v[4], v[5], v[6], v[7]);
}
DEVICE void st8(bf16 *p, const float v[8]) {
    store16(p, pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

/* Eight neighbours at a 16-byte boundary, in two steps: so that several loads are under way before the first number is
 * needed (a store between two ld8 keeps the second one waiting behind it), or in one. */
template <class T> struct Raw8;
template <> struct Raw8<float> { float4 a, b; };
template <> struct Raw8<bf16> { uint4 a; };
DEVICE void raw8(Raw8<float> *r, const float *p) { r->a = ((const float4 *)p)[0], r->b = ((const float4 *)p)[1]; }
DEVICE void raw8(Raw8<bf16> *r, const bf16 *p) { r->a = *(const uint4 *)p; }
DEVICE void unpack8(float v[8], const Raw8<float> &r) {
    v[0] = r.a.x, v[1] = r.a.y, v[2] = r.a.z, v[3] = r.a.w, v[4] = r.b.x, v[5] = r.b.y, v[6] = r.b.z, v[7] = r.b.w;
}
DEVICE void unpack8(float v[8], const Raw8<bf16> &r) {
    v[0] = low_bf16(r.a.x), v[1] = high_bf16(r.a.x), v[2] = low_bf16(r.a.y), v[3] = high_bf16(r.a.y);
    v[4] = low_bf16(r.a.z), v[5] = high_bf16(r.a.z), v[6] = low_bf16(r.a.w), v[7] = high_bf16(r.a.w);
}
template <class T> DEVICE void ld8(float v[8], const T *p) {
    Raw8<T> r;
    raw8(&r, p);
    unpack8(v, r);
}

/* Four neighbours: 16 bytes of f32, 8 of bf16. */
DEVICE void ld4(float v[4], const float *p) {
    float4 a = *(const float4 *)p;
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
}
DEVICE void ld4(float v[4], const bf16 *p) {
    uint2 a = *(const uint2 *)p;
    v[0] = low_bf16(a.x), v[1] = high_bf16(a.x), v[2] = low_bf16(a.y), v[3] = high_bf16(a.y);
}
DEVICE void st4(float *p, const float v[4]) { store16(p, v[0], v[1], v[2], v[3]); }
DEVICE void st4(bf16 *p, const float v[4]) { store8(p, pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3])); }

/* W neighbours, eight, four or one: of kernels that take any width and address, and are made for whole eights too. */
template <int W, class T> DEVICE void load(float v[W], const T *p) {
    if constexpr (W == 8) ld8(v, p);
    else if constexpr (W == 4) ld4(v, p);
    else v[0] = ld1(p);
}
template <int W, class T> DEVICE void store(T *p, const float v[W]) {
    if constexpr (W == 8) st8(p, v);
    else if constexpr (W == 4) st4(p, v);
    else st1(p, v[0]);
}
/* The first n of eight neighbours at any address; zeros behind them. */
template <class T> DEVICE void load_some(float v[8], const T *p, int64_t n) {
    UNROLL for (int e = 0; e < 8; e++) v[e] = e < n ? ld1(p + e) : 0.0f;
}

/* ---- sums ---- */
DEVICE float warp_sum(float x) {
    UNROLL for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    return x;
}
DEVICE float warp_max(float x) {
    UNROLL for (int d = 16; d; d >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, d));
    return x;
}
/* all(x) over a whole block of up to 32 warps, given all(x) over a warp; every thread gets the result. `room`: 33
 * floats of shared memory, free again after. `none` changes no result. */
template <class F> DEVICE float block_all(float x, float none, float *room, F all) {
    int warps = (int)blockDim.x >> 5;
    x = all(x);
    if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = x;
    __syncthreads();
    if (threadIdx.x < 32) {
        /* every warp's part, in the warps' order */
        x = all((int)threadIdx.x < warps ? room[threadIdx.x] : none);
        if (threadIdx.x == 0) room[32] = x;
    }
    __syncthreads();
    x = room[32];
    __syncthreads();
    return x;
}
DEVICE float block_sum(float x, float *room) {
    return block_all(x, 0.0f, room, [](float v) { return warp_sum(v); });
}
DEVICE float block_max(float x, float *room) {
    return block_all(x, -INFINITY, room, [](float v) { return warp_max(v); });
}
/* In f64; `room`: 32 doubles. */
DEVICE double block_sum64(double x, double *room) {
    UNROLL for (int d = 16; d; d >>= 1) x += __shfl_xor_sync(~0u, x, d);
    if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = x;
    __syncthreads();
    x = 0;
    /* every thread by itself: f64 shuffles would cost more than 32 adds */
    for (unsigned w = 0; w < blockDim.x / 32; w++) x += room[w];
    __syncthreads();
    return x;
}

/* N sums over a block in place, every thread gets them; at most 32 warps. One barrier: `room` is one of two that calls
 * take in turn, so that nobody still reads what the next call writes. */
template <int N> DEVICE void block_sums(float (&x)[N], float (*room)[32]) {
    UNROLL for (int i = 0; i < N; i++) {
        x[i] = warp_sum(x[i]);
        if ((threadIdx.x & 31) == 0) room[i][threadIdx.x >> 5] = x[i];
    }
    __syncthreads();
    UNROLL for (int i = 0; i < N; i++)
        x[i] = warp_sum((threadIdx.x & 31) < blockDim.x >> 5 ? room[i][threadIdx.x & 31] : 0.0f);
}

/* Eight columns a lane of a vector p of n (whole eights), the warp's first column `first`; zeros beyond, and where p is
 * NULL. All lanes of the warp call. Read as lanes lie, and handed on:
 * 32 bytes a lane would be half a sector a request. */
DEVICE void vector8(float v[8], const float *p, int64_t first, int64_t n) {
    int lane = threadIdx.x & 31;
    float4 x[2] = {make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0)};
    UNROLL for (int i = 0; i < 2; i++)
        if (p && first + 128 * i + 4 * lane < n) x[i] = *(const float4 *)(p + first + 128 * i + 4 * lane);
    UNROLL for (int e = 0; e < 8; e++) {
        int from = 2 * lane + e / 4; /* float4 number of the 64 */
        float a[4] = {x[0].x, x[0].y, x[0].z, x[0].w}, b[4] = {x[1].x, x[1].y, x[1].z, x[1].w};
        float low = __shfl_sync(~0u, a[e & 3], from & 31), high = __shfl_sync(~0u, b[e & 3], from & 31);
        v[e] = from < 32 ? low : high;
    }
}

/* ---- dropout of eight elements (one Philox block) ---- */
DEVICE void drop8(float v[8], const Dropout &d, RowKey row, uint32_t block) {
    uint32_t threshold = dropout_threshold(d.p);
    float keep = 1.0f / (1.0f - d.p);
    Philox x = dropout_block(&d, row, block);
    UNROLL for (int e = 0; e < 8; e++) v[e] *= dropout_bits(x, (uint32_t)e) >= threshold ? keep : 0.0f;
}
DEVICE float drop1(float v, const Dropout &d, RowKey row, uint32_t e) {
    return dropout_keep(&d, row, e) ? v * (1.0f / (1.0f - d.p)) : 0.0f;
}

/* ---- columns in shared memory (gamma, beta, bias; sums by column) ----
 * A warp whose lane l wants columns 8l..8l+7 of a chunk of 256 reads 16 bytes twice. The two halves of each eight stand
 * HALF apart, so that neither those reads nor one column a lane meet bank conflicts. K chunks take K * CHUNK floats. */
enum { HALF = 128 + 16, CHUNK = 2 * HALF };
DEVICE int column_at(int c) { return (c >> 8) * CHUNK + (c >> 2 & 1) * HALF + (c >> 3 & 31) * 4 + (c & 3); }

/* p NULL: all are `none`. */
template <int K> DEVICE void columns_load(float *room, const float *p, int C, float none = 0) {
    for (int i = (int)threadIdx.x; i < K * 64; i += (int)blockDim.x)
        *(float4 *)(room + column_at(4 * i)) =
            4 * i < C && p ? ((const float4 *)p)[i] : make_float4(none, none, none, none);
}
DEVICE void columns_get(float v[8], const float *room, int chunk, int lane) {
    float4 a = *(const float4 *)(room + chunk * CHUNK + lane * 4),
           b = *(const float4 *)(room + chunk * CHUNK + HALF + lane * 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}
DEVICE void columns_put(float *room, int chunk, int lane, const float v[8]) {
    *(float4 *)(room + chunk * CHUNK + lane * 4) = make_float4(v[0], v[1], v[2], v[3]);
    *(float4 *)(room + chunk * CHUNK + HALF + lane * 4) = make_float4(v[4], v[5], v[6], v[7]);
}

/* Cuts N rows into `parts` strips for sums over rows whose C columns leave partial sums: enough strips to fill the GPU,
 * few enough that k arrays of partials fit in the workspace. */
static inline int row_parts(int64_t N, int64_t C, int k, int per_part, int wanted) {
    int64_t fit = (int64_t)(WS_COMPUTE / sizeof(float)) / (C * k), parts = ceil_div(N, per_part);
    if (parts > wanted) parts = wanted;
    if (parts > fit) parts = fit;
    return (int)(parts < 1 ? 1 : parts);
}
