/* status: the live line of a terminal, and lasting lines above it.
 *
 * Called by train/log.c and by commands that take a while. The live line goes to stderr and only to a terminal; lasting
 * lines go to stdout: `qformer pretrain ... > run.txt` keeps them and still shows the live one. Without a terminal
 * progress is a lasting line now and then. One thread speaks. Does not know ranks: rank 0 calls, the others do not. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool status_is_live(void);                     /* stderr is a terminal that can rewrite a line */
void status_line(const char *text);            /* replaces the live line; at most ten times a second */
void status_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* a lasting line, '\n' is added */
void status_warn(void *unused, const char *sentence);   /* "warning: SENTENCE", for whoever takes a function for it */
void status_detail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));   /* status_say of a run with -v */
void status_detailed(bool wanted);                                         /* whether it is one; false at first */
/* Whether all that was said reached standard output: 0, or the errno of what was lost. A reader that closed its end had
 * enough: that is no loss. Asked once, at the end of the program. */
int status_lost(void);
void status_end(void);                         /* removes the live line; errors may be printed after it */

double status_clock(void);                     /* seconds, monotonic */
const char *status_time(double seconds, char *buf, size_t n);   /* "45s" "4m 12s" "3h 05m" "2d 04h"; returns buf */

/* Progress of a loop over things, with rate and time left:   extract  1,203/3,216 images (37 %)  45.1/s  44s left */
typedef struct {
    const char *what, *unit;
    int64_t total, first;                      /* total 0: unknown; first: done by an earlier run */
    double start, said;
    const double *waited;                      /* NULL, or seconds of all that were spent waiting for data */
} Meter;

Meter meter_start(const char *what, const char *unit, int64_t total, int64_t first);
void meter_at(Meter *p, int64_t done);         /* cheap enough for every item */
void meter_end(Meter *p, int64_t done);        /* the last line, which stays */

/* The listener for work in data/ (data/listener.h): shows the meter `m`, and asks to stop when the user did.
 *     Meter m = meter_start("extract", "images", 0, 0);  Listener l = { meter_listen, &m }; */
bool meter_listen(void *m, int64_t done, int64_t total);
