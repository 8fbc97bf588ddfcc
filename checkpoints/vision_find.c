/* vision_find: where a tensor of a dialect is in the file. See vision.h. */
#include <stdio.h>
#include <string.h>

#include "checkpoints/vision.h"

static const char *next_spelling(const char *s) {
    s += strcspn(s, "|");
    return *s ? s + 1 : NULL;
}

const StTensor *vision_find(const Vision *e, const char *name, int layer, const char *suffix) {
    char spelt[256], full[512];
    for (; name && *name; name = next_spelling(name))
        /* a file keeps to one spelling of its blocks, but which one only a tensor that is there can tell */
        for (const char *block = layer >= 0 ? e->names->block : ""; block; block = next_spelling(block)) {
            vision_spell(spelt, sizeof spelt, block, layer, name, suffix);
            snprintf(full, sizeof full, "%s%s", e->prefix, spelt);
            const StTensor *t = ws_find(e->ws, full);
            if (t && e->used) e->used[t - ws_at(e->ws, 0)] = true;
            if (t) return t;
        }
    return NULL;
}
