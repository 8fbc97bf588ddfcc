/* export: see export.h. */
#include "checkpoints/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    d->vision_layers = d->vision_heads = 1;
    d->vision_mlp = 4 * d->E;
    d->vision_act = "gelu";
    d->vision_eps = 1e-5;
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++) {
        if (towers[i].E != d->E) continue;
        d->vision_layers = towers[i].layers;
        d->vision_heads = towers[i].heads;
        d->vision_mlp = towers[i].mlp;
        d->vision_act = towers[i].act;
        d->vision_eps = towers[i].eps;
    }
}

void hf_put_real(JsonWriter *w, const char *key, double v) {
    char text[40];
    int digits = 1;
    do snprintf(text, sizeof text, "%.*g", digits, v);
    while (strtod(text, NULL) != v && digits++ < 17);
    if (!strpbrk(text, ".en")) strcat(text, ".0");
    jw_raw(w, key, text);
}

void hf_put_qformer(JsonWriter *w, const HfDims *d, const char *type) {
    jw_object(w, "qformer_config");
    jw_str(w, "model_type", type);
    jw_int(w, "hidden_size", d->C);
    jw_int(w, "num_attention_heads", d->H);
    jw_int(w, "intermediate_size", d->F);
    jw_int(w, "num_hidden_layers", d->L);
    jw_int(w, "cross_attention_frequency", d->X);
    jw_int(w, "encoder_hidden_size", d->E);
    if (d->V) jw_int(w, "vocab_size", d->V);
    if (d->N) jw_int(w, "max_position_embeddings", d->N);
    jw_int(w, "pad_token_id", 0);
    jw_bool(w, "use_qformer_text_input", d->V > 0);
    jw_str(w, "hidden_act", d->act);
    hf_put_real(w, "layer_norm_eps", d->eps);
    hf_put_real(w, "hidden_dropout_prob", d->dropout);
    hf_put_real(w, "attention_probs_dropout_prob", d->dropout);
    hf_put_real(w, "initializer_range", 0.02);
    jw_end(w);
}

void hf_put_vision(JsonWriter *w, const HfDims *d, const char *type) {
    jw_object(w, "vision_config");
    jw_str(w, "model_type", type);
    jw_int(w, "hidden_size", d->E);
    jw_int(w, "num_attention_heads", d->vision_heads);
    jw_int(w, "intermediate_size", d->vision_mlp);
    jw_int(w, "num_hidden_layers", d->vision_layers);
    jw_int(w, "image_size", d->image_size);
    jw_int(w, "patch_size", d->patch_size);
    jw_str(w, "hidden_act", d->vision_act);
    hf_put_real(w, "layer_norm_eps", d->vision_eps);
    hf_put_real(w, "attention_dropout", 0);
    jw_bool(w, "qkv_bias", true);
    jw_end(w);
}

static const char *torch_dtype(DType t) {
    return t == DT_F64 ? "float64" : t == DT_F16 ? "float16" : t == DT_BF16 ? "bfloat16" : "float32";
}

static Status write_config(const char *path, const HfDims *d, DType dtype) {
    JsonFile f;
    Status st = jsonfile_open(&f, 2);
    if (st != OK) return st;
    JsonWriter *w = &f.w;
    jw_object(w, NULL);
    jw_array(w, "architectures");
    jw_str(w, NULL, "Blip2ForImageTextRetrieval");
    jw_end(w);
    jw_str(w, "model_type", "blip-2");
    jw_str(w, "torch_dtype", torch_dtype(dtype));
    jw_int(w, "num_query_tokens", d->Q);
    jw_int(w, "image_text_hidden_size", d->Z);
    hf_put_real(w, "initializer_range", 0.02);
    jw_bool(w, "use_decoder_only_language_model", true);
    hf_put_qformer(w, d, "blip_2_qformer");
    hf_put_vision(w, d, "blip_2_vision_model");
    jw_end(w);
    return jsonfile_write(&f, OK, path);
}

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

Status hf_write_weights(const char *path, StTensor *out, size_t kept, const HfTower *tower) {
    static const StMeta meta[] = {{"format", "pt"}};                 /* transformers refuses a file without it */
    StWriter *w = NULL;
    size_t more = tower ? tower->n : 0;
    for (size_t i = 0; i < more; i++) out[kept + i] = tower->tensors[i];
    Status st = st_create(&w, path, out, kept + more, meta, 1);
    for (size_t i = 0; st == OK && i < kept; i++)
        st = st_put(w, out[i].data, (size_t)st_elements(&out[i]) * (size_t)dtype_size(out[i].dtype));
    if (st == OK && tower) st = put_tower(w, tower);
    if (st == OK) return st_commit(w);
    st_abandon(w);
    return st;
}

Status hf_export(const char *dir, const HfDims *d, const StTensor *tensors, size_t n, const HfTower *tower,
                 size_t *left_out) {
    StTensor *out = mem_new(n + (tower ? tower->n : 0), sizeof *out);
    char (*names)[NAME_ROOM] = mem_new(n, sizeof *names);
    char *weights = mem_format("%s/model.safetensors", dir), *config = mem_format("%s/config.json", dir);
    size_t kept = 0;
    Status st = out && names && weights && config ? outfile_mkdir(dir) : ERR_MEMORY;
    if (st != OK) goto done;
    for (size_t i = 0; i < n; i++) {
        if (!name_from_lavis(NAMES_HF, tensors[i].name, names[kept])) continue;
        out[kept] = tensors[i];
        out[kept].name = names[kept];
        kept++;
    }
    if (left_out) *left_out = n - kept;
    if (kept == 0) {
        st = err_set(ERR_FORMAT, "%s: none of the %zu tensors has a Hugging Face name", dir, n);
        goto done;
    }
    if ((st = hf_write_weights(weights, out, kept, tower)) != OK) goto done;
    st = write_config(config, d, out[0].dtype);
done:
    free(config);
    free(weights);
    free(names);
    free(out);
    return st;
}

/* The projection's name there says which language model it speaks to. */
static const char *lavis_name(const char *name, const char *speak, char *room) {
    static const char ours[] = "language_projection.";
    if (!speak || strncmp(name, ours, strlen(ours))) return name;
    snprintf(room, NAME_ROOM, "%s.%s", speak, name + strlen(ours));
    return room;
}

Status lavis_export(const char *path, const StTensor *tensors, size_t n, const HfTower *tower, const char *speak,
                    size_t *count) {
    StTensor *out = mem_new(n + (tower ? tower->n : 0), sizeof *out);
    char (*names)[NAME_ROOM] = mem_new(n, sizeof *names), known[NAME_ROOM];
    size_t kept = 0;
    Status st = out && names ? OK : ERR_MEMORY;
    for (size_t i = 0; i < n && st == OK; i++) {
        if (name_alias(tensors[i].name) || !name_to_lavis(NAMES_LAVIS, tensors[i].name, known)) continue;
        out[kept] = tensors[i];
        out[kept].name = lavis_name(tensors[i].name, speak, names[kept]);
        kept++;
    }
    *count = kept + (tower ? tower->n : 0);
    if (st == OK) st = hf_write_weights(path, out, kept, tower);
    free(names);
    free(out);
    return st;
}
