/* import_source: see import_source.h. What a file is, its first bytes tell. */
#include "data/make/import_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/h5.h"
#include "data/format/json.h"
#include "data/format/npy.h"
#include "data/format/safetensors.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_ID = 4096, MAX_ROW_BYTES = 1 << 30, BUFFER = 16 << 20 };

struct SourceFile {
    NpyFile *npy;
    StFile *st;
    const uint8_t *at;                 /* safetensors: the next row, in the mapped file */
    H5File *h5;
    char *h5_path;
    uint8_t *buffer;                   /* HDF5: rows read at once, so that a chunk is unpacked once */
    int64_t capacity, held, next;      /* rows the buffer takes, has, and has given out */
    int64_t left;                      /* rows of the file not read yet */
};

enum FileKind { FILE_NUMPY, FILE_HDF5, FILE_SAFETENSORS, FILE_OTHER };

static Status file_kind(const char *path, enum FileKind *kind) {
    uint8_t magic[9] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    size_t n = fread(magic, 1, sizeof magic, f);
    Status st = ferror(f) ? err_set(ERR_IO, "%s: %s", path, strerror(errno)) : OK;
    fclose(f);
    *kind = n < 8 ? FILE_OTHER
            : !memcmp(magic, "\x89HDF\r\n\x1a\n", 8) ? FILE_HDF5
            : !memcmp(magic, "\x93NUMPY", 6) || !memcmp(magic, "PK\3\4", 4) ? FILE_NUMPY
            : n == 9 && magic[8] == '{' ? FILE_SAFETENSORS : FILE_OTHER;
    return st;
}

/* ---- features ---------------------------------------------------------------------------------------------------- */

static Status source_shape(Source *s, const char *path, int ndim, const int64_t *shape, DType t) {
    s->dtype = t == DT_U16 ? DT_BF16 : t;
    if (s->dtype != DT_F64 && s->dtype != DT_F32 && s->dtype != DT_F16 && s->dtype != DT_BF16 && s->dtype != DT_E4M3)
        return err_set(ERR_FORMAT, "%s: features of type %s are not taken, floating point is needed", path,
                       dtype_name(t));
    if (ndim < 2 || ndim > 4)
        return err_set(ERR_FORMAT, "%s: the array has %d dimensions; (N, P, E), (N, E) or (N, h, w, E) is needed", path,
                       ndim);
    size_t row = (size_t)dtype_size(s->dtype);
    s->N = shape[0];
    s->E = shape[ndim - 1];
    s->P = 1;
    for (int i = 1; i < ndim; i++)
        if (shape[i] < 1 || !mem_mul(row, (size_t)shape[i], &row) || row > MAX_ROW_BYTES)
            return err_set(ERR_FORMAT, "%s: rows of the array are empty or larger than 1 GB", path);
    for (int i = 1; i < ndim - 1; i++) s->P *= shape[i];
    s->row_bytes = row;
    return s->N < 1 ? err_set(ERR_FORMAT, "%s: the array has no rows", path) : OK;
}

static Status open_npy(Source *s, const char *path, const char *array) {
    Status st = npy_open(&s->file->npy, path, array);
    if (st != OK) return st;
    const NpyArray *a = npy_array(s->file->npy);
    return source_shape(s, path, a->ndim, a->shape, a->dtype);
}

static Status open_safetensors(Source *s, const char *path, const char *array) {
    Status st = st_open(&s->file->st, path);
    if (st != OK) return st;
    const StTensor *t = NULL;
    if (array && array[0]) {
        if (!(t = st_find(s->file->st, array))) return err_set(ERR_FORMAT, "%s: no tensor called %s", path, array);
    } else if (st_count(s->file->st) == 1) {
        t = st_at(s->file->st, 0);
    } else if (!(t = st_find(s->file->st, "features"))) {
        return err_set(ERR_FORMAT, "%s: %zu tensors, none of them called features; say which one", path,
                       st_count(s->file->st));
    }
    s->file->at = t->data;
    return source_shape(s, path, t->ndim, t->shape, t->dtype);
}

