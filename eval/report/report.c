/* report: the page; see report.h. Sections in the order of what a reader wants to know: what came out, what should
 * worry him, how it got there, how fast, and with what settings.
 * Parts that show the model at work are in report_model.c. */
#include "eval/report/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "eval/report/html.h"
#include "eval/report/svg.h"
#include "kernels/base/mem.h"
#include "kernels/base/version.h"

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
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

/* The best ranking of this run, and chance. */
static void recall_tiles(const Report *r, FILE *f) {
    const RecallLine *main = NULL, *chance = NULL;
    char more[96] = "";
    for (int i = 0; i < r->lines; i++) {
        if (r->line[i].before) continue;
        if (r->line[i].chance) chance = &r->line[i];
        else main = &r->line[i];
    }
    if (!main) return;
    if (chance) snprintf(more, sizeof more, "guessing: %.2g %%; first 10: %.1f %%", chance->r.txt_r1, main->r.txt_r10);
    percent_tile(f, "Right text first", main->r.txt_r1, more);
    if (chance) snprintf(more, sizeof more, "guessing: %.2g %%; first 10: %.1f %%", chance->r.img_r1, main->r.img_r10);
    percent_tile(f, "Right image first", main->r.img_r1, more);
}

static void answers_tile(const Report *r, FILE *f) {
    char more[96];
    if (!r->answers) return;
    snprintf(more, sizeof more, "without the picture: %.1f %%; read in words: %.1f %%",
             quiz_share(&r->marks[QUIZ_BLIND].all), quiz_share(&r->marks[QUIZ_WORDS].all));
    percent_tile(f, "Answers right", quiz_share(&r->marks[QUIZ_PICTURE].all), more);
}

static void tiles(const Report *r, FILE *f) {
    char v[HTML_NUMBER], more[128], t[HTML_NUMBER];
    const RunSums *s = &r->sums;
    html(f, "<ul class=\"tiles\">\n");
    recall_tiles(r, f);
    answers_tile(r, f);
    if (r->claimed.sum.pairs) {
        snprintf(more, sizeof more, "of %d that captions name are there", r->claimed.sum.pairs);
        percent_tile(f, "Coloured shapes", 100.0 * r->claimed.sum.pairs_true / r->claimed.sum.pairs, more);
    }
    if (r->log.lines) {
        double loss = runlog_last(&r->log, RL_loss);
        for (int64_t i = 0; i < r->log.lines; i++)
            if (isfinite(r->log.line[i].v[RL_loss])) {
                snprintf(more, sizeof more, "%.3g at the start", r->log.line[i].v[RL_loss]);
                break;
            }
        snprintf(v, sizeof v, "%.3g", loss);
        if (isfinite(loss)) tile(f, "Training loss", v, "", more);
        snprintf(more, sizeof more, "%s pairs seen", html_short(s->pairs, t));
        tile(f, "Steps", html_count(s->steps, v), "", more);
        status_time(s->wall_s, t, sizeof t);
        if (isfinite(s->pairs_per_s))
            snprintf(more, sizeof more, "%s pairs a second", html_short(round(s->pairs_per_s), v));
        tile(f, "Wall time", t, "", more);
    }
    html(f, "</ul>\n");
}

static void notes(const Report *r, FILE *f) {
    if (!r->notes) return;
    html(f, "<ul class=\"notes\" id=\"notes\">\n");
    for (int grave = 1; grave >= 0; grave--)
        for (int i = 0; i < r->notes; i++)
            if (r->note[i].grave == grave)
                html(f, "<li class=\"%s\"><b>%s</b> %s</li>\n", grave ? "grave" : "plain", grave ? "Warning." : "Note.",
                     r->note[i].text);
    html(f, "</ul>\n");
}

/* Of stage 2 nothing is retrieved, of stage 1 nothing answered. */
static void navigation(const Report *r, FILE *f) {
    enum { BOTH, FIRST, SECOND };
    static const struct { const char *id, *name; int of; } section[] = {
        {"training", "Training", BOTH}, {"recall", "Recall", FIRST}, {"gallery", "Examples", FIRST},
        {"answers", "Answers", SECOND}, {"captions", "Captions", BOTH}, {"attention", "Attention", BOTH},
        {"batch", "A batch", FIRST}, {"speed", "Speed", BOTH}, {"about", "Settings", BOTH}};
    bool speaks = r->model && r->e.use.d.W;
    html(f, "<nav aria-label=\"Sections\"><ul>");
    for (size_t i = 0; i < sizeof section / sizeof *section; i++)
        if (section[i].of != (speaks ? FIRST : SECOND))
            html(f, "<li><a href=\"#%s\">%s</a></li>", section[i].id, section[i].name);
    html(f, "</ul></nav>\n</header>\n<main>\n");
}

