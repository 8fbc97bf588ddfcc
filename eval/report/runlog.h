/* runlog: a run's log.jsonl (train/log.h), read back. Called by the report.
 *
 * Columns are log_fields.h's list, so a column added there is here. A file that a killed run left may end in half a
 * line, and may hold anything else if somebody edited it: lines that are no JSON object with a step are counted and
 * passed over, never an error. Strings are copied. Does not judge (report_notes.c does). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eval/report/log_fields.h"
#include "kernels/base/err.h"

/* The numbers of a line: what log.h records and computes. */
typedef enum {
#define FIELD(name, ...) RL_##name,
    LOG_FIELDS(FIELD) LOG_SPEEDS(FIELD)
#undef FIELD
    RL_COLUMNS
} RunColumn;

/* What validation reports (train/validate.c). */
#define RUN_EVALS(X) X(txt_r1) X(txt_r5) X(txt_r10) X(img_r1) X(img_r5) X(img_r10) X(loss) X(itc) X(itm) X(itg) \
    X(answers) X(shapes)
typedef enum {
#define X(name) RE_##name,
    RUN_EVALS(X)
#undef X
    RE_COLUMNS
} EvalColumn;

typedef struct {
    int64_t step;
    double time, v[RL_COLUMNS];
    bool first;
} RunLine; /* NAN: absent; first: of a session */
typedef struct { int64_t step; double time, v[RE_COLUMNS]; } RunEval;
typedef struct { int64_t step; char *text; } RunText;
typedef struct {
    int64_t step, total_steps;
    double time, last, peak_flops;
    char *command, *config;
} RunStart; /* last: of its lines */

typedef struct {
    RunLine *line;
    RunEval *eval;
    RunText *text;
    RunStart *start;                    /* one a session: a run that was resumed has several */
    int64_t lines, evals, texts, starts;
    int64_t bad;                        /* lines passed over */
    bool torn;                          /* the last line has no end */
} RunLog;                               /* starts as {0} */

Status runlog_read(RunLog *l, const char *path);                             /* ERR_IO, ERR_MEMORY */
Status runlog_parse(RunLog *l, const char *text, size_t n);                  /* ERR_MEMORY */
void runlog_close(RunLog *l);                                                /* accepts an empty one */

/* Of the whole run, as far as logged lines tell. */
typedef struct {
    int64_t steps, total_steps;
    double pairs;                       /* seen */
    double wall_s, step_s, wait_s; /* of sessions from start to last line; inside steps; of that, waiting for data */
    double pairs_per_s, peak_percent;   /* means over the time inside steps */
    double step_ms_median;
    double skipped;                     /* steps left out for a gradient that was not finite */
} RunSums;

void runlog_sums(const RunLog *l, RunSums *s);
double runlog_last(const RunLog *l, RunColumn c); /* the last finite value, NAN without one */
int64_t runlog_best(const RunLog *l); /* index of the eval with the best recall@1, -1 */

/* Steps that line i stands for. */
int64_t runlog_span(const RunLog *l, int64_t i);
