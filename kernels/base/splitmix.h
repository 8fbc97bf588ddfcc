/* splitmix: a small stream of random numbers for data that must be the same on every machine: scenes and crops.
 * Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
 * Training uses kernels/base/rng.h. */
#pragma once
#include <stdint.h>

typedef struct { uint64_t state; } SplitMix;

static inline uint64_t splitmix_next(SplitMix *r) {
    uint64_t z = r->state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* 0 .. n-1 */
static inline uint32_t splitmix_below(SplitMix *r, uint32_t n) {
    return (uint32_t)(((splitmix_next(r) >> 32) * n) >> 32);
}

/* 0 <= u < 1, 24 bits */
static inline double splitmix_unit(SplitMix *r) { return (double)(splitmix_next(r) >> 40) / 16777216.0; }

/* -a <= x < a */
static inline double splitmix_sym(SplitMix *r, double a) { return (2 * splitmix_unit(r) - 1) * a; }
