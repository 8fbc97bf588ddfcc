/* preprocess: see preprocess.h. */
#include "data/make/preprocess.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/splitmix.h"

const float preprocess_clip_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
const float preprocess_clip_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
const float preprocess_imagenet_mean[3] = {0.485f, 0.456f, 0.406f};
const float preprocess_imagenet_std[3] = {0.229f, 0.224f, 0.225f};

float preprocess_normalised(const Preprocess *p, float v, int c) { return (v / 255.0f - p->mean[c]) / p->std[c]; }

size_t preprocess_bytes(const Preprocess *p) {
    return 3 * (size_t)p->size * (size_t)p->size * (p->in_float ? sizeof(float) : 1);
}

void preprocess_set_size(Preprocess *p, int size) {
    p->edge = (int)(((int64_t)p->edge * size + p->size / 2) / p->size); /* rounded: 256 of 224 is 384 of 336 */
    if (p->edge < size) p->edge = size;                      /* a cut cannot be larger than what it is cut from */
    p->size = size;
}

char *preprocess_text(const Preprocess *p, char *buf, size_t n) {
    static const char *const kernel[] = {[TAPS_LINEAR] = "bilinear", [TAPS_CUBIC] = "bicubic",
                                         [TAPS_LANCZOS] = "Lanczos"};
    char cut[48] = "";
    if (p->edge != p->size || !p->squash)
        snprintf(cut, sizeof cut, ", middle %dx%d%s", p->size, p->size, p->half_even ? " (half to even)" : "");
    snprintf(buf, n, "%s %d %s%s%s, mean %.7g %.7g %.7g, std %.7g %.7g %.7g", p->squash ? "squash to" : "shortest edge",
             p->edge, kernel[p->kernel], p->in_float ? " in float" : "", cut, (double)p->mean[0], (double)p->mean[1],
             (double)p->mean[2], (double)p->std[0], (double)p->std[1], (double)p->std[2]);
    return buf;
}

/* ---- pixels ------------------------------------------------------------------------------------------------------ */

static int64_t middle(int64_t length, int64_t size, bool half_even) {
    int64_t d = length - size;
    /* a half goes to the even neighbour: Python's round */
    return half_even && d % 4 == 3 ? d / 2 + 1 : d / 2;
}

static Resize plain(const Preprocess *p, int w, int h) {
    Resize r = {.kernel = p->kernel, .w = p->edge, .h = p->edge, .cw = p->size, .ch = p->size};
    if (!p->squash && w < h) r.h = (int64_t)p->edge * h / w; /* in 64 bits: 4096 times a long side */
    if (!p->squash && h < w) r.w = (int64_t)p->edge * w / h;
    r.x = middle(r.w, p->size, p->half_even);
    r.y = middle(r.h, p->size, p->half_even);
    return r;
}

typedef struct { int x, y, w, h; } Box;

static Box crop_box(const char *name, int64_t view, int w, int h) {
    SplitMix r = {hash_bytes(HASH_START, name, strlen(name))};
    r.state += (uint64_t)view * 0xD1B54A32D192ED03u; /* each view its own stream: one can be drawn without the others */
    for (int attempt = 0; attempt < 10; attempt++) {
        double area = (0.5 + 0.5 * splitmix_unit(&r)) * w * h, aspect = exp(splitmix_sym(&r, log(4.0 / 3.0)));
        int cw = (int)lround(sqrt(area * aspect)), ch = (int)lround(sqrt(area / aspect));
        if (cw < 1 || ch < 1 || cw > w || ch > h) continue;
        int x = (int)splitmix_below(&r, (uint32_t)(w - cw + 1)), y = (int)splitmix_below(&r, (uint32_t)(h - ch + 1));
        return (Box){x, y, cw, ch};
    }
    return (Box){0, 0, w, h};                                /* ten misses: the whole picture */
}

static void mirror(void *pixels, int S, size_t pixel) {
    uint8_t t[3 * sizeof(float)], *row = pixels;
    for (int y = 0; y < S; y++, row += pixel * (size_t)S)
        for (int a = 0, b = S - 1; a < b; a++, b--) {
            memcpy(t, row + pixel * (size_t)a, pixel);
            memcpy(row + pixel * (size_t)a, row + pixel * (size_t)b, pixel);
            memcpy(row + pixel * (size_t)b, t, pixel);
        }
}

Status preprocess_view(void *dst, const Preprocess *p, const Image *im, const char *name, int64_t view) {
    Box b = {0, 0, im->w, im->h};
    Resize r = plain(p, im->w, im->h);
    if (view >= 2) { /* the first two are the whole picture, and it mirrored */
        b = crop_box(name, view, im->w, im->h);
        r = (Resize){.kernel = p->kernel, .w = p->size, .h = p->size, .cw = p->size, .ch = p->size};
    }
    size_t stride = 3 * (size_t)im->w;
    const uint8_t *corner = im->rgb + (size_t)b.y * stride + 3 * (size_t)b.x;
    Status st = p->in_float ? resize_window_f32(dst, &r, corner, b.w, b.h, stride)
                            : resize_window(dst, &r, corner, b.w, b.h, stride);
    if (st == OK && view % 2) mirror(dst, p->size, p->in_float ? 3 * sizeof(float) : 3);
    return st;
}
