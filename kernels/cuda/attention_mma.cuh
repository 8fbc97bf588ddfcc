/* attention_mma: the pieces that the three tensor-core kernels share: instructions, tiles in shared memory, who sees
 * what, dropout of a tile, the walk of a block over the keys of its group.
 *
 * The work of a group (items that share keys) is cut into 16-row tiles of its items; keys of the group are numbered u =
 * 0, 1, .. through range 0 and then range 1. A warp computes 16 rows x KEYS scores at a time with mma.m16n8k16: lane l
 * holds rows l/4 and l/4 + 8, columns 2 (l % 4) + {0, 1} of each 8 columns. Operands come from shared memory by
 * ldmatrix: rows of D channels, D rounded up to a tile's width DP and 8 more, so that eight rows of 16 bytes fall into
 * different banks (the stride is an odd number of 16 bytes). cp.async brings tiles, zeros where there is no row or
 * channel.
 *
 * Scores stay as products, without the scale, until the exponential, whose one multiply-add takes both; a bias is
 * divided by the scale instead. A step that every row of a tile sees whole has no masks. */
#pragma once
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.cuh"

enum { KEYS = 32 }; /* keys a step of forward and dq */

template <int W> struct Tile {
    static constexpr int DP = W, LD = DP + 8, STEPS = DP / 16, CHUNKS = DP / 8;
};

/* ---- instructions ---- */
DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* 16 bytes to an address in shared memory; zeros when !there (the source must be valid all the same). */
DEVICE void copy16(uint32_t dst, const void *src, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(there ? 16 : 0) : "memory");
}
DEVICE void copy4(void *dst, const void *src, bool there) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(dst)), "l"(src), "r"(there ? 4 : 0)
                 : "memory");
}
DEVICE void copies_end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

