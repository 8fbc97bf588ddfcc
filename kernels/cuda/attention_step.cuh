/* attention_step: what a step of 16 rows against 32 or 16 keys is made of, when keys lie in shared memory in the order
 * of draws (key_at): rows brought in and out, scores, masks, dropout, weighted sums. Beside attention_mma.cuh. */
#pragma once
#include "kernels/cuda/attention_mma.cuh"

/* ---- rows to and from shared memory ---- */

/* Row p of a step's tile holds key key_at(p), so that the columns 2 (l % 4) + {0, 1} of each eight that a lane has in a
 * product are neighbours: keys 8 (l % 4) .. + 7 of 32, which are one draw of dropout, or, of a step of 16 keys, 4 (l %
 * 4) .. + 3. No bit of p is in two of the terms: of a sum of powers of two it is the sum. */
DEVICE constexpr int key_at(int p) { return (p & ~31) | (p & 6) << 2 | (p & 24) >> 2 | (p & 1); }
DEVICE constexpr int key_at_half(int p) { return (p & 6) << 1 | (p & 8) >> 2 | (p & 1); }

/* Rows of tiles that n keys take: the last step has 32, or 16 when they are enough. */
static inline __host__ __device__ int step_rows(int n) {
    int rest = n % KEYS;
    return n - rest + (rest > KEYS / 2 ? KEYS : rest ? KEYS / 2 : 0);
}

/* A thread's part in bringing rows of K and V: one chunk of eight channels of every step-th row. */
typedef struct {
    const char *k, *v;
    int ldk, ldv, row, step, to; /* bytes; first row and the next; where to, in a tile */
    bool channel;                /* the chunk is one of the head's */
} KeyCarrier;
template <int DP> DEVICE KeyCarrier key_carrier(const Attn &a) {
    int at = (int)threadIdx.x % Tile<DP>::CHUNKS, row = (int)threadIdx.x / Tile<DP>::CHUNKS,
        step = 1 << (31 - __clz((int)blockDim.x / Tile<DP>::CHUNKS));
    bool channel = at * 8 < a.D;
    int from = channel ? at * 16 : 0, to = (row * Tile<DP>::LD + at * 8) * 2;
    /* threads beyond a power of two of rows carry nothing */
    if (row >= step) row = 1 << 20;
    return KeyCarrier{(const char *)a.k + from, (const char *)a.v + from, (int)a.ldk * 2, (int)a.ldv * 2, row, step, to,
                      channel};
}

/* A stage of key rows from row0 on, all of them there: nothing to be looked at, and STEP known when compiled. */
template <int DP, int STAGE, int STEP>
DEVICE void carry_stage(const KeyCarrier &c, uint32_t k, uint32_t v, int row0, int64_t head) {
    if (c.row >= STEP) return;
    int first = row0 + key_at(c.row); /* key_at(c.row + p) is key_at(c.row) + key_at(p): no bit is in both */
    const char *from_k = c.k + head + (int64_t)first * c.ldk, *from_v = c.v + head + (int64_t)first * c.ldv;
    UNROLL for (int p = 0; p < STAGE; p += STEP) {
        copy16(k + c.to + p * Tile<DP>::LD * 2, from_k + (int64_t)key_at(p) * c.ldk, c.channel);
        copy16(v + c.to + p * Tile<DP>::LD * 2, from_v + (int64_t)key_at(p) * c.ldv, c.channel);
    }
}

/* Keys from u0 on, at most STAGE, to the tiles at k and v; zeros behind the group's last key up to the end of the step.
 * `head`: bytes to the key head's columns. */
template <int DP, int STAGE>
DEVICE void carry_keys(const KeyCarrier &c, uint32_t k, uint32_t v, const AttnGroup &g, int u0, int64_t head) {
    int keys = g.nk[0] + g.nk[1], to_1 = g.k0[1] - g.nk[0];
    if (c.step == 16 && (u0 + STAGE <= g.nk[0] || (u0 >= g.nk[0] && u0 + STAGE <= keys))) {
        carry_stage<DP, STAGE, 16>(c, k, v, u0 + (u0 < g.nk[0] ? g.k0[0] : to_1), head);
        return;
    }
    int rows = step_rows(min(STAGE, keys - u0)), half = rows % KEYS ? rows - KEYS / 2 : STAGE, to = c.to;
    const char *from_k = c.k + head, *from_v = c.v + head;
#pragma unroll 2
    for (int p = c.row; p < rows; p += c.step, to += c.step * Tile<DP>::LD * 2) {
        int u = u0 + (p < half ? key_at(p) : half + key_at_half(p - half));
        bool there = u < keys && c.channel;
        /* a row that is there: cp.async checks the address even when it reads nothing */
        u = min(u, keys - 1);
        int row = u + (u < g.nk[0] ? g.k0[0] : to_1);
        copy16(k + to, from_k + (int64_t)row * c.ldk, there);
        copy16(v + to, from_v + (int64_t)row * c.ldv, there);
    }
}

