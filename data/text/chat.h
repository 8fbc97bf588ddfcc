/* chat: how instruction-tuned language models want a question put: plain text in front of it and behind it. No template
 * language: a form is a row of pieces. In all of them the answer follows the suffix, and the model's end token it.
 *
 *     system (once, if there is one)    prefix question suffix answer    between prefix question suffix answer ...
 *
 * A folder's own template (Jinja, in tokenizer_config.json) is recognised by the marks it holds, and only its form is
 * taken from it. Sources: spec/stage2.md 9; the published prompts of Vicuna v1.1, Alpaca and Llama-2. */
#pragma once
#include "kernels/base/err.h"

typedef struct {
    const char *name;          /* "chatml", "llama2", "vicuna", "alpaca", "llama3", "zephyr" */
    const char *system;        /* with %s for the system's text */
    const char *prefix, *suffix;
    const char *between;       /* behind an answer, before the next turn */
    const char *usual;         /* system's text that the models were trained with; NULL: none is put */
    const char *mark;          /* what gives its templates away */
} ChatForm;

const ChatForm *chat_find(const char *name);               /* NULL when unknown */
const char *chat_of_template(const char *jinja);           /* the name of the form whose mark is in it, or "" */

/* A new text (free it): the system's text (NULL or "": none) and one question, ready for the answer. */
char *chat_prompt(const ChatForm *f, const char *system, const char *question);

/* A new text: `so_far` (ended by an answer) and a further question. */
char *chat_turn(const ChatForm *f, const char *so_far, const char *question);
