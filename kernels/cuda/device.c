/* device: the GPU itself: memory, streams, and what went wrong.
 *
 * Order. Kernels run on the compute stream in the order of the calls. prefetch() copies on a stream of its own, after
 * the compute that was enqueued before the call; compute enqueued after prefetch_wait() sees the data. So the copy of
 * batch n + 1 runs beside step n when it is asked for before step n is enqueued: prefetch_wait();  prefetch(other
 * buffer, batch n + 1);  ...step n... Collectives run on a third stream, between the compute before them and the
 * compute after all_reduce_wait(). AdamW runs on a fourth (optim.cu), which is served before compute: its few blocks
 * would else wait, range by range, for those of a product to end.
 *
 * Passes that recur with the same launches are CUDA graphs (graph.c).
 *
 * Errors. A refused launch is known at once and by name. A kernel that fails on the GPU is known at the next wait: the
 * message then lists the last kernels enqueued, and CUDA_LAUNCH_BLOCKING=1 makes it name the one. */
#include "kernels/cuda/cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#if defined(__has_include)
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define HAVE_NVTX 1
#endif
#endif
#ifndef HAVE_NVTX
#define HAVE_NVTX 0
#endif

Cuda cuda;

enum { RECENT = 8, RANGES = 16 };
static const double GIB = 1073741824.0;

static struct {
    pthread_mutex_t lock;
    Status st;
    char text[512];
    const char *recent[RECENT]; /* the last kernels enqueued, a ring */
    unsigned launches;
    const char *range[RANGES]; /* mark()s that are open, for messages */
    int depth;
    cudaEvent_t compute_at, copy_at, fetched, updated[ADAMW_BESIDE + 1];
    int newest; /* update of all that were numbered */
} me = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what went wrong ------------------------------------------------------------------------------------------- */

void cuda_fail(Status st, const char *fmt, ...) {
    if (cuda.recording && pthread_equal(cuda.recorder, pthread_self())) {
        cuda.unrecorded = true;
        return;
    }
    pthread_mutex_lock(&me.lock);
    /* the first failure is the cause; what fails after it mostly fails because of it */
    if (me.st == OK) {
        me.st = st;
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(me.text, sizeof me.text, fmt, ap);
        va_end(ap);
    }
    pthread_mutex_unlock(&me.lock);
}

bool cuda_failed(void) { return me.st != OK; }

/* "gemm, add_norm, attention", oldest first. */
static const char *recent_kernels(char *room, size_t size) {
    size_t n = 0;
    room[0] = '\0';
    /* the ring: older ones are written over */
    unsigned first = me.launches > RECENT ? me.launches - RECENT : 0;
    for (unsigned i = first; i < me.launches; i++) {
        int k = snprintf(room + n, size - n, "%s%s", i > first ? ", " : "", me.recent[i % RECENT]);
        if (k < 0 || (size_t)k >= size - n) break;
        n += (size_t)k;
    }
    return room;
}

bool cuda_ok(cudaError_t e, const char *what) {
    if (e == cudaSuccess) return true;
    char kernels[256];
    const char *in = me.depth > 0 && me.depth <= RANGES ? me.range[me.depth - 1] : NULL;
    if (e == cudaErrorECCUncorrectable)
        cuda_fail(ERR_DEVICE,
                  "GPU %d (%s) has a memory error that it could not correct (ECC): reset it or take another one",
                  cuda.device, cuda.name);
    else
        cuda_fail(ERR_DEVICE, "GPU %d (%s) failed in %s%s%s: %s (%s); last enqueued: %s%s", cuda.device, cuda.name,
                  what, in ? " of " : "", in ? in : "", cudaGetErrorString(e), cudaGetErrorName(e),
                  recent_kernels(kernels, sizeof kernels),
                  me.launches ? "; CUDA_LAUNCH_BLOCKING=1 tells which of them" : "nothing");
    return false;
}

void cuda_launched(const char *kernel) {
    me.recent[me.launches++ % RECENT] = kernel;
    if (me.launches == 2 * RECENT) me.launches = RECENT; /* never wraps, keeps its place in the ring */
    cudaError_t e = cudaPeekAtLastError();
    if (e != cudaSuccess) cuda_ok(e, kernel);
}

Status cuda_error(void) {
    if (me.st == OK && cuda.compute) cuda_ok(cudaPeekAtLastError(), "an earlier call");
    return me.st == OK ? OK : err_set(me.st, "%s", me.text);
}

