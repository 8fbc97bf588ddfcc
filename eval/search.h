/* search: the search for one text over next-token logits: greedy, beam search, sampling. Knows no model.
 *
 * Called by decode.c, which asks for logits of `rows` sequences after `len` tokens and hands them to search_step
 * until rows is 0; then closed[0] is the text. Beam search is transformers' (spec/evaluation.md 6b), in double:
 * scores, what competes with what, when a text is done. Two versions of it differ in what they count:
 *
 *     SEARCH_V4 (4.33; LAVIS, stage 1)   the start token counts in all lengths; what is cut at max_length, too.
 *                                        Done when no continuation of this step, an ended one included, could beat the
 *                                        worst closed
 *     SEARCH_V5 (5.23)                   new tokens count: what is cut has one less than in V4 (what ends has as many:
 *                                        its end token counts). Done when no running one could. At max_length only the
 *                                        best `beams` of all continuations close
 *
 * Ties, which transformers leaves open, go to the lower beam, then the lower token; among closed hypotheses of equal
 * score the one closed last wins, as there. One beam under SEARCH_BEAM is still beam search (a closed text may be
 * beaten by a longer one, unless early_stopping); transformers' num_beams 1 is SEARCH_GREEDY.
 *
 * Random draws depend on (seed, image, length) alone: not on the batch, the device or other images. One thread a
 * search. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef enum { SEARCH_GREEDY, SEARCH_BEAM, SEARCH_SAMPLE } SearchMode;

typedef enum { SEARCH_V4, SEARCH_V5 } SearchRule;

enum { SEARCH_MAX_BEAMS = 64, SEARCH_MAX_ENDS = 8 };

typedef struct {
    SearchMode mode;
    SearchRule rule;
    int32_t beams;                      /* 1 unless SEARCH_BEAM */
    int32_t max_length, min_length;     /* tokens, the start token counted (also one that is not there), the end not */
    double length_penalty;              /* score = sum of log-probabilities / length^penalty */
    double repetition_penalty;          /* 1: none. Of raw logits; in beam search of log-probabilities */
    int32_t no_repeat;                  /* no run of so many tokens comes twice, the start token counted; 0: any may */
    bool early_stopping;                /* BEAM: done with `beams` closed captions, whatever could still come */
    double temperature, top_p;          /* SAMPLE: temperature, then top_k, then top_p (>= 1: all) */
    int32_t top_k;                      /* 0: all */
    uint64_t seed;
    int32_t start;                      /* [DEC]; made up and only counted, where the model is not fed one; -1: none */
    int32_t ends[SEARCH_MAX_ENDS], nends;       /* any of them ends a text */
} SearchSpec;

/* The likeliest token each time, nothing weighed; start and ends are the model's to add. */
static inline SearchSpec search_greedy(int32_t max_length, int32_t min_length) {
    return (SearchSpec){.mode = SEARCH_GREEDY, .beams = 1, .max_length = max_length, .min_length = min_length,
                        .length_penalty = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 1};
}

typedef struct {
    int32_t len;                        /* tokens with the start token, without the end token */
    bool ended;                         /* by an end token; else cut at max_length */
    int32_t end;                        /* which */
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
    Candidate *cand;                    /* (room), or (V) when sampling */
    int32_t room;                       /* continuations a beam step looks at */
} Search;

Status search_open(Search *s, const SearchSpec *spec, int32_t V);
void search_close(Search *s);
void search_begin(Search *s, uint32_t image);               /* its number decides the draws */

/* logits: (rows) rows of V, `ld` apart. ERR_NUMERIC when a row has no finite largest element. */
Status search_step(Search *s, const float *logits, int64_t ld);

static inline int32_t search_last(const Search *s, int32_t row) {
    return s->tokens[row * s->spec.max_length + s->len - 1];
}

/* The distribution that sampling draws from, of scores (V): what survives, likeliest first (ties: lower token
 * first), with probabilities that sum to 1. Returns how many. c: room for V. */
int32_t search_filter(const SearchSpec *spec, const double *score, int32_t V, Candidate *c);
