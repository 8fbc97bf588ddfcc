/* verify: reads all of a data set and says everything that is wrong with it.
 *
 * Called by the command verify. What opening finds (shapes, types, pointers, unwritten rows, another encoder, a
 * shard that the manifest does not mean) counts as one problem of that shard and the next is looked at. Then every
 * row: its CRC, and that its numbers are finite; every caption: that it is UTF-8 and not empty; every image id: that
 * it is there once in the set. Warned of: rows that are all zero, and a shape that looks like maps with channels first.
 */
#pragma once
#include <stdint.h>

#include "data/listener.h"
#include "kernels/base/err.h"

typedef void VerifySay(void *ctx, const char *sentence);   /* one problem or warning, naming file and place */

typedef struct {
    int64_t shards, images, rows, captions;
    int64_t uncaptioned;           /* images without a caption: allowed, but never trained on */
    int64_t warnings, problems;
} VerifyReport;

/* OK also when there are problems: they are in the report. Otherwise the list of shards could not be had, or the
 * listener (told rows, of those in shards looked at so far) stopped it. */
Status verify_set(const char *path, VerifySay *say, void *ctx, const Listener *listener, VerifyReport *r);
