/* pretrain stage=2, as a user runs it, beside a tiny language model's folder that is made here: from a stage-1 run,
 * killed and resumed with the same bytes, on two ranks, what it leaves, and what it refuses in one sentence. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/safetensors.h"
#include "tests/kit/folder.h"
#include "tests/kit/lmfolder.h"

static int setup(void **state) {
    if (folder_setup(state)) return 1;
    lmfolder_make("lm", DT_BF16);
    folder_shell("mkdir half wide && cp lm/model.safetensors lm/tokenizer.json wide");
    folder_shell("sed 's/_size\\\": 24/_size\\\": 48/' lm/config.json >wide/config.json");     /* weights of another */
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

#define DROPS " stage2.lm_dropout=true"

/* Also what the language model drops. */
static void resumes_to_the_same_bytes(void **state) {
    (void)state;
    makes_a_set();
    folder_must("pretrain out=whole train.steps=9 optim.accum=2 train.save_every=4" DROPS STAGE2);
    folder_must("pretrain out=parts train.steps=4 optim.accum=2 train.save_every=4 optim.schedule=constant" DROPS STAGE2);
    folder_shell("rm -rf parts");
    folder_must("pretrain out=parts train.steps=9 optim.accum=2 train.save_every=4 train.time_limit=1e-9" DROPS STAGE2);
    assert_false(folder_has("parts/step_000009"));           /* it stopped on the way */
    folder_says("pretrain out=parts train.steps=9 optim.accum=2 train.save_every=4" DROPS STAGE2, "goes on");
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
    /* a question's words enter the Q-Former; of given answers one is taken, and the same one again in other company */
    folder_write("choices.txt", "red\nblue\na square\n");
    folder_write("turned.txt", "a square\nblue\nred\n");
    folder_must("ask in=asked data.test=qa/set.h5 out=said.json ask.max_new=3 ask.limit=3 precision=f32");
    folder_must("ask in=asked data.test=qa/set.h5 out=chosen.json ask.choices=choices.txt ask.limit=3 precision=f32");
    folder_must("ask in=asked data.test=qa/set.h5 out=again.json ask.choices=turned.txt ask.limit=3 precision=f32 "
                "use.batch=1");
    assert_int_equal(folder_shell("grep -q '\"answer\"' said.json && cmp chosen.json again.json"), 0);
    assert_int_equal(folder_shell("! grep '\"answer\"' chosen.json | grep -qvE '\"(red|blue|a square)\"'"), 0);
}

/* Training watches a model whose Q-Former reads prompts, too, and the report has the answers that ask gives, question
 * by question: both let the prompt in. The first letters alone are compared: a page and a JSON file escape the rest each
 * its way, and how long a text may be is each one's own. */
