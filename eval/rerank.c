/* rerank: see rerank.h. */
#include "eval/rerank.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

static Status pairs_alloc(Rerank *p, int64_t NI, int64_t n) {
    *p = (Rerank){.NI = NI, .n = n};
    p->start = mem_new((size_t)NI + 1, sizeof *p->start);
    p->text = mem_new((size_t)n, sizeof *p->text);
    if (p->start && p->text) return OK;
    rerank_close(p);
    return ERR_MEMORY;
}

void rerank_close(Rerank *p) {
    mem_free(p->start, p->text, p->logit);
    *p = (Rerank){0};
}

/* Calls for each candidate of r; counting and placing are the same walk. */
typedef void PairFn(Rerank *p, int64_t image, int32_t text);

static void each_candidate(Rerank *p, const Retrieval *r, PairFn *fn) {
    for (int64_t i = 0; i < r->NI; i++)
        for (int32_t j = 0; j < r->i2t.n[i]; j++) fn(p, i, topk_row(&r->i2t, i)[j].index);
    for (int64_t t = 0; t < r->NT; t++)
        for (int32_t j = 0; j < r->t2i.n[t]; j++) fn(p, topk_row(&r->t2i, t)[j].index, (int32_t)t);
}

static void count_pair(Rerank *p, int64_t image, int32_t text) {
    (void)text;
    p->start[image + 1]++;
}

static void place_pair(Rerank *p, int64_t image, int32_t text) { p->text[p->start[image]++] = text; }

