/* attention_mma: attention forward in bf16 on the tensor cores (mathematics: attention.cu; pieces: attention_mma.cuh,
 * attention_step.cuh).
 *
 * A block is up to four warps, each with one 16-row tile of the items of one group, and several heads, one after the
 * other. For each head it walks once over the keys of the group that its tiles look at, 32 a step, K and V brought by
 * cp.async one stage ahead, beyond the end of a head into the next one, and used by all its warps: so an image's keys
 * are read once for every 64 query rows that look at it. Softmax on line: each row's sum l of exp(s - base) in f32,
 * base lifted, and the output rescaled, when a score is far above it; scores exist in registers only. Steps that a
 * warp's rows do not see are passed over; a last step of at most 16 keys is half a step.
 *
 * Bytes a head, group of R rows and U keys: Q and O 4RD, K and V 4UD ceil(R / 64), lse 4R; row keys 8R a block
 * (dropout). FLOPs 4RUD. Cross-attention (R = 64, U = 257, D = 64): 82 KB for 4.2 MFLOP; 128 images, 12 heads: 126 MB,
 * 42 us of an H100 at the 91 % of its bandwidth that a kernel reaches. Predicted are 46 us, 15.5 warp instructions for
 * each HMMA (29 us of issue); joint self-attention of 384 pairs, 107 MB: 39 us and 31.8 (tests/bench/vgpu_time.sh).
 * Both are bound by memory.
 *
 * Shared memory 55 KB at four warps and D = 64 (46 with one head a block): 4 blocks (16 warps) an SM, less where keys
 * are few; at D = 96 67 KB, 3 blocks; at D = 128 52, 3 blocks. */
#include "kernels/cuda/attention_step.cuh"

enum { WARPS = 4 };
static constexpr float LAG = 8, LEAST = -1e30f;

/* What a warp keeps of a head: Q as operand; of its two rows a lane the sums so far, of exp2(score - base). */
template <int DP> struct Sums {
    uint32_t q[Tile<DP>::STEPS][4];
    float o[2 * Tile<DP>::STEPS][4], base[2], l[2];
};

/* s becomes P, and l and o follow. What comes off the scores is only lifted when a score is more than 2^LAG above it:
 * what it is does not change the result, as long as nothing overflows. */
template <int DP, int N> DEVICE void soften(Sums<DP> &x, float (*s)[4], float scale) {
    float top[2];
    UNROLL for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(s[0][2 * r], s[0][2 * r + 1]);
        UNROLL for (int n = 1; n < N; n++) top[r] = fmaxf(top[r], fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2)) * scale;
    }
    /* seldom after the first keys: the outputs need not be multiplied at every step */
    if (__any_sync(~0u, fmaxf(top[0] - x.base[0], top[1] - x.base[1]) > LAG)) {
        UNROLL for (int r = 0; r < 2; r++) {
            float base = fmaxf(x.base[r], top[r]), fade = exp2_fast(x.base[r] - base);
            x.base[r] = base;
            x.l[r] *= fade;
            UNROLL for (int d = 0; d < 2 * Tile<DP>::STEPS; d++) x.o[d][2 * r] *= fade, x.o[d][2 * r + 1] *= fade;
        }
    }
    UNROLL for (int r = 0; r < 2; r++)
        UNROLL for (int n = 0; n < N; n++) {
            s[n][2 * r] = exp2_fast(fmaf(s[n][2 * r], scale, -x.base[r]));
            s[n][2 * r + 1] = exp2_fast(fmaf(s[n][2 * r + 1], scale, -x.base[r]));
            x.l[r] += s[n][2 * r] + s[n][2 * r + 1];
        }
}

/* ---- a warp's work ---------------------------------------------------------------------------------------------- */

/* A warp's tile, `own` rows of q from row0 on; room for its Q and O, which is one when there is no next head whose Q
 * could be on its way already; the block's two stages of `size` bytes of keys and
 * as many of values, at kv, and where the lane points its ldmatrix in the first. plain_a, plain_b: ends of the keys of
 * a and of b that all its rows see, no bias, numbers in eights. */
static inline __host__ __device__ int q_room(int heads) { return heads > 1 ? 32 : 16; }
typedef struct {
    AttnGroup g;
    bf16 *Q, *O;
    uint32_t kv, K, V;
    int size, row0, own, keys, plain_a, plain_b, lane;
    PhiloxRow from[2];
} Work;

