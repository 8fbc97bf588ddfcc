/* config_write: see config_write.h. */
#include "checkpoints/config_write.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/jsonfile.h"
#include "kernels/base/mem.h"

void config_put_real(JsonWriter *w, const char *key, double v) {
    char text[40];
    int digits = 1;
    /* the shortest that reads back as the same number: 17 digits always do */
    do snprintf(text, sizeof text, "%.*g", digits, v);
    while (strtod(text, NULL) != v && digits++ < 17);
    if (!strpbrk(text, ".en")) strcat(text, ".0");
    jw_raw(w, key, text);
}

/* Eight digits are those that are published: nine would show that 0.48145466 is not quite that number in f32. */
static void put_colours(JsonWriter *w, const char *key, const float x[3]) {
    char digits[32];
    jw_array(w, key);
    for (int c = 0; c < 3; c++) {
        snprintf(digits, sizeof digits, "%.8g", (double)x[c]);
        jw_raw(w, NULL, digits);
    }
    jw_end(w);
}

void config_put(JsonWriter *w, const ConfigRow *r) {
    for (; r->kind != CONFIG_ROWS_END; r++)
        switch (r->kind) {
        case CONFIG_ROWS_END: break;
        case CONFIG_IS_TEXT: jw_str(w, r->key, r->text); break;
        case CONFIG_IS_ID: if (r->n < 0) break; /* fall through */
        case CONFIG_IS_INT: jw_int(w, r->key, r->n); break;
        case CONFIG_IS_NUM: jw_num(w, r->key, r->x); break;
        case CONFIG_IS_REAL: config_put_real(w, r->key, r->x); break;
        case CONFIG_IS_BOOL: jw_bool(w, r->key, r->n); break;
        case CONFIG_IS_CLASS: jw_array(w, r->key), jw_str(w, NULL, r->text), jw_end(w); break;
        case CONFIG_IS_COLOURS: put_colours(w, r->key, r->colours); break;
        case CONFIG_IS_OBJECT: jw_object(w, r->key); break;
        case CONFIG_IS_CLOSED: jw_end(w); break;
        }
}

Status config_file(const char *folder, const char *name, const ConfigRow *rows) {
    JsonFile f;
    char *path = mem_format("%s/%s", folder, name);
    Status st = path ? jsonfile_open(&f, 2) : ERR_MEMORY;
    if (st == OK) {
        jw_object(&f.w, NULL);
        config_put(&f.w, rows);
        jw_end(&f.w);
        st = jsonfile_write(&f, OK, path);
    }
    free(path);
    return st;
}
