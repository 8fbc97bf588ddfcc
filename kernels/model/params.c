/* params: see params.h. */
#include "kernels/model/params.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

enum { ROUND = 64 };                     /* elements: 128 bytes of bf16, so that rows of matrices stay aligned */
enum { PIECE = 1 << 20 };                /* elements that params_put converts at a time: 4 MiB on the host */

/* ---- what a row says --------------------------------------------------------------------------------------------- */

static int64_t size_of(const ParamSizes *s, char c) {
    return c >= '0' && c <= '9' ? c - '0' : s->of[(unsigned char)c & 127];
}

/* How many layers a row may repeat in: 0 where it does not repeat. */
static int64_t repeats(const Params *p, const ParamRow *r) {
    return *r->where && *r->where != '?' ? size_of(&p->size, *r->where) : 0;
}

static bool stands(const Params *p, const ParamRow *r, int64_t layer) {
    const char *when = strchr(r->where, '?'), *every = strchr(r->where, '/');
    /* a size of 0 takes the row away: one table for models with and without */
    if (when && !size_of(&p->size, when[1])) return false;
    return layer < 0 || !every || layer % size_of(&p->size, every[1]) == 0;
}

static void name_of(char *out, size_t size, const char *pattern, size_t n, int layer) {
    const char *at = memmem(pattern, n, "%d", 2);
    size_t front = at ? (size_t)(at - pattern) : n;
    if (at) snprintf(out, size, "%.*s%d%.*s", (int)front, pattern, layer, (int)(n - front - 2), at + 2);
    else snprintf(out, size, "%.*s", (int)n, pattern);
}

static bool decays(const ParamTensor *t, DecayRule rule) {
    size_t n = strlen(t->name);
    /* by shape, and below by parts of names, as LAVIS did before July 2023 */
    if (rule == DECAY_LAVIS) return t->ndim != 1 && !(n >= 5 && strcmp(t->name + n - 5, ".bias") == 0);
    return t->ndim >= 2 && !strstr(t->name, "bias") && !strstr(t->name, "ln") && !strstr(t->name, "bn");
}

typedef struct { char pattern[128]; double factor; } Entry;

/* The next of "pattern, ..." or "pattern=factor, ...", and moves *list behind it; false at the end. A pattern longer
 * than any name is cut, and matches nothing; a factor that is no number is NAN. */
static bool next_entry(const char **list, Entry *e) {
    while (*list && **list == ',') ++*list;
    if (!*list || !**list) return false;
    size_t n = strcspn(*list, ","), name = strcspn(*list, ",=");
    snprintf(e->pattern, sizeof e->pattern, "%.*s", (int)name, *list);
    char *end = NULL;
    e->factor = name < n ? strtod(*list + name + 1, &end) : NAN;
    if (end != *list + n) e->factor = NAN;
    *list += n;
    return true;
}

/* The first entry that means this tensor. */
static bool meant(const char *name, const char *list, Entry *e) {
    while (next_entry(&list, e))
        if (fnmatch(e->pattern, name, 0) == 0) return true;
    return false;
}

static double factor_of(const char *name, const char *list) {
    Entry e;
    return meant(name, list, &e) ? e.factor : 1;
}

/* A pattern that no tensor bears is a slip of the pen, after which another model would be trained than was meant. */
static Status entries_check(const Params *p, const char *list, const char *key, bool factors) {
    Entry e;
    while (next_entry(&list, &e)) {
        if (factors && !(e.factor >= 0 && e.factor <= 1e6))
            return err_set(ERR_USAGE, "%s: '%s' wants a factor between 0 and 1e6, as in %s='*proj*=10'", key, e.pattern,
                           key);
        int i = 0;
        while (i < p->n && fnmatch(e.pattern, p->tensor[i].name, 0) != 0) i++;
        if (i == p->n)
            return err_set(ERR_USAGE, "%s: no tensor's name matches '%s'; 'inspect' of a checkpoint lists them", key,
                           e.pattern);
    }
    return OK;
}

/* Sides of 1 in front are how a file keeps a vector or a matrix; the rest of a convolution's sides are one row. */
static void as_matrix(ParamTensor *t) {
    int i = 0;
    while (i < t->ndim && t->shape[i] == 1) i++;
    t->rows = t->ndim - i > 1 ? t->shape[i] : 1;
    t->cols = t->n / (t->rows ? t->rows : 1);
}

