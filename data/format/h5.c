/* h5: see h5.h. */
#include "data/format/h5.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/base/mem.h"

struct H5File {
    hid_t id;
    char *path;
    int64_t bytes;                 /* size of the file; 0 while we write it */
    hid_t rows, rows_space;        /* the data set that h5_rows reads, or -1 */
    char rows_path[64];
};

/* ---- entering and leaving the library ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void enter(void) {
    static bool ready;
    pthread_mutex_lock(&lock);
    if (!ready) {
        ready = true;
        H5dont_atexit();                                  /* it crashes there after a write that failed */
        H5open();
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);                /* each thread has its own where HDF5 knows threads */
}

static Status leave(Status st) {
    H5Eclear2(H5E_DEFAULT);
    pthread_mutex_unlock(&lock);
    return st;
}

static herr_t first_cause(unsigned n, const H5E_error2_t *e, void *out) {
    if (n == 0 && e->desc) snprintf(out, 256, "%s", e->desc);
    return 0;
}

/* "path: thing cannot be <done> (cause)": what happens to files in plain words, all else as the library says it. */
static Status fail(Status st, const char *path, const char *thing, const char *done) {
    char cause[256] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_cause, cause);
    if (strstr(cause, "truncated file")) snprintf(cause, sizeof cause, "the file was cut short; copy it again");
    else if (strstr(cause, "metadata checksum")) snprintf(cause, sizeof cause,
                                                          "its bytes changed since they were written");
    return err_set(st, "%s: %s%scannot be %s (%s)", path, thing, *thing ? " " : "", done, cause);
}

/* Closes any kind of identifier; negative ones are those that were never opened. */
static void drop(hid_t id) {
    if (id >= 0) H5Idec_ref(id);
}

/* ---- element types ---- */

static hid_t half_type(void) {
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    if (t < 0) return t;
    if (H5Tset_fields(t, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(t, 2) >= 0 && H5Tset_ebias(t, 15) >= 0) return t;
    drop(t);
    return -1;
}

static hid_t text_type(size_t width) {
    hid_t t = H5Tcopy(H5T_C_S1);
    if (t < 0) return t;
    if (H5Tset_size(t, width) >= 0 && H5Tset_strpad(t, H5T_STR_NULLPAD) >= 0 &&
        H5Tset_cset(t, H5T_CSET_UTF8) >= 0) return t;
    drop(t);
    return -1;
}

/* A new identifier; drop it. */
static hid_t type_of(H5Kind kind, size_t width) {
    switch (kind) {
    case H5K_I8: return H5Tcopy(H5T_STD_I8LE);
    case H5K_U8: return H5Tcopy(H5T_STD_U8LE);
    case H5K_U16: return H5Tcopy(H5T_STD_U16LE);
    case H5K_U32: return H5Tcopy(H5T_STD_U32LE);
    case H5K_I32: return H5Tcopy(H5T_STD_I32LE);
    case H5K_U64: return H5Tcopy(H5T_STD_U64LE);
    case H5K_I64: return H5Tcopy(H5T_STD_I64LE);
    case H5K_F16: return half_type();
    case H5K_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case H5K_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case H5K_TEXT: return text_type(width);
    case H5K_OTHER: break;
    }
    return -1;
}

/* One byte has no order: h5py may call it big-endian. */
static bool same_type(hid_t t, H5Kind kind, hid_t ours) {
    if (H5Tequal(t, ours) > 0) return true;
    return (kind == H5K_I8 && H5Tequal(t, H5T_STD_I8BE) > 0) || (kind == H5K_U8 && H5Tequal(t, H5T_STD_U8BE) > 0);
}

static H5Kind kind_of(hid_t t) {
    if (H5Tget_class(t) == H5T_STRING) return H5Tis_variable_str(t) == 0 ? H5K_TEXT : H5K_OTHER;
    for (int k = 0; k < H5K_TEXT; k++) {
        hid_t ours = type_of((H5Kind)k, 0);
        bool same = ours >= 0 && same_type(t, (H5Kind)k, ours);
        drop(ours);
        if (same) return (H5Kind)k;
    }
    return H5K_OTHER;
}

/* ---- files ---- */

static void destroy(H5File *f) {
    if (!f) return;
    drop(f->rows_space);
    drop(f->rows);
    free(f->path);
    free(f);
}

static H5File *blank(const char *path) {
    H5File *f = mem_new(1, sizeof *f);
    if (!f) return NULL;
    f->id = f->rows = f->rows_space = -1;
    f->path = mem_strdup(path);
    if (f->path) return f;
    destroy(f);
    return NULL;
}

/* HDF5 locks files by default, which fails on many shared file systems; our writer holds its own lock. */
static hid_t access_list(void) {
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    if (list < 0) return list;
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 12, 1) || (H5_VERSION_GE(1, 10, 7) && !H5_VERSION_GE(1, 12, 0))
    H5Pset_file_locking(list, 0, 1);
#endif
    return list;
}

