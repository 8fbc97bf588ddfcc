/* exif: see exif.h. */
#include "data/format/exif.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

typedef struct { const uint8_t *p; size_t n; } Bytes;

static uint32_t number(const uint8_t *p, int bytes, bool big) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint32_t)p[big ? bytes - 1 - i : i] << (8 * i);
    return v;
}

/* The first directory of a TIFF: entries of 12 bytes, tag, type, count, value. */
static int from_tiff(Bytes t) {
    enum { ORIENTATION = 0x0112, SHORT = 3 };
    if (t.n < 8 || (memcmp(t.p, "II*\0", 4) && memcmp(t.p, "MM\0*", 4))) return 1;
    bool big = t.p[0] == 'M';
    size_t at = number(t.p + 4, 4, big);
    if (at > t.n - 2) return 1;                              /* there are 8 at least: nothing wraps */
    size_t count = number(t.p + at, 2, big);
    for (size_t i = 0; i < count && at + 2 + 12 * (i + 1) <= t.n; i++) {
        const uint8_t *e = t.p + at + 2 + 12 * i;
        if (number(e, 2, big) != ORIENTATION || number(e + 2, 2, big) != SHORT) continue;
        uint32_t v = number(e + 8, 2, big); /* a SHORT stands in the first bytes of the field, in either order */
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

static int from_jpeg(Bytes b) {
    /* the scan (0xda) is the end of what describes it */
    for (size_t at = 2; at + 4 <= b.n && b.p[at] == 0xff && b.p[at + 1] != 0xda;) {
        size_t length = number(b.p + at + 2, 2, true);
        if (length < 2 || at + 2 + length > b.n) return 1;   /* a length counts itself */
        if (b.p[at + 1] == 0xe1 && length > 8 && memcmp(b.p + at + 4, "Exif\0", 6) == 0)
            return from_tiff((Bytes){b.p + at + 10, length - 8});
        at += 2 + length;
    }
    return 1;
}

/* PNG: length, type, data, check, from byte 8; RIFF: type, length, data to a whole pair, from byte 12. */
static int from_chunks(Bytes b, bool png) {
    size_t head = 8, tail = png ? 4 : 0;
    for (size_t at = png ? 8 : 12; at + head <= b.n;) {
        const uint8_t *type = b.p + at + (png ? 4 : 0);
        size_t length = number(b.p + at + (png ? 0 : 4), 4, png);
        if (length > b.n - at - head) return 1;
        if (memcmp(type, png ? "eXIf" : "EXIF", 4) == 0) {
            Bytes t = {b.p + at + head, length};
            /* some writers put JPEG's prefix here, too */
            if (t.n > 6 && memcmp(t.p, "Exif\0", 6) == 0) t.p += 6, t.n -= 6;
            return from_tiff(t);
        }
        if (length + tail > b.n - at - head) return 1;
        at += head + length + tail + (png ? 0 : length % 2);
    }
    return 1;
}

int exif_orientation(const void *bytes, size_t n) {
    Bytes b = {bytes, n};
    if (n >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3)) return from_jpeg(b);
    if (n >= 8 && !memcmp(bytes, "\x89PNG\r\n\x1a\n", 8)) return from_chunks(b, true);
    return n >= 12 && !memcmp(bytes, "RIFF", 4) && !memcmp(b.p + 8, "WEBP", 4) ? from_chunks(b, false) : 1;
}

Status exif_turn(Image *im, int o) {
    if (o <= 1) return OK;
    int w = im->w, h = im->h, W = o >= 5 ? h : w, H = o >= 5 ? w : h;
    uint8_t *out = mem_new((size_t)w * (size_t)h, 3), *to = out;
    if (!out) return ERR_MEMORY;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++, to += 3) {
            int u = o >= 5 ? y : x, v = o >= 5 ? x : y;
            if (o == 2 || o == 3 || o == 7 || o == 8) u = w - 1 - u;
            if (o == 3 || o == 4 || o == 6 || o == 7) v = h - 1 - v;
            memcpy(to, im->rgb + 3 * ((size_t)v * (size_t)w + (size_t)u), 3);
        }
    free(im->rgb);
    *im = (Image){.w = W, .h = H, .rgb = out};
    return OK;
}
