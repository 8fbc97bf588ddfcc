/* export_whole: see export_whole.h. */
#include "checkpoints/export_whole.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/config_write.h"
#include "checkpoints/weights.h"
#include "data/format/jsonfile.h"
#include "data/format/outfile.h"
#include "kernels/base/mem.h"

#define LM "language_model."

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

static const char *behind(const char *s, const char *front) {
    size_t n = strlen(front);
    return strncmp(s, front, n) == 0 ? s + n : NULL;
}

/* InstructBLIP keeps the Q-Former's embeddings, and its first norm among them. */
static Status add_ours(ExportList *l, const HfDims *d, const StTensor *tensors, size_t n) {
    char name[NAME_ROOM];
    Status st = OK;
    for (size_t i = 0; i < n && st == OK; i++) {
        if (!name_from_lavis(NAMES_HF, tensors[i].name, name)) continue;
        const char *norm = behind(name, "qformer.layernorm."), *words = behind(name, "embeddings.");
        /* InstructBLIP's module is called otherwise than BLIP-2's */
        if (d->V && norm) st = export_add(l, &tensors[i], "qformer.embeddings.layernorm.", norm);
        else if (words) st = export_add(l, &tensors[i], "qformer.embeddings.", words);
        else st = export_add(l, &tensors[i], "", name);
    }
    return st;
}

