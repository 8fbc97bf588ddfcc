/* vqa: whether answers to questions about pictures are right, as the published evaluations count it.
 *
 *     VQA     VQAv2, OK-VQA: for each human answer, how many of the others equal ours: min(1, that / 3); the mean of
 *             them. Both sides are normalised (vqa_normalise), unless all human answers are alike
 *     direct  A-OKVQA: min(1, human answers that equal ours / 3), as they are
 *     exact   GQA and the rest: 1 if ours equals an answer, both normalised
 *
 * Numbers are those of GT-Vision-Lab/VQA, its corner cases included (spec/stage2.md 10). Files, found by what they
 * hold:
 *
 *     human   {"annotations": [{"question_id", "answers": [{"answer"}, ...], "answer_type", "question_type"}]}  VQAv2
 *             {"QID": {"answer", "types": {"semantic", "structural"}}}                                            GQA
 *             [{"question_id", "direct_answers": [...]}]                                                      A-OKVQA
 *             [{"question_id", "answer" or "answers", "answer_type", "question_type"}], or an object a line
 *     ours    [{"question_id", "answer"}], GQA's [{"questionId", "prediction"}], or an object a line
 *
 * Called by the commands score and ask, and by validation. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "data/format/json.h"
#include "eval/metrics/tally.h"

/* ORDER score.rule; FOUND: by the file */
typedef enum { VQA_RULE_FOUND, VQA_RULE_VQA, VQA_RULE_EXACT, VQA_RULE_DIRECT } VqaRule;

/* What is done to an answer, in this order: newline and tab to blanks, ends stripped; punctuation; words (lower case,
 * numbers as digits, no articles, contractions with their apostrophe). */
enum VqaSteps { VQA_STRIP = 1, VQA_PUNCTUATION = 2, VQA_WORDS = 4, VQA_ALL = 7 };

/* A new text (free it). */
Status vqa_normalise(char **out, const char *answer, size_t n, enum VqaSteps steps);

/* Accuracy of one answer, 0 to 1. */
Status vqa_accuracy(double *accuracy, VqaRule rule, const char *answer, const char *const *human, size_t n);

typedef struct {
    VqaRule rule;
    int64_t n, unanswered;              /* questions; those that our file has no answer for count as wrong */
    double accuracy;
    Tally answer_type, question_type;   /* no kinds where the file names none */
    struct VqaQuestion { const char *id, *answer; double accuracy; } *question;       /* (n), in the file's order */
    struct VqaStore *store;             /* what the above points to */
} VqaScores;

/* ERR_FORMAT names the file and the question: twice, an answer to no question, none at all. `out` is empty then. */
Status vqa_score(VqaScores *out, const char *human_path, const char *our_path, VqaRule rule);
void vqa_free(VqaScores *s);            /* accepts an empty one */

void vqa_print(const VqaScores *s, FILE *f);           /* percent, two decimals */

/* {"accuracy": {"overall", "perAnswerType": {}, "perQuestionType": {}}, "questions": [{question_id, answer,
 * accuracy}]} of VqaScores, percent as the official program rounds it. */
void vqa_json(JsonWriter *w, const void *scores);
