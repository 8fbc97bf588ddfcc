/* ops: see ops.h. Linear layers and what stands between two of them. Each op, then its backward. */
#include "kernels/ops_inner.h"

void ops_gemm(Tape *t, const Gemm *g) {
    if (!g->m || !g->n) return;
    t->flops += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    t->b->gemm(g);
}

/* f32 numbers widened at a time: 8 MiB, which the product then finds in the cache. */
enum { PANEL = 2 << 20 };

/* Products of few rows read 16 bits as they are. For more, rows of w are widened panel by panel: with tb columns of C,
 * to the same bits; else parts of its sum. */
void ops_weights(Tape *t, const Gemm *product, Param w) {
    Gemm g = *product;
    g.b = w.copy, g.ldb = w.cols, g.held = w.held;
    if (!w.held || (t->b->reads_held && t->b->reads_held(&g))) {
        ops_gemm(t, &g);
        return;
    }
    int64_t rows = PANEL / w.cols < 64 ? 64 : PANEL / w.cols;
    if (rows > w.rows) rows = w.rows;
    float *wide = tape_scratch(t, rows * w.cols, sizeof *wide);
    g.b = wide, g.held = (DType)0;
    for (int64_t r = 0, n; r < w.rows; r += n) {
        Gemm part = g;
        n = w.rows - r < rows ? w.rows - r : rows;
        t->b->cast(wide, DT_F32, ops_columns(w.copy, r * w.cols, w.held), w.held, n * w.cols);
        if (g.tb) part.n = n, part.c = ops_columns(g.c, r, g.ct);
        else part.k = n, part.a = ops_columns(g.a, r, g.ab), part.add = g.add || r > 0;
        if (g.bias) part.bias = ops_columns(g.bias, r, t->b->elem);
        /* what follows reads all columns */
        if (r + n < w.rows) part.act = NULL, part.grad = NULL;
        ops_gemm(t, &part);
    }
    tape_scratch_free(t, wide);
}

/* A weight's gradient from dy and x. dy that is a copy goes when its op has ended: that one does not wait. */
static void weight_gemm(Tape *t, const Gemm *g, const void *copy) {
    if (copy) return ops_gemm(t, g);
    t->flops += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    tape_gemm_later(t, g);
}

const void *ops_as_elem(Tape *t, const void *dy, DType dt, int64_t n, void **scratch) {
    *scratch = NULL;
    if (dt == t->b->elem) return dy;
    *scratch = tape_scratch(t, n, dtype_size(t->b->elem));
    t->b->cast(*scratch, t->b->elem, dy, dt, n);
    return *scratch;
}

/* ---- linear ------------------------------------------------------------------------------------------------------ */

static void linear_back(Tape *t, const Node *n) {
    const Backend *b = t->b;
    void *dy0 = tape_grad_of(t, n->y);
    if (!dy0) return;
    Tensor y = n->y, x = n->x;
    int64_t ldy = tape_grad_ld(y);
    /* the copy in elem is made of n numbers in a row */
    BUG_ON(ldy != y.cols && y.dt != b->elem, "linear: a strided f32 gradient");
    void *scratch;
    const void *dy = ops_as_elem(t, dy0, y.dt, y.rows * y.cols, &scratch);
    bool add;
    void *dx = tape_grad_to(t, x, &add);
    if (dx)
        ops_weights(t, &(Gemm){.m = y.rows, .n = x.cols, .k = y.cols, .a = dy, .lda = ldy, .c = dx,
                           .ldc = tape_grad_ld(x), .ab = b->elem, .ct = b->elem, .add = add}, n->w);
    bool zeros;
    float *dw = tape_param_grad_to(t, n->w, &add), *db = tape_param_grad_zeros(t, n->b, &zeros);
    if (dw)
        weight_gemm(t, &(Gemm){.m = y.cols, .n = x.cols, .k = y.rows, .a = dy, .lda = ldy, .ta = true, .b = x.data,
                           .ldb = x.ld, .c = dw, .ldc = x.cols, .ab = b->elem, .ct = DT_F32, .add = add, .sums = db,
                           .sums_zero = zeros}, scratch);
    /* with dw the product sums them as dy passes by; a frozen weight leaves the pass to be made */
    else if (db) b->colsum(db, dy, y.rows, y.cols, ldy);
    if (scratch) tape_scratch_free(t, scratch);
}

