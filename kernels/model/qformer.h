/* qformer: the Q-Former: its parameters and sizes, and its forward over one wave (spec/model.md 2-7). Backward is the
 * tape's. Does not know losses or data. */
#pragma once
#include "kernels/model/dims.h"
#include "kernels/model/qformer_table.h"
#include "kernels/model/wave.h"

typedef struct { Params params; Dims d; } QFormer;

/* As params_open. */
Status qformer_open(QFormer *m, const Dims *d, const Backend *b, Arena *run, const ParamsSpec *spec);
void qformer_close(QFormer *m);

/* The same in an arena of its own, which is measured first and holds the kernels' scratch, too: a model to be used. */
Status qformer_open_alone(QFormer *m, Arena *mem, const Dims *d, const Backend *b, const ParamsSpec *spec);

/* Where and when dropout draws: p = 0 in evaluation. */
typedef struct { float p; uint64_t seed; uint32_t step; } Noise;

/* Image keys and values of every cross-attention layer, once per step: kv[l] is (images P, 2C), keys first. */
enum { MAX_LAYERS = 128 };
typedef struct { int images; Tensor kv[MAX_LAYERS]; } ImageKV;

/* features: `images` rows blocks of (P, E) raw, type dt, scale per image or NULL; on the device.
 * ln_vision is folded in. */
void qformer_image(ImageKV *kv, Tape *t, const QFormer *m, const void *features, DType dt, const float *scale,
                   int images);

/* Hidden states (NQ + NT, C) after the last layer; of a wave that picks, (NQ + npicked, C). kv may be NULL when no
 * segment has an image. When the tape does not record, only two layers' worth of memory is used. Its tape_places:
 * before layer l, l; before the embedding, QFORMER_EMBEDDED. */
enum { QFORMER_EMBEDDED = -1 };
Tensor qformer_forward(Tape *t, const QFormer *m, const Wave *w, const ImageKV *kv, Noise noise);

/* Its parts, for generation with cached keys too. model_embed: rows entering layer 0. model_qkv: (N,3C) of x.
 * model_layer: y of one layer; xkv holds the keys (from column k_at) and values (behind them) that the self plan speaks
 * of: qkv itself in training. */
void qformer_embed(Tape *t, const QFormer *m, Tensor x, const Wave *w, Noise noise);
Tensor qformer_qkv(Tape *t, const QFormer *m, int layer, Tensor x);
void qformer_layer(Tape *t, const QFormer *m, int layer, Tensor y, Tensor x, Tensor qkv, Tensor xkv, int64_t k_at,
                 const Wave *w, const ImageKV *kv, Noise noise);

/* Heads. features: normalised projection f32 of rows (queries: vision_proj, [CLS] rows: text_proj). LM transform: rows
 * ready for the tied product. ITM: (n, 2) f32 logits,
 * the mean over Q rows taken before the (linear) head, which is the same. */
Tensor qformer_features(Tape *t, const QFormer *m, Tensor rows, int weight, int bias);
Tensor qformer_lm_transform(Tape *t, const QFormer *m, Tensor rows);
Tensor qformer_itm(Tape *t, const QFormer *m, Tensor rows);
