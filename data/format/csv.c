/* csv: see csv.h. One pass over the text; the fields of the current row are copied into a buffer, each with a NUL. */
#include "data/format/csv.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { MAX_ROW = 16 << 20, MAX_FIELDS = 1024 };

typedef struct {
    const char *at, *end;                   /* what is left */
    const char *name;
    char separator;
    int64_t line, row_line;                 /* lines are counted from 1; the row began at row_line */
    char *text;                             /* the row's fields */
    size_t len, cap;
    size_t start[MAX_FIELDS], n;            /* field k begins at text + start[k] */
    const char *field[MAX_FIELDS];
} Csv;

static Status bad(const Csv *c, const char *what) {
    return err_set(ERR_FORMAT, "%s:%lld: %s", c->name, (long long)c->row_line, what);
}

static Status put(Csv *c, const char *bytes, size_t n) {
    if (!n) return OK;                                       /* an empty field may be the first: there is no text yet */
    if (c->cap - c->len < n) {
        size_t cap = c->cap ? c->cap : 4096;
        while (cap - c->len < n) cap *= 2;
        if (cap > MAX_ROW) return bad(c, "a row of more than 16 MB (is a quote not closed?)");
        char *bigger = mem_grow(c->text, cap, 1);
        if (!bigger) return ERR_MEMORY;
        c->text = bigger;
        c->cap = cap;
    }
    memcpy(c->text + c->len, bytes, n);
    c->len += n;
    return OK;
}

static bool loose(const Csv *c) { return c->separator == '\t' || c->separator == '|'; }
static bool ends(const Csv *c, const char *p) { return p == c->end || *p == c->separator || *p == '\n' || *p == '\r'; }
static bool blank(const Csv *c, char ch) { return ch == ' ' || (ch == '\t' && c->separator != '\t'); }

/* A quoted field from the character after its quote. *done is false when it turns out to be a quote that means nothing.
 */
static Status quoted(Csv *c, bool *done) {
    size_t before = c->len;
    const char *p = c->at;
    int64_t lines = 0;
    Status st = OK;
    *done = false;
    for (bool doubled = true; doubled;) {
        const char *quote = memchr(p, '"', (size_t)(c->end - p)), *stop = quote ? quote : c->end;
        for (const char *q = p; q < stop; q++) lines += *q == '\n';
        /* in tables with tabs or bars a quote is often an inch: a field over lines was none */
        if (!quote || (loose(c) && lines)) {
            c->len = before;
            return loose(c) ? OK : bad(c, "a quote that is not closed");
        }
        doubled = quote + 1 < c->end && quote[1] == '"';     /* RFC 4180: two stand for one */
        if ((st = put(c, p, (size_t)(quote - p) + doubled)) != OK) return st;
        p = quote + 1 + doubled;
    }
    while (p < c->end && blank(c, *p)) p++;
    if (!ends(c, p)) {
        c->len = before;
        return loose(c) ? OK : bad(c, "text after a closing quote");
    }
    c->at = p;
    c->line += lines;
    *done = true;
    return OK;
}

static Status field(Csv *c) {
    bool done = false;
    Status st = OK;
    while (c->at < c->end && blank(c, *c->at)) c->at++;
    if (c->at < c->end && *c->at == '"') {
        c->at++;
        st = quoted(c, &done);
        if (st == OK && !done) c->at--; /* a quote that opens no field is a letter like any other */
    }
    if (st != OK || done) return st;
    const char *from = c->at, *to;
    while (!ends(c, c->at)) c->at++;
    for (to = c->at; to > from && blank(c, to[-1]); to--) continue;
    return put(c, from, (size_t)(to - from));
}

/* Reads a row. *more is false at the end of the text. */
static Status row(Csv *c, bool *more) {
    Status st = OK;
    c->len = c->n = 0;
    c->row_line = c->line;
    *more = c->at < c->end;
    for (bool next = *more; next && st == OK;) {
        if (c->n == MAX_FIELDS) return bad(c, "more than 1,024 fields");
        c->start[c->n++] = c->len;
        if ((st = field(c)) == OK) st = put(c, "", 1);
        next = c->at < c->end && *c->at == c->separator;
        if (next) c->at++;
    }
    if (st != OK || !*more) return st;
    if (c->at < c->end && *c->at == '\r') c->at++;
    if (c->at < c->end && *c->at == '\n') c->at++;
    c->line++;
    size_t chars = 0;
    for (size_t k = 0; k < c->n; k++) {
        c->field[k] = c->text + c->start[k];                 /* only now: growing may have moved the text */
        chars += strlen(c->field[k]) + 1;
    }
    /* a field would end at the NUL, and the rest go unseen */
    if (chars != c->len) return bad(c, "a NUL byte: this is no text");
    return utf8_valid(c->text, c->len, NULL)
               ? OK
               : bad(c, "the text is not UTF-8; iconv -f WINDOWS-1252 -t UTF-8 makes it so, if it is Windows's");
}

/* One row of Flickr30k's results.csv has "4   A dog runs" in one field, the bar between number and caption is missing.
 */
static void mend(Csv *c, size_t columns) {
    if (c->separator != '|' || c->n + 1 != columns) return;
    char *last = c->text + c->start[c->n - 1];
    size_t digits = strspn(last, "0123456789"), blanks = strspn(last + digits, " ");
    if (!digits || !blanks || !last[digits + blanks]) return;
    last[digits] = 0;
    c->field[c->n++] = last + digits + blanks;
}

char csv_separator(const char *text, size_t n) {
    size_t bars = 0, semicolons = 0, commas = 0, i = 0;
    while (i < n && (text[i] == '\n' || text[i] == '\r')) i++;
    for (; i < n && text[i] != '\n' && text[i] != '\r'; i++) {
        if (text[i] == '\t') return '\t';                    /* captions have commas and bars, hardly ever tabs */
        bars += text[i] == '|';
        semicolons += text[i] == ';';
        commas += text[i] == ',';
    }
    return bars > commas && bars >= semicolons ? '|' : semicolons > commas ? ';' : ',';
}

Status csv_read(const char *text, size_t n, const char *name, char separator, CsvRowFn *fn, void *ctx) {
    Csv *c = mem_new(1, sizeof *c);
    if (!c) return ERR_MEMORY;
    /* Excel's mark would become part of the first column's name */
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;
    c->at = text;
    c->end = text + n;
    c->name = name;
    c->line = 1;
    c->separator = separator ? separator : csv_separator(text, n);
    bool more = true;
    size_t columns = 0;
    Status st;
    while ((st = row(c, &more)) == OK && more) {
        if (c->n == 1 && !c->field[0][0]) continue;          /* an empty line */
        /* the header says how many; a row of more was not quoted where it had to be */
        if (!columns) columns = c->n;
        mend(c, columns);
        if (c->n != columns) {
            st = err_set(ERR_FORMAT,
                         "%s:%lld: %zu fields, the header has %zu (a field with a '%c' in it must be quoted)", name,
                         (long long)c->row_line, c->n, columns, c->separator == '\t' ? ' ' : c->separator);
            break;
        }
        if ((st = fn(ctx, c->row_line, c->n, c->field)) != OK) {
            err_context(st, "%s:%lld", name, (long long)c->row_line);
            break;
        }
    }
    mem_free(c->text, c);
    return st;
}
