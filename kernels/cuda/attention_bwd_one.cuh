/* attention_bwd_one: the pieces of attention_bwd_one.cu: what a block knows, its rows and keys on their way into shared
 * memory, scores of 16 keys and 16 rows. */
#pragma once
#include "kernels/cuda/attention_mma.cuh"

/* TILE: bytes. ROWS a step, in TILES; tiles of keys that warps OWN at most. */
enum { TILE = 16 * 128, ROWS = 64, TILES = ROWS / 16, OWN = 16, MOST_HEADS = 6 };

/* ---- what a block knows ---- */

/* Where things lie in shared memory, bytes from the start: K and V of each 16 keys (for two heads when there are more
 * than one), kv bytes a head; dS^T of each 16 keys by ROWS rows (and P'^T of those that no warp owns); the tiles of a
 * step, Q, dO and O of 16 rows each (of two steps when there are more than one); lse and row keys of its rows (three
 * words, twice); of its rows lse in powers of two and delta; of the group: what tiles see, the tiles, their rows. */
typedef struct { int kv, ds, steps, step_size, numbers, sums, views, tiles, rows, size, heads; } Room;

static Room room_for(int key_tiles, int tiles, int heads, int share) {
    int chunks = (tiles + TILES - 1) / TILES, many = heads * share * chunks > 1;
    Room r;
    r.heads = heads, r.kv = key_tiles * 2 * TILE;
    r.ds = r.kv * (heads > 1 ? 2 : 1);
    r.steps = r.ds + (key_tiles + (key_tiles > OWN)) * TILE;
    r.step_size = (tiles < TILES ? tiles : TILES) * 3 * TILE;
    r.numbers = r.steps + r.step_size * (many ? 2 : 1);
    r.sums = r.numbers + 2 * 3 * ROWS * 4;
    r.views = r.sums + ROWS * 8;
    r.tiles = r.views + (tiles + 1) / 2 * 16;
    r.rows = r.tiles + (tiles * (int)sizeof(WarpTile) + 15) / 16 * 16;
    r.size = r.rows + (chunks ? chunks : 1) * ROWS * 4;
    return r;
}

/* The kernel's arguments. rows: of lse, a head; tiles: most of a group. scale: of scores, for powers of two; keep: 1 /
 * (1 - p); least: of two random bytes kept, in the high half; keys: of
 * Philox's rounds. */
typedef struct {
    Attn a;
    AttnGrad g;
    const AttnItem *items;
    const AttnGroup *groups;
    int64_t rows;
    int tiles;
    Room room;
    float scale, keep;
    uint32_t least;
    PhiloxKeys keys;
} Job;

/* What 16 rows see of the group's keys, a bit for each 16 of them: all rows all, and the keys' numbers are those of the
 * group; some row some. */
typedef struct { uint32_t all, some; } View;

typedef struct {
    AttnGroup g;
    int tiles, chunks;          /* of rows; steps a head */
    int keys, key_tiles, first; /* of the group; the block's first key head */
    int lane, warp, warps;
    unsigned char *shared;
    uint32_t base;       /* shared, as ldmatrix and cp.async want it */
    uint32_t rows_at;    /* a lane's place in a tile: of 16 rows x 16 channels as A, or transposed as B */
    uint32_t columns_at; /* as B, or transposed as A */
    const View *view;    /* of the group's tiles */
    const WarpTile *tile;
    const int *row;      /* of q, 16 a tile; negative: none */
} Block;

/* A step: tiles from tile0 on, `there` of them, of head h. In shared memory: K and V at `keys`, the rows' tiles at
 * `rows`, bytes from the start; their lse, their row keys. n: steps before; kh: of the block's key heads. */
typedef struct {
    int n, kh, h, tile0, there, keys, rows;
    const float *lse;
    const RowKey *key;
    float2 *sums;
} Step;

/* Step n: chunk of rows by chunk, the heads that share a key head, key heads. */
typedef struct { int n, kh, j, chunk; } Walk;
DEVICE Walk walk_on(Walk p, const Block &b, int share) {
    p.n++;
    if (++p.chunk < b.chunks) return p;
    p.chunk = 0;
    if (++p.j < share) return p;
    p.j = 0, p.kh++;
    return p;
}
DEVICE Step step_at(const Job &j, const Block &b, const Walk &p) {
    Step s;
    s.n = p.n, s.kh = p.kh, s.h = (b.first + p.kh) * (j.a.H / j.a.KH) + p.j;
    s.tile0 = p.chunk * TILES, s.there = min(b.tiles - s.tile0, (int)TILES);
    s.keys = (p.kh & 1) * j.room.kv, s.rows = j.room.steps + (p.n & 1) * j.room.step_size;
    s.lse = (const float *)(b.shared + j.room.numbers) + (p.n & 1) * 3 * ROWS;
    s.key = (const RowKey *)(s.lse + ROWS);
    s.sums = (float2 *)(b.shared + j.room.sums);
    return s;
}

