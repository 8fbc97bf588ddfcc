/* extract: a folder of images and its annotation files become shards of features.
 *
 * Called by the commands extract and synth. The one idea: images are drawn (decoded and resized, or rendered) into a
 * block of pixels by all threads, the encoder turns the block before it into features, rows go to the shard in order.
 * What a killed run has written is not computed again.
 *
 * Views of an image (preprocess.h) are rows i*V+v.
 *
 * Does not know any encoder: that is ImageEncoder (encoder.h). Does not process captions. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/image.h"
#include "data/listener.h"
#include "data/make/annotations.h"
#include "data/make/encoder.h"
#include "data/shard_write.h"

enum { MAX_VIEWS = 64 };

typedef struct {
    const char *images; /* folders and tar archives the pictures lie in, commas between (pictures.h);
                           as many folders as annotation files: one for each */
    const AnnotationFile *annotations;      /* (nannotations); none: all pictures there are */
    size_t nannotations;
    const char *folder_caption; /* without annotations: "a photo of a {}"; "" or NULL: what lies beside them */
    const char *out;                        /* x.h5: one shard; otherwise a folder, made if absent, that gets
                                               set-00000.h5, set-00001.h5, ... and manifest.json */
    const ImageEncoder *encoder;
    DType dtype;                            /* F16, BF16, F32; E4M3 and I8 with a scale a token */
    int64_t views;                          /* 1 .. MAX_VIEWS */
    int64_t shard_images;                   /* most images of a shard in a folder; 0: no limit */
    bool overwrite;                         /* shards that were made of something else are replaced (setout.h) */
    bool upright;                           /* pictures are turned as their EXIF says */
    bool skip_bad;                          /* leave out images that are missing or broken (costs decoding all twice) */
    bool dry_run;                           /* check everything, compute nothing */
    Listener listener;                      /* in images */
    double *waited;                         /* NULL, or what gets the seconds without pixels */
} ExtractSpec;

typedef struct {
    int64_t images, captions, shards;
    int64_t blank, uncaptioned, imageless;  /* as in Annotations */
    int64_t skipped;                        /* images left out, */
    char first_skipped[512];                /* and why the first one was */
    int64_t otherwise;                      /* images found under another name than theirs (pictures.h), */
    char first_otherwise[512];              /* "a/b.jpg as IN/b.jpg" */
    double square, error;                   /* of E4M3 and I8, as in RepackReport: of what was computed now */
} ExtractReport;

/* Fills report as far as it came. Without skip_bad a missing image is an error before anything is computed, with the
 * number of missing ones and the first name; a broken one when it is met. What is there already: setout.h. */
Status extract(const ExtractSpec *spec, ExtractReport *report);

/* Images done before this shard and in all, for the listener; seconds for which the encoder had no pixels are added to
 * *waited (may be NULL). */
typedef struct {
    const Listener *listener;
    int64_t before, total;
    double *waited;
    double *square, *error;                 /* NULL, or what is added to (ExtractReport) */
} ExtractProgress;

/* The engine, for any source of pixels; finishes w, or abandons it. draw() fills the pixels (views, S, S, 3) of image
 * i, u8 or f32 as the encoder wants, and may be called by several threads at a time. */
typedef Status ExtractDraw(void *ctx, int64_t i, uint8_t *pixels);
Status extract_shard(ShardWriter *w, const ShardSpec *spec, const ImageEncoder *e, ExtractDraw *draw, void *ctx,
                     const ExtractProgress *progress);
