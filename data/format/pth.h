/* pth: the tensors of a PyTorch checkpoint (.pth, .pt, .bin), read without executing what it says.
 *
 * Called by weights.c (import of LAVIS, EVA and CLIP weights) and by import (features). Two containers are known: the
 * zip archive of torch 1.6 and later, and the chain of pickles before it. Both hold a pickle that describes views of
 * storages; the file is mapped and a view that lies dense in its storage costs nothing, any other is copied when it is
 * asked for.
 *
 * Names: tensors of the state dict keep theirs. The state dict is the member "model" (LAVIS), else "state_dict",
 * else the whole. Tensors elsewhere are reached by the keys on the way, joined by dots:
 * "optimizer.state.7.exp_avg"; those of a TorchScript archive (OpenAI's CLIP) in the same way by its modules' names.
 * A file that is one tensor has it under the name "".
 *
 * Every count, offset and stride is checked, so an open file holds only tensors that lie inside of it. Refused:
 * names not on the list of pickle.c, big-endian files, compressed archives, more than ST_DIMS dimensions, files
 * without tensors, and views that repeat elements (stride 0) beyond four times the size of the file. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "data/format/label.h"
#include "data/format/safetensors.h"
#include "kernels/base/err.h"

typedef struct PthFile PthFile;

bool pth_looks_like(const void *bytes, size_t n);                 /* by the first bytes; 16 are enough */
Status pth_open(PthFile **f, const char *path);                   /* ERR_IO, ERR_FORMAT, ERR_MEMORY */
Status pth_open_memory(PthFile **f, const void *bytes, size_t n, const char *name);
void pth_close(PthFile *f);                                       /* accepts NULL */

size_t pth_count(const PthFile *f);
bool pth_is_script(const PthFile *f);                             /* a TorchScript archive */
bool pth_in_model(const PthFile *f, size_t i);                    /* part of the state dict */
/* The tensor, dense and aligned; lives until pth_close. ERR_MEMORY, or ERR_FORMAT when copies exceed all proportion. */
Status pth_tensor(PthFile *f, size_t i, const StTensor **t);
Status pth_find(PthFile *f, const char *name, const StTensor **t);/* *t NULL when absent */

/* Lists of strings or whole numbers among the members of the outermost dict, as people save ids beside features. */
size_t pth_lists(const PthFile *f);
const char *pth_list_name(const PthFile *f, size_t i);
size_t pth_list_count(const PthFile *f, size_t i);
Status pth_list_labels(const PthFile *f, size_t i, LabelFn *fn, void *ctx);
