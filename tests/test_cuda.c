/* test_cuda: what the CUDA backend has of its own: the tensor-core attention over every head size and shape of plan,
 * held against the CPU's in the same precision; the order of the streams; the sentences of its errors. The ops
 * themselves are test_ops' business (device=cuda). Skipped where there is no GPU.
 *
 *     build/release/tests/test_cuda          on a GPU, or under vgpu-run */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/backend.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const Backend *gpu, *cpu;
static void *workspace;

static uint64_t stream = 7;
static float uniform(void) {
    stream = stream * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(stream >> 11) * 0x1p-52 - 1.0);
}

static int open_gpu(void **state) {
    (void)state;
    cpu = backend_cpu(DT_BF16);
    if (backend_cuda(&gpu, DT_BF16, 0) != OK) return 0;
    assert_int_equal(gpu->alloc(&workspace, gpu->workspace), OK);
    gpu->set_workspace(workspace, gpu->workspace);
    return 0;
}

static int close_gpu(void **state) {
    (void)state;
    if (gpu) gpu->release(workspace);
    return 0;
}

#define NEEDS_GPU()                                                                                                    \
    do {                                                                                                               \
        if (!gpu) {                                                                                                    \
            print_message("no GPU: %s\n", err_message());                                                              \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

/* ---- arrays on both sides -------------------------------------------------------------------------------------- */

typedef struct {
    void *host, *device;
    size_t bytes;
} Both;

static Both both(size_t bytes) {
    Both b = {.bytes = bytes};
    assert_int_equal(cpu->alloc(&b.host, bytes), OK);
    assert_int_equal(gpu->alloc(&b.device, bytes), OK);
    return b;
}
static Both numbers(int64_t n) {
    Both b = both((size_t)n * sizeof(bf16));
    for (int64_t i = 0; i < n; i++) ((bf16 *)b.host)[i] = bf16_from_f32(uniform());
    gpu->upload(b.device, b.host, b.bytes);
    gpu->sync();
    return b;
}
static void both_free(Both *b) {
    cpu->release(b->host);
    gpu->release(b->device);
}

/* Largest difference, in units of the largest value. */
static double apart(const Both *b, DType t) {
    size_t n = b->bytes / (size_t)dtype_size(t);
    void *got = malloc(b->bytes);
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    assert_true(got && x && y);
    gpu->download(got, b->device, b->bytes);
    assert_int_equal(gpu->status(), OK);
    dtype_to_f32(x, b->host, t, n);
    dtype_to_f32(y, got, t, n);
    double most = 0.0, worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)x[i]));
        double d = fabs((double)x[i] - (double)y[i]);
        worst = d <= worst ? worst : d; /* NaN counts */
    }
    free(got);
    free(x);
    free(y);
    return most > 0.0 ? worst / most : worst;
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

typedef struct {
    int nq, a, b, causal;
} Item;
typedef struct {
    int nk0, nk1, nitems;
    Item item[9];
} Group;

/* Three kinds of users of one image and more of them than a block takes; texts that see only themselves in a group
 * whose queries they pass over; one row; keys nobody sees. */
static const Group crowd[] = {
    {257, 0, 9, {{32, 1, 0, 0}, {32, 1, 0, 0}, {32, 1, 0, 0}, {5, 1, 0, 0}, {32, 1, 0, 0}, {1, 1, 0, 0}, {17, 1, 0, 0},
                 {32, 1, 0, 0}, {32, 1, 0, 0}}},
    {31, 0, 1, {{32, 1, 0, 0}}},
    {19, 0, 0, {{0, 0, 0, 0}}},
};
static const Group texts[] = {
    {32, 13, 2, {{32, 1, 0, 0}, {13, 1, 1, 1}}},
    {32, 14, 2, {{32, 1, 1, 0}, {14, 1, 1, 0}}},
    {8, 40, 2, {{8, 1, 0, 0}, {40, 0, 1, 1}}},
    {16, 70, 2, {{16, 1, 0, 0}, {70, 0, 1, 0}}},
    {0, 12, 1, {{12, 0, 1, 0}}},
    {32, 1, 1, {{1, 1, 1, 0}}},
};
/* Keys that cannot be counted in eights: dropout draws for each. */
static const Group odd[] = {{5, 9, 2, {{5, 1, 0, 0}, {9, 0, 1, 1}}}};
static const Group whole[] = {{257, 0, 1, {{257, 1, 0, 0}}}, {64, 64, 1, {{100, 1, 1, 0}}}};

enum { MAX_ITEMS = 32 };
static AttnItem items[MAX_ITEMS];
static AttnGroup groups[MAX_ITEMS];

static AttnPlan make_plan(const Group *g, int n, int64_t *keys) {
    AttnPlan p = {.host_items = items, .host_groups = groups, .ngroups = n};
    int32_t key = 0;
    for (int i = 0; i < n; i++) {
        groups[i] = (AttnGroup){
            .item0 = p.nitems, .nitems = g[i].nitems, .k0 = {key, key + g[i].nk0}, .nk = {g[i].nk0, g[i].nk1}};
        for (int k = 0; k < 2; k++)
            if (groups[i].nk[k] > p.max_group_nk) p.max_group_nk = groups[i].nk[k];
        for (int j = 0; j < g[i].nitems; j++) {
            Item s = g[i].item[j];
            AttnItem t = {.q0 = p.nrows,
                          .nq = s.nq,
                          .a0 = s.a ? key : 0,
                          .na = s.a ? g[i].nk0 : 0,
                          .b0 = s.b ? key + g[i].nk0 : 0,
                          .nb = s.b ? g[i].nk1 : 0,
                          .causal = s.causal,
                          .group = i};
            items[p.nitems++] = t;
            p.nrows += t.nq;
            p.products += (int64_t)t.nq * (t.na + t.nb);
            if (t.nq > p.max_nq) p.max_nq = t.nq;
            if (t.na + t.nb > p.max_nk) p.max_nk = t.na + t.nb;
        }
        key += g[i].nk0 + g[i].nk1;
    }
    *keys = key;
    return p;
}

