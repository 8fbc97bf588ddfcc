/* rerank: matching logits of image-text pairs, many to an image. Called by retrieval and match.
 *
 * The idea: pairs are kept by image. Whichever direction and fold asks for a pair, it is computed once; an image's
 * keys and values are computed once and serve all its pairs; raw features are read again from the data set, a batch
 * at a time, and never held. With several ranks each takes a share of the images with an equal number of pairs;
 * afterwards all know all logits. Source: evaluation.md 3 (the reference computes the keys anew for every pair). */
#pragma once
#include "eval/evalset.h"
#include "eval/retrieval.h"

typedef struct {
    int64_t NI, n;
    int64_t *start;                     /* (NI+1) pairs of image i are start[i] .. start[i+1]-1 */
    int32_t *text;                      /* (n) rising within an image */
    float *logit;                       /* (n,2); class 1 is a match */
    double flops;                       /* spent by this rank in rerank_score */
} Rerank;

/* Every pair that is a candidate in one of the n retrievals (all over the same images), once. */
Status rerank_of_candidates(Rerank *p, const Retrieval *const *r, int n);

/* Every text with its own image; texts stand in the order of their images. */
Status rerank_of_owners(Rerank *p, const EvalSet *e);
void rerank_close(Rerank *p);

/* Logits of all pairs. All ranks call it alike; `progress` counts pairs of this rank. */
Status rerank_score(Rerank *p, Encoder *enc, const EvalSet *e, EvalProgress *progress);
int64_t rerank_share(const Rerank *p);                                          /* pairs this rank will compute */

/* Gives every candidate its match logit. All of them must be among the pairs. */
void rerank_fill(const Rerank *p, Retrieval *r);
