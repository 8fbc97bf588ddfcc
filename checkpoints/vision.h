/* vision: a released image encoder: from a folder or file to a Vit (kernels/model/vit.h) with its weights.
 *
 * Called by extraction and by commands that take pictures. vision_open finds out what it is (vision_names.h), reads
 * what its small files say (vision_config.h), and looks at every tensor of the blocks that are used: all must be
 * there, with the right shape, and nothing may be there that nobody can explain. vision_load brings them into the one
 * form that the model computes with, tensor by tensor: q, k and v joined, gate and up packed, missing biases as
 * zeros, layer scale folded into the weights before it, positions resized to the grid.
 *
 * EVA-g under LAVIS's names: the published file has one block more than the model uses, and its norm; with the norm
 * there the last block is left out (spec: the 39th of 40 is the tap). */
#pragma once
#include <stdio.h>

#include "checkpoints/vision_config.h"
#include "checkpoints/vision_names.h"
#include "checkpoints/weights.h"

typedef struct {
    char *path;
    WeightSource *ws;
    const VisionPrint *print;
    const VisionNames *names;
    const char *prefix;
    unsigned has;               /* HAS_ bits that were found */
    VisionConfig config;
    VisionCustom custom;       /* the family's, with what the files say */
    VitDims d;
    VitResize resize;
    int grid;                   /* side of the trained table of positions; 0: there is none */
    int dropped;                /* blocks of the file that are not used */
    bool *used;                 /* (ws_count) */
    double *frequency;          /* (D/4) of rotary positions, or NULL */
} Vision;

/* A folder as published, or a file of weights. heads: 0, or how many attention heads there are where no file says it.
 * ERR_IO, ERR_FORMAT (what is missing, has another shape, or is not explained), ERR_USAGE (no family fits, or one that
 * is not supported), ERR_MEMORY. After an error e holds nothing. */
Status vision_open(Vision *e, const char *path, int heads);
void vision_close(Vision *e);

/* Fills v, which was opened with e->d, for its grid. */
Status vision_load(const Vision *e, Vit *v);

/* What was found, in a few lines: family, dialect, sizes, tap, pixels, tensors used and ignored. */
void vision_say(const Vision *e, FILE *f);

/* "CLIP 1024x24/14 (OpenAI names)" */
char *vision_text(const Vision *e, char *buf, size_t n);
const char *vision_tap_text(const Vision *e, VitTap tap);
enum { VISION_TEXT = 160 };

/* sha256 of the file that holds the weights, or, of several, of their tensors by name; hex in buf[65]. */
Status vision_sha256(const Vision *e, char *buf);

/* ---- of vision_load.c, for vision.c and vision_tower.c ---- */

/* The tensor under one of the spellings of a name of the dialect; layer -1: outside of blocks. suffix: "weight",
 * "bias", NULL for bare parameters. NULL: not there. Marks it as used. */
const StTensor *vision_find(const Vision *e, const char *name, int layer, const char *suffix);

/* A row of the model's table (vit.h) of that layer, -1 outside of blocks, for a grid of h x w patches: f32 numbers into
 * dst; NULL: only checks that they are there. */
Status vision_part(const Vision *e, int row, int layer, int h, int w, float *dst);

/* Checks every tensor of the used blocks, without a device. */
Status vision_check(const Vision *e);
