/* jsonfile: a file of JSON, written into memory and then put where it belongs at once:
 * readers find all of it or nothing. */
#pragma once
#include "data/format/json.h"

typedef struct { JsonWriter w; FILE *f; char *text; size_t n; } JsonFile;

Status jsonfile_open(JsonFile *j, int indent);               /* as in jw_begin */
Status jsonfile_write(JsonFile *j, Status st, const char *path);    /* st not OK: nothing is written; frees j */
