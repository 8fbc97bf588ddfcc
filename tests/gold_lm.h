/* gold_lm: what the fixtures of language models share: a model opened from its folder, texts behind visual rows run
 * through it and back, and what came out on the host. */
#pragma once
#include "checkpoints/lm_weights.h"
#include "kernels/model/lm_decoder.h"
#include "tests/gold.h"

typedef struct {
    const Backend *b;
    LmSource src;
    Lm m;
    Arena run, step;
    Tape tape;
    Staging room;
} GoldLm;

/* act: "gelu" or "gelu_new" replaces the configuration's, NULL leaves it. rows: of the longest text. */
Status gold_lm_open(GoldLm *g, const Backend *b, const char *folder, const char *act, int32_t rows);
void gold_lm_close(GoldLm *g);

/* query (images, Q, Cq) through the projection (E, Cq) into visual rows; texts behind them. */
typedef struct {
    const float *query, *w, *bias;      /* w NULL: query is the visual rows themselves (Cq = E) */
    int32_t images, Q, Cq;
    const LmItem *items;
    int n;
    bool shared;
} GoldTexts;

typedef struct {
    double loss;                        /* mean over targets */
    int64_t T;
    float *nll;                         /* (T) in the order of the items */
    float *dsoft, *dquery, *dw, *dbias; /* (images Q, E), (images Q, Cq), (E, Cq), (E); free with gold_lm_free */
    float *logits;                      /* (T, V) in the order of the items */
} GoldSaid;

Status gold_lm_run(GoldLm *g, const GoldTexts *x, GoldSaid *out);
void gold_lm_free(GoldSaid *s);

/* The visual rows, in double, on the device: memory to be released. */
Tensor gold_lm_soft(GoldLm *g, const GoldTexts *x, void **memory);

/* A tensor of a file as f32, to be freed; NULL when absent. */
float *gold_floats(const StFile *f, const char *name, StTensor *shape);

/* Greedy continuation of each image's visual rows and the prompt that all share, keys cached: (images, most) ids,
 * ended by an end token or cut at `most`; lengths in n. */
Status gold_lm_greedy(GoldLm *g, const GoldTexts *x, const int32_t *prompt, int32_t np, int32_t most, int32_t *ids,
                      int32_t *n);

/* Gradients against NAME.grad.* of a file; and one way of running texts against another. */
void gold_lm_check(Case *c, const StFile *f, const char *name, const GoldTexts *x, int64_t E, const GoldSaid *s);
void gold_lm_same(Case *c, const char *name, const GoldTexts *x, int64_t E, const GoldSaid *a, const GoldSaid *b);

/* In bf16 a case is one that bf16.json beside the file has: errors against float64 at most twice the largest of those
 * that plain implementations make there (spec/stage2.md 13). gold_lm_has_bf16: whether it is. */
bool gold_lm_has_bf16(const Case *c, const char *name);
Status gold_lm_check_bf16(Case *c, const char *name, const GoldTexts *x, int64_t E, const GoldSaid *s);

GoldIs gold_is_causal, gold_is_lavis, gold_is_smollm2, gold_is_blip2, gold_is_whole, gold_is_writing;
Status gold_writing(Case *c);
Status gold_causal(Case *c);
Status gold_lavis(Case *c);
Status gold_smollm2(Case *c);
Status gold_blip2(Case *c);
Status gold_whole(Case *c);
