/* npy: see npy.h. The header is a Python dictionary; only the three keys it must have are understood, and all but its
 * spelling is JSON. */
#include "data/format/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/mapfile.h"
#include "data/format/zip.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_HEADER = 1 << 16, BLOCK_BYTES = 64 << 20, MAX_CHARS = 4096 };

struct NpyBox {
    MapFile map;
    size_t count;
    char *path, **name;        /* (count) */
    size_t *record;            /* (count) index into zip.records */
    ZipMap zip;
    bool archive;
};

struct NpyFile {
    NpyBox *own;               /* closed with the array; NULL: the caller's */
    const char *path;
    NpyArray array;
    ZipStream *zip;            /* NULL: the bytes lie at `at` */
    const uint8_t *at;
    uint64_t left;             /* bytes of elements not handed out yet */
    uint8_t *whole;            /* deflated and in Fortran order: unpacked */
    uint8_t *block;            /* Fortran order: rows [first, first + rows) of the first dimension, in C order */
    int64_t first, rows, most;
    size_t used;               /* bytes of the block handed out */
};

/* The next n bytes of the file or member as they are. */
static Status take(NpyFile *f, void *dst, size_t n) {
    if (f->zip) return zip_stream_read(f->zip, dst, n);
    if (n > f->left) return err_set(ERR_FORMAT, "%s: the file ends early", f->path);
    memcpy(dst, f->at, n);
    f->at += n;
    f->left -= n;
    return OK;
}

/* ---- the header's dictionary ------------------------------------------------------------------------------------- */

/* 'S12', 'U7': a text of so many characters. */
static bool text_type(const char *code, NpyArray *a) {
    if ((code[0] != 'S' && code[0] != 'U') || !code[1] || strspn(code + 1, "0123456789") != strlen(code + 1))
        return false;
    long chars = strtol(code + 1, NULL, 10);
    if (chars < 1 || chars > MAX_CHARS) return false;        /* a name, not a book: room is made for one element */
    a->text = code[0] == 'S' ? 1 : 4;
    a->size = (size_t)chars * (size_t)a->text;
    return true;
}

static Status element_type(const NpyFile *f, const char *descr, NpyArray *a) {
    static const struct { const char *code; DType type; } known[] = {
        {"f2", DT_F16}, {"f4", DT_F32}, {"f8", DT_F64}, {"i1", DT_I8},  {"u1", DT_U8},
        {"i2", DT_I16}, {"i4", DT_I32}, {"i8", DT_I64}, {"u2", DT_U16}, {"V2", DT_BF16}};
    char order = descr[0];
    /* one byte has no order: '|' */
    const char *code = order == '<' || order == '|' || order == '=' || order == '>' ? descr + 1 : descr;
    a->swapped = order == '>';
    if (text_type(code, a)) return OK;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(code, known[i].code)) {
            a->dtype = known[i].type;
            a->size = (size_t)dtype_size(a->dtype);
            return OK;
        }
    if (code[0] == 'O')
        return err_set(ERR_FORMAT,
                       "%s: an array of pickled Python objects (dtype=object), which are not read; "
                       "np.save(file, np.array(list(a))) makes numbers or texts of them if all have one shape",
                       f->path);
    return err_set(ERR_FORMAT,
                   "%s: elements of type %s are not read; f2, f4, f8, i1 to i8, u1, u2 (bf16), V2, S and U are",
                   f->path, descr);
}

/* {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), } as JSON, in place. */
static void to_json(char *s) {
    char *to = s;
    for (char quote = 0; *s; s++) {
        char c = *s;
        if (quote || c == '\'' || c == '"') {
            bool mark = quote ? c == quote : true;
            if (mark) quote = quote ? 0 : c;
            *to++ = mark ? '"' : c;
            continue;
        }
        if (c == 'L') continue;                              /* Python 2 wrote 3L */
        /* Python allows one behind the last */
        if (c == ',' && strchr(")]}", s[1 + strspn(s + 1, " \n\t")])) continue;
        *to++ = c == '(' ? '[' : c == ')' ? ']' : c == 'T' || c == 'F' ? (char)(c + 32) : c;
    }
    *to = 0;
}

