/* options: see options.h. Values lie in an array beside the table's rows; everything else walks the table. */
#include "configs/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "configs/options_table.h"
#include "configs/yaml.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_CONFIG = 1 << 20, MAX_TEXT = 1 << 16, MAX_KEY = 128 };

/* ---- from text to a value ---------------------------------------------------------------------------------------- */

static bool parse_real(const char *s, double *out) {
    char *end;
    if (!s[0] || strspn(s, "+-.0123456789eE") != strlen(s)) return false;       /* no blanks, nan, inf or hex */
    *out = strtod(s, &end);
    return end != s && !*end && isfinite(*out);
}

/* 250k, 2M, and what a program writes for a whole number: 1e6, 10.0. */
static bool parse_int(const char *s, int64_t *out) {
    char *end;
    double d;
    if (!strchr("+-0123456789", s[0]) || !s[0]) return false;  /* strtoll would pass over blanks */
    errno = 0;
    long long v = strtoll(s, &end, 10), factor = 1;
    if (errno || end == s) return false;
    if (*end == 'k') { factor = 1000; end++; }
    else if (*end == 'M') { factor = 1000000; end++; }
    else if (*end && parse_real(s, &d) && d == nearbyint(d) && fabs(d) < 0x1p53) v = (long long)d, end += strlen(end);
    if (*end || __builtin_mul_overflow(v, factor, &v)) return false;
    *out = v;
    return true;
}

static bool parse_bool(const char *s, int64_t *out) {
    static const char *const words[2][5] = {{"false", "no", "off", "0"}, {"true", "yes", "on", "1"}};
    for (int value = 0; value < 2; value++)
        for (int i = 0; words[value][i]; i++)
            if (!strcasecmp(s, words[value][i])) {
                *out = value;
                return true;
            }
    return false;
}

static bool is_text(const char *s) {
    size_t n = strnlen(s, MAX_TEXT);
    return n < MAX_TEXT && utf8_valid(s, n, NULL);
}

/* What would have been right, as the end of a sentence. */
static void wanted(const Row *row, char *buf, size_t size) {
    switch (row->kind) {
    case KIND_INT: snprintf(buf, size, "a whole number from %.15g to %.15g is wanted", row->lo, row->hi); break;
    case KIND_REAL: snprintf(buf, size, "a number from %.15g to %.15g is wanted", row->lo, row->hi); break;
    case KIND_BOOL: snprintf(buf, size, "true or false is wanted"); break;
    case KIND_PICK: snprintf(buf, size, "one of %s is wanted", row->choices); break;
    default: snprintf(buf, size, "UTF-8 text of less than 64 KiB is wanted"); break;
    }
}

static void *field(Options *o, int r) { return (char *)o + option_rows[r].at; }

/* The value into its field; false when the text is none, and nothing has changed. */
static bool put_value(Options *o, int r, const char *text) {
    const Row *row = &option_rows[r];
    int64_t i;
    double d;
    int place = 0;
    switch (row->kind) {
    case KIND_INT:
        if (!parse_int(text, &i) || (double)i < row->lo || (double)i > row->hi) return false;
        *(int64_t *)field(o, r) = i;
        return true;
    case KIND_REAL:
        if (!parse_real(text, &d)) {
            if (!parse_int(text, &i)) return false;          /* 2k */
            d = (double)i;
        }
        if (d < row->lo || d > row->hi) return false;
        *(double *)field(o, r) = d;
        return true;
    case KIND_BOOL:
        if (!parse_bool(text, &i)) return false;
        *(bool *)field(o, r) = i != 0;
        return true;
    case KIND_PICK:
        if (!option_has_word(row->choices, '|', text, &place)) return false;
        *(Pick *)field(o, r) = (Pick){ place, text };
        return true;
    default:
        if (!is_text(text)) return false;
        *(const char **)field(o, r) = text;
        return true;
    }
}

/* "~/a,~/b" with the user's folder in place of each ~: no shell does that behind key=, nor in a file. */
static char *at_home(const char *text) {
    const char *home = getenv("HOME");                       /* unset in some jobs: ~ then stays as it is */
    char *to = NULL;
    size_t n = 0;
    FILE *f = home && home[0] ? open_memstream(&to, &n) : NULL;
    if (!f) return mem_strdup(text);
    for (const char *c = text; *c; c++)
        if (*c == '~' && c[1] == '/' && (c == text || c[-1] == ',')) fputs(home, f);
        else fputc(*c, f);
    fclose(f);
    return to;
}

