/* lm_config, shards: what config.json of the hub's language models says, in both forms; what must be refused, with a
 * sentence; weights in several files are those of one.
 * The numbers of the models are those that their makers published. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/lm_config.h"
#include "checkpoints/shards.h"
#include "checkpoints/weights.h"
#include "kernels/model/lm_model.h"
#include "kernels/model/qformer.h"
#include "tests/kit/scratch.h"

static Status parse(LmDims *d, const char *text, const char *more) {
    Json *doc = NULL, *generation = NULL;
    assert_int_equal(json_parse(&doc, text, strlen(text), "text"), OK);
    if (more) assert_int_equal(json_parse(&generation, more, strlen(more), "more"), OK);
    Status st = lm_config_parse(d, doc, generation, "config.json");
    json_free(generation);
    json_free(doc);
    return st;
}

#define OPT_350M "{\"model_type\": \"opt\", \"num_hidden_layers\": 24, \"hidden_size\": 1024, " \
    "\"word_embed_proj_dim\": 512, " \
    "\"ffn_dim\": 4096, \"num_attention_heads\": 16, \"max_position_embeddings\": 2048, \"vocab_size\": 50272, " \
    "\"do_layer_norm_before\": false, \"bos_token_id\": 2, \"eos_token_id\": 2, \"pad_token_id\": 1}"

static void opt(void **state) {
    (void)state;
    LmDims d;
    assert_int_equal(parse(&d, OPT_350M, NULL), OK);
    assert_true(d.family == LM_OPT && d.L == 24 && d.C == 1024 && d.E == 512 && d.F == 4096 && d.H == 16 && d.D == 64);
    assert_true(!d.pre_norm && !d.last_norm && d.qkv_bias && d.ffn_bias && d.head == LM_HEAD_TIED && d.act == ACT_RELU);
    assert_true(d.N == 2048 && lm_positions(&d) == 2050 && d.pad == 1 && d.nends == 1 && d.end[0] == 2);
    assert_int_equal(parse(&d, "{\"model_type\": \"blip-2\", \"vocab_size\": -1, \"text_config\": "
        "" OPT_350M "}", NULL), OK);
    assert_int_equal(d.E, 512);
}

#define T5(more) "{\"model_type\": \"t5\", \"num_layers\": 24, \"d_model\": 2048, \"d_kv\": 64, \"d_ff\": 5120, " \
    "\"num_heads\": 32, \"vocab_size\": 32128, \"eos_token_id\": 1, \"pad_token_id\": 0, \"feed_forward_proj\": " \
        "\"gated-gelu\"" \
    more "}"

static void t5(void **state) {
    (void)state;
    LmDims d;
    assert_int_equal(parse(&d, T5(", \"tie_word_embeddings\": false"), NULL), OK);
    assert_true(d.family == LM_T5 && d.L == 24 && d.M == 24 && d.D == 64 && d.gated && d.act == ACT_GELU_TANH);
    assert_true(d.head == LM_HEAD_OWN && !d.scale_head && d.buckets == 32 && d.distance == 128 && d.start == 0);
    assert_int_equal(parse(&d, T5(", \"dense_act_fn\": \"gelu\""), NULL), OK);
    assert_true(d.act == ACT_GELU && d.head == LM_HEAD_TIED && d.scale_head);
    assert_int_equal(parse(&d, T5(", \"tie_word_embeddings\": true, \"scale_decoder_outputs\": false"), NULL), OK);
    assert_true(d.head == LM_HEAD_ASK && !d.scale_head);
}

#define LLAMA(type, more) "{\"model_type\": \"" type "\", \"num_hidden_layers\": 16, \"hidden_size\": 2048, " \
    "\"intermediate_size\": 8192, \"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"vocab_size\": 128256, " \
    "\"max_position_embeddings\": 131072, \"rms_norm_eps\": 1e-5, \"eos_token_id\": 128001" more "}"
#define SCALING "{\"rope_type\": \"llama3\", \"factor\": 32.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, " \
    "\"original_max_position_embeddings\": 8192"

static void llama(void **state) {
    (void)state;
    LmDims d;
    assert_int_equal(parse(&d, LLAMA("llama", ", \"rope_theta\": 500000.0, \"tie_word_embeddings\": true, "
        "\"rope_scaling\": " SCALING "}"), NULL), OK);
    assert_true(d.family == LM_LLAMA && d.K == 8 && d.D == 64 && d.head == LM_HEAD_TIED && !d.qkv_bias && d.gated);
    assert_true(d.rope.kind == LM_ROPE_LLAMA3 && d.rope.theta == 5e5 && d.rope.factor == 32 && d.rope.high == 4);
    assert_int_equal(parse(&d, LLAMA("llama", ", \"rope_parameters\": " SCALING ", \"rope_theta\": 500000.0}"),
        NULL), OK);
    assert_true(d.rope.kind == LM_ROPE_LLAMA3 && d.rope.theta == 5e5 && d.head == LM_HEAD_OWN);
    assert_true(d.rope.original == 8192);
    assert_int_equal(parse(&d, LLAMA("llama", ", \"rope_scaling\": null"), NULL), OK);
    assert_true(d.rope.kind == LM_ROPE_PLAIN && d.rope.theta == 10000);
}

static void qwen2_and_mistral(void **state) {
    (void)state;
    LmDims d;
    assert_int_equal(parse(&d, LLAMA("qwen2", ", \"sliding_window\": 512, \"use_sliding_window\": false"),
                           "{\"eos_token_id\": [128001, 7]}"), OK);
    assert_true(d.qkv_bias && !d.out_bias && d.N == 131072 && d.nends == 2 && d.end[0] == 128001 && d.end[1] == 7);
    assert_int_equal(parse(&d, LLAMA("mistral", ", \"sliding_window\": 4096, \"head_dim\": 128"), NULL), OK);
    assert_true(!d.qkv_bias && d.N == 4096 && d.D == 128);
}

/* Each of these says what is wrong with which key. */
static void refuses(void **state) {
    (void)state;
    static const struct { const char *text, *names; } bad[] = {
        {"[]", "object"},
        {"{}", "model_type"},
        {"{\"model_type\": \"gemma\", \"vocab_size\": 9}", "gemma"},
        {"{\"model_type\": \"opt\", \"vocab_size\": 9}", "num_hidden_layers"},
        {"{\"model_type\": \"opt\", \"vocab_size\": 1e9}", "vocab_size"},
        {T5(", \"relative_attention_num_buckets\": 3"), "num_buckets"},
        {T5(", \"relative_attention_num_buckets\": 32, \"relative_attention_max_distance\": 16"), "max_distance"},
        {T5(", \"dense_act_fn\": \"mish\""), "dense_act_fn"},
        {LLAMA("llama", ", \"head_dim\": 63"), "head_dim"},
        {LLAMA("llama", ", \"head_dim\": 100000000"), "head_dim"},
        {LLAMA("llama", ", \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}"), "rope_type"},
        {LLAMA("llama", ", \"rope_scaling\": {\"type\": \"linear\"}"), "factor"},
        {LLAMA("llama", ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 4.0}"),
            "original_max_position_embeddings"},
        {LLAMA("llama", ", \"layer_types\": [\"linear_attention\"]"), "layer_types"},
        {LLAMA("llama", ", \"bos_token_id\": 128256"), "bos_token_id"},
        {LLAMA("qwen2", ", \"tie_word_embeddings\": 1"), "tie_word_embeddings"},
    };
    LmDims d;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(parse(&d, bad[i].text, NULL), ERR_FORMAT);
        if (!strstr(err_message(), bad[i].names)) fail_msg("'%s' does not name %s", err_message(), bad[i].names);
    }
}

