/* patches: see patches.h. */
#include "data/make/patches.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { FREQUENCIES = 4, POSITION = 4 * FREQUENCIES, AMPLITUDE = 4 };

typedef struct {
    ImageEncoder base;
    int p, n;                  /* pixels along a patch, patches along the image */
    char name[64], preprocessing[96];
    float normalised[3][256];
    float position[];          /* (P, POSITION) */
} Patches;

static void encode(const Patches *k, const uint8_t *rgb, float *out) {
    int p = k->p, S = k->base.pre.size;
    const float *position = k->position;
    for (int row = 0; row < k->n; row++)
        for (int col = 0; col < k->n; col++) {
            const uint8_t *corner = rgb + 3 * ((size_t)row * (size_t)p * (size_t)S + (size_t)col * (size_t)p);
            for (int c = 0; c < 3; c++)
                for (int y = 0; y < p; y++) {
                    const uint8_t *px = corner + 3 * (size_t)y * (size_t)S + c;
                    for (int x = 0; x < p; x++) *out++ = k->normalised[c][px[3 * x]];
                }
            /* pixels alone would not say where they lie: the Q-Former has no positions for them */
            memcpy(out, position, POSITION * sizeof *out);
            out += POSITION;
            position += POSITION;
        }
}

static Status run(const ImageEncoder *self, int n, const void *pixels, float *features) {
    size_t bytes = preprocess_bytes(&self->pre);
    for (int i = 0; i < n; i++)
        encode((const Patches *)self, (const uint8_t *)pixels + (size_t)i * bytes, features + i * self->P * self->E);
    return OK;
}

static void position_code(float *out, int n) {
    const double pi = 3.14159265358979323846;
    for (int row = 0; row < n; row++)
        for (int col = 0; col < n; col++)
            for (int k = 0; k < FREQUENCIES; k++) {
                /* octaves: the slowest tells halves apart, the fastest neighbours */
                double fx = (1 << k) * pi * (col + 0.5) / n, fy = (1 << k) * pi * (row + 0.5) / n;
                *out++ = (float)(AMPLITUDE * sin(fx));
                *out++ = (float)(AMPLITUDE * cos(fx));
                *out++ = (float)(AMPLITUDE * sin(fy));
                *out++ = (float)(AMPLITUDE * cos(fy));
            }
}

static void patches_free(ImageEncoder *self) { free(self); }

Status patches_encoder(ImageEncoder **out, int size, int patch) {
    *out = NULL;
    if (size < 1 || size > 4096 || patch < 1 || size % patch)
        return err_set(ERR_USAGE, "patches of %d pixels do not cut an image of %d evenly", patch, size);
    size_t n = (size_t)(size / patch), P = n * n;
    Patches *k = mem_new(1, sizeof *k + P * POSITION * sizeof(float));
    if (!k) return ERR_MEMORY;
    Preprocess pre = {.size = size, .edge = size, .squash = true, .kernel = TAPS_CUBIC};
    memcpy(pre.mean, preprocess_clip_mean, sizeof pre.mean);
    memcpy(pre.std, preprocess_clip_std, sizeof pre.std);
    k->p = patch;
    k->n = (int)n;
    snprintf(k->name, sizeof k->name, "patches%d-%d", patch, size);
    snprintf(k->preprocessing, sizeof k->preprocessing, "bicubic %dx%d, (x/255 - mean) / std, CLIP constants", size,
             size);
    for (int c = 0; c < 3; c++)
        /* a byte has 256 values: divided once */
        for (int v = 0; v < 256; v++) k->normalised[c][v] = preprocess_normalised(&pre, (float)v, c);
    position_code(k->position, k->n);
    k->base = (ImageEncoder){
        .info = {.name = k->name, .weights_sha256 = "", .tap = "pixels+position", .preprocessing = k->preprocessing},
        .pre = pre, .P = (int64_t)P, .E = 3 * patch * patch + POSITION, .batch = 1, .threads = true,
        .run = run, .free = patches_free,
    };
    *out = &k->base;
    return OK;
}
