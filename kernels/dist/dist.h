/* dist: several processes. MPI starts them, tells ranks apart and moves host memory; NCCL (backend.h) moves device
 * memory. mpi.h is included by dist.c alone; without it, or when nobody launched several, there is one process, and
 * every call here is a copy or nothing. Does not know what it moves.
 *
 * The one idea: nobody waits blindly. Every operation is a non-blocking one that is polled, and beside the data run
 * small tokens: "I am here" from a rank that has waited a while, "I failed, and why" from one that cannot go on. So an
 * operation ends in one of three ways: it is done; a rank said why it failed; or the time-out is over (or a process of
 * this machine is seen to be gone) and the sentence names who did not come, to what, in which step.
 *
 * A failure is final. Every rank returns ERR_DIST from the operation it waits in, is told the same cause, and should
 * end with exit code 1; dist calls after that return the same error at once. MPI_Finalize and MPI_Abort are left out
 * then: the launcher sees the exit codes and ends whoever is left (srun wants --kill-on-bad-exit).
 *
 * One thread uses this (that of dist_open). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/base/err.h"

Status dist_open(int *argc, char ***argv);   /* starts MPI only under a launcher (mpirun, srun) */
/* ERR_USAGE: a launcher started several processes that MPI does not know of: each would do all of the work, alone. */
Status dist_alone(void);
void dist_close(void);
int dist_rank(void);
int dist_size(void);
int dist_local_rank(void);                   /* rank among the processes of this machine: which GPU to take */

bool dist_failed(void);                      /* some rank said that it cannot go on */

void dist_set_timeout(double seconds);       /* of every operation from now on; 0: none. 600 at first */
void dist_step(int64_t step);                /* for sentences: the step from now on; -1: none */

/* Host memory, all ranks call alike. op: what the operation is called in sentences ("the sum of gradients"), a string
 * that lives on. all_gather: dst holds size() blocks of `bytes`, in rank order. Sums are taken in
 * rank order: the same bits on every rank and in every run. */
Status dist_all_gather(void *dst, const void *src, size_t bytes, const char *op);
Status dist_all_reduce_f32(float *x, int64_t n, const char *op);
Status dist_all_reduce_f64(double *x, int64_t n, const char *op);
Status dist_broadcast(void *x, size_t bytes, int root, const char *op);
Status dist_barrier(const char *op);
double dist_received(void);                  /* bytes that came from other ranks by the calls here, so far */

/* A large array in parts: rank r has elements [at, at + n) of `total`; parts are multiples of 64 but for the last ones.
 * all_reduce = reduce_parts, then gather_parts. `half`: bf16 on the wire, half the bytes: each rank's share is rounded
 * once, added in f32, and the sum rounded once more. After reduce_parts only the own part holds sums; the rest of x is
 * as before. */
typedef struct { int64_t at, n; } DistPart;
DistPart dist_part(int64_t total, int rank);
Status dist_reduce_parts(float *x, int64_t total, bool half, const char *op);
Status dist_gather_parts(float *x, int64_t total, bool half, const char *op);

/* Ends alike on all ranks: OK when all came with OK. A rank that comes with an error tells the others (which get
 * ERR_DIST and its message, in this or whatever other operation they wait in) and returns its own. */
Status dist_agree(Status mine);
Status dist_agree_at(Status mine, const char *op);

/* ERR_USAGE, with the first line that differs, on ranks whose text is not that of rank 0; the others learn of it. */
Status dist_same(const char *what, const char *text);
/* The same for the running program itself: replicas of weights stay equal only under equal instructions. */
Status dist_same_program(const char *version);

/* Opens the backend's own collectives over all ranks, when it has them and there are several. */
Status dist_open_device(const Backend *b);
void dist_close_device(const Backend *b);    /* before memory they may still use is released */
/* Call when a collective of b has been enqueued, before the host waits for b: then the host waits where a missing rank
 * is noticed. Nothing on a backend that only measures. */
Status dist_arrived(const Backend *b, const char *op);
/* dist_arrived's second half: from here to the next call here, a thread has an eye on the clock. */
void dist_watch(const char *op);
/* A failure that the device's library found by itself becomes a sentence with rank, operation and step. */
Status dist_blame(Status st);

const char *dist_version(void);              /* "Open MPI 4.1.4", or why there is none */
