/* npy: NumPy arrays, alone (.npy) or in an archive (.npz), read from front to back without holding them.
 *
 * Called by import. The one idea: after npy_open the array is a stream of elements in C order; npy_read takes the next
 * bytes, from the file or from zlib. Members of an .npz may be stored or deflated; zip64 is understood; the member's
 * CRC is compared when its last byte has been read.
 *
 * Element types: f2 f4 f8, i1 u1 u2, and V2 (what ml_dtypes writes for bfloat16), little-endian. Everything else,
 * Fortran order with more than one dimension, structured types and encrypted archives are refused with a sentence.
 * Every number of the headers is checked against the size of the file before use. Does not seek, does not write.
 *
 * Sources: NEP 1 (the .npy format, versions 1 to 3); PKWARE APPNOTE 6.3. */
#ifndef QF_NPY_H
#define QF_NPY_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

enum { NPY_DIMS = 8 };

typedef struct {
    DType dtype;               /* V2 is DT_BF16, u2 is DT_U16 */
    int ndim;
    int64_t shape[NPY_DIMS];
    int64_t elements;          /* product of shape; elements * size fits */
} NpyArray;

typedef struct NpyFile NpyFile;

/* `member` names the array of an .npz, with or without ".npy"; NULL or "": its only array, or "features". */
Status npy_open(NpyFile **out, const char *path, const char *member);

/* The same on an open, seekable file, which is closed by npy_close, and here on failure. `name` is for messages. */
Status npy_open_file(NpyFile **out, FILE *f, const char *name, const char *member);

const NpyArray *npy_array(const NpyFile *f);
Status npy_read(NpyFile *f, void *dst, size_t n);          /* exactly the next n bytes of the elements */
void npy_close(NpyFile *f);                                /* accepts NULL */

#endif