/* `then`: an activation of y that follows, or NULL */
static void linear(Tape *t, Tensor y, Tensor x, Param w, Param b, const Act *then) {
    SAME_ROWS("linear", y, x);
    BUG_ON(w.cols != x.cols || w.rows != y.cols, "linear: x (%lld,%lld), w (%lld,%lld), y (%lld,%lld)", SHAPE(x),
           SHAPE(w), SHAPE(y));
    bool wide = x.dt == DT_F32;              /* then in f32 throughout, which in f32 is what the copy is */
    BUG_ON(wide && t->b->elem != DT_F32 && (x.grad || !w.w), "linear: f32 rows are given, and ask for f32 weights");
    Param read = w;
    if (wide && t->b->elem != DT_F32) read.copy = w.w;
    ops_weights(t, &(Gemm){.m = x.rows, .n = w.rows, .k = w.cols, .a = x.data, .lda = x.ld, .tb = true, .bias = b.copy,
                           .c = y.data, .ldc = y.ld, .ab = x.dt, .ct = y.dt, .act = then}, read);
    Node *n = tape_node(t, "linear", linear_back);
    if (n) n->y = y, n->x = x, n->w = w, n->b = b;
}

void op_linear(Tape *t, Tensor y, Tensor x, Param w, Param b) { linear(t, y, x, w, b, NULL); }

void op_linear_add(Tape *t, Tensor y, Tensor x, Param w, Param b) {
    SAME_ROWS("linear_add", y, x);
    BUG_ON(t->recording || w.cols != x.cols || w.rows != y.cols,
           "linear_add: x (%lld,%lld), w (%lld,%lld), y (%lld,%lld)%s", SHAPE(x), SHAPE(w), SHAPE(y),
           t->recording ? ", recording" : "");
    ops_weights(t, &(Gemm){.m = x.rows, .n = w.rows, .k = w.cols, .a = x.data, .lda = x.ld, .tb = true, .bias = b.copy,
                           .c = y.data, .ldc = y.ld, .ab = t->b->elem, .ct = y.dt, .add = true}, w);
}

/* ---- activations, plain and gated -------------------------------------------------------------------------------- */

/* Where x and the gate's factor stand in the packed rows of u. */
static Act act_of(const Tape *t, Tensor u, ActForm f, Param b) {
    int64_t F = f.gated ? u.cols / 2 : u.cols, at = f.gated && f.up_first ? F : 0;
    BUG_ON((b.w && b.cols != u.cols) || (f.gated && u.cols % 2), "act: u (%lld,%lld), bias (%lld,%lld)", SHAPE(u),
           SHAPE(b));
    Act a = {.kind = f.f, .N = u.rows, .F = F, .ldu = u.ld, .u = ops_columns(u.data, at, t->b->elem)};
    if (f.gated) a.up = ops_columns(u.data, F - at, t->b->elem);
    if (b.w) a.bias = b.w + at;
    if (b.w && f.gated) a.up_bias = b.w + F - at;
    return a;
}

/* The gradient of u from that of h, dh (which may be du when there is no gate). */
static ActGrad act_grad(Tape *t, const Node *n, const void *dh, int64_t lddh, void *du) {
    const Act *a = &n->u.act;
    int64_t at = a->up && a->up < a->u ? a->F : 0;
    float *db = tape_param_grad(t, n->b);
    ActGrad g = {.dh = dh, .lddh = lddh, .du = ops_columns(du, at, t->b->elem), .lddu = tape_grad_ld(n->x),
                 .dbias = db ? db + at : NULL};
    if (a->up) g.dup = ops_columns(du, a->F - at, t->b->elem), g.dup_bias = db ? db + a->F - at : NULL;
    return g;
}

