/* attention_wg: attention forward in bf16 for Hopper (sm_90a), where every row of a group sees all its keys: image
 * encoders, and cross-attention without dropout (mathematics: attention.cu).
 *
 * Up to 272 keys: a block is one warp group (for wide heads two) and has one head of one group. K and V lie in shared
 * memory whole, brought once by cp.async; 64 rows after 64 walk over them, 96 keys at a time, and 80 in the end. More
 * keys (images of 336 pixels and more) come 64 at a time through a ring, ahead of two or three warp groups of 64 rows
 * each; a class token alone at the end takes a step of 16.
 *
 * Q comes as the first operand in registers, a lane 16 bytes of each 64, which the four lanes of a row exchange; scores
 * are accumulators (wgmma) and become P, the first operand of the second product, in registers too. Softmax as in
 * attention_mma.cu: what comes off the scores is lifted only when it must be. Rows beyond an item's end are computed
 * with, but for their softmax, and not written.
 *
 * Shared memory: K and V 64 channels a row of 128 bytes, as wgmma wants them: 68 KB, three blocks an SM. Channels from
 * 64 to 95 of both beside each other in a third such matrix: 102 KB, two blocks. Wider heads four matrices, 136 KB.
 * The four stages of the ring are of 16, 24 or 32 KB: two blocks an SM, or one.
 *
 * Bytes a head, group of R rows and U keys: Q and O 4RD, K and V 4UD (of a ring each block asks L2 for them), lse 4R.
 * FLOPs 4RUD, of which rows that fill no 64 take more: 257 rows are computed as 320. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/wgmma.cuh"

enum { ROWS = 64, PART = 96, LAST = 80, MOST = 2 * PART + LAST, STEP = 64, TAIL = 16, STAGES = 4 };

/* Warp groups of a block, blocks an SM: with a head's keys whole, and with a ring. */
template <int STEPS> static constexpr int GROUPS = STEPS == 8 ? 2 : 1;
template <int STEPS> static constexpr int BLOCKS = STEPS == 8 ? 1 : STEPS == 6 ? 2 : 3;
template <int STEPS> static constexpr int RING_GROUPS = STEPS == 6 ? 3 : 2;
template <int STEPS> static constexpr int RING_BLOCKS = STEPS == 4 ? 2 : 1;

/* Bytes of so many keys and values: matrices of 64 channels. */
template <int STEPS, int KEYS> static constexpr int ROOM = STEPS / 2 * KEYS * 128;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
static constexpr float LAG = 8;

/* ---- rows in and out ---- */

/* A piece of eight channels of every 16th key (32nd, of two warp groups), or zeros; piece p of row u lies at
 * p ^ (u % 8). */
template <int MANY> DEVICE void bring_keys(uint32_t to, const bf16 *from, int64_t ld, int keys, int room) {
    int piece = threadIdx.x & 7, row = (int)threadIdx.x >> 3;
    uint32_t at = to + row * 128 + ((piece ^ (row & 7)) << 4);
    UNROLL for (int i = 0; i < MOST; i += 16 * MANY) {
        if (i + row >= room) break;
        bool there = row + i < keys;
        copy16(at + i * 128, from + (there ? (row + i) * ld : 0), there);
    }
}

/* A lane's two rows, eight apart; how many are left from the first on. */
typedef struct { int row, left; } Rows;
DEVICE Rows rows_at(const AttnItem &it, int row0) {
    int r = row0 + ((int)threadIdx.x >> 5 & 3) * 16 + ((int)threadIdx.x >> 2 & 7);
    return Rows{it.q0 + r, it.nq - r};
}

