/* tape: see tape.h. */
#include "kernels/tape.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/tape_inner.h"

Status tape_open(Tape *t, const Backend *b, Arena *step) {
    *t = (Tape){.b = b, .device = b, .step = step, .waits = !b->unified && b->elem == DT_BF16, .cap_nodes = 1024,
                .cap_grads = 1024, .cap_extra = 16, .cap_kept = 256};
    t->kept = mem_new((size_t)t->cap_kept, sizeof *t->kept);
    t->nodes = mem_new((size_t)t->cap_nodes, sizeof *t->nodes);
    t->grads = mem_new((size_t)t->cap_grads, sizeof *t->grads);
    t->extra = mem_new((size_t)t->cap_extra, sizeof *t->extra);
    if (!t->nodes || !t->grads || !t->extra || !t->kept) {
        tape_close(t);
        return ERR_MEMORY;
    }
    return OK;
}

static void forget(Tape *t) {
    /* blocks stay: the step that wanted them will come again */
    for (int i = 0; i < t->nextra; i++) t->extra[i].taken = false;
    for (int i = 0; i < t->ngrads; i++) free(t->grads[i]);
    for (int i = 0; i < t->nkept; i++) free(t->kept[i]);
    t->ngrads = t->nkept = t->nnodes = t->watched = t->later.n = t->later.nheld = 0;
    t->pass = TAPE_ALONE;
}

void tape_close(Tape *t) {
    forget(t);
    while (t->nextra) t->device->release(t->extra[--t->nextra].p);
    mem_free(t->nodes, t->grads, t->extra, t->kept);
    *t = (Tape){0};
}

void tape_reset(Tape *t, bool recording) {
    forget(t);
    arena_reset(t->step, 0);
    t->recording = recording;
    t->walking = false;
    t->watch_at = t->watch ? status_clock() : 0;
}

void tape_fail(Tape *t, Status st) {
    if (t->st == OK) t->st = st; /* the first: what fails after it works on memory that is not there */
    t->b = backend_null(t->b->elem);
}

/* Running full must not execute anything on memory that is not there. */
static void *checked(Tape *t, void *p) {
    if (t->step->full && t->st == OK)
        tape_fail(t, err_set(ERR_MEMORY,
                             "the step needs more than the %.2f GiB that were measured for it: a batch holds more text "
                                         "than the plan allowed for (data.max_tokens, train.batch)",
                             (double)t->step->size / (1 << 30)));
    return p;
}

void *tape_push(Tape *t, int64_t count, int size) {
    /* the pool has the rest of the arena from then on */
    BUG_ON(t->walking, "memory of the step is taken before the walk back");
    return checked(t, arena_push(t->step, (size_t)count, (size_t)size));
}

bool tape_room(Tape *t, void *list, int n, int *cap, size_t size) {
    void *p;
    if (n < *cap) return true;
    memcpy(&p, list, sizeof p);          /* a T * is not a void *, whatever their bits */
    p = mem_grow(p, (size_t)*cap * 2, size);
    if (!p) return tape_fail(t, ERR_MEMORY), false;
    memcpy(list, &p, sizeof p);
    *cap *= 2;
    return true;
}

bool tape_grad_born(Tape *t, Grad *g) {
    if (!tape_room(t, &t->grads, t->ngrads, &t->cap_grads, sizeof *t->grads)) return false;
    g->born = t->nnodes;
    t->grads[t->ngrads++] = g;
    return true;
}

Grad *tape_grad_made(Tape *t, int64_t rows, int64_t cols, DType dt) {
    Grad *g = mem_new(1, sizeof *g);
    if (!g) return tape_fail(t, ERR_MEMORY), NULL;
    *g = (Grad){.rows = rows, .cols = cols, .ld = cols, .dt = dt};
    return g;
}

static Grad *grad_new(Tape *t, int64_t rows, int64_t cols, DType dt) {
    Grad *g = tape_grad_made(t, rows, cols, dt);
    if (g && tape_grad_born(t, g)) return g;
    free(g);
    return NULL;
}

