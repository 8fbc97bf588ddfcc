/* attention: what attention.cu asks of attention_row.cu and attention_mma.cu. */
#pragma once
#include "kernels/cuda/device.cuh"

/* rows: of q, and from a head of lse to the next; tiles: most 16-row tiles of a group; keys: most keys of a group. */
typedef struct {
    int rows, tiles, keys;
} PlanShape;
PlanShape attention_shape(const AttnPlan *p);

/* Forward of a plan whose items have one row each, without dropout; false for another. */
template <class T> bool attention_row(const Attn *a);

/* bf16 on Hopper, of a plan whose rows see all of few keys, without dropout and bias; false for another. */
bool attention_wg(const Attn *a, const PlanShape *s);
/* bf16 through the tensor cores; false when there is no kernel for this head size. Pointers and strides are multiples
 * of 16 bytes. */
bool attention_mma(const Attn *a, const PlanShape *s);
/* Backward: in one kernel, else in two. */
bool attention_bwd_one(const Attn *a, const AttnGrad *g, const PlanShape *s);
bool attention_bwd_mma(const Attn *a, const AttnGrad *g, const PlanShape *s, float *delta);
