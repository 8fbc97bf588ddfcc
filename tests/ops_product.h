/* ops_product: a product with what follows it: an activation, or an activation's gradient. Cases of test_ops.c (included
 * there, once). The larger ones are for a GPU's kernel that does both at once (test_cuda has more of it): more tiles than
 * it has room for at a time. */

/* place: h is made again in u's place. pad: beyond each row */
static const struct { int64_t m, n, k, pad; ActKind kind; bool back, bias, place; } product_cases[] = {
    {5, 7, 3, 1, ACT_GELU, false, true, false},        {5, 7, 3, 1, ACT_GELU, true, true, true},
    {33, 24, 40, 8, ACT_RELU, false, false, false},    {33, 24, 40, 8, ACT_RELU, true, false, false},
    {20, 16904, 8, 0, ACT_GELU, false, true, false},  {20, 16904, 8, 8, ACT_GELU, true, true, true},
};

typedef struct { Gemm g; Act a; ActGrad d; Buf *x, *w, *u, *bias, *y, *sums; } ProductCase;
static void launch_product(void *context) { K->gemm(&((ProductCase *)context)->g); }

static double exact_slope(ActKind kind, double x) {
    if (kind == ACT_RELU) return x > 0;
    return (exact_activation(kind, x + 1e-5) - exact_activation(kind, x - 1e-5)) / 2e-5;
}

static void check_forward(const ProductCase *c) {
    const Gemm *g = &c->g;
    double *u = doubles(c->u->n), *h = doubles(c->y->n), *pu = doubles(c->u->n), *ph = doubles(c->y->n);
    memcpy(u, c->u->x, (size_t)c->u->n * sizeof *u), memcpy(pu, c->u->x, (size_t)c->u->n * sizeof *u);
    memcpy(h, c->y->x, (size_t)c->y->n * sizeof *h), memcpy(ph, c->y->x, (size_t)c->y->n * sizeof *h);
    exact_gemm(u, g, c->x->x, c->w->x, NULL);
    plain_gemm(pu, g, c->x->x, c->w->x, NULL);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double b = c->bias ? c->bias->x[j] : 0.0;
            h[i * c->a.ldh + j] = exact_activation(c->a.kind, u[i * g->ldc + j] + b);
            ph[i * c->a.ldh + j] =
                plain_stored(E, plain_activation(c->a.kind, (float)pu[i * g->ldc + j] + (float)b));
        }
    compare(c->u, u, pu);
    compare(c->y, h, ph);
    free(u), free(h), free(pu), free(ph);
}

static void check_backward(const ProductCase *c) {
    const Gemm *g = &c->g;
    int64_t ld = c->a.ldu;
    double *d = doubles(c->y->n), *pd = doubles(c->y->n), *db = doubles(g->n), *pdb = doubles(g->n);
    double *h = doubles(c->u->n), *ph = doubles(c->u->n);
    memcpy(d, c->y->x, (size_t)c->y->n * sizeof *d), memcpy(pd, c->y->x, (size_t)c->y->n * sizeof *d);
    memcpy(h, c->u->x, (size_t)c->u->n * sizeof *h), memcpy(ph, c->u->x, (size_t)c->u->n * sizeof *h);
    exact_gemm(d, g, c->x->x, c->w->x, NULL);
    plain_gemm(pd, g, c->x->x, c->w->x, NULL);
    for (int64_t j = 0; c->sums && j < g->n; j++) db[j] = pdb[j] = c->sums->x[j];
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double x = c->u->x[i * ld + j] + (c->bias ? c->bias->x[j] : 0.0), slope = exact_slope(c->a.kind, x);
            double *to = &d[i * g->ldc + j], *plain = &pd[i * g->ldc + j];
            *to *= slope, *plain *= slope;
            db[j] += *to, pdb[j] += *plain;
            *plain = rounded(E, *plain);
            if (!c->a.h) continue;
            h[i * ld + j] = exact_activation(c->a.kind, x);
            ph[i * ld + j] = plain_stored(E, plain_activation(c->a.kind, (float)x));
        }
    compare(c->y, d, pd);
    if (c->sums) compare(c->sums, db, pdb);
    compare(c->u, h, ph);
    free(d), free(pd), free(db), free(pdb), free(h), free(ph);
}

static void product(void) {
    library = true;
    for (size_t i = 0; i < COUNT(product_cases); i++) {
        int64_t m = product_cases[i].m, n = product_cases[i].n, k = product_cases[i].k, pad = product_cases[i].pad;
        bool back = product_cases[i].back;
        ProductCase c = {0};
        CASE("m %lld n %lld k %lld kind %d%s", (long long)m, (long long)n, (long long)k, product_cases[i].kind,
             back ? " backward" : "");
        int64_t lda = (k + 7) / 8 * 8 + pad, ldb = back ? n + pad : lda, ld = n + pad;
        c.x = in("x", E, m * lda, -1, 1), c.w = in("w", E, (back ? k : n) * ldb, -1, 1);
        c.u = back ? out("u", E, m * ld) : out("u, made here", E, m * ld), c.y = out(back ? "du" : "h", E, m * ld);
        c.bias = product_cases[i].bias ? in("bias", DT_F32, n, -1, 1) : NULL;
        c.sums = back && c.bias ? out("dbias", DT_F32, n) : NULL;
        c.a = (Act){.kind = product_cases[i].kind, .N = m, .F = n, .ldu = ld, .ldh = ld, .u = c.u->p,
                    .bias = c.bias ? c.bias->p : NULL, .h = !back ? c.y->p : product_cases[i].place ? c.u->p : NULL};
        c.d = (ActGrad){.dh = c.y->p, .du = c.y->p, .lddh = ld, .lddu = ld, .dbias = c.sums ? c.sums->p : NULL};
        c.g = (Gemm){.m = m, .n = n, .k = k, .a = c.x->p, .b = c.w->p, .c = back ? c.y->p : c.u->p, .lda = lda,
                     .ldb = ldb, .ldc = ld, .ab = E, .ct = E, .tb = !back, .act = &c.a, .grad = back ? &c.d : NULL};
        execute(launch_product, &c);
        if (back) check_backward(&c);
        else check_forward(&c);
        forget();
    }
}
TEST(product)
