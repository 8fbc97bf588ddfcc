/* doctor: what this build and this machine offer. Called by qformer.c for --version; the command itself is
 * cmd_doctor. */
#ifndef QF_DOCTOR_H
#define QF_DOCTOR_H
#include <stdio.h>

const char *version_string(void);      /* "0.1.0" or what git describe said when this was built */
void print_version(FILE *f);           /* version, compiler, and the optional parts that are in and out */

#endif
