/* safetensors: see safetensors.h. The header is scanned by the small grammar it may have, without recursion and
 * without a JSON tree: { "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__":
 * {"key": "text"} }. */
#include "data/format/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/mapfile.h"
#include "kernels/base/mem.h"

enum { HEADER_LIMIT = 100000000 };

typedef struct {
    StTensor t;
    uint64_t begin, end;      /* in the data, as the header says */
    void *copy;               /* where the file has the tensor misaligned; else NULL */
} Entry;

struct StFile {
    char *path;
    MapFile map;              /* empty when the bytes belong to the caller */
    char *text;               /* all unescaped strings of the header */
    Entry *entries;           /* sorted by place in the file */
    size_t count;
    Entry **by_name;
    StMeta *meta;
    size_t nmeta;
    bool has_meta;
};

/* ---- scanning --------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *path;
    const unsigned char *start, *p, *end;
    char *text;               /* where the next unescaped string goes */
} Scan;

static Status bad(const Scan *s, const char *wanted) {
    return err_set(ERR_FORMAT, "%s: the header is broken at byte %zu: %s", s->path, (size_t)(s->p - s->start) + 8,
                   wanted);
}

static void skip_blanks(Scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

static bool accept(Scan *s, char c) {
    skip_blanks(s);
    if (s->p == s->end || *s->p != (unsigned char)c) return false;
    s->p++;
    return true;
}

static Status expect(Scan *s, char c) {
    char wanted[] = "'?' was expected";
    wanted[1] = c;
    return accept(s, c) ? OK : bad(s, wanted);
}

/* After an element of an array or object: *more tells whether another follows. */
static Status next_or_close(Scan *s, char close, bool *more) {
    *more = accept(s, ',');
    return *more ? OK : expect(s, close);
}

/* Length of the well-formed UTF-8 sequence at p, 0 when there is none (overlong and surrogate forms included). */
static size_t utf8_length(const unsigned char *p, const unsigned char *end) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = *p < 0x80 ? 1 : (*p & 0xe0) == 0xc0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : (*p & 0xf8) == 0xf0 ? 4 : 0;
    if (n < 2) return n;
    if ((size_t)(end - p) < n) return 0;
    uint32_t c = *p & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

static bool scan_hex4(Scan *s, uint32_t *out) {
    if (s->end - s->p < 4) return false;
    *out = 0;
    for (int i = 0; i < 4; i++) {
        unsigned char c = *s->p++;
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
              : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (v < 0) return false;
        *out = *out << 4 | (uint32_t)v;
    }
    return true;
}

/* The part after \u, to UTF-8. */
static bool scan_unicode(Scan *s) {
    uint32_t c, low;
    if (!scan_hex4(s, &c) || (c >= 0xdc00 && c < 0xe000)) return false;
    if (c >= 0xd800 && c < 0xdc00) {
        if (s->end - s->p < 6 || s->p[0] != '\\' || s->p[1] != 'u') return false;
        s->p += 2;
        if (!scan_hex4(s, &low) || low < 0xdc00 || low > 0xdfff) return false;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
    int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *s->text++ = (char)(more == 0 ? c : ((0xf00u >> (more + 1) & 0xf0u) | c >> 6 * more));
    for (int i = more - 1; i >= 0; i--) *s->text++ = (char)(0x80u | (c >> 6 * i & 0x3fu));
    return true;
}

/* A string, unescaped and ended by NUL; what it becomes is never longer than what it was. Control characters are
 * refused (so a name can be printed), also written as escapes, except the blanks that a metadata text may hold. */
static Status scan_string(Scan *s, char **out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    Status st = expect(s, '"');
    if (st != OK) return st;
    char *begin = s->text;
    for (;;) {
        if (s->p == s->end) return bad(s, "a string does not end");
        unsigned char c = *s->p;
        if (c == '"') break;
        if (c < 0x20) return bad(s, "a control character in a string");
        if (c != '\\') {
            size_t n = utf8_length(s->p, s->end);
            if (n == 0) return bad(s, "not UTF-8");
            memcpy(s->text, s->p, n);
            s->text += n;
            s->p += n;
            continue;
        }
        s->p++;
        const char *k = s->p < s->end && *s->p ? strchr(from, *s->p) : NULL;
        if (k) {
            *s->text++ = to[k - from];
            s->p++;
        } else if (s->p < s->end && *s->p == 'u') {
            s->p++;
            if (!scan_unicode(s)) return bad(s, "\\u wants four hexadecimal digits that make a character");
        } else {
            return bad(s, "an unknown escape");
        }
        if (s->text[-1] == 0) return bad(s, "a NUL in a string");
    }
    s->p++;
    *s->text++ = 0;
    *out = begin;
    return OK;
}

static Status scan_number(Scan *s, uint64_t *out) {
    skip_blanks(s);
    const unsigned char *first = s->p;
    uint64_t v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
        uint64_t d = (uint64_t)(*s->p - '0');
        /* asked before it happens: what wraps around would pass the checks of place() */
        if (v > (INT64_MAX - d) / 10) return bad(s, "a number beyond 63 bits");
        v = v * 10 + d;
    }
    if (s->p == first) return bad(s, "a whole number was expected");
    /* JSON has none; a reader that took it for octal would see another file */
    if (*first == '0' && s->p - first > 1) return bad(s, "a number with a leading 0");
    *out = v;
    return OK;
}

static Status scan_shape(Scan *s, StTensor *t) {
    Status st = expect(s, '[');
    bool more = !accept(s, ']');
    while (st == OK && more) {
        uint64_t v;
        if (t->ndim == ST_DIMS)
            return err_set(ERR_FORMAT, "%s: tensor %s has more than %d dimensions", s->path, t->name, ST_DIMS);
        if ((st = scan_number(s, &v)) != OK) break;
        t->shape[t->ndim++] = (int64_t)v;
        st = next_or_close(s, ']', &more);
    }
    return st;
}

static Status scan_offsets(Scan *s, Entry *e) {
    Status st;
    if ((st = expect(s, '[')) != OK || (st = scan_number(s, &e->begin)) != OK || (st = expect(s, ',')) != OK ||
        (st = scan_number(s, &e->end)) != OK)
        return st;
    return expect(s, ']');
}

static Status scan_dtype(Scan *s, StTensor *t) {
    char *name;
    Status st = scan_string(s, &name);
    if (st != OK) return st;
    int d = dtype_from_name(name);
    if (d < 0 || strcmp(name, dtype_safetensors((DType)d)) != 0)
        return err_set(ERR_FORMAT, "%s: tensor %s has element type %.20s, which is not supported", s->path, t->name,
                       name);
    t->dtype = (DType)d;
    return OK;
}

static Status scan_tensor(Scan *s, char *name, Entry *e) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    unsigned seen = 0;
    bool more = true;
    e->t.name = name;
    Status st = expect(s, '{');
    while (st == OK && more) {
        char *key;
        if ((st = scan_string(s, &key)) != OK || (st = expect(s, ':')) != OK) return st;
        unsigned which = strcmp(key, "dtype") == 0 ? DTYPE : strcmp(key, "shape") == 0 ? SHAPE
                       : strcmp(key, "data_offsets") == 0 ? OFFSETS : 0;
        if (!which || (seen & which)) return bad(s, "dtype, shape and data_offsets are expected, each once");
        seen |= which;
        st = which == DTYPE ? scan_dtype(s, &e->t) : which == SHAPE ? scan_shape(s, &e->t) : scan_offsets(s, e);
        if (st == OK) st = next_or_close(s, '}', &more);
    }
    if (st == OK && seen != (DTYPE | SHAPE | OFFSETS))
        return err_set(ERR_FORMAT, "%s: tensor %s lacks dtype, shape or data_offsets", s->path, name);
    return st;
}

