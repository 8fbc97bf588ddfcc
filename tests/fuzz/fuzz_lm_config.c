/* Any bytes as a language model's config.json and as an index of shards: refused, or every number is within what the
 * forward passes trust. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoints/lm_config.h"
#include "checkpoints/shards.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool sound(const LmDims *d) {
    bool sizes = d->L > 0 && d->C > 0 && d->E > 0 && d->F > 0 && d->V > 1 && d->H > 0 && d->K > 0 && d->D > 0;
    bool ids = d->bos < d->V && d->pad < d->V && d->start < d->V && d->nends <= LM_ENDS;
    for (int i = 0; i < d->nends; i++) ids = ids && d->end[i] >= 0 && d->end[i] < d->V;
    return sizes && ids && d->H % d->K == 0 && d->eps > 0 && (d->family == LM_T5) == (d->M > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Json *doc;
    LmDims d;
    ShardIndex x;
    if (json_parse(&doc, (const char *)data, size, "fuzz") == OK) {
        if (lm_config_parse(&d, doc, doc, "fuzz") == OK && !sound(&d)) abort();
        json_free(doc);
    }
    if (shards_parse(&x, (const char *)data, size, "fuzz") == OK) {
        for (size_t i = 0; i < x.n; i++)
            if (x.entries[i].file >= x.nfiles || !x.entries[i].name) abort();
        shards_free(&x);
    }
    return 0;
}
