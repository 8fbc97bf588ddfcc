/* caption: see caption.h. */
#include "data/text/caption.h"

#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/unicode.h"

static bool is_dropped(uint32_t c) { return c && c < 0x80 && strchr(".!\"()*#:;~", (int)c); }

static Status lowered(UniText *t, const char *text, size_t n) {
    UniText raw = {0};
    Status st = uni_decode(&raw, text, n);
    if (st == OK) st = uni_lower(t, raw.v, raw.n);
    uni_free(&raw);
    return st;
}

/* Words are what single blanks separate, so two blanks have an empty word between them. */
static void keep_words(UniText *t, int max_words) {
    int words = 1;
    for (size_t i = 0; i < t->n; i++)
        if (t->v[i] == ' ' && ++words > max_words) t->n = i; /* the blank before the first word too many goes with it */
}

static Status encoded(char **out, size_t *len, const char *prompt, const uint32_t *v, size_t n) {
    /* the prompt goes in as it is: the processor cleans captions alone */
    size_t at = prompt ? strlen(prompt) : 0, bytes = at + 1;
    char utf8[UTF8_MAX];
    for (size_t i = 0; i < n; i++) bytes += utf8_put(v[i], utf8);
    *out = mem_new(bytes, 1);
    if (!*out) return ERR_MEMORY;
    if (at) memcpy(*out, prompt, at);
    for (size_t i = 0; i < n; i++) at += utf8_put(v[i], *out + at);
    if (len) *len = at;
    return OK;
}

/* In place: a run of white characters becomes one blank; one alone stays as it is. */
static void join_blanks(UniText *t) {
    size_t n = 0;
    for (size_t i = 0, end; i < t->n; i = end) {
        for (end = i; end < t->n && uni_is_white(t->v[end]); end++) {}
        if (end == i) end++;
        t->v[n++] = end - i > 1 ? ' ' : t->v[i];
    }
    t->n = n;
}

Status caption_blip(char **out, size_t *len, const char *text, size_t n, const char *prompt, int max_words) {
    UniText t = {0};
    size_t first = 0;
    *out = NULL;
    Status st = lowered(&t, text, n);
    for (size_t i = 0; i < t.n; i++)
        if (is_dropped(t.v[i])) t.v[i] = ' ';
    join_blanks(&t);
    while (t.n && t.v[t.n - 1] == '\n') t.n--;               /* rstrip("\n"), then strip(" "), in LAVIS's order */
    while (t.n && t.v[t.n - 1] == ' ') t.n--;
    while (first < t.n && t.v[first] == ' ') first++;
    if (first) memmove(t.v, t.v + first, (t.n -= first) * sizeof *t.v);
    keep_words(&t, max_words);
    if (st == OK) st = encoded(out, len, prompt, t.v, t.n);
    uni_free(&t);
    return st;
}

Status caption_question(char **out, size_t *len, const char *text, size_t n, int max_words) {
    UniText t = {0};
    size_t kept = 0;
    *out = NULL;
    Status st = lowered(&t, text, n);
    for (size_t i = 0; i < t.n; i++)
        if (!is_dropped(t.v[i])) t.v[kept++] = t.v[i];
    t.n = kept;
    while (t.n && t.v[t.n - 1] == ' ') t.n--;
    keep_words(&t, max_words);
    if (st == OK) st = encoded(out, len, NULL, t.v, t.n);
    uni_free(&t);
    return st;
}
