/* metrics, coco, score, jars: the worked example of the specification, the reference's sets, what files must look like,
 * and the talk with the Java programs against stand-ins written in shell.
 *
 * set5, edge and one lie in tests/golden/metrics; set50 and set800 are used where the reference's folder is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/json.h"
#include "eval/metrics/metrics.h"
#include "eval/metrics/score.h"
#include "eval/result.h"
#include "kernels/base/mem.h"

static void close_to(double got, double want, double tolerance, const char *what) {
    double e = fabs(got - want) / fmax(fabs(want), 1e-12);
    if (!(e <= tolerance)) fail_msg("%s is %.17g, wanted %.17g", what, got, want);
}

static void add(Metrics *m, const char *candidate, const char *const *references) {
    assert_int_equal(metrics_image(m, candidate, strlen(candidate)), OK);
    for (; *references; references++) assert_int_equal(metrics_reference(m, *references, strlen(*references)), OK);
}

static Metrics *make(void) {
    Metrics *m = NULL;
    assert_int_equal(metrics_new(&m), OK);
    return m;
}

/* spec/evaluation.md 7g */
static void worked_example(void **state) {
    (void)state;
    static const double bleu[] = {0.711766580, 0.638042835, 0.402475944, 6.458730e-05};
    MetricScores corpus, image[2];
    Metrics *m = make();
    add(m, "a cat sits on the mat", (const char *[]){"a cat is on the mat", "there is a cat on the mat", NULL});
    add(m, "two dogs run", (const char *[]){"two dogs are running in the park", "dogs run in a park", NULL});
    assert_int_equal(metrics_compute(m, &corpus, image), OK);
    for (int k = 0; k < 4; k++) close_to(corpus.bleu[k], bleu[k], 1e-6, "BLEU");
    close_to(image[0].rouge_l, 0.833333333, 1e-6, "ROUGE-L of A");
    close_to(image[1].rouge_l, 0.478431373, 1e-6, "ROUGE-L of B");
    close_to(corpus.rouge_l, 0.655882353, 1e-6, "ROUGE-L");
    close_to(image[0].cider, 3.777822932, 1e-6, "CIDEr of A");
    close_to(image[1].cider, 1.861526676, 1e-6, "CIDEr of B");
    close_to(corpus.cider, 2.819674804, 1e-6, "CIDEr");
    metrics_free(m);
}

/* Computing again, and in another order of images and references, changes nothing. */
static void order_does_not_matter(void **state) {
    (void)state;
    MetricScores a, b, again;
    Metrics *m = make(), *k = make();
    add(m, "a cat on a mat", (const char *[]){"a cat is on a mat", "the cat", NULL});
    add(m, "a dog", (const char *[]){"a dog on a mat", NULL});
    add(m, "x", (const char *[]){"the y", "x y", "a x", NULL});
    add(k, "x", (const char *[]){"a x", "the y", "x y", NULL});
    add(k, "a dog", (const char *[]){"a dog on a mat", NULL});
    add(k, "a cat on a mat", (const char *[]){"the cat", "a cat is on a mat", NULL});
    assert_int_equal(metrics_count(m), 3);
    assert_int_equal(metrics_compute(m, &a, NULL), OK);
    assert_int_equal(metrics_compute(m, &again, NULL), OK);
    assert_int_equal(metrics_compute(k, &b, NULL), OK);
    assert_memory_equal(&a, &again, sizeof a);
    for (int i = 0; i < 4; i++) close_to(a.bleu[i], b.bleu[i], 1e-12, "BLEU");
    close_to(a.rouge_l, b.rouge_l, 1e-12, "ROUGE-L");
    close_to(a.cider, b.cider, 1e-12, "CIDEr");
    metrics_free(m);
    metrics_free(k);
}

static void nothing_to_score(void **state) {
    (void)state;
    MetricScores s;
    Metrics *m = make();
    assert_int_equal(metrics_compute(m, &s, NULL), ERR_USAGE);
    assert_int_equal(metrics_image(m, "a", 1), OK);
    assert_int_equal(metrics_compute(m, &s, NULL), ERR_USAGE);
    assert_string_equal(err_message(), "image 0 of 1 has no reference caption");
    metrics_free(m);
}

/* ---- sets of the reference ---- */

static const char *const names[] = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"};

