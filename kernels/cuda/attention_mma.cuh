/* attention_mma: the pieces that the three tensor-core kernels share: instructions, tiles in shared memory, who sees
 * what, dropout of a tile, the walk of a block over the keys of its group.
 *
 * The work of a group (items that share keys) is cut into 16-row tiles of its items; keys of the group are numbered u =
 * 0, 1, .. through range 0 and then range 1. A warp computes 16 rows x KEYS scores at a time with mma.m16n8k16: lane l
 * holds rows l/4 and l/4 + 8, columns 2 (l % 4) + {0, 1} of each 8 columns. Operands come from shared memory by
 * ldmatrix: rows of D channels, D rounded up to 16 and 8 more, so that eight rows of 16 bytes fall into different banks
 * (the stride is an odd number of 16 bytes). cp.async brings tiles, zeros where there is no row or channel. */
#pragma once
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.cuh"

enum { KEYS = 32 }; /* keys a step of forward and dq */

template <int D> struct Tile {
    static constexpr int HEAD = D, DP = (D + 15) / 16 * 16, LD = DP + 8, STEPS = DP / 16, CHUNKS = DP / 8;
};

/* ---- instructions ---- */
DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* 16 bytes to shared memory; zeros when !there (the address must be valid all the same). */
DEVICE void copy16(void *dst, const void *src, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(dst)), "l"(src),
                 "r"(there ? 16 : 0)
                 : "memory");
}
DEVICE void copy4(void *dst, const void *src, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(dst)), "l"(src), "r"(there ? 4 : 0)
                 : "memory");
}
DEVICE void copies_end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

DEVICE void ldmatrix(uint32_t r[4], const bf16 *p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}
DEVICE void ldmatrix_t(uint32_t r[4], const bf16 *p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}
DEVICE uint32_t transposed(uint32_t x) { /* an 8 x 8 matrix of bf16, two a lane */
    uint32_t r;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(r) : "r"(x));
    return r;
}
DEVICE void mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE float exp2_fast(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

/* ---- operands from a tile of rows: where lane l points its ldmatrix ----
 *   rows_at      16 rows x 16 channels as A; transposed, as B: rows are the inner dimension, channels the columns
 *   columns_at   16 rows x 16 channels as B: rows are columns of the product, channels the inner dimension */
template <int D> DEVICE const bf16 *rows_at(const bf16 *tile, int row, int channel, int lane) {
    return tile + (row + (lane & 15)) * Tile<D>::LD + channel + (lane >> 4) * 8;
}
template <int D> DEVICE const bf16 *columns_at(const bf16 *tile, int row, int channel, int lane) {
    return tile + (row + (lane & 7) + (lane >> 4) * 8) * Tile<D>::LD + channel + (lane >> 3 & 1) * 8;
}

/* out(16, 16 N) += A(16, D) B^T: A are 16 rows at a, B rows b0.. of tile b. */
template <int D, int N> DEVICE void product_rows(float (*out)[4], const bf16 *a, const bf16 *b, int b0, int lane) {
#pragma unroll
    for (int k = 0; k < Tile<D>::STEPS; k++) {
        uint32_t x[4], y[4];
        ldmatrix(x, rows_at<D>(a, 0, k * 16, lane));
#pragma unroll
        for (int n = 0; n < N; n++) {
            ldmatrix(y, columns_at<D>(b, b0 + n * 16, k * 16, lane));
            mma(out[2 * n], x, y[0], y[1]);
            mma(out[2 * n + 1], x, y[2], y[3]);
        }
    }
}

/* out(16, D) += A(16, 16) B(16, D): A in registers, B rows b0.. of tile b. */
template <int D> DEVICE void product_columns(float (*out)[4], const uint32_t a[4], const bf16 *b, int b0, int lane) {
#pragma unroll
    for (int d = 0; d < Tile<D>::STEPS; d++) {
        uint32_t y[4];
        ldmatrix_t(y, rows_at<D>(b, b0, d * 16, lane));
        mma(out[2 * d], a, y[0], y[1]);
        mma(out[2 * d + 1], a, y[2], y[3]);
    }
}

/* ---- who sees what ---- */

/* A warp's tile: rows row0 .. row0 + 15 of an item. lo: first visible key u, which is the item's key number 0. */
typedef struct {
    AttnItem it;
    int row0, lo, n0, keys; /* n0: keys of range 0; keys: of both */
    bool there;
} WarpTile;

DEVICE int tile_end(const WarpTile &w, int i) {
    if (!w.there || i >= w.it.nq) return 0;
    if (!w.it.nb) return w.n0;
    return w.it.causal ? w.n0 + min(w.it.nb, i + 1) : w.keys;
}
DEVICE int tile_most(const WarpTile &w) { return tile_end(w, min(w.row0 + 15, w.it.nq - 1)); }
DEVICE int tile_first(const AttnItem &it, int n0) { return it.na ? 0 : n0; }
DEVICE int64_t tile_row(const WarpTile &w, int r) { /* of q; negative where the tile has no row r */
    return w.there && w.row0 + r < w.it.nq ? (int64_t)w.it.q0 + w.row0 + r : -1;
}

/* The number of the tile in its group decides the item. */
DEVICE WarpTile find_tile(const AttnGroup &g, const AttnItem *items, int number) {
    WarpTile w;
    w.n0 = g.nk[0];
    w.keys = g.nk[0] + g.nk[1];
    w.there = false;
    w.row0 = w.lo = 0;
    w.it.nq = 0;
    for (int t = g.item0; t < g.item0 + g.nitems; t++) {
        AttnItem it = items[t];
        int tiles = (it.nq + 15) / 16;
        if (number < tiles) {
            w.it = it;
            w.row0 = number * 16;
            w.lo = tile_first(it, w.n0);
            w.there = true;
            break;
        }
        number -= tiles;
    }
    return w;
}

DEVICE int64_t group_key_row(const AttnGroup &g, int u) { return u < g.nk[0] ? g.k0[0] + u : g.k0[1] + (u - g.nk[0]); }

/* Each block looks its tiles up once: thread k the k-th warp's, left in shared memory. Returns after a barrier. */
template <int WARPS> struct BlockTiles {
    AttnGroup g;
    WarpTile tile[WARPS];
};
template <int WARPS>
DEVICE void find_tiles(BlockTiles<WARPS> *b, const AttnGroup *groups, const AttnItem *items, int first, int warps) {
    if ((int)threadIdx.x < warps) {
        AttnGroup g = groups[blockIdx.x];
        if (threadIdx.x == 0) b->g = g;
        b->tile[threadIdx.x] = find_tile(g, items, first + (int)threadIdx.x);
    }
    __syncthreads();
}

/* Where a lane's two rows come from, for dropout: lane i < 16 reads that of row i and hands it on. */
DEVICE void keys_of_rows(RowKey out[2], const Dropout &d, const WarpTile &w, int lane) {
    int64_t row = lane < 16 ? tile_row(w, lane) : -1;
    RowKey k = {0, 0};
    if (d.p > 0 && row >= 0) k = d.rows[row];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        out[r].pair = __shfl_sync(~0u, k.pair, (lane >> 2) + 8 * r);
        out[r].token = __shfl_sync(~0u, k.token, (lane >> 2) + 8 * r);
    }
}

