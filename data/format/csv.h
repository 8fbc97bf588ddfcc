/* csv: tables as text, row by row. Called by annotations and classify.
 *
 * The separator is a comma, semicolon, tab or bar. In tables with commas or semicolons a field may be quoted as RFC
 * 4180 has it: "a ""b"", c" is one field, and may hold line ends. With tabs and bars a quote that does not close before
 * the next separator is a character like any other, for captions there begin with quotes that mean nothing. Blanks
 * around a field do not count. CRLF counts as LF; a byte order mark and empty lines are skipped. Every row must have as
 * many fields as the first. Text must be UTF-8 without NUL bytes. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

/* Called for each row, the header too (line 1 unless blank lines precede). Fields are gone after it returns. */
typedef Status CsvRowFn(void *ctx, int64_t line, size_t n, const char *const *fields);

/* The character that separates: a tab if the first line has one, else whichever of | ; , stands there most often. */
char csv_separator(const char *text, size_t n);

/* Reads all of text[0..n). separator 0: csv_separator's. Errors say "name:line: what", also those of fn, whose message
 * gets that in front. */
Status csv_read(const char *text, size_t n, const char *name, char separator, CsvRowFn *fn, void *ctx);
