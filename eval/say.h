/* say: texts that a stage-2 model writes about pictures: features to visual rows (visual.h), a prompt behind them, a
 * search (decode.h) over the language model.
 *
 * A picture's visual rows and their keys stand once for all its prompts; with InstructBLIP each prompt has rows of its
 * own, since it enters the Q-Former. Called by captions, ask and the quiz. */
#pragma once
#include "eval/decode.h"
#include "eval/use.h"
#include "eval/visual.h"
#include "kernels/model/lm_decoder.h"

typedef struct {
    const Backend *b;
    const Lm *lm;
    const Speech *speech;
    const QFormer *model;               /* NULL: no picture is looked at */
    const Tokenizer *tok;               /* InstructBLIP: the Q-Former's words */
    int images;                         /* at a time, at most, and as many prompts */
    int32_t front, rows;                /* ids of words in front, at most; of all that stands in front of a text */
    DType features;
} SaySpec;

/* About which of the pictures given, and behind what: `front`, words that stand before the prompt as if they were the
 * picture, or NULL. Items of one picture follow one another. *answer: say_answers. */
typedef struct { int32_t image; const char *prompt, *front; char **answer; } SayItem;

/* Items whose texts it owns. */
typedef struct { SayItem *item; int64_t n; char **texts; size_t ntexts; } SaySheet;   /* starts as {0} */

typedef struct {
    SaySpec spec;
    SearchSpec search;
    Visual visual;
    LmDecoder lm;
    Decoder decoder;
    Decode decode;
    char *row;                          /* InstructBLIP: features and scales, a picture a prompt */
    float *scale;
    FeatureRows looked_at;              /* by say_look */
    Tensor soft;
} Say;

/* Counting, start and end tokens as the family's reference has them: LAVIS for OPT and T5, transformers 5 for Llama's
 * family. max_length and min_length: new tokens and one. */
void say_rules(SearchSpec *s, const LmDims *d, const Speech *speech);

/* say_open_use: of a model in use; ERR_USAGE when more new tokens are asked for than stage2.max_new has room for. */
Status say_open(Say *x, const SaySpec *spec, const SearchSpec *search);
Status say_open_use(Say *x, const Use *u, const SearchSpec *search, int images, DType features);
void say_close(Say *x);                 /* accepts one that is zero */

/* Pictures' features (n,P,E) raw, n at most `images`, 0: none is looked at; nitems prompts about them, any number.
 * `first`: the number of the first item in the whole list, which decides draws. found as in decode.h, an item at a
 * time. */
Status say_texts(Say *x, FeatureRows rows, int n, const SayItem *items, int64_t nitems,
                 int64_t first, DecodeFound *found, void *ctx);

/* The same, with each item's text in its *answer, in place of what was there (free it). */
Status say_answers(Say *x, FeatureRows rows, int n, const SaySheet *s, int64_t first);

/* Takes over the item's texts, which may be NULL where there was no room for them: ERR_MEMORY. */
Status say_put(SaySheet *s, int32_t image, char *prompt, char *front, char **answer);
void say_sheet_free(SaySheet *s);

/* Of pictures given to say_look, n at most `images`: how likely each of `choices` is to be said behind one prompt: the
 * sum of its ids' log-probabilities, its end included. score (n). ERR_USAGE when one is longer than max_length allows;
 * how much the row that says the first word looks at each visual row: share (Q) of its attention, the mean over layers
 * and heads. Not of T5. */
Status say_look(Say *x, FeatureRows rows, int n);
Status say_rank(Say *x, const SayItem *item, const char *const *choices, int n, double *score);
Status say_gaze(Say *x, const SayItem *item, float *share);

/* What was written, without blanks at its ends: new (free). */
Status say_text(const Tokenizer *t, const Hypothesis *h, char **text);
