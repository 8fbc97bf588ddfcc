/* path: what the names of files say, several of them in one text, and what lies below a folder. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/base/err.h"

const char *path_base(const char *path);         /* what follows the last '/' */
char *path_folder(const char *path);             /* a new text: what stands before it; "." or "/" */
char *path_beside(const char *path, const char *name);   /* a new text: the name, in the folder of the path */
bool path_is_below(const char *name);            /* whether no part leads out of the folder it is relative to */

/* Whether it ends in `end` (one of a list that NULL ends), in any case. */
bool path_ends(const char *path, const char *end);
bool path_ends_in(const char *path, const char *const *ends);

/* Several paths with commas between. A comma that belongs to the name of something that exists does not separate: an
 * existing path wins, the longest first. path_next cuts the next one off *rest and returns it, NULL at the end; blanks
 * around it and empty items are left out. No more than path_most are in a list. */
char *path_next(char **rest);
size_t path_most(const char *list);

/* Calls fn for every file below a folder, named relative to it, in no order; what begins with a dot is passed over.
 * Stops at the first status other than OK. ERR_IO names the folder that cannot be read. */
typedef Status PathFn(void *ctx, const char *name);
Status path_walk(const char *root, PathFn *fn, void *ctx);
