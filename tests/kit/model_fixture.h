/* model_fixture: a tiny model with random weights, a vocabulary and a small set, in a temporary folder: what tests
 * of evaluation share. model.safetensors, vocab.txt and set.h5 are what a user would have. */
#pragma once
#include <stdio.h>

#include "data/shard_write.h"
#include "eval/evalset.h"
#include "eval/setup.h"
#include "checkpoints/params_io.h"

enum { FIX_IMAGES = 6, FIX_TEXTS = 11, FIX_P = 5, FIX_E = 12, FIX_T = 16 };

typedef struct {
    char dir[64];
    const Backend *b;
    Arena mem;
    QFormer model;
    Tokenizer *tok;
    Set *data;
    EvalSet set;
    float features[FIX_IMAGES][FIX_P * FIX_E];
} ModelFixture;

extern const char *const fix_ids[FIX_IMAGES];

/* A path in the folder; sixteen live at a time. */
const char *model_path(const ModelFixture *f, const char *name);
int model_write_text(const char *path, const char *text);
Status model_write_set(ModelFixture *f, const char *path, int64_t E);
int model_setup(void **state);
int model_teardown(void **state);
