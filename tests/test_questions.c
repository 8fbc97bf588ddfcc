/* test_questions: what is asked about an image: the parts of a text, every form of annotation, templates and draws,
 * and the questions about drawn scenes, each answered anew from the scene. */
#include "tests/kit/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/make/annotations.h"
#include "data/make/synth.h"
#include "data/text/settext.h"

static void is_span(TextSpan s, const char *want) {
    if (s.n != strlen(want) || memcmp(s.s, want, s.n)) fail_msg("\"%.*s\", not \"%s\"", (int)s.n, s.s, want);
}

/* ---- parts ---- */

static void parts(void **state) {
    (void)state;
    char *answers = settext_add(settext_add(settext_add(NULL, "red"), "dark\x1Ered"), "red");
    char *text = settext_make(TEXT_QUESTION, "colour", "what \x1D colour?", answers);
    SetText t = settext_of(text, strlen(text));
    assert_int_equal(t.kind, TEXT_QUESTION);
    assert_int_equal(t.answers, 3);
    is_span(t.type, "colour");
    is_span(t.prompt, "what   colour?");
    is_span(settext_part(t.target, 0), "red");
    is_span(settext_part(t.target, 1), "dark red");
    is_span(settext_part(t.target, 2), "red");
    is_span(settext_part(t.target, 3), "");
    char *plain;
    size_t n;
    assert_int_equal(settext_plain(&plain, &n, text, strlen(text)), OK);
    is_span((TextSpan){plain, n}, "what   colour? red");
    free(plain);
    free(text);
    free(answers);
    static const char *const captions[] = {"", "a dog", "\x1D", "\x1Dq", "\x1Dqx\x1D", "\x1Dzx\x1Dy\x1Dz",
                                           "a\x1Dq\x1D\x1D"};
    for (size_t i = 0; i < sizeof captions / sizeof *captions; i++) {
        t = settext_of(captions[i], strlen(captions[i]));
        assert_int_equal(t.kind, TEXT_CAPTION);
        is_span(t.target, captions[i]);
    }
}

static void says(const char *text, const TextTemplates *with, uint64_t draw, const char *prompt, const char *target) {
    char *p, *t;
    SetText s = settext_of(text, strlen(text));
    assert_int_equal(settext_say(&p, &t, &s, with, draw), OK);
    assert_string_equal(p, prompt);
    assert_string_equal(t, target);
    free(p);
    free(t);
}

static void templates(void **state) {
    (void)state;
    const TextTemplates one = {"a photo of", "Question: {} Answer:"}, none = {"", ""}, two = {"",
        "Q: {}|{} Answer briefly."};
    says("a dog", &one, 1, "a photo of", "a dog");
    says("\x1Dq\x1Dwhat?\x1D""cat", &one, 1, "Question: what? Answer:", "cat");
    says("\x1Dq\x1Dwhat?\x1D""cat", &none, 1, "what?", "cat");
    says("\x1Di\x1DTell me.\x1D""It is.", &one, 1, "Tell me.", "It is.");
    says("\x1D" "c\x1Dwhat?\x1E" "a cat\x1Ewhere?\x1Dthere", &one, 1,
         "Question: what? Answer: a cat Question: where? Answer:", "there");
    int first = 0, cats = 0;
    for (uint64_t draw = 0; draw < 400; draw++) {
        char *p, *t;
        static const char four[] = "\x1Dq\x1Dwhat?\x1D" "cat\x1E" "cat\x1E" "dog\x1E" "cat";
        SetText s = settext_of(four, strlen(four));
        assert_int_equal(settext_say(&p, &t, &s, &two, draw), OK);
        first += !strcmp(p, "Q: what?");
        cats += !strcmp(t, "cat");
        free(p);
        free(t);
    }
    assert_in_range(first, 150, 250);
    assert_in_range(cats, 250, 350);     /* three of four people */
}

/* ---- annotations ---- */

static Annotations a;

static void add(const char *name, const char *text) {
    static const AnnotationColumns turns = {.questions = true};
    if (annotations_add_text(&a, text, strlen(text), &(AnnotationFile){.path = name, .columns = &turns}) != OK)
        fail_msg("%s", err_message());
}

