/* grow: arrays that what becomes of a text is appended to. Both start as {0} and end with free(v).
 *
 * TokenIds may also stand on memory of the caller, of fixed length: then what does not fit is counted in n and not
 * stored, which is how a text is cut. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/base/err.h"
#include "kernels/base/mem.h"

typedef struct {
    int32_t *v;
    size_t n, cap;
    bool fixed;                /* v is the caller's: never grown, never freed */
} TokenIds;

typedef struct {
    char *v;
    size_t n, cap;
} TextBytes;

static inline Status ids_push(TokenIds *t, int32_t id) {
    if (t->n >= t->cap && !t->fixed) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        int32_t *v = mem_grow(t->v, cap, sizeof *v);
        if (!v) return ERR_MEMORY;
        t->v = v;
        t->cap = cap;
    }
    if (t->n < t->cap) t->v[t->n] = id;
    t->n++;
    return OK;
}

static inline Status bytes_push(TextBytes *t, const char *s, size_t n) {
    if (n > t->cap - t->n) {
        size_t cap = 2 * t->cap + n + 64;
        char *v = mem_grow(t->v, cap, 1);
        if (!v) return ERR_MEMORY;
        t->v = v;
        t->cap = cap;
    }
    if (n) memcpy(t->v + t->n, s, n);
    t->n += n;
    return OK;
}
