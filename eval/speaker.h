/* speaker: a frozen language model opened for use: its sizes, its tokenizer, what it is given and shall say
 * (speech.h), and, once there is memory for them, its weights.
 *
 * As LAVIS has it and Hugging Face's BLIP-2 keeps it, a gated T5 gets the exact GELU. Used by stage 2's training and by
 * whatever lets a model speak. Opening reads config.json and tokenizer only, so that plans need no weights;
 * speaker_load takes memory, which was measured, and fills it. */
#pragma once
#include "checkpoints/lm_weights.h"
#include "data/text/speech.h"
#include "kernels/model/lm_model.h"

typedef struct {
    const Backend *b;
    Backend null;                       /* what a measure runs on */
    char *folder;
    LmSource src;                       /* weights closed once they are loaded */
    Tokenizer *tok;
    Speech speech;
    Arena mem;
    Lm lm;
    size_t bytes;                       /* that the weights take */
} Speaker;

/* Lengths of prompts and targets in ids; 0: the usual. rows: of a text, visual ones included, that is possible then.
 * fit: lengths that the model has too few positions for become shorter; else they are refused. */
typedef struct { bool instruct; int32_t max_prompt, max_target, Q; bool fit; } SpeakerSpec;

Status speaker_open(Speaker *s, const Backend *b, const char *folder, const SpeakerSpec *spec);

/* Memory alone, on a measuring arena: what passes on the null backend need; then with weights. */
Status speaker_measure(Speaker *s);
Status speaker_load(Speaker *s);
void speaker_close(Speaker *s);

/* The most ids of a text, prompt included, and the most rows it takes behind Q visual ones. */
int32_t speaker_ids(const Speaker *s);
