/* lm_weights: a language model's folder, as Hugging Face publishes them, into the frozen store.
 *
 * config.json and the weights beside it: one file or several with an index, safetensors or .bin, f32, f16 or bf16; the
 * model alone, or as language_model.* inside of a BLIP-2 or InstructBLIP folder. Tensors go to the device one by one,
 * in pieces: the host never holds them all (files are mapped).
 *
 *     lm_source_open      what it is: sizes, with what only the weights tell (own head, biases)
 *     lm_open             kernels/model/lm.h: memory, or its measure
 *     lm_load             the weights */
#pragma once
#include "checkpoints/weights.h"
#include "kernels/model/lm.h"

typedef struct { LmDims d; WeightSource *ws; } LmSource;

/* ERR_IO, ERR_FORMAT, ERR_MEMORY. */
Status lm_source_open(LmSource *s, const char *folder);
void lm_source_close(LmSource *s);

/* All tensors of the table must be there in their shape; what the folder holds beside them is left alone. Ends with
 * lm_ready. ERR_FORMAT names the tensor and both shapes. */
Status lm_load(Lm *m, const LmSource *s);
