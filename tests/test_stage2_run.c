/* pretrain stage=2, as a user runs it, beside a tiny language model's folder that is made here: from a stage-1 run,
 * killed and resumed with the same bytes, on two ranks, what it leaves, and what it refuses in one sentence. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/safetensors.h"
#include "data/text/tokenizer.h"
#include "kernels/base/mem.h"
#include "checkpoints/lm_config.h"
#include "kernels/model/lm_model.h"
#include "tests/kit/folder.h"

#define PIECES "tests/golden/tokenizers/llama2/tokenizer.json"

/* ---- a language model's folder ----------------------------------------------------------------------------------- */

static void copy_pieces(const char *name) {
    char bytes[1 << 17];
    FILE *f = fopen(PIECES, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    assert_true(n > 0 && n < sizeof bytes);
    folder_put(name, bytes, n);
}

static void write_config(const char *name, int32_t V, int32_t width) {
    char text[600];
    snprintf(text, sizeof text,
             "{\"model_type\": \"llama\", \"vocab_size\": %d, \"hidden_size\": %d, \"num_hidden_layers\": 2, "
             "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 40, "
             "\"max_position_embeddings\": 96, \"bos_token_id\": 1, \"eos_token_id\": 2, "
                 "\"tie_word_embeddings\": true}",
             V, width);
    folder_write(name, text);
}

/* Random weights in bf16, as hubs have them, under the published names. */
static void write_weights(const char *config, const char *name) {
    const Backend *b = backend_cpu(DT_F32);
    LmDims d;
    Lm m, sizes;
    Arena measure, run;
    assert_int_equal(lm_config_read(&d, folder_path(config)), OK);
    arena_measure(&measure, "model");
    assert_int_equal(lm_open(&sizes, &d, backend_null(DT_F32), &measure, 8), OK);
    lm_close(&sizes);
    assert_int_equal(arena_open(&run, "model", b, measure.peak), OK);
    assert_int_equal(lm_open(&m, &d, b, &run, 8), OK);
    assert_int_equal(params_init(&m.params, 11, 0.1f), OK);
    StTensor *t = mem_new((size_t)m.params.n, sizeof *t);
    for (int i = 0; i < m.params.n; i++) {
        const ParamTensor *q = &m.params.tensor[i];
        float *x = mem_new((size_t)q->n, sizeof *x);
        bf16 *y = mem_new((size_t)q->n, sizeof *y);
        assert_int_equal(params_values(&m.params, q, x), OK);
        for (int64_t k = 0; k < q->n && q->ndim == 1; k++) x[k] += 1;        /* norms */
        dtype_from_f32(y, DT_BF16, x, (size_t)q->n);
        t[i] = (StTensor){.name = q->name, .dtype = DT_BF16, .ndim = q->ndim, .shape = {q->shape[0], q->shape[1]},
                          .nbytes = (size_t)q->n * sizeof *y, .data = y};
        free(x);
    }
    assert_int_equal(st_write(folder_path(name), t, (size_t)m.params.n, NULL, 0), OK);
    for (int i = 0; i < m.params.n; i++) free((void *)(uintptr_t)t[i].data);
    free(t);
    lm_close(&m);
    arena_close(&run, b);
}

static int32_t pieces(void) {
    Tokenizer *t;
    assert_int_equal(tokenizer_open(&t, PIECES), OK);
    int32_t n = tokenizer_size(t);
    tokenizer_close(t);
    return n;
}

static int setup(void **state) {
    if (folder_setup(state)) return 1;
    folder_shell("mkdir lm half wide");
    write_config("lm/config.json", pieces(), 24);
    write_weights("lm/config.json", "lm/model.safetensors");
    copy_pieces("lm/tokenizer.json");
    write_config("wide/config.json", pieces(), 48);          /* whose weights are those of another */
    folder_shell("cp lm/model.safetensors lm/tokenizer.json wide");
    folder_shell("cp lm/config.json lm/tokenizer.json half"); /* one of two files is missing */
    folder_write("half/model.safetensors.index.json",
                 "{\"weight_map\": {\"model.norm.weight\": \"model-00002-of-00002.safetensors\"}}");
    return 0;
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

#define SIZES " model.layers=2 model.hidden=16 model.heads=2 model.queries=4 model.cross_every=1 model.dropout=0.1" \
    " optim.warmup_steps=2 optim.lr=1e-2 train.eval_every=0 train.log_every=100 precision=f32 threads=1"
#define STAGE2 " stage=2 stage2.lm=lm data.train=set.h5 data.sample=images train.batch=4" SIZES

static void makes_a_set(void) {
    if (!folder_has("set.h5"))
        folder_must("synth out=set.h5 synth.train=24 synth.val=8 synth.test=8 synth.captions=3 synth.size=16 "
            "synth.patch=8");
}

/* Exactly: model, moments, everything. */
static void same_bytes(const char *a, const char *b) {
    char line[200];
    static const char *const files[] = {"model", "optimizer"};
    for (int i = 0; i < 2; i++) {
        snprintf(line, sizeof line, "cmp %s/%s.safetensors %s/%s.safetensors", a, files[i], b, files[i]);
        if (folder_shell(line)) fail_msg("%s", line);
    }
}

static void resumes_to_the_same_bytes(void **state) {
    (void)state;
    makes_a_set();
    folder_must("pretrain out=whole train.steps=9 optim.accum=2 train.save_every=4" STAGE2);
    folder_must("pretrain out=parts train.steps=4 optim.accum=2 train.save_every=4 optim.schedule=constant" STAGE2);
    folder_shell("rm -rf parts");
    folder_must("pretrain out=parts train.steps=9 optim.accum=2 train.save_every=4 train.time_limit=1e-9" STAGE2);
    assert_false(folder_has("parts/step_000009"));           /* it stopped on the way */
    folder_says("pretrain out=parts train.steps=9 optim.accum=2 train.save_every=4" STAGE2, "goes on");
    same_bytes("whole/step_000009", "parts/step_000009");
}

static void says_what_it_speaks_to(void **state) {
    (void)state;
    makes_a_set();
    folder_says("pretrain out=dry train.steps=2 --dry-run" STAGE2, "speaks    to lm: llama");
    folder_says("plan stage=2 stage2.lm=lm" SIZES, "speaks    to lm: llama");
    folder_says("plan stage=2 stage2.lm=facebook/opt-6.7b", "6658.5 M numbers");
}

/* Stage 1's Q-Former, all that stage 2 keeps of it. */
static void begins_from_stage_1(void **state) {
    (void)state;
    makes_a_set();
    folder_must("vocab in=set.h5 out=words.txt vocab.size=120");
    folder_must("pretrain out=one model.vocab=words.txt data.train=set.h5 train.steps=2 train.batch=4" SIZES);
    folder_says("pretrain out=two train.init=one train.steps=2" STAGE2, "language_projection");
    folder_must("pretrain out=asks train.init=one model.vocab=words.txt stage2.instruct=true stage2.prompt=what "
        "train.steps=2 "
                "stage2.max_prompt=20 stage2.max_target=20" STAGE2);
    folder_must("synth out=qa/set.h5 synth.train=16 synth.val=4 synth.test=4 synth.captions=1 synth.questions=3 "
        "synth.size=16 "
                "synth.patch=8");
    folder_must("pretrain out=asked train.init=one model.vocab=words.txt stage2.instruct=true "
        "data.train=qa/set.h5 train.steps=2 "
                "stage2.max_prompt=20 stage2.max_target=20 stage=2 stage2.lm=lm data.sample=images "
                    "train.batch=4" SIZES);
    folder_must("finetune out=further train.init=two train.steps=2" STAGE2);
}

/* A whole folder of transformers' is a start and a language model like those it was made of: a step from either gives
 * the same bytes. */
static void exports_a_whole_model(void **state) {
    (void)state;
    makes_a_set();
    folder_must("pretrain out=source train.steps=2" STAGE2);
    folder_says("export in=source out=hf model.heads=2", "a whole Blip2ForConditionalGeneration");
    folder_must("pretrain out=near train.init=source train.steps=1" STAGE2);
    folder_must("pretrain out=far train.init=hf train.steps=1 stage=2 stage2.lm=hf data.train=set.h5 "
        "data.sample=images "
                "train.batch=4" SIZES);
    same_bytes("near/step_000001", "far/step_000001");
}

static void refuses(void **state) {
    (void)state;
    makes_a_set();
    folder_refuses("pretrain out=no stage=2 data.train=set.h5" SIZES, "stage2.lm");
    folder_fails("pretrain out=no train.steps=1 stage2.lm=half stage=2 data.train=set.h5 train.batch=4" SIZES,
                 "model-00002-of-00002.safetensors");
    folder_fails("pretrain out=no train.steps=1 stage2.lm=wide stage=2 data.train=set.h5 train.batch=4" SIZES,
                 "embed_tokens");
    folder_fails("pretrain out=no train.steps=1 stage2.lm=nowhere stage=2 data.train=set.h5 train.batch=4" SIZES,
                 "nowhere");
    folder_refuses("plan stage=2 stage2.lm=opt-99b", "opt-2.7b");
    folder_refuses("pretrain out=no train.steps=1 stage2.max_prompt=400 stage=2 stage2.lm=lm data.train=set.h5" SIZES,
                   "96 positions");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumes_to_the_same_bytes), cmocka_unit_test(says_what_it_speaks_to),
        cmocka_unit_test(begins_from_stage_1), cmocka_unit_test(exports_a_whole_model),
        cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
