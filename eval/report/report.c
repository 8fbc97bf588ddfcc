/* report: see report.h. The run opened, its parts gathered in order, and the page around their sections, which come in
 * the order of what a reader wants to know: what came out, what should worry him, how it got there, how fast, and with
 * what settings. */
#include "eval/report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "checkpoints/checkpoint.h"
#include "data/format/outfile.h"
#include "data/format/path.h"
#include "eval/report/html.h"
#include "eval/result.h"
#include "kernels/base/mem.h"

/* ---- files of a run ---------------------------------------------------------------------------------------------- */

/* `in` is a run's folder, or a step directory or a file in it. */
static char *folder_of(const char *in) {
    struct stat about;
    size_t n = strlen(in);
    while (n > 1 && in[n - 1] == '/') n--;
    bool there = stat(in, &about) == 0;
    char *path = mem_format("%.*s", (int)n, in);
    /* a step's directory lies in the run's folder */
    if (!path || !there || (S_ISDIR(about.st_mode) && ckpt_step_of(path) < 0)) return path;
    char *folder = path_folder(path);
    free(path);
    return folder;
}

static Status choose_files(Report *r) {
    Status st = result_claim(r->o, "report.html", NULL);
    if (st == OK) st = result_path(r->o, "report.html", &r->page);
    if (st == OK && !r->page && !(r->page = mem_format("%s/report.html", r->run.folder))) st = ERR_MEMORY;
    if (st != OK) return st;
    /* named after the page: there may be two of them in one folder */
    r->json = mem_format("%.*s.json", (int)(strrchr(r->page, '.') - r->page), r->page);
    if (!r->json) return ERR_MEMORY;
    st = outfile_claim(r->page, r->o->run.overwrite);
    return st == OK ? outfile_claim(r->json, r->o->run.overwrite) : st;
}

static Status read_log(RunLog *l, const char *folder) {
    char *path = mem_format("%s/log.jsonl", folder);
    Status st = !path ? ERR_MEMORY : access(path, F_OK) ? OK : runlog_read(l, path);  /* no log is no error */
    free(path);
    return st;
}

