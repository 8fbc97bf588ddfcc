/* resize: see resize.h. */
#include "data/format/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { FIXED_BITS = 22 };

/* The taps of one axis: output d is the sum of weight[d * width + k] * in[first[d] + k], k < count[d]. */
typedef struct {
    int width;
    int *first, *count;      /* (out) */
    int32_t *weight;         /* (out, width) */
} Taps;

static double kernel(double t) {
    const double a = -0.5;
    t = fabs(t);
    if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    if (t < 2) return (((t - 5) * t + 8) * t - 4) * a;
    return 0;
}

static void taps_free(Taps *t) {
    free(t->first);
    free(t->count);
    free(t->weight);
}

static Status taps_make(Taps *t, int in, int out) {
    double scale = (double)in / out, f = scale > 1 ? scale : 1, support = 2 * f;
    t->width = (int)ceil(support) * 2 + 1;
    t->first = mem_new((size_t)out, sizeof *t->first);
    t->count = mem_new((size_t)out, sizeof *t->count);
    t->weight = mem_new((size_t)out * (size_t)t->width, sizeof *t->weight);
    double *w = mem_new((size_t)t->width, sizeof *w);
    bool ok = t->first && t->count && t->weight && w;
    for (int d = 0; ok && d < out; d++) {
        double c = (d + 0.5) * scale, sum = 0;
        int lo = (int)(c - support + 0.5), hi = (int)(c + support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int j = lo; j < hi; j++) sum += w[j - lo] = kernel((j - c + 0.5) * (1 / f));
        for (int k = 0; k < hi - lo; k++) {
            double v = (sum != 0 ? w[k] / sum : w[k]) * (1 << FIXED_BITS);
            t->weight[(size_t)d * (size_t)t->width + (size_t)k] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        t->first[d] = lo;
        t->count[d] = hi - lo;
    }
    free(w);
    return ok ? OK : ERR_MEMORY;
}

static uint8_t clip(int32_t acc) {
    int32_t v = acc >> FIXED_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* dst (h, out, 3) from src (h, in, 3) */
static void along_rows(uint8_t *dst, int out, const uint8_t *src, int h, size_t stride, const Taps *t) {
    for (int y = 0; y < h; y++) {
        const uint8_t *row = src + (size_t)y * stride;
        for (int d = 0; d < out; d++, dst += 3) {
            const int32_t *w = t->weight + (size_t)d * (size_t)t->width;
            const uint8_t *p = row + 3 * (size_t)t->first[d];
            int32_t r = 1 << (FIXED_BITS - 1), g = r, b = r;
            for (int k = 0; k < t->count[d]; k++, p += 3) {
                r += w[k] * p[0];
                g += w[k] * p[1];
                b += w[k] * p[2];
            }
            dst[0] = clip(r);
            dst[1] = clip(g);
            dst[2] = clip(b);
        }
    }
}

/* dst (out, n) from src (in, n): rows are added up whole, so the inner loop is long and straight. */
static void along_columns(uint8_t *dst, int out, const uint8_t *src, size_t n, size_t stride, const Taps *t,
                          int32_t *acc) {
    for (int d = 0; d < out; d++, dst += n) {
        const int32_t *w = t->weight + (size_t)d * (size_t)t->width;
        for (size_t i = 0; i < n; i++) acc[i] = 1 << (FIXED_BITS - 1);
        for (int k = 0; k < t->count[d]; k++) {
            const uint8_t *row = src + (size_t)(t->first[d] + k) * stride;
            for (size_t i = 0; i < n; i++) acc[i] += w[k] * row[i];
        }
        for (size_t i = 0; i < n; i++) dst[i] = clip(acc[i]);
    }
}

Status resize_bicubic(uint8_t *dst, int dw, int dh, const uint8_t *src, int w, int h, size_t stride) {
    BUG_ON(dw < 1 || dh < 1 || w < 1 || h < 1, "resize of %d x %d to %d x %d", w, h, dw, dh);
    Taps tx = {0}, ty = {0};
    uint8_t *middle = NULL;
    int32_t *acc = NULL;
    Status st = ERR_MEMORY;
    if (dw != w) {
        uint8_t *to = dst;
        if (dh != h && !(to = middle = mem_new((size_t)h * (size_t)dw, 3))) goto done;
        if (taps_make(&tx, w, dw) != OK) goto done;
        along_rows(to, dw, src, h, stride, &tx);
        src = to;
        stride = (size_t)dw * 3;
    }
    if (dh != h) {
        if (!(acc = mem_new((size_t)dw * 3, sizeof *acc)) || taps_make(&ty, h, dh) != OK) goto done;
        along_columns(dst, dh, src, (size_t)dw * 3, stride, &ty, acc);
    } else if (src != dst) {
        for (int y = 0; y < h; y++) memcpy(dst + (size_t)y * (size_t)dw * 3, src + (size_t)y * stride, (size_t)dw * 3);
    }
    st = OK;
done:
    taps_free(&tx);
    taps_free(&ty);
    free(middle);
    free(acc);
    return st;
}
