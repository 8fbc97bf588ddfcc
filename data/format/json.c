/* json: see json.h. A Json is a json_t under another name: pointers are cast, never looked through. */
#include "data/format/json.h"

#define json_type jansson_type   /* jansson has a type of this name, we a function */
#include <jansson.h>
#undef json_type

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/filekind.h"
#include "data/format/textfile.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

enum { LOAD_FLAGS = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, WRITE_DEPTH = 64 };

static const json_t *in(const Json *j) { return (const json_t *)(const void *)j; }
static const Json *out_of(const json_t *j) { return (const Json *)(const void *)j; }

/* ---- parsing ---- */

/* Where a piece of text begins in its file; line and column count from 1, columns in characters as jansson does. */
typedef struct {
    const char *name;
    int64_t line, column;
} Place;

/* What jansson says, as far as it says what a person would: not for a file that was cut off, and not for one nested so
 * deep that nobody meant it. */
static const char *reason(const json_error_t *e, size_t n, char *buf, size_t room) {
    enum json_error_code code = json_error_code(e);
    if (n == 0) return "nothing is here, JSON is wanted";
    if (code == json_error_stack_overflow) return "this JSON is nested too deep to be read";
    if (code == json_error_premature_end_of_input || (strstr(e->text, "near end of file") && (size_t)e->position >= n))
        return "this JSON ends before it is complete: the file was cut off, or something in it is not closed";
    snprintf(buf, room, "this is not JSON: %s", e->text);
    return buf;
}

static Status load(Json **out, const char *text, size_t n, Place at) {
    json_error_t e;
    char buf[sizeof e.text + 32];
    json_t *j = json_loadb(text ? text : "", n, LOAD_FLAGS, &e);
    *out = (Json *)(void *)j;
    if (j) return OK;
    if (json_error_code(&e) == json_error_out_of_memory) return err_set(ERR_MEMORY, "%s: out of memory", at.name);
    int64_t column = e.line <= 1 ? at.column + e.column - 1 : e.column;
    return err_set(ERR_FORMAT, "%s:%lld:%lld: %s", at.name, (long long)(at.line + (e.line > 0 ? e.line : 1) - 1),
                   (long long)(column > 0 ? column : 1), reason(&e, n, buf, sizeof buf));
}

Status json_parse(Json **out, const char *text, size_t n, const char *name) {
    /* jansson takes a byte order mark for a broken token */
    if (n >= 3 && !memcmp(text, "\xEF\xBB\xBF", 3)) text += 3, n -= 3;
    return load(out, text, n, (Place){name, 1, 1});
}

Status json_parse_file(Json **out, const char *path) {
    *out = NULL;
    char *text = NULL;
    size_t n = 0;
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    Status st = textfile_bytes(f, path, &text, &n);
    /* what is known gets its name, not "unable to decode byte 0x89" */
    if (st == OK && filekind_name(text, n)) st = filekind_refuse(path, text, n, "JSON");
    if (st == OK) st = json_parse(out, text, n, path);
    free(text);
    fclose(f);
    return st;
}

void json_free(Json *doc) { json_decref((json_t *)(void *)doc); }

/* ---- one item at a time ---- */

typedef struct {
    FILE *f;
    Place at;            /* of the next character */
    char *text;          /* the item being collected */
    size_t n, cap;
} Slicer;

static int next_char(Slicer *s) {
    int c = getc_unlocked(s->f);
    if (c == '\n') s->at.line++, s->at.column = 1;
    else if ((c & 0xC0) != 0x80) s->at.column++;
    return c;
}

static bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static int skip_blanks(Slicer *s) {
    int c;
    do c = next_char(s); while (is_blank(c));
    return c;
}

static Status keep(Slicer *s, int c) {
    if (s->n == s->cap) {
        if (s->cap >= TEXTFILE_MAX) return err_set(ERR_FORMAT, "%s:%lld: an item of more than %zu bytes", s->at.name,
                                                     (long long)s->at.line, TEXTFILE_MAX);
        char *p = mem_grow(s->text, s->cap ? 2 * s->cap : 4096, 1);
        if (!p) return ERR_MEMORY;
        s->text = p;
        s->cap = s->cap ? 2 * s->cap : 4096;
    }
    s->text[s->n++] = (char)c;
    return OK;
}

/* Collects the value that begins with *c, up to the bracket, blank or comma that ends it; whether it is JSON is for the
 * parser to say. *c becomes the first character after it. */
static Status slice(Slicer *s, int *c) {
    int depth = 0;
    bool quoted = false;
    for (s->n = 0; *c != EOF; *c = next_char(s)) {
        bool opens = *c == '[' || *c == '{', closes = *c == ']' || *c == '}';
        if (!quoted && !depth && s->n && (closes || opens || *c == ',' || is_blank(*c))) break;
        Status st = keep(s, *c);
        if (st != OK) return st;
        if (quoted) {
            if (*c == '"') quoted = false;
            /* a quote behind it closes nothing */
            else if (*c == '\\' && (*c = next_char(s)) != EOF && (st = keep(s, *c)) != OK) return st;
        } else if (*c == '"') quoted = true;
        else if (opens) depth++;
        else if (closes && --depth <= 0) { *c = next_char(s); break; }
        if (*c == EOF) break;
    }
    return OK;
}

