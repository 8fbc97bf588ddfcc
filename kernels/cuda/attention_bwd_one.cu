/* attention_bwd_one: attention backward in one kernel, in bf16 on the tensor cores (mathematics: attention.cu;
 * instructions, tiles of rows, dropout: attention_mma.cuh). For head sizes of 33 to 64 and groups whose keys fit in
 * shared memory, at most 272; for others attention_mma_bwd.cu has two kernels.
 *
 * A block has the keys of a group and of a key head in shared memory, 16 KT of them a warp, and walks over the rows
 * that look at them: up to 64 a step, of whichever items, for each head that shares the key head. A step:
 *
 *   sum_rows        delta = <do, o> of each row. Q, dO, O, lse and row keys came by cp.async, one step ahead.
 *   key_step        A warp computes S^T and dP^T of its keys and 16 rows at a time, from them P'^T and dS^T: their
 *                   accumulators are, as they lie, the operands of dV += P'^T dO and dK += dS^T Q, which stay in
 *                   registers until the head ends. dS^T is left in shared memory.
 *   write_queries   dQ = scale dS K, 16 rows x 32 channels a warp, over all keys of the group.
 *
 * So scores are computed once, nothing is added by atomics, and all sums have one order: keys for dq, heads and rows
 * for dk and dv. A row that sees one key has P = 1 whatever q and k are: its dS is zero, not what rounding leaves of
 * it. Where the 257th key is a tile's only one, no warp spends a tile on it: see_keys, by plain arithmetic.
 *
 * A block goes on to other key heads of its group when their K and V fit beside: these come while it computes.
 *
 * A tile is 16 rows of 64 channels, 128 bytes each, whose eight chunks of 16 bytes are permuted by the row's number
 * (chunk ^ row % 8): no bank conflicts along rows or columns, and ldmatrix finds a later chunk by an XOR.
 *
 * Bytes a head, group of R rows and U keys: Q, dO, O, dQ 8RD; K, V, dK, dV 8UD (12UD when added to); lse 4R, row keys
 * 8R (dropout). FLOPs 10RUD. Cross-attention (R = 64, U = 257, D = 64): 165 KB for 10.5 MFLOP: 128 images, 12 heads,
 * 253 MB, 83 us of an H100 if memory were all; predicted are 122 (12.2 warp instructions for each HMMA). Joint self-
 * attention of 384 pairs, 32 + 13 rows and keys: 214 MB, 70 us; predicted 71 (22.2). tests/bench/vgpu_time.sh.
 *
 * KT = 2: eight warps with 32 keys each read Q and dO half as often, which binds at 257 keys, and have all registers of
 * an SM; 207 KB of shared memory with two heads, 137 KB with one. KT = 1, up to 128 keys: 128 registers, 37 KB at three
 * warps: 5 blocks (15 warps) an SM. */
#include "kernels/cuda/attention_bwd_one.cuh"

/* The step's rows against the warp's keys: dv and dk of them; dS^T of these rows left behind. */
template <bool DROP, int KT> DEVICE void key_step(float (*dk)[8][4], float (*dv)[8][4], const Job &j, const Block &b,
                                                  const Step &s) {
    constexpr uint32_t MINE = (1 << KT) - 1;
    int k0 = b.warp * KT;
    if (k0 >= b.key_tiles) return;
    View v = b.view[s.tile0 + (b.lane < s.there ? b.lane : 0)];
    uint32_t all = __ballot_sync(~0u, b.lane < s.there && (v.all >> k0 & MINE) == MINE && !j.a.bias),
             some = __ballot_sync(~0u, b.lane < s.there && (v.some >> k0 & MINE)),
             K = b.base + s.keys + k0 * 2 * TILE, ds = b.base + j.room.ds + k0 * TILE;
    Rows r = rows_of(b, s, 0);
#pragma unroll 1
    for (int t = 0; t < s.there; t++, r.w++, r.at += 3 * TILE, r.sums += 16, r.key += 16) {
        uint32_t p[KT][4] = {{0}}, d[KT][4] = {{0}};
        if (some >> t & 1) {
            if (all >> t & 1) weigh<DROP, KT>(p, d, j, b, r, k0 * 16, K);
            else weigh_masked<DROP, KT>(p, d, j, b, r, k0 * 16, K);
            /* the accumulators of S^T lie as this product wants its left operand: nothing is moved */
            product_of_rows<KT>(dv, p, r.at + TILE + b.rows_at);
            product_of_rows<KT>(dk, d, r.at + b.rows_at);
        }
        /* zeros too, where nothing was seen: write_queries sums over all keys */
        UNROLL for (int i = 0; i < KT; i++) leave(ds + i * TILE, d[i], t, b.lane);
    }
}