/* f(where in a tile of 16 rows, row, channel) for each chunk of eight channels that is the lane's. */
template <int DP, class F> DEVICE void for_chunks(int lane, F f) {
    constexpr int CHUNKS = Tile<DP>::CHUNKS;
    UNROLL for (int i = 0; i < CHUNKS / 2; i++) {
        int c = lane + 32 * i;
        if (32 % CHUNKS == 0) {
            int r = lane / CHUNKS, at = lane % CHUNKS * 8;
            f(r * Tile<DP>::LD + at + i * (32 / CHUNKS) * Tile<DP>::LD, r, i * (32 / CHUNKS), at);
        } else f(c / CHUNKS * Tile<DP>::LD + c % CHUNKS * 8, c / CHUNKS, 0, c % CHUNKS * 8);
    }
}

/* ---- scores and sums ---- */

/* s(16, 8 N) = Q K^T; K: where the lane points its ldmatrix for the step's first row. */
template <int DP, int N> DEVICE void scores(float (*s)[4], const uint32_t (*q)[4], uint32_t K) {
    UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int e = 0; e < 4; e++) s[n][e] = 0;
    UNROLL for (int k = 0; k < Tile<DP>::STEPS; k++)
        UNROLL for (int n = 0; n < N; n += 2) {
            uint32_t y[4];
            ldmatrix(y, K + (n * 8 * Tile<DP>::LD + k * 16) * 2);
            mma(s[n], q[k], y[0], y[1]);
            mma(s[n + 1], q[k], y[2], y[3]);
        }
}

/* o += P V, P rounded to bf16. */
template <int DP, int N> DEVICE void weigh(float (*o)[4], const float (*p)[4], uint32_t V) {
    UNROLL for (int k = 0; k < N / 2; k++) {
        uint32_t a[4] = {pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
                         pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]), pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
        UNROLL for (int d = 0; d < Tile<DP>::STEPS; d++) {
            uint32_t y[4];
            ldmatrix_t(y, V + (k * 16 * Tile<DP>::LD + d * 16) * 2);
            mma(o[2 * d], a, y[0], y[1]);
            mma(o[2 * d + 1], a, y[2], y[3]);
        }
    }
}

/* Adds the bias, and puts -infinity where a key is not seen; first: the lane's first key. */
template <int N> DEVICE void mask(float (*s)[4], const WarpTile &w, const Attn &a, int h, int first, int lane) {
    Seen seen = seen_by(w, lane);
    float inv_scale = 1.0f / a.scale; /* the exponential multiplies by the scale, the bias too */
    UNROLL for (int n = 0; n < N; n++)
        UNROLL for (int e = 0; e < 4; e++) {
            int u = first + 2 * n + (e & 1), r = e >> 1;
            if (a.bias) s[n][e] += score_bias(a, w, h, w.row0 + (lane >> 2) + 8 * r, u, inv_scale);
            s[n][e] = is_seen(seen, r, u) ? s[n][e] : -INFINITY;
        }
}

/* ---- dropout ---- */

/* What is drawn: a number above `last`, as the high half of a word, is kept. */
typedef struct {
    PhiloxKeys keys;
    uint32_t site, last;
} Draws;

/* x = drawn ? x : 0; the keys from `number` on are one draw, or half of one. */
template <int N> DEVICE void drop(float (*x)[4], const Draws &d, const PhiloxRow row[2], int h, int number) {
    PhiloxBlock block = philox_block(&d.keys, ((uint32_t)h << 20) + ((uint32_t)number >> 3), d.site);
    UNROLL for (int r = 0; r < 2; r++) {
        Philox bits = philox_join(&d.keys, row[r], block);
        UNROLL for (int n = 0; n < N; n++) {
            uint32_t word = N < 4 && number & 4 ? bits.v[(n + N) % 4] : bits.v[n];
            x[n][2 * r] = word << 16 > d.last ? x[n][2 * r] : 0.0f;
            x[n][2 * r + 1] = word > d.last ? x[n][2 * r + 1] : 0.0f;
        }
    }
}

/* The same where eights of the group's keys are no eights of the item's numbers. */
template <int N>
DEVICE void drop_singly(float (*x)[4], const Draws &d, const PhiloxRow row[2], const WarpTile &w, int h, int first) {
    uint32_t kept = 0;
#pragma unroll 1
    for (int i = 0; i < 4 * N; i++) {
        uint32_t number = (uint32_t)key_number(w, first + (i >> 2) * 2 + (i & 1)), k = number & 7;
        PhiloxBlock block = philox_block(&d.keys, ((uint32_t)h << 20) + (number >> 3), d.site);
        Philox bits = philox_join(&d.keys, row[i >> 1 & 1], block);
        uint32_t word = k & 4 ? (k & 2 ? bits.v[3] : bits.v[2]) : k & 2 ? bits.v[1] : bits.v[0];
        if ((k & 1 ? word : word << 16) > d.last) kept |= 1u << i;
    }
    UNROLL for (int i = 0; i < 4 * N; i++) x[i >> 2][i & 3] = kept >> i & 1 ? x[i >> 2][i & 3] : 0.0f;
}
