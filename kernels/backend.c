/* backend: see backend.h. Chooses a backend by name, and holds the one that does nothing. */
#include "kernels/backend.h"

#include <string.h>

extern const Backend backend_cpu_f32, backend_cpu_bf16;

const Backend *backend_cpu(DType elem) { return elem == DT_BF16 ? &backend_cpu_bf16 : &backend_cpu_f32; }

#ifndef HAVE_CUDA
Status backend_cuda(const Backend **b, DType elem, int local_rank) {
    (void)elem, (void)local_rank;
    *b = NULL;
    return err_set(ERR_MISSING, "this build has no CUDA backend: build it where nvcc is found, or choose device=cpu");
}
#endif

Status backend_open(const Backend **b, const char *device, DType elem, int local_rank) {
    *b = NULL;
    BUG_ON(elem != DT_F32 && elem != DT_BF16, "backend_open: element type %s", dtype_name(elem));
    if (strcmp(device, "cuda") == 0) return backend_cuda(b, elem, local_rank);
    if (strcmp(device, "auto") == 0) {
        /* auto: a GPU when there is one, and no complaint when there is none */
        if (backend_cuda(b, elem, local_rank) == OK) return OK;
        err_clear();
    } else if (strcmp(device, "cpu") != 0) {
        return err_set(ERR_USAGE, "device is \"%s\"; it can be cpu, cuda or auto", device);
    }
    *b = backend_cpu(elem);
    return OK;
}

/* Processes hold one backend to their end; what it allocated is released piece by piece. */
void backend_close(const Backend *b) {
    if (b && b->sync) b->sync(); /* what is under way may still read memory that goes next */
}

/* ---- the backend that does nothing ----------------------------------------------------------------------------- */

#pragma GCC diagnostic ignored "-Wunused-parameter"

static Status null_alloc(void **p, size_t bytes) { *p = NULL; return OK; }
static void null_release(void *p) {}
static void null_set_workspace(void *p, size_t bytes) {}
static void null_zero(void *p, size_t bytes) {}
static void null_upload(void *dst, const void *src, size_t bytes) {}
static void null_sync(void) {}
static Status null_status(void) { return OK; }
static void null_mark(const char *name) {}
static void null_adamw_wait(int number) {}
static void null_all_reduce(float *x, int64_t n, bool bf16_wire) {}
static void null_reduce_parts(float *x, int64_t at, int64_t n, int64_t part, bool bf16_wire) {}

#define OP(kind, name, params, args) static void null_##name params {}
#include "kernels/backend.def"

/* comm_open, comm_id and comm_close stay NULL: a step is measured for one rank's memory, whoever its neighbours are. */
#define NULL_SLOTS \
    .name = "null", .alloc = null_alloc, .release = null_release, .host_alloc = null_alloc,                            \
    .host_release = null_release, .set_workspace = null_set_workspace, .zero = null_zero, .copy = null_upload,         \
    .upload = null_upload, .download = null_upload, .fetch = null_upload, .fetch_wait = null_sync,                     \
    .upload_beside = null_upload, .fetch_beside = null_upload, .repeat = backend_enqueue, .forget = backend_forget,    \
    .prefetch = null_upload, .prefetch_wait = null_sync, .sync = null_sync, .status = null_status, .mark = null_mark,  \
    .all_reduce = null_all_reduce, .reduce_parts = null_reduce_parts, .all_reduce_wait = null_sync,                    \
    .all_gather = null_upload, .adamw_wait = null_adamw_wait

#define OP(kind, name, params, args) .name = null_##name,
static const Backend null_f32 = {NULL_SLOTS, .elem = DT_F32,
#include "kernels/backend.def"
};

#define OP(kind, name, params, args) .name = null_##name,
static const Backend null_bf16 = {NULL_SLOTS, .elem = DT_BF16,
#include "kernels/backend.def"
};

const Backend *backend_null(DType elem) { return elem == DT_BF16 ? &null_bf16 : &null_f32; }

Backend backend_measuring(const Backend *b) {
    Backend null = *backend_null(b->elem);
    /* what is staged and what is not follows from it, so the measure must know */
    null.unified = b->unified;
    null.workspace = b->workspace;
    null.reads_held = b->reads_held;
    return null;
}
