/* params: see params.h. */
#include "kernels/model/params.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { MODEL, LAYER, CROSS };
enum { NORMAL, ZEROS, ONES, LINEAR, TEMP, COPY };
enum { ROUND = 64 };                     /* elements: 128 bytes of bf16, so that rows of matrices stay aligned */

static const struct { const char *name, *shape; int where, block, join, start, from; } table[P_COUNT] = {
#define P_0 0
#define X(id, name, shape, where, block, join, start, from) {name, shape, where, block, join, start, P_##from},
    PARAM_TABLE(X)
#undef X
#undef P_0
};

static int64_t letter(const Dims *d, char c) {
    switch (c) {
    case 'Q': return d->Q;
    case 'C': return d->C;
    case 'V': return d->V;
    case 'N': return d->N;
    case 'F': return d->F;
    case 'E': return d->E;
    case 'Z': return d->Z;
    case '2': return 2;
    default: BUG_ON(1, "params: no dimension '%c'", c);
    }
}

static bool decays(const ParamTensor *t, DecayRule rule) {
    size_t n = strlen(t->name);
    if (rule == DECAY_LAVIS) return t->ndim != 1 && !(n >= 5 && strcmp(t->name + n - 5, ".bias") == 0);
    return t->ndim >= 2 && !strstr(t->name, "bias") && !strstr(t->name, "ln") && !strstr(t->name, "bn");
}

static bool matches(const char *name, const char *patterns) {
    if (!patterns) return false;
    char one[128];
    while (*patterns) {
        size_t n = strcspn(patterns, ",");
        if (n && n < sizeof one) {
            memcpy(one, patterns, n);
            one[n] = 0;
            if (fnmatch(one, name, 0) == 0) return true;
        }
        patterns += n + (patterns[n] == ',');
    }
    return false;
}

static void add_tensor(Params *p, ParamKind k, int layer, const ParamsSpec *spec) {
    ParamTensor *t = &p->tensor[p->n];
    *t = (ParamTensor){.kind = k, .layer = layer, .ndim = (int)strlen(table[k].shape), .n = 1};
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s", table[k].name);
    else {                                                   /* the one %d of the table's name */
        const char *at = strstr(table[k].name, "%d");
        snprintf(t->name, sizeof t->name, "%.*s%d%s", (int)(at - table[k].name), table[k].name, layer, at + 2);
    }
    for (int i = 0; i < t->ndim; i++) {
        t->shape[i] = letter(&p->d, table[k].shape[i]);
        t->n *= t->shape[i];
    }
    bool first_of_block = p->n == 0 || table[p->tensor[p->n - 1].kind].block != table[k].block;
    if (!table[k].join || first_of_block) p->total = (p->total + ROUND - 1) / ROUND * ROUND;
    t->at = p->total;
    t->decay = decays(t, spec->rule);
    t->frozen = matches(t->name, spec->freeze);
    p->total += t->n;
    p->count += t->n;
    if (p->first[k] < 0) p->first[k] = p->n;
    p->n++;
}

/* Rows of one block go layer by layer; blocks in the table's order. */
static void lay_out(Params *p, const ParamsSpec *spec) {
    for (int k = 0; k < P_COUNT;) {
        int end = k;
        while (end < P_COUNT && table[end].block == table[k].block) end++;
        bool model = table[k].where == MODEL;
        for (int l = 0; l < (model ? 1 : p->d.L); l++) {
            for (int j = k; j < end; j++)
                if (table[j].where != CROSS || dims_is_cross(&p->d, l))
                    add_tensor(p, (ParamKind)j, model ? -1 : l, spec);
        }
        k = end;
    }
    p->total = (p->total + ROUND - 1) / ROUND * ROUND;
}

