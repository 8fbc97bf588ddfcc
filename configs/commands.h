/* commands: what a word after `qformer` runs: the prototypes of commands.def, one cmd_WORD a row.
 *
 * A command reads its options, speaks on stdout, and returns a status; qformer.c turns it into the exit code. */
#pragma once
#include "configs/options.h"

#define COMMAND(word, ...) Status cmd_##word(const Options *o);
#include "configs/commands.def"
