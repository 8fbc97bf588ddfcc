/* taps: which input samples an output sample of a resized axis is made of, and with which weights.
 *
 * Called by whoever resizes: pictures (data/format/resize.c) and position tables of image encoders
 * (kernels/model/vit_position.c). The one idea: a separable resize is one list of taps an axis, and everything that
 * tells libraries apart is in how the list is made.
 *
 *   antialiased  as Pillow, and PyTorch with antialias=True: scale = in/out, f = max(scale, 1), c = (d + 0.5) scale;
 *                taps from trunc(c - support f + 0.5) to trunc(c + support f + 0.5), cut at the border, weights
 *                K((j - c + 0.5) / f) normalised to sum 1. Cubic has A = -0.5.
 *   plain        as PyTorch without: two or four taps around s, indices beyond the border count as the border. Cubic
 * has
 *                A = -0.75 and s = (d + 0.5) in/out - 0.5, or s = d (in - 1)/(out - 1) with corners aligned; linear
 *                takes no s below 0.
 *
 * Source: Pillow's Resample.c and torch.nn.functional.interpolate as public behaviour. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef enum { TAPS_LINEAR, TAPS_CUBIC, TAPS_LANCZOS } TapsKernel;

/* Output d, counted from the window's first, is the sum over k < count[d] of weight[d * width + k] * in[first[d] +
 * k]. */
typedef struct {
    int width;
    int *first, *count;        /* (n) */
    double *weight;            /* (n, width) */
} Taps;

/* Outputs [from, from + n) of an axis of `in` samples resized to `out`. ERR_MEMORY only. */
Status taps_antialiased(Taps *t, TapsKernel kernel, int in, int64_t out, int64_t from, int n);
Status taps_plain(Taps *t, TapsKernel kernel, int in, int out, bool align_corners); /* no Lanczos */
void taps_free(Taps *t);
