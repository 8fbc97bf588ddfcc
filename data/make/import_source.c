/* import_source: see import_source.h. */
#include "data/make/import_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { MAX_ROW_BYTES = 1 << 30, MOST_KINDS = 8 };

struct SourceFile {
    size_t *pick;                      /* (n) arrays that are read, one after the other */
    size_t n, at;                      /* `at`: the next to begin */
    int64_t left;                      /* rows left of the array that was begun */
    bool leaves, turned;               /* names are ID/KIND or ID_KIND; rows lie as (E, P) */
    uint8_t *row;                      /* turned: as the file has it */
};

static const char *bare(const char *name) { return name + (name[0] == '/'); }

/* ---- shapes ------------------------------------------------------------------------------------------------------ */

static bool square(int64_t n) {
    int64_t r = 0;
    while (r * r < n) r++;
    return r * r == n;
}

/* How wide the tokens of released networks are. */
static bool usual_width(int64_t n) {
    static const int widths[] = {192,  256,  320,  384,  512,  640,  768,  1024, 1152, 1280,
                                 1408, 1536, 1664, 1792, 2048, 2560, 3072, 3200, 4096};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        if (widths[i] == n) return true;
    return false;
}

/* (C, H, W) by its looks: a square at the end, or channels that outnumber both sides; (C, H*W): a width that networks
 * have, then a square (and a class token), as in 768 x 197. */
static bool looks_like_channels(int ndim, const int64_t *d) {
    if (ndim == 3) return (d[1] == d[2] && d[0] != d[1]) || (d[0] > 4 * d[1] && d[0] > 4 * d[2]);
    bool counts = ndim == 2 && d[1] > 8 && (square(d[1]) || square(d[1] - 1)); /* few numbers are no grid */
    if (!counts || d[0] <= d[1]) return false;
    return d[1] % 8 ? d[0] % 64 == 0 : usual_width(d[0]) && !usual_width(d[1]);
}

static Status ask_layout(const char *path, int ndim, const int64_t *d) {
    if (ndim == 3)
        return err_set(
            ERR_FORMAT,
            "%s: (N, %" PRId64 ", %" PRId64 ", %" PRId64 ") looks like maps (N, C, H, W), whose channels "
            "would be taken for tokens; import.layout=channels turns them round, as transpose(0, 2, 3, 1) does; "
            "import.layout=tokens takes %" PRId64 " tokens of %" PRId64 " numbers",
            path, d[0], d[1], d[2], d[0] * d[1], d[2]);
    return err_set(
        ERR_FORMAT,
        "%s: (N, %" PRId64 ", %" PRId64 ") looks like (N, C, H*W), whose channels would be taken for "
        "tokens; import.layout=channels turns them round, as transpose(0, 2, 1) does; import.layout=tokens takes "
        "%" PRId64 " tokens of %" PRId64 " numbers",
        path, d[0], d[1], d[0], d[1]);
}

/* d: the dimensions of one row. */
static Status row_shape(ImportSource *s, int ndim, const int64_t *d, SourceLayout layout) {
    size_t bytes = (size_t)dtype_size(s->dtype);
    while (ndim > 1 && d[0] == 1) d++, ndim--;               /* (1, P, E): a batch of one */
    if (ndim < 1 || ndim > 3)
        return err_set(ERR_FORMAT, "%s: the array has %d dimensions; (N, P, E), (N, E) or (N, h, w, E) is needed",
                       s->path, ndim + (s->kind != SOURCE_EACH));
    for (int i = 0; i < ndim; i++)
        if (d[i] < 1 || !mem_mul(bytes, (size_t)d[i], &bytes) || bytes > MAX_ROW_BYTES)
            return err_set(ERR_FORMAT, "%s: rows of the array are empty or larger than 1 GB", s->path);
    if (layout == LAYOUT_AUTO && looks_like_channels(ndim, d)) return ask_layout(s->path, ndim, d);
    s->file->turned = layout == LAYOUT_CHANNELS && ndim > 1; /* a vector has nothing to turn */
    s->E = s->file->turned ? d[0] : d[ndim - 1];
    s->row_bytes = bytes;
    s->P = (int64_t)(bytes / (size_t)dtype_size(s->dtype)) / s->E;
    if (s->file->turned && !(s->file->row = mem_new(bytes, 1))) return ERR_MEMORY;
    return OK;
}

/* ---- which arrays ------------------------------------------------------------------------------------------------ */

static const char *const usual[] = {"features",     "image_features", "feats", "feat", "embeddings",
                                    "image_embeds", "img_emb",        "data",  NULL};

/* The part of a name that says what it is, not whose: "/391895/features", "391895_grids". "": the name is all id. */
static const char *kind_of(const char *name) {
    const char *slash = strrchr(name, '/');
    if (slash && slash > name) return slash + 1;
    size_t digits = strspn(name + (slash == name), "0123456789") + (size_t)(slash == name);
    return digits > (size_t)(slash == name) && name[digits] == '_' ? name + digits + 1 : "";
}

