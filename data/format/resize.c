/* resize: see resize.h. */
#include "data/format/resize.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { FIXED_BITS = 22 };

/* What both passes of a window need. An axis that keeps its size has no taps. */
typedef struct {
    Taps tx, ty;
    int row0, rows;            /* rows of src that the window's columns are made of */
} Plan;

static void plan_free(Plan *p) {
    taps_free(&p->tx);
    taps_free(&p->ty);
}

static Status plan_make(Plan *p, const Resize *r, int w, int h) {
    BUG_ON(w < 1 || h < 1 || r->cw < 1 || r->ch < 1 || r->x < 0 || r->y < 0 || r->x + r->cw > r->w ||
           r->y + r->ch > r->h, "resize of %d x %d to %lld x %lld, of which %d x %d from %lld, %lld", w, h,
           (long long)r->w, (long long)r->h, r->cw, r->ch, (long long)r->x, (long long)r->y);
    *p = (Plan){.row0 = (int)r->y, .rows = r->ch};
    Status st = r->w != w ? taps_antialiased(&p->tx, r->kernel, w, r->w, r->x, r->cw) : OK;
    if (st != OK || r->h == h) return st;
    if ((st = taps_antialiased(&p->ty, r->kernel, h, r->h, r->y, r->ch)) != OK) return st;
    p->row0 = p->ty.first[0];
    /* taps move down with their row, so first and last say all */
    p->rows = p->ty.first[r->ch - 1] + p->ty.count[r->ch - 1] - p->row0;
    return OK;
}

/* ---- 8 bit ------------------------------------------------------------------------------------------------------- */

static int32_t *fixed(const Taps *t, int n) {
    size_t count = (size_t)n * (size_t)t->width;
    int32_t *w = mem_new(count, sizeof *w);
    for (size_t i = 0; w && i < count; i++) {
        double v = t->weight[i] * (1 << FIXED_BITS);
        /* away from zero, as Pillow rounds its taps: lrint would differ at halves */
        w[i] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
    return w;
}

static uint8_t clip(int32_t acc) {
    int32_t v = acc >> FIXED_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* dst (h, out, 3) from src (h, in, 3) */
static void along_rows(uint8_t *dst, int out, const uint8_t *src, int h, size_t stride, const Taps *t,
                       const int32_t *fixed_weight) {
    for (int y = 0; y < h; y++) {
        const uint8_t *row = src + (size_t)y * stride;
        for (int d = 0; d < out; d++, dst += 3) {
            const int32_t *w = fixed_weight + (size_t)d * (size_t)t->width;
            const uint8_t *p = row + 3 * (size_t)t->first[d];
            /* half a unit, so that the shift rounds: Pillow's bits */
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

/* dst (out, n) from rows of n, the first of which is number row0: rows are added up whole, so the inner loop is long
 * and straight. */
static void along_columns(uint8_t *dst, int out, const uint8_t *src, size_t n, size_t stride, const Plan *p,
                          const int32_t *fixed_weight, int32_t *acc) {
    for (int d = 0; d < out; d++, dst += n) {
        const int32_t *w = fixed_weight + (size_t)d * (size_t)p->ty.width;
        for (size_t i = 0; i < n; i++) acc[i] = 1 << (FIXED_BITS - 1);
        for (int k = 0; k < p->ty.count[d]; k++) {
            const uint8_t *row = src + (size_t)(p->ty.first[d] - p->row0 + k) * stride;
            for (size_t i = 0; i < n; i++) acc[i] += w[k] * row[i];
        }
        for (size_t i = 0; i < n; i++) dst[i] = clip(acc[i]);
    }
}

Status resize_window(uint8_t *dst, const Resize *r, const uint8_t *src, int w, int h, size_t stride) {
    Plan p;
    uint8_t *middle = NULL;
    int32_t *wx = NULL, *wy = NULL, *acc = NULL;
    size_t n = (size_t)r->cw * 3;
    Status st = plan_make(&p, r, w, h);
    if (st != OK) goto done;
    st = ERR_MEMORY;
    /* rows that no tap of the window reaches are never read */
    src += (size_t)p.row0 * stride;
    if (r->w != w) {
        uint8_t *to = dst;
        /* one pass alone writes where it should */
        if (r->h != h && !(to = middle = mem_new((size_t)p.rows, n))) goto done;
        if (!(wx = fixed(&p.tx, r->cw))) goto done;
        along_rows(to, r->cw, src, p.rows, stride, &p.tx, wx);
        src = to;
        stride = n;
    } else {
        src += 3 * (size_t)r->x;
    }
    if (r->h != h) {
        if (!(acc = mem_new(n, sizeof *acc)) || !(wy = fixed(&p.ty, r->ch))) goto done;
        along_columns(dst, r->ch, src, n, stride, &p, wy, acc);
    } else if (src != dst) {
        for (int y = 0; y < r->ch; y++) memcpy(dst + (size_t)y * n, src + (size_t)y * stride, n);
    }
    st = OK;
done:
    plan_free(&p);
    mem_free(middle, wx, wy, acc);
    return st;
}

Status resize_bicubic(uint8_t *dst, int dw, int dh, const uint8_t *src, int w, int h, size_t stride) {
    return resize_window(dst, &(Resize){.kernel = TAPS_CUBIC, .w = dw, .h = dh, .cw = dw, .ch = dh}, src, w, h, stride);
}

/* ---- floating point ---------------------------------------------------------------------------------------------- */

/* dst (cw, 3): one row of src along its length. */
static void row_f32(float *dst, const Resize *r, const Taps *t, const uint8_t *row) {
    for (int d = 0; d < r->cw; d++)
        for (int c = 0; c < 3; c++) {
            double sum = 0;
            if (!t->first) sum = row[3 * (r->x + d) + c] / 255.0;
            for (int k = 0; t->first && k < t->count[d]; k++)
                sum += t->weight[(size_t)d * (size_t)t->width + (size_t)k] * (row[3 * (t->first[d] + k) + c] / 255.0);
            dst[3 * d + c] = (float)sum;
        }
}

Status resize_window_f32(float *dst, const Resize *r, const uint8_t *src, int w, int h, size_t stride) {
    Plan p;
    size_t n = (size_t)r->cw * 3;
    Status st = plan_make(&p, r, w, h);
    float *middle = st == OK ? mem_new((size_t)p.rows * n, sizeof *middle) : NULL;
    if (st == OK && !middle) st = ERR_MEMORY;
    for (int y = 0; st == OK && y < p.rows; y++)
        row_f32(middle + (size_t)y * n, r, &p.tx, src + (size_t)(p.row0 + y) * stride);
    for (int d = 0; st == OK && d < r->ch; d++)
        for (size_t i = 0; i < n; i++) {
            double sum = p.ty.first ? 0 : middle[(size_t)d * n + i];
            for (int k = 0; p.ty.first && k < p.ty.count[d]; k++)
                sum += p.ty.weight[(size_t)d * (size_t)p.ty.width + (size_t)k] *
                       middle[(size_t)(p.ty.first[d] - p.row0 + k) * n + i];
            dst[(size_t)d * n + i] = (float)sum;
        }
    plan_free(&p);
    free(middle);
    return st;
}
