/* product_act: a matrix product with what is around it in one kernel, for Hopper (sm_90a), bf16 with f32 sums.
 *
 *   plain      y(m,n) = [y +] (A B^T, rounded to bf16) + bias
 *   forward    u(m,n) = A B^T, rounded to bf16         h = f(u + bias), in another place or in u's
 *   backward   dh = A B, rounded to bf16               du = dh f'(u + bias), dbias += its column sums, h made again
 *                                                      in u's place when it is asked for
 *
 * Rounding stands where it does when the product and act.cu's (norm.cu's) kernels follow each other: u and dh are
 * rounded before f sees them, y before its bias and what it is added to; sums of columns take du before it is rounded.
 * dh never lies in memory, nor does u where h takes its place; h is written by who made u.
 *
 * Tiles and their ring of stages: product_ring.cuh. What a finished tile holds is packed to 64 registers of bf16, and
 * the next tile's first eight steps carry its epilogue, 32 columns a step: a step keeps the tensor cores for 1,024
 * cycles, 32 columns of both groups take about 800 of issue, so f costs no time of its own but for the last tile.
 * Results leave by way of shared memory as boxes of 16 x 32 (stmatrix, TMA), two under way a warp; u comes the same
 * way, and so does the y that is added to. Blocks stay and take each 66th pair of tiles, n first (beside AdamW there
 * are fewer of them).
 *
 * Bytes: A once for each 256 columns, B once for each 256 rows (of L2, mostly), u and h (du, u) once; sums of columns
 * 4 n for each 64 rows, written and read. Predicted, nothing measured: see tests/bench/RESULTS.md.
 *
 * Takes: bf16 everywhere, 16-byte addresses and strides, n a multiple of 8, any m and k; no gate. A matrix's rows and
 * columns beyond its end are zeros to TMA and are not written. Everything else is left to gemm.c, as on other GPUs. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/product_ring.cuh"

enum { STRIPE = 32, STRIPES = TILE_N / STRIPE };

/* Shared memory, bytes. A warp has two pairs of boxes: forward u and h, backward u (then h) and du. */
enum {
    BOX_BYTES = 16 * STRIPE * 2, BOXES = RING_BYTES, SUMS = BOXES + WARPS * 4 * BOX_BYTES,
    SUMS_BYTES = GROUPS * 2 * 4 * STRIPE * 4, BARRIERS = SUMS + SUMS_BYTES, READS = BARRIERS + RING_BARRIERS,
    ROOM = READS + 8 * 2 * WARPS
};

/* u, y: forward u and h; backward u and du. h: backward, u's place or another. */
typedef struct {
    CUtensorMap a, b, u, y, h;
    const void *bias;                   /* f32; plain: bf16 */
    float *partial;                     /* (ceil(m / 64), n) or NULL */
    int m, n, steps, columns, pairs;    /* steps of the inner dimension; tiles of a row; pairs of tiles */
    bool again, keep;                   /* h is wanted; forward: u is */
} ProductAct;

/* What a kernel does beside an ActKind: nothing, or adding to what is there. */
enum { PLAIN = 100, ADDING };

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* First row and column of this block's tile of pair i. */
DEVICE int row_of(const ProductAct &p, int i, uint32_t rank) {
    return (i / p.columns * 2 + (int)rank) * TILE_M;
}
DEVICE int column_of(const ProductAct &p, int i) { return i % p.columns * TILE_N; }

/* ---- the thread that asks for boxes ---- */
template <bool BACK> DEVICE void ask(const ProductAct &p, Ring r, uint32_t rank) {
    Turn t = {0, 1};
    for (int i = (int)blockIdx.x / 2; i < p.pairs; i += (int)gridDim.x / 2) {
        int row = row_of(p, i, rank), column = column_of(p, i);
        for (int k = 0; k < p.steps; k++, turn(&t)) {
            barrier_wait(empty_at(r, t.stage), t.parity);
            barrier_expect(full_at(r, t.stage), STAGE_BYTES);
            box_load(r.stages + t.stage * STAGE_BYTES, &p.a, k * STEP, row, full_at(r, t.stage));
            ask_b<BACK>(r, &p.b, column, k * STEP, rank, t);
        }
    }
}

/* ---- a stripe: 16 rows of a warp, 32 columns ---- */

