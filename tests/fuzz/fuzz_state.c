/* Any bytes as the state.json of a checkpoint. What is taken names only plain files. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Json *doc;
    CkptFileInfo *files;
    size_t n;
    int64_t step;
    if (ckpt_parse_state((const char *)data, size, "fuzz", &doc, &step, &files, &n) != OK) return 0;
    for (size_t i = 0; i < n; i++)
        if (files[i].bytes < 0 || strchr(files[i].name, '/') || files[i].name[0] == '.') abort();
    if (step < 0) abort();
    free(files);
    json_free(doc);
    return 0;
}