static void compare(const MetricScores *m, const Json *want, double tolerance) {
    for (int k = 0; k < 6; k++) {
        double w = -1;
        assert_true(json_num(json_get(want, names[k]), &w));
        close_to(k < 4 ? m->bleu[k] : k == 4 ? m->rouge_l : m->cider, w, tolerance, names[k]);
    }
}

static Status add_tokens(void *ctx, int64_t i, const Json *item) {
    Metrics *m = ctx;
    const Json *references = json_get(item, "references");
    size_t n = 0;
    const char *s = json_str(json_get(item, "candidate"), &n);
    Status st = metrics_image(m, s, n);
    (void)i;
    for (size_t r = 0; r < json_len(references) && !st; r++) {
        s = json_str(json_at(references, r), &n);
        st = metrics_reference(m, s, n);
    }
    return st;
}

static char *file(const char *folder, const char *set, const char *what) {
    char *path = mem_format("%s/%s_%s", folder, set, what);
    assert_non_null(path);
    return path;
}

static void check_set(const char *folder, const char *set) {
    char *gt = file(folder, set, "gt.json"), *res = file(folder, set, "res.json");
    char *tokens = file(folder, set, "tokens.jsonl"), *scores = file(folder, set, "scores.json");
    Json *want = NULL;
    Metrics *m = make();
    MetricScores corpus, *images;
    Scores s;
    if (json_parse_file(&want, scores)) fail_msg("%s", err_message());

    if (json_each(tokens, add_tokens, m)) fail_msg("%s", err_message());   /* given the tokens */
    images = mem_new(metrics_count(m), sizeof *images);
    assert_non_null(images);
    assert_int_equal(metrics_compute(m, &corpus, images), OK);
    compare(&corpus, json_get(want, "corpus"), 1e-9);
    assert_int_equal(metrics_count(m), json_len(json_get(want, "images")));
    for (size_t i = 0; i < metrics_count(m); i++) compare(&images[i], json_at(json_get(want, "images"), i), 1e-9);

    if (score_files(gt, res, NULL, &s)) fail_msg("%s", err_message());     /* from raw captions */
    compare(&s.corpus, json_get(want, "corpus"), 1e-6);
    for (size_t i = 0; i < s.coco.n; i++) compare(&s.images[i], json_at(json_get(want, "images"), i), 1e-6);
    assert_false(s.meteor.computed);
    score_free(&s);
    metrics_free(m);
    free(images);
    json_free(want);
    free(gt);
    free(res);
    free(tokens);
    free(scores);
}

static void sets(void **state) {
    (void)state;
    check_set("tests/golden/metrics", "set5");
    check_set("tests/golden/metrics", "edge");
    check_set("tests/golden/metrics", "one");
}

static void reference_sets(void **state) {
    (void)state;
    if (access("../shared/golden/metrics/set50_gt.json", R_OK)) skip();
    check_set("../shared/golden/metrics", "set50");
    check_set("../shared/golden/metrics", "set800");
}

/* ---- files ---- */

#define IMAGES "{\"images\": [{\"id\": 1}, {\"id\": \"b\"}], \"annotations\": "
#define GT IMAGES "[{\"image_id\": 1, \"id\": 5, \"caption\": \"a\"}, {\"image_id\": \"b\", \"caption\": \"c\"}]}"
#define RES "[{\"image_id\": \"1\", \"caption\": \"a\"}, {\"image_id\": \"b\", \"caption\": \"\"}]"

