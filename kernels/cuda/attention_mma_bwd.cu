/* attention_mma_bwd: attention backward in bf16 on the tensor cores (mathematics: attention.cu; pieces:
 * attention_mma.cuh).
 *
 * Two kernels, scores computed anew in each, nothing added by atomics.
 *
 *   dq       Built like the forward: a warp has 16 rows, the block walks over the keys of the group. P from the kept
 *            lse, dS = P (dP - delta) goes from the accumulators of S straight into the next product: dQ += dS K.
 *            delta = <do, o> of each row is computed here and left in the workspace for the second kernel.
 *   dk, dv   A warp owns 16 keys of the group and the block walks over all rows of all items that see them, 32 at a
 *            time (Q, dO, lse and delta by cp.async, two steps deep). P and dS are transposed in registers
 *            (movmatrix): dV += P'^T dO, dK += dS^T Q. So dk and dv of an image's key are written once, whoever
 *            looked at it, in the order of the items.
 *
 * Bytes a head, group of R rows and U keys: dq reads Q, dO, O and writes dQ: 8RD, K and V 4UD ceil(R / 64), lse and
 * delta 8R; dk, dv: K, V, dK, dV 8UD (12UD when added to), Q and dO 4RD ceil(U / 96), 8R. FLOPs 6RUD and 8RUD.
 * Cross-attention (R = 64, U = 257, D = 64): 99 + 181 KB for 14.7 MFLOP: bound by memory: 128 images, 12 heads, 430 MB,
 * 130 us of an H100.
 *
 * Registers at D = 64: dq 128, 36 KB of shared memory at four warps: 4 blocks (16 warps) an SM; dk, dv 161, 47 KB at
 * six warps: 2 blocks (12 warps). Row keys for dropout: 8R a walk. */
#include "kernels/cuda/attention_mma.cuh"

enum { WARPS = 4, KEY_WARPS = 6, ROWS = 32 };

/* ---- dq -------------------------------------------------------------------------------------------------------- */

template <int D> static size_t dq_shared(int warps) {
    return (size_t)(warps * 32 + 4 * KEYS) * Tile<D>::LD * sizeof(bf16);
}

/* P of a score: 0 where the row does not see the key. */
DEVICE float probability(float s, float scale, float lse, bool seen) {
    return seen ? exp2_fast(s * scale - lse) : 0.0f;
}

template <int D> DEVICE void dq_step(float (*dq)[4], const bf16 *Q, const bf16 *dO, const bf16 *K, const bf16 *V,
                                     const WarpTile &w, const Attn &a, const RowKey key[2], const float lse[2],
                                     const float delta[2], int u0, int lane) {
    float s[KEYS / 8][4] = {{0}}, dp[KEYS / 8][4] = {{0}}, scale = a.scale * LOG2E;
    product_rows<D, KEYS / 16>(s, Q, K, 0, lane);
    product_rows<D, KEYS / 16>(dp, dO, V, 0, lane);
    if (a.drop.p > 0) drop_step(dp, a.drop, key, u0, w.lo, 1.0f / (1.0f - a.drop.p), lane);
    int column = u0 + 2 * (lane & 3),
        end[2] = {tile_end(w, w.row0 + (lane >> 2)), tile_end(w, w.row0 + (lane >> 2) + 8)};
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int u = column + n * 8 + (e & 1), r = e >> 1;
            s[n][e] = probability(s[n][e], scale, lse[r], u >= w.lo && u < end[r]) * (dp[n][e] - delta[r]);
        }
    product_step<D>(dq, s, K, lane);
}

/* <do, o> of 16 rows: two lanes a row. dO is in shared memory. */
template <int D> DEVICE float row_delta(const bf16 *dO, const Attn &a, const WarpTile &w, int h, int lane) {
    int r = lane >> 1;
    int64_t row = tile_row(w, r);
    float sum = 0, x[8], y[8];
    if (row >= 0) {
        const bf16 *o = (const bf16 *)a.o + row * a.ldo + h * D;
        for (int c = lane & 1; c < D / 8; c += 2) {
            ld8(x, o + c * 8);
            ld8(y, dO + r * Tile<D>::LD + c * 8);
#pragma unroll
            for (int e = 0; e < 8; e++) sum += x[e] * y[e];
        }
    }
    return sum + __shfl_xor_sync(~0u, sum, 1);
}

