/* wgmma: what Hopper's tensor cores are fed with, a function an instruction: barriers in shared memory that count
 * bytes, copies of boxes of a matrix (TMA), products of a warp group out of shared memory. PTX ISA 8.0, for sm_90a
 * alone.
 *
 * Places in shared memory are 32-bit addresses. A box of 64 columns of bf16 lies 128 bytes a row, its 16-byte pieces at
 * piece ^ (row % 8), one of 32 columns 64 bytes a row at piece ^ (row / 2 % 4): what TMA calls swizzle, so that neither
 * copies nor matrix loads meet a bank twice. */
#pragma once
#include <cuda.h>

#include "kernels/cuda/device.cuh"

DEVICE uint32_t shared_at(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* ---- barriers ---- */
DEVICE void barrier_init(uint32_t barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
/* Both blocks of a cluster see them after a cluster_sync. */
DEVICE void barriers_opened(void) { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
/* An arrival; the phase ends when so many bytes have come too. */
DEVICE void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/* At the same barrier of block `rank` of the cluster. */
DEVICE void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank)
                 : "memory");
}
/* Until the phase of this parity has ended. */
DEVICE void barrier_wait(uint32_t barrier, uint32_t parity) {
    uint32_t done;
    do asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
                    "selp.u32 %0, 1, 0, p;\n}"
                    : "=r"(done)
                    : "r"(barrier), "r"(parity)
                    : "memory");
    while (!done);
}
DEVICE void cluster_sync(void) {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
DEVICE uint32_t cluster_rank(void) {
    uint32_t r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}

/* ---- boxes: column x, row y first ---- */
DEVICE void box_load(uint32_t to, const CUtensorMap *m, int x, int y, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to), "l"(m), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}
/* To the same place, and barrier, of each block of the cluster that `blocks` has a bit for. */
DEVICE void box_load_to(uint16_t blocks, uint32_t to, const CUtensorMap *m, int x, int y, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to), "l"(m), "r"(x), "r"(y), "r"(barrier), "h"(blocks)
                 : "memory");
}
DEVICE void box_store(const CUtensorMap *m, int x, int y, uint32_t from) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(m), "r"(x),
                 "r"(y), "r"(from)
                 : "memory");
}
DEVICE void box_commit(void) { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
/* Until all but the last N groups of this thread's stores have read their boxes. */
template <int N> DEVICE void box_wait(void) { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"); }
/* What threads wrote is seen by box_store, what they read may be overwritten by box_load. */
DEVICE void box_fence(void) { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/* ---- 8 x 8 matrices, as accumulators hold them ---- */
DEVICE void matrices_load(uint32_t at, uint32_t r[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEVICE void matrices_store(uint32_t at, const uint32_t r[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
}

/* ---- products ---- */

/* An operand that lies 128 bytes a row, swizzled, eight rows after eight: rows of 64 of the inner dimension, or,
 * turned, inner rows of 64 outer ones each (outer: bytes from those 64 to the next). */
DEVICE uint64_t operand_at(uint32_t at, uint32_t outer) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(outer >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}
DEVICE void wgmma_begin(void) { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit(void) { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Until all but the last N commits are done. */
template <int N> DEVICE void wgmma_wait(void) { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

/* d (64,256) = [add] d + a (64,16) b (16,256), d[4 j + e] of a thread: row lane / 4 + 8 (e / 2) of its warp's 16,
 * column 8 j + 2 (lane % 4) + e % 2. *_TURNED: its rows are inner ones. */
template <int A_TURNED, int B_TURNED> DEVICE void wgmma_256(float (&d)[128], uint64_t a, uint64_t b, int add) {
#define D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),              \
              "+f"(d[i + 6]), "+f"(d[i + 7])
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\nwgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, "
        "%120, %121, %122, %123, %124, %125, %126, %127}, %128, %129, p, 1, 1, %131, %132;\n}"
        : D8(0), D8(8), D8(16), D8(24), D8(32), D8(40), D8(48), D8(56), D8(64), D8(72), D8(80), D8(88), D8(96),
          D8(104), D8(112), D8(120)
        : "l"(a), "l"(b), "r"(add), "n"(A_TURNED), "n"(B_TURNED));
#undef D8
}
/* d (64,64) or (64,32) = [add] d + a (64,16) b: a out of registers, as a warp's lanes hold an operand of mma; d as
 * above. Nothing of a may change before the wait. */
template <int TURNED> DEVICE void wgmma_64(float *d, const uint32_t *a, uint64_t b, int add) {
#define D8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),              \
              "+f"(d[i + 6]), "+f"(d[i + 7])
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, p, 1, 1, %38;\n}"
        : D8(0), D8(8), D8(16), D8(24)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TURNED));
}
template <int TURNED> DEVICE void wgmma_32(float *d, const uint32_t *a, uint64_t b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\nwgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
                 "{%16, %17, %18, %19}, %20, p, 1, 1, %22;\n}"
                 : D8(0), D8(8)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TURNED));
}
template <int TURNED> DEVICE void wgmma_16(float *d, const uint32_t *a, uint64_t b, int add) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %13, 0;\nwgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, p, 1, 1, %14;\n}"
                 : D8(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(TURNED));
#undef D8
}
/* The compiler knows nothing of when d is written: nothing of it is read before this. */
template <int N> DEVICE void wgmma_settle(float (&d)[N]) {
    UNROLL for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* ---- the host ---- */

/* Whether this program holds a kernel for this GPU, with so much shared memory: not where it was built without sm_90a,
 * nor where the driver translated it from another architecture's text. Asked once, and kept in *known (-1). */
static inline bool is_built(const void *kernel, size_t room, int *known) {
#ifdef HAVE_SM90A
    struct cudaFuncAttributes a;
    if (*known < 0) {
        *known = cuda.cc == 90 && cuda.shared_max >= room && cudaFuncGetAttributes(&a, kernel) == cudaSuccess &&
                 a.binaryVersion == 90 && a.ptxVersion == 90;
        cudaGetLastError();
    }
    return *known;
#else
    return (void)kernel, (void)room, (void)known, false;
#endif
}
