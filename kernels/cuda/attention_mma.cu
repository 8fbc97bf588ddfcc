/* attention_mma: attention forward in bf16 on the tensor cores (mathematics: attention.cu; pieces: attention_mma.cuh).
 *
 * A block is up to four warps, each with one 16-row tile of the items of one group, and one head. It walks once over
 * the keys of the group, 32 at a time, K and V brought by cp.async two steps deep and used by all its warps: so an
 * image's keys are read once for every 64 query rows that look at it. Softmax on line: running maximum m and sum l of
 * each row in f32, the output rescaled when m grows; scores exist in registers only. Masked-out steps are skipped by a
 * whole warp.
 *
 * Bytes a head, group of R rows and U keys: Q and O 4RD, K and V 4UD ceil(R / 64), lse 4R, row keys 8R (dropout). FLOPs
 * 4RUD. Cross-attention (R = 64, U = 257, D = 64): 82 KB for 4.2 MFLOP, so bound by memory: 128 images, 12 heads, 126
 * MB, 38 us of an H100.
 *
 * Registers at D = 64: 128, shared memory 27 KB at four warps: 4 blocks (16 warps) an SM. At D = 128: 168, 52 KB, 3
 * blocks. */
#include "kernels/cuda/attention_mma.cuh"

enum { WARPS = 4 };

template <int D> static size_t forward_shared(int warps) {
    return (size_t)(warps * 16 + 4 * KEYS) * Tile<D>::LD * sizeof(bf16);
}

/* One step: 16 rows against keys u0 .. u0 + 31, in K and V. */
template <int D> DEVICE void forward_step(float (*o)[4], float m[2], float l[2], const bf16 *Q, const bf16 *K,
                                          const bf16 *V, const WarpTile &w, const Attn &a, const RowKey key[2], int u0,
                                          int lane) {
    float s[KEYS / 8][4] = {{0}}, scale = a.scale * LOG2E;
    product_rows<D, KEYS / 16>(s, Q, K, 0, lane);
    int column = u0 + 2 * (lane & 3),
        end[2] = {tile_end(w, w.row0 + (lane >> 2)), tile_end(w, w.row0 + (lane >> 2) + 8)};
    float top[2] = {m[0], m[1]};
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int u = column + n * 8 + (e & 1);
            s[n][e] = u >= w.lo && u < end[e >> 1] ? s[n][e] * scale : -INFINITY;
            top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
        }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
        top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
        float base = top[r] == -INFINITY ? 0.0f : top[r], fade = exp2_fast(m[r] - base);
        m[r] = top[r];
        l[r] *= fade;
#pragma unroll
        for (int d = 0; d < 2 * Tile<D>::STEPS; d++) o[d][2 * r] *= fade, o[d][2 * r + 1] *= fade;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                s[n][e] = exp2_fast(s[n][e] - base);
                l[r] += s[n][e];
            }
    }
    if (a.drop.p > 0) { /* 1 / (1 - p) comes in at the end */
        uint32_t threshold = dropout_threshold(a.drop.p), first = (blockIdx.y << 20) + (uint32_t)((u0 - w.lo) >> 3);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            Philox x = dropout_block(&a.drop, key[r], first + (lane & 3));
            exchange(x.v, lane);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) drop2(&s[n][2 * r], x.v[n], threshold, 1.0f);
        }
    }
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
        uint32_t p[4] = {pack_bf16(s[2 * k][0], s[2 * k][1]), pack_bf16(s[2 * k][2], s[2 * k][3]),
                         pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]), pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3])};
        product_columns<D>(o, p, V, k * 16, lane);
    }
}

