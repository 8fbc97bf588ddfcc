/* origin: what weights were trained with, as far as they say so: the run that a checkpoint of ours belongs to, or the
 * config.json and vocab.txt beside published weights.
 *
 * Called by evaluation and by training that starts from weights. The one idea: tensors fit or do not fit by their
 * shapes, and that is not enough: heads, the words that rows stand for and the encoder behind the features cannot be
 * told from shapes, and wrong ones give figures without a word. So a run writes them down (origin_write), and
 * whoever uses it compares: what the user gives may be missing, but not another.
 *
 *     state.json, "run":  vocab, vocab_hash     the file as configured, its tokenizer_hash; its bytes are RUN/vocab.txt
 *                         heads, config         the resolved configuration, as YAML
 *                         features              {name, weights_sha256, tap, preprocessing, ln_applied, tokens, width}
 *                         data                  {train, fingerprint, images, captions, short_text} */
#pragma once
#include <stdint.h>

#include "checkpoints/weights.h"
#include "configs/options.h"
#include "data/set.h"
#include "kernels/model/dims.h"
#include "data/text/tokenizer.h"

typedef struct {
    char *name;                    /* for sentences: the run's folder, or the weights */
    Options *trained;              /* configuration of one of our runs, else NULL */
    int64_t heads;                 /* 0: not said */
    bool tower;                    /* published weights with an image encoder among them */
    Dims habits;                   /* eps, eps_vision and act: what shapes do not tell either */
    char *vocab;                   /* the vocabulary to take when the user names none; NULL: not said */
    uint64_t vocab_hash;           /* 0: not said */
    EncoderInfo features;          /* name NULL: not said; the others "" then */
    int64_t P;                     /* tokens of an image; 0: not said */
    char *data;                    /* data.train; NULL: not said */
    uint64_t data_hash;            /* 0: not said */
    int64_t images, captions;      /* of it */
    int64_t short_text;            /* tokens that 19 of 20 of its captions have, [DEC] counted; 0: not said */
} Origin;

/* Of a checkpoint or published weights. ERR_FORMAT: a configuration that is not understood: it is an error, since the
 * number of heads, for one, is written nowhere else. Free it also then. */
Status origin_read(Origin *g, const WeightSource *ws);
Status origin_of_checkpoint(Origin *g, const Ckpt *c);

/* eps, eps_vision and act of d: as the user says, else as the weights do. */
void origin_habits(const Origin *g, const Options *o, Dims *d);
void origin_free(Origin *g);

/* Opens `asked`, or what the weights name when it is "". ERR_USAGE names both when `asked` is another vocabulary than
 * the weights', or when that of the run was replaced. *path (free it) is what was opened. */
Status origin_vocab(const Origin *g, const char *asked, Tokenizer **tok, char **path);

/* ERR_USAGE names both encoders when the set's features come from another one (prepared otherwise is no error: *other
 * says so, or is NULL). */
Status origin_features(const Origin *g, const Set *set, const char **other);

/* The members above of an object that is being written. */
typedef struct { const Options *o; const Tokenizer *tok; const Set *train; int heads; int64_t short_text; } OriginSpec;
Status origin_write(const OriginSpec *s, JsonWriter *w);

/* Copies the vocabulary into the run, as vocab.txt or tokenizer.json: a run that was moved, or whose vocabulary was,
 * still has it. ERR_USAGE: another one is there (outfile_claim). */
Status origin_keep_vocab(const char *run, const char *vocab, const Tokenizer *tok, bool overwrite);