static void act_back(Tape *t, const Node *n) {
    void *dh = tape_grad_of(t, n->y);
    if (!dh) return;
    bool add;
    void *du = tape_grad_to(t, n->x, &add);
    /* the kernel overwrites du: there is nothing that it could be added to */
    BUG_ON(!du || add, "act: its input has one use");
    ActGrad g = act_grad(t, n, dh, tape_grad_ld(n->y), du);
    t->b->act_bwd(&n->u.act, &g);
}

void op_act(Tape *t, Tensor h, Tensor u, ActForm f, Param b) {
    SAME_ROWS("act", h, u);
    Act a = act_of(t, u, f, b);
    BUG_ON(h.cols != a.F, "act: h (%lld,%lld) of u (%lld,%lld)", SHAPE(h), SHAPE(u));
    a.h = h.data, a.ldh = h.ld;
    t->b->act(&a);
    a.h = NULL;
    Node *n = tape_node(t, "act", act_back);
    if (n) n->y = h, n->x = u, n->b = b, n->u.act = a;
}

/* Where the weights learn and h was not kept, it is made again, over u's half, by the same pass that makes u's
 * gradient. Without a gate the product's gradient needs no memory of its own. */
static void act_linear_back(Tape *t, const Node *n) {
    const Backend *b = t->b;
    void *dy0 = tape_grad_of(t, n->y);
    if (!dy0) return;
    Tensor y = n->y, u = n->x;
    Node made = *n;                          /* with h asked for */
    Act *a = &made.u.act;
    void *scratch, *dh;
    int64_t ldy = tape_grad_ld(y);
    BUG_ON(ldy != y.cols && y.dt != b->elem, "act_linear: a strided f32 gradient");
    const void *dy = ops_as_elem(t, dy0, y.dt, y.rows * y.cols, &scratch);
    bool add;
    void *du = tape_grad_to(t, u, &add);
    BUG_ON(!du || add, "act_linear: its input has one use");
    /* with a gate u has two halves, and dh is as wide as one of them */
    dh = a->up ? tape_scratch(t, u.rows * a->F, dtype_size(b->elem)) : du;
    int64_t lddh = a->up ? a->F : tape_grad_ld(u);
    const void *kept = n->saved[0], *h = kept ? kept : a->u;
    if (param_grad(n->w) && !kept) a->h = (void *)(uintptr_t)a->u, a->ldh = u.ld;
    ActGrad g = act_grad(t, n, dh, lddh, du);
    ops_weights(t, &(Gemm){.m = y.rows, .n = a->F, .k = y.cols, .a = dy, .lda = ldy, .c = dh, .ldc = lddh,
                           .ab = b->elem, .ct = b->elem, .act = a, .grad = &g}, n->w);
    float *dw = tape_param_grad_to(t, n->w, &add);
    if (dw)
        weight_gemm(t, &(Gemm){.m = y.cols, .n = a->F, .k = y.rows, .a = dy, .lda = ldy, .ta = true, .b = h,
                               .ldb = kept ? a->F : u.ld, .c = dw, .ldc = a->F, .ab = b->elem, .ct = DT_F32,
                               .add = add}, scratch);
    if (a->up) tape_scratch_free(t, dh);
    if (scratch) tape_scratch_free(t, scratch);
}

void op_feed_forward(Tape *t, Tensor y, Tensor u, Tensor x, Param in, ActForm f, Param b, Param w) {
    SAME_ROWS("feed_forward", y, u);
    Act a = act_of(t, u, f, b);
    BUG_ON(w.cols != a.F || w.rows != y.cols, "feed_forward: u (%lld,%lld), w (%lld,%lld), y (%lld,%lld)", SHAPE(u),
           SHAPE(w), SHAPE(y));
    /* only weights that learn read h again: with frozen ones it would be kept for nobody */
    bool keep = t->roomy && t->recording && param_grad(w);
    a.h = keep ? tape_like(t, u, a.F, t->b->elem).data : tape_scratch(t, u.rows * a.F, dtype_size(t->b->elem));
    a.ldh = a.F;
    linear(t, u, x, in, (Param){0}, &a);
    ops_weights(t, &(Gemm){.m = u.rows, .n = w.rows, .k = a.F, .a = a.h, .lda = a.F, .tb = true, .c = y.data,
                           .ldc = y.ld, .ab = t->b->elem, .ct = y.dt}, w);
    void *kept = keep ? a.h : NULL;
    if (!keep) tape_scratch_free(t, a.h);
    a.h = NULL;
    Node *n = tape_node(t, "act_linear", act_linear_back);
    if (n) n->y = y, n->x = u, n->b = b, n->w = w, n->u.act = a, n->saved[0] = kept;
}

