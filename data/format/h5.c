/* h5: see h5.h. */
#include "data/format/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/h5_private.h"
#include "data/format/lzf.h"
#include "kernels/base/mem.h"

/* ---- entering and leaving the library ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* LZF, for reading: h5py brings it along, the library does not. cd[2] is the size of a chunk. */
static size_t lzf_filter(unsigned flags, size_t ncd, const unsigned cd[], size_t bytes, size_t *size, void **buf) {
    enum { GAIN = 100 };                                  /* a copy of 264 bytes takes 3 */
    size_t room = ncd > 2 && cd[2] && cd[2] / GAIN <= bytes ? cd[2] : bytes * GAIN;
    void *out = flags & H5Z_FLAG_REVERSE ? H5allocate_memory(room, false) : NULL;
    size_t got = out ? lzf_unpack(out, room, *buf, bytes) : 0;
    if (!got) {
        H5free_memory(out);
        return 0;
    }
    H5free_memory(*buf);
    *buf = out;
    *size = room;
    return got;
}

static const H5Z_class2_t lzf = {.version = H5Z_CLASS_T_VERS, .id = 32000, .encoder_present = 0, .decoder_present = 1,
                                 .name = "lzf", .filter = lzf_filter};

void h5_enter(void) {
    static bool ready;
    pthread_mutex_lock(&lock);
    if (!ready) {
        ready = true;
        H5dont_atexit();                                  /* it crashes there after a write that failed */
        H5open();
        H5Zregister(&lzf);
    }
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);                /* each thread has its own where HDF5 knows threads */
}

Status h5_leave(Status st) {
    H5Eclear2(H5E_DEFAULT);
    pthread_mutex_unlock(&lock);
    return st;
}

static herr_t first_cause(unsigned n, const H5E_error2_t *e, void *out) {
    if (n == 0 && e->desc) snprintf(out, 256, "%s", e->desc);
    return 0;
}

/* "path: thing cannot be <done> (cause)": what happens to files in plain words, all else as the library says it. */
Status h5_fail(Status st, const char *path, const char *thing, const char *done) {
    char cause[256] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_cause, cause);
    if (strstr(cause, "truncated file")) snprintf(cause, sizeof cause, "it ends before its data do: "
            "it was cut short, or the program that writes it has not closed it");
    else if (strstr(cause, "metadata checksum")) snprintf(cause, sizeof cause,
                                                          "its bytes changed since they were written");
    return err_set(st, "%s: %s%scannot be %s (%s)", path, thing, *thing ? " " : "", done, cause);
}

/* Closes any kind of identifier; negative ones are those that were never opened. */
void h5_drop(hid_t id) {
    if (id >= 0) H5Idec_ref(id);
}

/* ---- element types ---- */

