/* backend: what a device can do, one flat struct of functions, and what their arguments mean. The list itself is
 * backend.def: a row an op, from which follow this struct, the null backend, the prototypes and tables of cpu/ and
 * cuda/, and what test_ops holds them to. CPU and CUDA fill one struct each per element type.
 *
 * The caller (ops.c) has checked shapes and taken memory; a backend receives plain pointers and integers that are
 * right. `elem` below is the backend's element type (f32 or bf16): activations, their gradients, and the copies of
 * weights that enter matrix products. LayerNorm parameters, biases of fused kernels, statistics, losses, parameter
 * gradients and the optimizer's state are f32. Sums and softmax are f32 everywhere. All matrices are row-major; ld is a
 * row's stride in elements. All pointers are the device's (`unified`: the host's too). Parameter gradients are
 * added to; where a gradient may be overwritten or added to, `add` says which.
 *
 * Calls enqueue and return nothing: an error sticks and comes out of status() with the name of what failed. Sums run in
 * a fixed order: the same input gives the same bits. Knows no files, no parameter by name, no layer of any model; what
 * the losses between images and texts need (similarities, their softmax, negatives) is here, because it is kernels. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"
#include "kernels/base/rng.h"

/* C(m,n) = [add] C + op(A) op(B) + bias(n).   op(A) is (m,k): A is stored (m,k), or (k,m) when ta. op(B) is (k,n): B is
 * stored (k,n), or (n,k) when tb. A, B are of type ab (elem, or f32), C of type ct (elem, or f32),
 * bias of type elem or NULL. sums(m), when given, += op(A)'s row sums: with ta and ab elem, dy's columns beside
 * dy^T x; sums_zero: they are zero so far, and may be overwritten.
 *
 * held: BF16 or F16: B is held in that type and read as f32, to the very numbers; for the products that reads_held is
 * true of. Anything else: B is of type ab.
 *
 * together: of choose_products alone: so many behind it in the list are made by one call of gemms with it.
 *
 * act: what follows, by the same call: act(act) where C is its u; with grad act_bwd(act, grad), where C is grad's dh
 * and need not be left with it. NULL: nothing. */
typedef struct {
    int64_t m, n, k;
    const void *a, *b, *bias;
    void *c;
    float *sums;
    int64_t lda, ldb, ldc;
    DType ab, ct, held;
    bool ta, tb, add, sums_zero;
    int together;
    const struct Act *act;
    const struct ActGrad *grad;
} Gemm;

/* Rows [q0, q0+nq) attend to keys [a0, a0+na) and [b0, b0+nb). causal, bits: with CAUSAL_B row q0+i sees only the first
 * i+1 of b, with CAUSAL_A of a. Key number k of a row (for dropout and bias): 0..na-1 in a, then na.. in b; it stands
 * at position k, and row q0+i at position pos + i. Every row belongs to exactly one item of a plan. */
enum { CAUSAL_B = 1, CAUSAL_A = 2 };
typedef struct { int32_t q0, nq, a0, na, b0, nb, causal, group, pos; } AttnItem;

/* Items [item0, item0+nitems) share keys: an item's a is empty or the group's range 0, its b empty or within range 1.
 * So one prefix (range 0, its own rows an item with CAUSAL_A) serves many texts, each with a b of its own. For a
 * backward, ranges of groups are disjoint and cover all key rows of the plan; a group without items has gradient zero.
 * A forward alone may read keys where it likes (caches). */
typedef struct { int32_t item0, nitems, k0[2], nk[2]; } AttnGroup;

typedef struct {
    const AttnItem *items;              /* on the device */
    const AttnGroup *groups;            /* on the device */
    const AttnItem *host_items;
    const AttnGroup *host_groups;
    int32_t nitems, ngroups;
    int32_t max_nq, max_nk;             /* largest nq, largest na + nb of an item */
    int32_t max_group_nk;               /* largest nk[0] or nk[1] of a group */
    int32_t nrows;                      /* rows of q, which its items cover */
    int64_t products;                   /* sum over items of visible (row, key) pairs: the arithmetic */
} AttnPlan;

/* o = dropout(softmax(scale q k^T + bias)) v, heads side by side: head h is columns [h D, (h+1) D) of q and o, and its
 * keys and values are those of key head h / (H / KH). bias, when given: element (h, d + span),
 * d = key's position - row's, held within -span..span (T5's buckets written out by distance); frozen. */