typedef struct {
    const char *name;
    const Group *groups;
    int n, H, D;
    float p;
    bool add;
} Case;

/* Forward and backward on both; fails on a difference beyond the rounding of probabilities to bf16 on their way into a
 * product (2^-8 of each). */
static void compare_attention(const Case *c) {
    int64_t keys, H = c->H, D = c->D, W = H * D;
    AttnPlan p = make_plan(c->groups, c->n, &keys), pg = p;
    Both q = numbers(p.nrows * W), kv = numbers(keys * 2 * W), o = numbers(p.nrows * W), d_o = numbers(p.nrows * W);
    Both dq = numbers(p.nrows * W), dkv = numbers(keys * 2 * W), lse = both((size_t)(p.nrows * H) * sizeof(float));
    Both it = both(sizeof items), gr = both(sizeof groups), rows = both((size_t)p.nrows * sizeof(RowKey));
    RowKey *r = rows.host;
    for (int i = 0; i < p.nrows; i++) r[i] = (RowKey){(uint32_t)(3 * i + 1), (uint32_t)(i % 7) | 2u << 16};
    gpu->upload(it.device, items, sizeof items);
    gpu->upload(gr.device, groups, sizeof groups);
    gpu->upload(rows.device, rows.host, rows.bytes);
    gpu->sync();
    p.items = items, p.groups = groups;
    pg.items = it.device, pg.groups = gr.device;
    Attn a = {.plan = &p,
              .q = q.host,
              .k = kv.host,
              .v = (bf16 *)kv.host + W,
              .o = o.host,
              .lse = lse.host,
              .ldq = W,
              .ldk = 2 * W,
              .ldv = 2 * W,
              .ldo = W,
              .H = (int32_t)H,
              .KH = (int32_t)H,
              .D = (int32_t)D,
              .scale = 1.0f / sqrtf((float)D),
              .drop = {c->p, 33, 12345678901u, 17, rows.host}},
         b = a;
    b.plan = &pg, b.q = q.device, b.k = kv.device, b.v = (bf16 *)kv.device + W, b.o = o.device, b.lse = lse.device,
    b.drop.rows = rows.device;
    AttnGrad g = {.d_o = d_o.host,
                  .dq = dq.host,
                  .dk = dkv.host,
                  .dv = (bf16 *)dkv.host + W,
                  .lddq = W,
                  .lddk = 2 * W,
                  .lddv = 2 * W,
                  .add = c->add},
             h = g;
    h.d_o = d_o.device, h.dq = dq.device, h.dk = dkv.device, h.dv = (bf16 *)dkv.device + W;
    cpu->attention(&a);
    gpu->attention(&b);
    double eo = apart(&o, DT_BF16), el = apart(&lse, DT_F32);
    gpu->upload(o.device, o.host, o.bytes); /* the same forward for both backwards */
    gpu->upload(lse.device, lse.host, lse.bytes);
    cpu->attention_bwd(&a, &g);
    gpu->attention_bwd(&b, &h);
    double eq = apart(&dq, DT_BF16), ek = apart(&dkv, DT_BF16);
    if (!(eo <= 0x1p-7 && el <= 1e-5 && eq <= 0x1p-6 && ek <= 0x1p-6))
        fail_msg("attention, %s, H %d, D %d, p %g: o %.2g, lse %.2g, dq %.2g, dk and dv %.2g from the CPU's", c->name,
                 c->H, c->D, (double)c->p, eo, el, eq, ek);
    Both *all[] = {&q, &kv, &o, &d_o, &dq, &dkv, &lse, &it, &gr, &rows};
    for (size_t i = 0; i < COUNT(all); i++) both_free(all[i]);
}

static void test_attention(void **state) {
    (void)state;
    NEEDS_GPU();
    static const Case cases[] = {
        {"crowd", crowd, COUNT(crowd), 2, 64, 0.1f, false}, {"crowd", crowd, COUNT(crowd), 1, 64, 0, true},
        {"crowd", crowd, COUNT(crowd), 1, 32, 0.1f, true},  {"crowd", crowd, COUNT(crowd), 1, 128, 0.2f, false},
        {"texts", texts, COUNT(texts), 3, 64, 0.1f, true},  {"texts", texts, COUNT(texts), 2, 88, 0.1f, false},
        {"texts", texts, COUNT(texts), 1, 80, 0, true},     {"texts", texts, COUNT(texts), 2, 32, 0, false},
        {"texts", texts, COUNT(texts), 1, 128, 0.5f, true}, {"odd", odd, COUNT(odd), 2, 64, 0.1f, false},
        {"odd", odd, COUNT(odd), 1, 96, 0.4f, true},        {"texts", texts, COUNT(texts), 2, 72, 0.1f, false},
        {"crowd", crowd, COUNT(crowd), 1, 96, 0.1f, true},  {"odd", odd, COUNT(odd), 3, 8, 0.1f, false},
        {"whole", whole, COUNT(whole), 1, 88, 0, false},    {"whole", whole, COUNT(whole), 1, 64, 0.1f, true},
    };
    for (size_t c = 0; c < COUNT(cases); c++) compare_attention(&cases[c]);
}

