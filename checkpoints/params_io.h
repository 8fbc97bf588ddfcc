/* save: weights and optimizer state between the flat arrays and files. The parameter table names every tensor. */
#ifndef QF_SAVE_H
#define QF_SAVE_H
#include "checkpoints/checkpoint.h"
#include "checkpoints/weights.h"
#include "kernels/model/dims.h"
#include "kernels/model/params.h"

/* One checkpoint of a run: model, optimizer and, when kept, ema; `run` is the JSON object that says where the run
 * stood. */
typedef struct { const char *out, *run; int64_t step; int keep; bool best; CkptWarn *warn; void *ctx; } SaveSpec;
Status save_run(const Params *p, const SaveSpec *s);         /* all ranks call it; rank 0 writes */

/* Weights, moments and running average from one of our checkpoints; all must be there. Rank 0 reads, all receive: c is
 * NULL on the others. */
Status load_run(Params *p, const Ckpt *c);

/* Weights alone, from any source. What the source lacks keeps its value: *missing counts those tensors; the query
 * feed-forward is copied from the text one when only that is there (BERT), a table with fewer words fills the first
 * rows. `use_ema`: the running average when the source is a checkpoint that has one. */
Status load_weights(Params *p, const WeightSource *ws, bool use_ema, int *missing, char *first_missing, size_t n);

/* model.safetensors alone (init, export): the f32 masters under their published names. */
Status save_weights(const Params *p, const float *flat, const char *path);

/* Sizes as far as the tensors tell (heads, pads and ids they do not: left as they are). */
Status dims_of_weights(Dims *d, const WeightSource *ws);

#endif
