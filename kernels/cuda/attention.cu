/* attention: rows attend to the keys of their segment. Launchers, and the simple kernels that take any type and head
 * size; bf16 of head sizes up to 128 that are multiples of 8 goes through the tensor cores in attention_mma.cu and
 * attention_bwd_one.cu (on Hopper attention_wg.cu, where rows see all of few keys), items of one row each through
 * attention_row.cu.
 *
 *   s_ij = scale <q_i, k_j> + bias,   lse_i = log sum_j exp s_ij,   P = exp(s - lse),   P' = P m / (1 - p)
 *   o_i = sum_j P'_ij v_j
 *   dP_ij = <do_i, v_j> m / (1 - p),   delta_i = <do_i, o_i> = sum_j P_ij dP_ij,   ds_ij = P_ij (dP_ij - delta_i)
 *   dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,   dv_j = sum_i P'_ij do_i
 *
 * lse and delta are (H, rows): a head is a block's, so that rows next to each other share 32-byte sectors.
 *
 * Simple kernels: one warp a row and head (a key and head for dk, dv). 32 keys (rows) at a time, a lane each, for the
 * scores; then the lanes turn to the head's channels and the 32 results are handed round by shuffles. Scores live in
 * registers only. dk and dv of a key are summed by one warp over all items of its group, in order: no atomics. delta
 * waits in the workspace between the two backward kernels. Head sizes above 256 repeat the scores for every 256
 * channels. Limited by L1: a lane reads a row of K (or Q), and the warp reads it again with its lanes side by side. 56
 * to 80 registers: 24 to 36 warps an SM. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.cuh"

enum { WARPS = 4, WIDE = 8 }; /* channels a lane and pass: 32 WIDE = 256 */

DEVICE int64_t key_row(const AttnItem &it, int k) { return k < it.na ? it.a0 + k : it.b0 + (k - it.na); }
/* Row i sees keys below the first end of a, and from na on below the second. */
DEVICE int keys_seen(const AttnItem &it, int i) {
    return it.na + (it.causal & CAUSAL_B ? min(i + 1, it.nb) : it.nb);
}
DEVICE bool is_seen(const AttnItem &it, int i, int k) { return k >= it.na || !(it.causal & CAUSAL_A) || k <= i; }
/* A softmax over one key does not depend on its score: such a row gives q and k no gradient. */
DEVICE bool is_alone(const AttnItem &it, int i) {
    return keys_seen(it, i) - it.na + (it.causal & CAUSAL_A ? min(i + 1, it.na) : it.na) == 1;
}
DEVICE float score(const Attn &a, const AttnItem &it, float qk, int h, int i, int k) {
    int d = min(max(k - (it.pos + i), -a.span), a.span);
    return qk * a.scale + (a.bias ? a.bias[(int64_t)h * (2 * a.span + 1) + d + a.span] : 0.0f);
}

template <class T> DEVICE float dot(const T *a, const T *b, int D) {
    float s = 0;
    for (int d = 0; d < D; d++) s += ld1(a + d) * ld1(b + d);
    return s;
}

/* acc += sum over j < n of lane j's weight times row row_of(j): this lane's channels d, d + 32, .. below D. */
template <class T, class F>
DEVICE void add_rows(float acc[WIDE], float weight, int n, const T *base, int64_t ld, int d, int D, F row_of) {
#pragma unroll 1
    for (int j = 0; j < 32 && j < n; j++) {
        float w = __shfl_sync(~0u, weight, j);
        const T *x = base + row_of(j) * ld + d;
        UNROLL for (int e = 0; e < WIDE; e++)
            if (d + e * 32 < D) acc[e] += w * ld1(x + e * 32);
    }
}

/* What the mask multiplies a probability with: 0, 1 or 1 / (1 - p). */
DEVICE float mask1(const Dropout &d, int64_t row, int h, int k) {
    if (d.p <= 0) return 1.0f;
    uint32_t bits =
        dropout_bits(dropout_block(&d, d.rows[row], ((uint32_t)h << 20) + ((uint32_t)k >> 3)), (uint32_t)k & 7);
    return bits >= dropout_threshold(d.p) ? 1.0f / (1.0f - d.p) : 0.0f;
}