static Status none_called(const ImportSource *s, const char *array) {
    char list[ARRAYS_LIST];
    return err_set(ERR_FORMAT, "%s: none of its %s is called %s; there are: %s", s->path, arrays_what(s->box), array,
                   arrays_list(s->box, list));
}

static Status say_which(const ImportSource *s) {
    char list[ARRAYS_LIST];
    return err_set(ERR_FORMAT, "%s: several %s, none with a usual name and not one of each size an image; "
                   "import.array=NAME says which one: %s", s->path, arrays_what(s->box), arrays_list(s->box, list));
}

/* Floating-point arrays of a kind (NULL: all) into pick. */
static void pick(ImportSource *s, const char *kind) {
    struct SourceFile *f = s->file;
    f->n = 0;
    for (size_t i = 0; i < arrays_count(s->box); i++) {
        const ArrayItem *a = arrays_at(s->box, i);
        if (a->number && (!kind || !strcmp(kind_of(a->name), kind))) f->pick[f->n++] = i;
    }
}

static bool pick_named(ImportSource *s, const char *array) {
    for (size_t i = 0; i < arrays_count(s->box); i++) {
        const ArrayItem *a = arrays_at(s->box, i);
        size_t n = strlen(bare(array));
        if (n > 4 && !strcmp(array + strlen(array) - 4, ".npy")) n -= 4;
        if (strcmp(bare(a->name), bare(array)) &&            /* as np.load lists them, or as the archive does */
            (strlen(bare(a->name)) != n || strncmp(bare(a->name), bare(array), n)))
            continue;
        s->file->pick[0] = i;
        s->file->n = 1;
        return true;
    }
    return false;
}

/* Few endings on many names say what arrays are; then the usual one counts, or the only one. */
static Status pick_kind(ImportSource *s) {
    const char *kinds[MOST_KINDS + 1];
    struct SourceFile *f = s->file;
    size_t n = 0;
    pick(s, NULL);
    for (size_t k = 0; k < f->n && n <= MOST_KINDS; k++) {
        const char *kind = kind_of(arrays_at(s->box, f->pick[k])->name);
        size_t i = 0;
        while (i < n && strcmp(kinds[i], kind)) i++;
        if (i == n) kinds[n++] = kind;
    }
    /* each kind on two names at least, or it is no kind */
    f->leaves = n && n <= MOST_KINDS && 2 * n <= f->n && kinds[0][0] && !arrays_is_folder(s->box);
    if (!f->leaves || n == 1) return OK;
    for (int u = 0; usual[u]; u++)
        for (size_t i = 0; i < n; i++)
            if (!strcmp(kinds[i], usual[u])) {
                pick(s, kinds[i]);
                return OK;
            }
    return say_which(s);
}

/* One array an image: they must be of one shape. */
static Status check_each(const ImportSource *s) {
    const struct SourceFile *f = s->file;
    const ArrayItem *first = arrays_at(s->box, f->pick[0]);
    for (size_t k = 1; k < f->n; k++) {
        const ArrayItem *a = arrays_at(s->box, f->pick[k]);
        bool same = a->dtype == first->dtype && a->ndim == first->ndim;
        bool rows = same && a->ndim > 1 && !memcmp(a->shape + 1, first->shape + 1, sizeof a->shape - sizeof *a->shape);
        if (same && a->shape[0] == first->shape[0] && (rows || a->ndim < 2)) continue;
        if (rows) continue;                        /* may be parts of one set: that the ids will say */
        return f->n > MOST_KINDS || arrays_is_folder(s->box)
                   ? err_set(ERR_FORMAT, "%s: one array an image, but of different shapes or types: %s and %s", s->path,
                             first->name, a->name)
                   : say_which(s);
    }
    return OK;
}

/* Labels for each row of the first array: then that one is a whole set, and which of several is for the user to say. */
static bool has_row_labels(const ImportSource *s) {
    const ArrayItem *first = arrays_at(s->box, s->file->pick[0]);
    for (size_t i = 0; i < arrays_count(s->box); i++) {
        const ArrayItem *a = arrays_at(s->box, i);
        if (a->label && !a->number && first->ndim > 1 && a->elements == first->shape[0] && a->elements > 1) return true;
    }
    return false;
}

static Status choose(ImportSource *s, const char *array) {
    struct SourceFile *f = s->file;
    bool folder = arrays_is_folder(s->box);
    if (array && array[0] && !folder) {
        if (pick_named(s, array)) return OK;
        pick(s, array);
        f->leaves = f->n > 0;
        return f->n ? check_each(s) : none_called(s, array);
    }
    for (int u = 0; usual[u] && !folder; u++)
        /* the usual names first: who has one means it */
        if (pick_named(s, usual[u]) && arrays_at(s->box, f->pick[0])->number) return OK;
    Status st = pick_kind(s);
    if (st != OK || (f->n == 1 && !folder)) return st;
    for (size_t i = 0; !f->n && i < arrays_count(s->box); i++)
        if (arrays_at(s->box, i)->pickled) return arrays_pickled(s->box, i);
    if (!f->n)
        return err_set(ERR_FORMAT, "%s: none of its %s holds floating-point numbers (f16, bf16, f32, f64); there are: "
                       "%s", s->path, arrays_what(s->box), arrays_list(s->box, (char[ARRAYS_LIST]){0}));
    if (has_row_labels(s)) return say_which(s);              /* several whole sets: joining them would be a guess */
    return check_each(s);
}

