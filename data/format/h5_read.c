/* h5_read: the reading half of h5.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/h5_private.h"
#include "kernels/base/mem.h"

/* ---- looking ---- */

/* Every step of the path must be a plain link, so that no file can lead us into another one. */
static bool reachable(H5File *f, const char *path) {
    char part[256];
    for (size_t i = 1; i < sizeof part - 1; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        H5L_info_t link;
        if (i > 1 && (H5Lexists(f->id, part, H5P_DEFAULT) <= 0 || H5Lget_info(f->id, part, &link, H5P_DEFAULT) < 0 ||
                      link.type != H5L_TYPE_HARD)) return false;
        if (path[i] == 0) return true;
    }
    return false;
}

bool h5_has(H5File *f, const char *path) {
    h5_enter();
    bool has = reachable(f, path);
    h5_leave(OK);
    return has;
}

bool h5_has_attr(H5File *f, const char *object, const char *name) {
    h5_enter();
    bool has = reachable(f, object) && H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) > 0;
    h5_leave(OK);
    return has;
}

/* An attribute that holds one value. */
static Status open_attr(H5File *f, const char *object, const char *name, hid_t *attr, hid_t *type) {
    if (!reachable(f, object) || H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) <= 0)
        return err_set(ERR_FORMAT, "%s: %s has no attribute \"%s\"", f->path, object, name);
    *attr = H5Aopen_by_name(f->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (*attr < 0) return h5_fail(ERR_FORMAT, f->path, name, "opened");
    *type = H5Aget_type(*attr);
    hid_t space = H5Aget_space(*attr);
    hssize_t n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    h5_drop(space);
    if (*type < 0 || n != 1)
        return err_set(ERR_FORMAT, "%s: attribute \"%s\" of %s must hold one value", f->path, name, object);
    return OK;
}

static char *fixed_text(hid_t attr, hid_t type) {
    size_t n = H5Tget_size(type);
    if (n > H5_MAX_TEXT) return NULL;                        /* an attribute is a name, a recipe, a template */
    char *s = mem_new(n + 1, 1);
    if (s && H5Aread(attr, type, s) >= 0) return s;
    free(s);
    return NULL;
}

/* h5py writes attributes of variable length. */
static char *variable_text(hid_t attr, hid_t type) {
    char *theirs = NULL, *s = NULL;
    if (H5Aread(attr, type, &theirs) < 0 || !theirs) return NULL;
    if (strnlen(theirs, H5_MAX_TEXT) < H5_MAX_TEXT) s = mem_strdup(theirs); /* theirs is freed by their allocator */
    H5free_memory(theirs);
    return s;
}

Status h5_get_text(H5File *f, const char *object, const char *name, char **text) {
    *text = NULL;
    h5_enter();
    hid_t attr = -1, type = -1;
    Status st = open_attr(f, object, name, &attr, &type);
    if (st == OK) {
        if (H5Tget_class(type) == H5T_STRING) *text = H5Tis_variable_str(type) > 0 ? variable_text(attr, type)
                                                                                    : fixed_text(attr, type);
        if (!*text)
            st = err_set(ERR_FORMAT, "%s: attribute \"%s\" of %s must be a text of less than %d bytes", f->path, name,
                         object, H5_MAX_TEXT);
    }
    h5_drop(type);
    h5_drop(attr);
    return h5_leave(st);
}

Status h5_get_int(H5File *f, const char *object, const char *name, int64_t *value) {
    h5_enter();
    hid_t attr = -1, type = -1;
    Status st = open_attr(f, object, name, &attr, &type);
    if (st == OK) {
        H5T_class_t class = H5Tget_class(type);          /* h5py writes True and False as an enumeration */
        if ((class != H5T_INTEGER && class != H5T_ENUM) || H5Aread(attr, H5T_NATIVE_INT64, value) < 0)
            st = err_set(ERR_FORMAT, "%s: attribute \"%s\" of %s must be a whole number", f->path, name, object);
    }
    h5_drop(type);
    h5_drop(attr);
    return h5_leave(st);
}

static Status open_set(H5File *f, const char *path, hid_t *ds) {
    if (!reachable(f, path)) return err_set(ERR_FORMAT, "%s: has no %s", f->path, path);
    *ds = H5Dopen2(f->id, path, H5P_DEFAULT);
    return *ds < 0 ? h5_fail(ERR_FORMAT, f->path, path, "opened") : OK;
}

