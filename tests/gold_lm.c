/* gold_lm: see gold_lm.h. */
#include "tests/gold_lm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

/* Reads the gradient of a tensor of the tape when the walk comes by. */
typedef struct { Tensor x; float *to; const Backend *b; } Catch;

static void caught(Tape *t, const Node *n) {
    Catch *c = n->saved[0];
    void *g = tape_grad_of(t, c->x);
    int64_t k = tensor_count(c->x);
    memset(c->to, 0, (size_t)k * sizeof(float));
    if (!g) return;
    char *raw = mem_new((size_t)k, (size_t)dtype_size(c->x.dt));
    BUG_ON(!raw, "out of memory");
    t->b->download(raw, g, (size_t)k * (size_t)dtype_size(c->x.dt));
    if (t->b->unified || t->b->elem == c->x.dt) dtype_to_f32(c->to, raw, c->x.dt, (size_t)k);
    free(raw);
}

static void catch_gradient(Tape *t, Catch *c) {
    Node *n = tape_node(t, "catch", caught);
    if (n) n->saved[0] = c;
}

/* ---- a model ----------------------------------------------------------------------------------------------------- */

static Status measure(const LmDims *d, const Backend *b, int32_t rows, size_t *bytes) {
    Backend null = backend_measuring(b);
    Arena a;
    Lm m;
    arena_measure(&a, "language model");
    Status st = lm_open(&m, d, &null, &a, rows);
    *bytes = a.peak + b->workspace + 256;
    lm_close(&m);
    return st;
}

Status gold_lm_open(GoldLm *g, const Backend *b, const char *folder, const char *act, int32_t rows) {
    size_t bytes = 0;
    *g = (GoldLm){.b = b};
    Status st = lm_source_open(&g->src, folder);
    if (st == OK && act) g->src.d.act = strcmp(act, "gelu") == 0 ? ACT_GELU : ACT_GELU_TANH;
    if (st == OK && g->src.d.N && rows > g->src.d.N) rows = g->src.d.N;
    if (st == OK) st = measure(&g->src.d, b, rows, &bytes);
    if (st == OK) st = arena_open(&g->run, "language model's", b, bytes);
    if (st == OK) b->set_workspace(arena_push(&g->run, b->workspace, 1), b->workspace);
    if (st == OK) st = lm_open(&g->m, &g->src.d, b, &g->run, rows);
    if (st == OK) st = lm_load(&g->m, &g->src);
    return st;
}

void gold_lm_close(GoldLm *g) {
    lm_close(&g->m);
    arena_close(&g->run, g->b);
    lm_source_close(&g->src);
}

/* ---- a pass ------------------------------------------------------------------------------------------------------ */

typedef struct {
    LmPrefix *p;
    int32_t *image, *turn;              /* whose visual rows; how many prefixes of that image came before */
    LmText *s;
    int np, turns;
    LmWave w;
    int32_t *rows;                      /* of the visual rows that are given, prefix by prefix */
} Laid;

static void lay(GoldLm *g, const GoldTexts *x, Laid *l) {
    size_t n = (size_t)x->n;
    *l = (Laid){.p = mem_new(n, sizeof *l->p), .image = mem_new(n, sizeof *l->image), .turn = mem_new(n,
            sizeof *l->turn),
                .s = mem_new(n, sizeof *l->s)};
    BUG_ON(!l->p || !l->image || !l->turn || !l->s, "out of memory");
    l->np = lm_share(&g->m.d, x->Q, x->items, x->n, x->shared, l->p, l->image, l->s);
    for (int i = 0; i < l->np; i++) {
        for (int k = 0; k < i; k++) l->turn[i] += l->image[k] == l->image[i];
        if (l->turn[i] >= l->turns) l->turns = l->turn[i] + 1;
    }
    lm_wave_build(&l->w, &g->room, &g->m.d, l->p, l->np, l->s, x->n);
    l->rows = staging_take(&g->room, (size_t)(l->np * x->Q), sizeof *l->rows);
    for (int i = 0; i < l->np * x->Q; i++) l->rows[i] = l->image[i / x->Q] * x->Q + i % x->Q;
    staging_upload(&g->room);
}