DEVICE void ldmatrix(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEVICE void ldmatrix_t(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEVICE void ldmatrix(uint32_t r[4], const bf16 *p) { ldmatrix(r, shared_address(p)); }
DEVICE void ldmatrix_t(uint32_t r[4], const bf16 *p) { ldmatrix_t(r, shared_address(p)); }
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
    UNROLL for (int k = 0; k < Tile<D>::STEPS; k++) {
        uint32_t x[4], y[4];
        ldmatrix(x, rows_at<D>(a, 0, k * 16, lane));
        UNROLL for (int n = 0; n < N; n++) {
            ldmatrix(y, columns_at<D>(b, b0 + n * 16, k * 16, lane));
            mma(out[2 * n], x, y[0], y[1]);
            mma(out[2 * n + 1], x, y[2], y[3]);
        }
    }
}

/* out(16, D) += A(16, 16) B(16, D): A in registers, B rows b0.. of tile b. */
template <int D> DEVICE void product_columns(float (*out)[4], const uint32_t a[4], const bf16 *b, int b0, int lane) {
    UNROLL for (int d = 0; d < Tile<D>::STEPS; d++) {
        uint32_t y[4];
        ldmatrix_t(y, rows_at<D>(b, b0, d * 16, lane));
        mma(out[2 * d], a, y[0], y[1]);
        mma(out[2 * d + 1], a, y[2], y[3]);
    }
}

/* ---- who sees what ---- */

/* A warp's tile: rows row0 .. row0 + 15 of an item. Its a is keys 0 .. it.na - 1 of the group, its b keys b .. b +
 * it.nb - 1; key u of b has number u + shift. Of the tile's first row, which sees least: a_least, b_least; of the last:
 * a_most, b_most: ends of what is seen of a and of b. eights: numbers of eight keys 8 i ..
 * are eight numbers of that kind. */
typedef struct {
    AttnItem it;
    int row0, b, shift, a_least, a_most, b_least, b_most;
    bool there, eights;
} WarpTile;

DEVICE int end_of_a(const WarpTile &w, int i) {
    return !w.there || i >= w.it.nq ? 0 : w.it.causal & CAUSAL_A ? min(w.it.na, i + 1) : w.it.na;
}
DEVICE int end_of_b(const WarpTile &w, int i) {
    return !w.there || i >= w.it.nq ? w.b : w.b + (w.it.causal & CAUSAL_B ? min(w.it.nb, i + 1) : w.it.nb);
}
DEVICE int key_number(const WarpTile &w, int u) { return u < w.b ? u : u + w.shift; }
DEVICE int tile_row(const WarpTile &w, int r) { /* of q; negative where the tile has no row r */
    return w.there && w.row0 + r < w.it.nq ? w.it.q0 + w.row0 + r : -1;
}

DEVICE WarpTile tile_of(const AttnGroup &g, const AttnItem &it, int row0) {
    WarpTile w;
    w.it = it;
    w.row0 = row0;
    w.there = true;
    w.b = it.nb ? g.nk[0] + it.b0 - g.k0[1] : 1 << 30; /* no b: behind all keys */
    w.shift = it.nb ? it.na - w.b : 0;
    /* a Philox block serves eight numbers: whole, or each by itself */
    w.eights = !w.shift || (w.shift % 8 == 0 && w.b % 8 == 0);
    int last = min(row0 + 15, it.nq - 1);
    w.a_least = end_of_a(w, row0), w.a_most = end_of_a(w, last);
    w.b_least = end_of_b(w, row0), w.b_most = end_of_b(w, last);
    return w;
}

/* The number of the tile in its group decides the item. */
DEVICE WarpTile find_tile(const AttnGroup &g, const AttnItem *items, int number) {
    for (int t = g.item0; t < g.item0 + g.nitems; t++) {
        int tiles = (items[t].nq + 15) / 16;
        if (number < tiles) return tile_of(g, items[t], number * 16);
        number -= tiles;
    }
    WarpTile w;
    memset(&w, 0, sizeof w); /* no such tile: it is not there and sees nothing */
    return w;
}

/* Whether all rows of the tile see all of `keys` keys from u0 on, and whether some row sees some of them. */
DEVICE bool sees_all(const WarpTile &w, int u0, int keys) {
    return u0 + keys <= w.a_least || (u0 >= w.b && u0 + keys <= w.b_least);
}
DEVICE bool sees_some(const WarpTile &w, int u0, int keys) {
    return u0 < w.a_most || (u0 < w.b_most && u0 + keys > w.b);
}

/* What a lane's two rows see. */
typedef struct {
    int a[2], b, end[2]; /* u < a or b <= u < end */
} Seen;
DEVICE Seen seen_by(const WarpTile &w, int lane) {
    int i = w.row0 + (lane >> 2);
    return Seen{{end_of_a(w, i), end_of_a(w, i + 8)}, w.b, {end_of_b(w, i), end_of_b(w, i + 8)}};
}
DEVICE bool is_seen(const Seen &s, int r, int u) { return u < s.a[r] || (u >= s.b && u < s.end[r]); }
/* A softmax over one key does not depend on its score: such a row gives q and k no gradient. */
DEVICE bool is_alone(const Seen &s, int r) { return s.a[r] + s.end[r] - s.b == 1; }

/* What distance adds to a score of row i and key u, over the scale. */
DEVICE float score_bias(const Attn &a, const WarpTile &w, int h, int i, int u, float inv_scale) {
    int d = min(max(key_number(w, u) - (w.it.pos + i), -a.span), a.span);
    return a.bias[(int64_t)h * (2 * a.span + 1) + d + a.span] * inv_scale;
}

/* Of 16 rows and 8 N keys from u0 on, lane by lane: adds the bias, and puts -infinity where a key is not seen. */
template <int N>
DEVICE void mask_scores(float (*s)[4], const WarpTile &w, const Seen &seen, const Attn &a, int h, int u0, int lane) {
    float inv_scale = 1.0f / a.scale; /* the exponential multiplies by the scale, the bias too */
    UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int e = 0; e < 4; e++) {
            int u = u0 + 2 * (lane & 3) + n * 8 + (e & 1), r = e >> 1;
            if (a.bias) s[n][e] += score_bias(a, w, h, w.row0 + (lane >> 2) + 8 * r, u, inv_scale);
            s[n][e] = is_seen(seen, r, u) ? s[n][e] : -INFINITY;
        }
}

