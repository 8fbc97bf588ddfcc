/* safetensors: see safetensors.h. */
#include "data/format/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/mapfile.h"
#include "kernels/base/mem.h"

enum { HEADER_LIMIT = 100000000 };

typedef struct {
    StTensor t;
    int64_t begin, end;       /* in the data, as the header says */
    void *copy;               /* where the file has the tensor misaligned; else NULL */
} Entry;

struct StFile {
    char *path;
    MapFile map;
    Json *header;             /* owns the names */
    Entry *entries;           /* sorted by place in the file */
    size_t count;
    Entry **by_name;
};

/* ---- the header -------------------------------------------------------------------------------------------------- */

static bool printable(const char *name) {
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7f) return false;
    return true;
}

static bool count_of(const Json *v, int64_t *n) { return json_int(v, n) && *n >= 0; }

static Status read_dtype(const StFile *f, StTensor *t, const char *word) {
    int d = dtype_from_name(word);
    if (d < 0 || strcmp(word, dtype_safetensors((DType)d)) != 0)    /* "f32" is our own word, not the format's */
        return err_set(ERR_FORMAT, "%s: tensor %s has element type %.20s, which is not supported", f->path, t->name,
                       word);
    t->dtype = (DType)d;
    return OK;
}

static Status read_tensor(const StFile *f, Entry *e, const char *name, const Json *v) {
    const Json *shape = json_get(v, "shape"), *offsets = json_get(v, "data_offsets");
    const char *dtype = json_str(json_get(v, "dtype"), NULL);
    StTensor *t = &e->t;
    if (!printable(name)) return err_set(ERR_FORMAT, "%s: a tensor has a name with a control character", f->path);
    t->name = name;
    if (json_len(v) != 3 || !dtype || json_type(shape) != J_ARRAY || json_len(offsets) != 2)
        return err_set(ERR_FORMAT, "%s: tensor %s lacks dtype, shape or data_offsets, or has more than these", f->path,
                       name);
    if (json_len(shape) > ST_DIMS)
        return err_set(ERR_FORMAT, "%s: tensor %s has more than %d dimensions", f->path, name, ST_DIMS);
    bool good = count_of(json_at(offsets, 0), &e->begin) && count_of(json_at(offsets, 1), &e->end);
    for (; good && (size_t)t->ndim < json_len(shape); t->ndim++)
        good = count_of(json_at(shape, (size_t)t->ndim), &t->shape[t->ndim]);
    if (!good)
        return err_set(ERR_FORMAT, "%s: tensor %s: shape and data_offsets must be whole numbers from 0 on", f->path,
                       name);
    return read_dtype(f, t, dtype);
}

static Status check_meta(const StFile *f, const Json *meta) {
    const Json *v;
    for (const char *key = json_next(meta, NULL, &v); key; key = json_next(meta, key, &v))
        if (json_type(v) != J_STR)
            return err_set(ERR_FORMAT, "%s: \"%.100s\" in __metadata__ is no string", f->path, key);
    return json_type(meta) == J_OBJECT ? OK : err_set(ERR_FORMAT, "%s: __metadata__ is no object", f->path);
}

static Status read_header(StFile *f, const char *text, size_t n) {
    const Json *v;
    Status st = json_parse(&f->header, text, n, f->path);
    if (st == OK && json_type(f->header) != J_OBJECT)
        st = err_set(ERR_FORMAT, "%s: the header is no object of tensors", f->path);
    if (st == OK && !(f->entries = mem_new(json_len(f->header), sizeof *f->entries))) st = ERR_MEMORY;
    for (const char *key = json_next(f->header, NULL, &v); key && st == OK; key = json_next(f->header, key, &v))
        st = !strcmp(key, "__metadata__") ? check_meta(f, v) : read_tensor(f, &f->entries[f->count++], key, v);
    return st;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name); /* empty tensors may share a place; the order must not be qsort's */
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(Entry *const *)a)->t.name, (*(Entry *const *)b)->t.name);
}

/* Bytes a tensor of this type and shape takes; false when the product does not fit. */
static bool tensor_bytes(const StTensor *t, size_t *out) {
    size_t n = (size_t)dtype_size(t->dtype);
    /* a dimension of 0 is legal, and hides no overflow of those before it */
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] < 0 || !mem_mul(n, (size_t)t->shape[i], &n) || n > INT64_MAX) return false;
    *out = n;
    return true;
}

