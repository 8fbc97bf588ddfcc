/* settext: what the texts of a set say about an image: a caption, or something asked and what is answered.
 *
 * A set keeps texts as bytes (data/FORMAT.md). One that begins with U+001D has parts:
 *
 *     U+001D kind type U+001D prompt U+001D target
 *     kind   q   a question: target is one human answer or more, U+001E between
 *            i   an instruction: prompt and what is to be said, as they are
 *            c   a conversation: prompt is its turns so far, question, answer, question ..., U+001E between; target
 * the next answer
 *     type   what sort of question it is ("number", "colour"), for accuracies by type; may be empty
 *
 * Anything else is a caption, which is all target. Control characters in what people wrote become blanks on the way in.
 *
 * Called by what makes sets (annotations, synth), by the loader and importers (plain text for stage 1), and by stage
 * 2. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef enum { TEXT_CAPTION, TEXT_QUESTION, TEXT_INSTRUCTION, TEXT_CONVERSATION } TextKind;

typedef struct { const char *s; size_t n; } TextSpan;       /* not ended by a NUL */

typedef struct {
    TextKind kind;
    TextSpan type, prompt, target;
    int64_t answers;                    /* parts of the target; 1 but for questions */
} SetText;

/* Any bytes are some text: what has not all parts is a caption. */
SetText settext_of(const char *s, size_t n);

/* Part `k` of a span whose parts U+001E separates: an answer of a question, a turn of a conversation. */
TextSpan settext_part(TextSpan list, int64_t k);

/* A new text (free it), made of parts; answers of a question and turns of a conversation are joined by the caller with
 * settext_add. type may be NULL. */
char *settext_make(TextKind kind, const char *type, const char *prompt, const char *target);

/* list (NULL: none yet) and one part more; frees list. NULL: memory. */
char *settext_add(char *list, const char *part);

/* What stage 1 and the metrics read: the caption; of others prompt and first answer with a blank between. New (free).
 * */
Status settext_plain(char **out, size_t *len, const char *s, size_t n);

/* caption_blip (caption.h) of that. */
Status settext_blip(char **out, size_t *len, const char *s, size_t n, const char *prompt, int max_words);

/* What a language model is given and shall say, new texts (free both). Templates of questions, "|" between, with {} for
 * the question, are drawn by `draw`, and so is the answer; "" is the question as it is. A caption's prompt is
 * `caption_prompt`. A conversation is put in the same template, turn by turn:
 * "Question: a Answer: b Question: c Answer:". */
typedef struct { const char *caption_prompt, *questions; } TextTemplates;
Status settext_say(char **prompt, char **target, const SetText *t, const TextTemplates *with, uint64_t draw);

/* One template with a question in it (free): what ask and settext_say have in common. */
char *settext_fill(const char *templates, int64_t which, TextSpan question);
int64_t settext_templates(const char *templates);            /* how many */