/* 16 bytes of each 64 of a row: the lane's of four. */
template <int STEPS> DEVICE void bring_queries(uint4 (&w)[2][STEPS / 2], const Attn &a, int h, const Rows &x) {
    int channel = 8 * ((int)threadIdx.x & 3);
    const bf16 *q = (const bf16 *)a.q + (int64_t)x.row * a.ldq + h * a.D + channel;
    UNROLL for (int r = 0; r < 2; r++)
        UNROLL for (int i = 0; i < STEPS / 2; i++)
            w[r][i] = x.left > 8 * r && channel + 32 * i < a.D ? *(const uint4 *)(q + r * 8 * a.ldq + 32 * i)
                                                           : make_uint4(0, 0, 0, 0);
}
template <int STEPS> DEVICE void as_operand(uint32_t (&q)[STEPS][4], const uint4 (&w)[2][STEPS / 2]) {
    UNROLL for (int r = 0; r < 2; r++)
        UNROLL for (int i = 0; i < STEPS / 2; i++) {
            uint32_t x[4] = {w[r][i].x, w[r][i].y, w[r][i].z, w[r][i].w};
            exchange(x, threadIdx.x & 31);
            q[2 * i][r] = x[0], q[2 * i][2 + r] = x[1], q[2 * i + 1][r] = x[2], q[2 * i + 1][2 + r] = x[3];
        }
}

/* ---- a tile of 64 rows ---- */

/* Of a lane's two rows: sums so far, of exp2(score - base). */
template <int STEPS> struct Sums { float o[8 * STEPS], base[2], l[2]; };

/* Where a head's keys, or a stage of them, lie, first and further channels of each, and how many they are. */
typedef struct { uint32_t k, v, more_k, more_v; int keys; } Keys;
template <int STEPS> DEVICE Keys keys_at(uint32_t room, int most, int keys) {
    uint32_t matrix = most * 128, more = room + 2 * matrix;
    return Keys{room, room + matrix, more, STEPS == 6 ? more + 64 : more + matrix, keys};
}

/* s(64, N) = Q K^T of keys from u0 on: 64 columns, and 32 or 16 more. */
template <int STEPS, int N> DEVICE void score(float (&s)[N / 2], const uint32_t (&q)[STEPS][4], const Keys &keys,
                                              int u0) {
    UNROLL for (int u = 0; u < N; u += 64)
        UNROLL for (int k = 0; k < STEPS; k++) {
            uint64_t b = operand_at((k < 4 ? keys.k : keys.more_k) + (u0 + u) * 128, 16) + 2 * (k & 3);
            if (u + 64 <= N) wgmma_64<0>(s + u / 2, q[k], b, k > 0);
            else if (u + 32 <= N) wgmma_32<0>(s + u / 2, q[k], b, k > 0);
            else wgmma_16<0>(s + u / 2, q[k], b, k > 0);
        }
}

/* Keys that are not there. */
template <int N> DEVICE void mask(float (&s)[N / 2], int u0, int keys) {
    UNROLL for (int j = 0; j < N / 8; j++) {
        if (u0 + 8 * j + 8 <= keys) continue;
        UNROLL for (int e = 0; e < 4; e++)
            if (u0 + 8 * j + 2 * ((int)threadIdx.x & 3) + (e & 1) >= keys) s[4 * j + e] = -INFINITY;
    }
}

/* s becomes P, as operand; l and o, which are nothing at FIRST, follow. */
template <int STEPS, int N, bool FIRST> DEVICE void soften(Sums<STEPS> &x, uint32_t (&p)[N / 16][4],
                                                            const float (&s)[N / 2], float scale) {
    float top[2] = {-INFINITY, -INFINITY};
    UNROLL for (int i = 0; i < N / 2; i++) top[i >> 1 & 1] = fmaxf(top[i >> 1 & 1], s[i]);
    UNROLL for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2)) * scale;
    }
    if (FIRST) {
        UNROLL for (int r = 0; r < 2; r++) x.base[r] = top[r], x.l[r] = 0;
    } else if (__any_sync(~0u, fmaxf(top[0] - x.base[0], top[1] - x.base[1]) > LAG)) {
        UNROLL for (int r = 0; r < 2; r++) {
            float base = fmaxf(x.base[r], top[r]), fade = exp2_fast(x.base[r] - base);
            x.base[r] = base, x.l[r] *= fade;
            UNROLL for (int i = 0; i < 4 * STEPS; i++) x.o[i / 2 * 4 + 2 * r + (i & 1)] *= fade;
        }
    }
    UNROLL for (int i = 0; i < N / 4; i++) {
        float low = exp2_fast(fmaf(s[2 * i], scale, -x.base[i & 1])),
              high = exp2_fast(fmaf(s[2 * i + 1], scale, -x.base[i & 1]));
        x.l[i & 1] += low + high;
        p[i / 4][i % 4] = pack_bf16(low, high);
    }
}

