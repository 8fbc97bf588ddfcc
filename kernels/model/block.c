/* block: see block.h. */
#include "kernels/model/block.h"

static const Tensor NOTHING = {0};
static const Param NONE = {.frozen = true};

static bool is_there(Norm n) { return n.g.copy != NULL; }
/* Nothing is walked back: a part's product adds to the stream where it stands, and its norm is made in one place. */
static bool adds_up(const BlockStream *x) { return x->spare.data != NULL; }
static Tensor rows_of(Tape *t, Tensor x, int64_t cols) { return tape_like(t, x, cols, t->b->elem); }

BlockStream block_stream(Tape *t, Tensor x) {
    BlockStream s = {.x = x, .bias = NONE};
    if (!t->recording) s.spare = rows_of(t, x, x.cols);
    s.mark = arena_mark(t->step);
    return s;
}

void block_norm(Tape *t, Tensor y, BlockStream *x, Norm n) {
    if (x->s.data) {
        op_add_norm(t, y, x->s, x->x, x->bias, n, x->drop);  /* leaves the sum in s, which is the stream from then on */
        x->x = x->s;
    } else {
        op_norm(t, y, x->x, n);
    }
    x->s = NOTHING;
    x->bias = NONE;                                          /* added with the sum: a second use would add it again */
    x->drop = (Dropout){0};
}

/* What a part reads: the stream itself, or normed. */
static Tensor read_stream(Tape *t, BlockStream *x, Norm n, bool behind, Param in) {
    if (behind) return x->x;
    if (!adds_up(x) && !x->next.data) x->next = rows_of(t, x->x, x->x.cols);
    /* frozen weights want no gradient, so nobody reads their input again: its memory serves the result */
    Tensor y = adds_up(x) ? x->spare : in.frozen ? tape_reuse(t, x->next) : rows_of(t, x->x, x->x.cols);
    block_norm(t, y, x, n);
    return y;
}

/* Where a part's second product goes. */
static Tensor result_of(Tape *t, BlockStream *x) {
    if (adds_up(x)) return x->x;
    Tensor s = x->next.data ? x->next : rows_of(t, x->x, x->x.cols);
    x->next = NOTHING;
    return s;
}

static void project(Tape *t, BlockStream *x, Tensor s, Tensor h, Param w, Param bias) {
    if (adds_up(x)) op_linear_add(t, s, h, w, bias);
    else op_linear(t, s, h, w, NONE);
}

/* What a part gave joins the stream: at once where the norm stands behind. */
static void join_stream(Tape *t, BlockStream *x, Tensor s, Param bias, Dropout drop, const Norm *behind, Tensor y) {
    BUG_ON(adds_up(x) && drop.p > 0, "block: dropout in what nobody records");
    if (!adds_up(x)) x->s = s, x->bias = bias, x->drop = drop;
    if (behind) {
        if (!y.data) y = adds_up(x) ? x->x : rows_of(t, s, s.cols);
        block_norm(t, y, x, *behind);
        x->x = y;
    }
    if (adds_up(x)) arena_reset(t->step, x->mark);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static void norm_heads(Tape *t, Tensor qkv, int64_t at, int64_t width, Norm n) {
    if (is_there(n)) op_head_norm(t, qkv, at, (int)(width / n.g.cols), (int)n.g.cols, n);
}

Tensor block_qkv(Tape *t, BlockStream *x, const BlockAttention *w, Tensor q) {
    int64_t A = (int64_t)w->heads.H * w->D, K = (int64_t)w->heads.KH * w->D;
    bool keys = w->in.rows > A;
    Tensor h = read_stream(t, x, w->norm, w->behind, w->in);
    if (!q.data) q = rows_of(t, h, w->in.rows);
    op_linear(t, q, h, w->in, w->in_bias);
    norm_heads(t, q, 0, A, w->q_norm);
    if (keys) norm_heads(t, q, A, K, w->k_norm);
    Rotary r = w->rotary;
    r.H = w->heads.H + (keys ? w->heads.KH : 0), r.D = w->D;
    if (!r.R) r.R = w->D;                                    /* all of a head turns, unless a model says less */
    /* behind the norms of heads, as the families that have both do it */
    if (r.cos) op_rotary(t, q, 0, r);
    return q;
}

Tensor block_look(Tape *t, const BlockAttention *w, Tensor q, Tensor kv, int64_t k_at, const AttnPlan *plan) {
    int64_t A = (int64_t)w->heads.H * w->D, K = (int64_t)w->heads.KH * w->D;
    Tensor o = rows_of(t, q, A), n = o;
    op_attention(t, o, q, 0, kv, k_at, k_at + K, w->heads, plan, w->prob);
    if (!is_there(w->inner)) return o;
    /* the norm's backward reads what came in */
    if (t->recording) n = rows_of(t, o, A);
    op_norm(t, n, o, w->inner);
    return n;
}

void block_project(Tape *t, BlockStream *x, const BlockAttention *w, Tensor seen, Tensor y) {
    Tensor s = result_of(t, x);
    project(t, x, s, seen, w->out, w->out_bias);
    join_stream(t, x, s, w->out_bias, w->drop, w->behind ? &w->norm : NULL, y);
}

void block_attend(Tape *t, BlockStream *x, const BlockAttention *w, Tensor q, Tensor kv, int64_t k_at,
                  const AttnPlan *plan, Tensor y) {
    block_project(t, x, w, block_look(t, w, q, kv, k_at, plan), y);
}

/* ---- feed-forward ------------------------------------------------------------------------------------------------ */

/* With a norm or dropout between the two products. */
static void act_and_more(Tape *t, BlockStream *x, const BlockFeedForward *w, Tensor s, Tensor u) {
    bool normed = is_there(w->inner);
    Tensor h = rows_of(t, u, w->out.cols), n = normed && t->recording ? rows_of(t, u, w->out.cols) : h;
    op_act(t, h, u, w->act, w->in_bias);
    if (normed) op_norm(t, n, h, w->inner);
    op_dropout(t, n, w->hidden);
    project(t, x, s, n, w->out, w->out_bias);
}

void block_feed_forward(Tape *t, BlockStream *x, const BlockFeedForward *w, Tensor y) {
    Tensor h = read_stream(t, x, w->norm, w->behind, w->in), u = rows_of(t, h, w->in.rows);
    bool plain = !is_there(w->inner) && !(w->hidden.p > 0);
    if (!plain) op_linear(t, u, h, w->in, NONE);
    Tensor s = result_of(t, x);
    if (!plain) act_and_more(t, x, w, s, u);
    else if (adds_up(x)) op_feed_forward_add(t, s, u, h, w->in, w->act, w->in_bias, w->out, w->out_bias);
    else op_feed_forward(t, s, u, h, w->in, w->act, w->in_bias, w->out);
    join_stream(t, x, s, w->out_bias, w->drop, w->behind ? &w->norm : NULL, y);
}
