/* ops: see ops.h. Each op, then its backward. */
#include "kernels/ops.h"

#include <math.h>

#define SHAPE(x) (long long)(x).rows, (long long)(x).cols
#define SAME_ROWS(op, a, c) \
    BUG_ON((a).rows != (c).rows, op ": (%lld,%lld) and (%lld,%lld) differ in rows", SHAPE(a), SHAPE(c))
#define SAME_COLS(op, a, c) \
    BUG_ON((a).cols != (c).cols, op ": (%lld,%lld) and (%lld,%lld) differ in columns", SHAPE(a), SHAPE(c))

static void gemm(Tape *t, const Gemm *g) {
    if (!g->m || !g->n) return;
    t->flops += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    t->b->gemm(g);
}

/* Gradients of f32 results (logits, features) enter products as elem. */
static const void *as_elem(Tape *t, const void *dy, DType dt, int64_t n, void **scratch) {
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
    BUG_ON(ldy != y.cols && y.dt != b->elem, "linear: a strided f32 gradient");
    void *scratch;
    const void *dy = as_elem(t, dy0, y.dt, y.rows * y.cols, &scratch);
    bool add;
    void *dx = tape_grad_to(t, x, &add);
    if (dx)
        gemm(t, &(Gemm){.m = y.rows, .n = x.cols, .k = y.cols, .a = dy, .lda = ldy, .b = n->w.copy, .ldb = x.cols,
                        .c = dx, .ldc = tape_grad_ld(x), .ab = b->elem, .ct = b->elem, .add = add});
    if (!n->w.frozen)
        gemm(t, &(Gemm){.m = y.cols, .n = x.cols, .k = y.rows, .a = dy, .lda = ldy, .ta = true, .b = x.data,
                        .ldb = x.ld, .c = n->w.g, .ldc = x.cols, .ab = b->elem, .ct = DT_F32, .add = true});
    if (n->b.w) b->colsum(n->b.g, dy, y.rows, y.cols, ldy);
    if (scratch) tape_scratch_free(t, scratch);
}

void op_linear(Tape *t, Tensor y, Tensor x, Param w, Param b) {
    SAME_ROWS("linear", y, x);
    BUG_ON(w.cols != x.cols || w.rows != y.cols, "linear: x (%lld,%lld), w (%lld,%lld), y (%lld,%lld)", SHAPE(x),
           SHAPE(w), SHAPE(y));
    gemm(t, &(Gemm){.m = x.rows, .n = w.rows, .k = w.cols, .a = x.data, .lda = x.ld, .b = w.copy, .ldb = w.cols,
                    .tb = true, .bias = b.copy, .c = y.data, .ldc = y.ld, .ab = t->b->elem, .ct = y.dt});
    Node *n = tape_node(t, "linear", linear_back);
    if (n) n->y = y, n->x = x, n->w = w, n->b = b;
}

/* ---- gelu -------------------------------------------------------------------------------------------------------- */

static void gelu_back(Tape *t, const Node *n) {
    void *dh = tape_grad_of(t, n->y);
    if (!dh) return;
    bool add;
    void *du = tape_grad_to(t, n->x, &add);
    BUG_ON(!du || add, "gelu: its input has one use");
    t->b->gelu_bwd(du, NULL, n->b.g, dh, n->x.data, n->b.w, n->x.rows, n->x.cols);
}

void op_gelu(Tape *t, Tensor h, Tensor u, Param b) {
    SAME_ROWS("gelu", h, u);
    SAME_COLS("gelu", h, u);
    BUG_ON(h.ld != h.cols || u.ld != u.cols || b.cols != u.cols, "gelu: dense matrices, bias (%lld,%lld)", SHAPE(b));
    t->b->gelu(h.data, u.data, b.w, u.rows, u.cols);
    Node *n = tape_node(t, "gelu", gelu_back);
    if (n) n->y = h, n->x = u, n->b = b;
}

