/* quiz: what a language model says of the pictures of a split, and how much of it is right: the questions that the set
 * holds are answered, and a caption is written of each picture, greedily. A falling loss says nothing of that: it falls
 * by form alone for a long time.
 *
 *     QUIZ_PICTURE     behind the picture's visual rows: stage 2
 *     QUIZ_WORDS       behind the picture's first caption, in words: what a model can read at all (the reading test)
 *     QUIZ_BLIND       behind nothing: what it knows without the picture
 *
 * Called by training, now and then, and by the report. Takes memory of its own, beside what was planned for a step. One
 * process. */
#pragma once
#include "eval/asked.h"
#include "eval/metrics/tally.h"
#include "eval/report/scenes.h"
#include "eval/say.h"

typedef enum { QUIZ_PICTURE, QUIZ_WORDS, QUIZ_BLIND } QuizFront;

typedef struct {
    const Backend *b;
    const Lm *lm;
    const Speech *speech;
    const QFormer *model;               /* NULL: no picture is looked at */
    const Tokenizer *tok;               /* InstructBLIP: the Q-Former's words, as in SaySpec */
    const char *prompt, *questions;     /* in front of captions; templates of questions, of which the first is taken */
    int32_t front;                      /* most pieces of a caption in front; 0: QUIZ_WORDS is not asked for */
    int32_t max_words, max_new;         /* words of that caption; new tokens of an answer or caption, at most */
    uint64_t seed;                      /* of drawn scenes, to find out what is there */
} QuizSpec;

typedef struct {
    Tally answers;                      /* as asked_accuracy counts them */
    int64_t captions, different;
    int64_t shapes, shapes_true;        /* coloured shapes that captions name; of drawn scenes */
} QuizMarks;

typedef struct {
    QuizSpec spec;
    EvalSet set;
    Asked asked;                        /* with our answers */
    char **caption;                     /* (set.NI) what we wrote; NULL: nothing yet */
    Scenes scenes;
    Say say;
    EvalRows rows;
} Quiz;

/* At most `limit` pictures of the split. ERR_USAGE: the split has none; a question is so long that the model has no
 * room for an answer. */
Status quiz_open(Quiz *q, const QuizSpec *spec, const Set *set, const char *split, int64_t limit);
void quiz_close(Quiz *q);               /* accepts one that is zero */

/* Answers and captions of the first n pictures. */
Status quiz_take(Quiz *q, QuizFront front, int64_t n);

/* say_gaze of a question. */
Status quiz_gaze(Quiz *q, int64_t question, float *share);

/* Marks of what they became; free the tally. Kinds are those of all questions, also of those not answered: marks of
 * several fronts then have the same ones, in one order. */
Status quiz_mark(Quiz *q, int64_t n, QuizMarks *m);
