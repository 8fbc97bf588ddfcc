/* lm_decoder: see lm_decoder.h. */
#include "kernels/model/lm_decoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/planner.h"

static bool is_t5(const LmDecoder *g) { return g->m->d.family == LM_T5; }
static int64_t prefix_rows(const LmDecoder *g) { return (int64_t)g->spec.prefixes * g->spec.rows; }

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static Tensor take_rows(LmDecoder *g, int64_t rows, int64_t cols) {
    DType e = g->f.b->elem;
    return tape_leaf(arena_push(&g->f.fixed, (size_t)(rows * cols), (size_t)dtype_size(e)), rows, cols, e);
}

/* Lists of a pass over all prefixes: the wave, and what list_rows takes. */
static size_t prefix_bytes(const LmDecoder *g) {
    int64_t n = g->spec.prefixes;
    return lm_wave_bytes(prefix_rows(g), n, n) + staging_bytes(prefix_rows(g), sizeof(int32_t)) +
           staging_bytes(n, sizeof(int32_t));
}

/* Lists of a step of all slots: what step_wave and slots_move take. */
static size_t step_bytes(const LmDecoder *g) {
    int64_t n = g->spec.slots;
    size_t plan = staging_bytes(n, sizeof(AttnItem)) + staging_bytes(n, sizeof(AttnGroup));
    return 3 * staging_bytes(n, sizeof(int32_t)) + (is_t5(g) ? 2 : 1) * plan + slots_bytes(&g->slots);
}

/* Everything that lives as long as the decoder and not on the host. */
static Status take(void *self) {
    LmDecoder *g = self;
    const LmDims *d = &g->m->d;
    int64_t B = (int64_t)d->K * d->D;
    g->slots = (Slots){.layers = is_t5(g) ? d->M : d->L, .first = is_t5(g) ? 0 : (int32_t)prefix_rows(g),
                       .slots = g->spec.slots, .length = g->spec.length};
    g->slots.all = take_rows(g, g->slots.layers * slots_rows(&g->slots), 2 * B);
    for (int l = 0; l < g->slots.layers; l++) {
        g->cache[l] = slots_layer(&g->slots, l);
        if (is_t5(g)) g->cross[l] = take_rows(g, prefix_rows(g), 2 * B);
    }
    size_t prefixes = prefix_bytes(g), step = step_bytes(g);
    return staging_open(&g->f.room, g->f.b, &g->f.fixed, prefixes > step ? prefixes : step);
}

static Status take_host(LmDecoder *g) {
    const LmDims *d = &g->m->d;
    size_t layers = (size_t)(d->L > d->M ? d->L : d->M), prefixes = (size_t)g->spec.prefixes;
    size_t most = (size_t)(g->spec.slots > g->spec.prefixes ? g->spec.slots : g->spec.prefixes);
    void *logits = NULL;
    g->cache = mem_new(layers, sizeof *g->cache);
    g->cross = mem_new(layers, sizeof *g->cross);
    g->row0 = mem_new(prefixes, sizeof *g->row0);
    g->nrows = mem_new(prefixes, sizeof *g->nrows);
    if (!g->cache || !g->cross || !g->row0 || !g->nrows) return ERR_MEMORY;
    Status st = g->f.b->host_alloc(&logits, most * (size_t)d->V * sizeof(float));
    g->logits = logits;
    return st;
}

static void free_host(LmDecoder *g) {
    if (g->logits) g->f.b->host_release(g->logits);
    mem_free(g->cache, g->cross, g->row0, g->nrows);
}

/* ---- a prefix ---------------------------------------------------------------------------------------------------- */

/* Keys and values of the pass in progress into the cache. */
static void keep(void *ctx, Tape *t, int layer, Tensor qkv, int64_t k_at) {
    LmDecoder *g = ctx;
    const char *kv = (const char *)qkv.data + (size_t)k_at * (size_t)dtype_size(qkv.dt);
    Tensor to = g->cache[layer];
    t->b->copy_rows(to.data, to.ld, g->keep_to, kv, qkv.ld, g->keep_from, g->kept, to.cols, false);
}