Tensor tape_new(Tape *t, int64_t rows, int64_t cols, DType dt) {
    Tensor x = {.rows = rows, .cols = cols, .ld = cols, .dt = dt};
    x.data = tape_push(t, rows * cols, dtype_size(dt));
    if (t->recording) x.grad = grad_new(t, rows, cols, dt);
    return x;
}

Tensor tape_leaf(void *data, int64_t rows, int64_t cols, DType dt) {
    return (Tensor){.data = data, .rows = rows, .cols = cols, .ld = cols, .dt = dt};
}

Tensor tape_reuse(Tape *t, Tensor x) {
    /* a gradient of its own has its own stride, which must be that of the rows */
    BUG_ON(x.ld != x.cols, "tape_reuse: a dense matrix");
    x.grad = t->recording ? grad_new(t, x.rows, x.cols, x.dt) : NULL;
    x.row0 = 0; /* its gradient begins with these rows, wherever they were cut from */
    return x;
}

Tensor tape_columns(Tape *t, Tensor x, int64_t first, int64_t n) {
    BUG_ON(first < 0 || first + n > x.cols, "columns %lld+%lld of %lld", (long long)first, (long long)n,
           (long long)x.cols);
    Tensor y = x;
    y.data = (char *)x.data + (size_t)first * (size_t)dtype_size(x.dt);
    y.cols = n;
    if (x.grad) {
        y.grad = grad_new(t, x.rows, n, x.dt);
        if (y.grad) {
            y.grad->parent = x.grad;
            x.grad->blocks = true;
            y.grad->column = first;
            y.grad->ld = x.grad->ld;
            /* it lives as long as the whole: views of it may be read later than it was made */
            y.grad->born = x.grad->born;
        }
    }
    return y;
}

/* A node is made when its op has run, and filled in behind that: so it is told of when the next one comes. */
static void tell_watch(Tape *t) {
    if (t->watched < t->nnodes) t->watch(t->watch_ctx, t, &t->nodes[t->nnodes - 1], t->watch_took, false);
    t->watched = t->nnodes;
}

static void watch_op(Tape *t) {
    /* each op is waited for, so the time is the device's; a step that is watched takes longer */
    t->b->sync();
    double took = status_clock() - t->watch_at;
    tell_watch(t);
    t->watch_took = took;
    t->watch_at = status_clock();
}

Node *tape_node(Tape *t, const char *name, BackFn back) {
    if (!t->recording || t->pass == TAPE_FIRST || t->pass == TAPE_SECOND) return NULL;
    /* before the node: what is told of is the op that was enqueued before this one */
    if (t->watch) watch_op(t);
    if (!tape_room(t, &t->nodes, t->nnodes, &t->cap_nodes, sizeof *t->nodes)) return NULL;
    Node *n = &t->nodes[t->nnodes++];
    *n = (Node){.name = name, .back = back};
    return n;
}

/* ---- memory of the walk back ------------------------------------------------------------------------------------- */

/* A block from outside: one that an earlier step wanted, or a new one, which is kept. So the device is asked for memory
 * in the first steps, if at all, and never again. */
static void *extra_take(Tape *t, size_t bytes) {
    for (int i = 0; i < t->nextra; i++) {
        TapeExtra *e = &t->extra[i];
        /* first fit: there are few of them */
        if (!e->taken && e->bytes >= bytes) return e->taken = true, e->p;
    }
    void *p = NULL;
    if (!tape_room(t, &t->extra, t->nextra, &t->cap_extra, sizeof *t->extra)) return NULL;
    Status st = t->device->alloc(&p, bytes);
    if (st != OK) tape_fail(t, err_context(st, "a batch that needs more memory than was measured"));
    else t->extra[t->nextra++] = (TapeExtra){p, bytes, true};
    return p;
}

