/* lm_config: config.json of a language model, as Hugging Face's folders carry it, into sizes that can be trusted.
 *
 * Called by whoever opens a language model (checkpoints/lm_weights.c) and by `plan`, which needs no weights. Known are
 * model_type opt, t5, llama, mistral and qwen2, by themselves or as text_config of blip-2 and instructblip. Both forms
 * of the rotary settings are read (rope_theta and rope_scaling of the hub; rope_parameters of transformers 5); keys
 * that are absent have transformers' defaults. A sliding window limits the rows of a text (LmDims.N): within it, it
 * has no effect.
 *
 * The file is input: each number has a range, heads must divide, and what would change the arithmetic and is not known
 * here (another activation, rotary scaling, attention of another kind) is refused with its name. Sources:
 * transformers' configuration classes; spec/stage2.md 2a to 3a. */
#pragma once
#include "data/format/json.h"
#include "kernels/model/dims.h"
#include "kernels/model/lm_dims.h"

/* From a folder's config.json, and generation_config.json for further end tokens where there is one. `path` may name
 * the config.json itself. ERR_IO, ERR_FORMAT, ERR_MEMORY. */
Status lm_config_read(LmDims *d, const char *path);

/* Published models by name ("opt-2.7b", "flan-t5-xl", "vicuna-7b"), for plans before anybody has their files. False
 * when the name is not known; lm_config_names lists those that are. */
bool lm_config_known(LmDims *d, const char *name);
const char *lm_config_names(void);

/* The same from documents; generation may be NULL. `path` is for messages. */
Status lm_config_parse(LmDims *d, const Json *config, const Json *generation, const char *path);

/* How norms and feed-forward nets of a folder's Q-Former compute (qformer_config): eps, eps_vision and act; the other
 * members of d stay. */
Status lm_config_habits(Dims *d, const Json *config, const char *path);