static void find_ranges(Params *p) {
    for (int i = 0; i < p->n; i++) {
        const ParamTensor *t = &p->tensor[i];
        if (t->frozen) continue;
        ParamRange *r = p->nranges ? &p->range[p->nranges - 1] : NULL;
        bool apart = !r || p->tensor[i - 1].frozen;          /* gaps do not part: there everything is and stays zero */
        if (!apart && r->decay == t->decay) r->n = t->at + t->n - r->at;
        else p->range[p->nranges++] = (ParamRange){t->at, t->n, t->decay, apart};
    }
}

Status params_open(Params *p, const Dims *d, const Backend *b, Arena *run, const ParamsSpec *spec) {
    *p = (Params){.d = *d, .b = b};
    int most = P_COUNT * (d->L + 1);
    for (int k = 0; k < P_COUNT; k++) p->first[k] = -1;
    p->tensor = mem_new((size_t)most, sizeof *p->tensor);
    p->range = mem_new((size_t)most, sizeof *p->range);
    if (!p->tensor || !p->range) {
        params_close(p);
        return ERR_MEMORY;
    }
    lay_out(p, spec);
    find_ranges(p);
    p->sharded = spec->sharded && dist_size() > 1;
    if (p->sharded) p->total = dist_part(p->total, 0).n * dist_size();       /* parts of one size */
    p->own = p->sharded ? dist_part(p->total, dist_rank()) : (DistPart){0, p->total};
    size_t n = (size_t)p->total, own = (size_t)p->own.n;
    float **flat[] = {&p->w, spec->training ? &p->g : NULL, spec->training ? &p->m : NULL,
                      spec->training ? &p->v : NULL, spec->ema ? &p->ema : NULL};
    for (size_t i = 0; i < sizeof flat / sizeof *flat; i++) {
        if (!flat[i]) continue;
        size_t k = i < 2 ? n : own;
        *flat[i] = arena_push(run, k, sizeof(float));
        if (!run->measuring && !run->full) b->zero(*flat[i], k * sizeof(float));
    }
    p->copy = b->elem == DT_F32 ? (void *)p->w : arena_push(run, n, (size_t)dtype_size(b->elem));
    if (b->elem != DT_F32 && !run->measuring && !run->full) b->zero(p->copy, n * (size_t)dtype_size(b->elem));
    if (run->full)
        return err_set(ERR_MEMORY, "the parameters need more than the %.2f GiB taken for them",
                       (double)run->size / (1 << 30));
    return OK;
}

void params_close(Params *p) {
    free(p->tensor);
    free(p->range);
    *p = (Params){0};
}

static const ParamTensor *tensor_of(const Params *p, ParamKind k, int layer) {
    for (int i = p->first[k]; i >= 0 && i < p->n; i++)
        if (p->tensor[i].kind == k && p->tensor[i].layer == layer) return &p->tensor[i];
    BUG_ON(1, "params: no %s in layer %d", table[k].name, layer);
}

static Param view(const Params *p, const ParamTensor *t, int64_t rows, int64_t cols) {
    return (Param){.w = p->w + t->at, .g = p->g ? p->g + t->at : NULL, .rows = rows, .cols = cols, .frozen = t->frozen,
                   .copy = (char *)p->copy + (size_t)t->at * (size_t)dtype_size(p->b->elem)};
}

Param params_get(const Params *p, ParamKind k, int layer) {
    const ParamTensor *t = tensor_of(p, k, layer);
    return t->ndim == 2 ? view(p, t, t->shape[0], t->shape[1]) : view(p, t, 1, t->n);
}

Param params_joined(const Params *p, ParamKind first, ParamKind last, int layer, int last_layer) {
    const ParamTensor *a = tensor_of(p, first, layer), *z = tensor_of(p, last, last_layer);
    int64_t n = z->at + z->n - a->at, cols = a->ndim == 2 ? a->shape[1] : n;
    Param v = view(p, a, n / cols, cols);
    for (const ParamTensor *t = a; t <= z; t++)
        v.frozen = v.frozen && t->frozen; /* all of them, or the product is needed */
    return v;
}

