/* tally: see tally.h. */
#include "eval/metrics/tally.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

TallyKind *tally_kind(Tally *t, const char *text, size_t len) {
    if (!len) text = "";                                     /* a span of nothing may point nowhere */
    /* dozens at most: a map would not be faster */
    for (int k = 0; k < t->kinds; k++)
        if (strlen(t->kind[k].name) == len && !memcmp(t->kind[k].name, text, len)) return &t->kind[k];
    char *name = mem_format("%.*s", (int)len, text);
    if (!name || mem_room(&t->kind, (size_t)t->kinds, 1, sizeof *t->kind) != OK) {
        free(name);
        return NULL;
    }
    t->kind[t->kinds] = (TallyKind){.name = name};
    return &t->kind[t->kinds++];
}

void tally_free(Tally *t) {
    for (int k = 0; k < t->kinds; k++) free(t->kind[k].name);
    free(t->kind);
    *t = (Tally){0};
}
