/* Any bytes as LZF, into rooms of several sizes: what is unpacked fits. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "data/format/lzf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t room = 0; room < 5000; room = room * 3 + 1) {
        uint8_t *dst = malloc(room ? room : 1);
        if (lzf_unpack(dst, room, data, size) > room) abort();
        free(dst);
    }
    return 0;
}
