/* retrieval: candidates, ranks and recall of images and texts, without the similarity matrix in memory. Called by
 * the commands retrieval and score; rerank.h scores the candidates.
 *
 * The idea: rows of similarities stream past (recall.h) and leave behind the ranks by cosine, and for every image
 * the k most similar texts, for every text the k most similar images. Matching scores are then wanted for these
 * only. What was not among the k counts as lower than anything that was, in order of its number, as the reference's
 * matrix of -100 has it, with ties settled (evaluation.md 3, 4). Several captions an image: its rank is that of its
 * best-placed own text.
 *
 * Folds: images fall into `folds` parts of neighbours (5,000 images of COCO: 5 times 1,000), each a test of its own
 * with its own candidates; figures are means over the folds. Does not compute features. */
#pragma once
#include "eval/recall.h"

/* What candidates are ordered by: the cosine; the logit of a match; their sum, which is what the reference does. */
typedef enum { RANK_ITC, RANK_ITM, RANK_SUM, RANK_RULES } RankRule;

typedef struct { int32_t index; float itc, itm; } Hit;
typedef struct { int64_t rows, k; Hit *hit; int32_t *n; } TopK; /* hit (rows, k), of which n[row] are there */
static inline Hit *topk_row(const TopK *t, int64_t row) { return t->hit + row * t->k; }
float hit_score(const Hit *h, RankRule rule);

typedef struct {
    int64_t NI, NT, k;
    int folds;
    const int32_t *owner;               /* (NT) of the caller */
    int32_t *place, *fold_texts;        /* (NT) earlier texts of the same fold; (folds) */
    TopK i2t, t2i;                      /* in the order of the rule that was ranked last */
    int32_t *txt_rank, *img_rank;       /* (NI), (NT), likewise; from 0 */
    Recall recall[RANK_RULES];          /* of the rules that were ranked */
    Recall chance;                      /* recall of guessing; no mean and median */
    double txt_covered, img_covered;    /* per cent with a true one among the candidates: re-ranking's limit */
} Retrieval;

/* Ranks by cosine, and the candidates (k 0: none; more than there are: all). ERR_USAGE when there is nothing to
 * retrieve or fewer images than folds. */
Status retrieval_open(Retrieval *r, RecallSource *rows, void *source, int64_t NI, int64_t NT, const int32_t *owner,
                      int64_t k, int folds);
void retrieval_close(Retrieval *r);

/* Orders the candidates by RANK_ITM or RANK_SUM (rerank.h has set their itm),
 * ranks by that order, sets recall[rule]. */
Status retrieval_rank(Retrieval *r, RankRule rule);

int64_t retrieval_fold_start(const Retrieval *r, int fold); /* first image of a fold; NI after the last */
