/* dist: see dist.h. */
#include "kernels/dist.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_MPI
#include <mpi.h>
#endif

static int rank_, size_ = 1, local_;
static bool started;

int dist_rank(void) { return rank_; }
int dist_size(void) { return size_; }
int dist_local_rank(void) { return local_; }

#ifdef HAVE_MPI

static Status check(int code, const char *what) {
    if (code == MPI_SUCCESS) return OK;
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    MPI_Error_string(code, text, &n);
    return err_set(ERR_DIST, "rank %d: %s failed: %.*s", rank_, what, n, text);
}

/* A launcher leaves its mark in the environment. Without one MPI_Init would start daemons of its own for nothing. */
static bool launched(void) {
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i])) return true;
    return false;
}

Status dist_open(int *argc, char ***argv) {
    if (!launched()) return OK;
    int provided;
    Status st = check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    if (st != OK) return st;
    started = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    MPI_Comm node;
    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node) == MPI_SUCCESS) {
        MPI_Comm_rank(node, &local_);
        MPI_Comm_free(&node);
    }
    return OK;
}

void dist_close(void) {
    if (started) MPI_Finalize();
    started = false;
    rank_ = local_ = 0;
    size_ = 1;
}

/* Counts are ints: larger transfers go in pieces. */
enum { PIECE = 1 << 30 };

Status dist_all_gather(void *dst, const void *src, size_t bytes) {
    if (size_ == 1) {
        if (dst != src) memmove(dst, src, bytes);
        return OK;
    }
    if (bytes > INT_MAX) return err_set(ERR_DIST, "a gather of %zu bytes a rank is more than MPI takes at once", bytes);
    const void *from = (const char *)dst + (size_t)rank_ * bytes == src ? MPI_IN_PLACE : src;
    return check(MPI_Allgather(from, (int)bytes, MPI_BYTE, dst, (int)bytes, MPI_BYTE, MPI_COMM_WORLD), "a gather");
}

static Status all_reduce(void *x, int64_t n, size_t size, MPI_Datatype type) {
    for (int64_t at = 0; at < n && size_ > 1; at += PIECE / 8) {
        int64_t m = n - at < PIECE / 8 ? n - at : PIECE / 8;
        Status st = check(MPI_Allreduce(MPI_IN_PLACE, (char *)x + (size_t)at * size, (int)m, type, MPI_SUM, MPI_COMM_WORLD), "a sum over ranks");
        if (st != OK) return st;
    }
    return OK;
}

Status dist_all_reduce_f32(float *x, int64_t n) { return all_reduce(x, n, sizeof *x, MPI_FLOAT); }
Status dist_all_reduce_f64(double *x, int64_t n) { return all_reduce(x, n, sizeof *x, MPI_DOUBLE); }

Status dist_broadcast(void *x, size_t bytes, int root) {
    if (size_ == 1) return OK;
    if (bytes > INT_MAX) return err_set(ERR_DIST, "a broadcast of %zu bytes is more than MPI takes at once", bytes);
    return check(MPI_Bcast(x, (int)bytes, MPI_BYTE, root, MPI_COMM_WORLD), "a broadcast");
}

Status dist_barrier(void) { return size_ == 1 ? OK : check(MPI_Barrier(MPI_COMM_WORLD), "a barrier"); }

Status dist_agree(Status mine) {
    if (size_ == 1) return mine;
    struct { int value, rank; } here = {mine != OK, rank_}, all;
    Status st = check(MPI_Allreduce(&here, &all, 1, MPI_2INT, MPI_MAXLOC, MPI_COMM_WORLD), "agreeing on the state");
    if (st != OK) return st;
    if (!all.value || mine != OK) return mine;
    return err_set(ERR_DIST, "rank %d failed (its own message says why)", all.rank);
}

const char *dist_version(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(text, &n);
    text[strcspn(text, ",\n")] = 0;
    return text;
}

#else

Status dist_open(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *n = getenv("OMPI_COMM_WORLD_SIZE");
    if (n && atoi(n) > 1)
        return err_set(ERR_MISSING, "started as one of %s processes, but this build has no MPI: install libopenmpi-dev and build again", n);
    return OK;
}

void dist_close(void) { started = false; }

Status dist_all_gather(void *dst, const void *src, size_t bytes) {
    if (dst != src) memmove(dst, src, bytes);
    return OK;
}

Status dist_all_reduce_f32(float *x, int64_t n) { (void)x, (void)n; return OK; }
Status dist_all_reduce_f64(double *x, int64_t n) { (void)x, (void)n; return OK; }
Status dist_broadcast(void *x, size_t bytes, int root) { (void)x, (void)bytes, (void)root; return OK; }
Status dist_barrier(void) { return OK; }
Status dist_agree(Status mine) { return mine; }
const char *dist_version(void) { return "none (libopenmpi-dev was not found when this was built)"; }

#endif
