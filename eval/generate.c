/* generate: see generate.h. */
#include "eval/generate.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/planner.h"

static const Noise QUIET = {0};

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* Lists of a step of all slots: what step_wave, generate_step and slots_move take. */
static size_t step_bytes(const Slots *s) {
    int64_t n = s->slots;
    return 3 * staging_bytes(n, sizeof(int32_t)) + staging_bytes(n, sizeof(RowKey)) +
           staging_bytes(n, sizeof(AttnItem)) + staging_bytes(n, sizeof(AttnGroup)) + slots_bytes(s);
}

static Status take(void *self) {
    Generator *g = self;
    Forward *f = &g->f;
    const Dims *d = &g->model->d;
    /* all images' queries, then the slots: an item names two ranges of one tensor */
    Slots s = {.layers = d->L, .first = g->spec.images * d->Q, .slots = g->slots, .length = g->T};
    int64_t queries = s.first, n = d->L * slots_rows(&s);
    void *at = arena_push(&f->fixed, (size_t)n * 2 * (size_t)d->C, (size_t)dtype_size(f->b->elem));
    s.all = tape_leaf(at, n, 2LL * d->C, f->b->elem);
    g->past = s;
    features_open(&g->up, f->b, &f->fixed, d, g->spec.images, g->spec.features, false);
    /* one room for both: they are never filled at once */
    size_t prefix = wave_bytes(queries, 0, g->spec.images, g->spec.images), step = step_bytes(&s);
    return staging_open(&f->room, f->b, &f->fixed, prefix > step ? prefix : step);
}

static Status largest(void *self) {
    Generator *g = self;
    DecoderRow *rows = g->decode.rows;
    for (int32_t i = 0; i < g->slots; i++) rows[i] = (DecoderRow){i / g->spec.search.beams, i, 0};
    Status st = generate_prefix(g, (FeatureRows){rows, NULL}, g->spec.images);
    return st == OK ? generate_step(g, g->T - 1, rows, g->slots, NULL, 0) : st;
}

static Status prefix(void *self, const void *input, int64_t first, int n, const float **logits) {
    Generator *g = self;
    const FeatureRows *x = input;
    (void)logits;                        /* [DEC] is fed */
    return generate_prefix(g, features_from(&g->model->d, *x, first, g->spec.features), n);
}

static Status step(void *self, int32_t at, const DecoderRow *rows, int n, const DecoderCopy *copies, int ncopies,
                   const float **logits) {
    Generator *g = self;
    *logits = g->logits;
    return generate_step(g, at, rows, n, copies, ncopies);
}

static Status take_host(Generator *g) {
    g->decoder = (Decoder){.self = g, .V = g->model->d.V, .prefixes = g->spec.images, .slots = g->slots, .length = g->T,
                           .starts = true, .prefix = prefix, .step = step};
    g->seg = mem_new((size_t)g->spec.images, sizeof *g->seg);
    Status st = g->seg ? decode_open(&g->decode, &g->decoder, &g->spec.search) : ERR_MEMORY;
    void *logits = NULL;
    if (st == OK) st = g->f.b->host_alloc(&logits, (size_t)g->slots * (size_t)g->model->d.V * sizeof *g->logits);
    g->logits = logits;
    return st;
}

Status generate_open(Generator *g, const Backend *b, const QFormer *model, const GenerateSpec *spec) {
    const Dims *d = &model->d;
    BUG_ON(spec->images < 1 || d->L > MAX_LAYERS, "generate: %d images at a time, %d layers", spec->images, d->L);
    *g = (Generator){.f = {.b = b}, .model = model, .spec = *spec, .slots = spec->images * spec->search.beams,
                       .T = spec->search.max_length - 1};
    if (g->T > d->N)
        return err_set(ERR_USAGE, "captions of up to %d tokens need %d text positions; the model has %d",
                       spec->search.max_length, g->T, d->N);
    Status st = take_host(g);
    if (st == OK) st = forward_open(&g->f, b, "generator's", take, largest, g);
    if (st == OK) return OK;
    err_context(st, "captions of %d images at a time, %d beams each", spec->images, spec->search.beams);
    generate_close(g);
    return st;
}

