/* table: see table.h. */
#include "tests/kit/table.h"

#include <math.h>

void table_logits(uint64_t model, const int32_t *tokens, int32_t len, int32_t V, int32_t start, float *logits) {
    uint64_t h = model * 0x9E3779B97F4A7C15u + 1;
    for (int32_t i = 0; i < len; i++) h = (h ^ (uint64_t)(tokens[i] + 1)) * 0xD1342543DE82EF95u + 0x2545F4914F6CDD1Du;
    for (int32_t v = 0; v < V; v++) {
        h ^= h >> 29;
        h = h * 0xBF58476D1CE4E5B9u + (uint64_t)v;
        logits[v] = (float)((double)(h >> 40) / 16777216.0 * 6.0 - 3.0);
    }
    logits[start] = -INFINITY;
}