/* Numbers of published models, as their makers count them; and what stage 2 learns beside them (the paper's and LAVIS's
 * files: ln_vision, queries, Q-Former without text, projection). */
static void counts(void **state) {
    (void)state;
    static const struct { const char *name; int64_t count; } models[] = {
        {"opt-125m", 125239296}, {"opt-2.7b", 2651596800}, {"flan-t5-xl", 2849757184}, {"vicuna-7b", 6738415616},
        {"smollm2-135m", 134515008}, {"tinyllama-1.1b", 1100048384}};
    static const struct { int32_t W, E; int64_t count; } learned[] = {
        {2560, 1408, 107133696}, {4096, 1408, 108314880}, {2048, 1408, 106739968}, {2560, 1024, 103593984},
        {4096, 1024, 104775168}, {2048, 1024, 103200256}};
    const Backend *b = backend_null(DT_BF16);
    Arena a;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        LmDims d;
        Lm m;
        arena_measure(&a, "model");
        assert_true(lm_config_known(&d, models[i].name));
        assert_int_equal(lm_open(&m, &d, b, &a, 64), OK);
        assert_int_equal(m.params.count, models[i].count);
        lm_close(&m);
    }
    for (size_t i = 0; i < sizeof learned / sizeof *learned; i++) {
        QFormer q;
        Dims d = {.L = 12, .C = 768, .H = 12, .F = 3072, .Q = 32, .E = learned[i].E, .P = 257, .X = 2,
                  .W = learned[i].W};
        arena_measure(&a, "model");
        assert_int_equal(qformer_open(&q, &d, b, &a, &(ParamsSpec){0}), OK);
        assert_int_equal(q.params.count, learned[i].count);
        qformer_close(&q);
    }
}

