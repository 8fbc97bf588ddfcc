/* gold_text: fixtures of text: tokenizers and caption processors (and, in gold_metrics.c, metrics).
 *
 *     strings.jsonl        {"text", "ids"[, "ids32", "ids35", "decoded"]} beside a tokenizer's files: exactly, from
 *                          each of the forms that lie there (tokenizer.json; vocab.json and merges.txt; a SentencePiece
 *                          model)
 *     cleaned_strings.jsonl    likewise, decoded with blanks cleaned up
 *     KIND_strings.jsonl   the same of a folder KIND_lm beside it, decoded with blanks cleaned up; bpe means opt,
 *                          unigram t5
 *     processors.jsonl     {"text", "caption", "caption_prompt", "question"}
 *     invalid_utf8.tsv     name, bytes in hex, ids
 *
 * A strings.jsonl without a tokenizer beside it is of the model in the folder that the environment's SMOLLM2 names,
 * when an expected.json lies there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/text/caption.h"
#include "data/text/tokenizer.h"
#include "kernels/base/mem.h"
#include "tests/gold.h"

typedef struct { Case *c; const Tokenizer *t; const char *what; int wrong; } Strings;

static bool there(const char *dir, const char *name) {
    char path[2200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, R_OK) == 0;
}

static bool ends(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

bool gold_is_strings(const char *dir, const char *name) {
    (void)dir;
    return ends(name, "strings.jsonl");
}
bool gold_is_processors(const char *dir, const char *name) { return (void)dir, strcmp(name, "processors.jsonl") == 0; }
bool gold_is_invalid(const char *dir, const char *name) { return (void)dir, strcmp(name, "invalid_utf8.tsv") == 0; }

/* ---- tokenizers -------------------------------------------------------------------------------------------------- */

static bool same_ids(const Tokenizer *t, const char *text, size_t n, const Json *want, int most) {
    int count = 0, room = most ? most : (int)n * 16 + 64;        /* NFKC makes 33 bytes of 3 */
    int32_t *ids = mem_new((size_t)room, sizeof *ids);
    bool same = ids && tokenizer_encode(t, text, n, room, ids, &count, NULL) == OK && (size_t)count == json_len(want);
    for (int i = 0; same && i < count; i++) {
        int64_t id = -1;
        json_int(json_at(want, (size_t)i), &id);
        same = id == ids[i];
    }
    free(ids);
    return same;
}

static bool same_text(const Tokenizer *t, const Json *ids, const char *want, size_t n) {
    int32_t *v = mem_new(json_len(ids) + 1, sizeof *v);
    char *text = NULL;
    size_t len = 0;
    for (size_t i = 0; v && i < json_len(ids); i++) {
        int64_t id = -1;
        json_int(json_at(ids, i), &id);
        v[i] = (int32_t)id;
    }
    bool same = v && tokenizer_decode(t, v, json_len(ids), &text, &len) == OK && len == n && !memcmp(text, want, n);
    free(v);
    free(text);
    return same;
}

static void wrong(Strings *s, int64_t row, const char *what, const char *text, size_t n) {
    char say[160];
    snprintf(say, sizeof say, "%s: %s of row %lld", s->what, what, (long long)row);
    gold_check(s->c, say, 1, 0.5);
    if (s->wrong++ < 8) printf("      %s: \"%.*s\"\n", say, (int)(n < 70 ? n : 70), text);
}

static Status compare_row(void *ctx, int64_t i, const Json *row) {
    Strings *s = ctx;
    size_t n, ndecoded;
    const char *text = json_str(json_get(row, "text"), &n), *decoded = json_str(json_get(row, "decoded"), &ndecoded);
    const Json *ids = json_get(row, "ids"), *cut;
    if (!text || !ids) return err_set(ERR_FORMAT, "row %lld has no text or no ids", (long long)i);
    gold_check(s->c, s->what, 0, 0.5);
    if (!same_ids(s->t, text, n, ids, 0)) wrong(s, i, "ids", text, n);
    if ((cut = json_get(row, "ids32")) && !same_ids(s->t, text, n, cut, 32)) wrong(s, i, "ids32", text, n);
    if ((cut = json_get(row, "ids35")) && !same_ids(s->t, text, n, cut, 35)) wrong(s, i, "ids35", text, n);
    if (decoded && !same_text(s->t, ids, decoded, ndecoded)) wrong(s, i, "decoded", text, n);
    return OK;
}

