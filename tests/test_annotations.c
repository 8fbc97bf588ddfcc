/* Every form of annotation file gives the same list; every mistake gives a sentence with file and place. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/make/annotations.h"

static const char train_form[] =
    "[{\"image\": \"a/1.jpg\", \"caption\": \"one\", \"image_id\": \"x_1\"},\n"
    " {\"image\": \"a/2.jpg\", \"caption\": \"two\", \"image_id\": \"x_2\"},\n"
    " {\"image\": \"a/1.jpg\", \"caption\": \"uno, \\\"eins\\\"\", \"image_id\": \"x_1\"}]";
static const char eval_form[] = "[{\"image\": \"a/1.jpg\", \"caption\": [\"one\", \"uno, \\\"eins\\\"\"]}, {\"image\": "
                                "\"a/2.jpg\", \"caption\": [\"two\", \"  \"]}]";
static const char coco_form[] =
    "{\"info\": {}, \"images\": [{\"id\": 7, \"file_name\": \"a/1.jpg\"}, {\"id\": 9, \"file_name\": \"none.jpg\"},"
    " {\"id\": 8, \"file_name\": \"a/2.jpg\"}], \"annotations\": [{\"id\": 1, \"image_id\": 7, \"caption\": \"one\"},"
    " {\"id\": 2, \"image_id\": 8, \"caption\": \"two\"}, {\"id\": 3, \"image_id\": 7, \"caption\": \"uno, "
    "\\\"eins\\\"\"}]}";
static const char karpathy_form[] =
         "{\"dataset\": \"coco\", \"images\": [{\"filepath\": \"a\", \"filename\": \"1.jpg\", \"split\": \"restval\", "
         "\"sentences\":"
         " [{\"raw\": \"one\", \"tokens\": [\"one\"]}, {\"raw\": \"uno, \\\"eins\\\"\"}]},"
         " {\"filepath\": \"a\", \"filename\": \"2.jpg\", \"split\": \"train\", \"sentences\": [{\"raw\": \"two\"}]}]}";
static const char csv_form[] = "\xef\xbb\xbfimage,caption,split\r\na/1.jpg,one,train\r\n\r\na/2.jpg,two,train\r\n\"a/"
                               "1.jpg\",\"uno, \"\"eins\"\"\",train";
static const char tsv_form[] = "caption\timage\none\ta/1.jpg\ntwo\ta/2.jpg\n\"uno, \"\"eins\"\"\"\ta/1.jpg\n";

static void forms_agree(void **state) {
    (void)state;
    static const char *const forms[] = {train_form, eval_form, coco_form, karpathy_form, csv_form, tsv_form};
    for (size_t i = 0; i < 6; i++) {
        Annotations a = {0};
        if (annotations_add_text(&a, forms[i], strlen(forms[i]), &(AnnotationFile){.path = "dir/some.json"}) != OK)
            fail_msg("%s", err_message());
        assert_int_equal(annotations_finish(&a), OK);
        assert_int_equal(a.count, 2);
        assert_int_equal(a.ncaptions, 3);
        assert_int_equal(a.blank, i == 1);
        assert_int_equal(a.uncaptioned, i == 2);
        assert_string_equal(a.images[0].image, "a/1.jpg");
        assert_string_equal(a.images[1].image, "a/2.jpg");
        assert_int_equal(a.images[0].ncaptions, 2);
        assert_string_equal(a.images[0].captions[0], "one");
        assert_string_equal(a.images[0].captions[1], "uno, \"eins\"");
        assert_string_equal(a.images[1].captions[0], "two");
        assert_string_equal(a.images[0].split, i == 3 ? "restval" : "train");
        assert_string_equal(a.images[0].file, "some.json");
        assert_int_equal(annotations_find(&a, "a/2.jpg"), 1);
        assert_int_equal(annotations_find(&a, "none.jpg"), -1);
        annotations_free(&a);
    }
}

static void split_rules(void **state) {
    (void)state;
    static const struct { const char *file, *given, *want; } cases[] = {
        {"coco_karpathy_train.json", NULL, "train"},
        {"captions_val2014.json", NULL, "val"},
        {"x/test.json", "", "test"},
        {"latest.json", NULL, "train"},
        {"Test.json", NULL, "test"},
        {"test.json", "dev2", "dev2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Annotations a = {0};
        assert_int_equal(annotations_add_text(&a, train_form, strlen(train_form),
                                              &(AnnotationFile){.path = cases[i].file, .split = cases[i].given}),
                         OK);
        assert_int_equal(annotations_finish(&a), OK);
        assert_string_equal(a.images[0].split, cases[i].want);
        annotations_free(&a);
    }
}

static void mistakes(void **state) {
    (void)state;
    static const struct { const char *text, *says;
    } cases[] = {
        {"", "f.json: the file is empty"},
        {"   ", "f.json: the file is empty"},
        {"[]", "f.json: no images"},
        {"[{\"image\": \"a\", \"words\": \"x\"}]", "extract.caption_column=words takes \"words\" for it"},
        {"[{\"image\": \"a\", \"caption\": \"x\"}, {\"image\": 3, \"caption\": \"x\"}]",
         "entry 2: \"image\" is not a string"},
        {"[{\"image\": \"\", \"caption\": \"x\"}]", "entry 1: the image has no name"},
        {"[{\"image\": \"a\", \"caption\": [1]}]", "entry 1: caption 1 is not a string"},
        {"[{\"image\": \"a\\u0000b\", \"caption\": \"x\"}]", "NUL"},
        {"[[]]", "entry 1: an object {...} is wanted here"},
        {"[{\"image\": \"a\", \"caption\": \"x\"}", "f.json:1"},
        {"{\"images\": [], \"annotations\": [{\"image_id\": 3, \"caption\": \"x\"}]}",
         "entry 1 of \"annotations\": image_id 3 is not"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"a\"}, {\"id\": 1, \"file_name\": \"b\"}], \"annotations\": []}",
         "entry 2 of \"images\": id 1 occurs twice"},
        {"{\"images\": [{\"id\": 1}], \"annotations\": []}", "there is no \"file_name\""},
        {"{\"a\": 1}", "none of the known forms"},
        {"image,caption\na,b,c\n", "f.json:2: 3 fields, the header has 2"},
        {"image,caption\na,\"b\n", "f.json:2: a quote that is not closed"},
        {"image,caption\na,\"b\"c\n", "f.json:2: text after a closing quote"},
        {"image,caption\n\xff,b\n", "f.json:2: the text is not UTF-8"},
        {"foo,bar\na,b\n", "f.json:1: a table by its first line, 2 columns separated by commas (foo, bar), but none is "
                           "called image or caption"},
        {"[{\"image\": \"a\", \"caption\": \"x\", \"split\": \"test\"}, {\"image\": \"a\", \"caption\": \"y\", "
         "\"split\": \"val\"}]",
         "entry 2: image a is in split val here and in test in f.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Annotations a = {0};
        Status st = annotations_add_text(&a, cases[i].text, strlen(cases[i].text), &(AnnotationFile){.path = "f.json"});
        if (st == OK) st = annotations_finish(&a);
        assert_int_equal(st, ERR_FORMAT);
        if (!strstr(err_message(), cases[i].says)) fail_msg("case %zu says: %s", i, err_message());
        annotations_free(&a);
    }
}

/* Files: the same text by way of the disk, and JSON Lines, which only files can have. */
static void files(void **state) {
    (void)state;
    static const char lines[] = "{\"image\": \"b/3.jpg\", \"caption\": \"three\"}\n{\"image\": \"b/4.jpg\", "
                                "\"caption\": [\"four\", \"vier\"]}\n";
    char dir[] = "/tmp/qf-ann-XXXXXX", path[3][64];
    assert_non_null(mkdtemp(dir));
    const char *const text[3] = {train_form, lines, csv_form};
    const char *const name[3] = {"train.json", "val.jsonl", "test.csv"};
    Annotations a = {0};
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", dir, name[i]);
        FILE *f = fopen(path[i], "wb");
        assert_non_null(f);
        fputs(text[i], f);
        fclose(f);
        if (annotations_add(&a, &(AnnotationFile){.path = path[i]}) != OK) fail_msg("%s", err_message());
    }
    assert_int_equal(annotations_finish(&a), OK);
    assert_int_equal(a.count, 4);
    assert_int_equal(a.ncaptions, 6);
    assert_string_equal(a.images[3].image, "b/4.jpg");
    assert_string_equal(a.images[3].split, "val");
    assert_string_equal(a.images[3].captions[1], "vier");
    annotations_free(&a);
    assert_int_equal(annotations_add(&a, &(AnnotationFile){.path = "/tmp/there-is-no-such-file.json"}), ERR_IO);
    annotations_free(&a);
    for (int i = 0; i < 2; i++) unlink(path[i]);
    rmdir(dir);
}

/* The real set: counts from its README. */
static void openclipart(void **state) {
    (void)state;
    static const char *const names[3] = {"train", "val", "test"};
    static const int want[3] = {2744, 199, 273};
    int got[3] = {0};
    char path[128];
    if (access("../shared/data/openclipart/train.json", R_OK)) skip();
    Annotations a = {0};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "../shared/data/openclipart/%s.json", names[i]);
        if (annotations_add(&a, &(AnnotationFile){.path = path}) != OK) fail_msg("%s", err_message());
    }
    assert_int_equal(annotations_finish(&a), OK);
    for (int64_t i = 0; i < a.count; i++)
        for (int k = 0; k < 3; k++) got[k] += !strcmp(a.images[i].split, names[k]);
    assert_memory_equal(got, want, sizeof got);
    annotations_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_agree), cmocka_unit_test(split_rules), cmocka_unit_test(mistakes),
        cmocka_unit_test(files), cmocka_unit_test(openclipart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