/* o += P V of keys from u0 on; the first ones write. */
template <int STEPS, int N, bool FIRST> DEVICE void weigh(Sums<STEPS> &x, const uint32_t (&p)[N / 16][4],
                                                          const Keys &keys, int u0) {
    UNROLL for (int k = 0; k < N / 16; k++) {
        uint32_t row = (u0 + 16 * k) * 128;
        wgmma_64<1>(x.o, p[k], operand_at(keys.v + row, 16), !FIRST || k);
        if constexpr (STEPS == 6) wgmma_32<1>(x.o + 32, p[k], operand_at(keys.more_v + row, 16), !FIRST || k);
        if constexpr (STEPS == 8) wgmma_64<1>(x.o + 32, p[k], operand_at(keys.more_v + row, 16), !FIRST || k);
    }
}

template <int N> DEVICE void settle(float (&d)[N]) {
    wgmma_wait<0>();
    wgmma_settle(d);
}

template <int STEPS> DEVICE void finish(Sums<STEPS> &s, const Attn &a, int h, const Rows &x, int64_t rows) {
    int quad = threadIdx.x & 3;
    bf16 *o = (bf16 *)a.o + (int64_t)x.row * a.ldo + h * a.D + 8 * quad;
    UNROLL for (int r = 0; r < 2; r++) {
        float l = s.l[r];
        l += __shfl_xor_sync(~0u, l, 1);
        l += __shfl_xor_sync(~0u, l, 2);
        if (!quad && x.left > 8 * r) a.lse[h * rows + x.row + 8 * r] = (s.base[r] + __log2f(l)) * LN2;
        float inv = 1 / l;
        UNROLL for (int i = 0; i < STEPS / 2; i++) {
            uint32_t w[4];
            UNROLL for (int j = 0; j < 4; j++)
                w[j] = pack_bf16(s.o[16 * i + 4 * j + 2 * r] * inv, s.o[16 * i + 4 * j + 2 * r + 1] * inv);
            exchange(w, threadIdx.x & 31);
            if (x.left > 8 * r && 32 * i + 8 * quad < a.D)
                store16(o + r * 8 * a.ldo + 32 * i, w[0], w[1], w[2], w[3]);
        }
    }
}

/* N keys from u0 on. A warp without rows (`some` says whether it has any) multiplies zeros: all four must take part.
 * `arrive`: what happens before V is looked at. */
template <int STEPS, int N, bool FIRST, class F> DEVICE void take_part(Sums<STEPS> &x, const uint32_t (&q)[STEPS][4],
                                                                       const Keys &keys, int u0, bool some, float scale,
                                                                       F arrive) {
    float s[N / 2];
    uint32_t p[N / 16][4];
    wgmma_begin();
    score<STEPS, N>(s, q, keys, u0);
    wgmma_commit();
    settle(s);
    if (u0 + N > keys.keys) mask<N>(s, u0, keys.keys);
    if (some) soften<STEPS, N, FIRST>(x, p, s, scale);
    else memset(p, 0, sizeof p);
    arrive();
    wgmma_begin();
    weigh<STEPS, N, FIRST>(x, p, keys, u0);
    wgmma_commit();
}

