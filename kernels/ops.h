/* ops: what a model is written in. Each op checks shapes, calls the backend, and leaves a node whose backward stands
 * right above it: linear layers and activations in ops.c, the others in ops_norm.c, ops_attention.c, ops_rows.c,
 * ops_loss.c. The result's tensor comes first, as in the formula, and is taken by the caller (tape_new, or
 * rows of one): so one activation matrix can be written slab by slab. Wrong shapes are bugs and stop at once with both
 * shapes.
 *
 * N rows, C hidden, F feed-forward; a `d` in front is a gradient; gradients of parameters are added to, and not made
 * for what is frozen. A bias (or a norm's offset) that is not there is (Param){0}. */
#pragma once
#include "kernels/tape.h"

/* y(N,F) = x(N,C) w(F,C)^T + b(F)      dx = dy w    dw += dy^T x    db += sum_N dy        y elem or f32. Rows of f32
 * (no gradient to them: patches of pixels) are multiplied by the f32 w.w. */
void op_linear(Tape *t, Tensor y, Tensor x, Param w, Param b);
void op_linear_add(Tape *t, Tensor y, Tensor x, Param w, Param b);           /* y += that; not recorded */

/* h(N,F) = f(u + b); gated: u and b hold F columns of what f is applied to and F of the factor (behind it, or in front
 * with up_first), h = f(u + b) (up + up_b). See Act in backend.h. */
typedef struct { ActKind f; bool gated, up_first; } ActForm;
void op_act(Tape *t, Tensor h, Tensor u, ActForm f, Param b);

/* u = x in^T, y(N,C) = h w(C,F)^T with h as above, by the product that makes u where a device can. A roomy tape keeps
 * h; else it is computed again in the backward. Either way only where w learns, and with the same bits. */
void op_feed_forward(Tape *t, Tensor y, Tensor u, Tensor x, Param in, ActForm f, Param b, Param w);
/* y += h w^T + wb; not recorded, and where there is no gate h stands in u's place: u is memory, and nothing after */
void op_feed_forward_add(Tape *t, Tensor y, Tensor u, Tensor x, Param in, ActForm f, Param b, Param w, Param wb);

/* LN with gain g and offset o, or RMS. */
typedef struct { Param g, o; float eps; bool rms; } Norm;

/* z = x + dropout(s + b), y = norm(z) over each row; s is overwritten with z, and may have further uses as z: the
 * stream of a pre-norm model, whose gradient comes from both. x.data may be NULL. */
void op_add_norm(Tape *t, Tensor y, Tensor s, Tensor x, Param b, Norm m, Dropout drop);

/* y = norm(x); x has other uses as it likes */
void op_norm(Tape *t, Tensor y, Tensor x, Norm m);

/* In place, each by itself, `blocks` blocks of C columns from column `at` on: norms of heads' queries and keys. */
void op_head_norm(Tape *t, Tensor x, int64_t at, int blocks, int C, Norm m);

/* y: query rows, then text rows, each normalised and dropped out (model.md 3). e: indices and sizes; its pointers to
 * parameters, results and statistics are filled in here. */
void op_embed(Tape *t, Tensor y, Embed e, Param query, Param word, Param pos, Param g, Param o);

/* y = words (scaled), given rows or both mixed, plus positions: see Lookup. l: indices and scale; the rest is filled in
 * here. Gradient flows to rows and word; pos is frozen. */
void op_lookup(Tape *t, Tensor y, Lookup l, Param word, Tensor rows, Param pos);

/* pixels as rows: see Patches; y elem or f32 */
void op_patches(Tape *t, Tensor y, Patches p);

/* In place on r.H heads of r.D columns from column `at` on (queries and keys beside each other: H + KH heads at once).
 * r: sizes, tables, whose row is whose; the rest is filled in here. */
void op_rotary(Tape *t, Tensor x, int64_t at, Rotary r);

/* In place; d.p 0 does nothing. x's producer must not need it in its backward, as none but a product with weights that
 * learn does. */
void op_dropout(Tape *t, Tensor x, Dropout d);

/* Query heads, key heads (query head h uses key head h / (H / KH)), the factor of the scores, and the bias by distance
 * (see Attn; NULL: none). op_heads: scale 1 / sqrt D, no bias. */
typedef struct { int H, KH; float scale; const float *bias; int32_t span; } Heads;
Heads op_heads(int H, int KH, int D);

/* o(N,H D) = softmax(scale q k^T + bias) v over the plan's items. q, k, v are columns q_at.., k_at.., v_at.. of xq and
 * xkv (which may be one tensor). */
void op_attention(Tape *t, Tensor o, Tensor xq, int64_t q_at, Tensor xkv, int64_t k_at, int64_t v_at, Heads h,
                  const AttnPlan *plan, Dropout drop);

/* y(N,M) = LN(f) w^T + b with LN's affine part (g, o) folded into the weights; f = features already normalised (no
 * gradient). Folded weights are made anew each call. dw, db, dg, do follow exactly (DESIGN.md 1). */
void op_fold_linear(Tape *t, Tensor y, Tensor f, Param w, Param b, Param g, Param o);

void op_gather(Tape *t, Tensor y, Tensor x, const int32_t *rows);            /* y[i] = x[rows[i]], no row twice */
void op_segment_mean(Tape *t, Tensor y, Tensor x, int64_t Q);                /* y[i] = mean of x[i Q .. i Q + Q) */
void op_l2norm(Tape *t, Tensor y, Tensor x);                                 /* y f32 = x / max(|x|, 1e-12) by row */

/* loss[i] of logits (N,n) f32 with index targets (less than 0: does not count); its backward puts scale * gradient. */
void op_xent(Tape *t, float *loss, float *nll, Tensor logits, const int32_t *target, float smoothing, float scale);

/* The LM head's product and loss, in chunks of rows so that the logits never lie in memory whole: logits = h(n,C)
 * w(V,C)^T + b, loss[i] as op_xent. Gradients of w and b are added, and that of h computed, at once: the backward only
 * hands it on. */
void op_lm_loss(Tape *t, float *loss, float *nll, Tensor h, Param w, Param b, const int32_t *target, float smoothing,
                float scale);
