/* ops_rows: see ops.h. Rows that enter a model, and rows picked from others. Each op, then its backward. */
#include "kernels/ops_inner.h"

/* ---- embedding --------------------------------------------------------------------------------------------------- */

static void embed_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    /* in place: a row of dy is read before its sum is written, and nobody wants it afterwards */
    EmbedGrad g = {.dy = dy, .dsum = dy, .dquery = tape_param_grad(t, n->w2), .dword = tape_param_grad(t, n->w),
                   .dpos = tape_param_grad(t, n->b), .dgamma = tape_param_grad(t, n->b2),
                   .dbeta = tape_param_grad(t, n->b3)};
    if (g.dquery || g.dword || g.dpos || g.dgamma || g.dbeta) t->b->embed_bwd(&n->u.embed, &g);
}

void op_embed(Tape *t, Tensor y, Embed e, Param query, Param word, Param pos, Param g, Param o) {
    BUG_ON(y.rows != e.nq + e.nt || y.cols != e.C || y.ld != y.cols, "embed: y (%lld,%lld) for %lld + %lld rows of %d",
           SHAPE(y), (long long)e.nq, (long long)e.nt, e.C);
    e.query = query.copy, e.word = word.copy, e.pos = pos.copy, e.gamma = g.w, e.beta = o.w, e.y = y.data;
    e.mean = tape_beside(t, y, 0, 1);
    e.rstd = tape_beside(t, y, 1, 1);
    t->b->embed(&e);
    Node *n = tape_node(t, "embed", embed_back);
    if (n) n->y = y, n->w2 = query, n->w = word, n->b = pos, n->b2 = g, n->b3 = o, n->u.embed = e;
}

/* ---- words, given rows, positions -------------------------------------------------------------------------------- */

/* Rows that y does not name keep what other uses wrote, or become zero: all of them count as written. */
static void lookup_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    float *dword = dy ? tape_param_grad(t, n->w) : NULL;
    if (dword) t->b->lookup_words(&n->u.lookup, dword, n->w.rows, dy);
    if (!dy || !n->x.grad) return;
    bool add;
    void *drows = tape_grad_to(t, n->x, &add);
    if (!add) t->b->zero(drows, (size_t)tensor_count(n->x) * (size_t)dtype_size(n->x.dt));
    t->b->lookup_bwd(&n->u.lookup, drows, dy, add);
}

void op_lookup(Tape *t, Tensor y, Lookup l, Param word, Tensor rows, Param pos) {
    /* nobody trains positions that are looked up here: a sum over them would be one more kernel */
    BUG_ON(param_grad(pos), "lookup: its positions are frozen");
    BUG_ON((word.copy && word.cols != y.cols) || (rows.data && (rows.cols != y.cols || rows.ld != rows.cols)) ||
               (pos.copy && pos.cols != y.cols) || y.ld != y.cols || (!l.ids && rows.rows < y.rows),
           "lookup: words (%lld,%lld), rows (%lld,%lld), positions (%lld,%lld), y (%lld,%lld)", SHAPE(word),
           SHAPE(rows), SHAPE(pos), SHAPE(y));
    l.N = y.rows, l.C = (int32_t)y.cols, l.y = y.data, l.word = word.copy, l.rows = rows.data, l.pos = pos.copy;
    BUG_ON(word.copy && pos.copy && word.held != pos.held, "lookup: words and positions of two types");
    l.held = word.copy ? word.held : pos.held;
    t->b->lookup(&l);
    Node *n = tape_node(t, "lookup", lookup_back);
    if (n) n->y = y, n->x = rows, n->w = word, n->u.lookup = l;
}

void op_patches(Tape *t, Tensor y, Patches p) {
    BUG_ON(y.cols != 3LL * p.p * p.p || y.rows != p.images * (p.height / p.p) * (p.width / p.p),
           "patches: y (%lld,%lld) of %lld images %d x %d in patches of %d", SHAPE(y), (long long)p.images, p.height,
               p.width,
           p.p);
    p.y = y.data, p.ldy = y.ld, p.ty = y.dt;
    t->b->patches(&p);
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Rows that no index names keep what other uses wrote, or become zero: the whole input counts as written. */
static void gather_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    bool add;
    void *dx = tape_grad_to(t, n->x, &add);
    if (!dx) return;
    int64_t ld = tape_grad_ld(n->x);
    if (!add) t->b->zero(dx, (size_t)(n->x.rows * ld) * (size_t)dtype_size(n->x.dt));
    /* added, not put: other uses of x have written there */
    t->b->copy_rows(dx, ld, n->saved[0], dy, n->y.cols, NULL, n->y.rows, n->y.cols, true);
}

void op_gather(Tape *t, Tensor y, Tensor x, const int32_t *rows) {
    SAME_COLS("gather", y, x);
    t->b->copy_rows(y.data, y.ld, NULL, x.data, x.ld, rows, y.rows, y.cols, false);
    Node *n = tape_node(t, "gather", gather_back);
    if (n) n->y = y, n->x = x, n->saved[0] = (void *)(uintptr_t)rows;
}

static void dropout_back(Tape *t, const Node *n) {
    void *dx = tape_grad_of(t, n->x);
    if (dx) t->b->dropout(dx, n->x.rows, n->x.cols, tape_grad_ld(n->x), &n->u.drop);
}

void op_dropout(Tape *t, Tensor x, Dropout d) {
    if (d.p <= 0) return; /* no node either: there is nothing to drop on the way back */
    t->b->dropout(x.data, x.rows, x.cols, x.ld, &d);
    Node *n = tape_node(t, "dropout", dropout_back);
    if (n) n->x = x, n->u.drop = d;
}

static void segment_mean_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    bool add;
    void *dx = tape_grad_to(t, n->x, &add);
    if (dx) t->b->segment_mean_bwd(dx, dy, n->y.rows, n->n[0], n->y.cols, add);
}

void op_segment_mean(Tape *t, Tensor y, Tensor x, int64_t Q) {
    SAME_COLS("segment_mean", y, x);
    BUG_ON(y.rows * Q != x.rows || x.ld != x.cols, "segment_mean: %lld rows a segment, x (%lld,%lld), y (%lld,%lld)",
           (long long)Q, SHAPE(x), SHAPE(y));
    t->b->segment_mean(y.data, x.data, y.rows, Q, y.cols);
    Node *n = tape_node(t, "segment_mean", segment_mean_back);
    if (n) n->y = y, n->x = x, n->n[0] = Q;
}

static void l2norm_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    bool add;
    void *dx = tape_grad_to(t, n->x, &add);
    /* the kernel overwrites dx; a projection has no other reader */
    BUG_ON(!dx || add, "l2norm: its input has one use");
    t->b->l2norm_bwd(dx, dy, n->y.data, n->saved[0], n->y.rows, n->y.cols);
}

void op_l2norm(Tape *t, Tensor y, Tensor x) {
    SAME_ROWS("l2norm", y, x);
    SAME_COLS("l2norm", y, x);
    BUG_ON(y.dt != DT_F32 || x.ld != x.cols, "l2norm: f32 result, dense input");
    float *norm = tape_push(t, x.rows, sizeof(float));       /* with y all that the walk back wants: x need not stay */
    t->b->l2norm(y.data, norm, x.data, x.rows, x.cols);
    Node *n = tape_node(t, "l2norm", l2norm_back);
    if (n) n->y = y, n->x = x, n->saved[0] = norm;
}
