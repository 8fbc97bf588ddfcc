/* test_block: layers in every form that block.h knows, as values: gradients against differences of the forward, frozen
 * weights give the same gradient to what enters and none to themselves, and a forward that nobody walks back gives the
 * same bits in a memory that does not grow with depth. (Against other implementations: golden, model by model.) */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/model/block.h"
#include "kernels/model/params.h"
#include "tests/kit/check.h"

enum { N = 22, C = 24, H = 4, D = 6, F = 40, LAYERS = 3 };

typedef struct {
    const char *name;
    bool behind, rms, bias, gated, rotary, inner, head_norm;
    int KH;
    ActKind act;
} Form;

static const Form forms[] = {
    {.name = "BERT", .behind = true, .bias = true, .KH = H, .act = ACT_GELU},
    {.name = "ViT", .bias = true, .KH = H, .act = ACT_GELU_TANH},
    {.name = "OPT", .bias = true, .KH = H, .act = ACT_RELU},
    {.name = "T5", .rms = true, .gated = true, .KH = H, .act = ACT_GELU_TANH},
    {.name = "Llama", .rms = true, .gated = true, .rotary = true, .KH = 2, .act = ACT_SILU},
    {.name = "EVA-02", .bias = true, .gated = true, .rotary = true, .inner = true, .KH = H, .act = ACT_SILU},
    {.name = "norms of heads", .rms = true, .head_norm = true, .KH = 1, .act = ACT_GELU_QUICK},
};

/* Small letters: b biases, o offsets of norms, i inner norms, h norms of heads. */
enum { N1_W, N1_B, IN_W, IN_B, OUT_W, OUT_B, Q_NORM, K_NORM, O_NORM, N2_W, N2_B, UP_W, UP_B, DOWN_W, DOWN_B, H_NORM,
      ROWS };
static const ParamRow rows[ROWS] = {
    {.name = "%d.norm1.weight", .shape = "C", .where = "L", .start = START_ONES},
    {.name = "%d.norm1.bias", .shape = "C", .where = "L?o"},
    {.name = "%d.in.weight", .shape = "AC", .where = "L"},
    {.name = "%d.in.bias", .shape = "A", .where = "L?b"},
    {.name = "%d.out.weight", .shape = "CC", .where = "L"},
    {.name = "%d.out.bias", .shape = "C", .where = "L?b"},
    {.name = "%d.q_norm", .shape = "D", .where = "L?h", .start = START_ONES},
    {.name = "%d.k_norm", .shape = "D", .where = "L?h", .start = START_ONES},
    {.name = "%d.o_norm", .shape = "C", .where = "L?i", .start = START_ONES},
    {.name = "%d.norm2.weight", .shape = "C", .where = "L", .start = START_ONES},
    {.name = "%d.norm2.bias", .shape = "C", .where = "L?o"},
    {.name = "%d.up.weight", .shape = "UC", .where = "L"},
    {.name = "%d.up.bias", .shape = "U", .where = "L?b"},
    {.name = "%d.down.weight", .shape = "CF", .where = "L"},
    {.name = "%d.down.bias", .shape = "C", .where = "L?b"},
    {.name = "%d.h_norm", .shape = "F", .where = "L?i", .start = START_ONES},
};

/* Two groups: 9 rows that see each other, and a prefix of 6 with 7 rows behind it that see it and their own past. */
static const AttnItem items[] = {{.q0 = 0, .nq = 9, .b0 = 0, .nb = 9, .group = 0},
                                 {.q0 = 9, .nq = 6, .a0 = 9, .na = 6, .causal = CAUSAL_A, .group = 1},
                                 {.q0 = 15, .nq = 7, .a0 = 9, .na = 6, .b0 = 15, .nb = 7, .causal = CAUSAL_B,
                                  .group = 1,
                                  .pos = 6}};
static const AttnGroup groups[] = {{.item0 = 0, .nitems = 1, .k0 = {0, 0}, .nk = {0, 9}},
                                   {.item0 = 1, .nitems = 2, .k0 = {9, 15}, .nk = {6, 7}}};
static const AttnPlan plan = {.items = items, .groups = groups, .host_items = items, .host_groups = groups, .nitems = 3,
                              .ngroups = 2, .max_nq = 9, .max_nk = 13, .max_group_nk = 9, .nrows = N, .products = 172};

