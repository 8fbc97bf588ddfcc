/* log: what a run says while it runs: log.jsonl, TensorBoard events, and the console, from one list of numbers.
 *
 * Called by the training loop: once a step with the step's raw numbers. Between two lines (train.log_every steps)
 * losses are averaged and speeds are computed from counts and the clock. In the folder `out`:
 *
 *     log.jsonl      one JSON object a line: {"step":0,"start":{...}}  {"step":10,"loss":...}  {"step":50,"eval":{...}}
 *     config.yaml    the resolved configuration
 *     events/        TensorBoard (train.events)
 *
 * A run that goes on after step R cuts the lines of later steps, which it is about to repeat; a fresh run in the same
 * folder keeps the old log as log.old.jsonl. So a curve never doubles. Only one rank speaks: on the others every call
 * does nothing and returns OK. Does not decide anything: early stopping and the like are the loop's. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "configs/options.h"
#include "eval/report/log_fields.h"

typedef struct {
    int64_t step;                  /* steps done, this one included */
#define FIELD(name, tag, how, plain, live) double name;
    LOG_FIELDS(FIELD)
#undef FIELD
    double pairs;                  /* pairs of this step, over all ranks */
    double wait_s;                 /* seconds the step waited for data */
    double flops;                  /* arithmetic of the step on this rank, for the share of peak; 0: unknown */
} LogStep;

typedef struct {
    int64_t resumed_step;          /* 0: a fresh run */
    int64_t total_steps;           /* 0: unknown, no time left is shown */
    double peak_flops;             /* of this rank's device, per second; 0: unknown */
    bool speaks;                   /* false: not rank 0 */
} LogSetup;

typedef struct Log Log;

/* Makes `out`, writes config.yaml and the start line. ERR_USAGE without `out`, ERR_IO names the file. */
Status log_open(Log **log, const Options *o, const LogSetup *setup);
void log_close(Log *log);                                              /* accepts NULL */

LogStep log_blank(int64_t step);                                       /* nothing measured */
double *log_field(LogStep *s, const char *name);                       /* a field of LOG_FIELDS, which must exist */
Status log_step(Log *log, const LogStep *s);                           /* ERR_IO when a file could not be written */

typedef struct { const char *name; double value; } LogValue;

/* Results at a step (recall, metrics): a line in the log, events under "eval/", a line on the console. */
Status log_eval(Log *log, int64_t step, const LogValue *values, int n);

/* A sentence: on the console, and in the log at the step last logged. */
Status log_text(Log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* What passed since the last log_step was no training (an evaluation, a checkpoint): speeds leave it out. */
void log_pause(Log *log);
