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

typedef struct { char *bytes; size_t n; bool failed; } Text;

static void add(Text *t, const char *p, size_t n) {
    if (t->failed) return;
    t->failed = mem_room(&t->bytes, t->n, n, 1) != OK;
    if (t->failed) return;
    memcpy(t->bytes + t->n, p, n);
    t->n += n;
}

static void add_text(Text *t, const char *s) { add(t, s, strlen(s)); }

static void add_number(Text *t, uint64_t v) {
    char buf[24];
    add(t, buf, (size_t)snprintf(buf, sizeof buf, "%" PRIu64, v));
}

static void add_string(Text *t, const char *s) {
    add_text(t, "\"");
    for (; *s; s++) {
        char buf[8];
        unsigned char c = (unsigned char)*s;
        /* the two that JSON cannot hold bare; bytes from 0x80 on are UTF-8 already */
        if (c == '"' || c == '\\') add(t, buf, (size_t)snprintf(buf, sizeof buf, "\\%c", c));
        else if (c < 0x20) add(t, buf, (size_t)snprintf(buf, sizeof buf, "\\u%04x", c));
        else add(t, s, 1);
    }
    add_text(t, "\"");
}

/* Writes the header of n tensors and counts their bytes. */
static Status make_header(Text *t, const char *path, const StTensor *tensors, size_t n, const StMeta *meta,
                          size_t nmeta, uint64_t *declared) {
    uint64_t at = 0;
    /* the length of the header, which is known at its end */
    add(t, "\0\0\0\0\0\0\0\0{", 9);
    if (nmeta) add_text(t, "\"__metadata__\":{");
    for (size_t i = 0; i < nmeta; i++) {
        if (i) add_text(t, ",");
        add_string(t, meta[i].key);
        add_text(t, ":");
        add_string(t, meta[i].value);
    }
    if (nmeta) add_text(t, n ? "}," : "}");
    for (size_t i = 0; i < n; i++) {
        uint64_t bytes = (uint64_t)dtype_size(tensors[i].dtype);
        add_text(t, i ? "," : "");
        add_string(t, tensors[i].name);
        add_text(t, ":{\"dtype\":\"");
        add_text(t, dtype_safetensors(tensors[i].dtype));
        add_text(t, "\",\"shape\":[");
        for (int k = 0; k < tensors[i].ndim; k++) {
            size_t product;
            /* offsets are signed in other readers */
            if (tensors[i].shape[k] < 0 || !mem_mul(bytes, (size_t)tensors[i].shape[k], &product) ||
                product > INT64_MAX - at) {
                char shape[ST_SHAPE_TEXT];
                return err_set(ERR_FORMAT, "%s: tensor %s: shape %s cannot be written", path, tensors[i].name,
                               st_shape_text(&tensors[i], shape, sizeof shape));
            }
            bytes = product;
            if (k) add_text(t, ",");
            add_number(t, (uint64_t)tensors[i].shape[k]);
        }
        add_text(t, "],\"data_offsets\":[");
        add_number(t, at);
        add_text(t, ",");
        add_number(t, at += bytes);
        add_text(t, "]}");
    }
    add_text(t, "}");
    /* data behind an aligned header can be used where it lies in a mapped file */
    while (!t->failed && t->n % ALIGN != 0) add(t, " ", 1);
    if (t->failed) return ERR_MEMORY;
    for (int i = 0; i < 8; i++) t->bytes[i] = (char)((uint64_t)(t->n - 8) >> 8 * i & 0xff);
    *declared = at;
    return OK;
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
    Text t = {0};
    StWriter *w = mem_new(1, sizeof *w);
    Status st = w && (w->path = mem_strdup(path)) ? OK : ERR_MEMORY;
    if (st == OK) st = refuse_duplicates(path, tensors, n);
    if (st == OK) st = make_header(&t, path, tensors, n, meta, nmeta, &w->declared);
    if (st == OK) st = outfile_create(&w->file, path);
    if (st == OK) st = outfile_write(w->file, t.bytes, t.n);
    if (st == OK) *out = w;
    else st_abandon(w);
    free(t.bytes);
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
    free(w->path);
    free(w);
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