static Status read_run(Report *r) {
    ReportRun *x = &r->run;
    Status st = read_log(&x->log, x->folder);
    if (st != OK) return st;
    runlog_sums(&x->log, &x->sums);
    /* the last session's: a run that was resumed may have been given other options */
    if (x->log.starts) x->config = mem_strdup(x->log.start[x->log.starts - 1].config);
    if (x->config &&
        options_parse_text(&x->trained, "pretrain", x->config, strlen(x->config), "the run's configuration") != OK)
        report_note_error(r, "the run's configuration cannot be read: ");
    return OK;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* The model and at most report.limit images of the split. What the user named himself must be there. */
static Status open_model(Report *r) {
    const Options *o = r->o;
    bool named = options_is_set(o, "data.test") && *o->data.test;
    EvaluationSpec spec = {.any = true};
    int64_t *all = NULL;                                     /* only counted: how many the split has */
    Status st = evaluation_open(&r->e, o, &spec);
    bool opened = st == OK;
    if (st == OK) st = set_select(r->e.use.set, r->e.use.split, &all, &r->split_images);
    free(all);
    if (st == OK)
        st = evalset_open(&r->e.set, r->e.use.set, r->e.use.split, o->report.limit, &r->e.use.text);
    r->model = st == OK;
    r->speaks = r->model && r->e.use.d.W;
    if (st == OK) {
        uint64_t seeds[3] = {(uint64_t)o->run.seed, 42, r->run.trained ? (uint64_t)r->run.trained->run.seed : 42};
        scenes_open(&r->scenes, r->e.use.set, seeds, 3);
        thumbs_open(&r->thumbs, r->e.use.set, o->report.images, &r->scenes);
        return OK;
    }
    /* who names the data means them; a guess that fails is a sentence on the page */
    if (named || st == ERR_MEMORY || st == ERR_INTERRUPTED) return st;
    report_excuse(&r->no_model);
    if (opened) evaluation_close(&r->e);                     /* what could not be opened is closed already */
    return OK;
}

Status report_open(Report *r, const Options *o) {
    *r = (Report){.o = o};
    Status st = options_require(o, "in");
    if (st != OK) return st;
    r->run.folder = folder_of(o->run.in);
    /* either may be named by a step of it */
    if (*o->report.before) r->run.before = folder_of(o->report.before);
    if (!r->run.folder || (*o->report.before && !r->run.before)) return ERR_MEMORY;
    if ((st = choose_files(r))) return st;
    if (r->run.before && access(r->run.before, R_OK))
        return err_set(ERR_USAGE, "report.before=%s: there is no such folder", r->run.before);
    /* the log first: it knows what scenes were drawn with */
    if ((st = read_run(r)) || (st = open_model(r))) return st;
    if (!r->model && !r->run.log.lines && !r->run.log.starts && !report_has(r->run.folder, "retrieval.json"))
        return err_set(ERR_USAGE, "%s is no run: it has neither log.jsonl nor retrieval.json, and no model: %s",
                       r->run.folder, r->no_model ? r->no_model : "");
    if (o->run.dry_run) return OK;
    if (r->run.before && read_log(&r->run.old, r->run.before) != OK) report_note_error(r, "the earlier run: ");
    if ((st = report_recall(r))) return st;
    if ((st = report_answers(r))) return st;                 /* before captions, which it makes too */
    if ((st = report_captions(r))) return st;
    return report_attention(r);
}

void report_close(Report *r) {
    for (int i = 0; i < r->recall.lines; i++) free(r->recall.line[i].name);
    for (int i = 0; i < r->captions.scores; i++) free(r->captions.score[i].name);
    for (int i = 0; i < r->notes; i++) free(r->note[i].text);
    mem_free_list(r->captions.text, (size_t)r->captions.n);
    for (int64_t i = 0; i < r->answers.n; i++) free(r->answers.given[i].text), free(r->answers.given[i].gaze);
    mem_free(r->answers.given, r->answers.none);
    quiz_close(&r->answers.quiz);
    for (int i = 0; i < 3; i++) tally_free(&r->answers.tally[i]);
    mem_free(r->answers.floor, r->captions.claims, r->captions.judged, r->recall.I, r->recall.T, r->run.folder,
             r->run.before, r->page, r->json, r->run.config, r->no_model, r->captions.none, r->attention.none,
             r->recall.from);
    gallery_close(&r->recall.gallery);
    retrieval_close(&r->recall.found);
    attention_close(&r->attention.maps);
    thumbs_close(&r->thumbs);
    scenes_close(&r->scenes);
    runlog_close(&r->run.log);
    runlog_close(&r->run.old);
    options_free(r->run.trained);
    evaluation_close(&r->e);
    *r = (Report){0};
}

/* ---- top --------------------------------------------------------------------------------------------------------- */

static void tile(FILE *f, const char *what, const char *value, const char *unit, const char *more) {
    html(f, "<li><span class=\"what\">%s</span><b>%s", what, value);
    if (*unit) html(f, "<small>%s</small>", unit);
    html(f, "</b><span>%s</span></li>\n", more);
}

static void percent_tile(FILE *f, const char *what, double v, const char *more) {
    char s[HTML_NUMBER];
    snprintf(s, sizeof s, "%.1f", v);
    tile(f, what, s, "%", more);
}

static void recall_tiles(const Report *r, FILE *f) {
    RecallBest b = report_recall_best(r);
    char more[96] = "";
    if (!b.main) return;                                     /* of stage 2, or without a test set */
    if (b.chance)
        snprintf(more, sizeof more, "guessing: %.2g %%; first 10: %.1f %%", b.chance->r.txt_r1, b.main->r.txt_r10);
    percent_tile(f, "Right text first", b.main->r.txt_r1, more);
    if (b.chance)
        snprintf(more, sizeof more, "guessing: %.2g %%; first 10: %.1f %%", b.chance->r.img_r1, b.main->r.img_r10);
    percent_tile(f, "Right image first", b.main->r.img_r1, more);
}

static void answers_tile(const Report *r, FILE *f) {
    char more[96];
    if (!r->answers.n) return;
    snprintf(more, sizeof more, "without the picture: %.1f %%; read in words: %.1f %%",
             tally_share(&r->answers.tally[QUIZ_BLIND].all), tally_share(&r->answers.tally[QUIZ_WORDS].all));
    percent_tile(f, "Answers right", tally_share(&r->answers.tally[QUIZ_PICTURE].all), more);
}

static void run_tiles(const ReportRun *r, FILE *f) {
    char v[HTML_NUMBER], more[128] = "", t[HTML_NUMBER];
    double loss = runlog_last(&r->log, RL_loss);
    for (int64_t i = 0; i < r->log.lines && !*more; i++)
        if (isfinite(r->log.line[i].v[RL_loss]))
            snprintf(more, sizeof more, "%.3g at the start", r->log.line[i].v[RL_loss]);
    snprintf(v, sizeof v, "%.3g", loss);
    if (isfinite(loss)) tile(f, "Training loss", v, "", more);
    snprintf(more, sizeof more, "%s pairs seen", html_short(r->sums.pairs, t));
    tile(f, "Steps", html_count(r->sums.steps, v), "", more);
    status_time(r->sums.wall_s, t, sizeof t);
    if (isfinite(r->sums.pairs_per_s))
        snprintf(more, sizeof more, "%s pairs a second", html_short(round(r->sums.pairs_per_s), v));
    tile(f, "Wall time", t, "", more);
}

static void tiles(const Report *r, FILE *f) {
    const SynthClaims *c = &r->captions.sum;
    char more[128];
    html(f, "<ul class=\"tiles\">\n");
    recall_tiles(r, f);
    answers_tile(r, f);
    if (c->pairs) {
        snprintf(more, sizeof more, "of %d that captions name are there", c->pairs);
        percent_tile(f, "Coloured shapes", 100.0 * c->pairs_true / c->pairs, more);
    }
    if (r->run.log.lines) run_tiles(&r->run, f);
    html(f, "</ul>\n");
}

static void notes(const Report *r, FILE *f) {
    if (!r->notes) return;
    html(f, "<ul class=\"notes\" id=\"notes\">\n");
    for (int grave = 1; grave >= 0; grave--)                 /* warnings first */
        for (int i = 0; i < r->notes; i++)
            if (r->note[i].grave == grave)
                html(f, "<li class=\"%s\"><b>%s</b> %s</li>\n", grave ? "grave" : "plain", grave ? "Warning." : "Note.",
                     r->note[i].text);
    html(f, "</ul>\n");
}

/* In the order of the page. Of stage 2 nothing is retrieved, of stage 1 nothing answered. */
typedef enum { BOTH, FIRST, SECOND } Stage;
static const struct { const char *id, *name, *title; Stage of; ReportSection *write; } sections[] = {
    {"training", "Training", "Training", BOTH, report_section_training},
    {"recall", "Recall", "Recall", FIRST, report_section_recall},
    {"gallery", "Examples", "Examples", FIRST, report_section_gallery},
    {"answers", "Answers", "Answers", SECOND, report_section_answers},
    {"captions", "Captions", "Captions", BOTH, report_section_captions},
    {"attention", "Attention", "Attention", BOTH, report_section_attention},
    {"batch", "A batch", "Similarity in a batch", FIRST, report_section_batch},
    {"speed", "Speed", "Speed", BOTH, report_section_speed},
    {"about", "Settings", "Settings", BOTH, report_section_about}};
enum { SECTIONS = sizeof sections / sizeof *sections };

static bool has_section(const Report *r, int i) { return sections[i].of != (r->speaks ? FIRST : SECOND); }

static void navigation(const Report *r, FILE *f) {
    html(f, "<nav aria-label=\"Sections\"><ul>");
    for (int i = 0; i < SECTIONS; i++)
        if (has_section(r, i)) html(f, "<li><a href=\"#%s\">%s</a></li>", sections[i].id, sections[i].name);
    html(f, "</ul></nav>\n</header>\n<main>\n");
}

static void head(const Report *r, FILE *f) {
    html(f,
         "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\"/>\n"
         "<meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n<title>qformer: "
         "%s</title>\n<style>\n",
         path_base(r->run.folder));
    fputs(report_style, f);
    html(f, "</style></head>\n<body>\n<header>\n<p class=\"over\">qformer report</p>\n<h1>%s</h1>\n",
         path_base(r->run.folder));
    html(f, "<p class=\"lead\">");
    if (r->model) {
        char a[HTML_NUMBER], b[HTML_NUMBER];
        if (r->e.use.step >= 0) html(f, "Checkpoint of step %s. ", html_count(r->e.use.step, a));
        html(f, "Looked at with %s images and %s texts of split %s of %s.", html_count(r->e.set.NI, a),
             html_count(r->e.set.NT, b), r->e.use.split, set_path(r->e.use.set));
    } else {
        html(f, "From the files of the run alone.");
    }
    html(f, "</p>\n");
    tiles(r, f);
    notes(r, f);
    navigation(r, f);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

Status report_page(Report *r, FILE *f) {
    char when[40] = "";
    time_t now = time(NULL);
    struct tm tm;
    head(r, f);
    for (int i = 0; i < SECTIONS; i++) {
        if (!has_section(r, i)) continue;
        html(f, "<section id=\"%s\"><h2>%s</h2>\n", sections[i].id, sections[i].title);
        sections[i].write(r, f);
        html(f, "</section>\n");
    }
    if (gmtime_r(&now, &tm)) strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &tm);
    html(f,
         "</main>\n<footer>Made by qformer report on %s. Everything is in this file: it fetches nothing and runs no "
         "script.</footer>\n",
         when);
    thumbs_write(f, &r->thumbs);                             /* last: now it is known which are shown */
    html(f, "</body></html>\n");
    return ferror(f) ? err_set(ERR_IO, "the page could not be written") : OK;
}

void report_write(JsonWriter *w, const void *report) {
    const Report *r = report;
    jw_object(w, NULL);
    jw_str(w, "run", r->run.folder);
    if (r->model) {
        jw_str(w, "model", r->e.use.path);
        if (r->e.use.step >= 0) jw_int(w, "step", r->e.use.step);
        jw_str(w, "data", set_path(r->e.use.set));
        jw_str(w, "split", r->e.use.split);
        jw_int(w, "images", r->e.set.NI);
        jw_int(w, "texts", r->e.set.NT);
    }
    if (r->run.log.lines) report_write_training(w, r);
    report_write_recall(w, r);
    report_write_answers(w, r);
    report_write_captions(w, r);
    jw_array(w, "notes");
    for (int i = 0; i < r->notes; i++) jw_str(w, NULL, r->note[i].text);
    jw_end(w);
    jw_end(w);
}

void report_say(const Report *r) {
    const ReportCaptions *c = &r->captions;
    for (int i = 0; i < r->recall.lines; i++) {
        const Recall *l = &r->recall.line[i].r;
        status_say("%-33s image to text R@1 %5.1f %%, R@10 %5.1f %%; text to image R@1 %5.1f %%, R@10 %5.1f %%",
                   r->recall.line[i].name, l->txt_r1, l->txt_r10, l->img_r1, l->img_r10);
    }
    const Tally *m = r->answers.tally, *seen = &m[QUIZ_PICTURE], *blind = &m[QUIZ_BLIND], *words = &m[QUIZ_WORDS];
    if (r->answers.n)
        status_say("%-33s %.1f %% of %lld questions right; without the picture %.1f %%, read in words %.1f %%",
                   "answers", tally_share(&seen->all), (long long)seen->all.n, tally_share(&blind->all),
                   tally_share(&words->all));
    for (int k = 0; r->answers.n && k < seen->kinds; k++)
        status_say("  %-31s %.1f %% of %lld; without the picture %.1f %%, read in words %.1f %%", seen->kind[k].name,
                   tally_share(&seen->kind[k]), (long long)seen->kind[k].n, tally_share(&blind->kind[k]),
                   tally_share(&words->kind[k]));
    if (c->sum.pairs)
        status_say("%-33s %.1f %% of the %d coloured shapes that %lld greedy captions name are really there; %lld "
                   "captions are free of error",
                   "captions", 100.0 * c->sum.pairs_true / c->sum.pairs, c->sum.pairs, (long long)c->known,
                   (long long)c->all_true);
    for (int i = 0; i < r->notes; i++) status_say("%s: %s", r->note[i].grave ? "warning" : "note", r->note[i].text);
}
