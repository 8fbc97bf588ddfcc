/* log: see log.h. */
#include "train/log.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/format/json.h"
#include "data/format/outfile.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "train/events.h"

typedef enum { MEAN, LAST } How;

typedef struct {
    const char *name, *tag;
    const char *format[2];             /* of a lasting line, of the live one; NULL: not there */
    How how;
} Column;

static const Column columns[] = {
#define FIELD(name, tag, how, plain, live) { #name, tag, { plain, live }, how },
    LOG_FIELDS(FIELD)
#define FIRST_SPEED_(...) + 1
    LOG_SPEEDS(FIELD)
#undef FIELD
};

enum { FIELDS = 0 LOG_FIELDS(FIRST_SPEED_), COLUMNS = sizeof columns / sizeof columns[0] };
#undef FIRST_SPEED_

/* Sums whose quotients are speeds. */
typedef struct { double steps, seconds, pairs, wait_s, flops; } Work;

struct Log {
    FILE *f;
    Events *events;                    /* NULL: not wanted */
    char *path;
    LogSetup setup;
    int64_t every, step;
    int verbose;
    double clock;                      /* when the last step ended */
    double sum[FIELDS];                /* since the last line */
    int64_t count[FIELDS];
    double last[FIELDS];
    double recent[FIELDS];             /* fading average, for the live line */
    Work line, fading;
};

