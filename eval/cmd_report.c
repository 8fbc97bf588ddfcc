/* cmd_report: a run as a page (report.h), and its figures as report.json beside it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/commands.h"
#include "data/format/outfile.h"
#include "eval/report/report.h"
#include "eval/result.h"
#include "kernels/base/mem.h"

static Status write_page(Report *r, const char *path) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    Status st = report_page(r, f);
    if (fclose(f) && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    if (st == OK) st = outfile_put(path, text, n);
    if (st == OK) status_say("%s: one page of %.2f MB, nothing else is needed to read it", path, (double)n / 1e6);
    free(text);
    return st;
}

/* ---- report.json ------------------------------------------------------------------------------------------------- */

static void number(JsonWriter *w, const char *key, double v) {
    if (isfinite(v)) jw_num(w, key, v);
}

static void write_recall(JsonWriter *w, const Report *r) {
    static const struct { const char *name, *key; } keys[] = {
        {"chance", "chance"}, {"ITC (cosine)", "itc"}, {"re-ranked by ITM", "itm"}, {"re-ranked by ITM + ITC", "sum"}};
    jw_object(w, "recall");
    for (int i = 0; i < r->lines; i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const RecallLine *l = &r->line[i];
            if (l->before || strcmp(l->name, keys[k].name) != 0) continue;
            jw_object(w, keys[k].key);
            jw_num(w, "txt_r1", l->r.txt_r1), jw_num(w, "txt_r5", l->r.txt_r5), jw_num(w, "txt_r10", l->r.txt_r10);
            jw_num(w, "img_r1", l->r.img_r1), jw_num(w, "img_r5", l->r.img_r5), jw_num(w, "img_r10", l->r.img_r10);
            if (!l->chance)
                number(w, "txt_median_rank", l->r.txt_median), number(w, "img_median_rank", l->r.img_median);
            jw_end(w);
        }
    jw_end(w);
}

static void write_share(JsonWriter *w, const char *key, int64_t is, int64_t said) {
    jw_object(w, key);
    jw_int(w, "said", said);
    jw_int(w, "true", is);
    if (said) jw_num(w, "percent", 100.0 * (double)is / (double)said);
    jw_end(w);
}

static void write_claims(JsonWriter *w, const Judged *j) {
    const SynthClaims *c = &j->sum;
    jw_object(w, "claims");
    jw_int(w, "captions", j->captions);
    jw_int(w, "all_true", j->all_true);
    write_share(w, "coloured_shapes", c->pairs_true, c->pairs);
    write_share(w, "details", c->details_true, c->details);
    write_share(w, "relations", c->relations_true, c->relations);
    write_share(w, "places", c->places_true, c->places);
    write_share(w, "grounds", c->grounds_true, c->grounds);
    jw_end(w);
}

static void write_answers(JsonWriter *w, const Report *r) {
    static const struct { const char *key; QuizFront of; } passes[] = {
        {"right", QUIZ_PICTURE}, {"without_picture", QUIZ_BLIND}, {"in_words", QUIZ_WORDS}};
    jw_object(w, "answers");
    for (int k = -1; k < r->marks->kinds; k++) {
        const QuizKind *first = k < 0 ? &r->marks->all : &r->marks->kind[k];
        jw_object(w, k < 0 ? "all" : first->name);
        jw_int(w, "asked", first->asked);
        for (size_t i = 0; i < sizeof passes / sizeof *passes; i++) {
            const QuizMarks *m = &r->marks[passes[i].of];
            jw_num(w, passes[i].key, quiz_share(k < 0 ? &m->all : &m->kind[k]));
        }
        if (k >= 0) number(w, "most_frequent", r->floor[k].frequent), number(w, "some_object", r->floor[k].some);
        jw_end(w);
    }
    jw_end(w);
}

