/* split: where a text is cut into words before its pieces are looked for. Each rule is the regular expression that
 * tokenizer.json names, as a scanner written by hand: a file's pattern is recognised by its text (SPLIT_LIST), and one
 * that is not among them is refused. Letters and digits are Unicode's L and N, blanks White_Space.
 *
 * Source of the patterns: spec/stage2.md 8b. Called by tokenizer.c. */
#pragma once
#include <stddef.h>

/* The pattern of GPT-2 is ByteLevel's own (use_regex); those of Llama-3 and Qwen2 stand in a Split. */
#define SPLIT_TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define SPLIT_GPT "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SPLIT_HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"

/*    rule          what it is called in a sentence                  its pattern, where a file writes it out */
#define SPLIT_LIST(X)                                                                                   \
    X(SPLIT_NONE,   "the whole text is one word",                    "")                                \
    X(SPLIT_WHITE,  "words between blanks",                          "")                                \
    X(SPLIT_GPT2,   "GPT-2's words",                                 SPLIT_GPT)                         \
    X(SPLIT_DIGITS, "single digits, and GPT-2's words between them", "")                                \
    X(SPLIT_RUNS,   "runs of digits, and GPT-2's words between them", "")                               \
    X(SPLIT_LLAMA3, "Llama-3's words",                               SPLIT_HEAD "\\p{N}{1,3}" SPLIT_TAIL) \
    X(SPLIT_QWEN2,  "Qwen2's words",                                 SPLIT_HEAD "\\p{N}" SPLIT_TAIL)

typedef enum {
#define X(rule, name, pattern) rule,
    SPLIT_LIST(X)
#undef X
    SPLIT_COUNT
} SplitRule;

/* The rule of a pattern; SPLIT_COUNT when it is none of them. */
SplitRule split_of_pattern(const char *pattern);

/* Bytes of the first word of s[0..n), n > 0: at least one, and always whole characters. SPLIT_WHITE: *skip is how many
 * bytes of blanks stand before it (and the result may be 0 when nothing else is there); else *skip is 0. */
size_t split_next(SplitRule rule, const char *s, size_t n, size_t *skip);