static Status after_array(Slicer *s) {
    if (skip_blanks(s) == EOF) return OK;
    return err_set(ERR_FORMAT, "%s:%lld: text after the array", s->at.name, (long long)s->at.line);
}

static Status each_item(Slicer *s, JsonItemFn *fn, void *ctx) {
    int c = skip_blanks(s);
    if (c == 0xEF && next_char(s) == 0xBB && next_char(s) == 0xBF) c = skip_blanks(s); /* a byte order mark */
    bool array = c == '[';
    if (array) c = skip_blanks(s);
    if (array && c == ']') return after_array(s);
    for (int64_t i = 0; array || c != EOF; i++) {
        Place start = {s->at.name, s->at.line, s->at.column - 1};
        Json *item = NULL;
        Status st = slice(s, &c);
        if (st == OK) st = load(&item, s->text, s->n, start);
        if (st != OK) return st;
        st = fn(ctx, i, item);
        json_free(item);
        if (st != OK) return err_context(st, "%s:%lld", start.name, (long long)start.line);
        if (is_blank(c)) c = skip_blanks(s);
        if (!array) continue;
        if (c == ']') return after_array(s);
        if (c != ',') return err_set(ERR_FORMAT, "%s:%lld: ',' or ']' is missing after item %lld of the array",
                                     s->at.name, (long long)s->at.line, (long long)i);
        c = skip_blanks(s);
    }
    return OK;
}

Status json_each_of(FILE *f, const char *name, JsonItemFn *fn, void *ctx) {
    Slicer s = {.f = f, .at = {name, 1, 1}};                 /* memory for one item: files of captions have gigabytes */
    Status st = each_item(&s, fn, ctx);
    /* to the parser it looked like the end */
    if (ferror(f)) st = err_set(ERR_IO, "%s: cannot be read: %s", name, strerror(errno));
    free(s.text);
    return st;
}

Status json_each(const char *path, JsonItemFn *fn, void *ctx) {
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    Status st = json_each_of(f, path, fn, ctx);
    fclose(f);
    return st;
}

static Status collect(void *ctx, int64_t index, const Json *item) {
    (void)index;
    int failed = json_array_append_new(ctx, json_incref((json_t *)(uintptr_t)item));
    return failed ? err_set(ERR_MEMORY, "out of memory") : OK;
}

Status json_parse_items(Json **out, const char *path) {
    json_t *all = json_array();
    *out = NULL;
    Status st = all ? json_each(path, collect, all) : err_set(ERR_MEMORY, "out of memory");
    if (st == OK) *out = (Json *)(void *)all;
    else json_decref(all);
    return st;
}

/* ---- values ---- */

enum JsonType json_type(const Json *j) {
    if (!j) return J_NONE;
    switch (json_typeof(in(j))) {
    case JSON_OBJECT: return J_OBJECT;
    case JSON_ARRAY: return J_ARRAY;
    case JSON_STRING: return J_STR;
    case JSON_INTEGER: return J_INT;
    case JSON_REAL: return J_NUM;
    case JSON_TRUE: case JSON_FALSE: return J_BOOL;
    case JSON_NULL: break;
    }
    return J_NULL;
}

size_t json_len(const Json *j) {
    return json_is_array(in(j)) ? json_array_size(in(j)) : json_is_object(in(j)) ? json_object_size(in(j)) : 0;
}

const Json *json_at(const Json *array, size_t i) { return out_of(json_array_get(in(array), i)); }
const Json *json_get(const Json *object, const char *key) { return out_of(json_object_get(in(object), key)); }

const Json *json_any(const Json *object, size_t n, const char *const *keys) {
    const Json *v = NULL;
    for (size_t i = 0; i < n && !v; i++) v = json_get(object, keys[i]);
    return v;
}

const char *json_str(const Json *j, size_t *len) {
    if (!json_is_string(in(j))) return NULL;
    if (len) *len = json_string_length(in(j));
    return json_string_value(in(j));
}

bool json_int(const Json *j, int64_t *v) {
    if (!json_is_integer(in(j))) return false;
    *v = json_integer_value(in(j));
    return true;
}

bool json_num(const Json *j, double *v) {
    if (!json_is_number(in(j))) return false;
    *v = json_number_value(in(j));
    return true;
}

bool json_bool(const Json *j, bool *v) {
    if (!json_is_boolean(in(j))) return false;
    *v = json_is_true(in(j));
    return true;
}

/* jansson's iterators want an object that may be changed; we only look. */
static json_t *unlocked(const Json *j) {
    union { const json_t *from; json_t *to; } u = {in(j)};
    return u.to;
}

