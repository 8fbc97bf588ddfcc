/* comm: sums and gathers of device memory over all ranks, by NCCL. The only file that includes nccl.h; the library is
 * loaded when a communicator is opened (one process needs none).
 *
 * One communicator, used from the communication stream only. An operation starts when the compute enqueued before it
 * is done, and compute after all_reduce_wait() (for all_gather: after the call) sees its result; events order the
 * streams, the host never waits: sums of ranges of the gradient run beside the backward sweep that makes the next
 * ones. Gradients go as f32, or as bf16 (half the bytes; each rank's part is rounded once, NCCL adds in f32 and rounds
 * at each hop) through a staging buffer of WS_COMM bytes, piece by piece.
 *
 * An error that NCCL finds by itself (a peer that died, a broken link) comes out of status(); aborting a collective
 * that hangs is the caller's decision: comm_close(true) aborts instead of waiting. */
#include <nccl.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#define NCCL_LIST(X)                                                                                                   \
    X(ncclGetUniqueId) X(ncclCommInitRank) X(ncclCommDestroy) X(ncclCommAbort) X(ncclAllReduce) X(ncclReduce)          \
    X(ncclAllGather) X(ncclCommGetAsyncError) X(ncclGetErrorString) X(ncclGetLastError)

static struct {
#define X(f) __typeof__(f) *f;
    NCCL_LIST(X)
#undef X
} nccl;

static struct {
    void *library;
    ncclComm_t comm;
    cudaEvent_t compute_at, comm_at;
    int rank, ranks;
} my;

static Status load(void) {
    if (my.library) return OK;
#define X(f) {#f, &nccl.f},
    static const CudaSymbol symbols[] = {NCCL_LIST(X)};
#undef X
    const char *why = NULL;
    my.library = cuda_library("libnccl.so.2", symbols, (int)(sizeof symbols / sizeof *symbols), &why);
    return my.library ? OK : err_set(ERR_MISSING, "several GPUs need NCCL 2: %s", why);
}

/* ncclInProgress is no error: the operation has only been enqueued. */
static bool ok(ncclResult_t r, const char *what) {
    if (r == ncclSuccess || r == ncclInProgress) return true;
    cuda_fail(ERR_DIST, "NCCL, rank %d of %d: %s: %s (%s)", my.rank, my.ranks, what, nccl.ncclGetErrorString(r),
              nccl.ncclGetLastError(my.comm));
    return false;
}

Status cuda_comm_id(void *id, size_t bytes) {
    Status st = load();
    if (st != OK) return st;
    ncclUniqueId u;
    BUG_ON(bytes < sizeof u, "comm_id: %zu bytes for an id of %zu", bytes, sizeof u);
    ncclResult_t r = nccl.ncclGetUniqueId(&u);
    if (r != ncclSuccess)
        return err_set(ERR_DIST, "NCCL: no id for this run: %s (%s)", nccl.ncclGetErrorString(r),
                       nccl.ncclGetLastError(NULL));
    memset(id, 0, bytes);
    memcpy(id, &u, sizeof u);
    return OK;
}

Status cuda_comm_open(const void *id, int rank, int ranks) {
    Status st = load();
    if (st != OK) return st;
    BUG_ON(my.comm, "comm_open: twice");
    ncclUniqueId u;
    memcpy(&u, id, sizeof u);
    /* before the communicator: messages about its failure name both */
    my.rank = rank;
    my.ranks = ranks;
    if (!cuda_ok(cudaEventCreateWithFlags(&my.compute_at, cudaEventDisableTiming), "comm_open") ||
        !cuda_ok(cudaEventCreateWithFlags(&my.comm_at, cudaEventDisableTiming), "comm_open"))
        return err_set(ERR_DEVICE, "GPU %d: no events for the communication stream", cuda.device);
    ncclResult_t r = nccl.ncclCommInitRank(&my.comm, ranks, u, rank);
    if (r == ncclSuccess) return OK;
    my.comm = NULL;
    return err_set(ERR_DIST, "NCCL, rank %d of %d: the ranks do not find each other: %s (%s)", rank, ranks,
                   nccl.ncclGetErrorString(r), nccl.ncclGetLastError(NULL));
}