/* Sizes, offsets and pointers of all tensors, in the order of the data: no hole, no overlap, nothing left over. */
static Status place(StFile *f, const unsigned char *data, size_t ndata) {
    int64_t at = 0;
    if (f->count) qsort(f->entries, f->count, sizeof *f->entries, by_place);
    for (size_t i = 0; i < f->count; i++) {
        Entry *e = &f->entries[i];
        StTensor *t = &e->t;
        char shape[ST_SHAPE_TEXT];
        if (!tensor_bytes(t, &t->nbytes))
            return err_set(ERR_FORMAT, "%s: tensor %s: shape %s is too large", f->path, t->name,
                           st_shape_text(t, shape, sizeof shape));
        if (e->end < e->begin || (size_t)(e->end - e->begin) != t->nbytes)
            return err_set(ERR_FORMAT,
                           "%s: tensor %s: shape %s of %s takes %zu bytes, data_offsets are [%" PRId64 ", %" PRId64 "]",
                           f->path, t->name, st_shape_text(t, shape, sizeof shape), dtype_safetensors(t->dtype),
                           t->nbytes, e->begin, e->end);
        /* holes would carry what nobody declared, overlaps one tensor's bytes as another's */
        if (e->begin != at)
            return err_set(ERR_FORMAT,
                           "%s: tensor %s begins at byte %" PRId64 " of the data, the one before ends at %" PRId64,
                           f->path, t->name, e->begin, at);
        if ((size_t)e->end > ndata)
            return err_set(ERR_FORMAT,
                           "%s: tensor %s ends at byte %" PRId64 " of the data, the file holds %zu; it is cut short",
                           f->path, t->name, e->end, ndata);
        at = e->end;
        t->data = data + e->begin;
        if ((uintptr_t)t->data % (unsigned)dtype_size(t->dtype) != 0) {   /* legal in a file, not for a C pointer */
            if (!(e->copy = mem_new(t->nbytes, 1))) return ERR_MEMORY;
            memcpy(e->copy, t->data, t->nbytes);
            t->data = e->copy;
        }
    }
    if ((size_t)at != ndata)
        return err_set(ERR_FORMAT, "%s: the tensors take %" PRId64 " bytes, the file holds %zu", f->path, at, ndata);
    return OK;
}

static Status index_names(StFile *f) {
    if (!(f->by_name = mem_new(f->count, sizeof *f->by_name))) return ERR_MEMORY;
    for (size_t i = 0; i < f->count; i++) f->by_name[i] = &f->entries[i];
    if (f->count) qsort(f->by_name, f->count, sizeof *f->by_name, by_name);    /* no two are one: keys of JSON */
    return OK;
}

static Status parse(StFile *f) {
    const uint8_t *bytes = f->map.bytes;
    size_t size = f->map.n;
    uint64_t n = 0;
    /* the length of the header comes first */
    if (size < 8) return err_set(ERR_FORMAT, "%s: %zu bytes are no safetensors file", f->path, size);
    bool text = true;         /* as a length, eight printable bytes are beyond any file: a page, a script */
    for (int i = 7; i >= 0; i--) {
        n = n << 8 | bytes[i];
        text = text && (bytes[i] >= ' ' || bytes[i] == '\n') && bytes[i] < 127;
    }
    if (text) return err_set(ERR_FORMAT, "%s: is a text, not a safetensors file", f->path);
    if (n > HEADER_LIMIT || n > size - 8)
        return err_set(ERR_FORMAT,
                       "%s: a header of %" PRIu64 " bytes in a file of %zu: not a safetensors file, or cut short",
                       f->path, n, size);
    Status st = read_header(f, (const char *)bytes + 8, (size_t)n);
    if (st == OK) st = place(f, bytes + 8 + n, size - 8 - (size_t)n);
    return st == OK ? index_names(f) : st;
}

static Status open_map(StFile **out, MapFile map, const char *name) {
    StFile *f = mem_new(1, sizeof *f);
    if (!f) return mapfile_close(&map), ERR_MEMORY;
    f->map = map;
    Status st = (f->path = mem_strdup(name)) ? parse(f) : ERR_MEMORY;
    if (st == OK) *out = f;
    else st_close(f);
    return st;
}

Status st_open(StFile **out, const char *path) {
    MapFile map;
    *out = NULL;
    Status st = mapfile_open(&map, path);
    return st == OK ? open_map(out, map, path) : st;
}

Status st_open_memory(StFile **out, const void *bytes, size_t n, const char *name) {
    *out = NULL;
    return open_map(out, mapfile_of(bytes, n), name);
}

void st_close(StFile *f) {
    if (!f) return;
    for (size_t i = 0; i < f->count; i++) free(f->entries[i].copy);
    mapfile_close(&f->map);
    mem_free(f->entries, f->by_name);
    json_free(f->header);
    mem_free(f->path, f);
}

const StTensor *st_find(const StFile *f, const char *name) {
    Entry wanted = {.t.name = name}, *key = &wanted;
    if (f->count == 0) return NULL;
    Entry **hit = bsearch(&key, f->by_name, f->count, sizeof *f->by_name, by_name);
    return hit ? &(*hit)->t : NULL;
}

size_t st_count(const StFile *f) { return f->count; }
const StTensor *st_at(const StFile *f, size_t i) { return i < f->count ? &f->entries[i].t : NULL; }
const char *st_path(const StFile *f) { return f->path; }

const char *st_meta(const StFile *f, const char *key) {
    return json_str(json_get(json_get(f->header, "__metadata__"), key), NULL);
}

int64_t st_elements(const StTensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->shape[i];
    return n;
}

char *st_shape_text(const StTensor *t, char *buf, size_t n) {
    size_t used = (size_t)snprintf(buf, n, "(");
    for (int i = 0; i < t->ndim && used < n; i++)
        used += (size_t)snprintf(buf + used, n - used, i ? ", %" PRId64 : "%" PRId64, t->shape[i]);
    if (used < n) snprintf(buf + used, n - used, ")");
    return buf;
}
