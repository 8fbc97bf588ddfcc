/* attention: rows attend to the keys of their segment, H heads.
 *
 *   s_ij = scale <q_i, k_j>,  lse_i = log sum_j exp s_ij,  P = exp(s - lse),  P' = P m / (1 - p),  o_i = sum_j P'_ij v_j
 *   dP'_ij = <do_i, v_j>,  dP = dP' m / (1 - p),  ds_ij = P_ij (dP_ij - sum_j P_ij dP_ij)
 *   dq_i = scale sum_j ds_ij k_j,  dk_j = scale sum_i ds_ij q_i,  dv_j = sum_i P'_ij do_i
 *
 * A task is one (group, head). It packs the group's keys and values as f32 once (range 1 straight behind range 0, so that an
 * item's keys are one run of columns), then takes the items one after the other: all scores of an item lie in a tile
 * (nq, n), n its keys rounded up to 16, small enough for L1 or L2 (32 x 272 floats at full size). Products are tile_product on
 * packed operands; columns a row may not see are computed and set to zero. The backward makes P again from lse, and adds up
 * dk and dv of the group in f32 before they are written once: no atomics, and the order of items is the order of sums.
 *
 * Arithmetic is f32 for either element type. Forward 4 nq n D flops a head, backward 10 nq n D, plus the packing of nk D
 * elements by transposition (half an instruction each). Scratch: a few hundred KB a thread at full size. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/tile.h"

static inline int64_t up16(int64_t n) { return (n + 15) & ~(int64_t)15; }

/* ---- packing ---------------------------------------------------------------------------------------------------------- */

/* Rows of D elements to f32 rows of Dp; what is beyond D is zero. */
static void pack_rows(float *dst, int64_t Dp, const elem *src, int64_t ld_, int64_t n, int64_t D) {
    for (int64_t i = 0; i < n; i++) {
#pragma omp simd
        for (int64_t d = 0; d < D; d++) dst[i * Dp + d] = ld(src[i * ld_ + d]);
        for (int64_t d = D; d < Dp; d++) dst[i * Dp + d] = 0.0f;
    }
}

