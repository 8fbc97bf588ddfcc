/* attention_row: items of one row each, forward, without dropout: a new row a beam against the keys of a cache, when
 * text is written word by word (mathematics: attention.cu).
 *
 * A block has one item, one key head and a stretch of the item's keys; as many stretches as fill the GPU. L lanes hold
 * a key, eight channels each, so a warp has 32 / L keys at a time, and up to four of the query heads that share the key
 * head: K and V are read once for these. Each group of lanes keeps its own running maximum, sum and output; groups,
 * warps and stretches are put together in order at the end, the stretches by a second kernel: the same bits every time.
 *
 * Bytes an item: K and V of its keys, 2 KH D e a key (once more for each further four heads that share), against 4 D
 * operations a key and head: bound by memory, or, for few rows, by the latency of one stretch, which is why there are
 * many. Limits: D a multiple of 8 up to 256, 16-byte addresses and strides. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/device.cuh"

enum { WARPS = 4, HEADS = WARPS, AT_ONCE = 2, LEAST = 64, WIDEST = 256 }; /* LEAST: keys of a stretch */

static constexpr float LOG2E = 1.44269504f, LN2 = 0.69314718f;

/* Stretches of `keys` keys; what they leave: o (parts, H, rows, D) not yet divided by the sum, and top (parts, H,
 * rows): the maximum, in powers of two, and the sum. */
typedef struct {
    float *o;
    float2 *top;
    int parts, keys;
} Parts;

/* A softmax under way: largest score (in powers of two), sum, and eight channels of the output. */
typedef struct {
    float m, l, o[8];
} Sums;

/* s += t; both may be empty. */
DEVICE void join(Sums *s, const Sums &t) {
    /* -inf less -inf is not a number: an empty sum must stay empty */
    float m = fmaxf(s->m, t.m), base = m == -INFINITY ? 0.0f : m, f = exp2f(s->m - base), g = exp2f(t.m - base);
    s->m = m;
    s->l = s->l * f + t.l * g;
    UNROLL for (int e = 0; e < 8; e++) s->o[e] = s->o[e] * f + t.o[e] * g;
}
DEVICE Sums from_lane(const Sums &s, int d) {
    Sums t = {__shfl_xor_sync(~0u, s.m, d), __shfl_xor_sync(~0u, s.l, d), {0}};
    UNROLL for (int e = 0; e < 8; e++) t.o[e] = __shfl_xor_sync(~0u, s.o[e], d);
    return t;
}

/* The key k that the group's lanes hold is seen by the row, with score s of the head. */
DEVICE void take(Sums *x, float s, const float v[8]) {
    Sums t = {s, s == -INFINITY ? 0.0f : 1.0f, {0}};
    UNROLL for (int e = 0; e < 8; e++) t.o[e] = v[e];
    join(x, t);
}

/* Who a block works for: an item and its keys [first, end) of those its row sees (na of a, then of b). */
typedef struct {
    AttnItem it;
    int na, first, end, h0, heads;
} Row;
DEVICE int64_t key_row(const Row &r, int k) { return k < r.na ? r.it.a0 + k : r.it.b0 + (k - r.na); }
DEVICE float row_bias(const Attn &a, const Row &r, int h, int k) {
    int number = k < r.na ? k : r.it.na + k - r.na, d = min(max(number - r.it.pos, -a.span), a.span);
    return a.bias ? a.bias[(int64_t)h * (2 * a.span + 1) + d + a.span] : 0.0f;
}

/* All heads take the key k whose channels k8 and v8 are. */
template <int L>
DEVICE void take_key(Sums *x, const float (*q)[8], const Attn &a, const Row &r, int k, const float k8[8],
                     const float v8[8]) {
    UNROLL for (int j = 0; j < HEADS; j++) {
        float s = 0;
        UNROLL for (int e = 0; e < 8; e++) s += q[j][e] * k8[e];
        UNROLL for (int d = L / 2; d; d >>= 1) s += __shfl_xor_sync(~0u, s, d);
        bool there = k < r.end && j < r.heads;
        take(&x[j], there ? (s * a.scale + row_bias(a, r, r.h0 + j, k)) * LOG2E : -INFINITY, v8);
    }
}

