/* config_write: the small JSON files that other programs want beside weights, from rows of key and value.
 *
 *     CONFIG_PUT(w, CONFIG_TEXT("model_type", "blip-2"), CONFIG_INT("num_query_tokens", d->Q));
 *     st = CONFIG_FILE(folder, "config.json", CONFIG_TEXT(...), ...);
 *
 * Called by what writes a folder for transformers (export.c, export_whole.c, vision_hf.c, lm_write.c). */
#pragma once
#include "data/format/json.h"

typedef struct {
    const char *key;
    enum { CONFIG_ROWS_END, CONFIG_IS_TEXT, CONFIG_IS_INT, CONFIG_IS_ID, CONFIG_IS_NUM, CONFIG_IS_REAL, CONFIG_IS_BOOL,
           CONFIG_IS_CLASS, CONFIG_IS_COLOURS, CONFIG_IS_OBJECT, CONFIG_IS_CLOSED } kind;
    const char *text;
    int64_t n;
    double x;
    const float *colours;
} ConfigRow;

#define CONFIG_TEXT(key, v)    {key, CONFIG_IS_TEXT, .text = (v)}
#define CONFIG_INT(key, v)     {key, CONFIG_IS_INT, .n = (v)}
#define CONFIG_ID(key, v)      {key, CONFIG_IS_ID, .n = (v)}       /* left out below 0 */
#define CONFIG_NUM(key, v)     {key, CONFIG_IS_NUM, .x = (v)}
#define CONFIG_REAL(key, v)    {key, CONFIG_IS_REAL, .x = (v)}     /* with a point: transformers takes no 1 for 1.0 */
#define CONFIG_BOOL(key, v)    {key, CONFIG_IS_BOOL, .n = (v)}
#define CONFIG_CLASS(v)        {"architectures", CONFIG_IS_CLASS, .text = (v)}      /* a list of one */
#define CONFIG_COLOURS(key, v) {key, CONFIG_IS_COLOURS, .colours = (v)}     /* a list of three */
#define CONFIG_OBJECT(name)    {.key = name, .kind = CONFIG_IS_OBJECT}             /* what follows is inside, up to */
#define CONFIG_CLOSE           {.kind = CONFIG_IS_CLOSED}

void config_put(JsonWriter *w, const ConfigRow *rows);
void config_put_real(JsonWriter *w, const char *key, double v);
#define CONFIG_PUT(w, ...) config_put(w, (const ConfigRow[]){__VA_ARGS__, {0}})

/* One object in FOLDER/NAME. */
Status config_file(const char *folder, const char *name, const ConfigRow *rows);
#define CONFIG_FILE(folder, name, ...) config_file(folder, name, (const ConfigRow[]){__VA_ARGS__, {0}})