static void write_run(JsonWriter *w, const Report *r) {
    const RunSums *s = &r->sums;
    jw_object(w, "training");
    jw_int(w, "steps", s->steps);
    jw_num(w, "pairs", s->pairs);
    jw_num(w, "wall_s", s->wall_s);
    jw_num(w, "step_s", s->step_s);
    jw_num(w, "wait_s", s->wait_s);
    number(w, "pairs_per_s", s->pairs_per_s);
    number(w, "peak_percent", s->peak_percent);
    number(w, "loss", runlog_last(&r->log, RL_loss));
    jw_num(w, "skipped", s->skipped);
    jw_end(w);
}

static void write_json(JsonWriter *w, const void *report) {
    static const char *const names[] = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"};
    const Report *r = report;
    jw_object(w, NULL);
    jw_str(w, "run", r->run);
    if (r->model) {
        jw_str(w, "model", r->e.use.path);
        if (r->e.use.step >= 0) jw_int(w, "step", r->e.use.step);
        jw_str(w, "data", set_path(r->e.use.set));
        jw_str(w, "split", r->e.use.split);
        jw_int(w, "images", r->e.set.NI);
        jw_int(w, "texts", r->e.set.NT);
    }
    if (r->log.lines) write_run(w, r);
    write_recall(w, r);
    if (r->answers) write_answers(w, r);
    jw_int(w, "captions", r->captions);
    if (r->captions && r->scores && !r->score[0].before && strncmp(r->score[0].name, "greedy", 6) == 0) {
        jw_object(w, "scores");
        for (int i = 0; i < 6; i++) number(w, names[i], r->score[0].v[i]);
        jw_end(w);
    }
    if (r->claimed.captions) write_claims(w, &r->claimed);
    jw_array(w, "notes");
    for (int i = 0; i < r->notes; i++) jw_str(w, NULL, r->note[i].text);
    jw_end(w);
    jw_end(w);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static void say(const Report *r) {
    const Judged *j = &r->claimed;
    for (int i = 0; i < r->lines; i++) {
        const Recall *c = &r->line[i].r;
        status_say("%-33s image to text R@1 %5.1f %%, R@10 %5.1f %%; text to image R@1 %5.1f %%, R@10 %5.1f %%",
                   r->line[i].name, c->txt_r1, c->txt_r10, c->img_r1, c->img_r10);
    }
    if (r->answers)
        status_say("%-33s %.1f %% of %lld questions right; without the picture %.1f %%, read in words %.1f %%",
                   "answers", quiz_share(&r->marks[QUIZ_PICTURE].all), (long long)r->marks[QUIZ_PICTURE].all.asked,
                   quiz_share(&r->marks[QUIZ_BLIND].all), quiz_share(&r->marks[QUIZ_WORDS].all));
    for (int k = 0; r->answers && k < r->marks->kinds; k++)
        status_say("  %-31s %.1f %% of %lld; without the picture %.1f %%, read in words %.1f %%",
                   r->marks->kind[k].name, quiz_share(&r->marks[QUIZ_PICTURE].kind[k]),
                   (long long)r->marks[QUIZ_PICTURE].kind[k].asked, quiz_share(&r->marks[QUIZ_BLIND].kind[k]),
                   quiz_share(&r->marks[QUIZ_WORDS].kind[k]));
    if (j->captions && j->sum.pairs)
        status_say("%-33s %.1f %% of the %d coloured shapes that %lld greedy captions name are really there; %lld "
                   "captions are free of error",
                   "captions", 100.0 * j->sum.pairs_true / j->sum.pairs, j->sum.pairs, (long long)j->captions,
                   (long long)j->all_true);
    for (int i = 0; i < r->notes; i++) status_say("%s: %s", r->note[i].grave ? "warning" : "note", r->note[i].text);
}

Status cmd_report(const Options *o) {
    Report r;
    Status st = report_open(&r, o);
    status_end();
    if (st == OK && o->run.dry_run) {
        options_print(o, stdout);
        status_say("the page would be %s", r.page);
    } else if (st == OK) {
        report_judge(&r);
        say(&r);
        st = result_json(r.json, 1, write_json, &r);
        if (st == OK) st = write_page(&r, r.page);
    }
    report_close(&r);
    return st;
}
