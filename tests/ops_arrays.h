/* ops_arrays: cross-entropy, rows and plain arrays, the optimizer, random bits, the choice of a backend: cases of
 * test_ops.c (included there, once). */

/* ---- cross-entropy --------------------------------------------------------------------------------------------- */

typedef struct { Xent x; Buf *logits, *target; double scale; } XentCase;
static void launch_xent(void *xe) { K->xent(&((XentCase *)xe)->x); }

static void exact_xent(XentCase *xe, double *loss, double *nll, bool plain) {
    int64_t n = xe->x.n;
    double *t = doubles(n), e = (double)xe->x.smoothing;
    for (int64_t i = 0; i < xe->x.rows; i++) {
        const double *z = xe->logits->x + i * xe->x.ld;
        loss[i] = nll[i] = 0.0;
        if (xe->target->x[i] < 0.0) continue;                         /* does not count */
        for (int64_t j = 0; j < n; j++) t[j] = e / (double)n + (j == (int64_t)xe->target->x[i] ? 1.0 - e : 0.0);
        loss[i] = (plain ? plain_cross_entropy : exact_cross_entropy)(z, t, n);
        for (int64_t j = 0; j < n; j++) t[j] = j == (int64_t)xe->target->x[i];
        nll[i] = (plain ? plain_cross_entropy : exact_cross_entropy)(z, t, n);
    }
    free(t);
}

static double loss_xent(void *context) {
    XentCase *xe = context;
    double l = 0.0, *loss = doubles(xe->x.rows), *nll = doubles(xe->x.rows);
    exact_xent(xe, loss, nll, false);
    for (int64_t i = 0; i < xe->x.rows; i++) l += loss[i] * xe->scale;
    free(loss);
    free(nll);
    return l;
}

static void xent(void) {
    XentCase xe = {0};
    static const struct { int64_t rows, n, pad; float e; bool f32, grad, skip; } cases[] = {
        {1, 1, 0, 0, false, true, false}, {5, 2, 0, 0, true, true, true}, {3, 11, 3, 0.1f, false, true, false},
        {9, 1030, 1, 0.1f, true, true, true}, {2, 30523, 0, 0.1f, false, true, false}, {2, 77, 0, 0.1f, true, false,
                true},
        {3, 32128, 0, 0, false, true, true}, {2, 152064, 0, 0, false, true, false},
        {3, 33790, 2, 0.1f, false, true, true}, {2, 151937, 0, 0.1f, true, true, true}};
    for (size_t c = 0; c < COUNT(cases); c++) {
        int64_t rows = cases[c].rows, n = cases[c].n, ld = n + cases[c].pad;
        CASE("rows %lld n %lld smoothing %g", (long long)rows, (long long)n, (double)cases[c].e);
        xe.scale = 0.5;
        xe.logits = in("logits", DT_F32, rows * ld, -6, 6), xe.target = in("target", DT_I32, rows, 0, (double)n - 1e-6);
        if (cases[c].skip) set(xe.target, rows / 2, -1);
        Buf *loss = out("loss", DT_F32, rows), *nll = out("nll", DT_F32, rows),
            *d = out("dlogits", cases[c].f32 ? DT_F32 : E, rows * ld);
        xe.x = (Xent){.rows = rows, .n = n, .ld = ld, .logits = xe.logits->p, .target = xe.target->p,
                      .smoothing = cases[c].e, .scale = 0.5f, .loss = loss->p, .nll = nll->p, .dlogits = cases[c].grad
                      ? d->p : NULL, .ldd = ld, .dt = d->t};
        double *wl = doubles(rows), *wn = doubles(rows), *pl = doubles(rows), *pn = doubles(rows);
        exact_xent(&xe, wl, wn, false);
        exact_xent(&xe, pl, pn, true);
        execute(launch_xent, &xe);
        compare(loss, wl, pl);
        compare(nll, wn, pn);
        for (int64_t i = 0; i < rows * ld; i++) {
            if (cases[c].grad && i % ld < n) continue;
            if (d->y[i] != d->x[i]) WRONG("dlogits written at %lld", (long long)i);
            d->y[i] = 0.0;
        }
        if (cases[c].grad) differentiate(d, false, xe.logits->x, loss_xent, &xe);
        for (int k = 0; k < 4; k++) free((double *[]){wl, wn, pl, pn}[k]);
        forget();
    }
}
TEST(xent)

