/* source: from what a user calls a data set to the list of its shard files.
 *
 * Called by set and verify. A shard (x.h5), a folder (its manifest.json, else its *.h5 by name), a manifest
 * (x.json), or several of these with commas between. Opens no shard. */
#pragma once
#include <stdint.h>

#include "data/manifest.h"
#include "data/shard.h"

typedef struct {
    char *path;
    const ManifestShard *listed;   /* what the manifest says of it; NULL when there is none */
    const char *manifest;          /* its path */
} SourceFile;

typedef struct {
    SourceFile *file;
    int64_t n, manifests;
    struct SourceManifest { Manifest *m; char *path; } *manifest;   /* owns what files point to */
} Source;                          /* starts as {0} */

/* ERR_IO, ERR_FORMAT (a bad manifest), ERR_USAGE (nothing there). After an error the list can only be freed. */
Status source_list(Source *s, const char *path);
void source_free(Source *s);

/* Whether the file is the one that the manifest means: size, images, content. ERR_FORMAT says what differs. */
Status source_check(const SourceFile *f, const Shard *shard);
