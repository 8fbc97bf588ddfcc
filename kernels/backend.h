/* backend: THE list of what a device can do, one flat struct of functions. CPU and CUDA fill one each per element type.
 *
 * The caller (ops.c) has checked shapes and taken memory; a backend receives plain pointers and integers that are
 * right. `elem` below is the backend's element type (f32 or bf16): activations, their gradients, and the copies of
 * weights that enter matrix products. LayerNorm parameters, biases of fused kernels, statistics, losses, parameter
 * gradients and the optimizer's state are f32. Sums and softmax are f32 everywhere. All matrices are row-major; ld is a
 * row's stride in elements. All pointers are the device's (`unified`: the host's too). Parameter gradients are always
 * added to; where an activation's gradient may be overwritten or added to, `add` says which.
 *
 * Calls enqueue and return nothing: an error sticks and comes out of status() with the name of what failed. Sums run in
 * a fixed order: the same input gives the same bits. Does not know files, parameters, or what a Q-Former is. */
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
 * equal ids). rule: see NegativeRule. losses.md 3. The bits: philox(0, 0, row_pair[i], site) of (seed, step). A row
 * whose columns are all its own draws target[i] (the caller leaves such pairs out). */
typedef enum { NEG_SAMPLE, NEG_SAMPLE_OLD, NEG_HARDEST } NegativeRule;
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
    const char *(*about)(void);         /* the device in a line; NULL where there is nothing to say */

    /* memory and order */
    Status (*alloc)(void **p, size_t bytes);            /* aligned to 256; not cleared */
    void (*release)(void *p);
    Status (*host_alloc)(void **p, size_t bytes);       /* pinned where that means something */
    void (*host_release)(void *p);
    void (*set_workspace)(void *p, size_t bytes);       /* scratch of the kernels, from the run arena */
    size_t workspace;                                   /* bytes they want */
    void (*zero)(void *p, size_t bytes);
    void (*copy)(void *dst, const void *src, size_t bytes);       /* device to device */
    /* in the order of compute; src pinned, left alone until sync */
    void (*upload)(void *dst, const void *src, size_t bytes);
    void (*download)(void *dst, const void *src, size_t bytes);   /* waits */
    /* download without waiting; dst pinned, valid after fetch_wait */
    void (*fetch)(void *dst, const void *src, size_t bytes);
    void (*fetch_wait)(void); /* for the last fetch and what came before it, not for what was enqueued since */
    /* upload beside compute, after the last compute that used dst */
    void (*prefetch)(void *dst, const void *src, size_t bytes);
    void (*prefetch_wait)(void);                                  /* compute enqueued from here on sees it */
    void (*sync)(void);
    Status (*status)(void);             /* OK, or the first thing that failed, in a sentence */
    void (*mark)(const char *name);     /* a range for profilers; NULL ends it */

    /* matrix products and what stands beside them */
    void (*gemm)(const Gemm *g);
    void (*colsum)(float *db, const void *dy, int64_t N, int64_t C, int64_t ld);          /* db(C) += column sums */
    void (*gelu)(void *h, const void *u, const float *bias, int64_t N, int64_t F); /* h = gelu(u + bias), exact erf */
    /* its gradient; h, when given, is gelu(u + bias) once more. du may be dh's memory, h may be u's */
    void (*gelu_bwd)(void *du, void *h, float *dbias, const void *dh, const void *u, const float *bias, int64_t N,
                     int64_t F);
    void (*add_norm)(const AddNorm *a);
    void (*add_norm_bwd)(const AddNorm *a, const AddNormGrad *g);
    void (*embed)(const Embed *e);
    void (*embed_bwd)(const Embed *e, const EmbedGrad *g);
    void (*attention)(const Attn *a);
    void (*attention_bwd)(const Attn *a, const AttnGrad *g);

    /* image side: x^ = (f - mean) rstd of raw features (N,E) of type t, times scale[row / P] when given; elem out.
     * fold: W' = W diag(gamma), c' = b + W beta (both elem) of f32 W (M,E). unfold: its backward, from G = dY^T x^
     * (M,E) and s = column sums of dY (M): dW += G diag(gamma) + s beta^T, dgamma += colsum(G * W), dbeta += W^T s, db
     * += s. */
    void (*normalize)(void *xhat, const void *f, DType t, const float *scale, int64_t N, int64_t E, int64_t P,
                      float eps);
    void (*fold)(void *Wf, void *cf, const float *W, const float *b, const float *gamma, const float *beta, int64_t M,
                 int64_t E);
    void (*unfold)(float *dW, float *db, float *dgamma, float *dbeta, const float *G, const float *s, const float *W,
                   const float *gamma, const float *beta, int64_t M, int64_t E);

    /* heads. l2norm: y(N,Z) = x / max(|x|, 1e-12), f32 out, norm (N) kept. mean over Q rows: x (n*Q, C) -> y (n, C).
     * simmax: S[i si + j sj] = max_q <I[i,q], T[j]>, arg = that q; I (ni,Q,Z), T (nt,Z) f32. Ties go to the lowest
     * q. */
    void (*l2norm)(float *y, float *norm, const void *x, int64_t N, int64_t Z);
    void (*l2norm_bwd)(void *dx, const float *dy, const float *y, const float *norm, int64_t N, int64_t Z);
    void (*segment_mean)(void *y, const void *x, int64_t n, int64_t Q, int64_t C);
    void (*segment_mean_bwd)(void *dx, const void *dy, int64_t n, int64_t Q, int64_t C, bool add);
    void (*simmax)(float *S, int32_t *arg, const float *I, const float *T, int64_t ni, int64_t nt, int64_t Q, int64_t Z,
                   int64_t si, int64_t sj);
    void (*simmax_bwd_image)(float *dI, const float *dS, const int32_t *arg, const float *T, int64_t ni, int64_t nt,
                             int64_t Q,
                             int64_t Z, int64_t si, int64_t sj);                          /* dI (ni,Q,Z) += */
    void (*simmax_bwd_text)(float *dT, const float *dS, const int32_t *arg, const float *I, int64_t ni, int64_t nt,
                            int64_t Q,
                            int64_t Z, int64_t si, int64_t sj);                           /* dT (nt,Z) += */
    void (*itc_loss)(const ItcLoss *l);
    void (*negatives)(const Negatives *n);
    void (*xent)(const Xent *x);

    /* rows and plain arrays. copy_rows: dst row di[i] (i when NULL) = or += src row si[i] (i when NULL); di has no
     * duplicates. */
    void (*copy_rows)(void *dst, int64_t ldd, const int32_t *di, const void *src, int64_t lds, const int32_t *si,
                      int64_t n, int64_t width, bool add);
    /* between f32 and elem; both may be equal */
    void (*cast)(void *dst, DType dt, const void *src, DType st, int64_t n);
    void (*axpy)(float *y, const float *x, float a, int64_t n);                           /* y += a x */
    void (*sum)(float *out, const float *x, int64_t n, bool add);                         /* out[0] = or += sum of x */

    /* optimizer. sumsq: out[0] = or += sum of squares of g (f64 accumulation). grad_scale: norm = sqrt(sum of
     * sumsq[0..n)); *scale = 0 when norm is not finite, else max_norm / norm when 0 < max_norm < norm, else 1;
     * *norm_out = norm. */
    void (*sumsq)(double *out, const float *g, int64_t n, bool add);
    void (*grad_scale)(float *scale, float *norm_out, const double *sumsq, int n, float max_norm);
    void (*adamw)(const AdamW *a);

    /* collectives of device memory over all ranks (NULL where host memory does: dist.h) */
    Status (*comm_open)(const void *id, int rank, int ranks);
    Status (*comm_id)(void *id, size_t bytes);
    /* sum, on the communication stream, after compute so far */
    void (*all_reduce)(float *x, int64_t n, bool bf16_wire);
    /* The same, but element i of the whole array, which x + i - at holds, gets its sum on rank i / part alone; the
     * other ranks' copies are as they were. */
    void (*reduce_parts)(float *x, int64_t at, int64_t n, int64_t part, bool bf16_wire);
    void (*all_reduce_wait)(void);                               /* compute enqueued from here on sees the sums */
    void (*all_gather)(void *dst, const void *src, size_t bytes_a_rank);
    void (*comm_close)(bool abort);      /* abort: what is under way will never end */

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