template <class T>
static __global__ __launch_bounds__(WARPS * 32) void forward_simple(Attn a, const AttnItem *items, int64_t rows) {
    AttnItem it = items[blockIdx.x];
    int lane = threadIdx.x & 31, i = (int)blockIdx.z * WARPS + ((int)threadIdx.x >> 5), h = blockIdx.y, D = a.D;
    if (i >= it.nq) return;
    int64_t row = it.q0 + i;
    int kh = h / (a.H / a.KH);
    const T *q = (const T *)a.q + row * a.ldq + h * D, *K = (const T *)a.k + kh * D, *V = (const T *)a.v + kh * D;
    T *o = (T *)a.o + row * a.ldo + h * D;
    int n = keys_seen(it, i);
    for (int d0 = 0; d0 < D; d0 += 32 * WIDE) {
        float acc[WIDE] = {0}, m = -INFINITY, l = 0;
        for (int k0 = 0; k0 < n; k0 += 32) {
            int k = k0 + lane;
            bool seen = k < n && is_seen(it, i, k);
            float s = seen ? score(a, it, dot(q, K + key_row(it, k) * a.ldk, D), h, i, k) : -INFINITY;
            float top = fmaxf(m, warp_max(s)), base = top == -INFINITY ? 0.0f : top; /* a whole 32 may be unseen */
            /* what was summed below an older maximum is brought under the new one */
            float fade = expf(m - base), p = expf(s - base);
            l = l * fade + warp_sum(p);
            m = top;
            /* behind the sum: a row's weights sum to 1 before dropout */
            if (seen) p *= mask1(a.drop, row, h, k);
            UNROLL for (int e = 0; e < WIDE; e++) acc[e] *= fade;
            add_rows(acc, p, n - k0, V, a.ldv, d0 + lane, D, [&](int j) { return key_row(it, k0 + j); });
        }
        float inv = l > 0 ? 1.0f / l : 0.0f;
        UNROLL for (int e = 0; e < WIDE; e++)
            if (d0 + e * 32 + lane < D) st1(o + d0 + e * 32 + lane, acc[e] * inv);
        if (lane == 0) a.lse[h * rows + row] = m + logf(l);
    }
}

/* dq, and delta for the next kernel. */
template <class T> static __global__ __launch_bounds__(WARPS * 32) void dq_simple(
    Attn a, AttnGrad g, const AttnItem *items, float *delta_out, int64_t rows) {
    AttnItem it = items[blockIdx.x];
    int lane = threadIdx.x & 31, i = (int)blockIdx.z * WARPS + ((int)threadIdx.x >> 5), h = blockIdx.y, D = a.D;
    if (i >= it.nq) return;
    int64_t row = it.q0 + i;
    int kh = h / (a.H / a.KH);
    const T *q = (const T *)a.q + row * a.ldq + h * D, *K = (const T *)a.k + kh * D, *V = (const T *)a.v + kh * D;
    const T *o = (const T *)a.o + row * a.ldo + h * D, *d_o = (const T *)g.d_o + row * a.ldo + h * D;
    T *dq = (T *)g.dq + row * g.lddq + h * D;
    float delta = 0, lse = a.lse[h * rows + row];
    /* sum_j P dP without the scores: o holds what they came to */
    for (int d = lane; d < D; d += 32) delta += ld1(o + d) * ld1(d_o + d);
    delta = warp_sum(delta);
    if (lane == 0) delta_out[h * rows + row] = delta;
    int n = keys_seen(it, i);
    for (int d0 = 0; d0 < D; d0 += 32 * WIDE) {
        float acc[WIDE] = {0};
        for (int k0 = 0; k0 < n; k0 += 32) {
            int k = k0 + lane;
            float ds = 0;
            /* alone: exactly zero, where rounding would leave noise for AdamW to follow */
            if (k < n && is_seen(it, i, k) && !is_alone(it, i)) {
                int64_t kr = key_row(it, k);
                float p = expf(score(a, it, dot(q, K + kr * a.ldk, D), h, i, k) - lse);
                ds = p * (dot(d_o, V + kr * a.ldv, D) * mask1(a.drop, row, h, k) - delta) * a.scale;
            }
            add_rows(acc, ds, n - k0, K, a.ldk, d0 + lane, D, [&](int j) { return key_row(it, k0 + j); });
        }
        UNROLL for (int e = 0; e < WIDE; e++)
            if (d0 + e * 32 + lane < D) st1(dq + d0 + e * 32 + lane, acc[e]);
    }
}

