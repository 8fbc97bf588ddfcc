/* attention: where queries look. Cross-attention of a trained model, image by image, for pictures on a page.
 *
 * Called by the report. The one idea: the forward pass is the model's own (qformer_forward); run on a recording tape it
 * leaves a node for each attention, which holds the very q and K that were multiplied. They are brought to the host,
 * and softmax(q k^T / sqrt D) is taken there, in double, head by head, and averaged over heads. So nothing of the
 * model is written twice, and the training path pays nothing.
 *
 * Takes its own memory, measured first; one image at a time. Does not draw. */
#pragma once
#include "kernels/model/features.h"
#include "kernels/model/qformer.h"

typedef struct {
    int64_t images, layers, Q, P;       /* layers that have cross-attention */
    int layer[MAX_LAYERS];              /* their numbers in the model */
    float *w;                           /* (images, layers, Q, P): shares of attention; each row sums to 1 */
} Attention;

/* Of n raw feature rows (n,P,E), host, of type dt. ERR_MEMORY. */
Status attention_open(Attention *a, const Backend *b, const QFormer *model, FeatureRows rows, DType dt, int64_t n);
void attention_close(Attention *a);

static inline float *attention_row(const Attention *a, int64_t image, int64_t layer, int64_t q) {
    return a->w + ((image * a->layers + layer) * a->Q + q) * a->P;
}

/* How P tokens lie on the image: *side squared of them, after *lead leading ones (0, or 1:
 * a class token). False: no square. */
bool attention_grid(int64_t P, int *side, int *lead);

/* One row's share and spread: exp of the entropy over P, 1: everywhere alike, 1/P: one token. */
double attention_spread(const float *w, int64_t P);