DistPart params_layer(const Params *p, int layer) {
    const ParamTensor *a = tensor_of(p, P_SELF_Q_W, layer), *z = a;
    while (z[1].layer == layer && z[1].kind < P_CROSS_K_W) z++;
    return (DistPart){a->at, z->at + z->n - a->at};
}

const ParamTensor *params_find(const Params *p, const char *name) {
    if (strcmp(name, "Qformer.cls.predictions.decoder.weight") == 0) name = table[P_WORD].name;
    if (strcmp(name, "Qformer.cls.predictions.decoder.bias") == 0) name = table[P_LM_BIAS].name;
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->tensor[i].name, name) == 0) return &p->tensor[i];
    return NULL;
}

/* ---- start values ------------------------------------------------------------------------------------------------ */

/* FNV-1a. */
static uint32_t name_key(const char *name) {
    uint32_t h = 0x811c9dc5u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x01000193u;
    return h;
}

/* Two standard normal numbers of element pair i (Box-Muller), or two uniform ones: a start value depends on its
 * tensor's name and its place there alone. */
static void draw(uint64_t seed, const ParamTensor *t, int64_t i, bool normal, double out[2]) {
    Philox x = philox((uint32_t)i, (uint32_t)(i >> 32), name_key(table[t->kind].name), SITE_INIT, rng_key0(seed),
                      (uint32_t)(t->layer + 1));
    double u = ((double)x.v[0] + 0.5) / 4294967296.0, v = ((double)x.v[1] + 0.5) / 4294967296.0;
    if (normal) {
        double r = sqrt(-2.0 * log(u)), a = 6.283185307179586 * v;
        out[0] = r * cos(a), out[1] = r * sin(a);
    } else {
        out[0] = 2 * u - 1, out[1] = 2 * v - 1;
    }
}

const ParamTensor *params_copy_of(const Params *p, const ParamTensor *t) {
    return table[t->kind].start == COPY ? tensor_of(p, (ParamKind)table[t->kind].from, t->layer) : NULL;
}

static void start_values(const Params *p, const ParamTensor *t, uint64_t seed, float std, float *x) {
    const ParamTensor *of = params_copy_of(p, t);
    if (of) {
        start_values(p, of, seed, std, x);
        return;
    }
    int start = table[t->kind].start;
    double bound = 1.0 / sqrt((double)p->d.C); /* every LINEAR row has C inputs */
    for (int64_t i = 0; i < t->n; i += 2) {
        double r[2] = {0, 0};
        if (start == NORMAL || start == LINEAR) draw(seed, t, i, start == NORMAL, r);
        for (int64_t j = i; j < t->n && j < i + 2; j++)
            x[j] = start == NORMAL ? (float)(r[j - i] * (double)std) : start == LINEAR ? (float)(r[j - i] * bound)
                 : start == ONES ? 1.0f : start == TEMP ? 0.07f : 0.0f;
    }
}

Status params_init(Params *p, uint64_t seed, float std) {
    int64_t most = 0;
    for (int i = 0; i < p->n; i++)
        if (p->tensor[i].n > most) most = p->tensor[i].n;
    float *x = mem_new((size_t)most, sizeof *x);
    if (!x) return ERR_MEMORY;
    for (int i = 0; i < p->n; i++) {
        start_values(p, &p->tensor[i], seed, std, x);
        params_write(p, &p->tensor[i], p->w, x);
    }
    free(x);
    params_refresh(p);
    return OK;
}

void params_read(const Params *p, const ParamTensor *t, const float *flat, float *host) {
    p->b->download(host, flat + t->at, (size_t)t->n * sizeof *host);
}

void params_write(const Params *p, const ParamTensor *t, float *flat, const float *host) {
    p->b->upload(flat + t->at, host, (size_t)t->n * sizeof *host);
    p->b->sync();
}

void params_refresh(const Params *p) {
    if (p->copy != (void *)p->w) p->b->cast(p->copy, p->b->elem, p->w, DT_F32, p->total);
    if (p->ema) p->b->copy(p->ema, p->w + p->own.at, (size_t)p->own.n * sizeof *p->ema);
}