/* The warp's keys of the stretch, AT_ONCE a group under way. */
template <class T, int L>
DEVICE void take_keys(Sums *x, const float (*q)[8], const Attn &a, const Row &r, int kh, int c) {
    enum { GROUPS = 32 / L };
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    bool channel = c < a.D;
    const T *K = (const T *)a.k + kh * a.D + c, *V = (const T *)a.v + kh * a.D + c;
    for (int k0 = r.first + warp * GROUPS; k0 < r.end; k0 += AT_ONCE * WARPS * GROUPS) {
        Raw8<T> kr[AT_ONCE], vr[AT_ONCE];
        UNROLL for (int t = 0; t < AT_ONCE; t++) {
            int k = k0 + t * WARPS * GROUPS + lane / L;
            /* all loads of AT_ONCE keys first: latency is what a short stretch waits for */
            if (k < r.end && channel) raw8(&kr[t], K + key_row(r, k) * a.ldk), raw8(&vr[t], V + key_row(r, k) * a.ldv);
        }
        UNROLL for (int t = 0; t < AT_ONCE; t++) {
            int k = k0 + t * WARPS * GROUPS + lane / L;
            float k8[8] = {0}, v8[8] = {0};
            if (k < r.end && channel) unpack8(k8, kr[t]), unpack8(v8, vr[t]);
            take_key<L>(x, q, a, r, k, k8, v8);
        }
    }
}

/* L lanes store eight numbers each as one row, 16 bytes of neighbouring lanes side by side. */
template <int L> DEVICE void store_part(float *p, const float v[8], int lane, int n) {
    unsigned lanes = L == 32 ? ~0u : (1u << L) - 1;
    UNROLL for (int i = 0; i < 2; i++) {
        int from = (i * L + lane) / 2;
        float x[4];
        UNROLL for (int e = 0; e < 4; e++) {
            float low = __shfl_sync(lanes, v[e], from), high = __shfl_sync(lanes, v[4 + e], from);
            x[e] = lane & 1 ? high : low;
        }
        if ((i * L + lane) * 4 < n) st4(p + (i * L + lane) * 4, x);
    }
}

/* What a head of the stretch came to: the result, or a part of it. */
template <class T, int L>
DEVICE void leave(Sums x, const Attn &a, int64_t row, int h, int64_t rows, const Parts &p, int c, int lane) {
    int64_t at = h * rows + row, part = (int64_t)blockIdx.z * a.H * rows + at;
    if (p.parts > 1) {
        store_part<L>(p.o + part * a.D, x.o, lane, a.D);
        if (lane == 0) p.top[part] = make_float2(x.m, x.l);
        return;
    }
    float inv = x.l > 0 ? 1.0f / x.l : 0.0f; /* a row that sees no key is zero */
    UNROLL for (int e = 0; e < 8; e++) x.o[e] *= inv;
    if (c < a.D) st8((T *)a.o + row * a.ldo + h * a.D + c, x.o);
    if (lane == 0) a.lse[at] = x.m * LN2 + logf(x.l);
}

template <class T, int L> static __global__ __launch_bounds__(WARPS * 32) void row_kernel(Attn a, const AttnItem *items,
                                                                                          int64_t rows, Parts p) {
    __shared__ Sums room[HEADS][WARPS][L];
    Row r;
    r.it = items[blockIdx.x];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, kh = blockIdx.y, share = a.H / a.KH, c = lane % L * 8;
    r.na = r.it.causal & CAUSAL_A ? min(r.it.na, 1) : r.it.na; /* the one row is row 0: causal, it sees one key */
    r.first = (int)blockIdx.z * p.keys;
    r.end = min(r.na + (r.it.causal & CAUSAL_B ? min(r.it.nb, 1) : r.it.nb), r.first + p.keys);
    for (r.h0 = kh * share; r.h0 < (kh + 1) * share; r.h0 += HEADS) {
        r.heads = min(HEADS, (kh + 1) * share - r.h0);
        float q[HEADS][8];
        Sums x[HEADS];
        UNROLL for (int j = 0; j < HEADS; j++) {
            x[j].m = -INFINITY, x[j].l = 0;
            UNROLL for (int e = 0; e < 8; e++) q[j][e] = x[j].o[e] = 0;
            if (j < r.heads && c < a.D) ld8(q[j], (const T *)a.q + r.it.q0 * a.ldq + (r.h0 + j) * a.D + c);
        }
        take_keys<T, L>(x, q, a, r, kh, c);
        UNROLL for (int j = 0; j < HEADS; j++) {
            UNROLL for (int d = L; d < 32; d <<= 1) join(&x[j], from_lane(x[j], d));
            if (lane < L) room[j][warp][lane] = x[j];
        }
        __syncthreads();
        if (warp < r.heads && lane < L) { /* a warp a head: those of the warps in order */
            Sums all = room[warp][0][lane];
            for (int k = 1; k < WARPS; k++) join(&all, room[warp][k][lane]);
            leave<T, L>(all, a, r.it.q0, r.h0 + warp, rows, p, c, lane);
        }
        __syncthreads();
    }
}

