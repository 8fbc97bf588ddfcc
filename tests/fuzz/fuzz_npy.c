/* Any bytes as a .npy or .npz, read to its end or for 64 KB. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "data/format/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    NpyFile *f;
    uint8_t piece[64];
    if (!size) return 0;
    FILE *file = fmemopen((void *)(uintptr_t)data, size, "rb");
    if (!file || npy_open_file(&f, file, "fuzz", NULL) != OK) return 0;
    uint64_t left = (uint64_t)npy_array(f)->elements * (uint64_t)dtype_size(npy_array(f)->dtype);
    for (int i = 0; i < 1000 && left; i++) {
        size_t n = left < sizeof piece ? (size_t)left : sizeof piece;
        if (npy_read(f, piece, n) != OK) break;
        left -= n;
    }
    npy_close(f);
    return 0;
}
