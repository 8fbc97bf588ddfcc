/* lm_known: sizes of published language models (lm_config.h), as their makers' config.json have them. */
#include <string.h>

#include "checkpoints/lm_config.h"

#define OPT(width, layers, heads, ffn, words, before) \
    "{\"model_type\": \"opt\", \"hidden_size\": " #width ", \"num_hidden_layers\": " #layers \
    ", \"num_attention_heads\": " #heads ", \"ffn_dim\": " #ffn ", \"word_embed_proj_dim\": " #words \
    ", \"do_layer_norm_before\": " #before \
    ", \"vocab_size\": 50272, \"max_position_embeddings\": 2048, \"eos_token_id\": 2, \"torch_dtype\": \"float16\"}"
#define FLAN(width, head, heads, ffn, layers) \
    "{\"model_type\": \"t5\", \"d_model\": " #width ", \"d_kv\": " #head ", \"num_heads\": " #heads \
    ", \"d_ff\": " #ffn ", \"num_layers\": " #layers ", \"feed_forward_proj\": \"gated-gelu\"" \
    ", \"tie_word_embeddings\": false, \"vocab_size\": 32128, \"eos_token_id\": 1}"
#define LLAMA(width, layers, heads, keys, ffn, tied, words, positions, type) \
    "{\"model_type\": \"llama\", \"hidden_size\": " #width ", \"num_hidden_layers\": " #layers \
    ", \"num_attention_heads\": " #heads ", \"num_key_value_heads\": " #keys ", \"intermediate_size\": " #ffn \
    ", \"tie_word_embeddings\": " #tied ", \"vocab_size\": " #words ", \"max_position_embeddings\": " #positions \
    ", \"eos_token_id\": 2, \"torch_dtype\": \"" #type "\"}"

static const struct { const char *name, *config; } known[] = {
    {"opt-125m", OPT(768, 12, 12, 3072, 768, true)},
    {"opt-350m", OPT(1024, 24, 16, 4096, 512, false)},
    {"opt-1.3b", OPT(2048, 24, 32, 8192, 2048, true)},
    {"opt-2.7b", OPT(2560, 32, 32, 10240, 2560, true)},
    {"opt-6.7b", OPT(4096, 32, 32, 16384, 4096, true)},
    {"flan-t5-small", FLAN(512, 64, 6, 1024, 8)},
    {"flan-t5-base", FLAN(768, 64, 12, 2048, 12)},
    {"flan-t5-large", FLAN(1024, 64, 16, 2816, 24)},
    {"flan-t5-xl", FLAN(2048, 64, 32, 5120, 24)},
    {"flan-t5-xxl", FLAN(4096, 64, 64, 10240, 24)},
    {"vicuna-7b", LLAMA(4096, 32, 32, 32, 11008, false, 32000, 2048, float16)},
    {"vicuna-13b", LLAMA(5120, 40, 40, 40, 13824, false, 32000, 2048, float16)},
    {"tinyllama-1.1b", LLAMA(2048, 22, 32, 4, 5632, false, 32000, 2048, bfloat16)},
    {"smollm2-135m", LLAMA(576, 30, 9, 3, 1536, true, 49152, 8192, bfloat16)},
    {"smollm2-360m", LLAMA(960, 32, 15, 5, 2560, true, 49152, 8192, bfloat16)},
    {"smollm2-1.7b", LLAMA(2048, 24, 32, 32, 8192, true, 49152, 8192, bfloat16)},
    {"llama-3.2-1b", LLAMA(2048, 16, 32, 8, 8192, true, 128256, 131072, bfloat16)},
};
enum { KNOWN = sizeof known / sizeof *known };

const char *lm_config_names(void) {
    static char names[512];
    for (size_t i = 0; i < KNOWN && !names[sizeof names - 64]; i++) {
        if (strstr(names, known[i].name)) continue;
        if (*names) strcat(names, ", ");
        strcat(names, known[i].name);
    }
    return names;
}

bool lm_config_known(LmDims *d, const char *name) {
    for (size_t i = 0; i < KNOWN; i++) {
        Json *doc = NULL;
        if (strcmp(known[i].name, name) != 0) continue;
        Status st = json_parse(&doc, known[i].config, strlen(known[i].config), name);
        if (st == OK) st = lm_config_parse(d, doc, NULL, name);
        json_free(doc);
        return st == OK;
    }
    return false;
}
