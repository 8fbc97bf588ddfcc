/* contrast: the contrastive loss over the global batch, and the hard negatives drawn from its similarities (losses.md
 * 2, 3).
 *
 * Stands between two waves and outside the tape: features of all micro-batches and all ranks come together here,
 * gradients of the local ones go back. All buffers are f32 in the run arena. B local pairs,
 * G = B ranks, first = rank B. */
#pragma once
#include "kernels/arena.h"
#include "kernels/model/dims.h"

typedef struct {
    bool full; /* itc_gradient: full keeps the gradient through the gathered side, anchor cuts it */
    float smoothing, weight;
    NegativeRule rule;
} ContrastSpec;

typedef struct {
    const Backend *b;
    ContrastSpec spec;
    int64_t B, G, Q, Z, first;
    float *I, *T;                       /* local features (B,Q,Z), (B,Z): filled by the caller */
    float *dI, *dT;                     /* their gradients: result */
    float *I_all, *T_all;               /* (G,Q,Z), (G,Z); the local ones when there is one rank */
    float *dI_all, *dT_all;             /* with full over several ranks */
    float *S_i2t, *S_t2i;               /* (B,G) similarities, not divided by temp */
    int32_t *arg_i2t, *arg_t2i;         /* (B,G) the query that gave it */
    float *dS_i2t, *dS_t2i, *row_loss, *dtemp;               /* (B,G) twice, (2B), (2B) */
    int32_t *target;                    /* (B): first + i, the own column; as bits, the place of a row's random bits */
    const int64_t *col_id;              /* (G): image ids on the device, NULL unless image-id targets are used */
    int32_t *negative;                  /* (2,B) device: images drawn for texts, texts drawn for images */
    float *weights;                     /* (2,B,G) when the caller asked for them (tests), else NULL */
} Contrast;

Status contrast_open(Contrast *c, const Backend *b, Arena *run, const Dims *d, int64_t B, const ContrastSpec *spec,
                     bool weights);
Status contrast_fill(Contrast *c);      /* the constant array; once, on real memory */

/* Gathers features, fills similarities, losses, dI, dT, and adds to dtemp_grad. *loss += the sum of row losses of both
 * directions over the local rows. ids: of the global batch's images, (G) on the device, or NULL.
 * `grad` false: losses only. */
Status contrast_loss(Contrast *c, const int64_t *ids, const float *temp, float *dtemp_grad, float *loss, bool grad);

/* Draws one image for each local text and one text for each local image: global indices,
 * on the device in c->negative. */
void contrast_negatives(Contrast *c, const float *temp, uint64_t seed, uint32_t step);
