/* params: the learned tensors of a model, from a table of rows. From a row follow name, shape, place in memory, start
 * value, decay, the optimizer's ranges, what a checkpoint holds, the listing a user sees, and the loop of the gradient
 * tests. A table is a value: each model has one (qformer_table.h), sizes come by letter. Knows no model.
 *
 * Row order is memory order: query, key and value of a layer stand in a row, so they are one (3C, C) matrix to the
 * product and three names to the checkpoint. What is frozen comes behind what learns: gradient and moments exist for
 * the first part alone.
 *
 * A frozen store (ParamsSpec.frozen) is for models that never learn: matrices as elem alone (2 bytes a number in bf16,
 * and in f32 where they came in 16 bits: `held`), vectors as f32 too, which norms and fused biases read; no gradient,
 * no state. It is filled tensor by tensor, or rows of one, by params_put, so that a loader never holds it all. */
#pragma once
#include <stdbool.h>

#include "kernels/arena.h"
#include "kernels/dist/dist.h"
#include "kernels/tensor.h"

/* Start values. NORMAL: the spread given to params_init. Of those that take an argument: LINEAR U(-1/sqrt(n),
 * 1/sqrt(n)), n the size under the letter arg; VALUE arg; COPY of row arg of the same layer. */
typedef enum { START_NORMAL, START_ZEROS, START_ONES, START_LINEAR, START_VALUE, START_COPY } ParamStart;

/* GROWS: a source with fewer rows fills the first ones (a vocabulary that got words). KEEP_F32: a matrix that a kernel
 * reads as f32 too (a frozen store then holds both). OPTIONAL: a source may lack it; it then keeps its start value. */
enum { PARAM_GROWS = 1, PARAM_KEEP_F32 = 2, PARAM_OPTIONAL = 4 };

typedef struct {
    const char *name;       /* as published; %d is the layer, where the row repeats */
    const char *shape;      /* a letter a side, a digit is itself: "CC", "1QC", "C3pp"; "" is one number */
    const char *where;      /* "": once. "L": in each of size L layers. "L/X": in those whose number X divides. Behind
                             * it "?B": only when size B is not 0 */
    int block;              /* rows of one block stand together layer by layer, so all of a layer is one range, whose
                             * gradient is finished at one moment; blocks stand in a row in the table */
    bool join;              /* starts right behind the row before it (else at a multiple of 64 elements) */
    ParamStart start;
    double arg;             /* of start */
    int flags;
    const char *also;       /* other names of the same tensor, spaces between; or NULL */
} ParamRow;

typedef struct { const ParamRow *row; int n; } ParamTable;

/* Sizes by letter: of['C'] = 768. A letter that is not set is 0. */
typedef struct { int64_t of[128]; } ParamSizes;

/* Which tensors decay, by name and shape: model.md 10, LAVIS at HEAD, and before July 2023. */
typedef enum { DECAY_LAVIS, DECAY_PAPER } DecayRule;

typedef struct {
    char name[128];
    int row, layer;                     /* of the table; layer -1 where it does not repeat */
    int ndim;
    int64_t shape[4];                   /* as published */
    /* as a matrix: sides of 1 in front left out, the first by all others; a vector (1, n) */
    int64_t rows, cols;
    int64_t at, n;                      /* first element and elements in the flat arrays */
    int64_t f32_at;                     /* in the f32 array of a frozen store; -1: not there. Else `at` */
    float rate;                         /* the learning rate is multiplied by it */
    bool decay, frozen;
    int range;                          /* of Params.range; -1: none, it is frozen */
} ParamTensor;

/* A run of neighbouring tensors that the optimizer treats alike. apart: frozen ones stand between it and the range
 * before it, in the table's order. late: an update of it may still be under way beside compute, which waits for that
 * number (adamw_wait) when somebody asks for one of its tensors; 0: none. asked: somebody did since the last update. */
typedef struct { int64_t at, n; float rate; bool decay, apart, asked; int late; } ParamRange;
typedef struct { int n, range[]; } ParamOrder;

