/* import_ids: the names of the images, one a row of features. Private to import.
 *
 * From a file: a JSON list of strings or numbers, a JSON map of names to rows (or rows to names), lines of text, a
 * NumPy or HDF5 array; else from the file of features: the strings or whole numbers in it, or (one array an image)
 * their names. */
#pragma once
#include "data/make/import_source.h"

typedef struct {
    char **id;                 /* (n) */
    int64_t n;
} ImportIds;

/* `path` and `array` may be "" or NULL. ERR_FORMAT also when there are not as many as rows. */
Status import_ids_read(ImportIds *ids, const char *path, const char *array, ImportSource *features);
void import_ids_free(ImportIds *ids);
