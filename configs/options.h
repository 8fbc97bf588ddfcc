/* options: what the user asked for. One grammar and one table for every command.
 *
 *     qformer <command> [config.yaml] [input] [key=value ...]
 *
 * The table is options.def, one row an option: key, kind, default, bounds, commands, help. From it come parsing,
 * checking, printing and --help. A key is dotted (optim.lr); in a YAML file nested maps flatten to the same key.
 * The command line wins over the file. After parsing every option has a value: what the user gave, or the default.
 *
 * Called by qformer.c (parse, help) and by every command, which reads the typed fields (o->optim.lr). Checkpoints keep
 * options_text, which parses back to the same values.
 *
 * Does not check options against each other (model.hidden against model.heads): that is for whoever uses them. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

typedef struct { int i; const char *name; } Pick;              /* one of a row's choices: its place there, its word */

typedef struct Options {
    char *command;
    struct OptionOrigin *origin;               /* beside the rows: whether the user gave it, and where */
#define GROUP(g) struct {
#define END(g) } g;
#define INT(g, n, ...)  int64_t n;
#define REAL(g, n, ...) double n;
#define BOOL(g, n, ...) bool n;
#define TEXT(g, n, ...) const char *n;         /* never NULL; lives as long as the Options */
#define PATH(g, n, ...) const char *n;
#define PICK(g, n, ...) Pick n;
#include "configs/options.def"
} Options;

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
Status options_copy(Options **out, const Options *o);       /* to change some values of; what was given stays so */

/* True when the user (or options_set) gave it, false when the value is the default. */
bool options_is_set(const Options *o, const char *key);

/* An option's value as the text that would set it, in buf (64 bytes) unless it is a text itself. For messages and for
 * what walks over keys; everybody else reads the field. An unknown key is a bug of the caller. */
const char *options_value(const Options *o, const char *key, char buf[64]);

/* OK when a text is not empty; else ERR_USAGE: "pretrain needs data.train (its help); write data.train=...". */
Status options_require(const Options *o, const char *key);

/* ERR_USAGE when `out` is a file that the same command reads: not even overwrite=true may replace that. */
Status options_spare_inputs(const Options *o);

/* Sets one value from text, with all checks. `place` names the source in messages, NULL: the command. */
Status options_set(Options *o, const char *key, const char *value, const char *place);

/* Calls `say` with each key that a command of `now` uses and whose value differs from that in `was`, as texts. */
typedef void OptionChange(void *ctx, const char *key, const char *was, const char *is);
void options_changes(const Options *was, const Options *now, OptionChange *say, void *ctx);

/* The resolved configuration as YAML: every option the command uses, and whatever else was set. `dry_run`,
 * `verbose` and `overwrite`, which say how to run and not what, are left out. It parses back to the same values. */
Status options_print(const Options *o, FILE *f);
Status options_text(const Options *o, char **text);        /* the same, in memory; the caller frees */

/* Every option with its default and its help as YAML: configs/reference.yaml is this text. */
Status options_reference(FILE *f);

/* The options of a command, one a line, for --help. */
void options_help(const char *command, FILE *f);
bool options_used_by(const char *key, const char *command);

/* The candidate nearest to `word` by edit distance, NULL when none is near. Also used for mistyped commands. */
const char *options_nearest(const char *word, const char *const *candidates, size_t n);
