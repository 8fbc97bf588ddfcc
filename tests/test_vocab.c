/* vocab: a worked example, every training word encodable, the same result in any order, room for characters. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/vocab.h"
#include "data/text/tokenizer_parts.h"

static void add(VocabTrainer *t, const char *caption) {
    if (vocab_add(t, caption, strlen(caption)) != OK) fail_msg("%s", err_message());
}

static char *train(const VocabTrainer *t, int size, int64_t min_count, VocabReport *report) {
    char *text = NULL;
    size_t n = 0;
    if (vocab_train(t, size, min_count, &text, &n, report) != OK) fail_msg("%s", err_message());
    assert_int_equal(n, strlen(text));
    return text;
}

/* The words of Sennrich et al. 2016, figure 1; merges done by hand. Ties go to the smaller ids. */
static void worked_example(void **state) {
    (void)state;
    static const struct { const char *word; int count; } words[] = {
        {"low", 5}, {"lower", 2}, {"newest", 6}, {"widest", 3},
    };
    VocabTrainer *t;
    VocabReport r;
    assert_int_equal(vocab_new(&t), OK);
    for (size_t i = 0; i < 4; i++)
        for (int k = 0; k < words[i].count; k++) add(t, words[i].word);
    char *text = train(t, 100, 1, &r);
    assert_string_equal(text,
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
        "d\ne\ni\nl\nn\no\nr\ns\nt\nw\n##d\n##e\n##i\n##l\n##n\n##o\n##r\n##s\n##t\n##w\n"
        "##es\n##est\nlo\nlow\nne\n##west\nnewest\nwi\n##dest\nwidest\n##er\nlower\n");
    assert_int_equal(r.words, 16);
    assert_int_equal(r.different, 4);
    assert_int_equal(r.characters, 10);
    assert_int_equal(r.dropped, 0);
    assert_int_equal(r.pieces, 37);
    free(text);
    text = train(t, 29, 1, &r);
    assert_non_null(strstr(text, "\n##w\n##es\n##est\nlo\nlow\n"));
    assert_int_equal(r.pieces, 29);
    free(text);
    text = train(t, 100, 7, &r);                       /* pairs that occur six times are not joined */
    assert_int_equal(r.pieces, 29);
    free(text);
    text = train(t, 16, 1, &r);                        /* 11 forms fit, those that were seen */
    assert_int_equal(r.pieces, 16);
    assert_int_equal(r.dropped, 9);
    assert_string_equal(text, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nl\nn\nw\n##d\n##e\n##i\n##o\n##r\n##s\n##t\n##w\n");
    free(text);
    vocab_free(t);
}

/* ---- many captions ---- */

static uint32_t state_of_rand;
static uint32_t pick(uint32_t n) { return (state_of_rand = state_of_rand * 1664525u + 1013904223u) / 65536u % n; }

/* Captions of made-up words: syllables, some accents, ideographs, emoji, a typed special token and an overlong word. */
static void caption(char *out, uint32_t i) {
    static const char *const parts[] = {
        "ba", "dog", "ing", "tr", "ee", "\xC3\xA9", "s", "o", "umbr", "ella", "qu", "x", "\xC3\x9F",
    };
    static const char *const odd[] = {"\xE4\xB8\xAD", "\xF0\x9F\x90\xB6", "[SEP]", "don't", "3,000", "\xED\x95\x9C"};
    state_of_rand = i * 2654435761u;
    *out = 0;
    for (uint32_t w = 4 + pick(8); w; w--) {
        for (uint32_t k = 1 + pick(4); k; k--) strcat(out, parts[pick(13)]);
        if (pick(9) == 0) strcat(out, odd[pick(6)]);
        strcat(out, " ");
    }
    if (i % 97 == 0)
        for (int k = 0; k < 101; k++) strcat(out, "y");
}

enum { CAPTIONS = 3000 };

static VocabTrainer *trainer(int reversed) {
    char text[1024];
    VocabTrainer *t;
    assert_int_equal(vocab_new(&t), OK);
    for (uint32_t i = 0; i < CAPTIONS; i++) {
        caption(text, reversed ? CAPTIONS - 1 - i : i);
        add(t, text);
    }
    return t;
}

typedef struct { const Tokenizer *wp; int words; } Check;

static Status no_unknown(void *ctx, const char *word, size_t n, int points) {
    Check *c = ctx;
    int32_t ids[WP_MAX_WORD + 2];
    int count;
    if (points == 0 || points > WP_MAX_WORD) return OK;
    assert_int_equal(tokenizer_encode(c->wp, word, n, WP_MAX_WORD + 2, ids, &count, NULL), OK);
    char joined[1024] = "";
    for (int i = 1; i + 1 < count; i++) {
        size_t len;
        const char *piece = pieces_get(tokenizer_vocabulary(c->wp), ids[i], &len);
        if (ids[i] == tokenizer_ids(c->wp)->unk) fail_msg("%.*s is unknown", (int)n, word);
        assert_true((i > 1) == !strncmp(piece, "##", 2));
        strncat(joined, piece + (i > 1 ? 2 : 0), len - (i > 1 ? 2 : 0));
    }
    assert_true(strlen(joined) == n && !memcmp(joined, word, n));
    c->words++;
    return OK;
}

static void every_word_is_covered(void **state) {
    (void)state;
    static const int sizes[] = {64, 300, 2000, 30522};
    VocabTrainer *t = trainer(0), *back = trainer(1);
    int64_t longer = 0;
    for (size_t k = 0; k < 4; k++) {
        VocabReport r;
        Tokenizer *wp;
        char *text = train(t, sizes[k], 1, &r), *same = train(back, sizes[k], 1, NULL);
        assert_string_equal(text, same);
        assert_true(r.pieces <= sizes[k] && r.pieces >= longer && r.dropped == 0);
        if (sizes[k] <= 2000) assert_int_equal(r.pieces, sizes[k]);
        longer = r.pieces;
        if (tokenizer_open_lines(&wp, text, strlen(text), "made") != OK) fail_msg("%s", err_message());
        assert_int_equal(tokenizer_size(wp), r.pieces + 1);
        Check c = {wp, 0};
        for (uint32_t i = 0; i < CAPTIONS; i++) {
            char line[1024];
            caption(line, i);
            assert_int_equal(wp_words(line, strlen(line), no_unknown, &c), OK);
        }
        assert_int_equal(c.words, r.words);
        tokenizer_close(wp);
        free(text);
        free(same);
    }
    vocab_free(t);
    vocab_free(back);
}

static void refused(void **state) {
    (void)state;
    VocabTrainer *t;
    char *text;
    size_t n;
    assert_int_equal(vocab_new(&t), OK);
    add(t, " \n[CLS]");
    assert_int_equal(vocab_train(t, 300, 1, &text, &n, NULL), ERR_USAGE);
    assert_non_null(strstr(err_message(), "no caption holds a word"));
    add(t, "dog");
    assert_int_equal(vocab_train(t, 3, 1, &text, &n, NULL), ERR_USAGE);
    assert_int_equal(vocab_train(t, VOCAB_MAX + 1, 1, &text, &n, NULL), ERR_USAGE);
    assert_null(text);
    vocab_free(t);
    vocab_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_example), cmocka_unit_test(every_word_is_covered), cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
