/* vqa_words: the normal form of an answer; see vqa.h. The rules, and the order that they are applied in, are the
 * official program's, slips included: what punctuation becomes is looked up in the text as it was, and only the first
 * 32 periods go. */
#include <stdlib.h>
#include <string.h>

#include "eval/metrics/vqa.h"
#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

/* ---- stripping ---- */

static void strip(UniText *t) {
    size_t from = 0;
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i] == '\n' || t->v[i] == '\t') t->v[i] = ' ';  /* as the program does before all else */
    while (t->n && uni_is_white(t->v[t->n - 1])) t->n--;
    while (from < t->n && uni_is_white(t->v[from])) from++;
    t->n -= from;
    if (from) memmove(t->v, t->v + from, t->n * sizeof *t->v);
}

/* ---- punctuation ---- */

/* A digit comma digit anywhere: then all punctuation is deleted instead of becoming blanks. */
static bool has_grouped_number(const UniText *t) {
    for (size_t i = 1; i + 1 < t->n; i++)
        if (t->v[i] == ',' && uni_is_digit(t->v[i - 1]) && uni_is_digit(t->v[i + 1])) return true;
    return false;
}

static bool beside_blank(const UniText *t, uint32_t p) {
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i] == p && ((i && t->v[i - 1] == ' ') || (i + 1 < t->n && t->v[i + 1] == ' '))) return true;
    return false;
}

static void drop_periods(UniText *t) {
    size_t n = 0;
    int dropped = 0;
    for (size_t i = 0; i < t->n; i++) {
        /* 32 is re.UNICODE, which the program hands to re.sub in the place of a count */
        bool drop = t->v[i] == '.' && dropped < 32 && !(i + 1 < t->n && uni_is_digit(t->v[i + 1]));
        if (drop) dropped++;
        else t->v[n++] = t->v[i];
    }
    t->n = n;
}

static void without_punctuation(UniText *t) {
    static const char marks[] = ";/[]\"{}()=+\\_-><@`,?!";
    bool deleted[128] = {false}, grouped = has_grouped_number(t);
    size_t n = 0;
    /* one place decides for all places of the mark */
    for (const char *p = marks; *p; p++) deleted[(unsigned char)*p] = grouped || beside_blank(t, (unsigned char)*p);
    for (size_t i = 0; i < t->n; i++) {
        bool mark = t->v[i] < 128 && t->v[i] && strchr(marks, (int)t->v[i]);
        if (!mark || !deleted[t->v[i]]) t->v[n++] = mark ? ' ' : t->v[i];  /* what is not deleted parts two words */
    }
    t->n = n;
    drop_periods(t);
}

/* ---- words ---- */

/* A word that lacks its apostrophe (one of two: either) gets it back. */
static const char *const contractions[] = {
    "ain't", "aren't", "can't", "could've", "couldn't", "didn't", "doesn't", "don't", "hadn't", "hasn't", "haven't",
    "he'd", "he's", "how'd", "how'll", "how's", "isn't", "it'd", "it'll", "ma'am", "mightn't", "might've", "mustn't",
    "must've", "needn't", "not've", "o'clock", "oughtn't", "shan't", "should've", "shouldn't", "somebody'll",
        "somebody's",
    "someone'd", "someone'll", "someone's", "something'd", "something'll", "that's", "there'd", "there're", "there's",
    "they'd", "they'll", "they're", "they've", "'twas", "wasn't", "we've", "weren't", "what'll", "what're", "what's",
    "what've", "when's", "where'd", "where's", "where've", "who'd", "who'll", "who's", "who've", "why'll", "why're",
    "why's", "won't", "would've", "wouldn't", "y'all", "you'd", "you'll", "you're", "you've", "couldn't've",
        "hadn't've",
    "he'd've", "it'd've", "mightn't've", "she'd've", "shouldn't've", "somebody'd've", "someone'd've", "something'd've",
    "there'd've", "they'd've", "who'd've", "wouldn't've", "you'd've", "y'all'll",
};

/* Words for words: numbers, and contractions that the rule above does not give. */
static const char *const words[][2] = {
    {"none", "0"}, {"zero", "0"}, {"one", "1"}, {"two", "2"}, {"three", "3"}, {"four", "4"}, {"five", "5"}, {"six",
        "6"},
    {"seven", "7"}, {"eight", "8"}, {"nine", "9"}, {"ten", "10"}, {"a", ""}, {"an", ""}, {"the", ""},
    {"somebody'd", "somebodyd"}, {"ow's'at", "'ow's'at"}, {"'ows'at", "'ow's'at"}, {"'ow'sat", "'ow's'at"},
    {"yall'd've", "y'all'd've"}, {"y'alld've", "y'all'd've"}, {"y'all'dve", "y'all'd've"},
};

/* Whether `whole` without one of its apostrophes is word[0..n). */
static bool lacks_apostrophe(const char *whole, const char *word, size_t n) {
    if (strlen(whole) != n + 1) return false;
    for (const char *at = strchr(whole, '\''); at; at = strchr(at + 1, '\'')) {
        size_t before = (size_t)(at - whole);
        if (!memcmp(whole, word, before) && !memcmp(at + 1, word + before, n - before)) return true;
    }
    return false;
}

static const char *word_for(const char *word, size_t n) {
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        if (strlen(words[k][0]) == n && !memcmp(words[k][0], word, n)) return words[k][1];
    for (size_t k = 0; k < sizeof contractions / sizeof *contractions; k++)
        if (lacks_apostrophe(contractions[k], word, n)) return contractions[k];
    return NULL;
}

/* The text in lower case, as UTF-8 with a NUL behind; out has room for 4 bytes a character. */
static void join_words(const UniText *t, char *out) {
    char *end = out;
    for (size_t i = 0; i < t->n;) {
        if (uni_is_white(t->v[i])) { i++; continue; }
        char *start = end;
        if (end != out) *end++ = ' ';
        char *word = end;
        for (; i < t->n && !uni_is_white(t->v[i]); i++) end += utf8_put(t->v[i], end);
        const char *other = word_for(word, (size_t)(end - word));
        if (!other) continue;
        memcpy(word, other, strlen(other));
        end = *other ? word + strlen(other) : start;         /* an article takes its blank along */
    }
    *end = 0;
}

static Status lowered(UniText *t) {
    UniText low = {0};
    Status st = uni_lower(&low, t->v, t->n);
    uni_free(t);
    *t = low;
    return st;
}

Status vqa_normalise(char **out, const char *answer, size_t n, enum VqaSteps steps) {
    UniText t = {0};
    char *end;
    *out = NULL;
    Status st = uni_decode(&t, answer, n);
    if (st == OK && steps & VQA_STRIP) strip(&t);
    if (st == OK && steps & VQA_PUNCTUATION) without_punctuation(&t);
    if (st == OK && steps & VQA_WORDS) st = lowered(&t);
    /* words grow: "dont" has one byte less than "don't" */
    if (st == OK && !(*out = mem_new(t.n + 2, UTF8_MAX + 1))) st = ERR_MEMORY;
    if (st == OK && steps & VQA_WORDS) join_words(&t, *out);
    else if (st == OK) {
        end = *out;
        for (size_t i = 0; i < t.n; i++) end += utf8_put(t.v[i], end);
        *end = 0;
    }
    uni_free(&t);
    return st;
}
