/* import_ids: see import_ids.h. */
#include "data/make/import_ids.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/csv.h"
#include "data/format/json.h"
#include "data/format/textfile.h"
#include "data/make/annotation_names.h"
#include "data/make/annotations.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_ID = 4096 };

static Status add_id(void *ctx, const char *id, size_t n) {
    ImportIds *ids = ctx;
    if (!n || n > MAX_ID || memchr(id, 0, n) || !utf8_valid(id, n, NULL))
        return err_set(ERR_FORMAT, "id %lld is empty, too long, or not UTF-8", (long long)ids->n + 1);
    if (mem_room(&ids->id, (size_t)ids->n, 1, sizeof *ids->id) != OK) return ERR_MEMORY;
    char *own = mem_format("%.*s", (int)n, id);
    if (own) ids->id[ids->n++] = own;
    return own ? OK : ERR_MEMORY;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

static Status json_id(ImportIds *ids, const Json *v) {
    size_t n = 0;
    int64_t number;
    char text[24];
    const char *s = json_str(v, &n);
    if (s) return add_id(ids, s, n);
    if (!json_int(v, &number))
        return err_set(ERR_FORMAT, "entry %lld is neither a string nor a whole number", (long long)ids->n + 1);
    return add_id(ids, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)number));
}

/* {"a.jpg": 0, ...} or {"0": "a.jpg", ...}: every row once. */
static Status json_map(ImportIds *ids, const Json *doc) {
    size_t n = json_len(doc);
    const char **name = mem_new(n, sizeof *name); /* by row: members of JSON have no order that one may rely on */
    const Json *v;
    Status st = name ? OK : ERR_MEMORY;
    for (const char *k = json_next(doc, NULL, &v); k && st == OK; k = json_next(doc, k, &v)) {
        int64_t row = -1;
        char *end = NULL;
        bool by_name = json_int(v, &row);
        if (!by_name && json_str(v, NULL)) row = strtoll(k, &end, 10); /* keys of JSON are strings, numbers too */
        if (row < 0 || (size_t)row >= n || name[row] || (end && *end))
            st = err_set(ERR_FORMAT, "\"%.100s\" is no row of its own, 0 to %zu", k, n - 1);
        else name[row] = by_name ? k : json_str(v, NULL);
    }
    for (size_t i = 0; i < n && st == OK; i++) st = add_id(ids, name[i], strlen(name[i]));
    free(name);
    return st;
}

/* A table with a column of images, or JSON Lines: as captions have them (annotations.h), an image a row. */
static Status listed_ids(ImportIds *ids, const char *text, size_t n, const char *path) {
    Annotations a = {0};
    Status st = annotations_add_text(&a, text, n, &(AnnotationFile){.path = path});
    for (int64_t i = 0; st == OK && i < a.count; i++) st = add_id(ids, a.images[i].image, strlen(a.images[i].image));
    annotations_free(&a);
    return st;
}

static Status json_ids(ImportIds *ids, const char *text, size_t n, const char *path) {
    Json *doc;
    Status st = json_parse(&doc, text, n, path);
    if (st != OK) return st;
    bool entries = json_type(json_at(doc, 0)) == J_OBJECT;
    if (entries) st = listed_ids(ids, text, n, path);
    else if (json_type(doc) == J_OBJECT) st = json_map(ids, doc);
    else if (json_type(doc) != J_ARRAY) st = err_set(ERR_FORMAT, "a list of names is wanted");
    for (size_t i = 0; !entries && json_type(doc) == J_ARRAY && i < json_len(doc) && st == OK; i++)
        st = json_id(ids, json_at(doc, i));
    json_free(doc);
    return err_context(st, "%s", path);
}

/* Whether the first line names columns, one of them the image's. */
static bool has_header(const char *text, size_t n) {
    const char *at = text, *line, *end;
    char field[40], separator = csv_separator(text, n);
    size_t len, k;
    if (!textfile_line(&at, text + n, &line, &len)) return false;
    for (end = line + len; line < end; line += k + 1) {
        for (k = 0; line + k < end && line[k] != separator; k++) continue;
        snprintf(field, sizeof field, "%.*s", (int)(k < sizeof field ? k : 0), line);
        if (annotation_rank(ROLE_IMAGE, field) != NO_RANK) return true;
    }
    return false;
}

static Status line_ids(ImportIds *ids, const char *text, size_t n, const char *path) {
    const char *at = text, *line;
    size_t len;
    Status st = OK;
    while (n && strchr(" \t\r\n", text[n - 1])) n--;           /* empty lines at the end name nothing */
    while (st == OK && textfile_line(&at, text + n, &line, &len)) {
        while (len && strchr(" \t", line[len - 1])) len--;   /* nobody names a picture with a blank at its end */
        st = err_context(add_id(ids, line, len), "%s", path);
    }
    return st;
}

static Status text_ids(ImportIds *ids, const char *path) {
    char *text = NULL;
    size_t n = 0;
    Json *doc = NULL;
    Status st = textfile_read(&text, &n, path, "a list of names (JSON, or one a line)");
    if (st != OK) return st;
    char first = text[strspn(text, " \t\r\n")];
    if (first == '{' && json_parse(&doc, text, n, path) != OK) st = listed_ids(ids, text, n, path); /* a line each */
    /* a list and a map are one document; lines of objects are none */
    else if (first == '[' || first == '{') st = json_ids(ids, text, n, path);
    else st = has_header(text, n) ? listed_ids(ids, text, n, path) : line_ids(ids, text, n, path);
    json_free(doc);
    free(text);
    return st;
}

