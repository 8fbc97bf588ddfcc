/* yaml: see yaml.h. */
#include "configs/yaml.h"

#include <stdbool.h>
#include <string.h>
#include <yaml.h>

#include "kernels/base/unicode.h"

enum { MAX_DEPTH = 4, MAX_KEY = 128, MAX_VALUE = 16384 };

typedef struct {
    yaml_parser_t parser;
    yaml_event_t event;            /* the one being looked at */
    const char *text, *name;
    YamlVisit visit;
    void *context;
    char key[MAX_KEY];             /* dotted, as far as the walk is down */
    char list[MAX_VALUE];          /* a list joined */
} Walk;

static int line_of(const Walk *w) { return (int)w->event.start_mark.line + 1; }

static Status refuse(const Walk *w, const char *what) {
    return err_set(ERR_USAGE, "%s:%d: %s", w->name, line_of(w), what);
}

/* libyaml counts lines for what it parsed, only bytes for what it could not even read. */
static Status parser_error(const Walk *w) {
    const yaml_parser_t *p = &w->parser;
    if (p->error == YAML_MEMORY_ERROR) return err_set(ERR_MEMORY, "%s: out of memory", w->name);
    size_t line = p->problem_mark.line + 1;
    if (p->error == YAML_READER_ERROR) {
        line = 1;
        for (size_t i = 0; i < p->problem_offset; i++) line += w->text[i] == '\n';
    }
    return err_set(ERR_USAGE, "%s:%zu: this is not YAML: %s", w->name, line, p->problem ? p->problem : "unreadable");
}

static Status next(Walk *w) {
    yaml_event_delete(&w->event);
    if (!yaml_parser_parse(&w->parser, &w->event)) {
        memset(&w->event, 0, sizeof w->event); /* a failed parse left nothing in it to delete */
        return parser_error(w);
    }
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (w->event.type) {
    case YAML_ALIAS_EVENT: return refuse(w, "aliases (*name) are not read; write the value again");
    case YAML_SCALAR_EVENT:
        anchor = w->event.data.scalar.anchor;
        tag = w->event.data.scalar.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = w->event.data.mapping_start.anchor;
        tag = w->event.data.mapping_start.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = w->event.data.sequence_start.anchor;
        tag = w->event.data.sequence_start.tag;
        break;
    default: break;
    }
    if (anchor) return refuse(w, "anchors (&name) are not read; write the value where it is needed");
    if (tag) return refuse(w, "tags (!name) are not read; write the value without it");
    return OK;
}

/* The scalar at hand as a C string, NULL when it holds a zero byte. */
static const char *scalar(const Walk *w) {
    const char *s = (const char *)w->event.data.scalar.value;
    return strlen(s) == w->event.data.scalar.length ? s : NULL;
}

/* What stands for nothing in YAML, unless it is quoted: the option keeps its default. */
static bool is_null(const Walk *w, const char *s) {
    return w->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!strcmp(s, "~") || !strcmp(s, "null") || !strcmp(s, "Null") || !strcmp(s, "NULL"));
}

/* The list whose start is at hand, as one value. */
static Status walk_list(Walk *w) {
    Status st;
    int line = line_of(w);
    size_t used = 0;
    w->list[0] = 0;
    while (!(st = next(w)) && w->event.type != YAML_SEQUENCE_END_EVENT) {
        if (w->event.type != YAML_SCALAR_EVENT) return refuse(w, "a list may hold plain values only");
        const char *s = scalar(w);
        if (!s || strchr(s, ',')) return refuse(w, "a value in a list may hold no comma and no zero byte");
        size_t n = strlen(s);
        if (used + n + 2 > sizeof w->list) return refuse(w, "this list is too long");
        if (used) w->list[used++] = ',';
        memcpy(w->list + used, s, n + 1);
        used += n;
    }
    return st ? st : w->visit(w->context, w->key, w->list, line);
}

/* The map whose start is at hand; `prefix` bytes of w->key are what stands above it. */
static Status walk_map(Walk *w, size_t prefix, int depth) {
    Status st;
    if (depth > MAX_DEPTH) return refuse(w, "maps are nested deeper than any option is");
    while (!(st = next(w)) && w->event.type != YAML_MAPPING_END_EVENT) {
        const char *s = w->event.type == YAML_SCALAR_EVENT ? scalar(w) : NULL;
        size_t n = s ? strlen(s) : 0;
        if (!n || prefix + n + 2 > sizeof w->key) return refuse(w, "the name of an option is wanted before the colon");
        size_t used = prefix;
        if (used) w->key[used++] = '.';
        memcpy(w->key + used, s, n + 1);
        used += n;
        int line = line_of(w);
        if ((st = next(w))) return st;
        switch (w->event.type) {
        case YAML_SCALAR_EVENT:
            if (!(s = scalar(w))) return refuse(w, "a value may hold no zero byte");
            st = is_null(w, s) ? OK : w->visit(w->context, w->key, s, line);
            break;
        case YAML_SEQUENCE_START_EVENT: st = walk_list(w); break;
        default: st = walk_map(w, used, depth + 1); break;       /* nothing else can follow a key */
        }
        if (st) return st;
    }
    return st;
}

static Status walk_stream(Walk *w) {
    Status st;
    if ((st = next(w)) || (st = next(w))) return st;                       /* stream start, then document start */
    if (w->event.type == YAML_STREAM_END_EVENT) return OK;                 /* nothing but comments */
    if ((st = next(w))) return st;
    bool null = w->event.type == YAML_SCALAR_EVENT && w->event.data.scalar.length == 0;
    if (w->event.type != YAML_MAPPING_START_EVENT && !null)
        return refuse(w, "a configuration is a map: lines of 'key: value'");
    if (!null && (st = walk_map(w, 0, 1))) return st;
    if ((st = next(w)) || (st = next(w))) return st;                       /* document end, then stream end */
    return w->event.type == YAML_STREAM_END_EVENT ? OK : refuse(w, "one document is read, here a second one starts");
}

Status yaml_walk(const char *text, size_t n, const char *name, YamlVisit visit, void *context) {
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;          /* libyaml would count it as a column */
    Walk w = { .text = text, .name = name, .visit = visit, .context = context };
    if (!yaml_parser_initialize(&w.parser)) return err_set(ERR_MEMORY, "%s: out of memory", name);
    yaml_parser_set_input_string(&w.parser, (const unsigned char *)text, n);
    yaml_parser_set_encoding(&w.parser, YAML_UTF8_ENCODING);
    Status st = walk_stream(&w);
    yaml_event_delete(&w.event);
    yaml_parser_delete(&w.parser);
    return st;
}

/* Characters that YAML does not take as they are, or folds as line breaks. */
static bool needs_escape(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x2028 || c == 0x2029 || c == 0xfeff || (c & 0xfffe) == 0xfffe;
}

void yaml_put_quoted(FILE *f, const char *s) {
    fputc('"', f);
    for (size_t n = strlen(s); n;) {
        uint32_t c;
        const char *from = s;
        size_t used = utf8_next(s, n, &c);
        if (!used) break;                                                  /* the caller checked */
        s += used;
        n -= used;
        if (c == '"' || c == '\\') fprintf(f, "\\%c", (char)c);
        else if (c == '\n') fputs("\\n", f);
        else if (c == '\t') fputs("\\t", f);
        else if (needs_escape(c)) fprintf(f, c > 0xffff ? "\\U%08X" : "\\u%04X", c);
        else fwrite(from, 1, used, f);
    }
    fputc('"', f);
}
