/* must: what a bench cannot go on without. */
#pragma once
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/base/err.h"

static inline void must(Status st) {
    if (st == OK) return;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, err_message());
    exit(1);
}