/* Enters the library with a data set open; set_leave, always, closes it and a type of it (-1: none) and leaves. */
static Status set_enter(H5File *f, const char *path, hid_t *ds, hid_t *type) {
    *ds = *type = -1;
    h5_enter();
    return open_set(f, path, ds);
}

static Status set_leave(Status st, hid_t ds, hid_t type) {
    h5_drop(type);
    h5_drop(ds);
    return h5_leave(st);
}

static Status shape_of(H5File *f, const char *path, hid_t ds, H5Info *info) {
    hsize_t dim[H5S_MAX_RANK];
    hid_t space = H5Dget_space(ds);
    info->ndim = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    bool simple = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SIMPLE;
    if (simple && info->ndim >= 1 && info->ndim <= H5_MAX_DIMS) H5Sget_simple_extent_dims(space, dim, NULL);
    else simple = false;
    h5_drop(space);
    if (!simple) return err_set(ERR_FORMAT, "%s: %s must have 1 to %d dimensions", f->path, path, H5_MAX_DIMS);
    size_t count = 1;
    for (int i = 0; i < info->ndim; i++)
        /* so that count times an element's size fits wherever it is taken */
        if (dim[i] > INT64_MAX || !mem_mul(count, (size_t)dim[i], &count) || count > INT64_MAX / H5_MAX_TEXT)
            return err_set(ERR_FORMAT, "%s: %s has an impossible shape", f->path, path);
        else info->dim[i] = (int64_t)dim[i];
    info->count = (int64_t)count;
    return OK;
}

/* Compression that this library lacks gets its name; the library would blame a folder of plugins. */
static Status check_filters(H5File *f, const char *path, hid_t list) {
    static const struct { int id; const char *name; } known[] = {
        {4, "szip"}, {307, "bzip2"}, {32001, "blosc"}, {32004, "lz4"}, {32008, "bitshuffle"}, {32013, "zfp"},
        {32015, "zstd"}, {32017, "sz"}, {32026, "blosc2"}};
    for (int i = 0; i < H5Pget_nfilters(list); i++) {
        unsigned flags, config;
        size_t n = 0;
        char name[64] = "";
        int id = (int)H5Pget_filter2(list, (unsigned)i, &flags, &n, NULL, sizeof name, name, &config);
        if (id < 0 || H5Zfilter_avail(id) > 0) continue;     /* what can be unpacked is no obstacle */
        for (size_t k = 0; k < sizeof known / sizeof *known; k++)
            if (known[k].id == id) snprintf(name, sizeof name, "%s", known[k].name);
        return err_set(ERR_FORMAT,
                       "%s: %s is compressed by %.60s (HDF5 filter %d), which the HDF5 of this program lacks; "
                       "h5repack -f GZIP=1 %s new.h5 makes a file that it reads, where that filter is installed",
                       f->path, path, name[0] ? name : "an unknown filter", id, f->path);
    }
    return OK;
}

static Status layout_of(H5File *f, const char *path, hid_t ds, H5Info *info) {
    Status st = OK;
    hid_t list = H5Dget_create_plist(ds);
    H5D_layout_t layout = list < 0 ? H5D_LAYOUT_ERROR : H5Pget_layout(list);
    info->offset = -1;
    info->filtered = list >= 0 && H5Pget_nfilters(list) != 0;
    if (layout == H5D_CONTIGUOUS) {
        haddr_t at = H5Dget_offset(ds);
        if (H5Pget_external_count(list) != 0)                /* a set must not read the user's other files */
            st = err_set(ERR_FORMAT, "%s: %s lies in another file, which is not allowed", f->path, path);
        else if (at != HADDR_UNDEF) info->offset = (int64_t)at;
    } else if (layout == H5D_CHUNKED) {
        hsize_t chunk[H5_MAX_DIMS] = {0};
        st = check_filters(f, path, list);
        if (st == OK && H5Pget_chunk(list, H5_MAX_DIMS, chunk) != info->ndim)
            st = err_set(ERR_FORMAT, "%s: %s has chunks of another number of dimensions", f->path, path);
        for (int i = 0; i < H5_MAX_DIMS; i++) info->chunk[i] = (int64_t)chunk[i];
    } else if (layout != H5D_COMPACT) {
        st = err_set(ERR_FORMAT, "%s: %s has a storage layout that is not allowed", f->path, path);
    }
    h5_drop(list);
    return st;
}

