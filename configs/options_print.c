/* options_print: the table and its values as text: the resolved configuration, the reference, --help. See options.h. */
#include <stdlib.h>
#include <string.h>

#include "configs/options_table.h"
#include "configs/yaml.h"

static void print_value(const Options *o, int r, FILE *f) {
    char buf[64];
    const char *value = option_value(o, r, buf);
    if (option_rows[r].kind == KIND_TEXT || option_rows[r].kind == KIND_PATH) yaml_put_quoted(f, value);
    else fputs(value, f);
}

/* Length of "model" in "model.layers", 0 in "seed". */
static size_t group_length(const char *key) { return strchr(key, '.') ? (size_t)(strchr(key, '.') - key) : 0; }

static bool same_group(const char *a, const char *b) {
    return group_length(a) == group_length(b) && memcmp(a, b, group_length(a)) == 0;
}

static bool how_not_what(const char *key) {
    /* a run repeated from its configuration must not be a dry one again */
    return !strcmp(key, "dry_run") || !strcmp(key, "verbose") || !strcmp(key, "overwrite");
}

static void print_bounds(const Row *row, FILE *f) {
    if (row->kind == KIND_INT || row->kind == KIND_REAL) fprintf(f, " [%g to %g]", row->lo, row->hi);
    if (row->kind == KIND_PICK) fprintf(f, " [%s]", row->choices);
}

/* Rows as nested YAML, group by group, wherever in the table a group's rows stand; only those that `keep` wants. */
static void print_yaml(const Options *o, FILE *f, bool (*keep)(const Options *, int), bool explain) {
    bool done[OPTION_ROWS] = { false };                      /* a group is printed at its first row */
    for (int first = 0; first < OPTION_ROWS; first++) {
        size_t group = group_length(option_rows[first].key);
        if (done[first] || !keep(o, first)) continue;
        if (group) fprintf(f, "%s%.*s:\n", explain ? "\n" : "", (int)group, option_rows[first].key);
        for (int r = first; r < OPTION_ROWS; r++) {
            if (done[r] || !same_group(option_rows[first].key, option_rows[r].key) || !keep(o, r)) continue;
            done[r] = true;
            const char *indent = group ? "  " : "";
            if (explain) {
                fprintf(f, "%s# %s", indent, option_rows[r].help);
                print_bounds(&option_rows[r], f);
                fputc('\n', f);
            }
            fprintf(f, "%s%s: ", indent, option_rows[r].key + (group ? group + 1 : 0));
            print_value(o, r, f);
            fputc('\n', f);
        }
    }
}

static bool keep_resolved(const Options *o, int r) {
    const Row *row = &option_rows[r];
    /* what was set for another command belongs to the run all the same */
    return !how_not_what(row->key) && (option_used_by(row, o->command) || o->origin[r].from != FROM_DEFAULT);
}

static bool keep_all(const Options *o, int r) { (void)o; return !how_not_what(option_rows[r].key); }

static Status flushed(FILE *f) {
    return fflush(f) || ferror(f) ? err_set(ERR_IO, "cannot write the configuration") : OK;
}

Status options_print(const Options *o, FILE *f) {
    print_yaml(o, f, keep_resolved, false);
    return flushed(f);
}

Status options_text(const Options *o, char **text) {
    size_t n = 0;
    *text = NULL;
    FILE *f = open_memstream(text, &n);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    Status st = options_print(o, f);
    if (fclose(f) && !st) st = err_set(ERR_MEMORY, "out of memory");
    if (st) { free(*text); *text = NULL; }
    return st;
}

Status options_reference(FILE *f) {
    Options *o = options_new("");
    if (!o) return ERR_MEMORY;
    fputs("# Every option with its default. A configuration holds only what differs from this. Written by\n"
          "#     qformer --options > configs/reference.yaml\n\n", f);
    print_yaml(o, f, keep_all, true);
    options_free(o);
    return flushed(f);
}

void options_help(const char *command, FILE *f) {
    Options *o = options_new(command);
    const char *above = NULL;
    for (int r = 0; o && r < OPTION_ROWS; r++) {
        if (!option_used_by(&option_rows[r], command)) continue;
        if (above && !same_group(above, option_rows[r].key)) fputc('\n', f);
        above = option_rows[r].key;
        char *value = NULL;
        size_t n = 0;
        FILE *m = open_memstream(&value, &n);                /* a column wants the text before its width */
        if (!m) break;
        print_value(o, r, m);
        fclose(m);
        fprintf(f, "  %-22s %-9s %s", option_rows[r].key, value, option_rows[r].help);
        print_bounds(&option_rows[r], f);
        fputc('\n', f);
        free(value);
    }
    options_free(o);
}
