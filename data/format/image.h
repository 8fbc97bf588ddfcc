/* image: JPEG, PNG and WebP (webp.h) to 8-bit RGB and back to PNG; the only file that sees jpeglib.h and png.h.
 *
 * Called by extraction and by whoever wants a picture on disk. The one idea: the pixels are those that Pillow's
 * Image.open(f).convert("RGB") gives, bit for bit, because published features were computed from those:
 *   - EXIF orientation is not applied; alpha, transparent colours, gamma and colour profiles are dropped, not used;
 *   - CMYK and YCCK JPEG always count as stored inverted: R = round(C' K' / 255);
 *   - 16-bit PNG gives the high byte (16-bit gray too, where Pillow clips at 255, a known defect of its own).
 * It does not resize (resize.h), and reads no other formats.
 *
 * Files are not trusted: a size is checked before anything is allocated, and a broken file is an ERR_FORMAT sentence
 * that names it. A JPEG or PNG that ends early is broken;
 * libjpeg's other warnings (stray bytes) pass, as they do in Pillow. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

enum { IMAGE_MAX_PIXELS = 1 << 27 };   /* 11,585 x 11,585; 400 MB of RGB */

typedef struct {
    int w, h;
    uint8_t *rgb;      /* (h, w, 3), owned */
} Image;

/* Decodes n bytes; `name` is for messages. More than max_pixels is refused: ERR_FORMAT. */
Status image_decode(Image *out, const void *bytes, size_t n, const char *name, int64_t max_pixels);

/* Reads the whole file and decodes it, up to IMAGE_MAX_PIXELS. ERR_IO when it cannot be read. upright: turned as its
 * EXIF says (exif.h). */
Status image_read(Image *out, const char *path);
Status image_read_turned(Image *out, const char *path, bool upright);
Status image_decode_turned(Image *out, const void *bytes, size_t n, const char *name, bool upright);

/* Writes rgb (h, w, 3) as a PNG, over what was there; or to an open file. */
Status image_write_png(const char *path, const uint8_t *rgb, int w, int h);
Status image_put_png(FILE *f, const uint8_t *rgb, int w, int h);

void image_free(Image *im);            /* leaves it empty */