void op_feed_forward_add(Tape *t, Tensor y, Tensor u, Tensor x, Param in, ActForm f, Param b, Param w, Param wb) {
    Act a = act_of(t, u, f, b);
    Tensor h = {.data = u.data, .rows = u.rows, .cols = a.F, .ld = u.ld, .dt = u.dt};
    if (f.gated) h.data = tape_scratch(t, u.rows * a.F, dtype_size(u.dt)), h.ld = a.F;
    a.h = h.data, a.ldh = h.ld;
    linear(t, u, x, in, (Param){0}, &a);
    op_linear_add(t, y, h, w, wb);
    if (f.gated) tape_scratch_free(t, h.data);
}

/* ---- linear with the norm in front folded in --------------------------------------------------------------------- */

static void fold_linear_back(Tape *t, const Node *n) {
    const Backend *b = t->b;
    void *dy = tape_grad_of(t, n->y);
    if (!dy || !(param_grad(n->w) || param_grad(n->b) || param_grad(n->w2) || param_grad(n->b2))) return;
    Tensor y = n->y, f = n->x;
    /* by itself, not into dw: dgamma and dbeta of the norm in front want it before gamma is multiplied in */
    float *G = tape_scratch(t, y.cols * f.cols, sizeof(float));
    float *s = tape_scratch(t, y.cols, sizeof(float));
    b->zero(s, (size_t)y.cols * sizeof *s);
    ops_gemm(t, &(Gemm){.m = y.cols, .n = f.cols, .k = y.rows, .a = dy, .lda = tape_grad_ld(y), .ta = true, .b = f.data,
                    .ldb = f.ld, .c = G, .ldc = f.cols, .ab = b->elem, .ct = DT_F32, .sums = s, .sums_zero = true});
    bool add;
    float *dw = tape_param_grad_to(t, n->w, &add);
    b->unfold(dw, add, tape_param_grad(t, n->b), tape_param_grad(t, n->w2), tape_param_grad(t, n->b2), G, s, n->w.w,
              n->w2.w, n->b2.w, y.cols, f.cols);
    tape_scratch_free(t, s);
    tape_scratch_free(t, G);
}

void op_fold_linear(Tape *t, Tensor y, Tensor f, Param w, Param b, Param g, Param o) {
    SAME_ROWS("fold_linear", y, f);
    BUG_ON(w.cols != f.cols || w.rows != y.cols || g.cols != f.cols,
           "fold_linear: f (%lld,%lld), w (%lld,%lld), y (%lld,%lld)", SHAPE(f), SHAPE(w), SHAPE(y));
    int es = dtype_size(t->b->elem);
    /* made anew each call: gamma and beta move with every update */
    void *Wf = tape_scratch(t, w.rows * w.cols, es), *cf = tape_scratch(t, w.rows, es);
    t->b->fold(Wf, cf, w.w, b.w, g.w, o.w, w.rows, w.cols);
    ops_gemm(t, &(Gemm){.m = f.rows, .n = w.rows, .k = w.cols, .a = f.data, .lda = f.ld, .b = Wf, .ldb = w.cols,
                        .tb = true, .bias = cf, .c = y.data, .ldc = y.ld, .ab = t->b->elem, .ct = y.dt});
    tape_scratch_free(t, cf);
    tape_scratch_free(t, Wf);
    Node *n = tape_node(t, "fold_linear", fold_linear_back);
    if (n) n->y = y, n->x = f, n->w = w, n->b = b, n->w2 = g, n->b2 = o;
}
