/* taps: see taps.h. */
#include "kernels/base/taps.h"

#include <math.h>

#include "kernels/base/mem.h"

static double cubic(double t, double a) {
    t = fabs(t);
    if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    if (t < 2) return (((t - 5) * t + 8) * t - 4) * a;
    return 0;
}

static double sinc(double t) {
    const double pi = 3.14159265358979323846;
    return t == 0 ? 1 : sin(pi * t) / (pi * t);
}

static double weight_of(TapsKernel kernel, double t) {
    switch (kernel) {
    case TAPS_LINEAR: return fabs(t) < 1 ? 1 - fabs(t) : 0;
    case TAPS_CUBIC: return cubic(t, -0.5);                  /* Pillow's a; PyTorch's plain one is -0.75 */
    case TAPS_LANCZOS: return t >= -3 && t < 3 ? sinc(t) * sinc(t / 3) : 0;
    }
    return 0;
}

static Status take(Taps *t, int n, int width) {
    t->width = width;
    t->first = mem_new((size_t)n, sizeof *t->first);
    t->count = mem_new((size_t)n, sizeof *t->count);
    t->weight = mem_new((size_t)n * (size_t)width, sizeof *t->weight);
    return t->first && t->count && t->weight ? OK : ERR_MEMORY;
}

Status taps_antialiased(Taps *t, TapsKernel kernel, int in, int64_t out, int64_t from, int n) {
    static const double reach[] = {[TAPS_LINEAR] = 1, [TAPS_CUBIC] = 2, [TAPS_LANCZOS] = 3};
    /* when made smaller the filter widens with the pixels: that is what anti-aliasing is */
    double scale = (double)in / (double)out, f = scale > 1 ? scale : 1, support = reach[kernel] * f;
    *t = (Taps){0};
    /* an output between two samples reaches one further */
    Status st = take(t, n, (int)ceil(support) * 2 + 1);
    for (int d = 0; st == OK && d < n; d++) {
        double c = ((double)(from + d) + 0.5) * scale, sum = 0, *w = t->weight + (size_t)d * (size_t)t->width;
        /* Pillow's bounds, rounding and all: other bounds give other last bits */
        int lo = (int)(c - support + 0.5), hi = (int)(c + support + 0.5);
        if (lo < 0) lo = 0;
        if (hi > in) hi = in;
        for (int j = lo; j < hi; j++) sum += w[j - lo] = weight_of(kernel, (j - c + 0.5) * (1 / f));
        for (int k = 0; k < hi - lo; k++) w[k] = sum != 0 ? w[k] / sum : w[k];
        t->first[d] = lo;
        t->count[d] = hi - lo;
    }
    return st;
}

/* In f32, as PyTorch takes it: at 1e-5 the rounding of a coordinate can be seen. */
static double plain_place(int d, int in, int out, bool align_corners) {
    float scale = !align_corners ? (float)in / (float)out : out > 1 ? (float)(in - 1) / (float)(out - 1) : 0;
    return (double)(align_corners ? scale * (float)d : scale * ((float)d + 0.5f) - 0.5f);
}

Status taps_plain(Taps *t, TapsKernel kernel, int in, int out, bool align_corners) {
    BUG_ON(kernel == TAPS_LANCZOS, "taps: no plain Lanczos");
    *t = (Taps){0};
    int half = kernel == TAPS_CUBIC ? 2 : 1;
    Status st = take(t, out, 2 * half);
    for (int d = 0; st == OK && d < out; d++) {
        double s = plain_place(d, in, out, align_corners);
        /* PyTorch clamps the place of linear, and the taps of cubic */
        if (kernel == TAPS_LINEAR && s < 0) s = 0;
        int at = (int)floor(s), first = at - half + 1;
        double *w = t->weight + (size_t)d * (size_t)t->width;
        t->first[d] = first < 0 ? 0 : first > in - 1 ? in - 1 : first;
        for (int j = first; j <= at + half; j++) {           /* what lies outside is added to the border's weight */
            int k = (j < 0 ? 0 : j > in - 1 ? in - 1 : j) - t->first[d];
            w[k] += kernel == TAPS_CUBIC ? cubic(s - j, -0.75) : fmax(0, 1 - fabs(s - j));
            if (k >= t->count[d]) t->count[d] = k + 1;
        }
    }
    return st;
}

void taps_free(Taps *t) {
    mem_free(t->first, t->count, t->weight);
    *t = (Taps){0};
}
