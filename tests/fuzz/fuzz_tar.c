/* Any bytes as a tar archive: refused, or every member lies inside it and can be read. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data/format/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The sums of headers are made right, or no change of a header would ever be seen behind them. */
static void mend(uint8_t *p, size_t size) {
    for (size_t at = 0; at + 512 <= size; at += 512) {
        unsigned sum = 8 * ' ';
        for (int i = 0; i < 512; i++) sum += i < 148 || i >= 156 ? p[at + (size_t)i] : 0;
        for (int i = 5; i >= 0; i--, sum >>= 3) p[at + 148 + (size_t)i] = (uint8_t)('0' + (sum & 7));
        p[at + 154] = 0, p[at + 155] = ' ';
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Tar *t;
    int fd = memfd_create("fuzz", 0);
    uint8_t *copy = malloc(size + 1);
    if (fd < 0 || !copy) abort();
    memcpy(copy, data, size);
    if (size % 512 < 256) mend(copy, size);
    if (write(fd, copy, size) != (ssize_t)size) abort();
    free(copy);
    if (tar_open_fd(&t, fd, "fuzz") != OK) return 0;
    for (size_t i = 0; i < tar_count(t); i++) {
        const TarMember *m = tar_at(t, i);
        uint8_t *bytes;
        if (!m->name[0] || m->at < 0 || m->size < 0 || m->at + m->size > (int64_t)size) abort();
        if (tar_read(t, m, &bytes) != OK) abort();
        free(bytes);
    }
    tar_close(t);
    return 0;
}