Status import_source_open(ImportSource *s, const char *path, const char *array, SourceLayout layout) {
    *s = (ImportSource){.path = path};
    Status st = arrays_open(&s->box, path);
    if (st == OK && !(s->file = mem_new(1, sizeof *s->file))) st = ERR_MEMORY;
    if (st == OK && !(s->file->pick = mem_new(arrays_count(s->box), sizeof *s->file->pick))) st = ERR_MEMORY;
    if (st == OK) st = choose(s, array);
    if (st == OK) {
        const ArrayItem *a = arrays_at(s->box, s->file->pick[0]);
        bool each = s->file->n > 1 || arrays_is_folder(s->box) || s->file->leaves;
        s->kind = each ? SOURCE_EACH : SOURCE_ROWS;
        s->dtype = a->dtype;
        s->N = each ? (int64_t)s->file->n : a->ndim ? a->shape[0] : 0;
        if (a->pickled) st = arrays_pickled(s->box, s->file->pick[0]);
        else if (!a->number)
            st = err_set(ERR_FORMAT, "%s: %s holds no floating-point numbers (f16, bf16, f32, f64), which features are",
                         path, a->name[0] ? a->name : "the array");
        else if (s->N < 1) st = err_set(ERR_FORMAT, "%s: the array has no rows", path);
        /* of one array the first dimension counts the rows */
        else st = row_shape(s, a->ndim - !each, a->shape + !each, layout);
    }
    if (st != OK) import_source_close(s);
    return st;
}

int64_t import_source_arrays(const ImportSource *s) { return (int64_t)s->file->n; }

char *import_source_name(const ImportSource *s, int64_t i) {
    const char *name = bare(arrays_at(s->box, s->file->pick[i])->name), *kind = s->file->leaves ? kind_of(name) : "";
    size_t n = strlen(name);
    const char *dot = arrays_is_folder(s->box) ? strrchr(name, '.') : NULL;
    if (kind[0]) n = (size_t)(kind - name) - 1;
    else if (dot) n = (size_t)(dot - name);
    return mem_format("%.*s", (int)n, name);
}

bool import_source_as_parts(ImportSource *s, int64_t n) {
    int64_t rows = 0;
    for (size_t k = 0; k < s->file->n; k++) rows += arrays_at(s->box, s->file->pick[k])->shape[0];
    const ArrayItem *a = arrays_at(s->box, s->file->pick[0]);
    if (s->kind != SOURCE_EACH || rows != n || a->ndim < 2 || s->file->turned) return false;
    s->kind = SOURCE_PARTS;
    s->N = n;
    return row_shape(s, a->ndim - 1, a->shape + 1, LAYOUT_TOKENS) == OK; /* rows are those of the parts now */
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

static Status next_array(ImportSource *s) {
    struct SourceFile *f = s->file;
    const ArrayItem *a = arrays_at(s->box, f->pick[f->at]);
    size_t bytes = (size_t)a->elements * (size_t)dtype_size(a->dtype);
    if (s->kind == SOURCE_EACH && bytes != s->row_bytes)     /* one place in the shard, one size */
        return err_set(ERR_FORMAT, "%s: one array an image, but %s has %" PRId64 " numbers and %s %" PRId64
                       ": one number of tokens is needed", s->path, arrays_at(s->box, f->pick[0])->name,
                       arrays_at(s->box, f->pick[0])->elements, a->name, a->elements);
    f->left = s->kind == SOURCE_EACH ? 1 : a->shape[0];
    return arrays_begin(s->box, f->pick[f->at++]);
}

/* (E, P) to (P, E) */
static void turn(uint8_t *dst, const uint8_t *src, int64_t P, int64_t E, size_t size) {
    for (int64_t p = 0; p < P; p++)
        for (int64_t e = 0; e < E; e++, dst += size) memcpy(dst, src + (size_t)(e * P + p) * size, size);
}

Status import_source_next(ImportSource *s, void *row) {
    struct SourceFile *f = s->file;
    Status st = OK;
    while (st == OK && !f->left) st = next_array(s);         /* a loop: a part may have no rows */
    if (st != OK) return st;
    f->left--;
    st = arrays_read(s->box, f->turned ? f->row : row, s->row_bytes);
    if (st == OK && f->turned) turn(row, f->row, s->P, s->E, (size_t)dtype_size(s->dtype));
    return st;
}

Status import_source_rewind(ImportSource *s) {
    s->file->at = 0;
    s->file->left = 0;
    return OK;
}

void import_source_close(ImportSource *s) {
    if (s->file) mem_free(s->file->pick, s->file->row, s->file);
    arrays_close(s->box);
    *s = (ImportSource){0};
}
