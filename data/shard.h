/* shard: one finished (or half written) HDF5 shard, its tables in memory and its rows at known places.
 *
 * Called by set, verify and the writer. The one idea: everything but the features is small, so it is read at opening
 * and checked completely (shapes, types, ranges, pointers that must rise); afterwards a row of features is one pread.
 * Rows that are not stored plainly (compressed, or in chunks that are not rows) are read through HDF5, which is slower.
 *
 * A Shard is read-only after shard_open: any number of threads may read rows. Layout: data/FORMAT.md. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/h5.h"
#include "data/shard_write.h"

/* Strings of a fixed width: item i is at text + i * stride, ended by a NUL. */
typedef struct {
    char *text;
    size_t stride;
} TextColumn;

typedef struct Shard {
    char *path;
    int fd;
    H5File *h5;                    /* kept open only when rows must be read through HDF5 */
    char *warning;                 /* one sentence for the user, or NULL */

    EncoderInfo encoder;           /* strings owned */
    DType dtype;
    int64_t images, views, rows, P, E;
    size_t row_bytes;
    uint64_t made_from;            /* as in ShardSpec; 0: not recorded */
    int64_t features_at, *row_at;  /* row i is at row_at[i], or at features_at + i * row_bytes; -1: through HDF5 */

    float *scale;                  /* (rows, scales) or NULL */
    int64_t scales;                /* 1: of a row; P: of each token; 0 without */
    uint32_t *crc;                 /* (rows) or NULL */
    uint8_t *written;              /* (rows) or NULL: all are */
    int64_t scale_at, crc_at, written_at;      /* where these tables lie; -1 when they cannot be written in place */
    TextColumn image_id, split, source;        /* source.text may be NULL */

    int64_t captions;
    uint64_t *first;               /* (images + 1) caption index; NULL when there are no captions */
    uint64_t *offset;              /* (captions + 1) byte index */
    char *bytes;
    TokenKey key;                  /* prompt owned; NULL when there is no token cache */
    uint64_t *token_offset;        /* (captions + 1) */
    uint32_t *tokens;
} Shard;

/* Opens and checks. `unfinished`: rows without the mark "written" are allowed (the writer).
 * Messages name file and place. */
Status shard_open(Shard **s, const char *path, bool unfinished);
void shard_close(Shard *s);                                /* accepts NULL */

/* Row into dst (row_bytes). verify: compares its CRC, when the shard has them. ERR_IO,
 * or ERR_FORMAT naming file and row. */
Status shard_read(const Shard *s, int64_t row, bool verify, void *dst);
/* The scale of a row, or of its first token. */
static inline float shard_scale(const Shard *s, int64_t row) { return s->scale ? s->scale[row * s->scales] : 1.0f; }

static inline const char *column_text(const TextColumn *c, int64_t i) { return c->text + (size_t)i * c->stride; }

int64_t shard_captions_of(const Shard *s, int64_t image);
const char *shard_caption(const Shard *s, int64_t image, int64_t k, size_t *n);    /* not ended by a NUL */

/* OK when the two may stand in one set; ERR_FORMAT says how they differ. */
Status shard_same_kind(const Shard *a, const Shard *b);
/* NULL, or the name of the first field in which two encoders differ. */
const char *shard_encoder_difference(const EncoderInfo *a, const EncoderInfo *b);

/* A CRC over everything but the features (whose CRCs are among it): tells two versions of a shard apart. */
uint32_t shard_content(const Shard *s);

/* How an element type is stored: the HDF5 kind, or H5K_OTHER for types that features cannot have. */
H5Kind shard_kind(DType t);
