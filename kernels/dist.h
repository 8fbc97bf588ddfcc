/* dist: several processes. MPI starts them, tells ranks apart and moves host memory; NCCL (backend.h) moves device memory.
 * mpi.h is included by dist.c alone; without it, or when nobody launched several, there is one process, and every call here
 * is a copy or nothing. Does not know what it moves. */
#ifndef QF_DIST_H
#define QF_DIST_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/err.h"

Status dist_open(int *argc, char ***argv);   /* starts MPI only under a launcher (mpirun, srun) */
void dist_close(void);
int dist_rank(void);
int dist_size(void);
int dist_local_rank(void);                   /* rank among the processes of this machine: which GPU to take */

/* Host memory, all ranks call alike. all_gather: dst holds size() blocks of `bytes`, in rank order. all_reduce: sums, the
 * same bits on every rank. */
Status dist_all_gather(void *dst, const void *src, size_t bytes);
Status dist_all_reduce_f32(float *x, int64_t n);
Status dist_all_reduce_f64(double *x, int64_t n);
Status dist_broadcast(void *x, size_t bytes, int root);
Status dist_barrier(void);

/* The worst status of all ranks; a rank that is fine gets a message naming the first that is not. Ends collectives alike. */
Status dist_agree(Status mine);

const char *dist_version(void);              /* "Open MPI 4.1.4", or why there is none */

#endif
