/* ptb: the tokenizer against the tokens of CoreNLP 3.4.1, hostile bytes, and the automaton under it.
 *
 * tests/golden/metrics/ptb.jsonl is every 20th row of the reference's ptb.jsonl, which is used too where it lies.
 * ptb_random.jsonl is what the same Java program prints for 400 captions thrown together from words, punctuation and
 * Unicode, each followed by a line "~" as in the reference. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/json.h"
#include "kernels/base/splitmix.h"
#include "kernels/base/unicode.h"
#include "eval/metrics/dfa.h"
#include "eval/metrics/ptb.h"

static Ptb *ptb;

static int setup(void **state) {
    (void)state;
    return ptb_new(&ptb) != OK;
}

static int teardown(void **state) {
    (void)state;
    ptb_free(ptb);
    return 0;
}

static void check(const char *text, const char *want) {
    const char *got;
    size_t n;
    assert_int_equal(ptb_tokenize(ptb, text, strlen(text), &got, &n), OK);
    if (strcmp(got, want)) fail_msg("\"%s\" gives \"%s\", wanted \"%s\"", text, got, want);
    assert_int_equal(n, strlen(want));
}

/* Sentences of spec/evaluation.md 7a, one or two a rule. */
static void rules(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"A man riding a wave.", "a man riding a wave"},
        {"", ""},
        {" . , ! ", ""},
        {"(a) [b] {c}", "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb-"},
        {"wow!! what?!", "wow !! what ?!"},
        {"don't can't he's they've dogs' o'clock O'Brien", "do n't ca n't he 's they 've dogs o'clock o'brien"},
        {"cannot gonna 'tis lemme.", "can not gon na 't is lem me"},
        {"t-shirt and/or 1/2-inch U.S.-based w/ -", "t-shirt and/or 1/2-inch u.s.-based w /"},
        {"1 1/2 cups", "1\xC2\xA0" "1/2 cups"},
        {"(555) 123-4567", "-lrb-555-rrb-\xC2\xA0" "123-4567"},
        {"3.5mm 3:30pm 5km 2+2 $5 5%", "3.5 mm 3:30 pm 5km 2 +2 $ 5 5 %"},
        {"the end.Next word., a. The a. the", "the end.next word. a the a. the"},
        {"Mr. Smith of Acme Inc. at 5 p.m. in. tall", "mr. smith of acme inc. at 5 p.m. in tall"},
        {"no. 5 no.", "no. 5 no"},
        {"<b>x</b> <img src=\"a b\"> <3 < b >", "<b> x </b> <img\xC2\xA0src=\"a\xC2\xA0" "b\"> < 3 < b >"},
        {"http://a.b/c?d=1. foo@bar.com @user #tag #1", "http://a.b/c?d=1 foo@bar.com @user #tag # 1"},
        {":) ;-) :D ^_^ C++ AT&T", ":-rrb- ;--rrb- :d ^_^ c++ at&t"},
        {"\xE2\x80\x9Cquoted\xE2\x80\x9D \xE2\x80\x98single\xE2\x80\x99 \"plain\"", "quoted single plain"},
        {"\xC2\xBD \xE2\x82\xAC" "5 \xC2\xA3" "5 5\xC2\xA2", "1/2 $ 5 # 5 5 cents"},
        {"caf\xC3\x89 \xCE\xA3\xCE\x91\xCE\xA3 dog\xF0\x9F\x90\xB6" "cat",
         "caf\xC3\xA9 \xCF\x83\xCE\xB1\xCF\x82 dog cat"},
        {"AT&amp;T a &lt; b&nbsp;c &#39;", "at&t a < b c &#39;"},
        {"a red\rball\nand\va\fbat\xE2\x80\xA8x\xE2\x80\xA9y", "a red ball and a bat x y"},   /* line ends are blanks */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) check(rows[i][0], rows[i][1]);
}

/* ---- fixtures ---- */

