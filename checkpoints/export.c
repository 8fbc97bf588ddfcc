/* export: see export.h. */
#include "checkpoints/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/config_write.h"
#include "checkpoints/names.h"
#include "data/format/jsonfile.h"
#include "data/format/outfile.h"
#include "kernels/base/mem.h"

void hf_vision_defaults(HfDims *d) {
    static const struct { int64_t E, layers, heads, mlp; const char *act; double eps; } towers[] = {
        {1408, 39, 16, 6144, "gelu",       1e-6},
        {1024, 23, 16, 4096, "quick_gelu", 1e-5},
    };
    d->image_size = 224;
    d->patch_size = 14;
    d->vision_layers = d->vision_heads = 1;                  /* of another width: something that opens */
    d->vision_mlp = 4 * d->E;
    d->vision_act = "gelu";
    d->vision_eps = 1e-5;
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++) {
        /* the width is all that features tell of their encoder */
        if (towers[i].E != d->E) continue;
        d->vision_layers = towers[i].layers;
        d->vision_heads = towers[i].heads;
        d->vision_mlp = towers[i].mlp;
        d->vision_act = towers[i].act;
        d->vision_eps = towers[i].eps;
    }
}

/* ---- config.json ------------------------------------------------------------------------------------------------- */

void export_qformer(JsonWriter *w, const HfDims *d, const char *type) {
    CONFIG_PUT(w, CONFIG_OBJECT("qformer_config"), CONFIG_TEXT("model_type", type), CONFIG_INT("hidden_size", d->C),
               CONFIG_INT("num_attention_heads", d->H), CONFIG_INT("intermediate_size", d->F),
               CONFIG_INT("num_hidden_layers", d->L), CONFIG_INT("cross_attention_frequency", d->X),
               CONFIG_INT("encoder_hidden_size", d->E),
               /* a Q-Former that reads no text has neither */
               CONFIG_ID("vocab_size", d->V ? d->V : -1), CONFIG_ID("max_position_embeddings", d->N ? d->N : -1),
               CONFIG_INT("pad_token_id", 0), CONFIG_BOOL("use_qformer_text_input", d->V > 0),
               CONFIG_TEXT("hidden_act", d->act), CONFIG_REAL("layer_norm_eps", d->eps),
               CONFIG_REAL("hidden_dropout_prob", d->dropout), CONFIG_REAL("attention_probs_dropout_prob", d->dropout),
               CONFIG_REAL("initializer_range", 0.02), CONFIG_CLOSE);
}

void export_vision(JsonWriter *w, const HfDims *d, const char *type) {
    CONFIG_PUT(w, CONFIG_OBJECT("vision_config"), CONFIG_TEXT("model_type", type), CONFIG_INT("hidden_size", d->E),
               CONFIG_INT("num_attention_heads", d->vision_heads), CONFIG_INT("intermediate_size", d->vision_mlp),
               CONFIG_INT("num_hidden_layers", d->vision_layers), CONFIG_INT("image_size", d->image_size),
               CONFIG_INT("patch_size", d->patch_size), CONFIG_TEXT("hidden_act", d->vision_act),
               CONFIG_REAL("layer_norm_eps", d->vision_eps), CONFIG_REAL("attention_dropout", 0),
               CONFIG_BOOL("qkv_bias", true), CONFIG_CLOSE);
}

static const char *torch_dtype(DType t) {
    return t == DT_F64 ? "float64" : t == DT_F16 ? "float16" : t == DT_BF16 ? "bfloat16" : "float32";
}