/* Contiguous data lies inside the file; anything else may be larger than what is stored, within reason. */
static Status check_extent(const H5File *f, const char *path, const H5Info *info) {
    size_t bytes;
    if (f->bytes == 0) return OK;
    if (!mem_mul((size_t)info->count, info->size, &bytes) || bytes > INT64_MAX)
        return err_set(ERR_FORMAT, "%s: %s has an impossible size", f->path, path);
    if (info->offset >= 0 && (info->offset > f->bytes || (int64_t)bytes > f->bytes - info->offset))
        return err_set(ERR_FORMAT, "%s: %s ends after the end of the file", f->path, path);
    if (info->offset < 0 && (int64_t)bytes / 1024 > f->bytes)
        return err_set(ERR_FORMAT, "%s: %s claims %zu bytes in a file of %lld", f->path, path, bytes,
                       (long long)f->bytes);
    return OK;
}

Status h5_info(H5File *f, const char *path, H5Info *info) {
    hid_t ds, type;
    memset(info, 0, sizeof *info);
    Status st = set_enter(f, path, &ds, &type);
    if (st == OK && (type = H5Dget_type(ds)) < 0) st = h5_fail(ERR_FORMAT, f->path, path, "understood");
    if (st != OK) return set_leave(st, ds, type);
    info->kind = h5_kind_of(type, &info->swapped);
    info->text = H5Tget_class(type) == H5T_STRING;
    info->integer = H5Tget_class(type) == H5T_INTEGER;
    info->size = H5Tget_size(type);
    /* an element is a number or a name, and its size is multiplied below */
    if (info->size == 0 || info->size > H5_MAX_TEXT)
        st = err_set(ERR_FORMAT, "%s: an element of %s has %zu bytes", f->path, path, info->size);
    if (st == OK) st = shape_of(f, path, ds, info);
    if (st == OK) st = layout_of(f, path, ds, info);
    if (st == OK) st = check_extent(f, path, info);
    return set_leave(st, ds, type);
}

/* ---- reading ---- */

static hid_t memory_type(hid_t ds, const H5Info *info, H5Kind as) {
    if (as != H5K_TEXT) return h5_type_of(as, 0);
    hid_t stored = H5Dget_type(ds), t = H5Tcopy(stored);  /* keeps the character set, which is never converted */
    h5_drop(stored);
    /* strings of fixed width may have no NUL */
    if (t >= 0 && H5Tset_size(t, info->size + 1) >= 0 && H5Tset_strpad(t, H5T_STR_NULLTERM) >= 0) return t;
    h5_drop(t);
    return -1;
}

Status h5_get(H5File *f, const char *path, const H5Info *info, H5Kind as, void *dst) {
    /* integers convert; floats of another size would round in silence */
    bool fits = as == info->kind || (info->integer && as < H5K_F16);
    if (!fits) return err_set(ERR_FORMAT, "%s: %s has elements of the wrong type", f->path, path);
    if (info->count == 0) return OK;
    hid_t ds, type;
    Status st = set_enter(f, path, &ds, &type);
    if (st == OK && ((type = memory_type(ds, info, as)) < 0 ||
                     H5Dread(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, dst) < 0))
        st = h5_fail(ERR_IO, f->path, path, "read");
    return set_leave(st, ds, type);
}

static Status give_text(const char *path, int64_t i, const char *s, LabelFn *fn, void *ctx) {
    size_t n = s ? strnlen(s, H5_MAX_TEXT) : 0;
    if (n == H5_MAX_TEXT)
        return err_set(ERR_FORMAT, "%s: string %lld has more than %d bytes", path, (long long)i + 1, H5_MAX_TEXT - 1);
    return fn(ctx, s ? s : "", n);
}

static Status variable_texts(H5File *f, const char *path, const H5Info *info, LabelFn *fn, void *ctx) {
    char **theirs = mem_new((size_t)info->count, sizeof *theirs);
    if (!theirs) return ERR_MEMORY;
    hid_t ds, type, space = -1;
    Status st = set_enter(f, path, &ds, &type);
    if (st == OK) {
        type = H5Dget_type(ds);
        space = H5Dget_space(ds);
        /* anything else would be read as pointers */
        if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) <= 0)
            st = err_set(ERR_FORMAT, "%s: %s does not hold strings", f->path, path);
        else if (H5Dread(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, theirs) < 0)
            st = h5_fail(ERR_IO, f->path, path, "read");
        for (int64_t i = 0; i < info->count && st == OK; i++) st = give_text(f->path, i, theirs[i], fn, ctx);
        /* also what a failed read left behind */
        if (type >= 0 && space >= 0) H5Dvlen_reclaim(type, space, H5P_DEFAULT, theirs);
    }
    h5_drop(space);
    free(theirs);
    return set_leave(st, ds, type);
}