static int rising(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Sorts each image's texts and drops what stands there twice. start[i] is the end of image i's texts when it begins. */
static void sort_and_merge(Rerank *p) {
    int64_t from = 0, to = 0;
    for (int64_t i = 0; i < p->NI; i++) {
        int64_t end = p->start[i], first = to;
        /* so that logit_of can bisect, and a pair that both directions want is computed once */
        qsort(p->text + from, (size_t)(end - from), sizeof *p->text, rising);
        for (int64_t j = from; j < end; j++)
            if (to == first || p->text[j] != p->text[to - 1]) p->text[to++] = p->text[j];
        p->start[i] = first;
        from = end;
    }
    p->start[p->NI] = p->n = to;
}

Status rerank_of_candidates(Rerank *p, const Retrieval *const *r, int n) {
    int64_t all = 0;
    for (int k = 0; k < n; k++) all += r[k]->NI * r[k]->i2t.k + r[k]->NT * r[k]->t2i.k;
    Status st = pairs_alloc(p, r[0]->NI, all);
    if (st != OK) return st;
    for (int k = 0; k < n; k++) each_candidate(p, r[k], count_pair);
    for (int64_t i = 0; i < p->NI; i++) p->start[i + 1] += p->start[i];
    for (int k = 0; k < n; k++) each_candidate(p, r[k], place_pair);
    sort_and_merge(p);
    return OK;
}

Status rerank_of_owners(Rerank *p, const EvalSet *e) {
    Status st = pairs_alloc(p, e->NI, e->NT);
    if (st != OK) return st;
    for (int64_t t = 0; t < e->NT; t++) {
        BUG_ON(t && e->owner[t] < e->owner[t - 1], "pairs: texts are not in the order of their images");
        p->text[t] = (int32_t)t;
        p->start[e->owner[t] + 1]++;
    }
    for (int64_t i = 0; i < p->NI; i++) p->start[i + 1] += p->start[i];
    return OK;
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

/* The first image of a rank: shares hold about the same number of pairs. */
static int64_t share_start(const Rerank *p, int rank) {
    /* pairs are what takes time: images have very different numbers of them */
    int64_t i = 0, wanted = p->n / dist_size() * rank;
    /* the division rounds down: the last share takes the rest */
    if (rank >= dist_size()) return p->NI;
    while (i < p->NI && p->start[i] < wanted) i++;
    return i;
}

int64_t rerank_share(const Rerank *p) {
    return p->start[share_start(p, dist_rank() + 1)] - p->start[share_start(p, dist_rank())];
}

typedef struct { int32_t *image, *ids, *len; EvalRows rows; } Room;

static Status room_take_all(Room *r, const Encoder *enc, const EvalSet *e) {
    size_t n = (size_t)enc->batch;
    *r = (Room){.image = mem_new(n, sizeof *r->image), .ids = mem_new(n, (size_t)e->T * sizeof *r->ids),
                .len = mem_new(n, sizeof *r->len)};
    return r->image && r->ids && r->len ? evalrows_open(&r->rows, e, enc->f.b, enc->batch) : ERR_MEMORY;
}

/* All pairs of the images [first, first + n), whose keys are there. */
static Status score_group(Rerank *p, Encoder *enc, const EvalSet *e, Room *r, int64_t first, int64_t n,
                          EvalProgress *progress) {
    Status st = OK;
    int64_t i = first;
    for (int64_t at = p->start[first], end = p->start[first + n]; st == OK && at < end;) {
        int64_t m = end - at < enc->batch ? end - at : enc->batch;
        for (int64_t j = 0; j < m; j++) {
            while (p->start[i + 1] <= at + j) i++;
            int64_t t = p->text[at + j];
            r->image[j] = (int32_t)(i - first);
            r->len[j] = e->len[t];
            /* candidates lie anywhere in the set, the encoder wants them side by side */
            memcpy(r->ids + j * e->T, e->ids + t * e->T, (size_t)e->T * sizeof *r->ids);
        }
        st = encode_pairs(enc, r->image, r->ids, r->len, m, p->logit + 2 * at);
        at += m;
        if (st == OK) st = evalprogress(progress, m);
    }
    return st;
}

static Status score_share(Rerank *p, Encoder *enc, const EvalSet *e, EvalProgress *progress) {
    Room r;
    Status st = room_take_all(&r, enc, e);
    int64_t last = share_start(p, dist_rank() + 1);
    for (int64_t i = share_start(p, dist_rank()); st == OK && i < last;) {
        int64_t n = last - i < enc->batch ? last - i : enc->batch;
        /* images without a candidate here cost a read and the making of keys for nothing */
        if (p->start[i] < p->start[i + n]) {
            st = evalrows_read(&r.rows, i, n);
            if (st == OK) st = encode_image_keys(enc, r.rows.rows, (int)n);
            if (st == OK) st = score_group(p, enc, e, &r, i, n, progress);
        }
        i += n;
    }
    evalrows_close(&r.rows);
    mem_free(r.image, r.ids, r.len);
    return st;
}

Status rerank_score(Rerank *p, Encoder *enc, const EvalSet *e, EvalProgress *progress) {
    BUG_ON(e->T != enc->model->d.T, "pairs: texts of %d pieces, a model of %d", e->T, enc->model->d.T);
    double before = enc->f.tape.flops;
    free(p->logit);
    p->logit = mem_new((size_t)p->n, 2 * sizeof *p->logit);
    /* a rank that failed says so before the others wait in the gather */
    Status st = dist_agree(p->logit ? score_share(p, enc, e, progress) : ERR_MEMORY);
    p->flops = enc->f.tape.flops - before;
    /* what others computed is zero here */
    return st == OK ? dist_all_reduce_f32(p->logit, 2 * p->n, "the gather of matching scores") : st;
}

static float logit_of(const Rerank *p, int64_t image, int32_t text) {
    int64_t first = p->start[image];
    const int32_t *at = bsearch(&text, p->text + first, (size_t)(p->start[image + 1] - first), sizeof text, rising);
    BUG_ON(!at, "pairs: image %lld and text %d were not computed", (long long)image, text);
    return p->logit[2 * (at - p->text) + 1];
}

void rerank_fill(const Rerank *p, Retrieval *r) {
    for (int64_t i = 0; i < r->NI; i++)
        for (int32_t j = 0; j < r->i2t.n[i]; j++) {
            Hit *h = topk_row(&r->i2t, i) + j;
            h->itm = logit_of(p, i, h->index);
        }
    for (int64_t t = 0; t < r->NT; t++)
        for (int32_t j = 0; j < r->t2i.n[t]; j++) {
            Hit *h = topk_row(&r->t2i, t) + j;
            h->itm = logit_of(p, h->index, (int32_t)t);
        }
}
