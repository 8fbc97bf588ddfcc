/* scratch: a temporary folder that goes away with all below it, and files put there byte by byte. A test stands in it
 * (scratch_setup), or stays where the fixtures are and names what lies there (scratch_open, scratch_path). */
#pragma once
#include <stddef.h>

#include "tests/kit/check.h"

int scratch_setup(void **state);        /* for cmocka_run_group_tests */
int scratch_open(void **state);
int scratch_teardown(void **state);

const char *scratch_dir(void);
const char *scratch_path(const char *name);                 /* eight live at a time */
void scratch_put(const char *name, const void *bytes, size_t n);
void scratch_write(const char *name, const char *text);
