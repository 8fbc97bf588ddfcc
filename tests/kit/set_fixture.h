/* set_fixture: small shards in a temporary folder, whose every byte follows from (image, view): what shard, set and
 * loader tests share. Rows of P x E = 5 x 8. */
#pragma once
#include <stdint.h>
#include <stdio.h>

#include "data/shard_write.h"
#include "kernels/base/mem.h"

enum { FIX_P = 5, FIX_E = 8, FIX_ELEMENTS = FIX_P * FIX_E, FIX_MOST = 64 };

typedef struct {
    ShardSpec spec;
    ShardItem item[FIX_MOST];
    char id[FIX_MOST][24];
    const char *caption[FIX_MOST][3];
} Fixture;

extern const char *const fix_words[];
extern const char *const fix_splits[];

/* Image number `first + i` has id img_N, 0 to 3 captions and one of four splits. */
void fix_init(Fixture *f, int64_t first, int64_t images, int64_t views, DType dtype, bool scale);
void fix_row(void *row, int64_t image, int64_t view, DType dtype);
float fix_scale(int64_t image, int64_t view);

/* The whole shard; image numbers start at `first`. */
Status fix_write(const char *path, Fixture *f, int64_t first);
extern char fix_dir[64];;
int fix_setup(void **state);
int fix_teardown(void **state);

/* A path in the folder; sixty-four live at a time. */
const char *fix_path(const char *name);

/* Changes n bytes of a file. */
int fix_poke(const char *path, int64_t at, const void *bytes, size_t n);
