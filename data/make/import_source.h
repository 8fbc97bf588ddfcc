/* import_source: an array of features and a list of ids, whatever file they are in. Private to import. */
#ifndef QF_IMPORT_SOURCE_H
#define QF_IMPORT_SOURCE_H
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/dtype.h"
#include "kernels/base/err.h"

typedef struct {
    DType dtype;               /* F64 F32 F16 BF16 E4M3 */
    int64_t N, P, E;
    size_t row_bytes;          /* of P*E elements */
    struct SourceFile *file;   /* private */
} Source;

Status source_open(Source *s, const char *path, const char *array);
Status source_next(Source *s, void *row);                  /* the next of the N rows */
void source_close(Source *s);                              /* accepts {0} */

typedef struct {
    char **id;                 /* (n) */
    int64_t n;
} Ids;

/* `features` is the file of features, for when `path` is "" and the ids are in it. */
Status ids_read(Ids *ids, const char *path, const char *array, const char *features);
void ids_free(Ids *ids);

#endif
