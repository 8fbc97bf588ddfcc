/* order: in which order samples are visited, as a formula: a permutation of [0, n) for each (seed, epoch), of which
 * any element can be computed alone. So nothing is stored, a resumed run costs nothing, and the order knows nothing
 * of ranks.
 *
 * A Feistel network over the smallest power of two that holds n, walked until the value is below n (cycle walking;
 * Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Round function: Philox. Less than two walks on
 * average from 128 samples on. */
#pragma once
#include <stdint.h>

/* Element i of the permutation; 0 <= i < n. About 0.2 us. */
int64_t order_at(uint64_t seed, uint64_t epoch, int64_t n, int64_t i);

/* A number in [0, n) that depends on the three others alone; n >= 1. */
int64_t order_draw(uint64_t seed, uint64_t epoch, int64_t i, uint32_t what, int64_t n);
