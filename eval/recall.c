/* recall: see recall.h. */
#include "eval/recall.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/base/mem.h"
#include "kernels/base/status.h"

enum { BLOCK_BYTES = 64 << 20 };         /* similarities of a block of images, and which query gave them */

Status recall_rows(const Backend *b, const float *I, int64_t NI, const float *T, int64_t NT, int64_t Q, int64_t Z,
                   RecallRow *row, void *ctx) {
    /* 8: a similarity and the query that gave it; all of COCO at once would be 500 MB */
    int64_t block = BLOCK_BYTES / ((NT > 0 ? NT : 1) * 8);
    block = block < 1 ? 1 : block > NI ? NI : block;
    void *dT = NULL, *dI = NULL, *dS = NULL, *arg = NULL;
    float *S = mem_new((size_t)(block * NT), sizeof *S);
    Status st = S ? OK : ERR_MEMORY;
    if (st == OK) st = b->alloc(&dT, (size_t)(NT * Z) * sizeof *T + 4);
    if (st == OK) st = b->alloc(&dI, (size_t)(block * Q * Z) * sizeof *I + 4);
    if (st == OK) st = b->alloc(&dS, (size_t)(block * NT) * sizeof *S + 4);
    if (st == OK) st = b->alloc(&arg, (size_t)(block * NT) * sizeof(int32_t) + 4);
    if (st == OK) b->upload(dT, T, (size_t)(NT * Z) * sizeof *T);
    for (int64_t at = 0; st == OK && at < NI; at += block) {
        int64_t n = NI - at < block ? NI - at : block;
        b->upload(dI, I + at * Q * Z, (size_t)(n * Q * Z) * sizeof *I);
        b->simmax(dS, arg, dI, dT, n, NT, Q, Z, NT, 1);
        b->download(S, dS, (size_t)(n * NT) * sizeof *S);
        for (int64_t i = 0; i < n; i++) row(ctx, at + i, S + i * NT);
        st = b->status();
    }
    void *all[] = {dT, dI, dS, arg};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]) b->release(all[i]);
    free(S);
    return st;
}

Status recall_feature_rows(void *features, RecallRow *row, void *ctx) {
    const RecallFeatures *f = features;
    return recall_rows(f->b, f->I, f->NI, f->T, f->NT, f->Q, f->Z, row, ctx);
}

typedef struct {
    const int32_t *owner;
    int32_t *fold;                      /* (NT) of a text's image */
    int64_t NI, NT, bad;                /* bad: the first image with a similarity that is not finite, or -1 */
    int folds;
    float *own;                         /* (NT) similarity of a text and its own image */
    int32_t *txt_rank, *img_rank;
    const RecallAlso *also;
} Ranks;

static void collect_own(void *ctx, int64_t i, const float *s) {
    Ranks *r = ctx;
    float sum = 0;                                           /* f32 is enough: any NaN or infinity stays */
    for (int64_t t = 0; t < r->NT; t++) {
        sum += fabsf(s[t]);
        if (r->owner[t] == i) r->own[t] = s[t];
    }
    /* one sum finds any NaN of the row, and comparisons with NaN would rank it first or last by chance */
    if (!isfinite(sum) && r->bad < 0) r->bad = i;
    if (r->also) r->also->row(r->also->ctx, i, s);
}

/* The best-placed own text of image i, and one more place for each text that image i stands before its own. */
static void count_row(void *ctx, int64_t i, const float *s) {
    Ranks *r = ctx;
    int64_t best = -1;
    int32_t rank = 0, fold = recall_fold(i, r->NI, r->folds);
    for (int64_t t = 0; t < r->NT; t++) {
        if (r->owner[t] == i && (best < 0 || s[t] > s[best])) best = t;
        if (r->owner[t] != i && r->fold[t] == fold)
            /* equal similarities stand in the order of their numbers: a model that says 1 to all gets chance */
            r->img_rank[t] += s[t] > r->own[t] || (s[t] == r->own[t] && i < r->owner[t]);
    }
    for (int64_t t = 0; best >= 0 && t < r->NT; t++)
        rank += r->fold[t] == fold && (s[t] > s[best] || (s[t] == s[best] && t < best));
    r->txt_rank[i] = best >= 0 ? rank : INT32_MAX;
}

