/* A small valid shard with bytes changed: the input is a list of (3 bytes place, 1 byte value), or a whole file if
 * it starts as HDF5 does. Whatever opens must be readable to its end. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <stdio.h>

#include "data/shard.h"
#include "tests/kit/set_fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What HDF5 forgets to free of a broken file is not our subject. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static unsigned char *base;
static size_t base_size;

static void make_base(void) {
    static const uint64_t offset[] = {0, 2, 4, 6, 8, 10, 12};
    static const uint32_t ids[12] = {1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2};
    static const TokenCache tokens = {{7, 4, 50, "p "}, offset, ids};
    Fixture f;
    struct stat sb;
    fix_setup(NULL);
    fix_init(&f, 0, 4, 2, DT_I8, true);
    f.spec.tokens = &tokens;
    if (fix_write(fix_path("base.h5"), &f, 0) != OK || stat(fix_path("base.h5"), &sb) != 0) abort();
    base_size = (size_t)sb.st_size;
    base = malloc(base_size);
    FILE *in = fopen(fix_path("base.h5"), "rb");
    if (!base || !in || fread(base, 1, base_size, in) != base_size) abort();
    fclose(in);
    fix_teardown(NULL);
}

static void use(const Shard *s) {
    void *row = malloc(s->row_bytes);
    if (!row) return;
    for (int64_t r = 0; r < s->rows && r < 64; r++) {
        err_clear();
        if (shard_read(s, r, r % 2 == 0, row) != OK && !err_message()[0]) abort();
    }
    size_t n, sum = 0;
    for (int64_t i = 0; i < s->images; i++) {
        sum += strlen(column_text(&s->image_id, i)) + strlen(column_text(&s->split, i));
        for (int64_t k = 0; k < shard_captions_of(s, i); k++) {
            const char *c = shard_caption(s, i, k, &n);
            for (size_t b = 0; b < n; b++) sum += (unsigned char)c[b];
        }
    }
    for (int64_t m = 0; s->tokens && m < s->captions; m++)
        for (uint64_t t = s->token_offset[m]; t < s->token_offset[m + 1]; t++) sum += s->tokens[t];
    if (shard_content(s) + sum == 1) abort();               /* so that nothing above is optimised away */
    free(row);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    bool unfinished = size & 1;
    if (!base) make_base();
    int fd = memfd_create("shard", MFD_CLOEXEC);
    if (fd < 0) return 0;
    if (size >= 8 && memcmp(data, "\x89HDF\r\n\x1a\n", 8) == 0) {
        if (write(fd, data, size) != (ssize_t)size) abort();
    } else {
        if (write(fd, base, base_size) != (ssize_t)base_size) abort();
        for (; size >= 4; data += 4, size -= 4) {
            size_t at = (size_t)data[0] | (size_t)data[1] << 8 | (size_t)data[2] << 16;
            if (pwrite(fd, &data[3], 1, (off_t)(at % base_size)) != 1) abort();
        }
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    Shard *s;
    err_clear();
    if (shard_open(&s, path, unfinished) == OK) use(s);
    else if (s || !err_message()[0]) abort();
    shard_close(s);
    close(fd);
    return 0;
}