/* losses.md 8d and 8e. */
static void xent_worked(void) {
    XentCase xe = {0};
    CASE("losses.md 8d");
    xe.logits = in("logits", DT_F32, 6, 0, 0), xe.target = in("target", DT_I32, 3, 0, 0);
    Buf *loss = out("loss", DT_F32, 3);
    for (int i = 0; i < 6; i++) set(xe.logits, i, ((const double[]){0.2, 1.4, 1.0, -0.5, 0.3, 0.6})[i]);
    set(xe.target, 0, 1);
    xe.x = (Xent){.rows = 3, .n = 2, .ld = 2, .logits = xe.logits->p, .target = xe.target->p, .scale = 1,
                  .loss = loss->p};
    execute(launch_xent, &xe);
    expect(loss, (const double[]){0.26328247, 0.20141328, 0.85435524}, 2e-7);
    forget();
    CASE("losses.md 8e");
    xe.logits = in("logits", DT_F32, 10, 0, 0), xe.target = in("target", DT_I32, 2, 0, 0),
        loss = out("loss", DT_F32, 2);
    Buf *nll = out("nll", DT_F32, 2);
    for (int i = 0; i < 10; i++) set(xe.logits, i, ((const double[]){2, .5, -1, 0, 1, 0, 3, .1, -2, .3})[i]);
    set(xe.target, 0, 1);
    set(xe.target, 1, 3);
    xe.x = (Xent){.rows = 2, .n = 5, .ld = 5, .logits = xe.logits->p, .target = xe.target->p, .smoothing = 0.1f,
                  .scale = 1, .loss = loss->p, .nll = nll->p};
    execute(launch_xent, &xe);
    expect(nll, (const double[]){2.07443794, 5.16445773}, 1e-6);
    expect(loss, (const double[]){0.9 * 2.07443794 + 0.02 * 10.37218970, 0.9 * 5.16445773 + 0.02 * 14.42228867}, 1e-6);
}
TEST(xent_worked)

/* ---- rows and plain arrays ------------------------------------------------------------------------------------- */

typedef struct {
    void *dst;
    const void *src;
    const int32_t *di, *si;
    int64_t n, width, ldd, lds;
    bool add;
    DType dt, st;
} RowsCase;
static void launch_copy_rows(void *context) {
    RowsCase *rw = context;
    K->copy_rows(rw->dst, rw->ldd, rw->di, rw->src, rw->lds, rw->si, rw->n, rw->width, rw->add);
}
static void launch_cast(void *context) {
    RowsCase *rw = context;
    K->cast(rw->dst, rw->dt, rw->src, rw->st, rw->n);
}
static void launch_axpy(void *context) {
    RowsCase *rw = context;
    K->axpy(rw->dst, rw->src, 0.3f, rw->n);
}
static void launch_copy(void *context) {
    RowsCase *rw = context;
    K->copy(rw->dst, rw->src, (size_t)rw->n * 4);
}
static void launch_zero(void *context) {
    RowsCase *rw = context;
    K->zero(rw->dst, (size_t)rw->n * 4);
}
static void launch_prefetch(void *context) {
    RowsCase *rw = context;
    K->prefetch(rw->dst, rw->src, (size_t)rw->n * 4);
    K->prefetch_wait();
}

static void rows(void) {
    RowsCase rw = {0};
    for (int mode = 0; mode < 8; mode++) {
        int64_t n = rw.n = 13, w = rw.width = mode == 7 ? 1030 : 37, total = 29;
        rw.ldd = w + 3, rw.lds = w + 1, rw.add = mode & 4;
        CASE("copy_rows mode %d", mode);
        Buf *s = in("src", E, total * rw.lds, -1, 1), *d = out("dst", E, total * rw.ldd);
        Buf *di = mode & 1 ? in("di", DT_I32, n, 0, 0) : NULL, *si = mode & 2 ? in("si", DT_I32, n, 0, 0) : NULL;
        for (int64_t i = 0; di && i < n; i++) set(di, i, (double)((7 * i + 5) % total));
        for (int64_t i = 0; si && i < n; i++) set(si, i, (double)(3 * i % 11));              /* sources may repeat */
        double *want = doubles(d->n);
        memcpy(want, d->x, (size_t)d->n * sizeof *want);
        for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < w; c++) {
                int64_t to = (di ? (int64_t)di->x[i] : i) * rw.ldd + c, from = (si ? (int64_t)si->x[i] : i) * rw.lds
                    + c;
                want[to] = rounded(E, s->x[from] + (rw.add ? d->x[to] : 0.0));
            }
        rw.dst = d->p, rw.src = s->p, rw.di = di ? di->p : NULL, rw.si = si ? si->p : NULL;
        execute(launch_copy_rows, &rw);
        expect(d, want, 0);
        free(want);
        forget();
    }
    static const int64_t sizes[] = {1, 7, 64, 1000, 70001};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        int64_t n = rw.n = sizes[i];
        const DType types[] = {DT_F32, E};
        for (int k = 0; k < 4; k++) {
            rw.st = types[k & 1], rw.dt = types[k >> 1];
            CASE("cast %s to %s n %lld", dtype_name(rw.st), dtype_name(rw.dt), (long long)n);
            Buf *s = in("src", rw.st, n, -3, 3), *d = out("dst", rw.dt, n);
            double *want = doubles(n);
            for (int64_t j = 0; j < n; j++) want[j] = rounded(rw.dt, s->x[j]);
            rw.src = s->p, rw.dst = d->p;
            execute(launch_cast, &rw);
            expect(d, want, 0);
            free(want);
            forget();
        }
        CASE("axpy, copy, zero n %lld", (long long)n);
        Buf *s = in("x", DT_F32, n, -1, 1), *d = out("y", DT_F32, n);
        double *want = doubles(n);
        rw.src = s->p, rw.dst = d->p;
        for (int64_t j = 0; j < n; j++) want[j] = d->x[j] + (double)0.3f * s->x[j];
        execute(launch_axpy, &rw);
        expect(d, want, 3e-7);
        execute(launch_copy, &rw);
        expect(d, s->x, 0);
        execute(launch_zero, &rw);
        memset(want, 0, (size_t)n * sizeof *want);
        expect(d, want, 0);
        rw.src = s->start + GUARD;                                     /* host memory */
        execute(launch_prefetch, &rw);
        expect(d, s->x, 0);
        free(want);
        forget();
    }
}
TEST(rows)

