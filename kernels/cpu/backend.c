/* backend: the CPU's struct of functions, and its memory. The host's memory is the device's: uploads are copies, or
 * nothing when both sides are the same place; everything has happened when a call returns. */
#include <sys/mman.h>

#include "kernels/cpu/gemm.h"

enum { HUGE_PAGE = 2 << 20 };

/* Large blocks lie on huge pages where the system gives them: the optimizer's four streams miss the TLB otherwise. */
static Status cpu_alloc(void **p, size_t bytes) {
    size_t align = bytes >= 4 * (size_t)HUGE_PAGE ? HUGE_PAGE : 256;
    *p = NULL;
    if (bytes > SIZE_MAX - align || posix_memalign(p, align, (MAX(bytes, (size_t)1) + align - 1) & ~(align - 1))) {
        *p = NULL;
        return err_set(ERR_MEMORY, "out of memory: %zu bytes", bytes);
    }
    if (align == HUGE_PAGE) madvise(*p, bytes, MADV_HUGEPAGE);       /* a wish: failure changes nothing */
    return OK;
}

static void cpu_release(void *p) { free(p); }
static void no_workspace(void *p, size_t bytes) { (void)p, (void)bytes; }
static void cpu_zero(void *p, size_t bytes) { memset(p, 0, bytes); }
static void nothing(void) {}
static void no_mark(const char *name) { (void)name; }
static void no_wait(int number) { (void)number; }

static void cpu_copy(void *dst, const void *src, size_t bytes) {
    if (dst != src && bytes) memmove(dst, src, bytes);
}

const Backend FN(backend_cpu) = {
    .name = "cpu", .elem = ELEM, .unified = true,
    .alloc = cpu_alloc, .release = cpu_release, .host_alloc = cpu_alloc, .host_release = cpu_release,
    .set_workspace = no_workspace, .workspace = 0,
#if !ELEM_BF16
    .reads_held = FN(reads_held),
#endif
    .zero = cpu_zero, .copy = cpu_copy, .upload = cpu_copy, .download = cpu_copy, .fetch = cpu_copy,
    .upload_beside = cpu_copy, .fetch_beside = cpu_copy,
    .repeat = backend_enqueue, .forget = backend_forget,
    .fetch_wait = nothing, .prefetch = cpu_copy, .prefetch_wait = nothing, .sync = nothing, .status = cpu_status,
    .mark = no_mark, .adamw_wait = no_wait,
#define OP(kind, name, params, args) .name = FN(name),
#include "kernels/backend.def"
};