static void refused_files(void **state) {
    (void)state;
    static const struct { const char *gt, *res, *message; } rows[] = {
        {"[]", RES, "gt: \"images\" is not a list of at least one image"},
        {"{\"images\": []}", RES, "gt: \"images\" is not a list of at least one image"},
        {"{\"images\": [{}]}", RES,
         "gt: images[0].id is not a whole number or a string of 1 to 255 bytes without NUL"},
        {"{\"images\": [{\"id\": \"a\\u0000b\"}]}", RES,
         "gt: images[0].id is not a whole number or a string of 1 to 255 bytes without NUL"},
        {"{\"images\": [{\"id\": 1}, {\"id\": 1}]}", RES, "gt: image 1 is listed twice"},
        {IMAGES "7}", RES, "gt: \"annotations\" is not a list"},
        {IMAGES "[]}", RES, "gt: image 1 has no caption among the 0 \"annotations\""},
        {IMAGES "[{\"image_id\": 9, \"caption\": \"a\"}]}", RES,
         "gt: annotations[0] is of image 9, which is not among the 2 \"images\" of gt"},
        {IMAGES "[{\"image_id\": 1, \"caption\": 4}]}", RES, "gt: annotations[0].caption is not a string"},
        {GT, "{}", "res: not a list of {\"image_id\": ..., \"caption\": ...}"},
        {GT, "[{\"image_id\": 1, \"caption\": \"a\"}, {\"image_id\": 1, \"caption\": \"a\"}]",
         "res: image 1 has two captions, one is wanted"},
        {GT, "[{\"image_id\": 1, \"caption\": \"a\"}]",
         "res: 1 of the 2 images of gt have no caption, the first of them is image b; score.subset=true scores the others"},
        {GT, "[{\"image_id\": 2, \"caption\": \"a\"}]",
         "res: result[0] is of image 2, which is not among the 2 \"images\" of gt"},
        {GT, "[{\"image_id\": 1.5, \"caption\": \"a\"}]",
         "res: result[0].image_id is not a whole number or a string of 1 to 255 bytes without NUL"},
    };
    Coco c;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Status st = coco_parse(&c, rows[i].gt, strlen(rows[i].gt), "gt", rows[i].res, strlen(rows[i].res), "res");
        assert_int_equal(st, ERR_FORMAT);
        assert_string_equal(err_message(), rows[i].message);
        assert_null(c.images);
    }
    assert_int_equal(coco_read(&c, "no/such.json", "res", false), ERR_IO);
    assert_int_equal(coco_parse(&c, GT, strlen(GT), "gt", RES, strlen(RES), "res"), OK);
    assert_int_equal(c.n, 2);
    assert_true(c.images[0].number && !c.images[1].number);
    coco_free(&c);
    coco_free(&c);
}

/* ---- output and the Java programs ---- */

static char folder[] = "/tmp/qformer-metrics-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state) {
    (void)state;
    static const char *const files[] = {"scores.json", "java", "any.jar", "said"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = mem_format("%s/%s", folder, files[i]);
        unlink(path);
        free(path);
    }
    return rmdir(folder);   /* fails when a temporary file was left behind */
}

