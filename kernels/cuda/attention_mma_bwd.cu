/* attention_mma_bwd: attention backward in bf16 on the tensor cores (mathematics: attention.cu; pieces:
 * attention_mma.cuh), for what attention_bwd_one.cu does not take: head sizes of at most 32 or above 64, groups of more
 * keys than fit in shared memory (on sm_89: of more than some 120).
 *
 * Two kernels, scores computed anew in each, nothing added by atomics.
 *
 *   dq       Built like the forward: a warp has 16 rows, the block walks over the keys of the group. P from the kept
 *            lse, dS = P (dP - delta) goes from the accumulators of S straight into the next product: dQ += dS K.
 *            delta = <do, o> of each row is computed here and left in the workspace for the second kernel.
 *   dk, dv   A warp owns 16 keys of the group and the block walks over all rows of all items that see them, 32 at a
 *            time (Q, dO, lse and delta by cp.async, one step ahead), for each head that shares the key head. P and dS
 *            are transposed in registers (movmatrix): dV += P'^T dO, dK += dS^T Q. So dk and dv of an image's key are
 *            written once, whoever looked at it, in the order of heads and items.
 *
 * A row that sees one key has P = 1 whatever q and k are: its dS is zero, not what rounding leaves of it.
 *
 * Bytes a head, group of R rows and U keys: dq reads Q, dO, O and writes dQ: 8RD, K and V 4UD ceil(R / 64), lse and
 * delta 8R; dk, dv: K, V, dK, dV 8UD (12UD when added to), Q and dO 4RD ceil(U / 96), 8R. FLOPs 6RUD and 8RUD.
 * Cross-attention (R = 64, U = 257, D = 64): 99 + 181 KB for 14.7 MFLOP: bound by memory: 128 images, 12 heads, 430 MB,
 * 130 us of an H100; predicted are 89 + 171 us (15.9 and 24.0 warp instructions for each HMMA).
 *
 * At D = 64: dq 36 KB of shared memory at four warps: 4 blocks (16 warps) an SM; dk, dv 47 KB at six warps: 2 blocks
 * (12 warps). Row keys for dropout: 8R a walk. */
#include "kernels/cuda/attention_mma.cuh"

enum { WARPS = 4, KEY_WARPS = 6, ROWS = 32 };

/* ---- dq -------------------------------------------------------------------------------------------------------- */

template <int DP> static size_t dq_shared(int warps) {
    return (size_t)(warps * 32 + 4 * KEYS) * Tile<DP>::LD * sizeof(bf16);
}

/* lse: of two rows, in powers of two. */
template <int DP> DEVICE void dq_step(float (*dq)[4], const bf16 *Q, const bf16 *dO, const bf16 *K, const bf16 *V,
                                      const WarpTile &w, const Attn &a, const RowKey key[2], const float lse[2],
                                      const float delta[2], int h, int u0, int lane) {
    float s[KEYS / 8][4] = {{0}}, dp[KEYS / 8][4] = {{0}}, scale = a.scale * LOG2E;
    product_rows<DP, KEYS / 16>(s, Q, K, 0, lane);
    product_rows<DP, KEYS / 16>(dp, dO, V, 0, lane);
    if (a.bias || !sees_all(w, u0, KEYS)) {
        Seen seen = seen_by(w, lane);
        UNROLL for (int r = 0; r < 2; r++)
            /* it sees nothing then: P = 0, so its dS is */
            if (is_alone(seen, r)) seen.a[r] = 0, seen.end[r] = seen.b;
        mask_scores<KEYS / 8>(s, w, seen, a, h, u0, lane);
    }
    if (a.drop.p > 0) drop_step(dp, a.drop, key, w, h, u0, 1.0f / (1.0f - a.drop.p), lane);
    UNROLL for (int n = 0; n < KEYS / 8; n++)
        UNROLL for (int e = 0; e < 4; e++)
            /* powers of two: exp2 is one instruction, and lse came in them */
            s[n][e] = exp2_fast(fmaf(s[n][e], scale, -lse[e >> 1])) * (dp[n][e] - delta[e >> 1]);
    product_step<DP>(dq, s, K, lane);
}

