/* promise: what each op of the CUDA backend promises in bf16: bytes, floating-point operations, launches, and the least
 * time an H100 SXM needs for them. The formulas of the heads of the .cu files, each once: bench_cuda holds the kernels
 * against them, bench_roofline adds them up over a training step. Needs neither a GPU nor CUDA.
 *
 * A launch takes the longest of bytes / H100_BYTES, operations / peak, and H100_LAUNCH. Bytes are those the head names:
 * each of a matrix once, and tables, partial sums and keys as often as blocks ask for them, though L2 has them mostly.
 * `again` is what the lanes of a warp ask of an address that a neighbour asks too: one access to a GPU and no time, but
 * vgpu counts it, a lane at a time. Fast kernels only: rows of C % 8 == 0, head sizes of the tensor-core kernels. */
#pragma once
#include <math.h>

#include "kernels/backend.h"

static const double H100_BYTES = 3.35e12, H100_FLOPS = 989e12, H100_F32 = 67e12; /* a second; dense bf16, plain f32 */
static const double H100_PCIE = 55e9;    /* bytes a second from or to the host, of PCIe 5 x16's 63 */
static const double H100_LAUNCH = 3e-6;  /* seconds from one kernel's begin to the next one's, at least */
enum { H100_SMS = 132, UPDATE_SMS = H100_SMS / 5 };     /* optim.cu: AdamW beside compute */

typedef struct {
    double bytes, again, flops;
    double seconds;                      /* sum over launches */
    int launches;
} Promise;

/* One launch. flops at `rate`. */
static inline Promise promise_launch(double bytes, double flops, double rate) {
    double seconds = fmax(fmax(bytes / H100_BYTES, flops / rate), H100_LAUNCH);
    return (Promise){.bytes = bytes, .flops = flops, .seconds = seconds, .launches = 1};
}

static inline Promise promise_then(Promise a, Promise b) {
    return (Promise){a.bytes + b.bytes, a.again + b.again, a.flops + b.flops, a.seconds + b.seconds,
                     a.launches + b.launches};
}

static inline Promise promise_again(Promise a, double bytes) {
    a.again += bytes;
    return a;
}

static inline double promise_times(double n, double per) { return ceil(n / per); }

/* A kernel that leaves `parts` rows of k W partial sums, and the one that adds those to k rows of W. */
static inline Promise promise_partials(double bytes, double parts, double k, double W) {
    double sums = 4 * parts * k * W;
    return promise_then(promise_launch(bytes + sums, 0, 1), promise_launch(sums + 8 * k * W, 0, 1));
}

