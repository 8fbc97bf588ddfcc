/* setup: from what the user asked for to a device and the sizes of a model. Checks options against each other and
 * against the data. How it is trained: train/recipe.h. */
#pragma once
#include "configs/options.h"
#include "data/make/encoder.h"
#include "data/text/tokenizer.h"
#include "kernels/backend.h"
#include "kernels/model/dims.h"

/* Where to compute and in which type: device, precision (auto: bf16 where the device multiplies it faster). */
Status setup_backend(const Backend **b, const Options *o);

/* Sizes from model.*; E and P from the data (P, E > 0), V and ids from the vocabulary (NULL: those
 * of bert-base-uncased). */
/* The special ids and the vocabulary's size. ERR_USAGE when its kind is not the one that stage 1 reads. */
Status setup_tokens(Dims *d, const Tokenizer *tok);
Status setup_dims(Dims *d, const Options *o, const Tokenizer *tok, int64_t P, int64_t E);

/* The image encoder of extract.*: patches, or a released model. *bytes (may be NULL): what it takes on the device. */
Status setup_encoder(ImageEncoder **e, const Options *o, const Backend *b, size_t *bytes);