static Status write_config(const char *path, const HfDims *d, DType dtype) {
    JsonFile f;
    Status st = jsonfile_open(&f, 2);
    if (st != OK) return st;
    jw_object(&f.w, NULL);
    CONFIG_PUT(&f.w, CONFIG_CLASS("Blip2ForImageTextRetrieval"), CONFIG_TEXT("model_type", "blip-2"),
               CONFIG_TEXT("torch_dtype", torch_dtype(dtype)), CONFIG_INT("num_query_tokens", d->Q),
               CONFIG_INT("image_text_hidden_size", d->Z), CONFIG_REAL("initializer_range", 0.02),
               CONFIG_BOOL("use_decoder_only_language_model", true));
    export_qformer(&f.w, d, "blip_2_qformer");
    export_vision(&f.w, d, "blip_2_vision_model");
    jw_end(&f.w);
    return jsonfile_write(&f, OK, path);
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

Status export_add(ExportList *l, const StTensor *t, const char *front, const char *name) {
    if (mem_room(&l->t, l->n, 1, sizeof *l->t) != OK) return ERR_MEMORY;
    l->t[l->n] = *t;
    if (!(l->t[l->n].name = mem_format("%s%s", front, name))) return ERR_MEMORY;
    l->n++;
    return OK;
}

void export_free(ExportList *l) {
    for (size_t i = 0; i < l->n; i++) free((char *)(uintptr_t)l->t[i].name);
    free(l->t);
}

/* One at a time: a tower in f32 is gigabytes, and is made of another type. */
static Status put_tower(StWriter *w, const HfTower *t) {
    Status st = OK;
    for (size_t i = 0; st == OK && i < t->n; i++) {
        size_t n = (size_t)st_elements(&t->tensors[i]);
        float *x = mem_new(n, sizeof *x);
        st = x ? t->make(t->ctx, i, x) : ERR_MEMORY;
        if (st == OK) st = st_put(w, x, n * sizeof *x);
        free(x);
    }
    return st;
}

Status export_put(ExportList *l, const HfTower *tower, const char *path) {
    static const StMeta meta[] = {{"format", "pt"}};                 /* transformers refuses a file without it */
    StWriter *w = NULL;
    size_t more = tower ? tower->n : 0;
    /* named together: the header stands before all numbers */
    Status st = mem_room(&l->t, l->n, more, sizeof *l->t);
    for (size_t i = 0; st == OK && i < more; i++) l->t[l->n + i] = tower->tensors[i];
    if (st == OK) st = st_create(&w, path, l->t, l->n + more, meta, 1);
    for (size_t i = 0; st == OK && i < l->n; i++)
        st = st_put(w, l->t[i].data, (size_t)st_elements(&l->t[i]) * (size_t)dtype_size(l->t[i].dtype));
    if (st == OK && tower) st = put_tower(w, tower);
    if (st == OK) return st_commit(w);
    st_abandon(w);
    return st;
}

Status hf_export(const char *dir, const HfDims *d, const StTensor *tensors, size_t n, const HfTower *tower,
                 size_t *left_out) {
    char name[NAME_ROOM];
    ExportList l = {0};
    char *weights = mem_format("%s/model.safetensors", dir), *config = mem_format("%s/config.json", dir);
    Status st = weights && config ? outfile_mkdir(dir) : ERR_MEMORY;
    for (size_t i = 0; st == OK && i < n; i++)
        if (name_from_lavis(NAMES_HF, tensors[i].name, name)) st = export_add(&l, &tensors[i], "", name);
    if (left_out) *left_out = n - l.n;
    if (st == OK && !l.n)
        st = err_set(ERR_FORMAT, "%s: none of the %zu tensors has a Hugging Face name", dir, n);
    if (st == OK) st = export_put(&l, tower, weights);
    /* last: with it the folder counts as a model */
    if (st == OK) st = write_config(config, d, l.t[0].dtype);
    export_free(&l);
    mem_free(config, weights);
    return st;
}

/* The projection's name there says which language model it speaks to. */
static Status add_lavis(ExportList *l, const StTensor *t, const char *speak) {
    static const char ours[] = "language_projection.";
    bool speaks = speak && strncmp(t->name, ours, strlen(ours)) == 0;
    return speaks ? export_add(l, t, speak, t->name + strlen(ours) - 1) : export_add(l, t, "", t->name);
}

Status lavis_export(const char *path, const StTensor *tensors, size_t n, const HfTower *tower, const char *speak,
                    size_t *count) {
    char known[NAME_ROOM];
    ExportList l = {0};
    Status st = OK;
    /* an alias is the same memory under a second name: LAVIS ties it again by itself */
    for (size_t i = 0; i < n && st == OK; i++)
        if (!name_alias(tensors[i].name) && name_to_lavis(NAMES_LAVIS, tensors[i].name, known))
            st = add_lavis(&l, &tensors[i], speak);
    *count = l.n + (tower ? tower->n : 0);
    if (st == OK) st = export_put(&l, tower, path);
    export_free(&l);
    return st;
}