/* h = gelu(u + bias) was not kept: it is made again where u lay, by the same pass that makes u's gradient. */
static void gelu_linear_back(Tape *t, const Node *n) {
    const Backend *b = t->b;
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    Tensor y = n->y, u = n->x;
    int64_t ldy = tape_grad_ld(y);
    bool add;
    void *du = tape_grad_to(t, u, &add), *h = n->w.frozen ? NULL : u.data;
    BUG_ON(!du || add, "gelu_linear: its input has one use");
    gemm(t, &(Gemm){.m = y.rows, .n = u.cols, .k = y.cols, .a = dy, .lda = ldy, .b = n->w.copy, .ldb = u.cols, .c = du,
                    .ldc = u.cols, .ab = b->elem, .ct = b->elem});
    b->gelu_bwd(du, h, n->b.g, du, u.data, n->b.w, u.rows, u.cols);
    if (h)
        gemm(t, &(Gemm){.m = y.cols, .n = u.cols, .k = y.rows, .a = dy, .lda = ldy, .ta = true, .b = h, .ldb = u.cols,
                        .c = n->w.g, .ldc = u.cols, .ab = b->elem, .ct = DT_F32, .add = true});
}

void op_gelu_linear(Tape *t, Tensor y, Tensor u, Param b, Param w) {
    SAME_ROWS("gelu_linear", y, u);
    BUG_ON(w.cols != u.cols || w.rows != y.cols || b.cols != u.cols || u.ld != u.cols,
           "gelu_linear: u (%lld,%lld), w (%lld,%lld), y (%lld,%lld)", SHAPE(u), SHAPE(w), SHAPE(y));
    void *h = tape_scratch(t, u.rows * u.cols, dtype_size(t->b->elem));
    t->b->gelu(h, u.data, b.w, u.rows, u.cols);
    gemm(t, &(Gemm){.m = u.rows, .n = w.rows, .k = w.cols, .a = h, .lda = u.cols, .b = w.copy, .ldb = w.cols,
                    .tb = true, .c = y.data, .ldc = y.ld, .ab = t->b->elem, .ct = y.dt});
    tape_scratch_free(t, h);
    Node *n = tape_node(t, "gelu_linear", gelu_linear_back);
    if (n) n->y = y, n->x = u, n->b = b, n->w = w;
}

/* ---- residual, dropout, LayerNorm -------------------------------------------------------------------------------- */

static void add_norm_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    bool add_s, add_x = false;
    void *ds = tape_grad_to(t, n->x, &add_s);
    void *dx = n->x2.data ? tape_grad_to(t, n->x2, &add_x) : NULL;
    BUG_ON(!ds || add_s, "add_norm: the inner sum has one use");
    t->b->add_norm_bwd(&n->u.norm, &(AddNormGrad){.dy = dy, .ds = ds, .dx = dx, .add_dx = add_x, .dbias = n->b.g,
                                                  .dgamma = n->w.g, .dbeta = n->b2.g});
}

void op_add_norm(Tape *t, Tensor y, Tensor s, Tensor x, Param b, Param g, Param o, float eps, Dropout drop) {
    SAME_ROWS("add_norm", y, s);
    SAME_COLS("add_norm", y, s);
    if (x.data) SAME_ROWS("add_norm", y, x);
    BUG_ON(s.ld != s.cols || y.ld != y.cols || g.cols != s.cols, "add_norm: dense matrices, norm (%lld,%lld)",
           SHAPE(g));
    AddNorm a = {.N = s.rows, .C = (int32_t)s.cols, .eps = eps, .s = s.data, .x = x.data, .bias = b.w, .gamma = g.w,
                 .beta = o.w, .y = y.data, .drop = drop};
    a.mean = tape_push(t, s.rows, sizeof(float));
    a.rstd = tape_push(t, s.rows, sizeof(float));
    t->b->add_norm(&a);
    Node *n = tape_node(t, "add_norm", add_norm_back);
    if (n) n->y = y, n->x = s, n->x2 = x, n->b = b, n->w = g, n->b2 = o, n->u.norm = a;
}

