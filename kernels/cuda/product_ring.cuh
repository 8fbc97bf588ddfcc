/* product_ring: what products of our own share on Hopper (sm_90a): a ring of stages in shared memory between the thread
 * that asks for boxes and the groups that multiply, and on the host what describes matrices to TMA.
 *
 * A pair of blocks (a cluster) makes 256 x 256 of C, 128 rows each; B's 256 columns come to both at once, half of them
 * asked for by each (TMA multicast). A block: one thread asks for boxes of 64 of the inner dimension, four stages
 * ahead; two warp groups have 64 x 256 each in 128 registers a thread (wgmma). */
#pragma once
#include "kernels/cuda/wgmma.cuh"

enum { TILE_M = 128, TILE_N = 256, STEP = 64, STAGES = 4 };
enum { GROUPS = 2, WARPS = 4 * GROUPS, PRODUCT_THREADS = 128 * (GROUPS + 1) };
enum { A_BYTES = TILE_M * STEP * 2, B_BYTES = TILE_N * STEP * 2, STAGE_BYTES = A_BYTES + B_BYTES };
enum { RING_BYTES = STAGES * STAGE_BYTES, RING_BARRIERS = 2 * STAGES * 8 };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* Where stages lie (A, then B), and their barriers: one for each that is full, one for each that is empty. */
typedef struct { uint32_t stages, barriers; } Ring;
DEVICE uint32_t full_at(Ring r, int stage) { return r.barriers + 8 * stage; }
DEVICE uint32_t empty_at(Ring r, int stage) { return r.barriers + 8 * (STAGES + stage); }

/* By one thread, a cluster_sync before anything else. others: arrivals that empty a stage beside those of the warps
 * that multiply, here and in the other block. */
DEVICE void open_ring(Ring r, int others) {
    for (int s = 0; s < STAGES; s++) {
        barrier_init(full_at(r, s), 1);
        barrier_init(empty_at(r, s), 2 * WARPS + others);
    }
}

/* Where a thread is in the ring. */
typedef struct { int stage; uint32_t parity; } Turn;
DEVICE void turn(Turn *t) {
    if (++t->stage == STAGES) t->stage = 0, t->parity ^= 1;
}
DEVICE int stage_before(Turn t) { return (t.stage + STAGES - 1) % STAGES; }

/* This block's half of B's stage: turned, rows k.. of columns `column`.., else columns k.. of rows `column`.. */
template <bool TURNED> DEVICE void ask_b(Ring r, const CUtensorMap *b, int column, int k, uint32_t rank, Turn t) {
    uint32_t full = full_at(r, t.stage), half = r.stages + t.stage * STAGE_BYTES + A_BYTES + rank * B_BYTES / 2;
    column += (int)rank * TILE_N / 2;
    if (TURNED) {
        box_load_to(3, half, b, column, k, full);
        box_load_to(3, half + B_BYTES / 4, b, column + TILE_N / 4, k, full);
    } else {
        box_load_to(3, half, b, k, column, full);
    }
}

/* One stage's products of a group, when it has come; committed, not waited for. */
template <bool A_TURNED, bool B_TURNED>
DEVICE void multiply_step(float (&d)[128], Ring r, int group, Turn t, bool add) {
    uint32_t a = r.stages + t.stage * STAGE_BYTES;
    uint64_t x = operand_at(a + group * A_BYTES / 2, 16),
             y = operand_at(a + A_BYTES, B_TURNED ? STEP * STEP * 2 : 16);
    barrier_wait(full_at(r, t.stage), t.parity);
    wgmma_begin();
    UNROLL for (int j = 0; j < STEP / 16; j++)
        wgmma_256<A_TURNED, B_TURNED>(d, x + (A_TURNED ? 128 : 2) * j, y + (B_TURNED ? 128 : 2) * j, add || j);
    wgmma_commit();
}

/* Both blocks wrote into this stage. */
DEVICE void release(Ring r, int stage, int lane) {
    if (lane < 2) barrier_arrive_at(empty_at(r, stage), lane);
}
#endif

/* Older architectures have no clusters, and compile to a trap that nobody calls. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define IN_PAIRS
#else
#define IN_PAIRS __cluster_dims__(2, 1, 1)
#endif

/* ---- the host ---------------------------------------------------------------------------------------------------- */

/* A tensor map is made by the driver; its function is asked for, not linked. */
typedef CUresult (*EncodeTiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                                const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
static inline EncodeTiled encoder(void) {
    static void *f;
    static bool asked;
    cudaDriverEntryPointQueryResult found;
    if (asked) return (EncodeTiled)f;
    asked = true;
    cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found);
    if (e != cudaSuccess || found != cudaDriverEntryPointSuccess) f = NULL, cudaGetLastError();
    return (EncodeTiled)f;
}

/* Whether a product's kernel can run here; as is_built. */
static inline bool is_there(const void *kernel, size_t room, int *known) {
    return is_built(kernel, room, known) && encoder();
}

/* A (rows, columns) matrix of bf16 as boxes of (height, width), width 64, or 32 (both swizzled as wgmma.cuh says).
 * False where TMA does not take it. */
static inline bool map_of(CUtensorMap *to, const void *p, int64_t rows, int64_t columns, int64_t ld, int height,
                          int width) {
    cuuint64_t size[2] = {(cuuint64_t)columns, (cuuint64_t)rows}, stride[1] = {(cuuint64_t)ld * 2};
    cuuint32_t box[2] = {(cuuint32_t)width, (cuuint32_t)height}, each[2] = {1, 1};
    return encoder()(to, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)p, size, stride, box, each,
                     CU_TENSOR_MAP_INTERLEAVE_NONE,
                     width == 32 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* An address and a stride that TMA takes. */
static inline bool is_row(const void *p, int64_t ld) { return aligned16(p) && ld % 8 == 0 && ld < (int64_t)1 << 38; }