/* <do, o> of 16 rows: two lanes a row. dO is in shared memory. */
template <int DP> DEVICE float row_delta(const bf16 *dO, const Attn &a, const WarpTile &w, int h, int lane) {
    int r = lane >> 1;
    int64_t row = tile_row(w, r);
    float sum = 0, x[8], y[8];
    if (row >= 0) {
        const bf16 *o = (const bf16 *)a.o + row * a.ldo + h * a.D;
        for (int c = lane & 1; c < a.D / 8; c += 2) {
            ld8(x, o + c * 8);
            ld8(y, dO + r * Tile<DP>::LD + c * 8);
            UNROLL for (int e = 0; e < 8; e++) sum += x[e] * y[e];
        }
    }
    return sum + __shfl_xor_sync(~0u, sum, 1);
}

template <int DP> static __global__ __launch_bounds__(WARPS * 32, DP <= 64 ? 4 : 3) void dq_mma(
    Attn a, AttnGrad grad, const AttnItem *items, const AttnGroup *groups, float *delta_out, int64_t rows) {
    extern __shared__ __align__(16) bf16 room[];
    __shared__ BlockTiles<WARPS> tiles;
    constexpr int LD = Tile<DP>::LD;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (int)blockDim.x >> 5, h = blockIdx.y,
        kh = h / (a.H / a.KH);
    bf16 *Q = room + warp * 32 * LD, *dO = Q + 16 * LD, *kv = room + warps * 32 * LD;
    find_tiles<WARPS, KEYS>(&tiles, groups, items, (int)blockIdx.z * warps, warps);
    if (!tiles.tile[0].there) return;
    const WarpTile &w = tiles.tile[warp];

    auto own_row = [&](int r) { return tile_row(w, r); };
    load_tile<DP>(Q, (const bf16 *)a.q + h * a.D, a.ldq, a.D, lane, own_row);
    load_tile<DP>(dO, (const bf16 *)grad.d_o + h * a.D, a.ldo, a.D, lane, own_row);
    copies_end_group();
    copies_wait<0>();
    __syncwarp();
    float sum = row_delta<DP>(dO, a, w, h, lane), kept = 0, lse[2], delta[2]; /* lanes 2 i and 2 i + 1 for row i */
    int row = own_row(lane >> 1);
    if ((lane & 1) == 0 && row >= 0) {
        delta_out[h * rows + row] = sum;
        kept = a.lse[h * rows + row] * LOG2E;
    }
    UNROLL for (int r = 0; r < 2; r++) {
        delta[r] = __shfl_sync(~0u, sum, 2 * ((lane >> 2) + 8 * r));
        lse[r] = __shfl_sync(~0u, kept, 2 * ((lane >> 2) + 8 * r));
    }
    RowKey key[2];
    keys_of_rows(key, a.drop, w, lane);
    float dq[2 * Tile<DP>::STEPS][4] = {{0}};
    walk_keys<DP, WARPS, KEYS>(kv, a, tiles, w, kh, [&](const bf16 *K, const bf16 *V, int u0) {
        dq_step<DP>(dq, Q, dO, K, V, w, a, key, lse, delta, h, u0, lane);
    });
    if (w.there)
        write_rows<DP>(Q, dq, a.scale, a.scale, (bf16 *)grad.dq + h * a.D, grad.lddq, a.D, false, lane, own_row);
}

/* ---- dk, dv ---------------------------------------------------------------------------------------------------- */

/* Of a step's rows beside Q and dO: lse, delta, and where they come from (two words), ROWS of each. */
enum { NUMBERS = 4 * ROWS };

/* Shared memory: 16 rows of K and of V a warp; two steps of Q, dO (ROWS rows each) and numbers. */
template <int DP> static size_t dkv_shared(int warps) {
    return (size_t)(warps * 32 + 4 * ROWS) * Tile<DP>::LD * sizeof(bf16) + 2 * NUMBERS * sizeof(float);
}

