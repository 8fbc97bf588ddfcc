/* bench_cuda: every hand-written kernel against its roofline, in bf16 at the shapes of a training step.
 *
 *     bench_cuda [time|bytes] [name] [size]
 *
 * time (on a GPU): B = 128 pairs, 13 word pieces, ViT-g. A line an op: what promise.h says of it, bytes and FLOPs and
 * the time an H100 SXM needs for them, the time it took here, and the share. On another card the prediction is for that
 * H100 all the same; the measured time is this card's. bytes (under vgpu with VGPU_STATS=1; tests/bench/vgpu_bytes.sh
 * compares): a small batch, each op once, one op a process; prints the bytes promised, counted as vgpu counts. Under
 * VGPU_TIME the same predicts; size: the rows of the ops without images and texts, the pairs of attention, the numbers
 * of AdamW, where the small batch would not fill a GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/bench/promise.h"
#include "tests/bench/must.h"

static const Backend *b;
static bool timing;
static const char *only;
static int64_t B, NQ, NT, elements; /* pairs; query and text rows of wave 1; of AdamW, 0: some */
enum { Q = 32, T = 13, P = 257, E = 1408, C = 768, H = 12, D = 64, F = 3072, V = 30523, Z = 256 };

static void *take(size_t bytes) {
    void *p;
    must(b->alloc(&p, bytes));
    return p;
}

