/* settext: see settext.h. */
#include "data/text/settext.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "kernels/base/mem.h"
#include "kernels/base/splitmix.h"

enum { PART = 0x1D, ITEM = 0x1E };

static const char kinds[] = {[TEXT_CAPTION] = 0, [TEXT_QUESTION] = 'q', [TEXT_INSTRUCTION] = 'i',
                             [TEXT_CONVERSATION] = 'c'};

SetText settext_of(const char *s, size_t n) {
    SetText t = {.kind = TEXT_CAPTION, .target = {s, n}, .answers = 1};
    const char *end = s + n, *first, *second;
    if (n < 4 || s[0] != PART || !(first = memchr(s + 2, PART, n - 2)) || /* three marks and a kind at least */
        !(second = memchr(first + 1, PART, (size_t)(end - first - 1)))) return t;
    for (TextKind k = TEXT_QUESTION; k <= TEXT_CONVERSATION; k++)
        if (s[1] == kinds[k]) t.kind = k;                    /* of another letter: a caption, which loses nothing */
    if (t.kind == TEXT_CAPTION) return t;
    t.type = (TextSpan){s + 2, (size_t)(first - s - 2)};
    t.prompt = (TextSpan){first + 1, (size_t)(second - first - 1)};
    t.target = (TextSpan){second + 1, (size_t)(end - second - 1)};
    for (size_t i = 0; i < t.target.n; i++) t.answers += t.target.s[i] == ITEM;
    return t;
}

TextSpan settext_part(TextSpan list, int64_t k) {
    const char *s = list.s, *end = s + list.n, *next;
    for (; (next = memchr(s, ITEM, (size_t)(end - s))) != NULL && k > 0; k--) s = next + 1;
    return k ? (TextSpan){end, 0} : (TextSpan){s, (size_t)((next ? next : end) - s)};
}

/* The three separators are ours alone. */
static void without_marks(char *s) {
    for (; *s; s++)
        if (*s == PART || *s == ITEM) *s = ' ';
}

char *settext_make(TextKind kind, const char *type, const char *prompt, const char *target) {
    char *p = mem_strdup(prompt), *text = NULL;
    if (p && kind != TEXT_CONVERSATION) without_marks(p);
    if (p) text = mem_format("\x1D%c%s\x1D%s\x1D%s", kinds[kind], type ? type : "", p, target);
    free(p);
    return text;
}

char *settext_add(char *list, const char *part) {
    char *own = mem_strdup(part), *text = NULL;
    if (own) without_marks(own);
    if (own) text = list ? mem_format("%s\x1E%s", list, own) : mem_strdup(own);
    mem_free(own, list);
    return text;
}

static char *copy(TextSpan s) { return mem_format("%.*s", (int)s.n, s.s); }

Status settext_plain(char **out, size_t *len, const char *s, size_t n) {
    SetText t = settext_of(s, n);
    /* the first of a question's answers; other targets are one */
    TextSpan answer = t.kind == TEXT_QUESTION ? settext_part(t.target, 0) : t.target;
    *out = mem_new(t.prompt.n + answer.n + 2, 1);
    if (!*out) return ERR_MEMORY;
    memcpy(*out, t.prompt.s ? t.prompt.s : "", t.prompt.n);
    size_t at = t.prompt.n;
    if (at) (*out)[at++] = ' ';
    memcpy(*out + at, answer.s, answer.n);
    *len = at + answer.n;
    for (size_t i = 0; i < at; i++)                          /* turns of a conversation read on */
        if ((*out)[i] == ITEM) (*out)[i] = ' ';
    return OK;
}

Status settext_blip(char **out, size_t *len, const char *s, size_t n, const char *prompt, int max_words) {
    char *plain = NULL;
    size_t m;
    if (settext_of(s, n).kind == TEXT_CAPTION) return caption_blip(out, len, s, n, prompt, max_words);
    Status st = settext_plain(&plain, &m, s, n);
    if (st == OK) st = caption_blip(out, len, plain, m, prompt, max_words);
    free(plain);
    return st;
}

/* ---- templates ---- */

int64_t settext_templates(const char *templates) {
    int64_t n = 1;
    for (; *templates; templates++) n += *templates == '|';
    return n;
}

char *settext_fill(const char *templates, int64_t which, TextSpan question) {
    for (; which > 0; which--) templates = strchr(templates, '|') + 1;
    size_t n = strcspn(templates, "|");
    char *form = mem_format("%.*s", (int)n, templates), *at = form ? strstr(form, "{}") : NULL, *text;
    if (!form) return NULL;
    if (at) text = mem_format("%.*s%.*s%s", (int)(at - form), form, (int)question.n, question.s, at + 2);
    else text = mem_format("%s%s%.*s", form, *form ? " " : "", (int)question.n, question.s);
    free(form);
    return text;
}

/* Turns question, answer, question ...: each question in the template, its answer behind. */
static char *conversation(const SetText *t, const char *templates, int64_t which) {
    char *text = mem_strdup(""), *more;
    int64_t turns = 1;
    for (size_t i = 0; i < t->prompt.n; i++) turns += t->prompt.s[i] == ITEM;
    for (int64_t k = 0; text && k < turns; k++) {
        TextSpan part = settext_part(t->prompt, k);
        char *put = k % 2 ? copy(part) : settext_fill(templates, which, part);
        more = put ? mem_format("%s%s%s", text, *text ? " " : "", put) : NULL;
        mem_free(put, text);
        text = more;
    }
    return text;
}

Status settext_say(char **prompt, char **target, const SetText *t, const TextTemplates *with, uint64_t draw) {
    SplitMix r = {draw};
    int64_t which = (int64_t)splitmix_below(&r, (uint32_t)settext_templates(with->questions)),
            answer = t->kind == TEXT_QUESTION ? (int64_t)splitmix_below(&r, (uint32_t)t->answers) : 0;
    *prompt = t->kind == TEXT_CAPTION ? mem_strdup(with->caption_prompt)
        : t->kind == TEXT_INSTRUCTION ? copy(t->prompt)
        : t->kind == TEXT_QUESTION ? settext_fill(with->questions, which, t->prompt)
        : conversation(t, with->questions, which);
    *target = copy(t->kind == TEXT_QUESTION ? settext_part(t->target, answer) : t->target);
    if (*prompt && *target) return OK;
    mem_free(*prompt, *target);
    *prompt = *target = NULL;
    return ERR_MEMORY;
}
