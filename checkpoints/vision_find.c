/* vision_find: where a tensor of a dialect is in the file. See vision.h. */
#include <stdio.h>
#include <string.h>

#include "checkpoints/vision.h"

/* "a|b": calls itself for each spelling. */
const StTensor *vision_find(const Vision *e, const char *name, int layer, const char *suffix) {
    const char *blocks = layer >= 0 ? e->names->block : "";
    for (const char *at = name; at && *at;) {
        size_t n = strcspn(at, "|");
        for (const char *b = blocks;;) {
            size_t m = strcspn(b, "|"), d = strcspn(b, "%");
            char full[512], block[128] = "";
            if (layer >= 0) snprintf(block, sizeof block, "%.*s%d%.*s", (int)d, b, layer, (int)(m - d - 2), b + d + 2);
            snprintf(full, sizeof full, "%s%s%.*s%s%s", e->prefix, block, (int)n, at,
                     suffix && at[n - 1] != '_' ? "." : "", suffix ? suffix : "");
            const StTensor *t = ws_find(e->ws, full);
            if (t) {
                if (e->used) e->used[t - ws_at(e->ws, 0)] = true;
                return t;
            }
            if (!b[m]) break;
            b += m + 1;
        }
        at += n + (at[n] == '|');
    }
    return NULL;
}