typedef struct { LmPrefix *p; LmText *s; int np, ns; int32_t *last; } Laid;

static bool same_soft(const LmPrefix *a, const LmPrefix *b) {
    return a->nsoft > 0 && a->soft == b->soft && a->nsoft == b->nsoft;
}

/* Prefixes that begin with the same visual rows become one, and what follows in each a text of it. A text's last id is
 * no row: one more is counted than there are. */
static void share(Laid *x, const LmPrefix *given, int n) {
    for (int i = 0, end; i < n; i = end) {
        end = i + 1;
        while (end < n && same_soft(&given[i], &given[end])) end++;
        LmPrefix *p = &x->p[x->np];
        *p = given[i];
        if (end - i > 1) p->n = 0;
        for (int k = i; k < end && end - i > 1; k++)
            x->s[x->ns++] = (LmText){.prefix = x->np, .ids = given[k].ids, .n = given[k].n + 1,
                                     .target = given[k].n + 1};
        x->np++;
    }
}

/* Where in the pass each prefix's rows stand, in the order in which the cache has them; and each one's last row. */
static void list_rows(LmDecoder *g, Laid *x, const LmPrefix *given, int n, int64_t N) {
    int64_t most = (int64_t)n * g->spec.rows;
    int32_t *from = staging_take(&g->f.room, (size_t)(most > N ? most : N), sizeof *from), at = 0;
    x->last = staging_take(&g->f.room, (size_t)n, sizeof *x->last);
    for (int i = 0, p = 0, s = 0; i < n; i++) {
        bool text = s < x->ns && x->s[s].prefix == p;
        const LmPrefix *a = &x->p[p];
        g->row0[i] = at;
        g->nrows[i] = given[i].nsoft + given[i].n;
        BUG_ON(g->nrows[i] < 1 || g->nrows[i] > g->spec.rows, "lm_decoder: a prefix of %d rows, at most %d",
               g->nrows[i], g->spec.rows);
        for (int32_t k = 0; k < a->nsoft + a->n; k++) from[at++] = a->row0 + k;
        for (int32_t k = 0; text && k < given[i].n; k++) from[at++] = x->s[s].row0 + k;
        x->last[i] = from[at - 1];
        s += text;
        if (!(s < x->ns && x->s[s].prefix == p)) p++;
    }
    g->keep_to = NULL;
    g->keep_from = staging_device(&g->f.room, from);
    g->kept = at;
}

/* The last row of each prefix as logits on the host. */
static Status hand_out(LmDecoder *g, BlockStream x, const int32_t *rows, int n) {
    Tape *t = &g->f.tape;
    Tensor a = tape_new(t, n, x.x.cols, x.x.dt), b = x.s.data ? tape_new(t, n, x.s.cols, x.s.dt) : x.s;
    op_gather(t, a, x.x, rows);
    if (b.data) op_gather(t, b, x.s, rows);
    x.x = a, x.s = b;
    Tensor h = lm_finish(t, g->m, &x), logits = tape_new(t, n, g->m->d.V, DT_F32);
    lm_logits(t, g->m, logits, h);
    t->b->download(g->logits, logits.data, (size_t)tensor_count(logits) * sizeof(float));
    return tape_status(t);
}

static Status encode(LmDecoder *g, const LmWave *w, Tensor soft) {
    Tape *t = &g->f.tape;
    const Lm *m = g->m;
    BlockStream x = lm_stack(t, m, lm_rows(t, m, w->N, w->ids, w->pos, soft), lm_attend(m, 0, &w->self, w->pos));
    Tensor encoded = t5_encoded(t, m, &x);
    size_t mark = arena_mark(t->step);
    for (int l = 0; l < m->d.M; l++) {
        Tensor kv = t5_cross_kv(t, m, l, encoded);
        t->b->copy(g->cross[l].data, kv.data, (size_t)tensor_count(kv) * (size_t)dtype_size(kv.dt));
        arena_reset(t->step, mark);
    }
    t->b->sync();
    return tape_status(t);
}

