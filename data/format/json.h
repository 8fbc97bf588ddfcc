/* json: reading and writing JSON. Called by everything that meets annotations, safetensors headers, logs and results.
 *
 * Reading goes through jansson (included in json.c only). A document is parsed whole; every value is borrowed from
 * the document that json_parse returned and lives until json_free. All getters accept NULL (an absent value) and say
 * so by returning NULL or false, so that a chain of json_get needs one test at its end. A file too large to hold is
 * read with json_each, which holds one item at a time.
 *
 * Writing is streaming, to a FILE*: no tree is built. Errors stick to the writer and come out of jw_done.
 *
 * Limits: nesting 2048 when reading (jansson's), 64 when writing; a file of 4 GB; integers of 64 bits; NaN
 * and Infinity are refused, as are repeated keys, invalid UTF-8 and a NUL in a key (a NUL in a string is fine). A
 * byte order mark at the start is skipped. Does not keep comments or the text of numbers. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

typedef struct Json Json;

/* J_NONE: the pointer was NULL. J_NUM: written with a point or an exponent. */
enum JsonType { J_NONE, J_NULL, J_BOOL, J_INT, J_NUM, J_STR, J_ARRAY, J_OBJECT };

/* ---- reading ---- */

/* Parses all of `path` or of text[0..n). ERR_FORMAT says "name:line:column: what"; ERR_IO names the file. On failure
 * *out is NULL. */
Status json_parse_file(Json **out, const char *path);
Status json_parse(Json **out, const char *text, size_t n, const char *name);
void json_free(Json *doc);

/* Calls fn for each item of a file that is one array, or for each of the values that follow one another (JSON Lines).
 * Memory: one item. `item` is gone after fn returns. Stops at the first status other than OK and returns it; a message
 * set by fn gets "path:line" of the item in front. */
typedef Status JsonItemFn(void *ctx, int64_t index, const Json *item);
Status json_each(const char *path, JsonItemFn *fn, void *ctx);
Status json_each_of(FILE *f, const char *name, JsonItemFn *fn, void *ctx);   /* the same from an open file */

/* All items that json_each would give, as one array: of a file that is one object, that object. */
Status json_parse_items(Json **out, const char *path);

enum JsonType json_type(const Json *);
size_t json_len(const Json *);                              /* items of an array, members of an object; otherwise 0 */
const Json *json_at(const Json *array, size_t i);           /* NULL when absent or no array */
const Json *json_get(const Json *object, const char *key);  /* NULL when absent or no object */
const Json *json_any(const Json *object, size_t n, const char *const *keys);   /* the first key that is there */
const char *json_str(const Json *, size_t *len);            /* UTF-8 and a NUL; NULL when no string; len may be NULL */
bool json_int(const Json *, int64_t *);                     /* only what is written as an integer */
bool json_num(const Json *, double *);                      /* integers too */
bool json_bool(const Json *, bool *);

/* Members in the order of the file: the one after `key` (a pointer that json_next returned; NULL: the first). NULL at
 * the end. */
const char *json_next(const Json *object, const char *key, const Json **value);

/* ---- writing ---- */

/*     JsonWriter w;  jw_begin(&w, file, 0);
 *     jw_object(&w, NULL);  jw_int(&w, "step", 7);  jw_num(&w, "loss", 2.5);  jw_end(&w);
 *     if ((st = jw_done(&w)) != OK) ...
 *
 * `key` is the member's name inside an object and NULL in an array and at the top. Several values at the top are
 * written a line each (JSON Lines). A wrong key, an end too many or too few is a bug and stops the program. */
typedef struct {
    FILE *f;
    int indent, depth;           /* indent 0: a value at the top is one line */
    uint64_t is_object, has_items;   /* bit d: of the container at depth d */
    Status st;
    char bad_key[64];            /* the first member that was not finite */
} JsonWriter;

void jw_begin(JsonWriter *w, FILE *f, int indent);
void jw_object(JsonWriter *w, const char *key);
void jw_array(JsonWriter *w, const char *key);
void jw_end(JsonWriter *w);                                 /* closes the innermost object or array */
void jw_str(JsonWriter *w, const char *key, const char *s); /* NULL writes null */
void jw_strn(JsonWriter *w, const char *key, const char *s, size_t n);   /* invalid UTF-8 becomes U+FFFD */
void jw_int(JsonWriter *w, const char *key, int64_t v);
void jw_num(JsonWriter *w, const char *key, double v);      /* shortest form that reads back the same */
void jw_bool(JsonWriter *w, const char *key, bool v);
void jw_null(JsonWriter *w, const char *key);
void jw_raw(JsonWriter *w, const char *key, const char *json);   /* text that is JSON already */

/* ERR_IO if the file could not be written (flushes it first; does not close), ERR_NUMERIC if a number was not finite
 * (null stands there, the line is valid). */
Status jw_done(JsonWriter *w);
