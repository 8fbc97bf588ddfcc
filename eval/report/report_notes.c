/* report_notes: what should worry the reader; see report.h.
 * Every note is a full sentence with the figures it rests on. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "kernels/base/mem.h"

void report_note(Report *r, bool grave, const char *fmt, ...) {
    char text[1200];
    va_list ap;
    if (r->notes == REPORT_NOTES) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->note[r->notes].grave = grave;
    r->note[r->notes].text = mem_strdup(text);
    r->notes += r->note[r->notes].text != NULL;
}

/* The error at hand becomes words on the page. */
void report_excuse(char **to) {
    free(*to);
    *to = mem_strdup(err_message());
    err_clear();
}

/* A result file of a run; NULL when it is not there or cannot be read, which then becomes a note. */
Json *report_result(Report *r, const char *folder, const char *name) {
    Json *doc = NULL;
    char *path = mem_format("%s/%s", folder, name);
    if (path && access(path, R_OK) == 0 && json_parse_file(&doc, path) != OK) {
        report_note(r, false, "%s", err_message());
        err_clear();
    }
    free(path);
    return doc;
}

static void judge_finish(Report *r) {
    const RunSums *s = &r->sums;
    char a[HTML_NUMBER], b[HTML_NUMBER];
    if (s->total_steps > s->steps && r->log.starts)
        report_note(r, false, "The run is at step %s of %s; the same command goes on from there.",
                    html_count(s->steps, a), html_count(s->total_steps, b));
    if (s->skipped > 0)
        report_note(r, true,
                    "%s of %s steps were left out because a gradient was not finite; the log names the first tensor of "
                    "each (optim.clip or a "
                    "lower optim.lr helps).",
                    html_count((int64_t)s->skipped, a), html_count(s->steps, b));
    if (r->log.lines && !isfinite(r->log.line[r->log.lines - 1].v[RL_loss]))
        report_note(r, true, "The last line of the log has no loss: all its steps had a gradient that was not finite.");
    if (r->log.bad > (r->log.torn ? 1 : 0))
        report_note(r, false, "%lld lines of log.jsonl could not be read and were passed over.", (long long)r->log.bad);
}

static void judge_speed(Report *r) {
    const RunLog *l = &r->log;
    const RunSums *s = &r->sums;
    int64_t slow = 0, waiting = 0, worst = -1;
    for (int64_t i = 0; i < l->lines; i++) {
        const double *v = l->line[i].v;
        if (v[RL_wait_percent] > 30) waiting++;
        if (l->line[i].first || !(v[RL_step_ms] > 3 * s->step_ms_median)) continue;
        slow++;
        if (worst < 0 || v[RL_step_ms] > l->line[worst].v[RL_step_ms]) worst = i;
    }
    if (s->step_s > 0 && s->wait_s / s->step_s > 0.1)
        report_note(r, true,
                    "Steps waited for data during %.0f %% of their time: the disk or the readers are the bottleneck "
                    "(data.threads, data.queue, "
                    "qformer repack).",
                    100 * s->wait_s / s->step_s);
    else if (waiting)
        report_note(r, false, "Steps waited for data more than 30 %% of the time in %lld of %lld lines of the log.",
                    (long long)waiting, (long long)l->lines);
    if (slow)
        report_note(r, slow * 10 > l->lines,
                    "%lld of %lld lines of the log are more than three times as slow as the median step of %.3g ms; "
                    "the slowest "
                    "ends at step %lld (%.3g ms a step): other work on the machine, or a disk that stalls.",
                    (long long)slow, (long long)l->lines, s->step_ms_median, (long long)l->line[worst].step,
                    l->line[worst].v[RL_step_ms]);
}

static void judge_validation(Report *r) {
    const RunLog *l = &r->log;
    int64_t best = runlog_best(l);
    if (l->lines && !l->evals) {
        report_note(
            r, false,
            "The run has no validation, so nothing shows whether it learned by heart (train.eval_every, data.val).");
        return;
    }
    if (best < 0) return;
    const RunEval *b = &l->eval[best], *last = &l->eval[l->evals - 1];
    double was = 0.5 * (b->v[RE_txt_r1] + b->v[RE_img_r1]), is = 0.5 * (last->v[RE_txt_r1] + last->v[RE_img_r1]);
    if (was - is > 2)
        report_note(r, false,
                    "Validation recall@1 fell from %.1f %% at step %lld to %.1f %% at step %lld, as when captions are "
                    "learned by heart; the checkpoint "
                    "named best is the earlier one.",
                    was, (long long)b->step, is, (long long)last->step);
}

static void judge_recall(Report *r) {
    const RecallLine *chance = NULL, *main = NULL;
    for (int i = 0; i < r->lines; i++) {
        if (r->line[i].before) continue;
        if (r->line[i].chance) chance = &r->line[i];
        else main = &r->line[i];                             /* the last one is the best ranking */
    }
    if (chance && main && (main->r.txt_r1 < 3 * chance->r.txt_r1 || main->r.img_r1 < 3 * chance->r.img_r1))
        report_note(r, true,
                    "Recall@1 is %.1f %% from image to text and %.1f %% from text to image where guessing gives %.2f "
                    "%% and %.2f %%: the model has hardly "
                    "learned to tell pairs apart.",
                    main->r.txt_r1, main->r.img_r1, chance->r.txt_r1, chance->r.img_r1);
    if (r->recall_step >= 0 && r->model && r->e.use.step >= 0 && r->recall_step != r->e.use.step)
        report_note(r, false,
                    "retrieval.json was computed from the checkpoint of step %lld, what else is shown of the model "
                    "from step %lld.",
                    (long long)r->recall_step, (long long)r->e.use.step);
}

void report_judge(Report *r) {
    judge_finish(r);
    judge_speed(r);
    judge_validation(r);
    judge_recall(r);
    if (r->thumbs.why[0]) report_note(r, false, "A picture could not be shown: %s", r->thumbs.why);
}
