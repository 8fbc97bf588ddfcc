/* lm_wave: rows and segments of a language model (DESIGN.md 12).
 *
 *     LmPrefix      visual rows [+ common prompt]              stands once
 *     LmText        what continues it: caption, question and answer, ...; any number a prefix
 *
 *     OPT, Llama    x (N, C): prefix, its texts, next prefix, its texts, ...; a text sees all of its prefix and its
 *     own past T5            x (N, C): the prefixes, each of which sees itself both ways (the encoder);
 *                   y (M, C): the texts, each of which sees its own past and all of its prefix (the decoder)
 *
 * A target is an id that is predicted: by the row before it (OPT, Llama: the prefix's last row for a text's first id;
 * T5: the row that the start id or the id before it entered by). The last id of a text predicts nothing and is no row.
 * Nothing is padded. Everything is built on the host and goes up in one copy. */
#pragma once
#include "kernels/model/lm_block.h"
#include "kernels/model/wave.h"

typedef struct {
    /* visual rows [soft, soft + nsoft) of what is given to lm_forward; each in one prefix */
    int32_t soft, nsoft;
    const int32_t *ids;                 /* n ids behind them */
    int32_t n;
    uint32_t pair;                      /* its number in the global batch: where random bits come from */
    int32_t row0;                       /* placed by lm_wave_build: first row in x */
} LmPrefix;

typedef struct {
    int32_t prefix;                     /* whose; texts of one prefix follow one another, prefixes in order */
    const int32_t *ids;                 /* n ids; ids[target..] are targets */
    int32_t n, target;
    uint32_t pair;                      /* as of a prefix */
    int32_t row0;                       /* placed by lm_wave_build: first row, in x, or in y for T5 */
    int32_t target0;                    /* first target in the order of texts */
} LmText;

/* Targets come in rounds, so that within one no row is gathered twice: the last row of a prefix predicts the first id
 * of each of its texts. order[i]: target number i of the rounds is target order[i] in the order of the texts. */
typedef struct {
    int64_t N, M, T;                    /* rows of x, of y (T5, else 0); targets */
    int32_t longest;                    /* rows of the longest prefix and text together; T5: of the longer of the two */
    const int32_t *ids, *pos;           /* (N) device; ids < 0: visual row -1 - id */
    const int32_t *yids;                /* (M) device */
    LmNoise noise;                      /* nothing unless the caller says so */
    const RowKey *rows, *yrows, *trows; /* (N), (M), (T) device: whose they are; of targets, of the rows that predict */
    AttnPlan self, yself, cross;        /* of x; of y on itself; of y on x */
    const int32_t *row, *target;        /* (T) device: row of x (T5: of y) that predicts, and the id */
    int32_t *order;                     /* (T) host */
    int32_t *round, nrounds;            /* (nrounds + 1) host: targets of round i are [round[i], round[i+1]) */
} LmWave;

/* A text as a data set knows it: ids[0, target) are its prompt (T5: the encoder's input), ids[target,
 * n) what is to be said. */
typedef struct { int32_t image; const int32_t *ids; int32_t n, target; } LmItem;

/* What is the same for all texts of an image stands in its prefix, once: the Q visual rows and the ids that all their
 * prompts begin with (T5: whole prompts; other prompts are prefixes of their own). Items of one image follow one
 * another. At most n prefixes and n texts; visual rows are numbered prefix by prefix, image[i] says whose those of
 * prefix i are. Returns the number of prefixes. shared false: each item by itself. */
int lm_share(const LmDims *d, int32_t Q, const LmItem *items, int n, bool shared, LmPrefix *p, int32_t *image,
             LmText *s);

/* Bytes that a wave takes of the staging: of at most so many rows in all, prefixes' and texts'. */
size_t lm_wave_bytes(int64_t rows, int64_t prefixes, int64_t texts);

/* Fills row0, target0 and *w; BUG_ON what the caller must not ask: ids beyond the vocabulary, texts out of order, a
 * text without a row in front of its first target. staging_upload afterwards. */
void lm_wave_build(LmWave *w, Staging *r, const LmDims *d, LmPrefix *p, int np, LmText *s, int ns);
