/* act_names: what config.json calls an activation ("hidden_act", "activation_function", "dense_act_fn"). */
#pragma once
#include <stdbool.h>

#include "kernels/backend.h"

/* False: a name that is not known here, or NULL. */
bool act_named(ActKind *act, const char *name);
const char *act_name(ActKind act);