/* What the items of a group that see a key leave at it, head by head. */
template <class T> static __global__ __launch_bounds__(WARPS * 32, 6) void dkv_simple(
    Attn a, AttnGrad g, const AttnItem *items, const AttnGroup *groups, const float *delta, int64_t rows) {
    AttnGroup gr = groups[blockIdx.x];
    int lane = threadIdx.x & 31, u = (int)blockIdx.z * WARPS + ((int)threadIdx.x >> 5), kh = blockIdx.y, D = a.D,
        share = a.H / a.KH;
    if (u >= gr.nk[0] + gr.nk[1]) return; /* a warp a key: of range 0, then of range 1 */
    int part = u >= gr.nk[0];
    int64_t key = part ? gr.k0[1] + u - gr.nk[0] : gr.k0[0] + u;
    const T *k1 = (const T *)a.k + key * a.ldk + kh * D, *v1 = (const T *)a.v + key * a.ldv + kh * D;
    T *dk = (T *)g.dk + key * g.lddk + kh * D, *dv = (T *)g.dv + key * g.lddv + kh * D;
    for (int d0 = 0; d0 < D; d0 += 32 * WIDE) {
        float ak[WIDE] = {0}, av[WIDE] = {0};
        /* heads, then items, in order: a key's sums have one order whoever looked at it */
        for (int w = 0; w < share * gr.nitems; w++) {
            AttnItem it = items[gr.item0 + w % gr.nitems];
            int h = kh * share + w / gr.nitems, x = (int)(key - (part ? it.b0 : it.a0));
            if (part ? x < 0 || x >= it.nb : !it.na) continue;
            const T *Q = (const T *)a.q + h * D, *O = (const T *)g.d_o + h * D;
            int number = part ? it.na + x : x, first = it.causal & (part ? CAUSAL_B : CAUSAL_A) ? x : 0;
            for (int i0 = first; i0 < it.nq; i0 += 32) {
                int i = i0 + lane;
                float ds = 0, pm = 0;
                if (i < it.nq) {
                    int64_t row = it.q0 + i;
                    float s = score(a, it, dot(Q + row * a.ldq, k1, D), h, i, number),
                          p = expf(s - a.lse[h * rows + row]), m = mask1(a.drop, row, h, number);
                    pm = p * m;
                    ds = p * (dot(O + row * a.ldo, v1, D) * m - delta[h * rows + row]) * a.scale;
                    if (is_alone(it, i)) ds = 0;
                }
                auto row_of = [&](int j) { return (int64_t)it.q0 + i0 + j; };
                add_rows(ak, ds, it.nq - i0, Q, a.ldq, d0 + lane, D, row_of);
                add_rows(av, pm, it.nq - i0, O, a.ldo, d0 + lane, D, row_of);
            }
        }
        UNROLL for (int e = 0; e < WIDE; e++) {
            int d = d0 + e * 32 + lane;
            if (d >= D) continue;
            st1(dk + d, g.add ? ld1(dk + d) + ak[e] : ak[e]);
            st1(dv + d, g.add ? ld1(dv + d) + av[e] : av[e]);
        }
    }
}

/* ---- launchers ------------------------------------------------------------------------------------------------- */

