/* npy: see npy.h. The header is a Python dictionary; only the three keys it must have are understood. */
#include "data/format/npy.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/zipread.h"
#include "kernels/base/mem.h"

enum { MAX_HEADER = 1 << 16 };

struct NpyFile {
    FILE *f;
    ZipMember *zip;            /* NULL: the file is the array */
    char *name;                /* for messages */
    NpyArray array;
    uint64_t left;             /* bytes of elements not read yet */
};

static Status take(NpyFile *f, void *dst, size_t n) {
    if (f->zip) return zip_read(f->zip, dst, n);
    if (fread(dst, 1, n, f->f) == n) return OK;
    if (ferror(f->f)) return err_set(ERR_IO, "%s: %s", f->name, strerror(errno));
    return err_set(ERR_FORMAT, "%s: the file ends early", f->name);
}

/* ---- the header's dictionary ------------------------------------------------------------------------------------- */

typedef struct { const char *p, *end; } Text;

static void blanks(Text *t) {
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t')) t->p++;
}

static bool symbol(Text *t, char c) {
    blanks(t);
    if (t->p == t->end || *t->p != c) return false;
    t->p++;
    return true;
}

/* 'abc' or "abc" into buf; false when it is something else or too long. */
static bool quoted(Text *t, char *buf, size_t size) {
    blanks(t);
    if (t->p == t->end || (*t->p != '\'' && *t->p != '"')) return false;
    char quote = *t->p++;
    size_t n = 0;
    for (; t->p < t->end && *t->p != quote; t->p++)
        if (n + 1 < size) buf[n++] = *t->p;
        else return false;
    buf[n] = 0;
    return symbol(t, quote);
}

static bool word(Text *t, const char *w) {
    blanks(t);
    size_t n = strlen(w);
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, w, n)) return false;
    t->p += n;
    return true;
}

/* (3, 4) or (3,) or (); Python 2 wrote 3L */
static bool shape(Text *t, NpyArray *a) {
    if (!symbol(t, '(')) return false;
    while (!symbol(t, ')')) {
        int64_t v = 0;
        const char *from = t->p;
        for (; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++)
            if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, *t->p - '0', &v)) return false;
        if (t->p == from || a->ndim == NPY_DIMS) return false;
        if (t->p < t->end && *t->p == 'L') t->p++;
        a->shape[a->ndim++] = v;
        if (!symbol(t, ',')) return symbol(t, ')');
    }
    return true;
}

static Status element_type(const NpyFile *f, const char *descr, DType *type) {
    static const struct { const char *code; DType type; } known[] = {
        {"f2", DT_F16}, {"f4", DT_F32}, {"f8", DT_F64}, {"i1", DT_I8}, {"u1", DT_U8}, {"u2", DT_U16}, {"V2", DT_BF16}};
    char order = descr[0];
    const char *code = order == '<' || order == '|' || order == '=' || order == '>' ? descr + 1 : descr;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(code, known[i].code)) {
            if (order == '>' && code[1] != '1')
                return err_set(ERR_FORMAT, "%s: big-endian elements (%s) are not read", f->name, descr);
            *type = known[i].type;
            return OK;
        }
    return err_set(ERR_FORMAT, "%s: elements of type %s are not read; f2, f4, f8, i1, u1, u2 (bf16) and V2 are",
                   f->name, descr);
}

static Status parse(NpyFile *f, Text t) {
    NpyArray *a = &f->array;
    char key[32], descr[64] = "";
    bool fortran = false, has_order = false, has_shape = false;
    if (!symbol(&t, '{')) goto bad;
    while (!symbol(&t, '}')) {
        if (!quoted(&t, key, sizeof key) || !symbol(&t, ':')) goto bad;
        if (!strcmp(key, "descr") && !descr[0]) {
            if (symbol(&t, '[')) return err_set(ERR_FORMAT, "%s: an array of records is not read", f->name);
            if (!quoted(&t, descr, sizeof descr)) goto bad;
        } else if (!strcmp(key, "fortran_order") && !has_order) {
            has_order = true;
            fortran = word(&t, "True");
            if (!fortran && !word(&t, "False")) goto bad;
        } else if (!strcmp(key, "shape") && !has_shape) {
            has_shape = true;
            if (!shape(&t, a)) goto bad;
        } else {
            goto bad;
        }
        if (!symbol(&t, ',') && !(blanks(&t), t.p < t.end && *t.p == '}')) goto bad;
    }
    if (!descr[0] || !has_order || !has_shape) goto bad;
    int wide = 0;
    a->elements = 1;
    for (int i = 0; i < a->ndim; i++) {
        wide += a->shape[i] != 1;
        if (__builtin_mul_overflow(a->elements, a->shape[i], &a->elements) || a->elements > INT64_MAX / 8)
            return err_set(ERR_FORMAT, "%s: the shape in its header is too large", f->name);
    }
    if (fortran && wide > 1)
        return err_set(ERR_FORMAT, "%s: the array is in Fortran order; save it with np.ascontiguousarray", f->name);
    return element_type(f, descr, &a->dtype);
bad:
    return err_set(ERR_FORMAT, "%s: the .npy header is not understood", f->name);
}

