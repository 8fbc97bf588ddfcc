/* vision_encoder: a released image encoder as what extraction wants (ImageEncoder of data/make/patches.h): pixels in,
 * features out, on the device asked for.
 *
 * Called by extract and by commands that take pictures. Memory is measured by a pass without kernels before anything is
 * taken: the weights, the lists, and the rows of `batch` images. One thread runs it at a time. */
#pragma once
#include "checkpoints/vision.h"
#include "data/make/encoder.h"

/* Which rows of the tap are kept: all of them; cls and the grid of patches, without registers; the grid; the grid
 * with each 2 x 2 patches averaged (the last row and column by what there is). */
typedef enum { VISION_ALL, VISION_CLS_GRID, VISION_GRID, VISION_MEAN } VisionTokens;

typedef struct {
    const Backend *b;
    int size, batch, heads;     /* pixels of a side, images at once, attention heads; 0: its own, 8 or 64, unknown */
    int tap;                    /* a VitTap; -1: the family's */
    VisionTokens tokens;
    bool upright;               /* pictures are turned as their EXIF says: part of what the set says of itself */
    bool quiet;                 /* says nothing about what was found */
} VisionWish;

/* ERR_USAGE: a tap, size or choice of rows that this encoder has not; else as vision_open. *bytes (may be NULL): memory
 * taken on the device. */
Status vision_encoder(ImageEncoder **out, const char *path, const VisionWish *wish, size_t *bytes);