DEVICE void ldmatrix_at(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
DEVICE void ldmatrix_t_at(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
}
DEVICE void ldmatrix2_t_at(uint32_t r[2], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at));
}

/* Chunk of 16 bytes of a row of a tile. */
DEVICE int chunk_at(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }

/* Where in a tile a key of 16 lies: so that a lane's two keys of S^T, rows l/4 and l/4 + 8 of the tile, are the two
 * halves of a word that dropout draws. */
DEVICE int place_of(int key) { return (key & 8) / 2 + (key >> 1 & 3) + (key & 1) * 8; }
DEVICE int key_of(int place) { return (place & 4) * 2 + (place & 3) * 2 + (place >> 3); }
DEVICE int first_key(int lane) { return key_of(lane >> 2); }

/* ---- the group's tiles; rows and keys in ---- */

/* Bits from / 16 .. to / 16 - 1: rounded inwards, outwards. */
DEVICE uint32_t bits_inside(int from, int to) { return ((1u << to / 16) - 1) & ~((1u << (from + 15) / 16) - 1); }
DEVICE uint32_t bits_about(int from, int to) {
    return to > from ? ((1u << (to + 15) / 16) - 1) & ~((1u << from / 16) - 1) : 0;
}
DEVICE View view_of(const WarpTile &w) {
    View v = {bits_inside(0, w.a_least), bits_about(0, w.a_most)};
    if (!w.it.nb) return v;
    v.some |= bits_about(w.b, w.b_most);
    if (!w.shift) v.all |= bits_inside(w.a_least >= w.b ? 0 : w.b, w.b_least);
    return v;
}

/* Returns after a barrier. */
DEVICE void list_tiles(Block *b, const Job &j) {
    WarpTile *tile = (WarpTile *)(b->shared + j.room.tiles);
    View *view = (View *)(b->shared + j.room.views);
    int *row = (int *)(b->shared + j.room.rows), n = 0, threads = b->warps * 32;
    for (int t0 = 0; t0 < j.tiles; t0 += threads) {
        int t = t0 + (int)threadIdx.x;
        WarpTile w;
        w.there = false;
        if (t < j.tiles) {
            tile[t] = w = find_tile(b->g, j.items, t);
            view[t] = view_of(w);
        }
        n += __syncthreads_count(w.there);
    }
    b->tiles = __shfl_sync(~0u, n, 0); /* known to be the same in all lanes */
    b->chunks = max(1, (b->tiles + TILES - 1) / TILES);
    b->tile = tile, b->view = view, b->row = row;
    for (int i = (int)threadIdx.x; i < b->chunks * ROWS; i += threads)
        row[i] = i / 16 < n ? tile_row(tile[i / 16], i % 16) : -1;
    __syncthreads();
}

/* Tiles that a group's keys take: pairs where a warp has two. */
template <int KT> static __host__ __device__ int places(int key_tiles) {
    return key_tiles > OWN ? key_tiles : (key_tiles + KT - 1) / KT * KT;
}

/* K and V of the block's key head kh. */
template <int KT> DEVICE void bring_keys(const Job &j, const Block &b, int kh) {
    int at = b.lane & 7;
    bool channel = at * 8 < j.a.D;
    int from = (b.first + kh) * j.a.D + (channel ? at * 8 : 0);
    const bf16 *K = (const bf16 *)j.a.k + from, *V = (const bf16 *)j.a.v + from;
    uint32_t to = b.base + (kh & 1) * j.room.kv;
    for (int k = b.warp; k < places<KT>(b.key_tiles); k += b.warps)
        UNROLL for (int i = 0; i < 4; i++) {
            int place = 4 * i + (b.lane >> 3), u = k * 16 + key_of(place);
            bool there = u < b.keys && channel;
            int row = there ? group_key_row(b.g, u) : 0;
            uint32_t x = to + k * 2 * TILE + chunk_at(place, at);
            copy16(x, K + row * j.a.ldk, there);
            copy16(x + TILE, V + row * j.a.ldv, there);
        }
}

