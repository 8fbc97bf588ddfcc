/* vision_names: which family of image encoders a file of weights belongs to, and what its tensors are called.
 *
 * Called by vision.c. The one idea: 45 fingerprints, tried in order; each is the name of the patch weight, a few names
 * that must or must not stand beside it, a family and a dialect, or why such a file is refused. Models with the same
 * tensors may compute different things; there the architecture's name in the small files decides. Everything else that
 * differs between files of a family (how many registers, whether q and k have biases, whether the feed-forward is
 * gated) is read off the tensors, inside what the fingerprint allows. Nothing is guessed from a suffix: text towers
 * have the same names as image towers.
 *
 * Sources: the published files and code of OpenAI, OpenCLIP, LAVIS, transformers, timm, Meta, BAAI,
 * Apple, OpenGVLab. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "checkpoints/weights.h"
#include "data/make/preprocess.h"
#include "kernels/model/vit.h"

/*   id            what a set says of it */
#define VISION_FAMILIES(X)              \
    X(FAMILY_CLIP,      "CLIP")          \
    X(FAMILY_EVA_G,     "EVA-g")         \
    X(FAMILY_SIGLIP,    "SigLIP")        \
    X(FAMILY_NAFLEX,    "SigLIP 2 NaFlex") \
    X(FAMILY_DINOV2,    "DINOv2")        \
    X(FAMILY_DINOV3,    "DINOv3")        \
    X(FAMILY_EVA02,     "EVA-02")        \
    X(FAMILY_PE,        "Perception Encoder") \
    X(FAMILY_AIMV2,     "AIMv2")         \
    X(FAMILY_INTERNVIT, "InternViT")     \
    X(FAMILY_VIT,       "ViT")

typedef enum {
#define X(id, text) id,
    VISION_FAMILIES(X)
#undef X
    FAMILY_COUNT
} VisionFamily;

/* Who wrote the file: decides names, and with the family how positions are resized. */
typedef enum { DIALECT_OPENAI, DIALECT_HF_CLIP, DIALECT_OPENGVLAB, DIALECT_HF_DINOV2, DIALECT_HF_INTERNVIT,
               DIALECT_HF_VIT, DIALECT_HF_DINOV3, DIALECT_HF_AIMV2, DIALECT_APPLE, DIALECT_TIMM,
               DIALECT_COUNT } VisionDialect;

/* What may be there or not. A fingerprint says what must be, and what may. */
enum {
    HAS_CLS = 1 << 0, HAS_REGISTERS = 1 << 1, HAS_POSITION = 1 << 2, HAS_PATCH_BIAS = 1 << 3, HAS_PRE = 1 << 4,
    HAS_POST = 1 << 5, HAS_SCALE = 1 << 6 /* layer scale */, HAS_QK_NORM = 1 << 7, HAS_HEADS_NORM = 1 << 8,
    HAS_GATE = 1 << 9, HAS_MLP_NORM = 1 << 10, HAS_QV_BIAS = 1 << 11, HAS_K_BIAS = 1 << 12, HAS_OUT_BIAS = 1 << 13,
    HAS_MLP_BIAS = 1 << 14, HAS_NORM_BIAS = 1 << 15       /* without: RMSNorm */
};
const char *vision_has_text(unsigned bit);               /* "layer scale" */

/* Names inside the prefix; "a|b" are spellings of one thing, NULL: not in this dialect. Those of modules have .weight
 * and .bias behind them (a '_' at the end: without the point); of bare parameters they are whole. */
typedef struct {
    const char *cls, *registers, *position;               /* bare */
    const char *patch, *pre, *post;                       /* modules */
    const char *block;                                    /* "encoder.layers.%d." in front of all that follows */
    const char *norm1, *qkv, *q, *k, *v;                  /* modules */
    const char *q_bias, *v_bias, *qkv_mask;               /* bare */
    const char *q_norm, *k_norm, *heads_norm, *out;       /* modules */
    const char *scale1;                                   /* bare */
    const char *norm2, *gate, *up, *mlp_norm, *down;      /* modules; a plain MLP is up and down; up may hold both */
    const char *scale2;                                   /* bare */
} VisionNames;
extern const VisionNames vision_names[DIALECT_COUNT];

/* Where a row of the model's table (vit.h) stands in a file, for reading it (vision_load.c) and writing it
 * (vision_tower.c). q and v bias apart, as LAVIS has them, come behind the table's own rows. Rows without a shape are
 * in no file. */
enum { VISION_Q_BIAS = VIT_ROWS, VISION_V_BIAS, VISION_PARTS };
typedef struct {
    size_t name;                                          /* offset in VisionNames */
    const char *suffix;                                   /* behind it; NULL: a bare parameter */
    const char *shape;                                    /* as published, by letter: A = 3E, N = rows of the table */
    unsigned has;                                         /* zeros where the file has not this; 0: it must be there */
    size_t when;                                          /* offset of the switch in VitDims; 0: always */
    size_t scale;                                         /* offset of its layer scale in VisionNames; 0: none */
} VisionPart;
extern const VisionPart vision_parts[VISION_PARTS];
static inline const char *vision_part_name(const VisionNames *n, size_t offset) {
    return *(const char *const *)(const void *)((const char *)n + offset);
}

/* A tensor's name without prefix. block, name: what stands up to the first '|' or the end; layer -1: outside of
 * blocks. */
void vision_spell(char *buf, size_t n, const char *block, int layer, const char *name, const char *suffix);

typedef struct {
    const char *patch;                                    /* name of the patch weight behind the prefix */
    const char *when;                                     /* "+name": must be there; "-name": must not; "2d": the patch
                                                             weight has two dimensions; "packed": gate and up are one;
                                                             "lavis": behind the prefix of LAVIS's whole models;
                                                             "~part": in the architecture's name; "?": it is
                                                             not known */
    VisionFamily family;
    VisionDialect dialect;
    unsigned must, may;
} VisionPrint;

/* The fingerprint that fits a file, and its prefix (one of a list, longest kept first); NULL: none does. name: of the
 * architecture, or "". */
const VisionPrint *vision_recognise(const WeightSource *ws, const char *name, const char **prefix);

/* Whether the first of a feed-forward's two weights (NULL: not there) holds gate and up, packed. */
bool vision_packed(const StTensor *up, const StTensor *down);

/* NULL, or why such a file is not read: "FILE: " and this are a sentence. */
const char *vision_refusal(const VisionPrint *p);

/* Tensors behind the prefix that a file may hold and nobody needs: heads, masks, buffers. */
bool vision_ignored(const char *name);

/* What a family is when its files do not say. */
typedef struct {
    float eps;
    ActKind act;
    int image;                                            /* pixels of a side */
    VitTap tap;
    Preprocess pre;                                       /* size and edge of the published models */
} VisionCustom;
VisionCustom vision_custom(VisionFamily f, VisionDialect d, unsigned has);

const char *vision_family_text(VisionFamily f);
int vision_head_size(VisionFamily f, int E);            /* of a published model of width E */
VitResize vision_resize(VisionFamily f, VisionDialect d, unsigned has);