static Status scan_metadata(Scan *s, StFile *f) {
    if (f->has_meta) return bad(s, "__metadata__ stands here twice");
    f->has_meta = true;
    Status st = expect(s, '{');
    bool more = !accept(s, '}');
    while (st == OK && more) {
        char *key, *value;
        if ((st = scan_string(s, &key)) != OK || (st = expect(s, ':')) != OK || (st = scan_string(s, &value)) != OK)
            break;
        if (mem_room(&f->meta, f->nmeta, 1, sizeof *f->meta) != OK) return ERR_MEMORY;
        f->meta[f->nmeta++] = (StMeta){key, value};
        st = next_or_close(s, '}', &more);
    }
    return st;
}

static bool printable(const char *name) {
    for (; *name; name++)
        if ((unsigned char)*name < 0x20 || *name == 0x7f) return false;
    return true;
}

static Status scan_header(Scan *s, StFile *f) {
    Status st = expect(s, '{');
    bool more = !accept(s, '}');
    while (st == OK && more) {
        char *name;
        if ((st = scan_string(s, &name)) != OK || (st = expect(s, ':')) != OK) break;
        if (strcmp(name, "__metadata__") == 0) {
            st = scan_metadata(s, f);
        } else {
            if (!printable(name)) return bad(s, "a tensor name with a control character");
            if (mem_room(&f->entries, f->count, 1, sizeof *f->entries) != OK) return ERR_MEMORY;
            f->entries[f->count] = (Entry){0};
            st = scan_tensor(s, name, &f->entries[f->count++]);
        }
        if (st == OK) st = next_or_close(s, '}', &more);
    }
    if (st != OK) return st;
    skip_blanks(s);
    return s->p == s->end ? OK : bad(s, "text behind the closing brace");
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name);
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
    uint64_t at = 0;
    if (f->count) qsort(f->entries, f->count, sizeof *f->entries, by_place);
    for (size_t i = 0; i < f->count; i++) {
        Entry *e = &f->entries[i];
        StTensor *t = &e->t;
        char shape[ST_SHAPE_TEXT];
        if (!tensor_bytes(t, &t->nbytes))
            return err_set(ERR_FORMAT, "%s: tensor %s: shape %s is too large", f->path, t->name,
                           st_shape_text(t, shape, sizeof shape));
        if (e->end < e->begin || e->end - e->begin != t->nbytes)
            return err_set(ERR_FORMAT,
                           "%s: tensor %s: shape %s of %s takes %zu bytes, data_offsets are [%" PRIu64 ", %" PRIu64 "]",
                           f->path, t->name, st_shape_text(t, shape, sizeof shape), dtype_safetensors(t->dtype),
                           t->nbytes, e->begin, e->end);
        /* holes would carry what nobody declared, overlaps one tensor's bytes as another's */
        if (e->begin != at)
            return err_set(ERR_FORMAT,
                           "%s: tensor %s begins at byte %" PRIu64 " of the data, the one before ends at %" PRIu64,
                           f->path, t->name, e->begin, at);
        if (e->end > ndata)
            return err_set(ERR_FORMAT,
                           "%s: tensor %s ends at byte %" PRIu64 " of the data, the file holds %zu; it is cut short",
                           f->path, t->name, e->end, ndata);
        at = e->end;
        t->data = data + e->begin;
        if ((uintptr_t)t->data % (unsigned)dtype_size(t->dtype) != 0) {   /* legal in a file, not for a C pointer */
            if (!(e->copy = mem_new(t->nbytes, 1))) return ERR_MEMORY;
            memcpy(e->copy, t->data, t->nbytes);
            t->data = e->copy;
        }
    }
    if (at != ndata)
        return err_set(ERR_FORMAT, "%s: the tensors take %" PRIu64 " bytes, the file holds %zu", f->path, at, ndata);
    return OK;
}

