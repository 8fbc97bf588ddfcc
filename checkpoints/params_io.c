/* params_io: see params_io.h. */
#include "checkpoints/params_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/features.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

/* The table as safetensors entries, names with a prefix; the strings live in one block behind the entries. */
static StTensor *list_tensors(const Params *p, const char *const *prefixes, int nprefixes, size_t *count) {
    enum { NAME = 128 };
    size_t n = (size_t)p->n * (size_t)nprefixes;
    StTensor *t = mem_new(n, sizeof *t + NAME);
    if (!t) return NULL;
    char *names = (char *)(t + n);
    for (size_t i = 0; i < n; i++) {
        const ParamTensor *q = &p->tensor[i % (size_t)p->n];
        char *name = names + i * NAME;
        snprintf(name, NAME, "%s%s", prefixes[i / (size_t)p->n], q->name);
        t[i] = (StTensor){.name = name, .dtype = DT_F32, .ndim = q->ndim, .nbytes = (size_t)q->n * sizeof(float)};
        for (int k = 0; k < q->ndim; k++) t[i].shape[k] = q->shape[k];
    }
    *count = n;
    return t;
}

/* A name with its prefix, back to the flat array and the row of the table. */
static const ParamTensor *resolve(const Params *p, const char *part, const char *name, float **flat) {
    *flat = strcmp(part, "ema") == 0 ? p->ema : p->w;
    /* PyTorch's names, so that its users recognise them */
    if (strncmp(name, "exp_avg.", 8) == 0) *flat = p->m, name += 8;
    else if (strncmp(name, "exp_avg_sq.", 11) == 0) *flat = p->v, name += 11;
    return params_find(p, name);
}

/* whole: m, v and ema of all ranks on the host, when they are sharded. */
typedef struct { const Params *p; CkptWarn *warn; void *ctx; float *whole[3]; } SaveContext;

static Status fetch(void *ctx, const CkptPart *part, const StTensor *t, void *dst) {
    const SaveContext *c = ctx;
    const Params *p = c->p;
    float *flat;
    const ParamTensor *q = resolve(p, part->name, t->name, &flat);
    BUG_ON(!q, "save: no tensor %s", t->name);
    if (flat != p->w && q->at >= p->learns) {                /* frozen: no moments, and its average is itself */
        if (strcmp(part->name, "ema") == 0) params_read(p, q, p->w, dst);
        else memset(dst, 0, t->nbytes);
        return p->b->status();
    }
    float *const state[] = {p->m, p->v, p->ema};
    for (int i = 0; i < 3; i++)
        if (c->whole[i] && flat == state[i]) {
            memcpy(dst, c->whole[i] + q->at, (size_t)q->n * sizeof(float));
            return OK;
        }
    params_read(p, q, flat, dst);
    return p->b->status();
}

static void hand_on(void *ctx, const char *sentence) {
    const SaveContext *c = ctx;
    if (c->warn) c->warn(c->ctx, sentence);
}

static Status gather_state(SaveContext *c) {
    const Params *p = c->p;
    float *const state[] = {p->m, p->v, p->ema};
    Status st = OK;
    for (int i = 0; i < 3 && st == OK; i++) {
        if (!state[i]) continue;
        c->whole[i] = mem_new((size_t)p->learns, sizeof(float));
        st = c->whole[i] ? OK : ERR_MEMORY;
        if (st == OK) p->b->download(c->whole[i] + p->own.at, state[i], (size_t)p->own.n * sizeof(float));
        if (st == OK) st = dist_gather_parts(c->whole[i], p->learns, false, "the gather of the optimizer's state");
    }
    return st;
}

static Status write_run(const Params *p, const SaveSpec *s, SaveContext *ctx) {
    static const char *const plain[] = {""}, *const moments[] = {"exp_avg.", "exp_avg_sq."};
    CkptPart parts[3] = {{.name = "model"}, {.name = "optimizer"}, {.name = "ema"}};
    StTensor *model = list_tensors(p, plain, 1, &parts[0].n), *optimizer = list_tensors(p, moments, 2, &parts[1].n);
    parts[0].tensors = parts[2].tensors = model;
    parts[2].n = parts[0].n;
    parts[1].tensors = optimizer;
    Status st = model && optimizer ? OK : ERR_MEMORY;
    if (st == OK)
        st = ckpt_save(&(CkptSpec){.out = s->out, .step = s->step, .parts = parts, .nparts = p->ema ? 3 : 2,
                                   .run = s->run, .keep = s->keep, .best = s->best, .fetch = fetch, .warn = hand_on,
                                   .ctx = ctx});
    mem_free(model, optimizer);
    return st;
}

