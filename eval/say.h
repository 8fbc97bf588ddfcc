/* say: texts that a stage-2 model writes about pictures: features to visual rows (visual.h), a prompt behind them, a
 * search (decode.h) over the language model.
 *
 * A picture's visual rows and their keys stand once for all its prompts; with InstructBLIP each prompt has rows of its
 * own, since it enters the Q-Former. Called by captions and ask. */
#ifndef QF_SAY_H
#define QF_SAY_H
#include "eval/decode.h"
#include "eval/use.h"
#include "eval/visual.h"
#include "kernels/model/lm_decoder.h"

/* About which of the pictures given, and behind what. Items of one picture follow one another. */
typedef struct { int32_t image; const char *prompt; } SayItem;

typedef struct {
    const Use *u;
    int images;                         /* at a time, at most */
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

/* `images` pictures at a time, and as many prompts. ERR_USAGE when more new
 * tokens are asked for than stage2.max_new has room for. */
Status say_open(Say *x, const Use *u, const SearchSpec *search, int images, DType features);
void say_close(Say *x);                 /* accepts one that is zero */

/* Pictures' features (n,P,E) raw, n at most `images`; nitems prompts about them, any number. `first`:
 * the number of the first item in the whole list, which decides draws. found as in decode.h, an item at a time. */
Status say_texts(Say *x, FeatureRows rows, int n, const SayItem *items, int64_t nitems,
                 int64_t first, DecodeFound *found, void *ctx);

/* How likely each of `choices` is to be said behind one prompt about picture `image` of those given last to say_look:
 * the sum of its ids' log-probabilities, its end included. score (n).
 * ERR_USAGE when one is longer than max_length allows. */
Status say_look(Say *x, FeatureRows rows, int n);
Status say_rank(Say *x, const SayItem *item, const char *const *choices, int n, double *score);

/* What was written, without blanks at its ends: new (free). */
Status say_text(const Tokenizer *t, const Hypothesis *h, char **text);

#endif
