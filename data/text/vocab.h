/* vocab: makes a WordPiece vocabulary from captions. Called by `qformer vocab`, and by the synthetic set.
 *
 * The idea: count the different words once (millions of captions have some hundred thousand of them), begin with
 * single characters, and join the pair of neighbours that occurs most often, again and again, until the vocabulary is
 * full: byte-pair encoding restricted to within words, as the tokenizers library trains its WordPiece. Pair counts
 * are kept up to date (a pair knows its words) and the best pair comes from a heap whose stale entries are corrected
 * when met, so a merge costs what it changes.
 *
 * The result depends on which captions were added, not on their order: equal counts are decided by piece ids. Lines:
 * [PAD] [UNK] [CLS] [SEP] [MASK] (0..4), characters, characters inside a word (##), joined pieces by rank. [DEC] is
 * not written: wp_open adds it. Every character seen is covered in both forms (those that always stand alone, in
 * one), if they fit; the rarest are left out otherwise, and counted in the report.
 *
 * Does not apply a caption processor: add captions as the tokenizer will see them. Reference: Sennrich, Haddow,
 * Birch, "Neural machine translation of rare words with subword units" (2016). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { VOCAB_MIN = 16, VOCAB_MAX = 1 << 22 };   /* lines one may ask for */

typedef struct VocabTrainer VocabTrainer;

typedef struct {
    int64_t words;            /* counted, in all captions; words of more than 100 characters are not */
    int64_t different;        /* of them */
    int64_t characters;       /* different ones */
    int64_t dropped;          /* forms of characters for which there was no room: their words become [UNK] */
    int64_t pieces;           /* lines of the vocabulary; less than asked for when nothing is left to join */
} VocabReport;

Status vocab_new(VocabTrainer **t);
Status vocab_add(VocabTrainer *t, const char *caption, size_t n);
void vocab_free(VocabTrainer *t);

/* Makes a vocabulary of at most `size` lines; a pair is joined if it occurs at least min_count (>= 1) times. *text is
 * a new string (free it), what vocab.txt holds; `report` may be NULL. ERR_USAGE: a size out of VOCAB_MIN..VOCAB_MAX,
 * or no word was added. May be called again with another size. */
Status vocab_train(const VocabTrainer *t, int size, int64_t min_count, char **text, size_t *n, VocabReport *report);
