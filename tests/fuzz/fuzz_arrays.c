/* Any bytes as a file of arrays: whatever format they claim to be, every array is read to its end or for 64 KB, and as
 * strings. HDF5 is left out: the library, not we, parses it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/arrays.h"
#include "kernels/base/mem.h"

/* Reads all of it, so that a checker sees what lies outside. */
static Status touch(void *ctx, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) *(unsigned *)ctx += (unsigned char)text[i];
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void numbers(ArrayBox *b, size_t i) {
    static uint8_t piece[1 << 16];
    const ArrayItem *a = arrays_at(b, i);
    size_t row = 0;
    if (!a->number || !a->elements || !a->ndim || arrays_begin(b, i) != OK) return;
    if (!mem_mul((size_t)(a->elements / a->shape[0]), (size_t)dtype_size(a->dtype), &row) || row > sizeof piece) return;
    for (int64_t r = 0; r < a->shape[0] && r < 100; r++)
        if (arrays_read(b, piece, row) != OK) return;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    ArrayBox *b;
    if (size > 8 && !memcmp(data, "\x89HDF", 4)) return 0;
    snprintf(path, sizeof path, "/tmp/fuzz-arrays-%d", (int)getpid());
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, size, f) != size) abort();
    fclose(f);
    if (arrays_open(&b, path) == OK) {
        for (size_t i = 0; i < arrays_count(b); i++) {
            unsigned sum = 0;
            numbers(b, i);
            arrays_labels(b, i, touch, &sum);
        }
        arrays_close(b);
    }
    unlink(path);
    return 0;
}
