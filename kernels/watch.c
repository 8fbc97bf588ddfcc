/* watch: see watch.h. */
#include "kernels/watch.h"

#include <math.h>
#include <stdio.h>

#include "kernels/base/mem.h"

/* Whether columns of some rows on the device are all finite. What cannot be read for want of memory counts as such. */
static bool finite_rows(const Backend *b, const void *device, int64_t rows, int64_t cols, int64_t ld, DType type) {
    if (!device || rows < 1 || cols < 1 || (type != DT_F32 && type != DT_BF16)) return true;
    size_t n = (size_t)((rows - 1) * ld + cols);
    void *raw = mem_new(n, (size_t)dtype_size(type));
    float *x = mem_new(n, sizeof *x);
    bool fine = true;
    if (raw && x) {
        b->download(raw, device, n * (size_t)dtype_size(type));
        dtype_to_f32(x, raw, type, n);
    }
    for (int64_t r = 0; raw && x && fine && r < rows; r++)
        for (int64_t c = 0; fine && c < cols; c++) fine = isfinite(x[r * ld + c]);
    mem_free(raw, x);
    return fine;
}

static bool finite_tensor(const Backend *b, Tensor x) { return finite_rows(b, x.data, x.rows, x.cols, x.ld, x.dt); }

/* Of an input's gradient only what was written is anybody's. */
static bool finite_gradient(const Backend *b, const Grad *g) {
    /* a block of columns is looked at as part of the whole */
    if (!g || !g->data || g->parent) return true;
    for (int i = 0; i < g->nspans; i++) {
        const char *first = (const char *)g->data + (size_t)(g->span[i].lo * g->ld) * (size_t)dtype_size(g->dt);
        if (!finite_rows(b, first, g->span[i].hi - g->span[i].lo, g->cols, g->ld, g->dt)) return false;
    }
    return true;
}

static bool finite_param(const Backend *b, Param p) {
    if (p.grads && p.grad->state == GRAD_STALE) return true; /* nobody's numbers */
    return finite_rows(b, param_grad(p), p.rows, p.cols, p.cols, DT_F32);
}

/* NULL, or what of the op is not finite. */
static const char *what_is_bad(const Backend *b, const Node *n, bool back) {
    if (!back) return finite_tensor(b, n->y.data ? n->y : n->x) ? NULL : "its result";
    if (!finite_gradient(b, n->x.grad) || !finite_gradient(b, n->x2.grad)) return "the gradient of its input";
    if (!finite_param(b, n->w) || !finite_param(b, n->w2)) return "the gradient of its weight";
    return finite_param(b, n->b) && finite_param(b, n->b2) ? NULL : "the gradient of its bias";
}

static void look(void *ctx, Tape *t, const Node *n, double seconds, bool back) {
    Watch *w = ctx;
    Tensor y = n->y.data ? n->y : n->x;
    if (!y.data) return;                                     /* a place, not an op */
    if (w->back && !back) w->bad = false;                    /* the next sweep */
    w->back = back;
    char from[40] = "";
    if (n->x.data && n->y.data) snprintf(from, sizeof from, " of (%lld,%lld)", (long long)n->x.rows,
                                         (long long)n->x.cols);
    w->say("%-8s %-14s (%lld,%lld)%s  %.3f ms", back ? "back" : "forward", n->name, (long long)y.rows,
           (long long)y.cols, from, 1e3 * seconds);
    const char *bad = w->bad ? NULL : what_is_bad(t->b, n, back);
    if (bad) w->say("%s %s: %s is the first number that is not finite", back ? "back" : "forward", n->name, bad);
    w->bad = w->bad || bad;
}

void watch_tape(Watch *w, Tape *t) {
    t->watch = look; /* set between two steps: a tape asks for the clock when it is reset */
    t->watch_ctx = w;
}
