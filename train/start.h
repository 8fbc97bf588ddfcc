/* start: weights that something starts from: runs, init, plan and export (run_start.c has where a run starts). */
#ifndef QF_START_H
#define QF_START_H
#include "train/run.h"

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

#endif