/* Rows that see all of few keys, most tiles of 64 full: Hopper has a kernel for such plans. */
static void test_attention_whole(void **state) {
    (void)state;
    NEEDS_GPU();
    static const Group pictures[] = {
        {257, 0, 5, {{64, 1, 0, 0}, {64, 1, 0, 0}, {64, 1, 0, 0}, {64, 1, 0, 0}, {1, 1, 0, 0}}},
        {100, 0, 2, {{128, 1, 0, 0}, {50, 1, 0, 0}}},
        {272, 0, 1, {{60, 1, 0, 0}}},
        {1, 0, 1, {{64, 1, 0, 0}}},
    };
    static const Case cases[] = {
        {"pictures", pictures, COUNT(pictures), 2, 64, 0, false},
        {"pictures", pictures, COUNT(pictures), 2, 88, 0, false},
        {"pictures", pictures, COUNT(pictures), 1, 40, 0, false},
        {"pictures", pictures, COUNT(pictures), 1, 96, 0, false},
        {"pictures", pictures, COUNT(pictures), 2, 128, 0, false},
    };
    for (size_t c = 0; c < COUNT(cases); c++) compare_attention(&cases[c]);
}

/* Two users of an image with shapes of their own, and so many images that the plans kept start over: at any number of
 * plans, also between the two of one call. */
static void many_shapes(void) {
    for (int i = 0; i < 70; i++) {
        Group one = {8 + i, 0, i == 35 ? 1 : 2, {{8, 1, 0, 0}, {16, 1, 0, 0}}};
        compare_attention(&(Case){"users of two sizes", &one, 1, 1, 64, 0, false});
    }
}

/* The same through cuDNN: plans that it takes, and those it must leave to us. */
static void test_cudnn(void **state) {
    (void)state;
    NEEDS_GPU();
    static const Group users[] = {{40, 0, 2, {{32, 1, 0, 0}, {32, 1, 0, 0}}},
                                  {40, 0, 2, {{32, 1, 0, 0}, {32, 1, 0, 0}}},
                                  {40, 0, 2, {{32, 1, 0, 0}, {32, 1, 0, 0}}}};
    static const Case cases[] = {
        {"users", users, COUNT(users), 2, 64, 0, false},
        {"whole", whole, 1, 2, 88, 0, false},
        {"users", users, COUNT(users), 2, 64, 0.1f, false},
        {"texts", texts, COUNT(texts), 1, 64, 0, false},
    };
    if (gpu->use_cudnn(true) != OK) {
        print_message("%s\n", err_message());
        skip();
    }
    for (size_t c = 0; c < COUNT(cases); c++) compare_attention(&cases[c]);
    many_shapes();
    assert_int_equal(gpu->use_cudnn(false), OK);
}

/* More texts than a grid has rows of 64: of one query and one channel, so that it ends soon. */
static void test_many_texts(void **state) {
    (void)state;
    NEEDS_GPU();
    enum { TEXTS = 65535 * 64 + 3 };
    Both I = both(sizeof(float)), T = both(TEXTS * sizeof(float)), S = both(TEXTS * sizeof(float));
    float *t = T.host, *s = S.host;
    for (int i = 0; i < TEXTS; i++) t[i] = (float)(i % 1000 - 500);
    *(float *)I.host = 2;
    gpu->upload(I.device, I.host, I.bytes), gpu->upload(T.device, T.host, T.bytes);
    gpu->simmax(S.device, NULL, I.device, T.device, 1, TEXTS, 1, 1, TEXTS, 1);
    gpu->download(s, S.device, S.bytes);
    assert_int_equal(gpu->status(), OK);
    for (int i = 0; i < TEXTS; i++) if (!(s[i] == 2 * t[i])) fail_msg("text %d: %g", i, (double)s[i]);
    both_free(&I), both_free(&T), both_free(&S);
}

/* ---- products -------------------------------------------------------------------------------------------------- */

/* What stands in where cuBLASLt has no algorithm (kernels/cuda/cuda.h, which wants CUDA's headers): not there in a
 * build without CUDA. */
extern void cuda_product(const Gemm *g, DType elem) __attribute__((weak));

/* Sizes that no tile divides, both ways round, odd strides and addresses: as the CPU's product. */
static void test_plain_product(void **state) {
    (void)state;
    NEEDS_GPU();
    static const struct { int64_t m, n, k, pad; bool ta, tb, add, bias; DType ct; } cases[] = {
        {1, 2, 2, 0, false, true, false, true, DT_BF16},    {67, 130, 33, 1, false, true, true, true, DT_BF16},
        {65, 64, 17, 3, true, false, true, false, DT_F32},  {130, 3, 100, 0, true, true, false, true, DT_F32},
        {5, 201, 1, 1, false, false, false, false, DT_BF16}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t m = cases[i].m, n = cases[i].n, k = cases[i].k, pad = cases[i].pad;
        Gemm g = {.m = m, .n = n, .k = k, .ta = cases[i].ta, .tb = cases[i].tb, .add = cases[i].add, .ab = DT_BF16,
                  .ct = cases[i].ct};
        g.lda = (g.ta ? m : k) + pad, g.ldb = (g.tb ? k : n) + pad, g.ldc = n;
        Both a = numbers((g.ta ? k : m) * g.lda + 1), b = numbers((g.tb ? n : k) * g.ldb + 1), bias = numbers(n),
             c = both((size_t)(m * n) * (size_t)dtype_size(g.ct));
        memset(c.host, 0, c.bytes); /* what is added to: zeros, a bias adds its part */
        gpu->upload(c.device, c.host, c.bytes);
        gpu->sync();
        Gemm h = g;
        g.a = (bf16 *)a.host + pad % 2, g.b = b.host, g.c = c.host, g.bias = cases[i].bias ? bias.host : NULL;
        h.a = (bf16 *)a.device + pad % 2, h.b = b.device, h.c = c.device, h.bias = cases[i].bias ? bias.device : NULL;
        for (int twice = 0; twice <= g.add; twice++) cpu->gemm(&g), cuda_product(&h, DT_BF16);
        double e = apart(&c, g.ct);
        if (!(e <= (g.ct == DT_F32 ? 1e-6 : 0x1p-7)))
            fail_msg("product (%lld,%lld,%lld): %.2g from the CPU's", (long long)m, (long long)n, (long long)k, e);
        both_free(&a), both_free(&b), both_free(&bias), both_free(&c);
    }
}

