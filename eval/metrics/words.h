/* words: strings to small consecutive numbers, in the order of their first appearance. Called by metrics.c, a look-up a
 * word of every caption. Open addressing, at most half full; the table keeps the whole hash, so that strings are
 * compared once a hit. Does not delete, nor give the string of a number. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { WORDS_MAX = INT32_MAX - 1 };

typedef struct {
    struct Word { uint64_t hash; uint32_t at, len, id; } *table;
    size_t mask;               /* table size - 1 */
    uint32_t n;
    char *text;                /* the bytes of all words */
    size_t ntext;
} Words;                       /* starts as {0} */

Status words_id(Words *w, const char *s, size_t n, uint32_t *id);   /* ERR_MEMORY */
void words_free(Words *w);
