/* program: the program itself, started as a shell would start it: $QFORMER_BIN, else build/qformer.
 *
 * Used by the tests that look at it from outside. program_run waits, and gives back how it ended, what it took and what
 * it said on either stream. */
#pragma once
#include <stdio.h>
#include <sys/resource.h>
#include <sys/types.h>

typedef struct {
    int code, signal;                       /* code -1: ended by the signal */
    double cpu;                             /* seconds, user and system */
    long kilobytes;                         /* most memory it held */
    char out[1 << 16], err[1 << 14];
} Run;

enum { PROGRAM_SECONDS = 60, PROGRAM_WORDS = 40 };

/* Its absolute path; NULL when it is not built. */
const char *program_path(void);

/* Kills what runs longer than a minute: then the signal is SIGKILL. */
int program_wait(pid_t pid, struct rusage *usage);

/* Runs it in the folder `dir` (NULL: this one) with the words of `line`, blanks between. NULL: it cannot be started. */
Run *program_run(const char *dir, const char *line);
