/* seconds: the clocks of benches: wall time (CLOCK_MONOTONIC), and processor time (CLOCK_PROCESS_CPUTIME_ID), which says
 * more on a busy machine. */
#pragma once
#include <time.h>

static inline double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
