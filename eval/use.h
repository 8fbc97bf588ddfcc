/* use: a trained model opened for use: weights, vocabulary, sizes, and a data set, from what the user named.
 *
 * Every evaluation command begins here. `in` is anything weights.h takes; from a checkpoint of ours come the
 * vocabulary's path, the number of heads and the text limits it was trained with, unless options say otherwise. */
#ifndef QF_USE_H
#define QF_USE_H
#include "checkpoints/weights.h"
#include "configs/options.h"
#include "eval/evalset.h"
#include "kernels/model/qformer.h"

typedef struct {
    const Options *o;
    const Backend *b;
    Arena mem;
    QFormer model;                      /* weights only; the running average when the checkpoint has one and use_ema */
    Dims d;
    Tokenizer *tok;
    Set *set;                           /* data.test, else the data the model was trained on; NULL when not wanted */
    const char *split;
    TextSpec text;
    char *vocab, *prompt, *data;        /* what was found */
    int64_t step;                       /* of the checkpoint, -1 for other sources */
    char path[1024];                    /* the weights that were opened */
} Use;

typedef enum { USE_DATA_NO, USE_DATA_IF_GIVEN, USE_DATA } UseData;

/* The configuration that one of our checkpoints carries; *old is NULL for weights from elsewhere. One that is not
 * understood is an error: the number of heads, for one, is written nowhere else, and a wrong one only gives wrong
 * figures. */
Status use_trained_with(Options **old, const WeightSource *ws);

Status use_open(Use *u, const Options *o, UseData data);
void use_close(Use *u);

#endif