typedef struct {
    const AttnPlan *plan;
    const void *q, *k, *v;              /* elem */
    void *o;                            /* elem; backward: the forward's result */
    float *lse;                         /* (H, nrows) log sum exp of the scores; rows as in q */
    int64_t ldq, ldk, ldv, ldo;
    int32_t H, KH, D;
    float scale;
    const float *bias;                  /* f32 (H, 2 span + 1) or NULL */
    int32_t span;
    Dropout drop;
} Attn;

typedef struct {
    const void *d_o;                    /* elem, stride ldo of Attn */
    void *dq, *dk, *dv;                 /* elem; dq is overwritten */
    int64_t lddq, lddk, lddv;
    bool add;                           /* dk, dv: add, else overwrite (all key rows of the plan are then written) */
} AttnGrad;

/* Between two linear layers: h = f(u + bias), or gated, h = f(u + bias) (up + up_bias), over rows of F. u and up may be
 * the two halves of one matrix, either first. GELU is the exact form x Phi(x); TANH its approximation
 * x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2; QUICK x / (1 + exp(-1.702 x)); SILU x / (1 + exp(-x)). */
typedef enum { ACT_GELU, ACT_GELU_TANH, ACT_GELU_QUICK, ACT_RELU, ACT_SILU } ActKind;

typedef struct Act {
    ActKind kind;
    int64_t N, F, ldu, ldh;
    const void *u, *up;                 /* elem, stride ldu; up NULL: not gated */
    const float *bias, *up_bias;        /* f32 (F) or NULL */
    void *h;                            /* elem, stride ldh; backward: NULL,
        or where to make it again (also u's place) */
} Act;

typedef struct ActGrad {
    const void *dh;                     /* elem, stride lddh */
    void *du, *dup;                     /* elem, stride lddu, overwritten; du may be dh's memory */
    int64_t lddh, lddu;
    float *dbias, *dup_bias;            /* f32 (F), added to; NULL: not wanted */
} ActGrad;

/* z = x + dropout(s + bias), y = norm(z) over rows of C: LN (z - mean) rstd gamma + beta, or with `rms` z rstd gamma +
 * beta, rstd = 1 / sqrt(mean(z^2) + eps). s is overwritten with z, which the backward needs and later rows may use:
 * the stream of a pre-norm model. x NULL: z = dropout(s + bias). s NULL: z is x, which stays as it is (a norm and
 * nothing else). mean (not with rms) and rstd (N) are kept for the backward. */
typedef struct {
    int64_t N;
    int32_t C;
    float eps;
    bool rms;
    void *s;                            /* elem (N,C), in: s, out: z */
    const void *x;                      /* elem (N,C) */
    const float *bias, *gamma, *beta;   /* f32 (C); bias and beta may be NULL */
    void *y;                            /* elem (N,C) */
    float *mean, *rstd;                 /* (N) */
    Dropout drop;
} AddNorm;

typedef struct {
    const void *dy;                     /* elem (N,C) */
    const void *dz;                     /* elem: gradient of z from its other uses, or NULL; may be ds's memory */
    void *ds;                           /* elem (NULL without s), overwritten; may be dy's memory */
    void *dx;                           /* elem (NULL without x) by add_dx */
    float *dbias, *dgamma, *dbeta;      /* f32 (C), added to; NULL: not wanted */
    bool add_dx;
} AddNormGrad;

/* The same norms over `blocks` neighbouring blocks of C columns, each by itself, in place (norms of queries and keys:
 * of each head, or, with one block, of the whole width). gamma, beta (C) serve all blocks. z, mean, rstd are kept for
 * the backward, which turns dx from the result's gradient into the input's; NULL in a forward that is all. */
typedef struct {
    int64_t N, ld, lddx;                /* lddx: dx's stride */
    int32_t blocks, C;
    float eps;
    bool rms;
    void *x;                            /* elem, stride ld */
    const float *gamma, *beta;          /* f32 (C); beta may be NULL */
    void *z;                            /* elem (N, blocks C): x as it was */
    float *mean, *rstd;                 /* (N, blocks); mean not with rms */
} HeadNorm;

/* Pairs of columns turned in place, by an angle that stands for a row's position, in H heads of D columns; only the
 * first R of each head. Pair j of R/2 is columns (j, j + R/2), or (2j, 2j+1) when interleaved:  a' = a cos - b sin, b'
 * = b cos + a sin. Row i uses row at[i] of the tables (less than 0: stays as it is), or i % period when at is NULL.
 * inverse: sin negated, which is the backward. */