/* Reads magic, version and dictionary; `size` are the bytes of file or member. */
static Status header(NpyFile *f, uint64_t size) {
    uint8_t head[12] = {0};
    char *text = NULL;
    Status st = take(f, head, 8);
    if (st == OK && memcmp(head, "\x93NUMPY", 6))
        st = err_set(ERR_FORMAT, "%s: not a .npy array (by its first bytes)", f->name);
    if (st == OK && (head[6] < 1 || head[6] > 3))
        st = err_set(ERR_FORMAT, "%s: .npy version %d is not known", f->name, head[6]);
    if (st != OK) return st;
    size_t width = head[6] == 1 ? 2 : 4;
    if ((st = take(f, head + 8, width)) != OK) return st;
    size_t n = head[8] | (size_t)head[9] << 8 | (size_t)head[10] << 16 | (size_t)head[11] << 24;
    if (n > MAX_HEADER) return err_set(ERR_FORMAT, "%s: a header of %zu bytes", f->name, n);
    if (!(text = mem_new(n + 1, 1))) return ERR_MEMORY;
    if ((st = take(f, text, n)) == OK) st = parse(f, (Text){text, text + n});
    free(text);
    if (st != OK) return st;
    uint64_t has = size - 8 - width - n;       /* they have been read, so this is not negative */
    f->left = (uint64_t)f->array.elements * (uint64_t)dtype_size(f->array.dtype);
    if (f->left != has)
        return err_set(ERR_FORMAT, "%s: the header promises %llu bytes of elements, there are %llu", f->name,
                       (unsigned long long)f->left, (unsigned long long)has);
    return OK;
}

/* ---- archives ---------------------------------------------------------------------------------------------------- */

typedef struct { const char *wanted; int arrays; char names[200]; } Choice;

/* 3: the one asked for, or "features" when none is asked for; 1: any array, which will do if it is the only one. */
static int choose(void *ctx, const char *name) {
    Choice *c = ctx;
    size_t n = strlen(name);
    if (n < 4 || strcmp(name + n - 4, ".npy")) return 0;
    size_t used = strlen(c->names);
    snprintf(c->names + used, sizeof c->names - used, "%s%.*s", c->arrays++ ? ", " : "", (int)(n - 4), name);
    if (!c->wanted) return !strcmp(name, "features.npy") ? 3 : 1;
    return !strcmp(name, c->wanted) || (strlen(c->wanted) == n - 4 && !strncmp(name, c->wanted, n - 4)) ? 3 : 0;
}

static Status open_member(NpyFile *f, const char *member) {
    Choice c = {.wanted = member && member[0] ? member : NULL};
    Status st = zip_open(&f->zip, f->f, f->name, choose, &c);
    if (st != OK) return st;
    if (!f->zip && c.wanted)
        return err_set(ERR_FORMAT, "%s: no array called %s; there are: %s", f->name, c.wanted, c.names);
    if (!f->zip) return err_set(ERR_FORMAT, "%s: no arrays in it", f->name);
    if (!c.wanted && c.arrays > 1 && strcmp(zip_name(f->zip), "features.npy"))
        return err_set(ERR_FORMAT, "%s: several arrays, say which one: %s", f->name, c.names);
    return header(f, zip_size(f->zip));
}

Status npy_open_file(NpyFile **out, FILE *file, const char *name, const char *member) {
    uint8_t magic[4] = {0};
    Status st;
    *out = NULL;
    NpyFile *f = mem_new(1, sizeof *f);
    if (!f) {
        fclose(file);
        return ERR_MEMORY;
    }
    f->f = file;
    if (!(f->name = mem_strdup(name))) {
        st = ERR_MEMORY;
        goto fail;
    }
    size_t n = fread(magic, 1, 4, file);
    if (n == 4 && !memcmp(magic, "PK\3\4", 4)) {
        st = open_member(f, member);
    } else if (fseeko(file, 0, SEEK_END)) {
        st = err_set(ERR_IO, "%s: %s", name, strerror(errno));
    } else {
        uint64_t size = (uint64_t)ftello(file);
        rewind(file);
        st = header(f, size);
    }
    if (st == OK) {
        *out = f;
        return OK;
    }
fail:
    npy_close(f);
    return st;
}

Status npy_open(NpyFile **out, const char *path, const char *member) {
    *out = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    return npy_open_file(out, f, path, member);
}

const NpyArray *npy_array(const NpyFile *f) { return &f->array; }

Status npy_read(NpyFile *f, void *dst, size_t n) {
    BUG_ON(n > f->left, "%s: %zu bytes asked for, %llu are left", f->name, n, (unsigned long long)f->left);
    Status st = take(f, dst, n);
    if (st == OK) f->left -= n;
    return st;
}

void npy_close(NpyFile *f) {
    if (!f) return;
    zip_close(f->zip);
    if (f->f) fclose(f->f);
    free(f->name);
    free(f);
}