static Status count_elements(const NpyFile *f, NpyArray *a) {
    int wide = 0;
    a->elements = 1;
    for (int i = 0; i < a->ndim; i++) {
        wide += a->shape[i] != 1;
        /* by what one element may become as UTF-8: no later product of the count can wrap */
        if (__builtin_mul_overflow(a->elements, a->shape[i], &a->elements) || a->elements > INT64_MAX / (4 * MAX_CHARS))
            return err_set(ERR_FORMAT, "%s: the shape in its header is too large", f->path);
    }
    a->fortran = a->fortran && wide > 1;           /* one long dimension lies the same in either order */
    return OK;
}

static Status parse(NpyFile *f, char *text) {
    NpyArray *a = &f->array;
    Json *doc;
    to_json(text);
    Status st = json_parse(&doc, text, strlen(text), f->path);
    if (st == ERR_MEMORY) return st;
    const Json *type = json_get(doc, "descr"), *shape = json_get(doc, "shape");
    const char *descr = json_str(type, NULL);
    bool good = json_len(doc) == 3 && json_bool(json_get(doc, "fortran_order"), &a->fortran) &&
                json_type(shape) == J_ARRAY && json_len(shape) <= NPY_DIMS;
    for (; good && (size_t)a->ndim < json_len(shape); a->ndim++)
        good = json_int(json_at(shape, (size_t)a->ndim), &a->shape[a->ndim]) && a->shape[a->ndim] >= 0;
    if (good && json_type(type) == J_ARRAY)                  /* names and types of fields */
        st = err_set(ERR_FORMAT, "%s: an array of records is not read", f->path);
    else if (!good || !descr || !*descr) st = err_set(ERR_FORMAT, "%s: the .npy header is not understood", f->path);
    else if ((st = count_elements(f, a)) == OK) st = element_type(f, descr, a);
    json_free(doc);
    return st;
}

/* Reads magic, version and dictionary; `size` are the bytes of file or member. */
static Status header(NpyFile *f, uint64_t size) {
    uint8_t head[12] = {0};
    char *text = NULL;
    f->left = size;
    Status st = take(f, head, 8);
    if (st == OK && memcmp(head, "\x93NUMPY", 6))
        st = err_set(ERR_FORMAT, "%s: not a .npy array (by its first bytes)", f->path);
    if (st == OK && (head[6] < 1 || head[6] > 3))
        st = err_set(ERR_FORMAT, "%s: .npy version %d is not known", f->path, head[6]);
    if (st != OK) return st;
    size_t width = head[6] == 1 ? 2 : 4;                     /* version 2 was made for headers of more than 64 KB */
    if ((st = take(f, head + 8, width)) != OK) return st;
    size_t n = head[8] | (size_t)head[9] << 8 | (size_t)head[10] << 16 | (size_t)head[11] << 24;
    /* a shape is short, and this is about to be allocated */
    if (n > MAX_HEADER) return err_set(ERR_FORMAT, "%s: a header of %zu bytes", f->path, n);
    if (!(text = mem_new(n + 1, 1))) return ERR_MEMORY;
    if ((st = take(f, text, n)) == OK) st = parse(f, text);
    free(text);
    if (st != OK) return st;
    uint64_t has = size - 8 - width - n;       /* they have been read, so this is not negative */
    f->left = (uint64_t)f->array.elements * f->array.size;
    /* exactly: bytes too few are a cut file, bytes too many a header that lies about what follows */
    if (f->left != has)
        return err_set(ERR_FORMAT, "%s: the header promises %llu bytes of elements, there are %llu", f->path,
                       (unsigned long long)f->left, (unsigned long long)has);
    return OK;
}

/* ---- what a file holds ------------------------------------------------------------------------------------------- */

static Status list_members(NpyBox *b) {
    Status st = zip_read(&b->zip, b->map.bytes, b->map.n, b->path);
    if (st != OK) return st;
    b->name = mem_new(b->zip.count + 1, sizeof *b->name);
    b->record = mem_new(b->zip.count + 1, sizeof *b->record);
    if (!b->name || !b->record) return ERR_MEMORY;
    for (size_t i = 0; i < b->zip.count; i++) {
        const ZipRecord *r = &b->zip.records[i];
        size_t n = r->name_len;
        if (n < 4 || memcmp(r->name + n - 4, ".npy", 4)) continue; /* somebody's notes beside the arrays */
        if (!(b->name[b->count] = mem_format("%.*s", (int)(n - 4 < 4096 ? n - 4 : 4096), r->name))) return ERR_MEMORY;
        b->record[b->count++] = i;
    }
    return b->count ? OK : err_set(ERR_FORMAT, "%s: a zip archive with no NumPy arrays (NAME.npy) in it", b->path);
}

