/* test_options: what a user may write, what is refused and with which words, and that what is printed reads back. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/options.h"
#include "configs/options_table.h"
#include "tests/kit/scratch.h"

/* Parses the words after the command, up to NULL. */
static Status parse(Options **o, const char *command, ...) {
    char *argv[16];
    int argc = 0;
    va_list ap;
    va_start(ap, command);
    while (argc < 16 && (argv[argc] = va_arg(ap, char *))) argc++;
    va_end(ap);
    return options_parse(o, command, argc, argv);
}

static const char *write_config(const char *text) {
    scratch_write("c.yaml", text);
    return scratch_path("c.yaml");
}

/* ---- what is taken ----------------------------------------------------------------------------------------------- */

static void defaults_hold(void **state) {
    (void)state;
    Options *o;
    assert_int_equal(parse(&o, "pretrain", NULL), OK);
    assert_int_equal(o->model.hidden, 768);
    assert_true(o->optim.lr == 1e-4);
    assert_true(o->model.layers == 12.0);
    assert_true(o->train.resume);
    assert_string_equal(o->run.device.name, "auto");
    assert_int_equal(o->loss.negatives.i, 0);
    assert_false(options_is_set(o, "optim.lr"));
    assert_string_equal(o->command, "pretrain");
    options_free(o);
}

static void line_wins_over_file(void **state) {
    (void)state;
    const char *path = write_config("# a comment\noptim:\n  lr: 2e-3\n  beta2: 0.95\nmodel: {layers: 4, heads: 2}\n"
                                    "train.steps: 250k\ndata:\n  train: \"a: b.h5\"\n");
    Options *o;
    assert_int_equal(parse(&o, "pretrain", "optim.lr=3e-3", path, "-vv", "--dry-run", "--train.batch", "64",
                           "--data.max-tokens=16", "--device", "cpu", NULL), OK);
    assert_true(o->optim.lr == 3e-3);
    assert_true(o->optim.beta2 == 0.95);
    assert_int_equal(o->model.layers, 4);
    assert_int_equal(o->train.steps, 250000);
    assert_int_equal(o->train.batch, 64);
    assert_int_equal(o->data.max_tokens, 16);
    assert_int_equal(o->run.verbose, 2);
    assert_true(o->run.dry_run);
    assert_string_equal(o->data.train, "a: b.h5");
    assert_string_equal(o->run.device.name, "cpu");
    assert_int_equal(o->run.device.i, 1);
    assert_true(options_is_set(o, "optim.beta2"));
    assert_false(options_is_set(o, "optim.beta1"));
    options_free(o);
}

static void file_may_serve_several_commands(void **state) {
    (void)state;
    Options *o;
    const char *path = write_config("optim: {lr: 2e-3}\nseed: 7\n");
    assert_int_equal(parse(&o, "retrieval", path, NULL), OK);
    assert_int_equal(o->run.seed, 7);
    options_free(o);
}

static void lists_and_input(void **state) {
    (void)state;
    Options *o;
    const char *path = write_config("optim:\n  freeze: [a.*, \"b\"]\ndata:\n  train:\n    - x.h5\n    - y.h5\n");
    assert_int_equal(parse(&o, "pretrain", path, NULL), OK);
    assert_string_equal(o->optim.freeze, "a.*,b");
    assert_string_equal(o->data.train, "x.h5,y.h5");
    options_free(o);
    assert_int_equal(parse(&o, "inspect", "model.safetensors", NULL), OK);
    assert_string_equal(o->run.in, "model.safetensors");
    options_free(o);
}

