/* test_tokenizer: tokenizers of language models: every string of the fixtures in every form of file, what is refused,
 * texts that are long or no text, and the forms of chat prompts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "data/format/json.h"
#include "data/format/textfile.h"
#include "data/format/mapfile.h"
#include "data/text/chat.h"
#include "data/text/tokenizer.h"
#include "kernels/base/unicode.h"

#define LONE "tests/golden/tokenizers/"
#define SHARED "../shared/golden/stage2/tokenizers/"

/* ---- fixtures ---- */

typedef struct { const Tokenizer *t; int rows; } Rows;

static Status compare(void *ctx, int64_t i, const Json *row) {
    Rows *r = ctx;
    size_t n, nd, len;
    const char *text = json_str(json_get(row, "text"), &n), *decoded = json_str(json_get(row, "decoded"), &nd);
    const Json *want = json_get(row, "ids");
    static int32_t ids[20000];
    int count;
    char *back;
    assert_int_equal(tokenizer_encode(r->t, text, n, 20000, ids, &count, NULL), OK);
    if ((size_t)count != json_len(want)) fail_msg("row %lld, \"%s\": %d ids, not %zu", (long long)i, text, count,
                                                  json_len(want));
    for (int k = 0; k < count; k++) {
        int64_t id;
        json_int(json_at(want, (size_t)k), &id);
        if (id != ids[k]) fail_msg("row %lld, \"%s\": id %d is %d, not %lld", (long long)i, text, k, ids[k],
                                   (long long)id);
    }
    assert_int_equal(tokenizer_decode(r->t, ids, (size_t)count, &back, &len), OK);
    if (len != nd || memcmp(back, decoded, nd)) fail_msg("row %lld: \"%s\", not \"%s\"", (long long)i, back, decoded);
    free(back);
    r->rows++;
    return OK;
}

static void run(const char *dir, const char *file, bool cleans, int rows) {
    char path[512];
    Tokenizer *t;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    if (tokenizer_open(&t, path) != OK) fail_msg("%s", err_message());
    tokenizer_set_cleans(t, cleans);
    Rows r = {.t = t};
    snprintf(path, sizeof path, "%s/%sstrings.jsonl", dir, cleans ? "cleaned_" : "");
    if (json_each(path, compare, &r) != OK) fail_msg("%s", err_message());
    assert_true(r.rows >= rows);
    tokenizer_close(t);
}

static void strings(void **state) {
    (void)state;
    run(LONE "smol", "tokenizer.json", false, 120);
    run(LONE "llama3", "", false, 120);
    run(LONE "qwen2", "", false, 120);
    run(LONE "roberta", "", false, 70);
    run(LONE "llama2", "tokenizer.json", false, 120);
    run(LONE "llama2", "tokenizer.model", false, 120);
    run(LONE "opt", "", true, 120);
    run(LONE "t5", "", true, 120);
}

/* SmolLM2's with digits that stay together. */
static void runs_of_digits(void **state) {
    (void)state;
    char *text;
    size_t n;
    Rows r = {0};
    assert_int_equal(textfile_read(&text, &n, LONE "smol/tokenizer.json", "a tokenizer"), OK);
    char *single = strstr(strstr(text, "individual_digits"), "true");
    memcpy(single, "null", 4);
    assert_int_equal(tokenizer_open_json((Tokenizer **)(uintptr_t)&r.t, text, n, "runs"), OK);
    assert_int_equal(json_each(LONE "smol/runs_strings.jsonl", compare, &r), OK);
    assert_int_equal(r.rows, 53);
    tokenizer_close((Tokenizer *)(uintptr_t)r.t);
    free(text);
}

static void shared_strings(void **state) {
    (void)state;
    if (access(SHARED "t5/tokenizer.json", R_OK)) skip();
    run(SHARED "t5", "tokenizer.json", false, 500);
    run(SHARED "t5", "spiece.model", false, 500);
}

/* ---- ids and hashes ---- */

static uint64_t hash_of(const char *path) {
    Tokenizer *t;
    assert_int_equal(tokenizer_open(&t, path), OK);
    uint64_t h = tokenizer_hash(t);
    tokenizer_close(t);
    return h;
}

static void names(void **state) {
    (void)state;
    Tokenizer *t;
    assert_int_equal(tokenizer_open(&t, LONE "opt"), OK);
    const TokenizerIds *s = tokenizer_ids(t);
    assert_int_equal(s->nbegin, 1);
    assert_int_equal(s->begin[0], 2);
    assert_int_equal(s->nend, 0);
    assert_int_equal(s->pad, 1);
    assert_int_equal(tokenizer_find(t, "\xC4\x8A"), 202);                    /* a newline, as the file writes it */
    assert_int_equal(tokenizer_find(t, "no piece"), -1);
    tokenizer_close(t);
    assert_int_equal(tokenizer_open(&t, LONE "llama3"), OK);
    assert_int_equal(tokenizer_size(t), 444);
    assert_int_equal(tokenizer_ids(t)->begin[0], 441);
    int32_t ids[3];
    int count;
    int64_t full;
    assert_int_equal(tokenizer_encode(t, "a photo of", 10, 3, ids, &count, &full), OK);
    assert_int_equal(count, 3);
    assert_true(full > 3 && ids[0] == 441);
    tokenizer_close(t);
    assert_true(hash_of(LONE "llama2/tokenizer.json") == hash_of(LONE "llama2/tokenizer.model"));
    assert_true(hash_of(LONE "smol") != hash_of(LONE "qwen2"));
}

