/* Any bytes as manifest.json: no file name leads out of the folder, and counts fit together. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "data/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Manifest *m;
    if (manifest_parse(&m, (const char *)data, size, "m.json") != OK) {
        if (m || !err_message()[0]) abort();
        return 0;
    }
    for (int64_t i = 0; i < m->n; i++) {
        const ManifestShard *s = &m->shard[i];
        int64_t images = 0;
        if (s->file[0] == '/' || strncmp(s->file, "../", 3) == 0 || strstr(s->file, "/../")) abort();
        for (int64_t k = 0; k < s->nsplits; k++) images += s->split[k].images;
        if (images != s->images) abort();
    }
    manifest_free(m);
    return 0;
}
