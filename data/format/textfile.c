/* textfile: see textfile.h. */
#include "data/format/textfile.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "data/format/filekind.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { PIECE = 1 << 20, PACKING = 1100 };        /* deflate never packs better than 1,032 to 1 */

/* zlib's own reader takes plain files as they are. */
static Status read_all(gzFile f, const char *path, char **text, size_t *n) {
    size_t cap = 0;
    for (int got = 1; got > 0; *n += (size_t)got) {
        if (cap - *n < PIECE) {
            cap = cap ? 2 * cap : 2 * PIECE;
            if (cap > 2 * TEXTFILE_MAX) return err_set(ERR_FORMAT, "%s: more than 4 GB of text", path);
            char *bigger = mem_grow(*text, cap, 1);
            if (!bigger) return err_context(ERR_MEMORY, "%s", path);
            *text = bigger;
        }
        if ((got = gzread(f, *text + *n, PIECE)) < 0) {
            int code;
            const char *why = gzerror(f, &code);
            return code == Z_ERRNO ? err_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno))
                                   : err_set(ERR_FORMAT, "%s: broken gzip: %s", path, why);
        }
    }
    return OK;
}

static uint32_t unit(const uint8_t *p, bool big) {
    return big ? (uint32_t)(p[0] << 8 | p[1]) : (uint32_t)(p[1] << 8 | p[0]);
}

/* UTF-16 to UTF-8; lone surrogates become U+FFFD. */
static Status from_utf16(char **out, size_t *n, const uint8_t *p, size_t size, bool big) {
    size_t bytes;
    if (!mem_mul(size / 2 + 1, UTF8_MAX, &bytes)) return ERR_MEMORY;
    char *to = *out = mem_new(bytes, 1);
    if (!to) return ERR_MEMORY;
    for (size_t i = 0; i + 1 < size; i += 2) {               /* an odd last byte is half a unit */
        uint32_t c = unit(p + i, big);
        if (c >= 0xd800 && c < 0xdc00 && i + 3 < size) {
            uint32_t low = unit(p + i + 2, big);
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i += 2;
            }
        }
        to += utf8_put(c >= 0xd800 && c < 0xe000 ? UNI_REPLACEMENT : c, to);
    }
    *n = (size_t)(to - *out);
    return OK;
}

/* From the bytes of the file, unpacked: looks what they are. Takes over `raw`. */
static Status decode(char **text, size_t *n, char *raw, size_t size, const char *path, const char *wanted) {
    const uint8_t *p = (const uint8_t *)raw;
    Status st = OK;
    bool little = size >= 2 && p[0] == 0xff && p[1] == 0xfe, big = size >= 2 && p[0] == 0xfe && p[1] == 0xff;
    bool bare = size >= 4 && p[0] && !p[1] && p[2] && !p[3];         /* ASCII in UTF-16 without its mark */
    if (little || big || bare) {
        size_t mark = bare ? 0 : 2;
        st = from_utf16(text, n, p + mark, size - mark, big);
        free(raw);
        return st;
    }
    if (filekind_name(raw, size)) {
        st = filekind_refuse(path, raw, size, wanted);
        free(raw);
        return st;
    }
    size_t mark = size >= 3 && !memcmp(p, "\xef\xbb\xbf", 3) ? 3 : 0;
    memmove(raw, raw + mark, size - mark);
    raw[*n = size - mark] = 0;                               /* whoever read it left room for one more */
    *text = raw;
    return OK;
}

Status textfile_read(char **text, size_t *n, const char *path, const char *wanted) {
    struct stat about;
    char *raw = NULL;
    size_t size = 0;
    *text = NULL;
    *n = 0;
    if (!stat(path, &about) && S_ISDIR(about.st_mode))       /* a folder can be opened, and fails at the first read */
        return err_set(ERR_IO, "%s: is a folder, not %s", path, wanted);
    gzFile f = gzopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno ? errno : ENOMEM));
    gzbuffer(f, 1 << 17);                                    /* zlib's own 8 KB would be a system call each */
    Status st = read_all(f, path, &raw, &size);
    if (gzclose(f) == Z_BUF_ERROR && st == OK)               /* only closing tells that the end is missing */
        st = err_set(ERR_FORMAT, "%s: broken gzip: it ends early, the file was cut off", path);
    if (st == OK) return decode(text, n, raw, size, path, wanted);
    free(raw);
    return st;
}

/* A gzip member in memory; its length is bounded by what its bytes can hold. */
static Status unpack(char **out, size_t *n, const uint8_t *bytes, size_t size, const char *path) {
    size_t cap = size < TEXTFILE_MAX / PACKING ? size * PACKING : TEXTFILE_MAX, room = cap < PIECE ? cap : PIECE;
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)(size < UINT32_MAX ? size : UINT32_MAX)};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) return err_set(ERR_MEMORY, "%s: no memory to unpack it", path);
    Status st = OK;
    int r = Z_OK;
    for (*n = 0; st == OK && r != Z_STREAM_END;) {
        char *bigger = mem_grow(*out, room + 1, 1);
        if (!bigger) { st = ERR_MEMORY; break; }
        *out = bigger;
        z.next_out = (Bytef *)*out + *n;
        z.avail_out = (uInt)(room - *n);
        r = inflate(&z, Z_NO_FLUSH);
        size_t before = *n;
        *n = room - z.avail_out;
        bool stuck = *n == before && z.avail_out;            /* room and nothing came: the rest is not there */
        if ((r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) || stuck ||
            (*n == room && room == cap && r != Z_STREAM_END))
            st = err_set(ERR_FORMAT, "%s: broken gzip, or it ends early", path);
        if (*n == room) room = room < cap / 2 ? 2 * room : cap;
    }
    inflateEnd(&z);
    return st;
}

Status textfile_decode(char **text, size_t *n, const void *bytes, size_t size, const char *path, const char *wanted) {
    char *raw = NULL;
    size_t got = size;
    Status st = OK;
    *text = NULL;
    *n = 0;
    if (size >= 2 && !memcmp(bytes, "\x1f\x8b", 2)) st = unpack(&raw, &got, bytes, size, path);
    else if (!(raw = mem_new(size + 1, 1))) st = ERR_MEMORY;
    else memcpy(raw, bytes, size);
    if (st == OK) return decode(text, n, raw, got, path, wanted);
    free(raw);
    return st;
}

bool textfile_line(const char **at, const char *end, const char **line, size_t *n) {
    if (*at >= end) return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *n = (size_t)((stop ? stop : end) - *at);
    *at = stop ? stop + 1 : end;
    while (*n && (*line)[*n - 1] == '\r') --*n;              /* some editors leave two */
    return true;
}
