/* lm_config: see lm_config.h. */
#include "checkpoints/lm_config.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/act_names.h"
#include "kernels/base/mem.h"

/* A config being read; the first thing wrong stays. */
typedef struct { const Json *j; const char *path; Status st; } Config;

static void wrong(Config *c, const char *key, const char *wanted) {
    if (c->st == OK) c->st = err_set(ERR_FORMAT, "%s: '%s' must be %s", c->path, key, wanted);
}

/* Absent or null. */
static bool absent(const Config *c, const char *key) {
    enum JsonType t = json_type(json_get(c->j, key));
    return t == J_NONE || t == J_NULL;
}

/* A number of the file within [lo, hi], `otherwise` when it is absent; LONG_MIN: it must be there. */
enum { MUST = INT_MIN };
static int32_t number(Config *c, const char *key, int64_t lo, int64_t hi, int32_t otherwise) {
    char wanted[80];
    int64_t v = 0;
    /* null is absent: transformers writes null where it means its default */
    if (absent(c, key) && otherwise != MUST) return otherwise;
    if (json_int(json_get(c->j, key), &v) && v >= lo && v <= hi) return (int32_t)v;
    snprintf(wanted, sizeof wanted, "an integer from %lld to %lld", (long long)lo, (long long)hi);
    wrong(c, key, wanted);
    return (int32_t)lo;
}

static double real(Config *c, const char *key, double lo, double hi, double otherwise) {
    char wanted[80];
    double v = 0;
    if (absent(c, key)) return otherwise;
    if (json_num(json_get(c->j, key), &v) && v >= lo && v <= hi) return v;
    snprintf(wanted, sizeof wanted, "a number from %g to %g", lo, hi);
    wrong(c, key, wanted);
    return lo;
}

static bool truth(Config *c, const char *key, bool otherwise) {
    bool v = otherwise;
    if (!absent(c, key) && !json_bool(json_get(c->j, key), &v)) wrong(c, key, "true or false");
    return v;
}

static const char *word(Config *c, const char *key, const char *otherwise) {
    if (absent(c, key)) return otherwise;
    const char *s = json_str(json_get(c->j, key), NULL);
    if (!s) wrong(c, key, "a string");
    return s ? s : otherwise;
}

/* Sizes: what no published model exceeds by far, and what keeps every product of two of them within 64 bits. */
enum { MOST_LAYERS = 1024, MOST_WIDTH = 1 << 17, MOST_WORDS = 1 << 22, MOST_POSITIONS = 1 << 24 };

static int32_t width(Config *c, const char *key) { return number(c, key, 1, MOST_WIDTH, MUST); }
static int32_t id(Config *c, const char *key, const LmDims *d) { return number(c, key, -1, d->V - 1, -1); }

static ActKind act(Config *c, const char *key, const char *name) {
    ActKind kind = ACT_GELU;
    if (!act_named(&kind, name)) wrong(c, key, "relu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu or silu");
    return kind;
}

/* ---- end tokens -------------------------------------------------------------------------------------------------- */

static void add_end(Config *c, LmDims *d, const Json *j) {
    int64_t v = 0;
    if (!json_int(j, &v) || v < 0 || v >= d->V) {
        wrong(c, "eos_token_id", "ids of the vocabulary");
        return;
    }
    /* config.json and generation_config.json mostly name the same */
    for (int i = 0; i < d->nends; i++)
        if (d->end[i] == v) return;
    if (d->nends == LM_ENDS) wrong(c, "eos_token_id", "a list of at most 8 ids");
    else d->end[d->nends++] = (int32_t)v;
}

static void read_ends(Config *c, LmDims *d) {
    const Json *j = json_get(c->j, "eos_token_id");
    if (json_type(j) == J_ARRAY)
        for (size_t i = 0; i < json_len(j) && c->st == OK; i++) add_end(c, d, json_at(j, i));
    else if (!absent(c, "eos_token_id")) add_end(c, d, j);
}

/* ---- families ---------------------------------------------------------------------------------------------------- */

