/* runlog: see runlog.h. */
#include "eval/report/runlog.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/textfile.h"
#include "kernels/base/mem.h"

static const char *const columns[RL_COLUMNS] = {
#define FIELD(name, ...) #name,
    LOG_FIELDS(FIELD) LOG_SPEEDS(FIELD)
#undef FIELD
};

static const char *const evals[RE_COLUMNS] = {
#define X(name) #name,
    RUN_EVALS(X)
#undef X
};

/* Item number n of a list, zero. */
static void *one_more(void *list, int64_t n, size_t size) {
    void **p = list;
    return mem_room(list, (size_t)n, 1, size) == OK ? memset((char *)*p + (size_t)n * size, 0, size) : NULL;
}

static char *copy_str(const Json *j) {
    const char *s = json_str(j, NULL);
    return mem_strdup(s ? s : "");
}

static double number(const Json *o, const char *key) {
    double v;
    return json_num(json_get(o, key), &v) ? v : NAN;
}

/* ---- one line ---------------------------------------------------------------------------------------------------- */

static Status add_start(RunLog *l, const Json *o, int64_t step, double time) {
    RunStart *s = one_more(&l->start, l->starts, sizeof *s);
    if (!s) return ERR_MEMORY;
    l->starts++;
    *s = (RunStart){.step = step,
                    .time = time,
                    .last = time,
                    .peak_flops = number(o, "peak_flops"),
                    .command = copy_str(json_get(o, "command")),
                    .config = copy_str(json_get(o, "config"))};
    json_int(json_get(o, "total_steps"), &s->total_steps);
    return s->command && s->config ? OK : ERR_MEMORY;
}

static Status add_eval(RunLog *l, const Json *o, int64_t step, double time) {
    RunEval *e = one_more(&l->eval, l->evals, sizeof *e);
    if (!e) return ERR_MEMORY;
    l->evals++;
    e->step = step, e->time = time;
    for (int i = 0; i < RE_COLUMNS; i++) e->v[i] = number(o, evals[i]);
    return OK;
}

static Status add_text(RunLog *l, const Json *text, int64_t step) {
    RunText *t = one_more(&l->text, l->texts, sizeof *t);
    if (!t) return ERR_MEMORY;
    l->texts++;
    *t = (RunText){step, copy_str(text)};
    return t->text ? OK : ERR_MEMORY;
}

static Status add_line(RunLog *l, const Json *o, int64_t step, double time) {
    RunLine *r = one_more(&l->line, l->lines, sizeof *r);
    if (!r) return ERR_MEMORY;
    /* a session began since the line before: its time holds the warm-up */
    bool first = !l->lines || (l->starts && l->start[l->starts - 1].time >= l->line[l->lines - 1].time);
    l->lines++;
    r->step = step, r->time = time, r->first = first;
    for (int i = 0; i < RL_COLUMNS; i++) r->v[i] = number(o, columns[i]);
    return OK;
}