/* A product with its activation in one kernel, where this GPU has it. */
extern bool cuda_product_act_takes(const Gemm *g) __attribute__((weak));
extern bool cuda_product_act(const Gemm *g) __attribute__((weak));

typedef struct { int64_t m, n, k, pad; ActKind kind; bool back, bias, again; } ProductAct;

/* Bytes of numbers on one side or the other: what one kernel or two are told. */
static void product_act_of(Gemm *g, Act *a, ActGrad *d, const ProductAct *c, Both *const x[6], bool device) {
    void *p[6];
    for (int i = 0; i < 6; i++) p[i] = device ? x[i]->device : x[i]->host;
    int64_t k8 = (c->k + 7) / 8 * 8 + c->pad, ld = c->n + c->pad;
    *a = (Act){.kind = c->kind, .N = c->m, .F = c->n, .ldu = ld, .ldh = ld, .u = p[2], .bias = c->bias ? p[4] : NULL,
               .h = !c->back ? p[3] : c->again ? p[2] : NULL};
    *d = (ActGrad){.dh = p[3], .du = p[3], .lddh = ld, .lddu = ld, .dbias = c->bias ? p[5] : NULL};
    *g = (Gemm){.m = c->m, .n = c->n, .k = c->k, .a = p[0], .b = p[1], .c = c->back ? p[3] : p[2], .lda = k8,
                .ldb = c->back ? ld : k8, .ldc = ld, .ab = DT_BF16, .ct = DT_BF16, .tb = !c->back, .act = a,
                .grad = c->back ? d : NULL};
}

static void compare_product_act(const ProductAct *c) {
    Gemm g, h;
    Act a, b;
    ActGrad d, e;
    int64_t k8 = (c->k + 7) / 8 * 8 + c->pad, ld = c->n + c->pad;
    Both x = numbers(c->m * k8), w = numbers((c->back ? c->k : c->n) * (c->back ? ld : k8)), u = numbers(c->m * ld),
         y = numbers(c->m * ld), bias = both((size_t)c->n * sizeof(float)), sums = both((size_t)c->n * sizeof(float));
    for (int64_t i = 0; i < c->n; i++) ((float *)bias.host)[i] = uniform(), ((float *)sums.host)[i] = uniform();
    gpu->upload(bias.device, bias.host, bias.bytes), gpu->upload(sums.device, sums.host, sums.bytes);
    Both *all[] = {&x, &w, &u, &y, &bias, &sums};
    product_act_of(&g, &a, &d, c, all, false), product_act_of(&h, &b, &e, c, all, true);
    assert_true(cuda_product_act_takes(&h));
    cpu->gemm(&g);
    assert_true(cuda_product_act(&h));
    double eu = apart(&u, DT_BF16), ey = apart(&y, DT_BF16), es = apart(&sums, DT_F32);
    if (!(eu <= 0x1p-7 && ey <= 0x1p-6 && es <= 2e-3))
        fail_msg("product (%lld,%lld,%lld), kind %d%s: %.2g, %.2g, sums %.2g from the CPU's", (long long)c->m,
                 (long long)c->n, (long long)c->k, c->kind, c->back ? ", backward" : "", eu, ey, es);
    for (size_t i = 0; i < COUNT(all); i++) both_free(all[i]);
}

/* A product with a bias, added to what is there or not; rows have 8 numbers more, which stay. */
static void compare_product_beside(int64_t m, int64_t n, int64_t k, bool add, bool with_bias) {
    Both x = numbers(m * k), w = numbers(n * k), y = numbers(m * (n + 8)), bias = numbers(n);
    Gemm g = {.m = m, .n = n, .k = k, .a = x.host, .b = w.host, .c = y.host, .bias = with_bias ? bias.host : NULL,
              .lda = k, .ldb = k, .ldc = n + 8, .ab = DT_BF16, .ct = DT_BF16, .tb = true, .add = add}, h = g;
    h.a = x.device, h.b = w.device, h.c = y.device, h.bias = with_bias ? bias.device : NULL;
    assert_true(cuda_product_act_takes(&h));
    cpu->gemm(&g);
    assert_true(cuda_product_act(&h));
    double e = apart(&y, DT_BF16);
    if (!(e <= 0x1p-6)) fail_msg("product (%lld,%lld,%lld)%s%s: %.2g from the CPU's", (long long)m, (long long)n,
                                 (long long)k, add ? ", added" : "", with_bias ? ", bias" : "", e);
    Both *all[] = {&x, &w, &y, &bias};
    for (size_t i = 0; i < COUNT(all); i++) both_free(all[i]);
}

/* h in u's place, as who records nothing has it. */
static void compare_product_in_place(void) {
    int64_t m = 200, n = 264, k = 64;
    Both x = numbers(m * k), w = numbers(n * k), h = numbers(m * n);
    Act a = {.kind = ACT_GELU_QUICK, .N = m, .F = n, .ldu = n, .ldh = n, .u = h.host, .h = h.host}, b = a;
    Gemm g = {.m = m, .n = n, .k = k, .a = x.host, .b = w.host, .c = h.host, .lda = k, .ldb = k, .ldc = n,
              .ab = DT_BF16, .ct = DT_BF16, .tb = true, .act = &a}, d = g;
    b.u = b.h = h.device, d.a = x.device, d.b = w.device, d.c = h.device, d.act = &b;
    cpu->gemm(&g);
    assert_true(cuda_product_act_takes(&d) && cuda_product_act(&d));
    double e = apart(&h, DT_BF16);
    if (!(e <= 0x1p-6)) fail_msg("product with its activation in place: %.2g from the CPU's", e);
    both_free(&x), both_free(&w), both_free(&h);
}

