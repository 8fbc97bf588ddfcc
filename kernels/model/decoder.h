/* decoder: what a search over texts asks of a model that writes them. Stage 1's text head and every language model fill
 * one in; eval/decode.h runs searches (search.h) over it and knows nothing else of the model.
 *
 * A prefix is what is given before the first new token: the queries of an image; visual rows, begin token and prompt;
 * or what T5's encoder read. It runs once and is only read afterwards. A slot holds the past of one running text: the
 * rows of its new tokens, `length` at most. So a row of a step attends to its prefix and to the first at + 1 rows of
 * its slot, its own the last.
 *
 *     prefix(self, input, first, n, &logits)      texts first .. first + n - 1 of the caller's list become prefixes 0
 *     .. n - 1 step(self, at, rows, n, copies, ncopies, &logits)      copies first, then row `at` of n slots
 *
 * The first logits: a model that is fed a start token ([DEC], T5's decoder start) has `starts`; the search feeds it at
 * position 0 and prefix leaves *logits alone. Otherwise prefix gives them, those of each prefix's last row, and
 * position 0 is the first new token. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* One row of a step: whose prefix it sees, in which slot its past lies, and the token that stands at the position. */
typedef struct { int32_t prefix, slot, token; } DecoderRow;

/* The first `at` rows of slot `from` become those of slot `to`. No slot is both in one step, nor twice a `to`. */
typedef struct { int32_t from, to; } DecoderCopy;

typedef struct {
    void *self;
    int32_t V;                          /* columns of the logits */
    int32_t prefixes, slots;            /* at a time, at most */
    int32_t length;                     /* rows of a slot: positions 0 .. length - 1 */
    bool starts;
    /* Both hand out logits on the host, (n,V) f32 without gaps, valid until the next call. Prefixes whose texts are
     * done are simply not among the rows any more. */
    Status (*prefix)(void *self, const void *input, int64_t first, int n, const float **logits);
    Status (*step)(void *self, int32_t at, const DecoderRow *rows, int n, const DecoderCopy *copies, int ncopies,
                   const float **logits);
} Decoder;
