/* wordpiece and caption: ids of the reference tokenizer (tests/golden/tokenizer, a cut of ../shared/golden/tokenizer,
 * and that itself where it is), invalid UTF-8, truncation, what a vocabulary file may not be, decoding. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/text/caption.h"
#include "data/format/json.h"
#include "data/text/tokenizer.h"
#include "data/text/wordpiece.h"

#define LONE "tests/golden/tokenizer/"
#define SHARED "../shared/golden/tokenizer/"
enum { ROOM = 8192 };

/* ---- the reference's ids ---- */

typedef struct {
    Tokenizer *wp;
    int rows, ids;
} Golden;

static void same_ids(const Tokenizer *wp, const char *text, size_t n, int max_len, const Json *want, int64_t full_want,
                     int64_t row) {
    static int32_t ids[ROOM];
    int count = 0;
    int64_t full = 0, id = 0;
    assert_int_equal(tokenizer_encode(wp, text, n, max_len, ids, &count, &full), OK);
    bool same = (size_t)count == json_len(want) && full == full_want;
    for (int i = 0; i < count && same; i++) same = json_int(json_at(want, (size_t)i), &id) && id == ids[i];
    if (!same) fail_msg("row %lld, at most %d: %d ids, %zu wanted", (long long)row, max_len, count, json_len(want));
}

static Status string_row(void *ctx, int64_t i, const Json *row) {
    Golden *g = ctx;
    size_t n = 0;
    const char *text = json_str(json_get(row, "text"), &n);
    const Json *ids = json_get(row, "ids"), *cut;
    int64_t full = (int64_t)json_len(ids);
    assert_non_null(text);
    same_ids(g->wp, text, n, ROOM, ids, full, i);
    same_ids(g->wp, text, n, 32, (cut = json_get(row, "ids32")) ? cut : ids, full, i);
    same_ids(g->wp, text, n, 35, (cut = json_get(row, "ids35")) ? cut : ids, full, i);
    g->rows++;
    g->ids += (int)full;
    return OK;
}

static Status processor_row(void *ctx, int64_t i, const Json *row) {
    static const struct { const char *key, *prompt; bool question; } as[] = {
        {"caption", NULL, false}, {"caption_prompt", "a photo of ", false}, {"question", NULL, true},
    };
    size_t n = 0, len = 0, len_want = 0;
    const char *text = json_str(json_get(row, "text"), &n);
    for (int k = 0; k < 3; k++) {
        const char *want = json_str(json_get(row, as[k].key), &len_want);
        char *out = NULL;
        assert_non_null(want);
        if (as[k].question) assert_int_equal(caption_question(&out, &len, text, n, CAPTION_MAX_WORDS), OK);
        else assert_int_equal(caption_blip(&out, &len, text, n, as[k].prompt, CAPTION_MAX_WORDS), OK);
        if (len != len_want || memcmp(out, want, len + 1))
            fail_msg("row %lld, %s: \"%s\", \"%s\" wanted", (long long)i, as[k].key, out, want);
        free(out);
    }
    (*(int *)ctx)++;
    return OK;
}

/* name <tab> bytes in hex <tab> ids in decimal */
static void invalid_rows(const Tokenizer *wp, const char *path) {
    FILE *f = fopen(path, "r");
    char name[64], hex[4096], rest[4096], text[2048];
    int rows = 0;
    assert_non_null(f);
    while (fscanf(f, "%63[^\t]\t%4095[0-9a-f]\t%4095[^\n]\n", name, hex, rest) == 3) {
        size_t n = strlen(hex) / 2;
        int32_t ids[512];
        int count = 0;
        char got[4096] = "";
        for (size_t i = 0; i < n; i++) {
            unsigned byte = 0;
            sscanf(hex + 2 * i, "%2x", &byte);
            text[i] = (char)byte;
        }
        char *exact = malloc(n ? n : 1);   /* so that the sanitizer sees a read past the end */
        assert_non_null(exact);
        memcpy(exact, text, n);
        assert_int_equal(tokenizer_encode(wp, exact, n, 512, ids, &count, NULL), OK);
        free(exact);
        for (int i = 0, at = 0; i < count; i++)
            at += snprintf(got + at, sizeof got - (size_t)at, "%s%d", i ? " " : "", ids[i]);
        if (strcmp(got, rest)) fail_msg("%s: %s, %s wanted", name, got, rest);
        rows++;
    }
    assert_true(feof(f) && rows >= 25);
    fclose(f);
}

