/* asked: questions about the pictures of a set: read from a file, or those that the set holds itself, picture by
 * picture. Called by ask.
 *
 *     {"questions": [{question_id, image_id, question}]}       VQAv2, OK-VQA
 *     {"QID": {imageId, question}}                             GQA
 *     [{"image" or "image_id", "question"[, "question_id", "choices": [...]]}], or an object a line
 *
 * A picture is found by its name in the set, by its name without folder and ending, or by the number at the end of
 * its name (COCO's). A question without question_id is named by its place. */
#pragma once
#include "data/text/settext.h"
#include "eval/evalset.h"

typedef struct {
    const char *id, *text;
    bool number;                        /* the file writes the id as a number */
    int64_t image;                      /* place in the evaluation set */
    int64_t place;                      /* in the file */
    SetText human;                      /* of the set's own questions: with human answers */
    const char *const *choices;         /* (nchoices) answers to choose among; 0: none are given */
    int nchoices;
    char *answer;                       /* what we said; owned */
} Question;

typedef struct {
    Question *q;                        /* (n), by image, then by place */
    int64_t n;
    bool judged;                        /* human answers are there */
    char **texts;                       /* what the above points to */
    size_t ntexts;
} Asked;

/* ERR_FORMAT names what is wrong; ERR_USAGE a picture that the set does not have. */
Status asked_read(Asked *a, const EvalSet *e, const char *path);

/* Every question without choices of its own gets those of a file, one a line. */
Status asked_choices(Asked *a, const char *path);

/* The set's own questions; n 0 when it holds none. */
Status asked_of_set(Asked *a, const EvalSet *e);
void asked_free(Asked *a);

/* How right our answer to one of these is, 0 to 1: as VQA counts it where several people answered, else whether it is
 * the one (metrics/vqa.h). */
Status asked_accuracy(const Question *q, double *accuracy);