/* How to create a file, group or data set that does not remember when: equal content makes equal bytes. */
static hid_t timeless(hid_t class) {
    hid_t list = H5Pcreate(class);
    if (list >= 0) H5Pset_obj_track_times(list, 0);
    return list;
}

Status h5_create(H5File **out, const char *path, size_t align) {
    *out = NULL;
    H5File *f = blank(path);
    if (!f) return ERR_MEMORY;
    enter();
    Status st = OK;
    hid_t list = access_list(), plain = timeless(H5P_FILE_CREATE);
    if (list < 0 || plain < 0 || H5Pset_libver_bounds(list, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0 ||
        H5Pset_alignment(list, align, 4096) < 0 || (f->id = H5Fcreate(path, H5F_ACC_TRUNC, plain, list)) < 0)
        st = fail(ERR_IO, path, "", "created");
    drop(plain);
    drop(list);
    leave(st);
    if (st == OK) *out = f;
    else destroy(f);
    return st;
}

/* Ordinary mistakes get an ordinary sentence, and the library never sees a file that is not HDF5. */
static Status look(const char *path, int64_t *bytes) {
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char head[8] = {0};
    struct stat sb;
    FILE *file = fopen(path, "rbe");
    if (!file || fstat(fileno(file), &sb) != 0) {
        if (file) fclose(file);
        return err_set(ERR_IO, "%s: cannot be opened: %m", path);
    }
    bool whole = S_ISREG(sb.st_mode) && fread(head, 1, 8, file) == 8;
    fclose(file);
    *bytes = (int64_t)sb.st_size;
    if (!S_ISREG(sb.st_mode)) return err_set(ERR_FORMAT, "%s: is not a file", path);
    if (!whole || memcmp(head, signature, 8) != 0) return err_set(ERR_FORMAT, "%s: is not an HDF5 file", path);
    return OK;
}

Status h5_open(H5File **out, const char *path) {
    *out = NULL;
    int64_t bytes = 0;
    Status st = look(path, &bytes);
    if (st != OK) return st;
    H5File *f = blank(path);
    if (!f) return ERR_MEMORY;
    f->bytes = bytes;
    enter();
    hid_t list = access_list();
    if (list < 0 || (f->id = H5Fopen(path, H5F_ACC_RDONLY, list)) < 0) st = fail(ERR_FORMAT, path, "", "opened");
    drop(list);
    leave(st);
    if (st == OK) *out = f;
    else destroy(f);
    return st;
}

Status h5_close(H5File *f) {
    if (!f) return OK;
    enter();
    drop(f->rows_space);
    drop(f->rows);
    f->rows = f->rows_space = -1;
    Status st = H5Fclose(f->id) < 0 ? fail(ERR_IO, f->path, "", "closed") : OK;
    leave(st);
    destroy(f);
    return st;
}

/* ---- writing ---- */

Status h5_group(H5File *f, const char *path) {
    enter();
    hid_t list = timeless(H5P_GROUP_CREATE), g = H5Gcreate2(f->id, path, H5P_DEFAULT, list, H5P_DEFAULT);
    Status st = g < 0 ? fail(ERR_IO, f->path, path, "created") : OK;
    drop(g);
    drop(list);
    return leave(st);
}

static Status put_attr(H5File *f, const char *object, const char *name, H5Kind kind, size_t width, const void *value) {
    enter();
    Status st = OK;
    hid_t type = type_of(kind, width), space = H5Screate(H5S_SCALAR);
    hid_t attr = H5Acreate_by_name(f->id, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, value) < 0) st = fail(ERR_IO, f->path, name, "written");
    drop(attr);
    drop(space);
    drop(type);
    return leave(st);
}

Status h5_put_text(H5File *f, const char *object, const char *name, const char *text) {
    size_t n = strlen(text);
    return put_attr(f, object, name, H5K_TEXT, n ? n : 1, text);
}

Status h5_put_int(H5File *f, const char *object, const char *name, int64_t value) {
    return put_attr(f, object, name, H5K_I64, 0, &value);
}

