/* lm_write: see lm_write.h. */
#include "checkpoints/lm_write.h"

#include <stdio.h>
#include <stdlib.h>

#include "checkpoints/origin.h"
#include "data/format/json.h"
#include "data/format/outfile.h"
#include "kernels/base/mem.h"

typedef void PutFn(JsonWriter *w, const LmDims *d);

static void put_id(JsonWriter *w, const char *key, int32_t id) {
    if (id >= 0) jw_int(w, key, id);
}

static void put_config(JsonWriter *w, const LmDims *d) {
    jw_array(w, "architectures");
    jw_str(w, NULL, "LlamaForCausalLM");
    jw_end(w);
    jw_str(w, "model_type", "llama");
    jw_str(w, "torch_dtype", "float32");
    jw_int(w, "vocab_size", d->V);
    jw_int(w, "hidden_size", d->C);
    jw_int(w, "num_hidden_layers", d->L);
    jw_int(w, "num_attention_heads", d->H);
    jw_int(w, "num_key_value_heads", d->K);
    jw_int(w, "intermediate_size", d->F);
    jw_int(w, "max_position_embeddings", d->N);
    jw_str(w, "hidden_act", "silu");
    jw_num(w, "rms_norm_eps", d->eps);
    jw_num(w, "rope_theta", d->rope.theta);
    jw_bool(w, "attention_bias", d->qkv_bias);
    jw_bool(w, "mlp_bias", d->ffn_bias);
    jw_bool(w, "tie_word_embeddings", d->head == LM_HEAD_TIED);
    put_id(w, "bos_token_id", d->bos);
    put_id(w, "eos_token_id", d->end[0]);
    put_id(w, "pad_token_id", d->pad);
}

static void put_tokenizer(JsonWriter *w, const LmDims *d) {
    static const char *const tokens[][2] = {{"bos_token", "[CLS]"}, {"eos_token", "[SEP]"}, {"cls_token", "[CLS]"},
                                            {"sep_token", "[SEP]"}, {"pad_token", "[PAD]"}, {"unk_token", "[UNK]"}};
    jw_str(w, "tokenizer_class", "BertTokenizer");
    jw_bool(w, "do_lower_case", true);
    jw_int(w, "model_max_length", d->N);
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) jw_str(w, tokens[i][0], tokens[i][1]);
}

static Status write_json(const char *dir, const char *name, const LmDims *d, PutFn *put) {
    char *text = NULL, *path = mem_format("%s/%s", dir, name);
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    Status st = path && f ? OK : err_set(ERR_MEMORY, "out of memory");
    if (f) {
        JsonWriter w;
        jw_begin(&w, f, 2);
        jw_object(&w, NULL);
        put(&w, d);
        jw_end(&w);
        if (st == OK) st = jw_done(&w);
        fclose(f);
    }
    if (st == OK) st = outfile_put(path, text, n);
    free(text);
    free(path);
    return st;
}

Status lm_write(const char *dir, const LmDims *d, const StTensor *tensors, size_t n, const Tokenizer *tok,
                const char *vocab, bool overwrite) {
    char *weights = mem_format("%s/model.safetensors", dir);
    bool words = tokenizer_kind(tok)[0] == 'W';
    Status st = weights ? outfile_parents(weights) : ERR_MEMORY;
    if (st == OK) st = origin_keep_vocab(dir, vocab, tok, overwrite);
    if (st == OK && words) st = write_json(dir, "tokenizer_config.json", d, put_tokenizer);
    if (st == OK) st = write_json(dir, "config.json", d, put_config);
    if (st == OK) st = st_write(weights, tensors, n, NULL, 0);
    free(weights);
    return st;
}
