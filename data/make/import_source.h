/* import_source: features that somebody computed, one row an image (view), whatever file they are in. Private to
 * import.
 *
 * Rows are those of one array (N, P, E), (N, E) or (N, h, w, E); or one array an image, (P, E), (E) or (h, w, E), in
 * groups or members of a file or in files of a folder, and then their names are the ids; or the rows of several arrays
 * one after the other (SOURCE_PARTS), when there are as many ids.
 *
 * Maps (N, C, H, W), as PyTorch has them, would be taken for C x H tokens of W numbers: a shape that looks like it is
 * refused unless `layout` says what it is. LAYOUT_CHANNELS turns each row round. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "data/format/arrays.h"

typedef enum { LAYOUT_AUTO, LAYOUT_TOKENS, LAYOUT_CHANNELS } SourceLayout;
typedef enum { SOURCE_ROWS, SOURCE_EACH, SOURCE_PARTS } SourceKind;

typedef struct {
    SourceKind kind;
    DType dtype;               /* F64 F32 F16 BF16 E4M3 */
    int64_t N, P, E;
    size_t row_bytes;          /* of P*E elements */
    const char *path;          /* the caller's */
    ArrayBox *box;
    struct SourceFile *file;   /* private */
} ImportSource;

Status import_source_open(ImportSource *s, const char *path, const char *array, SourceLayout layout);
Status import_source_next(ImportSource *s, void *row);                  /* the next of the N rows */
Status import_source_rewind(ImportSource *s);                           /* the next row is the first again */
void import_source_close(ImportSource *s);                              /* accepts {0} */

int64_t import_source_arrays(const ImportSource *s);

/* SOURCE_EACH: the name of array i without what all have in common; free it. */
char *import_source_name(const ImportSource *s, int64_t i);

/* SOURCE_EACH whose arrays have n rows together: from now on SOURCE_PARTS. False when they do not fit. */
bool import_source_as_parts(ImportSource *s, int64_t n);