/* ---- what is refused ---- */

/* A small tokenizer.json with one part replaced. */
static void refuses(const char *part, const char *instead, const char *sentence) {
    static const char whole[] =
        "{\"added_tokens\": [{\"id\": 9, \"content\": \"<x>\", \"special\": true}], \"normalizer\": null,"
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"post_processor\": null,"
        "\"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\","
        "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2},"
        "\"merges\": [[\"a\", \"b\"]]}}";
    char text[2000];
    const char *at = strstr(whole, part);
    Tokenizer *t;
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - whole), whole, instead, at + strlen(part));
    Status st = tokenizer_open_json(&t, text, strlen(text), "made.json");
    if (!sentence) {
        if (st != OK) fail_msg("%s", err_message());
        tokenizer_close(t);
        return;
    }
    assert_int_equal(st, ERR_FORMAT);
    assert_null(t);
    if (!strstr(err_message(), sentence) || !strstr(err_message(), "made.json")) fail_msg("%s", err_message());
}

static void refused(void **state) {
    (void)state;
    refuses("null,", "null,", NULL);
    refuses("\"ByteLevel\", \"add", "\"Whitespace\", \"add", "Whitespace");
    refuses("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", "{\"type\": \"Sequence\", \"pretokenizers\": "
            "[{\"type\": \"Digits\"}, {\"type\": \"ByteLevel\"}]}", "ByteLevel with a blank of its own");
    refuses("\"post_processor\": null", "\"post_processor\": {\"type\": \"RobertaProcessing\", \"cls\": [\"a\", -1], "
            "\"sep\": [\"b\", 1]}", "with such ids");
    refuses("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
            "{\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"x+\"}}", "x+");
    refuses("\"normalizer\": null", "\"normalizer\": {\"type\": \"Lowercase\"}", "Lowercase");
    refuses("\"normalizer\": null", "\"normalizer\": {\"type\": \"Precompiled\", \"precompiled_charsmap\": \"AAAA\"}",
            "character map");
    refuses("\"post_processor\": null", "\"post_processor\": {\"type\": \"BertProcessing\"}", "without cls and sep");
    refuses("\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": {\"type\": \"WordPiece\"}", "WordPiece");
    refuses("\"ab\": 2", "\"ab\": 1", "twice");
    refuses("\"ab\": 2", "\"ab\": -2", "no id");
    refuses("\"ab\": 2", "\"ab\": 99999999", "99999999");
    refuses("[\"a\", \"b\"]", "[\"a\", \"c\"]", "the second");
    refuses("[\"a\", \"b\"]", "\"b a\"", "what comes out");
    refuses("[\"a\", \"b\"]", "[\"a\"]", "no pair");
    refuses("\"BPE\"", "\"WordLevel\"", "WordLevel");
    refuses("\"special\": true", "\"special\": true, \"lstrip\": true", "<x>");
    refuses("\"id\": 9", "\"id\": 1e9", "<x>");
    refuses("\"model\": {", "\"modal\": {", "not a tokenizer.json");
}

/* Every prefix of a SentencePiece model, and every byte of its head changed: an error or a tokenizer, never a crash. */
static void damaged_model(void **state) {
    (void)state;
    MapFile m;
    Tokenizer *t;
    assert_int_equal(mapfile_open(&m, LONE "llama2/tokenizer.model"), OK);
    unsigned char *copy = malloc(m.n);
    for (size_t n = 0; n < m.n; n += 97) {
        memcpy(copy, m.bytes, n);
        if (tokenizer_open_spm(&t, copy, n, "cut.model") == OK) tokenizer_close(t);
    }
    for (size_t i = 0; i < 300; i++) {
        memcpy(copy, m.bytes, m.n);
        copy[i] ^= 0xFF;
        if (tokenizer_open_spm(&t, copy, m.n, "bent.model") == OK) tokenizer_close(t);
    }
    assert_int_equal(tokenizer_open_spm(&t, m.bytes, 5000, "cut.model"), ERR_FORMAT);
    free(copy);
    mapfile_close(&m);
}

/* ---- texts ---- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A word of a megabyte takes no quadratic time; bytes that are no UTF-8 come back as U+FFFD. */
static void texts(void **state) {
    (void)state;
    static const char *const dirs[] = {LONE "smol", LONE "llama2", LONE "t5"};
    enum { LONG = 1 << 20 };
    char *text = malloc(LONG + 1);
    for (size_t i = 0; i < LONG; i++) text[i] = "aberstn"[i * i / 7 % 7];
    for (size_t k = 0; k < 3; k++) {
        Tokenizer *t;
        TokenIds ids = {0};
        char *back;
        size_t len;
        assert_int_equal(tokenizer_open(&t, dirs[k]), OK);
        double start = seconds();
        assert_int_equal(tokenizer_pieces(t, text, LONG, &ids), OK);
        assert_true(seconds() - start < 10);
        assert_int_equal(tokenizer_decode(t, ids.v, ids.n, &back, &len), OK);
        assert_true(len == LONG && !memcmp(back, text, LONG));
        free(back);
        ids.n = 0;
        assert_int_equal(tokenizer_pieces(t, "dog \xC3\x28 \xFF", 8, &ids), OK);
        assert_int_equal(tokenizer_decode(t, ids.v, ids.n, &back, &len), OK);
        assert_true(utf8_valid(back, len, NULL));
        free(back);
        free(ids.v);
        tokenizer_close(t);
    }
    free(text);
}

/* ---- chat ---- */

/* The templates of the published models, their prompts written out by hand. */
static void chats(void **state) {
    (void)state;
    const struct { const char *form, *system, *want; } cases[] = {
        {"chatml", "Be brief.",
         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"},
        {"chatml", NULL, "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"},
        {"llama2", "Be brief.", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWhat? [/INST]"},
        {"llama2", "", "[INST] What? [/INST]"},
        {"vicuna", "A chat.", "A chat. USER: What? ASSISTANT:"},
        {"alpaca", NULL, "### Instruction:\nWhat?\n\n### Response:\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = chat_prompt(chat_find(cases[i].form), cases[i].system, "What?");
        assert_string_equal(text, cases[i].want);
        free(text);
    }
    char *more = chat_turn(chat_find("chatml"), "...A dog", "Where?");
    assert_string_equal(more, "...A dog<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n");
    free(more);
    assert_null(chat_find("jinja"));
    assert_string_equal(chat_of_template("{% for m in messages %}{{'<|im_start|>' + m['role']}}"), "chatml");
    assert_string_equal(chat_of_template("{{ x }}"), "");
}

/* BERT's tokenizer.json is its vocab.txt; [DEC] may come behind, as an added token. Other rules than the uncased ones
 * are refused, not followed half. */
#define BERT(normalizer, ids) "{\"normalizer\": {\"type\": \"BertNormalizer\"" normalizer "}, " \
    "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, \"added_tokens\": [{\"content\": \"[CLS]\", \"id\": 2}, " \
    "{\"content\": \"[DEC]\", \"id\": 8}], \"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", " \
    "\"continuing_subword_prefix\": \"##\", \"vocab\": {\"[PAD]\": 0, \"dog\": 5, \"[CLS]\": 2, \"[SEP]\": 3, " \
    "\"a\": 4, \"##s\": 6, \"[UNK]\": 1, \",\": " ids "}}}"

static void wordpiece_json(void **state) {
    (void)state;
    static const char lines[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\ndog\n##s\n,\n[DEC]\n";
    static const char text[] = "\xC3\x80 Dogs, cat [DEC]";
    static const struct { const char *json; Status st; } cases[] = {
        {BERT("", "7"), OK}, {BERT(", \"lowercase\": true, \"strip_accents\": null", "7"), OK},
        {BERT(", \"lowercase\": false", "7"), ERR_FORMAT}, {BERT(", \"handle_chinese_chars\": false", "7"), ERR_FORMAT},
        {BERT("", "6"), ERR_FORMAT}, {BERT("", "9"), ERR_FORMAT}, {BERT("", "-1"), ERR_FORMAT}};
    Tokenizer *plain, *t;
    int32_t want[16], got[16];
    int n, m;
    assert_int_equal(tokenizer_open_lines(&plain, lines, strlen(lines), "vocab.txt"), OK);
    assert_int_equal(tokenizer_encode(plain, text, strlen(text), 16, want, &n, NULL), OK);
    assert_int_equal(n, 8);                                  /* [CLS] a dog ##s , [UNK] [DEC] [SEP] */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(tokenizer_open_json(&t, cases[i].json, strlen(cases[i].json), "made.json"), cases[i].st);
        if (!t) continue;
        assert_int_equal(tokenizer_encode(t, text, strlen(text), 16, got, &m, NULL), OK);
        assert_true(m == n && !memcmp(got, want, (size_t)n * sizeof *got));
        assert_true(tokenizer_hash(t) == tokenizer_hash(plain) && tokenizer_ids(t)->bos == 8);
        tokenizer_close(t);
    }
    tokenizer_close(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings), cmocka_unit_test(runs_of_digits),
        cmocka_unit_test(shared_strings), cmocka_unit_test(names), cmocka_unit_test(refused),
        cmocka_unit_test(damaged_model), cmocka_unit_test(wordpiece_json), cmocka_unit_test(texts),
        cmocka_unit_test(chats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