static Status open_map(NpyBox **out, MapFile map, const char *path) {
    NpyBox *b = mem_new(1, sizeof *b);
    if (!b) return mapfile_close(&map), ERR_MEMORY;
    b->map = map;
    b->archive = zip_looks_like(map.bytes, map.n);
    b->count = !b->archive;                                  /* an .npy is one array, without a name */
    Status st = (b->path = mem_strdup(path)) ? OK : ERR_MEMORY;
    if (st == OK && b->archive) st = list_members(b);
    if (st == OK) *out = b;
    else npy_box_close(b);
    return st;
}

Status npy_box_open(NpyBox **out, const char *path) {
    MapFile map;
    *out = NULL;
    Status st = mapfile_open(&map, path);
    return st == OK ? open_map(out, map, path) : st;
}

Status npy_box_memory(NpyBox **out, const void *bytes, size_t n, const char *path) {
    *out = NULL;
    return open_map(out, mapfile_of(bytes, n), path);
}

void npy_box_close(NpyBox *b) {
    if (!b) return;
    mem_free_list(b->name, b->count);
    free(b->record);
    zip_free(&b->zip);
    mapfile_close(&b->map);
    mem_free(b->path, b);
}

size_t npy_box_count(const NpyBox *b) { return b->count; }
const char *npy_box_name(const NpyBox *b, size_t i) { return b->archive ? b->name[i] : ""; }

/* ---- an array ---------------------------------------------------------------------------------------------------- */

/* In Fortran order the elements must be where we can jump, and blocks of rows need room. */
static Status prepare_fortran(NpyFile *f) {
    NpyArray *a = &f->array;
    if (!a->fortran || !a->elements) return OK;
    if (f->zip) {
        if (!(f->whole = mem_new(f->left, 1))) return ERR_MEMORY; /* deflate goes forward only, columns want to jump */
        Status st = take(f, f->whole, f->left);
        if (st != OK) return st;
        f->at = f->whole;
    }
    size_t row = (size_t)(a->elements / a->shape[0]) * a->size;
    /* as many as fit: each block passes over all of the file */
    f->most = row < BLOCK_BYTES ? (int64_t)(BLOCK_BYTES / row) : 1;
    if (f->most > a->shape[0]) f->most = a->shape[0];
    f->block = mem_new((size_t)f->most, row);
    return f->block ? OK : ERR_MEMORY;
}

Status npy_open_at(NpyFile **out, const NpyBox *b, size_t i) {
    *out = NULL;
    NpyFile *f = mem_new(1, sizeof *f);
    if (!f) return ERR_MEMORY;
    f->path = b->path;
    Status st = OK;
    if (b->archive) st = zip_stream_open(&f->zip, &b->zip.records[b->record[i]], b->path);
    else f->at = b->map.bytes;
    if (st == OK) st = header(f, b->archive ? b->zip.records[b->record[i]].size : b->map.n);
    if (b->archive) err_context(st, "array %s", b->name[i]);
    if (st == OK) st = prepare_fortran(f);
    if (st == OK) *out = f;
    else npy_close(f);
    return st;
}

/* "a, b, c": the names, as far as they fit. */
static void names_of(const NpyBox *b, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < b->count && used + 1 < size; i++) {
        int n = snprintf(text + used, size - used, "%s%.40s", i ? ", " : "", b->name[i]);
        used += n > 0 ? (size_t)n : 0;
    }
}

static Status choose_member(const NpyBox *b, size_t *at) {
    char names[200];
    *at = 0;
    if (b->count == 1) return OK;
    for (; *at < b->count; ++*at)
        if (!strcmp(b->name[*at], "features")) return OK;
    names_of(b, names, sizeof names);
    return err_set(ERR_FORMAT, "%s: several arrays, say which one: %s", b->path, names);
}

Status npy_open(NpyFile **out, const char *path) {
    NpyBox *b;
    size_t at;
    *out = NULL;
    Status st = npy_box_open(&b, path);
    if (st != OK) return st;
    st = choose_member(b, &at);
    if (st == OK) st = npy_open_at(out, b, at);
    if (st == OK) (*out)->own = b;                           /* closing the array closes its file */
    else npy_box_close(b);
    if (st != OK || !(*out)->array.text) return st;
    npy_close(*out);
    *out = NULL;
    return err_set(ERR_FORMAT, "%s: an array of texts, where numbers are wanted", path);
}