typedef struct {
    int64_t N, ld;
    int32_t H, D, R, period;
    bool interleaved, inverse;
    void *x;                            /* elem */
    const float *cos, *sin;             /* f32 (positions, R/2) */
    const int32_t *at;
} Rotary;

/* held: as of Gemm, the type of word and pos.
 *
 * y[i] = source + pos[pos_id[i]];  source = ids NULL: rows[i];  ids[i] >= 0: scale word[ids[i]];  ids[i] < 0: rows[-1
 * - ids[i]]. No position where pos_id is NULL or pos_id[i] < 0. Rows of a language model with visual rows among them,
 * or of an encoder ([CLS] and registers as words, patches as rows). No row of `rows` is used twice. */
typedef struct {
    int64_t N;
    int32_t C;
    float scale;
    const void *word, *rows, *pos;      /* elem (.,C) */
    DType held;
    const int32_t *ids, *pos_id;        /* (N) */
    void *y;                            /* elem (N,C) */
} Lookup;

/* Patches of p x p pixels as rows (image, y, x), top to bottom, left to right; pixels beyond the last whole patch are
 * not looked at. Columns (channel, y, x), or (y, x, channel) when channels_last.
 * v = pixel scale[c] + shift[c] when given. */
typedef struct {
    int64_t images, ldy;
    int32_t height, width, p;           /* three channels */
    DType t, ty;                        /* U8 or F32; ty: of y, elem or f32 */
    bool planar, channels_last;         /* pixels (3, height, width) an image, else (height, width, 3) */
    const void *pixels;
    float scale[3], shift[3];
    void *y;                            /* (images (height / p) (width / p), 3 p p), stride ldy */
} Patches;

/* Rows [0, nq): y = dropout(LN(query[r % Q])); rows [nq, nq+nt): y = dropout(LN(word[ids[t]] + pos[pos_id[t]])).
 * For the backward, tok_* and pos_* are the text rows sorted by id and by position (compressed rows): rows
 * tok_row[tok_ptr[u] .. tok_ptr[u+1]) hold word tok_id[u]. Rows are counted from 0 at the first text row. */
typedef struct {
    int64_t nq, nt;
    int32_t Q, C;
    float eps;
    const void *query, *word, *pos;     /* elem (Q,C) (V,C) (.,C) */
    const int32_t *ids, *pos_id;        /* (nt) */
    const int32_t *tok_id, *tok_ptr, *tok_row;
    const int32_t *posn_id, *posn_ptr, *posn_row;
    int32_t ntok, nposn;                /* distinct ids, distinct positions */
    const float *gamma, *beta;
    void *y;                            /* elem (nq+nt, C) */
    float *mean, *rstd;                 /* (nq+nt) */
    Dropout drop;
} Embed;

typedef struct {
    const void *dy;                     /* elem (nq+nt, C) */
    void *dsum;                         /* elem scratch (nq+nt, C): gradient before the norm; may be dy's memory */
    float *dquery, *dword, *dpos, *dgamma, *dbeta;   /* f32, added to; NULL: not wanted */
} EmbedGrad;

/* Rows of f32 logits S[i si + j sj] (raw similarities), divided by *temp. Targets of row i: column target[i]; or, with
 * row_id/col_id, every j with col_id[j] == row_id[i], in equal parts. Smoothing e is spread over all n columns.
 * loss[i] of each row, dS = scale * dloss_i/dS (overwritten), dtemp[i] = scale * dloss_i/dtemp. losses.md 2, 2a. */
typedef struct {
    int64_t rows, n, si, sj;
    const float *S, *temp;
    const int32_t *target;
    const int64_t *row_id, *col_id;     /* both or neither */
    float smoothing, scale;
    float *loss, *dS, *dtemp;           /* (rows), strides of S, (rows); dS and dtemp may be NULL */
} ItcLoss;

/* For each row one column drawn with weight softmax(S / temp) over the columns that are not its own (target[i], or
 * equal ids): the softmax runs over those (NEG_SAMPLE), or over all columns with 1e-4 added to each weight
 * (NEG_SAMPLE_ALL); or the largest is taken (NEG_HARDEST). losses.md 3. The bits: philox(0, 0, row_pair[i], site) of
 * (seed, step). A row whose columns are all its own draws target[i] (the caller leaves such pairs out). */