/* K and V of a head, 64 channels a matrix: two groups of copies. */
template <int STEPS> DEVICE void bring_head(const Keys &keys, const Attn &a, const bf16 *k, const bf16 *v) {
    int room = keys.keys <= PART ? PART : keys.keys <= 2 * PART ? 2 * PART : MOST, channel = 8 * ((int)threadIdx.x & 7);
    bool low = STEPS == 8 || channel < 32;
    auto bring = [&](uint32_t to, const bf16 *from, int64_t ld, int c) {
        bring_keys<GROUPS<STEPS>>(to, from + (c < a.D ? c : 0), ld, c < a.D ? keys.keys : 0, room);
    };
    bring(keys.k, k, a.ldk, channel);
    if (STEPS > 4) bring(keys.more_k, low ? k : v, low ? a.ldk : a.ldv, 64 + (STEPS == 8 ? channel : channel & 31));
    copies_end_group();
    bring(keys.v, v, a.ldv, channel);
    if (STEPS == 8) bring(keys.more_v, v, a.ldv, 64 + channel);
    copies_end_group();
}

/* The tile from row0 on of item t; none is left at the end of items. */
typedef struct { AttnItem it; int t, row0; } Place;
DEVICE void go_on(Place *p, const AttnItem *items, int end, int tiles) {
    for (; tiles && p->t < end; tiles--)
        if ((p->row0 += ROWS) >= p->it.nq && ++p->t < end) p->it = items[p->t], p->row0 = 0;
}
#endif

template <int STEPS> static __global__ __launch_bounds__(128 * GROUPS<STEPS>, BLOCKS<STEPS>)
void forward_wg(Attn a, const AttnItem *items, const AttnGroup *groups, int64_t rows) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    int h = blockIdx.x, kh = h / (a.H / a.KH);
    AttnGroup g = groups[blockIdx.y];
    int end = g.item0 + g.nitems;
    Keys keys = keys_at<STEPS>(shared_at(memory), MOST, g.nk[0]);
    Place at = {items[g.item0], g.item0, 0};
    uint4 next[2][STEPS / 2];
    go_on(&at, items, end, (int)threadIdx.x / 128);
    if (at.t < end) bring_queries<STEPS>(next, a, h, rows_at(at.it, at.row0));
    bring_head<STEPS>(keys, a, (const bf16 *)a.k + g.k0[0] * a.ldk + kh * a.D,
                      (const bf16 *)a.v + g.k0[0] * a.ldv + kh * a.D);
    copies_wait<1>();
    box_fence();
    __syncthreads();
    bool first = true;
    auto arrive = [&] {
        if (first) copies_wait<0>(), box_fence(), __syncthreads(), first = false;
    };
    float scale = a.scale * LOG2E;
    while (at.t < end) {
        /* the compiler would keep fifty descriptors in registers through the loop */
        asm volatile("" : "+r"(keys.k), "+r"(keys.v));
        if (STEPS > 4) asm volatile("" : "+r"(keys.more_k), "+r"(keys.more_v));
        Rows x = rows_at(at.it, at.row0);
        bool some = __any_sync(~0u, x.left > 0);
        uint32_t q[STEPS][4];
        Sums<STEPS> sums;
        as_operand<STEPS>(q, next);
        take_part<STEPS, PART, true>(sums, q, keys, 0, some, scale, arrive);
        settle(sums.o);
        if (keys.keys > PART) take_part<STEPS, PART, false>(sums, q, keys, PART, some, scale, [] {}), settle(sums.o);
        if (keys.keys > 2 * PART) take_part<STEPS, LAST, false>(sums, q, keys, 2 * PART, some, scale, [] {});
        go_on(&at, items, end, GROUPS<STEPS>);
        if (at.t < end) bring_queries<STEPS>(next, a, h, rows_at(at.it, at.row0));
        settle(sums.o);
        finish<STEPS>(sums, a, h, x, rows);
    }
    arrive();                           /* a warp group without rows is waited for, too */
#else
    __trap();
