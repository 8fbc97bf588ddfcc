/* scratch: see scratch.h. */
#include "tests/kit/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/kit/check.h"

static char dir[] = "/tmp/qf-scratch-XXXXXX";

int scratch_setup(void **state) {
    (void)state;
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int drop(const char *path, const struct stat *sb, int type, struct FTW *ftw) {
    (void)sb, (void)type, (void)ftw;
    return remove(path);
}

int scratch_teardown(void **state) {
    (void)state;
    return chdir("/") || nftw(dir, drop, 8, FTW_DEPTH | FTW_PHYS);
}

void scratch_put(const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}