static void head(const Report *r, FILE *f) {
    html(f,
         "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\"/>\n"
         "<meta name=\"color-scheme\" content=\"light dark\"/>\n<link rel=\"icon\" href=\"data:,\"/>\n<title>qformer: "
         "%s</title>\n<style>\n",
         base_name(r->run));
    fputs(report_style, f);
    html(f, "</style></head>\n<body>\n<header>\n<p class=\"over\">qformer report</p>\n<h1>%s</h1>\n",
         base_name(r->run));
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

static void missing(FILE *f, const char *why) { html(f, "<p class=\"missing\">%s</p>\n", why); }

/* ---- curves ------------------------------------------------------------------------------------------------------ */

/* Columns of a log as arrays; x is the step. */
typedef struct { double *x, *y[RL_COLUMNS], *ex, *ey[RE_COLUMNS]; int64_t n, en; } Columns;

static void columns_free(Columns *c) {
    free(c->x);
    free(c->ex);
    for (int i = 0; i < RL_COLUMNS; i++) free(c->y[i]);
    for (int i = 0; i < RE_COLUMNS; i++) free(c->ey[i]);
}

static bool columns_of(Columns *c, const RunLog *l) {
    *c = (Columns){.n = l->lines,
                   .en = l->evals,
                   .x = mem_new((size_t)l->lines, sizeof *c->x),
                   .ex = mem_new((size_t)l->evals, sizeof *c->ex)};
    bool whole = c->x && c->ex;
    for (int k = 0; k < RL_COLUMNS; k++) {
        c->y[k] = mem_new((size_t)l->lines, sizeof *c->x);
        whole = whole && c->y[k];
        for (int64_t i = 0; whole && i < l->lines; i++) c->y[k][i] = l->line[i].v[k], c->x[i] = (double)l->line[i].step;
    }
    for (int k = 0; k < RE_COLUMNS; k++) {
        c->ey[k] = mem_new((size_t)l->evals, sizeof *c->x);
        whole = whole && c->ey[k];
        for (int64_t i = 0; whole && i < l->evals; i++)
            c->ey[k][i] = l->eval[i].v[k], c->ex[i] = (double)l->eval[i].step;
    }
    if (!whole) columns_free(c);
    return whole;
}

static SvgSeries train_series(const Columns *c, RunColumn k, const char *name, int colour, bool dashed) {
    return (SvgSeries){name, c->x, c->y[k], c->n, colour, dashed};
}

static SvgSeries eval_series(const Columns *c, EvalColumn k, const char *name, int colour, bool dashed) {
    return (SvgSeries){name, c->ex, c->ey[k], c->en, colour, dashed};
}

/* Losses fall fast and then for long: only a logarithmic axis shows both. */
static void loss_charts(FILE *f, const Columns *now, const Columns *old) {
    static const struct {
        RunColumn train;
        EvalColumn eval;
        const char *title;
        int colour;
    } one[] = {{RL_loss, RE_loss, "Total loss", 0},
               {RL_itc, RE_itc, "Contrastive loss (ITC)", 1},
               {RL_itm, RE_itm, "Matching loss (ITM)", 2},
               {RL_itg, RE_itg, "Generation loss (ITG)", 3}};
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        char says[160];
        SvgChart c = {
            .title = one[i].title, .x_name = "step", .format = "%.4g", .log = true, .level = NAN, .says = says};
        c.series[c.nseries++] = train_series(now, one[i].train, "training", one[i].colour, false);
        if (now->en) c.series[c.nseries++] = eval_series(now, one[i].eval, "validation", one[i].colour, true);
        if (old->n) c.series[c.nseries++] = train_series(old, one[i].train, "earlier run", 4, false);
        snprintf(says, sizeof says, "%s over steps, ending at %.4g", one[i].title,
                 now->n ? now->y[one[i].train][now->n - 1] : NAN);
        svg_chart(f, &c);
    }
    SvgChart seen = {.title = "Of watched pictures, per cent", .x_name = "step", .format = "%.1f %%", .zero = true,
                     .level = NAN, .says = "Answers that are right, and coloured shapes of captions that are there"};
    seen.series[seen.nseries++] = train_series(now, RL_answers, "answers right", 2, false);
    seen.series[seen.nseries++] = train_series(now, RL_shapes, "coloured shapes true", 3, true);
    svg_chart(f, &seen);
    SvgChart lr = {.title = "Learning rate", .x_name = "step", .format = "%.3g", .zero = true, .level = NAN};
    lr.series[lr.nseries++] = train_series(now, RL_lr, "this run", 0, false);
    if (old->n) lr.series[lr.nseries++] = train_series(old, RL_lr, "earlier run", 4, false);
    svg_chart(f, &lr);
    SvgChart norm = {.title = "Norm of the gradient", .x_name = "step", .format = "%.3g", .zero = true, .level = NAN};
    norm.series[norm.nseries++] = train_series(now, RL_grad_norm, "before clipping", 1, false);
    svg_chart(f, &norm);
}