template <int D> static __global__ __launch_bounds__(WARPS * 32, D <= 64 ? 4 : 3) void dq_mma(
    Attn a, AttnGrad grad, const AttnItem *items, const AttnGroup *groups, float *delta_out, int64_t rows) {
    extern __shared__ __align__(16) bf16 room[];
    __shared__ BlockTiles<WARPS> tiles;
    constexpr int LD = Tile<D>::LD;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (int)blockDim.x >> 5, h = blockIdx.y;
    bf16 *Q = room + warp * 32 * LD, *dO = Q + 16 * LD, *kv = room + warps * 32 * LD;
    find_tiles<WARPS>(&tiles, groups, items, (int)blockIdx.z * warps, warps);
    if (!tiles.tile[0].there) return;
    const AttnGroup &g = tiles.g;
    const WarpTile &w = tiles.tile[warp];

    auto own_row = [&](int r) { return tile_row(w, r); };
    load_tile<D>(Q, (const bf16 *)a.q + h * D, a.ldq, 16, lane, 32, own_row);
    load_tile<D>(dO, (const bf16 *)grad.d_o + h * D, a.ldo, 16, lane, 32, own_row);
    copies_end_group();
    load_keys<D>(kv, a, g, w.keys, 0, h);
    copies_wait<1>();
    __syncwarp();
    float sum = row_delta<D>(dO, a, w, h, lane), kept = 0, lse[2], delta[2]; /* lanes 2 i and 2 i + 1 for row i */
    int64_t row = own_row(lane >> 1);
    if ((lane & 1) == 0 && row >= 0) {
        delta_out[h * rows + row] = sum;
        kept = a.lse[h * rows + row] * LOG2E;
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        delta[r] = __shfl_sync(~0u, sum, 2 * ((lane >> 2) + 8 * r));
        lse[r] = __shfl_sync(~0u, kept, 2 * ((lane >> 2) + 8 * r));
    }
    RowKey key[2];
    keys_of_rows(key, a.drop, w, lane);
    float dq[2 * Tile<D>::STEPS][4] = {{0}};
    walk_keys<D>(kv, a, g, w, h, [&](const bf16 *K, const bf16 *V, int u0) {
        dq_step<D>(dq, Q, dO, K, V, w, a, key, lse, delta, u0, lane);
    });
    if (w.there) write_rows<D>(Q, dq, a.scale, a.scale, (bf16 *)grad.dq + h * D, grad.lddq, false, lane, own_row);
}

/* ---- dk, dv ---------------------------------------------------------------------------------------------------- */

/* Of a step's rows beside Q and dO: lse, delta, and where they come from (two words), ROWS of each. */
enum { NUMBERS = 4 * ROWS };

/* Shared memory: 16 rows of K and of V a warp; two steps of Q, dO (ROWS rows each) and numbers. */
template <int D> static size_t dkv_shared(int warps) {
    return (size_t)(warps * 32 + 4 * ROWS) * Tile<D>::LD * sizeof(bf16) + 2 * NUMBERS * sizeof(float);
}

/* Where the walk over the rows of a group stands: rows i.. of item t. Items that see none of the block's keys [first,
 * end) are passed over. One thread walks, two steps ahead of the others, who find the steps in shared memory. */
typedef struct {
    AttnItem it;
    int t, i;
    bool there;
} Walk;
DEVICE Walk walk_to(int t, int i, const AttnGroup &g, const AttnItem *items, int first, int end) {
    Walk p;
    p.there = false;
    for (; t < g.item0 + g.nitems; t++, i = 0) {
        p.it = items[t];
        if (i < p.it.nq && ((p.it.na && first < g.nk[0]) || (p.it.nb && end > g.nk[0]))) {
            p.there = true;
            break;
        }
    }
    p.t = t, p.i = i;
    return p;
}