static Status set_value(Options *o, int r, const char *text, Origin from, int line, const char *where) {
    char *owned = option_rows[r].kind == KIND_PATH ? at_home(text) : mem_strdup(text);
    if (!owned) return ERR_MEMORY;
    if (!put_value(o, r, owned)) {
        char buf[256];
        wanted(&option_rows[r], buf, sizeof buf);
        free(owned);
        return err_set(ERR_USAGE, "%s: %s is '%.80s', %s", where, option_rows[r].key, text, buf);
    }
    free(o->origin[r].owned);                                /* the field points elsewhere by now */
    o->origin[r] = (OptionOrigin){ from, line, owned };      /* kept: a field of text points into it */
    return OK;
}

static Status unknown_key(const Options *o, const char *key, const char *where) {
    const char *near = option_near_key(key, o->command);
    if (near) return err_set(ERR_USAGE, "%s: there is no option '%.80s'; the nearest is %s", where, key, near);
    return err_set(ERR_USAGE, "%s: there is no option '%.80s'; 'qformer %s --help' lists them", where, key, o->command);
}

Status options_set(Options *o, const char *key, const char *value, const char *place) {
    const char *where = place ? place : o->command;
    int r = option_row(key);
    return r < 0 ? unknown_key(o, key, where) : set_value(o, r, value, FROM_PROGRAM, 0, where);
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

typedef struct { Options *o; const char *name; } FileWalk;

static Status set_from_file(void *context, const char *key, const char *value, int line) {
    FileWalk *w = context;
    char where[512];
    snprintf(where, sizeof where, "%.480s:%d", w->name, line);
    int r = option_row(key);
    if (r < 0) return unknown_key(w->o, key, where);
    /* the second would win unseen */
    if (w->o->origin[r].from == FROM_FILE)
        return err_set(ERR_USAGE, "%s: %s stands here a second time, after line %d", where, key, w->o->origin[r].line);
    return set_value(w->o, r, value, FROM_FILE, line, where);
}

static Status apply_text(Options *o, const char *text, size_t n, const char *name) {
    FileWalk w = { o, name };
    return yaml_walk(text, n, name, set_from_file, &w);
}

static Status apply_file(Options *o, const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_USAGE, "cannot open the configuration %s: %s", path, strerror(errno));
    Status st = OK;
    char *text = mem_new(MAX_CONFIG + 1, 1);
    if (!text) { st = ERR_MEMORY; goto done; }
    size_t n = fread(text, 1, MAX_CONFIG + 1, f);
    if (ferror(f)) st = err_set(ERR_IO, "cannot read the configuration %s: %s", path, strerror(errno));
    /* a page is wanted: this is some other file */
    else if (n > MAX_CONFIG) st = err_set(ERR_USAGE, "%s is larger than 1 MiB, so it is no configuration", path);
    else st = apply_text(o, text, n, path);
done:
    free(text);
    fclose(f);
    return st;
}

/* ---- the arguments ----------------------------------------------------------------------------------------------- */

static const char LINE[] = "command line";

static bool is_config(const char *arg) {
    const char *dot = strrchr(arg, '.');
    return dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml")) && !strchr(arg, '=');
}

/* On the command line a command's own options need not name it: `qformer extract views=6` is extract.views=6. */
static int find_on_line(const Options *o, const char *key) {
    char full[2 * MAX_KEY];
    int r = option_row(key);
    if (r >= 0) return r;
    snprintf(full, sizeof full, "%s.%s", o->command, key);
    if ((r = option_row(full)) >= 0) return r;
    snprintf(full, sizeof full, "extract.%s", key);          /* of a command that takes pictures, encoder=... is that */
    r = option_row(full);
    return r >= 0 && option_used_by(&option_rows[r], o->command) ? r : -1;
}

static Status set_from_line(Options *o, const char *key, const char *value) {
    int r = find_on_line(o, key);
    if (r < 0) return unknown_key(o, key, LINE);
    if (!option_used_by(&option_rows[r], o->command))
        return err_set(ERR_USAGE, "%s: %s does not use %s; who does: %s", LINE, o->command, key,
                       option_rows[r].commands);
    return set_value(o, r, value, FROM_ARGUMENT, 0, LINE);
}

/* The key of "key=value" or "--key...", in which a '-' reads as '_'. */
static void key_of(const char *arg, char key[MAX_KEY]) {
    bool dashes = strncmp(arg, "--", 2) == 0;
    size_t n = 0;
    for (const char *p = dashes ? arg + 2 : arg; *p && *p != '=' && n < MAX_KEY - 1; p++)
        key[n++] = dashes && *p == '-' ? '_' : *p;           /* --batch-size, as others write it */
    key[n] = 0;
}