typedef struct {
    ParamTable table;
    ParamSizes size;
    const Backend *b;
    int n, nranges;
    ParamTensor *tensor;                /* in the table's order */
    ParamGrad *grad;                    /* of each, what g holds */
    ParamRange *range;                  /* trainable ranges */
    ParamOrder *order;                  /* those that were asked for since the last update, in that order */
    int64_t total;                      /* elements of a flat array, gaps included */
    int64_t learns;                     /* of them what g, m, v and ema have: the trainable ones, at the front */
    int64_t count;                      /* numbers, without gaps */
    int64_t vectors;                    /* elements of w in a frozen store */
    float *w, *g, *m, *v, *ema;         /* flat, on the device; g, m, v only when training, ema when wanted */
    DistPart own;                       /* elements of m, v, ema that are here: all, or this rank's part when sharded */
    bool sharded, frozen;
    void *copy;                         /* elem; w itself in f32, but for matrices that are held in 16 bits */
    DType type;                         /* of copy */
    int *index;                         /* tensor of (row, layer), -1 where there is none */
    int layers;                         /* stride of index */
} Params;

/* freeze: patterns, commas between; * and ?. rates: "pattern=factor" likewise, the first that matches. A pattern that
 * matches nothing is refused. sharded: each rank has its part of the optimizer's state alone. frozen: a frozen store,
 * whatever the rest says. held: BF16 or F16: all matrices come in that type, so under f32 they can stay in it, where
 * the backend has products for that (Backend.reads_held). */
typedef struct {
    bool training, ema, sharded, frozen;
    DType held;
    DecayRule rule;
    const char *freeze, *rates;
} ParamsSpec;

/* Lays out the table and takes the flat arrays from `run` (which may only measure). Everything is zero afterwards. The
 * table must live as long as p. */
Status params_open(Params *p, ParamTable table, const ParamSizes *size, const Backend *b, Arena *run,
                   const ParamsSpec *spec);
void params_close(Params *p);

/* One tensor as matrix or vector; layer -1 where the row does not repeat. g is NULL for what is frozen, w for matrices
 * of a frozen store that are not f32. params_has: whether it exists (layers, "?B"). */
Param params_get(const Params *p, int row, int layer);
bool params_has(const Params *p, int row, int layer);
const ParamTensor *params_tensor(const Params *p, int row, int layer);
/* joined rows as one matrix */
Param params_joined(const Params *p, int first, int last, int layer, int last_layer);
/* The tensor of the same layer whose start values t's are a copy of; NULL: it has its own. */
const ParamTensor *params_copy_of(const Params *p, const ParamTensor *t);
DistPart params_block(const Params *p, int row, int layer); /* where what learns of row's block stands in that layer */
const ParamTensor *params_find(const Params *p, const char *name); /* also under its other names; NULL when unknown */

/* An update runs beside the forward that follows it (AdamW.beside), in the order in which that reads. params_get and
 * params_joined, and all below, let compute wait for what they hand out, so nobody else need know of it; who reads the
 * flat arrays by itself calls params_arrived. params_order: all ranges by number, those
 * first that were first asked for since the last call. */
void params_arrived(const Params *p);
const int *params_order(const Params *p);

/* Gradients of elements [at, end), whole: numbers of an update before, which nobody overwrote, become zero. */
void params_whole_grads(const Params *p, int64_t at, int64_t end);

/* Start values (training.md 8): std for NORMAL rows. Deterministic in seed, independent of layout and device. */
Status params_init(Params *p, uint64_t seed, float std);

/* Elements [first, first + n) of t from the host, in any type that holds floats; in place for kernels at once. Both
 * kinds of store. params_values: all of t, as f32. */
Status params_put(Params *p, const ParamTensor *t, int64_t first, int64_t n, const void *host, DType type);
Status params_values(const Params *p, const ParamTensor *t, float *host);

/* Of a store that is not frozen: host copies of one tensor in one of the flat arrays, and the elem copy after the
 * masters were written from outside. */
void params_read(const Params *p, const ParamTensor *t, const float *flat, float *host);
void params_write(const Params *p, const ParamTensor *t, float *flat, const float *host);
void params_refresh(const Params *p);
