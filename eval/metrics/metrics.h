/* metrics: BLEU-1..4, ROUGE-L and CIDEr-D of captions that are already tokens. Called by score.c and the benchmark.
 *
 *     metrics_new(&m);
 *     for each image: metrics_image(m, candidate, n), then metrics_reference(m, text, n) for each of its references
 *     metrics_compute(m, &corpus, per_image);
 *
 * The numbers are pycocoevalcap's (spec/evaluation.md 7b-7d), its constants and its corner cases included: BLEU and
 * CIDEr split tokens at any Unicode blank, ROUGE-L at each single space. CIDEr's document frequencies are those of the
 * references given here, so scores of subsets are not comparable, and one image alone scores 0.
 *
 * The idea: words are interned (words.h) and n-grams are nodes of tries in hash tables (ngrams.h), exact; an image at a
 * time, so that all it needs stays in the cache.
 *
 * Does not tokenize, read files, stem or count synonyms. One thread. */
#pragma once
#include <stddef.h>

#include "eval/metrics/ngrams.h"
#include "kernels/base/err.h"

/* Fractions; CIDEr 0 .. 10. The same as a list, with pycocoevalcap's names. */
enum { METRICS = NGRAM_MAX + 2 };
typedef union {
    struct { double bleu[NGRAM_MAX], rouge_l, cider; };
    double v[METRICS];
} MetricScores;
extern const char *const metrics_names[METRICS];

typedef struct Metrics Metrics;

Status metrics_new(Metrics **out);
void metrics_free(Metrics *m);

/* text[0..n): tokens joined by single spaces, as ptb_tokenize gives them. ERR_MEMORY only. A reference belongs to the
 * image begun last. */
Status metrics_image(Metrics *m, const char *candidate, size_t n);
Status metrics_reference(Metrics *m, const char *text, size_t n);
size_t metrics_count(const Metrics *m);   /* images so far */

/* images: (metrics_count) in the order of metrics_image, or NULL.
 * ERR_USAGE when there is no image, or one has no reference. */
Status metrics_compute(Metrics *m, MetricScores *corpus, MetricScores *images);
