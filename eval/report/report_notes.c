/* report_notes: what should worry the reader; see report.h.
 * Every note is a full sentence with the figures it rests on. */
#include <math.h>

#include "eval/report/html.h"
#include "eval/report/report.h"

static void judge_finish(Report *r) {
    const RunSums *s = &r->run.sums;
    char a[HTML_NUMBER], b[HTML_NUMBER];
    if (s->total_steps > s->steps && r->run.log.starts)
        report_note(r, false, "The run is at step %s of %s; the same command goes on from there.",
                    html_count(s->steps, a), html_count(s->total_steps, b));
    if (s->skipped > 0)
        report_note(r, true,
                    "%s of %s steps were left out because a gradient was not finite; the log names the first tensor of "
                    "each (optim.clip or a lower optim.lr helps).",
                    html_count((int64_t)s->skipped, a), html_count(s->steps, b));
    if (r->run.log.lines && !isfinite(r->run.log.line[r->run.log.lines - 1].v[RL_loss]))
        report_note(r, true, "The last line of the log has no loss: all its steps had a gradient that was not finite.");
    /* the torn last line of a killed run is nobody's mistake */
    if (r->run.log.bad > (r->run.log.torn ? 1 : 0))
        report_note(r, false, "%lld lines of log.jsonl could not be read and were passed over.",
                    (long long)r->run.log.bad);
}

static void judge_speed(Report *r) {
    const RunLog *l = &r->run.log;
    const RunSums *s = &r->run.sums;
    int64_t slow = 0, waiting = 0, worst = -1;
    for (int64_t i = 0; i < l->lines; i++) {
        const double *v = l->line[i].v;
        if (v[RL_wait_percent] > 30) waiting++;
        /* a session's first line holds its warm-up */
        if (l->line[i].first || !(v[RL_step_ms] > 3 * s->step_ms_median)) continue;
        slow++;
        if (worst < 0 || v[RL_step_ms] > l->line[worst].v[RL_step_ms]) worst = i;
    }
    /* a tenth is worth a look at the disk */
    if (s->step_s > 0 && s->wait_s / s->step_s > 0.1)
        report_note(r, true,
                    "Steps waited for data during %.0f %% of their time: the disk or the readers are the bottleneck "
                    "(data.threads, data.queue, qformer repack).",
                    100 * s->wait_s / s->step_s);
    else if (waiting)
        report_note(r, false, "Steps waited for data more than 30 %% of the time in %lld of %lld lines of the log.",
                    (long long)waiting, (long long)l->lines);
    if (slow)
        report_note(r, slow * 10 > l->lines,
                    "%lld of %lld lines of the log are more than three times as slow as the median step of %.3g ms; "
                    "the slowest ends at step %lld (%.3g ms a step): other work on the machine, or a disk that stalls.",
                    (long long)slow, (long long)l->lines, s->step_ms_median, (long long)l->line[worst].step,
                    l->line[worst].v[RL_step_ms]);
}

static void judge_validation(Report *r) {
    const RunLog *l = &r->run.log;
    int64_t best = runlog_best(l);
    if (l->lines && !l->evals) {
        report_note(r, false, "The run has no validation, so nothing shows whether it learned by heart "
                              "(train.eval_every, data.val).");
        return;
    }
    if (best < 0) return;
    const RunEval *b = &l->eval[best], *last = &l->eval[l->evals - 1];
    double was = 0.5 * (b->v[RE_txt_r1] + b->v[RE_img_r1]), is = 0.5 * (last->v[RE_txt_r1] + last->v[RE_img_r1]);
    /* one standard error of a thousand queries is 1.6 */
    if (was - is > 2)
        report_note(r, false,
                    "Validation recall@1 fell from %.1f %% at step %lld to %.1f %% at step %lld, as when captions are "
                    "learned by heart; the checkpoint named best is the earlier one.",
                    was, (long long)b->step, is, (long long)last->step);
}

static void judge_recall(Report *r) {
    RecallBest best = report_recall_best(r);
    const RecallLine *chance = best.chance, *main = best.main;
    if (chance && main && (main->r.txt_r1 < 3 * chance->r.txt_r1 || main->r.img_r1 < 3 * chance->r.img_r1))
        report_note(r, true,
                    "Recall@1 is %.1f %% from image to text and %.1f %% from text to image where guessing gives %.2f "
                    "%% and %.2f %%: the model has hardly learned to tell pairs apart.",
                    main->r.txt_r1, main->r.img_r1, chance->r.txt_r1, chance->r.img_r1);
    if (r->recall.step >= 0 && r->model && r->e.use.step >= 0 && r->recall.step != r->e.use.step)
        report_note(r, false,
                    "retrieval.json was computed from the checkpoint of step %lld, what else is shown of the model "
                    "from step %lld.",
                    (long long)r->recall.step, (long long)r->e.use.step);
}

void report_judge(Report *r) {
    judge_finish(r);
    judge_speed(r);
    judge_validation(r);
    judge_recall(r);
    if (r->thumbs.why[0]) report_note(r, false, "A picture could not be shown: %s", r->thumbs.why);
}