/* ---- libraries that are loaded when needed --------------------------------------------------------------------- */

void *cuda_library(const char *soname, const CudaSymbol *symbols, int n, const char **why) {
    static char text[256];
    void *lib = dlopen(soname, RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        snprintf(text, sizeof text, "%s", dlerror());
        *why = text;
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        /* all of them before the first is called: half a library is none */
        void *p = dlsym(lib, symbols[i].name);
        if (!p) {
            snprintf(text, sizeof text, "%s has no function %s: another version is needed", soname, symbols[i].name);
            *why = text;
            dlclose(lib);
            return NULL;
        }
        memcpy(symbols[i].where, &p, sizeof p);
    }
    return lib;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

Status cuda_alloc(void **p, size_t bytes) {
    *p = NULL;
    cudaError_t e = cudaMalloc(p, bytes ? bytes : 1);
    if (e == cudaSuccess) return OK;
    /* an earlier kernel's failure, told at the next call */
    if (e != cudaErrorMemoryAllocation) return cuda_ok(e, "cudaMalloc"), cuda_error();
    cudaGetLastError(); /* running out is answered, not remembered */
    size_t left = 0, all = 0;
    cudaMemGetInfo(&left, &all);
    return err_set(ERR_MEMORY, "GPU %d (%s): %.2f GiB are wanted in one piece, %.2f of %.2f GiB are free", cuda.device,
                   cuda.name, (double)bytes / GIB, (double)left / GIB, (double)all / GIB);
}

void cuda_release(void *p) {
    if (p) cuda_ok(cudaFree(p), "cudaFree");
}

Status cuda_host_alloc(void **p, size_t bytes) {
    *p = NULL;
    cudaError_t e = cudaHostAlloc(p, bytes ? bytes : 1, cudaHostAllocDefault);
    if (e == cudaSuccess) return OK;
    if (e != cudaErrorMemoryAllocation) return cuda_ok(e, "cudaHostAlloc"), cuda_error();
    cudaGetLastError();
    return err_set(ERR_MEMORY, "%.2f GiB of pinned host memory are wanted and were refused (free memory? ulimit -l?)",
                   (double)bytes / GIB);
}

void cuda_host_release(void *p) {
    if (p) cuda_ok(cudaFreeHost(p), "cudaFreeHost");
}

void cuda_set_workspace(void *p, size_t bytes) {
    BUG_ON(p && bytes < (size_t)WS_COMPUTE + WS_COMM, "cuda: a workspace of %zu bytes, %d are needed", bytes,
           WS_COMPUTE + WS_COMM);
    cuda.workspace = p;
}

void *cuda_workspace(size_t bytes, const char *op) {
    BUG_ON(!cuda.workspace, "cuda: %s before set_workspace", op);
    if (bytes <= WS_COMPUTE) return cuda.workspace;
    cuda_fail(ERR_MEMORY,
              "%s needs %zu bytes of workspace, %d are set aside: its shape is beyond what this build serves", op,
              bytes, WS_COMPUTE);
    return NULL;
}

void cuda_zero(void *p, size_t bytes) {
    if (bytes) cuda_ok(cudaMemsetAsync(p, 0, bytes, cuda.compute), "zero");
}

static void move(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, const char *what) {
    if (bytes) cuda_ok(cudaMemcpyAsync(dst, src, bytes, kind, cuda.compute), what);
}
void cuda_copy(void *dst, const void *src, size_t bytes) {
    move(dst, src, bytes, cudaMemcpyDeviceToDevice, "copy");
}
void cuda_upload(void *dst, const void *src, size_t bytes) {
    move(dst, src, bytes, cudaMemcpyHostToDevice, "upload");
}
void cuda_download(void *dst, const void *src, size_t bytes) {
    if (cuda_failed()) memset(dst, 0, bytes); /* the caller asks status(); no random numbers meanwhile */
    move(dst, src, bytes, cudaMemcpyDeviceToHost, "download");
    cuda_ok(cudaStreamSynchronize(cuda.compute), "download");
}

void cuda_fetch(void *dst, const void *src, size_t bytes) {
    if (cuda_failed()) memset(dst, 0, bytes);
    move(dst, src, bytes, cudaMemcpyDeviceToHost, "fetch");
    cuda_ok(cudaEventRecord(me.fetched, cuda.compute), "fetch");
}
void cuda_fetch_wait(void) { cuda_ok(cudaEventSynchronize(me.fetched), "the work before a fetch"); }

bool cuda_follow(cudaStream_t later, cudaStream_t first, cudaEvent_t by, const char *what) {
    return cuda_ok(cudaEventRecord(by, first), what) && cuda_ok(cudaStreamWaitEvent(later, by, 0), what);
}

void cuda_prefetch(void *dst, const void *src, size_t bytes) {
    cuda_follow(cuda.copy, cuda.compute, me.compute_at, "prefetch");
    if (bytes) cuda_ok(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, cuda.copy), "prefetch");
}
void cuda_upload_beside(void *dst, const void *src, size_t bytes) {
    if (bytes) cuda_ok(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, cuda.copy), "upload_beside");
}
/* On the stream of collectives: that of uploads would make the next one wait for the compute that this one follows. */
void cuda_fetch_beside(void *dst, const void *src, size_t bytes) {
    if (cuda_failed()) memset(dst, 0, bytes);
    cuda_follow(cuda.comm, cuda.compute, me.compute_at, "fetch_beside");
    if (bytes) cuda_ok(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, cuda.comm), "fetch_beside");
    cuda_ok(cudaEventRecord(me.fetched, cuda.comm), "fetch_beside");
}
void cuda_prefetch_wait(void) { cuda_follow(cuda.compute, cuda.copy, me.copy_at, "prefetch_wait"); }

