/* decode: searches over any model that writes texts: prefixes in pieces of what the model takes at a time, one step a
 * token for all texts that still run, slots handed from beam to beam.
 *
 * A beam's past lies in a slot of the model (kernels/model/decoder.h). When a beam dies and another has two children,
 * the second child takes the dead one's slot and a copy of the past: a surviving slot is never written to, so nothing
 * needs a second buffer. Texts that are done leave the batch.
 *
 * Called by generate.c (stage 1's captions), by ask and caption with a language model, and by tests. */
#pragma once
#include "eval/search.h"
#include "kernels/model/decoder.h"

typedef struct {
    const Decoder *d;
    SearchSpec spec;
    Search *search;                     /* (prefixes) */
    int32_t *slot;                      /* (searches, beams) slot of each beam */
    int32_t *first;                     /* (searches) first row of each in the step's batch */
    DecoderRow *rows;                   /* (slots) */
    DecoderCopy *moved;                 /* (slots) */
    int64_t tokens;                     /* rows computed so far: what the speed is counted in */
} Decode;

/* How many slots, and rows of each, the model needs for `prefixes` at a time. */
int32_t decode_slots(const SearchSpec *spec, int32_t prefixes);
int32_t decode_length(const SearchSpec *spec, bool starts);

Status decode_open(Decode *x, const Decoder *d, const SearchSpec *spec);
void decode_close(Decode *x);                              /* accepts one that is zero */

/* The texts of n prefixes of the caller's list `input` (what the model's prefix takes). `first` is the number of the
 * first in the whole list: it decides the draws of sampling. found(ctx, i, s) for each i in [0, n), in order:
 * s->closed[0] is the best text, all that were kept stand behind it. */
typedef Status DecodeFound(void *ctx, int64_t i, const Search *s);
Status decode_texts(Decode *x, const void *input, int64_t n, int64_t first, DecodeFound *found, void *ctx);