static void quizzes_who_reads_prompts(void **state) {
    (void)state;
    makes_a_set();
    folder_must("synth out=quiz/set.h5 synth.train=16 synth.val=4 synth.test=4 synth.captions=1 synth.questions=3 "
                "synth.size=16 synth.patch=8");
    folder_must("vocab in=quiz/set.h5 out=quiz.txt vocab.size=120");
    folder_says("pretrain out=reads model.vocab=quiz.txt stage2.instruct=true data.train=quiz/set.h5 train.steps=2 "
                "stage2.max_prompt=40 stage2.max_target=20 stage=2 stage2.lm=lm data.sample=images train.batch=4" SIZES,
                "answers");
    folder_must("report in=reads data.test=quiz/set.h5 out=reads.html precision=f32");
    folder_must("ask in=reads data.test=quiz/set.h5 out=heard.json ask.mode=greedy ask.min_new=1 ask.max_new=48 "
                "precision=f32");
    folder_write("letters.sh", "sed 's/&[a-z0-9#]*;//g; s/\\\\u....//g; s/\\\\.//g' | tr -cd 'a-zA-Z0-9\\n' | cut -c1-24\n");
    folder_shell("grep -o '<b class=\"rank [a-z]*\">[^<]*' reads.html | sed 's/.*>//' | sh letters.sh >page.txt");
    folder_shell("grep -o '\"answer\": \".*\"' heard.json | sed 's/\"answer\": //' | sh letters.sh >asked.txt");
    assert_int_equal(folder_shell("test $(grep -c . asked.txt) -ge 6 && test $(sort -u asked.txt | wc -l) -ge 2"), 0);
    assert_int_equal(folder_shell("sort asked.txt >a.txt && sort page.txt | cmp - a.txt"), 0);
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

/* What LAVIS would have saved of it: names of its own, and the same step from there. */
static void exports_what_lavis_trains(void **state) {
    (void)state;
    makes_a_set();
    folder_must("pretrain out=taught train.steps=2" STAGE2);
    folder_must("export in=taught out=lavis.safetensors form=lavis model.heads=2");
    assert_int_equal(folder_shell("grep -q llm_proj.weight lavis.safetensors"), 0);
    assert_int_equal(folder_shell("! grep -q language_projection lavis.safetensors"), 0);
    folder_must("pretrain out=ours train.init=taught train.steps=1" STAGE2);
    folder_must("pretrain out=theirs train.init=lavis.safetensors train.steps=1" STAGE2);
    same_bytes("ours/step_000001", "theirs/step_000001");
}

/* InstructBLIP's words lie where transformers looks for them; numbers that are whole keep their point. */
static void exports_words(void **state) {
    (void)state;
    makes_a_set();
    folder_must("vocab in=set.h5 out=more.txt vocab.size=120");
    folder_must("pretrain out=prompted model.vocab=more.txt stage2.instruct=true stage2.prompt=what train.steps=1 "
                "stage2.max_prompt=20 stage2.max_target=20" STAGE2);
    folder_says("export in=prompted out=whole_words model.heads=2", "InstructBlipForConditionalGeneration");
    assert_true(folder_has("whole_words/qformer_tokenizer/vocab.txt"));
    assert_int_equal(folder_shell("grep -q '\"attention_dropout\": 0.0' whole_words/config.json"), 0);
    folder_must("caption in=whole_words data.test=set.h5 caption.limit=2 caption.max_length=4 model.heads=2");
}

/* The root of the mean square of a tensor of a run's step. */
static double rms_of(const char *run, const char *name) {
    char path[100];
    StFile *f = NULL;
    double sum = 0;
    snprintf(path, sizeof path, "%s/step_000001/model.safetensors", run);
    assert_int_equal(st_open(&f, folder_path(path)), OK);
    const StTensor *t = st_find(f, name);
    assert_true(t && t->dtype == DT_F32);
    int64_t n = st_elements(t);
    for (int64_t i = 0; i < n; i++) sum += (double)((const float *)t->data)[i] * (double)((const float *)t->data)[i];
    st_close(f);
    return sqrt(sum / (double)n);
}

/* Rows of C numbers of unit size become as large as words, times stage2.scale; without it numbers are those of torch's
 * Linear. The first step's rate is 1e-6. Weights that a start brings stay as they are. */
static void starts_as_large_as_words(void **state) {
    (void)state;
    static const char name[] = "language_projection.weight";
    StFile *f = NULL;
    double words = 0;
    makes_a_set();
    assert_int_equal(st_open(&f, folder_path("lm/model.safetensors")), OK);
    const StTensor *t = st_find(f, "model.embed_tokens.weight");
    assert_true(t && t->dtype == DT_BF16);
    int64_t n = st_elements(t);
    for (int64_t i = 0; i < n; i++) {
        float x;
        dtype_to_f32(&x, (const uint16_t *)t->data + i, DT_BF16, 1);
        words += (double)x * (double)x / (double)n;
    }
    st_close(f);
    folder_must("pretrain out=torch train.steps=1 stage2.scale=0" STAGE2);
    folder_must("pretrain out=words train.steps=1 stage2.scale=1" STAGE2);
    folder_must("pretrain out=thrice train.steps=1 stage2.scale=3" STAGE2);
    folder_must("pretrain out=kept train.steps=1 stage2.scale=3 train.init=words" STAGE2);
    assert_true(fabs(rms_of("torch", name) * 4 / sqrt(1.0 / 3) - 1) < 0.05);              /* 24 x 16 draws */
    assert_true(fabs(rms_of("words", name) * 4 / sqrt(words) - 1) < 0.05);
    assert_true(fabs(rms_of("thrice", name) / rms_of("words", name) - 3) < 1e-3);
    assert_true(fabs(rms_of("kept", name) / rms_of("words", name) - 1) < 1e-3);
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
    folder_refuses("pretrain out=no train.steps=1 stage2.max_prompt=600 stage=2 stage2.lm=lm data.train=set.h5" SIZES,
                   LMFOLDER_POSITIONS " positions");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumes_to_the_same_bytes), cmocka_unit_test(says_what_it_speaks_to),
        cmocka_unit_test(begins_from_stage_1), cmocka_unit_test(quizzes_who_reads_prompts),
        cmocka_unit_test(exports_a_whole_model),
        cmocka_unit_test(exports_what_lavis_trains), cmocka_unit_test(exports_words),
        cmocka_unit_test(starts_as_large_as_words), cmocka_unit_test(refuses)};
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
