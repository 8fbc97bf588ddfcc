/* npy: NumPy arrays, alone (.npy) or in an archive (.npz), read from front to back without holding them.
 *
 * Called by import and score. The one idea: an open array is a stream of elements in C order and little-endian,
 * whatever order the file has; npy_read takes the next bytes, from the mapped file or from zlib. Members of an .npz may
 * be stored or deflated; zip64 is understood; the member's CRC is compared when its last byte has been read.
 *
 * Element types: f2 f4 f8, i1 i2 i4 i8, u1 u2, V2 (what ml_dtypes writes for bfloat16), and the texts S (bytes) and U
 * (UTF-32). Everything else, structured types, pickled objects and encrypted archives are refused with a sentence that
 * says what it is. Every number of the headers is checked against the size of the file before use. Does not write.
 *
 * An array in Fortran order is gathered a block of rows at a time; one that is deflated too is unpacked whole.
 *
 * Sources: NEP 1 (the .npy format, versions 1 to 3). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/label.h"
#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

enum { NPY_DIMS = 8 };

typedef struct {
    DType dtype;               /* of numbers. V2 is DT_BF16, u2 is DT_U16 */
    int text;                  /* 0: numbers; else the bytes of a character: 1 (S) or 4 (U) */
    size_t size;               /* bytes an element */
    int ndim;
    int64_t shape[NPY_DIMS];
    int64_t elements;          /* product of shape; elements * size fits */
    bool fortran, swapped;     /* as the file has it: first index fastest; big-endian */
} NpyArray;

/* What a file holds: one array without a name (.npy), or the members NAME.npy of an archive, sorted by name. */
typedef struct NpyBox NpyBox;
Status npy_box_open(NpyBox **b, const char *path);
Status npy_box_memory(NpyBox **b, const void *bytes, size_t n, const char *path);   /* the bytes stay the caller's */
void npy_box_close(NpyBox *b);                             /* accepts NULL; close its arrays first */
size_t npy_box_count(const NpyBox *b);
const char *npy_box_name(const NpyBox *b, size_t i);       /* without ".npy" */

typedef struct NpyFile NpyFile;
Status npy_open_at(NpyFile **out, const NpyBox *b, size_t i);

/* The array of an .npy, the only one of an .npz or its "features". Numbers only. */
Status npy_open(NpyFile **out, const char *path);

const NpyArray *npy_array(const NpyFile *f);
Status npy_read(NpyFile *f, void *dst, size_t n);          /* exactly the next n bytes; whole elements */

/* All elements of an array of texts, as UTF-8. Call it first. */
Status npy_texts(NpyFile *f, LabelFn *fn, void *ctx);
void npy_close(NpyFile *f);                                /* accepts NULL */
