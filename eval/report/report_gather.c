/* report_gather: what the page is made of, as far as it lies in files; the model and its data opened; see report.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "data/format/outfile.h"
#include "eval/report/report.h"
#include "eval/result.h"
#include "kernels/base/mem.h"
#include "kernels/base/signals.h"

/* ---- files of a run ---------------------------------------------------------------------------------------------- */

/* `in` is a run's folder, or a step directory or a file in it. */
static char *folder_of(const char *in) {
    struct stat about;
    size_t n = strlen(in);
    while (n > 1 && in[n - 1] == '/') n--;
    bool there = stat(in, &about) == 0;
    char *path = mem_format("%.*s", (int)n, in);
    if (!path || !there || (S_ISDIR(about.st_mode) && ckpt_step_of(path) < 0)) return path;
    char *slash = strrchr(path, '/');
    if (slash) *(slash == path ? slash + 1 : slash) = 0;
    else strcpy(path, ".");
    return path;
}

static Status choose_files(Report *r) {
    Status st = result_claim(r->o, "report.html", NULL);
    if (st == OK) st = result_path(r->o, "report.html", &r->page);
    if (st == OK && !r->page && !(r->page = mem_format("%s/report.html", r->run))) st = ERR_MEMORY;
    if (st != OK) return st;
    r->json = mem_format("%.*s.json", (int)(strrchr(r->page, '.') - r->page), r->page);     /* two pages in one folder */
    if (!r->json) return ERR_MEMORY;
    st = outfile_claim(r->page, r->o->run.overwrite);
    return st == OK ? outfile_claim(r->json, r->o->run.overwrite) : st;
}

static bool exists(const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    bool there = path && access(path, R_OK) == 0;
    free(path);
    return there;
}

static Status read_log(RunLog *l, const char *folder) {
    char *path = mem_format("%s/log.jsonl", folder);
    Status st = !path ? ERR_MEMORY : access(path, F_OK) ? OK : runlog_read(l, path);
    free(path);
    return st;
}

static Status read_run(Report *r) {
    Status st = read_log(&r->log, r->run);
    if (st != OK) return st;
    runlog_sums(&r->log, &r->sums);
    if (r->log.starts) r->config = mem_strdup(r->log.start[r->log.starts - 1].config);
    if (r->config &&
        options_parse_text(&r->trained, "pretrain", r->config, strlen(r->config), "the run's configuration") != OK) {
        report_note(r, false, "the run's configuration cannot be read: %s", err_message());
        err_clear();
    }
    return OK;
}

/* ---- recall ------------------------------------------------------------------------------------------------------ */

static void add_recall(Report *r, const Recall *c, bool chance, bool before, const char *name) {
    if (r->lines == REPORT_ROWS) return;
    RecallLine *l = &r->line[r->lines];
    *l = (RecallLine){.name = before ? mem_format("earlier run: %s", name) : mem_strdup(name),
                      .r = *c,
                      .chance = chance,
                      .before = before};
    r->lines += l->name != NULL;
}

static bool recall_of(const Json *o, Recall *c) {
    const struct {
        const char *key;
        double *to;
    } all[] = {{"txt_r1", &c->txt_r1}, {"txt_r5", &c->txt_r5}, {"txt_r10", &c->txt_r10}, {"img_r1", &c->img_r1},
               {"img_r5", &c->img_r5}, {"img_r10", &c->img_r10}, {"txt_median_rank", &c->txt_median},
               {"img_median_rank", &c->img_median}};
    *c = (Recall){.txt_median = NAN, .img_median = NAN};
    bool there = true;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        there = (json_num(json_get(o, all[i].key), all[i].to) || i >= 6) && there;
    return there;
}

/* The lines of a retrieval.json (or of a report.json of ours, which has the same keys). */
static int add_file(Report *r, const Json *doc, bool before) {
    static const struct { const char *key, *name; } rules[] = {
        {"chance", "chance"}, {"itc", "ITC (cosine)"}, {"itm", "re-ranked by ITM"}, {"sum", "re-ranked by ITM + ITC"}};
    int n = 0;
    for (size_t i = before ? 1 : 0; i < sizeof rules / sizeof *rules; i++) {
        Recall c;
        if (!recall_of(json_get(doc, rules[i].key), &c)) continue;
        add_recall(r, &c, i == 0, before, rules[i].name);
        n++;
    }
    return n;
}

static void gather_before(Report *r) {
    if (!r->before) return;
    if (read_log(&r->old_log, r->before) != OK) {
        report_note(r, false, "the earlier run: %s", err_message());
        err_clear();
    }
    Json *found = report_result(r, r->before, "retrieval.json"),
         *page = found ? NULL : report_result(r, r->before, "report.json");
    int n = add_file(r, found ? found : json_get(page, "recall"), true);
    if (!n && !r->old_log.lines)
        report_note(r, false,
                    "%s has neither retrieval.json nor report.json nor log.jsonl: there is nothing to compare with",
                    r->before);
    else if (!n)
        report_note(r, false, "%s has neither retrieval.json nor report.json: only its curves are compared", r->before);
    json_free(found);
    json_free(page);
}

/* By cosine, over what is looked at here. */
static Status retrieve(Report *r) {
    const EvalSet *s = &r->e.set;
    const Dims *d = &r->e.use.d;
    Status st = evaluation_features(&r->e, &r->I, &r->T);
    RecallFeatures f = {r->e.use.b, r->I, r->T, s->NI, s->NT, d->Q, d->Z};
    if (st == OK) st = retrieval_open(&r->found, recall_feature_rows, &f, s->NI, s->NT, s->owner, GALLERY_TOP, 1);
    r->retrieved = st == OK;
    return st;
}