typedef struct {
    const Form *f;
    int layers;
    Params p;
    Arena run, step;
    Tape t;
    float in[N * C], weight[N * C], cos[N * D / 2], sin[N * D / 2];
} Net;

static float noise(uint32_t i, uint32_t k) { return 2 * rng_unit(philox(i, k, 0, 0, 5, 5).v[0]) - 1; }

static Param get(const Net *n, int row, int l) {
    return params_has(&n->p, row, l) ? params_get(&n->p, row, l) : (Param){.frozen = true};
}
static Norm norm(const Net *n, int gain, int offset, int l) {
    return (Norm){.g = get(n, gain, l), .o = offset < 0 ? (Param){.frozen = true} : get(n, offset, l), .eps = 1e-5f,
                  .rms = n->f->rms || offset < 0};
}

static void open_net(Net *n, const Form *f, int layers, bool frozen) {
    const Backend *b = backend_cpu(DT_F32);
    ParamSizes s = {{0}};
    *n = (Net){.f = f, .layers = layers};
    s.of['L'] = layers, s.of['C'] = C, s.of['D'] = D, s.of['F'] = F, s.of['A'] = C + 2 * f->KH * D;
    s.of['U'] = f->gated ? 2 * F : F, s.of['b'] = f->bias, s.of['o'] = !f->rms, s.of['h'] = f->head_norm;
    s.of['i'] = f->inner;
    passes(arena_open(&n->run, "weights", b, 4 << 20));
    passes(arena_open(&n->step, "step", b, 8 << 20));
    passes(params_open(&n->p, (ParamTable){rows, ROWS}, &s, b, &n->run,
                     &(ParamsSpec){.training = !frozen, .frozen = frozen}));
    passes(params_init(&n->p, 3, 0.3f));
    passes(tape_open(&n->t, b, &n->step));
    for (uint32_t i = 0; i < N * C; i++) n->in[i] = 2 * noise(i, 1), n->weight[i] = noise(i, 2);
    for (int i = 0; i < N * D / 2; i++) n->cos[i] = cosf(0.3f * (float)i), n->sin[i] = sinf(0.3f * (float)i);
}

static void close_net(Net *n) {
    tape_close(&n->t);
    arena_close(&n->step, n->p.b);
    arena_close(&n->run, n->p.b);
    params_close(&n->p);
}

static BlockAttention attention(const Net *n, int l) {
    const Form *f = n->f;
    BlockAttention a = {.norm = norm(n, N1_W, N1_B, l), .behind = f->behind, .in = get(n, IN_W, l),
                        .in_bias = get(n, IN_B, l),
                        .out = get(n, OUT_W, l), .out_bias = get(n, OUT_B, l), .heads = op_heads(H, f->KH, D), .D = D};
    if (f->rotary) a.rotary = (Rotary){.cos = n->cos, .sin = n->sin, .period = N};
    if (f->inner) a.inner = norm(n, O_NORM, -1, l);
    if (f->head_norm) a.q_norm = norm(n, Q_NORM, -1, l), a.k_norm = norm(n, K_NORM, -1, l);
    return a;
}

static BlockFeedForward feed_forward(const Net *n, int l) {
    BlockFeedForward f = {.norm = norm(n, N2_W, N2_B, l), .behind = n->f->behind, .in = get(n, UP_W, l),
                          .in_bias = get(n, UP_B, l), .out = get(n, DOWN_W, l), .out_bias = get(n, DOWN_B, l),
                          .act = {n->f->act, n->f->gated, false}};
    if (n->f->inner) f.inner = norm(n, H_NORM, -1, l);
    return f;
}

/* The gradient of what enters, before the walk back gives its memory away. */
static void entered_back(Tape *t, const Node *n) { memcpy(n->saved[0], tape_grad_of(t, n->y), N * C * sizeof(float)); }

/* y (N,C): all layers, and a last norm; loss = sum weight y. Recording: walked back, din (N,C) being the gradient of
 * what enters. y and din may be NULL. */
