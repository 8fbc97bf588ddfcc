/* tape: what was computed, so that it can be walked back.
 *
 * Eager: an op executes at once and, when recording, leaves a node; tape_backward calls the nodes' backwards from the
 * last to the first. An op is exactly as large as a kernel. Gradients of activations live in a pool and are freed as
 * soon as the walk has passed the op that made the tensor. Run on the null backend and measuring arenas, the same code
 * measures memory and arithmetic. Does not do higher derivatives, nor graphs: order of execution is order of the tape.
 * */
#pragma once
#include "kernels/arena.h"
#include "kernels/tensor.h"

typedef struct Tape Tape;
typedef struct Node Node;
typedef void (*BackFn)(Tape *, const Node *);
typedef void PassedFn(void *ctx, int place);
typedef void WatchFn(void *ctx, Tape *t, const Node *n, double seconds, bool back);

struct Node {
    const char *name;
    BackFn back;
    Tensor y, x, x2;                     /* output, inputs */
    Param w, b, w2, b2, b3;              /* learned inputs */
    void *saved[4];
    int64_t n[4];
    union {
        Act act;
        AddNorm norm;
        HeadNorm heads;
        Embed embed;
        Lookup lookup;
        Rotary rotary;
        Dropout drop;
        Attn attn;
        struct { PassedFn *fn; void *ctx; int place; } passed;
    } u;
};

/* Products into gradients of parameters that wait for others of their layer, and the gradients of activations that they
 * read: blocks of the pool that would be free already. */
enum { TAPE_LATER = 8 };
typedef struct { Gemm g[TAPE_LATER]; void *held[TAPE_LATER]; int n, nheld; } TapeLater;

typedef struct { void *p; size_t bytes; bool taken; } TapeExtra;
typedef enum { TAPE_ALONE, TAPE_FIRST, TAPE_SECOND, TAPE_BOTH } TapePass;

struct Tape {
    const Backend *b;                    /* computes; the null backend once something failed, while `device` stays */
    const Backend *device;
    Arena *step;                         /* activations, then the pool of gradients, then scratch */
    Pool pool;
    bool recording, walking;
    bool roomy;                          /* keeps what a walk back could make again, for fewer bytes to move */
    bool waits;                          /* a layer's gradients of weights are one call of gemms (GPU, bf16) */
    TapeLater later;
    Node *nodes;
    int nnodes, cap_nodes;
    TapeExtra *extra;                    /* blocks that the pool had no room for, kept for steps to come */
    int nextra, cap_extra;
    Grad **grads;                        /* in order of birth */
    int ngrads, cap_grads;
    TapePass pass;
    Grad **kept;                         /* tensors of two waves, in the order in which they were taken */
    int nkept, cap_kept, next_kept;
    int64_t before, behind, second;      /* rows left free around the first wave; of the second in front of it */
    struct { int nodes, grads; } at;     /* where the walk over both waves belongs */
    struct { const Backend *b; double flops, attention; int nodes, grads; } set_aside;
    double flops, flops_attention;       /* counted arithmetic, forward and backward; attention's is part of it */
    Status st;                           /* first failure; from then on nothing is executed */
    /* when set: called for each op, once its result stands and once its gradients do; the device then stands still. For
     * looking at numbers and times, not for training */
    WatchFn *watch;
    void *watch_ctx;
    double watch_at, watch_took;         /* when the op before had ended; how long the last one took */
    int watched;                         /* nodes that were told of */
    PassedFn *passed;                    /* when set while recording: called when the walk back comes by a tape_place */
    void *passed_ctx;
};

Status tape_open(Tape *t, const Backend *b, Arena *step);
void tape_close(Tape *t);
void tape_reset(Tape *t, bool recording);                    /* forgets nodes and tensors, empties the step arena */