DEVICE int group_key_row(const AttnGroup &g, int u) {
    return u < g.nk[0] ? g.k0[0] + u : g.k0[1] + (u - g.nk[0]);
}

/* Each block looks its tiles up once: thread k the k-th warp's, left in shared memory. Which stages some
 * tile looks at: `in_a` from 0 on, `in_b` from `b` on. Returns after a barrier. */
template <int WARPS> struct BlockTiles {
    AttnGroup g;
    WarpTile tile[WARPS];
    int in_a, b, in_b;
};
template <int WARPS, int STAGE>
DEVICE void find_tiles(BlockTiles<WARPS> *b, const AttnGroup *groups, const AttnItem *items, int first, int warps) {
    if ((int)threadIdx.x < warps) {
        AttnGroup g = groups[blockIdx.x];
        if (threadIdx.x == 0) b->g = g;
        b->tile[threadIdx.x] = find_tile(g, items, first + (int)threadIdx.x);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int a = 0, from = INT32_MAX, to = 0;
        for (int k = 0; k < warps; k++) {
            const WarpTile &w = b->tile[k];
            if (!w.there) continue;
            a = max(a, w.a_most);
            if (w.it.nb) from = min(from, w.b), to = max(to, w.b_most);
        }
        b->in_a = (a + STAGE - 1) / STAGE;
        b->b = max(b->in_a, from / STAGE);
        b->in_b = max(0, (to + STAGE - 1) / STAGE - b->b);
    }
    __syncthreads();
}

/* Where a lane's two rows come from, for dropout: lane i < 16 reads that of row i and hands it on. */
DEVICE void keys_of_rows(RowKey out[2], const Dropout &d, const WarpTile &w, int lane) {
    int row = lane < 16 ? tile_row(w, lane) : -1;
    RowKey k = {0, 0};
    /* 16 lanes read, 32 get: a lane's two rows are eight apart */
    if (d.p > 0 && row >= 0) k = d.rows[row];
    UNROLL for (int r = 0; r < 2; r++) {
        out[r].pair = __shfl_sync(~0u, k.pair, (lane >> 2) + 8 * r);
        out[r].token = __shfl_sync(~0u, k.token, (lane >> 2) + 8 * r);
    }
}

/* ---- tiles in and out ---- */

/* A thread's part in bringing rows of two matrices into two tiles: one chunk of eight channels of every step-th row, so
 * that nothing but the row's number changes from copy to copy. */
typedef struct {
    const char *a, *b;
    int lda, ldb, row, step, to; /* bytes; first row and the next; where to, in a tile */
    bool channel;                /* the chunk is one of the head's */
} Carrier;
template <int DP> DEVICE Carrier carrier_of(const void *a, int64_t lda, const void *b, int64_t ldb, int D, int thread,
                                            int threads) {
    int at = thread % Tile<DP>::CHUNKS, row = thread / Tile<DP>::CHUNKS, step = threads / Tile<DP>::CHUNKS;
    bool channel = at * 8 < D;
    int to = (row * Tile<DP>::LD + at * 8) * 2, from = channel ? at * 16 : 0;
    /* threads that the chunks do not divide into carry nothing */
    if (row >= step) row = INT32_MAX;
    return Carrier{(const char *)a + from, (const char *)b + from, (int)lda * 2, (int)ldb * 2, row, step, to, channel};
}

/* `rows` rows to the tiles at shared addresses x and y; row_of(r) gives the row, or a negative number for zeros. */
template <int DP, class F> DEVICE void carry(const Carrier &c, uint32_t x, uint32_t y, int rows, F row_of) {
    int to = c.to;
#pragma unroll 2
    for (int r = c.row; r < rows; r += c.step, to += c.step * Tile<DP>::LD * 2) {
        int row = row_of(r);
        bool there = row >= 0 && c.channel;
        row = there ? row : 0;
        /* row 0 where there is none: cp.async checks the address even when it reads nothing */
        copy16(x + to, c.a + (int64_t)row * c.lda, there);
        copy16(y + to, c.b + (int64_t)row * c.ldb, there);
    }
}

