/* csv: see csv.h. One character at a time through a buffer that holds the fields of the current row. */
#include "data/format/csv.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_ROW = 16 << 20, MAX_FIELDS = 1024 };

typedef struct {
    FILE *f;
    const char *name;
    int separator;
    int64_t line, row_line;                 /* lines are counted from 1; the row began at row_line */
    char *text;                             /* the row's fields, each ending with NUL */
    size_t len, cap;
    size_t start[MAX_FIELDS], n;            /* field k begins at text + start[k] */
    const char *field[MAX_FIELDS];
} Csv;

static Status bad(const Csv *c, const char *what) {
    return err_set(ERR_FORMAT, "%s:%lld: %s", c->name, (long long)c->row_line, what);
}

static Status put(Csv *c, int byte) {
    if (c->len == c->cap) {
        if (c->cap >= MAX_ROW) return bad(c, "a row of more than 16 MB (is a quote not closed?)");
        size_t cap = c->cap ? 2 * c->cap : 4096;
        char *bigger = mem_grow(c->text, cap, 1);
        if (!bigger) return ERR_MEMORY;
        c->text = bigger;
        c->cap = cap;
    }
    c->text[c->len++] = (char)byte;
    return OK;
}

/* The next character, with CRLF as LF. */
static int get(Csv *c) {
    int ch = getc(c->f);
    if (ch == '\r') {
        int next = getc(c->f);
        if (next != '\n' && next != EOF) ungetc(next, c->f);
        ch = '\n';
    }
    if (ch == '\n') c->line++;
    return ch;
}

/* Reads one field into text; *end is what follows it: the separator, '\n' or EOF. */
static Status field(Csv *c, int *end) {
    Status st = OK;
    int ch = get(c);
    bool quoted = ch == '"';
    if (quoted) ch = get(c);
    for (;; ch = get(c)) {
        if (quoted) {
            if (ch == EOF) return bad(c, "a quote that is not closed");
            if (ch == '"' && (ch = get(c)) != '"') break;      /* two quotes are one that belongs to the text */
        } else if (ch == c->separator || ch == '\n' || ch == EOF) {
            break;
        }
        if (!ch) return bad(c, "a NUL byte: this is no text");
        if ((st = put(c, ch)) != OK) return st;
    }
    if (quoted && ch != c->separator && ch != '\n' && ch != EOF) return bad(c, "text after a closing quote");
    *end = ch;
    return OK;
}

/* Reads a row. *more is false at the end of the file. */
static Status row(Csv *c, bool *more) {
    int end = EOF;
    c->len = c->n = 0;
    c->row_line = c->line;
    do {
        if (c->n == MAX_FIELDS) return bad(c, "more than 1,024 fields");
        c->start[c->n++] = c->len;
        Status st = field(c, &end);
        if (st == OK) st = put(c, 0);
        if (st != OK) return st;
    } while (end == c->separator);
    if (ferror(c->f)) return err_set(ERR_IO, "%s: %s", c->name, strerror(errno));
    *more = end != EOF || c->len > 1;
    if (!utf8_valid(c->text, c->len, NULL)) return bad(c, "the text is not UTF-8");
    for (size_t k = 0; k < c->n; k++) c->field[k] = c->text + c->start[k];
    return OK;
}

/* Skips a byte order mark and looks whether the first line has a tab. */
static void look(Csv *c) {
    int ch = 0;
    if (getc(c->f) != 0xef || getc(c->f) != 0xbb || getc(c->f) != 0xbf) rewind(c->f);
    long start = ftell(c->f);
    c->separator = ',';
    while ((ch = getc(c->f)) != EOF && ch != '\n')
        if (ch == '\t') c->separator = '\t';
    fseek(c->f, start, SEEK_SET);
}

Status csv_read(FILE *f, const char *name, CsvRowFn *fn, void *ctx) {
    Csv *c = mem_new(1, sizeof *c);
    if (!c) return ERR_MEMORY;
    c->f = f;
    c->name = name;
    c->line = 1;
    look(c);
    bool more = true;
    size_t columns = 0;
    Status st;
    while ((st = row(c, &more)) == OK && more) {
        if (c->n == 1 && !c->field[0][0]) continue;
        if (!columns) columns = c->n;
        if (c->n != columns) {
            st = err_set(ERR_FORMAT, "%s:%lld: %zu fields, the header has %zu", name, (long long)c->row_line, c->n,
                         columns);
            break;
        }
        if ((st = fn(ctx, c->row_line, c->n, c->field)) != OK) {
            err_context(st, "%s:%lld", name, (long long)c->row_line);
            break;
        }
    }
    free(c->text);
    free(c);
    return st;
}