/* Where the walk over the rows of a group stands: rows i.. of item t, for head h. Items that see none of the block's
 * keys [first, end) are passed over, and so are rows that come before all of these. One thread walks, two steps ahead
 * of the others, who find the steps in shared memory. */
typedef struct {
    AttnItem it;
    int t, i, h, there;
} Walk;

/* First row of the item that sees one of the keys; nq: none does. */
DEVICE int first_row(const AttnItem &it, const AttnGroup &g, int first, int end) {
    int b = g.nk[0] + it.b0 - g.k0[1], from = it.nq;
    if (it.na && first < it.na) from = it.causal & CAUSAL_A ? first : 0;
    if (it.nb && end > b && first < b + it.nb) from = min(from, it.causal & CAUSAL_B ? max(0, first - b) : 0);
    return from < it.nq ? from / 16 * 16 : it.nq;
}
/* From item t of head h on; heads h_end and beyond are others'. */
DEVICE void walk_to(Walk *p, int t, int h, int h_end, const AttnGroup &g, const AttnItem *items, int first, int end) {
    p->there = false;
    for (; h < h_end; h++, t = g.item0)
        for (; t < g.item0 + g.nitems; t++) {
            p->it = items[t];
            p->t = t, p->h = h, p->i = first_row(p->it, g, first, end);
            p->there = p->i < p->it.nq;
            if (p->there) return;
        }
}
DEVICE void walk_on(Walk *p, const Walk &from, int h_end, const AttnGroup &g, const AttnItem *items, int first,
                    int end) {
    p->there = false;
    if (!from.there) return;
    *p = from;
    p->i += ROWS;
    if (p->i >= p->it.nq) walk_to(p, p->t + 1, p->h, h_end, g, items, first, end);
}

/* Keeps or drops P' and dP of two 8-key blocks: lane c of four draws block c & 1 of row c >> 1, where eights allow. */
DEVICE void drop_keys(float (*p)[4], float (*dp)[4], const Dropout &d, const uint32_t *from, const WarpTile &w, int h,
                      int u0, int lane) {
    uint32_t threshold = dropout_threshold(d.p);
    float keep = 1.0f / (1.0f - d.p);
    int row = lane >> 2;
    if (!w.eights) {
        RowKey key[2] = {{from[2 * row], from[2 * row + 1]}, {from[2 * (row + 8)], from[2 * (row + 8) + 1]}};
        uint32_t kept = kept_keys<2>(d, key, w, h, u0, lane);
        drop_kept<2>(p, kept, keep);
        drop_kept<2>(dp, kept, keep);
        return;
    }
    int i = row + 8 * (lane >> 1 & 1);
    RowKey key = {from[2 * i], from[2 * i + 1]};
    Philox x = dropout_block(&d, key, block_of_key(w, h, u0 + 8 * (lane & 1)));
    exchange(x.v, lane);
    UNROLL for (int n = 0; n < 2; n++)
        UNROLL for (int r = 0; r < 2; r++) {
            drop2(&p[n][2 * r], x.v[n + 2 * r], threshold, keep);
            drop2(&dp[n][2 * r], x.v[n + 2 * r], threshold, keep);
        }
}