static void answer_charts(FILE *f, const Columns *c) {
    SvgChart s = {.title = "Held-out pictures, per cent", .x_name = "step", .format = "%.1f %%", .zero = true,
                  .level = NAN, .says = "Answers that are right, and coloured shapes of captions that are there"};
    s.series[s.nseries++] = eval_series(c, RE_answers, "answers right", 2, false);
    s.series[s.nseries++] = eval_series(c, RE_shapes, "coloured shapes true", 3, true);
    svg_chart(f, &s);
}

static void recall_charts(FILE *f, const Columns *c, const Columns *old) {
    static const struct {
        EvalColumn k;
        const char *title, *says;
    } way[] = {{RE_txt_r1, "Validation recall, image to text",
                "Share of validation images whose own text comes first, or among the first 5 and 10"},
               {RE_img_r1, "Validation recall, text to image",
                "Share of validation texts whose own image comes first, or among the first 5 and 10"}};
    static const char *const names[] = {"R@1", "R@5", "R@10"};
    for (size_t i = 0; i < 2; i++) {
        SvgChart s = {.title = way[i].title,
                      .x_name = "step",
                      .format = "%.1f %%",
                      .zero = true,
                      .level = NAN,
                      .says = way[i].says};
        for (int k = 0; k < 3; k++)
            s.series[s.nseries++] = eval_series(c, way[i].k + (EvalColumn)k, names[k], k, k > 0);
        if (old->en) s.series[s.nseries++] = eval_series(old, way[i].k, "R@1, earlier run", 4, false);
        svg_chart(f, &s);
    }
}

/* About twenty lines of the log, for those who want figures. */
static void figures_table(const Report *r, FILE *f) {
    const RunLog *l = &r->log;
    char s[HTML_NUMBER];
    html(f, "<details><summary>The figures</summary><div "
            "class=\"card\"><table><thead><tr><th>step</th><th>total</th><th>ITC</th><th>ITM</th><th>ITG</th>"
            "</tr></thead><tbody>\n");
    int64_t rows = l->lines < 20 ? l->lines : 20;
    for (int64_t k = 0; k < rows; k++) {
        const RunLine *n = &l->line[rows > 1 ? k * (l->lines - 1) / (rows - 1) : 0];
        html(f, "<tr><th>%s</th>", html_count(n->step, s));
        for (int c = RL_loss; c <= RL_itg; c++) {
            if (isfinite(n->v[c])) html(f, "<td>%.4g</td>", n->v[c]);
            else html(f, "<td></td>");
        }
        html(f, "</tr>\n");
    }
    html(f, "</tbody></table></div></details>\n");
}

static void weights_of_losses(const Report *r, FILE *f) {
    if (!r->trained || r->trained->run.stage != 1) return;
    html(f, " The total is %g ITC + %g ITM + %g ITG.", r->trained->loss.itc, r->trained->loss.itm,
         r->trained->loss.itg);
}

static void section_training(const Report *r, FILE *f) {
    Columns now, old;
    html(f, "<section id=\"training\"><h2>Training</h2>\n");
    if (!r->log.lines) {
        missing(f, r->log.starts ? "The log has no line of a step yet."
                                 : "There is no log.jsonl in the run, so there are no curves.");
        html(f, "</section>\n");
        return;
    }
    if (columns_of(&now, &r->log)) {
        if (columns_of(&old, &r->old_log)) {
            html(f, "<p class=\"says\">Means over %s%lld steps.", r->log.lines > 1 ? "" : "the first ",
                 (long long)runlog_span(&r->log, r->log.lines / 2));
            weights_of_losses(r, f);
            if (now.en) html(f, " Validation is the held-out split, without dropout.");
            if (now.n > 280) html(f, " Bands reach from the smallest to the largest of neighbouring lines.");
            html(f, " Axes of losses are logarithmic.</p>\n<div class=\"two\">\n");
            loss_charts(f, &now, &old);
            html(f, "</div>\n");
            figures_table(r, f);
            html(f, "<h3 style=\"margin-top:1.4rem\">On held-out pairs</h3>\n");
            if (now.en && r->trained && r->trained->run.stage == 2) {
                html(f, "<p class=\"says\">Questions answered and captions written, greedily.</p>\n"
                        "<div class=\"two\">\n");
                answer_charts(f, &now);
                html(f, "</div>\n");
            } else if (!now.en) {
                missing(f, "The run was not validated, so there is no curve of recall (train.eval_every and a "
                           "validation split make one).");
            } else {
                html(f, "<p class=\"says\">How often the own partner comes first, or among the first 5 or 10, by "
                        "cosine alone.</p>\n<div class=\"two\">\n");
                recall_charts(f, &now, &old);
                html(f, "</div>\n");
            }
            columns_free(&old);
        }
        columns_free(&now);
    }
    html(f, "</section>\n");
}

