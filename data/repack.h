/* repack: rewrites a data set: other shard sizes, another element type, only some splits, with a token cache, with
 * checksums.
 *
 * Called by the command repack. Reads anything that set_open reads (also compressed or foreign files) and writes
 * shards as data/FORMAT.md has them, then their manifest (setout.h says what becomes of what is there already).
 *
 * e4m3 and i8 get a scale a token, so that its largest number is the largest there is (448, 127). Does not change
 * images or captions, and does not compute features. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "data/listener.h"
#include "data/text/tokenizer.h"
#include "kernels/base/dtype.h"

typedef struct {
    const char *in;                /* as set_open */
    const char *out;               /* x.h5: one shard; else a folder, made if absent, for set-00000.h5, ... */
    int64_t shard_images;          /* most images of a shard; 0: all in one */
    int dtype;                     /* DType of the features, or -1: as they are */
    const char *split;             /* as set_select; "": everything */
    const Tokenizer *tok;          /* NULL: no token cache */
    int max_tokens, max_words;     /* of the cache; max_words 0: 50 */
    const char *prompt;
    bool overwrite;                /* shards there that were made of something else are replaced (setout.h) */
    Listener listener;             /* told images */
} RepackSpec;

typedef struct {
    int64_t images, captions, shards;
    double square, error;          /* sums over all numbers: of squares, of squares of what the new type loses */
} RepackReport;

/* ERR_USAGE: nothing to write, or what stands in `out` is something else or the set itself; ERR_FORMAT: a row is
 * damaged (verify finds all), or holds a number that the new type cannot. */
Status repack(const RepackSpec *spec, RepackReport *r);
