/* product_group: several products in one launch, for Hopper (sm_90a): gradients of a layer's weights.
 *
 *   C(m,n) = [C +] A^T B, sums(m) = [sums +] A's columns      A (k,m), B (k,n) bf16; C, sums f32; f32 sums over k
 *
 * One by one they fill 0.5 to 1.1 waves of tiles, with k split in two and the halves added afterwards. Together their
 * tiles, k whole, are dealt to the pairs of blocks, longest first, each to the pair with the least to do (on the host,
 * so always alike): of a layer of 128 image-text pairs, 180 tiles, the last of 66 has 646 steps of the inner dimension
 * where 632 would be even; with cross-attention, 198 tiles, 772 and 701. Tiles and their ring of stages:
 * product_ring.cuh, A and B turned as they lie. A finished tile leaves by plain stores, 32 bytes of a row at a time,
 * while the ring fills for the next.
 *
 * Column sums of A are taken from the stages as they pass, by two warps of the group that asks, where a tile is the
 * first of its rows: 64 columns each, 8 a lane, every fourth row, added across lanes at the end.
 *
 * Bytes: A once for each 256 columns of C, B once for each 256 rows (of L2, mostly: tiles of one product run beside
 * each other), C once. Predicted, nothing measured: see tests/bench/RESULTS.md.
 *
 * Takes: 16-byte addresses and strides of A and B, n a multiple of 8, C's rows at even addresses of f32, any m and k,
 * up to MOST products of MOST_TILES pairs of tiles. Nothing that one reads or writes is written by another. */
#include "kernels/cuda/product_ring.cuh"

enum { MOST = CUDA_GROUP, MOST_PAIRS = 80, MOST_TILES = 640, TILE_BITS = 12 };
enum { BARRIERS = RING_BYTES, ROOM = BARRIERS + RING_BARRIERS, SUMMERS = 2 };

typedef struct {
    float *c, *sums;                    /* sums NULL: not wanted */
    int64_t ldc;
    int m, n, steps, columns;           /* steps of the inner dimension; tiles of a row */
    bool add, sums_zero;
} Product;

/* Pair i makes tiles[first[i] .. first[i+1]): a product's number << TILE_BITS | which of its tiles, n first. */
typedef struct {
    CUtensorMap a[MOST], b[MOST];
    Product product[MOST];
    uint16_t first[MOST_PAIRS + 1], tile[MOST_TILES];
} Group;
static_assert(sizeof(Group) <= 4096, "what a kernel takes as its parameters");

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* A tile of the list: this block's first row and column of it. */
typedef struct { const Product *p; int which, row, column; } Tile;
DEVICE Tile tile_at(const Group &g, int i, uint32_t rank) {
    int which = g.tile[i] >> TILE_BITS, number = g.tile[i] & ((1 << TILE_BITS) - 1);
    const Product *p = &g.product[which];
    return {p, which, (number / p->columns * 2 + (int)rank) * TILE_M, number % p->columns * TILE_N};
}

DEVICE void ask(const Group &g, Ring r, uint32_t rank, int from, int end) {
    Turn t = {0, 1};
    for (int i = from; i < end; i++) {
        Tile to = tile_at(g, i, rank);
        for (int k = 0; k < to.p->steps; k++, turn(&t)) {
            uint32_t full = full_at(r, t.stage), a = r.stages + t.stage * STAGE_BYTES;
            barrier_wait(empty_at(r, t.stage), t.parity);
            barrier_expect(full, STAGE_BYTES);
            box_load(a, &g.a[to.which], to.row, k * STEP, full);
            box_load(a + A_BYTES / 2, &g.a[to.which], to.row + TILE_M / 2, k * STEP, full);
            ask_b<true>(r, &g.b[to.which], to.column, k * STEP, rank, t);
        }
    }
}

/* Adds a stage's rows lane / 8 + 4 i of the 16 bytes lane % 8 of this warp's half of A. */
DEVICE void sum_stage(float (&sum)[8], const char *half, int lane) {
    UNROLL for (int i = 0; i < STEP / 4; i++) {
        int row = lane / 8 + 4 * i;
        uint4 v = *(const uint4 *)(half + row * 128 + (((lane ^ row) & 7) << 4));
        const uint32_t two[4] = {v.x, v.y, v.z, v.w};
        UNROLL for (int j = 0; j < 4; j++) sum[2 * j] += low_bf16(two[j]), sum[2 * j + 1] += high_bf16(two[j]);
    }
}

