/* annotation_table: captions that people keep as a table: with a header, or in one of the forms that have none. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/csv.h"
#include "data/make/annotation_store.h"
#include "data/make/questions.h"

enum { MOST_CAPTIONS = 32, NO_SEPARATOR = 1 };

typedef struct {
    Annotations *a;
    char separator;
    bool headed, started;
    int image, split;                       /* columns; split -1: none */
    int question, answer;                   /* columns, where it asks */
    bool asks;
    int caption[MOST_CAPTIONS], captions;   /* columns */
    bool numbered;                          /* NAME#0: the number is the caption's */
} Table;

/* ---- which column is which --------------------------------------------------------------------------------------- */

static int best(const Table *t, enum AnnotationRole role, size_t n, const char *const *fields) {
    int rank = NO_RANK, column = -1;
    for (size_t i = 0; i < n; i++) {
        int r = annotation_fits(t->a, role, fields[i]);
        if (r < rank) rank = r, column = (int)i;
    }
    return column;
}

/* "a, b, c" */
static const char *listed(char *text, size_t size, size_t n, const char *const *fields) {
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < n && used + 1 < size; i++) {
        int w = snprintf(text + used, size - used, "%s%.40s", i ? ", " : "", fields[i]);
        used += w > 0 ? (size_t)w : 0;
    }
    return text;
}

static const char *separator_name(char c) {
    return c == '\t' ? "tabs" : c == ';' ? "semicolons" : c == '|' ? "bars" : c == ',' ? "commas" : "the separator";
}

static Status unknown_header(const Table *t, size_t n, const char *const *fields, const char *wanted) {
    char list[300];
    if (n == 1 && !t->a->store->current.columns)
        return err_set(ERR_FORMAT,
                       "lines of text: the first (%s) is no JSON, names no picture and is not the head of a "
                       "table (as image,caption is)", listed(list, sizeof list, n, fields));
    return err_set(ERR_FORMAT,
                   "a table by its first line, %zu column%s separated by %s (%s), but none is called %s; "
                   "extract.image_column, extract.caption_column and extract.separator say what is which",
                   n, n > 1 ? "s" : "", separator_name(t->separator), listed(list, sizeof list, n, fields), wanted);
}

/* Captions stand in the best column, or in all of its kind: caption1, caption2, ... */
static void caption_columns(Table *t, size_t n, const char *const *fields) {
    int first = best(t, ROLE_CAPTION, n, fields);
    if (first < 0) return;
    int rank = annotation_fits(t->a, ROLE_CAPTION, fields[first]);
    for (size_t i = 0; i < n && t->captions < MOST_CAPTIONS; i++)
        if ((int)i != t->image && annotation_fits(t->a, ROLE_CAPTION, fields[i]) == rank &&
            (rank >= 100 || (int)i == first))
            t->caption[t->captions++] = (int)i;
}

/* Columns that might be captions under another name: then it is no list of images. */
static bool others_known(const Table *t, size_t n, const char *const *fields) {
    for (size_t i = 0; i < n; i++)
        if ((int)i != t->image && (int)i != t->split && annotation_rank(ROLE_OTHER, fields[i]) == NO_RANK &&
            annotation_rank(ROLE_IMAGE, fields[i]) == NO_RANK) return false;
    return true;
}

/* "question" and "answer" (or "answers"). */
static void question_columns(Table *t, size_t n, const char *const *fields) {
    t->question = t->answer = -1;
    for (size_t i = 0; i < n; i++) {
        if (annotation_name_equal(fields[i], "question")) t->question = (int)i;
        bool answer = annotation_name_equal(fields[i], "answer") || annotation_name_equal(fields[i], "answers");
        if (answer) t->answer = (int)i;
    }
    t->asks = t->question >= 0 && t->answer >= 0;
}

static Status header(Table *t, size_t n, const char *const *fields) {
    const char *caption = annotation_columns(t->a)->caption;
    bool none = caption && !strcmp(caption, "none");         /* extract.caption_column=none: the images alone */
    t->image = best(t, ROLE_IMAGE, n, fields);
    t->split = best(t, ROLE_SPLIT, n, fields);
    if (!none) question_columns(t, n, fields);
    if (!none && !t->asks) caption_columns(t, n, fields);    /* an answer is no caption */
    if (t->image < 0 && t->captions && best(t, ROLE_OTHER, n, fields) >= 0)
        return unknown_header(t, n, fields, "image (file_name, image_path, ...): pictures are needed as files");
    if (t->image < 0) return unknown_header(t, n, fields, t->captions ? "image" : "image or caption");
    if (!t->captions && !none && !t->asks && !others_known(t, n, fields)) 
        return unknown_header(t, n, fields, "caption");
    return OK;
}

/* ---- tables without a header ------------------------------------------------------------------------------------- */

/* "1000268201_693b08cb0e.jpg#0" */
static const char *caption_number(const char *name) {
    const char *hash = strrchr(name, '#');
    return hash && hash > name && hash[1] && strspn(hash + 1, "0123456789") == strlen(hash + 1) ? hash : NULL;
}