const char *json_next(const Json *object, const char *key, const Json **value) {
    json_t *o = unlocked(object);
    void *it = key ? json_object_iter_next(o, json_object_key_to_iter(key)) : json_object_iter(o);
    if (it && value) *value = out_of(json_object_iter_value(it));
    return it ? json_object_iter_key(it) : NULL;
}

/* ---- writing ---- */

void jw_begin(JsonWriter *w, FILE *f, int indent) { *w = (JsonWriter){.f = f, .indent = indent}; }

static uint64_t bit(int depth) { return (uint64_t)1 << depth; }

static void write_string(FILE *f, const char *s, size_t n) {
    fputc('"', f);
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t k = utf8_next(s + i, n - i, &c);
        if (c == '"' || c == '\\') fprintf(f, "\\%c", (char)c);
        else if (c == '\n') fputs("\\n", f);
        else if (c == '\t') fputs("\\t", f);
        else if (c < 0x20 || c == 0x7F) fprintf(f, "\\u%04x", (unsigned)c);
        else {
            char buf[UTF8_MAX];
            fwrite(buf, 1, utf8_put(c, buf), f);
        }
        i += k;
    }
    fputc('"', f);
}

static void new_line(JsonWriter *w) {
    if (!w->indent || !w->depth) return;
    fputc('\n', w->f);
    for (int i = 0; i < w->depth * w->indent; i++) fputc(' ', w->f);
}

/* What stands before a value: comma, line, key. */
static void lead(JsonWriter *w, const char *key) {
    bool object = w->depth && (w->is_object & bit(w->depth - 1));
    BUG_ON(object != (key != NULL), "JSON: %s", object ? "a member needs a key" : "a key outside an object");
    if (w->depth) {
        if (w->has_items & bit(w->depth - 1)) fputs(w->indent ? "," : ", ", w->f);
        w->has_items |= bit(w->depth - 1);
        new_line(w);
    }
    if (key) {
        write_string(w->f, key, strlen(key));
        fputs(": ", w->f);
    }
}

static void tail(JsonWriter *w) {
    if (!w->depth) fputc('\n', w->f);
}

static void open_container(JsonWriter *w, const char *key, bool object) {
    BUG_ON(w->depth >= WRITE_DEPTH, "JSON: deeper than %d", WRITE_DEPTH);
    lead(w, key);
    fputc(object ? '{' : '[', w->f);
    w->has_items &= ~bit(w->depth);
    w->is_object = object ? w->is_object | bit(w->depth) : w->is_object & ~bit(w->depth);
    w->depth++;
}

void jw_object(JsonWriter *w, const char *key) { open_container(w, key, true); }
void jw_array(JsonWriter *w, const char *key) { open_container(w, key, false); }

void jw_end(JsonWriter *w) {
    BUG_ON(w->depth <= 0, "JSON: an end too many");
    w->depth--;
    if (w->has_items & bit(w->depth)) {
        if (w->indent && !w->depth) fputc('\n', w->f);
        new_line(w);
    }
    fputc(w->is_object & bit(w->depth) ? '}' : ']', w->f);
    tail(w);
}

void jw_raw(JsonWriter *w, const char *key, const char *json) {
    lead(w, key);
    fputs(json, w->f);
    tail(w);
}

void jw_null(JsonWriter *w, const char *key) { jw_raw(w, key, "null"); }
void jw_bool(JsonWriter *w, const char *key, bool v) { jw_raw(w, key, v ? "true" : "false"); }

void jw_strn(JsonWriter *w, const char *key, const char *s, size_t n) {
    lead(w, key);
    write_string(w->f, s, n);
    tail(w);
}

void jw_str(JsonWriter *w, const char *key, const char *s) {
    if (s) jw_strn(w, key, s, strlen(s));
    else jw_null(w, key);
}

void jw_int(JsonWriter *w, const char *key, int64_t v) {
    char buf[32];
    snprintf(buf, sizeof buf, "%lld", (long long)v);
    jw_raw(w, key, buf);
}

void jw_num(JsonWriter *w, const char *key, double v) {
    char buf[40];
    if (!isfinite(v)) {
        if (w->st == OK) snprintf(w->bad_key, sizeof w->bad_key, "%s", key ? key : "an array");
        w->st = ERR_NUMERIC; /* JSON has no NaN: null keeps the line readable, the status says what happened */
        jw_null(w, key);
        return;
    }
    for (int digits = 6; digits <= 17; digits += digits < 15 ? 9 : 1) { /* most are short, and 17 always suffice */
        snprintf(buf, sizeof buf, "%.*g", digits, v);
        if (strtod(buf, NULL) == v) break;   /* exact on purpose: the text must give the same double */
    }
    jw_raw(w, key, buf);
}

Status jw_done(JsonWriter *w) {
    BUG_ON(w->depth, "JSON: %d containers left open", w->depth);
    /* a full disk shows when the buffer goes out */
    if (fflush(w->f) || ferror(w->f)) return err_set(ERR_IO, "JSON cannot be written: %s", strerror(errno));
    return w->st == OK ? OK : err_set(w->st, "the value of \"%s\" is not finite", w->bad_key);
}
