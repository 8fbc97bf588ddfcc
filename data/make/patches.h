/* patches: what an image encoder is to the rest of the program, and the one that needs no weights.
 *
 * `patches` stands in for a frozen ViT: an image of S x S is cut into p x p patches, row by row from the top left; each
 * token is the patch's normalised pixels, channel by channel (c, y, x), then 16 channels that say where it lies, since
 * the Q-Former has no image positions. So P = (S/p)^2 and E = 3 p^2 + 16: 16 tokens of 784 for S 64, p 16.
 *
 * Position code of a patch whose centre is at (x, y), both in 0..1 over the image: for f = 1, 2, 4, 8 the four values
 * 4 sin(f pi x), 4 cos(f pi x), 4 sin(f pi y), 4 cos(f pi y).
 *
 * Called by extraction and synth through ImageEncoder, which is also what a real ViT implements. Deterministic. */
#ifndef QF_PATCHES_H
#define QF_PATCHES_H
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

/* ERR_USAGE unless the patch divides the size; ERR_MEMORY. */
Status patches_encoder(ImageEncoder **out, int size, int patch);
void encoder_free(ImageEncoder *e);                       /* accepts NULL */

#endif
