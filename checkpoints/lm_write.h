/* lm_write: a language model that was trained here (train/reader.h) as the folder that Hugging Face's tools and stage 2
 * open: LlamaForCausalLM's config.json, model.safetensors, and the tokenizer.
 *
 * A WordPiece vocabulary goes with a tokenizer_config.json that makes it transformers' BertTokenizer: [CLS] begins a
 * text, [SEP] ends it, so what generation begins with is its ids without the last. Any other tokenizer is one file,
 * which is copied. Called by the command export. */
#pragma once
#include "data/format/safetensors.h"
#include "data/text/tokenizer.h"
#include "kernels/model/lm_dims.h"

/* tensors: under their published names, with data. vocab: the file or folder that tok is from. The folder is made if
 * absent. ERR_IO, ERR_MEMORY; ERR_USAGE when a file is there already and not `overwrite`. */
Status lm_write(const char *dir, const LmDims *d, const StTensor *tensors, size_t n, const Tokenizer *tok,
                const char *vocab, bool overwrite);
