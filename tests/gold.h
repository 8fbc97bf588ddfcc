/* gold: what the kinds of reference fixtures share: finding cases, loading them, comparing, reporting.
 *
 * golden.c walks a folder and runs every case below it by its kind; a kind is a function in one of gold_*.c. A case is
 * a folder with a case.json (or a single .json with a "kind"), or a file that a form of golden.c knows by its looks;
 * forms are described by the README beside the fixtures. */
#pragma once
#include "data/format/json.h"
#include "data/format/safetensors.h"
#include "train/stage1.h"
#include "train/trainer.h"

typedef struct {
    char dir[1024], file[1100];         /* folder, and the .json itself */
    const char *name, *kind;
    const Json *json;                   /* NULL of a form that is no .json */
    const Backend *b;
    DType precision;
    double worst;                       /* largest error over its tolerance */
    char worst_what[200];
    int compared;
} Case;

typedef enum { GOLD_PASS, GOLD_FAIL, GOLD_UNSUPPORTED } GoldResult;
typedef Status GoldFn(Case *c);
typedef bool GoldIs(const char *dir, const char *name);   /* whether that file of the folder is a case of this form */

Status gold_step(Case *c);
Status gold_negatives(Case *c);
Status gold_train(Case *c);
Status gold_schedule(Case *c);
Status gold_generate(Case *c);
Status gold_retrieval(Case *c);
Status gold_pth(Case *c);
Status gold_hf(Case *c);
Status gold_images(Case *c);
Status gold_positions(Case *c);
Status gold_caption_scores(Case *c);
Status gold_ptb(Case *c);
Status gold_answers(Case *c);
Status gold_vqa(Case *c);
GoldIs gold_is_caption_scores, gold_is_ptb, gold_is_answers, gold_is_vqa;
Status gold_strings(Case *c);
Status gold_processors(Case *c);
Status gold_invalid(Case *c);
GoldIs gold_is_images, gold_is_positions, gold_is_strings, gold_is_processors, gold_is_invalid;
Status gold_tower(Case *c);
GoldIs gold_is_tower;
Status gold_ranks(Case *c);            /* ERR_MISSING: what it takes is not there */
Status gold_greedy(Case *c);          /* part of a step case that has "greedy" */

/* Records |error| against its tolerance; not-a-number counts as infinite. */
void gold_check(Case *c, const char *what, double error, double tolerance);
/* Relative L2 distance of x (f32, n) from the fixture's tensor, or, when it is a digest of 13 numbers and n is not 13,
 * of its digest; floor is the smallest norm that counts. */
void gold_tensor(Case *c, const char *what, const float *x, int64_t n, const StTensor *want, double tolerance,
                 double floor);
void gold_value(Case *c, const char *what, double got, double tolerance); /* against the case's number of that name */
double gold_norm(const StFile *f); /* the largest norm of a tensor in f (or digest) */

double gold_num(const Json *o, const char *key);                               /* BUG when absent */
int64_t gold_int(const Json *o, const char *key);
Status gold_open(const Case *c, const char *key_or_null, const char *file, StFile **f);  /* key: "model",
    "batch": another folder */
Status gold_open_first(const Case *c, const char *stem, StFile **f); /* stem.safetensors or stem_digest.safetensors */

/* A trainer with the case's sizes and weights. */
Status gold_trainer(Case *c, Trainer *t, Stage1Spec step);
Status gold_weights(Case *c, Trainer *t);
Status gold_model(Case *c, Trainer *t); /* weights alone: no step, no batch size */
Status gold_empty(Case *c, Trainer *t); /* the same before any weights are read */

/* Batch `index` of a batch file ((B,...) or (steps,B,...)); free with gold_batch_free. */
typedef struct { ObjectiveBatch batch; float *features; int32_t *ids, *len, *negative_image,
                *negative_text; int64_t *image_id; } GoldBatch;
Status gold_batch(Case *c, const StFile *f, int64_t index, const Dims *d, int64_t B, GoldBatch *out);
void gold_batch_free(GoldBatch *b);

/* Reads a flat array (weights, gradients, moments) tensor by tensor and compares with f. */
void gold_params(Case *c, const Trainer *t, const float *flat, const StFile *f, const char *what, double tolerance,
                 bool absolute);

/* The larger of two distances; unlike fmax it keeps a NaN, which is the largest of all. */
static inline double gold_most(double a, double b) { return a != a || b <= a ? a : b; }
