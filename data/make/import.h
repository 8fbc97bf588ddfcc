/* import: features that somebody else computed, joined with captions, become a shard.
 *
 * Called by the command import. Features are an array (N, P, E), (N, E) for one token an image, or (N, h, w, E) for a
 * grid, in any of
 *   .npy, .npz            f2 f4 f8, bf16 as V2 or u2; stored or deflated                       (npy.h)
 *   .safetensors          F64 F32 F16 BF16, or F8_E4M3 taken as it is                          (safetensors.h)
 *   HDF5                  any layout, chunks and filters, of the same types                    (h5.h)
 * with a list of N ids: a JSON list of strings, a text file with one a line, or an HDF5 data set of strings. An id is
 * the name of an image as the annotations have it, or its base name; "#v" behind it makes it view v of the image.
 *
 * The one idea: the array is read once from front to back, a row at a time, and each row goes to the place its id asks
 * for. No file is held in memory, and a killed import goes on. What does not match is counted and named; it is an error
 * unless allowed. Rows that hold a NaN or an infinity are an error always: one would end a training run. */
#ifndef QF_IMPORT_H
#define QF_IMPORT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/listener.h"
#include "data/make/annotations.h"
#include "data/shard_write.h"

typedef struct {
    const char *features;                   /* the file */
    const char *array;                      /* which array of it; "" or NULL: the only one, or "features" */
    const char *ids;                        /* file of ids; "" or NULL: the strings in the HDF5 file of features */
    const char *ids_array;                  /* HDF5: which strings; "" or NULL: the only one-dimensional ones */
    const AnnotationFile *annotations;      /* (nannotations) */
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
    int64_t blank, uncaptioned;             /* as in Annotations */
} ImportReport;

Status import(const ImportSpec *spec, ImportReport *report);

#endif
