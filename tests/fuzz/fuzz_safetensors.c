/* Any bytes as a safetensors file: refused, or every tensor can be read from its first byte to its last. */
#include <stdint.h>
#include <stdlib.h>

#include "data/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    StFile *f;
    char shape[ST_SHAPE_TEXT];
    unsigned sum = 0;
    if (st_open_memory(&f, data, size, "fuzz") != OK) return 0;
    for (size_t i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        if (st_find(f, t->name) != t || (size_t)st_elements(t) * (size_t)dtype_size(t->dtype) != t->nbytes) abort();
        st_shape_text(t, shape, sizeof shape);
        for (size_t k = 0; k < t->nbytes; k++) sum += ((const uint8_t *)t->data)[k];
    }
    (void)st_meta(f, "format");
    st_close(f);
    return (int)(sum & 0);
}
