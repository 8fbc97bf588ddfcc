/* jars: METEOR 1.5 and SPICE by their authors' Java programs, run as child processes. Called by score.c.
 *
 * Neither can be rewritten from its paper alone (WordNet, a paraphrase table, a parser), so the user who wants them
 * names the jars; pycocoevalcap runs the same two in the same way (spec/evaluation.md 7e, 7f). A child that cannot be
 * started, dies, says something unexpected or is silent for JAR_SILENCE_S becomes a sentence. Its stderr is ours. */
#pragma once
#include <stddef.h>

#include "kernels/base/err.h"

enum { JAR_SILENCE_S = 600 };

typedef struct {
    const char *candidate;            /* tokens joined by spaces */
    const char *const *references;    /* (nrefs) */
    size_t nrefs;
} JarImage;

/* images_out: (n). java: the program, NULL: "java" from PATH. ERR_IO, ERR_FORMAT, ERR_MEMORY.
 * METEOR's corpus value is made from sums over images, it is not the mean. */
Status meteor_score(const char *java, const char *jar, const JarImage *images, size_t n, double *corpus,
                    double *images_out);

/* corpus: the mean of F "All". NaN for an image without one; such an image does not enter the mean. Files go to a new
 * folder in TMPDIR, else /tmp, which is removed. */
Status spice_score(const char *java, const char *jar, const JarImage *images, size_t n, double *corpus,
                   double *images_out);
