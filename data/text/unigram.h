/* unigram: the pieces of one word whose scores (log-probabilities) add up to most: T5's tokenizer. A character that is
 * no piece is unknown, at the lowest score of the vocabulary less 10; neighbouring unknown ones are one.
 *
 * Paths are searched from left to right over a tree of the pieces, in double; on a tie the path whose last piece starts
 * earlier stays. As in bpe.h, a word that is best as one piece, which opening finds out, costs one probe.
 *
 * Called by tokenizer.c. Read-only once open. Reference: Kudo, "Subword regularization" (2018); spec/stage2.md 8d. */
#pragma once
#include <stdint.h>

#include "data/text/grow.h"
#include "data/text/pieces.h"

typedef struct {
    Pieces pieces;
    double *score;             /* (size) */
    int32_t unk;
    double unk_score;
    struct UnigramEdge { uint32_t from, to; } *edges;    /* (1 << bits): from = node << 8 | byte, to: node, 0: empty */
    int bits;
    int32_t *piece_at;         /* (nodes) the piece that ends there, -1: none */
    uint32_t nodes;
    unsigned char *whole;      /* (size) the best cut of this piece's bytes is the piece */
} Unigram;

/* Pieces, scores and unk are set. ERR_FORMAT when a score is not finite. */
Status unigram_ready(Unigram *u, const char *name);
void unigram_close(Unigram *u);

Status unigram_word(const Unigram *u, const char *s, size_t n, TokenIds *out);
uint64_t unigram_hash(const Unigram *u, uint64_t h);
