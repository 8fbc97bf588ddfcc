/* tape_waves: two waves, one walk back; see tape.h. What the first wave takes is kept in a list, in order; the second
 * wave and the recording of both take the same tensors from it again. */
#include "kernels/tape_inner.h"

void tape_first(Tape *t, int64_t before, int64_t behind) {
    BUG_ON(!t->recording || t->nkept, "two waves are recorded, once");
    t->pass = TAPE_FIRST, t->before = before, t->behind = behind;
    /* where both waves' nodes belong in the end: before the heads, which are recorded first */
    t->at.nodes = t->nnodes, t->at.grads = t->ngrads;
}

void tape_second(Tape *t, int64_t rows_in_front) {
    BUG_ON(rows_in_front > t->before, "the second wave has %lld rows for %lld", (long long)rows_in_front,
           (long long)t->before);
    /* its rows end where the first wave's begin, so that both are one matrix */
    t->pass = TAPE_SECOND, t->second = rows_in_front, t->next_kept = 0;
}

void tape_both(Tape *t) {
    t->pass = TAPE_BOTH, t->next_kept = 0;
    t->set_aside.b = t->b, t->set_aside.flops = t->flops, t->set_aside.attention = t->flops_attention;
    t->set_aside.nodes = t->nnodes, t->set_aside.grads = t->ngrads;
    t->b = backend_null(t->b->elem);                         /* it was computed, wave by wave */
}

/* list[at..end) the other way round. */
static void turn_around(char *list, size_t size, int at, int end) {
    char *a = list + (size_t)at * size, *z = list + (size_t)end * size;
    for (; a + size < z; a += size) {
        z -= size;
        for (size_t i = 0; i < size; i++) {
            char c = a[i];
            a[i] = z[i], z[i] = c;
        }
    }
}

/* list[at..mid) and list[mid..end) change places: without memory, for want of which a step could not go on. */
static void swap_parts(void *list, size_t size, int at, int mid, int end) {
    turn_around(list, size, at, mid);
    turn_around(list, size, mid, end);
    turn_around(list, size, at, end);
}

static void join_waves(Tape *t) {
    int nodes = t->set_aside.nodes, grads = t->set_aside.grads, since = nodes - t->at.nodes, both = t->nnodes - nodes;
    /* births are numbers of nodes, and the nodes have just changed places */
    for (int i = t->at.grads; i < t->ngrads; i++) t->grads[i]->born += i < grads ? both : -since;
    swap_parts(t->nodes, sizeof *t->nodes, t->at.nodes, nodes, t->nnodes);
    swap_parts(t->grads, sizeof *t->grads, t->at.grads, grads, t->ngrads);
    if (t->st == OK) t->b = t->set_aside.b;
    t->flops = t->set_aside.flops, t->flops_attention = t->set_aside.attention;
    BUG_ON(t->next_kept != t->nkept, "%d tensors of %d were walked over", t->next_kept, t->nkept);
    t->nkept = 0;                                            /* the list of gradients has them now */
}

void tape_alone(Tape *t) {
    if (t->pass == TAPE_BOTH) join_waves(t);
    t->pass = TAPE_ALONE;
}

static Tensor kept_view(const Grad *g, int64_t row0, int64_t rows) {
    BUG_ON(row0 < 0 || row0 + rows > g->rows, "rows %lld+%lld of two waves' %lld", (long long)row0, (long long)rows,
           (long long)g->rows);
    return (Tensor){.data = g->home + (size_t)(row0 * g->ld) * (size_t)dtype_size(g->dt), .grad = (Grad *)(uintptr_t)g,
                    .rows = rows, .cols = g->cols, .ld = g->ld, .row0 = row0, .dt = g->dt};
}

static Tensor kept_new(Tape *t, int64_t rows, int64_t cols, DType dt, int64_t before, int64_t behind) {
    Tensor none = {.rows = rows, .cols = cols, .ld = cols, .dt = dt};
    if (!tape_room(t, &t->kept, t->nkept, &t->cap_kept, sizeof *t->kept)) return none;
    Grad *g = tape_grad_made(t, before + rows + behind, cols, dt);
    if (!g) return none;
    t->kept[t->nkept++] = g;
    /* room for the second wave's rows: one product over both wants one matrix */
    g->before = before, g->behind = behind;
    g->home = tape_push(t, g->rows * cols, dtype_size(dt));
    return kept_view(g, before, rows);
}

/* Rows that only the second wave adds to behind begin where the first wave's end. */
static Tensor kept_again(Tape *t, int64_t rows, int64_t cols) {
    BUG_ON(t->next_kept == t->nkept, "a wave takes more tensors than the first one");
    Grad *g = t->kept[t->next_kept++];
    BUG_ON(g->cols != cols, "a wave takes %lld columns where the first one took %lld", (long long)cols,
           (long long)g->cols);
    if (t->pass == TAPE_BOTH && !tape_grad_born(t, g)) t->next_kept--;
    int64_t behind = t->pass == TAPE_SECOND ? g->rows - g->behind : 0;
    return kept_view(g, g->before ? g->before - t->second : behind, rows);
}

Tensor tape_kept(Tape *t, int64_t rows, int64_t cols, DType dt, bool before, bool behind) {
    if (t->pass == TAPE_ALONE) return tape_new(t, rows, cols, dt);
    if (t->pass != TAPE_FIRST) return kept_again(t, rows, cols);
    return kept_new(t, rows, cols, dt, before ? t->before : 0, behind ? t->behind : 0);
}

Tensor tape_like(Tape *t, Tensor x, int64_t cols, DType dt) {
    const Grad *g = x.grad;
    if (t->pass == TAPE_ALONE) return tape_new(t, x.rows, cols, dt);
    if (t->pass != TAPE_FIRST) return kept_again(t, x.rows, cols);
    return kept_new(t, x.rows, cols, dt, x.row0 == g->before ? g->before : 0,
                    x.row0 + x.rows == g->rows - g->behind ? g->behind : 0);
}

float *tape_beside(Tape *t, Tensor x, int which, int64_t count) {
    if (t->pass == TAPE_ALONE) return tape_push(t, x.rows * count, sizeof(float));
    void **p = &x.grad->beside[which];
    if (!*p) *p = tape_push(t, x.grad->rows * count, sizeof(float));
    return (float *)*p + x.row0;
}
