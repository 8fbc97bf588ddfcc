/* ops: what a model is written in. Each op checks shapes, calls the backend, and leaves a node whose backward stands
 * right under it in ops.c. The result's tensor comes first, as in the formula, and is taken by the caller (tape_new, or
 * rows of one): so one activation matrix can be written slab by slab. Wrong shapes are bugs and stop at once with both
 * shapes.
 *
 * N rows, C hidden, F feed-forward; a `d` in front is a gradient; gradients of parameters are added to. */
#ifndef QF_OPS_H
#define QF_OPS_H
#include "kernels/tape.h"

/* y(N,F) = x(N,C) w(F,C)^T + b(F)      dx = dy w    dw += dy^T x    db += sum_N dy        b.w may be NULL; y elem or
 * f32 */
void op_linear(Tape *t, Tensor y, Tensor x, Param w, Param b);

/* h(N,F) = gelu(u + b), the exact form x/2 (1 + erf(x / sqrt 2)) */
void op_gelu(Tape *t, Tensor h, Tensor u, Param b);

/* y(N,C) = gelu(u + b) w(C,F)^T. The gelu's result is not kept but computed again in the backward: a pass over (N,F)
 * against the largest activation of the model. */
void op_gelu_linear(Tape *t, Tensor y, Tensor u, Param b, Param w);

/* y = LN(x + dropout(s + b)) g + o over each row; s is overwritten with the sum. x.data and b.w may be NULL. */
void op_add_norm(Tape *t, Tensor y, Tensor s, Tensor x, Param b, Param g, Param o, float eps, Dropout drop);

/* y: query rows, then text rows, each normalised and dropped out (model.md 3). e: indices and sizes; its pointers to
 * parameters, results and statistics are filled in here. */
void op_embed(Tape *t, Tensor y, Embed e, Param query, Param word, Param pos, Param g, Param o);

/* o(N,C) = softmax(q k^T / sqrt D) v over the plan's items, H heads. q, k, v are columns q_at.., k_at.., v_at.. of xq
 * and xkv (which may be one tensor). */
void op_attention(Tape *t, Tensor o, Tensor xq, int64_t q_at, Tensor xkv, int64_t k_at, int64_t v_at, int H,
                  const AttnPlan *plan, Dropout drop);

/* y(N,M) = LN(f) w^T + b with LN's affine part (g, o) folded into the weights; f = features already normalised (no
 * gradient). Folded weights are made anew each call. dw, db, dg, do follow exactly (DESIGN.md 1). */
void op_fold_linear(Tape *t, Tensor y, Tensor f, Param w, Param b, Param g, Param o);

void op_gather(Tape *t, Tensor y, Tensor x, const int32_t *rows);            /* y[i] = x[rows[i]], no row twice */
void op_segment_mean(Tape *t, Tensor y, Tensor x, int64_t Q);                /* y[i] = mean of x[i Q .. i Q + Q) */
void op_l2norm(Tape *t, Tensor y, Tensor x);                                 /* y f32 = x / max(|x|, 1e-12) by row */

/* loss[i] of logits (N,n) f32 with index targets; its backward puts scale * gradient. */
void op_xent(Tape *t, float *loss, float *nll, Tensor logits, const int32_t *target, float smoothing, float scale);

/* The LM head's product and loss, in chunks of rows so that the logits never lie in memory whole: logits = h(n,C)
 * w(V,C)^T + b, loss[i] as op_xent. Gradients of w and b are added, and that of h computed, at once: the backward only
 * hands it on. */
void op_lm_loss(Tape *t, float *loss, float *nll, Tensor h, Param w, Param b, const int32_t *target, float smoothing,
                float scale);

#endif
