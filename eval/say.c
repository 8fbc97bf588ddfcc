/* say: see say.h. */
#include "eval/say.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { ASKED = 128 };                   /* word pieces of a prompt in the Q-Former, as published */

void say_rules(SearchSpec *s, const LmDims *d, const Speech *speech) {
    bool opt = d->family == LM_OPT, t5 = d->family == LM_T5;
    s->rule = opt || t5 ? SEARCH_V4 : SEARCH_V5;             /* LAVIS's figures of OPT and T5 are of transformers 4 */
    /* Llama's family is fed none: its first logits come with the prompt */
    s->start = opt ? tokenizer_ids(speech->t)->bos : t5 ? d->start : -1;
    s->nends = opt ? 1 : d->nends;
    for (int i = 0; i < s->nends; i++) s->ends[i] = opt ? speech->end : d->end[i];
}

static size_t row_bytes(const Say *x) {
    const Dims *d = &x->spec.model->d;
    return (size_t)(d->P * d->E) * (size_t)dtype_size(x->spec.features);
}

static Status open_eyes(Say *x) {
    const SaySpec *s = &x->spec;
    bool instruct = s->speech->instruct;
    if (!s->model) return OK;
    if (instruct) {
        x->row = mem_new((size_t)s->images, row_bytes(x));
        x->scale = mem_new((size_t)(s->images * dims_scales(&s->model->d)), sizeof *x->scale);
        if (!x->row || !x->scale) return ERR_MEMORY;
    }
    VisualSpec spec = {.images = s->images, .asked = instruct ? ASKED : 0, .features = s->features};
    return visual_open(&x->visual, s->b, s->model, &spec);
}

static Status open_parts(Say *x) {
    int32_t length = decode_length(&x->search, x->spec.lm->d.family == LM_T5);
    LmDecoderSpec spec = {.prefixes = x->spec.images, .slots = decode_slots(&x->search, x->spec.images),
                          .length = length > 1 ? length : 1, .rows = x->spec.rows};  /* one new token is never fed */
    Status st = open_eyes(x);
    if (st == OK) st = lm_decoder_open(&x->lm, x->spec.b, x->spec.lm, &spec);
    if (st != OK) return st;
    x->decoder = lm_decoder(&x->lm);
    return decode_open(&x->decode, &x->decoder, &x->search);
}

Status say_open(Say *x, const SaySpec *spec, const SearchSpec *search) {
    *x = (Say){.spec = *spec, .search = *search};
    Status st = open_parts(x);
    if (st != OK) say_close(x);
    return st;
}

Status say_open_use(Say *x, const Use *u, const SearchSpec *search, int images, DType features) {
    const Speaker *sp = &u->speaker;
    SaySpec spec = {.b = u->b, .lm = &sp->lm, .speech = &sp->speech, .model = &u->model, .tok = u->tok,
                    .images = images, .rows = u->d.Q + sp->speech.max_prompt, .features = features};
    *x = (Say){0};
    if (search->max_length - 1 > u->o->stage2.max_new)
        return err_set(ERR_USAGE,
                       "texts of up to %d new tokens, and room is made for %lld; stage2.max_new=%d makes more",
                       search->max_length - 1, (long long)u->o->stage2.max_new, search->max_length - 1);
    return say_open(x, &spec, search);
}