static void numbers(void **state) {
    (void)state;
    static const struct { const char *text; int64_t value; } good[] = {
        { "train.steps=0", 0 }, { "train.steps=+7", 7 }, { "train.steps=3M", 3000000 }, { "train.steps=12k", 12000 },
        { "train.steps=1e3", 1000 }, { "train.steps=7.0", 7 },
    };
    static const char *const bad[] = {
        "train.steps=", "train.steps= 7", "train.steps=7 ", "train.steps=1e-3", "train.steps=7.5", "train.steps=0x10",
        "train.steps=99999999999999999999", "train.steps=9223372036854775807k", "train.steps=-1", "train.steps=k",
        "optim.lr=", "optim.lr=nan", "optim.lr=inf", "optim.lr=1e999", "optim.lr=0x1p3", "optim.lr= 1", "optim.lr=1,5",
        "optim.lr=--1", "optim.lr=-1e-9", "optim.lr=10.001", "train.resume=2", "train.resume=T", "train.resume=",
        "device=gpu", "device=", "device=cpu|cuda", "loss.negatives=samples",
    };
    Options *o;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(parse(&o, "pretrain", good[i].text, NULL), OK);
        assert_int_equal(o->train.steps, good[i].value);
        options_free(o);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (parse(&o, "pretrain", bad[i], NULL) != ERR_USAGE) fail_msg("%s was taken", bad[i]);
        assert_null(o);
        assert_non_null(strstr(err_message(), "is wanted"));
    }
}

/* ---- what is refused, and the words ------------------------------------------------------------------------------ */

static void refused_on_the_line(void **state) {
    (void)state;
    static const struct { const char *word, *message; } cases[] = {
        { "optim.lrr=1", "command line: there is no option 'optim.lrr'; the nearest is optim.lr" },
        { "lr=1", "command line: there is no option 'lr'; the nearest is optim.lr" },
        { "train.lr=1", "command line: there is no option 'train.lr'; the nearest is optim.lr" },
        { "mdoel.layers=3", "command line: there is no option 'mdoel.layers'; the nearest is model.layers" },
        { "=1", "command line: there is no option ''; 'qformer pretrain --help' lists them" },
        { "qwxyz=1", "command line: there is no option 'qwxyz'; 'qformer pretrain --help' lists them" },
        { "model.layers=0", "command line: model.layers is '0', a whole number from 1 to 96 is wanted" },
        { "optim.beta1=x", "command line: optim.beta1 is 'x', a number from 0 to 0.9999 is wanted" },
        { "device=gpu", "command line: device is 'gpu', one of auto|cpu|cuda is wanted" },
        { "train.resume=maybe", "command line: train.resume is 'maybe', true or false is wanted" },
        { "out=\xff", "command line: out is '\xff', UTF-8 text of less than 64 KiB is wanted" },
        { "--device", "command line: --device is the last word, a value is wanted after it" },
        { "--nothing", "command line: there is no option 'nothing'; 'qformer pretrain --help' lists them" },
        { "x", "command line: 'x' is neither key=value nor a configuration (*.yaml), and pretrain takes no input" },
        { "absent.yaml", "cannot open the configuration absent.yaml: No such file or directory" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Options *o;
        assert_int_equal(parse(&o, "pretrain", cases[i].word, NULL), ERR_USAGE);
        assert_string_equal(err_message(), cases[i].message);
    }
    Options *o;
    assert_int_equal(parse(&o, "retrieval", "optim.lr=1", NULL), ERR_USAGE);
    assert_non_null(strstr(err_message(), "retrieval does not use optim.lr; who does: pretrain"));
    assert_int_equal(parse(&o, "inspect", "a", "b", NULL), ERR_USAGE);
    assert_int_equal(parse(&o, "pretrain", "configs", NULL), ERR_USAGE);
}

static void refused_in_a_file(void **state) {
    (void)state;
    static const struct { const char *text, *message; } cases[] = {
        { "seed: 1\noptim:\n  lrr: 2\n", "c:3: there is no option 'optim.lrr'; the nearest is optim.lr" },
        { "\n\nmodel:\n  layers: six\n", "c:4: model.layers is 'six', a whole number from 1 to 96 is wanted" },
        { "seed: 1\nseed: 2\n", "c:2: seed stands here a second time, after line 1" },
        { "optim: {lr: 1}\noptim.lr: 2\n", "c:2: optim.lr stands here a second time, after line 1" },
        { "seed:\n", "c:1: seed is '', a whole number from 0 to 9e+18 is wanted" },
        { "model:\n  layers: {a: 1}\n", "c:2: there is no option 'model.layers.a'; the nearest is model.layers" },
        { "- a\n- b\n", "c:1: a configuration is a map: lines of 'key: value'" },
        { "words\n", "c:1: a configuration is a map: lines of 'key: value'" },
        { "seed: 1\n---\nseed: 2\n", "c:2: one document is read, here a second one starts" },
        { "seed: &x 1\n", "c:1: anchors (&name) are not read; write the value where it is needed" },
        { "seed: *x\n", "c:1: aliases (*name) are not read; write the value again" },
        { "seed: !!int 1\n", "c:1: tags (!name) are not read; write the value without it" },
        { "a: {b: {c: {d: {e: 1}}}}\n", "c:1: maps are nested deeper than any option is" },
        { "? [a]\n: 1\n", "c:1: the name of an option is wanted before the colon" },
        { "optim:\n  freeze: [[a]]\n", "c:2: a list may hold plain values only" },
        { "optim:\n  freeze: ['a,b']\n", "c:2: a value in a list may hold no comma and no zero byte" },
        { "out: \"a\\0b\"\n", "c:1: a value may hold no zero byte" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Options *o;
        assert_int_equal(options_parse_text(&o, "pretrain", cases[i].text, strlen(cases[i].text), "c"), ERR_USAGE);
        assert_string_equal(err_message(), cases[i].message);
        assert_null(o);
    }
}

static void broken_yaml_has_a_line(void **state) {
    (void)state;
    static const char *const cases[] = { "seed: 1\nmodel: [a\n", "seed: 1\n\tlayers: 2\n", "seed: 1\nout: \"x\n" };
    Options *o;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int line = 0;
        assert_int_equal(options_parse_text(&o, "pretrain", cases[i], strlen(cases[i]), "c"), ERR_USAGE);
        assert_int_equal(sscanf(err_message(), "c:%d: this is not YAML", &line), 1);
        assert_true(line >= 2);
    }
    assert_int_equal(options_parse_text(&o, "pretrain", "seed: 1\nout: \xff\xfe\n", 17, "c"), ERR_USAGE);
    assert_non_null(strstr(err_message(), "c:2: this is not YAML"));
}

static void empty_texts_are_fine(void **state) {
    (void)state;
    static const char *const cases[] = { "", "# nothing\n", "---\n", "{}\n", "\xef\xbb\xbfseed: 42\n" };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Options *o;
        assert_int_equal(options_parse_text(&o, "pretrain", cases[i], strlen(cases[i]), "c"), OK);
        assert_int_equal(o->run.seed, 42);
        options_free(o);
    }
}