/* What a warp knows of the tile whose results it has: its own first row, the tile's first column. */
typedef struct { int row, column; } Place;

/* Matrix `lane / 8` of the j-th four of a box, row lane % 8: rows 0-7 and 8-15 of columns 16 j, then 16 j + 8. */
DEVICE uint32_t in_box(uint32_t box, int j, int lane) {
    int row = (lane & 7) + (lane & 8), piece = 2 * j + (lane >> 4);
    return box + row * 64 + ((piece ^ (row >> 1 & 3)) << 4);
}
DEVICE void put_box(uint32_t box, const uint32_t r[8], int lane) {
    matrices_store(in_box(box, 0, lane), r);
    matrices_store(in_box(box, 1, lane), r + 4);
}

/* The bias of a thread's two columns of eight. */
DEVICE float2 bias_at(const ProductAct &p, int column) {
    return p.bias && column < p.n ? *(const float2 *)((const float *)p.bias + column) : make_float2(0, 0);
}
DEVICE float2 plain_bias_at(const ProductAct &p, int column) {
    uint32_t two = p.bias && column < p.n ? *(const uint32_t *)((const bf16 *)p.bias + column) : 0;
    return make_float2(low_bf16(two), high_bf16(two));
}

/* u in r: h beside it, and what is wanted of them on its way. */
template <ActKind K> DEVICE void stripe_forward(const ProductAct &p, uint32_t boxes, uint32_t r[8], int c, Place at) {
    int lane = threadIdx.x & 31, column = at.column + c * STRIPE;
    uint32_t h[8], box = boxes + (c & 1) * 2 * BOX_BYTES;
    float slope;
    UNROLL for (int g = 0; g < 4; g++) {
        float2 b = bias_at(p, column + 8 * g + 2 * (lane & 3));
        UNROLL for (int i = 2 * g; i < 2 * g + 2; i++)
            h[i] = pack_bf16(activation<K>(low_bf16(r[i]) + b.x, &slope), activation<K>(high_bf16(r[i]) + b.y, &slope));
    }
    if (lane == 0) box_wait<1>();
    __syncwarp();
    if (p.keep) put_box(box, r, lane);
    put_box(box + BOX_BYTES, h, lane);
    box_fence();
    __syncwarp();
    if (lane) return;
    if (p.keep) box_store(&p.u, column, at.row, box);
    box_store(&p.y, column, at.row, box + BOX_BYTES);
    box_commit();
}

/* Sums over a warp's eight lanes of equal lane % 4: of eight numbers, number lane / 4 (its bits turned) each. */
DEVICE float columns_of_warp(float v[8], int lane) {
    UNROLL for (int bit = 16, n = 4; n; bit >>= 1, n >>= 1)
        UNROLL for (int i = 0; i < 4; i++) {
            if (i >= n) continue;
            bool upper = lane & bit;
            float give = upper ? v[i] : v[i + n], keep = upper ? v[i + n] : v[i];
            v[i] = keep + __shfl_xor_sync(~0u, give, bit);
        }
    return v[0];
}

/* Sums of a group's 64 rows to memory; two rooms in turn, so that one barrier will do. */
DEVICE void stripe_sums(const ProductAct &p, float *sums, float v[8], int c, Place at) {
    int lane = threadIdx.x & 31, warp = (int)threadIdx.x >> 5 & 3, group = (int)threadIdx.x / 128 - 1;
    float *room = sums + (group * 2 + (c & 1)) * 4 * STRIPE;
    float sum = columns_of_warp(v, lane);
    room[warp * STRIPE + (lane >> 3 & 3) / 2 * 16 + (lane >> 3 & 1) * 8 + 2 * (lane & 3) + (lane >> 2 & 1)] = sum;
    asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
    int row = at.row - 16 * warp, column = at.column + c * STRIPE + lane;
    if (warp != (c & 3) || row >= p.m || column >= p.n) return;
    sum = room[lane];
    for (int w = 1; w < 4; w++) sum += room[w * STRIPE + lane];
    p.partial[(int64_t)(row / 64) * p.n + column] = sum;
}

