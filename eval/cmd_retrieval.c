/* cmd_retrieval: recall of a model on a split, by cosine and re-ranked by matching; a table, retrieval.json and, a
 * line a query, retrieval.jsonl. */
#include <stdio.h>
#include <string.h>

#include "configs/commands.h"
#include "eval/evaluate.h"
#include "eval/rerank.h"
#include "eval/result.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

enum { SHOWN = 10 };                     /* places of a ranked list that are written */

static const struct { const char *key, *line; } rules[RANK_RULES] = {
    {"itc", "ITC (cosine)"}, {"itm", "ITM re-ranked"}, {"sum", "ITM + ITC"}};

typedef struct {
    Evaluation e;
    float *I, *T;
    Retrieval whole, folds;             /* folds.folds is 0 when not asked for */
    Rerank pairs;
    RankRule main;                      /* the ranking that is reported first */
    int32_t *itc_txt, *itc_img;         /* ranks by cosine, kept for the lists */
    double seconds, gflop_a_pair;       /* of re-ranking */
    int64_t shared;                     /* pairs of this rank */
} Work;

static void close_work(Work *w) {
    mem_free(w->I, w->T, w->itc_txt, w->itc_img);
    retrieval_close(&w->whole);
    retrieval_close(&w->folds);
    rerank_close(&w->pairs);
    evaluation_close(&w->e);
}

/* ---- computing --------------------------------------------------------------------------------------------------- */

static Status candidates(Work *w, const Options *o) {
    const EvalSet *s = &w->e.set;
    const Dims *d = &w->e.use.d;
    RecallFeatures f = {w->e.use.b, w->I, w->T, s->NI, s->NT, d->Q, d->Z};
    /* without re-ranking candidates are there to be written, no more */
    int64_t k = w->main == RANK_ITC ? SHOWN : o->retrieval.k;
    int folds = (int)o->retrieval.folds;
    Status st = retrieval_open(&w->whole, recall_feature_rows, &f, s->NI, s->NT, s->owner, k, 1);
    if (st == OK && folds > 1)
        st = retrieval_open(&w->folds, recall_feature_rows, &f, s->NI, s->NT, s->owner, k, folds);
    if (st != OK) return st;
    w->itc_txt = mem_new((size_t)s->NI, sizeof *w->itc_txt);
    w->itc_img = mem_new((size_t)s->NT, sizeof *w->itc_img);
    if (!w->itc_txt || !w->itc_img) return ERR_MEMORY;
    /* re-ranking writes over them */
    memcpy(w->itc_txt, w->whole.txt_rank, (size_t)s->NI * sizeof *w->itc_txt);
    memcpy(w->itc_img, w->whole.img_rank, (size_t)s->NT * sizeof *w->itc_img);
    return OK;
}