static void require_says_what_to_write(void **state) {
    (void)state;
    Options *o;
    assert_int_equal(parse(&o, "pretrain", NULL), OK);
    assert_int_equal(options_require(o, "out"), ERR_USAGE);
    assert_string_equal(err_message(), "pretrain needs out (folder or file that the command writes); write out=...");
    assert_int_equal(options_set(o, "out", "run", NULL), OK);
    assert_int_equal(options_require(o, "out"), OK);
    assert_int_equal(options_set(o, "seed", "x", "the checkpoint"), ERR_USAGE);
    assert_non_null(strstr(err_message(), "the checkpoint: seed is 'x'"));
    options_free(o);
}

/* ---- there and back ---------------------------------------------------------------------------------------------- */

/* Awkward values of every kind, for every option: what is printed must read back as the same, and print the same. */
static void printed_reads_back(void **state) {
    (void)state;
    static const char *const texts[] = {
        "", " ", "true", "null", "~", "- a", "a: b", "# c", "a #b", "\"q\" 'q' \\", "line\nline\ttab\r\x01\x7f",
        "[x", "{y",
        "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\xc2\x85\xe2\x80\xa8\xe2\x80\xa9\xef\xbb\xbf\xef\xbf\xbe",
        " lead and trail ", "1e5", "%x", "a,b",
    };
    static const char *const reals[] = { "0.1", "1e-8", "0.30000000000000004", "0.333333333333333314829616256247" };
    enum { TEXTS = sizeof texts / sizeof texts[0], REALS = sizeof reals / sizeof reals[0] };
    for (int t = 0; t < TEXTS; t++) {
        Options *a, *b;
        char *one, *two;
        assert_int_equal(parse(&a, "pretrain", NULL), OK);
        for (int r = 0; r < OPTION_ROWS; r++) {
            const char *key = option_rows[r].key;
            if (option_rows[r].kind == KIND_TEXT || option_rows[r].kind == KIND_PATH)
                assert_int_equal(options_set(a, key, texts[(t + r) % TEXTS], NULL), OK);
            if (option_rows[r].kind == KIND_REAL && option_rows[r].lo == 0 && option_rows[r].hi >= 0.4)
                assert_int_equal(options_set(a, key, reals[(t + r) % REALS], NULL), OK);
        }
        assert_int_equal(options_text(a, &one), OK);
        if (options_parse_text(&b, "pretrain", one, strlen(one), "printed")) fail_msg("%s\n%s", err_message(), one);
        assert_int_equal(options_text(b, &two), OK);
        assert_string_equal(one, two);
        for (int r = 0; r < OPTION_ROWS; r++) {
            if (!strcmp(option_rows[r].key, "dry_run") || !strcmp(option_rows[r].key, "verbose")) continue;
            if (option_rows[r].kind >= KIND_TEXT)
                assert_string_equal(option_text(a, r), option_text(b, r));
            if (option_rows[r].kind == KIND_REAL)
                assert_true(option_real(a, r) == option_real(b, r));
        }
        free(one);
        free(two);
        options_free(a);
        options_free(b);
    }
}

