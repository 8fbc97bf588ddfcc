/* gold_speak: "generate" of a whole BLIP-2 or InstructBLIP: searches behind pictures and prompts against the ids that
 * transformers returned. */
#pragma once
#include "data/text/speech.h"
#include "kernels/model/qformer.h"
#include "tests/gold_lm.h"

typedef struct {
    Case *c;
    const QFormer *model;
    const Lm *lm;
    const float *features;              /* (images, P, E) raw, on the host */
    int32_t images;
    const Speech *speech;               /* where prompts are texts; NULL: ids are given */
    const Tokenizer *words;             /* the Q-Former's, of InstructBLIP; NULL: ids are given */
} GoldSpeak;

/* "generate": runs by name, or {"prompts", "searches"}: what is the same for all stands once. A run has "prompt",
 * "prompts" or "prompt_ids" (for all pictures, or a list for each; one picture may have several), "qformer_ids", the
 * settings that differ from transformers' defaults, and "ids" of the new tokens. */
Status gold_speak(const GoldSpeak *g, const Json *generate);

/* Visual rows of all pictures on the host in f32 (images Q, W), new: as the language model meets them. */
Status gold_speak_soft(const GoldSpeak *g, float **soft);
