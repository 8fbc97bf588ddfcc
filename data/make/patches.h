/* patches: the image encoder that needs no weights.
 *
 * It stands in for a frozen ViT: an image of S x S is cut into p x p patches, row by row from the top left; each
 * token is the patch's normalised pixels, channel by channel (c, y, x), then 16 channels that say where it lies, since
 * the Q-Former has no image positions. So P = (S/p)^2 and E = 3 p^2 + 16: 16 tokens of 784 for S 64, p 16.
 *
 * Position code of a patch whose centre is at (x, y), both in 0..1 over the image: for f = 1, 2, 4, 8 the four values
 * 4 sin(f pi x), 4 cos(f pi x), 4 sin(f pi y), 4 cos(f pi y).
 *
 * Called by extraction and synth. Deterministic. */
#pragma once
#include "data/make/encoder.h"

/* ERR_USAGE unless the patch divides the size; ERR_MEMORY. */
Status patches_encoder(ImageEncoder **out, int size, int patch);