static void whole_folder(const char *vocab, const char *strings, const char *processors, const char *invalid,
                         int rows) {
    Golden g = {0};
    int processed = 0;
    if (tokenizer_open(&g.wp, vocab) != OK) fail_msg("%s", err_message());
    if (json_each(strings, string_row, &g) != OK) fail_msg("%s", err_message());
    if (json_each(processors, processor_row, &processed) != OK) fail_msg("%s", err_message());
    invalid_rows(g.wp, invalid);
    assert_true(g.rows >= rows && processed > 0);
    printf("%d strings, %d ids, %d captions\n", g.rows, g.ids, processed);
    tokenizer_close(g.wp);
}

static void lone_golden(void **state) {
    (void)state;
    whole_folder(LONE "vocab.txt", LONE "strings.jsonl", LONE "processors.jsonl", LONE "invalid_utf8.tsv", 300);
}

static void shared_golden(void **state) {
    (void)state;
    if (access(SHARED "vocab.txt", R_OK)) skip();
    whole_folder(SHARED "vocab.txt", SHARED "strings.jsonl", SHARED "processors.jsonl", SHARED "invalid_utf8.tsv",
                 7236);
}

static void bert_numbers(void **state) {   /* spec model.md section 9 */
    (void)state;
    Tokenizer *wp;
    int32_t ids[32];
    int count;
    const char *text = "a large fountain spewing water into the air";
    if (access(SHARED "vocab.txt", R_OK)) skip();
    assert_int_equal(tokenizer_open(&wp, SHARED "vocab.txt"), OK);
    assert_int_equal(tokenizer_size(wp), 30523);
    assert_int_equal(tokenizer_ids(wp)->pad, 0);
    assert_int_equal(tokenizer_ids(wp)->unk, 100);
    assert_int_equal(tokenizer_ids(wp)->begin[0], 101);
    assert_int_equal(tokenizer_ids(wp)->eos, 102);
    assert_int_equal(tokenizer_find(wp, "[MASK]"), 103);
    assert_int_equal(tokenizer_ids(wp)->bos, 30522);
    assert_int_equal(tokenizer_encode(wp, text, strlen(text), 32, ids, &count, NULL), OK);
    assert_int_equal(count, 12);
    tokenizer_close(wp);
}

/* ---- vocabularies ---- */

#define SMALL "[PAD]\n[UNK]\n[CLS]\n[SEP]\n"

static Tokenizer *open_small(const char *more) {
    char text[512];
    Tokenizer *wp = NULL;
    snprintf(text, sizeof text, SMALL "%s", more);
    if (tokenizer_open_lines(&wp, text, strlen(text), "small") != OK) fail_msg("%s", err_message());
    return wp;
}

static void encodes(const Tokenizer *wp, const char *text, int n, const int32_t *want) {
    int32_t ids[64];
    int count;
    assert_int_equal(tokenizer_encode(wp, text, strlen(text), 64, ids, &count, NULL), OK);
    assert_int_equal(count, n);
    assert_memory_equal(ids, want, (size_t)n * sizeof *ids);
}