/* The box of u for stripe c of the tile at `at`; its bytes are announced to barrier c % 2. */
DEVICE void ask_u(const ProductAct &p, uint32_t boxes, uint32_t read, int c, Place at) {
    barrier_expect(read + 8 * (c & 1), BOX_BYTES);
    box_load(boxes + (c & 1) * 2 * BOX_BYTES, &p.u, at.column + c * STRIPE, at.row, read + 8 * (c & 1));
}

/* The product in r: becomes y. */
template <bool ADD> DEVICE void stripe_plain(const ProductAct &p, uint32_t boxes, uint32_t read, uint32_t r[8], int c,
                                             Place at, Place next, bool more) {
    int lane = threadIdx.x & 31, column = at.column + c * STRIPE;
    uint32_t u[8], box = boxes + (c & 1) * 2 * BOX_BYTES;
    if (lane == 0) {
        box_wait<1>();
        if (ADD && c + 1 < STRIPES) ask_u(p, boxes, read, c + 1, at);
        else if (ADD && more) ask_u(p, boxes, read, 0, next);
    }
    __syncwarp();
    if (ADD) {
        barrier_wait(read + 8 * (c & 1), c >> 1 & 1);
        matrices_load(in_box(box, 0, lane), u);
        matrices_load(in_box(box, 1, lane), u + 4);
    }
    UNROLL for (int g = 0; g < 4; g++) {
        float2 b = plain_bias_at(p, column + 8 * g + 2 * (lane & 3));
        UNROLL for (int i = 2 * g; i < 2 * g + 2; i++) {
            float low = low_bf16(r[i]) + b.x, high = high_bf16(r[i]) + b.y;
            r[i] = pack_bf16(ADD ? low_bf16(u[i]) + low : low, ADD ? high_bf16(u[i]) + high : high);
        }
    }
    put_box(box + BOX_BYTES, r, lane);
    box_fence();
    __syncwarp();
    if (lane) return;
    box_store(&p.y, column, at.row, box + BOX_BYTES);
    box_commit();
}

/* dh in r: becomes du. `next`: the tile that comes after, when there is one. */
template <ActKind K> DEVICE void stripe_backward(const ProductAct &p, uint32_t boxes, uint32_t read, float *sums,
                                                 uint32_t r[8], int c, Place at, Place next, bool more) {
    int lane = threadIdx.x & 31, column = at.column + c * STRIPE;
    uint32_t u[8], box = boxes + (c & 1) * 2 * BOX_BYTES;
    float v[8];
    if (lane == 0) {
        box_wait<0>();
        if (c + 1 < STRIPES) ask_u(p, boxes, read, c + 1, at);
        else if (more) ask_u(p, boxes, read, 0, next);
    }
    __syncwarp();
    barrier_wait(read + 8 * (c & 1), c >> 1 & 1);
    matrices_load(in_box(box, 0, lane), u);
    matrices_load(in_box(box, 1, lane), u + 4);
    UNROLL for (int g = 0; g < 4; g++) {
        float2 b = bias_at(p, column + 8 * g + 2 * (lane & 3));
        v[2 * g] = v[2 * g + 1] = 0;
        UNROLL for (int i = 2 * g; i < 2 * g + 2; i++) {
            float low, high;
            u[i] = pack_bf16(activation<K>(low_bf16(u[i]) + b.x, &low), activation<K>(high_bf16(u[i]) + b.y, &high));
            low *= low_bf16(r[i]), high *= high_bf16(r[i]);
            v[2 * g] += low, v[2 * g + 1] += high;
            r[i] = pack_bf16(low, high);
        }
    }
    __syncwarp();
    if (p.again) put_box(box, u, lane);
    put_box(box + BOX_BYTES, r, lane);
    box_fence();
    __syncwarp();
    if (lane == 0) {
        if (p.again) box_store(&p.h, column, at.row, box);
        box_store(&p.y, column, at.row, box + BOX_BYTES);
        box_commit();
    }
    if (p.partial) stripe_sums(p, sums, v, c, at);
}

template <int K, bool BACK> DEVICE void stripe(const ProductAct &p, uint32_t boxes, uint32_t read, float *sums,
                                               uint32_t r[8], int c, Place at, Place next, bool more) {
    if constexpr (BACK) stripe_backward<(ActKind)K>(p, boxes, read, sums, r, c, at, next, more);
    else if constexpr (K >= PLAIN) stripe_plain<K == ADDING>(p, boxes, read, r, c, at, next, more);
    else stripe_forward<(ActKind)K>(p, boxes, r, c, at);
}

