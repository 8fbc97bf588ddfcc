/* say: how likely given answers are behind a picture and a prompt, against transformers' log-probabilities in float64 of
 * the same folder (tests/golden/rank): together and one by one, in few slots and many. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "eval/say.h"
#include "tests/kit/folder.h"

enum { CHOICES = 5 };

static Options *options_of(void) {
    Options *o = NULL;
    char in[300], set[300];
    snprintf(in, sizeof in, "in=%s", folder_path("rank"));
    snprintf(set, sizeof set, "data.test=%s", folder_path("set.h5"));
    char most[] = "stage2.max_prompt=256", device[] = "device=cpu", precision[] = "precision=f32";
    char *argv[] = {in, set, most, device, precision};
    assert_int_equal(options_parse(&o, "ask", 5, argv), OK);
    return o;
}

/* A folder of transformers', its tokenizer, and features of two pictures. */
static int prepare(void **state) {
    char line[600], *here = realpath("tests/golden", NULL);
    if (folder_setup(state)) return 1;
    if (!program_path()) return 0;
    snprintf(line, sizeof line, "cp -r %s/rank . && cp %s/tokenizers/llama2/tokenizer.json rank && "
             "echo '[\"a.png\", \"b.png\"]' >ids.json", here, here);
    free(here);
    if (folder_shell(line)) return 1;
    folder_must("import in=rank/features.npy import.ids=ids.json out=set.h5");
    return 0;
}

/* One picture and prompt of the fixture. */
static void check_rank(Say *x, const Json *rank, const char *const *choices) {
    const Json *want = json_get(rank, "log_likelihood");
    const char *prompt = json_str(json_get(rank, "prompt"), NULL);
    double score[CHOICES], one, w;
    int64_t image = 0;
    assert_true(prompt && json_int(json_get(rank, "image"), &image) && json_len(want) == CHOICES);
    SayItem item = {.image = (int32_t)image, .prompt = prompt};
    assert_int_equal(say_rank(x, &item, choices, CHOICES, score), OK);
    for (int k = 0; k < CHOICES; k++) {
        assert_true(json_num(json_at(want, (size_t)k), &w));
        if (!(fabs(score[k] - w) <= 1e-5 * fabs(w))) fail_msg("\"%s\": %.8g, not %.8g", choices[k], score[k], w);
        assert_int_equal(say_rank(x, &item, choices + k, 1, &one), OK);
        assert_true(fabs(one - w) <= 1e-5 * fabs(w));
    }
}

static void ranks_with(int images, const Use *u, const EvalRows *rows, const Json *doc) {
    SearchSpec s = search_greedy(20, 2);
    Say x;
    const char *choices[CHOICES];
    const Json *list = json_get(doc, "choices"), *ranks = json_get(doc, "ranks");
    say_rules(&s, &u->speaker.src.d, &u->speaker.speech);
    assert_int_equal(say_open_use(&x, u, &s, images, set_dtype(u->set)), OK);
    assert_int_equal(say_look(&x, rows->rows, 2), OK);
    for (int k = 0; k < CHOICES; k++) assert_non_null(choices[k] = json_str(json_at(list, (size_t)k), NULL));
    for (size_t i = 0; i < json_len(ranks); i++) check_rank(&x, json_at(ranks, i), choices);
    say_close(&x);
}

/* Slots for two choices at a time, then for all. */
static void ranks_as_transformers(void **state) {
    (void)state;
    Options *o = options_of();
    Use u;
    EvalSet set;
    EvalRows rows;
    Json *doc = NULL;
    if (use_open(&u, o) != OK) fail_msg("%s", err_message());
    assert_int_equal(evalset_open(&set, u.set, "all", 0, &u.text), OK);
    assert_int_equal(evalrows_open(&rows, &set, u.b, 2), OK);
    assert_int_equal(evalrows_read(&rows, 0, 2), OK);
    assert_int_equal(json_parse_file(&doc, folder_path("rank/expected.json")), OK);
    assert_int_equal(json_len(json_get(doc, "ranks")), 4);
    ranks_with(2, &u, &rows, doc);
    ranks_with(8, &u, &rows, doc);
    json_free(doc);
    evalrows_close(&rows);
    evalset_close(&set);
    use_close(&u);
    options_free(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranks_as_transformers)};
    return cmocka_run_group_tests(tests, prepare, folder_teardown);
}