static Status prefix_pass(LmDecoder *g, Laid *x, const LmGiven *in, int64_t first, int n) {
    const Lm *m = g->m;
    LmWave w;
    const LmPrefix *given = in->prefixes + first;
    forward_begin(&g->f);
    if (is_t5(g)) {
        memcpy(x->p, given, (size_t)n * sizeof *given);
        x->np = n;
    } else {
        share(x, given, n);
    }
    lm_wave_build(&w, &g->f.room, &m->d, x->p, x->np, x->s, x->ns);
    list_rows(g, x, given, n, w.N);
    staging_upload(&g->f.room);
    if (is_t5(g)) return encode(g, &w, in->soft);
    LmAttend how = lm_attend(m, 0, &w.self, w.pos);
    how.keep = keep, how.ctx = g;
    BlockStream s = lm_stack(&g->f.tape, m, lm_rows(&g->f.tape, m, w.N, w.ids, w.pos, in->soft), how);
    return hand_out(g, s, staging_device(&g->f.room, x->last), n);
}

static Status prefix(void *self, const void *input, int64_t first, int n, const float **logits) {
    LmDecoder *g = self;
    BUG_ON(n < 1 || n > g->spec.prefixes, "lm_decoder: %d prefixes, at most %d", n, g->spec.prefixes);
    Laid x = {.p = mem_new((size_t)n, sizeof *x.p), .s = mem_new((size_t)n, sizeof *x.s)};
    Status st = x.p && x.s ? prefix_pass(g, &x, input, first, n) : ERR_MEMORY;
    mem_free(x.p, x.s);
    if (!is_t5(g)) *logits = g->logits;
    return st;
}

/* ---- where a row looks ------------------------------------------------------------------------------------------- */

typedef struct { const Lm *m; float *share, *row, *x; int64_t N; Status st; } Gaze;

/* Softmax of the last row's scores, added up. */
static void add_head(Gaze *z, const float *q, const float *k, int64_t ld, float scale) {
    float most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < z->N; j++) {
        float s = 0;
        for (int32_t c = 0; c < z->m->d.D; c++) s += q[c] * k[j * ld + c];
        z->row[j] = s * scale;
        most = z->row[j] > most ? z->row[j] : most;
    }
    for (int64_t j = 0; j < z->N; j++) sum += z->row[j] = expf(z->row[j] - most);
    for (int64_t j = 0; j < z->N; j++) z->share[j] += z->row[j] / (sum * (float)(z->m->d.H * z->m->d.L));
}

/* Queries and keys of a layer, as they go into its attention. */
static void gaze(void *ctx, Tape *t, int layer, Tensor qkv, int64_t k_at) {
    Gaze *z = ctx;
    const LmDims *d = &z->m->d;
    size_t n = (size_t)(qkv.rows * qkv.ld);
    void *elems = mem_new(n, (size_t)dtype_size(qkv.dt));
    (void)layer;
    if (!elems) z->st = ERR_MEMORY;
    if (!elems) return;
    t->b->download(elems, qkv.data, n * (size_t)dtype_size(qkv.dt));
    dtype_to_f32(z->x, elems, qkv.dt, n);
    for (int32_t h = 0; h < d->H; h++)
        add_head(z, z->x + (z->N - 1) * qkv.ld + h * d->D, z->x + k_at + h / (d->H / d->K) * d->D, qkv.ld,
                 1.0f / sqrtf((float)d->D));
    free(elems);
}