static void heads_divide(Config *c, const LmDims *d) {
    if (c->st == OK && d->C % d->H)
        c->st = err_set(ERR_FORMAT, "%s: a width of %d does not divide into %d heads", c->path, d->C, d->H);
}

static void read_opt(Config *c, LmDims *d) {
    d->L = number(c, "num_hidden_layers", 1, MOST_LAYERS, MUST);
    d->C = width(c, "hidden_size");
    d->E = number(c, "word_embed_proj_dim", 1, MOST_WIDTH, d->C);
    d->F = width(c, "ffn_dim");
    d->H = d->K = width(c, "num_attention_heads");
    d->N = number(c, "max_position_embeddings", 1, MOST_POSITIONS, MUST);
    d->eps = 1e-5;
    d->act = act(c, "activation_function", word(c, "activation_function", "relu"));
    /* false in OPT-350m alone */
    d->pre_norm = truth(c, "do_layer_norm_before", true);
    d->last_norm = d->pre_norm && !truth(c, "_remove_final_layer_norm", false);
    d->qkv_bias = d->out_bias = d->ffn_bias = truth(c, "enable_bias", true);
    d->dropout = (float)real(c, "dropout", 0, 0.9, 0.1);
    d->prob_dropout = (float)real(c, "attention_dropout", 0, 0.9, 0);
    d->head = truth(c, "tie_word_embeddings", true) ? LM_HEAD_TIED : LM_HEAD_OWN;
    if (!truth(c, "layer_norm_elementwise_affine", true)) wrong(c, "layer_norm_elementwise_affine", "true");
    heads_divide(c, d);
    d->D = d->C / d->H;
}

/* "gated-gelu" means the tanh form; dense_act_fn, where a file has it,
 * is the last word (BLIP-2 writes the erf form there). */
static void t5_feed_forward(Config *c, LmDims *d) {
    const char *proj = word(c, "feed_forward_proj", "relu"), *name = proj;
    d->gated = strncmp(proj, "gated-", 6) == 0;
    if (d->gated) name = strcmp(proj, "gated-gelu") == 0 ? "gelu_new" : proj + 6;
    d->act = act(c, absent(c, "dense_act_fn") ? "feed_forward_proj" : "dense_act_fn", word(c, "dense_act_fn", name));
}

static void read_t5(Config *c, LmDims *d) {
    d->L = number(c, "num_layers", 1, MOST_LAYERS, MUST);
    d->M = number(c, "num_decoder_layers", 1, MOST_LAYERS, d->L);
    d->C = d->E = width(c, "d_model");
    d->F = width(c, "d_ff");
    d->H = d->K = width(c, "num_heads");
    d->D = width(c, "d_kv");
    d->eps = real(c, "layer_norm_epsilon", 1e-12, 0.1, 1e-6);
    d->pre_norm = d->last_norm = true;
    d->dropout = d->prob_dropout = (float)real(c, "dropout_rate", 0, 0.9, 0.1);
    d->buckets = number(c, "relative_attention_num_buckets", 4, 4096, 32);
    d->distance = number(c, "relative_attention_max_distance", 2, MOST_POSITIONS, 128);
    d->start = number(c, "decoder_start_token_id", 0, d->V - 1, 0);
    t5_feed_forward(c, d);
    /* T5 divides by sqrt(C) in front of a tied head */
    bool tied = truth(c, "tie_word_embeddings", true);
    d->head = tied ? LM_HEAD_TIED : LM_HEAD_OWN;
    d->scale_head = tied;
    /* transformers 5 says "tied" of every T5 and keeps the old flag here */
    if (!absent(c, "scale_decoder_outputs")) {
        d->scale_head = truth(c, "scale_decoder_outputs", tied);
        d->head = LM_HEAD_ASK;
    }
    if (d->buckets % 4) wrong(c, "relative_attention_num_buckets", "a multiple of 4");
    if (d->distance <= d->buckets / 2) wrong(c, "relative_attention_max_distance", "more than half the buckets");
}