/* Row keys of a dropout over N rows: 8 bytes a row, and what every lane, of eight columns, asks again. */
static inline double promise_keys(Dropout d, double N) { return d.p > 0 ? 8 * N : 0; }
static inline double promise_keys_again(Dropout d, double N, int C) {
    return promise_keys(d, N) * (promise_times(C, 8) - 1);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* cuBLASLt promises nothing; operands read once, the result written once. rate: of bf16 products. */
static inline Promise promise_gemm(const Gemm *g, double rate) {
    double m = (double)g->m, n = (double)g->n, k = (double)g->k, ab = g->ab == DT_F32 ? 4 : 2,
           ct = g->ct == DT_F32 ? 4 : 2;
    Promise p = promise_launch(ab * (m * k + k * n) + ct * m * n * (g->add ? 2 : 1) + (g->bias ? ct * n : 0),
                               2 * m * n * k, g->ab == DT_F32 ? H100_F32 : rate);
    return g->bias && g->ct == DT_F32 && g->ab != DT_F32 ? promise_then(promise_launch(6 * n, 0, 1), p) : p;
}

/* Several in one launch (product_group.cu): A for each 256 columns of C, B for each 256 rows. */
static inline Promise promise_gemms(const Gemm *g, int count) {
    double bytes = 0, flops = 0;
    for (; count > 0; count--, g++) {
        double m = (double)g->m, n = (double)g->n, k = (double)g->k;
        bytes += 2 * k * (m * promise_times(n, 256) + n * promise_times(m, 256)) + 4 * m * n * (g->add ? 2 : 1) +
                 (g->sums ? g->sums_zero ? 4 * m : 8 * m : 0);
        flops += 2 * m * n * k;
    }
    return promise_launch(bytes, flops, H100_FLOPS);
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static inline Promise promise_colsum(int64_t N, int64_t C, int64_t ld) {
    double n = (double)N, c = (double)C, columns = promise_times(c, ld % 8 ? 128 : 256);
    return promise_partials(2 * n * c, fmin(promise_times(n, 64), promise_times(4 * H100_SMS, columns)), 1, c);
}

static inline Promise promise_act(const Act *a) {
    double n = (double)a->N, f = (double)a->F, biases = (a->bias ? 1 : 0) + (a->up_bias ? 1 : 0);
    return promise_launch(2 * n * f * (a->up ? 3 : 2) + 4 * f * biases * promise_times(n, 16), 0, 1);
}

static inline Promise promise_act_bwd(const Act *a, const ActGrad *g) {
    double n = (double)a->N, f = (double)a->F, biases = (a->bias ? 1 : 0) + (a->up_bias ? 1 : 0),
           strips = fmin(promise_times(n, 16), promise_times(16 * H100_SMS, promise_times(f, 1024)));
    int sums = (g->dbias ? 1 : 0) + (g->dup_bias ? 1 : 0), matrices = (a->up ? 5 : 3) + (a->h ? 1 : 0);
    double bytes = 2 * n * f * matrices + 4 * f * biases * strips;
    return sums ? promise_partials(bytes, strips, sums, f) : promise_launch(bytes, 0, 1);
}

/* A product and its activation in one kernel (product_act.cu): operands once, u and h, or u and du. */
static inline Promise promise_product_act(const Gemm *g) {
    double m = (double)g->m, n = (double)g->n, k = (double)g->k;
    bool one = !g->grad && g->act->h == g->act->u;
    double bytes = 2 * (m * k + k * n) + (one ? 2 : 4) * m * n + (g->grad && g->act->h ? 2 * m * n : 0);
    Promise p = promise_launch(bytes, 2 * m * n * k, H100_FLOPS);
    return g->grad && g->grad->dbias ? promise_then(p, promise_partials(0, promise_times(m, 64), 1, n)) : p;
}

/* Blocks of a norm: four rows each up to 768 columns, else a row of eight columns a thread;
 * `most` of the former an SM. */
static inline double promise_norm_blocks(double n, int C, int most) {
    double threads = 32 * promise_times(C, 256);
    return C <= 768 ? fmin(promise_times(n, 4), most * H100_SMS) : fmin(n, floor(1024 / threads) * H100_SMS);
}
static inline double promise_statistics(double n, bool rms) { return (rms ? 4 : 8) * n; }

static inline Promise promise_add_norm(const AddNorm *a) {
    double n = (double)a->N, c = a->C, vectors = 1 + (a->beta ? 1 : 0) + (a->bias ? 1 : 0);
    Promise p = promise_launch(2 * n * c * (!a->s ? 2 : a->x ? 4 : 3) + promise_statistics(n, a->rms) +
                                   promise_keys(a->drop, n) + promise_norm_blocks(n, a->C, 6) * 4 * vectors * c, 0, 1);
    return promise_again(p, promise_keys_again(a->drop, n, a->C));
}

static inline Promise promise_add_norm_bwd(const AddNorm *a, const AddNormGrad *g) {
    double n = (double)a->N, c = a->C, blocks = promise_norm_blocks(n, a->C, 3), stats = promise_statistics(n, a->rms);
    int matrices = 2 + (g->ds ? 1 : 0) + (g->dz ? 1 : 0) + (g->dx ? 1 : 0) + (g->dx && g->add_dx ? 1 : 0);
    double bytes = 2 * n * c * matrices + stats + promise_keys(a->drop, n) + blocks * 4 * c;
    bool sums = g->dgamma || g->dbeta || g->dbias;
    Promise p = sums ? promise_partials(bytes, blocks, g->dbias ? 3 : 2, c) : promise_launch(bytes, 0, 1);
    double readers = a->C <= 768 ? 32 : 32 * promise_times(c, 256);
    return promise_again(p, promise_keys_again(a->drop, n, a->C) + (readers - 1) * stats);
}

/* Lanes of a block of columns, and how many blocks of columns the threads have at once. */
static inline double promise_head_lanes(int C) {
    return C <= 64 ? 8 : C <= 128 ? 16 : C <= 256 ? 32 : 32 * promise_times(C, 256);
}

static inline Promise promise_head_norm(const HeadNorm *a) {
    double items = (double)a->N * a->blocks, c = a->C, lanes = promise_head_lanes(a->C),
           groups = fmin(items, H100_SMS * floor(1024 / fmax(128, lanes)) * fmax(1, 128 / lanes));
    double stats = a->rstd ? promise_statistics(items, a->rms) : 0;
    Promise p = promise_launch(2 * items * c * (a->z ? 3 : 2) + stats, 0, 1);
    return promise_again(p, 4 * c * (a->beta ? 2 : 1) * groups);
}

/* Every thread, of eight pairs (four when neighbours), reads its row's place in the tables, and its part of them. */
static inline Promise promise_rotary(const Rotary *r) {
    double n = (double)r->N, tables = 4 * n * r->R, threads = n * r->H * r->R / (r->interleaved ? 8 : 16);
    Promise p = promise_launch(4 * n * r->H * r->R + tables + (r->at ? 4 * n : 0), 0, 1);
    return promise_again(p, tables * (r->H - 1) + (r->at ? 4 * (threads - n) : 0));
}

static inline Promise promise_lookup(const Lookup *a) {
    double n = (double)a->N, c = a->C, indices = (a->ids ? 8 : 0) + (a->pos_id ? 4 : 0); /* an id twice */
    return promise_again(promise_launch(2 * n * c * (a->pos ? 3 : 2) + 8 * n, 0, 1), indices * n * promise_times(c, 8));
}

static inline Promise promise_embed(const Embed *e) {
    double q = (double)e->nq, t = (double)e->nt, n = q + t, c = e->C, blocks = fmin(promise_times(n, 4), 6 * H100_SMS);
    Promise p = promise_launch(2 * c * (q + 2 * t) + 2 * n * c + 8 * n + promise_keys(e->drop, n) + 8 * t +
                                   blocks * 8 * c, 0, 1);
    return promise_again(p, promise_keys_again(e->drop, n, e->C) + 31 * 8 * t);
}

/* The norm's backward, and the sums over rows of queries, words and positions. */
static inline Promise promise_embed_bwd(const Embed *e) {
    double q = (double)e->nq, t = (double)e->nt, n = q + t, c = e->C, blocks = fmin(promise_times(n, 4), 3 * H100_SMS);
    Promise p = promise_partials(4 * n * c + 2 * c * (q + 2 * t) + 8 * n + promise_keys(e->drop, n) + blocks * 4 * c,
                                 blocks, 2, c);
    p = promise_again(p, promise_keys_again(e->drop, n, e->C) + 31 * 8 * n);
    if (e->nq) p = promise_then(p, promise_launch(2 * q * c + 8 * c * fmin(q, e->Q), 0, 1));
    if (e->ntok) p = promise_then(p, promise_launch(2 * t * c + 8 * c * e->ntok, 0, 1));
    if (e->nposn) p = promise_then(p, promise_launch(2 * t * c + 8 * c * e->nposn, 0, 1));
    return p;
}

static inline Promise promise_copy_rows(int64_t n, int64_t width, bool add) {
    return promise_launch(2 * (double)n * (double)width * (add ? 3 : 2), 0, 1);
}
static inline Promise promise_cast(DType to, DType from, int64_t n) {
    return promise_launch((double)n * (dtype_size(to) + dtype_size(from)), 0, 1);
}
static inline Promise promise_axpy(int64_t n) { return promise_launch(12 * (double)n, 0, 1); }
static inline Promise promise_sum(int64_t n) { return promise_launch(4 * (double)n, 0, 1); }
static inline Promise promise_zero(size_t bytes) { return promise_launch((double)bytes, 0, 1); }
static inline Promise promise_copy(size_t bytes) { return promise_launch(2 * (double)bytes, 0, 1); }

/* Over PCIe, in the order of compute. */
static inline Promise promise_host(size_t bytes) {
    return (Promise){.bytes = (double)bytes, .seconds = fmax((double)bytes / H100_PCIE, H100_LAUNCH), .launches = 1};
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* Work of a group: rows, 16-row tiles, keys. */
typedef struct { double R, U; int tiles, key_tiles; } PromiseGroup;

static inline PromiseGroup promise_group(const AttnPlan *p, int32_t g) {
    const AttnGroup *gr = &p->host_groups[g];
    PromiseGroup s = {.U = gr->nk[0] + gr->nk[1], .key_tiles = (gr->nk[0] + gr->nk[1] + 15) / 16};
    for (int32_t i = gr->item0; i < gr->item0 + gr->nitems; i++)
        s.R += p->host_items[i].nq, s.tiles += (p->host_items[i].nq + 15) / 16;
    return s;
}

/* The largest group decides how many warps a block has: at most `most`, blocks alike. */
static inline int promise_warps(int tiles, int most) {
    int blocks = (tiles + most - 1) / most;
    return blocks ? (tiles + blocks - 1) / blocks : 1;
}

static inline void promise_block(const AttnPlan *p, int *warps, int *key_warps) {
    int tiles = 0, keys = 0;
    for (int32_t g = 0; g < p->ngroups; g++) {
        PromiseGroup s = promise_group(p, g);
        if (s.tiles > tiles) tiles = s.tiles;
        if (s.key_tiles > keys) keys = s.key_tiles;
    }
    *warps = promise_warps(tiles, 4);
    *key_warps = promise_warps(keys, 6);
}

/* Items of one row: K and V of each item's keys, once for every four heads that share them. */
static inline Promise promise_attention_row(const Attn *a) {
    const AttnPlan *p = a->plan;
    double keys = 0, D = a->D, rounds = promise_times(a->H / a->KH, 4);
    for (int32_t i = 0; i < p->nitems; i++) keys += p->host_items[i].na + p->host_items[i].nb;
    double blocks = (double)p->nitems * a->KH,
           stretches = fmax(1, fmin(promise_times(6 * H100_SMS, blocks), promise_times(p->max_nk, 64))),
           rows = (double)p->nrows * a->H, parts = stretches > 1 ? rows * stretches * (4 * D + 8) : 0;
    Promise q = promise_launch(4 * keys * a->KH * D * rounds + 2 * rows * D * (stretches + 1) + 4 * rows + parts,
                               4 * keys * a->H * D, H100_F32);
    /* q a warp, the item a thread */
    q = promise_again(q, stretches * (6 * rows * D + 128 * sizeof(AttnItem) * blocks));
    if (stretches < 2) return q;
    Promise sums = promise_launch(parts + 2 * rows * D, 0, 1);
    return promise_again(promise_then(q, sums), rows * stretches * 32 * 8 * (3 + promise_times(D, 32)));
}

/* What attention_wg.cu takes: a group's rows see all its keys, in tiles of 64 that are mostly full. */
static inline bool promise_is_whole(const Attn *a) {
    const AttnPlan *p = a->plan;
    double rows = 0, tiles = 0;
    if (a->bias || a->drop.p > 0 || a->D > 128) return false;
    for (int32_t i = 0; i < p->nitems; i++) {
        const AttnItem *it = &p->host_items[i];
        if (it->causal || it->nb || it->na != p->host_groups[it->group].nk[0]) return false;
        rows += it->nq, tiles += promise_times(it->nq, 64);
    }
    return rows >= 48 * tiles;
}

static inline Promise promise_attention(const Attn *a) {
    const AttnPlan *p = a->plan;
    if (p->max_nq == 1 && a->drop.p <= 0) return promise_attention_row(a);
    double D = a->D, row = a->drop.p > 0 ? 12 : 4, bytes = 0;
    int warps, key_warps;
    /* many keys come through a ring, to each block of two or three tiles */
    bool whole = promise_is_whole(a), ring = whole && p->max_nk > 272;
    promise_block(p, &warps, &key_warps);
    for (int32_t g = 0; g < p->ngroups; g++) {
        PromiseGroup s = promise_group(p, g);
        double tiles = promise_times(s.R, 64), each = a->D > 64 && a->D <= 96 ? 3 : 2,
               asks = ring ? promise_times(tiles, each) : whole ? 1 : promise_times(s.tiles, warps);
        bytes += 4 * s.R * D + 4 * s.U * D * asks + row * s.R;
    }
    return promise_launch(bytes * a->H, 4 * (double)p->products * a->H * D, H100_FLOPS);
}

/* Backward in one kernel: what attention_bwd_one.cu takes (on a device that has the shared memory). */
static inline bool promise_bwd_is_one(const Attn *a) {
    int tiles = 0, keys = 0;
    for (int32_t g = 0; g < a->plan->ngroups; g++) {
        PromiseGroup s = promise_group(a->plan, g);
        if (s.tiles > tiles) tiles = s.tiles;
        if (s.key_tiles > keys) keys = s.key_tiles;
    }
    return a->D > 32 && a->D <= 64 && keys <= 17 && tiles <= 480;
}

static inline Promise promise_attention_bwd(const Attn *a, const AttnGrad *grad) {
    const AttnPlan *p = a->plan;
    double D = a->D, pairs = (double)p->products * a->H * D, share = a->H / a->KH, dq = 0, dkv = 0;
    double numbers = a->drop.p > 0 ? 12 : 4, row = numbers + 4;
    int warps, key_warps;
    bool one = promise_bwd_is_one(a);
    promise_block(p, &warps, &key_warps);
    for (int32_t g = 0; g < p->ngroups; g++) {
        PromiseGroup s = promise_group(p, g);
        double keys = (grad->add ? 12 : 8) * s.U * D;
        if (one) dq += 8 * s.R * D + numbers * s.R + keys / share;
        else dq += 8 * s.R * D + 4 * s.U * D * promise_times(s.tiles, warps) + row * s.R,
             dkv += keys + (4 * s.R * D + row * s.R) * promise_times(s.key_tiles, key_warps);
    }
    if (one) return promise_launch(dq * a->H, 10 * pairs, H100_FLOPS);
    return promise_then(promise_launch(dq * a->H, 6 * pairs, H100_FLOPS),
                        promise_launch(dkv * a->H, 8 * pairs, H100_FLOPS));
}

/* ---- image, heads, losses, optimizer --------------------------------------------------------------------------- */

static inline Promise promise_normalize(DType t, int64_t N, int64_t E) {
    return promise_launch((double)N * (double)E * (dtype_size(t) + 2), 0, 1);
}

static inline Promise promise_fold(int64_t M, int64_t E) {
    double me = (double)M * (double)E;
    return promise_again(promise_launch(6 * me, 0, 1), 8 * me);
}

static inline Promise promise_unfold(int64_t M, int64_t E, bool add) {
    double m = (double)M, e = (double)E,
           strips = fmin(promise_times(m, 16), promise_times(8 * H100_SMS, promise_times(e, 128)));
    return promise_again(promise_partials((add ? 16 : 12) * m * e, strips, 2, e), 4 * m * e);
}

static inline Promise promise_l2norm(int64_t N, int64_t Z) {
    return promise_launch(6 * (double)N * (double)Z, 0, 1);
}
static inline Promise promise_l2norm_bwd(int64_t N, int64_t Z) {
    return promise_launch(10 * (double)N * (double)Z, 0, 1);
}
static inline Promise promise_segment_mean(int64_t n, int64_t Q, int64_t C, bool add) {
    return promise_launch(2 * (double)n * (double)C * (double)(Q * (add ? 2 : 1) + 1), 0, 1);
}

static inline Promise promise_simmax(int64_t ni, int64_t nt, int64_t Q, int64_t Z) {
    double i = (double)ni, t = (double)nt, q = (double)Q, z = (double)Z;
    return promise_launch(4 * i * q * z * promise_times(t, 64) + 4 * i * t * z * promise_times(q, 32) + 8 * i * t,
                          2 * i * t * q * z, H100_F32);
}

/* held: rows that are added to, Z numbers each. Every thread of a block of `columns` asks for the pair's dS and arg. */
static inline Promise promise_simmax_bwd(int64_t ni, int64_t nt, int64_t held, int64_t Z, int columns) {
    double pairs = (double)ni * (double)nt, z = (double)Z, blocks = promise_times(z, columns);
    return promise_again(promise_launch(4 * pairs * z + 8 * pairs * blocks + 8 * (double)held * z, 2 * pairs * z,
                                        H100_F32), 8 * pairs * (z - blocks));
}
static inline Promise promise_simmax_bwd_image(int64_t ni, int64_t nt, int64_t Q, int64_t Z) {
    return promise_simmax_bwd(ni, nt, ni * Q, Z, 64);
}
static inline Promise promise_simmax_bwd_text(int64_t ni, int64_t nt, int64_t Z) {
    return promise_simmax_bwd(ni, nt, nt, Z, 128);
}

/* The head of loss.cu names no bytes for these two: scores read once, gradients or weights written once. */
static inline Promise promise_itc_loss(const ItcLoss *l) {
    return promise_launch((double)l->rows * (double)l->n * (l->dS ? 8 : 4), 0, 1);
}
static inline Promise promise_negatives(const Negatives *n) {
    return promise_launch((double)n->rows * (double)n->n * 8, 0, 1);
}

/* Long rows: parts of 33,784 columns, a block each; every thread asks for the target, and for all parts' sums. */
static inline Promise promise_xent(const Xent *x) {
    double rows = (double)x->rows, n = (double)x->n, parts = promise_times(n, 33784);
    Promise p = promise_launch(rows * n * (4 + (x->dlogits ? dtype_size(x->dt) : 0)), 0, 1);
    p = promise_again(p, n > 1024 ? 768 * 8 * rows * parts : 0);
    if (parts < 2) return p;
    return promise_again(promise_then(promise_launch(4 * (rows + 1), 0, 1), p), 768 * 24 * rows * parts * parts);
}

/* Two launches when the last few of n go one by one. */
static inline Promise promise_adamw(const AdamW *a) {
    double n = (double)a->n;
    Promise p = promise_launch(n * (28 + (a->keep_g ? 0 : 4) + (a->copy ? 2 : 0) + (a->ema ? 8 : 0)), 0, 1);
    if (a->n > 4 && a->n % 4) p = promise_then(p, promise_launch(0, 0, 1));
    return promise_again(p, n);                              /* *gscale, for every four elements */
}

static inline Promise promise_sumsq(int64_t n) {
    double piece = 16384;
    while ((double)n > piece * 4096) piece *= 2;
    double partial = 8 * promise_times((double)n, piece);
    return promise_then(promise_launch(4 * (double)n + partial, 0, 1), promise_launch(partial, 0, 1));
}
static inline Promise promise_grad_scale(void) { return promise_launch(0, 0, 1); }
