/* cmd_caption: captions of a split from the stage-1 decoder: captions.json in COCO's result format, the references
 * in COCO's form when asked for, some of both on the terminal, and their scores where every image has references. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/commands.h"
#include "data/format/outfile.h"
#include "eval/caption.h"
#include "eval/evaluate.h"
#include "eval/generate.h"
#include "eval/metrics/score.h"
#include "eval/result.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

enum { SHOWN = 5 };                     /* captions on the terminal */

typedef struct {
    Evaluation e;
    const Options *o;
    SearchSpec search;
    Captions captions;
    int64_t *ids;
    double seconds;
} Work;

/* A table when out is x.csv, else COCO's form. */
static const char *captions_name(const Options *o) {
    return result_ends_like(o->run.out, ".csv") ? "captions.csv" : "captions.json";
}

static Status open_work(Work *w, const Options *o) {
    *w = (Work){.o = o};
    if (o->caption.min_length > o->caption.max_length)
        return err_set(ERR_USAGE, "caption.min_length=%lld is above caption.max_length=%lld",
                       (long long)o->caption.min_length, (long long)o->caption.max_length);
    const char *references = o->caption.references;
    Status st = dist_agree(dist_rank() == 0 && *references ? outfile_claim(references, o->run.overwrite) : OK);
    if (st == OK)
        st = evaluation_open(&w->e, o, &(EvaluationSpec){.writes = true, .split = true, .limit = o->caption.limit,
                                                         .result = captions_name(o), .beside = "scores.json"});
    if (st == OK) caption_search(&w->search, o, &w->e.use);
    return st;
}

static void close_work(Work *w) {
    captions_free(&w->captions);
    free(w->ids);
    evaluation_close(&w->e);
}

static void describe_search(const SearchSpec *s, char *text, size_t n) {
    if (s->mode == SEARCH_BEAM)
        snprintf(text, n, "%d beams, length penalty %g%s", s->beams, s->length_penalty,
                 s->early_stopping ? ", stopping early" : "");
    else if (s->mode == SEARCH_GREEDY) snprintf(text, n, "greedy");
    else
        snprintf(text, n, "sampled, temperature %g, top_k %d, top_p %g, seed %llu", s->temperature, s->top_k, s->top_p,
                 (unsigned long long)s->seed);
}

static Status describe(Work *w) {
    Generator g;
    GenerateSpec spec = {.search = w->search, .images = w->e.batch, .features = set_dtype(w->e.set.set)};
    options_print(w->o, stdout);
    if (w->e.use.d.W) return OK;
    Status st = generate_open(&g, w->e.use.b, &w->e.use.model, &spec);
    if (st != OK) return st;
    status_say("%lld images, %d at a time: %.1f MiB of cached keys and values, %.1f MiB for a step",
               (long long)w->e.set.NI, w->e.batch, (double)g.f.fixed.size / (1 << 20),
               (double)g.f.mem.size / (1 << 20));
    generate_close(&g);
    return OK;
}

/* ---- making them ------------------------------------------------------------------------------------------------ */

static Status make(Work *w) {
    EvalProgress p = evaluation_progress(&w->e, "caption", "images", captions_share(w->e.set.NI));
    double start = status_clock();
    Status st = captions_make(&w->captions, &w->e.use, &w->e.set, &w->search, w->e.batch, &p);
    w->seconds = status_clock() - start;
    if (st == OK) evaluation_progress_end(&w->e, &p);
    return st;
}

/* ---- showing them ----------------------------------------------------------------------------------------------- */

static void show_one(const Work *w, int64_t i) {
    const EvalSet *e = &w->e.set;
    int64_t n = set_ncaptions(e->set, e->image[i]);
    status_say("  %s", set_image_id(e->set, e->image[i]));
    status_say("    caption    %s", w->captions.text[i]);
    for (int64_t k = 0; k < n && k < 2; k++) {               /* two tell how people put it */
        size_t len;
        const char *text = set_caption(e->set, e->image[i], k, &len);
        status_say("    %s  %.*s", k ? "         " : "reference", (int)len, text);
    }
}

