/* import: features that somebody else computed, joined with captions, become a shard.
 *
 * Called by the command import. Features are an array (N, P, E), (N, E) for one token an image, or (N, h, w, E) for a
 * grid, or one array an image, in any of
 *   .npy, .npz            f2 f4 f8, bf16 as V2 or u2; any byte order and order of indices      (npy.h)
 *   .safetensors          F64 F32 F16 BF16, or F8_E4M3 taken as it is                          (safetensors.h)
 *   .pt, .pth             tensors, in a dict or alone                                          (pth.h)
 *   HDF5                  any layout, chunks and filters, of the same types                    (h5.h)
 *   a folder              of such files, one an image, or parts of one set                     (import_source.h)
 * with a list of N ids (import_ids.h). An id is the name of an image as the annotations have it, or its base name, or
 * that without its ending, or COCO's number in it (391895 is COCO_val2014_000000391895.jpg), tried in this order and
 * counted; "#v" behind it makes it view v of the image. Without annotations every id is an image without captions.
 *
 * The one idea: the array is read once from front to back, a row at a time, and each row goes to the place its id asks
 * for. No file is held in memory, and a killed import goes on. What does not match is counted and named; it is an error
 * unless allowed. So are rows that are all zero: no network gives those, somebody allocated them and died. Rows that
 * hold a NaN or an infinity are an error always: one would end a training run. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/listener.h"
#include "data/make/annotations.h"
#include "data/make/import_source.h"
#include "data/shard_write.h"

typedef enum { ZERO_REFUSE, ZERO_SKIP, ZERO_KEEP } ZeroRows;       /* rows that are all zero */
typedef enum { MATCH_NAME, MATCH_BASE, MATCH_STEM, MATCH_NUMBER, MATCH_LEVELS } ImportMatch;

typedef struct {
    const char *features;                   /* the file or folder */
    const char *array;                      /* which array of it; "" or NULL: the only one, or "features" */
    const char *ids;                        /* file of ids; "" or NULL: those in the file of features */
    const char *ids_array;                  /* which strings; "" or NULL: a usual name, or the only ones */
    SourceLayout layout;
    ZeroRows zero_rows;
    const AnnotationFile *annotations;      /* (nannotations); none: images without captions */
    size_t nannotations;
    const char *out;
    EncoderInfo encoder;                    /* who computed them; strings may be "" but for the name */
    int dtype;                              /* DT_F16, DT_BF16, DT_F32; -1: as they are (F64 becomes F32) */
    bool allow_missing;                     /* annotated images without features are left out */
    bool allow_extra;                       /* features without annotation are left out */
    bool overwrite;                         /* as in ExtractSpec */
    bool dry_run;                           /* match everything, write nothing */
    Listener listener;                      /* in rows read */
} ImportSpec;

typedef struct {
    int64_t rows, images, views, captions, P, E;
    DType dtype;                            /* of the shard */
    int64_t missing, extra;                 /* annotated images without features; rows without annotation */
    char first_missing[256], first_extra[256];
    int64_t blank, uncaptioned, imageless;  /* as in Annotations */
    int64_t flat;                           /* rows that are one number throughout, not zero: taken, */
    char first_flat[160];                   /* and whose the first is */
    int64_t zero;                           /* images left out because their rows are all zero */
    int64_t matched[MATCH_LEVELS];          /* rows, by what they were found */
    int64_t arrays;                         /* that the rows came from, one after the other; 1: a single one */
    SourceKind kind;
} ImportReport;

Status import(const ImportSpec *spec, ImportReport *report);