/* ---- the groups that multiply ---- */

template <int K, bool BACK> DEVICE void multiply(const ProductAct &p, char *memory, Ring r, uint32_t rank) {
    int lane = threadIdx.x & 31, warp = (int)threadIdx.x / 32 - 4, group = warp / 4, stride = (int)gridDim.x / 2;
    uint32_t boxes = r.stages + BOXES + warp * 4 * BOX_BYTES, read = r.stages + READS + 8 * 2 * warp;
    float d[128], *sums = (float *)(memory + SUMS);
    uint32_t done[64];                  /* the tile before; at first none, that lies outside */
    Turn t = {0, 0};
    Place was = {p.m + TILE_M, 0}, now = was;
    UNROLL for (int j = 0; j < 64; j++) done[j] = 0;
    if ((BACK || K == ADDING) && lane == 0) ask_u(p, boxes, read, 0, was);
    for (int i = (int)blockIdx.x / 2; i < p.pairs; i += stride) {
        now = {row_of(p, i, rank) + 16 * warp, column_of(p, i)};
        UNROLL for (int c = 0; c < STRIPES; c++) {
            int before = stage_before(t);
            multiply_step<false, BACK>(d, r, group, t, c > 0);
            stripe<K, BACK>(p, boxes, read, sums, done + 8 * c, c, was, now, true);
            if (c > 0) wgmma_wait<1>(), release(r, before, lane);
            turn(&t);
        }
        for (int k = STRIPES; k < p.steps; k++) {
            int before = stage_before(t);
            multiply_step<false, BACK>(d, r, group, t, true);
            wgmma_wait<1>(), release(r, before, lane);
            turn(&t);
        }
        wgmma_wait<0>(), release(r, stage_before(t), lane);
        wgmma_settle(d);
        UNROLL for (int j = 0; j < 64; j++) done[j] = pack_bf16(d[2 * j], d[2 * j + 1]);
        was = now;
    }
    UNROLL for (int c = 0; c < STRIPES; c++) stripe<K, BACK>(p, boxes, read, sums, done + 8 * c, c, was, was, false);
    if (lane == 0) box_wait<0>();
}

#endif