void generate_close(Generator *g) {
    decode_close(&g->decode);
    if (g->logits) g->f.b->host_release(g->logits);
    forward_close(&g->f);
    free(g->seg);
    *g = (Generator){0};
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

/* Keys and values, columns [C, 3C) of qkv, into rows to[i] (i when NULL) of layer l's cache. */
static void keep(Generator *g, int l, Tensor qkv, const int32_t *to) {
    int64_t C = g->model->d.C;
    const char *kv = (const char *)qkv.data + (size_t)C * (size_t)dtype_size(qkv.dt);
    g->f.tape.b->copy_rows(slots_layer(&g->past, l).data, 2 * C, to, kv, qkv.ld, NULL, qkv.rows, 2 * C, false);
}

/* Rows of a prefix (kv: of its images), which look at themselves, or of a step, which look into the cache. */
static Tensor run_layers(Generator *g, int64_t n, const Wave *w, const ImageKV *kv, const int32_t *to) {
    const Dims *d = &g->model->d;
    Tape *t = &g->f.tape;
    Tensor x = tape_new(t, n, d->C, g->f.b->elem), y = tape_new(t, n, d->C, g->f.b->elem);
    qformer_embed(t, g->model, x, w, QUIET);
    for (int l = 0; l < d->L; l++) {
        size_t mark = arena_mark(&g->f.mem);
        Tensor qkv = qformer_qkv(t, g->model, l, x), done = x;
        keep(g, l, qkv, to);
        if (!kv) qformer_layer(t, g->model, l, y, x, qkv, slots_layer(&g->past, l), 0, w, NULL, QUIET);
        /* of a prefix's last layer only keys and values are wanted */
        else if (l + 1 < d->L) qformer_layer(t, g->model, l, y, x, qkv, qkv, d->C, w, kv, QUIET);
        arena_reset(&g->f.mem, mark);
        x = y;
        y = done;
    }
    return x;
}

Status generate_prefix(Generator *g, FeatureRows rows, int n) {
    const Dims *d = &g->model->d;
    Tape *t = &g->f.tape;
    Wave w;
    ImageKV kv;
    BUG_ON(n < 1 || n > g->spec.images, "generate: %d images, at most %d at a time", n, g->spec.images);
    forward_begin(&g->f);
    for (int i = 0; i < n; i++) g->seg[i] = (Segment){.nq = d->Q, .first_id = -1, .sees = -1, .image = i};
    Status st = wave_build(&w, &g->f.room, d, g->seg, n, n);
    if (st != OK) return st;
    staging_upload(&g->f.room);
    FeatureRows up = features_up(&g->up, rows, n, g->spec.features, (FeatureRows){0});
    qformer_image(&kv, t, g->model, up.data, g->spec.features, up.scale, n);
    run_layers(g, w.NQ, &w, &kv, NULL);
    t->b->sync();                          /* the lists in the room and the features are the caller's again */
    return tape_status(t);
}

/* A wave of n text rows at position `at`; an item's keys are its image's queries and its slot. */
static void step_wave(Wave *w, Generator *g, int32_t at, const DecoderRow *rows, int n) {
    const Dims *d = &g->model->d;
    int32_t *ids = staging_take(&g->f.room, (size_t)n, sizeof *ids);
    int32_t *pos = staging_take(&g->f.room, (size_t)n, sizeof *pos);
    RowKey *key = staging_take(&g->f.room, (size_t)n, sizeof *key);
    *w = (Wave){.NT = n, .rows = staging_device(&g->f.room, key)};
    w->embed = (Embed){.nt = n, .Q = d->Q, .C = d->C};
    w->embed.ids = staging_device(&g->f.room, ids);
    w->embed.pos_id = staging_device(&g->f.room, pos);
    Planner self = planner_begin(&w->self, &g->f.room, n, n);
    for (int32_t i = 0; i < n; i++) {
        int32_t a0 = rows[i].prefix * d->Q, b0 = slots_row(&g->past, rows[i].slot);
        ids[i] = rows[i].token;
        pos[i] = at;
        key[i] = (RowKey){(uint32_t)rows[i].prefix, (uint32_t)at};
        planner_group(&self, a0, d->Q, b0, at + 1);
        planner_item(&self, (AttnItem){.q0 = i, .nq = 1, .a0 = a0, .na = d->Q, .b0 = b0, .nb = at + 1});
    }
    planner_end(&self);
    planner_round(&w->self);
}

typedef struct { Generator *g; Wave *w; const int32_t *to; Tensor logits; } StepPass;

/* All of a step that is the same from position to position: where rows stand and look is read from lists. */
static void enqueue_step(void *ctx) {
    const StepPass *p = ctx;
    Generator *g = p->g;
    Tape *t = &g->f.tape;
    Tensor h = qformer_lm_transform(t, g->model, run_layers(g, p->logits.rows, p->w, NULL, p->to));
    op_linear(t, p->logits, h, params_get(&g->model->params, P_WORD, -1), params_get(&g->model->params, P_LM_BIAS, -1));
}

Status generate_step(Generator *g, int32_t at, const DecoderRow *rows, int n, const DecoderCopy *copies,
                     int ncopies) {
    const Dims *d = &g->model->d;
    Tape *t = &g->f.tape;
    Wave w;
    BUG_ON(at < 0 || at >= g->T || n < 1 || n > g->slots || ncopies > g->slots, "generate: %d rows at %d", n, at);
    t->b->mark("decoding step");
    forward_begin(&g->f);
    step_wave(&w, g, at, rows, n);
    int32_t *dst = staging_take(&g->f.room, (size_t)n, sizeof *dst);
    for (int i = 0; i < n; i++) {
        /* an id past the table would read any memory as a word */
        BUG_ON(rows[i].token < 0 || rows[i].token >= d->V, "generate: word piece %d of %d", rows[i].token, d->V);
        dst[i] = slots_row(&g->past, rows[i].slot) + at;
    }
    staging_upload(&g->f.room);
    slots_move(&g->past, &g->f.room, at, copies, ncopies);
    StepPass pass = {g, &w, staging_device(&g->f.room, dst), tape_new(t, n, d->V, DT_F32)};
    forward_repeat(&g->f, (uint64_t)n << 32 | (uint64_t)w.self.max_nk, enqueue_step, &pass);
    t->b->download(g->logits, pass.logits.data, (size_t)tensor_count(pass.logits) * sizeof *g->logits);
    t->b->mark(NULL);
    return tape_status(t);
}

Status generate_captions(Generator *g, FeatureRows rows, int64_t n, int64_t first, DecodeFound *found, void *ctx) {
    return decode_texts(&g->decode, &rows, n, first, found, ctx);
}