Status lm_decoder_gaze(LmDecoder *g, Tensor soft, const LmPrefix *p, float *share) {
    const LmDims *d = &g->m->d;
    LmPrefix one = *p;
    LmWave w;
    int64_t N = p->nsoft + p->n;
    BUG_ON(is_t5(g) || N < 1 || N > g->spec.rows, "lm_decoder: looking at %lld rows of %d", (long long)N, g->spec.rows);
    Gaze z = {.m = g->m, .share = share, .N = N, .row = mem_new((size_t)N, sizeof *z.row),
              .x = mem_new((size_t)N, (size_t)(d->H + 2 * d->K) * (size_t)d->D * sizeof *z.x)};
    z.st = z.row && z.x ? OK : ERR_MEMORY;
    memset(share, 0, (size_t)N * sizeof *share);
    forward_begin(&g->f);
    lm_wave_build(&w, &g->f.room, d, &one, 1, NULL, 0);
    staging_upload(&g->f.room);
    LmAttend how = lm_attend(g->m, 0, &w.self, w.pos);
    how.keep = gaze, how.ctx = &z;
    if (z.st == OK) lm_stack(&g->f.tape, g->m, lm_rows(&g->f.tape, g->m, w.N, w.ids, w.pos, soft), how);
    mem_free(z.row, z.x);
    return z.st == OK ? tape_status(&g->f.tape) : z.st;
}

/* ---- a step ------------------------------------------------------------------------------------------------------ */

typedef struct { LmDecoder *g; const int32_t *ids, *pos; AttnPlan self, cross; Tensor logits; } StepWave;

/* One row, whose keys no other has. */
static void look(Planner *a, AttnItem it) {
    planner_group(a, it.a0, it.na, it.b0, it.nb);
    planner_item(a, it);
}

static void step_wave(StepWave *w, LmDecoder *g, int32_t at, const DecoderRow *rows, int n) {
    int32_t *ids = staging_take(&g->f.room, (size_t)n, sizeof *ids);
    int32_t *pos = staging_take(&g->f.room, (size_t)n, sizeof *pos);
    int32_t *to = staging_take(&g->f.room, (size_t)n, sizeof *to);
    *w = (StepWave){.g = g, .ids = staging_device(&g->f.room, ids), .pos = staging_device(&g->f.room, pos)};
    bool t5 = is_t5(g);
    Planner self = planner_begin(&w->self, &g->f.room, n, n), cross;
    if (t5) cross = planner_begin(&w->cross, &g->f.room, n, n);
    for (int32_t i = 0; i < n; i++) {
        int32_t a0 = g->row0[rows[i].prefix], na = g->nrows[rows[i].prefix], b0 = slots_row(&g->slots, rows[i].slot);
        BUG_ON(rows[i].token < 0 || rows[i].token >= g->m->d.V, "lm_decoder: id %d of %d", rows[i].token, g->m->d.V);
        ids[i] = rows[i].token;
        pos[i] = t5 ? at : na + at;
        to[i] = b0 + at;
        look(&self, (AttnItem){.q0 = i, .nq = 1, .a0 = t5 ? b0 : a0, .na = t5 ? 0 : na, .b0 = b0, .nb = at + 1,
                               .pos = pos[i]});
        if (t5) look(&cross, (AttnItem){.q0 = i, .nq = 1, .a0 = a0, .na = na, .b0 = a0});
    }
    planner_end(&self);
    planner_round(&w->self);
    if (t5) planner_end(&cross), planner_round(&w->cross);
    g->keep_to = staging_device(&g->f.room, to);
    g->keep_from = NULL;
    g->kept = n;
}

/* All of a step that is the same from position to position: where rows stand and look is read from lists. */
static void enqueue_step(void *ctx) {
    StepWave *w = ctx;
    LmDecoder *g = w->g;
    Tape *t = &g->f.tape;
    LmAttend how = lm_attend(g->m, 1, &w->self, w->pos);
    how.keep = keep, how.ctx = g, how.caches = g->cache;
    Tensor x = lm_rows(t, g->m, w->logits.rows, w->ids, w->pos, (Tensor){0});
    BlockStream s = is_t5(g) ? lm_decoder_stack(t, g->m, x, how, g->cross, &w->cross) : lm_stack(t, g->m, x, how);
    lm_logits(t, g->m, w->logits, lm_finish(t, g->m, &s));
}

