/* backend: what a device can do, one flat struct of functions, and what their arguments mean. The list itself is
 * backend.def: a row an op, from which follow this struct, the null backend, the prototypes and tables of cpu/ and cuda/,
 * and what test_ops holds them to. CPU and CUDA fill one struct each per element type.
 *
 * The caller (ops.c) has checked shapes and taken memory; a backend receives plain pointers and integers that are
 * right. `elem` below is the backend's element type (f32 or bf16): activations, their gradients, and the copies of
 * weights that enter matrix products. LayerNorm parameters, biases of fused kernels, statistics, losses, parameter
 * gradients and the optimizer's state are f32. Sums and softmax are f32 everywhere. All matrices are row-major; ld is a
 * row's stride in elements. All pointers are the device's (`unified`: the host's too). Parameter gradients are always
 * added to; where an activation's gradient may be overwritten or added to, `add` says which.
 *
 * Calls enqueue and return nothing: an error sticks and comes out of status() with the name of what failed. Sums run in
 * a fixed order: the same input gives the same bits. Knows no files, no parameter by name, no layer of any model; what
 * the losses between images and texts need (similarities, their softmax, negatives) is here, because it is kernels. */
#ifndef QF_BACKEND_H
#define QF_BACKEND_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"
#include "kernels/base/rng.h"

/* C(m,n) = [add] C + op(A) op(B) + bias(n).   op(A) is (m,k): A is stored (m,k), or (k,m) when ta. op(B) is (k,n): B is
 * stored (k,n), or (n,k) when tb. A, B are of type ab (elem, or f32), C of type ct (elem, or f32), bias of type elem or
 * NULL. */
typedef struct {
    int64_t m, n, k;
    const void *a, *b, *bias;
    void *c;
    int64_t lda, ldb, ldc;
    DType ab, ct;
    bool ta, tb, add;
} Gemm;

/* Rows [q0, q0+nq) attend to keys [a0, a0+na) and [b0, b0+nb); with `causal`, row q0+i sees only the first i+1 of b.
 * Key number k of a row (for dropout): 0..na-1 in a, then na.. in b. Every row belongs to exactly one item of a
 * plan. */
typedef struct { int32_t q0, nq, a0, na, b0, nb, causal, group; } AttnItem;

/* Items [item0, item0+nitems) share keys: an item's a is empty or the group's range 0, its b empty or range 1. Ranges
 * of groups are disjoint and cover all key rows of the plan; a group without items has gradient zero. */
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

/* o = dropout(softmax(scale q k^T)) v, heads side by side: head h is columns [h D, (h+1) D) of q, k, v, o. */
typedef struct {
    const AttnPlan *plan;
    const void *q, *k, *v;              /* elem */
    void *o;                            /* elem; backward: the forward's result */
    float *lse;                         /* (H, nrows) log sum exp of the scaled scores; rows as in q */
    int64_t ldq, ldk, ldv, ldo;
    int32_t H, D;
    float scale;
    Dropout drop;
} Attn;

typedef struct {
    const void *d_o;                    /* elem, stride ldo of Attn */
    void *dq, *dk, *dv;                 /* elem; dq is overwritten */
    int64_t lddq, lddk, lddv;
    bool add;                           /* dk, dv: add, else overwrite (all key rows of the plan are then written) */
} AttnGrad;

/* y = LN(x + dropout(s + bias)) gamma + beta over rows of C. s is overwritten with the sum z = x + dropout(s + bias),
 * which the backward needs. bias and x may be NULL. mean and rstd (N) are kept for the backward. */
typedef struct {
    int64_t N;
    int32_t C;
    float eps;
    void *s;                            /* elem (N,C), in: s, out: z */
    const void *x;                      /* elem (N,C) */
    const float *bias, *gamma, *beta;   /* f32 (C) */
    void *y;                            /* elem (N,C) */
    float *mean, *rstd;                 /* (N) */
    Dropout drop;
} AddNorm;

typedef struct {
    const void *dy;                     /* elem (N,C) */
    void *ds, *dx;                      /* elem; ds overwritten (may be dy's memory); dx (NULL without x) by add_dx */
    float *dbias, *dgamma, *dbeta;      /* f32 (C), added to; dbias may be NULL */
    bool add_dx;
} AddNormGrad;

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
    float *dquery, *dword, *dpos, *dgamma, *dbeta;   /* f32, added to */
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
 * equal ids): the softmax runs over those (NEG_SAMPLE), or over all columns with 1e-4 added to each weight (NEG_SAMPLE_ALL);
 * or the largest is taken (NEG_HARDEST). losses.md 3. The bits: philox(0, 0, row_pair[i], site) of (seed, step). A row
 * whose columns are all its own draws target[i] (the caller leaves such pairs out). */
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

/* Softmax cross-entropy of f32 logits with index targets: loss = (1-e) nll + e/n sum_j -logp_j. nll may be NULL.
 * dlogits = scale * gradient, of type dt (elem or f32), may be NULL. losses.md 5, 6. */
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

/* One range of parameters: p, g, m, v (f32, n). g *= *gscale; decoupled weight decay; bias corrections c1 = 1 -
 * beta1^t, c2 likewise. Writes the elem copy of p when given, the running mean of p when given (ema += (1 -
 * ema_decay)(p - ema)), and zero to g. *gscale == 0 (a gradient that was not finite) leaves everything as it is, g too.
 * training.md 1. */
typedef struct {
    float *p, *g, *m, *v, *ema;
    void *copy;
    int64_t n;
    const float *gscale;
    float lr, beta1, beta2, eps, weight_decay, c1, c2, ema_decay;
} AdamW;

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
    /* attention by cuDNN where it can take a plan, or by our own kernels (NULL: there are only ours) */
    Status (*use_cudnn)(bool on);
} Backend;

/* `device`: "cpu", "cuda" or "auto" (the GPU when there is one); elem DT_F32 or DT_BF16. local_rank chooses the GPU. */
Status backend_open(const Backend **b, const char *device, DType elem, int local_rank);
void backend_close(const Backend *b);

/* The three that exist. cuda: NULL with a message when this build or machine has none. null: does nothing at all; ops
 * run on it to be measured (memory, arithmetic) without being executed. */
const Backend *backend_cpu(DType elem);
const Backend *backend_null(DType elem);
Status backend_cuda(const Backend **b, DType elem, int local_rank);

/* Whether this CPU multiplies bf16 faster than f32 (AVX512-BF16 or AMX): what `precision: auto` asks. */
bool cpu_has_bf16(void);

#endif
