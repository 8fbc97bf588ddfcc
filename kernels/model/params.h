/* params: the one table of learned tensors. From a row follow name, shape, place in memory, start value, decay, the
 * optimizer's ranges, what a checkpoint holds, the listing a user sees, and the loop of the gradient tests.
 *
 * Row order is memory order: query, key and value of a layer stand in a row, so they are one (3C, C) matrix to the
 * product and three names to the checkpoint; the image keys and values of all layers are one (2 C Lx, E) matrix. Names:
 * model.md 10. */
#ifndef QF_PARAMS_H
#define QF_PARAMS_H
#include <stdbool.h>

#include "kernels/arena.h"
#include "kernels/dist/dist.h"
#include "kernels/model/dims.h"
#include "kernels/tensor.h"

/* where: MODEL once; LAYER in every layer; CROSS in layers with cross-attention; the number is a block: rows of one
 * block stand together layer by layer (so all of a layer is one range, whose gradient is finished at one moment; matrices before
 * vectors, so the optimizer meets two ranges in it, with decay and without). join:
 * starts right behind the row before it (else at a multiple of 64 elements). start: NORMAL std, ZEROS, ONES, LINEAR
 * U(-1/sqrt(in), 1/sqrt(in)), TEMP 0.07, COPY of the row `from` of the same layer.
 *
 *    id             name                                                               shape where  block join start   from */
