/* retrieval: see retrieval.h. */
#include "eval/retrieval.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/mem.h"

float hit_score(const Hit *h, RankRule rule) {
    return rule == RANK_ITC ? h->itc : rule == RANK_ITM ? h->itm : h->itm + h->itc;
}

/* ---- the k best, as a heap with the worst on top ----------------------------------------------------------------- */

static inline bool worse(const Hit *a, const Hit *b) {
    return a->itc < b->itc || (a->itc == b->itc && a->index > b->index);
}

static void sift_down(Hit *h, int64_t n) {
    for (int64_t at = 0, child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && worse(&h[child + 1], &h[child])) child++;
        if (!worse(&h[child], &h[at])) return;
        Hit t = h[at];
        h[at] = h[child], h[child] = t;
    }
}

/* Called with rising indices, so an equal score never displaces one that is there. */
static inline void topk_offer(TopK *t, int64_t row, int32_t index, float score) {
    Hit *h = topk_row(t, row);
    if (t->n[row] == t->k) {
        if (score <= h[0].itc) return;                       /* most texts end here */
        h[0] = (Hit){index, score, 0};
        sift_down(h, t->k);
        return;
    }
    int64_t at = t->n[row]++;
    h[at] = (Hit){index, score, 0};
    for (int64_t up; at && worse(&h[at], &h[up = (at - 1) / 2]); at = up) {
        Hit x = h[at];
        h[at] = h[up], h[up] = x;
    }
}

static Status topk_open(TopK *t, int64_t rows, int64_t k) {
    *t = (TopK){rows, k, mem_new((size_t)rows, (size_t)k * sizeof(Hit)), mem_new((size_t)rows, sizeof(int32_t))};
    return t->hit && t->n ? OK : ERR_MEMORY;
}

static void offer_row(void *ctx, int64_t i, const float *s) {
    Retrieval *r = ctx;
    int32_t fold = recall_fold(i, r->NI, r->folds);
    for (int64_t t = 0; t < r->NT; t++) {
        /* whoever is in another part is not there */
        if (r->folds > 1 && recall_fold(r->owner[t], r->NI, r->folds) != fold) continue;
        topk_offer(&r->i2t, i, (int32_t)t, s[t]);
        topk_offer(&r->t2i, t, (int32_t)i, s[t]);
    }
}

/* ---- ranks among candidates -------------------------------------------------------------------------------------- */

#define BY(rule) \
    static int by_##rule(const void *x, const void *y) { \
        const Hit *a = x, *b = y; \
        float p = hit_score(a, rule), q = hit_score(b, rule); \
        return p != q ? (p < q) - (p > q) : (a->index > b->index) - (a->index < b->index); \
    }
BY(RANK_ITC)
BY(RANK_ITM)
BY(RANK_SUM)

static int (*const order[RANK_RULES])(const void *, const void *) = {by_RANK_ITC, by_RANK_ITM, by_RANK_SUM};

static void topk_sort(TopK *t, RankRule rule) {
    for (int64_t row = 0; row < t->rows; row++) qsort(topk_row(t, row), (size_t)t->n[row], sizeof(Hit), order[rule]);
}

int64_t retrieval_fold_start(const Retrieval *r, int fold) { return (fold * r->NI + r->folds - 1) / r->folds; }

/* Place of an index that is not among the candidates: behind them all, and behind whoever else is not and has a
 * lower one. */
static int32_t place_behind(const Hit *h, int32_t n, int32_t index, int64_t before) {
    int32_t lower = 0;
    for (int32_t j = 0; j < n; j++) lower += h[j].index < index;
    return n + (int32_t)before - lower;
}

static void rank_images(Retrieval *r) {
    for (int64_t i = 0; i < r->NI; i++) {
        const Hit *h = topk_row(&r->i2t, i);
        int32_t n = r->i2t.n[i], j = 0;
        while (j < n && r->owner[h[j].index] != i) j++;      /* its best-placed own text */
        r->txt_rank[i] = j < n ? j : INT32_MAX;
    }
    for (int64_t t = 0; t < r->NT; t++) {
        int64_t i = r->owner[t];
        if (r->txt_rank[i] < r->i2t.n[i]) continue;          /* found among the candidates */
        int32_t at = place_behind(topk_row(&r->i2t, i), r->i2t.n[i], (int32_t)t, r->place[t]);
        if (at < r->txt_rank[i]) r->txt_rank[i] = at;
    }
}