static bool is_token_form(Table *t, size_t n, const char *const *f) {
    if (n != 2 || !caption_number(f[0])) return false;
    t->numbered = true;
    t->caption[t->captions++] = 1;
    return true;
}

static bool is_pair(Table *t, size_t n, const char *const *f) {
    /* two pictures are no pair */
    if (n != 2 || annotation_is_picture(f[0]) == annotation_is_picture(f[1])) return false;
    t->image = annotation_is_picture(f[1]);
    t->caption[t->captions++] = !t->image;
    return true;
}

/* "1000092795.jpg<tab>0<tab>Two young guys" */
static bool is_counted_pair(Table *t, size_t n, const char *const *f) {
    if (n != 3 || !annotation_is_picture(f[0]) || !f[1][0] || strspn(f[1], "0123456789") != strlen(f[1])) return false;
    t->caption[t->captions++] = 2;
    return true;
}

static bool is_name(Table *t, size_t n, const char *const *f) {
    (void)t;
    return n == 1 && annotation_is_picture(f[0]) && !strstr(f[0], ": ");        /* YAML is no list of names */
}

/* extract.image_column=2: the user counts columns, so there is no header. */
static int number_of(const char *given, size_t n) {
    if (!given || !given[0] || strspn(given, "0123456789") != strlen(given)) return -1;
    long k = strtol(given, NULL, 10);
    return k >= 1 && (size_t)k <= n ? (int)k - 1 : -1;
}

static bool is_counted(Table *t, size_t n) {
    const AnnotationColumns *c = annotation_columns(t->a);
    int image = number_of(c->image, n), caption = number_of(c->caption, n);
    if (image < 0) return false;
    t->image = image;
    t->split = number_of(c->split, n);
    if (caption >= 0) t->caption[t->captions++] = caption;
    return true;
}

static bool (*const headless[])(Table *t, size_t n, const char *const *fields) = {is_token_form, is_pair,
                                                                                  is_counted_pair, is_name};

/* The first row: a header, or a row already. */
static Status begin(Table *t, size_t n, const char *const *fields) {
    t->started = true;
    t->split = -1;
    if (is_counted(t, n)) return OK;                         /* the user's word, before any guess */
    for (size_t i = 0; i < n; i++)
        if (strstr(fields[i], "://"))
            return err_set(ERR_FORMAT,
                           "a table without a header, of addresses (%.80s) and no files; fetch the pictures first "
                           "(img2dataset does), then give its tars or folder to extract",
                           fields[i]);
    for (size_t i = 0; i < sizeof headless / sizeof *headless; i++)
        if (headless[i](t, n, fields)) return OK;
    t->headed = true;
    return header(t, n, fields);
}

static Status table_row(void *ctx, int64_t line, size_t n, const char *const *fields) {
    Table *t = ctx;
    char name[1024];
    int64_t index;
    (void)line;
    if (!t->started) {
        Status st = begin(t, n, fields);
        if (st != OK || t->headed) return st;
    }
    /* Flickr30k's tokens: picture.jpg#0, a caption a line */
    const char *image = fields[t->image], *hash = t->numbered ? caption_number(image) : NULL;
    if (hash && (size_t)(hash - image) < sizeof name) {
        snprintf(name, sizeof name, "%.*s", (int)(hash - image), image);
        image = name;
    }
    Status st = annotation_image(t->a, image, t->split >= 0 ? fields[t->split] : NULL, &index);
    if (st == OK && t->asks) st = questions_field(t->a, index, fields[t->question], fields[t->answer]);
    for (int k = 0; k < t->captions && st == OK; k++) st = annotation_captions(t->a, index, fields[t->caption[k]]);
    return st;
}

/* Names may have commas and blanks in them; so lines that all end like pictures are a list. */
static bool is_list_of_names(const char *text, size_t n) {
    const char *stop = memchr(text, '\n', n);
    char line[1024];
    size_t len = stop ? (size_t)(stop - text) : n;
    while (len && (text[len - 1] == '\r' || text[len - 1] == ' ')) len--;
    if (len >= sizeof line || memchr(text, '\t', len) || memchr(text, '"', len) || memmem(text, len, ": ", 2))
        return false;
    memcpy(line, text, len);
    line[len] = 0;
    const char *comma = strpbrk(line, ",;|");
    if (comma && memchr(line, '.', (size_t)(comma - line))) return false;      /* a.jpg,b.jpg */
    return annotation_is_picture(line);
}

Status annotation_table(Annotations *a, const char *text, size_t n, const char *name) {
    Table t = {.a = a, .separator = annotation_columns(a)->separator};
    if (n > 5 && !memcmp(text, "sep=", 4) && (text[5] == '\n' || text[5] == '\r')) {      /* Excel's own line */
        if (!t.separator) t.separator = text[4];
        text += 5, n -= 5;
    }
    /* a comma in a name must not cut it */
    if (!t.separator) t.separator = is_list_of_names(text, n) ? NO_SEPARATOR : csv_separator(text, n);
    return csv_read(text, n, name, t.separator, table_row, &t);
}