template <int DP, bool DROP>
DEVICE Work work_of(bf16 *room, int room_keys, int heads, const AttnGroup &g, const WarpTile &w, const Attn &a,
                    const Draws &d) {
    constexpr int LD = Tile<DP>::LD;
    const int q_rows = q_room(heads);
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (int)blockDim.x >> 5;
    bool regular = !a.bias && w.eights;
    Work x;
    x.g = g, x.lane = lane;
    x.Q = room + warp * q_rows * LD, x.O = x.Q + (q_rows - 16) * LD;
    x.size = room_keys * LD * 2;
    x.kv = shared_address(room + warps * q_rows * LD);
    x.K = x.kv + 2 * (((lane & 7) + (lane >> 4) * 8) * LD + (lane >> 3 & 1) * 8);
    x.V = x.kv + x.size + 2 * ((lane & 15) * LD + (lane >> 4) * 8);
    x.row0 = w.it.q0 + w.row0, x.own = w.there ? min(16, w.it.nq - w.row0) : 0, x.keys = g.nk[0] + g.nk[1];
    /* most steps are plain: without a mask they are half as long */
    x.plain_a = regular ? w.a_least : 0, x.plain_b = regular ? w.b_least : 0;
    RowKey key[2];
    if (DROP) keys_of_rows(key, a.drop, w, lane);
    UNROLL for (int r = 0; r < 2; r++)
        x.from[r] = DROP ? philox_row(&d.keys, key[r].token, key[r].pair) : PhiloxRow{0, 0, 0};
    return x;
}

template <int DP> DEVICE void bring_queries(const Work &x, const Attn &a, int h) {
    const bf16 *q = (const bf16 *)a.q + x.row0 * a.ldq + h * a.D;
    uint32_t to = shared_address(x.Q);
    for_chunks<DP>(x.lane, [&](int place, int r, int i, int channel) {
        bool there = r + i < x.own && channel < a.D;
        copy16(to + place * 2, there ? q + r * a.ldq + channel + i * a.ldq : q, there);
    });
}

/* A new head: its Q has arrived; Q's room is free after. */
template <int DP> DEVICE void start(Sums<DP> &s, const Work &x) {
    s.base[0] = s.base[1] = LEAST, s.l[0] = s.l[1] = 0;
    UNROLL for (int d = 0; d < 2 * Tile<DP>::STEPS; d++) s.o[d][0] = s.o[d][1] = s.o[d][2] = s.o[d][3] = 0;
    UNROLL for (int k = 0; k < Tile<DP>::STEPS; k++) ldmatrix(s.q[k], rows_at<DP>(x.Q, 0, k * 16, x.lane));
    __syncwarp();
}

/* 16 rows against 8 N keys from u0 on, which lie `at` bytes into the stages. PLAIN: nothing to mask, and numbers of
 * keys are u + shift. Draws leave 1 / (1 - p) for the end. */
template <int DP, int N, bool PLAIN, bool DROP>
DEVICE void forward_step(Sums<DP> &sums, const Work &x, const WarpTile &w, const Attn &a, const Draws &draws, int h,
                         int u0, int at, int shift) {
    float s[N][4];
    int first = u0 + 2 * N * (x.lane & 3);
    scores<DP, N>(s, sums.q, x.K + at);
    if (!PLAIN) mask<N>(s, w, a, h, first, x.lane);
    soften<DP, N>(sums, s, a.scale * LOG2E);
    if (DROP) {
        if (PLAIN || w.eights) drop<N>(s, draws, x.from, h, PLAIN ? first + shift : key_number(w, first));
        else drop_singly<N>(s, draws, x.from, w, h, first);
    }
    weigh<DP, N>(sums.o, s, x.V + at);
}

/* The steps of a stage, keys from u0 on, in which the tile sees a key. */
template <int DP, bool DROP>
DEVICE void forward_steps(Sums<DP> &s, const Work &x, const WarpTile &w, const Attn &a, const Draws &draws, int h,
                          int u0, int end, int at) {
#pragma unroll 1
    for (; u0 < end; u0 += KEYS, at += KEYS * Tile<DP>::LD * 2) {
        bool in_a = u0 + KEYS <= x.plain_a;
        if (in_a || (u0 >= w.b && u0 + KEYS <= x.plain_b))
            forward_step<DP, 4, true, DROP>(s, x, w, a, draws, h, u0, at, in_a ? 0 : w.shift);
        else if (!sees_some(w, u0, KEYS)) continue;
        else if (x.keys - u0 > KEYS / 2) forward_step<DP, 4, false, DROP>(s, x, w, a, draws, h, u0, at, 0);
        else forward_step<DP, 2, false, DROP>(s, x, w, a, draws, h, u0, at, 0);
    }
}

