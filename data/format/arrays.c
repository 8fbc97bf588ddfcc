/* arrays: see arrays.h. A format is a row of functions; what it needs open stands in the box. */
#include "data/format/arrays.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/filekind.h"
#include "data/format/h5.h"
#include "data/format/npy.h"
#include "data/format/path.h"
#include "data/format/pth.h"
#include "data/format/safetensors.h"
#include "kernels/base/mem.h"

enum { MAX_ROW_BYTES = 1 << 30, BUFFER = 16 << 20 };

typedef struct {
    const char *what;
    Status (*list)(ArrayBox *b);
    Status (*begin)(ArrayBox *b, size_t i);
    Status (*read)(ArrayBox *b, void *dst, size_t n);
    Status (*labels)(ArrayBox *b, size_t i, LabelFn *fn, void *ctx);
} Format;

struct ArrayBox {
    const Format *format;
    char *path;
    ArrayItem *item;                   /* (n) sorted by name */
    size_t n;
    NpyBox *npy;
    NpyFile *array;
    StFile *st;
    PthFile *pth;
    H5File *h5;
    const uint8_t *at;                 /* safetensors, PyTorch: the next byte, in memory */
    const ArrayItem *current;          /* HDF5 */
    uint8_t *buffer;                   /* rows read at once, so that a chunk is unpacked once */
    int64_t capacity, held, next, left;/* rows the buffer takes, has, has given out; rows of the array not read yet */
    ArrayBox *file;                    /* folder: the file that is open */
};

static Status add(ArrayBox *b, const char *name, ArrayItem item) {
    if (mem_room(&b->item, b->n, 1, sizeof *b->item) != OK) return ERR_MEMORY;
    if (!(item.name = mem_strdup(name))) return ERR_MEMORY;  /* the reader of a format frees its own names */
    b->item[b->n++] = item;
    return OK;
}

static ArrayItem item_of(DType t, int ndim, const int64_t *shape) {
    /* NumPy knows no bf16, so people save its bits as u16 */
    ArrayItem a = {.dtype = t == DT_U16 ? DT_BF16 : t, .ndim = ndim, .elements = 1};
    for (int i = 0; i < ndim; i++) a.elements *= a.shape[i] = shape[i];
    a.number = a.dtype == DT_F64 || a.dtype == DT_F32 || a.dtype == DT_F16 || a.dtype == DT_BF16 || a.dtype == DT_E4M3;
    a.label = t == DT_I64 || t == DT_I32 || t == DT_I16 || t == DT_U16 || t == DT_I8 || t == DT_U8;
    return a;
}

/* Whole numbers in memory as labels. */
static Status decimal(const void *data, DType t, size_t n, LabelFn *fn, void *ctx) {
    Status st = OK;
    int size = dtype_size(t), unused = t == DT_U16 || t == DT_U8 ? 0 : 64 - 8 * size;
    for (size_t i = 0; i < n && st == OK; i++) {
        char text[24];
        uint64_t v = 0;
        memcpy(&v, (const uint8_t *)data + i * (size_t)size, (size_t)size);
        int len = snprintf(text, sizeof text, "%" PRId64, (int64_t)(v << unused) >> unused);   /* with its sign */
        st = fn(ctx, text, (size_t)len);
    }
    return st;
}

/* ---- NumPy ------------------------------------------------------------------------------------------------------- */

static Status npy_items(ArrayBox *b) {
    Status st = b->npy ? OK : npy_box_open(&b->npy, b->path);
    for (size_t i = 0; st == OK && i < npy_box_count(b->npy); i++) {
        NpyFile *f;
        if ((st = npy_open_at(&f, b->npy, i)) == ERR_FORMAT && strstr(err_message(), "pickled")) {
            /* others beside it may still be readable */
            st = add(b, npy_box_name(b->npy, i), (ArrayItem){.pickled = true});
            continue;
        }
        if (st != OK) break;
        const NpyArray *a = npy_array(f);
        ArrayItem item = item_of(a->dtype, a->ndim, a->shape);
        if (a->text) item.number = false, item.label = true; /* its dtype says nothing */
        npy_close(f);
        st = add(b, npy_box_name(b->npy, i), item);
    }
    return st;
}

