/* jsonfile: see jsonfile.h. */
#include "data/format/jsonfile.h"

#include <stdlib.h>

#include "data/format/outfile.h"

Status jsonfile_open(JsonFile *j, int indent) {
    *j = (JsonFile){0};
    j->f = open_memstream(&j->text, &j->n);
    if (!j->f) return err_set(ERR_MEMORY, "out of memory");
    jw_begin(&j->w, j->f, indent);
    return OK;
}

Status jsonfile_write(JsonFile *j, Status st, const char *path) {
    if (j->f && st == OK) st = jw_done(&j->w);
    if (j->f && fclose(j->f) != 0 && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    if (st == OK) st = outfile_put(path, j->text, j->n);
    free(j->text);
    *j = (JsonFile){0};
    return st;
}