#endif
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
/* A lane's eight channels of every 16 MANYth key of a step: a matrix each of K, V and further channels. */
template <int STEPS, int MANY> struct Feed {
    const bf16 *from[STEPS / 2];
    int64_t ld[STEPS / 2];
    bool there[STEPS / 2];
    int row;
    uint32_t at;
};
template <int STEPS, int MANY> DEVICE void feed_begin(Feed<STEPS, MANY> &f, const Attn &a, int64_t key, int head) {
    int piece = threadIdx.x & 7;
    f.row = (int)threadIdx.x >> 3;
    f.at = f.row * 128 + ((piece ^ (f.row & 7)) << 4);
    UNROLL for (int i = 0; i < STEPS / 2; i++) {
        bool v = STEPS == 6 && i == 2 ? piece >= 4 : i & 1;
        int channel = 8 * (STEPS == 6 && i == 2 ? piece & 3 : piece) + (i >= 2 ? 64 : 0);
        f.ld[i] = v ? a.ldv : a.ldk;
        f.there[i] = channel < a.D;
        f.from[i] = (const bf16 *)(v ? a.v : a.k) + (key + f.row) * f.ld[i] + head * a.D + channel;
    }
}
/* `left`: keys that are left, of which the next 64 come to `to`; zeros behind them. */
template <int STEPS, int MANY> DEVICE void feed(Feed<STEPS, MANY> &f, const Attn &a, uint32_t to, int left) {
    UNROLL for (int i = 0; i < STEPS / 2; i++) {
        UNROLL for (int j = 0; j < STEP; j += 16 * MANY) {
            if (STEP % (16 * MANY) && f.row + j >= STEP) break;
            bool there = f.there[i] && f.row + j < left;
            copy16(to + f.at + (i * STEP + j) * 128, there ? f.from[i] + j * f.ld[i] : (const bf16 *)a.k, there);
        }
        f.from[i] += STEP * f.ld[i];
    }
}
#endif

/* Blocks of a head lie beside each other: they ask L2 for the same keys. */
template <int STEPS> static __global__ __launch_bounds__(128 * RING_GROUPS<STEPS>, RING_BLOCKS<STEPS>)
void forward_ring(Attn a, const AttnItem *items, const AttnGroup *groups, int64_t rows, int blocks) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    extern __shared__ __align__(1024) char memory[];
    constexpr int MANY = RING_GROUPS<STEPS>, AHEAD = STAGES - 1;
    int h = blockIdx.x / blocks, kh = h / (a.H / a.KH);
    AttnGroup g = groups[blockIdx.y];
    int end = g.item0 + g.nitems;
    Place at = {items[g.item0], g.item0, 0};
    go_on(&at, items, end, (int)blockIdx.x % blocks * MANY);
    if (at.t >= end) return;                                 /* another group has more rows */
    go_on(&at, items, end, (int)threadIdx.x / 128);
    auto stage = [&](int i, int keys) {
        return keys_at<STEPS>(shared_at(memory) + i % STAGES * ROOM<STEPS, STEP>, STEP, keys);
    };
    Feed<STEPS, MANY> from;
    feed_begin(from, a, g.k0[0], kh);
    auto bring = [&](int i) {
        if (g.nk[0] > i * STEP) feed(from, a, stage(i, 0).k, g.nk[0] - i * STEP);
        copies_end_group();                                  /* an empty one, too, so that they can be counted */
    };
    auto arrive = [&](int i) {
        copies_wait<AHEAD - 1>();
        box_fence();
        __syncthreads();                                     /* stage i is there, and nobody reads i - 1 any more */
        bring(i + AHEAD);
    };
    UNROLL for (int i = 0; i < AHEAD; i++) bring(i);
    bool works = at.t < end;
    Rows x = works ? rows_at(at.it, at.row0) : Rows{0, 0};
    bool some = __any_sync(~0u, x.left > 0);
    uint4 raw[2][STEPS / 2];
    uint32_t q[STEPS][4];
    Sums<STEPS> sums;
    bring_queries<STEPS>(raw, a, h, x);
    as_operand<STEPS>(q, raw);
    float scale = a.scale * LOG2E;
    auto none = [] {};
    /* the first step and the rest stand apart: in one loop with branches ptxas waits behind each wgmma */
    arrive(0);
    if (works) take_part<STEPS, STEP, true>(sums, q, stage(0, g.nk[0]), 0, some, scale, none), settle(sums.o);
    int i = 1, left = g.nk[0] - STEP;
    for (; left >= STEP; i++, left -= STEP) {
        arrive(i);
        if (works) take_part<STEPS, STEP, false>(sums, q, stage(i, STEP), 0, some, scale, none), settle(sums.o);
    }
    if (left > 0) arrive(i);
    if (!works) return;
    Keys rest = stage(i, left);
    if (left > TAIL) take_part<STEPS, STEP, false>(sums, q, rest, 0, some, scale, none);
    else if (left > 0) take_part<STEPS, TAIL, false>(sums, q, rest, 0, some, scale, none);
    settle(sums.o);
    finish<STEPS>(sums, a, h, x, rows);
