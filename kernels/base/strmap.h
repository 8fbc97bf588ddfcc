/* strmap: strings to integers. Keys are borrowed: they must outlive the map. Open addressing, at most half full.
 * Called by annotations and import, with one entry an image. Does not delete. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    struct StrSlot { const char *key; int64_t value; } *slot;
    size_t cap, n;             /* cap: 0 or a power of two */
} StrMap;                      /* starts as {0} */

int64_t *strmap_get(const StrMap *m, const char *key);              /* NULL when absent; valid until the next put */
Status strmap_put(StrMap *m, const char *key, int64_t value);       /* the key must be absent. ERR_MEMORY */
void strmap_free(StrMap *m);
