/* classify: zero-shot classes as text features. Called by cmd_classify.c.
 *
 * A class is its name put into templates ("a photo of a {}"); its feature is the normalised mean of the texts'
 * features. An image's score for a class is the largest cosine over its queries. Does not read images. */
#pragma once
#include "eval/evaluate.h"

typedef struct {
    char *text;                         /* what the names point into */
    char **name;                        /* (n), no two alike */
    int64_t n;
    const char *file;                   /* where they stand, for messages; the caller's */
} Classes;

/* One name a line; blank lines and blanks at the ends do not count.
 * ERR_FORMAT names the line of a name that stands twice. */
Status classes_read(Classes *c, const char *path);
void classes_free(Classes *c);
int64_t classes_find(const Classes *c, const char *name, size_t n); /* ASCII case does not count; -1 when absent */

/* Features (n,Z) of the classes under templates, `|` between several; each needs a {}. */
Status classes_features(const Classes *c, const char *templates, Evaluation *e, float *out);

/* True classes (NI) of the set's images, -1 where unknown: from a CSV or TSV file with columns image and label (a
 * name, or a number from 0), or without one from a caption, or a folder of the image's id, that is a class name. */
Status classes_truth(const Classes *c, const char *labels_path, const EvalSet *s, int32_t *truth);