static Status step(void *self, int32_t at, const DecoderRow *rows, int n, const DecoderCopy *copies, int ncopies,
                   const float **logits) {
    LmDecoder *g = self;
    Tape *t = &g->f.tape;
    StepWave w;
    BUG_ON(at < 0 || at >= g->spec.length || n < 1 || n > g->spec.slots || ncopies > g->spec.slots,
           "lm_decoder: %d rows at %d", n, at);
    t->b->mark("decoding step");
    forward_begin(&g->f);
    step_wave(&w, g, at, rows, n);
    staging_upload(&g->f.room);
    slots_move(&g->slots, &g->f.room, at, copies, ncopies);
    w.logits = tape_new(t, n, g->m->d.V, DT_F32);
    uint64_t key = (uint64_t)n << 40 | (uint64_t)w.self.max_nk << 20 | (uint64_t)w.cross.max_nk;
    forward_repeat(&g->f, key, enqueue_step, &w);
    t->b->download(g->logits, w.logits.data, (size_t)tensor_count(w.logits) * sizeof(float));
    t->b->mark(NULL);
    *logits = g->logits;
    return tape_status(t);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static Status largest(void *self) {
    LmDecoder *m = self;
    const LmDecoderSpec *spec = &m->spec;
    float nowhere = 0;
    const float *logits;
    int n = spec->prefixes;
    LmPrefix *p = mem_new((size_t)n, sizeof *p);
    DecoderRow *rows = mem_new((size_t)spec->slots, sizeof *rows);
    DecoderCopy *copies = mem_new((size_t)spec->slots, sizeof *copies);
    Status st = p && rows && copies ? OK : ERR_MEMORY;
    LmGiven in = {.soft = tape_leaf(&nowhere, spec->rows, m->m->d.E, m->f.b->elem), .prefixes = p};
    for (int i = 0; st == OK && i < n; i++) p[i] = (LmPrefix){.soft = i * spec->rows, .nsoft = spec->rows};
    if (st == OK) st = prefix(m, &in, 0, n, &logits);
    if (st == OK) st = step(m, spec->length - 1, rows, spec->slots, copies, spec->slots, &logits);
    mem_free(p, rows, copies);
    return st;
}

static Status begin(LmDecoder *g, const Backend *b, const Lm *m, const LmDecoderSpec *spec) {
    *g = (LmDecoder){.f = {.b = b}, .m = m, .spec = *spec};
    BUG_ON(spec->prefixes < 1 || spec->slots < 1 || spec->length < 1 || spec->rows < 1, "lm_decoder: an empty one");
    int32_t longest = m->d.family == LM_T5 ? spec->rows : spec->rows + spec->length;
    if (longest > m->rows)
        return err_set(ERR_USAGE, "texts of up to %d tokens, prompt and visual ones included; the language model was "
                       "opened for %d", longest, m->rows);
    return take_host(g);
}

Status lm_decoder_open(LmDecoder *g, const Backend *b, const Lm *m, const LmDecoderSpec *spec) {
    Status st = begin(g, b, m, spec);
    if (st == OK) st = forward_open(&g->f, b, "decoder's", take, largest, g);
    if (st == OK) return OK;
    err_context(st, "texts behind %d prefixes at a time, %d slots of %d tokens", spec->prefixes, spec->slots,
                spec->length);
    lm_decoder_close(g);
    return st;
}

void lm_decoder_close(LmDecoder *g) {
    free_host(g);
    forward_close(&g->f);
    *g = (LmDecoder){0};
}

Decoder lm_decoder(LmDecoder *g) {
    return (Decoder){.self = g, .V = g->m->d.V, .prefixes = g->spec.prefixes, .slots = g->spec.slots,
                     .length = g->spec.length, .starts = is_t5(g), .prefix = prefix, .step = step};
}
