/* dist_parts: what dist.h offers on top of its operations: sums by parts, comparing ranks, the device's collectives. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

Status dist_all_reduce_f32(float *x, int64_t n, const char *op) {
    for (int64_t at = 0, m; at < n; at += m) {
        m = n - at < INT_MAX / 2 ? n - at : INT_MAX / 2;
        Status st = dist_reduce_parts(x + at, m, false, op);
        if (st == OK) st = dist_gather_parts(x + at, m, false, op);
        if (st != OK) return st;
    }
    return OK;
}

/* Few numbers: everybody gets everybody's and adds them in rank order. */
Status dist_all_reduce_f64(double *x, int64_t n, const char *op) {
    if (dist_size() == 1 || n == 0) return OK;
    double *all = mem_new((size_t)dist_size() * (size_t)n, sizeof *all);
    /* the others are in the gather, or will be: they must hear of it */
    if (!all) return dist_agree(ERR_MEMORY);
    Status st = dist_all_gather(all, x, (size_t)n * sizeof *x, op);
    for (int64_t i = 0; st == OK && i < n; i++) {
        x[i] = 0;
        /* the same order everywhere: MPI's own sum may differ by rank in the last bit */
        for (int r = 0; r < dist_size(); r++) x[i] += all[r * n + i];
    }
    free(all);                                               /* after a failure too: MPI is not asked again */
    return st;
}

/* What launchers tell the processes they start, and how it is meant to be done. */
static const struct { const char *variable, *who, *instead; } launchers[] = {
    {"SLURM_STEP_NUM_TASKS", "srun", "srun --mpi=pmix (srun --mpi=list says what there is), or mpirun"},
    {"OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun", "the mpirun of the MPI that this program was built with"},
    {"PMI_SIZE", "mpiexec", "the mpirun of the MPI that this program was built with"},
    {"MV2_COMM_WORLD_SIZE", "MVAPICH's mpirun", "the mpirun of the MPI that this program was built with"},
    {"WORLD_SIZE", "torchrun, or what set WORLD_SIZE,", "mpirun -n N, or srun --mpi=pmix"},
};

Status dist_alone(void) {
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        const char *n = getenv(launchers[i].variable);
        if (n && atoi(n) > dist_size())
            return err_set(ERR_USAGE, "%s started %d tasks (%s), but MPI knows of %d: each would do all of the work, "
                           "alone, in the same folder; start it with %s", launchers[i].who, atoi(n),
                           launchers[i].variable, dist_size(), launchers[i].instead);
    }
    return OK;
}

/* The first line of a that is not so in b; NULL when there is none. */
static const char *first_difference(const char *a, const char *b, int *na, const char **other, int *nb) {
    while (*a || *b) {
        *na = (int)strcspn(a, "\n"), *nb = (int)strcspn(b, "\n");
        *other = b;
        if (*na != *nb || memcmp(a, b, (size_t)*na) != 0) return a;
        a += *na + (a[*na] != 0), b += *nb + (b[*nb] != 0);
    }
    return NULL;
}

Status dist_same(const char *what, const char *text) {
    if (dist_size() == 1) return OK;
    uint64_t n = strlen(text);
    static const char op[] = "comparing what the ranks were started with";
    dist_step(-1);
    Status st = dist_broadcast(&n, sizeof n, 0, op);
    char *first = st == OK && n < INT_MAX ? mem_new(n + 1, 1) : NULL; /* MPI counts in ints */
    if (st == OK && !first) st = ERR_MEMORY;
    if (st == OK && dist_rank() == 0) memcpy(first, text, n);
    if (st == OK) st = dist_broadcast(first, n, 0, op);
    int here_n, there_n;
    const char *there, *here = st == OK ? first_difference(text, first, &here_n, &there, &there_n) : NULL;
    if (here)
        st = err_set(ERR_USAGE, "rank %d has %s '%.*s', rank 0 '%.*s'", dist_rank(), what, here_n, here, there_n,
                     there);
    free(first);
    return dist_agree(st);
}

/* Of the program's file. */
static uint64_t program_hash(void) {
    uint64_t h = HASH_START;
    static unsigned char buf[1 << 16];
    FILE *f = fopen("/proc/self/exe", "rb");
    for (size_t n; f && (n = fread(buf, 1, sizeof buf, f)) > 0;) h = hash_bytes(h, buf, n);
    if (f) fclose(f);
    return h;
}

Status dist_same_program(const char *version) {
    if (dist_size() == 1) return OK;
    char text[160];
    snprintf(text, sizeof text, "%.100s (hash %016llx)", version, (unsigned long long)program_hash());
    return dist_same("another build of this program:", text);
}

Status dist_open_device(const Backend *b) {
    enum { ID_BYTES = 256 };                                 /* a ncclUniqueId has 128 */
    char id[ID_BYTES] = "";
    Status st = OK;
    if (dist_size() == 1 || !b->comm_open) return OK;
    if (dist_rank() == 0) st = b->comm_id(id, sizeof id);
    st = dist_agree(st);
    if (st == OK) st = dist_broadcast(id, sizeof id, 0, "the start of NCCL");
    if (st == OK) st = b->comm_open(id, dist_rank(), dist_size());
    return dist_agree(st);
}

void dist_close_device(const Backend *b) {
    if (dist_size() > 1 && b->comm_close) b->comm_close(dist_failed());
}

Status dist_arrived(const Backend *b, const char *op) {
    if (dist_size() == 1 || !b->comm_open) return OK;
    Status st = dist_barrier(op);
    if (st == OK) dist_watch(op);
    return st;
}
