/* h5: what we use of HDF5, in our own types; hdf5.h is included in h5_private.h, for h5.c (files, writing) and
 * h5_read.c, and nowhere else.
 *
 * Called by shard, shard_write and arrays. The one idea: HDF5 is used for structure only (names, shapes, types, where
 * the bytes lie); large data is then read and written with pread and pwrite at the places it told. All calls go through
 * one lock, since the library is seldom built for threads. File locking is off for reading, so that files on a
 * shared disk stay readable.
 *
 * Files are not trusted: links out of the file, external and virtual storage and strings of variable length in data
 * sets are refused; a data set's bytes must lie inside the file. What cannot be checked from here is whether the
 * library itself survives a hostile header; files we write carry checksums in their metadata, which it tests first.
 *
 * Errors: ERR_IO (cannot open, create, read, write), ERR_FORMAT (not HDF5, or a thing is absent or of the wrong
 * kind), each with "path: /thing: what". */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/label.h"
#include "kernels/base/err.h"

/*   kind  bytes */
#define H5_KIND_LIST(X) \
    X(I8, 1) X(U8, 1) X(U16, 2) X(U32, 4) X(I32, 4) X(U64, 8) X(I64, 8) X(F16, 2) X(F32, 4) X(F64, 8)

/* Little-endian element types; H5K_TEXT: strings of a fixed width; H5K_OTHER: any other. */
typedef enum {
#define X(kind, bytes) H5K_##kind,
    H5_KIND_LIST(X)
#undef X
    H5K_TEXT, H5K_OTHER
} H5Kind;

enum { H5_MAX_DIMS = 4, H5_MAX_TEXT = 1 << 16 };

typedef struct {
    H5Kind kind;
    H5Kind swapped;                /* kind H5K_OTHER, big-endian: what it is but for that; else H5K_OTHER */
    bool integer;                  /* of any size and byte order */
    bool text;                     /* strings, of fixed or variable length */
    size_t size;                   /* bytes an element; the width of a string */
    int ndim;
    int64_t dim[H5_MAX_DIMS], count;   /* count: elements */
    bool filtered;                 /* compressed or otherwise changed on the way to the disk */
    int64_t offset;                /* of element 0 in the file; the rest follows. -1: chunked, compact or not stored */
    int64_t chunk[H5_MAX_DIMS];    /* zeros unless chunked */
} H5Info;

typedef struct H5File H5File;

/* A new file, over what was there. Objects from `align` bytes on start at multiples of 4096. Readable by HDF5 1.8
 * and later. */
Status h5_create(H5File **f, const char *path, size_t align);
Status h5_open(H5File **f, const char *path);             /* for reading */
Status h5_close(H5File *f);                               /* accepts NULL; fails when it cannot store the rest */

Status h5_group(H5File *f, const char *path);
Status h5_put_text(H5File *f, const char *object, const char *name, const char *text);     /* attributes */
Status h5_put_int(H5File *f, const char *object, const char *name, int64_t value);

/* A data set, contiguous and allocated at once, holding `data` or (NULL) nothing yet. width: of strings, else 0. */
Status h5_put(H5File *f, const char *path, H5Kind kind, size_t width, int ndim, const int64_t *dim, const void *data);

/* A column of n texts, padded to the width of the longest: text of one width lies in rows, which can be written and
 * read at once. */
typedef const char *H5Text(const void *ctx, int64_t i);
Status h5_put_texts(H5File *f, const char *path, int64_t n, H5Text *text, const void *ctx);

bool h5_has(H5File *f, const char *path);                 /* a data set or group, reached without leaving the file */
bool h5_has_attr(H5File *f, const char *object, const char *name);
Status h5_get_text(H5File *f, const char *object, const char *name, char **text);          /* free(*text) */
Status h5_get_int(H5File *f, const char *object, const char *name, int64_t *value);

/* ERR_FORMAT if absent, of more than H5_MAX_DIMS dimensions, or not inside the file. */
Status h5_info(H5File *f, const char *path, H5Info *info);

/* All elements. as: the kind wanted; integers are converted, F16 and F32 must be what is stored. For text the width
 * in dst is info->size + 1, each string ends with a NUL. */
Status h5_get(H5File *f, const char *path, const H5Info *info, H5Kind as, void *dst);

/* Every string of a data set, of fixed or of variable length (foreign files have the latter). The library is locked
 * meanwhile: fn does not call it. */
Status h5_get_texts(H5File *f, const char *path, const H5Info *info, LabelFn *fn, void *ctx);

/* Rows [first, first + n) along the first dimension, whatever the layout, as they are stored (H5K_OTHER) or as another
 * kind. Keeps the data set open. */
Status h5_rows(H5File *f, const char *path, H5Kind as, int64_t first, int64_t n, void *dst);

/* Calls fn for every data set that is reached by plain links, by name; stops when it returns false. */
typedef bool H5ListFn(void *ctx, const char *path);
Status h5_list(H5File *f, H5ListFn *fn, void *ctx);

/* ERR_FORMAT when somebody has the file open for writing (he holds HDF5's lock), or when whoever wrote it never closed
 * it (the mark in its superblock). */
Status h5_settled(const char *path);

/* at[i]: where row i lies, if every row is one unfiltered chunk; *all is false when some row is elsewhere. */
Status h5_row_offsets(H5File *f, const char *path, const H5Info *info, int64_t *at, bool *all);
