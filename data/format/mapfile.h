/* mapfile: a whole file as read-only memory. For the readers of large files that are parsed in place (safetensors,
 * .pth). The file must not shrink while it is mapped: touching what is gone would kill the process. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct { const uint8_t *bytes; size_t n; bool mapped; } MapFile;

Status mapfile_open(MapFile *m, const char *path);   /* ERR_IO with the path and the cause; n = 0: an empty file */
void mapfile_close(MapFile *m);                      /* accepts one that is zero */

/* Bytes that stay the caller's, for those who read either; closing does nothing. */
static inline MapFile mapfile_of(const void *bytes, size_t n) { return (MapFile){.bytes = bytes, .n = n}; }
