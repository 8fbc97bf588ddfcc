/* first: the error of the first failing item of a loop that several threads share;
 * threads have messages of their own. */
#pragma once
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

typedef struct {
    Status st;
    int64_t item;
    char why[1024];
} First;

static inline void first_note(First *f, Status st, int64_t item) {
    if (st == OK) return;
#pragma omp critical(first_note)
    if (f->st == OK || item < f->item) {
        f->st = st;
        f->item = item;
        snprintf(f->why, sizeof f->why, "%s", err_message());
    }
}

static inline Status first_take(const First *f) { return f->st == OK ? OK : err_set(f->st, "%s", f->why); }