/* ---- shards ------------------------------------------------------------------------------------------------------ */

static void put_shard(const char *file, const char *tensor, const float *x, size_t n) {
    StTensor t = {.name = tensor, .dtype = DT_F32, .ndim = 1, .shape = {(int64_t)n}, .nbytes = n * sizeof *x,
        .data = x};
    assert_int_equal(st_write(scratch_path(file), &t, 1, NULL, 0), OK);
}

static void opens(const char *index, const char *refusal) {
    WeightSource *ws;
    scratch_write("model.safetensors.index.json", index);
    Status st = ws_open(&ws, scratch_dir(), NULL, NULL);
    if (!refusal) {
        float x[2];
        assert_int_equal(st, OK);
        assert_int_equal(ws_count(ws), 2);
        const StTensor *t = ws_find(ws, "model.norm.weight");
        assert_true(t && t->ndim == 1 && t->shape[0] == 2);
        dtype_to_f32(x, t->data, t->dtype, 2);
        assert_true(x[0] == 3 && x[1] == 4);
        ws_close(ws);
        return;
    }
    assert_int_not_equal(st, OK);
    if (!strstr(err_message(), refusal)) fail_msg("'%s' does not say '%s'", err_message(), refusal);
}

static void shards(void **state) {
    (void)state;
    put_shard("a.safetensors", "lm_head.weight", (const float[]){1, 2}, 2);
    put_shard("b.safetensors", "model.norm.weight", (const float[]){3, 4}, 2);
    opens("{\"weight_map\": {\"lm_head.weight\": \"a.safetensors\", \"model.norm.weight\": \"b.safetensors\"}}", NULL);
    opens("{\"weight_map\": {\"lm_head.weight\": \"b.safetensors\", \"model.norm.weight\": \"b.safetensors\"}}",
          "does not hold it");
    opens("{\"weight_map\": {\"lm_head.weight\": \"c.safetensors\"}}", "c.safetensors");
    opens("{\"weight_map\": {\"lm_head.weight\": \"../a.safetensors\"}}", "same folder");
    opens("{\"weight_map\": {\"lm_head.weight\": 7}}", "same folder");
    opens("{\"weight_map\": {}}", "weight_map");
    opens("{\"metadata\": {}}", "weight_map");
}

/* How the Q-Former computes, which no shape tells: from the folder, with transformers' defaults for absent keys. */
static void habits(void **state) {
    (void)state;
    static const struct { const char *config; Status st; float eps, vision; int act; } cases[] = {
        {"{\"qformer_config\": {\"layer_norm_eps\": 1e-6, \"hidden_act\": \"relu\"}, "
         "\"vision_config\": {\"layer_norm_eps\": 1e-4}}", OK, 1e-6f, 1e-4f, ACT_RELU},
        {"{\"qformer_config\": {}, \"vision_config\": {}}", OK, 1e-12f, 1e-6f, ACT_GELU},
        {"{\"qformer_config\": {\"hidden_act\": \"gelu_new\"}}", OK, 1e-12f, 1e-5f, ACT_GELU_TANH},
        {"{\"qformer_config\": {\"hidden_act\": \"mish\"}}", ERR_FORMAT, 0, 0, 0},
        {"{\"qformer_config\": {\"layer_norm_eps\": -1}}", ERR_FORMAT, 0, 0, 0},
        {"{\"qformer_config\": {\"position_embedding_type\": \"relative_key\"}}", ERR_FORMAT, 0, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Json *doc = NULL;
        Dims d = {0};
        assert_int_equal(json_parse(&doc, cases[i].config, strlen(cases[i].config), "text"), OK);
        assert_int_equal(lm_config_habits(&d, doc, "config.json"), cases[i].st);
        if (cases[i].st == OK)
            assert_true(dims_eps(&d) == cases[i].eps && dims_eps_vision(&d) == cases[i].vision &&
                        d.act == cases[i].act);
        json_free(doc);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opt), cmocka_unit_test(t5), cmocka_unit_test(llama), cmocka_unit_test(qwen2_and_mistral),
        cmocka_unit_test(habits), cmocka_unit_test(refuses), cmocka_unit_test(counts),
        cmocka_unit_test_setup_teardown(shards, scratch_open,
            scratch_teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
