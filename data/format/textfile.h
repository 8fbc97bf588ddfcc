/* textfile: a text file whole in memory, however it was stored.
 *
 * Called by whoever reads lists, tables and JSON that people bring. Unpacked when it was compressed by gzip; a byte
 * order mark is left out; UTF-16 (Excel's "Unicode text") becomes UTF-8. What is no text at all (Parquet, a pickle, a
 * zip archive, a web page) is refused by its name (filekind.h).
 * Whether the rest is valid UTF-8 is for the reader to check. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "kernels/base/err.h"

#define TEXTFILE_MAX ((size_t)4 << 30)       /* bytes, unpacked */

/* *text has n bytes and a NUL after them: free it. `wanted` says what the caller reads ("a table or JSON"). ERR_IO,
 * ERR_FORMAT, ERR_MEMORY name the path. */
Status textfile_read(char **text, size_t *n, const char *path, const char *wanted);

/* The same from bytes in memory, as they stand in a file. */
Status textfile_decode(char **text, size_t *n, const void *bytes, size_t size, const char *path, const char *wanted);

/* All bytes of a file as they stand there, with room for one more: free(*bytes), also after a failure. Their number is
 * found by reading, so that a pipe works and a file that grows does no harm. */
Status textfile_bytes(FILE *f, const char *path, char **bytes, size_t *n);

/* Takes the next line of *at (up to end) without its end; false when there is none. CRLF counts as LF. */
bool textfile_line(const char **at, const char *end, const char **line, size_t *n);