static double forward(Net *n, bool recording, float *y, float *din) {
    Tape *t = &n->t;
    tape_reset(t, recording);
    Tensor x0 = tape_new(t, N, C, DT_F32), h = tape_new(t, N, C, DT_F32);
    memcpy(x0.data, n->in, sizeof n->in);
    Node *entered = tape_node(t, "entered", entered_back);
    float unwanted[N * C];
    if (entered) entered->y = x0, entered->saved[0] = din ? din : unwanted;
    BlockStream x = block_stream(t, x0);
    for (int l = 0; l < n->layers; l++) {
        BlockAttention a = attention(n, l);
        BlockFeedForward f = feed_forward(n, l);
        Tensor qkv = block_qkv(t, &x, &a, (Tensor){0});
        block_attend(t, &x, &a, qkv, qkv, C, &plan, (Tensor){0});
        block_feed_forward(t, &x, &f, (Tensor){0});
    }
    block_norm(t, h, &x, norm(n, N1_W, N1_B, 0));
    double loss = 0;
    for (int i = 0; i < N * C; i++) loss += (double)n->weight[i] * ((const float *)h.data)[i];
    if (y) memcpy(y, h.data, sizeof n->in);
    if (recording) {
        tape_seed(t, h, n->weight);
        tape_backward(t);
    }
    passes(tape_status(t));
    return loss;
}

/* Along the gradient the loss grows by its length. */
static void gradients_are_slopes(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
        Net n;
        open_net(&n, &forms[k], LAYERS, false);
        forward(&n, true, NULL, NULL);
        double length = 0, slope[2], h = 2e-3;
        for (int64_t i = 0; i < n.p.learns; i++) length += (double)n.p.g[i] * n.p.g[i];
        length = sqrt(length);
        float *w = mem_new((size_t)n.p.total, sizeof *w);
        memcpy(w, n.p.w, (size_t)n.p.total * sizeof *w);
        for (int s = 0; s < 2; s++) {
            for (int64_t i = 0; i < n.p.learns; i++) n.p.w[i] = w[i] + (float)((s ? -h : h) * n.p.g[i] / length);
            slope[s] = forward(&n, false, NULL, NULL);
        }
        double found = (slope[0] - slope[1]) / (2 * h);
        if (!(fabs(found - length) < 4e-3 * length)) fail_msg("%s: slope %.6g, gradient %.6g", forms[k].name, found,
                                                              length);
        for (int i = 0; i < n.p.n; i++) {                    /* every tensor is reached */
            const ParamTensor *t = &n.p.tensor[i];
            double most = 0;
            for (int64_t j = 0; j < t->n; j++) most = fmax(most, fabs((double)n.p.g[t->at + j]));
            if (most == 0) fail_msg("%s: no gradient of %s", forms[k].name, t->name);
        }
        free(w);
        close_net(&n);
    }
}

static void frozen_hands_the_gradient_on(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
        Net learned, frozen;
        float a[N * C], b[N * C], da[N * C], db[N * C];
        open_net(&learned, &forms[k], LAYERS, false);
        open_net(&frozen, &forms[k], LAYERS, true);
        forward(&learned, true, a, da);
        forward(&frozen, true, b, db);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_equal(da, db, sizeof da);
        assert_true(frozen.step.peak < learned.step.peak || forms[k].behind);
        double length = 0, slope[2], h = 2e-3;
        for (int i = 0; i < N * C; i++) length += (double)db[i] * db[i];
        length = sqrt(length);
        memcpy(a, frozen.in, sizeof a);
        for (int side = 0; side < 2; side++) {
            for (int i = 0; i < N * C; i++) frozen.in[i] = a[i] + (float)((side ? -h : h) * db[i] / length);
            slope[side] = forward(&frozen, false, NULL, NULL);
        }
        double found = (slope[0] - slope[1]) / (2 * h);
        if (!(fabs(found - length) < 4e-3 * length)) fail_msg("%s: slope %.6g, gradient %.6g", forms[k].name, found,
                                                              length);
        close_net(&learned);
        close_net(&frozen);
    }
}

static void depth_costs_no_memory_unrecorded(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
        Net a, b;
        float y[N * C], z[N * C];
        open_net(&a, &forms[k], LAYERS, true);
        open_net(&b, &forms[k], 4 * LAYERS, true);
        forward(&a, true, y, NULL);
        a.step.peak = 0;
        forward(&a, false, z, NULL);
        assert_memory_equal(y, z, sizeof y);
        forward(&b, false, y, NULL);
        assert_int_equal(a.step.peak, b.step.peak);
        close_net(&a);
        close_net(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_are_slopes),
                                       cmocka_unit_test(frozen_hands_the_gradient_on),
                                       cmocka_unit_test(depth_costs_no_memory_unrecorded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