static void lay_free(Laid *l) {
    free(l->p);
    free(l->image);
    free(l->turn);
    free(l->s);
}

/* The images' visual rows, once for every prefix: one gather a turn, so that none takes a row twice. */
static Tensor spread(Tape *t, const GoldLm *g, const Laid *l, Tensor soft, int32_t Q) {
    Tensor y = tape_new(t, (int64_t)l->np * Q, soft.cols, soft.dt);
    for (int i = 0; i < l->np; i++)
        op_gather(t, tensor_rows(y, (int64_t)i * Q, Q), soft,
                  (const int32_t *)staging_device(&g->room, l->rows) + i * Q);
    return y;
}

typedef struct { Tensor query, soft; Param w, b; float *nll; void *logits; } Went;

static void *give(Tape *t, const float *x, int64_t n, DType dt) {
    void *to = tape_push(t, n, dtype_size(dt)), *raw = mem_new((size_t)n, sizeof(float));
    BUG_ON(!raw, "out of memory");
    if (x) dtype_from_f32(raw, dt, x, (size_t)n);
    t->b->upload(to, raw, (size_t)n * (size_t)dtype_size(dt));
    t->b->sync();
    free(raw);
    return to;
}

static Param learned(Tape *t, const float *x, int64_t rows, int64_t cols) {
    Param p = {.rows = rows, .cols = cols, .w = give(t, x, rows * cols, DT_F32), .g = give(t, NULL, rows * cols,
            DT_F32)};
    p.copy = t->b->elem == DT_F32 ? (void *)p.w : give(t, x, rows * cols, t->b->elem);
    return p;
}

static void pass(GoldLm *g, Tape *t, const GoldTexts *x, const Laid *l, Went *o, Catch *catches) {
    DType e = t->b->elem;
    int64_t rows = (int64_t)x->images * x->Q, E = g->m.d.E;
    o->query = tape_new(t, rows, x->Cq, e);
    o->query.data = give(t, x->query, rows * x->Cq, e);
    catches[0].x = o->query;
    catch_gradient(t, &catches[0]);
    o->soft = o->query;
    if (x->w) {
        o->w = learned(t, x->w, E, x->Cq), o->b = learned(t, x->bias, 1, E);
        o->soft = tape_new(t, rows, E, e);
        op_linear(t, o->soft, o->query, o->w, o->b);
    }
    catches[1].x = o->soft;
    catch_gradient(t, &catches[1]);
    Tensor h = lm_hidden(t, &g->m, &l->w, spread(t, g, l, o->soft, x->Q));
    Tensor logits = tape_new(t, l->w.T, g->m.d.V, DT_F32);
    logits.grad = NULL;
    bool recording = t->recording;
    t->recording = false;
    lm_logits(t, &g->m, logits, h);
    t->recording = recording;
    o->logits = logits.data;
    o->nll = tape_push(t, l->w.T, sizeof(float));
    lm_loss(t, &g->m, &l->w, h, o->nll, 1.0f / (float)l->w.T);
    tape_backward(t);
}

/* The same on a measuring arena, to know how much memory it takes. */
static Status room_for(GoldLm *g, const GoldTexts *x, const Laid *l) {
    Backend null = backend_measuring(g->b);
    Arena a;
    Tape t;
    Went o = {0};
    Catch none[2] = {{.to = NULL}, {.to = NULL}};
    GoldTexts quiet = *x;
    null.unified = false;
    arena_measure(&a, "step");
    Status st = tape_open(&t, &null, &a);
    if (st != OK) return st;
    tape_reset(&t, true);
    int64_t most = (int64_t)x->images * x->Q * (x->Cq > g->m.d.E ? x->Cq : g->m.d.E);
    none[0].to = none[1].to = mem_new((size_t)most, sizeof(float));
    pass(g, &t, &quiet, l, &o, none);
    free(none[0].to);
    size_t bytes = a.peak + (1 << 20);
    tape_close(&t);
    return arena_open(&g->step, "step's", g->b, bytes);
}

