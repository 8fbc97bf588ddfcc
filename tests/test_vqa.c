/* test_vqa: answers against what the official evaluation makes of them: the reference's cut, the specification's worked
 * values, GQA's and A-OKVQA's forms, and what a file must look like. */
#include "tests/kit/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/metrics/vqa.h"

static const char *file(const char *name, const char *text) {
    static char path[4][64];
    static int turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "/tmp/qformer-vqa-%d-%s", (int)getpid(), name);
    FILE *f = fopen(p, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return p;
}

static double accuracy(VqaRule rule, const char *answer, const char *const *human, size_t n) {
    double a = -1;
    assert_int_equal(vqa_accuracy(&a, rule, answer, human, n), OK);
    return a;
}

/* Worked by hand from the rules (spec/stage2.md 10). */
static void worked(void **state) {
    (void)state;
    const char *const shirts[] = {"t-shirt", "t-shirt", "t-shirt", "t shirt", "t shirt", "shirt", "Tshirt", "Tshirt",
                                  "Tshirt", "Tshirt"};
    const char *const alike[] = {"Two", "Two", "Two", "Two", "Two", "Two", "Two", "Two", "Two", "Two"};
    assert_true(fabs(accuracy(VQA_RULE_VQA, "The T-Shirt.", shirts, 10) - 1) < 1e-12);
    assert_true(fabs(accuracy(VQA_RULE_VQA, "shirt", shirts, 10) - 0.3) < 1e-12);
    assert_true(fabs(accuracy(VQA_RULE_VQA, " Two\n", alike, 10) - 1) < 1e-12);
    assert_true(accuracy(VQA_RULE_VQA, "two", alike, 10) == 0);          /* ten alike: neither side is normalised */
    assert_true(fabs(accuracy(VQA_RULE_DIRECT, "t shirt", shirts, 10) - 2 / 3.0) < 1e-12);
    assert_true(accuracy(VQA_RULE_EXACT, "A Tshirt!", shirts + 6, 1) == 1);
    assert_true(accuracy(VQA_RULE_EXACT, "shirts", shirts + 5, 1) == 0);
}

static void normalised(void **state) {
    (void)state;
    static const struct { const char *raw, *want; } rows[] = {
        {"The T-Shirt.", "t shirt"}, {"1,000 dogs", "1000 dogs"}, {"isnt", "isn't"}, {"couldntve", "couldntve"},
        {"couldnt've", "couldn't've"}, {"Zero", "0"}, {"", ""}, {"the", ""}, {"9.5 a.m.", "9.5 am"}, {"a/b , c", "b c"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *got;
        assert_int_equal(vqa_normalise(&got, rows[i].raw, strlen(rows[i].raw), VQA_ALL), OK);
        assert_string_equal(got, rows[i].want);
        free(got);
    }
}

static void forms(void **state) {
    (void)state;
    VqaScores s;
    const char *gqa = file("gqa.json",
                           "{\"01\": {\"answer\": \"yes\", \"types\": {\"semantic\": \"obj\", \"structural\": "
                           "\"verify\"}},"
                                       " \"02\": {\"answer\": \"a cat\", \"types\": {\"semantic\": \"attr\", "
                                       "\"structural\": \"query\"}}}");
    const char *said = file("said.json",
                            "[{\"questionId\": \"02\", \"prediction\": \"Cat.\"}, {\"questionId\": \"01\", "
                            "\"prediction\": \"no\"}]");
    assert_int_equal(vqa_score(&s, gqa, said, VQA_RULE_FOUND), OK);
    assert_int_equal(s.rule, VQA_RULE_EXACT);
    assert_true(s.accuracy == 0.5 && s.answer_type.kinds == 2 && tally_share(&s.question_type.kind[1]) == 100);
    vqa_free(&s);
    const char *lines = file("lines.jsonl",
                             "{\"question_id\": 7, \"direct_answers\": [\"red\", \"red\", \"red\", \"blue\"]}\n"
                                            "{\"question_id\": 8, \"direct_answers\": [\"red\", \"blue\"]}\n");
    said = file("said.jsonl", "{\"question_id\": \"7\", \"answer\": \"red\"}\n");
    assert_int_equal(vqa_score(&s, lines, said, VQA_RULE_FOUND), OK);
    assert_int_equal(s.rule, VQA_RULE_DIRECT);
    assert_true(s.accuracy == 0.5 && s.unanswered == 1);
    vqa_free(&s);
}

static void refused(void **state) {
    (void)state;
    static const struct { const char *human, *ours, *sentence; } rows[] = {
        {"[{\"question_id\": 1, \"answer\": \"x\"}, {\"question_id\": \"1\", \"answer\": \"y\"}]", "[]", "twice"},
        {"[{\"question_id\": 1}]", "[]", "no answer"},
        {"[{\"answer\": \"x\"}, {}]", "[]", "question_id"},
        {"[]", "[]", "no question"},
        {"[{\"question_id\": 1, \"answer\": \"x\"}]", "[{\"question_id\": 2, \"answer\": \"x\"}]", "question 2"},
        {"[{\"question_id\": 1, \"answer\": \"x\"}]", "[{\"question_id\": 1, \"answer\": 5}]", "no \"answer\""},
        {"[{\"question_id\": 1, \"answer\": \"x\"}]",
         "[{\"question_id\": 1, \"answer\": \"x\"}, {\"question_id\": 1, \"answer\": \"x\"}]", "answered twice"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        VqaScores s;
        const char *human = file("h.json", rows[i].human), *ours = file("o.json", rows[i].ours);
        assert_int_equal(vqa_score(&s, human, ours, VQA_RULE_FOUND), ERR_FORMAT);
        if (!strstr(err_message(), rows[i].sentence)) fail_msg("%s", err_message());
        assert_null(s.store);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked), cmocka_unit_test(normalised), cmocka_unit_test(forms), cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
