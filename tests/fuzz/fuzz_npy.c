/* Any bytes as a .npy or .npz: every array of it, read to its end or for 64 KB, and as strings. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "data/format/npy.h"

/* Reads all of it, so that a checker sees what lies outside. */
static Status touch(void *ctx, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) *(unsigned *)ctx += (unsigned char)text[i];
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void numbers(NpyFile *f) {
    uint8_t piece[16 << 10];
    const NpyArray *a = npy_array(f);
    uint64_t left = (uint64_t)a->elements * a->size;
    size_t most = sizeof piece - sizeof piece % a->size;
    for (int i = 0; i < 1000 && left; i++) {
        size_t n = left < most ? (size_t)left : most;
        if (npy_read(f, piece, n) != OK) break;
        left -= n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    NpyBox *b;
    if (npy_box_memory(&b, data, size, "fuzz") != OK) return 0;
    for (size_t i = 0; i < npy_box_count(b); i++)
        for (int strings = 0; strings < 2; strings++) {
            NpyFile *f;
            unsigned sum = 0;
            if (npy_open_at(&f, b, i) != OK) continue;
            if (!strings) numbers(f);
            else npy_texts(f, touch, &sum);
            npy_close(f);
        }
    npy_box_close(b);
    return 0;
}
