/* check: cmocka with what it must be preceded by, and what a test cannot go on without. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/base/err.h"

static inline void passes(Status st) {
    if (st != OK) fail_msg("%s: %s", err_name(st), err_message());
}