static Status add(RunLog *l, const Json *o) {
    int64_t step;
    if (json_type(o) != J_OBJECT || !json_int(json_get(o, "step"), &step) || step < 0) {
        l->bad++;
        return OK;
    }
    double time = number(o, "time");
    if (json_get(o, "start")) return add_start(l, json_get(o, "start"), step, time);
    if (l->starts && time > l->start[l->starts - 1].last) l->start[l->starts - 1].last = time;
    if (json_get(o, "eval")) return add_eval(l, json_get(o, "eval"), step, time);
    if (json_get(o, "text")) return add_text(l, json_get(o, "text"), step);
    return add_line(l, o, step, time);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

Status runlog_parse(RunLog *l, const char *text, size_t n) {
    *l = (RunLog){0};
    Status st = OK;
    while (st == OK && n) {
        const char *end = memchr(text, '\n', n);
        size_t line = end ? (size_t)(end - text) : n;
        Json *o = NULL;
        l->torn = !end;
        if (line && json_parse(&o, text, line, "log.jsonl") != OK) {
            err_clear();                                     /* half a line of a killed run, or somebody's edit */
            l->bad++;
        } else if (line) {
            st = add(l, o);
        }
        json_free(o);
        line += end ? 1 : 0;
        text += line, n -= line;
    }
    if (st != OK) runlog_close(l);
    return st;
}

Status runlog_read(RunLog *l, const char *path) {
    char *text = NULL;
    size_t n = 0;
    *l = (RunLog){0};
    Status st = textfile_read(&text, &n, path, "a run's log");
    if (st == OK) st = runlog_parse(l, text, n);
    free(text);
    return st;
}

void runlog_close(RunLog *l) {
    for (int64_t i = 0; i < l->texts; i++) free(l->text[i].text);
    for (int64_t i = 0; i < l->starts; i++) mem_free(l->start[i].command, l->start[i].config);
    mem_free(l->line, l->eval, l->text, l->start);
    *l = (RunLog){0};
}

/* ---- sums -------------------------------------------------------------------------------------------------------- */

int64_t runlog_span(const RunLog *l, int64_t i) {
    int64_t before = 0;
    if (i > 0) before = l->line[i - 1].step;
    /* a resumed run goes on from its checkpoint, not from the last line */
    if (l->line[i].first)
        for (int64_t s = 0; s < l->starts; s++)
            if (l->start[s].time <= l->line[i].time) before = l->start[s].step;
    int64_t n = l->line[i].step - before;
    return n > 0 ? n : 0;
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_step(const RunLog *l) {
    double *v = mem_new((size_t)l->lines, sizeof *v), m = NAN;
    size_t n = 0;
    if (!v) return NAN;
    for (int64_t i = 0; i < l->lines; i++)
        if (isfinite(l->line[i].v[RL_step_ms])) v[n++] = l->line[i].v[RL_step_ms];
    if (n) {
        qsort(v, n, sizeof *v, rising);
        m = v[n / 2];                                        /* a median: one stall must not move it */
    }
    free(v);
    return m;
}

void runlog_sums(const RunLog *l, RunSums *s) {
    double peak = 0, peak_s = 0;
    *s = (RunSums){.step_ms_median = median_step(l)};
    for (int64_t i = 0; i < l->lines; i++) {
        const double *v = l->line[i].v;
        double seconds = v[RL_step_ms] / 1e3 * (double)runlog_span(l, i);
        if (isfinite(v[RL_skipped])) s->skipped = v[RL_skipped];
        if (!isfinite(seconds)) continue;                    /* a line of steps that were all left out */
        s->step_s += seconds;
        if (isfinite(v[RL_wait_percent])) s->wait_s += seconds * v[RL_wait_percent] / 100;
        if (isfinite(v[RL_pairs_per_s])) s->pairs += seconds * v[RL_pairs_per_s];
        if (isfinite(v[RL_peak_percent])) peak += seconds * v[RL_peak_percent], peak_s += seconds;
    }
    s->steps = l->lines ? l->line[l->lines - 1].step : 0;
    for (int64_t i = 0; i < l->texts; i++)                   /* where it was stopped, between two lines */
        if (l->text[i].step > s->steps) s->steps = l->text[i].step;
    for (int64_t i = 0; i < l->starts; i++) {
        if (l->start[i].last > l->start[i].time) s->wall_s += l->start[i].last - l->start[i].time;
        s->total_steps = l->start[i].total_steps;
    }
    s->pairs = round(s->pairs);
    s->pairs_per_s = s->step_s > 0 ? s->pairs / s->step_s : NAN;
    s->peak_percent = peak_s > 0 ? peak / peak_s : NAN;
}

double runlog_last(const RunLog *l, RunColumn c) {
    for (int64_t i = l->lines; i-- > 0;)
        if (isfinite(l->line[i].v[c])) return l->line[i].v[c];
    return NAN;
}

int64_t runlog_best(const RunLog *l) {
    int64_t best = -1;
    double most = -1;
    for (int64_t i = 0; i < l->evals; i++) {
        const double *v = l->eval[i].v;
        double mean = 0.5 * (v[RE_txt_r1] + v[RE_img_r1]) +
                      1e-3 * (v[RE_txt_r10] + v[RE_img_r10]); /* as training chooses */
        if (mean > most) most = mean, best = i;
    }
    return best;
}
