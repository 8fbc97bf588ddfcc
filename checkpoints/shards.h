/* shards: the index of weights that lie in several files: model.safetensors.index.json, pytorch_model.bin.index.json.
 *
 *     {"metadata": {"total_size": 5300000000}, "weight_map": {"TENSOR": "model-00001-of-00002.safetensors", ...}}
 *
 * Called by weights.c. The index is input: a file's name must stand in the same folder (no slash, not empty, no leading
 * dot), so that a folder from elsewhere cannot name files outside of itself. Whether the files are there and hold
 * what the index says is the caller's to check. Format: transformers, modeling_utils, "sharded checkpoints". */
#pragma once
#include <stddef.h>

#include "data/format/json.h"

enum { SHARDS_MAX_FILES = 10000, SHARDS_MAX_TENSORS = 1 << 20 };

typedef struct { const char *name; size_t file; } ShardEntry;        /* a tensor, and the number of its file */

typedef struct {
    Json *doc;                  /* owns the names */
    const char **files;         /* (nfiles) distinct, in the order of first mention */
    size_t nfiles;
    ShardEntry *entries;        /* (n) in the order of the index */
    size_t n;
} ShardIndex;

/* ERR_IO, ERR_FORMAT, ERR_MEMORY; on failure nothing is held. */
Status shards_read(ShardIndex *x, const char *path);
Status shards_parse(ShardIndex *x, const char *text, size_t n, const char *path);
void shards_free(ShardIndex *x);
