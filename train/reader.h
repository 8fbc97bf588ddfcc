/* reader: a language model learns from the texts of a set alone, all its weights, so that stage 2 has one to speak to
 * where none can be fetched (pretrain objective=lm).
 *
 *     in front     a caption of a picture, where stage 2 puts its visual rows; no target
 *     behind it    the picture's other captions, questions and answers, as stage 2 learns to have them said
 *
 * So it learns to read off a description what is asked about it. A picture with one text has nothing in front: that is
 * plain language modelling. What stands in front stands once for all texts behind it (lm_wave.h); the loss is the mean
 * over all targets of the global batch. checkpoints/lm_write.h makes a folder of
 * it that stage 2 and transformers open. */
#pragma once
#include "kernels/model/lm_model.h"
#include "train/join.h"
#include "train/targets.h"

typedef struct {
    LmDims d;                           /* of the Llama family */
    int32_t texts, ids, front;          /* most texts of a picture, most ids of one, most ids in front of them */
    bool wire_bf16;                     /* gradients travel as bf16 */
} ReaderSpec;

typedef struct {
    const Backend *b;
    Lm lm;                              /* what learns */
    ReaderSpec spec;
    Arena *step;
    int64_t B;                          /* pictures on this rank */
    int micro;                          /* pieces they run in */
    Join join;
    Tape tape;
    Staging room;
    Targets targets;
    LmPrefix *prefix;                   /* (B / micro) */
    LmText *text;                       /* (B / micro texts) */
} Reader;

/* spec: a ReaderSpec, self: a Reader. The batch: items of a view, whose ids stand in front of them;
 * a view a picture. */
extern const Objective reader_objective;

static inline const Lm *reader_model(const void *self) { return &((const Reader *)self)->lm; }