DEVICE void put_sums(const Product *p, float (&sum)[8], int column, int lane) {
    UNROLL for (int j = 0; j < 8; j++) {
        sum[j] += __shfl_xor_sync(~0u, sum[j], 8);
        sum[j] += __shfl_xor_sync(~0u, sum[j], 16);
        if (lane < 8 && column + j < p->m) p->sums[column + j] = (p->sums_zero ? 0 : p->sums[column + j]) + sum[j];
    }
}

DEVICE void sum(const Group &g, const char *memory, Ring r, uint32_t rank, int from, int end) {
    int lane = threadIdx.x & 31, half = (int)threadIdx.x / 32 - 1;
    Turn t = {0, 0};
    for (int i = from; i < end; i++) {
        Tile of = tile_at(g, i, rank);
        bool wanted = of.p->sums && of.column == 0;
        float sums[8] = {0};
        for (int k = 0; k < of.p->steps; k++, turn(&t)) {
            barrier_wait(full_at(r, t.stage), t.parity);
            if (wanted) sum_stage(sums, memory + t.stage * STAGE_BYTES + half * A_BYTES / 2, lane);
            __syncwarp();
            if (lane == 0) barrier_arrive_at(empty_at(r, t.stage), rank);
        }
        if (wanted) put_sums(of.p, sums, of.row + half * TILE_M / 2 + lane % 8 * 8, lane);
    }
}

/* Row `row` of a finished tile, and the one eight below: what this thread has of them, from column `column` on. */
DEVICE void put_tile(const Product *p, const float (&d)[128], int row, int column) {
    UNROLL for (int half = 0; half < 2; half++) {
        if (row + 8 * half >= p->m) continue;
        float *to = p->c + (row + 8 * half) * p->ldc + column;
        UNROLL for (int j = 0; j < TILE_N / 8; j++) {
            if (column + 8 * j >= p->n) continue;
            float2 old = p->add ? *(float2 *)(to + 8 * j) : make_float2(0, 0);
            *(float2 *)(to + 8 * j) = make_float2(old.x + d[4 * j + 2 * half], old.y + d[4 * j + 2 * half + 1]);
        }
    }
}

DEVICE void multiply(const Group &g, Ring r, uint32_t rank, int from, int end) {
    int lane = threadIdx.x & 31, warp = (int)threadIdx.x / 32 - 4;
    float d[128];
    Turn t = {0, 0};
    for (int i = from; i < end; i++) {
        Tile to = tile_at(g, i, rank);
        for (int k = 0; k < to.p->steps; k++, turn(&t)) {
            multiply_step<true, true>(d, r, warp / 4, t, k > 0);
            if (k > 0) wgmma_wait<1>(), release(r, stage_before(t), lane);
        }
        wgmma_wait<0>(), release(r, stage_before(t), lane);
        wgmma_settle(d);
        put_tile(to.p, d, to.row + 16 * warp + lane / 4, to.column + 2 * (lane & 3));
    }
}
#endif

/* Registers: 56 for those that ask and sum, 224 for those that multiply: 168 for each on the whole. */
static __global__ IN_PAIRS __launch_bounds__(PRODUCT_THREADS, 1)
void product_group_kernel(const __grid_constant__ Group g) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    uint32_t room = shared_at(memory), rank = cluster_rank();
    int from = g.first[blockIdx.x / 2], end = g.first[blockIdx.x / 2 + 1];
    Ring r = {room, room + BARRIERS};
    if (threadIdx.x == 0) open_ring(r, SUMMERS), barriers_opened();
    cluster_sync();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
        if (threadIdx.x == 0) ask(g, r, rank, from, end);
        else if (threadIdx.x / 32 - 1u < SUMMERS) sum(g, memory, r, rank, from, end);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
        multiply(g, r, rank, from, end);
    }
    __syncwarp();
    cluster_sync();                     /* the other block may still send here */
