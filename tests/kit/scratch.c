/* scratch: see scratch.h. */
#include "tests/kit/scratch.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/qf-scratch-XXXXXX";

int scratch_open(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

int scratch_setup(void **state) { return scratch_open(state) || chdir(dir) ? -1 : 0; }

static int drop(const char *path, const struct stat *sb, int type, struct FTW *ftw) {
    (void)sb, (void)type, (void)ftw;
    return remove(path);
}

int scratch_teardown(void **state) {
    (void)state;
    return nftw(dir, drop, 8, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_dir(void) { return dir; }

const char *scratch_path(const char *name) {
    static char path[8][300];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

void scratch_put(const char *name, const void *bytes, size_t n) {
    FILE *f = fopen(scratch_path(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void scratch_write(const char *name, const char *text) { scratch_put(name, text, strlen(text)); }
