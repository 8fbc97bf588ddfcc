/* caption: what LAVIS does to a caption or question before the tokenizer sees it. Called by importers, the caption and
 * question inputs of commands, and the vocabulary trainer.
 *
 * Works on code points, with Python's meaning of lower() and of white space. Invalid UTF-8 becomes U+FFFD. Source: spec
 * training.md section 6. Does not tokenize. */
#pragma once
#include <stddef.h>

#include "kernels/base/err.h"

enum { CAPTION_MAX_WORDS = 50 };

/* blip_caption: lower, . ! " ( ) * # : ; ~ to blanks, runs of two or more white characters to one blank, ends
 * stripped, at most max_words; then `prompt` (may be NULL; not counted) in front. *out is a new string (free it) of
 * *len bytes and a NUL; len may be NULL. Fails only for want of memory. */
Status caption_blip(char **out, size_t *len, const char *text, size_t n, const char *prompt, int max_words);

/* blip_question: lower, the same characters deleted, blanks at the end stripped, at most max_words. */
Status caption_question(char **out, size_t *len, const char *text, size_t n, int max_words);
