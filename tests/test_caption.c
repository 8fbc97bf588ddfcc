/* The command caption, called as a user does, on a tiny model: its files against captions made one image at a time;
 * how images are numbered; and what it says to requests that cannot work. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "eval/caption.h"
#include "configs/commands.h"
#include "eval/generate.h"
#include "kernels/base/mem.h"
#include "tests/kit/model_fixture.h"

/* name and key=value words, the last NULL; model, vocabulary and data are given. What it prints goes nowhere. */
static Status run(const ModelFixture *f, ...) {
    char room[16][400], *words[16];
    const char *fixed[] = {"model.heads=2", "precision=f32", "device=cpu", "data.max_tokens=16",
                           "caption.max_length=12"};
    int n = 0;
    snprintf(room[n++], sizeof *room, "in=%s/model.safetensors", f->dir);
    snprintf(room[n++], sizeof *room, "model.vocab=%s/vocab.txt", f->dir);
    snprintf(room[n++], sizeof *room, "data.test=%s/set.h5", f->dir);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) snprintf(room[n++], sizeof *room, "%s", fixed[i]);
    va_list ap;
    va_start(ap, f);
    for (const char *w; n < 16 && (w = va_arg(ap, const char *)); n++) snprintf(room[n], sizeof *room, "%s", w);
    va_end(ap);
    for (int i = 0; i < n; i++) words[i] = room[i];

    Options *o = NULL;
    fflush(stdout);
    int kept = dup(1), nowhere = open("/dev/null", O_WRONLY);
    assert_true(kept >= 0 && nowhere >= 0);
    dup2(nowhere, 1);
    Status st = options_parse(&o, "caption", n, words);
    if (st == OK) st = cmd_caption(o);
    options_free(o);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    close(nowhere);
    return st;
}

static const char *in_dir(const ModelFixture *f, const char *key, const char *name) {
    static char words[8][300];
    static int next;
    char *w = words[next++ % 8];
    snprintf(w, sizeof *words, "%s%s/%s", key, f->dir, name);
    return w;
}

static Json *read_json(const ModelFixture *f, const char *name) {
    Json *doc = NULL;
    if (json_parse_file(&doc, in_dir(f, "", name)) != OK) fail_msg("%s", err_message());
    return doc;
}

static const char *string(const Json *o, const char *key) {
    const char *s = json_str(json_get(o, key), NULL);
    if (!s) fail_msg("no string '%s'", key);
    return s;
}

typedef struct { const ModelFixture *f; char *text; } One;

static Status take_text(void *ctx, int64_t i, const Search *s) {
    One *one = ctx;
    (void)i;
    return tokenizer_decode(one->f->tok, s->closed[0].tokens, (size_t)s->closed[0].len, &one->text, NULL);
}

static char *caption_alone(const ModelFixture *f, int image, SearchMode mode, int32_t beams, int32_t min_length) {
    Generator g;
    One one = {.f = f};
    const Dims *d = &f->model.d;
    GenerateSpec spec = {.images = 1, .features = DT_F32,
                         .search = {.mode = mode, .beams = beams, .max_length = 12, .min_length = min_length,
                                    .length_penalty = 1, .repetition_penalty = 1, .temperature = 1, .top_p = 0.9,
                                    .top_k = 50, .seed = 42, .start = d->dec, .ends = {d->sep}, .nends = 1}};
    assert_int_equal(generate_open(&g, f->b, &f->model, &spec), OK);
    assert_int_equal(generate_captions(&g, (FeatureRows){f->features[image], NULL}, 1, image, take_text, &one), OK);
    generate_close(&g);
    return one.text;
}

static void check_captions(const ModelFixture *f, const char *name, SearchMode mode, int32_t beams,
                           int32_t min_length) {
    Json *doc = read_json(f, name);
    assert_int_equal(json_len(doc), FIX_IMAGES);
    for (int i = 0; i < FIX_IMAGES; i++) {
        char *want = caption_alone(f, i, mode, beams, min_length);
        assert_string_equal(string(json_at(doc, (size_t)i), "caption"), want);
        assert_string_equal(string(json_at(doc, (size_t)i), "image_id"), fix_ids[i]); /* two are numbered 1: names */
        free(want);
    }
    json_free(doc);
}