/* What the host reads off a plan: how large its groups are; and whether items keep to their groups. */
PlanShape attention_shape(const AttnPlan *p) {
    PlanShape s = {p->nrows, 0, 0};
    for (int32_t g = 0; g < p->ngroups; g++) {
        const AttnGroup *gr = &p->host_groups[g];
        int tiles = 0;
        for (int32_t t = gr->item0; t < gr->item0 + gr->nitems; t++) {
            const AttnItem *it = &p->host_items[t];
            BUG_ON((it->na && (it->a0 != gr->k0[0] || it->na != gr->nk[0])) ||
                       (it->nb && (it->b0 < gr->k0[1] || it->b0 + it->nb > gr->k0[1] + gr->nk[1])),
                   "attention: item %d has keys %d+%d and %d+%d, its group %d+%d and %d+%d", t, it->a0, it->na, it->b0,
                   it->nb, gr->k0[0], gr->nk[0], gr->k0[1], gr->nk[1]);
            BUG_ON(it->q0 + it->nq > p->nrows, "attention: item %d ends at row %d of %d", t, it->q0 + it->nq,
                   p->nrows);
            tiles += (it->nq + 15) / 16;
        }
        if (tiles > s.tiles) s.tiles = tiles;
        if (gr->nk[0] + gr->nk[1] > s.keys) s.keys = gr->nk[0] + gr->nk[1];
    }
    return s;
}

static bool aligned8(int64_t ld) { return ld % 8 == 0; }

template <class T> static void attention_(const Attn *a) {
    const AttnPlan *p = a->plan;
    /* cuDNN where it was found and takes the shape, else ours */
    if (!p->nitems || (sizeof(T) == 2 && cuda_attention_by_cudnn(a))) return;
    PlanShape s = attention_shape(p);
    if (attention_row<T>(a)) return;
    bool fast = sizeof(T) == 2 && aligned16(a->q) && aligned16(a->k) && aligned16(a->v) && aligned16(a->o) &&
                aligned8(a->ldq) && aligned8(a->ldk) && aligned8(a->ldv) && aligned8(a->ldo);
    if (fast && (attention_wg(a, &s) || attention_mma(a, &s))) return;
    dim3 grid((unsigned)p->nitems, (unsigned)a->H, (unsigned)ceil_div(p->max_nq, WARPS));
    forward_simple<T><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, p->items, s.rows);
    cuda_launched("attention");
}
EXPORT(attention, (const Attn *a), (a))

template <class T> static void attention_bwd_(const Attn *a, const AttnGrad *g) {
    const AttnPlan *p = a->plan;
    PlanShape s = attention_shape(p);
    float *delta = (float *)cuda_workspace((size_t)s.rows * (size_t)a->H * sizeof(float), "attention_bwd");
    if (!delta) return;
    bool fast = sizeof(T) == 2 && aligned16(a->q) && aligned16(a->k) && aligned16(a->v) && aligned16(a->o) &&
                aligned16(g->d_o) && aligned16(g->dq) && aligned16(g->dk) && aligned16(g->dv) && aligned8(a->ldq) &&
                aligned8(a->ldk) && aligned8(a->ldv) && aligned8(a->ldo) && aligned8(g->lddq) && aligned8(g->lddk) &&
                aligned8(g->lddv);
    /* scores once, while a group's keys fit in shared memory */
    if (fast && attention_bwd_one(a, g, &s)) return;
    /* scores twice, any number of keys */
    if (fast && attention_bwd_mma(a, g, &s, delta)) return;
    if (p->nitems) {
        dim3 grid((unsigned)p->nitems, (unsigned)a->H, (unsigned)ceil_div(p->max_nq, WARPS));
        dq_simple<T><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, *g, p->items, delta, s.rows);
        cuda_launched("attention_bwd (dq)");
    }
    if (!p->ngroups || !s.keys) return;
    dim3 grid((unsigned)p->ngroups, (unsigned)a->KH, (unsigned)ceil_div(s.keys, WARPS));
    dkv_simple<T><<<grid, WARPS * 32, 0, cuda.compute>>>(*a, *g, p->items, p->groups, delta, s.rows);
    cuda_launched("attention_bwd (dk, dv)");
}
EXPORT(attention_bwd, (const Attn *a, const AttnGrad *g), (a, g))
