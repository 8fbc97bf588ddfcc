/* beam: the search for one caption over next-token logits: greedy, beam search, sampling. Knows no model.
 *
 * Called by generate.c, which asks for logits of `rows` sequences after `len` tokens and hands them to search_step
 * until rows is 0; then closed[0] is the caption. Beam search is the one of transformers 4.33 (spec/evaluation.md
 * 6b), in double: scores, what competes with what, when an image is done. Ties, which transformers leaves open, go
 * to the lower beam, then the lower token; among closed hypotheses of equal score the one closed last wins, as
 * there. One beam under SEARCH_BEAM is still beam search (a closed caption may be beaten by a longer one, unless
 * early_stopping); transformers' num_beams 1 is SEARCH_GREEDY.
 *
 * Random draws depend on (seed, image, length) alone: not on the batch, the device or other images. One thread a
 * search. */
#ifndef QF_BEAM_H
#define QF_BEAM_H
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef enum { SEARCH_GREEDY, SEARCH_BEAM, SEARCH_SAMPLE } SearchMode;

enum { SEARCH_MAX_BEAMS = 64 };

typedef struct {
    SearchMode mode;
    int32_t beams;                      /* 1 unless SEARCH_BEAM */
    int32_t max_length, min_length;     /* tokens, the start token counted, the end token not */
    double length_penalty;              /* score = sum of log-probabilities / length^penalty */
    double repetition_penalty;          /* 1: none. Of raw logits; in beam search of log-probabilities */
    bool early_stopping;                /* BEAM: done with `beams` closed captions, whatever could still come */
    double temperature, top_p;          /* SAMPLE: temperature, then top_k, then top_p (>= 1: all) */
    int32_t top_k;                      /* 0: all */
    uint64_t seed;
    int32_t start, end;                 /* [DEC], [SEP] */
} SearchSpec;

typedef struct {
    int32_t len;                        /* tokens with the start token, without the end token */
    bool ended;                         /* by the end token; else cut at max_length */
    double sum, score;                  /* log-probabilities of its tokens, the end token's included */
    int32_t *tokens;                    /* (max_length), start token first */
} Hypothesis;

typedef struct { double score; int32_t row, token; } Candidate;

typedef struct {
    SearchSpec spec;
    int32_t V;
    uint32_t image;
    int32_t rows;                       /* sequences whose next logits are wanted: 1, then beams, 0 at the end */
    int32_t len;                        /* their length */
    int32_t *tokens;                    /* (beams, max_length) */
    int32_t *parent;                    /* (beams) which row of the step before each continues */
    int32_t nclosed;
    Hypothesis *closed;                 /* (beams + 1); best first once rows is 0 */
    /* private */
    int32_t *spare;                     /* the tokens of the next step */
    double *sum, *score;                /* (beams), (V) */
    Candidate *cand;                    /* (2 beams), or (V) when sampling */
} Search;

Status search_open(Search *s, const SearchSpec *spec, int32_t V);
void search_close(Search *s);
void search_begin(Search *s, uint32_t image);

/* logits: (rows) rows of V, `ld` apart. ERR_NUMERIC when a row has no finite largest element. */
Status search_step(Search *s, const float *logits, int64_t ld);

static inline int32_t search_last(const Search *s, int32_t row) {
    return s->tokens[row * s->spec.max_length + s->len - 1];
}

/* The distribution that sampling draws from, of scores (V): what survives, likeliest first (ties: lower token
 * first), with probabilities that sum to 1. Returns how many. c: room for V. */
int32_t search_filter(const SearchSpec *spec, const double *score, int32_t V, Candidate *c);

#endif
