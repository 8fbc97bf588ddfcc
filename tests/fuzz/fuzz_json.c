/* Any bytes as one document and as a sequence of items; what was read is written and must read back. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "data/format/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* False when the value is nested deeper than the writer goes; `left` is what it can still open. */
static bool copy(JsonWriter *w, const char *key, const Json *j, int left) {
    const Json *value;
    int64_t i = 0;
    double d = 0;
    bool b = false, fits = left > 0;
    size_t n = 0;
    switch (json_type(j)) {
    case J_OBJECT:
        if (!fits) return false;
        jw_object(w, key);
        for (const char *k = json_next(j, NULL, &value); k; k = json_next(j, k, &value))
            fits &= copy(w, k, value, left - 1);
        jw_end(w);
        return fits;
    case J_ARRAY:
        if (!fits) return false;
        jw_array(w, key);
        for (size_t k = 0; k < json_len(j); k++) fits &= copy(w, NULL, json_at(j, k), left - 1);
        jw_end(w);
        return fits;
    case J_STR: jw_strn(w, key, json_str(j, &n), n); break;
    case J_INT: json_int(j, &i); jw_int(w, key, i); break;
    case J_NUM: json_num(j, &d); jw_num(w, key, d); break;
    case J_BOOL: json_bool(j, &b); jw_bool(w, key, b); break;
    default: jw_null(w, key);
    }
    return true;
}

static Status item(void *ctx, int64_t index, const Json *j) {
    *(int64_t *)ctx += index + (int64_t)json_len(j);
    return OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Json *j = NULL, *again = NULL;
    char *text = NULL;
    size_t n = 0;
    int64_t sum = 0;
    if (json_parse(&j, (const char *)data, size, "fuzz") == OK) {
        JsonWriter w;
        FILE *f = open_memstream(&text, &n);
        if (!f) abort();
        jw_begin(&w, f, size & 2);
        bool fits = copy(&w, NULL, j, 64);
        if (jw_done(&w) != OK) abort();
        fclose(f);
        if (fits && json_parse(&again, text, n, "written") != OK) abort();
        if (json_len(again) != json_len(j) && fits) abort();
        json_free(again);
        json_free(j);
        free(text);
    }
    FILE *f = size ? fmemopen((void *)(uintptr_t)data, size, "rb") : NULL;
    if (!f) return 0;
    json_each_of(f, "fuzz", item, &sum);
    fclose(f);
    return 0;
}
