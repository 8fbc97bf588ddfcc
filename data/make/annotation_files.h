/* annotation_files: from what a user writes, "train.json,test:b.csv", to the list of annotation files.
 *
 * Commas between; a word and a colon in front of a file name its split, unless a file of that whole name exists; a path
 * that exists wins over commas in it (path.h). */
#pragma once
#include "data/make/annotations.h"

typedef struct {
    AnnotationFile *file;      /* (n); root NULL */
    size_t n;
    AnnotationColumns columns; /* what all of them point to */
    char *text;                /* private */
} AnnotationFiles;             /* starts as {0} */

/* The strings of `columns` stay the caller's. An empty list is none. ERR_MEMORY. */
Status annotation_files(AnnotationFiles *l, const char *list, const AnnotationColumns *columns);
void annotation_files_free(AnnotationFiles *l);