/* `rows` rows of D channels of head h into a tile, by all `threads` threads; row_of(r) gives the row, or a negative
 * number for zeros. */
template <int D, class F>
DEVICE void load_tile(bf16 *tile, const void *base, int64_t ld, int rows, int thread, int threads, F row_of) {
    for (int c = thread; c < rows * Tile<D>::CHUNKS; c += threads) {
        int r = c / Tile<D>::CHUNKS, at = c % Tile<D>::CHUNKS;
        int64_t row = row_of(r);
        bool there = row >= 0 && at * 8 < D;
        copy16(tile + r * Tile<D>::LD + at * 8, (const bf16 *)base + (there ? row * ld + at * 8 : 0), there);
    }
}

/* 16 rows of accumulators, rows l/4 times `low` and l/4 + 8 times `high`, to rows of out (or added to what is there),
 * through a tile that the warp has to itself. */
template <int D, class F> DEVICE void write_rows(bf16 *tile, float (*x)[4], float low, float high, bf16 *out,
                                                 int64_t ld, bool add, int lane, F row_of) {
    constexpr int LD = Tile<D>::LD;
    __syncwarp();
    if (add) {
        for (int c = lane; c < 16 * (D / 8); c += 32) {
            int r = c / (D / 8), at = c % (D / 8) * 8;
            int64_t row = row_of(r);
            *(uint4 *)(tile + r * LD + at) = row >= 0 ? *(const uint4 *)(out + row * ld + at) : make_uint4(0, 0, 0, 0);
        }
        __syncwarp();
    }
#pragma unroll
    for (int d = 0; d < D / 8; d++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t *at = (uint32_t *)(tile + ((lane >> 2) + 8 * r) * LD + d * 8 + 2 * (lane & 3));
            float x0 = x[d][2 * r] * (r ? high : low), x1 = x[d][2 * r + 1] * (r ? high : low);
            if (add) x0 += low_bf16(*at), x1 += high_bf16(*at);
            *at = pack_bf16(x0, x1);
        }
    __syncwarp();
    for (int c = lane; c < 16 * (D / 8); c += 32) {
        int r = c / (D / 8), at = c % (D / 8) * 8;
        int64_t row = row_of(r);
        if (row >= 0) *(uint4 *)(out + row * ld + at) = *(uint4 *)(tile + r * LD + at);
    }
}

/* ---- forward and dq: the block walks over the keys of its group, KEYS a step, two steps deep ---- */