#define PARAM_TABLE(X) \
    X(QUERY,        "query_tokens",                                                     "QC", MODEL, 0, 0, NORMAL, 0) \
    X(WORD,         "Qformer.bert.embeddings.word_embeddings.weight",                   "VC", MODEL, 0, 0, NORMAL, 0) \
    X(POSITION,     "Qformer.bert.embeddings.position_embeddings.weight",               "NC", MODEL, 0, 0, NORMAL, 0) \
    X(EMB_LN_W,     "Qformer.bert.embeddings.LayerNorm.weight",                         "C",  MODEL, 0, 0, ONES,   0) \
    X(EMB_LN_B,     "Qformer.bert.embeddings.LayerNorm.bias",                           "C",  MODEL, 0, 0, ZEROS,  0) \
    X(SELF_Q_W,     "Qformer.bert.encoder.layer.%d.attention.self.query.weight",        "CC", LAYER, 1, 0, NORMAL, 0) \
    X(SELF_K_W,     "Qformer.bert.encoder.layer.%d.attention.self.key.weight",          "CC", LAYER, 1, 1, NORMAL, 0) \
    X(SELF_V_W,     "Qformer.bert.encoder.layer.%d.attention.self.value.weight",        "CC", LAYER, 1, 1, NORMAL, 0) \
    X(SELF_O_W,     "Qformer.bert.encoder.layer.%d.attention.output.dense.weight",      "CC", LAYER, 1, 0, NORMAL, 0) \
    X(FFN_IN_W,     "Qformer.bert.encoder.layer.%d.intermediate.dense.weight",          "FC", LAYER, 1, 0, NORMAL, 0) \
    X(FFN_OUT_W,    "Qformer.bert.encoder.layer.%d.output.dense.weight",                "CF", LAYER, 1, 0, NORMAL, 0) \
    X(QFFN_IN_W,    "Qformer.bert.encoder.layer.%d.intermediate_query.dense.weight",    "FC", LAYER, 1, 0, COPY,   FFN_IN_W) \
    X(QFFN_OUT_W,   "Qformer.bert.encoder.layer.%d.output_query.dense.weight",          "CF", LAYER, 1, 0, COPY,   FFN_OUT_W) \
    X(CROSS_Q_W,    "Qformer.bert.encoder.layer.%d.crossattention.self.query.weight",   "CC", CROSS, 1, 0, NORMAL, 0) \
    X(CROSS_O_W,    "Qformer.bert.encoder.layer.%d.crossattention.output.dense.weight", "CC", CROSS, 1, 0, NORMAL, 0) \
    X(SELF_Q_B,     "Qformer.bert.encoder.layer.%d.attention.self.query.bias",          "C",  LAYER, 1, 0, ZEROS,  0) \
    X(SELF_K_B,     "Qformer.bert.encoder.layer.%d.attention.self.key.bias",            "C",  LAYER, 1, 1, ZEROS,  0) \
    X(SELF_V_B,     "Qformer.bert.encoder.layer.%d.attention.self.value.bias",          "C",  LAYER, 1, 1, ZEROS,  0) \
    X(SELF_O_B,     "Qformer.bert.encoder.layer.%d.attention.output.dense.bias",        "C",  LAYER, 1, 0, ZEROS,  0) \
    X(SELF_LN_W,    "Qformer.bert.encoder.layer.%d.attention.output.LayerNorm.weight",  "C",  LAYER, 1, 0, ONES,   0) \
    X(SELF_LN_B,    "Qformer.bert.encoder.layer.%d.attention.output.LayerNorm.bias",    "C",  LAYER, 1, 0, ZEROS,  0) \
    X(FFN_IN_B,     "Qformer.bert.encoder.layer.%d.intermediate.dense.bias",            "F",  LAYER, 1, 0, ZEROS,  0) \
    X(FFN_OUT_B,    "Qformer.bert.encoder.layer.%d.output.dense.bias",                  "C",  LAYER, 1, 0, ZEROS,  0) \
    X(FFN_LN_W,     "Qformer.bert.encoder.layer.%d.output.LayerNorm.weight",            "C",  LAYER, 1, 0, ONES,   0) \
    X(FFN_LN_B,     "Qformer.bert.encoder.layer.%d.output.LayerNorm.bias",              "C",  LAYER, 1, 0, ZEROS,  0) \
    X(QFFN_IN_B,    "Qformer.bert.encoder.layer.%d.intermediate_query.dense.bias",      "F",  LAYER, 1, 0, COPY,   FFN_IN_B) \
    X(QFFN_OUT_B,   "Qformer.bert.encoder.layer.%d.output_query.dense.bias",            "C",  LAYER, 1, 0, COPY,   FFN_OUT_B) \
    X(QFFN_LN_W,    "Qformer.bert.encoder.layer.%d.output_query.LayerNorm.weight",      "C",  LAYER, 1, 0, COPY,   FFN_LN_W) \
    X(QFFN_LN_B,    "Qformer.bert.encoder.layer.%d.output_query.LayerNorm.bias",        "C",  LAYER, 1, 0, COPY,   FFN_LN_B) \
    X(CROSS_Q_B,    "Qformer.bert.encoder.layer.%d.crossattention.self.query.bias",     "C",  CROSS, 1, 0, ZEROS,  0) \
    X(CROSS_O_B,    "Qformer.bert.encoder.layer.%d.crossattention.output.dense.bias",   "C",  CROSS, 1, 0, ZEROS,  0) \
    X(CROSS_LN_W,   "Qformer.bert.encoder.layer.%d.crossattention.output.LayerNorm.weight", "C", CROSS, 1, 0, ONES, 0) \
    X(CROSS_LN_B,   "Qformer.bert.encoder.layer.%d.crossattention.output.LayerNorm.bias",   "C", CROSS, 1, 0, ZEROS, 0) \
    X(CROSS_K_W,    "Qformer.bert.encoder.layer.%d.crossattention.self.key.weight",     "CE", CROSS, 3, 1, NORMAL, 0) \
    X(CROSS_V_W,    "Qformer.bert.encoder.layer.%d.crossattention.self.value.weight",   "CE", CROSS, 3, 1, NORMAL, 0) \
    X(CROSS_K_B,    "Qformer.bert.encoder.layer.%d.crossattention.self.key.bias",       "C",  CROSS, 4, 1, ZEROS,  0) \
    X(CROSS_V_B,    "Qformer.bert.encoder.layer.%d.crossattention.self.value.bias",     "C",  CROSS, 4, 1, ZEROS,  0) \
    X(LM_DENSE_W,   "Qformer.cls.predictions.transform.dense.weight",                   "CC", MODEL, 5, 0, NORMAL, 0) \
    X(VISION_PROJ_W,"vision_proj.weight",                                               "ZC", MODEL, 5, 0, LINEAR, 0) \
    X(TEXT_PROJ_W,  "text_proj.weight",                                                 "ZC", MODEL, 5, 0, LINEAR, 0) \
    X(ITM_W,        "itm_head.weight",                                                  "2C", MODEL, 5, 0, LINEAR, 0) \
    X(TEMP,         "temp",                                                             "",   MODEL, 5, 0, TEMP,   0) \
    X(LM_DENSE_B,   "Qformer.cls.predictions.transform.dense.bias",                     "C",  MODEL, 5, 0, ZEROS,  0) \
    X(LM_LN_W,      "Qformer.cls.predictions.transform.LayerNorm.weight",               "C",  MODEL, 5, 0, ONES,   0) \
    X(LM_LN_B,      "Qformer.cls.predictions.transform.LayerNorm.bias",                 "C",  MODEL, 5, 0, ZEROS,  0) \
    X(LM_BIAS,      "Qformer.cls.predictions.bias",                                     "V",  MODEL, 5, 0, ZEROS,  0) \
    X(LN_VISION_W,  "ln_vision.weight",                                                 "E",  MODEL, 5, 0, ONES,   0) \
    X(LN_VISION_B,  "ln_vision.bias",                                                   "E",  MODEL, 5, 0, ZEROS,  0) \
    X(VISION_PROJ_B,"vision_proj.bias",                                                 "Z",  MODEL, 5, 0, LINEAR, 0) \
    X(TEXT_PROJ_B,  "text_proj.bias",                                                   "Z",  MODEL, 5, 0, LINEAR, 0) \
    X(ITM_B,        "itm_head.bias",                                                    "2",  MODEL, 5, 0, LINEAR, 0)