template <int D>
static __global__ __launch_bounds__(WARPS * 32, D <= 64 ? 4 : 3) void forward_mma(Attn a, const AttnItem *items,
                                                                                  const AttnGroup *groups) {
    extern __shared__ __align__(16) bf16 room[];
    __shared__ BlockTiles<WARPS> tiles;
    constexpr int LD = Tile<D>::LD;
    int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5, warps = (int)blockDim.x >> 5, h = blockIdx.y;
    bf16 *Q = room + warp * 16 * LD, *kv = room + warps * 16 * LD; /* kv: K, V of step 0, K, V of step 1 */
    find_tiles<WARPS>(&tiles, groups, items, (int)blockIdx.z * warps, warps);
    if (!tiles.tile[0].there) return;
    const AttnGroup &g = tiles.g;
    const WarpTile &w = tiles.tile[warp];
    const bf16 *q = (const bf16 *)a.q + h * D, *k = (const bf16 *)a.k + h * D, *v = (const bf16 *)a.v + h * D;

    load_tile<D>(Q, q, a.ldq, 16, lane, 32,
                 [&](int r) { return w.there && w.row0 + r < w.it.nq ? (int64_t)w.it.q0 + w.row0 + r : -1; });
    auto load_step = [&](int step) {
        bf16 *at = kv + (step & 1) * 2 * KEYS * LD;
        auto row_of = [&](int r) { return step * KEYS + r < w.keys ? group_key_row(g, step * KEYS + r) : -1; };
        load_tile<D>(at, k, a.ldk, KEYS, thread, warps * 32, row_of);
        load_tile<D>(at + KEYS * LD, v, a.ldv, KEYS, thread, warps * 32, row_of);
        copies_end_group();
    };

    RowKey key[2];
    keys_of_rows(key, a.drop, w, lane);
    float o[2 * Tile<D>::STEPS][4] = {{0}}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
    int steps = (w.keys + KEYS - 1) / KEYS, most = w.there ? tile_most(w) : 0;
    if (steps) load_step(0);
    else copies_end_group();
    for (int t = 0; t < steps; t++) {
        if (t + 1 < steps) {
            load_step(t + 1);
            copies_wait<1>();
        } else {
            copies_wait<0>();
        }
        __syncthreads();
        const bf16 *at = kv + (t & 1) * 2 * KEYS * LD;
        if (t * KEYS < most && t * KEYS + KEYS > w.lo)
            forward_step<D>(o, m, l, Q, at, at + KEYS * LD, w, a, key, t * KEYS, lane);
        __syncthreads();
    }
    if (!w.there) return;

    if (!steps) copies_wait<0>();
    __syncwarp();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(~0u, l[r], 1);
        l[r] += __shfl_xor_sync(~0u, l[r], 2);
        int i = w.row0 + (lane >> 2) + 8 * r;
        float inv = l[r] > 0 ? (a.drop.p > 0 ? 1.0f / (1.0f - a.drop.p) : 1.0f) / l[r] : 0.0f;
#pragma unroll
        for (int d = 0; d < 2 * Tile<D>::STEPS; d++)
            *(uint32_t *)(Q + ((lane >> 2) + 8 * r) * LD + d * 8 + 2 * (lane & 3)) =
                pack_bf16(o[d][2 * r] * inv, o[d][2 * r + 1] * inv);
        if ((lane & 3) == 0 && i < w.it.nq) a.lse[(int64_t)(w.it.q0 + i) * a.H + h] = m[r] * LN2 + logf(l[r]);
    }
    __syncwarp();
    for (int c = lane; c < 16 * (D / 8); c += 32) {
        int r = c / (D / 8), at = c % (D / 8) * 8;
        if (w.row0 + r < w.it.nq)
            *(uint4 *)((bf16 *)a.o + (int64_t)(w.it.q0 + w.row0 + r) * a.ldo + h * D + at) =
                *(uint4 *)(Q + r * LD + at);
    }
}

template <int D> static bool forward(const Attn *a, const PlanShape *s) {
    int warps = even_warps(s->tiles, WARPS);
    size_t shared = forward_shared<D>(warps);
    if (!allow_shared(forward_mma<D>, shared)) return false;
    dim3 grid((unsigned)a->plan->ngroups, (unsigned)a->H, (unsigned)ceil_div(s->tiles, warps));
    forward_mma<D><<<grid, warps * 32, shared, cuda.compute>>>(*a, a->plan->items, a->plan->groups);
    cuda_launched("attention");
    return true;
}

bool attention_mma(const Attn *a, const PlanShape *s) {
    if (!s->tiles) return true;
    switch (a->D) {
    case 32: return forward<32>(a, s);
    case 64: return forward<64>(a, s);
    case 80: return forward<80>(a, s);
    case 88: return forward<88>(a, s);
    case 128: return forward<128>(a, s);
    }
    return false;
}
