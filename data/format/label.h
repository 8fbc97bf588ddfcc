/* label: who is handed the labels of an array, one after the other, whatever file they stand in: so that no reader
 * makes a list of them, and none has to be freed. */
#pragma once
#include <stddef.h>

#include "kernels/base/err.h"

/* text[0..n), gone after the call. What is not OK ends the reading, and is what the reader returns. */
typedef Status LabelFn(void *ctx, const char *text, size_t n);