Status h5_get_texts(H5File *f, const char *path, const H5Info *info, LabelFn *fn, void *ctx) {
    if (info->kind != H5K_TEXT) return variable_texts(f, path, info, fn, ctx);
    size_t width = info->size + 1, bytes;
    char *fixed = mem_mul((size_t)info->count, width, &bytes) ? mem_new(bytes, 1) : NULL;
    if (!fixed) return ERR_MEMORY;
    Status st = h5_get(f, path, info, H5K_TEXT, fixed);
    for (int64_t i = 0; i < info->count && st == OK; i++)
        st = give_text(f->path, i, fixed + (size_t)i * width, fn, ctx);
    free(fixed);
    return st;
}

static Status open_rows(H5File *f, const char *path) {
    if (f->rows >= 0 && strcmp(f->rows_path, path) == 0) return OK;
    h5_drop(f->rows_space);
    h5_drop(f->rows);
    f->rows = f->rows_space = -1;
    Status st = open_set(f, path, &f->rows);
    if (st != OK) return st;
    snprintf(f->rows_path, sizeof f->rows_path, "%s", path);
    f->rows_space = H5Dget_space(f->rows);
    return f->rows_space < 0 ? h5_fail(ERR_IO, f->path, path, "opened") : OK;
}

Status h5_rows(H5File *f, const char *path, H5Kind as, int64_t first, int64_t n, void *dst) {
    h5_enter();
    hid_t memory = -1, type = -1;
    hsize_t start[H5_MAX_DIMS] = {(hsize_t)first}, count[H5S_MAX_RANK];
    Status st = open_rows(f, path);
    if (st != OK) goto done;
    int nd = H5Sget_simple_extent_dims(f->rows_space, count, NULL);
    count[0] = (hsize_t)n;
    if (nd < 1 || nd > H5_MAX_DIMS ||
        H5Sselect_hyperslab(f->rows_space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        (memory = H5Screate_simple(nd, count, NULL)) < 0 ||
        (type = as == H5K_OTHER ? H5Dget_type(f->rows) : h5_type_of(as, 0)) < 0 || /* OTHER: as it lies in the file */
        H5Dread(f->rows, type, memory, f->rows_space, H5P_DEFAULT, dst) < 0)
        st = h5_fail(ERR_IO, f->path, path, "read");
done:
    h5_drop(type);
    h5_drop(memory);
    return h5_leave(st);
}

Status h5_row_offsets(H5File *f, const char *path, const H5Info *info, int64_t *at, bool *all) {
    hid_t ds, type;
    size_t row = (size_t)(info->dim[0] ? info->count / info->dim[0] : 0) * info->size;
    hsize_t start[H5_MAX_DIMS] = {0};
    Status st = set_enter(f, path, &ds, &type);
    *all = st == OK;
    for (int64_t i = 0; i < info->dim[0] && *all; i++) {
        unsigned mask = 0;
        haddr_t where = HADDR_UNDEF;
        hsize_t bytes = 0;
        start[0] = (hsize_t)i;
        /* as stored: what has another size went through a filter */
        *all = H5Dget_chunk_info_by_coord(ds, start, &mask, &where, &bytes) >= 0 && bytes == row &&
               where != HADDR_UNDEF && where <= (haddr_t)f->bytes && row <= (size_t)f->bytes - (size_t)where;
        at[i] = (int64_t)where;
    }
    return set_leave(st, ds, type);
}

/* ---- what is in a file ---- */

typedef struct { H5ListFn *fn; void *ctx; } Lister;

static herr_t list_link(hid_t group, const char *name, const H5L_info_t *link, void *ctx) {
    Lister *l = ctx;
    char path[256];
    /* passed over as h5_has would: no file leads us into another */
    if (link->type != H5L_TYPE_HARD || (size_t)snprintf(path, sizeof path, "/%s", name) >= sizeof path - 1) return 0;
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    bool set = object >= 0 && H5Iget_type(object) == H5I_DATASET;
    h5_drop(object);
    return set && !l->fn(l->ctx, path) ? 1 : 0;
}

Status h5_list(H5File *f, H5ListFn *fn, void *ctx) {
    Lister l = {fn, ctx};
    h5_enter();
    Status st = H5Lvisit(f->id, H5_INDEX_NAME, H5_ITER_INC, list_link, &l) < 0
                    ? h5_fail(ERR_FORMAT, f->path, "", "listed")
                    : OK;
    return h5_leave(st);
}