/* The settings of the rotation: rope_parameters (transformers 5), else rope_theta beside rope_scaling. */
static void read_rope(Config *c, LmDims *d) {
    bool newer = !absent(c, "rope_parameters");
    Config r = {json_get(c->j, newer ? "rope_parameters" : "rope_scaling"), c->path, c->st};
    Config *from = newer ? &r : c;
    d->rope.theta = real(from, "rope_theta", 1.0, 1e12, 10000.0);
    const char *kind = word(&r, "rope_type", word(&r, "type", "default"));
    if (real(c, "partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0) wrong(c, "partial_rotary_factor", "1");
    if (strcmp(kind, "default") != 0) {
        /* 0: absent, which is an error of every kind but the default */
        d->rope.factor = real(&r, "factor", 1.0, 1e6, 0.0);
        if (d->rope.factor < 1.0) wrong(&r, "factor", "there for this rope_type");
    }
    if (strcmp(kind, "linear") == 0) {
        d->rope.kind = LM_ROPE_LINEAR;
    } else if (strcmp(kind, "llama3") == 0) {
        d->rope.kind = LM_ROPE_LLAMA3;
        d->rope.low = real(&r, "low_freq_factor", 1e-3, 1e6, 1.0);
        d->rope.high = real(&r, "high_freq_factor", 1e-3, 1e6, 4.0);
        d->rope.original = number(&r, "original_max_position_embeddings", 1, MOST_POSITIONS, MUST);
        if (d->rope.high <= d->rope.low) wrong(&r, "high_freq_factor", "more than low_freq_factor");
    } else if (strcmp(kind, "default") != 0) {
        wrong(&r, "rope_type", "default, linear or llama3");
    }
    if (c->st == OK) c->st = r.st;
}

/* Layers of full attention, or of attention in a window that the rows of a text do not leave. */
static void read_window(Config *c, LmDims *d, bool qwen) {
    const Json *types = json_get(c->j, "layer_types");
    for (size_t i = 0; i < json_len(types); i++) {
        const char *s = json_str(json_at(types, i), NULL);
        if (!s || (strcmp(s, "full_attention") != 0 && strcmp(s, "sliding_attention") != 0))
            wrong(c, "layer_types", "full_attention or sliding_attention");
    }
    if (absent(c, "sliding_window") || (qwen && !truth(c, "use_sliding_window", false))) return;
    int32_t w = number(c, "sliding_window", 1, INT_MAX, MUST);
    /* inside the window it is full attention, and that is all that is computed here */
    if (w < d->N) d->N = w;
}

static void read_llama(Config *c, LmDims *d, bool qwen, bool mistral) {
    d->L = number(c, "num_hidden_layers", 1, MOST_LAYERS, MUST);
    d->C = d->E = width(c, "hidden_size");
    d->F = width(c, "intermediate_size");
    d->H = width(c, "num_attention_heads");
    d->K = number(c, "num_key_value_heads", 1, MOST_WIDTH, mistral && d->H % 8 == 0 ? 8 : d->H);
    /* transformers' default */
    d->N = number(c, "max_position_embeddings", 1, MOST_POSITIONS, 2048);
    d->eps = real(c, "rms_norm_eps", 1e-12, 0.1, 1e-6);
    d->act = act(c, "hidden_act", word(c, "hidden_act", "silu"));
    d->gated = d->pre_norm = d->last_norm = true;
    d->prob_dropout = (float)real(c, "attention_dropout", 0, 0.9, 0);
    d->qkv_bias = qwen || truth(c, "attention_bias", false);
    d->out_bias = !qwen && truth(c, "attention_bias", false);
    d->ffn_bias = truth(c, "mlp_bias", false);
    d->head = truth(c, "tie_word_embeddings", false) ? LM_HEAD_TIED : LM_HEAD_OWN;
    if (absent(c, "head_dim")) heads_divide(c, d);
    d->D = number(c, "head_dim", 2, MOST_WIDTH, d->C / d->H);
    read_rope(c, d);
    read_window(c, d, qwen);
    if (d->D % 2) wrong(c, "head_dim", "even: the rotation turns pairs");
    if (d->H % d->K) wrong(c, "num_key_value_heads", "a divisor of num_attention_heads");
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

static void read_family(Config *c, LmDims *d, const char *type) {
    bool mistral = strcmp(type, "mistral") == 0, qwen = strcmp(type, "qwen2") == 0;
    d->V = number(c, "vocab_size", 2, MOST_WORDS, MUST);
    d->start = -1;
    if (c->st != OK) return;
    if (strcmp(type, "opt") == 0) d->family = LM_OPT, read_opt(c, d);
    else if (strcmp(type, "t5") == 0) d->family = LM_T5, read_t5(c, d);
    else if (strcmp(type, "llama") == 0 || mistral || qwen) d->family = LM_LLAMA, read_llama(c, d, qwen, mistral);
    else c->st = err_set(ERR_FORMAT,
                         "%s: a language model of type '%.40s' is not known here: opt, t5, llama, mistral and "
                         "qwen2 are", c->path, type);
    if (c->st == OK && (int64_t)d->H * d->D > MOST_WIDTH)
        c->st = err_set(ERR_FORMAT, "%s: %d heads of %d numbers are more than %d", c->path, d->H, d->D, MOST_WIDTH);
}

/* What the maker says its numbers are; transformers 5 writes the shorter key. The weights have the last word. */
static DType said_type(Config *c) {
    const char *s = word(c, "dtype", word(c, "torch_dtype", ""));
    return strcmp(s, "float16") == 0 ? DT_F16 : strcmp(s, "bfloat16") == 0 ? DT_BF16 : DT_F32;
}

Status lm_config_parse(LmDims *d, const Json *config, const Json *generation, const char *path) {
    const Json *text = json_get(config, "text_config");
    Config c = {json_type(text) == J_OBJECT ? text : config, path, OK}, g = {generation, path, OK};
    *d = (LmDims){.bos = -1, .pad = -1};
    if (json_type(config) != J_OBJECT) return err_set(ERR_FORMAT, "%s: a configuration is a JSON object", path);
    const char *type = word(&c, "model_type", "");
    /* nothing else tells one family from another */
    if (!*type) wrong(&c, "model_type", "there");
    if (c.st == OK) read_family(&c, d, type);
    if (c.st != OK) return c.st;
    d->held = said_type(&c);
    d->bos = id(&c, "bos_token_id", d);
    d->pad = id(&c, "pad_token_id", d);
    read_ends(&c, d);
    /* chat models end at an id that config.json does not name */
    if (c.st == OK && generation) read_ends(&g, d);
    return c.st != OK ? c.st : g.st;
}

/* What shapes do not tell: how norms and feed-forward nets of the Q-Former compute. transformers' one vision eps is
 * also that of post_layernorm, which is LAVIS's ln_vision. */
static void read_habits(Config *c, const Json *config, Dims *d) {
    Config vision = {json_get(config, "vision_config"), c->path, OK};
    d->eps = (float)real(c, "layer_norm_eps", 1e-30, 0.1, 1e-12);
    d->act = (int32_t)act(c, "hidden_act", word(c, "hidden_act", "gelu"));
    /* BERT's relative ones are other weights and another score */
    if (strcmp(word(c, "position_embedding_type", "absolute"), "absolute") != 0)
        wrong(c, "position_embedding_type", "absolute");
    if (json_type(vision.j) == J_OBJECT) d->eps_vision = (float)real(&vision, "layer_norm_eps", 1e-12, 0.1, 1e-6);
    if (c->st == OK) c->st = vision.st;
}

Status lm_config_habits(Dims *d, const Json *config, const char *path) {
    Config c = {json_get(config, "qformer_config"), path, OK};
    read_habits(&c, config, d);
    return c.st;
}

Status lm_config_read(LmDims *d, const char *path) {
    struct stat info;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    char *config = mem_format("%s%s", path, folder ? "/config.json" : "");
    char *more = mem_format("%s/generation_config.json", path);
    Json *doc = NULL, *generation = NULL;
    Status st = config && more ? json_parse_file(&doc, config) : ERR_MEMORY;
    if (st == OK && folder && access(more, F_OK) == 0) st = json_parse_file(&generation, more);
    if (st == OK) st = lm_config_parse(d, doc, generation, config);
    json_free(generation);
    json_free(doc);
    mem_free(more, config);
    return st;
}
