/* visual: pictures as the language model meets them: features through Q-Former and projection into visual rows.
 *
 * A given number of pictures at a time, forward only; what the prompt's word pieces (InstructBLIP) change is given
 * with each. Called by whatever lets a stage-2 model speak (caption, ask, ranking of answers). */
#pragma once
#include "kernels/model/features.h"
#include "kernels/model/forward.h"
#include "kernels/model/qformer.h"

typedef struct {
    int32_t images;                     /* at a time, at most */
    int32_t asked;                      /* most word pieces beside the queries; 0: none */
    DType features;
} VisualSpec;

typedef struct { const int32_t *ids; int32_t n; } VisualAsk;

typedef struct {
    const QFormer *model;
    VisualSpec spec;
    Forward f;
    Segment *seg;
    Features up;
    Tensor soft;                        /* (images Q, W) */
} Visual;

Status visual_open(Visual *v, const Backend *b, const QFormer *model, const VisualSpec *spec);
void visual_close(Visual *v);           /* accepts one that is zero */

/* n pictures' features (n,P,E) raw, on the host; asks: n, or NULL. *soft (n Q, W) is valid until the next call. */
Status visual_rows(Visual *v, FeatureRows rows, int n, const VisualAsk *asks, Tensor *soft);
