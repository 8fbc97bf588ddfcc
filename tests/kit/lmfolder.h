/* lmfolder: a tiny language model's folder, as Hugging Face publishes them, with random weights: for tests of what
 * speaks to one. In the folder of folder.h; its tokenizer is the small one like Llama-2's of tests/golden, it is 24
 * wide and has LMFOLDER_POSITIONS positions. */
#pragma once
#include "kernels/base/dtype.h"

#define LMFOLDER_POSITIONS "512"

void lmfolder_make(const char *name, DType stored);         /* the type of the weights in the file: hubs have bf16 */
