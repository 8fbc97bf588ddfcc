/* preprocess: how a decoded picture becomes the pixels that an image encoder was trained on.
 *
 * Called by extraction and by commands that take pictures; filled by an encoder's own files (preprocess_read) or by its
 * family's custom. The one idea: all published recipes are one: resize (squash, or the shortest edge), cut the middle
 * out, and let the encoder subtract a mean and divide by a deviation. The numbers are exact: those of Pillow's resize
 * (data/format/resize.h), and both ways of halving an odd difference.
 *
 *     squash            the picture becomes edge x edge, whatever its shape
 *     otherwise         its short side becomes edge, its long one floor(edge long / short)
 *     then              size x size from the middle: offset floor((L - size)/2), or half_even: rounded half to even
 *
 * transformers rounds the offset down; torchvision, and with it OpenCLIP and timm, half to even. in_float: v/255 is
 * resized without rounding (DINOv3); pixels are then f32.
 *
 * Views of an image: 0 plain; 1 mirrored; 2, 3, ... random resized crops as in training of the published models (area
 * 0.5 to 1, aspect 3/4 to 4/3), the odd ones mirrored. Crops follow from the image's name and the view alone. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/image.h"
#include "data/format/json.h"
#include "data/format/resize.h"

enum { PREPROCESS_MAX_SIZE = 4096 };

typedef struct {
    int size, edge;            /* pixels of a side that come out; what the picture is resized to before the cut */
    bool squash, half_even, in_float;
    TapsKernel kernel;
    float mean[3], std[3];     /* of R, G, B in 0..1; applied by the encoder */
} Preprocess;

extern const float preprocess_clip_mean[3], preprocess_clip_std[3];          /* of all encoders trained as BLIP-2's */
extern const float preprocess_imagenet_mean[3], preprocess_imagenet_std[3];

/* Pixels of one view: dst (size, size, 3), u8, or f32 when in_float. ERR_MEMORY only. */
Status preprocess_view(void *dst, const Preprocess *p, const Image *im, const char *name, int64_t view);
size_t preprocess_bytes(const Preprocess *p);              /* of one view */

/* (v/255 - mean[c]) / std[c], in this order: equal to what torchvision computes, bit for bit. */
float preprocess_normalised(const Preprocess *p, float v, int c);

/* Another size of the same recipe; edge keeps its proportion. */
void preprocess_set_size(Preprocess *p, int size);

/* "shortest edge 256 bicubic, middle 224x224, mean 0.485 0.456 0.406, std 0.229 0.224 0.225" */
char *preprocess_text(const Preprocess *p, char *buf, size_t n);
enum { PREPROCESS_TEXT = 256 };

/* What a model's own file says, over what p says already; parts that the file does not mention stay. `name` is for
 * messages. ERR_FORMAT: a value of the wrong kind or out of bounds; ERR_USAGE: a recipe whose pixels are not square. */
Status preprocess_read_transformers(Preprocess *p, const Json *doc, const char *name);  /* preprocessor_config.json */
Status preprocess_read_openclip(Preprocess *p, const Json *doc, const char *name);      /* preprocess_cfg */
Status preprocess_read_timm(Preprocess *p, const Json *doc, const char *name);          /* pretrained_cfg */