static Status index_names(StFile *f) {
    if (!(f->by_name = mem_new(f->count, sizeof *f->by_name))) return ERR_MEMORY;
    for (size_t i = 0; i < f->count; i++) f->by_name[i] = &f->entries[i];
    if (f->count) qsort(f->by_name, f->count, sizeof *f->by_name, by_name);
    for (size_t i = 1; i < f->count; i++)
        if (by_name(&f->by_name[i - 1], &f->by_name[i]) == 0)
            return err_set(ERR_FORMAT, "%s: tensor %s stands in the header twice", f->path, f->by_name[i]->t.name);
    return OK;
}

static Status parse(StFile *f, const unsigned char *bytes, size_t size) {
    uint64_t n = 0;
    if (size < 8) return err_set(ERR_FORMAT, "%s: %zu bytes are no safetensors file", f->path, size);
    bool text = true;
    for (int i = 7; i >= 0; i--) n = n << 8 | bytes[i], text = text && (bytes[i] >= ' ' || bytes[i] == '\n') && bytes[i] < 127;
    if (text) return err_set(ERR_FORMAT, "%s: is a text, not a safetensors file", f->path);
    if (n > HEADER_LIMIT || n > size - 8)
        return err_set(ERR_FORMAT,
                       "%s: a header of %" PRIu64 " bytes in a file of %zu: not a safetensors file, or cut short",
                       f->path, n, size);
    if (!(f->text = mem_new((size_t)n + 1, 1))) return ERR_MEMORY;
    Scan s = {f->path, bytes + 8, bytes + 8, bytes + 8 + n, f->text};
    Status st = scan_header(&s, f);
    if (st == OK) st = place(f, bytes + 8 + n, size - 8 - (size_t)n);
    if (st == OK) st = index_names(f);
    return st;
}

Status st_open_memory(StFile **out, const void *bytes, size_t n, const char *name) {
    *out = NULL;
    StFile *f = mem_new(1, sizeof *f);
    if (!f) return ERR_MEMORY;
    Status st = (f->path = mem_strdup(name)) ? parse(f, bytes, n) : ERR_MEMORY;
    if (st == OK) *out = f;
    else st_close(f);
    return st;
}

Status st_open(StFile **out, const char *path) {
    *out = NULL;
    MapFile map;
    Status st = mapfile_open(&map, path);
    if (st == OK) st = st_open_memory(out, map.bytes, map.n, path);
    if (st == OK) (*out)->map = map;
    else mapfile_close(&map);
    return st;
}

void st_close(StFile *f) {
    if (!f) return;
    for (size_t i = 0; i < f->count; i++) free(f->entries[i].copy);
    mapfile_close(&f->map);
    free(f->entries);
    free(f->by_name);
    free(f->meta);
    free(f->text);
    free(f->path);
    free(f);
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
    for (size_t i = 0; i < f->nmeta; i++)
        if (strcmp(f->meta[i].key, key) == 0) return f->meta[i].value;
    return NULL;
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
