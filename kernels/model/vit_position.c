/* vit_position: see vit_position.h. */
#include "kernels/model/vit_position.h"

#include <math.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/taps.h"

static const double PI = 3.14159265358979323846;

/* ---- learned tables ---------------------------------------------------------------------------------------------- */

static Status axis(Taps *t, VitResize rule, int in, int out) {
    switch (rule) {
    case VIT_RESIZE_CUBIC: return taps_plain(t, TAPS_CUBIC, in, out, false);
    case VIT_RESIZE_CUBIC_CORNERS: return taps_plain(t, TAPS_CUBIC, in, out, true);
    case VIT_RESIZE_LINEAR: return taps_plain(t, TAPS_LINEAR, in, out, false);
    case VIT_RESIZE_LINEAR_ANTIALIAS: return taps_antialiased(t, TAPS_LINEAR, in, out, 0, out);
    case VIT_RESIZE_CUBIC_ANTIALIAS:
    case VIT_RESIZE_NONE: break;
    }
    return taps_antialiased(t, TAPS_CUBIC, in, out, 0, out);
}

/* dst (out, n) = the taps' sums of rows of src (., n) */
static void along(double *dst, const double *src, size_t n, const Taps *t, int out) {
    for (int d = 0; d < out; d++, dst += n)
        for (int k = 0; k < t->count[d]; k++) {
            const double w = t->weight[(size_t)d * (size_t)t->width + (size_t)k];
            const double *row = src + (size_t)(t->first[d] + k) * n;
            for (size_t i = 0; i < n; i++) dst[i] += w * row[i];
        }
}

/* Columns first, then rows: the two passes commute. */
static Status resize(float *dst, int h, int w, const float *src, int n, int E, const Taps *ty, const Taps *tx) {
    size_t row = (size_t)n * (size_t)E, side = (size_t)E;
    /* f64 between the passes: what comes out is rounded once */
    double *from = mem_new((size_t)n * row, sizeof *from), *tall = mem_new((size_t)h * row, sizeof *tall);
    double *wide = mem_new((size_t)w * side, sizeof *wide);
    Status st = from && tall && wide ? OK : ERR_MEMORY;
    for (size_t i = 0; st == OK && i < (size_t)n * row; i++) from[i] = (double)src[i];
    if (st == OK) along(tall, from, row, ty, h);
    for (int y = 0; st == OK && y < h; y++) {
        memset(wide, 0, (size_t)w * side * sizeof *wide);
        along(wide, tall + (size_t)y * row, side, tx, w);
        for (size_t i = 0; i < (size_t)w * side; i++) *dst++ = (float)wide[i];
    }
    mem_free(from, tall, wide);
    return st;
}

Status vit_position_resize(float *dst, int h, int w, const float *src, int n, int E, VitResize rule) {
    /* bit for bit: a resize of the same size still rounds */
    if (h == n && w == n) {
        memcpy(dst, src, (size_t)n * (size_t)n * (size_t)E * sizeof *dst);
        return OK;
    }
    if (rule == VIT_RESIZE_NONE)
        return err_set(ERR_USAGE, "this encoder has positions for %d x %d patches alone; %d x %d were asked for", n, n,
                       h, w);
    Taps ty = {0}, tx = {0};
    Status st = axis(&ty, rule, n, h);
    if (st == OK) st = axis(&tx, rule, n, w);
    if (st == OK) st = resize(dst, h, w, src, n, E, &ty, &tx);
    taps_free(&ty);
    taps_free(&tx);
    return st;
}

/* ---- computed ones ----------------------------------------------------------------------------------------------- */

void vit_position_sincos(float *dst, int h, int w, int E) {
    int quarter = E / 4;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, dst += E)
            for (int j = 0; j < quarter; j++) {
                double f = pow(10000, -(double)j / quarter);
                dst[j] = (float)sin(x * f);
                dst[quarter + j] = (float)cos(x * f);
                dst[2 * quarter + j] = (float)sin(y * f);
                dst[3 * quarter + j] = (float)cos(y * f);
            }
}

void vit_position_frequencies(double *frequency, VitRotary kind, double theta, int D) {
    for (int j = 0; j < D / 4; j++)
        frequency[j] = pow(theta, -4.0 * j / D) * (kind == VIT_ROTARY_DINOV3 ? 2 * PI : 1);
}

static double coordinate(const VitRotarySpec *r, int k, int n) {
    switch (r->kind) {
    /* centres of patches from -1 to 1: any grid spans the same angles */
    case VIT_ROTARY_DINOV3: return 2 * (k + 0.5) / n - 1;
    case VIT_ROTARY_EVA02: return (double)k * r->reference / n;
    case VIT_ROTARY_PE: return (double)(k + r->first) * (r->reference ? (double)r->reference / n : 1);
    case VIT_ROTARY_NONE: break;
    }
    return 0;
}

void vit_position_rotary(float *cosine, float *sine, const VitRotarySpec *r, int h, int w, int D) {
    int quarter = D / 4;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            double at[2] = {coordinate(r, y, h), coordinate(r, x, w)};
            for (int a = 0; a < 2; a++)
                for (int j = 0; j < quarter; j++) {
                    /* PE turns by x first, the others by y */
                    double angle = at[r->kind == VIT_ROTARY_PE ? 1 - a : a] * r->frequency[j];
                    *cosine++ = (float)cos(angle);
                    *sine++ = (float)sin(angle);
                }
        }
}