static Status compare_form(Case *c, const char *dir, const char *file, bool clean) {
    Tokenizer *t = NULL;
    char path[2200], what[80];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    Status st = tokenizer_open(&t, path);
    if (st == ERR_FORMAT && ends(file, "vocab.json") && strstr(err_message(), "whose rules")) return OK;
    if (st != OK) return st;
    snprintf(what, sizeof what, "%s, %s", tokenizer_kind(t), file);
    Strings s = {.c = c, .t = t, .what = what};
    tokenizer_set_cleans(t, clean);
    st = json_each(c->file, compare_row, &s);
    tokenizer_close(t);
    return st;
}

/* The folder of the tokenizer; false when it is not there. */
static bool folder_of(const Case *c, char *dir, size_t n) {
    static const char *const names[][2] = {{"bpe", "opt"}, {"unigram", "t5"}};
    const char *name = strrchr(c->file, '/') + 1, *smollm2 = getenv("SMOLLM2");
    size_t len = strncmp(name, "cleaned_", 8) ? strlen(name) - strlen("strings.jsonl") : 0;
    snprintf(dir, n, "%s", c->dir);
    if (!len && smollm2 && there(dir, "expected.json") && !there(dir, "tokenizer.json"))
        snprintf(dir, n, "%s", smollm2);
    if (!len) return there(dir, "vocab.txt") || there(dir, "tokenizer.json") || there(dir, "spiece.model") ||
        there(dir, "tokenizer.model") || there(dir, "vocab.json");
    for (size_t k = 0; k < 2; k++)
        if (len == strlen(names[k][0]) + 1 && !strncmp(name, names[k][0], len - 1))
            name = names[k][1], len = strlen(name) + 1;
    snprintf(dir, n, "%s/%.*s_lm", c->dir, (int)len - 1, name);
    return there(dir, "tokenizer.json");
}

Status gold_strings(Case *c) {
    static const char *const forms[] = {"vocab.txt", "tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model"};
    char dir[2048];
    if (!folder_of(c, dir, sizeof dir)) return err_set(ERR_MISSING, "the tokenizer of these strings is not here");
    bool clean = !ends(c->file, "/strings.jsonl");
    Status st = OK;
    for (size_t k = 0; k < sizeof forms / sizeof *forms && st == OK; k++)
        if (there(dir, forms[k])) st = compare_form(c, dir, forms[k], clean);
    return st;
}

/* ---- bytes that are no text -------------------------------------------------------------------------------------- */

static size_t unhex(const char *s, size_t n, char *out) {
    for (size_t i = 0; i + 1 < n; i += 2) {
        unsigned b = 0;
        sscanf(s + i, "%2x", &b);
        out[i / 2] = (char)b;
    }
    return n / 2;
}

static void compare_invalid(Case *c, const Tokenizer *t, char *line) {
    char bytes[2048], *hex = strchr(line, '\t'), *ids = hex ? strchr(hex + 1, '\t') : NULL;
    int32_t got[512];
    int count = 0, bad = 0;
    if (!ids || ids - hex > 4000) return;
    size_t n = unhex(hex + 1, (size_t)(ids - hex - 1), bytes);
    bool ok = tokenizer_encode(t, bytes, n, 512, got, &count, NULL) == OK;
    for (int i = 0; i < count; i++) bad += strtol(ids, &ids, 10) != got[i];
    *hex = 0;
    gold_check(c, line, !ok || bad || strtol(ids, NULL, 10), 0.5);
}

Status gold_invalid(Case *c) {
    Tokenizer *t = NULL;
    char line[8192];
    Status st = tokenizer_open(&t, c->dir);
    FILE *f = st == OK ? fopen(c->file, "r") : NULL;
    if (st == OK && !f) st = err_set(ERR_IO, "%s cannot be read", c->file);
    while (f && fgets(line, sizeof line, f)) compare_invalid(c, t, line);
    if (f) fclose(f);
    tokenizer_close(t);
    return st;
}

/* ---- caption processors ------------------------------------------------------------------------------------------ */

static Status compare_processed(void *ctx, int64_t i, const Json *row) {
    static const struct { const char *key, *prompt; } forms[] = {{"caption", NULL}, {"caption_prompt", "a photo of "},
                                                                 {"question", NULL}};
    Case *c = ctx;
    size_t n, want_n, len;
    const char *text = json_str(json_get(row, "text"), &n);
    for (size_t k = 0; text && k < 3; k++) {
        const char *want = json_str(json_get(row, forms[k].key), &want_n);
        char *got = NULL, what[80];
        if (!want) continue;
        Status st = k == 2 ? caption_question(&got, &len, text, n, 50)
                           : caption_blip(&got, &len, text, n, forms[k].prompt, 50);
        snprintf(what, sizeof what, "%s of row %lld", forms[k].key, (long long)i);
        gold_check(c, what, st != OK || len != want_n || memcmp(got, want, len), 0.5);
        free(got);
    }
    return OK;
}

Status gold_processors(Case *c) { return json_each(c->file, compare_processed, c); }
