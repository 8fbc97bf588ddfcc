/* lm_write: see lm_write.h. */
#include "checkpoints/lm_write.h"

#include <stdlib.h>

#include "checkpoints/config_write.h"
#include "checkpoints/origin.h"
#include "data/format/outfile.h"
#include "kernels/base/mem.h"

static Status write_config(const char *dir, const LmDims *d) {
    return CONFIG_FILE(dir, "config.json", CONFIG_CLASS("LlamaForCausalLM"), CONFIG_TEXT("model_type", "llama"),
                       CONFIG_TEXT("torch_dtype", "float32"), CONFIG_INT("vocab_size", d->V),
                       CONFIG_INT("hidden_size", d->C), CONFIG_INT("num_hidden_layers", d->L),
                       CONFIG_INT("num_attention_heads", d->H), CONFIG_INT("num_key_value_heads", d->K),
                       CONFIG_INT("intermediate_size", d->F), CONFIG_INT("max_position_embeddings", d->N),
                       CONFIG_TEXT("hidden_act", "silu"), CONFIG_NUM("rms_norm_eps", d->eps),
                       CONFIG_NUM("rope_theta", d->rope.theta), CONFIG_BOOL("attention_bias", d->qkv_bias),
                       CONFIG_BOOL("mlp_bias", d->ffn_bias),
                       CONFIG_BOOL("tie_word_embeddings", d->head == LM_HEAD_TIED), CONFIG_ID("bos_token_id", d->bos),
                       CONFIG_ID("eos_token_id", d->end[0]), CONFIG_ID("pad_token_id", d->pad));
}

static Status write_tokenizer(const char *dir, const LmDims *d) {
    return CONFIG_FILE(dir, "tokenizer_config.json", CONFIG_TEXT("tokenizer_class", "BertTokenizer"),
                       CONFIG_BOOL("do_lower_case", true), CONFIG_INT("model_max_length", d->N),
                       CONFIG_TEXT("bos_token", "[CLS]"), CONFIG_TEXT("eos_token", "[SEP]"),
                       CONFIG_TEXT("cls_token", "[CLS]"), CONFIG_TEXT("sep_token", "[SEP]"),
                       CONFIG_TEXT("pad_token", "[PAD]"), CONFIG_TEXT("unk_token", "[UNK]"));
}

Status lm_write(const char *dir, const LmDims *d, const StTensor *tensors, size_t n, const Tokenizer *tok,
                const char *vocab, bool overwrite) {
    char *weights = mem_format("%s/model.safetensors", dir);
    /* WordPiece; other kinds are one file that says of itself what it is */
    bool words = tokenizer_kind(tok)[0] == 'W';
    Status st = weights ? outfile_parents(weights) : ERR_MEMORY;
    if (st == OK) st = origin_keep_vocab(dir, vocab, tok, overwrite);
    if (st == OK && words) st = write_tokenizer(dir, d);
    if (st == OK) st = write_config(dir, d);
    if (st == OK) st = st_write(weights, tensors, n, NULL, 0);
    free(weights);
    return st;
}