static void captions_of_a_set(void **state) {
    const ModelFixture *f = *state;
    const char *greedy = in_dir(f, "out=", "greedy.json");
    assert_int_equal(run(f, greedy, "caption.mode=greedy", "caption.min_length=4", "use.batch=4", NULL), OK);
    check_captions(f, "greedy.json", SEARCH_GREEDY, 1, 4);
    assert_int_equal(run(f, in_dir(f, "out=", "one.json"), "caption.beams=1", "caption.min_length=4", NULL), OK);
    check_captions(f, "one.json", SEARCH_GREEDY, 1, 4);
    assert_int_equal(run(f, in_dir(f, "out=", "beam.json"), "caption.beams=4", "caption.min_length=1", NULL), OK);
    check_captions(f, "beam.json", SEARCH_BEAM, 4, 1);
    assert_int_equal(run(f, in_dir(f, "out=", "sample.json"), "caption.mode=sample", "use.batch=5", NULL), OK);
    check_captions(f, "sample.json", SEARCH_SAMPLE, 1, 10);
}

static void files_in_a_folder(void **state) {
    const ModelFixture *f = *state;
    assert_int_equal(run(f, in_dir(f, "out=", "made/here"), in_dir(f, "caption.references=", "gt.json"), NULL), OK);
    Json *gt = read_json(f, "gt.json"), *scores = read_json(f, "made/here/scores.json");
    const Json *images = json_get(gt, "images"), *notes = json_get(gt, "annotations");
    assert_int_equal(json_len(images), FIX_IMAGES);
    assert_int_equal(json_len(notes), FIX_TEXTS);
    for (int64_t t = 0; t < FIX_TEXTS; t++) {
        size_t n;
        const char *want = set_caption(f->data, f->set.image[f->set.owner[t]], f->set.caption[t], &n);
        const char *got = string(json_at(notes, (size_t)t), "caption");
        assert_int_equal(strlen(got), n);
        assert_memory_equal(got, want, n);
        assert_string_equal(string(json_at(notes, (size_t)t), "image_id"), fix_ids[f->set.owner[t]]);
    }
    assert_non_null(json_get(json_get(scores, "corpus"), "CIDEr"));
    json_free(scores);
    json_free(gt);
    check_captions(f, "made/here/captions.json", SEARCH_BEAM, 3, 10);
}

static void one_image_has_a_number(void **state) {
    const ModelFixture *f = *state;
    assert_int_equal(run(f, in_dir(f, "out=", "first.json"), "caption.limit=1", NULL), OK);
    Json *doc = read_json(f, "first.json");
    int64_t id = -1;
    assert_int_equal(json_len(doc), 1);
    assert_true(json_int(json_get(json_at(doc, 0), "image_id"), &id));
    assert_int_equal(id, 1);
    json_free(doc);
}

static void numbers_of_names(void **state) {
    (void)state;
    const struct { const char *name; int64_t id; } good[] = {
        {"COCO_val2014_000000391895.jpg", 391895}, {"391895", 391895}, {"test/000000.png", 0}, {"a/b_7.jpeg", 7},
        {"x12", 12}, {"v1.2", 2}, {"00000000000000000000000000000005.jpg", 5},
        {"999999999999999999", 999999999999999999}};
    const char *const bad[] = {"", "name", "12a", "photo.jpg", "1000000000000000000", ".png", "3."};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t id = -1;
        assert_true(caption_id(good[i].name, &id));
        assert_int_equal(id, good[i].id);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(caption_id(bad[i], &(int64_t){0}));
}

static void refused(Status got, const char *sentence) {
    assert_int_equal(got, ERR_USAGE);
    if (!strstr(err_message(), sentence)) fail_msg("the message is: %s", err_message());
    err_clear();
}

static void requests_that_cannot_work(void **state) {
    const ModelFixture *f = *state;
    refused(run(f, "caption.max_length=40", NULL), "39 text positions; the model has 24");
    refused(run(f, "data.test_split=nowhere", NULL), "nowhere");
    refused(run(f, "caption.mode=beams", NULL), "caption.mode");
    refused(run(f, "caption.beams=65", NULL), "caption.beams");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(captions_of_a_set),         cmocka_unit_test(files_in_a_folder),
        cmocka_unit_test(one_image_has_a_number),    cmocka_unit_test(numbers_of_names),
        cmocka_unit_test(requests_that_cannot_work),
    };
    return cmocka_run_group_tests(tests, model_setup, model_teardown);
}
