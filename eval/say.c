/* say: see say.h. */
#include "eval/say.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { ASKED = 128 };                   /* word pieces of a prompt in the Q-Former, as published */

void say_rules(SearchSpec *s, const Speaker *sp) {
    const LmDims *d = &sp->src.d;
    bool opt = d->family == LM_OPT, t5 = d->family == LM_T5;
    s->rule = opt || t5 ? SEARCH_V4 : SEARCH_V5;
    s->start = opt ? tokenizer_ids(sp->tok)->bos : t5 ? d->start : -1;
    s->nends = opt ? 1 : d->nends;
    for (int i = 0; i < s->nends; i++) s->ends[i] = opt ? sp->speech.end : d->end[i];
}

static size_t row_bytes(const Say *x) {
    return (size_t)x->u->d.P * (size_t)x->u->d.E * (size_t)dtype_size(x->visual.spec.features);
}

static Status open_parts(Say *x, int copies, DType features) {
    const Speaker *sp = &x->u->speaker;
    bool instruct = sp->speech.instruct, fed = sp->src.d.family == LM_T5;
    LmDecoderSpec spec = {.prefixes = x->images, .slots = decode_slots(&x->search, x->images, copies),
                          .length = decode_length(&x->search, fed), .rows = x->u->d.Q + sp->speech.max_prompt};
    Status st = visual_open(&x->visual, x->u->b, &x->u->model,
                            &(VisualSpec){.images = x->images, .asked = instruct ? ASKED : 0, .features = features});
    if (st == OK) st = lm_decoder_open(&x->lm, x->u->b, &sp->lm, &spec);
    if (st != OK) return st;
    x->decoder = lm_decoder(&x->lm);
    if (instruct) {
        x->row = mem_new((size_t)x->images, row_bytes(x));
        x->scale = mem_new((size_t)x->images, sizeof *x->scale);
        if (!x->row || !x->scale) return ERR_MEMORY;
    }
    return decode_open(&x->decode, &x->decoder, &x->search, copies);
}

Status say_open(Say *x, const Use *u, const SearchSpec *search, int images, int copies, DType features) {
    *x = (Say){.u = u, .images = images, .search = *search};
    if (search->max_length - 1 > u->o->stage2.max_new)
        return err_set(ERR_USAGE,
                       "texts of up to %d new tokens, and room is made for %lld; stage2.max_new=%d makes more",
                       search->max_length - 1, (long long)u->o->stage2.max_new, search->max_length - 1);
    Status st = open_parts(x, copies, features);
    if (st != OK) say_close(x);
    return st;
}

void say_close(Say *x) {
    if (!x->u) return;
    if (x->decode.d) decode_close(&x->decode);
    lm_decoder_close(&x->lm);
    visual_close(&x->visual);
    free(x->row);
    free(x->scale);
    *x = (Say){0};
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

typedef struct { TokenIds ids; LmPrefix *p; size_t *start; } Prompts;

static void prompts_free(Prompts *x) {
    free(x->ids.v);
    free(x->p);
    free(x->start);
}

/* rows: the number of an item's visual rows is its picture's, or (InstructBLIP) its own. */
static Status take_prompts(Prompts *x, const Say *s, const SayItem *items, int64_t n, bool own) {
    int32_t Q = s->u->d.Q, target;
    *x = (Prompts){.p = mem_new((size_t)n, sizeof *x->p), .start = mem_new((size_t)n + 1, sizeof *x->start)};
    Status st = x->p && x->start ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < n && st == OK; i++) {
        st = speech_ids(&s->u->speaker.speech, items[i].prompt, NULL, &x->ids, &target);
        x->start[i + 1] = x->ids.n;
    }
    for (int64_t i = 0; i < n && st == OK; i++)
        x->p[i] = (LmPrefix){.soft = (own ? (int32_t)i : items[i].image) * Q, .nsoft = Q, .ids = x->ids.v + x->start[i],
                             .n = (int32_t)(x->start[i + 1] - x->start[i])};
    return st;
}