static Status gather_recall(Report *r) {
    Json *doc = report_result(r, r->run, "retrieval.json");
    char *lists = mem_format("%s/retrieval.jsonl", r->run);
    Status st = lists ? OK : ERR_MEMORY;
    r->recall_step = -1;
    if (doc && add_file(r, doc, false)) {
        const char *split = json_str(json_get(doc, "split"), NULL), *data = json_str(json_get(doc, "data"), NULL);
        int64_t images = 0, texts = 0;
        json_int(json_get(doc, "step"), &r->recall_step);
        json_int(json_get(doc, "images"), &images);
        json_int(json_get(doc, "texts"), &texts);
        r->recall_from = mem_format("Over all %lld images and %lld captions of split %s of %s, by qformer retrieval.",
                                    (long long)images, (long long)texts, split ? split : "?", data ? data : "?");
        if (exists(r->run, "retrieval.jsonl")) {
            r->gallery_ranked = gallery_from_file(&r->gallery, lists, r->model ? r->e.use.set : NULL) == OK;
            if (!r->gallery_ranked) report_note(r, false, "the ranked lists cannot be shown: %s", err_message());
            err_clear();
        }
    }
    if (st == OK && r->model && r->e.set.NT && !r->e.use.d.W) st = retrieve(r);
    if (st == OK && r->retrieved && !r->recall_from) {
        add_recall(r, &r->found.chance, true, false, "chance");
        add_recall(r, &r->found.recall[RANK_ITC], false, false, "ITC (cosine)");
        r->recall_from = mem_format("Over %s%lld images and %lld captions of split %s of %s, computed for this page.",
                                    r->e.set.NI < r->split_images ? "the first " : "", (long long)r->e.set.NI,
                                    (long long)r->e.set.NT, r->e.use.split, set_path(r->e.set.set));
    }
    if (st == OK && r->retrieved && !r->gallery_ranked) st = gallery_from_retrieval(&r->gallery, &r->found, &r->e.set);
    json_free(doc);
    free(lists);
    return st;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

/* The model and at most report.limit images of the split. What the user named himself must be there. */
static Status open_model(Report *r) {
    const Options *o = r->o;
    bool named = options_is_set(o, "data.test") && *o->data.test;
    EvaluationSpec spec = {.data = USE_DATA, .any = true};
    int64_t *all = NULL;
    Status st = evaluation_open(&r->e, o, &spec);
    bool opened = st == OK;
    if (st == OK) st = set_select(r->e.use.set, r->e.use.split, &all, &r->split_images);
    free(all);
    if (st == OK)
        st = evalset_open(&r->e.set, r->e.use.set, r->e.use.split, o->report.limit, &r->e.use.text);
    r->model = st == OK;
    if (st == OK) {
        uint64_t seeds[3] = {(uint64_t)o->run.seed, 42, r->trained ? (uint64_t)r->trained->run.seed : 42};
        scenes_open(&r->scenes, r->e.use.set, seeds, 3);
        thumbs_open(&r->thumbs, r->e.use.set, o->report.images, &r->scenes);
        return OK;
    }
    if (named || st == ERR_MEMORY || st == ERR_INTERRUPTED) return st;
    report_excuse(&r->no_model);
    if (opened) evaluation_close(&r->e);
    return OK;
}

Status report_open(Report *r, const Options *o) {
    *r = (Report){.o = o};
    Status st = options_require(o, "in");
    if (st != OK) return st;
    r->run = folder_of(o->run.in);
    if (*o->report.before) r->before = folder_of(o->report.before);
    if (!r->run || (*o->report.before && !r->before)) return ERR_MEMORY;
    if ((st = choose_files(r))) return st;
    if (r->before && access(r->before, R_OK))
        return err_set(ERR_USAGE, "report.before=%s: there is no such folder", r->before);
    if ((st = read_run(r)) || (st = open_model(r))) return st;
    if (!r->model && !r->log.lines && !r->log.starts && !exists(r->run, "retrieval.json"))
        return err_set(ERR_USAGE, "%s is no run: it has neither log.jsonl nor retrieval.json, and no model: %s", r->run,
                       r->no_model ? r->no_model : "");
    if (o->run.dry_run) return OK;
    if ((st = gather_recall(r))) return st;
    gather_before(r);
    report_heat(r);
    if ((st = report_answers(r))) return st;
    if ((st = report_captions(r))) return st;
    return report_attention(r);
}

void report_close(Report *r) {
    for (int i = 0; i < r->lines; i++) free(r->line[i].name);
    for (int i = 0; i < r->scores; i++) free(r->score[i].name);
    for (int i = 0; i < r->notes; i++) free(r->note[i].text);
    for (int64_t i = 0; i < r->captions; i++) free(r->caption[i]);
    free(r->caption);
    for (int64_t i = 0; i < r->answers; i++) free(r->answered[i].text), free(r->answered[i].gaze);
    free(r->answered);
    free(r->no_answers);
    quiz_close(&r->quiz);
    free(r->claims);
    free(r->judged);
    free(r->I);
    free(r->T);
    free(r->run);
    free(r->before);
    free(r->page);
    free(r->json);
    free(r->config);
    free(r->no_model);
    free(r->no_captions);
    free(r->no_attention);
    free(r->recall_from);
    gallery_close(&r->gallery);
    retrieval_close(&r->found);
    attention_close(&r->attention);
    thumbs_close(&r->thumbs);
    scenes_close(&r->scenes);
    runlog_close(&r->log);
    runlog_close(&r->old_log);
    options_free(r->trained);
    evaluation_close(&r->e);
    *r = (Report){0};
}
