/* vision_config: what the small files beside an image encoder's weights say: config.json (transformers', timm's, whole
 * models' with a vision_config), open_clip_config.json, preprocessor_config.json.
 *
 * Called by vision.c. Everything is optional and every number is checked; what is not said is 0, -1 or empty, and the
 * tensors or the family's custom decide. What timm's and OpenCLIP's files say beside it of how to compute is refused:
 * an argument that is not known here may change every number and no tensor. */
#pragma once
#include <stdbool.h>

#include "data/make/preprocess.h"
#include "kernels/backend.h"

typedef struct {
    int heads, head_width;     /* 0: not said */
    int image, patches;        /* pixels of a side; tokens of SigLIP 2 NaFlex */
    int reference;             /* grid that EVA-02's and timm's PE's coordinates are scaled to; 0: not said */
    double eps, theta;         /* 0: not said */
    int act;                   /* an ActKind; -1: not said */
    bool timm, openclip;       /* its class is timm's; open_clip_config.json is there */
    char name[96];             /* the architecture, or the model's type */
} VisionConfig;

void vision_config_none(VisionConfig *c);

/* ERR_FORMAT: a value of the wrong kind or out of bounds. ERR_USAGE: an argument that is not known. `name` is for
 * messages. */
Status vision_config_json(VisionConfig *c, const Json *doc, const char *name);           /* config.json */
Status vision_config_openclip(VisionConfig *c, const Json *doc, const char *name);       /* open_clip_config.json */

/* Reads what is there in the folder, open_clip_config.json first. */
Status vision_config_read(VisionConfig *c, const char *folder);

/* The recipe of pixels: preprocessor_config.json, else open_clip_config.json, else timm's pretrained_cfg, over what p
 * says already. */
Status vision_config_pixels(Preprocess *p, const char *folder);
