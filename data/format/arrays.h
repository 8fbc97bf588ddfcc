/* arrays: a file of named arrays, whatever its format: NumPy (.npy, .npz), safetensors, PyTorch (.pt, .pth), HDF5; or a
 * folder of such files with one array each.
 *
 * Called by import. The one idea: every format is a list of {name, type, shape} and a stream of bytes from front to
 * back; what the arrays mean is for the caller to find out. What a file is, its first bytes tell. Elements come
 * little-endian and in C order. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/label.h"
#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

enum { ARRAYS_DIMS = 8 };

typedef struct {
    char *name;                    /* "features", "/group/features", "391895"; "" in a file of one */
    bool number;                   /* floating point (u16 counts: bf16), of type dtype */
    bool label;                    /* strings or whole numbers */
    bool pickled;                  /* NumPy, dtype=object: neither can be read */
    DType dtype;
    int ndim;
    int64_t shape[ARRAYS_DIMS], elements;
} ArrayItem;

typedef struct ArrayBox ArrayBox;

/* ERR_IO, ERR_FORMAT (what it is instead; damaged; compressed by what is not here; still open for writing). */
Status arrays_open(ArrayBox **b, const char *path);
void arrays_close(ArrayBox *b);                            /* accepts NULL */
size_t arrays_count(const ArrayBox *b);
const ArrayItem *arrays_at(const ArrayBox *b, size_t i);   /* sorted by name, numbers in it as numbers */
bool arrays_is_folder(const ArrayBox *b);
const char *arrays_what(const ArrayBox *b);                /* "data sets", "arrays", "tensors", "files" */

Status arrays_begin(ArrayBox *b, size_t i);                /* the stream is at the front of array i, of numbers */
Status arrays_read(ArrayBox *b, void *dst, size_t n);      /* the next n bytes, whole rows of its first dimension */

Status arrays_labels(ArrayBox *b, size_t i, LabelFn *fn, void *ctx);       /* strings, or whole numbers as text */

/* Whether it is called so; the '/' in front of HDF5's names counts neither here nor there. */
bool arrays_called(const ArrayItem *a, const char *name);

/* ERR_FORMAT: array i is pickled, and what to type. */
Status arrays_pickled(const ArrayBox *b, size_t i);

/* "a (6, 2, 3), b (6)": as many as fit, into text, which is returned. */
enum { ARRAYS_LIST = 600 };
char *arrays_list(const ArrayBox *b, char text[ARRAYS_LIST]);
