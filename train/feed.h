/* feed: from a loader's batch of pictures to what is said of them: ids for the language model.
 *
 *     pairs     each row of the batch has its one caption
 *     images    each row has up to `texts` of its picture's captions, from the drawn one on, around: the picture's
 *               visual rows and features serve all of them
 *
 * split: prefix language modelling, the paper's way of training T5 on plain captions: the first words, some number of
 * them that is drawn anew at each visit (at least one, at least one stays), join the prompt, the others are what is to
 * be said.
 *
 * A caption goes through LAVIS's clean-up (data/text/caption.h) and then through speech.h, behind the prompt. What is
 * asked (data/text/settext.h) goes there as it is: a question in one of the templates, with one of its answers behind,
 * both drawn anew at each visit. With InstructBLIP each prompt enters the Q-Former, so that texts of a picture share
 * its visual rows where their prompts are the same.
 *
 * A language model that learns to read (train/reader.h) has words where stage 2 has visual rows: one of the picture's
 * captions, drawn anew at each visit, is its view, and the others are said behind it.
 * A picture's only text stands alone. */
#pragma once
#include "data/loader.h"
#include "eval/speaker.h"
#include "train/objective.h"

typedef struct {
    const Speech *speech;
    const Set *set;
    const char *prompt, *questions;     /* in front of a caption; templates of questions (settext.h) */
    const Tokenizer *asked;             /* the Q-Former's, when the prompt enters it too (InstructBLIP); else NULL */
    const Tokenizer *front;             /* a caption's pieces are the view of its picture; else NULL */
    int32_t max_asked;                  /* most pieces of a view */
    bool all;                           /* more than the drawn caption of a picture */
    int texts, max_words;
    bool split;
    uint64_t seed;
} FeedSpec;

typedef struct {
    FeedSpec spec;
    TokenIds ids, asked;
    LmItem *items;
    ObjectiveView *views;
    size_t *at, *view_at;               /* first id of each item, of each view */
    int nviews;
    char *last;                         /* the prompt of the last view */
    int64_t room;                       /* items that fit */
} Feed;

void feed_open(Feed *f, const FeedSpec *spec);
void feed_close(Feed *f);

/* What it gives is valid until the next call. ERR_MEMORY. */
Status feed_batch(Feed *f, const Batch *b, ObjectiveBatch *out);
