/* names, weights, export: foreign names become ours and back; names and exported files are those that transformers
 * wrote for the same model. Weights of our own runs: test_checkpoint.c; of PyTorch files: test_pth.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/export.h"
#include "checkpoints/names.h"
#include "checkpoints/weights.h"
#include "data/format/json.h"
#include "kernels/base/mem.h"
#include "tests/kit/scratch.h"

/* ---- names ---- */

static void check_map(const Json *map, NameForm form) {
    const Json *v;
    char buf[NAME_ROOM];
    assert_true(json_len(map) > 50);
    for (const char *lavis = json_next(map, NULL, &v); lavis; lavis = json_next(map, lavis, &v)) {
        const char *theirs = json_str(v, NULL);
        assert_int_equal(name_from_lavis(form, lavis, buf), theirs != NULL);
        if (!theirs) continue;
        assert_string_equal(buf, theirs);
        assert_true(name_to_lavis(form, theirs, buf));
        assert_string_equal(buf, lavis);
    }
}

static void names_are_those_of_transformers(void **state) {
    (void)state;
    Json *doc;
    assert_int_equal(json_parse_file(&doc, "tests/golden/hf/names.json"), OK);
    check_map(json_get(doc, "lavis_to_hf"), NAMES_HF);
    check_map(json_get(doc, "lavis_to_qformer_only"), NAMES_HF_QFORMER);
    json_free(doc);
}

static void names_of_bert(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"bert.embeddings.word_embeddings.weight", "Qformer.bert.embeddings.word_embeddings.weight"},
        {"bert.embeddings.LayerNorm.gamma", "Qformer.bert.embeddings.LayerNorm.weight"},
        {"bert.embeddings.LayerNorm.bias", "Qformer.bert.embeddings.LayerNorm.bias"},
        {"bert.encoder.layer.11.attention.self.query.weight",
         "Qformer.bert.encoder.layer.11.attention.self.query.weight"},
        {"bert.encoder.layer.0.attention.output.LayerNorm.beta",
         "Qformer.bert.encoder.layer.0.attention.output.LayerNorm.bias"},
        {"bert.encoder.layer.0.output.dense.bias", "Qformer.bert.encoder.layer.0.output.dense.bias"},
        {"cls.predictions.transform.LayerNorm.gamma", "Qformer.cls.predictions.transform.LayerNorm.weight"},
        {"cls.predictions.decoder.weight", "Qformer.cls.predictions.decoder.weight"},
        {"bert.embeddings.token_type_embeddings.weight", NULL},
        {"bert.pooler.dense.weight", NULL},
        {"cls.seq_relationship.weight", NULL},
        {"bert.encoder.layer..output.dense.bias", NULL},
        {"bert.encoder.layer.1", NULL},
    };
    char buf[NAME_ROOM], longest[2 * NAME_ROOM];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(name_to_lavis(NAMES_BERT, rows[i][0], buf), rows[i][1] != NULL);
        if (rows[i][1]) assert_string_equal(buf, rows[i][1]);
    }
    for (size_t n = NAME_ROOM - 40; n < NAME_ROOM; n++) { /* what does not fit is no name, also by one byte */
        snprintf(longest, sizeof longest, "cls.predictions.%0*d.beta", (int)n - 21, 0);
        assert_int_equal(name_to_lavis(NAMES_BERT, longest, buf), n + 8 < NAME_ROOM);
    }
    assert_true(name_to_lavis(NAMES_LAVIS, "temp", buf));
    assert_false(name_to_lavis(NAMES_LAVIS, "temperature", buf));
    assert_false(name_to_lavis(NAMES_LAVIS, "visual_encoder.cls_token", buf));
}

/* ---- weights ---- */

static void write_file(const char *path, const char *const *names, size_t n) {
    StTensor t[8] = {{0}};
    static const float data[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < n; i++)
        t[i] = (StTensor){.name = names[i], .dtype = DT_F32, .ndim = 1, .shape = {2}, .data = data};
    assert_int_equal(st_write(path, t, n, NULL, 0), OK);
}

static void weights_of_bert(void **state) {
    (void)state;
    WeightSource *ws;

    /* A BERT directory; the tied matrix only under its alias; a tensor that is not ours keeps its name. */
    const char *bert[] = {"bert.embeddings.LayerNorm.gamma", "cls.predictions.decoder.weight",
                          "bert.pooler.dense.bias"};
    const char *path = scratch_path("model.safetensors");
    write_file(path, bert, 3);
    assert_int_equal(ws_open(&ws, scratch_dir(), NULL, NULL), OK);
    assert_int_equal(ws_form(ws), NAMES_BERT);
    assert_non_null(ws_find(ws, "Qformer.bert.embeddings.LayerNorm.weight"));
    assert_non_null(ws_find(ws, "Qformer.bert.embeddings.word_embeddings.weight"));
    assert_ptr_equal(ws_find(ws, "Qformer.cls.predictions.decoder.weight"),
                     ws_find(ws, "Qformer.bert.embeddings.word_embeddings.weight"));
    assert_non_null(ws_find(ws, "bert.pooler.dense.bias"));
    assert_null(ws_find(ws, "Qformer.cls.predictions.bias"));
    ws_close(ws);
    const char *twice[] = {"bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"};
    write_file(path, twice, 2);
    assert_int_equal(ws_open(&ws, path, NULL, NULL), ERR_FORMAT);
    const char *bare[] = {"embeddings.LayerNorm.weight", "encoder.layer.0.attention.self.query.weight"};
    write_file(path, bare, 2);
    assert_int_equal(ws_open(&ws, path, NULL, NULL), OK);
    assert_int_equal(ws_form(ws), NAMES_BERT_BARE);
    ws_close(ws);
    unlink(path);
}

