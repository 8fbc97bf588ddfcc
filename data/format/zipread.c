/* zipread: see zipread.h. */
#include "data/format/zipread.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "kernels/base/mem.h"

enum { END_SIZE = 22, END64_LOCATOR = 20, END64_SIZE = 56, ENTRY_SIZE = 46, LOCAL_SIZE = 30, CHUNK = 1 << 16,
       MAX_DIRECTORY = 64 << 20 };

typedef struct {
    uint64_t start, packed, size;           /* where its local header is; lengths packed and unpacked */
    uint32_t crc;
    int method, flags;
    char name[256];
} Entry;

struct ZipMember {
    FILE *f;
    const char *archive;
    Entry entry;
    uint64_t packed_left, left;             /* bytes not yet read from the file, and not yet handed out */
    uLong crc;
    bool inflating;
    z_stream z;
    uint8_t chunk[CHUNK];
};

static uint64_t le(const uint8_t *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static Status broken(const char *archive, const char *what) {
    return err_set(ERR_FORMAT, "%s: broken zip archive: %s", archive, what);
}

static bool read_at(FILE *f, uint64_t at, void *dst, size_t n) {
    return at <= INT64_MAX && fseeko(f, (off_t)at, SEEK_SET) == 0 && fread(dst, 1, n, f) == n;
}

/* Where the central directory is. */
static Status find_directory(FILE *f, const char *archive, uint64_t *at, uint64_t *size) {
    if (fseeko(f, 0, SEEK_END)) return broken(archive, "it cannot be searched");
    uint64_t length = (uint64_t)ftello(f), tail = length < 65535 + END_SIZE ? length : 65535 + END_SIZE;
    uint8_t *buf = mem_new(tail + 1, 1);
    if (!buf) return ERR_MEMORY;
    Status st = OK;
    int64_t end = -1;
    if (!read_at(f, length - tail, buf, tail)) st = broken(archive, "it cannot be read");
    for (int64_t i = (int64_t)tail - END_SIZE; st == OK && end < 0 && i >= 0; i--)
        if (le(buf + i, 4) == 0x06054b50) end = i;
    if (st == OK && end < 0) st = broken(archive, "it has no end record");
    if (st == OK) {
        *size = le(buf + end + 12, 4);
        *at = le(buf + end + 16, 4);
        uint8_t rec[END64_SIZE];
        if (end >= END64_LOCATOR && le(buf + end - END64_LOCATOR, 4) == 0x07064b50) {
            uint64_t where = le(buf + end - END64_LOCATOR + 8, 8);
            if (!read_at(f, where, rec, sizeof rec) || le(rec, 4) != 0x06064b50)
                st = broken(archive, "its zip64 end record");
            *size = le(rec + 40, 8);
            *at = le(rec + 48, 8);
        }
        if (st == OK && (*at > length || *size > length - *at))
            st = broken(archive, "its directory lies outside of the file");
        if (st == OK && *size > MAX_DIRECTORY) st = broken(archive, "its directory is larger than 64 MB");
    }
    free(buf);
    return st;
}

/* Values that do not fit 32 bits stand in extra field 1, in this order. */
static bool zip64_extra(Entry *e, const uint8_t *x, size_t n) {
    while (n >= 4) {
        size_t id = (size_t)le(x, 2), len = (size_t)le(x + 2, 2);
        x += 4;
        n -= 4;
        if (len > n) return false;
        if (id == 1) {
            uint64_t *const wide[] = {&e->size, &e->packed, &e->start};
            for (int i = 0; i < 3; i++) {
                if (*wide[i] != 0xffffffff) continue;
                if (len < 8) return false;
                *wide[i] = le(x, 8);
                x += 8;
                n -= 8;
                len -= 8;
            }
        }
        x += len;
        n -= len;
    }
    return true;
}

static Status choose_entry(const uint8_t *dir, size_t n, const char *archive, ZipChoose *choose, void *ctx, Entry *best,
                           int *fit) {
    for (size_t i = 0; i + ENTRY_SIZE <= n;) {
        const uint8_t *p = dir + i;
        if (le(p, 4) != 0x02014b50) return broken(archive, "its directory");
        Entry e = {.flags = (int)le(p + 8, 2), .method = (int)le(p + 10, 2), .crc = (uint32_t)le(p + 16, 4),
                   .packed = le(p + 20, 4), .size = le(p + 24, 4), .start = le(p + 42, 4)};
        size_t name = (size_t)le(p + 28, 2), extra = (size_t)le(p + 30, 2), comment = (size_t)le(p + 32, 2);
        if (name + extra + comment > n - i - ENTRY_SIZE) return broken(archive, "a name in its directory");
        if (!zip64_extra(&e, p + ENTRY_SIZE + name, extra)) return broken(archive, "the sizes in its directory");
        i += ENTRY_SIZE + name + extra + comment;
        if (name >= sizeof e.name) continue;
        memcpy(e.name, p + ENTRY_SIZE, name);
        int score = choose(ctx, e.name);
        if (score > *fit) {
            *fit = score;
            *best = e;
        }
    }
    return OK;
}

static Status start_member(ZipMember *z, uint64_t length) {
    const Entry *e = &z->entry;
    uint8_t local[LOCAL_SIZE];
    if (e->flags & 1) return err_set(ERR_FORMAT, "%s: %s is encrypted", z->archive, e->name);
    if (e->method != 0 && e->method != 8)
        return err_set(ERR_FORMAT, "%s: %s is packed by method %d, only stored and deflated are read", z->archive,
                       e->name, e->method);
    if (!read_at(z->f, e->start, local, sizeof local) || le(local, 4) != 0x04034b50)
        return broken(z->archive, "a member is not where the directory says");
    uint64_t at = e->start + LOCAL_SIZE + le(local + 26, 2) + le(local + 28, 2);
    if (at > length || e->packed > length - at)
        return broken(z->archive, "a member reaches beyond the end of the file");
    if (e->method == 0 && e->packed != e->size) return broken(z->archive, "a stored member with two lengths");
    if (e->size / 1100 > e->packed) return broken(z->archive, "a member claims more than its bytes can hold");
    if (fseeko(z->f, (off_t)at, SEEK_SET)) return broken(z->archive, "it cannot be searched");
    z->packed_left = e->packed;
    z->left = e->size;
    z->crc = crc32(0, NULL, 0);
    if (e->method == 8) {
        if (inflateInit2(&z->z, -MAX_WBITS) != Z_OK)
            return err_set(ERR_MEMORY, "%s: no memory to unpack it", z->archive);
        z->inflating = true;
    }
    return OK;
}

Status zip_open(ZipMember **out, FILE *f, const char *name, ZipChoose *choose, void *ctx) {
    *out = NULL;
    uint64_t at = 0, size = 0;
    uint8_t *dir = NULL;
    ZipMember *z = mem_new(1, sizeof *z);
    if (!z) return ERR_MEMORY;
    z->f = f;
    z->archive = name;
    int fit = 0;
    Status st = find_directory(f, name, &at, &size);
    if (st == OK && !(dir = mem_new(size + 1, 1))) st = ERR_MEMORY;
    if (st == OK && !read_at(f, at, dir, (size_t)size)) st = broken(name, "its directory cannot be read");
    if (st == OK) st = choose_entry(dir, (size_t)size, name, choose, ctx, &z->entry, &fit);
    free(dir);
    if (st == OK && fit > 0) {
        fseeko(f, 0, SEEK_END);
        if ((st = start_member(z, (uint64_t)ftello(f))) == OK) {
            *out = z;
            return OK;
        }
    }
    zip_close(z);
    return st;
}

uint64_t zip_size(const ZipMember *z) { return z->entry.size; }
const char *zip_name(const ZipMember *z) { return z->entry.name; }

static Status refill(ZipMember *z) {
    size_t n = z->packed_left < CHUNK ? (size_t)z->packed_left : CHUNK;
    if (!n) return broken(z->archive, "packed data ends early");
    if (fread(z->chunk, 1, n, z->f) != n) return err_set(ERR_IO, "%s: it cannot be read to its end", z->archive);
    z->packed_left -= n;
    z->z.next_in = z->chunk;
    z->z.avail_in = (uInt)n;
    return OK;
}

static Status unpack(ZipMember *z, uint8_t *dst, size_t n) {
    while (n) {
        uInt want = n > 1 << 30 ? 1u << 30 : (uInt)n;
        z->z.next_out = dst;
        z->z.avail_out = want;
        Status st = z->z.avail_in ? OK : refill(z);
        if (st != OK) return st;
        int r = inflate(&z->z, Z_NO_FLUSH);
        size_t got = want - z->z.avail_out;
        dst += got;
        n -= got;
        if (r == Z_STREAM_END && n) return broken(z->archive, "packed data ends early");
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) return broken(z->archive, "packed data");
    }
    return OK;
}

Status zip_read(ZipMember *z, void *dst, size_t n) {
    if (n > z->left) return broken(z->archive, "a member is shorter than the array in it");
    Status st = OK;
    if (z->inflating) st = unpack(z, dst, n);
    else if (fread(dst, 1, n, z->f) != n) st = err_set(ERR_IO, "%s: it cannot be read to its end", z->archive);
    if (st != OK) return st;
    z->left -= n;
    for (uint8_t *p = dst; n;) {
        uInt part = n > 1 << 30 ? 1u << 30 : (uInt)n;
        z->crc = crc32(z->crc, p, part);
        p += part;
        n -= part;
    }
    if (!z->left && z->crc != z->entry.crc)
        return err_set(ERR_FORMAT, "%s: the checksum of %s is wrong, its bytes have changed", z->archive,
                       z->entry.name);
    return OK;
}

void zip_close(ZipMember *z) {
    if (!z) return;
    if (z->inflating) inflateEnd(&z->z);
    free(z);
}