/* A warp a row and head: its stretches, in order. */
template <class T> static __global__ __launch_bounds__(WARPS * 32) void row_parts_kernel(Attn a, const AttnItem *items,
                                                                                         int64_t rows, Parts p) {
    int lane = threadIdx.x & 31, h = (int)blockIdx.y * WARPS + ((int)threadIdx.x >> 5);
    if (h >= a.H) return;
    int64_t row = items[blockIdx.x].q0, at = h * rows + row, step = a.H * rows;
    float m = -INFINITY, l = 0;
    for (int k = 0; k < p.parts; k++) m = fmaxf(m, p.top[k * step + at].x);
    float base = m == -INFINITY ? 0.0f : m;
    for (int k = 0; k < p.parts; k++) l += p.top[k * step + at].y * exp2f(p.top[k * step + at].x - base);
    float inv = l > 0 ? 1.0f / l : 0.0f;
    for (int d = lane; d < a.D; d += 32) {
        float o = 0;
        for (int k = 0; k < p.parts; k++) o += p.o[(k * step + at) * a.D + d] * exp2f(p.top[k * step + at].x - base);
        st1((T *)a.o + row * a.ldo + h * a.D + d, o * inv);
    }
    if (lane == 0) a.lse[at] = m * LN2 + logf(l);
}

/* Enough stretches to fill the GPU, none shorter than LEAST keys, all of them in the workspace. */
static Parts cut(const Attn *a) {
    const AttnPlan *p = a->plan;
    /* six blocks an SM: with fewer a few beams leave most of the GPU idle */
    int64_t blocks = (int64_t)p->nitems * a->KH, wanted = ceil_div(cuda.sms * 6, blocks),
            one = (int64_t)a->H * p->nrows * (a->D * (int64_t)sizeof(float) + (int64_t)sizeof(float2)),
            fit = WS_COMPUTE / one, most = ceil_div(p->max_nk, LEAST);
    int64_t n = wanted < most ? wanted : most;
    if (n > fit) n = fit;
    if (n < 1) n = 1;
    Parts parts = {NULL, NULL, (int)n, (int)ceil_div(p->max_nk > 0 ? p->max_nk : 1, n)};
    if (n == 1) return parts;
    parts.o = (float *)cuda_workspace((size_t)(n * one), "attention");
    parts.top = (float2 *)(parts.o + n * a->H * p->nrows * a->D);
    return parts;
}

template <class T> bool attention_row(const Attn *a) {
    const AttnPlan *p = a->plan;
    bool fits = p->max_nq == 1 && a->drop.p <= 0 && a->D % 8 == 0 && a->D <= WIDEST && a->ldq % 8 == 0 &&
                a->ldk % 8 == 0 && a->ldv % 8 == 0 && a->ldo % 8 == 0 && aligned16(a->q) && aligned16(a->k) &&
                aligned16(a->v) && aligned16(a->o);
    if (!fits) return false;
    Parts parts = cut(a);
    dim3 grid((unsigned)p->nitems, (unsigned)a->KH, (unsigned)parts.parts);
    auto *kernel = a->D <= 32    ? row_kernel<T, 4>
                   : a->D <= 64  ? row_kernel<T, 8>
                   : a->D <= 128 ? row_kernel<T, 16>
                                 : row_kernel<T, 32>;
    kernel<<<grid, WARPS * 32, 0, cuda.compute>>>(*a, p->items, p->nrows, parts);
    cuda_launched("attention (row)");
    if (parts.parts == 1) return true;
    dim3 heads((unsigned)p->nitems, (unsigned)ceil_div(a->H, WARPS));
    row_parts_kernel<T><<<heads, WARPS * 32, 0, cuda.compute>>>(*a, p->items, p->nrows, parts);
    cuda_launched("attention (row)");
    return true;
}
template bool attention_row<float>(const Attn *a);
template bool attention_row<bf16>(const Attn *a);
