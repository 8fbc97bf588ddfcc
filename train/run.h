/* run: a training run from its options to its last checkpoint.
 *
 *     open     backend, vocabulary, data, sizes, measured memory, start values or the newest checkpoint
 *     loop     batch, step, update, log; now and then validation and a checkpoint
 *     close    the last checkpoint, also when asked to stop
 *
 * Everything a step depends on is a function of (options, step) and the checkpoint: a run that was killed and resumed
 * ends with the bytes of one that never stopped. */
#pragma once
#include "data/loader.h"
#include "eval/evalset.h"
#include "eval/quiz.h"
#include "eval/recall.h"
#include "eval/setup.h"
#include "kernels/watch.h"
#include "eval/speaker.h"
#include "kernels/base/lockfile.h"
#include "train/feed.h"
#include "train/log.h"
#include "train/recipe.h"

typedef struct {
    const Options *o;
    LockFile *lock;                     /* rank 0 has `out` for itself */
    bool made_out;                      /* and made it: a run that is refused leaves no empty folder */
    const Backend *b;
    Tokenizer *tok;                     /* words of what learns; NULL when it reads none (stage 2) */
    Speaker speaker;                    /* stage 2: the language model */
    Speech speech;                      /* of a language model that learns */
    Set *train, *val;                   /* val may be the same set */
    Loader *loader;
    Log *log;
    Trainer t;
    Dims d;
    TrainerSpec spec;
    Learns learns;
    Stage1Spec stage1;                  /* what spec.spec is: one of the three */
    Stage2Spec stage2;
    ReaderSpec reader;
    Feed feed, val_feed;                /* stage 2: what is said of the pictures of a batch */
    AdamSpec adam;
    Schedule schedule;
    EvalSet evalset;
    Encoder encoder;
    /* of models that speak: what they say of pictures of data.val; set.NI 0: none */
    Quiz quiz;
    Watch watch;                        /* -vv */
    double peak;                        /* measured GEMM rate, FLOP/s */
    int64_t steps, steps_per_epoch;
    int64_t short_text;                 /* as in Origin; run_look finds it */
    bool validates;

    /* what a checkpoint's "run" object holds, with the configuration */
    int64_t step, updates;              /* batches seen; AdamW updates made */
    int64_t skipped, bad_in_row;        /* steps left out for a gradient that was not finite */
    double best;                        /* best validation result by train.watch, more is better; < 0: none yet */
    int64_t best_step, evals_since_best;
} Run;

Status run_open(Run *r, const Options *o);
void run_close(Run *r);
Status run_loop(Run *r);
void run_describe(const Run *r, FILE *f);                    /* sizes, memory by purpose, arithmetic, time */

/* validate.c: losses and retrieval, or answers, on the held-out split. *better: the best result so far. */
Status run_validate(Run *r, bool *better);

/* watched.c: what the model says of a few pictures of the held-out split,
 * before a step whose line is due in the log. */
Status watched_open(Run *r);
Status watched_look(Run *r, LogStep *s);
/* Of more pictures: at most WATCHED_VALUES are added to v, whose names are m's. */
Status watched_validate(Run *r, QuizMarks *m, LogValue *v, int *n);
enum { WATCHED_KINDS = 16, WATCHED_VALUES = WATCHED_KINDS + 3 };

/* run_start.c: start values. The vocabulary is copied into `out`, so that a run is whole and can be moved. */
Status run_start(Run *r);                                    /* resume, or train.init, or fresh: and says which */
Status run_save(Run *r, bool best);                          /* run_state.c */
Status run_rollback(Run *r); /* weights and moments of the newest checkpoint; the step stays */

/* texts.c: what captions become under this vocabulary, and whether the warm-up fits into the run: said at the start. */
Status run_look(Run *r);

/* ---- start.c: weights that something starts from: runs, init, plan and export ---- */

/* What makes weights fit, by the option that says it; but for heads, which an Origin knows by itself. */
#define START_SHAPE \
    "model.layers", "model.hidden", "model.ffn", "model.queries", "model.proj", "model.cross_every", \
    "model.positions", "model.eps", "model.eps_vision", "model.act", "lm.layers", "lm.hidden", "lm.heads", "lm.ffn"

/* Sizes, heads and vocabulary of weights become those of `o`, where the user gave none (model.*). */
Status start_sizes(Options *o, const char *weights);

/* Weights from anything into p, whose words are tok's (NULL: it reads none). r: the run that begins with them, so that
 * its heads must be theirs, or NULL. *what (free it): how much of p came from there; NULL after an error. */
Status start_weights(Params *p, const char *path, const Options *o, const Tokenizer *tok, const Run *r, char **what);

/* ERR_USAGE: tok has other words than what is called `key` `name`, which was "made" or "trained" with its own. */
Status start_words(const Origin *g, const Tokenizer *tok, const Options *o, const char *key, const char *name,
                   const char *how);

/* ERR_USAGE: `out` cannot be a file of weights, or is there already (outfile_claim). */
Status start_claim(const Options *o);

/* ---- run_state.c ---- */

/* The loader's batch as a step wants it. */
Status run_batch(Run *r, Feed *feed, const Batch *b, ObjectiveBatch *out);
ObjectiveBatch run_features(const Batch *b);                 /* of the coming one: they travel meanwhile */
/* Whole batches of a split's pairs, in a drawn order; seed, steps and threads are for the caller to say. */
LoaderSpec run_pairs(const Run *r, const char *split);