static Status npy_begin(ArrayBox *b, size_t i) {
    npy_close(b->array);
    b->array = NULL;
    return npy_open_at(&b->array, b->npy, i);
}

static Status npy_bytes(ArrayBox *b, void *dst, size_t n) { return npy_read(b->array, dst, n); }

static Status npy_labels(ArrayBox *b, size_t i, LabelFn *fn, void *ctx) {
    NpyFile *f;
    Status st = npy_open_at(&f, b->npy, i);
    if (st != OK) return st;
    const NpyArray *a = npy_array(f);
    void *numbers = a->text ? NULL : mem_new((size_t)a->elements, a->size);
    if (a->text) st = npy_texts(f, fn, ctx);
    else st = numbers ? npy_read(f, numbers, (size_t)a->elements * a->size) : ERR_MEMORY;
    if (st == OK && numbers) st = decimal(numbers, a->dtype, (size_t)a->elements, fn, ctx);
    free(numbers);
    npy_close(f);
    return st;
}

/* ---- safetensors, PyTorch ---------------------------------------------------------------------------------------- */

static Status st_items(ArrayBox *b) {
    Status st = st_open(&b->st, b->path);
    for (size_t i = 0; st == OK && i < st_count(b->st); i++) {
        const StTensor *t = st_at(b->st, i);
        st = add(b, t->name, item_of(t->dtype, t->ndim, t->shape));
    }
    return st;
}

static Status pth_items(ArrayBox *b) {
    Status st = b->pth ? OK : pth_open(&b->pth, b->path);
    for (size_t i = 0; st == OK && i < pth_count(b->pth); i++) {
        const StTensor *t;
        if ((st = pth_tensor(b->pth, i, &t)) == OK) st = add(b, t->name, item_of(t->dtype, t->ndim, t->shape));
    }
    for (size_t i = 0; st == OK && i < pth_lists(b->pth); i++) {
        int64_t n = (int64_t)pth_list_count(b->pth, i);
        ArrayItem item = {.label = true, .ndim = 1, .shape = {n}, .elements = n};
        st = add(b, pth_list_name(b->pth, i), item);
    }
    return st;
}

static Status tensor_of(ArrayBox *b, size_t i, const StTensor **t) {
    if (b->pth) return pth_find(b->pth, b->item[i].name, t);
    *t = st_find(b->st, b->item[i].name);
    return OK;
}

static Status tensor_begin(ArrayBox *b, size_t i) {
    const StTensor *t;
    Status st = tensor_of(b, i, &t);
    if (st == OK) b->at = t->data;
    return st;
}

static Status tensor_bytes(ArrayBox *b, void *dst, size_t n) {
    memcpy(dst, b->at, n);
    b->at += n;
    return OK;
}

static Status tensor_labels(ArrayBox *b, size_t i, LabelFn *fn, void *ctx) {
    const StTensor *t;
    for (size_t k = 0; b->pth && k < pth_lists(b->pth); k++)
        if (!strcmp(pth_list_name(b->pth, k), b->item[i].name)) return pth_list_labels(b->pth, k, fn, ctx);
    Status st = tensor_of(b, i, &t);
    return st == OK ? decimal(t->data, t->dtype, (size_t)b->item[i].elements, fn, ctx) : st;
}

/* ---- HDF5 -------------------------------------------------------------------------------------------------------- */

static bool h5_add(void *ctx, const char *path) { return add(ctx, path, (ArrayItem){0}) == OK; }