static void small_vocabularies(void **state) {
    (void)state;
    /*                          4  5      6     7   8  9   10 */
    Tokenizer *wp = open_small("a\n##b\r\n##bc\n##\n#\nab\n##abc");
    assert_int_equal(tokenizer_size(wp), 12);
    assert_int_equal(tokenizer_find(wp, "[MASK]"), -1);
    assert_int_equal(tokenizer_ids(wp)->bos, 11);
    assert_int_equal(tokenizer_find(wp, "##b"), 5);
    assert_int_equal(tokenizer_find(wp, "b"), -1);
    assert_int_equal(tokenizer_find(wp, "##"), 7);
    encodes(wp, "ABB a", 5, (int32_t[]){2, 9, 5, 4, 3});
    encodes(wp, "abc", 3, (int32_t[]){2, 1, 3});     /* greedy takes ab, then nothing fits: no way back */
    encodes(wp, "##b", 5, (int32_t[]){2, 8, 8, 1, 3});         /* the marker cannot be typed */
    encodes(wp, "a[DEC]a[MASK][pad]", 9, (int32_t[]){2, 4, 11, 4, 1, 1, 1, 1, 3});
    encodes(wp, "", 2, (int32_t[]){2, 3});
    uint64_t h = tokenizer_hash(wp);
    tokenizer_close(wp);
    wp = open_small("a\n##b\n##bc\n##\n#\nab\n##abc\n");
    assert_true(tokenizer_hash(wp) == h);
    tokenizer_close(wp);
    static const char marked[] = "\xef\xbb\xbf" SMALL "a\n##b\n##bc\n##\n#\nab\n##abc\n";
    assert_int_equal(tokenizer_open_lines(&wp, marked, sizeof marked - 1, "with a byte order mark"), OK);
    assert_true(tokenizer_hash(wp) == h);
    tokenizer_close(wp);
    wp = open_small("[DEC]\na");
    assert_int_equal(tokenizer_ids(wp)->bos, 4);
    assert_int_equal(tokenizer_size(wp), 6);
    assert_true(tokenizer_hash(wp) != h);
    int32_t ids[3];
    int count;
    int64_t full;
    assert_int_equal(tokenizer_encode(wp, "a a a", 5, 3, ids, &count, &full), OK);
    assert_true(count == 3 && full == 5 && ids[0] == 2 && ids[2] == 3);
    tokenizer_close(wp);
}

static void refused(void **state) {
    (void)state;
    static char much[WP_MAX_PIECE + 64];
    const struct { const char *text; size_t n; const char *says; } bad[] = {
        {"", 0, "v: no line is [PAD]"},
        {"[PAD]\n[UNK]\n[CLS]\n", 18, "v: no line is [SEP]"},
        {SMALL "a\nb\na\n", 30, "v:7: the piece \"a\" stands on line 5 already"},
        {SMALL "a\n\nb\n", 29, "v:6: the line is empty"},
        {SMALL "\xFF\n", 26, "v:5: the line is not valid UTF-8"},
        {SMALL "a\0b\n", 28, "v:5: the line holds a NUL"},
        {SMALL "a\rb\n", 28, "v:5: the line holds a NUL or a carriage return"},
    };
    Tokenizer *wp;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tokenizer_open_lines(&wp, bad[i].text, bad[i].n, "v"), ERR_FORMAT);
        assert_null(wp);
        if (strncmp(err_message(), bad[i].says, strlen(bad[i].says))) fail_msg("%s", err_message());
    }
    memset(much, 'x', sizeof SMALL + WP_MAX_PIECE);
    memcpy(much, SMALL, sizeof SMALL - 1);
    assert_int_equal(tokenizer_open_lines(&wp, much, strlen(much), "v"), ERR_FORMAT);
    assert_non_null(strstr(err_message(), "v:5: the line is longer"));
    assert_int_equal(tokenizer_open(&wp, "/nowhere/vocab.txt"), ERR_IO);
    assert_non_null(strstr(err_message(), "/nowhere/vocab.txt"));
}

/* What transformers' decode gives, its rules applied by hand. */
static void decoded(void **state) {
    (void)state;
    Tokenizer *tok = NULL;
    const char vocab[] = SMALL "a\ndog\n'\ns\n##s\n.\n,\nn\n##t\nt\nwater\n##fall\n[MASK]\n";
    assert_int_equal(tokenizer_open_lines(&tok, vocab, sizeof vocab - 1, "small"), OK);
    const struct { int n; int32_t ids[10]; const char *text; } cases[] = {
        {0, {0}, ""}, {3, {2, 3, 0}, ""}, {6, {2, 4, 5, 8, 9, 3}, "a dogs."},
        {6, {2, 5, 6, 7, 5, 3}, "dog's dog"}, {4, {14, 15, 16, 15}, "waterfallfall"}, {2, {8, 5}, "##s dog"},
        {5, {5, 10, 5, 9, 17}, "dog, dog."}, {4, {5, 11, 6, 13}, "dogn't"}, {2, {1, 4}, "a"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = NULL;
        assert_int_equal(tokenizer_decode(tok, cases[i].ids, (size_t)cases[i].n, &text, NULL), OK);
        assert_string_equal(text, cases[i].text);
        free(text);
    }
    tokenizer_close(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lone_golden), cmocka_unit_test(shared_golden), cmocka_unit_test(bert_numbers),
        cmocka_unit_test(small_vocabularies), cmocka_unit_test(refused), cmocka_unit_test(decoded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