/* Each kind both ways, rows and columns beyond whole tiles and pairs of tiles, inner dimensions of fewer steps than
 * carry the epilogue and of more; what stands between rows stays. What it does not take, it says. */
static void test_product_act(void **state) {
    (void)state;
    NEEDS_GPU();
    static const ProductAct cases[] = {
        {300, 520, 40, 0, ACT_GELU, false, true, false},       {300, 520, 40, 8, ACT_GELU, true, true, true},
        {1, 8, 1, 0, ACT_GELU_TANH, false, true, false},       {1, 8, 1, 0, ACT_GELU_TANH, true, true, false},
        {129, 264, 600, 0, ACT_GELU_QUICK, false, false, false}, {129, 264, 600, 0, ACT_GELU_QUICK, true, false, true},
        {200, 256, 515, 0, ACT_RELU, false, true, false},      {200, 256, 513, 0, ACT_RELU, true, true, true},
        {65, 248, 64, 16, ACT_SILU, false, true, false},       {65, 248, 64, 16, ACT_SILU, true, true, false},
    };
    Gemm g;
    Act a;
    ActGrad d;
    Both none = {0}, *no[] = {&none, &none, &none, &none, &none, &none};
    product_act_of(&g, &a, &d, &cases[0], no, true);
    if (!cuda_product_act_takes(&g)) skip();             /* another GPU */
    for (size_t i = 0; i < COUNT(cases); i++) compare_product_act(&cases[i]);
    for (int i = 0; i < 4; i++) compare_product_beside(300, 520, 40, i & 1, i & 2);
    for (int i = 0; i < 4; i++) compare_product_beside(129, 264, 600, i & 1, i & 2);
    compare_product_in_place();
    Gemm left[] = {g, g, g, g, g};
    Act gated = a;
    gated.up = &gated;
    left[0].n = 521, left[1].lda = 44, left[2].a = (void *)8, left[3].act = &gated, left[4].add = true;
    for (size_t i = 0; i < COUNT(left); i++) assert_false(cuda_product_act_takes(&left[i]));
}

/* Products in one launch, where this GPU has the kernel: sizes beyond whole tiles, sums and their
 * absence; then the same bits, whatever runs beside. */
extern bool cuda_product_group_takes(const Gemm *g) __attribute__((weak));
extern bool cuda_product_group(const Gemm *g, int n) __attribute__((weak));

static void test_product_group(void **state) {
    (void)state;
    NEEDS_GPU();
    enum { MANY = 4 };
    static const struct { int64_t m, n, k; bool add, sums, zero; } cases[MANY] = {
        {300, 264, 200, true, true, false}, {2, 8, 65, false, true, true}, {520, 256, 40, false, false, false},
        {257, 520, 129, true, true, true}};
    Gemm g[MANY], h[MANY];
    Both a[MANY], b[MANY], c[MANY], sums[MANY];
    for (int i = 0; i < MANY; i++) {
        int64_t m = cases[i].m, n = cases[i].n, k = cases[i].k, lda = (m + 7) / 8 * 8;
        a[i] = numbers(k * lda), b[i] = numbers(k * n), c[i] = both((size_t)(m * n) * sizeof(float));
        sums[i] = both((size_t)m * sizeof(float));
        for (int64_t j = 0; j < m * n; j++) ((float *)c[i].host)[j] = uniform();
        for (int64_t j = 0; j < m; j++) ((float *)sums[i].host)[j] = cases[i].zero ? 0 : uniform();
        gpu->upload(c[i].device, c[i].host, c[i].bytes), gpu->upload(sums[i].device, sums[i].host, sums[i].bytes);
        gpu->sync();
        g[i] = (Gemm){.m = m, .n = n, .k = k, .ta = true, .lda = lda, .ldb = n, .ldc = n, .ab = DT_BF16, .ct = DT_F32,
                      .add = cases[i].add, .sums_zero = cases[i].zero, .a = a[i].host, .b = b[i].host, .c = c[i].host,
                      .sums = cases[i].sums ? sums[i].host : NULL};
        h[i] = g[i], h[i].a = a[i].device, h[i].b = b[i].device, h[i].c = c[i].device;
        h[i].sums = cases[i].sums ? sums[i].device : NULL;
    }
    if (!cuda_product_group_takes(&h[0])) skip();           /* another GPU */
    for (int i = 0; i < MANY; i++) assert_true(cuda_product_group_takes(&h[i])), cpu->gemm(&g[i]);
    assert_true(cuda_product_group(h, MANY));
    for (int i = 0; i < MANY; i++) {
        double e = apart(&c[i], DT_F32), s = apart(&sums[i], DT_F32);
        if (!(e <= 1e-6 && s <= 1e-6)) fail_msg("product %d: %.2g, sums %.2g from the CPU's", i, e, s);
    }
    float *first = malloc(c[2].bytes), *again = malloc(c[2].bytes);
    gpu->download(first, c[2].device, c[2].bytes);
    assert_true(cuda_product_group(&h[2], 1));
    gpu->download(again, c[2].device, c[2].bytes);
    assert_memory_equal(first, again, c[2].bytes);
    Gemm left[] = {h[0], h[0], h[0], h[0], h[0]};
    left[0].n = 263, left[1].lda = 300, left[2].ct = DT_BF16, left[3].ta = false, left[4].b = (char *)b[0].device + 8;
    for (size_t i = 0; i < COUNT(left); i++) assert_false(cuda_product_group_takes(&left[i]));
    free(first), free(again);
    for (int i = 0; i < MANY; i++) both_free(&a[i]), both_free(&b[i]), both_free(&c[i]), both_free(&sums[i]);
}

