/* pickle_names: which names the pickle of a checkpoint may hold, and what calling one makes. For pickle.c. */
#pragma once
#include <stddef.h>

#include "kernels/base/dtype.h"

enum NameKind { MAKES_DICT, MAKES_SIZE, MAKES_OTHER, MAKES_TENSOR, MAKES_PARAMETER, MAKES_MODULE, IS_STORAGE };

typedef struct PickleName { const char *module, *name; enum NameKind kind; DType dtype; } PickleName;

/* NULL: the name is refused. Classes of a TorchScript archive (__torch__.*) make modules; another name that is not
 * known makes something that is not kept (MAKES_OTHER). */
const PickleName *pickle_name(const char *module, size_t nm, const char *name, size_t nn);