Status h5_put(H5File *f, const char *path, H5Kind kind, size_t width, int ndim, const int64_t *dim, const void *data) {
    BUG_ON(ndim < 1 || ndim > H5_MAX_DIMS, "h5_put: %d dimensions", ndim);
    hsize_t n[H5_MAX_DIMS];
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        n[i] = (hsize_t)dim[i];
        empty |= dim[i] == 0;
    }
    enter();
    Status st = OK;
    hid_t type = type_of(kind, width), space = H5Screate_simple(ndim, n, NULL), list = timeless(H5P_DATASET_CREATE),
        ds = -1;
    if (type < 0 || space < 0 || list < 0 || H5Pset_layout(list, H5D_CONTIGUOUS) < 0 ||
        H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) < 0 || H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) < 0 ||
        (ds = H5Dcreate2(f->id, path, type, space, H5P_DEFAULT, list, H5P_DEFAULT)) < 0)
        st = fail(ERR_IO, f->path, path, "created");
    else if (data && !empty && H5Dwrite(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        st = fail(ERR_IO, f->path, path, "written");
    drop(ds);
    drop(list);
    drop(space);
    drop(type);
    return leave(st);
}

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
    enter();
    bool has = reachable(f, path);
    leave(OK);
    return has;
}

bool h5_has_attr(H5File *f, const char *object, const char *name) {
    enter();
    bool has = reachable(f, object) && H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) > 0;
    leave(OK);
    return has;
}

/* An attribute that holds one value. */
static Status open_attr(H5File *f, const char *object, const char *name, hid_t *attr, hid_t *type) {
    if (!reachable(f, object) || H5Aexists_by_name(f->id, object, name, H5P_DEFAULT) <= 0)
        return err_set(ERR_FORMAT, "%s: %s has no attribute \"%s\"", f->path, object, name);
    *attr = H5Aopen_by_name(f->id, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (*attr < 0) return fail(ERR_FORMAT, f->path, name, "opened");
    *type = H5Aget_type(*attr);
    hid_t space = H5Aget_space(*attr);
    hssize_t n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    drop(space);
    if (*type < 0 || n != 1)
        return err_set(ERR_FORMAT, "%s: attribute \"%s\" of %s must hold one value", f->path, name, object);
    return OK;
}

static char *fixed_text(hid_t attr, hid_t type) {
    size_t n = H5Tget_size(type);
    if (n > H5_MAX_TEXT) return NULL;
    char *s = mem_new(n + 1, 1);
    if (s && H5Aread(attr, type, s) >= 0) return s;
    free(s);
    return NULL;
}

/* h5py writes attributes of variable length. */
static char *variable_text(hid_t attr, hid_t type) {
    char *theirs = NULL, *s = NULL;
    if (H5Aread(attr, type, &theirs) < 0 || !theirs) return NULL;
    if (strnlen(theirs, H5_MAX_TEXT) < H5_MAX_TEXT) s = mem_strdup(theirs);
    H5free_memory(theirs);
    return s;
}

Status h5_get_text(H5File *f, const char *object, const char *name, char **text) {
    *text = NULL;
    enter();
    hid_t attr = -1, type = -1;
    Status st = open_attr(f, object, name, &attr, &type);
    if (st == OK) {
        if (H5Tget_class(type) == H5T_STRING) *text = H5Tis_variable_str(type) > 0 ? variable_text(attr, type)
                                                                                    : fixed_text(attr, type);
        if (!*text)
            st = err_set(ERR_FORMAT, "%s: attribute \"%s\" of %s must be a text of less than %d bytes", f->path, name,
                         object, H5_MAX_TEXT);
    }
    drop(type);
    drop(attr);
    return leave(st);
}

Status h5_get_int(H5File *f, const char *object, const char *name, int64_t *value) {
    enter();
    hid_t attr = -1, type = -1;
    Status st = open_attr(f, object, name, &attr, &type);
    if (st == OK) {
        H5T_class_t class = H5Tget_class(type);          /* h5py writes True and False as an enumeration */
        if ((class != H5T_INTEGER && class != H5T_ENUM) || H5Aread(attr, H5T_NATIVE_INT64, value) < 0)
            st = err_set(ERR_FORMAT, "%s: attribute \"%s\" of %s must be a whole number", f->path, name, object);
    }
    drop(type);
    drop(attr);
    return leave(st);
}

static Status open_set(H5File *f, const char *path, hid_t *ds) {
    if (!reachable(f, path)) return err_set(ERR_FORMAT, "%s: has no %s", f->path, path);
    *ds = H5Dopen2(f->id, path, H5P_DEFAULT);
    return *ds < 0 ? fail(ERR_FORMAT, f->path, path, "opened") : OK;
}

static Status shape_of(H5File *f, const char *path, hid_t ds, H5Info *info) {
    hsize_t dim[H5S_MAX_RANK];
    hid_t space = H5Dget_space(ds);
    info->ndim = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    bool simple = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SIMPLE;
    if (simple && info->ndim >= 1 && info->ndim <= H5_MAX_DIMS) H5Sget_simple_extent_dims(space, dim, NULL);
    else simple = false;
    drop(space);
    if (!simple) return err_set(ERR_FORMAT, "%s: %s must have 1 to %d dimensions", f->path, path, H5_MAX_DIMS);
    size_t count = 1;
    for (int i = 0; i < info->ndim; i++)
        if (dim[i] > INT64_MAX || !mem_mul(count, (size_t)dim[i], &count) || count > INT64_MAX / H5_MAX_TEXT)
            return err_set(ERR_FORMAT, "%s: %s has an impossible shape", f->path, path);
        else info->dim[i] = (int64_t)dim[i];
    info->count = (int64_t)count;
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
        if (H5Pget_external_count(list) != 0)
            st = err_set(ERR_FORMAT, "%s: %s lies in another file, which is not allowed", f->path, path);
        else if (at != HADDR_UNDEF) info->offset = (int64_t)at;
    } else if (layout == H5D_CHUNKED) {
        hsize_t chunk[H5_MAX_DIMS] = {0};
        if (H5Pget_chunk(list, H5_MAX_DIMS, chunk) != info->ndim)
            st = err_set(ERR_FORMAT, "%s: %s has chunks of another number of dimensions", f->path, path);
        for (int i = 0; i < H5_MAX_DIMS; i++) info->chunk[i] = (int64_t)chunk[i];
    } else if (layout != H5D_COMPACT) {
        st = err_set(ERR_FORMAT, "%s: %s has a storage layout that is not allowed", f->path, path);
    }
    drop(list);
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
    memset(info, 0, sizeof *info);
    enter();
    hid_t ds = -1, type = -1;
    Status st = open_set(f, path, &ds);
    if (st != OK) goto done;
    if ((type = H5Dget_type(ds)) < 0) { st = fail(ERR_FORMAT, f->path, path, "understood"); goto done; }
    info->kind = kind_of(type);
    info->integer = H5Tget_class(type) == H5T_INTEGER;
    info->size = H5Tget_size(type);
    if (info->size == 0 || info->size > H5_MAX_TEXT) {
        st = err_set(ERR_FORMAT, "%s: an element of %s has %zu bytes", f->path, path, info->size);
        goto done;
    }
    if ((st = shape_of(f, path, ds, info)) != OK) goto done;
    if ((st = layout_of(f, path, ds, info)) != OK) goto done;
    st = check_extent(f, path, info);
done:
    drop(type);
    drop(ds);
    return leave(st);
}