static void *block_take(Tape *t, int64_t count, int size) {
    void *p = pool_take(&t->pool, (size_t)count, (size_t)size);
    return p || t->st != OK ? p : extra_take(t, (size_t)count * (size_t)size);
}

static void block_give(Tape *t, void *p) {
    for (int i = 0; i < t->nextra; i++)
        if (t->extra[i].p == p) {
            t->extra[i].taken = false;
            return;
        }
    pool_give(&t->pool, p);
}

/* ---- products that wait ------------------------------------------------------------------------------------------ */

/* Alone most gradients of weights are fewer tiles than a GPU has room for; nobody reads them before the ranks' sums or
 * the optimizer. */
static void run_later(Tape *t) {
    TapeLater *l = &t->later;
    if (l->n) t->b->gemms(l->g, l->n);
    /* only now: what waited has been enqueued, and whoever takes the block next comes after it */
    while (l->nheld) block_give(t, l->held[--l->nheld]);
    l->n = 0;
}

static bool overlap(const float *p, int64_t n, const float *from, const float *end) {
    return p && p < end && from < p + n;
}

/* If one that waits writes to [from, end). */
static void settle_later(Tape *t, const float *from, const float *end) {
    for (int i = 0; i < t->later.n; i++) {
        const Gemm *g = &t->later.g[i];
        /* that one comes first, as without waiting: what it was told of zeros holds now */
        if (overlap(g->c, g->m * g->ldc, from, end) || overlap(g->sums, g->m, from, end)) run_later(t);
    }
}

void tape_gemm_later(Tape *t, const Gemm *g) {
    TapeLater *l = &t->later;
    if (!g->m || !g->n) return; /* nothing to add, and no address that would mean anything */
    if (!t->waits) {
        t->b->gemm(g);
        return;
    }
    l->g[l->n++] = *g;
    if (l->n == TAPE_LATER) run_later(t);                   /* as many as one launch takes (CUDA_GROUP) */
}

/* Whether one that waits reads of g, whose memory is then given back when that has run. */
static bool hold_later(Tape *t, const Grad *g) {
    TapeLater *l = &t->later;
    const char *data = g->data, *end = data + (size_t)(g->rows * g->cols) * (size_t)dtype_size(g->dt);
    for (int i = 0; i < l->n; i++) {
        const char *a = l->g[i].a;
        if (!data || a < data || a >= end) continue;
        l->held[l->nheld++] = g->data;           /* at most one for each that waits */
        return true;
    }
    return false;
}

static void tell(Tape *t, const Node *n) {
    run_later(t);
    if (n->u.passed.fn) n->u.passed.fn(n->u.passed.ctx, n->u.passed.place);
}