Status recall_ranks(RecallSource *rows, void *source, int64_t NI, int64_t NT, const int32_t *owner, int folds,
                    const RecallAlso *also, int32_t *txt_rank, int32_t *img_rank) {
    Ranks r = {.owner = owner, .NI = NI, .NT = NT, .bad = -1, .folds = folds, .txt_rank = txt_rank,
               .img_rank = img_rank, .also = also};
    r.fold = mem_new((size_t)NT, sizeof *r.fold);
    r.own = mem_new((size_t)NT, sizeof *r.own);
    Status st = r.own && r.fold ? OK : ERR_MEMORY;
    for (int64_t t = 0; st == OK && t < NT; t++) {
        r.fold[t] = recall_fold(owner[t], NI, folds);
        img_rank[t] = 0;
    }
    if (st == OK) st = rows(source, collect_own, &r);
    if (st == OK && r.bad >= 0)
        st = err_set(ERR_NUMERIC, "the similarities of image %lld are not finite: the model or its features are broken",
                     (long long)r.bad);
    if (st == OK) st = rows(source, count_row, &r); /* the rows come twice: NI x NT scores at once have no room */
    mem_free(r.own, r.fold);
    return st;
}

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void figures(const int32_t *rank, int64_t n, double *r1, double *r5, double *r10, double *median, double *mean) {
    int64_t k1 = 0, k5 = 0, k10 = 0, ranked = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        k1 += rank[i] < 1, k5 += rank[i] < 5, k10 += rank[i] < 10;
        if (rank[i] != INT32_MAX) sum += 1.0 + rank[i], ranked++;
    }
    *mean = ranked ? sum / (double)ranked : 0;               /* an image without a text has no rank to average */
    double all = n ? (double)n : 1;
    /* in per cent, as all published tables */
    *r1 = 100.0 * (double)k1 / all, *r5 = 100.0 * (double)k5 / all, *r10 = 100.0 * (double)k10 / all;
    *median = 0;
    int32_t *sorted = mem_new((size_t)n, sizeof *sorted);
    if (!sorted || !n) {
        free(sorted);
        return;
    }
    for (int64_t i = 0; i < n; i++) sorted[i] = rank[i];
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    *median = 1.0 + 0.5 * ((double)sorted[(n - 1) / 2] + (double)sorted[n / 2]);
    free(sorted);
}

void recall_from_ranks(const int32_t *txt_rank, int64_t NI, const int32_t *img_rank, int64_t NT, Recall *out) {
    *out = (Recall){.images = NI, .texts = NT};
    figures(txt_rank, NI, &out->txt_r1, &out->txt_r5, &out->txt_r10, &out->txt_median, &out->txt_mean);
    figures(img_rank, NT, &out->img_r1, &out->img_r5, &out->img_r10, &out->img_median, &out->img_mean);
}

Status recall_from_features(const Backend *b, const float *I, int64_t NI, const float *T, int64_t NT, int64_t Q,
                            int64_t Z, const int32_t *owner, Recall *out, int32_t *txt_rank, int32_t *img_rank) {
    RecallFeatures f = {b, I, T, NI, NT, Q, Z};
    int32_t *txt = mem_new((size_t)NI, sizeof *txt), *img = mem_new((size_t)NT, sizeof *img);
    Status st = txt && img ? OK : ERR_MEMORY;
    if (st == OK) st = recall_ranks(recall_feature_rows, &f, NI, NT, owner, 1, NULL, txt, img);
    if (st == OK) recall_from_ranks(txt, NI, img, NT, out);
    for (int64_t i = 0; st == OK && txt_rank && i < NI; i++) txt_rank[i] = txt[i];
    for (int64_t t = 0; st == OK && img_rank && t < NT; t++) img_rank[t] = img[t];
    mem_free(txt, img);
    return st;
}

float recall_cosine(const float *I, const float *T, int64_t Q, int64_t Z) {
    float best = -2;                     /* below any cosine */
    for (int64_t q = 0; q < Q; q++) {
        double dot = 0;
        for (int64_t z = 0; z < Z; z++) dot += (double)I[q * Z + z] * (double)T[z];
        if ((float)dot > best) best = (float)dot;
    }
    return best;
}

/* ---- saying it --------------------------------------------------------------------------------------------------- */

void recall_print_head(void) {
    status_say("%-17s%29s   %29s", "", "image to text", "text to image");
    status_say("%-17s%7s%7s%7s%8s   %7s%7s%7s%8s", "", "R@1", "R@5", "R@10", "median", "R@1", "R@5", "R@10", "median");
}

void recall_print(const char *name, const Recall *r, bool ranks) {
    char txt[24] = "", img[24] = "";
    if (ranks) snprintf(txt, sizeof txt, "%.4g", r->txt_median);
    if (ranks) snprintf(img, sizeof img, "%.4g", r->img_median);
    status_say("%-17s%7.1f%7.1f%7.1f%8s   %7.1f%7.1f%7.1f%8s", name, r->txt_r1, r->txt_r5, r->txt_r10, txt, r->img_r1,
               r->img_r5, r->img_r10, img);
}

void recall_write(JsonWriter *w, const Recall *r, bool ranks) {
    double txt = (r->txt_r1 + r->txt_r5 + r->txt_r10) / 3, img = (r->img_r1 + r->img_r5 + r->img_r10) / 3;
    const struct { const char *key; double value; } all[] = {
        {"txt_r1", r->txt_r1}, {"txt_r5", r->txt_r5}, {"txt_r10", r->txt_r10}, {"txt_r_mean", txt},
        {"img_r1", r->img_r1}, {"img_r5", r->img_r5}, {"img_r10", r->img_r10}, {"img_r_mean", img},
        {"r_mean", 0.5 * (txt + img)}, {"agg_metrics", txt}, {"txt_median_rank", r->txt_median},
        {"txt_mean_rank", r->txt_mean}, {"img_median_rank", r->img_median}, {"img_mean_rank", r->img_mean}};
    for (size_t i = 0; i < sizeof all / sizeof *all - (ranks ? 0 : 4); i++) jw_num(w, all[i].key, all[i].value);
}