/* ---- the layout -------------------------------------------------------------------------------------------------- */

static void add_tensor(Params *p, int row, int layer, const ParamsSpec *spec) {
    const ParamRow *r = &p->table.row[row];
    ParamTensor *t = &p->tensor[p->n];
    *t = (ParamTensor){.row = row, .layer = layer, .ndim = (int)strlen(r->shape), .n = 1};
    BUG_ON(t->ndim > 4, "params: %s has %d sides", r->name, t->ndim);
    name_of(t->name, sizeof t->name, r->name, strlen(r->name), layer);
    for (int i = 0; i < t->ndim; i++) {
        t->shape[i] = size_of(&p->size, r->shape[i]);
        BUG_ON(t->shape[i] < 1, "params: %s: size %c is %lld", r->name, r->shape[i], (long long)t->shape[i]);
        t->n *= t->shape[i];
    }
    as_matrix(t);
    t->decay = decays(t, spec->rule);
    t->frozen = spec->frozen || meant(t->name, spec->freeze, &(Entry){{0}, 0});
    t->rate = (float)factor_of(t->name, spec->rates);
    p->count += t->n;
    p->grad[p->n].n = t->n;
    p->index[row * p->layers + (layer < 0 ? 0 : layer)] = p->n++;
}

/* Rows of one block go layer by layer; blocks in the table's order. */
static void list_tensors(Params *p, const ParamsSpec *spec) {
    const ParamRow *row = p->table.row;
    for (int k = 0, end; k < p->table.n; k = end) {
        int64_t layers = repeats(p, &row[k]);
        for (end = k; end < p->table.n && row[end].block == row[k].block; end++)
            /* a layer's range must be one run of memory */
            BUG_ON(repeats(p, &row[end]) != layers, "params: %s repeats otherwise than its block", row[end].name);
        for (int l = *row[k].where && *row[k].where != '?' ? 0 : -1; l < layers; l++)
            for (int j = k; j < end; j++)
                if (stands(p, &row[j], l)) add_tensor(p, j, l, spec);
    }
}

/* First tensor behind a run of joined ones: they have one place, and learn together or not at all. */
static int joined_end(const Params *p, int first) {
    int i = first + 1;
    while (i < p->n && p->table.row[p->tensor[i].row].join &&
           p->table.row[p->tensor[i].row].block == p->table.row[p->tensor[i - 1].row].block)
        i++;
    return i;
}

static int64_t rounded(int64_t n) { return (n + ROUND - 1) / ROUND * ROUND; }

/* Gives the runs that learn, or those that do not, their places. */
static void place(Params *p, bool learning) {
    for (int i = 0, end; i < p->n; i = end) {
        bool learns = false;
        end = joined_end(p, i);
        /* one that learns takes all along: a joined product has one gradient */
        for (int k = i; k < end; k++) learns = learns || !p->tensor[k].frozen;
        if (learns != learning) continue;
        p->total = rounded(p->total);
        for (int k = i; k < end; p->total += p->tensor[k++].n) p->tensor[k].at = p->tensor[k].f32_at = p->total;
    }
    p->total = rounded(p->total);
}

static bool keeps_f32(const Params *p, const ParamTensor *t) {
    return t->rows == 1 || (p->table.row[t->row].flags & PARAM_KEEP_F32) || p->type == DT_F32;
}

/* Places in the f32 array of a frozen store: neighbours there are neighbours here. */
static void place_vectors(Params *p) {
    for (int i = 0, end; i < p->n; i = end) {
        end = joined_end(p, i);
        p->vectors = rounded(p->vectors);
        for (int k = i; k < end; k++) {
            ParamTensor *t = &p->tensor[k];
            t->f32_at = keeps_f32(p, t) ? p->vectors : -1;
            if (t->f32_at >= 0) p->vectors += t->n;
        }
    }
}

static void find_ranges(Params *p) {
    for (int i = 0; i < p->n; i++) {
        ParamTensor *t = &p->tensor[i];
        t->range = -1;
        if (t->frozen) continue;
        ParamRange *r = p->nranges ? &p->range[p->nranges - 1] : NULL;
        bool apart = !r || p->tensor[i - 1].frozen;          /* gaps do not part: there everything is and stays zero */
        if (!apart && r->decay == t->decay && r->rate == t->rate) r->n = t->at + t->n - r->at;
        else
            p->range[p->nranges++] = (ParamRange){.at = t->at, .n = t->n, .rate = t->rate, .decay = t->decay,
                                                  .apart = apart};
        t->range = p->nranges - 1;
    }
}

