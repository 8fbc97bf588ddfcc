/* split: see split.h. */
#include "data/text/split.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/base/unicode.h"

SplitRule split_of_pattern(const char *pattern) {
    static const char *const patterns[] = {
#define X(rule, name, pattern) pattern,
        SPLIT_LIST(X)
#undef X
    };
    for (int k = 0; k < SPLIT_COUNT; k++)
        if (*patterns[k] && !strcmp(pattern, patterns[k])) return (SplitRule)k;
    return SPLIT_COUNT;
}

/* ---- classes of characters ---- */

typedef enum { END, LETTER, NUMBER, BLANK, OTHER } Class;

#define IN(c, low, high) ((c) >= (low) && (c) <= (high))
#define CLASS(c) (IN(c, 9, 13) || (c) == 32 ? BLANK : IN(c, '0', '9') ? NUMBER \
    : IN(c, 'a', 'z') || IN(c, 'A', 'Z') ? LETTER : OTHER)
#define CLASS4(c) CLASS(c), CLASS((c) + 1), CLASS((c) + 2), CLASS((c) + 3)
#define CLASS16(c) CLASS4(c), CLASS4((c) + 4), CLASS4((c) + 8), CLASS4((c) + 12)
static const unsigned char ascii_class[128] = {
    CLASS16(0), CLASS16(16), CLASS16(32), CLASS16(48), CLASS16(64), CLASS16(80), CLASS16(96), CLASS16(112)
};

/* A place in the text and what stands there: `len` bytes of class `is`; END behind the last byte. With `digits` a
 * number ends the text: GPT-2's pattern runs on each stretch between digits by itself. */
typedef struct { const char *s; size_t n, at, len; uint32_t c; Class is; bool digits; } Scan;

static Class class_of(uint32_t c) {
    return uni_is_letter(c) ? LETTER : uni_is_number(c) ? NUMBER : uni_is_white_space(c) ? BLANK : OTHER;
}

static void look(Scan *k) {
    if (k->at >= k->n) {
        k->is = END, k->len = 0, k->c = 0;
        return;
    }
    unsigned char b = (unsigned char)k->s[k->at];
    if (b < 128) k->len = 1, k->c = b, k->is = (Class)ascii_class[b];
    else k->len = utf8_next(k->s + k->at, k->n - k->at, &k->c), k->is = class_of(k->c);
    if (k->digits && k->is == NUMBER) k->is = END;           /* so its patterns look at one stretch alone */
}

static void next(Scan *k) {
    k->at += k->len;
    look(k);
}

static size_t run(Scan *k, Class is, size_t most) {
    for (size_t i = 0; k->is == is && i < most; i++) next(k);
    return k->at;
}

/* 's 't 're 've 'm 'll 'd at the start; with `fold` in either case, and U+017F is an s. 0: none. */
static size_t contraction(const char *s, size_t n, bool fold) {
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    if (n < 2 || s[0] != '\'') return 0;
    for (size_t k = 0; k < sizeof endings / sizeof *endings; k++) {
        size_t len = strlen(endings[k]), same = 0;
        for (; same < len && same + 1 < n; same++) {
            char c = s[1 + same];
            if ((fold && c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != endings[k][same]) break;
        }
        if (same == len) return 1 + len;
    }
    return fold && n >= 3 && !memcmp(s + 1, "\xC5\xBF", 2) ? 3 : 0; /* (?i) folds the long s to s */
}

/* \s+(?!\S)|\s+ : a run of blanks leaves its last character to what follows,
 * unless nothing follows or it is the only one. */
static size_t blanks(Scan *k) {
    size_t last = k->at, count = 0;
    for (; k->is == BLANK; count++) {
        last = k->at;
        next(k);
    }
    return k->is == END || count == 1 ? k->at : last;
}

/* digits: most of a word of them, which then stands by itself; 0: they are as in GPT-2's pattern. */
static size_t next_gpt2(const char *s, size_t n, size_t digits) {
    size_t len = contraction(s, n, false);
    if (len) return len;
    Scan k = {.s = s, .n = n, .digits = digits > 0};
    look(&k);
    if (k.is == END) {                               /* a digit */
        k = (Scan){.s = s, .n = n};
        look(&k);
        return run(&k, NUMBER, digits);
    }
    Scan before = k;
    if (k.c == ' ') next(&k);
    if (k.is == END || k.is == BLANK) return blanks(&before); /* a blank before a blank belongs to the run */
    return run(&k, k.is, n);
}

/* The end of the run of blanks at k if it holds no line break, else the place behind its last one. */
static size_t line_breaks(Scan *k) {
    size_t after = 0;
    for (; k->is == BLANK; next(k))
        if (k->c == '\r' || k->c == '\n') after = k->at + 1;
    return after;
}

static size_t next_llama3(const char *s, size_t n, size_t most_digits) {
    size_t len = contraction(s, n, true);
    if (len) return len;
    Scan k = {.s = s, .n = n}, ahead;
    look(&k);
    if (k.is == NUMBER) return run(&k, NUMBER, most_digits);
    ahead = k;
    if (k.is != LETTER && k.c != '\r' && k.c != '\n') next(&ahead);
    if (ahead.is == LETTER) return run(&ahead, LETTER, n);
    ahead = k;
    if (k.c == ' ') next(&ahead);
    if (ahead.is == OTHER) {
        run(&ahead, OTHER, n);
        while (ahead.c == '\r' || ahead.c == '\n') next(&ahead); /* [\r\n]* behind the run */
        return ahead.at;
    }
    ahead = k;
    len = line_breaks(&ahead);
    return len ? len : blanks(&k);
}

static size_t next_white(const char *s, size_t n, size_t *skip) {
    Scan k = {.s = s, .n = n};
    look(&k);
    *skip = run(&k, BLANK, n);
    while (k.is != BLANK && k.is != END) next(&k);
    return k.at - *skip;
}

size_t split_next(SplitRule rule, const char *s, size_t n, size_t *skip) {
    *skip = 0;
    switch (rule) {
    case SPLIT_WHITE: return next_white(s, n, skip);
    case SPLIT_GPT2: return next_gpt2(s, n, 0);
    case SPLIT_DIGITS: return next_gpt2(s, n, 1);
    case SPLIT_RUNS: return next_gpt2(s, n, n);
    case SPLIT_LLAMA3: return next_llama3(s, n, 3);
    case SPLIT_QWEN2: return next_llama3(s, n, 1);
    default: return n;
    }
}
