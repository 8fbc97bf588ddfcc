/* safetensors_write: the writing half of safetensors.h. The header is made whole in memory (it is small), then
 * everything streams through data/format/outfile.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/outfile.h"
#include "data/format/safetensors.h"
#include "kernels/base/mem.h"

enum { ALIGN = 64 };

struct StWriter {
    OutFile *file;
    char *path;
    uint64_t declared, put;       /* bytes of data */
};

/* ---- the header ------------------------------------------------------------------------------------------------- */

static void put_string(FILE *f, const char *s) {
    fputc('"', f);
    for (; *s; s++) {                                        /* bytes from 0x80 on are UTF-8 already */
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", c);
        else if (c < 0x20) fprintf(f, "\\u%04x", c);
        else fputc(c, f);
    }
    fputc('"', f);
}

/* The tensor whose bytes begin at *at, which moves behind them. */
static Status put_tensor(FILE *f, const char *path, const StTensor *t, uint64_t *at) {
    uint64_t bytes = (uint64_t)dtype_size(t->dtype);
    put_string(f, t->name);
    fprintf(f, ":{\"dtype\":\"%s\",\"shape\":[", dtype_safetensors(t->dtype));
    for (int k = 0; k < t->ndim; k++) {
        size_t product;
        /* offsets are signed in other readers */
        if (t->shape[k] < 0 || !mem_mul(bytes, (size_t)t->shape[k], &product) || product > INT64_MAX - *at) {
            char shape[ST_SHAPE_TEXT];
            return err_set(ERR_FORMAT, "%s: tensor %s: shape %s cannot be written", path, t->name,
                           st_shape_text(t, shape, sizeof shape));
        }
        bytes = product;
        fprintf(f, "%s%" PRId64, k ? "," : "", t->shape[k]);
    }
    fprintf(f, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at, *at + bytes);
    *at += bytes;
    return OK;
}

/* Writes the header of n tensors and counts their bytes. */
static Status put_header(FILE *f, const char *path, const StTensor *tensors, size_t n, const StMeta *meta, size_t nmeta,
                         uint64_t *declared) {
    Status st = OK;
    *declared = 0;
    for (int i = 0; i < 8; i++) fputc(0, f);                 /* its length, which is known at its end */
    fputs(nmeta ? "{\"__metadata__\":{" : "{", f);
    for (size_t i = 0; i < nmeta; i++) {
        fputs(i ? "," : "", f);
        put_string(f, meta[i].key);
        fputc(':', f);
        put_string(f, meta[i].value);
    }
    if (nmeta) fputs(n ? "}," : "}", f);
    for (size_t i = 0; i < n && st == OK; i++) {
        fputs(i ? "," : "", f);
        st = put_tensor(f, path, &tensors[i], declared);
    }
    fputc('}', f);
    /* data behind it can be used where a mapped file has it */
    while (!ferror(f) && ftell(f) % ALIGN != 0) fputc(' ', f);
    return st;
}

static Status make_header(char **text, size_t *length, const char *path, const StTensor *tensors, size_t n,
                          const StMeta *meta, size_t nmeta, uint64_t *declared) {
    FILE *f = open_memstream(text, length);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    Status st = put_header(f, path, tensors, n, meta, nmeta, declared);
    if (fclose(f) != 0 && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    for (int i = 0; st == OK && i < 8; i++) (*text)[i] = (char)((uint64_t)(*length - 8) >> 8 * i & 0xff);
    return st;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static Status refuse_duplicates(const char *path, const StTensor *tensors, size_t n) {
    Status st = OK;
    const char **names = mem_new(n, sizeof *names);
    if (!names) return ERR_MEMORY;
    for (size_t i = 0; i < n; i++) names[i] = tensors[i].name;
    if (n) qsort(names, n, sizeof *names, compare_names);    /* of equal names each reader keeps another one */
    for (size_t i = 1; i < n && st == OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            st = err_set(ERR_FORMAT, "%s: tensor %s would be written twice", path, names[i]);
    free(names);
    return st;
}

/* ---- the stream ------------------------------------------------------------------------------------------------- */

Status st_create(StWriter **out, const char *path, const StTensor *tensors, size_t n, const StMeta *meta,
                 size_t nmeta) {
    *out = NULL;
    char *header = NULL;
    size_t length = 0;
    StWriter *w = mem_new(1, sizeof *w);
    Status st = w && (w->path = mem_strdup(path)) ? OK : ERR_MEMORY;
    if (st == OK) st = refuse_duplicates(path, tensors, n);
    if (st == OK) st = make_header(&header, &length, path, tensors, n, meta, nmeta, &w->declared);
    if (st == OK) st = outfile_create(&w->file, path);
    if (st == OK) st = outfile_write(w->file, header, length);
    if (st == OK) *out = w;
    else st_abandon(w);
    free(header);
    return st;
}

Status st_put(StWriter *w, const void *data, size_t nbytes) {
    BUG_ON(nbytes > w->declared - w->put, "%s: more data than the %" PRIu64 " bytes declared", w->path, w->declared);
    Status st = nbytes ? outfile_write(w->file, data, nbytes) : OK;
    if (st == OK) w->put += nbytes;
    return st;
}

uint64_t st_written(const StWriter *w) { return outfile_bytes(w->file); }
uint32_t st_crc(const StWriter *w) { return outfile_crc(w->file); }

Status st_commit(StWriter *w) {
    BUG_ON(w->put != w->declared, "%s: %" PRIu64 " of %" PRIu64 " bytes declared were put", w->path, w->put,
           w->declared);
    OutFile *f = w->file;
    w->file = NULL;                                          /* abandon would remove it */
    st_abandon(w);
    return outfile_commit(f);
}

void st_abandon(StWriter *w) {
    if (!w) return;
    outfile_abandon(w->file);
    mem_free(w->path, w);
}

Status st_write(const char *path, const StTensor *tensors, size_t n, const StMeta *meta, size_t nmeta) {
    StWriter *w;
    Status st = st_create(&w, path, tensors, n, meta, nmeta);
    if (st != OK) return st;
    for (size_t i = 0; i < n && st == OK; i++)
        st = st_put(w, tensors[i].data, (size_t)st_elements(&tensors[i]) * (size_t)dtype_size(tensors[i].dtype));
    if (st == OK) return st_commit(w);
    st_abandon(w);
    return st;
}
