/* dist_self: who this process is among the others: what the parts of dist share. Private to dist. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct {
    int rank, size, local;              /* local: rank among the processes of this machine */
    double timeout;                     /* seconds; 0: none */
    _Atomic int64_t step;               /* under way; -1: none */
    bool failed;                        /* some rank said that it cannot go on */
    pid_t *pid;                         /* (size) of other ranks, when their process can be seen from here; else 0 */
} DistSelf;
extern DistSelf dist_self;

const char *dist_in_step(void);         /* " in step 17", or nothing */