static ArrayItem h5_item(char *name, const H5Info *info) {
    static const int types[] = {[H5K_F16] = DT_F16, [H5K_F32] = DT_F32, [H5K_F64] = DT_F64, [H5K_U16] = DT_U16};
    /* the library turns bytes round while it reads */
    H5Kind kind = info->kind == H5K_OTHER ? info->swapped : info->kind;
    bool number = kind == H5K_F16 || kind == H5K_F32 || kind == H5K_F64 || kind == H5K_U16;
    ArrayItem item = item_of(number ? (DType)types[kind] : DT_BOOL, info->ndim, info->dim);
    item.label = info->text || info->integer;
    item.name = name;
    return item;
}

/* Names first, since the library is locked while it lists; then what each of them is. */
static Status h5_items(ArrayBox *b) {
    size_t kept = 0, n;
    Status st = h5_settled(b->path);                         /* rows that its writer still holds would read as zeros */
    if (st == OK) st = h5_open(&b->h5, b->path);
    if (st == OK) st = h5_list(b->h5, h5_add, b);
    n = b->n;
    for (size_t i = 0; i < n; i++) {
        H5Info info;
        char *name = b->item[i].name;
        Status seen = st == OK ? h5_info(b->h5, name, &info) : st;
        if (seen == OK) {
            b->item[kept++] = h5_item(name, &info);
            continue;
        }
        /* behind a filter that is missing may be the features themselves */
        bool skip = seen != ERR_MEMORY && n > 1 && !strstr(err_message(), "compressed by");
        if (st == OK && !skip) st = seen; /* else a scalar, or more dimensions than features have */
        free(name);
    }
    b->n = kept;
    return st;
}

static Status h5_begin(ArrayBox *b, size_t i) {
    H5Info info;
    const ArrayItem *a = b->current = &b->item[i];
    Status st = h5_info(b->h5, a->name, &info);
    if (st != OK) return st;
    size_t row = (size_t)(a->shape[0] ? a->elements / a->shape[0] : 0) * (size_t)dtype_size(a->dtype);
    int64_t chunk = info.chunk[0] > 0 ? info.chunk[0] : 1;
    b->capacity = row && row < BUFFER ? (int64_t)(BUFFER / row) : 1;
    if (b->capacity >= chunk) b->capacity -= b->capacity % chunk; /* a chunk that is cut would be unpacked twice */
    /* too large a buffer beats unpacking it again for each row */
    else if ((uint64_t)chunk * row <= MAX_ROW_BYTES) b->capacity = chunk;
    if (b->capacity > a->shape[0]) b->capacity = a->shape[0] ? a->shape[0] : 1;
    b->held = b->next = 0;
    b->left = a->shape[0];
    free(b->buffer);
    b->buffer = mem_new((size_t)b->capacity, row);
    return b->buffer ? OK : ERR_MEMORY;
}

static Status h5_fill(ArrayBox *b) {
    static const int kinds[] = {[DT_F16] = H5K_F16, [DT_F32] = H5K_F32, [DT_F64] = H5K_F64, [DT_BF16] = H5K_U16};
    const ArrayItem *a = b->current;
    b->held = b->left < b->capacity ? b->left : b->capacity;
    b->next = 0;
    Status st = h5_rows(b->h5, a->name, (H5Kind)kinds[a->dtype], a->shape[0] - b->left, b->held, b->buffer);
    b->left -= b->held;
    return st;
}

static Status h5_bytes(ArrayBox *b, void *dst, size_t n) {
    const ArrayItem *a = b->current;
    size_t row = (size_t)(a->elements / a->shape[0]) * (size_t)dtype_size(a->dtype);
    for (uint8_t *to = dst; n;) {
        Status st = b->next == b->held ? h5_fill(b) : OK;
        if (st != OK) return st;
        size_t rows = n / row, have = (size_t)(b->held - b->next);
        if (rows > have) rows = have;
        memcpy(to, b->buffer + (size_t)b->next * row, rows * row);
        b->next += (int64_t)rows;
        to += rows * row;
        n -= rows * row;
    }
    return OK;
}