/* 16 rows of the step against the warp's 16 keys. */
template <int DP> DEVICE void dkv_step(float (*dk)[4], float (*dv)[4], const bf16 *K, const bf16 *V, const bf16 *Q,
                                       const bf16 *dO, const float *numbers, int at, const WarpTile &w, const Attn &a,
                                       int h, int u0, int lane) {
    float s[2][4] = {{0}}, dp[2][4] = {{0}}, p[2][4], scale = a.scale * LOG2E;
    product_rows<DP, 1>(s, Q, K, 0, lane);
    product_rows<DP, 1>(dp, dO, V, 0, lane);
    const float *lse = numbers + at, *delta = numbers + ROWS + at;
    const uint32_t *from = (const uint32_t *)(numbers + 2 * ROWS) + 2 * at;
    int row = lane >> 2;
    bool alone[2] = {false, false};
    if (a.bias || !sees_all(w, u0, 16)) {
        Seen seen = seen_by(w, lane);
        mask_scores<2>(s, w, seen, a, h, u0, lane);
        alone[0] = is_alone(seen, 0), alone[1] = is_alone(seen, 1);
    }
    UNROLL for (int n = 0; n < 2; n++)
        UNROLL for (int e = 0; e < 4; e++)
            p[n][e] = s[n][e] = exp2_fast(fmaf(s[n][e], scale, -lse[row + 8 * (e >> 1)] * LOG2E));
    if (a.drop.p > 0) drop_keys(p, dp, a.drop, from, w, h, u0, lane); /* p: P' */
    UNROLL for (int n = 0; n < 2; n++)
        UNROLL for (int e = 0; e < 4; e++)
            s[n][e] = alone[e >> 1] ? 0.0f : s[n][e] * (dp[n][e] - delta[row + 8 * (e >> 1)]);
    uint32_t pt[4] = {transposed(pack_bf16(p[0][0], p[0][1])), transposed(pack_bf16(p[1][0], p[1][1])),
                      transposed(pack_bf16(p[0][2], p[0][3])), transposed(pack_bf16(p[1][2], p[1][3]))};
    uint32_t st[4] = {transposed(pack_bf16(s[0][0], s[0][1])), transposed(pack_bf16(s[1][0], s[1][1])),
                      transposed(pack_bf16(s[0][2], s[0][3])), transposed(pack_bf16(s[1][2], s[1][3]))};
    product_columns<DP>(dv, pt, dO, 0, lane);
    product_columns<DP>(dk, st, Q, 0, lane);
}

/* A step on its way: Q and dO behind each other at `to`, its numbers at n. */
template <int DP> DEVICE void bring_step(const Attn &a, Carrier c, const Walk &p, const float *delta, int64_t rows,
                                         uint32_t to, float *n) {
    int left = p.it.nq - p.i, row0 = p.it.q0 + p.i;
    c.a += p.h * a.D * 2, c.b += p.h * a.D * 2;
    carry<DP>(c, to, to + 2 * ROWS * Tile<DP>::LD, ROWS, [&](int r) { return r < left ? row0 + r : -1; });
    for (int k = (int)threadIdx.x; k < (a.drop.p > 0 ? NUMBERS : 2 * ROWS); k += (int)blockDim.x) {
        int r = k < 2 * ROWS ? k % ROWS : (k - 2 * ROWS) / 2;
        int64_t row = r < left ? row0 + r : 0;
        const void *src = (k < ROWS ? a.lse : delta) + p.h * rows + row;
        if (k >= 2 * ROWS) src = (const uint32_t *)a.drop.rows + row * 2 + k % 2;
        copy4(n + k, src, r < left);
    }
    copies_end_group();
}

/* The rows of a step that has arrived, 16 at a time, against the warp's keys. */
template <int DP> DEVICE void look_at_rows(float (*dk)[4], float (*dv)[4], const bf16 *K, const bf16 *V, const bf16 *at,
                                           const float *numbers, const Walk &now, const AttnGroup &g, const Attn &a,
                                           int u0, int lane) {
    constexpr int LD = Tile<DP>::LD;
#pragma unroll 1
    for (int r = 0; r < ROWS && now.i + r < now.it.nq; r += 16) {
        WarpTile w = tile_of(g, now.it, now.i + r);
        if (sees_some(w, u0, 16))
            dkv_step<DP>(dk, dv, K, V, at + r * LD, at + (ROWS + r) * LD, numbers, r, w, a, now.h, u0, lane);
    }
}