/* from the step arena; wants a gradient when recording */
Tensor tape_new(Tape *t, int64_t rows, int64_t cols, DType dt);
Tensor tape_leaf(void *data, int64_t rows, int64_t cols, DType dt);/* somebody else's memory, no gradient */
Tensor tape_columns(Tape *t, Tensor x, int64_t first, int64_t n); /* a column block with a gradient block of its own */
/* x's memory for another result, with a gradient of its own; what stood there is no longer read, by any backward
 * either */
Tensor tape_reuse(Tape *t, Tensor x);
Tensor tape_like(Tape *t, Tensor x, int64_t cols, DType dt); /* new rows for x's; of two waves where x is */
void *tape_push(Tape *t, int64_t count, int size);           /* from the step arena, no gradient */
/* `count` f32 that stand beside each row of x, from x's first row on; `which` of two. Of two waves they are both
 * waves', and a vector (rows of the whole tensor) for each of the count. */
float *tape_beside(Tape *t, Tensor x, int which, int64_t count);
Node *tape_node(Tape *t, const char *name, BackFn back);     /* NULL when not recording */
void tape_place(Tape *t, int place); /* everything recorded after it has been walked back then */

/* Two waves, one walk back. What a network computes of a first wave of rows, and later of a second one, lies in tensors
 * that hold both, so that the walk back is that of one pass over all of them: each weight's gradient is one product.
 *
 *     rows of a tensor     | before              | first wave           | behind              |
 *                          |    [ query rows 2   |  query 1 , text 1    |  text 2 ]           |
 *
 * tape_first leaves `before` and `behind` rows free around those of the first wave; tape_second says how many rows of
 * the second wave stand in front, tape_both walks over [ ] together, tape_alone ends each. The network is run in all
 * three, and must take its tensors in the same order: in the second and in both it gets those of the first, as far as
 * they are its own. Nothing is recorded in the first and the second, nothing executed in both: what is recorded there
 * takes its place before what was recorded since the first one ended (heads, losses). Between, the tape is used as
 * ever. Other ops use tape_new, whose memory is nobody else's. */
void tape_first(Tape *t, int64_t before, int64_t behind);
void tape_second(Tape *t, int64_t rows_in_front);
void tape_both(Tape *t);
void tape_alone(Tape *t);
/* A tensor of two waves: with rows free before it, behind it, both or none. As tape_new in a tape that is alone. */
Tensor tape_kept(Tape *t, int64_t rows, int64_t cols, DType dt, bool before, bool behind);

void tape_seed(Tape *t, Tensor x, const void *grad); /* adds grad (x's type, dense) to x's gradient, before the walk */
void tape_backward(Tape *t);

/* For backwards. tape_grad_of: the finished gradient of an output, rows nobody wrote zeroed; NULL when nobody wrote
 * any. tape_grad_to: where to put an input's gradient, and whether to add; NULL when it wants none. */
void *tape_grad_of(Tape *t, Tensor y);
void *tape_grad_to(Tape *t, Tensor x, bool *add);
int64_t tape_grad_ld(Tensor x);
/* Where a parameter's gradient goes, or NULL: for kernels that add to it (what is stale becomes zero first), and for
 * those that can write it, `add` when there is a sum already. zeros: adds, and says whether it is to zeros. */
float *tape_param_grad(Tape *t, Param p);
float *tape_param_grad_zeros(Tape *t, Param p, bool *zeros);
float *tape_param_grad_to(Tape *t, Param p, bool *add);

/* A product whose C, and sums, are a parameter's gradient: with others, when the walk comes by the next tape_place or
 * ends, or as soon as somebody else adds to that gradient. What it reads stays as it is until then. */
void tape_gemm_later(Tape *t, const Gemm *g);

/* Scratch of one op: take, use, give back all. */
void *tape_scratch(Tape *t, int64_t count, int size);
void tape_scratch_free(Tape *t, void *p);

void tape_fail(Tape *t, Status st);                          /* message already set */
Status tape_status(Tape *t);                                 /* the tape's, the arena's or the device's failure */