/* Whether the next word is the value of this one: --key value, but not --key=value nor --flag. */
static bool value_follows(const Options *o, const char *arg) {
    char key[MAX_KEY];
    key_of(arg, key);
    int r = find_on_line(o, key);
    return strncmp(arg, "--", 2) == 0 && !strchr(arg, '=') && r >= 0 && option_rows[r].kind != KIND_BOOL;
}

static Status set_option(Options *o, const char *arg, const char *next) {
    char key[MAX_KEY];
    key_of(arg, key);
    const char *equals = strchr(arg, '=');
    if (equals) return set_from_line(o, key, equals + 1);
    if (!value_follows(o, arg)) return set_from_line(o, key, "true");
    if (!next) return err_set(ERR_USAGE, "%s: %s is the last word, a value is wanted after it", LINE, arg);
    return set_from_line(o, key, next);
}

static Status set_input(Options *o, const char *arg) {
    int r = option_row("in");
    if (option_row(arg) >= 0 || !strcmp(arg, "="))
        return err_set(ERR_USAGE, "%s: '%.80s' stands alone; key=value is wanted, without blanks around the =", LINE,
                       arg);
    if (!option_used_by(&option_rows[r], o->command))
        return err_set(ERR_USAGE, "%s: '%.80s' is neither key=value nor a configuration (*.yaml), and %s takes no "
                       "input", LINE, arg, o->command);
    if (o->origin[r].from == FROM_ARGUMENT)
        return err_set(ERR_USAGE, "%s: '%.80s' is a second input after '%.80s', one is wanted", LINE, arg,
                       option_text(o, r));
    return set_from_line(o, "in", arg);
}

static Status set_verbose(Options *o, const char *arg) {
    size_t n = strlen(arg + 1);
    char level[2] = { (char)('0' + (n < 3 ? n : 3)), 0 };
    return set_from_line(o, "verbose", level);
}

/* One walk does files only, the other all the rest: so the command line wins wherever the file stands. */
static Status walk_arguments(Options *o, int argc, char *const argv[], bool files) {
    const char *config = NULL;
    Status st = OK;
    for (int i = 0; i < argc && !st; i++) {                  /* in order: the later of two words wins */
        const char *arg = argv[i];
        if (is_config(arg) && files) {
            if (!config) st = apply_file(o, config = arg);
            else st = err_set(ERR_USAGE, "%s: %s is a second configuration after %s, one is read", LINE, arg, config);
        } else if (!is_config(arg) && !files) {
            const char *next = i + 1 < argc ? argv[i + 1] : NULL;
            if (strncmp(arg, "--", 2) == 0 || strchr(arg, '=')) st = set_option(o, arg, next);
            else if (arg[0] == '-' && arg[1] && strspn(arg + 1, "v") == strlen(arg + 1)) st = set_verbose(o, arg);
            else st = set_input(o, arg);
        }
        i += value_follows(o, arg);                          /* it was taken with its key */
    }
    return st;
}

/* ---- the life of Options ----------------------------------------------------------------------------------------- */

static void put_default(Options *o, int r) {
    const Row *row = &option_rows[r];
    switch (row->kind) {
    case KIND_INT: *(int64_t *)field(o, r) = (int64_t)row->num; break;
    case KIND_REAL: *(double *)field(o, r) = row->num; break;
    case KIND_BOOL: *(bool *)field(o, r) = row->num != 0; break;
    default: BUG_ON(!put_value(o, r, row->text), "%s: the default is no choice", row->key);
    }
}

Options *options_new(const char *command) {
    Options *o = mem_new(1, sizeof *o);
    if (!o) return NULL;
    o->command = mem_strdup(command);
    o->origin = mem_new(OPTION_ROWS, sizeof *o->origin);
    if (!o->command || !o->origin) { options_free(o); return NULL; }
    for (int r = 0; r < OPTION_ROWS; r++) put_default(o, r);
    return o;
}

void options_free(Options *o) {
    if (!o) return;
    for (int r = 0; o->origin && r < OPTION_ROWS; r++) free(o->origin[r].owned);
    mem_free(o->origin, o->command, o);
}

/* Hands over `o` when all went well, else frees it. */
static Status hand_over(Options **out, Options *o, Status st) {
    if (st) { options_free(o); o = NULL; }
    *out = o;
    return st;
}

