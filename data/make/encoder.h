/* encoder: what an image encoder is to the rest of the program: a recipe for pixels, and a function from them to
 * features.
 *
 * Implemented by patches.c and by checkpoints/vision_encoder.h (the ViTs), used by extraction. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "data/make/preprocess.h"
#include "data/shard_write.h"
#include "kernels/base/err.h"

typedef struct ImageEncoder ImageEncoder;
struct ImageEncoder {
    EncoderInfo info;          /* what the data set will say about its features; strings owned by the encoder */
    Preprocess pre;            /* images come as its pixels (S, S, 3), u8 or f32, */
    int64_t P, E;              /* and leave as (P, E) */
    int batch;                 /* images that run() likes at once; it takes 1..batch */
    bool threads;              /* run() may be called by several threads at a time */
    Status (*run)(const ImageEncoder *self, int n, const void *pixels /* (n,S,S,3) */, float *features /* (n,P,E) */);
    /* The same in two parts, or NULL: start copies the pixels and does not wait; finish waits for the oldest that was
     * started. Two may be under way, so that a device works on one while the other's features are stored. */
    Status (*start)(const ImageEncoder *self, int n, const void *pixels);
    Status (*finish)(const ImageEncoder *self, float *features);
    void (*free)(ImageEncoder *self);
};

static inline void encoder_free(ImageEncoder *e) {         /* accepts NULL */
    if (e) e->free(e);
}
