/* safetensors: named tensors in one file: 8 bytes of header length, a JSON header, the data.
 *
 * Readers: the importers of ViT weights, checkpoints, golden tests. Writers: checkpoints and export. The file is
 * mapped, so a tensor costs nothing until it is touched; do not truncate a file that is open here.
 *
 * A file is input also when we wrote it ourselves: every number of the header is checked. Refused with a sentence that
 * names file and tensor: header length beyond the file or 100 MB, JSON that is not exactly the shape of the format,
 * text that is not UTF-8, unknown element types, more than ST_DIMS dimensions, products that overflow, duplicate names,
 * and, as the format demands, data that overlaps, leaves a hole, or does not end where the file ends.
 *
 * Format: https://github.com/huggingface/safetensors, "Format". Little-endian machines only, as the data is. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

enum { ST_DIMS = 8 };

typedef struct {
    const char *name;
    DType dtype;
    int ndim;                   /* 0: one element */
    int64_t shape[ST_DIMS];     /* the first ndim */
    size_t nbytes;              /* product of shape times element size; the writer computes it */
    const void *data;           /* into the mapped file, aligned to the element size */
} StTensor;

typedef struct StFile StFile;

/* ERR_IO, ERR_FORMAT, ERR_MEMORY. Pointers below live until st_close. */
Status st_open(StFile **f, const char *path);
Status st_open_memory(StFile **f, const void *bytes, size_t n, const char *name);   /* `bytes` must outlive f */
void st_close(StFile *f);                                   /* accepts NULL */

const StTensor *st_find(const StFile *f, const char *name); /* NULL when absent */
size_t st_count(const StFile *f);
const StTensor *st_at(const StFile *f, size_t i);           /* in the order of the data */
const char *st_meta(const StFile *f, const char *key);      /* from __metadata__; NULL when absent */
const char *st_path(const StFile *f);

int64_t st_elements(const StTensor *t);                     /* product of shape */
/* "(30523, 768)" for messages; the buffer belongs to the caller and is returned. */
char *st_shape_text(const StTensor *t, char *buf, size_t n);
enum { ST_SHAPE_TEXT = 8 * 22 + 4 };

/* ---- writing: all tensors are declared first (data and nbytes are ignored), then their bytes stream in that order
 * ----
 *
 * The header is padded with blanks so that data starts at a multiple of 64. The bytes of the file are a function of the
 * arguments only. The file appears under its name, whole, at st_commit (data/format/outfile.h). */
typedef struct { const char *key, *value; } StMeta;
typedef struct StWriter StWriter;

Status st_create(StWriter **w, const char *path, const StTensor *tensors, size_t n, const StMeta *meta, size_t nmeta);
Status st_put(StWriter *w, const void *data, size_t nbytes);/* any pieces; together exactly the declared bytes */
uint64_t st_written(const StWriter *w);                     /* bytes of the file so far, header included */
uint32_t st_crc(const StWriter *w);                         /* crc32c of them */
Status st_commit(StWriter *w);                              /* frees w also when it fails */
void st_abandon(StWriter *w);                               /* accepts NULL */

/* All at once, from tensors[i].data. */
Status st_write(const char *path, const StTensor *tensors, size_t n, const StMeta *meta, size_t nmeta);