static Status h5_labels(ArrayBox *b, size_t i, LabelFn *fn, void *ctx) {
    H5Info info;
    const char *name = b->item[i].name;
    Status st = h5_info(b->h5, name, &info);
    if (st != OK || info.text) return st == OK ? h5_get_texts(b->h5, name, &info, fn, ctx) : st;
    int64_t *numbers = mem_new((size_t)info.count, sizeof *numbers);
    if (!numbers) return ERR_MEMORY;
    st = h5_get(b->h5, name, &info, H5K_I64, numbers);
    if (st == OK) st = decimal(numbers, DT_I64, (size_t)info.count, fn, ctx);
    free(numbers);
    return st;
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

/* The array of features in one of its files: the only one of numbers, or the first with a usual name. */
static Status file_array(ArrayBox *f, size_t *at) {
    static const char *const usual[] = {"features", "feat", "feats", "x", "image_features", "arr_0", NULL};
    char list[ARRAYS_LIST];
    size_t numbers = 0;
    for (size_t i = 0; i < f->n; i++)
        if (f->item[i].number && !numbers++) *at = i;
    if (numbers == 1) return OK;
    for (int k = 0; usual[k]; k++)
        for (size_t i = 0; i < f->n; i++)
            if (f->item[i].number && arrays_called(&f->item[i], usual[k])) {
                *at = i;
                return OK;
            }
    return err_set(ERR_FORMAT, "%s: a file an image should hold one array; there are %s", f->path,
                   arrays_list(f, list));
}

static Status add_file(void *ctx, const char *relative) {
    static const char *const endings[] = {".npy", ".npz", ".pt", ".pth", ".safetensors", ".h5", ".hdf5", NULL};
    ArrayBox *b = ctx;
    ArrayBox *f = NULL;
    size_t at = 0;
    if (!path_ends_in(relative, endings)) return OK;
    char *path = mem_format("%s/%s", b->path, relative);
    Status st = path ? arrays_open(&f, path) : ERR_MEMORY;
    if (st == OK) st = file_array(f, &at);
    if (st == OK) st = add(b, relative, f->item[at]);
    arrays_close(f);
    free(path);
    return st;
}

/* Folders that are the files of another library. */
static Status refuse_folder(const ArrayBox *b) {
    static const struct { const char *file, *what; } kinds[] = {
        {".zarray",
         "a Zarr array; python3 -c \"import zarr, numpy; numpy.save('features.npy', zarr.open('.')[:])\" in it"},
        {"zarr.json",
         "a Zarr store; python3 -c \"import zarr, numpy; numpy.save('features.npy', zarr.open('.')[:])\" in it"},
        {"data.mdb", "an LMDB data base; a script with lmdb and numpy.save"},
        {"dataset_info.json", "a data set of Hugging Face's datasets; numpy.save of its column"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char *path = mem_format("%s/%s", b->path, kinds[i].file);
        bool there = path && !access(path, F_OK);
        free(path);
        if (there) return err_set(ERR_FORMAT, "%s: is %s makes an array of it", b->path, kinds[i].what);
    }
    return OK;
}

static Status folder_items(ArrayBox *b) {
    Status st = path_walk(b->path, add_file, b);
    if (st == OK && !b->n) st = refuse_folder(b);
    if (st == OK && !b->n)
        st = err_set(ERR_FORMAT, "%s: a folder without arrays in it (.npy, .npz, .pt, .pth, .safetensors, .h5)",
                     b->path);
    return st;
}

static Status folder_begin(ArrayBox *b, size_t i) {
    size_t at = 0;
    arrays_close(b->file);                                   /* one at a time: a folder may have a hundred thousand */
    b->file = NULL;
    char *path = mem_format("%s/%s", b->path, b->item[i].name);
    Status st = path ? arrays_open(&b->file, path) : ERR_MEMORY;
    if (st == OK) st = file_array(b->file, &at);
    /* rows of another size would shift all that follow */
    if (st == OK && (b->file->item[at].elements != b->item[i].elements || b->file->item[at].dtype != b->item[i].dtype))
        st = err_set(ERR_FORMAT, "%s: has changed since this command looked at it", path);
    if (st == OK) st = arrays_begin(b->file, at);
    free(path);
    return st;
}

static Status folder_bytes(ArrayBox *b, void *dst, size_t n) { return arrays_read(b->file, dst, n); }

/* ---- all --------------------------------------------------------------------------------------------------------- */

static const Format formats[] = {
    {"arrays", npy_items, npy_begin, npy_bytes, npy_labels},
    {"tensors", st_items, tensor_begin, tensor_bytes, tensor_labels},
    {"tensors", pth_items, tensor_begin, tensor_bytes, tensor_labels},
    {"data sets", h5_items, h5_begin, h5_bytes, h5_labels},
    {"files", folder_items, folder_begin, folder_bytes, NULL},
};
enum { NPY, SAFETENSORS, PTH, HDF5, FOLDER };

#define WANTED "features (.npy, .npz, .safetensors, .pt, HDF5)"

/* A pickle is a program; who wrote it can turn it into arrays. */
static Status refuse(const char *path, const uint8_t *bytes, size_t n) {
    if (n >= 4 && !memcmp(bytes, "PAR1", 4))
        return err_set(ERR_FORMAT,
                       "%s: is a Parquet table, not " WANTED "; python3 -c \"import pandas, numpy; t = "
                       "pandas.read_parquet('%s'); numpy.savez('%s.npz', ids=t['ID'].to_numpy(str), "
                       "features=numpy.stack(t['FEATURES']))\" makes arrays of its columns ID and FEATURES",
                       path, path, path);
    if (n < 2 || bytes[0] != 0x80 || bytes[1] < 2 || bytes[1] > 5) return filekind_refuse(path, bytes, n, WANTED);
    return err_set(ERR_FORMAT, "%s: is a Python pickle, not " WANTED "; python3 -c \"import pickle, numpy; "
                   "d = pickle.load(open('%s', 'rb')); numpy.savez('%s.npz', **d) if isinstance(d, dict) else "
                   "numpy.save('%s.npy', d)\" makes arrays of it", path, path, path, path);
}

static Status find_format(ArrayBox *b) {
    uint8_t head[FILEKIND_LOOK] = {0};
    struct stat about;
    FILE *f = stat(b->path, &about) == 0 && S_ISDIR(about.st_mode) ? NULL : fopen(b->path, "rb");
    if (!f && S_ISDIR(about.st_mode)) {
        b->format = &formats[FOLDER];
        return OK;
    }
    if (!f) return err_set(ERR_IO, "%s: %s", b->path, strerror(errno));
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    if (n >= 8 && !memcmp(head, "\x89HDF\r\n\x1a\n", 8)) b->format = &formats[HDF5];
    else if (n >= 6 && !memcmp(head, "\x93NUMPY", 6)) b->format = &formats[NPY];
    else if (n >= 9 && head[8] == '{') b->format = &formats[SAFETENSORS]; /* it has no magic: a length, then JSON */
    else if (pth_looks_like(head, n)) b->format = &formats[PTH];
    else return refuse(b->path, head, n);
    if (b->format != &formats[PTH] || head[0] != 'P') return OK;
    if (pth_open(&b->pth, b->path) == OK) return OK;            /* a zip archive: of torch, or of NumPy */
    /* else it is torch's and damaged, as has just been said */
    if (!strstr(err_message(), "without data.pkl") || npy_box_open(&b->npy, b->path) != OK) return ERR_FORMAT;
    b->format = &formats[NPY];
    return OK;
}

/* Numbers in names count as numbers: img_emb_2 comes before img_emb_10. */
static int by_name(const void *x, const void *y) {
    return strverscmp(((const ArrayItem *)x)->name, ((const ArrayItem *)y)->name);
}

Status arrays_open(ArrayBox **out, const char *path) {
    *out = NULL;
    ArrayBox *b = mem_new(1, sizeof *b);
    if (!b) return ERR_MEMORY;
    Status st = (b->path = mem_strdup(path)) ? find_format(b) : ERR_MEMORY;
    if (st == OK) st = b->format->list(b);
    /* NumPy's are called by their place in the box */
    if (st == OK && b->n && b->format != &formats[NPY]) qsort(b->item, b->n, sizeof *b->item, by_name);
    if (st == OK) *out = b;
    else arrays_close(b);
    return st;
}

void arrays_close(ArrayBox *b) {
    if (!b) return;
    for (size_t i = 0; i < b->n; i++) free(b->item[i].name);
    free(b->item);
    npy_close(b->array);
    npy_box_close(b->npy);
    st_close(b->st);
    pth_close(b->pth);
    h5_close(b->h5);
    arrays_close(b->file);
    mem_free(b->buffer, b->path, b);
}

bool arrays_called(const ArrayItem *a, const char *name) {
    return !strcmp(a->name + (a->name[0] == '/'), name + (name[0] == '/'));
}

size_t arrays_count(const ArrayBox *b) { return b->n; }
const ArrayItem *arrays_at(const ArrayBox *b, size_t i) { return &b->item[i]; }
bool arrays_is_folder(const ArrayBox *b) { return b->format == &formats[FOLDER]; }
const char *arrays_what(const ArrayBox *b) { return b->format->what; }
Status arrays_begin(ArrayBox *b, size_t i) { return b->format->begin(b, i); }
/* An empty array may have no address, which memcpy must not see. */
Status arrays_read(ArrayBox *b, void *dst, size_t n) { return n ? b->format->read(b, dst, n) : OK; }

Status arrays_labels(ArrayBox *b, size_t i, LabelFn *fn, void *ctx) {
    if (b->item[i].label && b->format->labels) return b->format->labels(b, i, fn, ctx);
    return err_set(ERR_FORMAT, "%s: %s holds neither strings nor whole numbers", b->path, b->item[i].name);
}

Status arrays_pickled(const ArrayBox *b, size_t i) {
    const char *name = b->item[i].name, *p = b->path;
    if (!name[0])
        return err_set(
            ERR_FORMAT,
            "%s: is an array of pickled Python objects (dtype=object), which are not read; python3 -c "
            "\"import numpy; numpy.save('%s.new.npy', numpy.array(numpy.load('%s', allow_pickle=True).tolist()))\" "
            "makes numbers or texts of it",
            p, p, p);
    return err_set(ERR_FORMAT,
                   "%s: %s is an array of pickled Python objects (dtype=object), which are not read; python3 -c "
                   "\"import numpy; d = numpy.load('%s', allow_pickle=True); numpy.savez('%s.new.npz', **{k: "
                   "numpy.array(d[k].tolist()) for k in d})\" makes numbers or texts of it",
                   p, name, p, p);
}

char *arrays_list(const ArrayBox *b, char text[ARRAYS_LIST]) {
    enum { ENOUGH = 30 };                                    /* for the next one's name to tell something */
    size_t used = 0, size = ARRAYS_LIST;
    snprintf(text, size, "%s", b->n ? "" : "none");
    for (size_t i = 0; i < b->n && used + ENOUGH < size; i++) {
        const ArrayItem *a = &b->item[i];
        const char *name = a->name[0] ? a->name : "one array";
        used += (size_t)snprintf(text + used, size - used, "%s%.60s (", i ? ", " : "", name);
        for (int d = 0; d < a->ndim && used < size; d++)
            used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, d ? ", " : "", a->shape[d]);
        bool last = i + 1 == b->n || used + ENOUGH < size;
        if (used < size) used += (size_t)snprintf(text + used, size - used, last ? ")" : "), ...");
    }
    return text;
}
