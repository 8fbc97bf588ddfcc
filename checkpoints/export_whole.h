/* export_whole: a stage-2 model as transformers' Blip2ForConditionalGeneration (or, where its Q-Former reads prompts,
 * InstructBlipForConditionalGeneration) takes it: one folder with everything in it.
 *
 *     model.safetensors     Q-Former, queries, projection under Hugging Face's names; language_model.* copied from its
 *                           folder, in its element type; vision_model.* when a tower is given
 *     config.json           text_config as the language model's folder has it
 *     tokenizer files       copied from the language model's folder
 *
 * Without a tower transformers makes the tower anew and says so: features come from elsewhere. */
#pragma once
#include "checkpoints/export.h"

typedef struct {
    const char *lm;                     /* folder of the language model, or of a BLIP-2 that holds one */
    int64_t image_token;                /* an id that no text has, or -1: none is free */
    bool decoder_only;
    const char *act;                    /* dense_act_fn to write for T5, or NULL: as the folder has it */
} HfWhole;

/* tensors: ours, LAVIS names, with data; tower: NULL, or what goes with them. ERR_IO, ERR_FORMAT, ERR_MEMORY. *count
 * becomes the tensors written. */
Status hf_export_whole(const char *dir, const HfDims *d, const HfWhole *whole, const StTensor *tensors, size_t n,
                       const HfTower *tower, size_t *count);