static void rank_texts(Retrieval *r) {
    for (int64_t t = 0; t < r->NT; t++) {
        const Hit *h = topk_row(&r->t2i, t);
        int32_t n = r->t2i.n[t], j = 0, own = r->owner[t];
        while (j < n && h[j].index != own) j++;
        int64_t start = retrieval_fold_start(r, recall_fold(own, r->NI, r->folds));
        r->img_rank[t] = j < n ? j : place_behind(h, n, own, own - start);
    }
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

typedef double RecallField;
enum { RECALL_FIELDS = 10 };
_Static_assert(offsetof(Recall, images) == RECALL_FIELDS * sizeof(RecallField), "the figures of a Recall come first");

/* Mean of the folds' figures. Texts of a fold are gathered, since an owner list may be in any order. */
static Status figures(const Retrieval *r, Recall *out) {
    int32_t *img = mem_new((size_t)r->NT, sizeof *img);
    if (!img) return ERR_MEMORY;
    *out = (Recall){.images = r->NI, .texts = r->NT};
    for (int f = 0; f < r->folds; f++) {
        int64_t first = retrieval_fold_start(r, f), n = retrieval_fold_start(r, f + 1) - first, m = 0;
        Recall one;
        for (int64_t t = 0; t < r->NT; t++)
            if (recall_fold(r->owner[t], r->NI, r->folds) == f) img[m++] = r->img_rank[t];
        recall_from_ranks(r->txt_rank + first, n, img, m, &one);
        for (int k = 0; k < RECALL_FIELDS; k++) ((RecallField *)out)[k] += ((const RecallField *)&one)[k] / r->folds;
    }
    free(img);
    return OK;
}

/* 1 - C(N - own, K) / C(N, K): a true one among K places of N filled by lot. */
static double lucky(int64_t N, int64_t own, int K) {
    double miss = 1;
    for (int j = 0; j < K; j++) miss *= N - j > 0 ? fmax(0, (double)(N - own - j) / (double)(N - j)) : 0;
    return 100 * (1 - miss);
}

static Status chance(Retrieval *r) {
    int32_t *own = mem_new((size_t)r->NI, sizeof *own);
    if (!own) return ERR_MEMORY;
    for (int64_t t = 0; t < r->NT; t++) own[r->owner[t]]++;
    Recall *c = &r->chance;
    *c = (Recall){.images = r->NI, .texts = r->NT};
    for (int64_t i = 0; i < r->NI; i++) {
        int f = recall_fold(i, r->NI, r->folds);
        /* guessing is among the texts of its own part */
        int64_t first = retrieval_fold_start(r, f), n = retrieval_fold_start(r, f + 1) - first, N = r->fold_texts[f];
        double images = (double)(n * r->folds), texts = (double)N * r->folds;
        c->txt_r1 += lucky(N, own[i], 1) / images;
        c->txt_r5 += lucky(N, own[i], 5) / images;
        c->txt_r10 += lucky(N, own[i], 10) / images;
        if (!N) continue;                                    /* a part without a text */
        c->img_r1 += own[i] * lucky(n, 1, 1) / texts;
        c->img_r5 += own[i] * lucky(n, 1, 5) / texts;
        c->img_r10 += own[i] * lucky(n, 1, 10) / texts;
    }
    free(own);
    return OK;
}

static void coverage(Retrieval *r) {
    int64_t images = 0, texts = 0;
    for (int64_t i = 0; i < r->NI; i++) images += r->txt_rank[i] < r->i2t.n[i];
    for (int64_t t = 0; t < r->NT; t++) texts += r->img_rank[t] < r->t2i.n[t];
    r->txt_covered = 100.0 * (double)images / (double)r->NI;
    r->img_covered = 100.0 * (double)texts / (double)r->NT;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

Status retrieval_open(Retrieval *r, RecallSource *rows, void *source, int64_t NI, int64_t NT, const int32_t *owner,
                      int64_t k, int folds) {
    *r = (Retrieval){.NI = NI, .NT = NT, .k = k, .folds = folds, .owner = owner};
    if (NI < 1 || NT < 1)
        return err_set(ERR_USAGE, "%lld images and %lld texts: there is nothing to retrieve", (long long)NI,
                       (long long)NT);
    if (folds < 1 || folds > NI) return err_set(ERR_USAGE, "%lld images do not make %d folds", (long long)NI, folds);
    for (int64_t t = 0; t < NT; t++)
        BUG_ON(owner[t] < 0 || owner[t] >= NI, "retrieval: text %lld belongs to image %d", (long long)t, owner[t]);
    /* texts of a fold need not follow one another in the list */
    r->place = mem_new((size_t)NT, sizeof *r->place);
    r->fold_texts = mem_new((size_t)folds, sizeof *r->fold_texts);
    r->txt_rank = mem_new((size_t)NI, sizeof *r->txt_rank);
    r->img_rank = mem_new((size_t)NT, sizeof *r->img_rank);
    Status st = r->place && r->fold_texts && r->txt_rank && r->img_rank ? OK : ERR_MEMORY;
    for (int64_t t = 0; st == OK && t < NT; t++) r->place[t] = r->fold_texts[recall_fold(owner[t], NI, folds)]++;
    /* a list longer than what there is would be holes */
    if (st == OK && k > 0) st = topk_open(&r->i2t, NI, k < NT ? k : NT);
    if (st == OK && k > 0) st = topk_open(&r->t2i, NT, k < NI ? k : NI);
    if (st == OK)
        st = recall_ranks(rows, source, NI, NT, owner, folds, k > 0 ? &(RecallAlso){offer_row, r} : NULL, r->txt_rank,
                          r->img_rank);
    if (st == OK) st = figures(r, &r->recall[RANK_ITC]);
    if (st == OK) st = chance(r);
    if (st == OK && k > 0) {
        topk_sort(&r->i2t, RANK_ITC);
        topk_sort(&r->t2i, RANK_ITC);
        coverage(r);
    }
    if (st != OK) retrieval_close(r);
    return st;
}

void retrieval_close(Retrieval *r) {
    mem_free(r->place, r->fold_texts, r->txt_rank, r->img_rank, r->i2t.hit, r->i2t.n, r->t2i.hit, r->t2i.n);
    *r = (Retrieval){0};
}

/* By cosine, the whole row was ranked at opening: candidates must not shorten it. */
Status retrieval_rank(Retrieval *r, RankRule rule) {
    BUG_ON(!r->i2t.hit || rule == RANK_ITC, "retrieval: no candidates to rank");
    topk_sort(&r->i2t, rule);
    topk_sort(&r->t2i, rule);
    rank_images(r);
    rank_texts(r);
    return figures(r, &r->recall[rule]);
}

