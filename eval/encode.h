/* encode: a model in use, forward only: features of images and texts, and matching logits of pairs.
 *
 * Work comes in pieces of at most `batch`, results go to host memory in f32. Used by validation in training and by
 * every evaluation. Takes its own memory, measured first. Does not know files or metrics. */
#pragma once
#include "kernels/model/features.h"
#include "kernels/model/forward.h"
#include "kernels/model/qformer.h"

typedef struct {
    const QFormer *model;
    Forward f;
    Segment *seg;
    int batch;                          /* images, texts, or pairs at a time */
    DType features;
    Features up;
    ImageKV kv; /* of the images encode_image_keys was given last; they lie at the start of f.mem */
    size_t after_kv;
} Encoder;

Status encoder_open(Encoder *e, const Backend *b, const QFormer *model, int batch, DType features);
void encoder_close(Encoder *e);

/* n raw feature rows (n,P,E), host -> out (n,Q,Z), normalised. Any n. */
Status encode_images(Encoder *e, FeatureRows rows, int64_t n, float *out);

/* n texts: ids (n,T) zero padded, len (n) -> out (n,Z), normalised. T as in the model's dims. */
Status encode_texts(Encoder *e, const int32_t *ids, const int32_t *len, int64_t n, float *out);

/* Keys and values of up to `batch` images, kept until the next call; then logits (n,2) of pairs (image[i] among those,
 * text i): class 1 is a match. Any n: texts are taken in pieces. */
Status encode_image_keys(Encoder *e, FeatureRows rows, int n);
Status encode_pairs(Encoder *e, const int32_t *image, const int32_t *ids, const int32_t *len, int64_t n, float *logits);