/* Registers: 24 for those that ask, 240 for those that multiply: 168 for each on the whole. */
template <int K, bool BACK> static __global__ IN_PAIRS __launch_bounds__(PRODUCT_THREADS, 1)
void product_act_kernel(const __grid_constant__ ProductAct p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    uint32_t room = shared_at(memory), rank = cluster_rank();
    Ring r = {room, room + BARRIERS};
    if (threadIdx.x == 0) {
        open_ring(r, 0);
        for (int w = 0; w < 2 * WARPS; w++) barrier_init(room + READS + 8 * w, 1);
        barriers_opened();
    }
    cluster_sync();
    if (threadIdx.x < 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
        if (threadIdx.x == 0) ask<BACK>(p, r, rank);
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
        multiply<K, BACK>(p, memory, r, rank);
    }
    __syncwarp();
    cluster_sync();                     /* the other block may still send here */
#else
    __trap();
#endif
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

typedef void (*Kernel)(ProductAct);
template <bool BACK> static Kernel kernel_of(ActKind k) {
    switch (k) {
    case ACT_GELU: return product_act_kernel<ACT_GELU, BACK>;
    case ACT_GELU_TANH: return product_act_kernel<ACT_GELU_TANH, BACK>;
    case ACT_GELU_QUICK: return product_act_kernel<ACT_GELU_QUICK, BACK>;
    case ACT_RELU: return product_act_kernel<ACT_RELU, BACK>;
    case ACT_SILU: return product_act_kernel<ACT_SILU, BACK>;
    }
    return NULL;
}
static Kernel kernel_for(const Gemm *g) {
    if (!g->act) return g->add ? product_act_kernel<ADDING, false> : product_act_kernel<PLAIN, false>;
    return g->grad ? kernel_of<true>(g->act->kind) : kernel_of<false>(g->act->kind);
}

static bool is_here(void) {
    static int known = -1;
    return is_there((const void *)product_act_kernel<ACT_GELU, false>, ROOM, &known);
}

bool cuda_product_act_takes(const Gemm *g) {
    const Act *a = g->act;
    const ActGrad *d = g->grad;
    int64_t most = INT32_MAX - 4 * TILE_N;
    if (g->ab != DT_BF16 || g->ct != DT_BF16 || g->ta || g->tb == !!d || g->sums) return false;
    if (g->m > most || g->n > most || g->k > most || g->n % 8 || !g->k) return false;
    if (!is_row(g->a, g->lda) || !is_row(g->b, g->ldb)) return false;
    if (!a) return is_row(g->c, g->ldc) && (uintptr_t)g->bias % 4 == 0 && is_here();
    if (a->up || g->add || g->bias || !is_row(a->u, a->ldu) || (uintptr_t)a->bias % 8) return false;
    if (d ? !is_row(d->du, d->lddu) || (a->h && !is_row(a->h, a->ldh)) : !is_row(a->h, a->ldh)) return false;
    if (d && d->dbias && (size_t)(ceil_div(g->m, 64) * g->n) * sizeof(float) > (size_t)WS_COMPUTE) return false;
    return is_here();
}

/* Fewer leave most of the GPU idle, where a library would take smaller tiles; a kernel saved makes up for half. */
bool cuda_product_act_fills(const Gemm *g) {
    return (g->act ? 2 : 1) * ceil_div(g->m, TILE_M) * ceil_div(g->n, TILE_N) >= cuda.sms;
}

/* Maps of what comes out, and of what is read beside the operands. */
static bool describe_results(ProductAct *p, const Gemm *g) {
    const Act *a = g->act;
    const ActGrad *d = g->grad;
    if (!a) return map_of(&p->y, g->c, g->m, g->n, g->ldc, 16, STRIPE) && (p->u = p->y, true);
    p->again = d && a->h, p->keep = !d && a->h != a->u;
    return map_of(&p->u, a->u, g->m, g->n, a->ldu, 16, STRIPE) &&
           map_of(&p->y, d ? d->du : a->h, g->m, g->n, d ? d->lddu : a->ldh, 16, STRIPE) &&
           (!p->again || map_of(&p->h, a->h, g->m, g->n, a->ldh, 16, STRIPE));
}

static bool describe(ProductAct *p, const Gemm *g) {
    int64_t rows = ceil_div(g->m, 2 * TILE_M), columns = ceil_div(g->n, TILE_N);
    p->bias = g->act ? (const void *)g->act->bias : g->bias;
    p->m = (int)g->m, p->n = (int)g->n, p->columns = (int)columns, p->pairs = (int)(rows * columns);
    p->steps = (int)ceil_div(g->k, STEP);
    if (p->steps < STRIPES) p->steps = STRIPES;              /* the epilogue rides on that many; zeros beyond k */
    bool b = g->grad ? map_of(&p->b, g->b, g->k, g->n, g->ldb, STEP, STEP)
                     : map_of(&p->b, g->b, g->n, g->k, g->ldb, TILE_N / 2, STEP);
    return b && map_of(&p->a, g->a, g->m, g->k, g->lda, TILE_M, STEP) && describe_results(p, g);
}

bool cuda_product_act(const Gemm *g) {
    ProductAct p = {};
    const ActGrad *d = g->grad;
    int parts = (int)ceil_div(g->m, 64);
    if (!describe(&p, g)) return false;
    if (d && d->dbias) {
        p.partial = (float *)cuda_workspace((size_t)parts * (size_t)g->n * sizeof(float), "product_act");
        if (!p.partial) return true;
    }
    Kernel kernel = kernel_for(g);
    const void *f = (const void *)kernel;
    cudaError_t e = cudaFuncSetAttribute(f, cudaFuncAttributeMaxDynamicSharedMemorySize, ROOM);
    if (!cuda_ok(e, "product_act")) return true;
    kernel<<<2 * (unsigned)at_most(p.pairs, (cuda.sms - cuda.taken) / 2), PRODUCT_THREADS, ROOM, cuda.compute>>>(p);
    cuda_launched("product_act");
    float *dst[3] = {d ? d->dbias : NULL, NULL, NULL};
    if (p.partial) cuda_add_partials(dst, p.partial, parts, g->n, g->n);
    return true;
}
