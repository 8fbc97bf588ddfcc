/* weights: one way to ask for a tensor, whatever the file it lies in.
 *
 * Called by everything that starts from weights: init, pretrain, finetune, evaluation, import of ViT weights. A
 * source is one of, found out by looking:
 *     a step directory (model.safetensors of it), a run's directory (its newest step that loads, crc32c checked),
 *     a .safetensors file, a PyTorch checkpoint (LAVIS .pth, pytorch_model.bin; data/format/pth.h),
 *     a directory with model.safetensors or pytorch_model.bin, as Hugging Face publishes models, whole or in
 *     several files with an .index.json (checkpoints/shards.h);
 * with LAVIS names, Hugging Face names or BERT names (checkpoints/names.h), found out by counting which fits most
 * tensors; and whatever a wrapper put in front of all of them (module. _orig_mod. model. ...), which comes off.
 *
 * Tensors are found under their LAVIS names; those without one (visual_encoder.*, bert.pooler.*) keep their own.
 * The tied aliases cls.predictions.decoder.* are found under both names, whichever the file holds. Does not decide
 * what may be absent, nor fit 30,522 words to 30,523: who loads knows that. */
#pragma once
#include "checkpoints/checkpoint.h"
#include "checkpoints/names.h"
#include "data/format/safetensors.h"
#include "kernels/base/err.h"

typedef struct WeightSource WeightSource;

/* ERR_IO, ERR_FORMAT, ERR_MEMORY. `warn` (may be NULL) hears of a broken step that is skipped for the one before. */
Status ws_open(WeightSource **ws, const char *path, CkptWarn *warn, void *ctx);
/* The same with the names that the file gives: of models that are not a Q-Former (encoders, language models). */
Status ws_open_raw(WeightSource **ws, const char *path);
void ws_close(WeightSource *ws);                            /* accepts NULL */

/* NULL when absent. The name in the result is the LAVIS name; data is dense, aligned, and lives until ws_close. */
const StTensor *ws_find(const WeightSource *ws, const char *lavis_name);
size_t ws_count(const WeightSource *ws);
const StTensor *ws_at(const WeightSource *ws, size_t i);    /* sorted by name */

NameForm ws_form(const WeightSource *ws);
const char *ws_prefix(const WeightSource *ws);              /* what came off the names; "" mostly */
bool ws_is_script(const WeightSource *ws);                  /* a TorchScript archive */
/* a folder was named: files beside the weights are theirs */
bool ws_in_folder(const WeightSource *ws);
const char *ws_path(const WeightSource *ws);                /* what was opened in the end */
const Ckpt *ws_checkpoint(const WeightSource *ws);          /* when it is one of ours, else NULL */
/* Of two StTensors, for qsort. */
int ws_by_name(const void *a, const void *b);