/* ---- embedding --------------------------------------------------------------------------------------------------- */

static void embed_back(Tape *t, const Node *n) {
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    t->b->embed_bwd(&n->u.embed, &(EmbedGrad){.dy = dy, .dsum = dy, .dquery = n->w2.g, .dword = n->w.g, .dpos = n->b.g,
                                              .dgamma = n->b2.g, .dbeta = n->saved[0]});
}

void op_embed(Tape *t, Tensor y, Embed e, Param query, Param word, Param pos, Param g, Param o) {
    BUG_ON(y.rows != e.nq + e.nt || y.cols != e.C || y.ld != y.cols, "embed: y (%lld,%lld) for %lld + %lld rows of %d",
           SHAPE(y), (long long)e.nq, (long long)e.nt, e.C);
    e.query = query.copy, e.word = word.copy, e.pos = pos.copy, e.gamma = g.w, e.beta = o.w, e.y = y.data;
    e.mean = tape_push(t, y.rows, sizeof(float));
    e.rstd = tape_push(t, y.rows, sizeof(float));
    t->b->embed(&e);
    Node *n = tape_node(t, "embed", embed_back);
    if (n) n->y = y, n->w2 = query, n->w = word, n->b = pos, n->b2 = g, n->saved[0] = o.g, n->u.embed = e;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static void *columns(void *base, int64_t first, DType dt) { return (char *)base + (size_t)first * (size_t)dtype_size(dt); }

/* Forward 2 products of D a pair and head; backward five of them. */
static void count_attention(Tape *t, const Attn *a, double products) {
    double f = 2.0 * products * (double)a->plan->products * a->H * a->D;
    t->flops += f;
    t->flops_attention += f;
}

static void attention_back(Tape *t, const Node *n) {
    void *d_o = tape_grad_of(t, n->y);
    if (!d_o) return;
    DType e = t->b->elem;
    bool add_q, add_kv = false;
    void *dxq = tape_grad_to(t, n->x, &add_q), *dxkv = dxq;
    if (n->x2.grad != n->x.grad) dxkv = tape_grad_to(t, n->x2, &add_kv);
    BUG_ON(!dxq || add_q, "attention: the queries have one use");
    AttnGrad g = {.d_o = d_o, .dq = columns(dxq, n->n[0], e), .lddq = tape_grad_ld(n->x), .add = add_kv};
    g.dk = columns(dxkv, n->n[1], e), g.lddk = tape_grad_ld(n->x2);
    g.dv = columns(dxkv, n->n[2], e), g.lddv = tape_grad_ld(n->x2);
    count_attention(t, &n->u.attn, 5.0);
    t->b->attention_bwd(&n->u.attn, &g);
}

void op_attention(Tape *t, Tensor o, Tensor xq, int64_t q_at, Tensor xkv, int64_t k_at, int64_t v_at, int H,
                  const AttnPlan *plan, Dropout drop) {
    SAME_ROWS("attention", o, xq);
    BUG_ON(o.cols % H || q_at + o.cols > xq.cols || k_at + o.cols > xkv.cols || v_at + o.cols > xkv.cols,
           "attention: %d heads, o (%lld,%lld), q in (%lld,%lld), k and v in (%lld,%lld)", H, SHAPE(o), SHAPE(xq),
               SHAPE(xkv));
    BUG_ON(plan->nrows != o.rows, "attention: the plan has %d rows, o (%lld,%lld)", plan->nrows, SHAPE(o));
    DType e = t->b->elem;
    int D = (int)(o.cols / H);
    Attn a = {.plan = plan, .q = columns(xq.data, q_at, e), .k = columns(xkv.data, k_at, e),
              .v = columns(xkv.data, v_at, e),
              .o = o.data, .ldq = xq.ld, .ldk = xkv.ld, .ldv = xkv.ld, .ldo = o.ld, .H = H, .KH = H, .D = D,
              .scale = (float)(1.0 / sqrt((double)D)), .drop = drop};
    a.lse = tape_push(t, o.rows * H, sizeof(float));
    count_attention(t, &a, 2.0);
    t->b->attention(&a);
    Node *n = tape_node(t, "attention", attention_back);
    if (n) n->y = o, n->x = xq, n->x2 = xkv, n->n[0] = q_at, n->n[1] = k_at, n->n[2] = v_at, n->u.attn = a;
}

/* ---- linear with the norm in front folded in --------------------------------------------------------------------- */

static void fold_linear_back(Tape *t, const Node *n) {
    const Backend *b = t->b;
    void *dy = tape_grad_of(t, n->y);
    if (!dy) return;
    Tensor y = n->y, f = n->x;
    float *G = tape_scratch(t, y.cols * f.cols, sizeof(float));
    float *s = tape_scratch(t, y.cols, sizeof(float));
    b->zero(s, (size_t)y.cols * sizeof *s);
    gemm(t, &(Gemm){.m = y.cols, .n = f.cols, .k = y.rows, .a = dy, .lda = tape_grad_ld(y), .ta = true, .b = f.data,
                    .ldb = f.ld, .c = G, .ldc = f.cols, .ab = b->elem, .ct = DT_F32});
    b->colsum(s, dy, y.rows, y.cols, tape_grad_ld(y));
    b->unfold(n->w.g, n->b.g, n->w2.g, n->b2.g, G, s, n->w.w, n->w2.w, n->b2.w, y.cols, f.cols);
    tape_scratch_free(t, s);
    tape_scratch_free(t, G);
}

void op_fold_linear(Tape *t, Tensor y, Tensor f, Param w, Param b, Param g, Param o) {
    SAME_ROWS("fold_linear", y, f);
    BUG_ON(w.cols != f.cols || w.rows != y.cols || g.cols != f.cols,
           "fold_linear: f (%lld,%lld), w (%lld,%lld), y (%lld,%lld)", SHAPE(f), SHAPE(w), SHAPE(y));
    int es = dtype_size(t->b->elem);
    void *Wf = tape_scratch(t, w.rows * w.cols, es), *cf = tape_scratch(t, w.rows, es);
    t->b->fold(Wf, cf, w.w, b.w, g.w, o.w, w.rows, w.cols);
    gemm(t, &(Gemm){.m = f.rows, .n = w.rows, .k = w.cols, .a = f.data, .lda = f.ld, .b = Wf, .ldb = w.cols, .tb = true,
                    .bias = cf, .c = y.data, .ldc = y.ld, .ab = t->b->elem, .ct = y.dt});
    tape_scratch_free(t, cf);
    tape_scratch_free(t, Wf);
    Node *n = tape_node(t, "fold_linear", fold_linear_back);
    if (n) n->y = y, n->x = f, n->w = w, n->b = b, n->w2 = g, n->b2 = o;
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
    t->b->copy_rows(dx, ld, n->saved[0], dy, n->y.cols, NULL, n->y.rows, n->y.cols, true);
}

void op_gather(Tape *t, Tensor y, Tensor x, const int32_t *rows) {
    SAME_COLS("gather", y, x);
    t->b->copy_rows(y.data, y.ld, NULL, x.data, x.ld, rows, y.rows, y.cols, false);
    Node *n = tape_node(t, "gather", gather_back);
    if (n) n->y = y, n->x = x, n->saved[0] = (void *)(uintptr_t)rows;
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
    BUG_ON(!dx || add, "l2norm: its input has one use");
    t->b->l2norm_bwd(dx, dy, n->y.data, n->saved[0], n->y.rows, n->y.cols);
}

void op_l2norm(Tape *t, Tensor y, Tensor x) {
    SAME_ROWS("l2norm", y, x);
    SAME_COLS("l2norm", y, x);
    BUG_ON(y.dt != DT_F32 || x.ld != x.cols, "l2norm: f32 result, dense input");
    float *norm = tape_push(t, x.rows, sizeof(float));
    t->b->l2norm(y.data, norm, x.data, x.rows, x.cols);
    Node *n = tape_node(t, "l2norm", l2norm_back);
    if (n) n->y = y, n->x = x, n->saved[0] = norm;
}

/* ---- losses ------------------------------------------------------------------------------------------------------ */

static void handed_on(Tape *t, const Node *n) { tape_seed(t, n->x, n->saved[0]); }

void op_xent(Tape *t, float *loss, float *nll, Tensor logits, const int32_t *target, float smoothing, float scale) {
    BUG_ON(logits.dt != DT_F32, "xent: logits are f32");
    Xent x = {.rows = logits.rows, .n = logits.cols, .ld = logits.ld, .logits = logits.data, .target = target,
              .smoothing = smoothing, .scale = scale, .loss = loss, .nll = nll, .ldd = logits.cols, .dt = DT_F32};
    if (t->recording) x.dlogits = tape_push(t, logits.rows * logits.cols, sizeof(float));
    t->b->xent(&x);
    Node *n = tape_node(t, "xent", handed_on);
    if (n) n->x = logits, n->saved[0] = x.dlogits;
}

enum { LM_CHUNK_BYTES = 64 << 20 }; /* f32 logits of a chunk: 512 rows at V = 30523; larger gains nothing measurable */

void op_lm_loss(Tape *t, float *loss, float *nll, Tensor h, Param w, Param b, const int32_t *target, float smoothing,
                float scale) {
    const Backend *k = t->b;
    BUG_ON(w.cols != h.cols || h.ld != h.cols, "lm_loss: h (%lld,%lld), w (%lld,%lld)", SHAPE(h), SHAPE(w));
    int64_t V = w.rows, C = w.cols, es = dtype_size(k->elem);
    int64_t ld = (V + 7) / 8 * 8; /* rows of logits stay aligned: products on a GPU ask for it */
    int64_t chunk = LM_CHUNK_BYTES / (ld * 4);
    if (chunk < 16) chunk = 16;
    if (chunk > h.rows) chunk = h.rows;
    bool grad = t->recording;
    void *dh = grad ? tape_push(t, h.rows * C, (int)es) : NULL;
    float *logits = tape_scratch(t, chunk * ld, sizeof(float));
    void *dlogits = grad ? tape_scratch(t, chunk * ld, (int)es) : NULL;
    for (int64_t r = 0; r < h.rows; r += chunk) {
        int64_t n = h.rows - r < chunk ? h.rows - r : chunk;
        const void *x = columns(h.data, r * C, k->elem);
        gemm(t, &(Gemm){.m = n, .n = V, .k = C, .a = x, .lda = C, .b = w.copy, .ldb = C, .tb = true, .bias = b.copy,
                        .c = logits, .ldc = ld, .ab = k->elem, .ct = DT_F32});
        k->xent(&(Xent){.rows = n, .n = V, .ld = ld, .logits = logits, .target = target + r, .smoothing = smoothing,
                        .scale = scale,
                        .loss = loss + r, .nll = nll ? nll + r : NULL, .dlogits = dlogits, .ldd = ld, .dt = k->elem});
        if (!grad) continue;
        gemm(t, &(Gemm){.m = n, .n = C, .k = V, .a = dlogits, .lda = ld, .b = w.copy, .ldb = C,
                        .c = columns(dh, r * C, k->elem), .ldc = C, .ab = k->elem, .ct = k->elem});
        if (!w.frozen)
            gemm(t, &(Gemm){.m = V, .n = C, .k = n, .a = dlogits, .lda = ld, .ta = true, .b = x, .ldb = C, .c = w.g,
                            .ldc = C, .ab = k->elem, .ct = DT_F32, .add = true});
        if (!b.frozen) k->colsum(b.g, dlogits, n, V, ld);
    }
    if (dlogits) tape_scratch_free(t, dlogits);
    tape_scratch_free(t, logits);
    Node *n = tape_node(t, "lm_loss", handed_on);
    if (n) n->x = h, n->saved[0] = dh;
}