/* No group appears twice, so any YAML reader takes it. */
static void groups_are_printed_once(void **state) {
    (void)state;
    Options *o;
    char *text;
    assert_int_equal(parse(&o, "pretrain", NULL), OK);
    assert_int_equal(options_text(o, &text), OK);
    const char *first = strstr(text, "\nmodel:\n");
    assert_non_null(first);
    assert_null(strstr(first + 1, "\nmodel:\n"));
    free(text);
    options_free(o);
}

static void configs_are_right(void **state) {
    (void)state;
    glob_t g;
    if (glob("configs/*.yaml", 0, NULL, &g)) skip();
    for (size_t i = 0; i < g.gl_pathc; i++) {
        Options *o;
        if (parse(&o, "pretrain", g.gl_pathv[i], NULL)) fail_msg("%s", err_message());
        options_free(o);
    }
    globfree(&g);
}

static void reference_is_fresh(void **state) {
    (void)state;
    char *text = NULL, *file;
    size_t n = 0;
    FILE *m = open_memstream(&text, &n), *f = fopen("configs/reference.yaml", "r");
    assert_non_null(m);
    assert_int_equal(options_reference(m), OK);
    fclose(m);
    if (!f) { free(text); skip(); }
    file = calloc(1, n + 4096);
    assert_non_null(file);
    size_t got = fread(file, 1, n + 4095, f);
    fclose(f);
    if (got != n || memcmp(file, text, n))
        fail_msg("configs/reference.yaml is old: qformer --options > configs/reference.yaml");
    free(file);
    free(text);
}

/* The table itself: keys are unique, texts are there, bounds hold the default. */
static void table_is_sound(void **state) {
    (void)state;
    for (int r = 0; r < OPTION_ROWS; r++) {
        const Row *row = &option_rows[r];
        for (int i = 0; i < r; i++) assert_string_not_equal(row->key, option_rows[i].key);
        assert_true(row->help[0] && row->commands[0]);
        assert_true(strlen(row->key) < 64);
        if (row->kind == KIND_INT || row->kind == KIND_REAL)
            if (!(row->lo <= row->num && row->num <= row->hi)) fail_msg("%s: the default is out of bounds", row->key);
    }
}

