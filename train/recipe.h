/* recipe: how a model is trained, from options: losses, parameters, optimizer, schedule. */
#pragma once
#include "configs/options.h"
#include "data/text/tokenizer.h"
#include "train/reader.h"
#include "train/stage1.h"
#include "train/stage2.h"
#include "train/trainer.h"

/* What a run's options make learn. */
typedef enum { LEARNS_STAGE1, LEARNS_STAGE2, LEARNS_LM } Learns;
Learns recipe_learns(const Options *o);

/* The language model that objective=lm trains on the texts of a tokenizer. ERR_USAGE, ERR_FORMAT without end token. */
Status recipe_lm(LmDims *d, const Options *o, const Tokenizer *tok);

void recipe_stage1(Stage1Spec *s, const Options *o);
void recipe_stage2(Stage2Spec *s, const Options *o, const Lm *lm, int32_t ids);   /* ids: the most of a text */
void recipe_reader(ReaderSpec *s, const Options *o, int32_t ids);                 /* all but its model's sizes */
void recipe_params(ParamsSpec *s, const Options *o);          /* strings live as long as o */
void recipe_adam(AdamSpec *a, const Options *o);
void recipe_schedule(Schedule *s, const Options *o, int64_t steps, int64_t steps_per_epoch);
float recipe_init_std(const Options *o, const Dims *d);       /* 0.02 sqrt(768 / C) unless given */