/* 16 rows of D channels into a tile of the warp's own. */
template <int DP, class F> DEVICE void load_tile(bf16 *tile, const void *base, int64_t ld, int D, int lane, F row_of) {
    uint32_t to = shared_address(tile);
    for (int c = lane; c < 16 * Tile<DP>::CHUNKS; c += 32) {
        int r = c / Tile<DP>::CHUNKS, at = c % Tile<DP>::CHUNKS * 8, row = row_of(r);
        bool there = row >= 0 && at < D;
        copy16(to + (r * Tile<DP>::LD + at) * 2, (const bf16 *)base + (there ? row * ld + at : 0), there);
    }
}

/* 16 rows of accumulators, rows l/4 times `low` and l/4 + 8 times `high`, to rows of out (or added to what is there),
 * through a tile that the warp has to itself. */
template <int DP, class F> DEVICE void write_rows(bf16 *tile, float (*x)[4], float low, float high, bf16 *out,
                                                  int64_t ld, int D, bool add, int lane, F row_of) {
    constexpr int LD = Tile<DP>::LD, CHUNKS = Tile<DP>::CHUNKS;
    __syncwarp();
    if (add) {
        for (int c = lane; c < 16 * CHUNKS; c += 32) {
            int r = c / CHUNKS, at = c % CHUNKS * 8;
            int64_t row = row_of(r);
            *(uint4 *)(tile + r * LD + at) =
                row >= 0 && at < D ? *(const uint4 *)(out + row * ld + at) : make_uint4(0, 0, 0, 0);
        }
        __syncwarp();
    }
    UNROLL for (int d = 0; d < CHUNKS; d++)
        UNROLL for (int r = 0; r < 2; r++) {
            uint32_t *at = (uint32_t *)(tile + ((lane >> 2) + 8 * r) * LD + d * 8 + 2 * (lane & 3));
            float x0 = x[d][2 * r] * (r ? high : low), x1 = x[d][2 * r + 1] * (r ? high : low);
            if (add) x0 += low_bf16(*at), x1 += high_bf16(*at);
            *at = pack_bf16(x0, x1);
        }
    __syncwarp();
    for (int c = lane; c < 16 * CHUNKS; c += 32) {
        int r = c / CHUNKS, at = c % CHUNKS * 8;
        int64_t row = row_of(r);
        if (row >= 0 && at < D) *(uint4 *)(out + row * ld + at) = *(uint4 *)(tile + r * LD + at);
    }
}

/* ---- forward and dq: the block walks over the keys of its group, a stage of them and KEYS a step ---- */

/* Calls step(K, V, u0) for each step in which the warp's tile sees a key. Two stages have room in kv: while all
 * compute on one, the next one comes; the barrier in front of that says both that the one has arrived and that nobody
 * needs the other any more. All copies have arrived at the end. */
template <int DP, int WARPS, int STAGE, class F>
DEVICE void walk_keys(bf16 *kv, const Attn &a, const BlockTiles<WARPS> &tiles, const WarpTile &w, int kh, F step) {
    constexpr int SIZE = STAGE * Tile<DP>::LD;
    Carrier c = carrier_of<DP>((const bf16 *)a.k + kh * a.D, a.ldk, (const bf16 *)a.v + kh * a.D, a.ldv, a.D,
                               (int)threadIdx.x, (int)blockDim.x);
    const AttnGroup &g = tiles.g;
    uint32_t room = shared_address(kv);
    int steps = tiles.in_a + tiles.in_b;
    auto first_key = [&](int t) { return (t < tiles.in_a ? t : t - tiles.in_a + tiles.b) * STAGE; };
    auto load = [&](int t) {
        int u0 = first_key(t), keys = g.nk[0] + g.nk[1];
        uint32_t at = room + (t & 1) * 4 * SIZE;
        carry<DP>(c, at, at + 2 * SIZE, STAGE, [&](int r) { return u0 + r < keys ? group_key_row(g, u0 + r) : -1; });
        copies_end_group();
    };
    if (steps) load(0);
    for (int t = 0; t < steps; t++) {
        copies_wait<0>();
        __syncthreads();
        if (t + 1 < steps) load(t + 1);
        int u0 = first_key(t);
        const bf16 *at = kv + (t & 1) * 2 * SIZE;
#pragma unroll 1
        for (int k = 0; k < STAGE; k += KEYS)
            if (sees_some(w, u0 + k, KEYS)) step(at + k * Tile<DP>::LD, at + SIZE + k * Tile<DP>::LD, u0 + k);
    }
    copies_wait<0>();
}