/* All of a language model's folder, or what a BLIP-2 folder holds of one. */
static Status add_lm(ExportList *l, const WeightSource *ws) {
    bool inside = false;
    Status st = OK;
    /* a BLIP-2 folder's other parts are ours, and newer here */
    for (size_t i = 0; i < ws_count(ws); i++) inside |= behind(ws_at(ws, i)->name, LM) != NULL;
    for (size_t i = 0; i < ws_count(ws) && st == OK; i++) {
        const StTensor *t = ws_at(ws, i);
        if (inside && behind(t->name, LM)) st = export_add(l, t, "", t->name);
        else if (!inside) st = export_add(l, t, LM, t->name);
    }
    return st;
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

static void copy_value(JsonWriter *w, const char *key, const Json *j, int left) {
    const Json *value;
    int64_t i = 0;
    double x = 0;
    bool b = false;
    size_t n = 0;
    switch (left > 0 ? json_type(j) : J_NULL) { /* a file that is nested without end must not take us along */
    case J_OBJECT:
        jw_object(w, key);
        for (const char *k = json_next(j, NULL, &value); k; k = json_next(j, k, &value))
            copy_value(w, k, value, left - 1);
        jw_end(w);
        break;
    case J_ARRAY:
        jw_array(w, key);
        for (size_t k = 0; k < json_len(j); k++) copy_value(w, NULL, json_at(j, k), left - 1);
        jw_end(w);
        break;
    case J_STR: {
        const char *text = json_str(j, &n);                  /* by its length: a zero may stand in it */
        jw_strn(w, key, text, n);
        break;
    }
    case J_INT: json_int(j, &i); jw_int(w, key, i); break;
    case J_NUM: json_num(j, &x); config_put_real(w, key, x); break;
    case J_BOOL: json_bool(j, &b); jw_bool(w, key, b); break;
    default: jw_null(w, key);
    }
}

static Status read_config(Json **doc, const char *folder) {
    char *path = mem_format("%s/config.json", folder);
    Status st = path ? json_parse_file(doc, path) : ERR_MEMORY;
    free(path);
    return st;
}

enum { NESTED = 32 };

/* As the folder has it, but for the activation that T5 was used with. */
static void put_text_config(JsonWriter *w, const Json *config, const char *act) {
    const Json *inner = json_get(config, "text_config"), *value;
    if (json_type(inner) == J_OBJECT) config = inner;
    jw_object(w, "text_config");
    for (const char *k = json_next(config, NULL, &value); k; k = json_next(config, k, &value))
        /* JSON with a key twice is read one way or the other */
        if (!(act && strcmp(k, "dense_act_fn") == 0)) copy_value(w, k, value, NESTED);
    if (act) jw_str(w, "dense_act_fn", act);
    jw_end(w);
}

static void put_config(JsonWriter *w, const HfDims *d, const HfWhole *x, const Json *lm) {
    bool instruct = d->V > 0;
    int64_t image = x->image_token;                          /* a whole folder has named one already */
    json_int(json_get(lm, "image_token_index"), &image);
    jw_object(w, NULL);
    CONFIG_PUT(w, CONFIG_CLASS(instruct ? "InstructBlipForConditionalGeneration" : "Blip2ForConditionalGeneration"),
               CONFIG_TEXT("model_type", instruct ? "instructblip" : "blip-2"), CONFIG_INT("num_query_tokens", d->Q),
               CONFIG_REAL("initializer_range", 0.02),
               CONFIG_BOOL("use_decoder_only_language_model", x->decoder_only), CONFIG_ID("image_token_index", image));
    export_qformer(w, d, instruct ? "instructblip_qformer" : "blip_2_qformer");
    export_vision(w, d, instruct ? "instructblip_vision_model" : "blip_2_vision_model");
    put_text_config(w, lm, x->act);
    jw_end(w);
}

static Status write_config(const char *path, const HfDims *d, const HfWhole *x) {
    Json *lm = NULL;
    JsonFile f;
    Status st = read_config(&lm, x->lm);
    if (st == OK) st = jsonfile_open(&f, 2);
    if (st == OK) {
        put_config(&f.w, d, x, lm);
        st = jsonfile_write(&f, OK, path);
    }
    json_free(lm);
    return st;
}

/* ---- files beside ------------------------------------------------------------------------------------------------ */

static Status copy_beside(const char *from, const char *dir) {
    static const char *const files[] = {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt", "spiece.model", "tokenizer.model", "generation_config.json"};
    Status st = OK;
    for (size_t i = 0; i < sizeof files / sizeof *files && st == OK; i++) {
        char *a = mem_format("%s/%s", from, files[i]), *b = mem_format("%s/%s", dir, files[i]);
        if (!a || !b) st = ERR_MEMORY;
        /* which there are depends on the tokenizer */
        else if (access(a, R_OK) == 0) st = outfile_copy(a, b);
        mem_free(a, b);
    }
    return st;
}

/* ---- together ---------------------------------------------------------------------------------------------------- */

static Status gather(ExportList *l, const HfDims *d, const StTensor *tensors, size_t n, const WeightSource *lm) {
    Status st = add_ours(l, d, tensors, n);
    if (st == OK) st = add_lm(l, lm);
    if (st != OK) return st;
    if (l->n) qsort(l->t, l->n, sizeof *l->t, ws_by_name);
    /* a language model's folder is somebody else's: nothing says that its names are not ours */
    for (size_t i = 1; i < l->n; i++)
        if (ws_by_name(&l->t[i - 1], &l->t[i]) == 0)
            return err_set(ERR_FORMAT, "two tensors would be called %s", l->t[i].name);
    return OK;
}

Status hf_export_whole(const char *dir, const HfDims *d, const HfWhole *x, const StTensor *tensors, size_t n,
                       const HfTower *tower, size_t *count) {
    WeightSource *lm = NULL;
    ExportList l = {0};
    char *weights = mem_format("%s/model.safetensors", dir), *config = mem_format("%s/config.json", dir);
    Status st = weights && config ? outfile_mkdir(dir) : ERR_MEMORY;
    if (st == OK) st = ws_open_raw(&lm, x->lm);
    if (st == OK) st = gather(&l, d, tensors, n, lm);
    if (st == OK) st = export_put(&l, tower, weights);
    if (st == OK) st = write_config(config, d, x);
    if (st == OK) st = copy_beside(x->lm, dir);
    *count = l.n + (tower ? tower->n : 0);
    export_free(&l);
    ws_close(lm);
    mem_free(config, weights);
    return st;
}