/* A head's result. */
template <int DP> DEVICE void finish(Sums<DP> &s, const Work &x, const Attn &a, int h, int64_t rows) {
    float inv[2];
    UNROLL for (int r = 0; r < 2; r++) {
        s.l[r] += __shfl_xor_sync(~0u, s.l[r], 1);
        s.l[r] += __shfl_xor_sync(~0u, s.l[r], 2);
        /* 1 / (1 - p) of dropout comes once a row, not once a score */
        inv[r] = s.l[r] > 0 ? __fdividef(1.0f / (1.0f - a.drop.p), s.l[r]) : 0.0f;
        int row = (x.lane >> 2) + 8 * r;
        if ((x.lane & 3) == 0 && row < x.own)
            a.lse[h * rows + x.row0 + row] = (s.base[r] + __log2f(s.l[r])) * LN2;
    }
    __syncwarp();
    uint32_t *at = (uint32_t *)(x.O + (x.lane >> 2) * Tile<DP>::LD + 2 * (x.lane & 3));
    UNROLL for (int d = 0; d < Tile<DP>::CHUNKS; d++) {
        at[d * 4] = pack_bf16(s.o[d][0] * inv[0], s.o[d][1] * inv[0]);
        at[d * 4 + 4 * Tile<DP>::LD] = pack_bf16(s.o[d][2] * inv[1], s.o[d][3] * inv[1]);
    }
    __syncwarp();
    bf16 *out = (bf16 *)a.o + x.row0 * a.ldo + h * a.D;
    for_chunks<DP>(x.lane, [&](int place, int r, int i, int channel) {
        if (r + i < x.own && channel < a.D)
            *(uint4 *)(out + r * a.ldo + channel + i * a.ldo) = *(uint4 *)(x.O + place);
    });
}

/* ---- the kernel ------------------------------------------------------------------------------------------------- */

/* Tiles of Q and of O, and two stages of `keys` keys and values. */
template <int DP> static size_t forward_shared(int warps, int keys, int heads) {
    return (size_t)(warps * q_room(heads) + 4 * keys) * Tile<DP>::LD * sizeof(bf16);
}

template <int DP, int STAGE, bool DROP>
static __global__ __launch_bounds__(WARPS * 32, DP <= 64 ? 4 : 3) void forward_mma(
    Attn a, const AttnItem *items, const AttnGroup *groups, int64_t rows, int heads, int room_keys, Draws draws) {
    extern __shared__ __align__(16) bf16 room[];
    __shared__ BlockTiles<WARPS> tiles;
    int warp = threadIdx.x >> 5, h = (int)blockIdx.y * heads, h_end = min(h + heads, a.H);
    find_tiles<WARPS, STAGE>(&tiles, groups, items, (int)blockIdx.z * ((int)blockDim.x >> 5), (int)blockDim.x >> 5);
    /* the grid is for the largest group; smaller ones have fewer tiles */
    if (!tiles.tile[0].there) return;
    const WarpTile &w = tiles.tile[warp];
    Work x = work_of<DP, DROP>(room, room_keys, heads, tiles.g, w, a, draws);
    KeyCarrier c = key_carrier<DP>(a);
    Sums<DP> sums;
    int steps = tiles.in_a + tiles.in_b;
    auto first_key = [&](int t) { return (t < tiles.in_a ? t : t - tiles.in_a + tiles.b) * STAGE; };
    /* Stage t of head h is looked at while the next one, of the next head after the last, comes; at first there is only
     * one that comes. A head without keys has one stage all the same. */
    for (int t = -1, buffer = 0;; buffer ^= 1) {
        bool last = t >= 0 && t + 1 >= steps;
        int next_h = h + last, next_t = last ? 0 : t + 1;
        if (t >= 0) {
            copies_wait<0>();
            __syncthreads(); /* the stage has arrived, and nobody needs the other any more */
        }
        if (t == 0) start<DP>(sums, x);
        if (next_h < h_end) {
            uint32_t at = x.kv + (buffer ^ 1) * 2 * x.size;
            int kh = a.H == a.KH ? next_h : next_h / (a.H / a.KH);
            if (next_t == 0) bring_queries<DP>(x, a, next_h);
            if (steps) carry_keys<DP, STAGE>(c, at, at + x.size, x.g, first_key(next_t), kh * a.D * 2);
            copies_end_group();
        }
        if (t >= 0 && steps) {
            int u0 = first_key(t);
            forward_steps<DP, DROP>(sums, x, w, a, draws, h, u0, min(x.keys, u0 + STAGE), buffer * 2 * x.size);
        }
        if (last && x.own) finish<DP>(sums, x, a, h, rows);
        if (next_h >= h_end) break;
        h = next_h, t = next_t;
    }
}

