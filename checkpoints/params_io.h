/* params_io: weights and optimizer state between the flat arrays and files. The parameter table names every tensor. */
#pragma once
#include "checkpoints/checkpoint.h"
#include "checkpoints/weights.h"
#include "kernels/model/dims.h"
#include "kernels/model/params.h"

/* One checkpoint of a run: model, optimizer and, when kept, ema;
 * `run` is the JSON object that says where the run stood. */
typedef struct { const char *out, *run; int64_t step; int keep; bool best; CkptWarn *warn; void *ctx; } SaveSpec;
Status save_run(const Params *p, const SaveSpec *s);         /* all ranks call it; rank 0 writes */

/* Weights, moments and running average from one of our checkpoints; all must be there. Rank 0 reads, all receive: c is
 * NULL on the others. */
Status load_run(Params *p, const Ckpt *c);

/* What of the model a source of weights did not hold. */
typedef struct {
    int missing, n;                     /* tensors it lacks, of how many */
    int needed;                         /* those among them without which images and texts cannot be compared */
    bool text_head;                     /* the head that writes captions is complete */
    char first[128];                    /* the first that is missing; of those that are needed, if any is */
    bool dec_fresh;                     /* the words are all there but [DEC] */
} LoadReport;

/* Weights alone, from any source. What the source lacks keeps its value; the query feed-forward is copied from the text
 * one when only that is there (BERT); of words only [DEC] may be absent, of positions any number. `use_ema`: the
 * running average when the source is a checkpoint that has one. ERR_FORMAT: a tensor of another shape, words of another
 * vocabulary, or not one tensor fits. */
Status load_weights(Params *p, const WeightSource *ws, bool use_ema, LoadReport *r);

/* "12 of 83 tensors come from it; ...": a sentence for the user, NULL without memory. Free it. */
char *load_describe(const LoadReport *r);

/* model.safetensors alone (init, export): the f32 masters under their published names. */
Status save_weights(const Params *p, const float *flat, const char *path);

/* Sizes as far as the tensors tell (heads, pads and ids they do not: left as they are). */
Status dims_of_weights(Dims *d, const WeightSource *ws);
void dims_known(Dims *d, const WeightSource *ws);            /* the same of a part of a model: 0 is unknown */