/* Step `step` of K and V of head h: two tiles of KEYS rows in kv, which holds two steps. Ends a group of copies. */
template <int D> DEVICE void load_keys(bf16 *kv, const Attn &a, const AttnGroup &g, int keys, int step, int h) {
    bf16 *at = kv + (step & 1) * 2 * KEYS * Tile<D>::LD;
    auto row_of = [&](int r) { return step * KEYS + r < keys ? group_key_row(g, step * KEYS + r) : -1; };
    int thread = (int)threadIdx.x, threads = (int)blockDim.x;
    load_tile<D>(at, (const bf16 *)a.k + h * D, a.ldk, KEYS, thread, threads, row_of);
    load_tile<D>(at + KEYS * Tile<D>::LD, (const bf16 *)a.v + h * D, a.ldv, KEYS, thread, threads, row_of);
    copies_end_group();
}

/* Calls step(K, V, u0) for each step in which the warp's tile sees a key; the first was loaded by load_keys. All copies
 * have arrived at the end. */
template <int D, class F>
DEVICE void walk_keys(bf16 *kv, const Attn &a, const AttnGroup &g, const WarpTile &w, int h, F step) {
    int steps = (w.keys + KEYS - 1) / KEYS, most = w.there ? tile_most(w) : 0;
    for (int t = 0; t < steps; t++) {
        if (t + 1 < steps) {
            load_keys<D>(kv, a, g, w.keys, t + 1, h);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        const bf16 *at = kv + (t & 1) * 2 * KEYS * Tile<D>::LD;
        if (t * KEYS < most && t * KEYS + KEYS > w.lo) step(at, at + KEYS * Tile<D>::LD, t * KEYS);
        __syncthreads();
    }
    copies_wait<0>();
}

/* out(16, D) += x(16, KEYS) B(KEYS, D): x in accumulators, rounded to bf16; B a tile of a step. */
template <int D> DEVICE void product_step(float (*out)[4], const float (*x)[4], const bf16 *b, int lane) {
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t a[4] = {pack_bf16(x[2 * k][0], x[2 * k][1]), pack_bf16(x[2 * k][2], x[2 * k][3]),
                         pack_bf16(x[2 * k + 1][0], x[2 * k + 1][1]), pack_bf16(x[2 * k + 1][2], x[2 * k + 1][3])};
        product_columns<D>(out, a, b, k * 16, lane);
    }
}

/* ---- dropout ----
 * A Philox call draws the eight keys of one row and one 8-column block; the four lanes that hold a row need one word
 * each of every block. So each of the four draws another block, and they exchange: w[j] becomes this lane's word of
 * lane j's block (lanes % 4). */
DEVICE void exchange(uint32_t w[4], int lane) {
    bool odd = lane & 1, high = lane & 2;
    uint32_t t = __shfl_xor_sync(~0u, odd ? w[0] : w[1], 1), s = __shfl_xor_sync(~0u, odd ? w[2] : w[3], 1);
    if (odd) w[0] = t, w[2] = s;
    else w[1] = t, w[3] = s;
    t = __shfl_xor_sync(~0u, high ? w[0] : w[2], 2);
    s = __shfl_xor_sync(~0u, high ? w[1] : w[3], 2);
    if (high) w[0] = t, w[1] = s;
    else w[2] = t, w[3] = s;
}

/* Two neighbours of a row: x = drawn ? x scale : 0. */
DEVICE void drop2(float *x, uint32_t word, uint32_t threshold, float scale) {
    x[0] = (word & 0xffff) >= threshold ? x[0] * scale : 0.0f;
    x[1] = word >> 16 >= threshold ? x[1] * scale : 0.0f;
}

/* 16 rows x KEYS keys from u0 on: x = drawn ? x scale : 0. Head: blockIdx.y. */
DEVICE void drop_step(float (*x)[4], const Dropout &d, const RowKey key[2], int u0, int lo, float scale, int lane) {
    uint32_t threshold = dropout_threshold(d.p), first = (blockIdx.y << 20) + (uint32_t)((u0 - lo) >> 3);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        Philox bits = dropout_block(&d, key[r], first + (lane & 3));
        exchange(bits.v, lane);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) drop2(&x[n][2 * r], bits.v[n], threshold, scale);
    }
}

static constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;

/* Blocks with more shared memory than 48 KB, what they declare included, must say so. */
template <class K> static bool allow_shared(K kernel, size_t bytes) {
    if (bytes + 1024 > cuda.shared_max) return false;
    return bytes <= 46 << 10 ||
           cuda_ok(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes), "attention");
}

/* At most `most` warps a block, and the blocks alike. */
static inline int even_warps(int tiles, int most) {
    int blocks = (tiles + most - 1) / most;
    return blocks ? (tiles + blocks - 1) / blocks : 1;
}

/* f(Tile<D>()) for the head sizes there are kernels for; false for another. */
template <class F> static bool for_head_size(int D, F f) {
    switch (D) {
    case 32: return f(Tile<32>());
    case 64: return f(Tile<64>());
    case 80: return f(Tile<80>());
    case 88: return f(Tile<88>());
    case 128: return f(Tile<128>());
    }
    return false;
}