/* One step of transposing 16 x 16: rows i and i + 8 are interleaved. Four steps make the transpose. */
static inline void interleave(v16 r[16]) {
    v16 t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = __builtin_shufflevector(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        t[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

/* Columns [at, at + n) of dst (D, width) = the n rows at src; may write zeros up to 15 columns further. */
static void pack_columns(float *dst, int64_t width, int64_t at, const elem *src, int64_t ld_, int64_t n, int64_t D) {
    for (int64_t j = 0; j < n; j += 16)
        for (int64_t d = 0; d < D; d += 16) {
            v16 r[16];
            for (int64_t i = 0; i < 16; i++) {
                float row[16] = {0.0f};
                if (j + i < n && d + 16 <= D) {
#pragma omp simd
                    for (int64_t e = 0; e < 16; e++) row[e] = ld(src[(j + i) * ld_ + d + e]);
                } else if (j + i < n) {
                    for (int64_t e = 0; d + e < D; e++) row[e] = ld(src[(j + i) * ld_ + d + e]);
                }
                r[i] = *(const v16 *)row;
            }
            interleave(r);
            interleave(r);
            interleave(r);
            interleave(r);
            for (int64_t e = 0; e < MIN((int64_t)16, D - d); e++) *(v16 *)(dst + (d + e) * width + at + j) = r[e];
        }
}

/* The 16 columns behind the last key: zero, so that padded tiles hold numbers. */
static void clear_columns(float *dst, int64_t width, int64_t at, int64_t D) {
    for (int64_t d = 0; d < D; d++) *(v16 *)(dst + d * width + at) = (v16){0.0f};
}

/* ---- what a task works on --------------------------------------------------------------------------------------------- */

typedef struct {
    int64_t D, Dp, keys, width;         /* D rounded up; keys of a group at most; columns of the transposed packs */
    float *kt, *vt, *k, *v;             /* (D, width) twice, (keys, Dp) twice */
    float *dk, *dv;                     /* (keys, Dp) */
    float *q, *d_o, *o;                 /* (max_nq, Dp) */
    float *s, *dp;                      /* (max_nq, up16(max_nk)) */
    uint16_t *bits;                     /* dropout: 8 ceil(n / 8) a row */
} Task;

/* Lays a task's arrays out in memory; with NULL only measures. Returns floats. */
static int64_t task_layout(Task *t, const Attn *a, float *memory, bool backward) {
    const AttnPlan *p = a->plan;
    int64_t at = 0, nq = p->max_nq, n = up16(p->max_nk);
    t->D = a->D;
    t->Dp = up16(a->D);
    t->keys = 2 * (int64_t)p->max_group_nk;
    t->width = up16(t->keys) + 32;
#define TAKE(field, count) do { t->field = memory ? memory + at : NULL; at += up16(count); } while (0)
    TAKE(kt, t->D * t->width);
    TAKE(v, t->keys * t->Dp);
    TAKE(q, nq * t->Dp);
    TAKE(o, nq * t->Dp);
    TAKE(s, nq * n);
    if (backward) {
        TAKE(vt, t->D * t->width);
        TAKE(k, t->keys * t->Dp);
        TAKE(dk, t->keys * t->Dp);
        TAKE(dv, t->keys * t->Dp);
        TAKE(d_o, nq * t->Dp);
        TAKE(dp, nq * n);
    }
#undef TAKE
    t->bits = memory ? (uint16_t *)(memory + at) : NULL;
    at += up16(nq * n / 2 + DROP_PAD);
    return at;
}

/* An item's keys are columns [first, first + n) of the group's packs. */
typedef struct { int64_t first, n, padded; } Columns;

static Columns item_columns(const AttnItem *it, const AttnGroup *g) {
    int64_t n = it->na + it->nb;
    return (Columns){it->na ? 0 : g->nk[0], n, up16(n)};
}

static int32_t visible(const AttnItem *it, int32_t i) {
    return it->na + (it->causal ? MIN(i + 1, it->nb) : it->nb);
}

/* The bits of all rows of an item; stride 8 ceil(n / 8). */
static void item_bits(const Task *t, const Attn *a, const AttnItem *it, int64_t h, int64_t n) {
    if (a->drop.p > 0.0f) cpu_dropout_rows(t->bits, &a->drop, a->drop.rows + it->q0, it->nq, (uint32_t)h << 20, (n + 7) / 8);
}

/* ---- forward ---------------------------------------------------------------------------------------------------------- */

/* A row of products <q, k> becomes exp(scale (s - max)), dropped out; zero from `seen` on. Returns the sum before dropout. */
static float softmax_row(float *s, float scale, int32_t seen, int32_t padded, const uint16_t *bits, uint32_t threshold, float keep,
                         float *max) {
    float m = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : m)
    for (int32_t j = 0; j < seen; j++) m = s[j] > m ? s[j] : m;
    if (bits) {
#pragma omp simd reduction(+ : sum)
        for (int32_t j = 0; j < padded; j++) {
            float e = j < seen ? exp_f32(scale * (s[j] - m)) : 0.0f;
            sum += e;
            s[j] = bits[j] >= threshold ? e * keep : 0.0f;
        }
    } else {
#pragma omp simd reduction(+ : sum)
        for (int32_t j = 0; j < padded; j++) {
            float e = j < seen ? exp_f32(scale * (s[j] - m)) : 0.0f;
            sum += e;
            s[j] = e;
        }
    }
    *max = m;
    return sum;
}

static void item_forward(const Task *t, const Attn *a, const AttnItem *it, Columns c, int64_t h) {
    int64_t D = t->D, Dp = t->Dp, nq = it->nq, blocks = (c.n + 7) / 8;
    uint32_t threshold = dropout_threshold(a->drop.p);
    float keep = 1.0f / (1.0f - a->drop.p);
    pack_rows(t->q, Dp, (const elem *)a->q + it->q0 * a->ldq + h * D, a->ldq, nq, D);
    tile_product(t->s, c.padded, t->q, Dp, 1, t->kt + c.first, t->width, nq, c.padded, D, false);
    item_bits(t, a, it, h, c.n);
    for (int64_t i = 0; i < nq; i++) {
        float max, sum = softmax_row(t->s + i * c.padded, a->scale, visible(it, (int32_t)i), (int32_t)c.padded,
                                     a->drop.p > 0.0f ? t->bits + 8 * blocks * i : NULL, threshold, keep, &max);
        a->lse[(it->q0 + i) * a->H + h] = max * a->scale + logf(sum);
        t->q[i * Dp] = 1.0f / sum;                      /* q has served */
    }
    tile_product(t->o, Dp, t->s, c.padded, 1, t->v + c.first * Dp, Dp, nq, Dp, c.n, false);
    for (int64_t i = 0; i < nq; i++) {
        elem *o = (elem *)a->o + (it->q0 + i) * a->ldo + h * D;
        float inv = c.n ? t->q[i * Dp] : 0.0f;
#pragma omp simd
        for (int64_t d = 0; d < D; d++) o[d] = st(t->o[i * Dp + d] * inv);
    }
}

void FN(attention)(const Attn *a) {
    const AttnPlan *p = a->plan;
    Task measure;
    int64_t D = a->D, H = a->H, per = task_layout(&measure, a, NULL, false);
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel if (PARALLEL(p->products * H * D / 8))
    {
        Task t;
        task_layout(&t, a, memory + omp_get_thread_num() * per, false);
#pragma omp for schedule(dynamic, 4) collapse(2)
        for (int32_t x = 0; x < p->ngroups; x++)
            for (int64_t h = 0; h < H; h++) {
                const AttnGroup *g = &p->groups[x];
                for (int r = 0, at = 0; r < 2 && g->nitems; at += g->nk[r], r++) {
                    if (!g->nk[r]) continue;
                    pack_columns(t.kt, t.width, at, (const elem *)a->k + g->k0[r] * a->ldk + h * D, a->ldk, g->nk[r], D);
                    pack_rows(t.v + at * t.Dp, t.Dp, (const elem *)a->v + g->k0[r] * a->ldv + h * D, a->ldv, g->nk[r], D);
                }
                clear_columns(t.kt, t.width, g->nk[0] + g->nk[1], D);
                for (int32_t i = g->item0; i < g->item0 + g->nitems; i++)
                    item_forward(&t, a, &p->items[i], item_columns(&p->items[i], g), h);
            }
    }
}

/* ---- backward --------------------------------------------------------------------------------------------------------- */

/* s: <q, k>, becomes P'; dp: <do, v>, becomes scale ds. Zero from `seen` on. */
static void softmax_row_bwd(float *s, float *dp, float scale, float lse, int32_t seen, int32_t padded, const uint16_t *bits,
                            uint32_t threshold, float keep) {
    float delta = 0.0f;
    if (bits) {
#pragma omp simd reduction(+ : delta)
        for (int32_t j = 0; j < padded; j++) {
            float P = j < seen ? exp_f32(fmadd(s[j], scale, -lse)) : 0.0f, d = bits[j] >= threshold ? dp[j] * keep : 0.0f;
            delta += P * d;
            s[j] = P;
            dp[j] = d;
        }
#pragma omp simd
        for (int32_t j = 0; j < padded; j++) {
            dp[j] = scale * s[j] * (dp[j] - delta);
            s[j] = bits[j] >= threshold ? s[j] * keep : 0.0f;
        }
    } else {
#pragma omp simd reduction(+ : delta)
        for (int32_t j = 0; j < padded; j++) {
            s[j] = j < seen ? exp_f32(fmadd(s[j], scale, -lse)) : 0.0f;
            delta += s[j] * dp[j];
        }
#pragma omp simd
        for (int32_t j = 0; j < padded; j++) dp[j] = scale * s[j] * (dp[j] - delta);
    }
}

static void item_backward(const Task *t, const Attn *a, const AttnGrad *g, const AttnItem *it, Columns c, int64_t h) {
    int64_t D = t->D, Dp = t->Dp, nq = it->nq, blocks = (c.n + 7) / 8;
    uint32_t threshold = dropout_threshold(a->drop.p);
    float keep = 1.0f / (1.0f - a->drop.p);
    pack_rows(t->q, Dp, (const elem *)a->q + it->q0 * a->ldq + h * D, a->ldq, nq, D);
    pack_rows(t->d_o, Dp, (const elem *)g->d_o + it->q0 * a->ldo + h * D, a->ldo, nq, D);
    tile_product(t->s, c.padded, t->q, Dp, 1, t->kt + c.first, t->width, nq, c.padded, D, false);
    tile_product(t->dp, c.padded, t->d_o, Dp, 1, t->vt + c.first, t->width, nq, c.padded, D, false);
    item_bits(t, a, it, h, c.n);
    for (int64_t i = 0; i < nq; i++)
        softmax_row_bwd(t->s + i * c.padded, t->dp + i * c.padded, a->scale, a->lse[(it->q0 + i) * a->H + h],
                        visible(it, (int32_t)i), (int32_t)c.padded, a->drop.p > 0.0f ? t->bits + 8 * blocks * i : NULL, threshold, keep);
    tile_product(t->o, Dp, t->dp, c.padded, 1, t->k + c.first * Dp, Dp, nq, Dp, c.n, false);
    for (int64_t i = 0; i < nq; i++) {
        elem *dq = (elem *)g->dq + (it->q0 + i) * g->lddq + h * D;
#pragma omp simd
        for (int64_t d = 0; d < D; d++) dq[d] = st(t->o[i * Dp + d]);
    }
    tile_product(t->dv + c.first * Dp, Dp, t->s, 1, c.padded, t->d_o, Dp, c.n, Dp, nq, true);
    tile_product(t->dk + c.first * Dp, Dp, t->dp, 1, c.padded, t->q, Dp, c.n, Dp, nq, true);
}

static void store_rows(elem *dst, int64_t ldd, const float *src, int64_t Dp, int64_t n, int64_t D, bool add) {
    for (int64_t i = 0; i < n; i++) {
        elem *o = dst + i * ldd;
        const float *s = src + i * Dp;
        if (add) {
#pragma omp simd
            for (int64_t d = 0; d < D; d++) o[d] = st(ld(o[d]) + s[d]);
        } else {
#pragma omp simd
            for (int64_t d = 0; d < D; d++) o[d] = st(s[d]);
        }
    }
}

void FN(attention_bwd)(const Attn *a, const AttnGrad *g) {
    const AttnPlan *p = a->plan;
    Task measure;
    int64_t D = a->D, H = a->H, per = task_layout(&measure, a, NULL, true);
    float *memory = cpu_scratch((size_t)omp_get_max_threads() * (size_t)per * sizeof(float));
    if (!memory) return;
#pragma omp parallel if (PARALLEL(p->products * H * D / 4))
    {
        Task t;
        task_layout(&t, a, memory + omp_get_thread_num() * per, true);
#pragma omp for schedule(dynamic, 4) collapse(2)
        for (int32_t x = 0; x < p->ngroups; x++)
            for (int64_t h = 0; h < H; h++) {
                const AttnGroup *gr = &p->groups[x];
                if (!gr->nitems && g->add) continue;
                size_t sums = (size_t)((gr->nk[0] + gr->nk[1]) * t.Dp) * sizeof(float);
                memset(t.dk, 0, sums);
                memset(t.dv, 0, sums);
                for (int r = 0, at = 0; r < 2 && gr->nitems; at += gr->nk[r], r++) {
                    if (!gr->nk[r]) continue;
                    const elem *k = (const elem *)a->k + gr->k0[r] * a->ldk + h * D;
                    pack_columns(t.kt, t.width, at, k, a->ldk, gr->nk[r], D);
                    pack_columns(t.vt, t.width, at, (const elem *)a->v + gr->k0[r] * a->ldv + h * D, a->ldv, gr->nk[r], D);
                    pack_rows(t.k + at * t.Dp, t.Dp, k, a->ldk, gr->nk[r], D);
                }
                clear_columns(t.kt, t.width, gr->nk[0] + gr->nk[1], D);
                clear_columns(t.vt, t.width, gr->nk[0] + gr->nk[1], D);
                for (int32_t i = gr->item0; i < gr->item0 + gr->nitems; i++)
                    item_backward(&t, a, g, &p->items[i], item_columns(&p->items[i], gr), h);
                for (int r = 0, at = 0; r < 2; at += gr->nk[r], r++) {
                    store_rows((elem *)g->dk + gr->k0[r] * g->lddk + h * D, g->lddk, t.dk + at * t.Dp, t.Dp, gr->nk[r], D, g->add);
                    store_rows((elem *)g->dv + gr->k0[r] * g->lddv + h * D, g->lddv, t.dv + at * t.Dp, t.Dp, gr->nk[r], D, g->add);
                }
            }
    }
}
