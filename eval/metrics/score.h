/* score: the caption metrics of a result file. Called by the commands score and caption.
 *
 * Tokenizes every caption (ptb.h), computes BLEU-1..4, ROUGE-L and CIDEr-D here (metrics.h), and METEOR and SPICE with
 * the authors' Java programs when their jars are named (jars.h); else these two stay "not computed". The numbers are
 * pycocoevalcap's, as fractions: CIDEr 1.458 is what papers call 145.8.
 *
 *     Scores s;
 *     if ((st = score_files("gt.json", "res.json", NULL, &s))) ...
 *     score_print(&s, stdout);  result_write(o, "scores.json", score_json, &s);  score_free(&s);
 *
 * Does not choose captions (one an image is demanded, coco.h) and does not know retrieval. */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "data/format/json.h"
#include "eval/metrics/coco.h"
#include "eval/metrics/jars.h"
#include "eval/metrics/metrics.h"
#include "kernels/base/err.h"

typedef struct {
    const char *java;             /* the program; NULL: "java" from PATH */
    const char *meteor_jar;       /* meteor-1.5.jar, beside its data/; NULL: no METEOR */
    const char *spice_jar;        /* spice-1.0.jar, beside its lib/; NULL: no SPICE */
    bool subset;                  /* images without a caption in the result do not count */
} ScoreOptions;

typedef struct {
    bool computed;
    double corpus;
    double *images;               /* (n) NaN: SPICE gave none for that image */
} JarScores;

/* Images of one "domain" of the ground truth (nocaps), scored by themselves, document frequencies too. */
typedef struct { const char *name; size_t n; MetricScores scores; } DomainScores;
enum { SCORE_DOMAINS = 8 };

typedef struct {
    Coco coco;                    /* images and captions, n of them */
    MetricScores corpus;
    DomainScores domain[SCORE_DOMAINS];
    size_t domains;
    MetricScores *images;         /* (n) */
    JarScores meteor, spice;
    double seconds_tokenize, seconds_metrics, seconds_jars;
} Scores;

/* `options` may be NULL. On failure *out is empty. A jar that was named and fails is an error. */
Status score_files(const char *gt_path, const char *res_path, const ScoreOptions *options, Scores *out);

/* The same of captions read already; takes `coco` over (also on failure) and leaves it empty. */
Status score_coco(Coco *coco, const ScoreOptions *options, Scores *out);

void score_print(const Scores *s, FILE *f);            /* a table, four decimals */

/* {"corpus": {"Bleu_1": .., "METEOR": null, ..}, "images": [{"image_id": .., "caption": .., "Bleu_1": ..}, ..]},
 * of Scores. Names and order are pycocoevalcap's; null: not computed. */
void score_json(JsonWriter *w, const void *scores);
void score_free(Scores *s);       /* accepts an empty one */