/* 16 rows of the step against the warp's 16 keys. */
template <int D> DEVICE void dkv_step(float (*dk)[4], float (*dv)[4], const bf16 *K, const bf16 *V, const bf16 *Q,
                                      const bf16 *dO, const float *numbers, int at, const WarpTile &w, const Attn &a,
                                      int u0, int lane) {
    float s[2][4] = {{0}}, dp[2][4] = {{0}}, scale = a.scale * LOG2E;
    product_rows<D, 1>(s, Q, K, 0, lane);
    product_rows<D, 1>(dp, dO, V, 0, lane);
    const float *lse = numbers + at, *delta = numbers + ROWS + at;
    const uint32_t *from = (const uint32_t *)(numbers + 2 * ROWS) + 2 * at;
    int column = u0 + 2 * (lane & 3), row = lane >> 2;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int end = tile_end(w, w.row0 + row + 8 * r);
        float l = lse[row + 8 * r] * LOG2E;
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                int u = column + n * 8 + (e & 1);
                s[n][e] = probability(s[n][e], scale, l, u >= w.lo && u < end);
            }
    }
    float p[2][4]; /* P' */
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) p[n][e] = s[n][e];
    if (a.drop.p > 0) { /* lane c of four: block c & 1 of row c >> 1 */
        uint32_t threshold = dropout_threshold(a.drop.p), first = (blockIdx.y << 20) + (uint32_t)((u0 - w.lo) >> 3);
        float keep = 1.0f / (1.0f - a.drop.p);
        int i = row + 8 * (lane >> 1 & 1);
        RowKey key = {from[2 * i], from[2 * i + 1]};
        Philox x = dropout_block(&a.drop, key, first + (lane & 1));
        exchange(x.v, lane);
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int r = 0; r < 2; r++) {
                drop2(&p[n][2 * r], x.v[n + 2 * r], threshold, keep);
                drop2(&dp[n][2 * r], x.v[n + 2 * r], threshold, keep);
            }
    }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] *= dp[n][e] - delta[row + 8 * (e >> 1)];
    uint32_t pt[4] = {transposed(pack_bf16(p[0][0], p[0][1])), transposed(pack_bf16(p[1][0], p[1][1])),
                      transposed(pack_bf16(p[0][2], p[0][3])), transposed(pack_bf16(p[1][2], p[1][3]))};
    uint32_t st[4] = {transposed(pack_bf16(s[0][0], s[0][1])), transposed(pack_bf16(s[1][0], s[1][1])),
                      transposed(pack_bf16(s[0][2], s[0][3])), transposed(pack_bf16(s[1][2], s[1][3]))};
    product_columns<D>(dv, pt, dO, 0, lane);
    product_columns<D>(dk, st, Q, 0, lane);
}

