/* unicode: what the tokenizer and the caption processors need to know about characters. utf8proc.h is included in
 * unicode.c only; its tables say which Unicode version is in force (the fixtures are of version 14; characters assigned
 * later may differ).
 *
 * Text is bytes that claim to be UTF-8; a code point is a uint32_t. Nothing here fails on bad input: each maximal
 * invalid part decodes to U+FFFD (the rule of Unicode 3.9, table 3-8, and of Python's errors="replace").
 *
 * Does not know locales. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

enum { UNI_REPLACEMENT = 0xFFFD, UTF8_MAX = 4 };

/* Code points in a growing array; starts as {0}, ends with uni_free. */
typedef struct {
    uint32_t *v;
    size_t n, cap;
} UniText;

Status uni_push(UniText *t, uint32_t c);
void uni_free(UniText *t);

/* Decodes one code point of s[0..n), n > 0; returns the bytes consumed (1..4). */
size_t utf8_next(const char *s, size_t n, uint32_t *c);
size_t utf8_put(uint32_t c, char out[UTF8_MAX]);           /* bytes written; c must be a scalar value */
bool utf8_valid(const char *s, size_t n, size_t *bad);     /* *bad: offset of the first invalid part; may be NULL */
Status uni_decode(UniText *out, const char *s, size_t n);  /* appends */

/* Categories. A code point that is not assigned has category Cn. */
bool uni_is_control(uint32_t c);      /* C*: Cc Cf Cn Co Cs */
bool uni_is_space_separator(uint32_t c);   /* Zs */
bool uni_is_mark_nonspacing(uint32_t c);   /* Mn */
bool uni_is_punct(uint32_t c);        /* P* */
bool uni_is_letter(uint32_t c);       /* L* */
bool uni_is_number(uint32_t c);       /* N* */
bool uni_is_digit(uint32_t c);        /* Nd */
bool uni_is_white_space(uint32_t c);  /* property White_Space: what regular expressions call \s */
bool uni_is_white(uint32_t c);        /* Python's isspace, split() and \s: also U+001C..1F, U+0085, U+2028, U+2029 */

/* Lower case, appended: of one character by itself (U+0130 gives i U+0307), and Python's str.lower() (also the final
 * sigma, which depends on the neighbours). */
Status uni_push_lower(UniText *out, uint32_t c);
Status uni_lower(UniText *out, const uint32_t *v, size_t n);

Status uni_nfd(UniText *t);   /* canonical decomposition, in place */
Status uni_nfc(UniText *t);   /* and composed again */
Status uni_nfkc(UniText *t);  /* compatibility decomposition, composed again */

/* Whether an extended grapheme cluster ends between two neighbours; *state starts as 0 at the beginning of a text. */
bool uni_cluster_ends(uint32_t before, uint32_t after, int32_t *state);