template <int DP> static __global__ __launch_bounds__(KEY_WARPS * 32, DP <= 64 ? 2 : 1) void dkv_mma(
    Attn a, AttnGrad grad, const AttnItem *items, const AttnGroup *groups, const float *delta, int64_t rows) {
    extern __shared__ __align__(16) bf16 room[];
    constexpr int LD = Tile<DP>::LD;
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, warps = (int)blockDim.x >> 5, kh = blockIdx.y,
        share = a.H / a.KH, h_end = (kh + 1) * share;
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
    load_tile<DP>(K, (const bf16 *)a.k + kh * a.D, a.ldk, a.D, lane, key_of);
    load_tile<DP>(V, (const bf16 *)a.v + kh * a.D, a.ldv, a.D, lane, key_of);
    Carrier c = carrier_of<DP>(a.q, a.ldq, grad.d_o, a.ldo, a.D, thread, warps * 32);
    uint32_t room_of_steps = shared_address(steps);
    auto load_step = [&](const Walk &p, int buffer) {
        bring_step<DP>(a, c, p, delta, rows, room_of_steps + buffer * 4 * ROWS * LD, numbers + buffer * NUMBERS);
    };

    float dk[2 * Tile<DP>::STEPS][4] = {{0}}, dv[2 * Tile<DP>::STEPS][4] = {{0}};
    if (thread == 0) {
        walk_to(&walk[0], g.item0, kh * share, h_end, g, items, first, end);
        walk_on(&walk[1], walk[0], h_end, g, items, first, end);
    }
    __syncthreads();
    if (walk[0].there) load_step(walk[0], 0);
    for (int t = 0; walk[t % 3].there; t++) { /* as walk_keys: one barrier says both */
        const Walk &now = walk[t % 3], &next = walk[(t + 1) % 3];
        int buffer = t & 1;
        copies_wait<0>();
        __syncthreads();
        if (next.there) load_step(next, buffer ^ 1);
        /* three: one is read, one is on its way, one is being found */
        if (thread == 0) walk_on(&walk[(t + 2) % 3], next, h_end, g, items, first, end);
        look_at_rows<DP>(dk, dv, K, V, steps + buffer * 2 * ROWS * LD, numbers + buffer * NUMBERS, now, g, a, u0, lane);
    }
    copies_wait<0>();
    __syncthreads();
    if (u0 >= keys) return;
    write_rows<DP>(K, dk, a.scale, a.scale, (bf16 *)grad.dk + kh * a.D, grad.lddk, a.D, grad.add, lane, key_of);
    write_rows<DP>(V, dv, 1.0f, 1.0f, (bf16 *)grad.dv + kh * a.D, grad.lddv, a.D, grad.add, lane, key_of);
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

template <int DP> static bool backward(const Attn *a, const AttnGrad *g, const PlanShape *s, float *delta) {
    const AttnPlan *p = a->plan;
    int warps = even_warps(s->tiles, WARPS), key_warps = even_warps((s->keys + 15) / 16, KEY_WARPS);
    size_t shared = dq_shared<DP>(warps), key_shared = dkv_shared<DP>(key_warps);
    /* both or none: delta is left by one for the other */
    if (!allow_shared(dq_mma<DP>, shared) || !allow_shared(dkv_mma<DP>, key_shared)) return false;
    if (s->tiles) {
        dim3 grid((unsigned)p->ngroups, (unsigned)a->H, (unsigned)ceil_div(s->tiles, warps));
        dq_mma<DP><<<grid, warps * 32, shared, cuda.compute>>>(*a, *g, p->items, p->groups, delta, s->rows);
        cuda_launched("attention_bwd (dq)");
    }
    if (s->keys) {
        dim3 grid((unsigned)p->ngroups, (unsigned)a->KH, (unsigned)ceil_div(s->keys, key_warps * 16));
        dkv_mma<DP><<<grid, key_warps * 32, key_shared, cuda.compute>>>(*a, *g, p->items, p->groups, delta, s->rows);
        cuda_launched("attention_bwd (dk, dv)");
    }
    return true;
}

bool attention_bwd_mma(const Attn *a, const AttnGrad *g, const PlanShape *s, float *delta) {
    return for_head_size(a->D, [&](auto tile) { return backward<decltype(tile)::DP>(a, g, s, delta); });
}