static SetText text_at(const char *image, int64_t k) {
    int64_t i = annotations_find(&a, image);
    if (i < 0) fail_msg("no image %s", image);
    assert_true(k < a.images[i].ncaptions);
    return settext_of(a.images[i].captions[k], strlen(a.images[i].captions[k]));
}

static void is_question(const char *image, int64_t k, const char *type, const char *prompt, const char *first,
                        int64_t n) {
    SetText t = text_at(image, k);
    assert_int_equal(t.kind, TEXT_QUESTION);
    assert_int_equal(t.answers, n);
    is_span(t.type, type);
    is_span(t.prompt, prompt);
    is_span(settext_part(t.target, 0), first);
}

static void forms(void **state) {
    (void)state;
    add("v2_questions_train.json",
        "{\"data_subtype\": \"train2014\", \"questions\": [{\"image_id\": 42, \"question\": \"what?\","
        "\"question_id\": 420}, {\"image_id\": 42, \"question\": \"how many?\", \"question_id\": 421}]}");
    add("v2_annotations_train.json",
        "{\"data_subtype\": \"train2014\", \"annotations\": [{\"question_id\": 421, \"image_id\": 42,"
        "\"answer_type\": \"number\", \"answers\": [{\"answer\": \"2\", \"answer_id\": 1}, {\"answer\": "
        "\"two\", \"answer_id\": 2}]}]}");
    add("gqa.json",
        "{\"07\": {\"imageId\": \"n1\", \"question\": \"is it?\", \"answer\": \"yes\", \"types\": "
        "{\"semantic\": \"obj\"}}}");
    add("llava.json",
        "[{\"id\": \"1\", \"image\": \"l.jpg\", \"conversations\": [{\"from\": \"human\", \"value\": "
        "\"<image>\\nWhat?\"},"
        "{\"from\": \"gpt\", \"value\": \"A cat.\"}, {\"from\": \"human\", \"value\": \"Where?\"}, {\"from\": "
        "\"gpt\", \"value\": \"Here.\"}]}]");
    add("own.jsonl", "{\"image\": \"o.jpg\", \"question\": \"who?\", \"answers\": [\"me\", \"you\", \"me\"]}\n"
        "{\"image\": \"o.jpg\", \"text_input\": \"Say it.\", \"text_output\": \"It.\"}\n{\"image\": \"o.jpg\", "
        "\"caption\": \"a photo\"}\n");
    add("t.csv", "image,question,answer\nt.jpg,\"which, then?\",\"[\"\"a\"\", \"\"b\"\"]\"\nt.jpg,why?,so\n");
    assert_int_equal(annotations_finish(&a), OK);
    is_question("COCO_train2014_000000000042.jpg", 0, "number", "how many?", "2", 2);
    is_question("n1.jpg", 0, "obj", "is it?", "yes", 1);
    is_question("o.jpg", 0, "", "who?", "me", 3);
    is_question("t.jpg", 0, "", "which, then?", "a", 2);
    is_question("t.jpg", 1, "", "why?", "so", 1);
    SetText t = text_at("l.jpg", 1);
    assert_int_equal(t.kind, TEXT_CONVERSATION);
    is_span(t.prompt, "What?\x1E" "A cat.\x1EWhere?");
    is_span(t.target, "Here.");
    is_span(text_at("o.jpg", 1).prompt, "Say it.");
    assert_int_equal(text_at("o.jpg", 2).kind, TEXT_CAPTION);
    annotations_free(&a);
}

static void refused(void **state) {
    (void)state;
    static const struct { const char *text, *sentence; } rows[] = {
        {"{\"annotations\": [{\"question_id\": 1, \"answers\": [{\"answer\": \"x\"}]}]}", "before that of answers"},
        {"{\"questions\": [{\"question_id\": 1, \"image_id\": 2, \"question\": \"x\"}, {\"question_id\": 1, "
         "\"image_id\": 2, \"question\": \"x\"}]}", "asked twice"},
        {"[{\"image\": \"x.jpg\", \"question\": \"who?\"}]", "has no answer"},
        {"[{\"image\": \"x.jpg\", \"conversations\": [{\"from\": \"gpt\", \"value\": \"me\"}]}]", "take turns"},
    };
    static const AnnotationColumns turns = {.questions = true};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        Annotations x = {0};
        AnnotationFile f = {.path = "x.json", .columns = &turns};
        assert_int_equal(annotations_add_text(&x, rows[i].text, strlen(rows[i].text), &f), ERR_FORMAT);
        if (!strstr(err_message(), rows[i].sentence)) fail_msg("%s", err_message());
        annotations_free(&x);
    }
}

