/* fingerprint: what a file on disk was when something was made from it, as a number.
 *
 * Called by whoever makes data sets: extract, import, repack. Two runs over the same files get the same number; a file
 * that was replaced gives another. Cheap on purpose, since it is taken anew each time a run goes on: small files count
 * with their bytes, large ones with size, time and 64 pieces spread over them. A folder counts with names, sizes and
 * times of all files below it. Never 0, which stands for "not recorded". */
#pragma once
#include <stdint.h>

#include "kernels/base/err.h"

/* Adds a file or folder to *h (begin with HASH_START). Where it lies does not count. ERR_IO names it. */
Status fingerprint_file(uint64_t *h, const char *path);

/* Size and time of change alone: for many files that are read later anyway. */
Status fingerprint_stat(uint64_t *h, const char *path);

static inline uint64_t fingerprint_end(uint64_t h) { return h ? h : 1; }