static hid_t half_type(void) {
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    if (t < 0) return t;
    if (H5Tset_fields(t, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(t, 2) >= 0 && H5Tset_ebias(t, 15) >= 0) return t;
    h5_drop(t);
    return -1;
}

static hid_t text_type(size_t width) {
    hid_t t = H5Tcopy(H5T_C_S1);
    if (t < 0) return t;
    if (H5Tset_size(t, width) >= 0 && H5Tset_strpad(t, H5T_STR_NULLPAD) >= 0 &&
        H5Tset_cset(t, H5T_CSET_UTF8) >= 0) return t;
    h5_drop(t);
    return -1;
}

/* A new identifier; drop it. */
hid_t h5_type_of(H5Kind kind, size_t width) {
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

/* A copy of an element type in the other byte order. */
static hid_t little(hid_t t) {
    hid_t copy = H5Tget_order(t) == H5T_ORDER_BE ? H5Tcopy(t) : -1;
    if (copy >= 0 && H5Tset_order(copy, H5T_ORDER_LE) >= 0) return copy;
    h5_drop(copy);
    return -1;
}

static H5Kind number_kind(hid_t t) {
    for (int k = 0; k < H5K_TEXT; k++) {
        hid_t ours = h5_type_of((H5Kind)k, 0);
        bool same = ours >= 0 && same_type(t, (H5Kind)k, ours);
        h5_drop(ours);
        if (same) return (H5Kind)k;
    }
    return H5K_OTHER;
}

H5Kind h5_kind_of(hid_t t, H5Kind *swapped) {
    *swapped = H5K_OTHER;
    if (H5Tget_class(t) == H5T_STRING) return H5Tis_variable_str(t) == 0 ? H5K_TEXT : H5K_OTHER;
    H5Kind kind = number_kind(t);
    hid_t turned = kind == H5K_OTHER ? little(t) : -1;
    if (turned >= 0) *swapped = number_kind(turned);
    h5_drop(turned);
    return kind;
}

/* ---- files ---- */

static void destroy(H5File *f) {
    if (!f) return;
    h5_drop(f->rows_space);
    h5_drop(f->rows);
    mem_free(f->path, f);
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
    H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);            /* an identifier left open would keep the file open */
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
    h5_enter();
    Status st = OK;
    hid_t list = access_list(), plain = timeless(H5P_FILE_CREATE);
    if (list < 0 || plain < 0 || H5Pset_libver_bounds(list, H5F_LIBVER_V18, H5F_LIBVER_V18) < 0 ||
        /* format of 1.8: old h5py on clusters reads it */
        H5Pset_alignment(list, align, 4096) < 0 || (f->id = H5Fcreate(path, H5F_ACC_TRUNC, plain, list)) < 0)
        st = h5_fail(ERR_IO, path, "", "created");
    h5_drop(plain);
    h5_drop(list);
    h5_leave(st);
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
    /* the library would look for a signature at every power of two */
    bool whole = S_ISREG(sb.st_mode) && fread(head, 1, 8, file) == 8;
    fclose(file);
    *bytes = (int64_t)sb.st_size;
    if (!S_ISREG(sb.st_mode)) return err_set(ERR_FORMAT, "%s: is not a file", path);
    if (!whole || memcmp(head, signature, 8) != 0) return err_set(ERR_FORMAT, "%s: is not an HDF5 file", path);
    return OK;
}

Status h5_settled(const char *path) {
    enum { VERSION = 8, FLAGS = 11, WRITING = 1 | 4 };            /* superblock versions 2 and 3: write access, SWMR */
    unsigned char head[12] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(ERR_IO, "%s: cannot be opened: %m", path);
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    bool whole = pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head;
    close(fd);
    if (held) return err_set(ERR_FORMAT, "%s: another process has it open for writing; wait until it is closed", path);
    if (whole && head[VERSION] >= 2 && head[VERSION] <= 3 && head[FLAGS] & WRITING)
        return err_set(ERR_FORMAT,
                       "%s: is still open for writing, or the program that wrote it did not close it, so rows may "
                       "be missing; if nobody writes it any more, h5clear -s %s takes the mark away",
                       path, path);
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
    h5_enter();
    hid_t list = access_list();
    if (list < 0 || (f->id = H5Fopen(path, H5F_ACC_RDONLY, list)) < 0) st = h5_fail(ERR_FORMAT, path, "", "opened");
    h5_drop(list);
    h5_leave(st);
    if (st != OK && strstr(err_message(), "already open")) h5_settled(path);        /* says it in plain words */
    if (st == OK) *out = f;
    else destroy(f);
    return st;
}

Status h5_close(H5File *f) {
    if (!f) return OK;
    h5_enter();
    h5_drop(f->rows_space);                                  /* before the file: CLOSE_STRONG would take them along */
    h5_drop(f->rows);
    f->rows = f->rows_space = -1;
    Status st = H5Fclose(f->id) < 0 ? h5_fail(ERR_IO, f->path, "", "closed") : OK;
    h5_leave(st);
    destroy(f);
    return st;
}

/* ---- writing ---- */

Status h5_group(H5File *f, const char *path) {
    h5_enter();
    hid_t list = timeless(H5P_GROUP_CREATE), g = H5Gcreate2(f->id, path, H5P_DEFAULT, list, H5P_DEFAULT);
    Status st = g < 0 ? h5_fail(ERR_IO, f->path, path, "created") : OK;
    h5_drop(g);
    h5_drop(list);
    return h5_leave(st);
}

static Status put_attr(H5File *f, const char *object, const char *name, H5Kind kind, size_t width, const void *value) {
    h5_enter();
    Status st = OK;
    hid_t type = h5_type_of(kind, width), space = H5Screate(H5S_SCALAR);
    hid_t attr = H5Acreate_by_name(f->id, object, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, value) < 0) st = h5_fail(ERR_IO, f->path, name, "written");
    h5_drop(attr);
    h5_drop(space);
    h5_drop(type);
    return h5_leave(st);
}

Status h5_put_text(H5File *f, const char *object, const char *name, const char *text) {
    size_t n = strlen(text);
    return put_attr(f, object, name, H5K_TEXT, n ? n : 1, text); /* HDF5 has no strings of width 0 */
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
    h5_enter();
    Status st = OK;
    hid_t type = h5_type_of(kind, width), space = H5Screate_simple(ndim, n, NULL), list = timeless(H5P_DATASET_CREATE),
        ds = -1;
    if (type < 0 || space < 0 || list < 0 || H5Pset_layout(list, H5D_CONTIGUOUS) < 0 ||
        /* rows are written by pwrite: places first, and no fill that would write all twice */
        H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY) < 0 || H5Pset_fill_time(list, H5D_FILL_TIME_NEVER) < 0 ||
        (ds = H5Dcreate2(f->id, path, type, space, H5P_DEFAULT, list, H5P_DEFAULT)) < 0)
        st = h5_fail(ERR_IO, f->path, path, "created");
    else if (data && !empty && H5Dwrite(ds, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        st = h5_fail(ERR_IO, f->path, path, "written");
    h5_drop(ds);
    h5_drop(list);
    h5_drop(space);
    h5_drop(type);
    return h5_leave(st);
}

Status h5_put_texts(H5File *f, const char *path, int64_t n, H5Text *text, const void *ctx) {
    size_t width = 1;                                        /* HDF5 has no text of no bytes */
    for (int64_t i = 0; i < n; i++) {
        size_t len = strlen(text(ctx, i));
        if (len > width) width = len;
    }
    char *all = mem_new((size_t)n, width);
    if (!all) return ERR_MEMORY;
    for (int64_t i = 0; i < n; i++) memcpy(all + (size_t)i * width, text(ctx, i), strlen(text(ctx, i)));
    Status st = h5_put(f, path, H5K_TEXT, width, 1, &n, all);
    free(all);
    return st;
}