/* n numbers, the same everywhere but small and never all equal. */
static void *numbers(DType t, int64_t n) {
    size_t e = (size_t)dtype_size(t), bytes = (size_t)n * e;
    char *host = malloc(bytes);
    if (!host) exit(1);
    for (int64_t i = 0; i < n; i++) {
        float f = (float)((i * 2654435761u) >> 8 & 0xffff) / 65536.0f - 0.5f;
        if (t == DT_F64) ((double *)(void *)host)[i] = (double)f;
        else dtype_from_f32(host + (size_t)i * e, t, &f, 1);
    }
    void *p = take(bytes);
    b->upload(p, host, bytes);
    b->sync();
    free(host);
    return p;
}
static int32_t *indices(int64_t n, int64_t below) {
    int32_t *host = malloc((size_t)n * sizeof *host);
    if (!host) exit(1);
    for (int64_t i = 0; i < n; i++) host[i] = (int32_t)((i * 7919 + 13) % below);
    int32_t *p = take((size_t)n * sizeof *p);
    b->upload(p, host, (size_t)n * sizeof *p);
    b->sync();
    free(host);
    return p;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool wants(const char *name) { return !only || strcmp(only, name) == 0; }

static void report(const char *name, void (*launch)(void), Promise p) {
    if (!wants(name)) return;
    if (!timing) {
        launch();
        b->sync();
        must(b->status());
        printf("PROMISED %.0f %s\n", p.bytes + p.again, name);
        return;
    }
    double best = 1e30;
    for (int i = 0; i < 5; i++) { /* ten at a time: a launch costs less than the wait for it */
        double t = now();
        for (int k = 0; k < 10; k++) launch();
        b->sync();
        t = (now() - t) / 10;
        if (i && t < best) best = t;
    }
    must(b->status());
    printf("%-28s %9.1f MB %9.2f GFLOP %9.1f us predicted %9.1f us measured %6.1f %%\n", name, p.bytes * 1e-6,
           p.flops * 1e-9, p.seconds * 1e6, best * 1e6, 100.0 * p.seconds / best);
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

static AddNorm norm;
static AddNormGrad norm_grad;
static void run_norm(void) { b->add_norm(&norm); }
static void run_norm_bwd(void) { b->add_norm_bwd(&norm, &norm_grad); }
static void *u, *h, *dh, *du;
static float *bias, *dbias;
static int64_t N;
static Act act;
static ActGrad act_grad;
static void run_act(void) { b->act(&act); }
static void run_act_bwd(void) { b->act_bwd(&act, &act_grad); }
static Gemm product, layer[4];
static void run_product(void) { b->gemm(&product); }
static void run_layer(void) { b->gemms(layer, 4); }
static void run_colsum(void) { b->colsum(dbias, u, N, F, F); }
static Embed embed;
static EmbedGrad embed_grad;
static void run_embed(void) { b->embed(&embed); }
static void run_embed_bwd(void) { b->embed_bwd(&embed, &embed_grad); }

static void rows(void) {
    RowKey *keys = (RowKey *)(void *)indices(2 * N, 1000);
    norm = (AddNorm){.N = N,
                     .C = C,
                     .eps = 1e-12f,
                     .s = numbers(DT_BF16, N * C),
                     .x = numbers(DT_BF16, N * C),
                     .bias = numbers(DT_F32, C),
                     .gamma = numbers(DT_F32, C),
                     .beta = numbers(DT_F32, C),
                     .y = take((size_t)(N * C) * 2),
                     .mean = take((size_t)N * 4),
                     .rstd = take((size_t)N * 4),
                     .drop = {0.1f, 20, 1, 1, keys}};
    report("add_norm", run_norm, promise_add_norm(&norm));
    norm_grad = (AddNormGrad){.dy = numbers(DT_BF16, N * C),
                              .ds = take((size_t)(N * C) * 2),
                              .dx = numbers(DT_BF16, N * C),
                              .dbias = numbers(DT_F32, C),
                              .dgamma = numbers(DT_F32, C),
                              .dbeta = numbers(DT_F32, C)};
    if (wants("add_norm_bwd")) b->add_norm(&norm);
    report("add_norm_bwd", run_norm_bwd, promise_add_norm_bwd(&norm, &norm_grad));

    u = numbers(DT_BF16, N * F), h = take((size_t)(N * F) * 2), dh = numbers(DT_BF16, N * F),
    du = take((size_t)(N * F) * 2);
    bias = numbers(DT_F32, F), dbias = numbers(DT_F32, F);
    act = (Act){.kind = ACT_GELU, .N = N, .F = F, .ldu = F, .ldh = F, .u = u, .bias = bias, .h = h};
    act_grad = (ActGrad){.dh = dh, .du = du, .lddh = F, .lddu = F, .dbias = dbias};
    report("act", run_act, promise_act(&act));
    report("act_bwd", run_act_bwd, promise_act_bwd(&act, &act_grad));
    report("colsum", run_colsum, promise_colsum(N, F, F));
}

/* The feed-forward's two products with GELU around them. Hopper alone has a kernel of its own for them. */
static void products(void) {
    if (!wants("product, act") && !wants("product, act_bwd")) return;
    product = (Gemm){.m = N, .n = F, .k = C, .a = numbers(DT_BF16, N * C), .lda = C, .b = numbers(DT_BF16, F * C),
                     .ldb = C, .c = u, .ldc = F, .ab = DT_BF16, .ct = DT_BF16, .tb = true, .act = &act};
    act.h = h;
    report("product, act", run_product, promise_product_act(&product));
    product.tb = false, product.ldb = F, product.c = du, product.grad = &act_grad;
    act.h = NULL, act_grad.dh = du;
    report("product, act_bwd", run_product, promise_product_act(&product));
}

/* Gradients of a layer's weights, three of them with their bias's. Hopper alone has a kernel that makes them at once. */
static void weights(void) {
    static const struct { int64_t m, n; } of[] = {{F, C}, {C, F}, {3 * C, C}, {C, C}};
    if (!wants("products, dW")) return;
    for (int i = 0; i < 4; i++)
        layer[i] = (Gemm){.m = of[i].m, .n = of[i].n, .k = N, .a = numbers(DT_BF16, N * of[i].m), .lda = of[i].m,
                          .b = numbers(DT_BF16, N * of[i].n), .ldb = of[i].n, .c = take((size_t)(of[i].m * of[i].n) * 4),
                          .ldc = of[i].n, .ab = DT_BF16, .ct = DT_F32, .ta = true,
                          .sums = i ? take((size_t)of[i].m * 4) : NULL, .sums_zero = true};
    report("products, dW", run_layer, promise_gemms(layer, 4));
}

/* What language models and encoders ask beside: gated activations, RMS norms of wide rows that nobody learns, positions
 * as angles, norms of heads, rows by number. */
enum { WIDE = 4096, GATE = 11008, HEADS = 32, HEAD = 128 };
static AddNorm wide;
static AddNormGrad wide_grad;
static Rotary turn;
static HeadNorm heads;
static Lookup look;
static void run_wide(void) { b->add_norm(&wide); }
static void run_wide_bwd(void) { b->add_norm_bwd(&wide, &wide_grad); }
static void run_rotary(void) { b->rotary(&turn); }
static void run_heads(void) { b->head_norm(&heads); }
static void run_lookup(void) { b->lookup(&look); }

static void *matrix(int64_t cols) { return numbers(DT_BF16, N * cols); }
static void *empty(int64_t cols) { return take((size_t)(N * cols) * 2); }

static void language(void) {
    if (wants("act, gated") || wants("act_bwd, gated")) {
        bf16 *pair = matrix(2 * GATE), *grads = empty(2 * GATE);
        act = (Act){.kind = ACT_SILU, .N = N, .F = GATE, .ldu = 2 * GATE, .ldh = GATE, .u = pair, .up = pair + GATE,
                    .h = empty(GATE)};
        report("act, gated", run_act, promise_act(&act));
        act.h = NULL;
        act_grad = (ActGrad){.dh = matrix(GATE), .du = grads, .dup = grads + GATE, .lddh = GATE, .lddu = 2 * GATE};
        report("act_bwd, gated", run_act_bwd, promise_act_bwd(&act, &act_grad));
    }
    if (wants("norm, wide") || wants("norm_bwd, wide")) {
        wide = (AddNorm){.N = N, .C = WIDE, .eps = 1e-5f, .rms = true, .s = matrix(WIDE), .x = matrix(WIDE),
                         .gamma = numbers(DT_F32, WIDE), .y = empty(WIDE), .rstd = take((size_t)N * 4)};
        report("norm, wide", run_wide, promise_add_norm(&wide));
        void *dz = matrix(WIDE);
        wide_grad = (AddNormGrad){.dy = matrix(WIDE), .dz = dz, .ds = dz};
        if (wants("norm_bwd, wide")) b->add_norm(&wide);
        report("norm_bwd, wide", run_wide_bwd, promise_add_norm_bwd(&wide, &wide_grad));
    }
    if (wants("rotary") || wants("head_norm")) {
        turn = (Rotary){.N = N, .ld = HEADS * HEAD, .H = HEADS, .D = HEAD, .R = HEAD, .x = matrix(HEADS * HEAD),
                        .cos = numbers(DT_F32, 64 * HEAD / 2), .sin = numbers(DT_F32, 64 * HEAD / 2),
                        .at = indices(N, 64)};
        report("rotary", run_rotary, promise_rotary(&turn));
        heads = (HeadNorm){.N = N, .ld = HEADS * HEAD, .blocks = HEADS, .C = HEAD, .eps = 1e-6f, .rms = true,
                           .x = turn.x,
                           .gamma = numbers(DT_F32, HEAD)};
        report("head_norm", run_heads, promise_head_norm(&heads));
    }
    look = (Lookup){.N = N, .C = WIDE, .scale = 1, .word = wants("lookup") ? numbers(DT_BF16, 1000 * WIDE) : NULL,
                     .ids = indices(N, 1000), .y = wants("lookup") ? empty(WIDE) : NULL};
    report("lookup", run_lookup, promise_lookup(&look));
}

/* Lists of 64 rows a word, and the same a position. */
static void embedding(void) {
    int64_t nt = NT, per = 64, words = (nt + per - 1) / per;
    int32_t *ptr = malloc((size_t)(words + 1) * sizeof *ptr);
    if (!ptr) exit(1);
    for (int64_t i = 0; i <= words; i++) ptr[i] = (int32_t)(i * per < nt ? i * per : nt);
    int32_t *dptr = take((size_t)(words + 1) * 4), *list = indices(nt, nt), *ids = indices(words, words);
    b->upload(dptr, ptr, (size_t)(words + 1) * 4);
    b->sync();
    free(ptr);
    embed = (Embed){.nq = NQ,
                    .nt = nt,
                    .Q = Q,
                    .C = C,
                    .eps = 1e-12f,
                    .query = numbers(DT_BF16, Q * C),
                    .word = numbers(DT_BF16, 1000 * C),
                    .pos = numbers(DT_BF16, 32 * C),
                    .ids = indices(nt, 1000),
                    .pos_id = indices(nt, 32),
                    .tok_id = ids,
                    .tok_ptr = dptr,
                    .tok_row = list,
                    .posn_id = ids,
                    .posn_ptr = dptr,
                    .posn_row = list,
                    .ntok = (int32_t)words,
                    .nposn = (int32_t)words,
                    .gamma = norm.gamma,
                    .beta = norm.beta,
                    .y = take((size_t)((NQ + nt) * C) * 2),
                    .mean = take((size_t)(NQ + nt) * 4),
                    .rstd = take((size_t)(NQ + nt) * 4),
                    .drop = {0, 0, 1, 1, NULL}};
    report("embed", run_embed, promise_embed(&embed));
    embed_grad = (EmbedGrad){.dy = numbers(DT_BF16, (NQ + nt) * C),
                             .dsum = take((size_t)((NQ + nt) * C) * 2),
                             .dquery = numbers(DT_F32, Q * C),
                             .dword = numbers(DT_F32, 1000 * C),
                             .dpos = numbers(DT_F32, 1000 * C),
                             .dgamma = numbers(DT_F32, C),
                             .dbeta = numbers(DT_F32, C)};
    if (wants("embed_bwd")) b->embed(&embed);
    report("embed_bwd", run_embed_bwd, promise_embed_bwd(&embed));
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

static Attn attn;
static AttnGrad attn_grad;
static void run_attention(void) { b->attention(&attn); }
static void run_attention_bwd(void) { b->attention_bwd(&attn, &attn_grad); }

/* n groups alike: `users` items of nq rows on nk keys, or queries and text of one pair. The plan stays: a few
 * kilobytes. */
static void attention(const char *name, const char *back_name, int32_t n, int32_t users, int32_t nq, int32_t nk,
                      int32_t text) {
    int32_t items_n = n * (users + (text > 0)), row = 0, key = 0;
    AttnItem *it = calloc((size_t)items_n, sizeof *it);
    AttnGroup *gr = calloc((size_t)n, sizeof *gr);
    if (!it || !gr) exit(1);
    static AttnPlan p;
    p = (AttnPlan){
        .host_items = it, .host_groups = gr, .ngroups = n, .max_nq = nq, .max_nk = nk + text, .max_group_nk = nk};
    for (int32_t g = 0; g < n; g++) {
        gr[g] = (AttnGroup){.item0 = p.nitems, .nitems = users + (text > 0), .k0 = {key, key + nk}, .nk = {nk, text}};
        for (int32_t k = 0; k < users + (text > 0); k++) {
            int32_t rows_k = k < users ? nq : text;
            it[p.nitems++] =
                (AttnItem){.q0 = row, .nq = rows_k, .a0 = key, .na = nk, .b0 = key + nk, .nb = text, .group = g};
            row += rows_k;
            p.products += (int64_t)rows_k * (nk + text);
        }
        key += nk + text;
    }
    p.nrows = row;
    AttnItem *dit = take((size_t)items_n * sizeof *dit);
    AttnGroup *dgr = take((size_t)n * sizeof *dgr);
    b->upload(dit, it, (size_t)items_n * sizeof *dit);
    b->upload(dgr, gr, (size_t)n * sizeof *dgr);
    b->sync();
    p.items = dit, p.groups = dgr;
    attn = (Attn){.plan = &p,
                  .q = numbers(DT_BF16, (int64_t)row * C),
                  .k = numbers(DT_BF16, (int64_t)key * 2 * C),
                  .o = numbers(DT_BF16, (int64_t)row * C),
                  .lse = take((size_t)row * H * 4),
                  .ldq = C,
                  .ldk = 2 * C,
                  .ldv = 2 * C,
                  .ldo = C,
                  .H = H,
                  .KH = H,
                  .D = D,
                  .scale = 0.125f,
                  .drop = {0.1f, 17, 1, 1, (RowKey *)(void *)indices(2 * (int64_t)row, 1000)}};
    attn.v = (const bf16 *)attn.k + C;
    report(name, run_attention, promise_attention(&attn));
    bf16 *dk = numbers(DT_BF16, (int64_t)key * 2 * C);
    attn_grad = (AttnGrad){.d_o = numbers(DT_BF16, (int64_t)row * C),
                           .dq = take((size_t)row * C * 2),
                           .dk = dk,
                           .dv = dk + C,
                           .lddq = C,
                           .lddk = 2 * C,
                           .lddv = 2 * C};
    if (wants(back_name)) b->attention(&attn);
    report(back_name, run_attention_bwd, promise_attention_bwd(&attn, &attn_grad));
}

/* All rows of an image on one another, q, k and v in one tensor, as image encoders have it. */
static void encoder(const char *name, int32_t n, int32_t tokens, int32_t many, int32_t size) {
    if (!wants(name)) return;
    AttnItem *it = calloc((size_t)n, sizeof *it);
    AttnGroup *gr = calloc((size_t)n, sizeof *gr);
    if (!it || !gr) exit(1);
    for (int32_t g = 0; g < n; g++) {
        it[g] = (AttnItem){.q0 = g * tokens, .nq = tokens, .a0 = g * tokens, .na = tokens, .group = g};
        gr[g] = (AttnGroup){.item0 = g, .nitems = 1, .k0 = {g * tokens}, .nk = {tokens}};
    }
    AttnItem *dit = take((size_t)n * sizeof *dit);
    AttnGroup *dgr = take((size_t)n * sizeof *dgr);
    b->upload(dit, it, (size_t)n * sizeof *dit);
    b->upload(dgr, gr, (size_t)n * sizeof *dgr);
    b->sync();
    static AttnPlan p;
    p = (AttnPlan){.items = dit, .groups = dgr, .host_items = it, .host_groups = gr, .nitems = n, .ngroups = n,
                   .nrows = n * tokens, .max_nq = tokens, .max_nk = tokens, .max_group_nk = tokens,
                   .products = (int64_t)n * tokens * tokens};
    int64_t E2 = (int64_t)many * size, rows = (int64_t)n * tokens;
    attn = (Attn){.plan = &p, .q = numbers(DT_BF16, rows * 3 * E2), .o = numbers(DT_BF16, rows * E2),
                  .lse = take((size_t)(rows * many) * 4), .ldq = 3 * E2, .ldk = 3 * E2, .ldv = 3 * E2, .ldo = E2,
                  .H = many, .KH = many, .D = size, .scale = 0.1f};
    attn.k = (const bf16 *)attn.q + E2, attn.v = (const bf16 *)attn.q + 2 * E2;
    report(name, run_attention, promise_attention(&attn));
}

/* A new row a beam of each of n images: keys of the image's prefix and of the beam's own past, in a cache. */
static void decoding(int32_t n, int32_t beams, int32_t prefix, int32_t past) {
    if (!wants("attention, row")) return;
    int32_t rows = n * beams, H8 = 8, keys = n * (prefix + beams * past);
    AttnItem *it = calloc((size_t)rows, sizeof *it);
    AttnGroup *gr = calloc((size_t)n, sizeof *gr);
    if (!it || !gr) exit(1);
    static AttnPlan p;
    p = (AttnPlan){.host_items = it, .host_groups = gr, .ngroups = n, .nitems = rows, .max_nq = 1, .nrows = rows,
                   .max_nk = prefix + past, .max_group_nk = prefix > beams * past ? prefix : beams * past,
                   .products = (int64_t)rows * (prefix + past)};
    for (int32_t g = 0; g < n; g++) {
        int32_t at = g * (prefix + beams * past), own = at + prefix;
        gr[g] = (AttnGroup){.item0 = g * beams, .nitems = beams, .k0 = {at, own}, .nk = {prefix, beams * past}};
        for (int32_t k = 0; k < beams; k++)
            it[g * beams + k] = (AttnItem){.q0 = g * beams + k, .nq = 1, .a0 = at, .na = prefix, .b0 = own + k * past,
                                           .nb = past, .group = g, .pos = prefix + past - 1};
    }
    AttnItem *dit = take((size_t)rows * sizeof *dit);
    b->upload(dit, it, (size_t)rows * sizeof *dit);
    b->sync();
    p.items = dit;
    bf16 *cache = numbers(DT_BF16, (int64_t)keys * 2 * H8 * HEAD);
    attn = (Attn){.plan = &p, .q = numbers(DT_BF16, (int64_t)rows * HEADS * HEAD), .k = cache, .v = cache + H8 * HEAD,
                  .o = take((size_t)rows * HEADS * HEAD * 2), .lse = take((size_t)rows * HEADS * 4),
                  .ldq = HEADS * HEAD,
                  .ldk = 2 * H8 * HEAD, .ldv = 2 * H8 * HEAD, .ldo = HEADS * HEAD, .H = HEADS, .KH = H8, .D = HEAD,
                  .scale = 0.088f};
    report("attention, row", run_attention, promise_attention(&attn));
}

/* cuDNN's attention beside ours: the same plan without dropout, which cuDNN cannot draw as we do. */
static void beside_cudnn(void) {
    if (!timing) return;
    attn.drop.p = 0;
    Promise p = promise_attention(&attn);
    report("attention, cross, ours", run_attention, p);
    if (b->use_cudnn(true) != OK) printf("%s\n", err_message());
    else report("attention, cross, cuDNN", run_attention, p), b->use_cudnn(false);
}

/* ---- image, heads, losses, optimizer --------------------------------------------------------------------------- */

static void *features, *xhat, *Wf, *cf;
static float *W, *G, *vec_m, *vec_e, *dW, *db, *dgamma, *dbeta;
static int64_t M;
static void run_normalize(void) { b->normalize(xhat, features, DT_F16, NULL, B * P, E, P, 1e-5f); }
static void run_packed(void) { b->normalize(xhat, features, DT_E4M3, vec_e, B * P, E, P, 1e-5f); }
static void run_fold(void) { b->fold(Wf, cf, W, vec_m, vec_e, vec_e, M, E); }
static void run_unfold(void) { b->unfold(dW, false, db, dgamma, dbeta, G, vec_m, W, vec_e, vec_e, M, E); }
static float *I, *X, *S, *dI, *dX;
static int32_t *arg;
static void run_simmax(void) { b->simmax(S, arg, I, X, B, B, Q, Z, B, 1); }
static void run_simmax_image(void) { b->simmax_bwd_image(dI, S, arg, X, B, B, Q, Z, B, 1); }
static void run_simmax_text(void) { b->simmax_bwd_text(dX, S, arg, I, B, B, Q, Z, B, 1); }
static Xent xent;
static void run_xent(void) { b->xent(&xent); }
static AdamW adam;
static double *total;
static void run_adamw(void) { b->adamw(&adam), b->adamw_wait(adam.beside); }
static void run_sumsq(void) { b->sumsq(total, adam.g, adam.n, false); }

static void rest(void) {
    M = timing ? 12 * C : 2 * C;
    features = numbers(DT_F16, B * P * E), xhat = take((size_t)(B * P * E) * 2);
    report("normalize", run_normalize, promise_normalize(DT_F16, B * P, E));
    W = numbers(DT_F32, M * E), G = numbers(DT_F32, M * E), dW = numbers(DT_F32, M * E), Wf = take((size_t)(M * E) * 2),
    cf = take((size_t)M * 2);
    vec_m = numbers(DT_F32, M), vec_e = numbers(DT_F32, E), db = numbers(DT_F32, M), dgamma = numbers(DT_F32, E),
    dbeta = numbers(DT_F32, E);
    report("normalize, packed", run_packed, promise_normalize(DT_E4M3, B * P, E));
    report("fold", run_fold, promise_fold(M, E));
    report("unfold", run_unfold, promise_unfold(M, E, false));

    I = numbers(DT_F32, B * Q * Z), X = numbers(DT_F32, B * Z), S = take((size_t)(B * B) * 4),
    arg = take((size_t)(B * B) * 4);
    dI = numbers(DT_F32, B * Q * Z), dX = numbers(DT_F32, B * Z);
    report("simmax", run_simmax, promise_simmax(B, B, Q, Z));
    if (wants("simmax_bwd_image") || wants("simmax_bwd_text")) b->simmax(S, arg, I, X, B, B, Q, Z, B, 1);
    report("simmax_bwd_image", run_simmax_image, promise_simmax_bwd_image(B, B, Q, Z));
    report("simmax_bwd_text", run_simmax_text, promise_simmax_bwd_text(B, B, Z));

    int64_t chunk = timing ? 512 : 16;
    xent = (Xent){.rows = chunk,
                  .n = V,
                  .ld = V,
                  .logits = numbers(DT_F32, chunk * V),
                  .target = indices(chunk, V),
                  .smoothing = 0.1f,
                  .scale = 1.0f,
                  .loss = take((size_t)chunk * 4),
                  .dlogits = take((size_t)(chunk * V) * 2),
                  .ldd = V,
                  .dt = DT_BF16};
    report("xent", run_xent, promise_xent(&xent));

    if (wants("xent, long")) {
        enum { LONG = 152064 };
        int64_t rows_n = timing ? 110 : 4;
        xent.rows = rows_n, xent.n = xent.ld = xent.ldd = LONG, xent.logits = numbers(DT_F32, rows_n * LONG);
        xent.target = indices(rows_n, LONG), xent.dlogits = take((size_t)(rows_n * LONG) * 2);
        report("xent, long", run_xent, promise_xent(&xent));
    }

    int64_t params = timing ? 186705470 : elements ? elements : 1000000;
    adam = (AdamW){.p = numbers(DT_F32, params),
                   .g = numbers(DT_F32, params),
                   .m = numbers(DT_F32, params),
                   .v = take((size_t)params * 4),
                   .copy = take((size_t)params * 2),
                   .n = params,
                   .gscale = numbers(DT_F32, 1),
                   .lr = 1e-4f,
                   .beta1 = 0.9f,
                   .beta2 = 0.98f,
                   .eps = 1e-8f,
                   .weight_decay = 0.05f,
                   .c1 = 0.1f,
                   .c2 = 0.02f};
    b->zero(adam.v, (size_t)params * 4);
    total = take(sizeof *total);
    report("adamw", run_adamw, promise_adamw(&adam));
    adam.beside = 1;
    report("adamw, beside", run_adamw, promise_adamw(&adam));
    report("sumsq", run_sumsq, promise_sumsq(params));
}

int main(int argc, char **argv) {
    timing = argc < 2 || strcmp(argv[1], "bytes") != 0;
    only = argc > 2 ? argv[2] : NULL;
    if (backend_cuda(&b, DT_BF16, 0) != OK) {
        printf("bench_cuda: %s\n", err_message());
        return 0;
    }
    void *workspace = take(b->workspace);
    b->set_workspace(workspace, b->workspace);
    B = timing ? 128 : 4;
    int size = argc > 3 ? atoi(argv[3]) : 0;
    bool pairs = size && strncmp(only, "attention", 9) == 0;
    if (pairs) B = size;
    if (size && strncmp(only, "adamw", 5) == 0) elements = size, size = 0;
    NQ = B * 2 * Q, NT = B * 3 * T, N = size && !pairs ? size : timing ? NQ + NT : 300;
    rows();
    products();
    weights();
    language();
    embedding();
    attention("attention, cross", "attention_bwd, cross", (int32_t)B, 2, Q, P, 0);
    beside_cudnn();
    encoder("attention, CLIP-L", (int32_t)B / 2, P, 16, 64);
    encoder("attention, EVA-g", (int32_t)B / 2, P, 16, 88);
    encoder("attention, wide", (int32_t)B / 2, P, 8, 128);
    encoder("attention, CLIP-L at 336", (int32_t)B / 2, 577, 16, 64);
    encoder("attention, EVA-g at 364", (int32_t)B / 2, 677, 16, 88);
    encoder("attention, SigLIP at 384", (int32_t)B / 2, 729, 16, 72);
    encoder("attention, wide, long", (int32_t)B / 2, 1370, 8, 128);
    decoding((int32_t)B / 2, 5, 48, 112);
    attention("attention, joint", "attention_bwd, joint", (int32_t)(B * 3), 1, Q, Q, T);
    rest();
    return 0;
}