/* ---- transformers ---- */

#define HF "../shared/golden/stage1/hf/"

static void reads_and_writes_what_transformers_does(void **state) {
    (void)state;
    if (access(HF "model.safetensors", R_OK) != 0) skip();
    Json *doc, *ours, *theirs;
    WeightSource *ws, *alone;
    StFile *hf, *written;
    const Json *v;
    assert_int_equal(json_parse_file(&doc, HF "names.json"), OK);
    assert_int_equal(ws_open(&ws, HF, NULL, NULL), OK);
    assert_int_equal(ws_open(&alone, HF "qformer_only", NULL, NULL), OK);
    assert_int_equal(st_open(&hf, HF "model.safetensors"), OK);
    assert_int_equal(ws_form(ws), NAMES_HF);
    assert_int_equal(ws_form(alone), NAMES_HF_QFORMER);

    /* Every tensor under its LAVIS name, and the Q-Former alone holds the same numbers where it has any. */
    const Json *map = json_get(doc, "lavis_to_hf");
    StTensor *tensors = mem_new(json_len(map) + 1, sizeof *tensors);
    size_t n = 0, nulls = 0;
    for (const char *k = json_next(map, NULL, &v); k; k = json_next(map, k, &v)) {
        const StTensor *t = ws_find(ws, k);
        if (!json_str(v, NULL)) {
            assert_null(t);
            nulls++;
            continue;
        }
        assert_ptr_equal(t->shape[0], st_find(hf, json_str(v, NULL))->shape[0]);
        assert_memory_equal(t->data, st_find(hf, json_str(v, NULL))->data, t->nbytes);
        tensors[n++] = *t;
    }
    map = json_get(doc, "lavis_to_qformer_only");
    for (const char *k = json_next(map, NULL, &v); k; k = json_next(map, k, &v)) assert_non_null(ws_find(alone, k));
    assert_int_equal(nulls, 6);

    /* Back: the same names and numbers, all but the vision tower; config.json agrees wherever it says something. */
    float temp = 0.07f;
    tensors[n++] = (StTensor){.name = "temp", .dtype = DT_F32, .data = &temp, .nbytes = 4};
    HfDims d = {.Q = 5,
                .C = 24,
                .H = 3,
                .F = 40,
                .L = 3,
                .X = 2,
                .E = 20,
                .Z = 12,
                .V = 53,
                .N = 16,
                .vision_layers = 1,
                .vision_heads = 2,
                .vision_mlp = 24,
                .image_size = 42,
                .patch_size = 14,
                .vision_eps = 1e-5,
                .vision_act = "gelu",
                .eps = 1e-12,
                .act = "gelu"};
    size_t left;
    assert_int_equal(hf_export(scratch_path("hf"), &d, tensors, n, NULL, &left), OK);
    assert_int_equal(left, 1);
    assert_int_equal(st_open(&written, scratch_path("hf/model.safetensors")), OK);
    assert_string_equal(st_meta(written, "format"), "pt");
    for (size_t i = 0; i < st_count(hf); i++) {
        const StTensor *want = st_at(hf, i), *got = st_find(written, want->name);
        bool tower =
            strncmp(want->name, "vision_model.", 13) == 0 && strncmp(want->name + 13, "post_layernorm.", 15) != 0;
        if (strcmp(want->name, "embeddings.position_ids") == 0) continue;
        assert_int_equal(got != NULL, !tower);
        if (got) assert_memory_equal(got->data, want->data, want->nbytes);
    }
    assert_int_equal(st_count(written), n - 1);
    assert_int_equal(json_parse_file(&ours, scratch_path("hf/config.json")), OK);
    assert_int_equal(json_parse_file(&theirs, HF "config.json"), OK);
    static const char *const blocks[] = {"qformer_config", "vision_config"};
    for (int b = 0; b < 3; b++) {
        const Json *mine = b < 2 ? json_get(ours, blocks[b]) : ours,
                   *other = b < 2 ? json_get(theirs, blocks[b]) : theirs, *o;
        for (const char *k = json_next(mine, NULL, &v); k; k = json_next(mine, k, &v)) {
            double x, y;
            o = json_get(other, k);
            if (strcmp(k, "torch_dtype") == 0) o = json_get(other, "dtype");
            if (strcmp(k, "initializer_range") == 0) continue;
            if (json_num(v, &x)) {
                if (!json_num(o, &y) || x != y) fail_msg("%s differs", k);
            } else if (json_str(v, NULL)) {
                assert_string_equal(json_str(v, NULL), json_str(o, NULL));
            }
        }
    }
    json_free(ours);
    json_free(theirs);
    json_free(doc);
    free(tensors);
    st_close(written);
    st_close(hf);
    ws_close(ws);
    ws_close(alone);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_transformers),
        cmocka_unit_test(names_of_bert),
        cmocka_unit_test(weights_of_bert),
        cmocka_unit_test(reads_and_writes_what_transformers_does),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_teardown);
}
