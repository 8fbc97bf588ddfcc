/* ops_attention: see ops.h. Rows that look at others, and the positions they look from. Each op, then its backward. */
#include <math.h>

#include "kernels/ops_inner.h"

Heads op_heads(int H, int KH, int D) { return (Heads){.H = H, .KH = KH, .scale = (float)(1.0 / sqrt((double)D))}; }

/* Forward 2 products of D a pair and head; backward five of them. */
static void count_attention(Tape *t, const Attn *a, double products) {
    double f = 2.0 * products * (double)a->plan->products * a->H * a->D;
    t->flops += f;
    t->flops_attention += f; /* apart: its share of the peak is another than that of products, and `plan` says both */
}

static void attention_back(Tape *t, const Node *n) {
    void *d_o = tape_grad_of(t, n->y);
    if (!d_o) return;
    DType e = t->b->elem;
    bool add_q, add_kv = false;
    void *dxq = tape_grad_to(t, n->x, &add_q), *dxkv = dxq;
    /* self-attention: q, k and v are columns of one matrix, whose gradient is one */
    if (n->x2.grad != n->x.grad) dxkv = tape_grad_to(t, n->x2, &add_kv);
    BUG_ON(!dxq || !dxkv || add_q, "attention: the queries have one use, and keys want a gradient");
    AttnGrad g = {.d_o = d_o, .dq = ops_columns(dxq, n->n[0], e), .lddq = tape_grad_ld(n->x), .add = add_kv};
    g.dk = ops_columns(dxkv, n->n[1], e), g.lddk = tape_grad_ld(n->x2);
    g.dv = ops_columns(dxkv, n->n[2], e), g.lddv = tape_grad_ld(n->x2);
    /* scores once more, dP, dQ, dK, dV; that some kernels make scores twice is their affair */
    count_attention(t, &n->u.attn, 5.0);
    t->b->attention_bwd(&n->u.attn, &g);
}

void op_attention(Tape *t, Tensor o, Tensor xq, int64_t q_at, Tensor xkv, int64_t k_at, int64_t v_at, Heads h,
                  const AttnPlan *plan, Dropout drop) {
    SAME_ROWS("attention", o, xq);
    BUG_ON(h.H < 1 || h.KH < 1 || o.cols % h.H || h.H % h.KH, "attention: %d heads, %d of keys, o (%lld,%lld)", h.H,
           h.KH, SHAPE(o));
    int64_t D = o.cols / h.H, keys = D * h.KH;
    BUG_ON(q_at + o.cols > xq.cols || k_at + keys > xkv.cols || v_at + keys > xkv.cols,
           "attention: %d heads, %d of keys, of %lld: o (%lld,%lld), q in (%lld,%lld), k and v in (%lld,%lld)", h.H,
           h.KH, (long long)D, SHAPE(o), SHAPE(xq), SHAPE(xkv));
    /* of two waves lse has a stride for both, so their plans say so too */
    int64_t rows = t->pass == TAPE_ALONE ? o.rows : o.grad->rows;
    BUG_ON(plan->nrows != rows, "attention: the plan has %d rows of %lld, o (%lld,%lld)", plan->nrows, (long long)rows,
           SHAPE(o));
    DType e = t->b->elem;
    Attn a = {.plan = plan, .q = ops_columns(xq.data, q_at, e), .k = ops_columns(xkv.data, k_at, e),
              .v = ops_columns(xkv.data, v_at, e), .o = o.data, .ldq = xq.ld, .ldk = xkv.ld, .ldv = xkv.ld, .ldo = o.ld,
              .H = h.H, .KH = h.KH, .D = (int32_t)D, .scale = h.scale, .bias = h.bias, .span = h.span, .drop = drop};
    /* all of the forward that the walk back wants beside o: scores are made again */
    a.lse = tape_beside(t, o, 0, h.H);
    count_attention(t, &a, 2.0);
    t->b->attention(&a);
    Node *n = tape_node(t, "attention", attention_back);
    if (n) n->y = o, n->x = xq, n->x2 = xkv, n->n[0] = q_at, n->n[1] = k_at, n->n[2] = v_at, n->u.attn = a;
}

/* ---- rotary ------------------------------------------------------------------------------------------------------ */

/* A turned row's gradient is turned back. */
static void rotary_back(Tape *t, const Node *n) {
    void *dx = tape_grad_of(t, n->x);
    if (!dx) return;
    Rotary r = n->u.rotary;
    r.x = ops_columns(dx, n->n[0], n->x.dt), r.ld = tape_grad_ld(n->x), r.inverse = !r.inverse;
    t->b->rotary(&r);
}

void op_rotary(Tape *t, Tensor x, int64_t at, Rotary r) {
    BUG_ON(at + (int64_t)r.H * r.D > x.cols || r.R > r.D || r.R % 2 || (!r.at && r.period < 1),
           "rotary: %d heads of %d (%d turned) from column %lld on of (%lld,%lld)", r.H, r.D, r.R, (long long)at,
           SHAPE(x));
    r.x = ops_columns(x.data, at, x.dt), r.N = x.rows, r.ld = x.ld;
    t->b->rotary(&r);
    Node *n = tape_node(t, "rotary", rotary_back);
    if (n) n->x = x, n->n[0] = at, n->u.rotary = r;
}
