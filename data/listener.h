/* listener: how long work in data/ tells its caller where it is, and learns that it should stop. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* `fn` NULL: nobody listens. It is called from one thread, every few items and at the end; false asks to stop. */
typedef struct {
    bool (*fn)(void *ctx, int64_t done, int64_t total);
    void *ctx;
} Listener;

/* ERR_INTERRUPTED when the listener asks to stop before the end. */
static inline Status listener_tell(const Listener *l, int64_t done, int64_t total) {
    if (!l->fn || l->fn(l->ctx, done, total) || done >= total) return OK;
    return err_set(ERR_INTERRUPTED, "stopped after %lld of %lld; the same command goes on from there",
                   (long long)done, (long long)total);
}
