/* tally: how much is right, in all and by kind, as answers to questions are counted. Called by ask, quiz and vqa. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* right: the sum of how right each of n is, 0 to 1. */
typedef struct { char *name; int64_t n; double right; } TallyKind;

typedef struct {
    TallyKind all, *kind;               /* (kinds) in the order of first mention */
    int kinds;
} Tally;                                /* starts as {0} */

/* The kind of that name, text[0..len); new ones begin with nothing. Until the next call; NULL: no memory. */
TallyKind *tally_kind(Tally *t, const char *text, size_t len);
static inline void tally_count(TallyKind *k, double right) { k->n++, k->right += right; }
/* Per cent. */
static inline double tally_share(const TallyKind *k) { return k->n ? 100 * k->right / (double)k->n : 0; }
void tally_free(Tally *t);