template <int D> static __global__ __launch_bounds__(KEY_WARPS * 32, D <= 64 ? 2 : 1) void dkv_mma(
    Attn a, AttnGrad grad, const AttnItem *items, const AttnGroup *groups, const float *delta, int64_t rows) {
    extern __shared__ __align__(16) bf16 room[];
    constexpr int LD = Tile<D>::LD;
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, warps = (int)blockDim.x >> 5, h = blockIdx.y;
    bf16 *K = room + warp * 32 * LD, *V = K + 16 * LD, *steps = room + warps * 32 * LD;
    float *numbers = (float *)(steps + 4 * ROWS * LD);
    __shared__ AttnGroup group;
    __shared__ Walk walk[3];
    if (thread == 0) group = groups[blockIdx.x];
    __syncthreads();
    const AttnGroup &g = group;
    int keys = g.nk[0] + g.nk[1], first = (int)blockIdx.z * warps * 16, end = min(keys, first + warps * 16),
        u0 = first + warp * 16;
    if (first >= keys) return;

    auto key_of = [&](int r) { return u0 + r < keys ? group_key_row(g, u0 + r) : -1; };
    load_tile<D>(K, (const bf16 *)a.k + h * D, a.ldk, 16, lane, 32, key_of);
    load_tile<D>(V, (const bf16 *)a.v + h * D, a.ldv, 16, lane, 32, key_of);
    auto load_step = [&](const Walk &p, int buffer) {
        bf16 *at = steps + buffer * 2 * ROWS * LD;
        float *n = numbers + buffer * NUMBERS;
        auto row_of = [&](int r) { return p.i + r < p.it.nq ? (int64_t)p.it.q0 + p.i + r : -1; };
        load_tile<D>(at, (const bf16 *)a.q + h * D, a.ldq, ROWS, thread, warps * 32, row_of);
        load_tile<D>(at + ROWS * LD, (const bf16 *)grad.d_o + h * D, a.ldo, ROWS, thread, warps * 32, row_of);
        for (int k = thread; k < (a.drop.p > 0 ? NUMBERS : 2 * ROWS); k += warps * 32) {
            int64_t row = row_of(k < 2 * ROWS ? k % ROWS : (k - 2 * ROWS) / 2), at_row = row >= 0 ? row : 0;
            const void *src = (k < ROWS ? a.lse : delta) + h * rows + at_row;
            if (k >= 2 * ROWS) src = (const uint32_t *)a.drop.rows + at_row * 2 + k % 2;
            copy4(n + k, src, row >= 0);
        }
        copies_end_group();
    };

    float dk[2 * Tile<D>::STEPS][4] = {{0}}, dv[2 * Tile<D>::STEPS][4] = {{0}};
    if (thread == 0) {
        walk[0] = walk_to(g.item0, 0, g, items, first, end);
        walk[1] = walk_to(walk[0].t, walk[0].i + ROWS, g, items, first, end);
    }
    __syncthreads();
    if (walk[0].there) load_step(walk[0], 0);
    else copies_end_group();
    for (int t = 0; walk[t % 3].there; t++) {
        const Walk &now = walk[t % 3], &next = walk[(t + 1) % 3];
        int buffer = t & 1;
        if (next.there) {
            load_step(next, buffer ^ 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        if (thread == 0) walk[(t + 2) % 3] = walk_to(next.t, next.i + ROWS, g, items, first, end);
        const bf16 *at = steps + buffer * 2 * ROWS * LD;
        WarpTile w;
        w.it = now.it;
        w.n0 = g.nk[0];
        w.keys = keys;
        w.lo = tile_first(w.it, w.n0);
        w.there = true;
#pragma unroll 1
        for (int r = 0; r < ROWS; r += 16) {
            w.row0 = now.i + r;
            if (w.row0 < w.it.nq && u0 < tile_most(w) && u0 + 16 > w.lo)
                dkv_step<D>(dk, dv, K, V, at + r * LD, at + (ROWS + r) * LD, numbers + buffer * NUMBERS, r, w, a, u0,
                            lane);
        }
        __syncthreads();
    }
    copies_wait<0>();
    if (u0 >= keys) return;
    write_rows<D>(K, dk, a.scale, a.scale, (bf16 *)grad.dk + h * D, grad.lddk, grad.add, lane, key_of);
    write_rows<D>(V, dv, 1.0f, 1.0f, (bf16 *)grad.dv + h * D, grad.lddv, grad.add, lane, key_of);
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

template <int D> static bool backward(const Attn *a, const AttnGrad *g, const PlanShape *s, float *delta) {
    const AttnPlan *p = a->plan;
    int warps = even_warps(s->tiles, WARPS), key_warps = even_warps((s->keys + 15) / 16, KEY_WARPS);
    size_t shared = dq_shared<D>(warps), key_shared = dkv_shared<D>(key_warps);
    if (!allow_shared(dq_mma<D>, shared) || !allow_shared(dkv_mma<D>, key_shared)) return false;
    if (s->tiles) {
        dim3 grid((unsigned)p->ngroups, (unsigned)a->H, (unsigned)ceil_div(s->tiles, warps));
        dq_mma<D><<<grid, warps * 32, shared, cuda.compute>>>(*a, *g, p->items, p->groups, delta, s->rows);
        cuda_launched("attention_bwd (dq)");
    }
    if (s->keys) {
        dim3 grid((unsigned)p->ngroups, (unsigned)a->H, (unsigned)ceil_div(s->keys, key_warps * 16));
        dkv_mma<D><<<grid, key_warps * 32, key_shared, cuda.compute>>>(*a, *g, p->items, p->groups, delta, s->rows);
        cuda_launched("attention_bwd (dk, dv)");
    }
    return true;
}

bool attention_bwd_mma(const Attn *a, const AttnGrad *g, const PlanShape *s, float *delta) {
    return for_head_size(a->D, [&](auto tile) { return backward<decltype(tile)::HEAD>(a, g, s, delta); });
}