/* ---- results ---- */

/* 16 bytes of a lane to channels `at` on of a row (or added to what is there). */
DEVICE void put16(bf16 *row, int at, int D, uint4 x, bool add) {
    if (at >= D) return;
    if (!add) {
        store16(row + at, x.x, x.y, x.z, x.w);
        return;
    }
    float v[8], old[8];
    unpack8(v, Raw8<bf16>{x});
    ld8(old, row + at);
    UNROLL for (int e = 0; e < 8; e++) v[e] += old[e];
    st8(row + at, v);
}

/* 16 keys u0.. of accumulators times `scale`, through a tile that the warp has to itself. */
DEVICE void write_keys(const Block &b, int u0, unsigned char *tile, float (*x)[4], float scale, bf16 *out, int64_t ld,
                       int D, bool add) {
    int lane = b.lane, at = chunk_at(lane >> 2, 0) + 4 * (lane & 3);
    __syncwarp();
    UNROLL for (int d = 0; d < 8; d++)
        UNROLL for (int r = 0; r < 2; r++)
            *(uint32_t *)(tile + (at ^ (d << 4)) + r * 8 * 128) =
                pack_bf16(x[d][2 * r] * scale, x[d][2 * r + 1] * scale);
    __syncwarp();
    UNROLL for (int i = 0; i < 4; i++) {
        int r = 4 * i + (lane >> 3), u = u0 + key_of(r);
        uint4 w = *(const uint4 *)(tile + chunk_at(r, lane & 7));
        if (u < b.keys) put16(out + group_key_row(b.g, u) * ld, (lane & 7) * 8, D, w, add);
    }
}

/* dQ of a step: 16 rows x 32 channels a warp, over all keys. */
DEVICE void write_queries(const Job &j, const Block &b, const Step &s) {
    bf16 *dq = (bf16 *)j.g.dq + s.h * j.a.D;
    for (int unit = b.warp; unit < s.there * 2; unit += b.warps) {
        int t = unit >> 1, half = unit & 1;
        float x[4][4] = {{0}};
        uint32_t at = b.base + j.room.ds + (b.columns_at ^ (t << 5)), to = b.base + s.keys + (b.rows_at ^ (half << 6));
#pragma unroll 4
        for (int k = 0; k < b.key_tiles; k++, at += TILE, to += 2 * TILE) {
            uint32_t p[4], y[4], z[4];
            ldmatrix_t_at(p, at);
            ldmatrix_t_at(y, to);
            ldmatrix_t_at(z, to ^ 32);
            mma(x[0], p, y[0], y[1]);
            mma(x[1], p, y[2], y[3]);
            mma(x[2], p, z[0], z[1]);
            mma(x[3], p, z[2], z[3]);
        }
        UNROLL for (int r = 0; r < 2; r++) { /* the four lanes of a row take 16 bytes each */
            uint32_t w[4];
            UNROLL for (int i = 0; i < 4; i++) w[i] = pack_bf16(x[i][2 * r] * j.a.scale, x[i][2 * r + 1] * j.a.scale);
            exchange(w, b.lane);
            int row = b.row[(s.tile0 + t) * 16 + (b.lane >> 2) + 8 * r], channel = half * 32 + 8 * (b.lane & 3);
            if (row >= 0) put16(dq + row * j.g.lddq, channel, j.a.D, make_uint4(w[0], w[1], w[2], w[3]), false);
        }
    }
}

/* ---- up to sixteen more keys than warps own: by plain arithmetic, four lanes a row ---- */

/* P'^T (1 - p) and dS^T / scale of row i and key u. sums: lse and delta of the row. */
template <bool DROP> DEVICE float2 see_key(float s, float dp, const Job &j, const WarpTile &w, int h, int i, int u,
                                           RowKey key, float2 sums) {
    int end_a = end_of_a(w, i), end_b = end_of_b(w, i);
    if (j.a.bias) s += score_bias(j.a, w, h, i, u, 1.0f / j.a.scale);
    bool seen = u < end_a || (u >= w.b && u < end_b), stays = true;
    float p = seen ? exp2_fast(fmaf(s, j.scale, -sums.x)) : 0.0f;
    if (DROP) {
        Philox x = dropout_block(&j.a.drop, key, block_of_key(w, h, u));
        stays = dropout_bits(x, (uint32_t)key_number(w, u) & 7) << 16 >= j.least;
    }
    float ds = end_a + end_b - w.b == 1 ? 0.0f : p * fmaf(stays ? dp : 0.0f, j.keep, -sums.y);
    return make_float2(stays ? p : 0.0f, ds);
}

