/* manifest: manifest.json, the list of the shards of a set.
 *
 * Called by set, repack and whoever has written shards into a folder. The one idea: the list, not the folder's
 * content, says what belongs to the set; so a shard that is missing, cut short or replaced is named, and a rank can
 * know how large the shards are that it does not hold. Format: data/FORMAT.md. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* captioned: images that have a caption. */
typedef struct { char *name; int64_t images, captioned, captions; } ManifestSplit;

typedef struct {
    char *file;                    /* relative to the manifest's folder; never leads out of it */
    int64_t images, bytes;
    int64_t content;               /* shard_content, or -1 when not recorded */
    uint64_t made_from;            /* as in ShardSpec; 0: not recorded */
    int64_t nsplits;
    ManifestSplit *split;
} ManifestShard;

typedef struct {
    int64_t n;
    ManifestShard *shard;
} Manifest;

/* From text[0..n); `name` stands in messages ("name: shards[3]: ..."). */
Status manifest_parse(Manifest **m, const char *text, size_t n, const char *name);
Status manifest_read(Manifest **m, const char *path);
void manifest_free(Manifest *m);                           /* accepts NULL */

/* Opens the n files of the folder (names NULL: every *.h5, in order of name), checks that they belong together, and
 * writes dir/manifest.json. ERR_FORMAT names the shard that does not fit; ERR_USAGE when there is none. */
Status manifest_write(const char *dir, char *const *names, int64_t n);

/* The names of the *.h5 files of a folder, sorted; free each and the array. */
Status manifest_scan(const char *dir, char ***names, int64_t *n);
