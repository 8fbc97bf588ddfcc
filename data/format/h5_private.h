/* h5_private: what the files h5*.c share, the only ones that see hdf5.h. */
#pragma once
#include <hdf5.h>

#include "data/format/h5.h"

struct H5File {
    hid_t id;
    char *path;
    int64_t bytes;                 /* size of the file; 0 while we write it */
    hid_t rows, rows_space;        /* the data set that h5_rows reads, or -1 */
    char rows_path[256];
};

/* Between these two a thread is alone in the library. */
void h5_enter(void);
Status h5_leave(Status st);

/* "path: thing cannot be <done> (cause)" */
Status h5_fail(Status st, const char *path, const char *thing, const char *done);
void h5_drop(hid_t id); /* closes any kind of identifier; negative ones were never opened */
hid_t h5_type_of(H5Kind kind, size_t width);           /* a new identifier; drop it */
H5Kind h5_kind_of(hid_t t, H5Kind *swapped);           /* *swapped: see H5Info */
