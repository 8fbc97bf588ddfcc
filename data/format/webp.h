/* webp: WebP to 8-bit RGB; the only file that sees webp/decode.h and webp/demux.h. Called by image. A build may be
 * without libwebp: then such a picture is refused with a sentence that says so. Alpha is dropped, as Pillow's
 * convert("RGB") does; of an animation the first frame is taken. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

bool webp_looks_like(const void *bytes, size_t n);

/* The size in the header. ERR_FORMAT; ERR_MISSING: not in this build. */
Status webp_size(const void *bytes, size_t n, const char *name, int *w, int *h);

/* rgb (h, w, 3) of that size. ERR_FORMAT: broken, or it ends early. */
Status webp_decode(uint8_t *rgb, int w, int h, const void *bytes, size_t n, const char *name);