enum { CATEGORIES = 6, RANDOM = 5, SHOWN = 10 };   /* SHOWN: rows a category that are printed when they differ */
static const struct Category { const char *name; int most_wrong_per_mille; } categories[CATEGORIES] = {
    {"openclipart", 0}, {"awkward", 1}, {"char", 1}, {"probe", 1}, {"ascii_fuzz", 2}, {"random", 5},
};

typedef struct { int rows[CATEGORIES], wrong[CATEGORIES], wrong_raw[CATEGORIES]; } Tally;

typedef Status Tokenize(Ptb *p, const char *text, size_t n, const char **out, size_t *len);

static bool gives(Tokenize *f, const char *text, size_t len, const Json *want) {
    size_t n, k = 0;
    const char *got, *s = json_str(want, &k);
    return f(ptb, text, len, &got, &n) == OK && s && n == k && !memcmp(got, s, n);
}

static Status row(void *ctx, int64_t i, const Json *v) {
    Tally *t = ctx;
    size_t len = 0, n;
    const char *text = json_str(json_get(v, "text"), &len), *name = json_str(json_get(v, "cat"), NULL), *got = "";
    int c = 0;
    (void)i;
    while (c < CATEGORIES && strcmp(categories[c].name, name ? name : "")) c++;
    if (c == CATEGORIES || !text) return err_set(ERR_FORMAT, "not a row of ptb.jsonl");
    t->rows[c]++;
    if (!gives(ptb_raw, text, len, json_get(v, "raw"))) t->wrong_raw[c]++;
    if (gives(ptb_tokenize, text, len, json_get(v, "tokens"))) return OK;
    if (t->wrong[c]++ >= SHOWN) return OK;
    ptb_tokenize(ptb, text, len, &got, &n);
    print_message("%s: \"%s\" gives \"%s\", wanted \"%s\"\n", name, text, got, json_str(json_get(v, "tokens"), NULL));
    return OK;
}

static void check_rows(const char *path, int first, int end) {
    Tally t = {{0}, {0}, {0}};
    if (json_each(path, row, &t) != OK) fail_msg("%s", err_message());
    for (int c = first; c < end; c++) {
        print_message("%-12s %5d rows, tokens differ in %d, the raw line in %d\n", categories[c].name, t.rows[c],
                      t.wrong[c], t.wrong_raw[c]);
        assert_true(t.rows[c] > 0);
        assert_true(t.wrong[c] * 1000 <= t.rows[c] * categories[c].most_wrong_per_mille);
        assert_true(t.wrong_raw[c] * 1000 <= t.rows[c] * 5);
    }
}

static void sample(void **state) {
    (void)state;
    check_rows("tests/golden/metrics/ptb.jsonl", 0, RANDOM);
    check_rows("tests/golden/metrics/ptb_random.jsonl", RANDOM, CATEGORIES);
}

static void reference(void **state) {
    (void)state;
    const char *path = "../shared/golden/metrics/ptb.jsonl";
    if (access(path, R_OK)) skip();
    check_rows(path, 0, RANDOM);
}

/* ---- hostile input ---- */

/* Whatever comes in, valid UTF-8 comes out, without blanks at the ends or two together. */
static void check_any(const char *text, size_t len) {
    const char *got;
    size_t n;
    assert_int_equal(ptb_raw(ptb, text, len, &got, &n), OK);
    assert_int_equal(strlen(got), n);
    assert_true(utf8_valid(got, n, NULL));
    assert_true(n == 0 || (got[0] != ' ' && got[n - 1] != ' '));
    assert_null(strstr(got, "  "));
    assert_int_equal(ptb_tokenize(ptb, text, len, &got, &n), OK);
    assert_true(utf8_valid(got, n, NULL));
}

static void any_bytes(void **state) {
    (void)state;
    SplitMix r = {.state = 7};
    char text[64];
    for (int a = 0; a < 256; a++) {
        text[0] = (char)a;
        check_any(text, 1);
        for (int b = 0; b < 256; b++) {
            text[1] = (char)b;
            check_any(text, 2);
        }
    }
    for (int i = 0; i < 20000; i++) {
        static const char alphabet[] = "aB1 .,'\"-/<>@&;:()$#!?_~\\\xC3\xA9\xE2\x80\x99\xC2\xA0\xF0\x9F";
        size_t n = splitmix_below(&r, sizeof text);
        for (size_t k = 0; k < n; k++) text[k] = alphabet[splitmix_below(&r, sizeof alphabet - 1)];
        check_any(text, n);
    }
    check("a\xFF" "b \xE2\x82 c", "a b c");
}

