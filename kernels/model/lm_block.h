/* lm_block: the layers of the three families as uses of block.h. All is frozen: what the backward needs is kept,
 * nothing else. A norm without offset is RMS; with LmDims.pre_norm it stands in front of what it serves, else
 * (OPT-350m) behind. */
#pragma once
#include "kernels/model/block.h"
#include "kernels/model/lm.h"

typedef struct { Param w, b; } LmNorm;                       /* b NULL: RMS of the families that have none */

/* qkv joined or q alone, kv apart (cross-attention); out; their biases may be NULL. */
typedef struct { LmNorm norm; Param q, q_bias, out, out_bias; } LmAttention;
typedef struct { LmNorm norm; Param in, in_bias, out, out_bias; } LmFeedForward;

/* y = norm(stream), which then is the sum itself: x, with nothing to add. */
void lm_norm(Tape *t, const Lm *m, Tensor y, BlockStream *x, LmNorm n);

/* Self-attention of the rows of a stream. keep (when given) sees a layer's qkv, keys from column k_at, before anything
 * attends; with caches, keys and values are then read there: (rows, 2 B) a layer, keys first. */
typedef void LmKeep(void *ctx, Tape *t, int layer, Tensor qkv, int64_t k_at);

/* What a language model that is trained through drops (LmDims.dropout, as LAVIS leaves it on): on: whether it does.
 * Bits by the text, the row in it, and the place in the model. */
typedef struct { bool on; uint64_t seed; uint32_t step; } LmNoise;
typedef struct {
    const AttnPlan *plan;
    LmNoise noise;
    const RowKey *rows;                 /* with noise: whose the rows are */
    int side;                           /* 1: T5's decoder */
    const int32_t *pos;                 /* for the rotation; NULL: none */
    const float *bias;                  /* T5's, by distance, or NULL */
    float scale;
    const Tensor *caches;
    LmKeep *keep;
    void *ctx;
    int layer;                          /* set by who goes through the layers */
} LmAttend;
void lm_self_attention(Tape *t, const Lm *m, BlockStream *x, const LmAttention *w, const LmAttend *how);

/* Of a stream on other rows: kv (rows, 2 B), keys first. */
void lm_cross_attention(Tape *t, const Lm *m, BlockStream *x, const LmAttention *w, Tensor kv, const AttnPlan *plan,
                        const LmAttend *how);
void lm_feed_forward(Tape *t, const Lm *m, BlockStream *x, const LmFeedForward *w, const LmAttend *how);

/* A dropout at a site of the layer (or where rows enter and leave) on rows of `how`, with probability p. */
Dropout lm_drop(const LmAttend *how, int site, float p);