static void show(const Work *w) {
    const Captions *c = &w->captions;
    char how[160];
    int64_t tokens = 0, cut = 0, shown = c->n < SHOWN ? c->n : SHOWN;
    /* [DEC] is nobody's word piece */
    for (int64_t i = 0; i < c->n; i++) tokens += c->end[i].len - 1, cut += !c->end[i].ended;
    describe_search(&w->search, how, sizeof how);
    status_say("%s on %s (%s): %lld images, %s", w->e.use.path, set_path(w->e.set.set), w->e.use.split,
               (long long)c->n, how);
    for (int64_t k = 0; k < shown; k++) show_one(w, k * c->n / shown);
    status_say("%.1f word pieces a caption, %lld of %lld cut at %d; %.4g captions/s, %.4g decoder rows/s%s",
               c->n ? (double)tokens / (double)c->n : 0, (long long)cut, (long long)c->n, c->max_length - 1,
               (double)captions_share(c->n) / w->seconds, (double)c->rows / w->seconds,
               dist_size() > 1 ? " on this rank" : "");
}

/* ---- writing and scoring ---------------------------------------------------------------------------------------- */

static Status put(const char *path, const char *text, size_t n) {
    Status st = outfile_parents(path);
    if (st == OK) st = outfile_put(path, text, n);
    if (st == OK) status_say("%s", path);
    return st;
}

static Status score(const Work *w, const char *gt, size_t ngt, const char *res, size_t nres) {
    Coco coco;
    Scores s;
    /* as files would be read, so that `score` gives the same figures */
    Status st = coco_parse(&coco, gt, ngt, "the references", res, nres, "the captions");
    if (st == OK) st = score_coco(&coco, NULL, &s);
    if (st != OK) return st;
    score_print(&s, stdout);
    /* out=FILE named the captions' file: scores lie beside it only in a folder */
    if (!result_ends_like(w->o->run.out, captions_name(w->o))) st = result_write(w->o, "scores.json", score_json, &s);
    score_free(&s);
    return st;
}

static Status put_captions(const Work *w, const char *path, const char *json, size_t njson) {
    char *csv = NULL;
    size_t n = 0;
    if (!strstr(captions_name(w->o), ".csv")) return put(path, json, njson);
    Status st = captions_csv(&w->captions, &w->e.set, &csv, &n);
    if (st == OK) st = put(path, csv, n);
    free(csv);
    return st;
}

static int64_t without_references(const EvalSet *e) {
    int64_t n = 0;
    for (int64_t i = 0; i < e->NI; i++) n += set_ncaptions(e->set, e->image[i]) == 0;
    return n;
}

static Status finish(Work *w) {
    char *path = NULL, *res = NULL, *gt = NULL;
    size_t nres = 0, ngt = 0;
    const char *references = w->o->caption.references;
    /* asked before anything is scored: a mean over some would look like one over all */
    int64_t without = without_references(&w->e.set);
    show(w);
    Status st = caption_ids(&w->e.set, &w->ids);
    if (st == OK) st = captions_json(&w->captions, &w->e.set, w->ids, &res, &nres);
    if (st == OK) st = references_json(&w->e.set, w->ids, &gt, &ngt);
    if (st == OK) st = result_path(w->o, captions_name(w->o), &path);
    if (st == OK && path) st = put_captions(w, path, res, nres);
    if (st == OK && *references) st = put(references, gt, ngt);
    /* the metrics want a reference for every image */
    if (st == OK && w->e.set.NI && !without) st = score(w, gt, ngt, res, nres);
    else if (st == OK && without)
        status_say("not scored: %lld of %lld images have no reference", (long long)without, (long long)w->e.set.NI);
    mem_free(path, res, gt);
    return st;
}

Status cmd_caption(const Options *o) {
    Work w;
    Status st = open_work(&w, o);
    bool speaks = w.e.speaks;
    if (st == OK && o->run.dry_run) st = speaks ? describe(&w) : OK;
    else if (st == OK) {
        st = make(&w);
        if (st == OK && speaks) st = finish(&w);
        st = dist_agree(st);             /* the others wait for who writes: a full disk is everybody's failure */
    }
    close_work(&w);
    return st;
}
