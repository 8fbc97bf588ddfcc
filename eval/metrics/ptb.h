/* ptb: the tokenizer of the caption metrics. Called by score.c.
 *
 * Splits a caption as Stanford CoreNLP 3.4.1's PTBTokenizer does with -preserveLines -lowerCase, which is what
 * pycocoevalcap runs in Java, and then deletes the punctuation tokens that pycocoevalcap deletes. The idea: a table of
 * patterns (ptb_tables.h), the longest match of which is the next token (dfa.h).
 *
 * A caption is tokenized by itself: line ends inside are blanks, and the next caption is not looked at (the tool does
 * both, see spec/evaluation.md 7a). A token can contain U+00A0 ("1 1/2" is one token). Invalid UTF-8 is read as U+FFFD,
 * which separates. Does not americanise spellings, nor correct anything. */
#pragma once
#include <stddef.h>

#include "kernels/base/err.h"

enum {
    PTB_MAX_BYTES = 1 << 16,   /* of one caption */
    PTB_MAX_TOKEN = 4096       /* characters: what is longer is split there, so that no caption takes long */
};

typedef struct Ptb Ptb;

Status ptb_new(Ptb **out);
void ptb_free(Ptb *p);

/* The tokens of text[0..n), joined by single spaces, no space at the end. *out ends with NUL, has none before, and is
 * valid until the next call with `p`. ptb_raw keeps the punctuation.
 * ERR_FORMAT when the caption is longer than PTB_MAX_BYTES. */
Status ptb_tokenize(Ptb *p, const char *text, size_t n, const char **out, size_t *len);
Status ptb_raw(Ptb *p, const char *text, size_t n, const char **out, size_t *len);