/* Q, dO, O, lse and row keys of a step. */
DEVICE void bring_rows(const Job &j, const Block &b, const Step &s) {
    int at = b.lane & 7, n = s.there * 16;
    bool channel = at * 8 < j.a.D;
    int from = s.h * j.a.D + (channel ? at * 8 : 0);
    const bf16 *Q = (const bf16 *)j.a.q + from, *dO = (const bf16 *)j.g.d_o + from, *O = (const bf16 *)j.a.o + from;
    const int *row_of = b.row + s.tile0 * 16;
    for (int r = 4 * b.warp + (b.lane >> 3); r < n; r += 4 * b.warps) {
        int row = row_of[r];
        bool there = row >= 0 && channel;
        row = there ? row : 0;
        uint32_t x = b.base + s.rows + (r >> 4) * 3 * TILE + chunk_at(r & 15, at);
        copy16(x, Q + row * j.a.ldq, there);
        copy16(x + TILE, dO + row * j.a.ldo, there);
        copy16(x + 2 * TILE, O + row * j.a.ldo, there);
    }
    for (int r = (int)threadIdx.x; r < n; r += b.warps * 32) {
        int row = row_of[r];
        bool there = row >= 0, draws = there && j.a.drop.p > 0;
        row = there ? row : 0;
        const uint32_t *key = draws ? (const uint32_t *)(j.a.drop.rows + row) : (const uint32_t *)j.a.lse;
        copy4((float *)s.lse + r, j.a.lse + s.h * j.rows + row, there);
        copy4((RowKey *)s.key + r, key, draws);
        copy4((uint32_t *)(s.key + r) + 1, key + (draws ? 1 : 0), draws);
    }
}

template <int KT> DEVICE void bring(const Job &j, const Block &b, const Walk &p) {
    if (p.n && !p.j && !p.chunk) bring_keys<KT>(j, b, p.kh);
    bring_rows(j, b, step_at(j, b, p));
    copies_end_group();
}

/* <x, y> of two rows of tiles, by the four lanes of a row: each has two chunks of eight, in the order that keeps rows
 * next to each other out of each other's banks. */
