/* ngrams: the n-grams of captions, and in how many images' references each occurs. Called by metrics.c:
 *
 *     ngrams_documents(&g, words, places, n, ...);          once, for all captions
 *     for each image: ngrams_begin, ngrams_add a caption    now nodes[] are its distinct n-grams with their idf
 *
 * Document frequencies come from sorting, not from a table of all n-grams: the n-grams of one length are numbered by a
 * radix sort of (number of the first n-1 words, last word), and a run of equal keys is an n-gram with all its places
 * in order. Both halves of an n-gram that two images share are shared too, and df 0 and 1 give the same idf, so
 * whatever has df < 2 takes no part in the next length. Everything is exact, and memory is read from end to end.
 *
 * An image's distinct n-grams are a trie in a hash table that stays in the cache (key: node of the first n-1 words,
 * last word). Memory: 60 bytes a word of all captions at most, while sorting. Does not know scores. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { NGRAM_MAX = 4 };

/* What stands at words[i]: the image, whether it is one of its references, and how many words its caption has from here
 * on (0: this word takes no part; what is above NGRAM_MAX may be given as NGRAM_MAX). */
typedef struct { uint32_t image : 28, reference : 1, left : 3; } NgramAt;

typedef struct {
    uint32_t order;                    /* 0: one word */
    uint32_t candidate, count, most;   /* metrics.c's: times in the candidate, in one reference, at most in one */
    double idf;                        /* ln(images) - ln(max(1, df)) */
} NgramNode;

typedef struct {
    /* One image. Nodes are numbered as they first occur. */
    NgramNode *nodes;                  /* (n) */
    uint32_t n;
    uint32_t *walked, nwalked;         /* the nodes of the captions added, one an occurrence */

    /* Private part */
    struct NgramPlace { uint64_t key; uint32_t round, id; } *places;   /* those of an older round are free */
    size_t mask;
    uint32_t round, cap;
    const uint32_t *words;
    uint32_t *df[NGRAM_MAX];           /* (all words) of the n-gram that begins there; 0 stands for 0 and 1 */
    double *idf;                       /* (images + 1) by df */
} Ngrams;                              /* starts as {0} */

/* words, at: (n); `words`, numbers below nwords, is kept and must outlive the calls below. ERR_MEMORY. */
Status ngrams_documents(Ngrams *g, const uint32_t *words, const NgramAt *at, size_t n, uint32_t nwords, size_t images);

/* Starts an image that has at most so many words; then its captions, words[at .. at+n) each. */
Status ngrams_begin(Ngrams *g, size_t words);
void ngrams_add(Ngrams *g, size_t at, uint32_t n);
uint32_t ngrams_occurrences(uint32_t words);   /* how many a caption of so many words adds to `walked` */
void ngrams_free(Ngrams *g);
