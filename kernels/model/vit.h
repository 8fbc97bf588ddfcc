/* vit: a frozen vision transformer, forward only, in the one form that all families of image encoders are brought to.
 *
 * Called through checkpoints/vision.c, which fills it from published files, and by its tests. The one idea: a family is
 * no code but a few sizes and switches (VitDims) and tensors of one table; the loader joins q, k, v, packs gate and up,
 * puts zeros where a file has no bias and folds layer scale into the weights before it (checkpoints/vision_load.c).
 *
 *     rows of an image:   [cls] [registers] [patches, row by row from the top left]            P = lead + h w
 *     patches             pixels normalised, (c, y, x), times PATCH_W, + PATCH_B;  with `pre_first` normed
 *     x                   cls and registers from TOKENS, patches; + POSITION;      with `pre` (not first) normed
 *     block               x += O (heads_norm (attention (rotary (qk_norm (Wqkv norm1 x)))))
 *                         x += D (mlp_norm (act (U norm2 x)))         gated: act(gate) * up, gate rows first in U
 *     tap                 after the last block but one, after the last, or that through POST
 *
 * A norm is LayerNorm or, with rms, x / sqrt(mean x^2 + eps) w. Attention is over all rows of an image. Sources: spec
 * of the families as in checkpoints/vision_names.c. Does not train, and knows no file. */
#pragma once
#include "kernels/model/params.h"
#include "kernels/model/staging.h"
#include "kernels/model/vit_position.h"
#include "kernels/tape.h"

typedef enum { VIT_SECOND_LAST, VIT_LAST, VIT_NORMED } VitTap;

typedef struct {
    int32_t L, E, H, D, F;              /* blocks, width, heads, head size, feed-forward; H D = E */
    int32_t p;                          /* pixels of a side of a patch */
    int32_t registers;
    bool cls, position;                 /* has a cls row; something is added to rows (cls has a row of it or not: */
    bool cls_position;                  /*     this says) */
    bool rms, gated, pre, pre_first, post, qk_norm, heads_norm, mlp_norm;
    VitRotary rotary;
    ActKind act;
    float eps;
} VitDims;

static inline int vit_lead(const VitDims *d) { return d->cls + d->registers; }

/* Letters: E, A = 3E, K = 3 p p, F, U = F or 2F, T = lead rows, N = position rows, G = patches, h = D/2; the small ones
 * behind '?' are switches. */
#define VIT_TABLE(X) \
    X(PATCH_W,   "patch.weight",              "EK", "",     0, 0) \
    X(PATCH_B,   "patch.bias",                "E",  "",     0, 0) \
    X(TOKENS,    "tokens",                    "TE", "?T",   0, 0) \
    X(POSITION,  "position",                  "NE", "?N",   0, 0) \
    X(COSINE,    "rotary.cosine",             "Gh", "?r",   0, PARAM_KEEP_F32) \
    X(SINE,      "rotary.sine",               "Gh", "?r",   0, PARAM_KEEP_F32) \
    X(PRE_W,     "pre.weight",                "E",  "?p",   0, 0) \
    X(PRE_B,     "pre.bias",                  "E",  "?p",   0, 0) \
    X(NORM1_W,   "blocks.%d.norm1.weight",    "E",  "L",    1, 0) \
    X(NORM1_B,   "blocks.%d.norm1.bias",      "E",  "L",    1, 0) \
    X(QKV_W,     "blocks.%d.qkv.weight",      "AE", "L",    1, 0) \
    X(QKV_B,     "blocks.%d.qkv.bias",        "A",  "L",    1, 0) \
    X(Q_NORM,    "blocks.%d.q_norm.weight",   "E",  "L?q",  1, 0) \
    X(K_NORM,    "blocks.%d.k_norm.weight",   "E",  "L?q",  1, 0) \
    X(HEADS_W,   "blocks.%d.heads.weight",    "E",  "L?a",  1, 0) \
    X(HEADS_B,   "blocks.%d.heads.bias",      "E",  "L?a",  1, 0) \
    X(OUT_W,     "blocks.%d.out.weight",      "EE", "L",    1, 0) \
    X(OUT_B,     "blocks.%d.out.bias",        "E",  "L",    1, 0) \
    X(NORM2_W,   "blocks.%d.norm2.weight",    "E",  "L",    1, 0) \
    X(NORM2_B,   "blocks.%d.norm2.bias",      "E",  "L",    1, 0) \
    X(UP_W,      "blocks.%d.up.weight",       "UE", "L",    1, 0) \
    X(UP_B,      "blocks.%d.up.bias",         "U",  "L",    1, 0) \
    X(MLP_W,     "blocks.%d.mlp_norm.weight", "F",  "L?m",  1, 0) \
    X(MLP_B,     "blocks.%d.mlp_norm.bias",   "F",  "L?m",  1, 0) \
    X(DOWN_W,    "blocks.%d.down.weight",     "EF", "L",    1, 0) \
    X(DOWN_B,    "blocks.%d.down.bias",       "E",  "L",    1, 0) \
    X(POST_W,    "post.weight",               "E",  "?o",   2, 0) \
    X(POST_B,    "post.bias",                 "E",  "?o",   2, 0)

enum {
#define X(id, ...) VIT_##id,
    VIT_TABLE(X)
#undef X
    VIT_ROWS
};

typedef struct {
    VitDims d;
    int height, width, h, w;            /* pixels; the grid of patches, pixels beyond it are not looked at */
    int P, images;                      /* rows of an image; most images at once */
    const Backend *b;
    Params params;                      /* a frozen store */
    int32_t *ids, *position;            /* (images P) on the device: which row of what a row is made of; */
    int32_t *turn;                      /* (images P) row of the rotary tables, or -1 */
    AttnPlan plan;                      /* of `images` */
    Staging lists;                      /* where all of these lie */
} Vit;

/* Lays out weights, which are zero, and lists for up to `images` images of height x width pixels, in `run` (which may
 * only measure). ERR_USAGE: sizes that do not fit. */
Status vit_open(Vit *v, const VitDims *d, int height, int width, int images, const Backend *b, Arena *run);
void vit_close(Vit *v);

/* Pixels on the device: u8 or f32, `planar` (images, 3, height, width), else (images, height, width, 3); v scale[c] +
 * shift[c] enters. */
typedef struct { const void *pixels; DType type; bool planar; float scale[3], shift[3]; } VitPixels;

/* Rows (images P, E) after `blocks` blocks (0: the rows that enter the first), with `normed` through POST. From the
 * tape's step arena; t must not be recording. */
Tensor vit_forward(Tape *t, const Vit *v, const VitPixels *in, int images, int blocks, bool normed);

static inline int vit_blocks(const VitDims *d, VitTap tap) { return d->L - (tap == VIT_SECOND_LAST); }