const NpyArray *npy_array(const NpyFile *f) { return &f->array; }

static void swap_bytes(uint8_t *p, size_t n, size_t size) {
    for (; n; n -= size, p += size)
        for (size_t i = 0; i < size / 2; i++) {
            uint8_t t = p[i];
            p[i] = p[size - 1 - i];
            p[size - 1 - i] = t;
        }
}

/* The next rows into the block. Element (r, j) of the file, j counting the other indices with the last slowest, goes to
 * row r at j's place in C order; the inner loop runs along the file. */
static void fill_block(NpyFile *f) {
    const NpyArray *a = &f->array;
    int64_t N = a->shape[0], row = a->elements / N, index[NPY_DIMS] = {0}, stride[NPY_DIMS];
    f->first += f->rows;
    f->rows = N - f->first < f->most ? N - f->first : f->most;
    f->used = 0;
    stride[a->ndim - 1] = 1;
    for (int d = a->ndim - 1; d > 1; d--) stride[d - 1] = stride[d] * a->shape[d];
    for (int64_t j = 0; j < row; j++) {
        int64_t to = 0;
        for (int d = 1; d < a->ndim; d++) to += index[d] * stride[d];
        const uint8_t *src = f->at + (size_t)(j * N + f->first) * a->size;
        for (int64_t r = 0; r < f->rows; r++, src += a->size)
            memcpy(f->block + (size_t)(r * row + to) * a->size, src, a->size);
        for (int d = 1; d < a->ndim && ++index[d] == a->shape[d]; d++) index[d] = 0;
    }
}

static void take_fortran(NpyFile *f, uint8_t *dst, size_t n) {
    size_t row = (size_t)(f->array.elements / f->array.shape[0]) * f->array.size;
    while (n) {
        size_t held = (size_t)f->rows * row - f->used;
        if (!held) {
            fill_block(f);
            continue;
        }
        size_t part = n < held ? n : held;
        memcpy(dst, f->block + f->used, part);
        f->used += part;
        dst += part;
        n -= part;
        f->left -= part;
    }
}

Status npy_read(NpyFile *f, void *dst, size_t n) {
    BUG_ON(n > f->left || n % f->array.size, "%s: %zu bytes asked for, %llu are left", f->path, n,
           (unsigned long long)f->left);
    Status st = OK;
    if (f->block) {
        take_fortran(f, dst, n);
    } else {
        st = take(f, dst, n);
        if (f->zip) f->left -= n;                            /* take() counts what lies in memory */
    }
    if (st == OK && f->array.swapped && f->array.text != 1)  /* bytes of a text have no order, its code points do */
        swap_bytes(dst, n, f->array.text ? 4 : f->array.size);
    return st;
}

/* ---- texts ------------------------------------------------------------------------------------------------------- */

/* One text, which is padded with zeros, as UTF-8; its bytes, -1: no character. */
static int64_t one_text(const NpyArray *a, const uint8_t *p, char *to) {
    size_t n = 0;
    if (a->text == 1) memcpy(to, p, n = strnlen((const char *)p, a->size));
    for (size_t i = 0; a->text == 4 && i < a->size; i += 4) {
        uint32_t c;
        memcpy(&c, p + i, 4);
        if (!c) break;
        if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return -1;  /* NumPy stores what it is given */
        n += utf8_put(c, to + n);
    }
    return (int64_t)n;
}

Status npy_texts(NpyFile *f, LabelFn *fn, void *ctx) {
    const NpyArray *a = npy_array(f);
    uint8_t *element = mem_new(a->size, 1);
    char *text = mem_new(a->size, 1);                        /* UTF-8 is never longer than UTF-32 */
    Status st = element && text ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < a->elements && st == OK; i++) {
        if ((st = npy_read(f, element, a->size)) != OK) break;
        int64_t n = one_text(a, element, text);
        st = n < 0 ? err_set(ERR_FORMAT, "%s: text %lld is not Unicode", f->path, (long long)i + 1)
                   : fn(ctx, text, (size_t)n);
    }
    mem_free(element, text);
    return st;
}

void npy_close(NpyFile *f) {
    if (!f) return;
    zip_stream_close(f->zip);
    mem_free(f->whole, f->block);
    npy_box_close(f->own);
    free(f);
}