/* ---- arrays ------------------------------------------------------------------------------------------------------ */

/* What this program wrote itself. */
static bool b_is_set(const ArrayBox *b) {
    bool features = false, caption = false;
    for (size_t i = 0; i < arrays_count(b); i++) {
        features |= !strcmp(arrays_at(b, i)->name, "/images/features");
        caption |= !strcmp(arrays_at(b, i)->name, "/captions/first");
    }
    return features && caption;
}

/* The labels that are named so, or usually, or that are the only ones; rows -1: of any number. */
static Status find_labels(const ArrayBox *b, const char *path, const char *array, int64_t rows, size_t *at) {
    static const char *const usual[] = {"image_names", "image_id",   "image_ids",  "ids",   "names",       "filenames",
                                        "keys",        "image_name", "file_names", "paths", "image_paths", "img_id",
                                        "img_ids",     "id",         "key",        "image", NULL};
    size_t n = arrays_count(b), labels = 0;
    char list[ARRAYS_LIST];
    for (size_t i = 0; array && array[0] && i < n; i++)
        if (arrays_called(arrays_at(b, i), array)) {
            const ArrayItem *a = arrays_at(b, *at = i);
            if (a->label && a->ndim && a->elements == a->shape[0]) return OK;
            if (a->pickled) return arrays_pickled(b, i);
            return err_set(ERR_FORMAT, "%s: %s must have one dimension, of strings or whole numbers, to be ids", path,
                           a->name);
        }
    for (size_t i = 0; i < n; i++)
        if (arrays_at(b, i)->label && (rows < 0 || arrays_at(b, i)->elements == rows) && !labels++) *at = i;
    for (int u = 0; usual[u] && !(array && array[0]); u++)
        for (size_t i = 0; i < n; i++)
            if (arrays_at(b, i)->label && arrays_called(arrays_at(b, i), usual[u])) {
                *at = i;
                return OK;
            }
    /* after the usual names: a file of many arrays has other strings, too */
    if (labels == 1 && !(array && array[0])) return OK;
    for (size_t i = 0; !labels && i < n; i++)
        if (arrays_at(b, i)->pickled) return arrays_pickled(b, i);
    arrays_list(b, list);
    if (array && array[0])
        return err_set(ERR_FORMAT, "%s: none of its %s is called %s; there are: %s", path, arrays_what(b), array, list);
    /* what looks like features without ids is our own file */
    if (b_is_set(b)) return err_set(ERR_USAGE, "%s: is a data set already; repack rewrites one", path);
    if (labels)
        return err_set(ERR_USAGE,
                       "%s: more than one of its %s could be ids (there are: %s); import.ids_array=NAME says which",
                       path, arrays_what(b), list);
    return err_set(
        ERR_USAGE,
        "%s has no list of ids in it (there are: %s); import.ids=FILE gives one (a JSON list, a NumPy array, "
        "or a text file with one id a line)",
        path, list);
}

static Status array_ids(ImportIds *ids, ArrayBox *b, const char *path, const char *array, int64_t rows) {
    size_t at = 0;
    Status st = find_labels(b, path, array, rows, &at);
    return st == OK ? err_context(arrays_labels(b, at, add_id, ids), "%s: %s", path, arrays_at(b, at)->name) : st;
}

static Status own_names(ImportIds *ids, const ImportSource *s) {
    Status st = OK;
    for (int64_t i = 0; i < s->N && st == OK; i++) {
        char *name = import_source_name(s, i);
        st = name ? add_id(ids, name, strlen(name)) : ERR_MEMORY;
        free(name);
    }
    return err_context(st, "%s", s->path);
}

/* NumPy, HDF5 and zip archives, by their first bytes. */
static bool is_arrays(const char *path) {
    unsigned char head[6] = {0};
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f) fclose(f);
    return n == 6 && (!memcmp(head, "\x93NUMPY", 6) || !memcmp(head, "\x89HDF", 4) || !memcmp(head, "PK\3\4", 4));
}

Status import_ids_read(ImportIds *ids, const char *path, const char *array, ImportSource *features) {
    ArrayBox *b = NULL;
    bool given = path && path[0];
    *ids = (ImportIds){0};
    Status st = OK;
    if (given && is_arrays(path)) {
        st = arrays_open(&b, path);
        if (st == OK) st = array_ids(ids, b, path, array, -1);
        arrays_close(b);
    } else if (given) {
        st = text_ids(ids, path);
    } else if (features->kind == SOURCE_EACH && !(array && array[0])) {
        st = own_names(ids, features);
    } else {
        st = array_ids(ids, features->box, features->path, array, features->N);
    }
    /* only the count of ids tells parts of one set from one array an image */
    if (st == OK && ids->n != features->N && !import_source_as_parts(features, ids->n))
        st = err_set(ERR_FORMAT, "%s has %lld rows, but %s %lld ids: one id a row is wanted", features->path,
                     (long long)features->N, given ? path : "it has", (long long)ids->n);
    if (st != OK) import_ids_free(ids);
    return st;
}

void import_ids_free(ImportIds *ids) {
    mem_free_list(ids->id, (size_t)ids->n);
    *ids = (ImportIds){0};
}
