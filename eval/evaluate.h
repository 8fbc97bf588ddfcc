/* evaluate: what the commands that use a model share: model, data and encoder opened together, features of a split
 * computed by all ranks, and results that appear whole. */
#ifndef QF_EVALUATE_H
#define QF_EVALUATE_H
#include "data/format/jsonfile.h"
#include "eval/recall.h"
#include "eval/use.h"
#include "kernels/base/status.h"

typedef struct {
    Use use;
    EvalSet set;                        /* the split, when there is one */
    Encoder enc;
    Meter meter;
    bool speaks, quiet;                 /* rank 0; no lasting lines, since results go to stdout */
} Evaluation;

typedef struct {
    UseData data;
    bool any;                           /* a stage-2 model will do, too; it has no encoder */
    bool split;                         /* data.test_split is laid out as an evaluation set */
    int tokens;                         /* word pieces a text keeps, at most the model's positions; 0: as in training */
    const char *result, *beside;        /* as results_claim */
} EvaluationSpec;
Status evaluation_open(Evaluation *e, const Options *o, const EvaluationSpec *spec);
void evaluation_close(Evaluation *e);

/* Progress with a meter on rank 0; interrupted by the user's signal on all. */
EvalProgress evaluation_progress(Evaluation *e, const char *what, const char *unit, int64_t total);
void evaluation_progress_end(Evaluation *e, const EvalProgress *p);

/* Features of all images (NI,Q,Z) and texts (NT,Z) of the set, on every rank; each computes its share. Free them. */
Status evaluation_features(Evaluation *e, float **I, float **T);

float cosine_max(const float *I, const float *T, int64_t Q, int64_t Z);       /* max over queries of <I[q], T> */

/* A result file: out=FOLDER gives FOLDER/name, out=FILE with the ending of `name` gives FILE, no out gives NULL.
 * Free it. The folder is made. */
Status result_path(const Options *o, const char *name, char **path);

/* Before anything is computed: ERR_USAGE when the result file is there already and not overwrite=true (outfile_claim),
 * or the second one, `beside` it: "l" is the same name with an l (JSON Lines), any other the name of a file in the
 * folder `out`. NULL: there is none. */
Status results_claim(const Options *o, const char *name, const char *beside);

/* Recall as rows of a table, and as members of a JSON object under the reference's names (txt_r1 ... agg_metrics)
 * with mean and median rank. Chance has no ranks. */
void recall_print_head(void);
void recall_print(const char *name, const Recall *r, bool ranks);
void recall_write(JsonWriter *w, const Recall *r, bool ranks);

#endif