/* The data set called `name`, with or without the first slash; else the first of `usual` that is there. */
static Status h5_find(H5File *f, const char *file, const char *name, const char *const *usual, const char *option,
                      char **path, H5Info *info) {
    *path = NULL;
    if (name && name[0]) {
        *path = mem_format("%s%s", name[0] == '/' ? "" : "/", name);
    } else {
        while (*usual && !h5_has(f, *usual)) usual++;
        if (!*usual) return err_set(ERR_FORMAT, "%s: none of its data sets has a usual name; %s=NAME says which one",
                                    file, option);
        *path = mem_strdup(*usual);
    }
    return *path ? h5_info(f, *path, info) : ERR_MEMORY;
}

static Status open_h5(Source *s, const char *path, const char *array) {
    static const char *const usual[] = {"/features", "/image_features", "/feats", "/embeddings", "/data", NULL};
    static const int types[] = {[H5K_F16] = DT_F16, [H5K_F32] = DT_F32, [H5K_F64] = DT_F64, [H5K_U16] = DT_BF16};
    struct SourceFile *f = s->file;
    H5Info info;
    Status st = h5_open(&f->h5, path);
    if (st == OK) st = h5_find(f->h5, path, array, usual, "import.array", &f->h5_path, &info);
    if (st != OK) return st;
    if (info.kind != H5K_F16 && info.kind != H5K_F32 && info.kind != H5K_F64 && info.kind != H5K_U16)
        return err_set(ERR_FORMAT, "%s: %s holds neither little-endian f16, f32, f64 nor u16 (bf16)", path, f->h5_path);
    if ((st = source_shape(s, path, info.ndim, info.dim, (DType)types[info.kind])) != OK) return st;
    int64_t chunk = info.chunk[0] > 0 ? info.chunk[0] : 1;
    f->capacity = (int64_t)(BUFFER / s->row_bytes);
    if (f->capacity >= chunk) f->capacity -= f->capacity % chunk;
    else if ((uint64_t)chunk * s->row_bytes <= MAX_ROW_BYTES) f->capacity = chunk;
    else f->capacity = 1;
    f->buffer = mem_new((size_t)f->capacity, s->row_bytes);
    return f->buffer ? OK : ERR_MEMORY;
}

Status source_open(Source *s, const char *path, const char *array) {
    enum FileKind kind;
    *s = (Source){0};
    Status st = file_kind(path, &kind);
    if (st == OK && !(s->file = mem_new(1, sizeof *s->file))) st = ERR_MEMORY;
    if (st == OK) switch (kind) {
    case FILE_NUMPY: st = open_npy(s, path, array); break;
    case FILE_HDF5: st = open_h5(s, path, array); break;
    case FILE_SAFETENSORS: st = open_safetensors(s, path, array); break;
    case FILE_OTHER: st = err_set(ERR_FORMAT, "%s: neither .npy, .npz, safetensors nor HDF5 (by its first bytes)",
                                  path);
    }
    if (st == OK) s->file->left = s->N;
    else source_close(s);
    return st;
}

Status source_next(Source *s, void *row) {
    struct SourceFile *f = s->file;
    if (f->npy) return npy_read(f->npy, row, s->row_bytes);
    if (f->st) {
        memcpy(row, f->at, s->row_bytes);
        f->at += s->row_bytes;
        return OK;
    }
    if (f->next == f->held) {
        f->held = f->left < f->capacity ? f->left : f->capacity;
        f->next = 0;
        Status st = h5_rows(f->h5, f->h5_path, s->N - f->left, f->held, f->buffer);
        if (st != OK) return st;
        f->left -= f->held;
    }
    memcpy(row, f->buffer + (size_t)f->next++ * s->row_bytes, s->row_bytes);
    return OK;
}

void source_close(Source *s) {
    if (s->file) {
        npy_close(s->file->npy);
        st_close(s->file->st);
        h5_close(s->file->h5);
        free(s->file->h5_path);
        free(s->file->buffer);
        free(s->file);
    }
    *s = (Source){0};
}

/* ---- ids --------------------------------------------------------------------------------------------------------- */