/* Of all rows of a step: left in the two tiles behind the last warp's. */
template <bool DROP> DEVICE void see_keys(const Job &j, const Block &b, const Step &s) {
    const unsigned char *K = b.shared + s.keys + OWN * 2 * TILE;
    unsigned char *beyond = b.shared + j.room.ds + OWN * TILE;
    for (int r0 = 8 * b.warp; r0 < s.there * 16; r0 += 8 * b.warps) {
        int r = r0 + (b.lane >> 2), t = r >> 4, i = r & 15;
        const unsigned char *x = b.shared + s.rows + t * 3 * TILE;
        const WarpTile &w = b.tile[s.tile0 + t];
        for (int e = 0; OWN * 16 + e < b.keys; e++) {
            int place = place_of(e);
            float score = dot_rows(x, i, K, place, b.lane), dp = dot_rows(x + TILE, i, K + TILE, place, b.lane);
            float2 p_ds = see_key<DROP>(score, dp, j, w, s.h, w.row0 + i, OWN * 16 + e, s.key[r], s.sums[r]);
            bf16 *to = (bf16 *)(beyond + chunk_at(place, r >> 3)) + (r & 7);
            if ((b.lane & 3) == 0) to[0] = to_bf16(p_ds.y), to[TILE / 2] = to_bf16(p_ds.x);
        }
    }
}

/* dV and dK from there, eight channels of one of the two a unit: warp k has units KT k ... */
template <int KT> DEVICE void more_keys(float (*x)[4], const Job &j, const Block &b, const Step &s) {
    for (int t = 0; t < s.there; t++)
        UNROLL for (int i = 0; i < KT; i++) {
            int unit = b.warp * KT + i, dv = unit < 8;
            uint32_t p[4], y[2];
            ldmatrix_at(p, b.base + j.room.ds + (OWN + dv) * TILE + (b.rows_at ^ (t << 5)));
            ldmatrix2_t_at(y, b.base + s.rows + (t * 3 + dv) * TILE + chunk_at(b.lane & 15, unit & 7));
            mma(x[i], p, y[0], y[1]);
        }
}

DEVICE void write_more_keys(const Block &b, int unit, const float x[4], float scale, bf16 *out, int64_t ld, int D,
                            bool add) {
    int at = (unit & 7) * 8 + 2 * (b.lane & 3);
    UNROLL for (int r = 0; r < 2; r++) {
        int u = OWN * 16 + first_key(b.lane) + r;
        if (u >= b.keys || at >= D) continue;
        uint32_t *to = (uint32_t *)(out + group_key_row(b.g, u) * ld + at), old = add ? *to : 0;
        *to = pack_bf16(x[2 * r] * scale + low_bf16(old), x[2 * r + 1] * scale + high_bf16(old));
    }
}

/* ---- the block ---- */

DEVICE Block block_of(unsigned char *shared, const Job &j) {
    Block b;
    b.g = j.groups[blockIdx.x];
    b.keys = b.g.nk[0] + b.g.nk[1], b.key_tiles = (b.keys + 15) / 16, b.first = (int)blockIdx.y * j.room.heads;
    b.lane = (int)threadIdx.x & 31, b.warps = (int)blockDim.x >> 5;
    b.warp = __shfl_sync(~0u, (int)threadIdx.x >> 5, 0); /* known to be the same in all lanes */
    b.shared = shared, b.base = shared_address(shared);
    b.rows_at = chunk_at(b.lane & 15, b.lane >> 4);
    b.columns_at = chunk_at((b.lane & 7) + (b.lane >> 4) * 8, b.lane >> 3 & 1);
    return b;
}

/* dk and dv of a key head; more: those of keys that no warp owns. */
template <int KT> DEVICE void write_head(const Job &j, const Block &b, int kh, float (*dk)[8][4], float (*dv)[8][4],
                                         const float (*more)[4]) {
    bf16 *to_dk = (bf16 *)j.g.dk + (b.first + kh) * j.a.D, *to_dv = (bf16 *)j.g.dv + (b.first + kh) * j.a.D;
    bool add = j.g.add, beyond = b.key_tiles > OWN;
    UNROLL for (int i = 0; i < KT; i++) {
        int k = b.warp * KT + i;
        if (k < b.key_tiles) {
            unsigned char *own = b.shared + (kh & 1) * j.room.kv + (k * 2 + 1) * TILE; /* V: nobody else reads it */
            write_keys(b, k * 16, own, dk[i], j.a.scale, to_dk, j.g.lddk, j.a.D, add);
            write_keys(b, k * 16, own, dv[i], j.keep, to_dv, j.g.lddv, j.a.D, add);
        }
        if (beyond && k < 8) write_more_keys(b, k, more[i], j.keep, to_dv, j.g.lddv, j.a.D, add);
        if (beyond && k >= 8) write_more_keys(b, k, more[i], j.a.scale, to_dk, j.g.lddk, j.a.D, add);
    }
}