/* ---- launcher --------------------------------------------------------------------------------------------------- */

/* Heads a block, of `blocks` for each head: few rounds of blocks over the GPU, of which each takes as long as its heads
 * and, for what a block does but once, half a head more. Long blocks are good where there is one round of them, or
 * where a head is short, one stage of keys; the last of several rounds leaves the GPU half empty for as long as they
 * are. */
static int heads_of(int64_t blocks, int H, int64_t at_once, bool is_short) {
    int best = 1;
    double least = INFINITY;
    for (int heads = 1; heads <= H; heads++) {
        double rounds = (double)ceil_div(blocks * ceil_div(H, heads), at_once), time = rounds * (heads + 0.5);
        if (time < least && (heads == 1 || rounds == 1 || is_short)) least = time, best = heads;
    }
    return best;
}

/* Blocks of so much shared memory that the GPU has at once; 0 when none fits. */
template <class K> static int64_t at_once(K kernel, int warps, size_t shared) {
    int resident = 0;
    if (!allow_shared(kernel, shared)) return 0;
    cuda_ok(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, warps * 32, shared), "attention");
    return (int64_t)cuda.sms * resident;
}

/* Several heads a block where their larger blocks are as many at once, and a block has all rows of a group: others read
 * its keys from L2. Not for wide heads: 12 warps an SM that work in step wait for the same things. */
template <int DP, int STAGE, bool DROP> static bool forward(const Attn *a, const PlanShape *s) {
    int warps = even_warps(s->tiles, WARPS), room_keys = step_rows(min(STAGE, s->keys));
    auto *kernel = forward_mma<DP, STAGE, DROP>;
    int64_t one = at_once(kernel, warps, forward_shared<DP>(warps, room_keys, 1));
    if (!one) return false;
    int64_t several = at_once(kernel, warps, forward_shared<DP>(warps, room_keys, 2));
    bool larger = DP <= 64 && several == one && s->tiles <= WARPS;
    int heads = larger ? heads_of(a->plan->ngroups, a->H, several, s->keys <= STAGE) : 1;
    size_t shared = forward_shared<DP>(warps, room_keys, heads);
    dim3 grid((unsigned)a->plan->ngroups, (unsigned)ceil_div(a->H, heads), (unsigned)ceil_div(s->tiles, warps));
    Draws draws = {philox_keys(rng_key0(a->drop.seed), a->drop.step), a->drop.site,
                   (dropout_threshold(a->drop.p) << 16) - 1};
    kernel<<<grid, warps * 32, shared, cuda.compute>>>(*a, a->plan->items, a->plan->groups, s->rows, heads, room_keys,
                                                           draws);
    cuda_launched("attention");
    return true;
}

/* Two steps come at a time where as many blocks an SM have room for it: a barrier for each step costs joint
 * self-attention a seventh of its time, and EVA-g's, of heads of 88, a quarter (predicted for an H100). */
bool attention_mma(const Attn *a, const PlanShape *s) {
    if (!s->tiles) return true;
    return for_head_size(a->D, [&](auto tile) {
        constexpr int DP = decltype(tile)::DP, LARGE = DP <= 96 ? 2 * KEYS : KEYS;
        bool large = cuda.shared_max >= 200 << 10;
        if (dropout_threshold(a->drop.p)) return large ? forward<DP, LARGE, true>(a, s) : forward<DP, KEYS, true>(a, s);
        return large ? forward<DP, LARGE, false>(a, s) : forward<DP, KEYS, false>(a, s);
    });
}