cudaStream_t cuda_update(int beside, int sms) {
    if (!beside) return cuda.compute;
    cuda_follow(cuda.update, cuda.compute, me.compute_at, "adamw");
    me.newest = beside, cuda.taken = sms;
    return cuda.update;
}
void cuda_updated(int beside) {
    if (beside) cuda_ok(cudaEventRecord(me.updated[beside], cuda.update), "adamw");
}
void cuda_adamw_wait(int number) {
    if (cuda.recording) return;         /* what is recorded begins with cuda_updates_wait */
    cuda_ok(cudaStreamWaitEvent(cuda.compute, me.updated[number], 0), "adamw_wait");
    if (number == me.newest) cuda.taken = 0;
}
void cuda_updates_wait(void) {
    if (me.newest) cuda_adamw_wait(me.newest);
}

void cuda_sync(void) {
    cuda_ok(cudaStreamSynchronize(cuda.update), "adamw");
    cuda_ok(cudaStreamSynchronize(cuda.copy), "prefetch");
    cuda_ok(cudaStreamSynchronize(cuda.comm), "a collective");
    cuda_ok(cudaStreamSynchronize(cuda.compute), "sync");
}

const char *cuda_about(void) {
    static char line[256];
    size_t left = 0, all = 0;
    cudaMemGetInfo(&left, &all);
    snprintf(line, sizeof line, "%d, %s: compute capability %d.%d, %d SMs, %.1f of %.1f GiB free", cuda.device,
             cuda.name, cuda.cc / 10, cuda.cc % 10, cuda.sms, (double)left / GIB, (double)all / GIB);
    return line;
}

void cuda_mark(const char *name) {
    if (name) {
        if (me.depth < RANGES) me.range[me.depth] = name;
        me.depth++;
    } else if (me.depth) {
        me.depth--;
    }
#if HAVE_NVTX
    if (name) nvtxRangePushA(name);
    else nvtxRangePop();
#endif
}

cudaError_t cuda_streams_open(void) {
    cudaError_t e = cudaStreamCreateWithFlags(&cuda.compute, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&cuda.copy, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&cuda.comm, cudaStreamNonBlocking);
    int least, first;
    if (e == cudaSuccess) e = cudaDeviceGetStreamPriorityRange(&least, &first);
    if (e == cudaSuccess) e = cudaStreamCreateWithPriority(&cuda.update, cudaStreamNonBlocking, first);
    cudaEvent_t *events[] = {&me.compute_at, &me.copy_at, &me.fetched};
    for (int i = 0; e == cudaSuccess && i < 3; i++) e = cudaEventCreateWithFlags(events[i], cudaEventDisableTiming);
    for (int i = 0; e == cudaSuccess && i <= ADAMW_BESIDE; i++)
        e = cudaEventCreateWithFlags(&me.updated[i], cudaEventDisableTiming);
    return e;
}