/* ---- drawn scenes ---- */

static int find(const char *const *list, int n, const char *text) {
    int found = -1;
    for (int i = 0; i < n; i++)
        if (strstr(text, list[i])) found = i;
    return found;
}

/* Objects of a colour (-1: any) and a shape. */
static int count(const Scene *s, int colour, int shape, const SynthObject **one) {
    int n = 0;
    for (int i = 0; i < s->n; i++) {
        const SynthObject *o = &s->object[i];
        if ((colour >= 0 && o->colour != colour) || (shape >= 0 && o->shape != shape)) continue;
        n++;
        *one = o;
    }
    return n;
}

/* Left of: each pair of words names one object. */
static void check_relation(const Scene *s, const SynthQuestion *q) {
    const SynthObject *one = NULL, *two = NULL;
    const char *second = strstr(q->question, "left of");
    char head[SYNTH_CAPTION];
    assert_non_null(second);
    snprintf(head, sizeof head, "%.*s", (int)(second - q->question), q->question);
    assert_int_equal(count(s, find(synth_colours, SYNTH_COLOURS, head), find(synth_shapes, SYNTH_SHAPES, head), &one), 1);
    int colour = find(synth_colours, SYNTH_COLOURS, second), shape = find(synth_shapes, SYNTH_SHAPES, second);
    assert_int_equal(count(s, colour, shape, &two), 1);
    assert_string_equal(q->answer, one->col < two->col ? "yes" : "no");
}

/* The answer anew, from the words of the question. */
static void check(const Scene *s, const SynthQuestion *q) {
    const SynthObject *o = NULL;
    int shape = find(synth_shapes, SYNTH_SHAPES, q->question), colour = find(synth_colours, SYNTH_COLOURS, q->question);
    bool by_shape = !strcmp(q->type, "colour") || !strcmp(q->type, "texture"), by_colour = !strcmp(q->type, "shape");
    if (by_shape || by_colour) assert_int_equal(count(s, by_colour ? colour : -1, by_shape ? shape : -1, &o), 1);
    if (!strcmp(q->type, "colour")) assert_string_equal(q->answer, synth_colours[o->colour]);
    if (by_colour) assert_string_equal(q->answer, synth_shapes[o->shape]);
    if (!strcmp(q->type, "texture")) assert_string_equal(q->answer, synth_textures[o->texture]);
    if (!strcmp(q->type, "count")) assert_int_equal(atoi(q->answer), s->n);
    if (!strcmp(q->type, "exists")) assert_string_equal(q->answer, count(s, colour, shape, &o) ? "yes" : "no");
    if (!strcmp(q->type, "background")) assert_string_equal(q->answer, synth_grounds[s->ground]);
    if (!strcmp(q->type, "relation")) check_relation(s, q);
}

static void drawn(void **state) {
    (void)state;
    enum { SCENES = 4000 };
    int yes = 0, no = 0, sorts = 0;
    char seen[400] = "";
    for (int i = 0; i < SCENES; i++) {
        Scene s;
        SynthQuestion q;
        assert_int_equal(synth_scene(&s, 11, SYNTH_TRAIN, i), OK);
        synth_ask(&s, i % 5, &q);
        check(&s, &q);
        yes += !strcmp(q.answer, "yes");
        no += !strcmp(q.answer, "no");
        if (!strstr(seen, q.type)) strcat(seen, q.type), sorts++;
    }
    assert_int_equal(sorts, 7);
    assert_in_range(yes, no * 85 / 100, no * 115 / 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts), cmocka_unit_test(templates), cmocka_unit_test(forms), cmocka_unit_test(refused),
        cmocka_unit_test(drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