/* ---- speed ------------------------------------------------------------------------------------------------------- */

static void time_bar(const RunSums *s, FILE *f) {
    double other = s->wall_s > s->step_s ? s->wall_s - s->step_s : 0, all = s->step_s + other,
           compute = s->step_s - s->wait_s;
    const struct { const char *name; double seconds; } part[] = {
        {"computing steps", compute}, {"waiting for data", s->wait_s}, {"validation, checkpoints, other", other}};
    char t[32];
    if (!(all > 0)) return;
    html(f, "<div class=\"card\"><h3>Where the time went</h3><div class=\"bar\" role=\"img\" aria-label=\"Shares of "
            "the run's time, as listed below\">");
    for (int i = 0; i < 3; i++)
        if (part[i].seconds > 0)
            html(f, "<i class=\"b%d\" style=\"width:%.2f%%\"></i>", i, 100 * part[i].seconds / all);
    html(f, "</div><table class=\"facts\"><tbody>\n");
    for (int i = 0; i < 3; i++)
        html(f, "<tr><th><i class=\"sw b%d\"></i>%s</th><td>%s (%.1f %%)</td></tr>\n", i, part[i].name,
             status_time(part[i].seconds, t, sizeof t), 100 * part[i].seconds / all);
    html(f, "</tbody></table></div>\n");
}

static void section_speed(const Report *r, FILE *f) {
    Columns c;
    html(f, "<section id=\"speed\"><h2>Speed</h2>\n");
    if (!r->log.lines || !columns_of(&c, &r->log)) {
        missing(f, "There is no log.jsonl in the run, so nothing is known of its speed.");
        html(f, "</section>\n");
        return;
    }
    html(f, "<p class=\"says\">Training steps alone; validation and checkpoints are not in these rates.");
    if (isfinite(r->sums.peak_percent))
        html(f, " On average %.0f %% of the rate that one large matrix product reached when the run began.",
             r->sums.peak_percent);
    html(f, "</p>\n<div class=\"two\">\n");
    SvgChart rate = {.title = "Pairs a second", .x_name = "step", .format = "%.4g", .zero = true, .level = NAN};
    rate.series[rate.nseries++] = train_series(&c, RL_pairs_per_s, "all ranks", 0, false);
    svg_chart(f, &rate);
    SvgChart share = {.title = "Share of peak, and waiting for data",
                      .x_name = "step",
                      .format = "%.0f %%",
                      .zero = true,
                      .level = NAN};
    share.series[share.nseries++] = train_series(&c, RL_peak_percent, "of peak arithmetic", 2, false);
    share.series[share.nseries++] = train_series(&c, RL_wait_percent, "time waiting for data", 1, true);
    svg_chart(f, &share);
    SvgChart step = {.title = "Milliseconds a step",
                     .x_name = "step",
                     .format = "%.4g",
                     .zero = true,
                     .level = r->sums.step_ms_median,
                     .level_name = "median"};
    step.series[step.nseries++] = train_series(&c, RL_step_ms, "this run", 3, false);
    svg_chart(f, &step);
    time_bar(&r->sums, f);
    html(f, "</div></section>\n");
    columns_free(&c);
}

/* ---- settings ---------------------------------------------------------------------------------------------------- */

static void fact(FILE *f, const char *name, const char *value) {
    html(f, "<tr><th>%s</th><td>%s</td></tr>\n", name, value);
}

/* The processor of the machine that makes this page, as Linux names it. */
static void processor(char *to, size_t n) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    int cores = 0;
    snprintf(to, n, "a processor without a name");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "processor", 9) == 0) cores++;
        if (cores == 1 && colon && strncmp(line, "model name", 10) == 0)
            snprintf(to, n, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f) fclose(f);
    size_t used = strlen(to);
    if (cores) snprintf(to + used, n - used, ", %d threads", cores);
}

