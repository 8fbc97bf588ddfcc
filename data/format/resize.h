/* resize: resizing of 8-bit RGB, bit for bit as Pillow (up to version 12) does it, antialiased when shrinking; and the
 * same in floating point, without rounding between, as PyTorch resizes tensors of numbers.
 *
 * Called by whoever makes pixels for an encoder or a thumbnail, on decoded images and on parts of them (a crop is a
 * pointer and a stride). The one idea: two one-dimensional passes, first along rows, then along columns, with weights
 * in 22-bit fixed point and the result of the first pass stored as 8 bit. A pass whose size does not change is skipped.
 * Only a window of the result need be wanted: then only its columns and the rows under it are computed, so that a
 * picture of 5000 x 7 does not become 160,000 x 224 before its middle is cut out.
 *
 * Where taps come from and what they weigh: kernels/base/taps.h. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"
#include "kernels/base/taps.h"

typedef struct {
    TapsKernel kernel;
    int64_t w, h;              /* the size of the whole result, */
    int64_t x, y;              /* and the window of it that is wanted: its corner */
    int cw, ch;                /* and size */
} Resize;

/* dst (ch, cw, 3) from src (h, w, 3), whose rows lie `stride` bytes apart. All sizes at least 1, the window inside the
 * result; dst and src are apart. ERR_MEMORY only. */
Status resize_window(uint8_t *dst, const Resize *r, const uint8_t *src, int w, int h, size_t stride);
Status resize_window_f32(float *dst, const Resize *r, const uint8_t *src, int w, int h, size_t stride); /* of v/255 */

/* All of it, bicubic. */
Status resize_bicubic(uint8_t *dst, int dw, int dh, const uint8_t *src, int w, int h, size_t stride);
