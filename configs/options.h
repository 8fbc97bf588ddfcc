/* options: what the user asked for. One grammar and one table for every command.
 *
 *     qformer <command> [config.yaml] [input] [key=value ...]
 *
 * The table is options.def, one row an option: key, kind, default, bounds, commands, help. From it come parsing,
 * checking, printing and --help. A key is dotted (optim.lr); in a YAML file nested maps flatten to the same key.
 * The command line wins over the file. After parsing every option has a value: what the user gave, or the default.
 *
 * Called by qformer.c (parse, help) and by every command (opt_*). Checkpoints keep options_text, which parses back to
 * the same values.
 *
 * Does not check options against each other (model.hidden against model.heads): that is for whoever uses them. */
#ifndef QF_OPTIONS_H
#define QF_OPTIONS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

typedef struct Options Options;

/* Reads the arguments after the command. Each is one of
 *   file.yaml | file.yml        a configuration, at most one, read before anything else wherever it stands
 *   key=value  --key=value  --key value  --flag        an option (a '-' in a --key reads as '_')
 *                               a command's own options need not name it: `extract views=6` is extract.views=6
 *   -v  -vv                     verbose=1, verbose=2
 *   anything else               the input of a command that has one (option `in`): qformer inspect model.safetensors
 * ERR_USAGE for what the user should have written otherwise: unknown keys (with the nearest known one), keys that the
 * command does not use (on the command line only: a file may serve several commands), wrong kinds, values out of
 * bounds, a configuration that cannot be opened; the message names the file and line. *out is NULL then. */
Status options_parse(Options **out, const char *command, int argc, char *const argv[]);

/* The same from a YAML text of n bytes; `name` stands for the file in messages. Keys of any command are welcome. */
Status options_parse_text(Options **out, const char *command, const char *text, size_t n, const char *name);

void options_free(Options *o);

/* Values. An unknown key or the wrong kind is a bug of the caller. Strings live as long as `o`, and are never NULL. */
const char *opt_str(const Options *o, const char *key);    /* text, path, choice */
int64_t opt_int(const Options *o, const char *key);
double opt_num(const Options *o, const char *key);         /* real, or an int as a real */
bool opt_bool(const Options *o, const char *key);
int opt_choice(const Options *o, const char *key);         /* place of the value in the row's list of choices, from 0 */
const char *options_command(const Options *o);

/* True when the user (or options_set) gave it, false when the value is the default. */
bool options_is_set(const Options *o, const char *key);

/* OK when a text is not empty; else ERR_USAGE: "pretrain needs data.train (its help); write data.train=...". */
Status options_require(const Options *o, const char *key);

/* Sets one value from text, with all checks. `place` names the source in messages, NULL: the command. */
Status options_set(Options *o, const char *key, const char *value, const char *place);

/* The resolved configuration as YAML: every option the command uses, and whatever else was set. `dry_run` and
 * `verbose`, which say how to run and not what, are left out. It parses back to the same values. */
Status options_print(const Options *o, FILE *f);
Status options_text(const Options *o, char **text);        /* the same, in memory; the caller frees */

/* Every option with its default and its help as YAML: configs/reference.yaml is this text. */
Status options_reference(FILE *f);

/* The options of a command, one a line, for --help. */
void options_help(const char *command, FILE *f);
bool options_used_by(const char *key, const char *command);

/* The candidate nearest to `word` by edit distance, NULL when none is near. Also used for mistyped commands. */
const char *options_nearest(const char *word, const char *const *candidates, size_t n);

#endif
