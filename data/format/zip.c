/* zip: see zip.h. */
#include "data/format/zip.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "kernels/base/mem.h"

enum { LOCAL = 0x04034b50, CENTRAL = 0x02014b50, END = 0x06054b50, END64 = 0x06064b50, LOCATOR64 = 0x07064b50 };
enum { LOCAL_SIZE = 30, CENTRAL_SIZE = 46, END_SIZE = 22, END64_SIZE = 56, LOCATOR64_SIZE = 20, COMMENT_LIMIT = 65535 };

typedef struct { const uint8_t *p; size_t n; const char *path; } Bytes;

static uint64_t little(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static bool inside(Bytes b, uint64_t at, uint64_t n) { return at <= b.n && n <= b.n - at; }

static Status bad(Bytes b, const char *what) { return err_set(ERR_FORMAT, "%s: broken zip archive: %s", b.path, what); }

bool zip_looks_like(const uint8_t *bytes, size_t n) { return n >= END_SIZE && little(bytes, 4) == LOCAL; }

/* The end record is the last thing in the file but for a comment. */
static Status find_directory(Bytes b, uint64_t *at, uint64_t *size, uint64_t *count) {
    /* a comment has at most 65,535 bytes, so no need to look further up */
    size_t lowest = b.n > END_SIZE + COMMENT_LIMIT ? b.n - END_SIZE - COMMENT_LIMIT : 0, e = 0;
    bool found = false;
    for (size_t i = b.n >= END_SIZE ? b.n - END_SIZE + 1 : 0; i > lowest && !found; i--)
        /* its comment's length must lead to the end: a comment may hold the magic as well */
        if (little(b.p + i - 1, 4) == END && little(b.p + i - 1 + 20, 2) == b.n - (i - 1) - END_SIZE) {
            e = i - 1;
            found = true;
        }
    if (!found) return bad(b, "no end of the directory; the file is cut short");
    const uint8_t *p = b.p + e;
    uint64_t disk = little(p + 4, 2), start_disk = little(p + 6, 2);
    *count = little(p + 10, 2);
    *size = little(p + 12, 4);
    *at = little(p + 16, 4);
    if (e >= LOCATOR64_SIZE && little(b.p + e - LOCATOR64_SIZE, 4) == LOCATOR64) {
        uint64_t e64 = little(b.p + e - LOCATOR64_SIZE + 8, 8);
        if (!inside(b, e64, END64_SIZE) || little(b.p + e64, 4) != END64) return bad(b, "no 64-bit end record");
        p = b.p + e64;
        disk = little(p + 16, 4);
        start_disk = little(p + 20, 4);
        *count = little(p + 32, 8);
        *size = little(p + 40, 8);
        *at = little(p + 48, 8);
    }
    /* offsets would count in another file */
    if (disk != 0 || start_disk != 0) return bad(b, "it is one part of several");
    /* the count is a claim: memory for it is asked for later */
    if (!inside(b, *at, *size) || *count > *size / CENTRAL_SIZE) return bad(b, "the directory lies outside the file");
    return OK;
}

/* Replaces the fields that are all ones by those of the 64-bit extra field (4.5.3), in its fixed order. */
static bool widen(const uint8_t *extra, size_t n, uint64_t *size, uint64_t *packed, uint64_t *offset) {
    uint64_t *fields[3] = {size, packed, offset};
    while (n >= 4) {
        size_t id = (size_t)little(extra, 2), len = (size_t)little(extra + 2, 2);
        if (len > n - 4) return false;
        if (id == 1) {
            const uint8_t *p = extra + 4, *end = p + len;
            for (int i = 0; i < 3; i++) {
                /* only fields that did not fit are there */
                if (*fields[i] != 0xffffffffu) continue;
                if (end - p < 8) return false;
                *fields[i] = little(p, 8);
                p += 8;
            }
            return true;
        }
        extra += 4 + len;
        n -= 4 + len;
    }
    /* all ones promise a wide field, and there was none */
    return *size != 0xffffffffu && *packed != 0xffffffffu && *offset != 0xffffffffu;
}

/* One entry of the directory at *at, which is moved behind it. */
static Status read_entry(Bytes b, uint64_t *at, uint64_t end, ZipRecord *r) {
    if (end - *at < CENTRAL_SIZE || little(b.p + *at, 4) != CENTRAL)
        return bad(b, "an entry of the directory is missing");
    const uint8_t *p = b.p + *at;
    uint64_t flags = little(p + 8, 2), method = little(p + 10, 2), packed = little(p + 20, 4), size = little(p + 24, 4);
    uint64_t name = little(p + 28, 2), extra = little(p + 30, 2), comment = little(p + 32, 2),
             local = little(p + 42, 4);
    if (end - *at - CENTRAL_SIZE < name + extra + comment) return bad(b, "an entry reaches out of the directory");
    *at += CENTRAL_SIZE + name + extra + comment;
    if (!widen(p + CENTRAL_SIZE + name, (size_t)extra, &size, &packed, &local)) return bad(b, "a broken 64-bit field");
    if (method == 0 && packed != size) return bad(b, "a stored record with two lengths");
    if (size / 1100 > packed) return bad(b, "a record claims more than its bytes can hold");   /* deflate: 1,032 to 1 */
    if (!inside(b, local, LOCAL_SIZE) || little(b.p + local, 4) != LOCAL) return bad(b, "a record is missing");
    /* its own extra field may have another length than the directory's */
    uint64_t data = local + LOCAL_SIZE + little(b.p + local + 26, 2) + little(b.p + local + 28, 2);
    if (!inside(b, data, packed)) return bad(b, "a record reaches beyond the end of the file");
    *r = (ZipRecord){(const char *)p + CENTRAL_SIZE, (size_t)name, b.p + data, (size_t)size, (size_t)packed,
                     (uint32_t)little(p + 16, 4), flags & 1 ? -1 : (int)method};
    return OK;
}

static int by_name(const void *a, const void *b) {
    const ZipRecord *x = a, *y = b;
    size_t n = x->name_len < y->name_len ? x->name_len : y->name_len;
    int c = n ? memcmp(x->name, y->name, n) : 0;
    return c ? c : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

Status zip_sort(ZipMap *z, const char *path) {
    if (z->count) qsort(z->records, z->count, sizeof *z->records, by_name);
    for (size_t i = 1; i < z->count; i++)
        if (by_name(&z->records[i - 1], &z->records[i]) == 0)
            return err_set(ERR_FORMAT, "%s: broken archive: two records of the same name", path);
    return OK;
}

Status zip_read(ZipMap *z, const uint8_t *bytes, size_t n, const char *path) {
    *z = (ZipMap){0};
    Bytes b = {bytes, n, path};
    uint64_t at = 0, size = 0, count = 0;
    Status st = find_directory(b, &at, &size, &count);
    if (st != OK) return st;
    if (!(z->records = mem_new((size_t)count, sizeof *z->records))) return ERR_MEMORY;
    for (uint64_t end = at + size; z->count < count && st == OK; z->count++) /* no overflow: both lie in the file */
        st = read_entry(b, &at, end, &z->records[z->count]);
    if (st == OK) st = zip_sort(z, path);
    if (st != OK) zip_free(z);
    return st;
}

void zip_free(ZipMap *z) {
    free(z->records);
    *z = (ZipMap){0};
}

const ZipRecord *zip_find(const ZipMap *z, const char *name, size_t name_len) {
    ZipRecord key = {.name = name, .name_len = name_len};
    return z->count ? bsearch(&key, z->records, z->count, sizeof key, by_name) : NULL;
}

/* ---- the bytes of a member --------------------------------------------------------------------------------------- */

struct ZipStream {
    ZipRecord r;
    const char *path;
    size_t at, left;            /* bytes taken from the archive, and not yet handed out */
    uLong crc;
    bool inflating;
    z_stream z;
};

Status zip_stream_open(ZipStream **out, const ZipRecord *r, const char *path) {
    int shown = r->name_len < 100 ? (int)r->name_len : 100;
    *out = NULL;
    if (r->method < 0) return err_set(ERR_FORMAT, "%s: %.*s is encrypted", path, shown, r->name);
    if (r->method != 0 && r->method != 8)
        return err_set(ERR_FORMAT, "%s: %.*s is packed by method %d, only stored and deflated are read", path, shown,
                       r->name, r->method);
    ZipStream *s = mem_new(1, sizeof *s);
    if (!s) return ERR_MEMORY;
    s->r = *r;
    s->path = path;
    s->left = r->size;
    s->crc = crc32(0, NULL, 0);
    if (r->method == 8 && inflateInit2(&s->z, -MAX_WBITS) != Z_OK) { /* negative: raw, without zlib's head */
        free(s);
        return err_set(ERR_MEMORY, "%s: no memory to unpack it", path);
    }
    s->inflating = r->method == 8;
    *out = s;
    return OK;
}

/* zlib counts in 32 bits, so both sides come in pieces. */
static Status inflate_more(ZipStream *s, uint8_t *dst, size_t n) {
    enum { PIECE = 1 << 30 };
    Bytes b = {NULL, 0, s->path};
    while (n) {
        size_t in = s->r.packed - s->at < PIECE ? s->r.packed - s->at : PIECE, want = n < PIECE ? n : PIECE;
        s->z.next_in = (Bytef *)(uintptr_t)(s->r.data + s->at);      /* zlib does not write there */
        s->z.avail_in = (uInt)in;
        s->z.next_out = dst;
        s->z.avail_out = (uInt)want;
        int r = inflate(&s->z, Z_NO_FLUSH);
        size_t got = want - s->z.avail_out, used = in - s->z.avail_in;
        s->at += used;
        dst += got;
        n -= got;
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) return bad(b, "packed data");
        if (n && (r == Z_STREAM_END || (!got && !used))) return bad(b, "packed data ends early");
    }
    return OK;
}

Status zip_stream_read(ZipStream *s, void *dst, size_t n) {
    Bytes b = {NULL, 0, s->path};
    if (n > s->left) return bad(b, "a member is shorter than the array in it");
    Status st = OK;
    if (s->inflating) st = inflate_more(s, dst, n);
    else {
        memcpy(dst, s->r.data + s->at, n);
        s->at += n;
    }
    if (st != OK) return st;
    s->left -= n;
    for (const uint8_t *p = dst; n;) {
        uInt part = n > 1 << 30 ? 1u << 30 : (uInt)n; /* zlib counts in 32 bits */
        s->crc = crc32(s->crc, p, part);
        p += part;
        n -= part;
    }
    if (!s->left && s->crc != s->r.crc) /* known only when all of it has come */
        return err_set(ERR_FORMAT, "%s: the checksum of %.*s is wrong, its bytes have changed", s->path,
                       s->r.name_len < 100 ? (int)s->r.name_len : 100, s->r.name);
    return OK;
}

void zip_stream_close(ZipStream *s) {
    if (s && s->inflating) inflateEnd(&s->z);
    free(s);
}
