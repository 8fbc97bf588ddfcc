/* manual: see manual.h. */
#include "configs/manual.h"

#include <string.h>

#include "configs/options_table.h"
#include "kernels/base/version.h"

static const struct { const char *word, *help, *example; } commands[] = {
#define COMMAND(word, processes, help, example) { #word, help, example },
#include "configs/commands.def"
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static Status flushed(FILE *f) { return fflush(f) || ferror(f) ? err_set(ERR_IO, "the manual cannot be written") : OK; }

/* ---- man --------------------------------------------------------------------------------------------------------- */

/* Text of a page: a line that begins with a dot or a quote would be a request, a backslash an escape, a - a hyphen. */
static void put_roff(const char *s, FILE *f) {
    if (*s == '.' || *s == '\'') fputs("\\&", f);
    for (; *s; s++) {
        if (*s == '\\') fputs("\\e", f);
        else if (*s == '-') fputs("\\-", f);
        else fputc(*s, f);
    }
}

static void put_option(const Options *o, int r, FILE *f) {
    char buf[64];
    fputs(".TP\n.B ", f);
    put_roff(option_rows[r].key, f);
    fputs("\n", f);
    put_roff(option_rows[r].help, f);
    fputs(" (default: ", f);
    const char *value = option_value(o, r, buf);             /* of no command: the default */
    put_roff(*value ? value : "empty", f);
    fputs(strcmp(option_rows[r].commands, "*") == 0 ? "; every command" : "; ", f);
    if (strcmp(option_rows[r].commands, "*") != 0) put_roff(option_rows[r].commands, f);
    fputs(")\n", f);
}

Status manual_page(FILE *f) {
    Options *o = options_new("");                            /* of no command: all defaults */
    if (!o) return ERR_MEMORY;
    fprintf(f, ".TH QFORMER 1 \"\" \"qformer %s\" \"User Commands\"\n", version_string());
    fputs(".SH NAME\nqformer \\- BLIP\\-2: image features, Q\\-Former, language model; pretrained, evaluated and used\n"
          ".SH SYNOPSIS\n.B qformer\n.I command\n[\\fIconfig.yaml\\fR] [\\fIinput\\fR] "
          "[\\fIkey\\fB=\\fIvalue\\fR ...]\n.SH COMMANDS\n", f);
    for (int i = 0; i < COMMANDS; i++) {
        fprintf(f, ".TP\n.B %s\n", commands[i].word);
        put_roff(commands[i].help, f);
        if (*commands[i].example) {
            fprintf(f, "\n.br\n.I qformer %s ", commands[i].word);
            put_roff(commands[i].example, f);
        }
        fputs("\n", f);
    }
    fputs(".SH OPTIONS\nOne grammar for all commands: \\fIkey\\fB=\\fIvalue\\fR, or in a YAML file. "
          "The command line wins.\n", f);
    for (int r = 0; r < OPTION_ROWS; r++) put_option(o, r, f);
    fputs(".SH EXIT STATUS\n0 done, 1 the run failed, 2 the request was wrong.\n", f);
    options_free(o);
    return flushed(f);
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

static void put_words(FILE *f) {
    for (int i = 0; i < COMMANDS; i++) fprintf(f, "%s%s", i ? " " : "", commands[i].word);
}

/* The keys of a command as key= words, the choices of a key as its values. */
static void put_keys(const char *command, FILE *f) {
    const char *blank = "";                                  /* none in front of the first */
    for (int r = 0; r < OPTION_ROWS; r++)
        if (option_used_by(&option_rows[r], command)) fprintf(f, "%s%s=", blank, option_rows[r].key), blank = " ";
}

static const char *choices_of(const Row *row) {
    return row->kind == KIND_BOOL ? "true|false" : row->kind == KIND_PICK ? row->choices : NULL;
}

static void put_choices(const char *choices, FILE *f) {
    for (; *choices; choices++) fputc(*choices == '|' ? ' ' : *choices, f);
}

/* Serves bash, and zsh through its bashcompinit. */
static void bash(FILE *f) {
    fputs("_qformer() {\n    local cur=${COMP_WORDS[COMP_CWORD]} keys= key\n    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" = 1 ]; then COMPREPLY=($(compgen -W \"", f);
    put_words(f);
    fputs(" help --help --version --options\" -- \"$cur\")); return; fi\n"
          "    # bash cuts words at '=': what stands before it is the key\n"
          "    if [ \"$cur\" = = ]; then key=${COMP_WORDS[COMP_CWORD-1]} cur=\n"
          "    elif [ \"${COMP_WORDS[COMP_CWORD-1]}\" = = ]; then key=${COMP_WORDS[COMP_CWORD-2]}\n"
          "    elif [[ $cur == *=* ]]; then key=${cur%%=*} cur=${cur#*=}; fi\n"
          "    case ${key:-} in\n    '') ;;\n", f);
    for (int r = 0; r < OPTION_ROWS; r++) {
        const char *choices = choices_of(&option_rows[r]);
        if (!choices) continue;
        fprintf(f, "    %s) COMPREPLY=($(compgen -W \"", option_rows[r].key);
        put_choices(choices, f);
        fputs("\" -- \"$cur\")); return ;;\n", f);
    }
    fputs("    *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n    esac\n    case ${COMP_WORDS[1]} in\n", f);
    for (int i = 0; i < COMMANDS; i++) {
        fprintf(f, "    %s) keys=\"", commands[i].word);
        put_keys(commands[i].word, f);
        fputs("\" ;;\n", f);
    }
    fputs("    esac\n    COMPREPLY=($(compgen -W \"$keys\" -- \"$cur\") $(compgen -f -- \"$cur\"))\n"
          "    [[ ${COMPREPLY[0]:-} == *= ]] && type compopt >/dev/null 2>&1 && compopt -o nospace\n}\n"
          "complete -o filenames -F _qformer qformer\n", f);
}

static void put_fish(const char *s, FILE *f) {
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') fputc('\\', f);
        fputc(*s, f);
    }
}

static void fish(FILE *f) {
    for (int i = 0; i < COMMANDS; i++) {
        fprintf(f, "complete -c qformer -n __fish_use_subcommand -a %s -d '", commands[i].word);
        put_fish(commands[i].help, f);
        fputs("'\n", f);
    }
    for (int i = 0; i < COMMANDS; i++)
        for (int r = 0; r < OPTION_ROWS; r++) {
            const Row *row = &option_rows[r];
            if (!option_used_by(row, commands[i].word)) continue;
            const char *choices = choices_of(row);
            fprintf(f, "complete -c qformer -n '__fish_seen_subcommand_from %s' -a '", commands[i].word);
            for (const char *c = choices ? choices : ""; *c; c += strcspn(c, "|"), c += *c == '|')
                fprintf(f, "%s=%.*s ", row->key, (int)strcspn(c, "|"), c);
            if (!choices) fprintf(f, "%s=", row->key);
            fputs("' -d '", f);
            put_fish(row->help, f);
            fputs("'\n", f);
        }
}

Status manual_completion(const char *shell, FILE *f) {
    if (strcmp(shell, "bash") == 0) bash(f);
    else if (strcmp(shell, "zsh") == 0) {
        /* zsh has bash's completion built in */
        fputs("#compdef qformer\nautoload -U +X bashcompinit && bashcompinit\n", f);
        bash(f);
        fputs("_bash_complete -o filenames -F _qformer\n", f);       /* the first time, when zsh has just read this */
    } else if (strcmp(shell, "fish") == 0) fish(f);
    else return err_set(ERR_USAGE, "completion is written for bash, zsh and fish, not for '%.40s'", shell);
    return flushed(f);
}
