/* dist_watch: see dist_watch.h and dist_watch() in dist.h.
 *
 * While the host waits for a collective of the device it cannot poll, so a thread looks at the clock and at the
 * processes of this machine, says what it can see, and ends this process: nothing else frees a host from a device that
 * waits for a rank that is stopped or gone. It speaks only when the host still waits a moment later: a library that
 * notices by itself (NCCL) lets the host go on, which then says it, with dist_blame. */
#ifdef HAVE_MPI
#include "kernels/dist/dist_watch.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "kernels/dist/dist_self.h"

static struct {
    pthread_t thread;
    bool started;
    const char *op;
    _Atomic int64_t since;              /* ms; 0: the host does not wait */
} my;

/* R running, T stopped, X gone or never seen ('?'). */
char process_state(pid_t pid) {
    char path[48], text[512] = "";
    if (!pid) return '?';
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return 'X';
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *end = strrchr(text, ')');                    /* the last: a program's name may hold brackets */
    char c = end && end[1] ? end[2] : 'X';
    return c == 'Z' || c == 'X' ? 'X' : c == 'T' ? 'T' : 'R';
}

/* "rank 1 (process 17, which is gone)", or "a rank"; whether one is gone. */
static bool name_absent(char *who, size_t size) {
    bool gone = false;
    snprintf(who, size, "a rank");
    for (int r = dist_size() - 1; r >= 0; r--) {             /* downwards: the lowest is named in the end */
        pid_t pid = dist_self.pid ? dist_self.pid[r] : 0;
        char state = process_state(pid);
        gone = gone || state == 'X';
        if (state == 'T' || state == 'X')
            snprintf(who, size, "rank %d (process %d, which is %s)", r, (int)pid, state == 'T' ? "stopped" : "gone");
    }
    return gone;
}

static void *watch(void *unused) {
    const double LOOK = 0.2, MOMENT = 0.3;
    double last = status_clock(), asleep = 0;                /* time that this process was stopped itself */
    int64_t before = 0;
    char who[100];
    (void)unused;
    for (;; last = status_clock()) {
        nap(LOOK);
        int64_t since = my.since;
        if (since != before) asleep = 0;
        else if (status_clock() - last > 1) asleep += status_clock() - last;
        before = since;
        if (!since) continue;
        double waited = status_clock() - 1e-3 * (double)since - asleep;
        if (!name_absent(who, sizeof who) && (dist_self.timeout <= 0 || waited < dist_self.timeout)) continue;
        nap(MOMENT);
        if (my.since != since) continue;
        /* by hand, not by err: that message is of the thread that waits */
        fprintf(stderr, "qformer: %s keeps %s%s from ending; rank %d waited %.1f s\n", who, my.op, dist_in_step(),
                dist_rank(), waited);
        nap(0.4);
        _exit(1);                                            /* not exit: what it calls would wait for the device */
    }
    return NULL;
}

void dist_watch(const char *op) {
    if (dist_size() == 1) return;
    my.op = op;
    if (!my.started) my.started = pthread_create(&my.thread, NULL, watch, NULL) == 0;
    my.since = (int64_t)(status_clock() * 1e3);
}

void watch_off(void) { my.since = 0; }

void watch_close(void) {
    my.since = 0;
    if (!my.started) return;
    pthread_cancel(my.thread); /* it sleeps in nanosleep, which is where a thread can be ended */
    pthread_join(my.thread, NULL);
    my.started = false;
}

Status dist_blame(Status st) {
    char who[100], why[500];
    if (st != ERR_DIST || dist_failed() || dist_size() == 1) return st;
    name_absent(who, sizeof who);
    snprintf(why, sizeof why, "%s", err_message());
    return err_set(ERR_DIST, "%s keeps %s%s from ending: %s", who, my.op ? my.op : "a collective", dist_in_step(), why);
}

#else
typedef int dist_watch_is_empty;        /* a file must declare something */
#endif
