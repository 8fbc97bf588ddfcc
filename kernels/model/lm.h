/* lm: a language model: its sizes, its weights, and what is made of them once for all passes.
 *
 * The weights are a frozen store (params.h): 2 bytes a number in bf16. The walk back goes through the model into the
 * visual rows and makes no product for weights. checkpoints/lm_weights.c fills the store tensor by tensor; lm_ready
 * then makes what follows from them. Of the Llama family a model may also learn (train/reader.h): then its store is an
 * ordinary one, and the same passes leave gradients for all of it.
 *
 * Names of the tables are those of the published files. Mathematics and their sources: opt.c, t5.c, llama.c;
 * spec/stage2.md 2a, 2b, 3a. */
#pragma once
#include "kernels/model/lm_dims.h"
#include "kernels/model/params.h"
#include "kernels/ops.h"

/* A family's rows; lm.c has their letters. bias: those of T5's position biases, encoder and decoder. */
typedef struct { ParamTable params; int bias[2]; } LmTable;

typedef struct {
    LmDims d;
    const Backend *b;
    const LmTable *table;
    Params params;                      /* a frozen store */
    int32_t rows;                       /* most rows of a text, prefix included */
    float *cos, *sin;                   /* Llama: (rows, D/2) */
    Tensor *kv;                         /* T5: (M) the encoder's keys and values in a pass; room only */
    float *bias[2];                     /* T5, encoder and decoder: (H, 2 distance + 1), by key's position - row's */
} Lm;

/* lm_open of lm_model.h knows the table of a family. Lays it out and takes memory from `run` (which may only measure).
 * d->head must be settled. rows: most rows that a text will have, prefix included; ERR_USAGE when the model has not so
 * many positions. */
Status lm_open_table(Lm *m, const LmTable *table, const LmDims *d, const Backend *b, Arena *run, int32_t rows,
                     const ParamsSpec *spec);
void lm_close(Lm *m);

/* When all tensors are there (params_put): what follows from them. */
Status lm_ready(Lm *m);

/* The weight of a table's row, rows joined from `first` to `last`, in one layer (-1: LM_ONCE). A tensor that the model
 * does not have gives a Param with NULL pointers. Vectors have w (f32) and copy,
 * matrices copy alone (which is w in f32). */
Param lm_get(const Lm *m, int first, int last, int layer);
static inline Param lm_one(const Lm *m, int row, int layer) { return lm_get(m, row, row, layer); }

/* The root of the mean square of the words' numbers: reads them all to the host. */
Status lm_words_rms(const Lm *m, double *rms);
