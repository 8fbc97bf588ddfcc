/* version: what this build is: its version, its compiler, and which optional parts are in it. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

const char *version_string(void);      /* "0.1.0" or what git describe said when this was built */
void version_print(FILE *f);           /* version, compiler, and the optional parts that are in and out */

/* The parts a build can be without, and what to install for each. */
typedef struct { const char *name; bool in; const char *what, *package; } BuildPart;
extern const BuildPart build_parts[];
extern const int build_part_count;