/* Three barriers a step: its rows have arrived and the step before is done with; sums; dS^T. */
template <bool DROP, int KT> static __global__ __launch_bounds__(OWN / KT * 32, 1) void bwd_one(Job j) {
    extern __shared__ __align__(1024) unsigned char shared[];
    Block b = block_of(shared, j);
    bool one = j.room.heads == 1, beyond = b.key_tiles > OWN;
    if (one) bring_keys<KT>(j, b, 0);
    list_tiles(&b, j);
    if (!one) bring_keys<KT>(j, b, 0); /* 70 KB, behind which the list would wait for memory */
    Walk now = {0, 0, 0, 0};
    bring<KT>(j, b, now);
    if (beyond) /* places of the last tile that no key has */
        for (int i = (int)threadIdx.x; i < 2 * TILE / 16; i += b.warps * 32)
            *(uint4 *)(shared + j.room.ds + OWN * TILE + i * 16) = make_uint4(0, 0, 0, 0);
    while (now.kh < j.room.heads) {
        int kh = now.kh;
        float dk[KT][8][4] = {{{0}}}, dv[KT][8][4] = {{{0}}}, more[KT][4] = {{0}};
        do {
            Step s = step_at(j, b, now);
            now = walk_on(now, b, j.a.H / j.a.KH);
            copies_wait<0>();
            __syncthreads();
            sum_rows(b, s);
            __syncthreads();
            if (now.kh < j.room.heads) bring<KT>(j, b, now);
            if (beyond) see_keys<DROP>(j, b, s);
            key_step<DROP, KT>(dk, dv, j, b, s);
            __syncthreads();
            if (beyond) more_keys<KT>(more, j, b, s);
            write_queries(j, b, s);
        } while (now.kh == kh);
        write_head<KT>(j, b, kh, dk, dv, more);
    }
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

/* Key heads a block: what ends first where all blocks are alike, a block's beginning counting for 0.6 of a head
 * (predicted). */
static int heads_a_block(int groups, int KH) {
    int best = 1;
    double least = INFINITY;
    for (int heads = 1; heads <= MOST_HEADS; heads++) {
        double time = (double)ceil_div((int64_t)groups * KH / heads, cuda.sms) * (heads + 0.6);
        /* whole numbers of them: a block with fewer would keep the others waiting */
        if (KH % heads == 0 && time < least) best = heads, least = time;
    }
    return best;
}

template <bool DROP, int KT> static bool launch(const Attn *a, const AttnGrad *g, const PlanShape *s) {
    int key_tiles = (s->keys + 15) / 16, share = a->H / a->KH, groups = a->plan->ngroups,
        warps = ((key_tiles < OWN ? key_tiles : OWN) + KT - 1) / KT;
    Job j = {*a, *g, a->plan->items, a->plan->groups, s->rows, s->tiles, {}, a->scale * LOG2E,
             DROP ? 1.0f / (1.0f - a->drop.p) : 1.0f, dropout_threshold(a->drop.p) << 16,
             philox_keys(rng_key0(a->drop.seed), a->drop.step)};
    j.room = room_for(places<KT>(key_tiles), s->tiles, KT > 1 ? heads_a_block(groups, a->KH) : 1, share);
    /* 1024: what the compiler and the alignment take */
    if ((size_t)j.room.size + 1024 > cuda.shared_max) j.room = room_for(places<KT>(key_tiles), s->tiles, 1, share);
    if (!allow_shared(bwd_one<DROP, KT>, (size_t)j.room.size)) return false;
    dim3 grid((unsigned)groups, (unsigned)(a->KH / j.room.heads));
    bwd_one<DROP, KT><<<grid, warps * 32, (size_t)j.room.size, cuda.compute>>>(j);
    cuda_launched("attention_bwd");
    return true;
}

bool attention_bwd_one(const Attn *a, const AttnGrad *g, const PlanShape *s) {
    int key_tiles = (s->keys + 15) / 16;
    /* others' tiles would be half empty, or too many for shared memory */
    if (a->D % 8 || a->D <= 32 || a->D > 64 || !key_tiles || key_tiles > OWN + 1) return false;
    if (dropout_threshold(a->drop.p) > 0xffff) return false; /* keeps nothing: half a word cannot say so */
    if (key_tiles > OWN / 2) return a->drop.p > 0 ? launch<true, 2>(a, g, s) : launch<false, 2>(a, g, s);
    return a->drop.p > 0 ? launch<true, 1>(a, g, s) : launch<false, 1>(a, g, s);
}