static Status rerank(Work *w) {
    const Retrieval *both[2] = {&w->whole, &w->folds};
    int n = w->folds.folds ? 2 : 1;
    Status st = dist_agree(rerank_of_candidates(&w->pairs, both, n));
    if (st != OK) return st;
    w->shared = rerank_share(&w->pairs);
    EvalProgress p = evaluation_progress(&w->e, "re-rank", "pairs", w->shared);
    /* features are made already: this is the cost of re-ranking alone */
    double start = status_clock();
    st = rerank_score(&w->pairs, &w->e.enc, &w->e.set, &p);
    w->seconds = status_clock() - start;
    if (st != OK) return st;
    /* more ranks than images: some have no pair */
    if (w->shared) w->gflop_a_pair = w->pairs.flops / 1e9 / (double)w->shared;
    evaluation_progress_end(&w->e, &p);
    Retrieval *r[2] = {&w->whole, &w->folds};
    for (int k = 0; k < n; k++) {
        static const RankRule twice[2][2] = {{RANK_SUM, RANK_ITM}, {RANK_ITM, RANK_SUM}}; /* the last one stays */
        rerank_fill(&w->pairs, r[k]);
        for (int j = 0; st == OK && j < 2; j++) st = retrieval_rank(r[k], twice[w->main == RANK_SUM][j]);
    }
    return st;
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

static void print_table(const Retrieval *r, RankRule main) {
    recall_print_head();
    recall_print("chance", &r->chance, false);
    for (int k = 0; k < RANK_RULES; k++)
        if (k == RANK_ITC || main != RANK_ITC) recall_print(rules[k].line, &r->recall[k], true);
}

static void print_all(const Work *w) {
    const EvalSet *s = &w->e.set;
    status_say("%s on %s (%s): %lld images, %lld texts", w->e.use.path, set_path(s->set), w->e.use.split,
               (long long)s->NI, (long long)s->NT);
    print_table(&w->whole, w->main);
    if (w->folds.folds) {
        status_say("mean of %d folds of %lld images:", w->folds.folds, (long long)(s->NI / w->folds.folds));
        print_table(&w->folds, w->main);
    }
    if (w->main != RANK_ITC)
        status_say("a true one is among the first %lld of %.1f %% of images, %.1f %% of texts; %lld pairs of %.3g "
                   "GFLOP, %.4g/s",
                   (long long)w->whole.k, w->whole.txt_covered, w->whole.img_covered, (long long)w->pairs.n,
                   w->gflop_a_pair, w->seconds > 0 ? (double)w->pairs.n / w->seconds : 0);
    int64_t without = 0;
    for (int64_t i = 0; i < s->NI; i++) without += set_ncaptions(s->set, s->image[i]) == 0;
    if (without) status_say("%lld images have no caption: they count as misses", (long long)without);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void write_rules(JsonWriter *w, const Retrieval *r, RankRule main) {
    for (int k = 0; k < RANK_RULES; k++) {
        if (k != RANK_ITC && main == RANK_ITC) continue;
        jw_object(w, rules[k].key);
        recall_write(w, &r->recall[k], true);
        jw_end(w);
    }
    jw_object(w, "chance");
    recall_write(w, &r->chance, false);
    jw_end(w);
}

static void write_summary(JsonWriter *j, const void *work) {
    const Work *w = work;
    const EvalSet *s = &w->e.set;
    jw_object(j, NULL);
    jw_str(j, "model", w->e.use.path);
    if (w->e.use.step >= 0) jw_int(j, "step", w->e.use.step);
    jw_str(j, "data", set_path(s->set));
    jw_str(j, "split", w->e.use.split);
    jw_int(j, "images", s->NI);
    jw_int(j, "texts", s->NT);
    jw_str(j, "rerank", w->main == RANK_ITC ? "none" : rules[w->main].key);
    recall_write(j, &w->whole.recall[w->main], true);
    write_rules(j, &w->whole, w->main);
    if (w->main != RANK_ITC) {
        jw_int(j, "k", w->whole.k);
        jw_int(j, "pairs", w->pairs.n);
        jw_num(j, "txt_covered", w->whole.txt_covered);
        jw_num(j, "img_covered", w->whole.img_covered);
        jw_num(j, "gflop_per_pair", w->gflop_a_pair);
        jw_num(j, "pairs_per_s", w->seconds > 0 ? (double)w->pairs.n / w->seconds : 0);
    }
    if (w->folds.folds) {
        jw_object(j, "folds");
        jw_int(j, "folds", w->folds.folds);
        recall_write(j, &w->folds.recall[w->main], true);
        write_rules(j, &w->folds, w->main);
        jw_end(j);
    }
    jw_end(j);
}

static void write_text(JsonWriter *j, const EvalSet *s, int64_t t) {
    size_t n;
    const char *caption = set_caption(s->set, s->image[s->owner[t]], s->caption[t], &n);
    jw_int(j, "text", t);
    jw_strn(j, "caption", caption, n);
}

static void write_rank(JsonWriter *j, const char *key, int32_t rank) {
    if (rank == INT32_MAX) jw_null(j, key);                  /* an image without a text */
    else jw_int(j, key, rank);
}

/* One query: where its true one came (from 0), and the first places. own: the image the hits must show. */
static void write_query(JsonWriter *j, const Work *w, const TopK *list, int64_t row, bool texts, int32_t rank,
                        int32_t itc_rank, int32_t own) {
    const EvalSet *s = &w->e.set;
    const Hit *h = topk_row(list, row);
    write_rank(j, "rank", rank);
    write_rank(j, "itc_rank", itc_rank);
    jw_array(j, "top");
    for (int32_t k = 0; k < list->n[row] && k < SHOWN; k++) {
        int32_t image = texts ? s->owner[h[k].index] : h[k].index;
        jw_object(j, NULL);
        if (texts) write_text(j, s, h[k].index);
        else jw_str(j, "image", set_image_id(s->set, s->image[image]));
        jw_bool(j, "true", image == own);                    /* any caption of the image is a true one */
        jw_num(j, "score", hit_score(&h[k], w->main));
        jw_num(j, "itc", h[k].itc);
        if (w->main != RANK_ITC) jw_num(j, "itm", h[k].itm);
        jw_end(j);
    }
    jw_end(j);
    jw_end(j);
}

static void write_lists(JsonWriter *j, const void *work) {
    const Work *w = work;
    const EvalSet *s = &w->e.set;
    const Retrieval *r = &w->whole;
    for (int64_t i = 0; i < s->NI; i++) {
        jw_object(j, NULL);
        jw_str(j, "query", "image");
        jw_str(j, "image", set_image_id(s->set, s->image[i]));
        write_query(j, w, &r->i2t, i, true, r->txt_rank[i], w->itc_txt[i], (int32_t)i);
    }
    for (int64_t t = 0; t < s->NT; t++) {
        jw_object(j, NULL);
        jw_str(j, "query", "text");
        write_text(j, s, t);
        jw_str(j, "image", set_image_id(s->set, s->image[s->owner[t]]));
        write_query(j, w, &r->t2i, t, false, r->img_rank[t], w->itc_img[t], s->owner[t]);
    }
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void describe(const Work *w, const Options *o) {
    const EvalSet *s = &w->e.set;
    const Dims *d = &w->e.use.d;
    double features = (double)(s->NI * d->Q + s->NT) * (double)d->Z * sizeof(float) / (1 << 20);
    /* of k asked for there may be fewer */
    int64_t k = o->retrieval.k, kt = k < s->NT ? k : s->NT, ki = k < s->NI ? k : s->NI;
    options_print(o, stdout);
    status_say("%lld images and %lld texts: %.1f MiB of features in memory", (long long)s->NI, (long long)s->NT,
               features);
    if (w->main != RANK_ITC) status_say("at most %lld pairs to re-rank", (long long)(s->NI * kt + s->NT * ki));
}

Status cmd_retrieval(const Options *o) {
    static const RankRule chosen[] = {RANK_SUM, RANK_ITM, RANK_ITC};       /* ORDER retrieval.rerank */
    Work w = {.main = chosen[o->retrieval.rerank.i]};
    EvaluationSpec spec = {.split = true, .result = "retrieval.json", .beside = "l",
                           .tokens = (int)o->retrieval.max_tokens};
    Status st = evaluation_open(&w.e, o, &spec);
    if (st != OK) return st;
    if (o->run.dry_run) {
        if (w.e.speaks) describe(&w, o);
        goto done;
    }
    if (w.e.set.NT == 0) {
        st = err_set(ERR_USAGE, "%s: none of the %lld images of split %s has a caption: there is nothing to retrieve",
                     set_path(w.e.set.set), (long long)w.e.set.NI, w.e.use.split);
        goto done;
    }
    if ((st = evaluation_features(&w.e, &w.I, &w.T))) goto done;
    if ((st = dist_agree(candidates(&w, o)))) goto done;
    if (w.main != RANK_ITC && (st = rerank(&w))) goto done;  /* every rank: pairs are shared out */
    if (w.e.speaks) {
        print_all(&w);
        st = result_write_both(o, "retrieval.json", write_summary, write_lists, "a query", &w);
    }
    st = dist_agree(st);
done:
    close_work(&w);
    return st;
}