/* out(16, D) += x(16, KEYS) B(KEYS, D): x in accumulators, rounded to bf16; B a tile of a step. */
template <int DP> DEVICE void product_step(float (*out)[4], const float (*x)[4], const bf16 *b, int lane) {
    UNROLL for (int k = 0; k < KEYS / 16; k++) {
        uint32_t a[4] = {pack_bf16(x[2 * k][0], x[2 * k][1]), pack_bf16(x[2 * k][2], x[2 * k][3]),
                         pack_bf16(x[2 * k + 1][0], x[2 * k + 1][1]), pack_bf16(x[2 * k + 1][2], x[2 * k + 1][3])};
        product_columns<DP>(out, a, b, k * 16, lane);
    }
}

/* ---- dropout ----
 * A Philox call draws the eight keys of one row and one 8-column block; the four lanes that hold a row need one word
 * each of every block. So each of the four draws another block, and they exchange: w[j] becomes this lane's word of
 * lane j's block (lanes % 4). Where eights of the group's keys are no eights of the item's numbers, each lane draws for
 * its own keys instead, eight times as often. */
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

/* The block of numbers that key u's number is in. */
DEVICE uint32_t block_of_key(const WarpTile &w, int h, int u) {
    return ((uint32_t)h << 20) + ((uint32_t)key_number(w, u) >> 3);
}

/* Of 16 rows and 8 N keys from u0 on, drawn one by one: bit 4 n + e, as scores lie. */
template <int N> DEVICE uint32_t kept_keys(const Dropout &d, const RowKey key[2], const WarpTile &w, int h, int u0,
                                           int lane) {
    uint32_t kept = 0, threshold = dropout_threshold(d.p);
#pragma unroll 1
    for (int i = 0; i < 4 * N; i++) {
        int u = u0 + 2 * (lane & 3) + (i >> 2) * 8 + (i & 1);
        Philox x = dropout_block(&d, i & 2 ? key[1] : key[0], block_of_key(w, h, u));
        uint32_t k = (uint32_t)key_number(w, u) & 7, word = k & 4 ? (k & 2 ? x.v[3] : x.v[2]) : k & 2 ? x.v[1] : x.v[0];
        if ((word >> 16 * (k & 1) & 0xffff) >= threshold) kept |= 1u << i;
    }
    return kept;
}
template <int N> DEVICE void drop_kept(float (*x)[4], uint32_t kept, float scale) {
    UNROLL for (int i = 0; i < 4 * N; i++) x[i >> 2][i & 3] = kept >> i & 1 ? x[i >> 2][i & 3] * scale : 0.0f;
}

/* 16 rows x KEYS keys from u0 on: x = drawn ? x scale : 0. */
DEVICE void drop_step(float (*x)[4], const Dropout &d, const RowKey key[2], const WarpTile &w, int h, int u0,
                      float scale, int lane) {
    if (!w.eights) {
        drop_kept<KEYS / 8>(x, kept_keys<KEYS / 8>(d, key, w, h, u0, lane), scale);
        return;
    }
    uint32_t threshold = dropout_threshold(d.p), block = block_of_key(w, h, u0 + 8 * (lane & 3));
    UNROLL for (int r = 0; r < 2; r++) {
        Philox bits = dropout_block(&d, key[r], block);
        exchange(bits.v, lane);
        UNROLL for (int n = 0; n < KEYS / 8; n++) drop2(&x[n][2 * r], bits.v[n], threshold, scale);
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

/* f(Tile of the width) for a head size; false where there is no kernel for it. */
template <class F> static bool for_head_size(int D, F f) {
    if (D % 8) return false;
    if (D <= 32) return f(Tile<32>());
    if (D <= 64) return f(Tile<64>());
    if (D <= 80) return f(Tile<80>());
    if (D <= 96) return f(Tile<96>());
    return D <= 128 && f(Tile<128>());
}
