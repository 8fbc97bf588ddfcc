/* Any bytes as a PyTorch checkpoint: refused, or every tensor can be read from its first byte to its last.
 * The bytes are also tried as a bare pickle, which a mutation of a container rarely reaches. */
#include <stdint.h>
#include <stdlib.h>

#include "data/format/pickle.h"
#include "data/format/pth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Pickle p;
    PthFile *f;
    unsigned sum = 0;
    if (pickle_read(&p, data, size, "fuzz", NULL) == OK) {
        (void)pickle_get(&p, p.root, "model");
        pickle_free(&p);
    }
    if (pth_open_memory(&f, data, size, "fuzz") != OK) return 0;
    for (size_t i = 0; i < pth_count(f); i++) {
        const StTensor *t;
        if (pth_tensor(f, i, &t) != OK) continue;
        if ((size_t)st_elements(t) * (size_t)dtype_size(t->dtype) != t->nbytes) abort();
        for (size_t k = 0; k < t->nbytes; k++) sum += ((const uint8_t *)t->data)[k];
    }
    pth_close(f);
    return (int)(sum & 0);
}
