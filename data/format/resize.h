/* resize: bicubic resizing of 8-bit RGB, bit for bit as Pillow (up to version 12) does it, antialiased when shrinking.
 *
 * Called by extraction on decoded images, and on parts of them (a crop is a pointer and a stride).
 * The one idea: two one-dimensional passes, first along rows, then along columns, with weights in 22-bit fixed point
 * and the result of the first pass stored as 8 bit. A pass whose size does not change is skipped.
 *
 * Source: the rules and check values of Pillow's Resample.c as public behaviour: kernel A = -0.5, support 2
 * max(in/out, 1), taps from trunc(c - support + 0.5) to trunc(c + support + 0.5), weights normalised to sum 1. */
#ifndef QF_RESIZE_H
#define QF_RESIZE_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* dst (dh, dw, 3) from src (h, w, 3), whose rows lie `stride` bytes apart. All sizes at least 1; dst and src are apart.
 * ERR_MEMORY only. */
Status resize_bicubic(uint8_t *dst, int dw, int dh, const uint8_t *src, int w, int h, size_t stride);

#endif
