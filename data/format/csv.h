/* csv: comma- or tab-separated text, row by row. Called by annotations.
 *
 * Fields may be quoted as RFC 4180 has it: "a ""b"", c" is one field, and may hold line ends. The separator is a tab
 * when the first line has one, else a comma. CRLF counts as LF; a byte order mark and empty lines are skipped. Every
 * row must have as many fields as the first. Text must be UTF-8 without NUL bytes. */
#ifndef QF_CSV_H
#define QF_CSV_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

/* Called for each row, the header too (line 1 unless blank lines precede). Fields are gone after it returns. */
typedef Status CsvRowFn(void *ctx, int64_t line, size_t n, const char *const *fields);

/* Reads f to its end. Errors say "name:line: what", also those of fn, whose message gets that in front. */
Status csv_read(FILE *f, const char *name, CsvRowFn *fn, void *ctx);

#endif
