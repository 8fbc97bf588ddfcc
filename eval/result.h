/* result: the files that a command writes, once and for all commands: where they lie, that nothing is lost, that each
 * appears whole.
 *
 *     out=FOLDER                         FOLDER/name; the folder is made
 *     out=FILE, ending as `name` does    that file
 *     no out                             nothing is written */
#pragma once
#include "configs/options.h"
#include "data/format/json.h"

/* Before anything is computed: ERR_USAGE when the result file is there already and not overwrite=true (outfile_claim),
 * or the second one, `beside` it: "l" is the same name with an l (JSON Lines), any other the name of a file in the
 * folder `out`. NULL: there is none. */
Status result_claim(const Options *o, const char *name, const char *beside);

/* Whether `path` ends as `name` does (".json"). */
bool result_ends_like(const char *path, const char *name);

/* The file's path (free it), its folder made; NULL when nothing is written. */
Status result_path(const Options *o, const char *name, char **path);

/* JSON of `what`: in memory (free *text); as a file; as the file of `name`, which is then said. indent: jw_begin's. */
typedef void ResultJson(JsonWriter *w, const void *what);
Status result_text(char **text, size_t *n, int indent, ResultJson *write, const void *what);
Status result_json(const char *path, int indent, ResultJson *write, const void *what);
Status result_write(const Options *o, const char *name, ResultJson *write, const void *what);

/* A summary, and beside it lines: one for each `each` ("a query"). */
Status result_write_both(const Options *o, const char *name, ResultJson *summary, ResultJson *lines, const char *each,
                         const void *what);
