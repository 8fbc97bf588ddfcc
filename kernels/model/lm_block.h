/* lm_block: what the three families' layers are made of. All is frozen: what the backward needs is kept, nothing else.
 *
 * stream        the residual: x + s + b is its value; s and b are what the last part added, summed when a norm reads
 * it attention     s = attend(norm(stream)) Wo^T feed-forward  s = act(norm(stream) Wi^T + bi) Wo^T, plain or gated
 *
 * With a norm behind (OPT-350m) the stream is normed after the part instead of before it. */
#ifndef QF_LM_BLOCK_H
#define QF_LM_BLOCK_H
#include "kernels/model/lm.h"

typedef struct { Tensor x, s; Param bias; } LmStream;        /* s.data NULL: x alone */
typedef struct { Param w, b; } LmNorm;                       /* b NULL: RMS of the families that have none */

/* qkv joined or q alone, kv apart (cross-attention); out; their biases may be NULL. */
typedef struct { LmNorm norm; Param q, q_bias, out, out_bias; } LmAttention;
typedef struct { LmNorm norm; Param in, in_bias, out, out_bias; } LmFeedForward;

/* y = norm(stream), which then is the sum itself: x, with nothing to add. */
void lm_norm(Tape *t, const Lm *m, Tensor y, LmStream *x, LmNorm n);

/* Self-attention of the rows of a stream. keep (when given) sees a layer's qkv, keys from column k_at, before anything
 * attends; with caches, keys and values are then read there: (rows, 2 B) a layer, keys first. */
typedef void LmKeep(void *ctx, Tape *t, int layer, Tensor qkv, int64_t k_at);
typedef struct {
    const AttnPlan *plan;
    const int32_t *pos;                 /* for the rotation; NULL: none */
    const float *bias;                  /* T5's, by distance, or NULL */
    float scale;
    const Tensor *caches;
    LmKeep *keep;
    void *ctx;
    int layer;                          /* set by who goes through the layers */
} LmAttend;
void lm_self_attention(Tape *t, const Lm *m, LmStream *x, const LmAttention *w, const LmAttend *how);

/* Of a stream on other rows: kv (rows, 2 B), keys first. */
void lm_cross_attention(Tape *t, const Lm *m, LmStream *x, const LmAttention *w, Tensor kv, const AttnPlan *plan);
void lm_feed_forward(Tape *t, const Lm *m, LmStream *x, const LmFeedForward *w);

#endif
