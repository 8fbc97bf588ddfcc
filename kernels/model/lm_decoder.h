/* lm_decoder: a language model as a Decoder (decoder.h): prefixes once, then a token a step, keys and values cached.
 *
 *     fixed memory    keys and values a layer: rows of the prefixes, then slots of `length` rows; of T5 those of the
 *                     decoder's slots, and what the encoder gave for the cross-attention
 *     a prefix        visual rows, then ids. The visual rows of an image run once, also when several of the prefixes of
 *                     a call begin with them (questions about one picture); their keys and values are copied
 *     a step          one row a running text: its prefix's keys, then its slot's
 *
 * Same numbers as a pass over the whole text, up to rounding: a causal model's row does not see what follows. */
#pragma once
#include "kernels/model/decoder.h"
#include "kernels/model/forward.h"
#include "kernels/model/lm_model.h"
#include "kernels/model/slots.h"

/* rows: most rows of a prefix. */
typedef struct { int32_t prefixes, slots, length, rows; } LmDecoderSpec;

typedef struct {
    Forward f;
    const Lm *m;
    LmDecoderSpec spec;
    /* a layer: (prefix rows + slots length, 2 B); T5: (slots length, 2 B) and (prefix rows, 2 A) */
    Tensor *cache, *cross;
    Slots slots;                        /* in the caches */
    int32_t *row0, *nrows;              /* of each prefix, in the cache */
    float *logits;                      /* host (the larger of prefixes and slots, V) */
    const int32_t *keep_to, *keep_from; /* device: where the rows of the pass in progress go in the cache, and which */
    int64_t kept;
} LmDecoder;

/* What prefix() is given: n texts' prefixes. soft (S, E) elem, on the device: visual rows; a prefix has rows [soft,
 * soft + nsoft) of them. Prefixes with the same visual rows follow one another. */
typedef struct { Tensor soft; const LmPrefix *prefixes; } LmGiven;

/* ERR_USAGE when a text would be longer than the model allows, ERR_MEMORY. */
Status lm_decoder_open(LmDecoder *g, const Backend *b, const Lm *m, const LmDecoderSpec *spec);
void lm_decoder_close(LmDecoder *g);     /* accepts one that is zero */
Decoder lm_decoder(LmDecoder *g);

/* Where the last row of a prefix looks, which is the row that says the first new token: share (nsoft + n) of its
 * attention that each row of the prefix has, its own the last; the mean over all layers and heads. For looking at a
 * model, not for decoding. Not of T5. */
Status lm_decoder_gaze(LmDecoder *g, Tensor soft, const LmPrefix *p, float *share);
