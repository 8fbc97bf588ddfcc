/* block: the two parts that a transformer's layers are made of, attention and feed-forward, with a residual around
 * each. The Q-Former's, a ViT's and the language models' layers are uses of it; what differs is in the values below.
 *
 *     norm before   z = x + dropout(part(norm(x)) + bias)       OPT, T5, Llama, ViT: summed when the next norm reads it
 *     norm behind   y = norm(x + dropout(part(x) + bias))       BERT, so the Q-Former; OPT-350m
 *     attention     part(h) = inner(attend(rotary(qk_norm(h Wi^T + bi)))) Wo^T
 *     feed-forward  part(h) = inner(act(h Wi^T + bi)) Wo^T      plain or gated (ActForm)
 *
 * A LayerScale is folded into Wo and its bias when weights are loaded. A norm without gain (g.copy NULL) is not there.
 *
 * Memory. Recording, a part keeps what its backward reads: for frozen weights the input of a product is not among it,
 * and is made where the product's result will stand. Not recording, a part's last product adds to the rows of a stream
 * from block_stream, which has a second matrix for norms of them and gives all else back: any depth in one layer's
 * memory. */
#pragma once
#include "kernels/ops.h"

/* The residual of N rows: its value is x + dropout(s + bias); s.data NULL: x. */
typedef struct {
    Tensor x, s;
    Param bias;
    Dropout drop;
    Tensor next;                        /* where the part under way leaves its result */
    Tensor spare;                       /* not recording: what a norm makes of the stream; s is then added already */
    size_t mark;                        /* of the step arena, behind that */
} BlockStream;

/* A stream that begins as x, whose memory it takes over. For rows that go on being used: (BlockStream){.x = x}. */
BlockStream block_stream(Tape *t, Tensor x);

/* y = norm(stream), which is then the sum: x, with nothing to add. */
void block_norm(Tape *t, Tensor y, BlockStream *x, Norm n);

typedef struct {
    Norm norm;
    bool behind;
    Param in, in_bias;                  /* queries, keys and values of their heads joined, or queries alone */
    Param out, out_bias;
    Heads heads;
    int D;
    Norm q_norm, k_norm;                /* of queries and keys, over blocks as wide as the gain: a head, or all */
    Rotary rotary;                      /* cos NULL: none; heads, and R 0 (all of a head), are filled in */
    Norm inner;
    Dropout prob, drop;                 /* of probabilities; of what joins the stream */
} BlockAttention;

/* The first part: what attends. Queries first, then (when `in` has them) keys and values;
 * in q (q.data NULL: taken here). */
Tensor block_qkv(Tape *t, BlockStream *x, const BlockAttention *w, Tensor q);

/* The second: queries from column 0 of q attend, in a plan, to keys from column k_at of kv on and values behind them (q
 * itself, keys of other rows, a cache); the third: what they saw (or some rows of it, with those of the stream) is
 * projected and joins the stream. With a norm behind, y (y.data NULL: taken here) gets what comes out of it.
 * block_attend is both. */
Tensor block_look(Tape *t, const BlockAttention *w, Tensor q, Tensor kv, int64_t k_at, const AttnPlan *plan);
void block_project(Tape *t, BlockStream *x, const BlockAttention *w, Tensor seen, Tensor y);
void block_attend(Tape *t, BlockStream *x, const BlockAttention *w, Tensor q, Tensor kv, int64_t k_at,
                  const AttnPlan *plan, Tensor y);

typedef struct {
    Norm norm;
    bool behind;
    Param in, in_bias, out, out_bias;
    ActForm act;
    Norm inner;
    Dropout hidden, drop;               /* of what is activated (T5); of what joins the stream */
} BlockFeedForward;

void block_feed_forward(Tape *t, BlockStream *x, const BlockFeedForward *w, Tensor y);