void say_close(Say *x) {
    decode_close(&x->decode);
    lm_decoder_close(&x->lm);
    visual_close(&x->visual);
    mem_free(x->row, x->scale);
    *x = (Say){0};
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

Status say_put(SaySheet *s, int32_t image, char *prompt, char *front, char **answer) {
    /* both are kept in any case: who gave them need not look back */
    bool kept = mem_keep(&s->texts, &s->ntexts, prompt) != NULL;
    if (front) kept = mem_keep(&s->texts, &s->ntexts, front) && kept;
    if (!kept || mem_room(&s->item, (size_t)s->n, 1, sizeof *s->item) != OK) return ERR_MEMORY;
    s->item[s->n++] = (SayItem){image, prompt, front, answer};
    return OK;
}

void say_sheet_free(SaySheet *s) {
    mem_free_list(s->texts, s->ntexts);
    free(s->item);
    *s = (SaySheet){0};
}

typedef struct { TokenIds ids; LmPrefix *p; size_t *start; } Prompts;

static void prompts_free(Prompts *x) {
    mem_free(x->ids.v, x->p, x->start);
}

static Status front_ids(const Say *s, const char *text, TokenIds *ids) {
    size_t most = ids->n + (size_t)s->spec.front;
    Status st = text ? tokenizer_pieces(s->spec.speech->t, text, strlen(text), ids) : OK;
    if (ids->n > most) ids->n = most;                        /* that much room was made */
    return st;
}

/* Q: visual rows of each. own: the number of an item's is its own (InstructBLIP), not its picture's. */
static Status take_prompts(Prompts *x, const Say *s, const SayItem *items, int64_t n, int32_t Q, bool own) {
    int32_t target;
    *x = (Prompts){.p = mem_new((size_t)n, sizeof *x->p), .start = mem_new((size_t)n + 1, sizeof *x->start)};
    Status st = x->p && x->start ? OK : ERR_MEMORY;
    for (int64_t i = 0; i < n && st == OK; i++) {
        st = front_ids(s, items[i].front, &x->ids);
        if (st == OK) st = speech_ids(s->spec.speech, items[i].prompt, NULL, &x->ids, &target);
        x->start[i + 1] = x->ids.n;
    }
    for (int64_t i = 0; i < n && st == OK; i++)
        /* only now: the ids moved while there came more */
        x->p[i] = (LmPrefix){.soft = (own ? (int32_t)i : items[i].image) * Q, .nsoft = Q, .ids = x->ids.v + x->start[i],
                             .n = (int32_t)(x->start[i + 1] - x->start[i])};
    return st;
}

/* soft: visual rows, NULL where no picture is looked at */
static Status write_behind(Say *x, const Tensor *soft, const SayItem *items, int64_t n, bool own, int64_t first,
                           DecodeFound *found, void *ctx) {
    Prompts p;
    Status st = take_prompts(&p, x, items, n, soft ? x->spec.model->d.Q : 0, own);
    LmGiven given = {.soft = soft ? *soft : (Tensor){0}, .prefixes = p.p};
    if (st == OK) st = decode_texts(&x->decode, &given, n, first, found, ctx);
    prompts_free(&p);
    return st;
}

/* ---- InstructBLIP ------------------------------------------------------------------------------------------------ */

/* [CLS] pieces [SEP]; of a prompt that is too long the last pieces stay. */
static Status ask_ids(const Tokenizer *t, const char *prompt, TokenIds *ids) {
    const TokenizerIds *s = tokenizer_ids(t);
    TokenIds pieces = {0};
    Status st = tokenizer_pieces(t, prompt, strlen(prompt), &pieces);
    size_t from = pieces.n > ASKED - 2 ? pieces.n - (ASKED - 2) : 0;  /* what is asked stands at the end */
    if (st == OK) st = ids_push(ids, s->begin[0]);
    for (size_t i = from; i < pieces.n && st == OK; i++) st = ids_push(ids, pieces.v[i]);
    free(pieces.v);
    return st == OK ? ids_push(ids, s->end[0]) : st;
}

/* As many prompts as pictures at a time: each is a picture of its own to the Q-Former. */
static Status asked_rows(Say *x, FeatureRows rows, const SayItem *items, int n, Tensor *soft) {
    const Dims *d = &x->spec.model->d;
    int64_t S = dims_scales(d);
    TokenIds ids = {0};
    VisualAsk *asks = mem_new((size_t)n, sizeof *asks);
    size_t *start = mem_new((size_t)n + 1, sizeof *start);
    Status st = asks && start ? OK : ERR_MEMORY;
    for (int i = 0; i < n && st == OK; i++) {
        FeatureRows own = features_from(d, rows, items[i].image, x->spec.features);
        /* side by side, as a pass reads them; a picture asked twice comes twice */
        memcpy(x->row + (size_t)i * row_bytes(x), own.data, row_bytes(x));
        if (own.scale) memcpy(x->scale + i * S, own.scale, (size_t)S * sizeof *own.scale);
        st = ask_ids(x->spec.tok, items[i].prompt, &ids);
        start[i + 1] = ids.n;
    }
    for (int i = 0; i < n && st == OK; i++) asks[i] = (VisualAsk){ids.v + start[i], (int32_t)(start[i + 1] - start[i])};
    if (st == OK) st = visual_rows(&x->visual, (FeatureRows){x->row, rows.scale ? x->scale : NULL}, n, asks, soft);
    mem_free(ids.v, asks, start);
    return st;
}

typedef struct { DecodeFound *found; void *ctx; int64_t at; } Shifted;

static Status found_at(void *ctx, int64_t i, const Search *s) {
    const Shifted *k = ctx;
    return k->found(k->ctx, k->at + i, s);
}

static Status say_instruct(Say *x, FeatureRows rows, const SayItem *items, int64_t n,
                           int64_t first, DecodeFound *found, void *ctx) {
    Status st = OK;
    /* each prompt needs its picture's features once more: as many as there is room for */
    for (int64_t at = 0; at < n && st == OK; at += x->spec.images) {
        int m = (int)(n - at < x->spec.images ? n - at : x->spec.images);
        Tensor soft;
        st = asked_rows(x, rows, items + at, m, &soft);
        if (st == OK)
            st = write_behind(x, &soft, items + at, m, true, first + at, found_at, &(Shifted){found, ctx, at});
    }
    return st;
}

Status say_texts(Say *x, FeatureRows rows, int n, const SayItem *items, int64_t nitems,
                 int64_t first, DecodeFound *found, void *ctx) {
    Tensor soft;
    BUG_ON(n < 0 || n > x->spec.images, "say: %d pictures, at most %d", n, x->spec.images);
    if (!n) return write_behind(x, NULL, items, nitems, false, first, found, ctx);
    if (x->spec.speech->instruct) return say_instruct(x, rows, items, nitems, first, found, ctx);
    Status st = visual_rows(&x->visual, rows, n, NULL, &soft);
    return st == OK ? write_behind(x, &soft, items, nitems, false, first, found, ctx) : st;
}

typedef struct { const SaySheet *s; const Tokenizer *tok; } Answers;

static Status take_answer(void *ctx, int64_t i, const Search *search) {
    const Answers *a = ctx;
    char **to = a->s->item[i].answer;
    free(*to);
    *to = NULL;
    return say_text(a->tok, &search->closed[0], to);
}

Status say_answers(Say *x, FeatureRows rows, int n, const SaySheet *s, int64_t first) {
    return say_texts(x, rows, n, s->item, s->n, first, take_answer, &(Answers){s, x->spec.speech->t});
}

/* ---- looking closer ---------------------------------------------------------------------------------------------- */

Status say_look(Say *x, FeatureRows rows, int n) {
    x->looked_at = rows;                                     /* the caller's: they stay until the next look */
    if (x->spec.speech->instruct) return OK;         /* the prompt has a say: seen looks */
    return visual_rows(&x->visual, rows, n, NULL, &x->soft);
}

/* The visual rows that belong to an item, and which of them are its first. */
static Status seen(Say *x, const SayItem *item, Tensor *soft, int32_t *from) {
    bool instruct = x->spec.speech->instruct;
    *soft = x->soft;
    *from = instruct ? 0 : item->image * x->spec.model->d.Q;
    return instruct ? asked_rows(x, x->looked_at, item, 1, soft) : OK;
}

Status say_gaze(Say *x, const SayItem *item, float *share) {
    int32_t Q = x->spec.model->d.Q, target, from = 0;
    TokenIds ids = {0};
    Tensor soft;
    Status st = speech_ids(x->spec.speech, item->prompt, NULL, &ids, &target);
    float *all = st == OK ? mem_new((size_t)Q + ids.n, sizeof *all) : NULL;
    if (st == OK) st = all ? seen(x, item, &soft, &from) : ERR_MEMORY;
    LmPrefix p = {.soft = from, .nsoft = Q, .ids = ids.v, .n = (int32_t)ids.n};
    if (st == OK) st = lm_decoder_gaze(&x->lm, soft, &p, all);
    if (st == OK) memcpy(share, all, (size_t)Q * sizeof *share);
    mem_free(all, ids.v);
    return st;
}

/* A choice as ids behind the prompt, and how likely they are so far. */
typedef struct { const int32_t *ids; int32_t n; double sum; } Choice;

static double log_probability(const float *logits, int32_t V, int32_t id) {
    float max = logits[0];
    double sum = 0;
    for (int32_t v = 1; v < V; v++) max = logits[v] > max ? logits[v] : max;
    for (int32_t v = 0; v < V; v++) sum += (double)expf(logits[v] - max);
    return (double)(logits[id] - max) - log(sum);
}

/* A slot a choice; a step feeds the token at its position of those that have more behind it. first: logits of the
 * prefix, NULL where a start token is fed. */
static Status rank_piece(Say *x, Choice *c, int n, const float *first) {
    const Decoder *d = &x->decoder;
    int32_t *who = mem_new((size_t)n, sizeof *who);
    DecoderRow *rows = x->decode.rows;
    Status st = who ? OK : ERR_MEMORY;
    for (int i = 0; first && st == OK && i < n; i++) c[i].sum += log_probability(first, d->V, c[i].ids[0]);
    for (int32_t at = 0, k = 1; st == OK && k; at++) {
        int32_t said = at + (first != NULL);         /* ids whose probability is known before this step's */
        const float *logits;
        k = 0;
        for (int i = 0; i < n; i++) {
            if (said >= c[i].n) continue;
            int32_t token = said ? c[i].ids[said - 1] : x->search.start;
            who[k] = i;
            rows[k++] = (DecoderRow){0, i, token};
        }
        if (k) st = d->step(d->self, at, rows, k, NULL, 0, &logits);
        for (int32_t r = 0; st == OK && r < k; r++)
            c[who[r]].sum += log_probability(logits + (int64_t)r * d->V, d->V, c[who[r]].ids[said]);
    }
    free(who);
    return st;
}

static Status rank_all(Say *x, Tensor soft, const LmPrefix *p, Choice *c, int n) {
    const Decoder *d = &x->decoder;
    const float *logits = NULL;
    /* fed a start token, the first step says the first id; else the prefix has said it */
    float *first = d->starts ? NULL : mem_new((size_t)d->V, sizeof *first);
    Status st = d->starts || first ? OK : ERR_MEMORY;
    for (int at = 0; at < n && st == OK; at += d->slots) {
        st = d->prefix(d->self, &(LmGiven){.soft = soft, .prefixes = p}, 0, 1, &logits);
        if (st == OK && first) memcpy(first, logits, (size_t)d->V * sizeof *first);  /* a step writes where they lie */
        if (st == OK) st = rank_piece(x, c + at, n - at < d->slots ? n - at : d->slots, first);
    }
    free(first);
    return st;
}

/* Ids of prompt and each choice: what stands before the target is the same for all. */
static Status choice_ids(const Say *x, const char *prompt, const char *const *choices, int n, TokenIds *ids,
                         size_t *start, int32_t *target) {
    Status st = OK;
    for (int i = 0; i < n && st == OK; i++) {
        start[i] = ids->n;
        st = speech_ids(x->spec.speech, prompt, choices[i], ids, target);
        start[i + 1] = ids->n;
        int64_t said = (int64_t)(ids->n - start[i]) - *target;
        if (st == OK && (said < 1 || said > x->decoder.length + !x->decoder.starts))
            st = err_set(ERR_USAGE, "\"%.40s\" has %lld tokens, and room is made for 1 to %d", choices[i],
                         (long long)said, x->decoder.length + !x->decoder.starts);
    }
    return st;
}

Status say_rank(Say *x, const SayItem *item, const char *const *choices, int n, double *score) {
    TokenIds ids = {0};
    Tensor soft;
    int32_t target = 0, from = 0;
    size_t *start = mem_new((size_t)n + 1, sizeof *start);
    Choice *c = mem_new((size_t)n, sizeof *c);
    Status st = start && c ? choice_ids(x, item->prompt, choices, n, &ids, start, &target) : ERR_MEMORY;
    if (st == OK) st = seen(x, item, &soft, &from);
    for (int i = 0; i < n && st == OK; i++)
        c[i] = (Choice){ids.v + start[i] + target, (int32_t)(start[i + 1] - start[i]) - target, 0};
    LmPrefix p = {.soft = from, .nsoft = x->spec.model->d.Q, .ids = ids.v, .n = target};
    if (st == OK) st = rank_all(x, soft, &p, c, n);
    for (int i = 0; i < n && st == OK; i++) score[i] = c[i].sum;
    mem_free(start, c, ids.v);
    return st;
}

Status say_text(const Tokenizer *t, const Hypothesis *h, char **text) {
    size_t n, from = 0;
    Status st = tokenizer_decode(t, h->tokens + 1, (size_t)h->len - 1, text, &n);
    if (st != OK) return st;
    while (n && strchr(" \t\r\n", (*text)[n - 1])) n--;
    while (from < n && strchr(" \t\r\n", (*text)[from])) from++;
    memmove(*text, *text + from, n - from);
    (*text)[n - from] = 0;
    return OK;
}
