/* filekind: what a file is, by its first bytes; for readers that were handed something else than they read.
 *
 * Called by textfile, image and import when the bytes are none of theirs. The one idea: the sentence says what the file
 * is and, where somebody else's program converts it, the line to type. */
#pragma once
#include <stddef.h>

#include "kernels/base/err.h"

enum { FILEKIND_LOOK = 512 };                     /* bytes that suffice */

/* "a Parquet table", NULL when nothing that is known begins like this. */
const char *filekind_name(const void *bytes, size_t n);

/* ERR_FORMAT, "PATH: is a Parquet table, not WANTED; python3 ... makes PATH.jsonl of it"; "is not WANTED" when the kind
 * is not known. bytes: the first n of the file. */
Status filekind_refuse(const char *path, const void *bytes, size_t n, const char *wanted);