static void lengths(void **state) {
    (void)state;
    char *text = malloc(PTB_MAX_BYTES + 1);
    const char *got;
    size_t n;
    assert_non_null(text);
    memset(text, 'a', PTB_MAX_BYTES + 1);
    assert_int_equal(ptb_tokenize(ptb, text, PTB_MAX_BYTES, &got, &n), OK);
    assert_int_equal(n, PTB_MAX_BYTES + PTB_MAX_BYTES / PTB_MAX_TOKEN - 1);   /* letters, and blanks between tokens */
    assert_int_equal(ptb_tokenize(ptb, text, PTB_MAX_BYTES + 1, &got, &n), ERR_FORMAT);
    assert_string_equal(err_message(), "a caption has 65537 bytes, 65536 are the most that are tokenized");
    assert_int_equal(ptb_tokenize(ptb, NULL, 0, &got, &n), OK);
    assert_int_equal(n, 0);
    free(text);
}

/* ---- the automaton ---- */

static Dfa *make(const char *const *patterns, size_t n) {
    static const DfaName names[] = {{"ab", "[ab]"}, {"two", "{ab}{2}"}};
    DfaSpec spec = {patterns, n, names, 2, NULL, 0, NULL};
    Dfa *d = NULL;
    assert_int_equal(dfa_new(&d, &spec), OK);
    return d;
}

static void expect(Dfa *d, const char *text, int rule, size_t len) {
    size_t n;
    assert_int_equal(dfa_match(d, (const uint8_t *)text, strlen(text), &n), rule);
    assert_int_equal(n, len);
}

static void longest_match(void **state) {
    (void)state;
    const char *const patterns[] = {"if", "[a-z]+", "[0-9]{2,3}", "~(x|yz)!", "( a ( b | c )? d )", "q {two} q",
                                    "[^a-z0-9X-Z]"};
    Dfa *d = make(patterns, sizeof patterns / sizeof *patterns);
    expect(d, "if x", 0, 2);        /* a tie: the earlier */
    expect(d, "iffy", 1, 4);        /* the longer */
    expect(d, "1", -1, 0);
    expect(d, "12", 2, 2);
    expect(d, "12345", 2, 3);
    expect(d, "X!", 3, 2);
    expect(d, "yZ!", 3, 3);
    expect(d, "abd", 1, 3);
    expect(d, "qabq!", 1, 4);
    expect(d, "?", 6, 1);
    expect(d, "\n", -1, 0);
    expect(d, "", -1, 0);
    dfa_free(d);
}

/* This pattern has 2^14 sets of states: fourteen symbols back matter. */
static void many_sets_of_states(void **state) {
    (void)state;
    const char *const patterns[] = {"[ab]* a [ab]{13}"};
    Dfa *d = make(patterns, 1);
    SplitMix r = {.state = 3};
    for (int i = 0; i < 3000; i++) {
        char text[41] = {0};
        size_t n = 20 + splitmix_below(&r, 20), last = 0, got;
        for (size_t k = 0; k < n; k++) {
            text[k] = splitmix_next(&r) >> 40 & 1 ? 'a' : 'b';
            if (text[k] == 'a' && k + 14 <= n) last = k + 14;
        }
        assert_int_equal(dfa_match(d, (const uint8_t *)text, n, &got), last ? 0 : -1);
        assert_int_equal(got, last);
    }
    dfa_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules), cmocka_unit_test(sample), cmocka_unit_test(reference), cmocka_unit_test(any_bytes),
        cmocka_unit_test(lengths), cmocka_unit_test(longest_match), cmocka_unit_test(many_sets_of_states),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
