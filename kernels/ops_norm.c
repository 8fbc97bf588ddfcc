/* ops_norm: see ops.h. Residual, dropout and norm. Each op, then its backward. */
#include "kernels/ops_inner.h"

/* The sum z lies where s lay. What later uses of z have put into its gradient joins what the norm sends back. */
static void add_norm_back(Tape *t, const Node *n) {
    void *dz = tape_grad_of(t, n->x), *dy = tape_grad_of(t, n->y);
    if (!dy && !dz) return;
    bool add_s, add_x = false, add_y;
    /* nobody read y, but somebody the sum: the norm then gives nothing, and the sum still flows */
    size_t bytes = (size_t)tensor_count(n->y) * (size_t)dtype_size(n->y.dt);
    if (!dy) dy = tape_grad_to(t, n->y, &add_y), t->b->zero(dy, bytes);
    void *ds = tape_grad_to(t, n->x, &add_s), *dx = n->x2.data ? tape_grad_to(t, n->x2, &add_x) : NULL;
    BUG_ON(!ds, "add_norm: the inner sum wants no gradient");
    t->b->add_norm_bwd(&n->u.norm, &(AddNormGrad){.dy = dy, .dz = dz, .ds = ds, .dx = dx, .add_dx = add_x,
                                                  .dbias = tape_param_grad(t, n->b), .dgamma = tape_param_grad(t, n->w),
                                                  .dbeta = tape_param_grad(t, n->b2)});
}

void op_add_norm(Tape *t, Tensor y, Tensor s, Tensor x, Param b, Norm m, Dropout drop) {
    SAME_ROWS("add_norm", y, s);
    SAME_COLS("add_norm", y, s);
    if (x.data) SAME_ROWS("add_norm", y, x);
    BUG_ON(s.ld != s.cols || y.ld != y.cols || m.g.cols != s.cols, "add_norm: dense matrices, norm (%lld,%lld)",
           SHAPE(m.g));
    AddNorm a = {.N = s.rows, .C = (int32_t)s.cols, .eps = m.eps, .rms = m.rms, .s = s.data, .x = x.data, .bias = b.w,
                 .gamma = m.g.w, .beta = m.o.w, .y = y.data, .drop = drop};
    a.mean = m.rms ? NULL : tape_beside(t, s, 0, 1);
    /* beside rows, not of the step: of two waves the walk back goes over both in one */
    a.rstd = tape_beside(t, s, 1, 1);
    t->b->add_norm(&a);
    Node *n = tape_node(t, "add_norm", add_norm_back);
    if (n) n->y = y, n->x = s, n->x2 = x, n->b = b, n->w = m.g, n->b2 = m.o, n->u.norm = a;
}

/* ---- a norm and nothing else ------------------------------------------------------------------------------------- */

static void norm_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    bool add;
    void *dx = tape_grad_to(t, n->x, &add);
    AddNormGrad g = {.dy = dy, .dx = dx, .add_dx = add, .dgamma = tape_param_grad(t, n->w),
                     .dbeta = tape_param_grad(t, n->b2)};
    /* else frozen, and of an input that nobody learns from */
    if (dx || g.dgamma || g.dbeta) t->b->add_norm_bwd(&n->u.norm, &g);
}

void op_norm(Tape *t, Tensor y, Tensor x, Norm m) {
    SAME_ROWS("norm", y, x);
    SAME_COLS("norm", y, x);
    BUG_ON(x.ld != x.cols || y.ld != y.cols || m.g.cols != x.cols, "norm: dense matrices, norm (%lld,%lld)",
           SHAPE(m.g));
    AddNorm a = {.N = x.rows, .C = (int32_t)x.cols, .eps = m.eps, .rms = m.rms, .x = x.data, .gamma = m.g.w,
                 .beta = m.o.w, .y = y.data};
    a.mean = m.rms ? NULL : tape_push(t, x.rows, sizeof(float));
    a.rstd = tape_push(t, x.rows, sizeof(float));
    t->b->add_norm(&a);
    Node *n = tape_node(t, "norm", norm_back);
    if (n) n->y = y, n->x = x, n->w = m.g, n->b2 = m.o, n->u.norm = a;
}

/* ---- norms of column blocks, in place ---------------------------------------------------------------------------- */

static void head_norm_back(Tape *t, const Node *n) {
    char *dx = tape_grad_of(t, n->x);
    if (!dx) return;
    HeadNorm a = n->u.heads; /* a copy: the node is the walk's, and the stride is known only now */
    a.lddx = tape_grad_ld(n->x);
    t->b->head_norm_bwd(&a, ops_columns(dx, n->n[0], n->x.dt), tape_param_grad(t, n->w), tape_param_grad(t, n->b2));
}

void op_head_norm(Tape *t, Tensor x, int64_t at, int blocks, int C, Norm m) {
    BUG_ON(at + (int64_t)blocks * C > x.cols || m.g.cols != C,
           "head_norm: %d blocks of %d from column %lld on of (%lld,%lld)", blocks, C, (long long)at, SHAPE(x));
    HeadNorm a = {.N = x.rows, .ld = x.ld, .blocks = blocks, .C = C, .eps = m.eps, .rms = m.rms,
                  .x = ops_columns(x.data, at, x.dt), .gamma = m.g.w, .beta = m.o.w};
    if (t->recording) {
        a.z = tape_push(t, x.rows * blocks * C, dtype_size(x.dt)); /* in place: what was normed is gone otherwise */
        a.mean = m.rms ? NULL : tape_push(t, x.rows * blocks, sizeof(float));
        a.rstd = tape_push(t, x.rows * blocks, sizeof(float));
    }
    t->b->head_norm(&a);
    Node *n = tape_node(t, "head_norm", head_norm_back);
    if (n) n->x = x, n->n[0] = at, n->w = m.g, n->b2 = m.o, n->u.heads = a;
}