static void nearest_words(void **state) {
    (void)state;
    static const char *const words[] = { "pretrain", "finetune", "retrieval", "plan" };
    assert_string_equal(options_nearest("pretrian", words, 4), "pretrain");
    assert_string_equal(options_nearest("retreival", words, 4), "retrieval");
    assert_string_equal(options_nearest("plam", words, 4), "plan");
    assert_null(options_nearest("zzz", words, 4));
    assert_null(options_nearest("", words, 4));
}

/* Words that other tools have for the same; blanks around the =; and the forms in which programs write values. */
static void what_others_write(void **state) {
    (void)state;
    static const struct { const char *command, *word, *sentence; } slips[] = {
        {"pretrain", "batch_size=8", "the nearest is train.batch"},
        {"pretrain", "optim.learning_rate=1e-4", "the nearest is optim.lr"},
        {"pretrain", "--output-dir=run", "the nearest is out"},
        {"pretrain", "Num_Workers=2", "the nearest is data.threads"},
        {"caption", "num_beams=3", "the nearest is caption.beams"},
        {"ask", "num_beams=3", "the nearest is ask.beams"},
        {"retrieval", "dataset=s.h5", "the nearest is data.test"},
        {"pretrain", "TRAIN.STEPS=3", "the nearest is train.steps"},
        {"pretrain", "data.trian=s.h5", "the nearest is data.train"},
        {"pretrain", "model.flavour=blip2", "lists them"},
        {"pretrain", "data.train", "'data.train' stands alone; key=value is wanted, without blanks around the ="},
    };
    Options *o;
    for (size_t i = 0; i < sizeof slips / sizeof *slips; i++) {
        assert_int_equal(parse(&o, slips[i].command, slips[i].word, NULL), ERR_USAGE);
        if (!strstr(err_message(), slips[i].sentence)) fail_msg("%s: %s", slips[i].word, err_message());
    }
    const char *path = write_config("\xef\xbb\xbf" "train:\n  steps: 1e3\n  events: False\n  resume: 'True'\n"
                                    "data:\n  val: ~\n  prompt: 'null'\n");
    assert_int_equal(parse(&o, "pretrain", path, "threads=2.0", "overwrite=1", NULL), OK);
    assert_int_equal(o->train.steps, 1000);
    assert_false(o->train.events);
    assert_true(o->train.resume && o->run.overwrite && o->run.threads == 2);
    assert_string_equal(o->data.val, "");
    assert_string_equal(o->data.prompt, "null");
    options_free(o);
    assert_int_equal(setenv("HOME", "/home/me", 1), 0);
    assert_int_equal(parse(&o, "pretrain", "data.train=~/a.h5,~/b~/c.h5", "data.prompt=~/x", NULL), OK);
    assert_string_equal(o->data.train, "/home/me/a.h5,/home/me/b~/c.h5");
    assert_string_equal(o->data.prompt, "~/x");
    options_free(o);
    assert_int_equal(parse(&o, "pretrain", "train.steps=2.5", NULL), ERR_USAGE);
    assert_int_equal(parse(&o, "pretrain", "train.steps=1e40", NULL), ERR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(defaults_hold),
        cmocka_unit_test(line_wins_over_file),
        cmocka_unit_test(file_may_serve_several_commands),
        cmocka_unit_test(lists_and_input),
        cmocka_unit_test(numbers),
        cmocka_unit_test(refused_on_the_line),
        cmocka_unit_test(refused_in_a_file),
        cmocka_unit_test(broken_yaml_has_a_line),
        cmocka_unit_test(empty_texts_are_fine),
        cmocka_unit_test(require_says_what_to_write),
        cmocka_unit_test(printed_reads_back),
        cmocka_unit_test(groups_are_printed_once),
        cmocka_unit_test(configs_are_right),
        cmocka_unit_test(reference_is_fresh),
        cmocka_unit_test(nearest_words),
        cmocka_unit_test(what_others_write),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_teardown);
}