static Status write_behind(Say *x, Tensor soft, const SayItem *items, int64_t n, bool own, int64_t first,
                           DecodeFound *found, void *ctx) {
    Prompts p;
    Status st = take_prompts(&p, x, items, n, own);
    if (st == OK) st = decode_texts(&x->decode, &(LmGiven){.soft = soft, .prefixes = p.p}, n, first, found, ctx);
    prompts_free(&p);
    return st;
}

/* ---- InstructBLIP ------------------------------------------------------------------------------------------------ */

/* [CLS] pieces [SEP]; of a prompt that is too long the last pieces stay. */
static Status ask_ids(const Tokenizer *t, const char *prompt, TokenIds *ids) {
    const TokenizerIds *s = tokenizer_ids(t);
    TokenIds pieces = {0};
    Status st = tokenizer_pieces(t, prompt, strlen(prompt), &pieces);
    size_t from = pieces.n > ASKED - 2 ? pieces.n - (ASKED - 2) : 0;
    if (st == OK) st = ids_push(ids, s->begin[0]);
    for (size_t i = from; i < pieces.n && st == OK; i++) st = ids_push(ids, pieces.v[i]);
    free(pieces.v);
    return st == OK ? ids_push(ids, s->end[0]) : st;
}

/* As many prompts as pictures at a time: each is a picture of its own to the Q-Former. */
static Status asked_rows(Say *x, const char *features, const float *scale, const SayItem *items, int n, Tensor *soft) {
    TokenIds ids = {0};
    VisualAsk *asks = mem_new((size_t)n, sizeof *asks);
    size_t *start = mem_new((size_t)n + 1, sizeof *start);
    Status st = asks && start ? OK : ERR_MEMORY;
    for (int i = 0; i < n && st == OK; i++) {
        memcpy(x->row + (size_t)i * row_bytes(x), features + (size_t)items[i].image * row_bytes(x), row_bytes(x));
        x->scale[i] = scale ? scale[items[i].image] : 1;
        st = ask_ids(x->u->tok, items[i].prompt, &ids);
        start[i + 1] = ids.n;
    }
    for (int i = 0; i < n && st == OK; i++) asks[i] = (VisualAsk){ids.v + start[i], (int32_t)(start[i + 1] - start[i])};
    if (st == OK) st = visual_rows(&x->visual, x->row, scale ? x->scale : NULL, n, asks, soft);
    free(ids.v);
    free(asks);
    free(start);
    return st;
}

typedef struct { DecodeFound *found; void *ctx; int64_t at; } Shifted;

static Status found_at(void *ctx, int64_t i, const Search *s) {
    const Shifted *k = ctx;
    return k->found(k->ctx, k->at + i, s);
}

static Status say_instruct(Say *x, const void *features, const float *scale, const SayItem *items, int64_t n,
                           int64_t first, DecodeFound *found, void *ctx) {
    Status st = OK;
    for (int64_t at = 0; at < n && st == OK; at += x->images) {
        int m = (int)(n - at < x->images ? n - at : x->images);
        Tensor soft;
        st = asked_rows(x, features, scale, items + at, m, &soft);
        if (st == OK)
            st = write_behind(x, soft, items + at, m, true, first + at, found_at, &(Shifted){found, ctx, at});
    }
    return st;
}

Status say_texts(Say *x, const void *features, const float *scale, int n, const SayItem *items, int64_t nitems,
                 int64_t first, DecodeFound *found, void *ctx) {
    Tensor soft;
    BUG_ON(n < 1 || n > x->images, "say: %d pictures, at most %d", n, x->images);
    if (x->u->speaker.speech.instruct) return say_instruct(x, features, scale, items, nitems, first, found, ctx);
    Status st = visual_rows(&x->visual, features, scale, n, NULL, &soft);
    return st == OK ? write_behind(x, soft, items, nitems, false, first, found, ctx) : st;
}

Status say_text(const Use *u, const Hypothesis *h, char **text) {
    size_t n, from = 0;
    Status st = tokenizer_decode(u->speaker.tok, h->tokens + 1, (size_t)h->len - 1, text, &n);
    if (st != OK) return st;
    while (n && strchr(" \t\r\n", (*text)[n - 1])) n--;
    while (from < n && strchr(" \t\r\n", (*text)[from])) from++;
    memmove(*text, *text + from, n - from);
    (*text)[n - from] = 0;
    return OK;
}