#else
    __trap();
#endif
}

/* ---- launcher --------------------------------------------------------------------------------------------------- */

/* The largest group's keys, and tiles of 64 rows; no keys: not for these kernels. */
typedef struct { int keys, tiles; } Largest;

/* All rows of a group see its first range, and there is no other; most tiles are full. */
static Largest takes(const AttnPlan *p) {
    int64_t rows = 0, all = 0;
    Largest most = {0, 0};
    for (int32_t i = 0, tiles = 0; i < p->nitems; i++) {
        const AttnItem *it = &p->host_items[i];
        const AttnGroup *g = &p->host_groups[it->group];
        if (it->causal || it->nb || it->na != g->nk[0] || !it->na) return Largest{0, 0};
        if (i == g->item0) tiles = 0;
        tiles += (int32_t)ceil_div(it->nq, ROWS);
        rows += it->nq, all += ceil_div(it->nq, ROWS);
        most.keys = max(most.keys, it->na), most.tiles = max(most.tiles, tiles);
    }
    return 4 * rows >= 3 * ROWS * all ? most : Largest{0, 0};
}

template <int STEPS> static bool forward(const Attn *a, const PlanShape *s, const Largest &most) {
    const AttnPlan *p = a->plan;
    if (most.keys <= MOST) {
        if (!allow_shared(forward_wg<STEPS>, ROOM<STEPS, MOST>)) return false;
        forward_wg<STEPS><<<dim3((unsigned)a->H, (unsigned)p->ngroups), 128 * GROUPS<STEPS>, ROOM<STEPS, MOST>,
                            cuda.compute>>>(*a, p->items, p->groups, s->rows);
    } else {
        int blocks = (int)ceil_div(most.tiles, RING_GROUPS<STEPS>), room = STAGES * ROOM<STEPS, STEP>;
        if (!allow_shared(forward_ring<STEPS>, room)) return false;
        forward_ring<STEPS><<<dim3((unsigned)(a->H * blocks), (unsigned)p->ngroups), 128 * RING_GROUPS<STEPS>, room,
                              cuda.compute>>>(*a, p->items, p->groups, s->rows, blocks);
    }
    cuda_launched("attention");
    return true;
}

bool attention_wg(const Attn *a, const PlanShape *s) {
    if (a->bias || dropout_threshold(a->drop.p) || a->D % 8 || a->D > 128 || a->plan->ngroups > 65535) return false;
    static int known = -1;
    if (!is_built((const void *)forward_wg<4>, ROOM<4, MOST>, &known)) return false;
    Largest most = takes(a->plan);
    if (!most.keys) return false;
    return a->D <= 64 ? forward<4>(a, s, most) : a->D <= 96 ? forward<6>(a, s, most) : forward<8>(a, s, most);
}