DEVICE float dot_rows(const unsigned char *x, int r, const unsigned char *y, int s, int lane) {
    float sum = 0, a[8], b[8];
    UNROLL for (int i = 0; i < 2; i++) {
        int chunk = (lane & 3) | ((i ^ r ^ r >> 2) & 1) << 2;
        ld8(a, (const bf16 *)(x + chunk_at(r, chunk)));
        ld8(b, (const bf16 *)(y + chunk_at(s, chunk)));
        UNROLL for (int e = 0; e < 8; e++) sum += a[e] * b[e];
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
}
/* lse in powers of two, and delta = <do, o>, of the rows of a step. */
DEVICE void sum_rows(const Block &b, const Step &s) {
    for (int r0 = 8 * b.warp; r0 < s.there * 16; r0 += 8 * b.warps) {
        int r = r0 + (b.lane >> 2);
        const unsigned char *x = b.shared + s.rows + (r >> 4) * 3 * TILE;
        float delta = dot_rows(x + TILE, r & 15, x + 2 * TILE, r & 15, b.lane);
        if ((b.lane & 3) == 0) s.sums[r] = make_float2(s.lse[r] * LOG2E, delta);
    }
}

/* ---- S^T: a lane holds two neighbouring keys (place l/4: the first), rows 8 n + 2 (l % 4) + {0, 1} of a tile ---- */

/* Bias, and -infinity where a key is not seen. Returns which of the lane's four rows see but one key. */
DEVICE int mask_keys(float (*s)[4], const WarpTile &w, const Attn &a, int h, int u0, int lane) {
    int alone = 0;
    UNROLL for (int n = 0; n < 2; n++)
        UNROLL for (int x = 0; x < 2; x++) {
            int i = w.row0 + 8 * n + 2 * (lane & 3) + x, end_a = end_of_a(w, i), end_b = end_of_b(w, i);
            if (end_a + end_b - w.b == 1) alone |= 1 << (2 * n + x);
            UNROLL for (int r = 0; r < 2; r++) {
                int u = u0 + first_key(lane) + r;
                float *to = &s[n][2 * r + x];
                if (a.bias) *to += score_bias(a, w, h, i, u, 1.0f / a.scale);
                if (!(u < end_a || (u >= w.b && u < end_b))) *to = -INFINITY;
            }
        }
    return alone;
}

/* Rows of the tile that a lane draws for (one eight of keys: 8 (l / 16) ..) and needs: of each of the four, number y =
 * 2 n + x, the word of its two keys. */
DEVICE int row_number(int y, int lane) { return 8 * (y >> 1) + 2 * (lane & 3) + (y & 1); }

DEVICE void draw_words(uint32_t w[4], const Job &j, const RowKey *key, uint32_t block, int lane) {
    RowKey of = key[row_number(lane >> 2 & 3, lane)];
    PhiloxRow row = philox_row(&j.keys, of.token, of.pair);
    Philox x = philox_join(&j.keys, row, philox_block(&j.keys, block, j.a.drop.site));
    bool odd = lane & 4, high = lane & 8;
    uint32_t t = __shfl_xor_sync(~0u, odd ? x.v[0] : x.v[1], 4), s = __shfl_xor_sync(~0u, odd ? x.v[2] : x.v[3], 4);
    uint32_t v0 = odd ? t : x.v[0], v1 = odd ? x.v[1] : t, v2 = odd ? s : x.v[2], v3 = odd ? x.v[3] : s;
    t = __shfl_xor_sync(~0u, high ? v0 : v2, 8);
    s = __shfl_xor_sync(~0u, high ? v1 : v3, 8);
    w[0] = high ? t : v0, w[1] = high ? s : v1, w[2] = high ? v2 : t, w[3] = high ? v3 : s;
}
/* The same where eights of the group's keys are no eights of the item's numbers. */
DEVICE void draw_halves(uint32_t w[4], const Dropout &d, const RowKey *key, const WarpTile &of, int h, int u,
                        int lane) {
    UNROLL for (int y = 0; y < 4; y++) {
        uint32_t half[2];
#pragma unroll 1
        for (int r = 0; r < 2; r++)
            half[r] = dropout_bits(dropout_block(&d, key[row_number(y, lane)], block_of_key(of, h, u + r)),
                                   (uint32_t)key_number(of, u + r) & 7);
        w[y] = half[0] | half[1] << 16;
    }
}

/* From S^T and dP^T to P'^T (1 - p) and dS^T / scale, in bf16 as operands. sums: of the tile's rows. */
template <bool DROP> DEVICE void soften(uint32_t p[4], uint32_t ds[4], const float (*s)[4], const float (*dp)[4],
                                        const float2 *sums, const uint32_t word[4], const Job &j, int lane) {
    UNROLL for (int n = 0; n < 2; n++) {
        float4 of_rows = *(const float4 *)(sums + 8 * n + 2 * (lane & 3));
        float lse[2] = {of_rows.x, of_rows.z}, delta[2] = {of_rows.y, of_rows.w}, pm[4], d[4];
        UNROLL for (int e = 0; e < 4; e++) {
            int x = e & 1, r = e >> 1;
            float at = exp2_fast(fmaf(s[n][e], j.scale, -lse[x]));
            bool stays = !DROP || (r ? word[2 * n + x] : word[2 * n + x] << 16) >= j.least;
            pm[e] = stays ? at : 0.0f;
            d[e] = at * (DROP ? fmaf(stays ? dp[n][e] : 0.0f, j.keep, -delta[x]) : dp[n][e] - delta[x]);
        }
        UNROLL for (int r = 0; r < 2; r++) {
            p[2 * n + r] = pack_bf16(pm[2 * r], pm[2 * r + 1]);
            ds[2 * n + r] = pack_bf16(d[2 * r], d[2 * r + 1]);
        }
    }
}

/* s, dp(16 keys, 16 rows) = K Q^T, V dO^T over 64 channels, of KT tiles of keys: a lane's places in K (V behind it) and
 * in Q (dO behind). */
template <int KT> DEVICE void product_tiles(float (*s)[2][4], float (*dp)[2][4], uint32_t K, uint32_t Q) {
    UNROLL for (int k = 0; k < 4; k++) {
        uint32_t y[4], z[4];
        ldmatrix_at(y, Q ^ (k << 5));
        ldmatrix_at(z, (Q ^ (k << 5)) + TILE);
        UNROLL for (int i = 0; i < KT; i++) {
            uint32_t x[4], v[4];
            ldmatrix_at(x, (K ^ (k << 5)) + 2 * i * TILE);
            ldmatrix_at(v, (K ^ (k << 5)) + (2 * i + 1) * TILE);
            mma(s[i][0], x, y[0], y[1]);
            mma(s[i][1], x, y[2], y[3]);
            mma(dp[i][0], v, z[0], z[1]);
            mma(dp[i][1], v, z[2], z[3]);
        }
    }
}
/* out(16 keys, 64) += x(16 keys, 16 rows) B(16 rows, 64) */
template <int KT> DEVICE void product_of_rows(float (*out)[8][4], const uint32_t (*x)[4], uint32_t b) {
    UNROLL for (int d = 0; d < 4; d++) {
        uint32_t y[4];
        ldmatrix_t_at(y, b ^ (d << 5));
        UNROLL for (int i = 0; i < KT; i++) {
            mma(out[i][2 * d], x[i], y[0], y[1]);
            mma(out[i][2 * d + 1], x[i], y[2], y[3]);
        }
    }
}

/* A tile of rows of a step: its place, numbers of its rows, head. */
typedef struct { const WarpTile *w; int h; uint32_t at; const float2 *sums; const RowKey *key; } Rows;
DEVICE Rows rows_of(const Block &b, const Step &s, int t) {
    return Rows{b.tile + s.tile0 + t, s.h, b.base + s.rows + t * 3 * TILE, s.sums + t * 16, s.key + t * 16};
}

/* KT tiles of keys from u0 on, at K with V behind each, against 16 rows that see all of them: P'^T and dS^T. */
template <bool DROP, int KT> DEVICE void weigh(uint32_t (*p)[4], uint32_t (*ds)[4], const Job &j, const Block &b,
                                               const Rows &r, int u0, uint32_t K) {
    float s[KT][2][4] = {{{0}}}, dp[KT][2][4] = {{{0}}};
    uint32_t word[KT][4], block = ((uint32_t)r.h << 20) + ((uint32_t)u0 >> 3) + (b.lane >> 4);
    if (DROP)
        UNROLL for (int i = 0; i < KT; i++) draw_words(word[i], j, r.key, block + 2 * i, b.lane);
    product_tiles<KT>(s, dp, K + b.rows_at, r.at + b.columns_at);
    UNROLL for (int i = 0; i < KT; i++) soften<DROP>(p[i], ds[i], s[i], dp[i], r.sums, word[i], j, b.lane);
}
/* The same where some row sees some, or scores have a bias. */
template <bool DROP, int KT> DEVICE void weigh_masked(uint32_t (*p)[4], uint32_t (*ds)[4], const Job &j,
                                                      const Block &b, const Rows &r, int u0, uint32_t K) {
    float s[KT][2][4] = {{{0}}}, dp[KT][2][4] = {{{0}}};
    uint32_t word[4];
    product_tiles<KT>(s, dp, K + b.rows_at, r.at + b.columns_at);
    UNROLL for (int i = 0; i < KT; i++) {
        int u = u0 + 16 * i, alone = mask_keys(s[i], *r.w, j.a, r.h, u, b.lane);
        if (DROP && __all_sync(~0u, r.w->eights))
            draw_words(word, j, r.key, block_of_key(*r.w, r.h, u + 8 * (b.lane >> 4)), b.lane);
        else if (DROP) draw_halves(word, j.a.drop, r.key, *r.w, r.h, u + first_key(b.lane), b.lane);
        soften<DROP>(p[i], ds[i], s[i], dp[i], r.sums, word, j, b.lane);
        UNROLL for (int y = 0; y < 4; y++) { /* dS of row y: the low or high half of two words */
            uint32_t stays = alone >> y & 1 ? (y & 1 ? 0xffffu : 0xffff0000u) : ~0u;
            ds[i][y & ~1] &= stays, ds[i][y | 1] &= stays;
        }
    }
}

/* 16 keys x 16 rows of row tile t to a tile of 16 keys x ROWS. */
DEVICE void leave(uint32_t to, const uint32_t x[4], int t, int lane) {
    uint32_t at = to + chunk_at(lane >> 2, 2 * t) + 4 * (lane & 3);
    UNROLL for (int n = 0; n < 2; n++)
        UNROLL for (int r = 0; r < 2; r++)
            asm volatile("st.shared.b32 [%0], %1;" ::"r"((at ^ (n << 4)) + r * 8 * 128), "r"(x[2 * n + r]));
}