Status options_copy(Options **out, const Options *o) {
    Options *c = options_new(o->command);
    Status st = c ? OK : ERR_MEMORY;
    for (int r = 0; st == OK && r < OPTION_ROWS; r++) {
        const OptionOrigin *from = &o->origin[r];
        if (from->from != FROM_DEFAULT) st = set_value(c, r, from->owned, from->from, from->line, "a copy");
    }
    return hand_over(out, c, st);
}

void options_changes(const Options *was, const Options *now, OptionChange *say, void *ctx) {
    for (int r = 0; r < OPTION_ROWS; r++) {
        char a[64], b[64];
        if (!option_used_by(&option_rows[r], now->command)) continue;
        const char *before = option_value(was, r, a), *after = option_value(now, r, b);
        if (strcmp(before, after) != 0) say(ctx, option_rows[r].key, before, after);
    }
}

Status options_parse(Options **out, const char *command, int argc, char *const argv[]) {
    Options *o = options_new(command);
    Status st = o ? walk_arguments(o, argc, argv, true) : ERR_MEMORY;
    if (!st) st = walk_arguments(o, argc, argv, false);
    return hand_over(out, o, st);
}

Status options_parse_text(Options **out, const char *command, const char *text, size_t n, const char *name) {
    Options *o = options_new(command);
    return hand_over(out, o, o ? apply_text(o, text, n, name) : ERR_MEMORY);
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

static int row_of(const char *key) {
    int r = option_row(key);
    BUG_ON(r < 0, "options.def has no row '%s'", key);
    return r;
}

static const void *value_at(const Options *o, int r) { return (const char *)o + option_rows[r].at; }

int64_t option_int(const Options *o, int r) {
    return option_rows[r].kind == KIND_BOOL ? *(const bool *)value_at(o, r) : *(const int64_t *)value_at(o, r);
}

double option_real(const Options *o, int r) { return *(const double *)value_at(o, r); }

const char *option_text(const Options *o, int r) {
    const void *at = value_at(o, r);
    return option_rows[r].kind == KIND_PICK ? ((const Pick *)at)->name : *(const char *const *)at;
}

/* The shortest decimal that reads back as the same double. 1e-05 gets a dot: other YAML readers take it for a word. */
static void real_text(double d, char out[64]) {
    char buf[40];
    for (int digits = 6; digits <= 17; digits++) {           /* 17 digits tell any two doubles apart */
        snprintf(buf, sizeof buf, "%.*g", digits, d);
        if (strtod(buf, NULL) == d) break;
    }
    const char *e = strchr(buf, 'e');
    if (e && !strchr(buf, '.')) snprintf(out, 64, "%.*s.0%s", (int)(e - buf), buf, e);
    else snprintf(out, 64, "%s", buf);
}

const char *option_value(const Options *o, int r, char buf[64]) {
    switch (option_rows[r].kind) {
    case KIND_INT: snprintf(buf, 64, "%lld", (long long)option_int(o, r)); return buf;
    case KIND_REAL: real_text(option_real(o, r), buf); return buf;
    case KIND_BOOL: return option_int(o, r) ? "true" : "false";
    default: return option_text(o, r);
    }
}

const char *options_value(const Options *o, const char *key, char buf[64]) { return option_value(o, row_of(key), buf); }

static bool one_file(const char *a, const char *b) {
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && S_ISREG(x.st_mode) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

Status options_spare_inputs(const Options *o) {
    for (int r = 0; r < OPTION_ROWS; r++) {
        /* only what the command reads */
        if (option_rows[r].kind != KIND_PATH || !strcmp(option_rows[r].key, "out")) continue;
        for (const char *p = option_text(o, r), *end; *p; p = *end ? end + 1 : end) {
            char path[4096];
            end = strchrnul(p, ',');
            snprintf(path, sizeof path, "%.*s", (int)(end - p), p);
            if (one_file(o->run.out, path) || one_file(o->run.out, option_text(o, r)))
                return err_set(ERR_USAGE, "out=%s is the file that %s names, which would be lost; name another out",
                               o->run.out, option_rows[r].key);
        }
    }
    return OK;
}

bool options_is_set(const Options *o, const char *key) { return o->origin[row_of(key)].from != FROM_DEFAULT; }

Status options_require(const Options *o, const char *key) {
    if (option_text(o, row_of(key))[0]) return OK;
    return err_set(ERR_USAGE, "%s needs %s (%s); write %s=...", o->command, key, option_rows[row_of(key)].help, key);
}
