/* speech: see speech.h. */
#include "data/text/speech.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

Status speech_open(Speech *s, const LmDims *d, const Tokenizer *t, bool instruct) {
    *s = (Speech){.family = d->family, .instruct = instruct, .t = t, .max_prompt = instruct ? 128 : 32,
                  .max_target = instruct ? 256 : 32, .end = d->nends ? d->end[0] : tokenizer_ids(t)->eos};
    if (d->family == LM_OPT) s->end = tokenizer_find(t, "\xC4\x8A");         /* the byte map's newline */
    if (tokenizer_size(t) > d->V) /* fewer is usual: the embedding is padded to a round number */
        return err_set(ERR_FORMAT, "the tokenizer has %d pieces, the language model %d words: they belong to different "
                       "models", tokenizer_size(t), d->V);
    if (s->end < 0) return err_set(ERR_FORMAT, "neither config.json nor the tokenizer names an end token");
    return OK;
}

static Status put(TokenIds *ids, int32_t id) { return ids_push(ids, id); }

static Status put_pieces(const Speech *s, const char *text, TokenIds *ids) {
    return tokenizer_pieces(s->t, text, strlen(text), ids);
}

static Status put_around(TokenIds *ids, const int32_t *around, int n) {
    Status st = OK;
    for (int i = 0; i < n && st == OK; i++) st = put(ids, around[i]);
    return st;
}

/* Prompt, blank, target as one text. */
static char *joined(const char *prompt, const char *target) {
    size_t n = strlen(prompt);
    bool blank = n && !isspace((unsigned char)prompt[n - 1]);
    return mem_format("%s%s%s", prompt, blank && target ? " " : "", target ? target : "");
}

static void cut(TokenIds *ids, size_t first, size_t most) {
    if (ids->n - first > most) ids->n = first + most;
}

/* opt and llama: one text; the prompt's pieces are its first ones, since none reaches across a blank. */
static Status one_text(const Speech *s, const char *prompt, const char *target, TokenIds *ids, int32_t *from) {
    const TokenizerIds *k = tokenizer_ids(s->t);
    size_t first = ids->n, begun = 0;
    bool opt = s->family == LM_OPT;
    char *text = joined(prompt, target);
    Status st = text ? put_around(ids, k->begin, k->nbegin) : ERR_MEMORY;
    begun = ids->n;
    if (st == OK) st = put_pieces(s, prompt, ids);
    *from = (int32_t)(ids->n - first);
    if (opt && ids->n == begun && target) *from = 0;
    ids->n = begun;                                          /* they were only counted: the whole text has them, too */
    if (st == OK) st = put_pieces(s, text, ids);
    if (st == OK && target) st = put(ids, s->end);
    cut(ids, first, (size_t)s->max_prompt);
    if (*from > (int32_t)(ids->n - first)) *from = (int32_t)(ids->n - first);
    free(text);
    return st;
}

/* t5, or instruct: two texts. */
static Status two_texts(const Speech *s, const char *prompt, const char *target, TokenIds *ids, int32_t *from) {
    const TokenizerIds *k = tokenizer_ids(s->t);
    bool t5 = s->family == LM_T5;
    size_t first = ids->n, ends = t5 ? 1 : 0;
    Status st = t5 ? OK : put_around(ids, k->begin, k->nbegin);
    size_t pieces = ids->n, most = (size_t)s->max_prompt - ends - (pieces - first);
    if (st == OK) st = put_pieces(s, prompt, ids);
    if (st == OK && s->instruct && ids->n - pieces > most) { /* the question stands at the end, so the front goes */
        memmove(ids->v + pieces, ids->v + ids->n - most, most * sizeof *ids->v);
        ids->n = pieces + most;
    }
    cut(ids, pieces, most);
    if (st == OK && t5) st = put(ids, s->end);
    *from = (int32_t)(ids->n - first);
    size_t begun = ids->n;
    if (st == OK && target) st = put_pieces(s, target, ids);
    if (target && t5) cut(ids, begun, (size_t)s->max_target - 1);
    if (st == OK && target) st = put(ids, s->end);
    if (target) cut(ids, begun, (size_t)(s->max_target - (t5 ? 0 : k->nbegin)));     /* LAVIS counts its begin, too */
    return st;
}

Status speech_ids(const Speech *s, const char *prompt, const char *target, TokenIds *ids, int32_t *from) {
    return s->instruct || s->family == LM_T5 ? two_texts(s, prompt, target, ids, from)
                                             : one_text(s, prompt, target, ids, from);
}