static double wall_time(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* Bytes of the old log that stay: whole lines up to the first one of a step after `last`. */
static Status lines_to_keep(const char *path, int64_t last, off_t *keep) {
    FILE *f = fopen(path, "rb");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    *keep = 0;
    if (!f) return errno == ENOENT ? OK : err_set(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    while ((n = getline(&line, &room, f)) > 0 && line[n - 1] == '\n') {
        long long step = 0;
        /* our own lines: no parser is needed to see their step */
        if (sscanf(line, "{\"step\":%lld", &step) == 1 && step > last) break;
        *keep += n;
    }
    free(line);
    fclose(f);
    return OK;
}

static Status prepare_file(const char *path, const char *old, int64_t resumed_step) {
    off_t keep = 0;
    Status st = OK;
    if (resumed_step > 0) {
        st = lines_to_keep(path, resumed_step, &keep);
        if (!st && truncate(path, keep) && errno != ENOENT)
            st = err_set(ERR_IO, "cannot cut %s: %s", path, strerror(errno));
    /* a fresh run in an old folder: its log is kept, one back */
    } else if (rename(path, old) && errno != ENOENT) {
        st = err_set(ERR_IO, "cannot rename %s to %s: %s", path, old, strerror(errno));
    }
    return st;
}

/* A line of the log: begun with its step and the time, ended, and at the disk. */
static JsonWriter line_begin(Log *log, int64_t step, double time) {
    JsonWriter w;
    jw_begin(&w, log->f, 0);
    jw_object(&w, NULL);
    jw_int(&w, "step", step);
    jw_num(&w, "time", time);
    return w;
}

static Status line_end(Log *log, JsonWriter *w) {
    jw_end(w);
    Status st = jw_done(w);
    return st ? err_context(st, "cannot write %s", log->path) : OK;
}

static Status write_start(Log *log, const char *command, const char *config) {
    JsonWriter w = line_begin(log, log->step, wall_time());
    jw_object(&w, "start");
    jw_str(&w, "command", command);
    jw_int(&w, "total_steps", log->setup.total_steps);
    jw_num(&w, "peak_flops", log->setup.peak_flops);
    jw_str(&w, "config", config);
    jw_end(&w);
    return line_end(log, &w);
}

static Status open_files(Log *log, const Options *o) {
    const char *out = o->run.out;
    char *old = mem_format("%s/log.old.jsonl", out), *events = mem_format("%s/events", out), *text = NULL;
    char *config = mem_format("%s/config.yaml", out);
    Status st = ERR_MEMORY;
    log->path = mem_format("%s/log.jsonl", out);
    if (!old || !events || !config || !log->path) goto done;
    if ((st = options_text(o, &text))) goto done;
    if ((st = outfile_parents(log->path)) || (o->train.events && (st = outfile_mkdir(events)))) goto done;
    if ((st = outfile_put(config, text, strlen(text)))) goto done;
    if ((st = prepare_file(log->path, old, log->step))) goto done;
    if (!(log->f = fopen(log->path, "ab"))) {                /* what it said before it was stopped stays */
        st = err_set(ERR_IO, "cannot open %s: %s", log->path, strerror(errno));
        goto done;
    }
    /* TensorBoard then drops what it had of the steps to come */
    if (o->train.events && (st = events_open(&log->events, events, log->step + 1))) goto done;
    st = write_start(log, o->command, text);
done:
    mem_free(old, events, config, text);
    return st;
}

Status log_open(Log **out, const Options *o, const LogSetup *setup) {
    *out = NULL;
    Status st = options_require(o, "out");
    if (st) return st;
    Log *log = mem_new(1, sizeof *log);
    if (!log) return ERR_MEMORY;
    log->setup = *setup;
    log->step = setup->resumed_step;
    log->every = o->train.log_every;
    log->verbose = (int)o->run.verbose;
    log->clock = status_clock();
    for (int i = 0; i < FIELDS; i++) log->recent[i] = log->last[i] = NAN; /* not measured yet, so not shown */
    if (setup->speaks && (st = open_files(log, o))) {
        log_close(log);
        return st;
    }
    *out = log;
    return OK;
}

void log_close(Log *log) {
    if (!log) return;
    if (log->setup.speaks) status_end();                     /* a live line must not stay */
    if (log->f) fclose(log->f);
    events_close(log->events);
    mem_free(log->path, log);
}

/* ---- a step ------------------------------------------------------------------------------------------------------ */

LogStep log_blank(int64_t step) {
    return (LogStep){
        .step = step,
#define FIELD(name, tag, how, plain, live) .name = NAN,
        LOG_FIELDS(FIELD)
#undef FIELD
    };
}

double *log_field(LogStep *s, const char *name) {
#define FIELD(field, tag, how, plain, live) if (strcmp(name, #field) == 0) return &s->field;
    LOG_FIELDS(FIELD)
#undef FIELD
    BUG_ON(1, "log: no field %s", name);
}

/* A step's work, on top of so much of what there was. */
static void add_work(Work *w, double keep, const LogStep *s, double seconds) {
    *w = (Work){keep * w->steps + 1, keep * w->seconds + seconds, keep * w->pairs + s->pairs,
                keep * w->wait_s + s->wait_s, keep * w->flops + s->flops};
}

static void accumulate(Log *log, const LogStep *s) {
    const double values[FIELDS] = {
#define FIELD(name, tag, how, plain, live) s->name,
        LOG_FIELDS(FIELD)
#undef FIELD
    };
    double now = status_clock();
    for (int i = 0; i < FIELDS; i++) {
        log->last[i] = values[i];
        if (!isfinite(values[i])) continue;              /* a step that was skipped must not spoil the mean */
        log->sum[i] += values[i];
        log->count[i]++;
        /* the first value as it is: an average that begins at 0 would climb for a minute */
        log->recent[i] = isnan(log->recent[i]) ? values[i] : 0.95 * log->recent[i] + 0.05 * values[i];
    }
    add_work(&log->line, 1, s, now - log->clock);
    /* some twenty steps: long enough to stand still, short enough to follow */
    add_work(&log->fading, 0.95, s, now - log->clock);
    log->clock = now;
    log->step = s->step;
}

/* The speeds, in the order of LOG_SPEEDS. NAN where something is unknown. */
static void speeds(const Log *log, const Work *w, double *to) {
    double t = w->seconds > 0 ? w->seconds : NAN, peak = log->setup.peak_flops;
    to[0] = w->pairs > 0 ? w->pairs / t : NAN;
    to[1] = 1e3 * t / w->steps;
    to[2] = peak > 0 && w->flops > 0 ? 100 * w->flops / t / peak : NAN;
    to[3] = 100 * w->wait_s / t;
}

/* All columns: of the steps since the last line, or (live) fading over the last twenty. */
static void collect(const Log *log, bool live, double *to) {
    for (int i = 0; i < FIELDS; i++) {
        double mean = log->count[i] ? log->sum[i] / (double)log->count[i] : NAN;
        to[i] = columns[i].how == LAST ? log->last[i] : live ? log->recent[i] : mean;
    }
    speeds(log, live ? &log->fading : &log->line, to + FIELDS);
}

static void append(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void append(char *buf, size_t size, const char *fmt, ...) {
    size_t n = strlen(buf);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(buf + n, size - n, fmt, ap);
    va_end(ap);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"      /* the formats of LOG_FIELDS: one %f each */
static void console_line(const Log *log, bool live, const double *values, char *buf, size_t size) {
    char t[32];
    const char *gap = live ? " " : "  ";
    int64_t total = log->setup.total_steps;
    /* of the last twenty: evaluations and a slow start are not the run */
    double step_s = log->fading.seconds / log->fading.steps;
    snprintf(buf, size, "%s%lld", live ? "" : "step ", (long long)log->step);
    if (total > 0) append(buf, size, "/%lld", (long long)total);
    for (int i = 0; i < COLUMNS; i++) {
        if (!columns[i].format[live] || isnan(values[i])) continue;
        append(buf, size, "%s", gap);
        append(buf, size, columns[i].format[live], values[i]);
    }
    if (total > log->step)
        append(buf, size, "%s%s left", gap, status_time(step_s * (double)(total - log->step), t, sizeof t));
}
#pragma GCC diagnostic pop

static Status write_line(Log *log, const double *values) {
    EventScalar scalars[COLUMNS];
    int n = 0;
    double now = wall_time();
    JsonWriter w = line_begin(log, log->step, now);
    for (int i = 0; i < COLUMNS; i++) {
        if (!isfinite(values[i])) continue;
        jw_num(&w, columns[i].name, values[i]);
        scalars[n++] = (EventScalar){ columns[i].tag, values[i] };
    }
    Status st = line_end(log, &w);
    return st || !log->events ? st : events_scalars(log->events, log->step, now, scalars, n);
}

Status log_step(Log *log, const LogStep *s) {
    double values[COLUMNS];
    char text[512];
    Status st = OK;
    if (!log->setup.speaks) return OK;
    accumulate(log, s);
    bool due = s->step % log->every == 0 || s->step == log->setup.total_steps;
    /* where the live line shows it already, the same figures would scroll past twice */
    bool lasting = log->verbose > 0 || (due && !status_is_live());
    if (due) {
        collect(log, false, values);
        st = write_line(log, values);
        memset(log->sum, 0, sizeof log->sum);
        memset(log->count, 0, sizeof log->count);
        memset(&log->line, 0, sizeof log->line);
    } else {
        collect(log, true, values);
    }
    console_line(log, !lasting, values, text, sizeof text);
    if (lasting) status_say("%s", text);
    else status_line(text);
    return st;
}

void log_pause(Log *log) { log->clock = status_clock(); }

/* ---- now and then ------------------------------------------------------------------------------------------------ */

/* On the console a measure has the name that it has in the tables of retrieval. */
static const char *measure_name(const char *name) {
    static const char *const names[][2] = {
        {"txt_r1", "image to text R@1"}, {"txt_r5", "R@5"}, {"txt_r10", "R@10"},
        {"img_r1", "text to image R@1"}, {"img_r5", "R@5"}, {"img_r10", "R@10"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i][0]) == 0) return names[i][1];
    return name;
}

Status log_eval(Log *log, int64_t step, const LogValue *values, int n) {
    char text[512];
    double now = wall_time();
    if (!log->setup.speaks) return OK;
    snprintf(text, sizeof text, "eval at step %lld", (long long)step);
    JsonWriter w = line_begin(log, step, now);
    jw_object(&w, "eval");
    for (int i = 0; i < n; i++) {
        /* JSON has no NaN */
        if (!isfinite(values[i].value)) continue;
        jw_num(&w, values[i].name, values[i].value);
        append(text, sizeof text, "  %s %.4g", measure_name(values[i].name), values[i].value);
    }
    jw_end(&w);
    Status st = line_end(log, &w);
    for (int i = 0; i < n && log->events && !st; i++) {
        char tag[128];
        snprintf(tag, sizeof tag, "eval/%s", values[i].name);
        EventScalar s = { tag, values[i].value };
        if (isfinite(s.value)) st = events_scalars(log->events, step, now, &s, 1);
    }
    status_say("%s", text);
    return st;
}

Status log_text(Log *log, const char *fmt, ...) {
    char text[2048];
    va_list ap;
    if (!log->setup.speaks) return OK;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    status_say("%s", text);
    JsonWriter w = line_begin(log, log->step, wall_time());
    jw_str(&w, "text", text);
    return line_end(log, &w);
}