static Status add_id(Ids *ids, int64_t *cap, const char *id, size_t n) {
    if (!n || n > MAX_ID || memchr(id, 0, n) || !utf8_valid(id, n, NULL))
        return err_set(ERR_FORMAT, "id %lld is empty, too long, or not UTF-8", (long long)ids->n + 1);
    if (ids->n == *cap) {
        int64_t bigger = *cap ? 2 * *cap : 1024;
        char **v = mem_grow(ids->id, (size_t)bigger, sizeof *v);
        if (!v) return ERR_MEMORY;
        ids->id = v;
        *cap = bigger;
    }
    char *own = mem_new(n + 1, 1);
    if (!own) return ERR_MEMORY;
    memcpy(own, id, n);
    ids->id[ids->n++] = own;
    return OK;
}

static Status json_ids(Ids *ids, const char *path) {
    Json *doc;
    int64_t cap = 0;
    Status st = json_parse_file(&doc, path);
    if (st != OK) return st;
    if (json_type(doc) != J_ARRAY) st = err_set(ERR_FORMAT, "a list of strings is wanted");
    for (size_t i = 0; i < json_len(doc) && st == OK; i++) {
        size_t n = 0;
        const char *s = json_str(json_at(doc, i), &n);
        st = s ? add_id(ids, &cap, s, n) : err_set(ERR_FORMAT, "entry %zu is not a string", i + 1);
    }
    json_free(doc);
    return err_context(st, "%s", path);
}

static Status line_ids(Ids *ids, const char *path) {
    char *line = NULL;
    size_t size = 0;
    ssize_t n;
    int64_t cap = 0;
    Status st = OK;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    while (st == OK && (n = getline(&line, &size, f)) > 0) {
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) n--;
        st = add_id(ids, &cap, line, (size_t)n);
    }
    if (st == OK && ferror(f)) st = err_set(ERR_IO, "%s", strerror(errno));
    free(line);
    fclose(f);
    return err_context(st, "%s", path);
}

static Status h5_ids(Ids *ids, const char *path, const char *array) {
    static const char *const usual[] = {"/image_names", "/image_id",  "/image_ids", "/ids",
                                        "/names",       "/filenames", "/keys",      NULL};
    H5File *f = NULL;
    H5Info info;
    char *set = NULL, **s = NULL;
    int64_t cap = 0;
    Status st = h5_open(&f, path);
    if (st == OK) st = h5_find(f, path, array, usual, "import.ids_array", &set, &info);
    if (st == OK && info.ndim != 1) st = err_set(ERR_FORMAT, "%s: %s must have one dimension to be ids", path, set);
    if (st == OK) st = h5_get_strings(f, set, &info, &s);
    for (int64_t i = 0; st == OK && i < info.count; i++)
        st = err_context(add_id(ids, &cap, s[i], strlen(s[i])), "%s: %s", path, set);
    free(s);
    free(set);
    h5_close(f);
    return st;
}

/* A JSON list begins with '['; anything else is lines. */
static Status is_json_list(const char *path, bool *yes) {
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    int c;
    do c = getc(f);
    while (c == ' ' || c == '\n' || c == '\r' || c == '\t');
    *yes = c == '[';
    fclose(f);
    return OK;
}

Status ids_read(Ids *ids, const char *path, const char *array, const char *features) {
    enum FileKind kind;
    bool given = path && path[0], json = false;
    *ids = (Ids){0};
    if (!given) path = features;
    Status st = file_kind(path, &kind);
    if (st != OK) return st;
    if (kind == FILE_HDF5) {
        st = h5_ids(ids, path, array);
    } else if (!given) {
        st = err_set(ERR_USAGE, "%s has no list of ids in it; import.ids=FILE gives one (a JSON list, or a text file with one id a line)",
                     features);
    } else if ((st = is_json_list(path, &json)) == OK) {
        st = json ? json_ids(ids, path) : line_ids(ids, path);
    }
    if (st != OK) ids_free(ids);
    return st;
}

void ids_free(Ids *ids) {
    for (int64_t i = 0; i < ids->n; i++) free(ids->id[i]);
    free(ids->id);
    *ids = (Ids){0};
}
