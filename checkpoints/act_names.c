/* act_names: see act_names.h. */
#include "checkpoints/act_names.h"

#include <string.h>

/* The first name of an activation is the one to write. */
static const struct { const char *name; ActKind act; } names[] = {
    {"gelu", ACT_GELU}, {"gelu_new", ACT_GELU_TANH}, {"quick_gelu", ACT_GELU_QUICK}, {"relu", ACT_RELU},
    {"silu", ACT_SILU}, {"gelu_pytorch_tanh", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH}, {"swish", ACT_SILU},
    {"gelu (erf)", ACT_GELU}, {"gelu_tanh", ACT_GELU_TANH}};
enum { NAMES = sizeof names / sizeof *names };

bool act_named(ActKind *act, const char *name) {
    for (int i = 0; i < NAMES; i++)
        if (name && strcmp(names[i].name, name) == 0) {
            *act = names[i].act;
            return true;
        }
    return false;
}

const char *act_name(ActKind act) {
    int i = 0;
    /* the first of an activation's names is the one that transformers writes itself */
    while (i + 1 < NAMES && names[i].act != act) i++;
    return names[i].name;
}