static void fetch(const Backend *b, float **to, const void *from, int64_t n) {
    *to = mem_new((size_t)n, sizeof **to);
    BUG_ON(!*to, "out of memory");
    b->download(*to, from, (size_t)n * sizeof **to);
}

static void in_order(const Laid *l, GoldSaid *out, int64_t V) {
    int64_t T = l->w.T;
    float *nll = mem_new((size_t)T, sizeof *nll), *logits = mem_new((size_t)(T * V), sizeof *logits);
    BUG_ON(!nll || !logits, "out of memory");
    for (int64_t i = 0; i < T; i++) {
        int32_t to = l->w.order[i];
        nll[to] = out->nll[i];
        memcpy(logits + to * V, out->logits + i * V, (size_t)V * sizeof *logits);
    }
    free(out->nll);
    free(out->logits);
    out->nll = nll;
    out->logits = logits;
    for (int64_t i = 0; i < T; i++) out->loss += (double)nll[i] / (double)T;
}

Status gold_lm_run(GoldLm *g, const GoldTexts *x, GoldSaid *out) {
    Laid l;
    Went o = {0};
    int64_t rows = (int64_t)x->images * x->Q, E = g->m.d.E, ids = 0;
    *out = (GoldSaid){.dquery = mem_new((size_t)(rows * x->Cq), sizeof(float)), .dsoft = mem_new((size_t)(rows * E),
            sizeof(float))};
    Catch catches[2] = {{.to = out->dquery}, {.to = out->dsoft}};
    for (int i = 0; i < x->n; i++) ids += x->items[i].n + 1;
    BUG_ON(!out->dquery || !out->dsoft, "out of memory");
    Arena device;
    size_t bytes = lm_wave_bytes(ids + (int64_t)x->n * x->Q, x->n, x->n) +
                   staging_bytes((int64_t)x->n * x->Q, sizeof *l.rows);
    Status st = arena_open(&device, "lists", g->b, bytes + 4096);
    if (st == OK) st = staging_open(&g->room, g->b, &device, bytes);
    if (st != OK) return st;
    lay(g, x, &l);
    st = room_for(g, x, &l);
    if (st == OK) st = tape_open(&g->tape, g->b, &g->step);
    if (st == OK) {
        tape_reset(&g->tape, true);
        pass(g, &g->tape, x, &l, &o, catches);
        st = tape_status(&g->tape);
    }
    if (st == OK) {
        out->T = l.w.T;
        fetch(g->b, &out->nll, o.nll, l.w.T);
        fetch(g->b, &out->logits, o.logits, l.w.T * g->m.d.V);
        if (x->w) fetch(g->b, &out->dw, o.w.g, E * x->Cq), fetch(g->b, &out->dbias, o.b.g, E);
        in_order(&l, out, g->m.d.V);
    }
    lay_free(&l);
    tape_close(&g->tape);
    arena_close(&g->step, g->b);
    staging_close(&g->room);
    arena_close(&device, g->b);
    return st;
}

/* ---- greedy ------------------------------------------------------------------------------------------------------ */

Tensor gold_lm_soft(GoldLm *g, const GoldTexts *x, void **memory) {
    int64_t rows = (int64_t)x->images * x->Q, E = g->m.d.E;
    float *y = mem_new((size_t)(rows * E), sizeof *y);
    void *raw = mem_new((size_t)(rows * E), sizeof *y);
    BUG_ON(!y || !raw || g->b->alloc(memory, (size_t)(rows * E) * sizeof *y) != OK, "out of memory");
    for (int64_t r = 0; r < rows; r++)
        for (int64_t e = 0; e < E; e++) {
            double s = x->w ? x->bias[e] : x->query[r * E + e];
            for (int64_t c = 0; c < x->Cq && x->w; c++) s += (double)x->w[e * x->Cq + c] * x->query[r * x->Cq + c];
            y[r * E + e] = (float)s;
        }
    dtype_from_f32(raw, g->b->elem, y, (size_t)(rows * E));
    g->b->upload(*memory, raw, (size_t)(rows * E) * (size_t)dtype_size(g->b->elem));
    g->b->sync();
    free(y);
    free(raw);
    return tape_leaf(*memory, rows, E, g->b->elem);
}

