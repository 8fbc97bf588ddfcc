/* result: see result.h. */
#include "eval/result.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/outfile.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

/* ---- where ------------------------------------------------------------------------------------------------------- */

bool result_ends_like(const char *path, const char *name) {
    const char *end = strrchr(name, '.');
    size_t n = strlen(path), m = end ? strlen(end) : 0;
    return m && n > m && strcmp(path + n - m, end) == 0;
}

static char *path_of(const Options *o, const char *name) {
    const char *out = o->run.out;
    return result_ends_like(out, name) ? mem_strdup(out) : mem_format("%s/%s", out, name);
}

Status result_claim(const Options *o, const char *name, const char *beside) {
    if (!*o->run.out || !name) return OK;                    /* nothing is written: nothing is in the way */
    bool lines = beside && strcmp(beside, "l") == 0, folder = !result_ends_like(o->run.out, name);
    char *path = path_of(o, name), *second = NULL;
    Status st = path ? outfile_claim(path, o->run.overwrite) : ERR_MEMORY;
    /* out=x.csv of a command that writes x.json: a slip, and no folder's name */
    if (st == OK && folder) st = outfile_folder(o->run.out, strrchr(name, '.'));
    if (st == OK && beside && (lines || folder) &&
        !(second = lines ? mem_format("%sl", path) : mem_format("%s/%s", o->run.out, beside)))
        st = ERR_MEMORY;
    if (st == OK && second) st = outfile_claim(second, o->run.overwrite);
    mem_free(path, second);
    return st;
}

Status result_path(const Options *o, const char *name, char **path) {
    *path = NULL;
    if (!*o->run.out) return OK;
    *path = path_of(o, name);
    Status st = *path ? outfile_parents(*path) : ERR_MEMORY;
    if (st == OK) return OK;
    free(*path);
    *path = NULL;
    return st;
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

Status result_text(char **text, size_t *n, int indent, ResultJson *write, const void *what) {
    JsonWriter w;
    *text = NULL;
    FILE *f = open_memstream(text, n);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    /* into memory: a failed write must not leave half a file */
    jw_begin(&w, f, indent);
    write(&w, what);
    Status st = jw_done(&w);
    if (fclose(f) != 0 && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    if (st == OK) return OK;
    free(*text);
    *text = NULL;
    return st;
}

Status result_json(const char *path, int indent, ResultJson *write, const void *what) {
    char *text;
    size_t n = 0;
    Status st = result_text(&text, &n, indent, write, what);
    if (st == OK) st = outfile_put(path, text, n);
    free(text);
    return st;
}

Status result_write(const Options *o, const char *name, ResultJson *write, const void *what) {
    char *path = NULL;
    Status st = result_path(o, name, &path);
    if (st == OK && path) st = result_json(path, 1, write, what);
    if (st == OK && path) status_say("%s", path);
    free(path);
    return st;
}

Status result_write_both(const Options *o, const char *name, ResultJson *summary, ResultJson *lines, const char *each,
                         const void *what) {
    char *path = NULL, *second = NULL;
    Status st = result_path(o, name, &path);
    if (st == OK && path && !(second = mem_format("%sl", path))) st = ERR_MEMORY;
    if (st == OK && path) st = result_json(path, 1, summary, what);
    if (st == OK && path) st = result_json(second, 0, lines, what);
    if (st == OK && path) status_say("%s, and a line %s in %s", path, each, second);
    mem_free(path, second);
    return st;
}
