/* test_ask: questions about pictures, as a user asks them: the set's own, a file, a conversation; the same answers
 * one by one as together; what is refused. The model is random: that it answers, and always alike,
 * is what is looked at. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kit/folder.h"
#include "tests/kit/lmfolder.h"

#define SHAPE " model.layers=2 model.hidden=32 model.heads=2 model.queries=4 device=cpu precision=f32 threads=2"

static int prepare(void **state) {
    if (folder_setup(state)) return 1;
    if (!program_path()) return 0;
    lmfolder_make("lm", DT_F32);
    folder_must("synth out=s.h5 synth.train=24 synth.val=4 synth.test=6 synth.questions=2 synth.images=test");
    folder_must("pretrain stage=2 stage2.lm=lm data.train=s.h5 data.val=s.h5 out=run data.sample=images train.batch=4 "
                "train.steps=3" SHAPE);
    return 0;
}

#define ASK "ask run device=cpu precision=f32 "

/* All questions of the six test scenes, in one file; the same whatever runs together, judged by sort. */
static void own_questions(void **state) {
    (void)state;
    folder_says(ASK "data.test=s.h5 out=a.json", "of 12 questions");
    folder_must(ASK "data.test=s.h5 out=b.json use.batch=1");
    assert_int_equal(folder_shell("cmp a.json b.json"), 0);
    assert_int_equal(folder_shell("test $(grep -c '\"answer\"' a.json) = 12"), 0);
    folder_must(ASK "data.test=s.h5 out=c.json ask.mode=sample ask.temperature=3 ask.top_p=1 ask.top_k=0");
    folder_must(ASK "data.test=s.h5 out=d.json ask.mode=sample ask.temperature=3 ask.top_p=1 ask.top_k=0 use.batch=2");
    assert_int_equal(folder_shell("cmp c.json d.json"), 0);          /* draws do not hang on what runs together */
    assert_int_equal(folder_shell("! cmp -s a.json c.json"), 0);
}

static void a_file(void **state) {
    (void)state;
    folder_write("q.json", "{\"questions\": [{\"image_id\": 3, \"question\": \"what is it?\", \"question_id\": 31},"
                           "{\"image_id\": 1, \"question\": \"where?\", \"question_id\": \"x\"}]}");
    folder_must(ASK "data.test=s.h5 ask.questions=q.json out=e.json");
    assert_int_equal(folder_shell("grep -q '\"question_id\": 31' e.json && grep -q '\"question_id\": \"x\"' e.json"),
                     0);
    folder_must(ASK "data.test=s.h5 ask.questions=q.json out=f.json ask.chat=chatml");
    folder_write("steps.jsonl", "{\"image\": \"test/000002.png\", \"question\": \"who?\"}\n");
    folder_write("step.sh",
                 "$Q " ASK "data.test=s.h5 ask.questions=steps.jsonl out=g.json 'ask.steps=See: {}|{} and {answer}:'");
    assert_int_equal(folder_shell(". ./step.sh"), 0);
    assert_int_equal(folder_shell("test $(grep -c '\"answer\"' g.json) = 1"), 0);
    folder_write("lost.jsonl", "{\"image\": \"nowhere.png\", \"question\": \"who?\"}\n");
    folder_refuses(ASK "data.test=s.h5 ask.questions=lost.jsonl", "nowhere.png is none of the 6");
    folder_write("bad.jsonl", "{\"image\": \"test/000002.png\"}\n");
    folder_fails(ASK "data.test=s.h5 ask.questions=bad.jsonl", "a \"question\" are wanted");
    folder_refuses(ASK "data.test=s.h5 ask.max_new=500", "stage2.max_new=500");
}

/* The likeliest of a list, whatever its order and however many slots it takes. */
static void choices(void **state) {
    (void)state;
    folder_write("few.txt", "red\nblue\nyes\nno\n");
    folder_write("turned.txt", "no\nyes\nblue\nred\n");
    folder_must(ASK "data.test=s.h5 ask.choices=few.txt out=few.json");
    folder_must(ASK "data.test=s.h5 ask.choices=turned.txt out=turned.json use.batch=1 ask.mode=greedy");
    assert_int_equal(folder_shell("cmp few.json turned.json"), 0);
    assert_int_equal(folder_shell("test $(grep -cE '\"answer\": \"(red|blue|yes|no)\"' few.json) = 12"), 0);
    folder_write("own.jsonl", "{\"image\": \"000001\", \"question\": \"who?\", \"choices\": [\"a dog\", \"a cat\"]}\n"
                              "{\"image\": \"000001\", \"question\": \"where?\"}\n");
    folder_refuses(ASK "data.test=s.h5 ask.questions=own.jsonl", "1 of 2 questions have choices");
    folder_must(ASK "data.test=s.h5 ask.questions=own.jsonl ask.choices=few.txt out=own.json");
    assert_int_equal(folder_shell("grep -qE 'a (dog|cat)' own.json"), 0);
    folder_write("long.txt",
                 "a very long answer that has far more words in it than anybody would ever give to a question\n");
    folder_refuses(ASK "data.test=s.h5 ask.choices=long.txt", "tokens, and room is made for");
}

/* Forgotten turns give the first answer again; a picture is a set of one. */
static void a_conversation(void **state) {
    (void)state;
    assert_int_equal(folder_shell("printf 'what?\\nwhere?\\n/reset\\nwhat?\\n/image "
                                  "test/000003.png\\nwhat?\\n/quit\\n' | "
                                  "$Q " ASK "data.test=test/000001.png >talk 2>/dev/null"), 0);
    assert_int_equal(folder_shell("test $(wc -l <talk) = 4 && test \"$(sed -n 1p talk)\" = \"$(sed -n 3p talk)\""), 0);
}

static void captions(void **state) {
    (void)state;
    folder_must("caption run data.test=s.h5 out=captions.json device=cpu precision=f32");
    folder_must("caption run data.test=s.h5 out=captions1.json device=cpu precision=f32 use.batch=1");
    assert_int_equal(folder_shell("cmp captions.json captions1.json"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_questions), cmocka_unit_test(a_file), cmocka_unit_test(choices),
        cmocka_unit_test(a_conversation),
            cmocka_unit_test(captions),
    };
    return cmocka_run_group_tests(tests, prepare, folder_teardown);
}
