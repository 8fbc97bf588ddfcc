/* set_fixture: see set_fixture.h. */
#include "tests/kit/set_fixture.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const fix_words[] = {"a dog runs", "the red Car!", "two men on a boat", "\xc3\xa9t\xc3\xa9", "snow",
"a cat"};

const char *const fix_splits[] = {"train", "train", "restval", "val", "test"};

void fix_init(Fixture *f, int64_t first, int64_t images, int64_t views, DType dtype, bool scale) {
    memset(f, 0, sizeof *f);
    for (int64_t i = 0; i < images; i++) {
        int64_t n = first + i;
        snprintf(f->id[i], sizeof f->id[i], "img_%lld", (long long)n);
        for (int64_t k = 0; k < n % 4; k++) f->caption[i][k] = fix_words[(n + k) % 6];
        f->item[i] = (ShardItem){f->id[i], fix_splits[n % 5], "a/b.jpg", n % 4, f->caption[i]};
    }
    f->spec = (ShardSpec){.encoder = {"test", "00ff", "last", "resize 8", false}, .dtype = dtype, .images = images,
        .views = views,
                          .P = FIX_P, .E = FIX_E, .scale = scale, .items = f->item};
}

void fix_row(void *row, int64_t image, int64_t view, DType dtype) {
    unsigned char *p = row;
    uint32_t x = (uint32_t)(image * 31 + view * 7 + 1);
    for (int i = 0; i < FIX_ELEMENTS * dtype_size(dtype); i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = (unsigned char)(x >> 24 & 0x3f);             /* keeps every float type small and finite */
    }
}

float fix_scale(int64_t image, int64_t view) { return 0.5f + (float)(image * 4 + view); }

Status fix_write(const char *path, Fixture *f, int64_t first) {
    ShardWriter *w;
    uint64_t row[FIX_ELEMENTS];
    Status st = shard_create(&w, path, &f->spec);
    if (st != OK) return st;
    for (int64_t r = 0; r < f->spec.images * f->spec.views; r++) {
        int64_t image = first + r / f->spec.views, view = r % f->spec.views;
        fix_row(row, image, view, f->spec.dtype);
        if ((st = shard_write(w, r, row, fix_scale(image, view))) != OK) {
            shard_abandon(w);
            return st;
        }
    }
    return shard_finish(w);
}

char fix_dir[64];

int fix_setup(void **state) {
    (void)state;
    snprintf(fix_dir, sizeof fix_dir, "/tmp/qformer-test-XXXXXX");
    return mkdtemp(fix_dir) ? 0 : 1;
}

static int fix_remove(const char *path, const struct stat *sb, int type, struct FTW *ftw) {
    (void)sb, (void)type, (void)ftw;
    return remove(path);
}

int fix_teardown(void **state) {
    (void)state;
    return nftw(fix_dir, fix_remove, 8, FTW_DEPTH | FTW_PHYS);
}

const char *fix_path(const char *name) {
    static char path[64][128];
    static int next;
    char *p = path[next++ % 64];
    snprintf(p, sizeof path[0], "%s/%s", fix_dir, name);
    return p;
}

int fix_poke(const char *path, int64_t at, const void *bytes, size_t n) {
    FILE *f = fopen(path, "r+b");
    if (!f) return 1;
    int bad = fseek(f, (long)at, SEEK_SET) != 0 || fwrite(bytes, 1, n, f) != n;
    return fclose(f) != 0 || bad;
}