static void choices(char **text, const Gemm *g, int n, const char *kept) {
    assert_int_equal(gpu->choose_products(g, n, kept, text), OK);
    assert_non_null(*text);
}

/* A run's folder is anybody's: what cannot be a choice is left, and with it what follows. g is chosen already. */
static void hostile_choices(const Gemm *g, const char *good) {
    static const char *const tails[] = {"", "\n", "\n\n\n", "8 8\n", " 99999999999999999999999 1\n", "1e9 0x10 nan\n",
                                        "-1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1\n", "\xff\xfe\x01",
                                        "9999 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"};
    int first = (int)(strchr(good, '\n') + 1 - good);
    for (size_t i = 0; i < COUNT(tails) + strlen(good) / 5; i++) {
        char text[2048], *got;
        if (i < COUNT(tails)) snprintf(text, sizeof text, "%.*s%s", first, good, tails[i]);
        else snprintf(text, sizeof text, "%.*s", (int)(i - COUNT(tails)) * 5, good);    /* cut anywhere */
        choices(&got, g, 1, text);
        assert_string_equal(got, good);
        free(got);
    }
}

/* Large products are timed once; what was chosen is written, and taken from what was written: of this library and GPU,
 * and no further than it can be read. The product is the CPU's. */
static void test_chosen_products(void **state) {
    (void)state;
    NEEDS_GPU();
    enum { M = 1024, N = 1024, K = 512 };
    Both a = numbers(M * K), b = numbers(N * K), c = both((size_t)(M * N) * sizeof(bf16));
    Gemm g[2] = {{.m = M, .n = N, .k = K, .tb = true, .a = a.device, .b = b.device, .c = c.device, .lda = K, .ldb = K,
                  .ldc = N, .ab = DT_BF16, .ct = DT_BF16}};
    g[1] = g[0], g[1].m = 8;
    char *first, *second, *third, more[512], wrong[512];
    choices(&first, g, 2, NULL);
    const char *line = strchr(first, '\n') + 1;
    assert_ptr_equal(strchr(line, '\n') + 1, first + strlen(first));        /* the small one is not worth it */
    assert_int_equal(strncmp(line, "1024 1024 512 512 512 1024 ", 27), 0);
    snprintf(more, sizeof more, "%s2048 1024 512 512 512 1024 %s4096 1024 512 wrong 1\n", first, line + 27);
    choices(&second, g, 2, more);
    assert_int_equal(strncmp(second, first, strlen(first)), 0);
    assert_non_null(strstr(second, "\n2048 1024 512 "));
    assert_null(strstr(second, "4096"));
    snprintf(wrong, sizeof wrong, "another %s8192 1024 512 512 512 1024 %s", first, line + 27);
    choices(&third, g, 2, wrong);
    assert_string_equal(third, second);
    Gemm h = g[0];
    h.a = a.host, h.b = b.host, h.c = c.host;
    cpu->gemm(&h), gpu->gemm(g);
    assert_true(apart(&c, DT_BF16) <= 0x1p-7);
    hostile_choices(g, second);
    free(first), free(second), free(third);
    both_free(&a), both_free(&b), both_free(&c);
}

/* Two of one call: timed each for itself and in one launch, the choice kept, and the CPU's products whichever it is. */
static void test_chosen_group(void **state) {
    (void)state;
    NEEDS_GPU();
    enum { M = 512, N = 1024, K = 1000 };
    Both a = numbers(K * M), b = numbers(K * N), c[2];
    Gemm g[2], h[2];
    for (int i = 0; i < 2; i++) {
        c[i] = both((size_t)(M * N) * sizeof(float));
        g[i] = (Gemm){.m = M, .n = N, .k = K, .ta = true, .a = a.device, .b = b.device, .c = c[i].device, .lda = M,
                      .ldb = N, .ldc = N, .ab = DT_BF16, .ct = DT_F32};
        h[i] = g[i], h[i].a = a.host, h[i].b = b.host, h[i].c = c[i].host;
    }
    if (!cuda_product_group_takes(g)) skip();               /* another GPU */
    char *text, *again;
    g[0].together = 1;
    choices(&text, g, 2, NULL);
    assert_true(strstr(text, " 2 0\n") || strstr(text, " 2 8\n"));         /* of two; apart, or ours */
    choices(&again, g, 2, text);
    assert_string_equal(text, again);
    cpu->gemms(h, 2), gpu->gemms(g, 2);
    for (int i = 0; i < 2; i++) assert_true(apart(&c[i], DT_F32) <= 1e-6);
    free(text), free(again);
    both_free(&a), both_free(&b), both_free(&c[0]), both_free(&c[1]);
}

/* Sums beside a product: timed both ways, both choices kept, and the CPU's sums whichever it is. */
static void test_chosen_sums(void **state) {
    (void)state;
    NEEDS_GPU();
    enum { M = 512, N = 1024, K = 1000 };
    Both a = numbers(K * M), b = numbers(K * N), c = both((size_t)(M * N) * sizeof(float)),
         sums = both((size_t)M * sizeof(float));
    memset(sums.host, 0, sums.bytes);
    gpu->upload(sums.device, sums.host, sums.bytes);
    gpu->sync();
    Gemm g = {.m = M, .n = N, .k = K, .ta = true, .a = a.device, .b = b.device, .c = c.device, .lda = M, .ldb = N,
              .ldc = N, .ab = DT_BF16, .ct = DT_F32, .sums = sums.device, .sums_zero = true}, h = g;
    char *text, *again;
    choices(&text, &g, 1, NULL);
    assert_non_null(strstr(text, "\n512 1024 1024 512 1024 1024 "));
    choices(&again, &g, 1, text);
    assert_string_equal(text, again);
    h.a = a.host, h.b = b.host, h.c = c.host, h.sums = sums.host;
    for (int twice = 0; twice < 2; twice++, g.sums_zero = false) cpu->gemm(&h), gpu->gemm(&g);
    assert_true(apart(&c, DT_F32) <= 1e-6);
    assert_true(apart(&sums, DT_F32) <= 1e-6);
    free(text), free(again);
    both_free(&a), both_free(&b), both_free(&c), both_free(&sums);
}

