/* generate: captions from the stage-1 decoder (the ITG head), keys and values cached (spec/model.md 14).
 *
 * The queries of an image run once; of each layer only their keys and values are kept. After that a step is one
 * text row a running beam: it attends to the image's query rows and to the rows of its own past, and only its
 * logits are computed. A beam's past lies in a slot of its own, one behind the other, so that it is a range to the
 * attention kernel. Searches over it are decode.h's: this is stage 1's Decoder.
 *
 *     cache of layer l (rows, 2C), keys first
 *     | queries of image i: [i Q, (i+1) Q)  | ... | slot s: [images Q + s T, + T)  | ...      T = max_length - 1
 *
 * Called by caption.c (text, sets) and by tests. Takes its own memory, measured first. Does not know files or word
 * pieces; what is searched for is search.h's business. */
#pragma once
#include "eval/decode.h"
#include "kernels/model/features.h"
#include "kernels/model/forward.h"
#include "kernels/model/qformer.h"
#include "kernels/model/slots.h"

typedef struct {
    SearchSpec search;
    int images;                         /* at a time */
    DType features;                     /* their element type */
} GenerateSpec;

typedef struct {
    const QFormer *model;
    GenerateSpec spec;
    int32_t slots, T;                   /* images * beams; rows of a slot */
    Forward f;                          /* fixed: caches and features */
    Slots past;                         /* caches of all layers, slots in them */
    Features up;
    Segment *seg;                       /* (images) */
    float *logits;                      /* (slots, V), host */
    Decoder decoder;                    /* this generator as decode.h sees it */
    Decode decode;
} Generator;

/* ERR_USAGE when the model has too few positions for max_length. */
Status generate_open(Generator *g, const Backend *b, const QFormer *model, const GenerateSpec *spec);
void generate_close(Generator *g);

/* Captions of n raw feature rows (n,P,E), host; any n. `first` is the number of the first image in the whole list: it
 * decides the draws of sampling. found(ctx, i, s) for each i in [0, n), in order: s->closed[0] is the caption, and all
 * hypotheses that were kept stand behind it. ERR_NUMERIC names the image whose logits are not finite. */
Status generate_captions(Generator *g, FeatureRows rows, int64_t n, int64_t first, DecodeFound *found, void *ctx);

/* Its two halves. prefix: the queries of up to `images` images. step: copies first (the first `at` rows of a slot),
 * then n rows at position `at`; g->logits (n,V) is there when it returns. */
Status generate_prefix(Generator *g, FeatureRows rows, int n);
Status generate_step(Generator *g, int32_t at, const DecoderRow *rows, int n, const DecoderCopy *copies, int ncopies);