/* ---- reading ---- */

static hid_t memory_type(hid_t ds, const H5Info *info, H5Kind as) {
    if (as != H5K_TEXT) return type_of(as, 0);
    hid_t stored = H5Dget_type(ds), t = H5Tcopy(stored);  /* keeps the character set, which is never converted */
    drop(stored);
    if (t >= 0 && H5Tset_size(t, info->size + 1) >= 0 && H5Tset_strpad(t, H5T_STR_NULLTERM) >= 0) return t;
    drop(t);
    return -1;
}

Status h5_get(H5File *f, const char *path, const H5Info *info, H5Kind as, void *dst) {
    bool fits = as == info->kind || (info->integer && as < H5K_F16);
    if (!fits) return err_set(ERR_FORMAT, "%s: %s has elements of the wrong type", f->path, path);
    if (info->count == 0) return OK;
    enter();
    hid_t ds = -1, type = -1;
    Status st = open_set(f, path, &ds);
    if (st != OK) goto done;
    if ((type = memory_type(ds, info, as)) < 0 || H5Dread(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, dst) < 0)
        st = fail(ERR_IO, f->path, path, "read");
done:
    drop(type);
    drop(ds);
    return leave(st);
}

/* Copies n strings, theirs[i] or those of a fixed-width array, into one block with the pointers in front. */
static Status pack_strings(const char *path, size_t n, char *const *theirs, const char *fixed, size_t width,
                           char ***strings) {
    size_t bytes = n * sizeof(char *);
    for (size_t i = 0; i < n; i++) bytes += (fixed ? width : theirs[i] ? strnlen(theirs[i], H5_MAX_TEXT) + 1 : 1);
    char **all = mem_new(bytes, 1);
    if (!all) return ERR_MEMORY;
    char *to = (char *)(all + n);
    for (size_t i = 0; i < n; i++) {
        const char *s = fixed ? fixed + i * width : theirs[i] ? theirs[i] : "";
        size_t len = strnlen(s, H5_MAX_TEXT);
        if (len == H5_MAX_TEXT) {
            free(all);
            return err_set(ERR_FORMAT, "%s: string %zu has more than %d bytes", path, i + 1, H5_MAX_TEXT - 1);
        }
        memcpy(all[i] = to, s, len + 1);
        to += len + 1;
    }
    *strings = all;
    return OK;
}

