/* report_training: how the run got there and how fast: curves of its log beside an earlier run's; see report.h. */
#include <math.h>
#include <stddef.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "eval/report/svg.h"

/* ---- curves ------------------------------------------------------------------------------------------------------ */

/* Lines of this run's log, its evaluations; the same of the earlier run. */
typedef enum { NOW, EVALS, OLD, OLD_EVALS } From;
typedef enum { LOSSES, ANSWERS, RECALLS, SPEEDS } Where;

typedef struct {
    Where where;
    const char *title, *format, *says;
    bool log, median;                   /* median: a line at the usual time of a step */
    struct { const char *name; From from; int column, colour; bool dashed; } series[4];
} Curve;

#define LOSS(name, title, colour) \
    {LOSSES, title, "%.4g", NULL, true, false, {{"training", NOW, RL_##name, colour, false}, \
     {"validation", EVALS, RE_##name, colour, true}, {"earlier run", OLD, RL_##name, 4, false}}}
#define RECALL(way, title, says) \
    {RECALLS, "Validation recall, " title, "%.1f %%", says, false, false, {{"R@1", EVALS, RE_##way##_r1, 0, false}, \
     {"R@5", EVALS, RE_##way##_r5, 1, true}, {"R@10", EVALS, RE_##way##_r10, 2, true}, \
     {"R@1, earlier run", OLD_EVALS, RE_##way##_r1, 4, false}}}
#define SEEN "Answers that are right, and coloured shapes of captions that are there"

/* Losses fall fast and then for long: only a logarithmic axis shows both. */
static const Curve curves[] = {
    LOSS(loss, "Total loss", 0),
    LOSS(itc, "Contrastive loss (ITC)", 1),
    LOSS(itm, "Matching loss (ITM)", 2),
    LOSS(itg, "Generation loss (ITG)", 3),
    {LOSSES, "Of watched pictures, per cent", "%.1f %%", SEEN, false, false,
     {{"answers right", NOW, RL_answers, 2, false}, {"coloured shapes true", NOW, RL_shapes, 3, true}}},
    {LOSSES, "Learning rate", "%.3g", NULL, false, false,
     {{"this run", NOW, RL_lr, 0, false}, {"earlier run", OLD, RL_lr, 4, false}}},
    {LOSSES, "Norm of the gradient", "%.3g", NULL, false, false, {{"before clipping", NOW, RL_grad_norm, 1, false}}},
    {ANSWERS, "Held-out pictures, per cent", "%.1f %%", SEEN, false, false,
     {{"answers right", EVALS, RE_answers, 2, false}, {"coloured shapes true", EVALS, RE_shapes, 3, true}}},
    RECALL(txt, "image to text", "Share of validation images whose own text comes first, or among the first 5 and 10"),
    RECALL(img, "text to image", "Share of validation texts whose own image comes first, or among the first 5 and 10"),
    {SPEEDS, "Pairs a second", "%.4g", NULL, false, false, {{"all ranks", NOW, RL_pairs_per_s, 0, false}}},
    {SPEEDS, "Share of peak, and waiting for data", "%.0f %%", NULL, false, false,
     {{"of peak arithmetic", NOW, RL_peak_percent, 2, false},
      {"time waiting for data", NOW, RL_wait_percent, 1, true}}},
    {SPEEDS, "Milliseconds a step", "%.4g", NULL, false, true, {{"this run", NOW, RL_step_ms, 3, false}}}};

/* A column where it lies in the log. */
static SvgSeries series_of(const ReportRun *r, const Curve *c, int k) {
    From from = c->series[k].from;
    const RunLog *l = from == NOW || from == EVALS ? &r->log : &r->old;
    SvgSeries s = {.name = c->series[k].name, .colour = c->series[k].colour, .dashed = c->series[k].dashed};
    if (from == NOW || from == OLD) {
        s.n = l->lines, s.stride = sizeof *l->line;
        if (s.n) s.x = &l->line->step, s.y = &l->line->v[c->series[k].column];  /* an empty log has no first line */
    } else {
        s.n = l->evals, s.stride = sizeof *l->eval;
        if (s.n) s.x = &l->eval->step, s.y = &l->eval->v[c->series[k].column];
    }
    return s;
}

static void draw_curves(const ReportRun *r, FILE *f, Where where) {
    html(f, "<div class=\"two\">\n");
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
        const Curve *c = &curves[i];
        char ends[160];
        if (c->where != where) continue;
        SvgChart chart = {.title = c->title, .format = c->format, .log = c->log, .zero = !c->log, .says = c->says,
                          .level = c->median ? r->sums.step_ms_median : NAN, .level_name = "median"};
        for (int k = 0; k < 4 && c->series[k].name; k++) chart.series[chart.nseries++] = series_of(r, c, k);
        snprintf(ends, sizeof ends, "%s over steps, ending at %.4g", c->title,
                 r->log.line[r->log.lines - 1].v[c->series[0].column]);
        if (c->log) chart.says = ends;                       /* of a loss one wants to hear where it ended */
        svg_chart(f, &chart);
    }
}

/* About twenty lines of the log, for those who want figures. */
static void figures_table(const ReportRun *r, FILE *f) {
    const RunLog *l = &r->log;
    char s[HTML_NUMBER];
    html(f, "<details><summary>The figures</summary><div class=\"card\"><table><thead><tr><th>step</th><th>total</th>"
            "<th>ITC</th><th>ITM</th><th>ITG</th></tr></thead><tbody>\n");
    int64_t rows = l->lines < 20 ? l->lines : 20;            /* at even distances, the first and the last among them */
    for (int64_t k = 0; k < rows; k++) {
        const RunLine *n = &l->line[rows > 1 ? k * (l->lines - 1) / (rows - 1) : 0];
        html(f, "<tr><th>%s</th>", html_count(n->step, s));
        for (int c = RL_loss; c <= RL_itg; c++) html_cell(f, "%.4g", n->v[c]);
        html(f, "</tr>\n");
    }
    html(f, "</tbody></table></div></details>\n");
}

/* What was held out: answers of stage 2, recall of stage 1. */
static void held_out(const ReportRun *r, FILE *f) {
    html(f, "<h3 style=\"margin-top:1.4rem\">On held-out pairs</h3>\n");
    if (!r->log.evals) {
        html_missing(f, "The run was not validated, so there is no curve of recall (train.eval_every and a validation "
                        "split make one).");
        return;
    }
    bool speaks = r->trained && r->trained->run.stage == 2;
    html(f, "<p class=\"says\">%s</p>\n",
         speaks ? "Questions answered and captions written, greedily."
                : "How often the own partner comes first, or among the first 5 or 10, by cosine alone.");
    draw_curves(r, f, speaks ? ANSWERS : RECALLS);
    html(f, "</div>\n");
}

void report_section_training(Report *report, FILE *f) {
    const ReportRun *r = &report->run;
    const Options *o = r->trained;
    if (!r->log.lines) {
        html_missing(f, r->log.starts ? "The log has no line of a step yet."
                                      : "There is no log.jsonl in the run, so there are no curves.");
        return;
    }
    html(f, "<p class=\"says\">Means over %s%lld steps.", r->log.lines > 1 ? "" : "the first ",
         (long long)runlog_span(&r->log, r->log.lines / 2));
    if (o && o->run.stage == 1)                              /* the weights are of stage 1's losses */
        html(f, " The total is %g ITC + %g ITM + %g ITG.", o->loss.itc, o->loss.itm, o->loss.itg);
    if (r->log.evals) html(f, " Validation is the held-out split, without dropout.");
    if (r->log.lines > SVG_POINTS) html(f, " Bands reach from the smallest to the largest of neighbouring lines.");
    html(f, " Axes of losses are logarithmic.</p>\n");
    draw_curves(r, f, LOSSES);
    html(f, "</div>\n");
    figures_table(r, f);
    held_out(r, f);
}

/* ---- speed ------------------------------------------------------------------------------------------------------- */

static void time_bar(const RunSums *s, FILE *f) {
    /* rounded figures may add up to more than the wall clock's */
    double other = s->wall_s > s->step_s ? s->wall_s - s->step_s : 0, all = s->step_s + other,
           compute = s->step_s - s->wait_s;
    const struct { const char *name; double seconds; } part[] = {
        {"computing steps", compute}, {"waiting for data", s->wait_s}, {"validation, checkpoints, other", other}};
    char t[32];
    if (!(all > 0)) return;
    html(f, "<div class=\"card\"><h3>Where the time went</h3><div class=\"bar\" role=\"img\" aria-label=\"Shares of "
            "the run's time, as listed below\">");
    for (int i = 0; i < 3; i++)
        if (part[i].seconds > 0)                             /* a bar of no width would still have a border */
            html(f, "<i class=\"b%d\" style=\"width:%.2f%%\"></i>", i, 100 * part[i].seconds / all);
    html(f, "</div><table class=\"facts\"><tbody>\n");
    for (int i = 0; i < 3; i++)
        html(f, "<tr><th><i class=\"sw b%d\"></i>%s</th><td>%s (%.1f %%)</td></tr>\n", i, part[i].name,
             status_time(part[i].seconds, t, sizeof t), 100 * part[i].seconds / all);
    html(f, "</tbody></table></div>\n");
}

void report_section_speed(Report *report, FILE *f) {
    const ReportRun *r = &report->run;
    if (!r->log.lines) {
        html_missing(f, "There is no log.jsonl in the run, so nothing is known of its speed.");
        return;
    }
    html(f, "<p class=\"says\">Training steps alone; validation and checkpoints are not in these rates.");
    if (isfinite(r->sums.peak_percent))
        html(f, " On average %.0f %% of the rate that one large matrix product reached when the run began.",
             r->sums.peak_percent);
    html(f, "</p>\n");
    draw_curves(r, f, SPEEDS);
    time_bar(&r->sums, f);
    html(f, "</div>\n");
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

void report_write_training(JsonWriter *w, const Report *r) {
    const RunSums *s = &r->run.sums;
    jw_object(w, "training");
    jw_int(w, "steps", s->steps);
    jw_num(w, "pairs", s->pairs);
    jw_num(w, "wall_s", s->wall_s);
    jw_num(w, "step_s", s->step_s);
    jw_num(w, "wait_s", s->wait_s);
    report_number(w, "pairs_per_s", s->pairs_per_s);
    report_number(w, "peak_percent", s->peak_percent);
    report_number(w, "loss", runlog_last(&r->run.log, RL_loss));
    jw_num(w, "skipped", s->skipped);
    jw_end(w);
}