void tape_place(Tape *t, int place) {
    /* not a node for nothing: who neither listens nor waits pays none */
    Node *n = t->passed || t->waits ? tape_node(t, "place", tell) : NULL;
    if (n) n->u.passed.fn = t->passed, n->u.passed.ctx = t->passed_ctx, n->u.passed.place = place;
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

static char *grad_row(const Grad *g, int64_t row) {
    return (char *)g->data + (size_t)(row * g->ld) * (size_t)dtype_size(g->dt);
}

static void grad_mark(Grad *g, int64_t lo, int64_t hi) {
    int i = 0;
    while (i < g->nspans && g->span[i].hi < lo) i++;
    int j = i;
    for (; j < g->nspans && g->span[j].lo <= hi; j++) {      /* spans i..j-1 touch [lo, hi): they become one */
        if (g->span[j].lo < lo) lo = g->span[j].lo;
        if (g->span[j].hi > hi) hi = g->span[j].hi;
    }
    /* more would be a model that cuts its rows finer than any here; a list without bound would hide that */
    BUG_ON(i == j && g->nspans == GRAD_SPANS, "a gradient is written in more than %d pieces", GRAD_SPANS);
    if (i == j) {
        for (int k = g->nspans++; k > i; k--) g->span[k] = g->span[k - 1];
    } else {
        for (int k = j; k < g->nspans; k++) g->span[i + 1 + k - j] = g->span[k];
        g->nspans -= j - i - 1;
    }
    g->span[i].lo = lo;
    g->span[i].hi = hi;
}

/* Rows [lo, hi) of a gradient, which may be a block of another's columns. */
static void zero_rows(Tape *t, const Grad *g, int64_t lo, int64_t hi) {
    size_t size = (size_t)dtype_size(g->dt);
    /* one launch where rows lie together */
    if (g->ld == g->cols) t->b->zero(grad_row(g, lo), (size_t)((hi - lo) * g->ld) * size);
    else for (; lo < hi; lo++) t->b->zero(grad_row(g, lo), (size_t)g->cols * size);
}

/* Zeroes what nobody wrote of rows [lo, hi); returns whether anything in it had been written. */
static bool grad_fill(Tape *t, Grad *g, int64_t lo, int64_t hi) {
    bool any = false;
    int64_t at = lo;
    for (int i = 0; i <= g->nspans && at < hi; i++) {
        int64_t next = i < g->nspans ? g->span[i].lo : hi;
        if (next > hi) next = hi;
        /* only the gaps: a gradient is large, and mostly written whole */
        if (next > at) zero_rows(t, g, at, next);
        if (i < g->nspans) {
            if (g->span[i].lo < hi && g->span[i].hi > lo) any = true;
            if (g->span[i].hi > at) at = g->span[i].hi;
        }
    }
    grad_mark(g, lo, hi);
    return any;
}

static bool grad_written(const Grad *g, int64_t lo, int64_t hi, bool *all) {
    *all = false;
    bool any = false;
    for (int i = 0; i < g->nspans; i++) {
        if (g->span[i].lo < hi && g->span[i].hi > lo) any = true;
        if (g->span[i].lo <= lo && g->span[i].hi >= hi) *all = true;
    }
    return any;
}

static void grad_memory(Tape *t, Grad *g) {
    if (g->data) return;
    if (g->parent) {
        grad_memory(t, g->parent);
        g->data = (char *)g->parent->data + (size_t)g->column * (size_t)dtype_size(g->dt);
        return;
    }
    g->data = block_take(t, g->rows * g->cols, dtype_size(g->dt));
}

void *tape_grad_to(Tape *t, Tensor x, bool *add) {
    Grad *g = x.grad;
    *add = false;
    if (!g) return NULL;
    grad_memory(t, g);
    int64_t lo = x.row0, hi = x.row0 + x.rows;
    bool all, any = grad_written(g, lo, hi, &all);
    /* an op adds to all its rows or to none: what is missing becomes zero */
    if (any && !all) grad_fill(t, g, lo, hi);
    *add = any;
    if (!any) grad_mark(g, lo, hi);
    return grad_row(g, lo);
}

/* The blocks of a gradient's columns, which cover it, were written each for itself: what is left of them is zero. */
static void join_blocks(Tape *t, Grad *g) {
    int64_t covered = 0;
    for (int i = 0; i < t->ngrads; i++) {
        Grad *block = t->grads[i];
        if (block->parent != g) continue;
        grad_memory(t, block);
        grad_fill(t, block, 0, block->rows);
        covered += block->cols;
    }
    BUG_ON(g->nspans || covered != g->cols, "a gradient of %lld columns in blocks of %lld", (long long)g->cols,
           (long long)covered);
    grad_mark(g, 0, g->rows);
}

void *tape_grad_of(Tape *t, Tensor y) {
    Grad *g = y.grad;
    /* nobody used y: nothing flows back through this op */
    if (!g || !g->data) return NULL;
    if (g->blocks) join_blocks(t, g);
    int64_t lo = y.row0, hi = y.row0 + y.rows;
    bool all, any = grad_written(g, lo, hi, &all);
    if (!any) return NULL;
    if (!all) grad_fill(t, g, lo, hi);
    return grad_row(g, lo);
}

int64_t tape_grad_ld(Tensor x) { return x.grad ? x.grad->ld : 0; }

/* Zeroes what is stale, unless all of it is going to be written. Returns whether there is a sum. */
static bool begin_sum(Tape *t, Param p, bool whole) {
    bool sum = !p.grad;
    float *g = p.g;
    /* sums are taken in the order in which the walk asks for them, whatever waits */
    settle_later(t, g, g + p.rows * p.cols);
    for (int i = 0; i < p.grads; i++) sum = sum || p.grad[i].state == GRAD_SUM;
    for (int i = 0; i < p.grads; g += p.grad[i++].n) {
        if (p.grad[i].state == GRAD_STALE && (sum || !whole)) t->b->zero(g, (size_t)p.grad[i].n * sizeof *g);
        p.grad[i].state = GRAD_SUM;
    }
    return sum;
}

float *tape_param_grad(Tape *t, Param p) {
    if (param_grad(p)) begin_sum(t, p, false);
    return param_grad(p);
}

float *tape_param_grad_zeros(Tape *t, Param p, bool *zeros) {
    return *zeros = param_grad(p) && !begin_sum(t, p, false), param_grad(p);
}

float *tape_param_grad_to(Tape *t, Param p, bool *add) {
    *add = param_grad(p) && begin_sum(t, p, true);
    return param_grad(p);
}

static void start_walk(Tape *t) {
    if (t->walking) return;
    t->walking = true;
    /* on top of the activations: the walk frees none of them, only gradients */
    pool_open(&t->pool, t->step);
}

void tape_seed(Tape *t, Tensor x, const void *grad) {
    start_walk(t);
    bool add;
    void *dx = tape_grad_to(t, x, &add);
    if (!dx) return;
    if (x.dt == t->b->elem) {
        t->b->copy_rows(dx, tape_grad_ld(x), NULL, grad, x.cols, NULL, x.rows, x.cols, add);
        return;
    }
    BUG_ON(x.dt != DT_F32 || tape_grad_ld(x) != x.cols, "tape_seed: a strided gradient of another type");
    if (add) t->b->axpy(dx, grad, 1.0f, tensor_count(x));
    else t->b->copy(dx, grad, (size_t)tensor_count(x) * sizeof(float));
}

void tape_backward(Tape *t) {
    if (t->watch) tell_watch(t);
    start_walk(t);
    for (int i = t->nnodes - 1; i >= 0; i--) {
        t->watch_at = t->watch ? status_clock() : 0;
        t->b->mark(t->nodes[i].name);
        t->nodes[i].back(t, &t->nodes[i]);
        if (t->watch) run_later(t);              /* who watches sees an op's gradients stand, and its own time */
        t->b->mark(NULL);
        if (t->watch) t->b->sync(), t->watch(t->watch_ctx, t, &t->nodes[i], status_clock() - t->watch_at, true);
        /* in order of birth: the last born is the first that nobody reads any more */
        while (t->ngrads && t->grads[t->ngrads - 1]->born >= i) {
            Grad *g = t->grads[--t->ngrads];
            if (!g->parent && !hold_later(t, g)) block_give(t, g->data);
            free(g);
        }
    }
    run_later(t);
    t->nnodes = t->watched = 0;
}

void *tape_scratch(Tape *t, int64_t count, int size) {
    if (t->walking) return block_take(t, count, size);
    return checked(t, arena_push(t->step, (size_t)count, (size_t)size));
}

/* Before the walk scratch is the top of the arena; blocks are given back in reverse order. */
void tape_scratch_free(Tape *t, void *p) {
    if (t->walking) block_give(t, p);
    else if (!t->step->full) arena_reset(t->step, (size_t)((char *)p - t->step->base));
}

Status tape_status(Tape *t) {
    if (t->st != OK) return t->st;
    return t->b->status();
}
