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

enum { PIECE = 1 << 20 };

Status textfile_bytes(FILE *f, const char *path, char **bytes, size_t *n) {
    *bytes = NULL;
    *n = 0;
    for (size_t got = 1; got; *n += got) {
        if (*n > TEXTFILE_MAX)
            return err_set(ERR_FORMAT, "%s: larger than %zu bytes, the most that is read as text", path, TEXTFILE_MAX);
        if (mem_room(bytes, *n, PIECE + 1, 1) != OK) return err_context(ERR_MEMORY, "%s", path);
        got = fread(*bytes + *n, 1, PIECE, f);
    }
    return ferror(f) ? err_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno)) : OK;
}

/* Members of gzip, one behind the other as cat makes them. Memory grows with what comes out, no claim counts. */
static Status unpack(char **out, size_t *n, const char *bytes, size_t size, const char *path) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)(size < UINT32_MAX ? size : UINT32_MAX)};
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) return err_set(ERR_MEMORY, "%s: no memory to unpack it", path);
    Status st = OK;
    *n = 0;
    for (int r = Z_OK; r != Z_STREAM_END && st == OK;) {
        if ((st = mem_room(out, *n, PIECE + 1, 1)) != OK) break;
        z.next_out = (Bytef *)*out + *n;
        z.avail_out = PIECE;
        r = inflate(&z, Z_NO_FLUSH);
        *n += PIECE - z.avail_out;
        bool ended = r == Z_STREAM_END, stuck = !z.avail_in && z.avail_out; /* room, and nothing to fill it */
        if (ended && z.avail_in > 1 && z.next_in[0] == 0x1f && z.next_in[1] == 0x8b) r = inflateReset(&z);
        else if (!ended && ((r != Z_OK && r != Z_BUF_ERROR) || stuck))
            st = err_set(ERR_FORMAT, "%s: broken gzip: %s", path,
                         stuck ? "it ends early, the file was cut off" : z.msg ? z.msg : "packed data");
        else if (*n > TEXTFILE_MAX) st = err_set(ERR_FORMAT, "%s: more than 4 GB of text", path);
    }
    inflateEnd(&z);
    return st;
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

/* From the bytes of the file: looks what they are. Takes over `raw`, which has room for one more. */
static Status decode(char **text, size_t *n, char *raw, size_t size, const char *path, const char *wanted) {
    if (size >= 2 && !memcmp(raw, "\x1f\x8b", 2)) {
        char *packed = raw;
        raw = NULL;
        Status st = unpack(&raw, &size, packed, size, path);
        free(packed);
        if (st != OK) return free(raw), st;
    }
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
    raw[*n = size - mark] = 0;                               /* there is room for one more */
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
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    Status st = textfile_bytes(f, path, &raw, &size);
    fclose(f);
    if (st == OK) return decode(text, n, raw, size, path, wanted);
    free(raw);
    return st;
}

Status textfile_decode(char **text, size_t *n, const void *bytes, size_t size, const char *path, const char *wanted) {
    char *raw = mem_new(size + 1, 1);
    *text = NULL;
    *n = 0;
    if (!raw) return ERR_MEMORY;
    memcpy(raw, bytes, size);
    return decode(text, n, raw, size, path, wanted);
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