static void write_file(const char *name, const char *text) {
    char *path = mem_format("%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    chmod(path, 0755);
    free(path);
}

static Status score_with(const char *java, bool meteor, Scores *s) {
    char *program = mem_format("%s/java", folder), *jar = mem_format("%s/any.jar", folder);
    ScoreOptions o = {.java = program};
    Coco c;
    Status st;
    *(meteor ? &o.meteor_jar : &o.spice_jar) = jar;
    setenv("TMPDIR", folder, 1);                             /* SPICE's files */
    write_file("java", java);
    write_file("any.jar", "");
    assert_int_equal(coco_parse(&c, GT, strlen(GT), "gt", RES, strlen(RES), "res"), OK);
    st = score_coco(&c, &o, s);
    assert_null(c.images);
    free(program);
    free(jar);
    return st;
}

static void output(void **state) {
    (void)state;
    char *path = mem_format("%s/scores.json", folder);
    Json *j = NULL;
    Scores s;
    int64_t id = 0;
    double v = 0;
    Coco c;
    assert_int_equal(coco_parse(&c, GT, strlen(GT), "gt", RES, strlen(RES), "res"), OK);
    assert_int_equal(score_coco(&c, NULL, &s), OK);
    assert_int_equal(result_json(path, 1, score_json, &s), OK);
    assert_int_equal(json_parse_file(&j, path), OK);
    assert_int_equal(json_type(json_get(json_get(j, "corpus"), "METEOR")), J_NULL);
    assert_true(json_num(json_get(json_get(j, "corpus"), "CIDEr"), &v) && v == s.corpus.cider);
    assert_true(json_int(json_get(json_at(json_get(j, "images"), 0), "image_id"), &id) && id == 1);
    assert_string_equal(json_str(json_get(json_at(json_get(j, "images"), 1), "image_id"), NULL), "b");
    json_free(j);
    free(path);
    score_free(&s);
    score_free(&s);
}

/* Answers as METEOR does: a line of statistics a SCORE, and for EVAL a number an image and one for all. */
static void meteor_talk(void **state) {
    (void)state;
    Scores s;
    Status st = score_with("#!/bin/sh\n"
                           "echo \"$@\" > said\n"
                           "while read -r line; do\n"
                           "    echo \"$line\" >> said\n"
                           "    case \"$line\" in\n"
                           "    SCORE*) echo '1.0 2.0 ' ;;\n"
                           "    EVAL*) printf '0.25\\n0.5\\n0.375\\n' ;;\n"
                           "    esac\n"
                           "done\n", true, &s);
    char text[512] = {0}, want[512], *path = mem_format("%s/said", folder);
    FILE *f = fopen(path, "r");
    if (st) fail_msg("%s", err_message());
    assert_non_null(f);
    assert_true(fread(text, 1, sizeof text - 1, f) > 0);
    fclose(f);
    snprintf(want, sizeof want, "-Xmx2G -jar %s/any.jar - - -stdio -l en -norm\nSCORE ||| a ||| a\nSCORE ||| c |||\n"
             "EVAL ||| 1.0 2.0 ||| 1.0 2.0\n", folder);
    assert_string_equal(text, want);
    assert_true(s.meteor.computed && !s.spice.computed);
    assert_true(s.meteor.images[0] == 0.25 && s.meteor.images[1] == 0.5 && s.meteor.corpus == 0.375);
    free(path);
    score_free(&s);
}

static void spice_talk(void **state) {
    (void)state;
    Scores s;
    Status st = score_with("#!/bin/sh\n"   /* $4: input, $6: output */
                           "grep -q '\"test\": *\"a\"' \"$4\" || exit 3\n"
                           "printf '[{\"image_id\": 1, \"scores\": {\"All\": {\"f\": null}}},' > \"$6\"\n"
                           "printf '{\"image_id\": 0, \"scores\": {\"All\": {\"f\": 0.5}}}]' >> \"$6\"\n", false, &s);
    if (st) fail_msg("%s", err_message());
    assert_true(s.spice.computed && s.spice.corpus == 0.5 && s.spice.images[0] == 0.5 && isnan(s.spice.images[1]));
    score_free(&s);
}

static void jars_that_fail(void **state) {
    (void)state;
    static const struct { const char *java; bool meteor; const char *message; } rows[] = {
        {"#!/bin/sh\nexit 1\n", true, "METEOR: the program stopped while "},
        {"#!/bin/sh\nread -r l\necho 'Error: no paraphrases'\ncat > /dev/null\n", true,
         "METEOR: \"Error: no paraphrases\" came for the statistics of image 0"},
        {"#!/bin/sh\nwhile read -r l; do echo '1 2'; done\n", true, "METEOR: \"1 2\" came where a score was awaited"},
        {"#!/bin/sh\nread -r l\nprintf '1 2'\n", true, "METEOR: the program stopped while its answer was awaited"},
        {"#!/no/such/interpreter\n", true, "METEOR: "},
        {"#!/bin/sh\nexit 7\n", false, "SPICE: the program ended with code 7"},
        {"#!/bin/sh\nexit 0\n", false, folder},
        {"#!/bin/sh\necho '[{\"image_id\": 5}]' > \"$6\"\n", false, folder},
        {"#!/bin/sh\necho '[]' > \"$6\"\n", false, folder},
    };
    Scores s;
    ScoreOptions o = {.meteor_jar = "no/such.jar"};
    Coco c;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Status st = score_with(rows[i].java, rows[i].meteor, &s);
        assert_int_not_equal(st, OK);
        if (strncmp(err_message(), rows[i].message, strlen(rows[i].message))) {
            fail_msg("row %zu: \"%s\", wanted \"%s...\"", i, err_message(), rows[i].message);
        }
        assert_null(s.images);
    }
    assert_int_equal(coco_parse(&c, GT, strlen(GT), "gt", RES, strlen(RES), "res"), OK);
    assert_int_equal(score_coco(&c, &o, &s), ERR_IO);
    assert_string_equal(err_message(), "METEOR: no/such.jar: No such file or directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_example), cmocka_unit_test(order_does_not_matter), cmocka_unit_test(nothing_to_score),
        cmocka_unit_test(sets), cmocka_unit_test(reference_sets), cmocka_unit_test(refused_files),
        cmocka_unit_test(output), cmocka_unit_test(meteor_talk), cmocka_unit_test(spice_talk),
        cmocka_unit_test(jars_that_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