typedef enum {
#define X(id, name, shape, where, block, join, start, from) P_##id,
    PARAM_TABLE(X)
#undef X
    P_COUNT
} ParamKind;

typedef enum { DECAY_LAVIS, DECAY_PAPER } DecayRule;         /* model.md 10: at HEAD, and before July 2023 */

typedef struct {
    char name[96];
    ParamKind kind;
    int layer;                          /* -1 for MODEL rows */
    int ndim;
    int64_t shape[2];                   /* [rows, cols] of a matrix; [n] of a vector; nothing of temp */
    int64_t at, n;                      /* first element and elements in the flat arrays */
    bool decay, frozen;
} ParamTensor;

/* A run of neighbouring tensors that the optimizer treats alike. apart: frozen ones stand between it and the range
 * before it. */
typedef struct { int64_t at, n; bool decay, apart; } ParamRange;

typedef struct {
    Dims d;
    const Backend *b;
    int n, nranges;
    ParamTensor *tensor;                /* in memory order */
    ParamRange *range;                  /* trainable ranges */
    int64_t total;                      /* elements of a flat array, gaps included */
    int64_t count;                      /* learned numbers */
    float *w, *g, *m, *v, *ema;         /* flat, on the device; g, m, v only when training, ema when wanted */
    DistPart own;                       /* elements of m, v, ema that are here: all, or this rank's part when sharded */
    bool sharded;
    void *copy;                         /* elem; w itself in f32 */
    int first[P_COUNT];                 /* tensor index of a kind's first layer */
} Params;

/* freeze: patterns, commas between; * and ?. sharded: each rank has its part of the optimizer's state alone. */
typedef struct { bool training, ema, sharded; DecayRule rule; const char *freeze; } ParamsSpec;

/* Lays out the table for d and takes the flat arrays from `run` (which may only measure). Everything is zero
 * afterwards. */
Status params_open(Params *p, const Dims *d, const Backend *b, Arena *run, const ParamsSpec *spec);
void params_close(Params *p);

Param params_get(const Params *p, ParamKind k, int layer);                   /* one tensor; layer -1 for MODEL rows */
/* joined rows as one matrix */
Param params_joined(const Params *p, ParamKind first, ParamKind last, int layer, int last_layer);
/* The tensor of the same layer whose start values t's are a copy of; NULL: it has its own. */
const ParamTensor *params_copy_of(const Params *p, const ParamTensor *t);
DistPart params_layer(const Params *p, int layer); /* where all of a layer stands but its image keys and values */
const ParamTensor *params_find(const Params *p, const char *name); /* also under its aliases; NULL when unknown */

/* Start values (training.md 8): std for NORMAL rows. Deterministic in seed, independent of layout and device. */
Status params_init(Params *p, uint64_t seed, float std);

/* Host copies of one tensor, and the elem copy after the masters were written from outside. */
void params_read(const Params *p, const ParamTensor *t, const float *flat, float *host);
void params_write(const Params *p, const ParamTensor *t, float *flat, const float *host);
void params_refresh(const Params *p);

#endif