#else
    __trap();
#endif
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

static int64_t tiles_of(const Gemm *g) { return ceil_div(g->m, 2 * TILE_M) * ceil_div(g->n, TILE_N); }

bool cuda_product_group_takes(const Gemm *g) {
    static int known = -1;
    int64_t most = INT32_MAX - 4 * TILE_N;
    if (g->ab != DT_BF16 || g->ct != DT_F32 || !g->ta || g->tb || g->bias || g->act || !g->m || !g->n || !g->k)
        return false;
    if (g->m > most || g->n > most || g->k > most || g->n % 8 || g->ldc % 2 || (uintptr_t)g->c % 8) return false;
    return is_row(g->a, g->lda) && is_row(g->b, g->ldb) && tiles_of(g) <= MOST_TILES &&
           is_there((const void *)product_group_kernel, ROOM, &known);
}

static int pairs_here(void) { return (int)at_most(cuda.sms / 2, MOST_PAIRS); }

static int64_t all_tiles(const Gemm *g, int n) {
    int64_t tiles = 0;
    for (int i = 0; i < n; i++) tiles += tiles_of(&g[i]);
    return tiles;
}

/* Fewer tiles than pairs leave SMs idle, where a library would split k. */
bool cuda_product_group_fills(const Gemm *g, int n) { return all_tiles(g, n) >= pairs_here(); }

/* Tiles of products `order`, longest first, to `pairs` pairs: each to the one with the least to do. */
static void deal(Group *to, const int order[MOST], int n, int pairs) {
    int64_t load[MOST_PAIRS] = {0};
    uint16_t whose[MOST_TILES], what[MOST_TILES], next[MOST_PAIRS];
    int some = 0;
    for (int j = 0; j <= pairs; j++) to->first[j] = 0;
    for (int i = 0; i < n; i++) {
        const Product *p = &to->product[order[i]];
        int tiles = (int)ceil_div(p->m, 2 * TILE_M) * p->columns;
        for (int k = 0; k < tiles; k++, some++) {
            int least = 0;
            for (int j = 1; j < pairs; j++) least = load[j] < load[least] ? j : least;
            load[least] += p->steps, to->first[least + 1]++;
            whose[some] = (uint16_t)least, what[some] = (uint16_t)(order[i] << TILE_BITS | k);
        }
    }
    for (int j = 0; j < pairs; j++) next[j] = to->first[j], to->first[j + 1] = (uint16_t)(to->first[j + 1] + next[j]);
    for (int k = 0; k < some; k++) to->tile[next[whose[k]]++] = what[k];
}

static bool describe(Group *to, const Gemm *g, int n, int order[MOST]) {
    for (int i = 0; i < n; i++, g++) {
        Product *p = &to->product[i];
        int at = i;
        p->c = (float *)g->c, p->sums = g->sums, p->ldc = g->ldc, p->m = (int)g->m, p->n = (int)g->n;
        p->steps = (int)ceil_div(g->k, STEP), p->columns = (int)ceil_div(g->n, TILE_N);
        p->add = g->add, p->sums_zero = g->sums_zero;
        if (!map_of(&to->a[i], g->a, g->k, g->m, g->lda, STEP, STEP) ||
            !map_of(&to->b[i], g->b, g->k, g->n, g->ldb, STEP, STEP))
            return false;
        for (; at > 0 && to->product[order[at - 1]].steps < p->steps; at--) order[at] = order[at - 1];
        order[at] = i;
    }
    return true;
}

bool cuda_product_group(const Gemm *g, int n) {
    static Group to;
    int order[MOST], pairs = pairs_here();
    if (n > MOST || all_tiles(g, n) > MOST_TILES || !describe(&to, g, n, order)) return false;
    deal(&to, order, n, pairs);
    cudaError_t e = cudaFuncSetAttribute((const void *)product_group_kernel,
                                         cudaFuncAttributeMaxDynamicSharedMemorySize, ROOM);
    if (!cuda_ok(e, "product_group")) return true;
    product_group_kernel<<<2 * (unsigned)pairs, PRODUCT_THREADS, ROOM, cuda.compute>>>(to);
    cuda_launched("product_group");
    return true;
}