/* ---- the arrays -------------------------------------------------------------------------------------------------- */

static void *array_of(Params *p, Arena *run, int64_t n, DType t) {
    if (!n) return NULL;
    void *a = arena_push(run, (size_t)n, (size_t)dtype_size(t));
    /* padding too: it is summed and updated with the rest */
    if (!run->measuring && !run->full) p->b->zero(a, (size_t)n * (size_t)dtype_size(t));
    return a;
}

static void take_arrays(Params *p, Arena *run, const ParamsSpec *spec) {
    bool one = p->type == DT_F32;                             /* masters and copies are the same */
    p->w = array_of(p, run, p->frozen && !one ? p->vectors : p->total, DT_F32);
    if (!p->frozen && spec->training) {
        p->g = array_of(p, run, p->learns, DT_F32);
        p->m = array_of(p, run, p->own.n, DT_F32);
        p->v = array_of(p, run, p->own.n, DT_F32);
    }
    if (!p->frozen && spec->ema) p->ema = array_of(p, run, p->own.n, DT_F32);
    /* in f32 the master is what products read: no second copy */
    p->copy = one ? (void *)p->w : array_of(p, run, p->total, p->type);
}

/* Of what a matrix is made: numbers of 16 bits stay what they are, if products read them so. */
static DType type_of(const Backend *b, const ParamsSpec *spec) {
    bool half = spec->held == DT_BF16 || spec->held == DT_F16;
    return spec->frozen && half && b->reads_held ? spec->held : b->elem;
}

/* Room on the host for as many tensors as the table can have. */
static Status take_lists(Params *p) {
    for (int k = 0; k < p->table.n; k++)
        if (repeats(p, &p->table.row[k]) > p->layers) p->layers = (int)repeats(p, &p->table.row[k]);
    size_t most = (size_t)p->table.n * (size_t)p->layers;
    p->tensor = mem_new(most, sizeof *p->tensor);
    p->range = mem_new(most, sizeof *p->range);
    p->index = mem_new(most, sizeof *p->index);
    p->grad = mem_new(most, sizeof *p->grad);
    p->order = mem_new(1, sizeof *p->order + most * sizeof *p->order->range);
    for (size_t i = 0; p->index && i < most; i++) p->index[i] = -1;
    return p->tensor && p->grad && p->range && p->index && p->order ? OK : ERR_MEMORY;
}

static void place_all(Params *p, const ParamsSpec *spec) {
    place(p, true);
    p->sharded = spec->sharded && dist_size() > 1;
    if (p->sharded) p->total = dist_part(p->total, 0).n * dist_size();       /* parts of one size */
    p->learns = p->total;
    p->own = p->sharded ? dist_part(p->learns, dist_rank()) : (DistPart){0, p->learns};
    /* behind what learns: gradients, moments and their sums are over the front alone */
    place(p, false);
    if (p->frozen && p->type != DT_F32) place_vectors(p);
    find_ranges(p);
}

Status params_open(Params *p, ParamTable table, const ParamSizes *size, const Backend *b, Arena *run,
                   const ParamsSpec *spec) {
    *p = (Params){.table = table, .size = *size, .b = b, .frozen = spec->frozen, .layers = 1,
                   .type = type_of(b, spec)};
    Status st = take_lists(p);
    if (st == OK) list_tensors(p, spec);
    if (st == OK) st = entries_check(p, spec->freeze, "optim.freeze", false);
    if (st == OK) st = entries_check(p, spec->rates, "optim.rates", true);
    if (st == OK) place_all(p, spec), take_arrays(p, run, spec);
    if (st == OK && run->full)
        st = err_set(ERR_MEMORY, "the parameters need more than the %.2f GiB taken for them",
                     (double)run->size / (1 << 30));
    if (st != OK) params_close(p);
    return st;
}

void params_close(Params *p) {
    mem_free(p->tensor, p->range, p->index, p->grad, p->order);
    *p = (Params){0};
}