/* A product with its activation is timed as one kernel and as two, forward and backward; either way the numbers are the
 * CPU's, and what was chosen is taken again from what was written. */
static void test_chosen_acts(void **state) {
    (void)state;
    NEEDS_GPU();
    static const ProductAct cases[] = {{256, 1024, 2048, 0, ACT_GELU, false, true, false},
                                       {256, 1024, 2048, 0, ACT_GELU, true, true, true}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        const ProductAct *c = &cases[i];
        Gemm g, h;
        Act a, b;
        ActGrad d, e;
        Both x = numbers(c->m * c->k), w = numbers(c->n * c->k), u = numbers(c->m * c->n), y = numbers(c->m * c->n),
             bias = both((size_t)c->n * sizeof(float)), sums = both((size_t)c->n * sizeof(float));
        gpu->zero(bias.device, bias.bytes), gpu->zero(sums.device, sums.bytes);
        memset(bias.host, 0, bias.bytes), memset(sums.host, 0, sums.bytes);
        Both *all[] = {&x, &w, &u, &y, &bias, &sums};
        product_act_of(&g, &a, &d, c, all, false), product_act_of(&h, &b, &e, c, all, true);
        char *first, *again;
        choices(&first, &h, 1, NULL);
        choices(&again, &h, 1, first);
        assert_string_equal(first, again);
        assert_non_null(strstr(first, c->back ? " 1 2 " : " 1 0 "));             /* GELU; with h made again */
        cpu->gemm(&g), gpu->gemm(&h);
        assert_true(apart(&u, DT_BF16) <= 0x1p-6 && apart(&y, DT_BF16) <= 0x1p-6 && apart(&sums, DT_F32) <= 4e-3);
        free(first), free(again);
        for (size_t j = 0; j < COUNT(all); j++) both_free(all[j]);
    }
}

/* ---- streams --------------------------------------------------------------------------------------------------- */

/* Two buffers, filled in turn beside compute, each read by the compute after its wait: the numbers of every batch
 * arrive, and a buffer is not overwritten before the compute that read it. */
static void test_prefetch(void **state) {
    (void)state;
    NEEDS_GPU();
    enum { N = 4096, BATCHES = 6 };
    float *host[2], *device[2], *sums, got[BATCHES], *pinned;
    void *p;
    for (int k = 0; k < 2; k++) {
        assert_int_equal(gpu->host_alloc(&p, N * sizeof(float)), OK);
        host[k] = p;
        assert_int_equal(gpu->alloc(&p, N * sizeof(float)), OK);
        device[k] = p;
    }
    assert_int_equal(gpu->alloc(&p, BATCHES * sizeof(float)), OK);
    sums = p;
    assert_int_equal(gpu->host_alloc(&p, BATCHES * N * sizeof(float)), OK);
    pinned = p;
    for (int b = 0; b < BATCHES; b++)
        for (int i = 0; i < N; i++) pinned[b * N + i] = (float)(b + 1) / N;
    gpu->prefetch(device[0], pinned, N * sizeof(float));
    for (int b = 0; b < BATCHES; b++) {
        gpu->prefetch_wait();
        if (b + 1 < BATCHES) gpu->prefetch(device[(b + 1) & 1], pinned + (b + 1) * N, N * sizeof(float));
        gpu->sum(sums + b, device[b & 1], N, false);
    }
    gpu->download(got, sums, sizeof got);
    assert_int_equal(gpu->status(), OK);
    for (int b = 0; b < BATCHES; b++) assert_true(fabsf(got[b] - (float)(b + 1)) <= 1e-5f * (float)(b + 1));
    for (int k = 0; k < 2; k++) {
        gpu->host_release(host[k]);
        gpu->release(device[k]);
    }
    gpu->release(sums);
    gpu->host_release(pinned);
}

/* ---- two ranks, a GPU each ------------------------------------------------------------------------------------- */

enum { RANKS = 2, COUNT_F = 100000, SKIPPED = 77 };
static int ranks_ended[RANKS];

/* Sums of f32 and of bf16 between the compute before and the compute after them, and a gather.
 * Every rank gets the same. */