void cuda_comm_close(bool abort) {
    if (!my.comm) return;
    /* after a failure the others may never come: destroying would wait for them */
    if (abort || cuda_failed()) {
        nccl.ncclCommAbort(my.comm);
    } else {
        cuda_ok(cudaStreamSynchronize(cuda.comm), "comm_close");
        nccl.ncclCommDestroy(my.comm);
    }
    my.comm = NULL;
    cudaEventDestroy(my.compute_at);
    cudaEventDestroy(my.comm_at);
}

Status cuda_comm_status(void) {
    ncclResult_t r = ncclSuccess;
    if (!my.comm || nccl.ncclCommGetAsyncError(my.comm, &r) != ncclSuccess || r == ncclSuccess || r == ncclInProgress)
        return OK;
    ok(r, "a collective failed");
    return err_set(ERR_DIST, "NCCL, rank %d of %d: a collective failed: %s (%s)", my.rank, my.ranks,
                   nccl.ncclGetErrorString(r), nccl.ncclGetLastError(my.comm));
}

/* Sum of x(n) in place, to every rank (root < 0) or to one. */
static bool sum(void *x, int64_t n, ncclDataType_t type, int root) {
    if (root < 0) return ok(nccl.ncclAllReduce(x, x, (size_t)n, type, ncclSum, my.comm, cuda.comm), "a sum over ranks");
    return ok(nccl.ncclReduce(x, x, (size_t)n, type, ncclSum, root, my.comm, cuda.comm), "a sum over ranks to one");
}

static bool sum_range(float *x, int64_t n, int root, bool bf16_wire) {
    if (!bf16_wire) return sum(x, n, ncclFloat32, root);
    BUG_ON(!cuda.workspace, "cuda: all_reduce before set_workspace");
    char *stage = cuda.workspace + WS_COMPUTE; /* behind what compute uses: sums travel while products run */
    for (int64_t at = 0, piece; at < n; at += piece) {
        piece = n - at < WS_COMM / 2 ? n - at : WS_COMM / 2;
        cuda_cast_on(cuda.comm, stage, DT_BF16, x + at, DT_F32, piece);
        if (!sum(stage, piece, ncclBfloat16, root)) return false;
        /* on its stream: the piece after this one takes the staging buffer again */
        if (root < 0 || root == my.rank) cuda_cast_on(cuda.comm, x + at, DT_F32, stage, DT_BF16, piece);
    }
    return true;
}

static bool begin(int64_t n, const char *what) {
    /* one rank's sum is what it has */
    if (my.ranks < 2 || !n) return false;
    BUG_ON(!my.comm, "%s before comm_open", what);
    return cuda_follow(cuda.comm, cuda.compute, my.compute_at, what);
}

void cuda_all_reduce(float *x, int64_t n, bool bf16_wire) {
    if (begin(n, "all_reduce")) sum_range(x, n, -1, bf16_wire);
}

void cuda_reduce_parts(float *x, int64_t at, int64_t n, int64_t part, bool bf16_wire) {
    if (!begin(n, "reduce_parts")) return;
    for (int64_t end = at + n, next; at < end; x += next - at, at = next) {
        /* a range of the gradient may lie in several ranks' parts: each piece goes to its owner alone */
        next = (at / part + 1) * part;
        if (next > end) next = end;
        if (!sum_range(x, next - at, (int)(at / part), bf16_wire)) return;
    }
}

void cuda_all_reduce_wait(void) {
    if (my.comm) cuda_follow(cuda.compute, cuda.comm, my.comm_at, "all_reduce_wait");
}

void cuda_all_gather(void *dst, const void *src, size_t bytes_a_rank) {
    if (!my.comm) {
        BUG_ON(my.ranks > 1, "all_gather before comm_open");
        if (dst != src && bytes_a_rank)
            cuda_ok(cudaMemcpyAsync(dst, src, bytes_a_rank, cudaMemcpyDeviceToDevice, cuda.compute), "all_gather");
        return;
    }
    if (!cuda_follow(cuda.comm, cuda.compute, my.compute_at, "all_gather")) return;
    /* compute waits at once: what was gathered is read next */
    if (ok(nccl.ncclAllGather(src, dst, bytes_a_rank, ncclInt8, my.comm, cuda.comm), "all_gather"))
        cuda_follow(cuda.compute, cuda.comm, my.comm_at, "all_gather");
}
