/* shard_write: writing one HDF5 shard (data/FORMAT.md), so that being killed at any moment costs nothing but the row in
 * work.
 *
 * Called by extraction, import, synth and repack. The one idea: HDF5 lays the file out once, with every data set
 * allocated, and is then closed; rows go in by pwrite at known offsets, first the row, its scale and its CRC, and only
 * then its mark in /images/written. What a killed process wrote before is in the page cache and stays; a row without
 * its mark is written again. The file is called PATH.part until shard_finish has flushed it to the disk and renamed it.
 *
 * Rows are images x views: row i*V+v is view v of image i. Rows may come in any order. One thread at a time. Does
 * not compute features, and does not change a finished shard (see verify.h for rewriting). */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

/* Who made the features. A set holds features of one encoder; all five must be equal over its shards. */
typedef struct {
    const char *name;               /* "eva_vit_g", "patches-64-16" */
    const char *weights_sha256;     /* hex; "" when there are no weights */
    const char *tap;                /* which output: "after the last block, before ln_vision" */
    const char *preprocessing;      /* how pixels were made: "resize 224x224 bicubic; CLIP mean and std" */
    bool ln_applied;                /* ln_vision is already in the features */
} EncoderInfo;
#define ENCODER_TEXTS(X) X(name) X(weights_sha256) X(tap) X(preprocessing)   /* attributes of /encoder by these names */

typedef struct {
    const char *image_id, *split, *source;         /* split: train, val, test, ...; source: where it came from */
    int64_t ncaptions;
    const char *const *captions;                   /* UTF-8, as annotated */
} ShardItem;
#define SHARD_COLUMNS(X) X(image_id) X(split) X(source)        /* data sets of /images by these names */

/* What cached token ids were made with; they serve only readers that want exactly this. */
typedef struct {
    uint64_t vocab;                                /* tokenizer_hash */
    int64_t max_tokens, max_words;
    const char *prompt;
} TokenKey;

/* Token ids of all captions, in the order of the items: caption m has ids[offset[m] .. offset[m+1]-1], 1 to
 * max_tokens. In the file 16 bits each where that is enough, else 32. */
typedef struct {
    TokenKey key;
    const uint64_t *offset;                        /* (captions + 1) */
    const uint32_t *ids;
} TokenCache;

typedef struct {
    EncoderInfo encoder;
    DType dtype;                                   /* F16 BF16 F32 E4M3 I8 */
    int64_t images, views, P, E;
    bool scale;                                    /* a f32 a row: value = element * scale. I8 needs it */
    bool token_scale;                              /* with scale: a f32 a token instead, P a row (version 2) */
    const ShardItem *items;                        /* (images) */
    const TokenCache *tokens;                      /* NULL: none */
    uint64_t made_from;                            /* fingerprint of the files and options that the rows follow from and
                                                      that stand nowhere above; 0: not recorded */
    bool replace;                                  /* PATH may exist: it stays until the new one is complete */
} ShardSpec;

typedef struct ShardWriter ShardWriter;

/* Creates PATH.part, or continues the one that a killed writer of the same spec left; one of another spec is given up
 * and begun anew. ERR_USAGE: the spec is impossible, or another process is writing PATH.part, or PATH exists already
 * (unless spec->replace); ERR_IO: the file cannot be made (a full disk is noticed here, since all room is allocated
 * first; nothing is left behind then). */
Status shard_create(ShardWriter **w, const char *path, const ShardSpec *spec);

/* What was found at PATH.part, as a sentence for the user: rows that are kept, or given up and why. NULL: nothing. */
const char *shard_found(const ShardWriter *w);
bool shard_goes_on(const ShardWriter *w);                             /* PATH.part was there, and is kept */

bool shard_has(const ShardWriter *w, int64_t row);                    /* already written, by this run or one before */
int64_t shard_missing(const ShardWriter *w);                          /* rows still to write */

/* data: P*E elements of spec.dtype, little-endian; scale is used only if spec.scale. A row may be written again. */
Status shard_write(ShardWriter *w, int64_t row, const void *data, float scale);
Status shard_write_scaled(ShardWriter *w, int64_t row, const void *data, const float *scales);    /* all of the row's */

/* All rows must be there (ERR_USAGE otherwise). Flushes, marks the file complete, renames it to PATH. Frees w also
 * when it fails; PATH.part then stays. */
Status shard_finish(ShardWriter *w);
void shard_abandon(ShardWriter *w);                                   /* closes, keeps PATH.part; accepts NULL */
void shard_drop(ShardWriter *w);                                      /* closes, and removes PATH.part */


struct Shard;
/* NULL when a shard (its rows aside) is what the spec would make; else what differs, as a short word or two. */
const char *shard_difference(const struct Shard *s, const ShardSpec *spec);