static int one_rank(int rank, int from, int to) {
    char id[128];
    void *p, *all, *space;
    if (backend_cuda(&gpu, DT_BF16, rank) != OK) return SKIPPED;
    if (rank == 0) {
        if (gpu->comm_id(id, sizeof id) != OK) return SKIPPED;
        if (write(to, id, sizeof id) != sizeof id) return 1;
    } else if (read(from, id, sizeof id) != sizeof id) {
        return SKIPPED;
    }
    if (gpu->alloc(&space, gpu->workspace) != OK) return 1;
    gpu->set_workspace(space, gpu->workspace);
    if (gpu->comm_open(id, rank, RANKS) != OK) {
        if (strstr(err_message(), "uplicate GPU")) return SKIPPED; /* a machine of one GPU */
        fprintf(stderr, "rank %d: %s\n", rank, err_message());
        return 1;
    }
    float *x = malloc(COUNT_F * sizeof *x), *y = malloc(COUNT_F * sizeof *y), both_ranks[RANKS];
    if (!x || !y || gpu->alloc(&p, 2 * COUNT_F * sizeof *x) != OK || gpu->alloc(&all, sizeof both_ranks) != OK)
        return 1;
    float *d = p, *more = d + COUNT_F;
    for (int i = 0; i < COUNT_F; i++) x[i] = (float)((i % 97) * (rank + 1)), y[i] = 1.0f;
    int bad = 0;
    for (int wire = 0; wire < 2; wire++) {
        gpu->upload(d, x, COUNT_F * sizeof *x);
        gpu->upload(more, y, COUNT_F * sizeof *y);
        gpu->axpy(d, more, 1.0f, COUNT_F); /* x + 1 on each rank: in front of the sum */
        gpu->all_reduce(d, COUNT_F, wire);
        gpu->all_reduce_wait();
        gpu->axpy(d, more, 2.0f, COUNT_F); /* behind it */
        gpu->download(x, d, COUNT_F * sizeof *x);
        for (int i = 0; i < COUNT_F; i++) {
            float want = (float)(3 * (i % 97)) + 4.0f;
            bad += !(fabsf(x[i] - want) <= (wire ? want * 0x1p-7f : 0.0f));
            x[i] = (float)((i % 97) * (rank + 1));
        }
    }
    gpu->upload(d, &(float){(float)rank + 0.5f}, sizeof *d);
    gpu->sync();
    gpu->all_gather(all, d, sizeof *d);
    gpu->download(both_ranks, all, sizeof both_ranks);
    for (int r = 0; r < RANKS; r++) bad += both_ranks[r] != (float)r + 0.5f;
    if (gpu->status() != OK) fprintf(stderr, "rank %d: %s\n", rank, err_message()), bad++;
    gpu->comm_close(false);
    return bad != 0;
}

/* Programs of their own, before this one touches the GPU: test_cuda RANK and the pipe's two ends. */
static void run_ranks(void) {
    int line[2];
    pid_t child[RANKS];
    if (pipe(line) != 0) return;
    for (int r = 0; r < RANKS; r++) {
        child[r] = fork();
        if (child[r] != 0) continue;
        char rank[16], from[16], to[16];
        snprintf(rank, sizeof rank, "%d", r);
        snprintf(from, sizeof from, "%d", line[0]);
        snprintf(to, sizeof to, "%d", line[1]);
        setenv("VGPU_DEVICES", "2", 1); /* where GPUs are emulated: two of them */
        execl("/proc/self/exe", "test_cuda", rank, from, to, (char *)NULL);
        _exit(1);
    }
    close(line[0]);
    close(line[1]);
    for (int r = 0; r < RANKS; r++) {
        int how = 0;
        waitpid(child[r], &how, 0);
        ranks_ended[r] = WIFEXITED(how) ? WEXITSTATUS(how) : 1;
    }
}

static void test_two_ranks(void **state) {
    (void)state;
    if (ranks_ended[0] == SKIPPED || ranks_ended[1] == SKIPPED) skip();
    for (int r = 0; r < RANKS; r++) assert_int_equal(ranks_ended[r], 0);
}

/* ---- one rank's collectives do nothing; memory that is not there is a sentence --------------------------------- */

static void test_alone(void **state) {
    (void)state;
    NEEDS_GPU();
    void *x, *y;
    float start[64], got[64];
    for (int i = 0; i < 64; i++) start[i] = (float)i;
    assert_int_equal(gpu->alloc(&x, sizeof start), OK);
    assert_int_equal(gpu->alloc(&y, sizeof start), OK);
    gpu->upload(x, start, sizeof start);
    gpu->all_reduce(x, 64, true);
    gpu->all_reduce_wait();
    gpu->all_gather(y, x, sizeof start);
    gpu->download(got, y, sizeof got);
    assert_memory_equal(got, start, sizeof got);
    gpu->release(x);
    gpu->release(y);
    assert_int_equal(gpu->status(), OK);
}

static void test_out_of_memory(void **state) {
    (void)state;
    NEEDS_GPU();
    void *p = &p;
    assert_int_equal(gpu->alloc(&p, (size_t)1 << 50), ERR_MEMORY);
    assert_null(p);
    assert_non_null(strstr(err_message(), "1048576.00 GiB are wanted"));
    assert_non_null(strstr(err_message(), "GiB are free"));
    assert_int_equal(gpu->status(), OK); /* answered, not remembered */
    assert_int_equal(gpu->alloc(&p, 256), OK);
    gpu->release(p);
}

/* A process of its own, since the GPU that is open stays open. */
static void test_no_device(void **state) {
    (void)state;
    if (gpu) skip();
    const Backend *b = (const Backend *)&b;
    assert_int_equal(backend_cuda(&b, DT_F32, 0), ERR_DEVICE);
    assert_null(b);
    assert_true(strlen(err_message()) > 20);
}

int main(int argc, char **argv) {
    if (argc == 4) {
        int from = atoi(argv[2]), to = atoi(argv[3]), rank = atoi(argv[1]);
        close(rank == 0 ? from : to); /* so that a rank that ends early leaves no one waiting */
        return one_rank(rank, from, to);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_device),     cmocka_unit_test(test_attention), cmocka_unit_test(test_cudnn),
        cmocka_unit_test(test_many_texts),
        cmocka_unit_test(test_attention_whole), cmocka_unit_test(test_plain_product),
        cmocka_unit_test(test_product_act),   cmocka_unit_test(test_product_group),
        cmocka_unit_test(test_chosen_products),
        cmocka_unit_test(test_chosen_group), cmocka_unit_test(test_chosen_sums), cmocka_unit_test(test_chosen_acts),
        cmocka_unit_test(test_prefetch),      cmocka_unit_test(test_two_ranks), cmocka_unit_test(test_alone),
        cmocka_unit_test(test_out_of_memory),
    };
    if (argc == 2) cmocka_set_test_filter(argv[1]);
    run_ranks();
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
