/* attention_mma: attention forward in bf16 on the tensor cores (mathematics: attention.cu; pieces: attention_mma.cuh).
 *
 * A block is up to four warps, each with one 16-row tile of the items of one group, and one head. It walks once over
 * the keys of the group that its tiles look at, 32 at a time, K and V brought by cp.async one stage ahead and used by
 * all its warps: so an image's keys are read once for every 64 query rows that look at it. Softmax on line: running
 * maximum m and sum l of each row in f32, the output rescaled when m grows; scores exist in registers only. Masked-out
 * steps are skipped by a whole warp.
 *
 * Bytes a head, group of R rows and U keys: Q and O 4RD, K and V 4UD ceil(R / 64), lse 4R, row keys 8R (dropout). FLOPs
 * 4RUD. Cross-attention (R = 64, U = 257, D = 64): 82 KB for 4.2 MFLOP; 128 images, 12 heads: 126 MB, 38 us of an H100
 * if memory were all. Predicted are 80 us: 22.5 warp instructions for each HMMA are 44 us of issue, and 16 warps an SM
 * do not cover each other's waits (joint self-attention of 384 pairs: 64 us; tests/bench/vgpu_time.sh).
 *
 * Shared memory 45 KB at four warps and D = 64: 4 blocks (16 warps) an SM; at D = 128 52 KB, 3 blocks. */
#include "kernels/cuda/attention_mma.cuh"

enum { WARPS = 4 };

template <int DP, int STAGE> static size_t forward_shared(int warps) {
    return (size_t)(warps * 16 + 4 * STAGE) * Tile<DP>::LD * sizeof(bf16);
}

/* One step: 16 rows against keys u0 .. u0 + 31, in K and V. */
template <int DP> DEVICE void forward_step(float (*o)[4], float m[2], float l[2], const bf16 *Q, const bf16 *K,
                                           const bf16 *V, const WarpTile &w, const Attn &a, const RowKey key[2], int h,
                                           int u0, int lane) {
    float s[KEYS / 8][4] = {{0}}, scale = a.scale * LOG2E;
    product_rows<DP, KEYS / 16>(s, Q, K, 0, lane);
    if (a.bias || !sees_all(w, u0, KEYS)) mask_scores<KEYS / 8>(s, w, seen_by(w, lane), a, h, u0, lane);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float top = m[r];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float base = top == -INFINITY ? 0.0f : top * scale, fade = exp2_fast(fmaf(m[r], scale, -base));
        m[r] = top;
        l[r] *= fade;
#pragma unroll
        for (int d = 0; d < 2 * Tile<DP>::STEPS; d++) o[d][2 * r] *= fade, o[d][2 * r + 1] *= fade;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int e = 2 * r; e < 2 * r + 2; e++) {
                s[n][e] = exp2_fast(fmaf(s[n][e], scale, -base));
                l[r] += s[n][e];
            }
    }
    if (a.drop.p > 0) drop_step(s, a.drop, key, w, h, u0, 1.0f, lane); /* 1 / (1 - p) comes in at the end */
    product_step<DP>(o, s, V, lane);
}

template <int DP, int STAGE> static __global__ __launch_bounds__(WARPS * 32, DP <= 64 ? 4 : 3) void forward_mma(
    Attn a, const AttnItem *items, const AttnGroup *groups, int64_t rows) {
    extern __shared__ __align__(16) bf16 room[];
    __shared__ BlockTiles<WARPS> tiles;
    constexpr int LD = Tile<DP>::LD;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = (int)blockDim.x >> 5, h = blockIdx.y,
        kh = h / (a.H / a.KH);
    bf16 *Q = room + warp * 16 * LD, *kv = room + warps * 16 * LD;
    find_tiles<WARPS, STAGE>(&tiles, groups, items, (int)blockIdx.z * warps, warps);
    if (!tiles.tile[0].there) return;
    const WarpTile &w = tiles.tile[warp];

    auto own_row = [&](int r) { return tile_row(w, r); };
    load_tile<DP>(Q, (const bf16 *)a.q + h * a.D, a.ldq, a.D, lane, own_row);
    RowKey key[2];
    keys_of_rows(key, a.drop, w, lane);
    float o[2 * Tile<DP>::STEPS][4] = {{0}}, m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0}, inv[2];
    walk_keys<DP, WARPS, STAGE>(kv, a, tiles, w, kh, [&](const bf16 *K, const bf16 *V, int u0) {
        forward_step<DP>(o, m, l, Q, K, V, w, a, key, h, u0, lane);
    });
    if (!w.there) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        l[r] += __shfl_xor_sync(~0u, l[r], 1);
        l[r] += __shfl_xor_sync(~0u, l[r], 2);
        inv[r] = l[r] > 0 ? (a.drop.p > 0 ? 1.0f / (1.0f - a.drop.p) : 1.0f) / l[r] : 0.0f;
        int row = own_row((lane >> 2) + 8 * r);
        if ((lane & 3) == 0 && row >= 0) a.lse[h * rows + row] = m[r] * a.scale + logf(l[r]);
    }
    write_rows<DP>(Q, o, inv[0], inv[1], (bf16 *)a.o + h * a.D, a.ldo, a.D, false, lane, own_row);
}

template <int DP, int STAGE> static bool forward(const Attn *a, const PlanShape *s) {
    int warps = even_warps(s->tiles, WARPS);
    size_t shared = forward_shared<DP, STAGE>(warps);
    if (!allow_shared(forward_mma<DP, STAGE>, shared)) return false;
    dim3 grid((unsigned)a->plan->ngroups, (unsigned)a->H, (unsigned)ceil_div(s->tiles, warps));
    forward_mma<DP, STAGE><<<grid, warps * 32, shared, cuda.compute>>>(*a, a->plan->items, a->plan->groups, s->rows);
    cuda_launched("attention");
    return true;
}

/* Two steps come at a time where four blocks an SM have room for it: a barrier for each step costs joint self-attention
 * a seventh of its time (predicted for an H100). */
bool attention_mma(const Attn *a, const PlanShape *s) {
    if (!s->tiles) return true;
    return for_head_size(a->D, [&](auto tile) {
        constexpr int DP = decltype(tile)::DP, LARGE = DP <= 64 ? 2 * KEYS : KEYS;
        return cuda.shared_max >= 200 << 10 ? forward<DP, LARGE>(a, s) : forward<DP, KEYS>(a, s);
    });
}
