/* scratch: a temporary folder that a test stands in, and that goes away with all below it; files put there byte by byte. */
#ifndef QF_SCRATCH_H
#define QF_SCRATCH_H
#include <stddef.h>

int scratch_setup(void **state);        /* for cmocka_run_group_tests */
int scratch_teardown(void **state);

void scratch_put(const char *name, const void *bytes, size_t n);

#endif