typedef struct {
    const float *x;
    float *f, *scale, *norm;
    double *d;
    int64_t n;
    bool add;
    float max_norm;
} SumsCase;
static void launch_sum(void *context) {
    SumsCase *su = context;
    K->sum(su->f, su->x, su->n, su->add);
}
static void launch_sumsq(void *context) {
    SumsCase *su = context;
    K->sumsq(su->d, su->x, su->n, su->add);
}
static void launch_scale(void *context) {
    SumsCase *su = context;
    K->grad_scale(su->scale, su->norm, su->d, (int)su->n, su->max_norm);
}

static void sums(void) {
    SumsCase su = {0};
    static const int64_t sizes[] = {1, 7, 1000, 32769, 200003};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        CASE("n %lld", (long long)sizes[i]);
        su.n = sizes[i], su.add = i % 2;
        Buf *x = in("x", DT_F32, su.n, -1, 2), *s = out("sum", DT_F32, 1), *q = out("sumsq", DT_F64, 1);
        double sum = su.add ? s->x[0] : 0.0, sq = su.add ? q->x[0] : 0.0, size = fabs(sum);
        for (int64_t j = 0; j < su.n; j++) sum += x->x[j], sq += x->x[j] * x->x[j], size += fabs(x->x[j]);
        su.x = x->p, su.f = s->p, su.d = q->p;
        execute(launch_sum, &su);
        expect(s, &sum, 2e-7 * size);
        execute(launch_sumsq, &su);
        expect(q, &sq, 1e-12 * fabs(sq) + 1e-15);
        forget();
    }
    static const struct { double sumsq; float max_norm; double scale, norm; } cases[] = {
        {4.0, 1.0f, 0.5, 2.0}, {4.0, 0.0f, 1.0, 2.0}, {4.0, 3.0f, 1.0, 2.0}, {0.0, 1.0f, 1.0, 0.0},
        {INFINITY, 1.0f, 0.0, INFINITY}, {NAN, 0.0f, 0.0, NAN}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        CASE("grad_scale of %g, at most %g", cases[i].sumsq, (double)cases[i].max_norm);
        su.n = i % 2 ? 1 : 3;                                /* whole, or in parts */
        Buf *q = in("sumsq", DT_F64, su.n, 0, 0), *s = out("scale", DT_F32, 1), *n = out("norm", DT_F32, 1);
        for (int64_t j = 0; j < su.n; j++) set(q, j, cases[i].sumsq * (su.n == 1 ? 1 : j ? 0.25 : 0.5));
        su.d = q->p, su.scale = s->p, su.norm = n->p, su.max_norm = cases[i].max_norm;
        execute(launch_scale, &su);
        expect(s, &cases[i].scale, 1e-7);
        if (isfinite(cases[i].norm)) expect(n, &cases[i].norm, 1e-6);
        else if (isfinite(n->y[0])) WRONG("norm is %g", n->y[0]);
        forget();
    }
}
TEST(sums)

/* ---- optimizer ------------------------------------------------------------------------------------------------- */

static void launch_adamw(void *ad) {
    K->adamw(ad);
    K->adamw_wait(((AdamW *)ad)->beside);
}

