/* use: a trained model opened for use: weights, vocabulary, sizes, and a data set, from what the user named.
 *
 * Every evaluation command begins here. `in` is anything weights.h takes; vocabulary, heads and encoder are those the
 * weights say of themselves (origin.h): options that say another are refused. Limits of texts are the trained ones,
 * unless options say otherwise. */
#pragma once
#include "checkpoints/origin.h"
#include "configs/options.h"
#include "eval/evalset.h"
#include "eval/speaker.h"
#include "kernels/model/qformer.h"

typedef struct {
    const Options *o;
    const Backend *b;
    Arena mem;
    QFormer model;                      /* weights only; the running average when the checkpoint has one and use_ema */
    Dims d;
    Tokenizer *tok;                     /* the Q-Former's words; NULL when it reads none (stage 2) */
    Speaker speaker;                    /* stage 2 (d.W > 0): the language model it speaks to, loaded */
    Set *set;                           /* data.test, else the data the model was trained on */
    const char *split;
    TextSpec text;
    char *vocab, *prompt, *data;        /* what was found */
    char *lm_prompt;                    /* stage 2: what stands in front of captions */
    bool text_head;                     /* the weights can write captions */
    int64_t short_text;                 /* as in Origin */
    int64_t step;                       /* of the checkpoint, -1 for other sources */
    char path[1024];                    /* the weights that were opened */
} Use;

/* The number of heads of weights of width C: what the user gave, unless the weights say another (ERR_USAGE names both);
 * else what they say; else one for 64 numbers, as published. */
Status use_heads(const Origin *g, const Options *o, int C, int32_t *H);

Status use_open(Use *u, const Options *o);
void use_close(Use *u);
Status use_text_head(const Use *u);     /* ERR_FORMAT: the weights have none, and captions need it */