Status save_run(const Params *p, const SaveSpec *s) {
    SaveContext ctx = {p, s->warn, s->ctx, {NULL}};
    Status st = p->sharded ? gather_state(&ctx) : OK;
    if (st == OK && dist_rank() == 0) st = write_run(p, s, &ctx);
    for (int i = 0; i < 3; i++) free(ctx.whole[i]);
    return st;
}

Status save_weights(const Params *p, const float *flat, const char *path) {
    static const char *const plain[] = {""};
    size_t n = 0;
    StTensor *t = list_tensors(p, plain, 1, &n);
    StWriter *w = NULL;
    Status st = t ? st_create(&w, path, t, n, NULL, 0) : ERR_MEMORY;
    for (size_t i = 0; st == OK && i < n; i++) {
        /* one at a time: the host need not hold a second model */
        float *x = mem_new((size_t)p->tensor[i].n, sizeof *x);
        st = x ? OK : ERR_MEMORY;
        if (x) params_read(p, &p->tensor[i], flat, x);
        if (st == OK) st = p->b->status();
        if (st == OK) st = st_put(w, x, t[i].nbytes);
        free(x);
    }
    if (st == OK) st = st_commit(w);
    else st_abandon(w);
    free(t);
    return st;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static Status find_part(const StTensor **t, const ParamTensor *q, const Ckpt *c, const char *part, const char *prefix) {
    const StFile *f = ckpt_part(c, part);
    char name[160], shape[ST_SHAPE_TEXT];
    if (!f) return err_set(ERR_FORMAT, "%s: there is no %s.safetensors in it", ckpt_dir(c), part);
    snprintf(name, sizeof name, "%s%s", prefix, q->name);
    *t = st_find(f, name);
    if (!*t) return err_set(ERR_FORMAT, "%s: %s.safetensors has no tensor %s", ckpt_dir(c), part, name);
    if ((*t)->dtype == DT_F32 && st_elements(*t) == q->n) return OK;
    return err_set(ERR_FORMAT, "%s: %s is %s %s, the model wants %lld f32 numbers", ckpt_dir(c), name,
                   dtype_name((*t)->dtype), st_shape_text(*t, shape, sizeof shape), (long long)q->n);
}

/* Weights are everywhere; of the optimizer's state only the own part. */
static void take(Params *p, const ParamTensor *q, float *flat, const float *x) {
    DistPart all = {0, p->total}, here = flat == p->w ? all : p->own;
    int64_t lo = q->at > here.at ? q->at : here.at,
            hi = q->at + q->n < here.at + here.n ? q->at + q->n : here.at + here.n;
    if (lo >= hi) return;
    p->b->upload(flat + (lo - here.at), x + (lo - q->at), (size_t)(hi - lo) * sizeof *x);
    p->b->sync();
}

/* Rank 0 reads, everybody gets it. */
static Status load_part(Params *p, const Ckpt *c, const char *part, const char *prefix, float *flat) {
    Status st = OK;
    for (int i = 0; st == OK && i < p->n; i++) {
        const ParamTensor *q = &p->tensor[i];
        const StTensor *t = NULL;
        float *x = mem_new((size_t)q->n, sizeof *x);
        st = x ? OK : ERR_MEMORY;
        if (st == OK && dist_rank() == 0) st = find_part(&t, q, c, part, prefix);
        if (st == OK && t) memcpy(x, t->data, t->nbytes);    /* a shape and type of ours: find_part has seen to it */
        if (st == OK) st = dist_broadcast(x, (size_t)q->n * sizeof *x, 0, "the spread of weights");
        if (st == OK) take(p, q, flat, x);
        free(x);
    }
    return st;
}

Status load_run(Params *p, const Ckpt *c) {
    Status st = load_part(p, c, "model", "", p->w);
    /* the copies that products read, before the average is filled from them */
    if (st == OK) params_refresh(p);
    if (st == OK && p->m) st = load_part(p, c, "optimizer", "exp_avg.", p->m);
    if (st == OK && p->v) st = load_part(p, c, "optimizer", "exp_avg_sq.", p->v);
    /* optim.ema was switched on now: it begins with the weights */
    bool fresh = c && !ckpt_part(c, "ema");
    if (st == OK && p->ema) st = load_part(p, c, fresh ? "model" : "ema", "", p->ema);
    return st == OK ? p->b->status() : st;
}

/* Rows are words: those of a vocabulary of another size stand for other ones. [DEC] is ours alone, and comes last. */
static Status check_words(const Params *p, const ParamTensor *q, int64_t rows, const char *path) {
    if (p->table.row[q->row].shape[0] != 'V' || rows == q->shape[0] || rows == q->shape[0] - 1) return OK;
    return err_set(ERR_FORMAT, "%s: %s has %lld rows, the vocabulary (model.vocab) %lld word pieces with [DEC]: they "
                   "stand for the words of another vocabulary; name the one it was trained with", path, q->name,
                   (long long)rows, (long long)q->shape[0]);
}

/* Rows of a table that the source has fewer of stay as they were initialised ([DEC]). */
static Status load_tensor(Params *p, const ParamTensor *q, const StTensor *t, const char *path) {
    char shape[ST_SHAPE_TEXT];
    int64_t n = st_elements(t), cols = q->rows > 1 ? q->cols : 1;
    bool grows = p->table.row[q->row].flags & PARAM_GROWS;
    if (n > 0 && n % cols == 0 && (q->rows <= 1 || t->shape[t->ndim - 1] == cols)) {
        Status st = check_words(p, q, n / cols, path);
        if (st != OK) return st;
    }
    /* by count: LAVIS has (1, Q, C) and (1) where others have (Q, C) and nothing */
    bool fits = n == q->n || (grows && n > 0 && n < q->n && n % cols == 0 && t->ndim == q->ndim);
    if (q->rows > 1 && t->ndim >= 2) fits = fits && t->shape[t->ndim - 1] == cols;
    if (t->dtype == DT_I8 || t->dtype == DT_U8)
        return err_set(ERR_FORMAT,
                       "%s: %s is %s: quantised weights (bitsandbytes, GPTQ), which are not read; take those before "
                       "quantisation", path, q->name, dtype_name(t->dtype));
    if (!fits || t->dtype == DT_BOOL)
        return err_set(ERR_FORMAT, "%s: %s is %s, the model wants %lld x %lld", path, q->name,
                       st_shape_text(t, shape, sizeof shape), (long long)(q->n / cols), (long long)cols);
    float *x = mem_new((size_t)q->n, sizeof *x);
    if (!x) return ERR_MEMORY;
    /* first what is there: rows that the source lacks keep it */
    params_read(p, q, p->w, x);
    dtype_to_f32(x, t->data, t->dtype, (size_t)n);
    /* before anything is overwritten: a file cut or overflowed spoils every later step */
    bool finite = features_finite(x, DT_F32, (size_t)q->n);
    if (finite) params_write(p, q, p->w, x);
    free(x);
    return finite ? OK
                  : err_set(ERR_NUMERIC, "%s: %s holds a number that is not finite: what is computed from these "
                            "weights is not either", path, q->name);
}

/* BERT has one feed-forward net: the query one starts as its copy (training.md 8). */
static const StTensor *find_or_copy(const Params *p, const WeightSource *ws, const ParamTensor *q) {
    const StTensor *t = ws_find(ws, q->name);
    const ParamTensor *of = t ? NULL : params_copy_of(p, q);
    return of ? ws_find(ws, of->name) : t;
}

static bool in_text_head(const ParamTensor *q) { return strncmp(q->name, "Qformer.cls.", 12) == 0; }

static void note_missing(LoadReport *r, const ParamTensor *q) {
    bool needed = !in_text_head(q) && strcmp(q->name, "temp") != 0;      /* the temperature is for training */
    if (!r->missing++ || (needed && !r->needed)) snprintf(r->first, sizeof r->first, "%s", q->name);
    r->needed += needed;
    if (in_text_head(q)) r->text_head = false;
}

Status load_weights(Params *p, const WeightSource *ws, bool use_ema, LoadReport *r) {
    const Ckpt *c = ws_checkpoint(ws);
    const StFile *ema = use_ema && c ? ckpt_part(c, "ema") : NULL;
    Status st = OK;
    *r = (LoadReport){.n = p->n, .text_head = true};
    for (int i = 0; st == OK && i < p->n; i++) {
        const ParamTensor *q = &p->tensor[i];
        /* the average is what a run is judged by */
        const StTensor *t = ema ? st_find(ema, q->name) : find_or_copy(p, ws, q);
        if (t) st = load_tensor(p, q, t, ws_path(ws));
        else note_missing(r, q);
        if (t && p->table.row[q->row].shape[0] == 'V') r->dec_fresh |= st_elements(t) < q->n;
    }
    if (st == OK && r->missing == p->n)
        st = err_set(ERR_FORMAT, "%s: none of its %zu tensors is one of a Q-Former or BERT, whose names are like "
                     "%s%s%s", ws_path(ws), ws_count(ws), p->tensor[1].name, ws_count(ws) ? "; its first is " : "",
                     ws_count(ws) ? ws_at(ws, 0)->name : "");
    params_refresh(p);
    return st == OK ? p->b->status() : st;
}

char *load_describe(const LoadReport *r) {
    return mem_format("%d of %d tensors come from it%s%s%s", r->n - r->missing, r->n,
                      r->missing ? ", the others start fresh, the first of them " : "", r->missing ? r->first : "",
                      r->dec_fresh ? "; of the words [DEC] alone starts fresh" : "");
}

static int64_t side(const WeightSource *ws, const char *name, int from_end) {
    const StTensor *t = ws_find(ws, name);
    int64_t v = t && t->ndim >= from_end ? t->shape[t->ndim - from_end] : 0;
    return v > 0 && v < (1 << 28) ? v : 0;
}

void dims_known(Dims *d, const WeightSource *ws) {
    char name[160];
    *d = (Dims){.Q = (int32_t)side(ws, "query_tokens", 2),
                .C = (int32_t)side(ws, "Qformer.bert.embeddings.word_embeddings.weight", 1),
                .V = (int32_t)side(ws, "Qformer.bert.embeddings.word_embeddings.weight", 2),
                .N = (int32_t)side(ws, "Qformer.bert.embeddings.position_embeddings.weight", 2),
                .E = (int32_t)side(ws, "ln_vision.weight", 1), .Z = (int32_t)side(ws, "vision_proj.weight", 2),
                .W = (int32_t)side(ws, "language_projection.weight", 2),
                .F = (int32_t)side(ws, "Qformer.bert.encoder.layer.0.intermediate_query.dense.weight", 2)};
    if (!d->C) d->C = (int32_t)side(ws, "query_tokens", 1);
    if (!d->F) d->F = (int32_t)side(ws, "Qformer.bert.encoder.layer.0.intermediate.dense.weight", 2);
    /* counted: no file says how many layers it has */
    for (; d->L < 1024; d->L++) {
        snprintf(name, sizeof name, "Qformer.bert.encoder.layer.%d.attention.self.query.weight", d->L);
        if (!ws_find(ws, name)) break;
        snprintf(name, sizeof name, "Qformer.bert.encoder.layer.%d.crossattention.self.query.weight", d->L);
        /* layer 0 looks at the image in all of them: the second that does tells how often */
        if (d->L > 0 && !d->X && ws_find(ws, name)) d->X = d->L;
    }
    if (!d->X && ws_find(ws, "Qformer.bert.encoder.layer.0.crossattention.self.query.weight")) d->X = d->L;
}

Status dims_of_weights(Dims *d, const WeightSource *ws) {
    dims_known(d, ws);
    if (!d->X) d->X = d->L > 0 ? d->L : 1;
    /* what both stages have */
    bool whole = d->L && d->C && d->Q && d->E && d->F;
    if (whole && d->W) return OK;                            /* stage 2: heads and, but for prompts, words are gone */
    if (ws_find(ws, "model.embed_tokens.weight") && !d->Q)
        return err_set(ERR_FORMAT, "%s: a language model without eyes; 'pretrain stage=2 stage2.lm=FOLDER' teaches a "
                       "Q-Former to show it pictures ('export' makes a FOLDER of a run with objective=lm)",
                           ws_path(ws));
    if (!whole || !d->Z || !d->V || !d->N)
        return err_set(ERR_FORMAT,
                       "%s: not a Q-Former of stage 1 or 2: query_tokens, word embeddings, ln_vision, vision_proj or "
                       "layers are missing",
                       ws_path(ws));
    return OK;
}