static Status variable_strings(H5File *f, const char *path, const H5Info *info, char ***strings) {
    char **theirs = mem_new((size_t)info->count, sizeof *theirs);
    if (!theirs) return ERR_MEMORY;
    enter();
    hid_t ds = -1, type = -1, space = -1;
    Status st = open_set(f, path, &ds);
    if (st == OK) {
        type = H5Dget_type(ds);
        space = H5Dget_space(ds);
        if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) <= 0)
            st = err_set(ERR_FORMAT, "%s: %s does not hold strings", f->path, path);
        else if (H5Dread(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, theirs) < 0)
            st = fail(ERR_IO, f->path, path, "read");
        else
            st = pack_strings(f->path, (size_t)info->count, theirs, NULL, 0, strings);
        if (type >= 0 && space >= 0) H5Dvlen_reclaim(type, space, H5P_DEFAULT, theirs);
    }
    drop(space);
    drop(type);
    drop(ds);
    free(theirs);
    return leave(st);
}

Status h5_get_strings(H5File *f, const char *path, const H5Info *info, char ***strings) {
    *strings = NULL;
    if (info->kind != H5K_TEXT) return variable_strings(f, path, info, strings);
    size_t width = info->size + 1, bytes;
    char *fixed = mem_mul((size_t)info->count, width, &bytes) ? mem_new(bytes, 1) : NULL;
    if (!fixed) return ERR_MEMORY;
    Status st = h5_get(f, path, info, H5K_TEXT, fixed);
    if (st == OK) st = pack_strings(f->path, (size_t)info->count, NULL, fixed, width, strings);
    free(fixed);
    return st;
}

static Status open_rows(H5File *f, const char *path) {
    if (f->rows >= 0 && strcmp(f->rows_path, path) == 0) return OK;
    drop(f->rows_space);
    drop(f->rows);
    f->rows = f->rows_space = -1;
    Status st = open_set(f, path, &f->rows);
    if (st != OK) return st;
    snprintf(f->rows_path, sizeof f->rows_path, "%s", path);
    f->rows_space = H5Dget_space(f->rows);
    return f->rows_space < 0 ? fail(ERR_IO, f->path, path, "opened") : OK;
}

Status h5_rows(H5File *f, const char *path, int64_t first, int64_t n, void *dst) {
    enter();
    hid_t memory = -1, type = -1;
    hsize_t start[H5_MAX_DIMS] = {(hsize_t)first}, count[H5S_MAX_RANK];
    Status st = open_rows(f, path);
    if (st != OK) goto done;
    int nd = H5Sget_simple_extent_dims(f->rows_space, count, NULL);
    count[0] = (hsize_t)n;
    if (nd < 1 || nd > H5_MAX_DIMS ||
        H5Sselect_hyperslab(f->rows_space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
        (memory = H5Screate_simple(nd, count, NULL)) < 0 || (type = H5Dget_type(f->rows)) < 0 ||
        H5Dread(f->rows, type, memory, f->rows_space, H5P_DEFAULT, dst) < 0)
        st = fail(ERR_IO, f->path, path, "read");
done:
    drop(type);
    drop(memory);
    return leave(st);
}

Status h5_row_offsets(H5File *f, const char *path, const H5Info *info, int64_t *at, bool *all) {
    enter();
    hid_t ds = -1;
    size_t row = (size_t)(info->dim[0] ? info->count / info->dim[0] : 0) * info->size;
    hsize_t start[H5_MAX_DIMS] = {0};
    Status st = open_set(f, path, &ds);
    *all = st == OK;
    for (int64_t i = 0; i < info->dim[0] && *all; i++) {
        unsigned mask = 0;
        haddr_t where = HADDR_UNDEF;
        hsize_t bytes = 0;
        start[0] = (hsize_t)i;
        *all = H5Dget_chunk_info_by_coord(ds, start, &mask, &where, &bytes) >= 0 && bytes == row &&
               where != HADDR_UNDEF && where <= (haddr_t)f->bytes && row <= (size_t)f->bytes - (size_t)where;
        at[i] = (int64_t)where;
    }
    drop(ds);
    return leave(st);
}