typedef enum { NEG_SAMPLE, NEG_SAMPLE_ALL, NEG_HARDEST } NegativeRule;
typedef struct {
    int64_t rows, n, si, sj;
    const float *S, *temp;
    const int32_t *target;
    const int64_t *row_id, *col_id;
    const uint32_t *row_pair;
    NegativeRule rule;
    uint32_t site, step;
    uint64_t seed;
    int32_t *out;                       /* (rows) */
    float *weights;                     /* NULL, or (rows, n) dense: the weights as losses.md 3 gives them */
} Negatives;

/* Softmax cross-entropy of f32 logits with index targets: loss = (1-e) nll + e/n sum_j -logp_j. A row with target < 0
 * does not count: loss, nll and gradient are zero. nll may be NULL. dlogits = scale * gradient, of type dt (elem or
 * f32), may be NULL. losses.md 5, 6. */
typedef struct {
    int64_t rows, n, ld;
    const float *logits;
    const int32_t *target;
    float smoothing, scale;
    float *loss, *nll;                  /* (rows) */
    void *dlogits;
    int64_t ldd;
    DType dt;
} Xent;

/* One range of parameters: p, g, m, v (f32, n). g *= *gscale; decoupled weight decay; bias corrections
 * c1 = 1 - beta1^t, c2 likewise. Writes the elem copy of p when given, the running mean of p when given
 * (ema += (1 - ema_decay)(p - ema)), and zero to g, but for keep_g. *gscale == 0 (a gradient that was not finite)
 * leaves everything as it is, g too. training.md 1.
 *
 * beside: 0, in order; else a number up to ADAMW_BESIDE: behind compute so far and beside what is enqueued later, which
 * reads or writes none of it before adamw_wait(this number, or one that was given later). Numbers rise from call to
 * call of one update. */
enum { ADAMW_BESIDE = 32 };
typedef struct {
    float *p, *g, *m, *v, *ema;
    void *copy;
    int64_t n;
    const float *gscale;
    float lr, beta1, beta2, eps, weight_decay, c1, c2, ema_decay;
    bool keep_g;                        /* whoever comes next overwrites it */
    int beside;
} AdamW;

typedef void EnqueueFn(void *ctx);

typedef struct Backend {
    const char *name;                   /* "cpu" or "cuda" */
    DType elem;
    bool unified;                       /* the host may read and write this memory after sync() */
    size_t workspace;                   /* bytes of scratch that its kernels want */
    const char *(*about)(void);         /* the device in a line; NULL where there is nothing to say */
#define MEMORY(type, name, params) type (*name) params;
#define OP(kind, name, params, args) void (*name) params;
#define COLLECTIVE(type, name, params) type (*name) params;
#include "kernels/backend.def"
    /* Whether gemm takes a B that is held in 16 bits (Gemm.held) in this shape; NULL: in none. */
    bool (*reads_held)(const Gemm *g);
    /* attention by cuDNN where it can take a plan, or by our own kernels (NULL: there are only ours) */
    Status (*use_cudnn)(bool on);
    /* Times what a library offers for n products that will come (their pointers are not used, but for alignment), and
     * takes the fastest of each from then on; those that `kept` names (NULL: none) without timing. *text: all choices,
     * to be kept and freed. NULL: nothing to choose. */
    Status (*choose_products)(const Gemm *g, int n, const char *kept, char **text);
} Backend;

/* `device`: "cpu", "cuda" or "auto" (the GPU when there is one); elem DT_F32 or DT_BF16. local_rank chooses the GPU. */
Status backend_open(const Backend **b, const char *device, DType elem, int local_rank);
void backend_close(const Backend *b);

/* The three that exist. cuda: NULL with a message when this build or machine has none. null: does nothing at all; ops
 * run on it to be measured (memory, arithmetic) without being executed. */
const Backend *backend_cpu(DType elem);
const Backend *backend_null(DType elem);
Backend backend_measuring(const Backend *b);     /* null in the place of b: asks for the memory that b asks for */
Status backend_cuda(const Backend **b, DType elem, int local_rank);

/* Whether bf16 is multiplied faster than f32 here: oneDNN, on a processor with AVX512-BF16 or AMX that it may use
 * (ONEDNN_MAX_CPU_ISA is heard). What `precision: auto` asks. */
bool cpu_has_bf16(void);

/* Backend.repeat and forget where nothing is gained by keeping calls. */
static inline void backend_enqueue(void **kept, uint64_t key, EnqueueFn *enqueue, void *ctx) {
    (void)kept, (void)key;
    enqueue(ctx);
}
static inline void backend_forget(void **kept) { (void)kept; }
