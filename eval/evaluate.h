/* evaluate: what the commands that use a model share: model, data and encoder opened together, features of a split
 * computed by all ranks. */
#pragma once
#include "eval/use.h"
#include "kernels/base/status.h"

typedef struct {
    Use use;
    EvalSet set;                        /* the split, when it is wanted */
    int batch;                          /* images, texts or pairs at a time */
    Encoder enc;
    Meter meter;
    bool speaks, quiet;                 /* rank 0; no lasting lines, since results go to stdout */
} Evaluation;

typedef struct {
    bool any;                           /* a stage-2 model will do, too; it has no encoder */
    bool writes;                        /* texts are wanted, no encoder: either stage will do */
    bool split;                         /* data.test_split is laid out as an evaluation set */
    int64_t limit;                      /* of its images, 0: all */
    int tokens;                         /* word pieces a text keeps, at most the model's positions; 0: as in training */
    const char *result, *beside;        /* as result_claim */
} EvaluationSpec;
Status evaluation_open(Evaluation *e, const Options *o, const EvaluationSpec *spec);
void evaluation_close(Evaluation *e);

/* Progress with a meter on rank 0; interrupted by the user's signal on all. */
EvalProgress evaluation_progress(Evaluation *e, const char *what, const char *unit, int64_t total);
void evaluation_progress_end(Evaluation *e, const EvalProgress *p);

/* Features of all images (NI,Q,Z) and texts (NT,Z) of the set, on every rank; each computes its share. Free them. */
Status evaluation_features(Evaluation *e, float **I, float **T);
