/* ops_loss: see ops.h. The losses. Their gradients are made at once; the backward only hands them on. */
#include "kernels/ops_inner.h"

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

/* f32 logits of a chunk: 2,198 rows at V = 30523, those of 183 pairs of 13 word pieces. The scratch is given back
 * before the walk back wants as much for gradients of image keys;
 * half as many rows cost a GPU 0.3 ms more, predicted. */
enum { LM_CHUNK_BYTES = 256 << 20 };

void op_lm_loss(Tape *t, float *loss, float *nll, Tensor h, Param w, Param b, const int32_t *target, float smoothing,
                float scale) {
    const Backend *k = t->b;
    BUG_ON(w.cols != h.cols || h.ld != h.cols, "lm_loss: h (%lld,%lld), w (%lld,%lld)", SHAPE(h), SHAPE(w));
    int64_t V = w.rows, C = w.cols, es = dtype_size(k->elem);
    int64_t ld = (V + 7) / 8 * 8; /* rows of logits stay aligned: products on a GPU ask for it */
    int64_t chunk = LM_CHUNK_BYTES / (ld * 4);
    /* a vocabulary of millions of words: thinner products would be slower than they save */
    if (chunk < 16) chunk = 16;
    if (chunk > h.rows) chunk = h.rows;
    bool grad = t->recording;
    /* not scratch: it is handed on when the walk comes by, long after */
    void *dh = grad ? tape_push(t, h.rows * C, (int)es) : NULL;
    float *logits = tape_scratch(t, chunk * ld, sizeof(float));
    void *dlogits = grad ? tape_scratch(t, chunk * ld, (int)es) : NULL;
    for (int64_t r = 0; r < h.rows; r += chunk) {
        int64_t n = h.rows - r < chunk ? h.rows - r : chunk;
        const void *x = ops_columns(h.data, r * C, k->elem);
        ops_weights(t, &(Gemm){.m = n, .n = V, .k = C, .a = x, .lda = C, .tb = true, .bias = b.copy, .c = logits,
                               .ldc = ld, .ab = k->elem, .ct = DT_F32}, w);
        k->xent(&(Xent){.rows = n, .n = V, .ld = ld, .logits = logits, .target = target + r, .smoothing = smoothing,
                        .scale = scale, .loss = loss + r, .nll = nll ? nll + r : NULL, .dlogits = dlogits, .ldd = ld,
                        .dt = k->elem});
        if (!grad) continue;
        /* here, while dlogits stand: the next chunk takes their memory */
        ops_weights(t, &(Gemm){.m = n, .n = C, .k = V, .a = dlogits, .lda = ld, .c = ops_columns(dh, r * C, k->elem),
                               .ldc = C, .ab = k->elem, .ct = k->elem}, w);
        bool add, zeros;
        float *dw = tape_param_grad_to(t, w, &add), *db = tape_param_grad_zeros(t, b, &zeros);
        if (dw)
            ops_gemm(t, &(Gemm){.m = V, .n = C, .k = n, .a = dlogits, .lda = ld, .ta = true, .b = x, .ldb = C, .c = dw,
                            .ldc = C, .ab = k->elem, .ct = DT_F32, .add = add, .sums = db, .sums_zero = zeros});
        else if (db) k->colsum(db, dlogits, n, V, ld);
    }
    if (dlogits) tape_scratch_free(t, dlogits);
    tape_scratch_free(t, logits);
    Node *n = tape_node(t, "lm_loss", handed_on);
    if (n) n->x = h, n->saved[0] = dh;
}
