/* set: a data set for reading: one shard, a folder of shards, a manifest.json, or several of these with commas between.
 *
 * Called by the loader, evaluation and verify. Images are numbered through the whole set, [0, images); row i*V+v is
 * view v of image i. Opening reads and checks all tables of all shards (see shard.h) and that they come from
 * one encoder; rows are read afterwards by any number of threads.
 *
 * A part of a set: with parts > 1 only shards k with k % parts == part are opened, so that a machine needs to hold
 * just the shards of its ranks. The other images exist (they count, and have numbers) but nothing of theirs can be
 * read. That needs a manifest. `allow_missing`: also shards of this part may be absent, as long as nobody asks for a
 * split that lies there. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/shard.h"

typedef struct Set Set;

Status set_open(Set **s, const char *path);
Status set_open_part(Set **s, const char *path, int part, int parts, bool allow_missing);
void set_close(Set *s);                                    /* accepts NULL */

const char *set_path(const Set *s);                        /* as given to set_open */
Status set_call(Set *s, const char *name);                 /* another name for sentences: the file is a temporary one */
int64_t set_images(const Set *s);                          /* all of the set, also those of other parts */
int64_t set_captions(const Set *s);                        /* of the shards that are open */
int64_t set_views(const Set *s);                           /* V */
int64_t set_P(const Set *s);
int64_t set_E(const Set *s);
DType set_dtype(const Set *s);
bool set_scaled(const Set *s);                             /* some shard has scales */
int64_t set_scales(const Set *s);                          /* of a row: 1, or P where some shard has one a token */
size_t set_row_bytes(const Set *s);                        /* P * E * size of an element */
const EncoderInfo *set_encoder(const Set *s);
/* Tells two sets apart: of all tables of all shards, checksums of rows among them, also those of other parts. */
uint64_t set_fingerprint(const Set *s);
int set_part(const Set *s);
int set_parts(const Set *s);

/* Sentences for the user about things that work but should not stay so (slow reading,
 * no checksums). NULL after the last. */
const char *set_warning(const Set *s, int64_t i);

int64_t set_shards(const Set *s);
const Shard *set_shard(const Set *s, int64_t k, int64_t *first_image);     /* NULL when it is not open */

/* Of an image whose shard is open (others are a bug). */
bool set_has(const Set *s, int64_t image);
const char *set_image_id(const Set *s, int64_t image);
const char *set_split(const Set *s, int64_t image);
const char *set_source(const Set *s, int64_t image);       /* "" when not recorded */
int64_t set_ncaptions(const Set *s, int64_t image);
const char *set_caption(const Set *s, int64_t image, int64_t k, size_t *n);        /* UTF-8, not ended by a NUL */

/* Its cached token ids, when the shard has them for exactly this key; else NULL. */
const uint32_t *set_tokens(const Set *s, int64_t image, int64_t k, const TokenKey *key, int *n);

/* Images (their numbers, rising; free(*images)) of a split that can be read here. "train" is train and restval
 * (Karpathy's split as LAVIS uses it); "all" or "" is everything; commas join several. ERR_USAGE names the splits
 * there are when none is found, or the missing shard that holds some. */
Status set_select(const Set *s, const char *split, int64_t **images, int64_t *n);
bool set_split_matches(const char *wanted, const char *split);
void set_name_splits(const Set *s, char *text, size_t size);        /* "train", "val": the first few there are */

/* How many images of a split with captions, and captions of them, the shards of one part hold (any part: the
 * manifest knows them all). In a set that is not in parts, part 0 is everything. */
typedef struct { int64_t captioned, captions; } SplitCount;
SplitCount set_count(const Set *s, const char *split, int part);

/* Reading features; safe from any thread. dst: set_row_bytes a row, raw; value = element * scale. scale: set_scales
 * numbers a row. */
Status set_read_row(const Set *s, int64_t row, bool verify, void *dst, float *scale);
/* scales (n, set_scales), or NULL */
Status set_read_rows(const Set *s, const int64_t *rows, int64_t n, void *dst, float *scales);