static int32_t best_of(const float *logits, int32_t V) {
    int32_t best = 0;
    for (int32_t v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

static bool ends_text(const LmDims *d, int32_t id) {
    for (int i = 0; i < d->nends; i++)
        if (d->end[i] == id) return true;
    return false;
}

static Status greedy(const LmDims *d, Decoder *k, const LmGiven *in, int images, int32_t most, int32_t *ids,
                     int32_t *n) {
    const float *logits = NULL;
    int32_t running[256], count = images;
    DecoderRow rows[256];
    BUG_ON(images > 256, "at most 256 pictures");
    Status st = k->prefix(k->self, in, 0, images, &logits);
    for (int i = 0; i < images; i++) running[i] = i, n[i] = 0;
    for (int32_t at = 0; st == OK && count; at++) {
        for (int r = 0; r < count; r++) {
            int32_t i = running[r], token = k->starts && !at ? d->start : best_of(logits + (int64_t)r * k->V, k->V);
            rows[r] = (DecoderRow){i, i, token};
            if (!k->starts || at) ids[i * most + n[i]++] = token;
        }
        int left = 0;
        for (int r = 0; r < count; r++) {
            int32_t i = rows[r].prefix;
            if (n[i] < most && !(n[i] && ends_text(d, rows[r].token))) rows[left] = rows[r], running[left++] = i;
        }
        count = left;
        if (count) st = k->step(k->self, at, rows, count, NULL, 0, &logits);
    }
    return st;
}

Status gold_lm_greedy(GoldLm *g, const GoldTexts *x, const int32_t *prompt, int32_t np, int32_t most, int32_t *ids,
                      int32_t *n) {
    void *memory = NULL;
    LmDecoder dec = {0};
    LmDecoderSpec spec = {.prefixes = x->images, .slots = x->images, .length = most, .rows = x->Q + np};
    LmPrefix *p = mem_new((size_t)x->images, sizeof *p);
    BUG_ON(!p, "out of memory");
    for (int i = 0; i < x->images; i++) p[i] = (LmPrefix){.soft = i * x->Q, .nsoft = x->Q, .ids = prompt, .n = np};
    LmGiven in = {.soft = gold_lm_soft(g, x, &memory), .prefixes = p};
    Status st = lm_decoder_open(&dec, g->b, &g->m, &spec);
    Decoder k = lm_decoder(&dec);
    if (st == OK) st = greedy(&g->m.d, &k, &in, x->images, most, ids, n);
    lm_decoder_close(&dec);
    g->b->release(memory);
    free(p);
    return st;
}

void gold_lm_free(GoldSaid *s) {
    free(s->nll);
    free(s->logits);
    free(s->dsoft);
    free(s->dquery);
    free(s->dw);
    free(s->dbias);
    *s = (GoldSaid){0};
}

float *gold_floats(const StFile *f, const char *name, StTensor *shape) {
    const StTensor *t = st_find(f, name);
    if (!t) return NULL;
    float *x = mem_new((size_t)st_elements(t), sizeof *x);
    if (x) dtype_to_f32(x, t->data, t->dtype, (size_t)st_elements(t));
    if (shape) *shape = *t;
    return x;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static void check_floats(Case *c, const char *what, const float *x, const float *y, int64_t n, double tolerance) {
    double d = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) d += (x[i] - y[i]) * (x[i] - y[i]), norm += (double)y[i] * y[i];
    gold_check(c, what, norm > 0 ? sqrt(d / norm) : sqrt(d), tolerance);
}

void gold_lm_check(Case *c, const StFile *f, const char *name, const GoldTexts *x, int64_t E,
                          const GoldSaid *s) {
    const struct { const char *tail; const float *got; int64_t n; } all[] = {
        {"grad.query_output", s->dquery, (int64_t)x->images * x->Q * x->Cq}, {"grad.proj.weight", s->dw, E * x->Cq},
        {"grad.proj.bias", s->dbias, E}, {"grad.soft", s->dsoft, (int64_t)x->images * x->Q * E}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char full[200];
        snprintf(full, sizeof full, "%s.%s", name, all[i].tail);
        const StTensor *want = st_find(f, full);
        if (want) gold_tensor(c, full, all[i].got, all[i].n, want, 1e-5, 0);
    }
}

void gold_lm_same(Case *c, const char *name, const GoldTexts *x, int64_t E, const GoldSaid *a,
                         const GoldSaid *b) {
    char what[200];
    snprintf(what, sizeof what, "%s: one by one", name);
    gold_check(c, what, a->loss - b->loss, 1e-6 * fmax(1.0, fabs(b->loss)));
    check_floats(c, what, a->nll, b->nll, a->T, 1e-5);
    check_floats(c, what, a->dsoft, b->dsoft, (int64_t)x->images * x->Q * E, 1e-5);
    check_floats(c, what, a->dw, b->dw, E * x->Cq, 1e-5);
}

/* ---- bf16 -------------------------------------------------------------------------------------------------------- */

static Status open_bf16(const Case *c, Json **doc, StFile **f) {
    char path[1200];
    snprintf(path, sizeof path, "%s/bf16.json", c->dir);
    Status st = json_parse_file(doc, path);
    snprintf(path, sizeof path, "%s/bf16.safetensors", c->dir);
    return st == OK && f ? st_open(f, path) : st;
}

bool gold_lm_has_bf16(const Case *c, const char *name) {
    Json *doc = NULL;
    bool has = open_bf16(c, &doc, NULL) == OK && json_get(json_get(doc, "cases"), name);
    json_free(doc);
    return has;
}

/* The largest error of the plain forms: of NAME.relative_error, or of the number itself. */
static double plain_error(const Json *forms, const char *key) {
    const Json *form;
    double most = 0, v;
    for (const char *k = json_next(forms, NULL, &form); k; k = json_next(forms, k, &form)) {
        const Json *j = json_get(form, key);
        if (json_num(json_type(j) == J_OBJECT ? json_get(j, "relative_error") : j, &v)) most = fmax(most, v);
    }
    return most;
}

static double relative(const float *x, const float *y, int64_t n, bool rms) {
    double d = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) d += pow((double)x[i] - y[i], 2), norm += pow(y[i], 2);
    return rms ? sqrt(d / (double)n) : sqrt(d / norm);
}

Status gold_lm_check_bf16(Case *c, const char *name, const GoldTexts *x, int64_t E, const GoldSaid *s) {
    const struct { const char *tail, *key; const float *got; int64_t n; bool rms; } all[] = {
        {"nll", "nll_rms_error", s->nll, s->T, true},
        {"grad.soft", "grad.soft", s->dsoft, (int64_t)x->images * x->Q * E, false},
        {"grad.query_output", "grad.query_output", s->dquery, (int64_t)x->images * x->Q * x->Cq, false},
        {"grad.proj.weight", "grad.proj.weight", s->dw, E * x->Cq, false},
        {"grad.proj.bias", "grad.proj.bias", s->dbias, E, false}};
    Json *doc = NULL;
    StFile *f = NULL;
    Status st = open_bf16(c, &doc, &f);
    const Json *forms = json_get(json_get(doc, "cases"), name);
    for (size_t i = 0; st == OK && i < sizeof all / sizeof *all; i++) {
        char full[200];
        StTensor shape = {0};
        snprintf(full, sizeof full, "%s.float64.%s", name, all[i].tail);
        float *want = gold_floats(f, full, &shape);
        bool fits = want && st_elements(&shape) == all[i].n;
        gold_check(c, full, fits ? relative(all[i].got, want, all[i].n, all[i].rms) : NAN, 2 * plain_error(forms, all[i].key));
        free(want);
    }
    if (st == OK) gold_check(c, name, s->loss - gold_num(forms, "loss"), 2 * plain_error(forms, "nll_rms_error"));
    st_close(f);
    json_free(doc);
    return st;
}
