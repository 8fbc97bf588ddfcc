/* lm: a frozen language model: its table of tensors, where they lie, and one forward pass for the three families.
 *
 * Frozen is a property of the store: tensors have the elem copy alone (vectors in f32 too, for norms and biases); no
 * master, no gradient, no moments: 2 bytes a number in bf16. The walk back goes through the model into the visual rows
 * and makes no product for weights. Who fills the store (checkpoints/lm_weights.c) writes tensor by tensor; lm_ready
 * then makes what follows from them.
 *
 * Names of the tables are those of the published files. Mathematics and their sources: opt.c, t5.c, llama.c;
 * spec/stage2.md 2a, 2b, 3a. */
#ifndef QF_LM_H
#define QF_LM_H
#include "kernels/arena.h"
#include "kernels/model/lm_dims.h"
#include "kernels/ops.h"

/* A row of a family's table. shape: letters of LmDims (A = H D, B = K D, P position rows, U buckets) for rows and
 * columns. where: once, in every layer, or in every layer of T5's decoder. needs: what must hold for the tensor to
 * exist. join: stands right behind the row before it, so that both are one matrix to a product. other: a second name
 * that a tied tensor may be stored under. */
typedef enum { LM_ONCE, LM_LAYER, LM_DECODER } LmWhere;
typedef enum { LM_ALWAYS, LM_IF_QKV_BIAS, LM_IF_OUT_BIAS, LM_IF_FFN_BIAS, LM_IF_NARROW, LM_IF_LAST_NORM, LM_IF_GATED,
               LM_IF_PLAIN, LM_IF_OWN_HEAD } LmNeeds;
typedef struct { const char *name, *other, *shape; LmWhere where; LmNeeds needs; bool join; } LmRow;
/* bias: rows of T5's position biases, encoder and decoder; else -1. */
typedef struct { const LmRow *rows; int n, bias[2]; } LmTable;


typedef struct {
    const LmRow *row;
    int layer;                          /* -1: LM_ONCE */
    char name[96];
    int ndim;
    int64_t shape[2], n, at;            /* elements; first one in the flat array */
    int64_t vector_at;                  /* first one in the f32 array; -1: a matrix, which is not in it */
} LmTensor;

typedef struct {
    LmDims d;
    const Backend *b;
    const LmTable *table;
    LmTensor *tensor;                   /* (n) in memory order */
    int n, *first;                      /* first[r]: tensor of row r's first layer, -1: there is none */
    int stride[3];                      /* tensors of a layer, by LmWhere */
    int64_t total, vectors, count;      /* elements of the flat arrays, gaps included; learned numbers */
    void *copy;                         /* elem, on the device */
    float *vector;                      /* f32, on the device; copy itself when elem is f32 */
    int32_t rows;                       /* most rows of a text, prefix included */
    float *cos, *sin;                   /* Llama: (rows, D/2) */
    Tensor *kv;                         /* T5: (M) the encoder's keys and values in a pass; room only */
    float *bias[2];                     /* T5, encoder and decoder: (H, 2 distance + 1), by key's position - row's */
} Lm;

/* lm_open of lm_model.h knows the table of a family. Lays it out and takes memory from `run` (which may only measure). d->head must be settled. rows: most rows
 * that a text will have, prefix included; ERR_USAGE when the model has not so many positions. */
Status lm_open_table(Lm *m, const LmTable *table, const LmDims *d, const Backend *b, Arena *run, int32_t rows);
void lm_close(Lm *m);

/* Writes elements [first, first + n) of a tensor from f32, for the loader; then, when all are there, lm_ready. */
void lm_write(Lm *m, const LmTensor *t, int64_t first, const float *x, int64_t n);
Status lm_ready(Lm *m);

/* The weight of a table's row, rows joined from `first` to `last`, in one layer (-1: LM_ONCE). A tensor that the model
 * does not have gives a Param with NULL pointers. Vectors have w (f32) and copy, matrices copy alone (which is w in
 * f32). */
Param lm_get(const Lm *m, int first, int last, int layer);

/* T5's bucket of a key that stands d rows behind (d < 0: before) the row that looks at it; spec/stage2.md 3a. */
int32_t lm_bucket(const LmDims *dims, int32_t d, bool both_sides);

/* A sum over all bytes of the store: the same before and after whatever must not change it. ERR_MEMORY, ERR_DEVICE. */
Status lm_checksum(const Lm *m, uint64_t *sum);

#endif
