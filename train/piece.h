/* piece: what one piece of a batch runs: its waves, and the losses of matching and generation (losses.md 4 to 6). */
#pragma once
#include "train/stage1.h"

typedef struct {
    int64_t first, n;                   /* local pairs [first, first + n) */
    ImageKV kv;
    Wave wave, wave2;                   /* the tape refers to their plans until the walk back is over */
    Tensor x, I, T;                     /* hidden states of wave 1, those that are read; features (n Q, Z), (n, Z) */
    Wave both;                          /* wave and wave2 as one, which the walk back goes over */
    bool together;                      /* whether it does */
    Noise noise;
    Segment *seg;                       /* wave 1: n ITC images, n ITC texts, then n ITG, then n ITM, as wanted */
    int itg0, itm0;                     /* where those begin, -1 when not wanted */
    const int32_t *lm_target;           /* device: what the nlm rows behind those of [CLS] are to say */
    int64_t nlm;
} Piece;

/* Features to the device, image keys, wave 1 forward. `all` false: only what the contrastive loss needs. */
Status piece_forward(Piece *c, Stage1 *s, const ObjectiveBatch *batch, int64_t first, int64_t n, Noise noise, bool all);

/* The losses of this piece; sums of row losses go to s->sums. tokens, pairs: what the means are taken over; scale
 * multiplies gradients. Matching runs wave 2, so it needs to know who was drawn; generation does not. */
void piece_generation(Piece *c, Stage1 *s, float scale, double tokens);
Status piece_matching(Piece *c, Stage1 *s, float scale, int64_t pairs);

/* The walk back over all of that; dI and dT are gradients of this piece's features. */
Status piece_backward(Piece *c, Stage1 *s, const float *dI, const float *dT);