/* ---- views ------------------------------------------------------------------------------------------------------- */

static int where_is(const Params *p, int row, int layer) {
    BUG_ON(row < 0 || row >= p->table.n || layer >= p->layers, "params: row %d, layer %d", row, layer);
    int i = p->index[row * p->layers + (layer < 0 ? 0 : layer)];
    return i >= 0 && p->tensor[i].layer == layer ? i : -1;
}

bool params_has(const Params *p, int row, int layer) { return where_is(p, row, layer) >= 0; }

const ParamTensor *params_tensor(const Params *p, int row, int layer) {
    int i = where_is(p, row, layer);
    BUG_ON(i < 0, "params: no %s in layer %d", p->table.row[row].name, layer);
    return &p->tensor[i];
}

/* What the last update left under way is waited for where it is first wanted. */
static void ask(const Params *p, const ParamTensor *t) {
    if (t->range < 0) return;
    ParamRange *r = &p->range[t->range];
    if (!r->asked) p->order->range[p->order->n++] = t->range;
    if (r->late) p->b->adamw_wait(r->late);
    r->asked = true, r->late = 0;
}

void params_arrived(const Params *p) {
    int last = 0;
    for (int i = 0; i < p->nranges; i++) {
        if (p->range[i].late > last) last = p->range[i].late;
        p->range[i].late = 0;
    }
    if (last) p->b->adamw_wait(last);
}

const int *params_order(const Params *p) {
    for (int i = 0; i < p->nranges; i++) {
        if (!p->range[i].asked) p->order->range[p->order->n++] = i;
        p->range[i].asked = false;
    }
    p->order->n = 0;
    return p->order->range;
}

static char *copy_at(const Params *p, int64_t at) {
    return (char *)p->copy + (size_t)at * (size_t)dtype_size(p->type);
}

static Param view(const Params *p, const ParamTensor *t, int64_t rows, int64_t cols) {
    float *w = t->f32_at >= 0 ? p->w + t->f32_at : NULL;
    /* what there is as f32 too is not read in 16 bits under f32 */
    bool wide = w && p->b->elem == DT_F32, held = !wide && p->type != p->b->elem;
    return (Param){.w = w, .g = p->g && t->at < p->learns ? p->g + t->at : NULL,
                   .copy = wide ? (void *)w : copy_at(p, t->at), .held = held ? p->type : (DType)0, .rows = rows,
                   .cols = cols, .frozen = t->frozen, .grad = &p->grad[t - p->tensor], .grads = 1};
}

Param params_get(const Params *p, int row, int layer) {
    const ParamTensor *t = params_tensor(p, row, layer);
    ask(p, t);
    return view(p, t, t->rows, t->cols);
}

Param params_joined(const Params *p, int first, int last, int layer, int last_layer) {
    const ParamTensor *a = params_tensor(p, first, layer), *z = params_tensor(p, last, last_layer);
    /* they lie one behind the other (join), so one view serves the product */
    int64_t n = z->at + z->n - a->at, cols = a->rows > 1 ? a->cols : n;
    Param v = view(p, a, n / cols, cols);
    v.grads = (int)(z - a) + 1;
    for (const ParamTensor *t = a; t <= z; t++) {
        ask(p, t);
        v.frozen = v.frozen && t->frozen; /* all of them, or the product is needed */
    }
    return v;
}

DistPart params_block(const Params *p, int row, int layer) {
    DistPart r = {0, 0};
    for (int k = 0; k < p->table.n; k++) {
        if (p->table.row[k].block != p->table.row[row].block || !params_has(p, k, layer)) continue;
        const ParamTensor *t = params_tensor(p, k, layer);
        /* frozen ones of the layer stand elsewhere */
        if (t->at >= p->learns) continue;
        if (!r.n) r.at = t->at;
        r.n = t->at + t->n - r.at;
    }
    return r;
}

static bool is_named(const ParamRow *r, const ParamTensor *t, const char *name) {
    if (strcmp(t->name, name) == 0) return true;
    for (const char *a = r->also; a && *a;) {
        size_t n = strcspn(a, " ");
        char other[sizeof t->name];
        name_of(other, sizeof other, a, n, t->layer);
        if (strcmp(other, name) == 0) return true;
        a += n + (a[n] == ' ');
    }
    return false;
}