static void adamw(void) {
    AdamW ad = {0};
    static const struct { int64_t n; float scale, wd, ema; bool copy, nan, keep_g; } cases[] = {
        {1, 1, 0.05f, 0, true, false, true}, {37, 0.3f, 0.05f, 0.99f, true, false, false},
        {1000, 1, 0, 0, false, false, false}, {70001, 0.5f, 0.05f, 0.999f, true, false, false},
        {40, 0, 0.05f, 0.9f, true, true, false}, {41, 0, 0.05f, 0.9f, true, false, false},
        {3001, 0.5f, 0.05f, 0, true, false, true}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t n = cases[i].n;
        CASE("n %lld scale %g decay %g", (long long)n, (double)cases[i].scale, (double)cases[i].wd);
        Buf *p = out("p", DT_F32, n), *g = out("g", DT_F32, n), *m = out("m", DT_F32, n), *v = out("v", DT_F32, n),
            *copy = out("copy", E, n);
        Buf *ema = out("ema", DT_F32, n), *scale = in("gscale", DT_F32, 1, 0, 0);
        set(scale, 0, (double)cases[i].scale);
        for (int64_t j = 0; j < n; j++) set(v, j, fabs(v->x[j])), set(g, j, cases[i].nan && j % 3 == 0 ? NAN : g->x[j]);
        ad = (AdamW){.p = p->p, .g = g->p, .m = m->p, .v = v->p, .ema = cases[i].ema > 0 ? ema->p : NULL,
                     .copy = cases[i].copy ? copy->p : NULL, .n = n, .gscale = scale->p, .lr = 1e-2f, .beta1 = 0.9f,
                     .beta2 = 0.98f, .eps = 1e-8f, .weight_decay = cases[i].wd,
                     .c1 = 1 - 0.9f * 0.9f, .c2 = 1 - 0.98f * 0.98f, .ema_decay = cases[i].ema,
                     .keep_g = cases[i].keep_g, .beside = i % 2 ? (int)i : 0};
        double *w[8];
        for (int k = 0; k < 8; k++) {
            w[k] = doubles(n);
            memcpy(w[k], (k % 4 == 0 ? p : k % 4 == 1 ? m : k % 4 == 2 ? v : ema)->x, (size_t)n * sizeof(double));
        }
        exact_adamw(w[0], w[1], w[2], w[3], g->x, &ad, (double)cases[i].scale);
        plain_adamw(w[4], w[5], w[6], w[7], g->x, &ad, (double)cases[i].scale);
        execute(launch_adamw, &ad);
        compare(p, w[0], w[4]);
        compare(m, w[1], w[5]);
        compare(v, w[2], w[6]);
        if (ad.ema) compare(ema, w[3], w[7]);
        for (int64_t j = 0; j < n; j++) {
            if (cases[i].scale == 0) {
                if (!cases[i].nan && g->y[j] != g->x[j]) WRONG("g[%lld] is %g, was %g", (long long)j, g->y[j], g->x[j]);
                if (copy->y[j] != copy->x[j]) WRONG("copy[%lld] was written", (long long)j);
                continue;
            }
            if (g->y[j] != (ad.keep_g ? g->x[j] : 0.0)) WRONG("g[%lld] is %g after the step", (long long)j, g->y[j]);
            if (ad.copy && copy->y[j] != rounded(E, p->y[j])) WRONG("copy[%lld] is not p", (long long)j);
        }
        for (int k = 0; k < 8; k++) free(w[k]);
        forget();
    }
}
TEST(adamw)

/* ---- random bits ----------------------------------------------------------------------------------------------- */

/* The known answers that the generator's authors publish for philox4x32-10. */
static void test_philox(void **state) {
    (void)state;
    static const uint32_t known[3][10] = {              /* counter, key, result */
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        const uint32_t *k = known[i];
        Philox x = philox(k[0], k[1], k[2], k[3], k[4], k[5]);
        for (int j = 0; j < 4; j++) assert_int_equal(x.v[j], k[6 + j]);
        PhiloxKeys keys = philox_keys(k[4], k[5]);
        x = philox_join(&keys, philox_row(&keys, k[1], k[2]), philox_block(&keys, k[0], k[3]));
        for (int j = 0; j < 4; j++) assert_int_equal(x.v[j], k[6 + j]);
    }
}

/* ---- choosing a backend ---------------------------------------------------------------------------------------- */

static void test_open(void **state) {
    (void)state;
    const Backend *b;
    assert_int_equal(backend_open(&b, "tpu", DT_F32, 0), ERR_USAGE);
    assert_non_null(strstr(err_message(), "tpu"));
    assert_int_equal(backend_open(&b, "auto", DT_BF16, 0), OK);
    assert_int_equal(b->elem, DT_BF16);
    backend_close(b);
    void *p = &b;
    assert_int_equal(backend_null(DT_F32)->alloc(&p, 100), OK);
    backend_null(DT_BF16)->gemm(NULL);
    assert_int_equal(backend_null(DT_BF16)->status(), OK);
    (void)cpu_has_bf16();
}
