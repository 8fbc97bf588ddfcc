/* decode: see decode.h. */
#include "eval/decode.h"


#include "kernels/base/mem.h"

int32_t decode_slots(const SearchSpec *spec, int32_t prefixes) { return prefixes * spec->beams; }

/* The last token is never fed; a start token that the model is not fed takes no row either. */
int32_t decode_length(const SearchSpec *spec, bool starts) { return spec->max_length - (starts ? 1 : 2); }

Status decode_open(Decode *x, const Decoder *d, const SearchSpec *spec) {
    int32_t searches = d->prefixes, slots = decode_slots(spec, d->prefixes);
    BUG_ON(slots > d->slots || decode_length(spec, d->starts) > d->length || (d->starts && spec->start < 0),
           "decode: %d slots of %d rows, the model has %d of %d", slots, decode_length(spec, d->starts), d->slots,
           d->length);
    *x = (Decode){.d = d, .spec = *spec};
    x->search = mem_new((size_t)searches, sizeof *x->search);
    x->first = mem_new((size_t)searches, sizeof *x->first);
    x->slot = mem_new((size_t)slots, sizeof *x->slot);
    x->rows = mem_new((size_t)slots, sizeof *x->rows);
    x->moved = mem_new((size_t)slots, sizeof *x->moved);
    Status st = x->search && x->first && x->slot && x->rows && x->moved ? OK : ERR_MEMORY;
    for (int32_t i = 0; i < searches && st == OK; i++) st = search_open(&x->search[i], spec, d->V);
    if (st != OK) decode_close(x);
    return st;
}

void decode_close(Decode *x) {
    for (int32_t i = 0; x->search && i < x->d->prefixes; i++) search_close(&x->search[i]);
    mem_free(x->search, x->first, x->slot, x->rows, x->moved);
    *x = (Decode){0};
}

/* Rows of all searches that still run, one after the other. */
static int list_rows(Decode *x, int searches) {
    int n = 0;
    for (int32_t i = 0; i < searches; i++) {
        const Search *s = &x->search[i];
        x->first[i] = n;
        for (int32_t b = 0; b < s->rows; b++)
            x->rows[n++] = (DecoderRow){i, x->slot[i * s->spec.beams + b], search_last(s, b)};
    }
    return n;
}

/* logits: of row first[i] of search i; or, when `prefix`, of its prefix. */
static Status step_searches(Decode *x, int searches, const float *logits, bool prefix) {
    /* the first one, whichever thread comes first: one message */
    int failed = searches;
    int64_t V = x->d->V;
    /* dynamic: searches that are done cost nothing, the others a pass over the vocabulary */
#pragma omp parallel for schedule(dynamic) reduction(min : failed)
    for (int i = 0; i < searches; i++) {
        const float *own = logits + (prefix ? i : x->first[i]) * V;
        if (x->search[i].rows && search_step(&x->search[i], own, V) != OK) failed = i < failed ? i : failed;
    }
    if (failed == searches) return OK;
    return err_set(ERR_NUMERIC, "the model's logits for image %u are not finite", x->search[failed].image);
}

/* Beam b of search i continues parent[b]: the first child of a slot stays in it,
 * the others take slots without children. */
static int reorder(Decode *x, int32_t i, int n) {
    const Search *s = &x->search[i];
    int32_t beams = s->spec.beams, *slot = x->slot + i * beams, next[SEARCH_MAX_BEAMS];
    bool taken[SEARCH_MAX_BEAMS] = {false};
    for (int32_t b = 0; b < beams; b++) {
        int32_t own = slot[s->parent[b]] - i * beams;
        next[b] = taken[own] ? -1 : own;                     /* who stays copies nothing */
        taken[own] = true;
    }
    for (int32_t b = 0, spare = 0; b < beams; b++) {
        if (next[b] >= 0) continue;
        while (taken[spare]) spare++;                        /* there is one: as many slots as beams */
        taken[spare] = true;
        next[b] = spare;
        x->moved[n++] = (DecoderCopy){slot[s->parent[b]], i * beams + spare};
    }
    for (int32_t b = 0; b < beams; b++) slot[b] = i * beams + next[b];
    return n;
}

static int reorder_all(Decode *x, int searches) {
    int n = 0;
    for (int32_t i = 0; i < searches; i++)
        if (x->search[i].rows) n = reorder(x, i, n);
    return n;
}

/* As many prefixes as the model takes at a time. Before the first step there is no past to copy. */
static Status decode_piece(Decode *x, const void *input, int64_t at, int searches) {
    int nmoved = 0, n;
    const float *logits = NULL;
    for (int32_t i = 0; i < searches * x->spec.beams; i++) x->slot[i] = i;
    Status st = x->d->prefix(x->d->self, input, at, searches, &logits);
    if (st == OK && !x->d->starts) st = step_searches(x, searches, logits, true);
    if (st == OK && !x->d->starts) reorder_all(x, searches);  /* nothing is moved: the slots are empty yet */
    for (int32_t pos = 0; st == OK && (n = list_rows(x, searches)) > 0; pos++) {
        st = x->d->step(x->d->self, pos, x->rows, n, x->moved, nmoved, &logits);
        x->tokens += n;
        if (st == OK) st = step_searches(x, searches, logits, false);
        if (st == OK) nmoved = reorder_all(x, searches);
    }
    return st;
}

Status decode_texts(Decode *x, const void *input, int64_t n, int64_t first, DecodeFound *found, void *ctx) {
    Status st = OK;
    for (int64_t at = 0; st == OK && at < n; at += x->d->prefixes) {
        int m = (int)(n - at < x->d->prefixes ? n - at : x->d->prefixes);
        /* draws go by the number in the whole list: batches of any size give the same texts */
        for (int i = 0; i < m; i++) search_begin(&x->search[i], (uint32_t)(first + at + i));
        st = decode_piece(x, input, at, m);
        for (int i = 0; st == OK && i < m; i++) st = found(ctx, at + i, &x->search[i]);
    }
    return st;
}