const ParamTensor *params_find(const Params *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (is_named(&p->table.row[p->tensor[i].row], &p->tensor[i], name)) return &p->tensor[i];
    return NULL;
}

const ParamTensor *params_copy_of(const Params *p, const ParamTensor *t) {
    const ParamRow *r = &p->table.row[t->row];
    bool copies = r->start == START_COPY && params_has(p, (int)r->arg, t->layer);
    return copies ? params_tensor(p, (int)r->arg, t->layer) : NULL;
}

void params_whole_grads(const Params *p, int64_t at, int64_t end) {
    params_arrived(p);
    for (int i = 0; i < p->n; i++) {
        const ParamTensor *t = &p->tensor[i];
        if (t->at < at || t->at >= end || t->at >= p->learns || p->grad[i].state != GRAD_STALE) continue;
        p->b->zero(p->g + t->at, (size_t)t->n * sizeof *p->g);
        p->grad[i].state = GRAD_ZERO;
    }
}

/* ---- values in and out ------------------------------------------------------------------------------------------- */

/* n elements of any type as `to`; straight through when it is that already. */
static const void *converted(void *room, DType to, const void *from, DType type, int64_t n, float *f32) {
    if (type == to) return from;
    /* f16 to bf16 goes by way of f32, which holds either exactly: one rounding */
    if (type == DT_F32) dtype_from_f32(room, to, from, (size_t)n);
    else dtype_to_f32(f32, from, type, (size_t)n);
    if (to == DT_F32) return f32;
    if (type != DT_F32) dtype_from_f32(room, to, f32, (size_t)n);
    return room;
}

Status params_put(Params *p, const ParamTensor *t, int64_t first, int64_t n, const void *host, DType type) {
    const Backend *b = p->b;
    BUG_ON(first < 0 || n < 0 || first + n > t->n, "params: %s has no elements %lld + %lld", t->name, (long long)first,
           (long long)n);
    params_arrived(p);
    /* a 2 GB embedding must not be on the host twice */
    int64_t piece = n < PIECE ? n : PIECE;
    float *f32 = mem_new((size_t)piece + 1, sizeof *f32);
    void *room = mem_new((size_t)piece + 1, sizeof *f32);
    Status st = f32 && room ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < n; i += piece) {
        int64_t k = n - i < piece ? n - i : piece, at = first + i;
        const char *from = (const char *)host + (size_t)i * (size_t)dtype_size(type);
        if (t->f32_at >= 0)
            b->upload(p->w + t->f32_at + at, converted(room, DT_F32, from, type, k, f32), (size_t)k * sizeof *f32);
        if (p->copy != (void *)p->w)
            b->upload(copy_at(p, t->at + at), converted(room, p->type, from, type, k, f32),
                      (size_t)k * (size_t)dtype_size(p->type));
        b->sync();                                           /* the pieces' memory is used again */
    }
    mem_free(f32, room);
    return st == OK ? b->status() : st;
}

Status params_values(const Params *p, const ParamTensor *t, float *host) {
    params_arrived(p);
    if (t->f32_at >= 0) {
        p->b->download(host, p->w + t->f32_at, (size_t)t->n * sizeof *host);
        return p->b->status();
    }
    size_t bytes = (size_t)t->n * (size_t)dtype_size(p->type);
    void *elems = mem_new(bytes, 1);
    if (!elems) return ERR_MEMORY;
    p->b->download(elems, copy_at(p, t->at), bytes);
    dtype_to_f32(host, elems, p->type, (size_t)t->n);
    free(elems);
    return p->b->status();
}

void params_read(const Params *p, const ParamTensor *t, const float *flat, float *host) {
    params_arrived(p);
    p->b->download(host, flat + t->at, (size_t)t->n * sizeof *host);
}

void params_write(const Params *p, const ParamTensor *t, float *flat, const float *host) {
    params_arrived(p);
    p->b->upload(flat + t->at, host, (size_t)t->n * sizeof *host);
    p->b->sync();
}

void params_refresh(const Params *p) {
    params_arrived(p);
    if (p->copy != (void *)p->w) p->b->cast(p->copy, p->b->elem, p->w, DT_F32, p->total);
    /* an average that began at zero would be far too small for long */
    if (p->ema) p->b->copy(p->ema, p->w + p->own.at, (size_t)p->own.n * sizeof *p->ema);
}