static void machine_facts(const Report *r, FILE *f) {
    char s[400], t[32];
    const RunStart *first = r->log.starts ? &r->log.start[0] : NULL,
                   *last = first ? &r->log.start[r->log.starts - 1] : NULL;
    if (last && last->peak_flops > 0) {
        snprintf(s, sizeof s, "%.4g GFLOP/s of one large product when the run began", last->peak_flops / 1e9);
        fact(f, "the run's device", s);
    }
    if (r->model) {
        snprintf(s, sizeof s, "%s in %s", r->e.use.b->name, dtype_name(r->e.use.b->elem));
        fact(f, "device of this page", s);
    }
    processor(s, sizeof s);
    fact(f, "machine of this page", s);
    double memory = runlog_last(&r->log, RL_memory);
    if (isfinite(memory)) {
        snprintf(s, sizeof s, "%.2f GiB on the device", memory / (1 << 30));
        fact(f, "memory", s);
    }
    if (first && first->time > 0) {
        time_t when = (time_t)first->time;
        struct tm tm;
        if (gmtime_r(&when, &tm) && strftime(s, sizeof s, "%Y-%m-%d %H:%M UTC", &tm)) fact(f, "begun", s);
        snprintf(s, sizeof s, "%s in %lld session%s", status_time(r->sums.wall_s, t, sizeof t),
                 (long long)r->log.starts, r->log.starts > 1 ? "s" : "");
        fact(f, "ran", s);
    }
    fact(f, "program", version_string());
}

static void model_facts(const Report *r, FILE *f) {
    const Dims *d = &r->e.use.d;
    char s[400], looks[80];
    if (!r->model) {
        fact(f, "model", r->no_model ? r->no_model : "not opened");
        return;
    }
    snprintf(looks, sizeof looks, d->X > 1 ? "layers 0, %d, %d ... look" : "all layers look", d->X, 2 * d->X);
    snprintf(s, sizeof s, "%.2f M", (double)r->e.use.model.params.count / 1e6);
    fact(f, "parameters", s);
    snprintf(s, sizeof s, "%d layers of width %d, %d heads, feed-forward %d; %d queries; %s at the image", d->L, d->C,
             d->H, d->F, d->Q, looks);
    fact(f, "Q-Former", s);
    snprintf(s, sizeof s, "%d tokens of %d from %s", d->P, d->E, set_encoder(r->e.use.set)->name);
    fact(f, "images", s);
    if (d->V) {
        snprintf(s, sizeof s, "%d word pieces of %s", d->V, r->e.use.vocab);
        fact(f, "vocabulary", s);
    }
    if (d->W) fact(f, "speaks to", r->e.use.speaker.folder);
    fact(f, "weights", r->e.use.path);
}

static void section_about(const Report *r, FILE *f) {
    html(f, "<section id=\"about\"><h2>Settings</h2>\n<div class=\"two\"><div class=\"card\"><table "
            "class=\"facts\"><tbody>\n");
    model_facts(r, f);
    html(f, "</tbody></table></div><div class=\"card\"><table class=\"facts\"><tbody>\n");
    machine_facts(r, f);
    html(f, "</tbody></table></div></div>\n");
    if (r->config) {
        html(f, "<details><summary>The run's whole configuration</summary><pre>");
        html_text(f, r->config);
        html(f, "</pre></details>\n");
    } else {
        missing(f, "The run's configuration is not known: its log does not begin with one.");
    }
    if (r->log.texts) {
        html(f, "<details><summary>What the run said (%lld)</summary><pre>", (long long)r->log.texts);
        for (int64_t i = 0; i < r->log.texts; i++)
            html(f, "step %lld: %s\n", (long long)r->log.text[i].step, r->log.text[i].text);
        html(f, "</pre></details>\n");
    }
    html(f, "</section>\n");
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

Status report_page(Report *r, FILE *f) {
    char when[40] = "";
    time_t now = time(NULL);
    struct tm tm;
    head(r, f);
    section_training(r, f);
    report_model_parts(r, f);
    section_speed(r, f);
    section_about(r, f);
    if (gmtime_r(&now, &tm)) strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &tm);
    html(f,
         "</main>\n<footer>Made by qformer report on %s. Everything is in this file: it fetches nothing and runs no "
         "script.</footer>\n",
         when);
    thumbs_write(f, &r->thumbs);
    html(f, "</body></html>\n");
    return ferror(f) ? err_set(ERR_IO, "the page could not be written") : OK;
}
