/* yaml: the one place that knows libyaml. Configurations are small maps of scalars; this is what is read here.
 *
 * Called by configs/options.c. A document is walked once; every leaf is handed over with its dotted key and its line:
 *
 *     optim:            ->   "optim.lr" "1e-4" line 2
 *       lr: 1e-4
 *
 * A list of scalars becomes one value with commas between. All values are text here: the table of options knows kinds.
 *
 * Does not take anchors, aliases, tags, several documents, maps inside lists, or more than 4 levels: each is refused
 * with its line. So the work is linear in the size of the text, whatever the text is. */
#pragma once
#include <stddef.h>
#include <stdio.h>

#include "kernels/base/err.h"

/* `key` and `value` live until the visit returns. A status other than OK ends the walk and becomes its result. */
typedef Status (*YamlVisit)(void *context, const char *key, const char *value, int line);

/* Walks `text` (n bytes); `name` stands for the file in messages ("demo.yaml:3: ...").
 * ERR_USAGE if it is no such map. */
Status yaml_walk(const char *text, size_t n, const char *name, YamlVisit visit, void *context);

/* Writes `s` (valid UTF-8) as a double-quoted scalar that any YAML reader turns back into the same bytes. */
void yaml_put_quoted(FILE *f, const char *s);
