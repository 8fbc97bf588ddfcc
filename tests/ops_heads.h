/* ops_heads: image side, heads, contrastive loss, negatives: cases of test_ops.c (included there, once). */

/* ---- image side ------------------------------------------------------------------------------------------------ */

typedef struct {
    Buf *f, *W, *b, *gamma, *beta;
    double *dY;
    DType t;
    const float *scale;
    int64_t N, width, M, P;
    float *G, *s, *dW, *db, *dg, *dbeta;
    bool add;
    void *Wf, *cf, *dst;
    const void *src;
} ImageCase;
static void launch_normalize(void *context) {
    ImageCase *im = context;
    K->normalize(im->dst, im->src, im->t, im->scale, im->N, im->width, im->P, 1e-5f);
}
static void launch_fold(void *context) {
    ImageCase *im = context;
    K->fold(im->Wf, im->cf, im->W->p, im->b->p, im->gamma->p, im->beta->p, im->M, im->width);
}
static void launch_unfold(void *context) {
    ImageCase *im = context;
    K->unfold(im->dW, im->add, im->db, im->dg, im->dbeta, im->G, im->s, im->W->p, im->gamma->p, im->beta->p, im->M,
              im->width);
}

static void image(void) {
    ImageCase im = {0};
    static const struct { DType t; int64_t N, width, P; bool scale; double range; } cases[] = {
        {DT_F32, 5, 7, 5, false, 3},   {DT_F16, 33, 64, 11, false, 3},      {DT_BF16, 12, 33, 4, true, 3},
        {DT_E4M3, 14, 96, 7, true, 100}, {DT_I8, 10, 1408, 5, true, 127}, {DT_F16, 9, 1408, 3, true, 1e-6},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t N = im.N = cases[i].N, w = im.width = cases[i].width, P = im.P = cases[i].P;
        im.t = cases[i].t;
        CASE("normalize %s N %lld E %lld", dtype_name(im.t), (long long)N, (long long)w);
        Buf *f = in("f", im.t, N * w, -cases[i].range, cases[i].range), *y = out("xhat", E, N * w);
        Buf *scale = cases[i].scale ? in("scale", DT_F32, (N + P - 1) / P, 0.01, 0.1) : NULL;
        double *want = doubles(N * w), *plain = doubles(N * w);
        exact_normalize(want, f->x, scale ? scale->x : NULL, N, w, P, 1e-5);
        plain_normalize(plain, f->x, scale ? scale->x : NULL, N, w, P, 1e-5);
        im.src = f->p, im.dst = y->p, im.scale = scale ? scale->p : NULL;
        execute(launch_normalize, &im);
        compare(y, want, plain);
        free(want);
        free(plain);
        forget();
    }
}
TEST(image)

/* Rows of one byte a number travel as they are and are unpacked where they are used: every code, on either path of a
 * kernel, gives the bits that the same numbers give in f32, which travel in four. */
static void launch_packed(void *context) {
    ImageCase *im = context;
    K->normalize(im->dst, im->src, im->t, im->scale, im->N, im->width, im->P, 1e-5f);
    K->normalize(im->cf, im->W->p, DT_F32, NULL, im->N, im->width, im->P, 1e-5f);
}

static void packed(void) {
    static const struct { DType t; int64_t N, width, P; } cases[] = {
        {DT_E4M3, 40, 7, 1}, {DT_E4M3, 3, 1408, 1}, {DT_E4M3, 6, 96, 3}, {DT_I8, 40, 7, 1}, {DT_I8, 3, 1408, 1}, {DT_I8, 6, 96, 3},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ImageCase im = {.t = cases[i].t, .N = cases[i].N, .width = cases[i].width, .P = cases[i].P};
        int64_t n = im.N * im.width;
        CASE("packed %s N %lld E %lld", dtype_name(im.t), (long long)im.N, (long long)im.width);
        Buf *f = in("f", im.t, n, 0, 0), *scale = in("scale", DT_F32, (im.N + im.P - 1) / im.P, 0.01, 0.1),
            *x = out("xhat", E, n), *y = out("xhat of f32", E, n);
        im.W = in("f32", DT_F32, n, 0, 0);
        for (int64_t k = 0; k < n; k++) {
            uint8_t code = (uint8_t)(k * 37 + k / 256);
            float v = im.t == DT_I8 ? (float)(int8_t)code : e4m3_to_f32(code);
            set(f, k, isnan(v) ? 0 : v);
            set(im.W, k, (double)((float)f->x[k] * (float)scale->x[k / im.width / im.P]));
        }
        im.src = f->p, im.scale = scale->p, im.dst = x->p, im.cf = y->p;
        execute(launch_packed, &im);
        if (memcmp(x->got + GUARD, y->got + GUARD, x->bytes) != 0) WRONG("%s", "other bits than of f32");
        forget();
    }
}
TEST(packed)

/* fold and unfold: the loss is that of a linear layer behind an affine norm, written out. */
static double loss_fold(void *context) {
    ImageCase *im = context;
    double l = 0.0;
    for (int64_t r = 0; r < im->N; r++)
        for (int64_t m = 0; m < im->M; m++) {
            double y = im->b->x[m];
            for (int64_t c = 0; c < im->width; c++)
                y += (im->f->x[r * im->width + c] * im->gamma->x[c] + im->beta->x[c]) * im->W->x[m * im->width + c];
            l += y * im->dY[r * im->M + m];
        }
    return l;
}

static void features(void) {
    ImageCase im = {0};
    static const struct { int64_t N, M, width; } cases[] = {{3, 5, 7}, {4, 70, 33}, {2, 24, 130}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t N = im.N = cases[i].N, M = im.M = cases[i].M, w = im.width = cases[i].width;
        CASE("fold N %lld M %lld E %lld", (long long)N, (long long)M, (long long)w);
        im.f = in("f", DT_F32, N * w, -2, 2), im.W = in("W", DT_F32, M * w, -1, 1), im.b = in("b", DT_F32, M, -1, 1);
        im.gamma = in("gamma", DT_F32, w, 0.5, 1.5), im.beta = in("beta", DT_F32, w, -1, 1);
        Buf *Wf = out("Wf", E, M * w), *cf = out("cf", E, M);
        double *wW = doubles(M * w), *pW = doubles(M * w), *wc = doubles(M), *pc = doubles(M);
        for (int64_t m = 0; m < M; m++) {
            float dot = 0.0f;
            wc[m] = im.b->x[m];
            for (int64_t c = 0; c < w; c++) {
                wW[m * w + c] = im.W->x[m * w + c] * im.gamma->x[c];
                pW[m * w + c] = rounded(E, wW[m * w + c]);
                wc[m] += im.W->x[m * w + c] * im.beta->x[c];
                dot += (float)im.W->x[m * w + c] * (float)im.beta->x[c];
            }
            pc[m] = rounded(E, (double)((float)im.b->x[m] + dot));
        }
        im.Wf = Wf->p, im.cf = cf->p;
        execute(launch_fold, &im);
        compare(Wf, wW, pW);
        compare(cf, wc, pc);
        im.dY = doubles(N * M);
        Buf *G = in("G", DT_F32, M * w, 0, 0), *s = in("s", DT_F32, M, 0, 0);
        for (int64_t j = 0; j < N * M; j++) im.dY[j] = uniform(-1, 1);
        for (int64_t m = 0; m < M; m++) {
            double sum = 0.0;
            for (int64_t r = 0; r < N; r++) sum += im.dY[r * M + m];
            set(s, m, sum);
            for (int64_t c = 0; c < w; c++) {
                double g = 0.0;
                for (int64_t r = 0; r < N; r++) g += im.dY[r * M + m] * im.f->x[r * w + c];
                set(G, m * w + c, g);
            }
        }
        Buf *dW = out("dW", DT_F32, M * w), *db = out("db", DT_F32, M), *dg = out("dgamma", DT_F32, w),
            *dbeta = out("dbeta", DT_F32, w);
        im.G = G->p, im.s = s->p, im.dW = dW->p, im.db = db->p, im.dg = dg->p, im.dbeta = dbeta->p, im.add = i != 1;
        execute(launch_unfold, &im);
        differentiate(dW, im.add, im.W->x, loss_fold, &im);
        differentiate(db, true, im.b->x, loss_fold, &im);
        differentiate(dg, true, im.gamma->x, loss_fold, &im);
        differentiate(dbeta, true, im.beta->x, loss_fold, &im);
        for (int k = 0; k < 5; k++) free((double *[]){wW, pW, wc, pc, im.dY}[k]);
        forget();
    }
}
TEST(features)

/* ---- heads ----------------------------------------------------------------------------------------------------- */

typedef struct { Buf *x, *dy; float *y, *norm; const void *src; void *dst; int64_t n, Q, C; bool add; } HeadsCase;
static void launch_l2norm(void *context) {
    HeadsCase *hd = context;
    K->l2norm(hd->y, hd->norm, hd->src, hd->n, hd->C);
}
static void launch_l2norm_bwd(void *context) {
    HeadsCase *hd = context;
    K->l2norm_bwd(hd->dst, hd->dy->p, hd->y, hd->norm, hd->n, hd->C);
}
static void launch_mean(void *context) {
    HeadsCase *hd = context;
    K->segment_mean(hd->dst, hd->src, hd->n, hd->Q, hd->C);
}
static void launch_mean_bwd(void *context) {
    HeadsCase *hd = context;
    K->segment_mean_bwd(hd->dst, hd->src, hd->n, hd->Q, hd->C, hd->add);
}

static void exact_l2norm(HeadsCase *hd, double *y, double *norm, bool plain) {
    for (int64_t r = 0; r < hd->n; r++) {
        double s = 0.0;
        for (int64_t c = 0; c < hd->C; c++) {
            s += hd->x->x[r * hd->C + c] * hd->x->x[r * hd->C + c];
            if (plain) s = (double)(float)s;
        }
        norm[r] = fmax(sqrt(s), 1e-12);
        for (int64_t c = 0; c < hd->C; c++) y[r * hd->C + c] = hd->x->x[r * hd->C + c] / norm[r];
    }
}

static double loss_l2norm(void *context) {
    HeadsCase *hd = context;
    double l = 0.0, *y = doubles(hd->n * hd->C), *norm = doubles(hd->n);
    exact_l2norm(hd, y, norm, false);
    for (int64_t i = 0; i < hd->n * hd->C; i++) l += y[i] * hd->dy->x[i];
    free(y);
    free(norm);
    return l;
}

static void heads(void) {
    HeadsCase hd = {0};
    static const struct { int64_t n, Q, C; } cases[] = {{1, 1, 1}, {3, 5, 7}, {4, 32, 64}, {2, 32, 768}, {7, 3, 130}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t n = hd.n = cases[i].n, C = hd.C = cases[i].C, Q = hd.Q = cases[i].Q;
        CASE("n %lld Q %lld C %lld", (long long)n, (long long)Q, (long long)C);
        hd.x = in("x", E, n * C, -1, 1);
        if (n > 2)
            /* a row of zeros has no direction, and is no crash */
            for (int64_t c = 0; c < C; c++) set(hd.x, c, 0.0);
        Buf *y = out("y", DT_F32, n * C), *norm = out("norm", DT_F32, n);
        double *wy = doubles(n * C), *wn = doubles(n), *py = doubles(n * C), *pn = doubles(n);
        exact_l2norm(&hd, wy, wn, false);
        exact_l2norm(&hd, py, pn, true);
        hd.src = hd.x->p, hd.y = y->p, hd.norm = norm->p;
        execute(launch_l2norm, &hd);
        compare(y, wy, py);
        compare(norm, wn, pn);
        if (n <= 2) {
            Buf *y2 = in("y", DT_F32, n * C, 0, 0), *n2 = in("norm", DT_F32, n, 0, 0), *dx = out("dx", E, n * C);
            hd.dy = in("dy", DT_F32, n * C, -1, 1);
            for (int64_t j = 0; j < n * C; j++) set(y2, j, wy[j]);
            for (int64_t j = 0; j < n; j++) set(n2, j, wn[j]);
            hd.y = y2->p, hd.norm = n2->p, hd.dst = dx->p;
            execute(launch_l2norm_bwd, &hd);
            differentiate(dx, false, hd.x->x, loss_l2norm, &hd);
        }
        for (int k = 0; k < 4; k++) free((double *[]){wy, wn, py, pn}[k]);
        forget();

        Buf *x = in("x", E, n * Q * C, -1, 1), *m = out("y", E, n * C);
        double *want = doubles(n * Q * C), *plain = doubles(n * Q * C);
        for (int64_t j = 0; j < n * C; j++) {
            for (int64_t q = 0; q < Q; q++) want[j] += x->x[(j / C * Q + q) * C + j % C] / (double)Q;
            plain[j] = rounded(E, want[j]);
        }
        hd.src = x->p, hd.dst = m->p;
        execute(launch_mean, &hd);
        compare(m, want, plain);
        Buf *dy = in("dy", E, n * C, -1, 1), *dx = out("dx", E, n * Q * C);
        hd.add = i % 2;
        for (int64_t j = 0; j < n * Q * C; j++) {
            want[j] = (hd.add ? dx->x[j] : 0.0) + dy->x[j / (Q * C) * C + j % C] / (double)Q;
            plain[j] = rounded(E, want[j]);
        }
        hd.src = dy->p, hd.dst = dx->p;
        execute(launch_mean_bwd, &hd);
        compare(dx, want, plain);
        free(want);
        free(plain);
        forget();
    }
}
TEST(heads)

typedef struct { Buf *S, *arg, *I, *T, *dS, *dI, *dT; int64_t ni, nt, Q, Z, si, sj; } SimmaxCase;
static void launch_simmax(void *context) {
    SimmaxCase *sm = context;
    K->simmax(sm->S->p, sm->arg->p, sm->I->p, sm->T->p, sm->ni, sm->nt, sm->Q, sm->Z, sm->si, sm->sj);
}
static void launch_simmax_bwd(void *context) {
    SimmaxCase *sm = context;
    K->simmax_bwd_image(sm->dI->p, sm->dS->p, sm->arg->p, sm->T->p, sm->ni, sm->nt, sm->Q, sm->Z, sm->si, sm->sj);
    K->simmax_bwd_text(sm->dT->p, sm->dS->p, sm->arg->p, sm->I->p, sm->ni, sm->nt, sm->Q, sm->Z, sm->si, sm->sj);
}

static double dot(const double *a, const double *b, int64_t n) {
    double s = 0.0;
    for (int64_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static double loss_simmax(void *context) {
    SimmaxCase *sm = context;
    double l = 0.0;
    for (int64_t i = 0; i < sm->ni; i++)
        for (int64_t j = 0; j < sm->nt; j++) {
            double best = -1e30;
            for (int64_t q = 0; q < sm->Q; q++)
                best = fmax(best, dot(sm->I->x + (i * sm->Q + q) * sm->Z, sm->T->x + j * sm->Z, sm->Z));
            l += best * sm->dS->x[i * sm->si + j * sm->sj];
        }
    return l;
}

static void simmax(void) {
    SimmaxCase sm = {0};
    static const struct { int64_t ni, nt, Q, Z; bool turned; } cases[] = {
        {1, 1, 1, 1, false}, {3, 5, 4, 7, true}, {9, 6, 32, 33, false}, {12, 40, 3, 64, true},
        {10, 1100, 32, 16, false}};
    if (E != DT_F32) return;
    library = true;
    for (size_t c = 0; c < COUNT(cases); c++) {
        int64_t ni = sm.ni = cases[c].ni, nt = sm.nt = cases[c].nt, Q = sm.Q = cases[c].Q, Z = sm.Z = cases[c].Z;
        CASE("images %lld texts %lld Q %lld Z %lld", (long long)ni, (long long)nt, (long long)Q, (long long)Z);
        sm.si = cases[c].turned ? 1 : nt + 2, sm.sj = cases[c].turned ? ni + 1 : 1;
        int64_t cells = (ni - 1) * sm.si + (nt - 1) * sm.sj + 1;
        sm.I = in("I", DT_F32, ni * Q * Z, -1, 1), sm.T = in("T", DT_F32, nt * Z, -1, 1);
        sm.S = out("S", DT_F32, cells), sm.arg = out("arg", DT_I32, cells);
        /* a tie of queries 1 and 2 */
        if (Q > 2) for (int64_t z = 0; z < Z; z++) set(sm.I, 2 * Z + z, sm.I->x[Z + z]);
        execute(launch_simmax, &sm);
        for (int64_t i = 0; i < ni; i++)
            for (int64_t j = 0; j < nt; j++) {
                int64_t cell = i * sm.si + j * sm.sj, arg = (int64_t)sm.arg->y[cell];
                double best = -1e30, bound = 2e-7 * (double)Z + 1e-6;
                for (int64_t q = 0; q < Q; q++) best = fmax(best, dot(sm.I->x + (i * Q + q) * Z, sm.T->x + j * Z, Z));
                if (arg < 0 || arg >= Q || (i == 0 && Q > 2 && arg == 2))
                    WRONG("arg[%lld,%lld] is %lld", (long long)i, (long long)j, (long long)arg);
                double at_arg = dot(sm.I->x + (i * Q + arg) * Z, sm.T->x + j * Z, Z);
                if (fabs(sm.S->y[cell] - best) > bound || at_arg < best - bound)
                    WRONG("S[%lld,%lld] is %.9g at query %lld (%.9g), not %.9g", (long long)i, (long long)j,
                          sm.S->y[cell], (long long)arg, at_arg, best);
            }
        if (ni * nt > 1000) { forget(); continue; }
        Buf *arg = in("arg", DT_I32, cells, 0, 0);
        for (int64_t i = 0; i < cells; i++) set(arg, i, sm.arg->y[i]);
        sm.arg = arg, sm.dS = in("dS", DT_F32, cells, -1, 1), sm.dI = out("dI", DT_F32, ni * Q * Z),
            sm.dT = out("dT", DT_F32, nt * Z);
        execute(launch_simmax_bwd, &sm);
        /* the tie is a kink: queries 1 and 2 of image 0 move together, so their gradients are left out */
        if (Q > 2)
            for (int64_t z = 0; z < Z; z++) set(sm.I, 2 * Z + z, -50.0), sm.dI->y[2 * Z + z] = sm.dI->x[2 * Z + z];
        bool clean = true;                          /* -50 must not have become a maximum */
        for (int64_t j = 0; j < nt; j++)
            for (int64_t q = 0, b = 0; q < Q; q++) {
                if (dot(sm.I->x + q * Z, sm.T->x + j * Z, Z) > dot(sm.I->x + b * Z, sm.T->x + j * Z, Z)) b = q;
                if (q == Q - 1 && b == 2) clean = false;
            }
        if (clean || Q <= 2) {
            differentiate(sm.dI, true, sm.I->x, loss_simmax, &sm);
            differentiate(sm.dT, true, sm.T->x, loss_simmax, &sm);
        }
        forget();
    }
}
TEST(simmax)

/* A query that is not a number is the maximum, wherever it stands: nothing broken vanishes. */
static void simmax_nan(void) {
    SimmaxCase sm = {0};
    if (E != DT_F32) return;
    library = true;
    for (int64_t q = 0; q < 40; q += 13) {
        CASE("query %lld is NaN", (long long)q);
        sm.ni = 2, sm.nt = 3, sm.Q = 40, sm.Z = 8, sm.si = 3, sm.sj = 1;
        sm.I = in("I", DT_F32, 2 * 40 * 8, -1, 1), sm.T = in("T", DT_F32, 3 * 8, -1, 1);
        sm.S = out("S", DT_F32, 6), sm.arg = out("arg", DT_I32, 6);
        set(sm.I, (40 + q) * 8, NAN);
        execute(launch_simmax, &sm);
        for (int64_t j = 0; j < 3; j++) {
            if (isnan(sm.S->y[j])) WRONG("the other image's S[%lld] is NaN", (long long)j);
            if (!isnan(sm.S->y[3 + j]) || (int64_t)sm.arg->y[3 + j] != q)
                WRONG("S[1,%lld] is %g at query %g", (long long)j, sm.S->y[3 + j], sm.arg->y[3 + j]);
        }
        forget();
    }
}
TEST(simmax_nan)

/* ---- contrastive loss ------------------------------------------------------------------------------------------ */

typedef struct { ItcLoss l; Buf *S, *temp, *target, *row_id, *col_id; double scale; } ItcCase;
static void launch_itc(void *it) { K->itc_loss(&((ItcCase *)it)->l); }

static bool is_own(ItcCase *it, int64_t i, int64_t j) {
    return it->row_id ? it->row_id->x[i] == it->col_id->x[j] : (int64_t)it->target->x[i] == j;
}

static void exact_itc(ItcCase *it, double *loss, bool plain) {
    double *z = doubles(it->l.n), *t = doubles(it->l.n), e = (double)it->l.smoothing;
    for (int64_t i = 0; i < it->l.rows; i++) {
        double pos = 0.0;
        for (int64_t j = 0; j < it->l.n; j++) pos += is_own(it, i, j);
        for (int64_t j = 0; j < it->l.n; j++) {
            z[j] = it->S->x[i * it->l.si + j * it->l.sj] / it->temp->x[0];
            t[j] = (is_own(it, i, j) ? (1.0 - e) / pos : 0.0) + e / (double)it->l.n;
        }
        loss[i] = (plain ? plain_cross_entropy : exact_cross_entropy)(z, t, it->l.n);
    }
    free(z);
    free(t);
}

static double loss_itc(void *context) {
    ItcCase *it = context;
    double l = 0.0, *loss = doubles(it->l.rows);
    exact_itc(it, loss, false);
    for (int64_t i = 0; i < it->l.rows; i++) l += loss[i] * it->scale;
    free(loss);
    return l;
}

static void itc(void) {
    ItcCase it = {0};
    static const struct { int64_t rows, n; bool turned, ids; float e; } cases[] = {
        {1, 1, false, false, 0.1f}, {2, 5, false, false, 0.1f}, {7, 7, true, true, 0.1f}, {5, 33, true, false, 0},
        {12, 48, false, true, 0.2f}, {3, 1680, false, false, 0.1f}};
    if (E != DT_F32) return;
    for (size_t c = 0; c < COUNT(cases); c++) {
        int64_t rows = cases[c].rows, n = cases[c].n;
        CASE("rows %lld n %lld ids %d", (long long)rows, (long long)n, cases[c].ids);
        it.scale = 0.37;
        it.l = (ItcLoss){.rows = rows, .n = n, .si = cases[c].turned ? 1 : n + 1, .sj = cases[c].turned ? rows : 1,
                         .smoothing = cases[c].e, .scale = 0.37f};
        int64_t cells = (rows - 1) * it.l.si + (n - 1) * it.l.sj + 1;
        it.S = in("S", DT_F32, cells, -1, 1), it.temp = in("temp", DT_F32, 1, 0.07, 0.07),
            it.target = in("target", DT_I32, rows, 0, 0);
        it.row_id = it.col_id = NULL;
        for (int64_t i = 0; i < rows; i++) set(it.target, i, (double)((3 * i + 1) % n));
        if (cases[c].ids) {
            it.row_id = in("row_id", DT_I64, rows, 0, 0), it.col_id = in("col_id", DT_I64, n, 0, 0);
            for (int64_t j = 0; j < n; j++) set(it.col_id, j, (double)(j % 4) + 1e12);
            for (int64_t i = 0; i < rows; i++) set(it.row_id, i, it.col_id->x[(3 * i + 1) % n]);
        }
        Buf *loss = out("loss", DT_F32, rows), *dS = out("dS", DT_F32, cells), *dtemp = out("dtemp", DT_F32, rows);
        it.l.S = it.S->p, it.l.temp = it.temp->p, it.l.target = it.target->p, it.l.loss = loss->p, it.l.dS = dS->p,
            it.l.dtemp = dtemp->p;
        it.l.row_id = cases[c].ids ? it.row_id->p : NULL, it.l.col_id = cases[c].ids ? it.col_id->p : NULL;
        double *want = doubles(rows), *plain = doubles(rows);
        exact_itc(&it, want, false);
        exact_itc(&it, plain, true);
        execute(launch_itc, &it);
        compare(loss, want, plain);
        for (int64_t i = 0; i < cells; i++)                     /* cells between rows are nobody's */
            if (!cases[c].turned && i % it.l.si >= n) {
                if (dS->y[i] != dS->x[i]) WRONG("dS written between rows at %lld", (long long)i);
                dS->y[i] = 0.0;
            }
        differentiate(dS, false, it.S->x, loss_itc, &it);
        Buf total = {.name = "dtemp", .t = DT_F32, .n = 1, .x = (double[1]){0.0}, .y = (double[1]){0.0}};
        for (int64_t i = 0; i < rows; i++) total.y[0] += dtemp->y[i];
        differentiate(&total, false, it.temp->x, loss_itc, &it);
        free(want);
        free(plain);
        forget();
    }
}
TEST(itc)

/* spec/losses.md 8a and 8b. */
static void itc_worked(void) {
    ItcCase it = {0};
    SimmaxCase sm = {0};
    if (E != DT_F32) return;
    CASE("losses.md 8a");
    static const double I[] = {1, 0, 0.6, 0.8, 0, 1, -0.70710678118654752, 0.70710678118654752};
    static const double T[] = {0.70710678118654752, 0.70710678118654752, 0, 1};
    sm.ni = sm.nt = sm.Q = sm.Z = 2, sm.si = 2, sm.sj = 1;
    sm.I = in("I", DT_F32, 8, 0, 0), sm.T = in("T", DT_F32, 4, 0, 0), sm.S = out("S", DT_F32, 4),
        sm.arg = out("arg", DT_I32, 4);
    for (int i = 0; i < 8; i++) set(sm.I, i, I[i]);
    for (int i = 0; i < 4; i++) set(sm.T, i, T[i]);
    execute(launch_simmax, &sm);
    expect(sm.S, (const double[]){0.98994949, 0.8, 0.70710678, 1.0}, 2e-7);
    it.S = in("S", DT_F32, 4, 0, 0), it.temp = in("temp", DT_F32, 1, 0.07, 0.07),
        it.target = in("target", DT_I32, 2, 0, 0);
    for (int i = 0; i < 4; i++) set(it.S, i, sm.S->y[i]);
    set(it.target, 1, 1);
    Buf *loss = out("loss", DT_F32, 2);
    it.l = (ItcLoss){.rows = 2, .n = 2, .si = 2, .sj = 1, .S = it.S->p, .temp = it.temp->p, .target = it.target->p,
                     .smoothing = 0.1f, .loss = loss->p};
    execute(launch_itc, &it);
    expect(loss, (const double[]){0.19987300, 0.22432912}, 3e-6);
    it.l.si = 1, it.l.sj = 2;
    execute(launch_itc, &it);
    expect(loss, (const double[]){0.21946439, 0.19870106}, 3e-6);
    forget();
    CASE("losses.md 8b");
    it.S = in("S", DT_F32, 9, 0, 0), it.temp = in("temp", DT_F32, 1, 1, 1), it.target = in("target", DT_I32, 3, 0, 0),
        loss = out("loss", DT_F32, 3);
    it.row_id = in("row_id", DT_I64, 3, 0, 0), it.col_id = in("col_id", DT_I64, 3, 0, 0);
    for (int i = 0; i < 9; i++) set(it.S, i, ((const double[]){2, 1, 0, 0.5, 2.5, 0.2, 0.1, 0.3, 1.9})[i]);
    for (int i = 0; i < 3; i++) set(it.row_id, i, i < 2 ? 7 : 9), set(it.col_id, i, i < 2 ? 7 : 9),
        set(it.target, i, i);
    it.l = (ItcLoss){.rows = 3, .n = 3, .si = 3, .sj = 1, .S = it.S->p, .temp = it.temp->p, .target = it.target->p,
                     .row_id = it.row_id->p, .col_id = it.col_id->p, .smoothing = 0.1f, .loss = loss->p};
    execute(launch_itc, &it);
    expect(loss, (const double[]){0.95760596, 1.25488526, 0.42609483}, 1e-6);
}
TEST(itc_worked)

/* ---- negatives ------------------------------------------------------------------------------------------------- */

static void launch_negatives(void *ng) { K->negatives(ng); }

/* losses.md 8c; then no weight left, and the hardest. */
static void negative_weights(void) {
    Negatives ng = {0};
    if (E != DT_F32) return;
    Buf *S = in("S", DT_F32, 8, 0, 0), *temp = in("temp", DT_F32, 1, 1, 1), *target = in("target", DT_I32, 2, 0, 0);
    Buf *pair = in("row_pair", DT_I32, 2, 0, 0), *o = out("out", DT_I32, 2), *w = out("weights", DT_F32, 8);
    for (int i = 0; i < 8; i++) set(S, i, ((const double[]){5, 4, 1, 0, 0, 1, 9, 3})[i]);
    set(pair, 1, 1);
    set(target, 1, 2);
    ng = (Negatives){.rows = 2, .n = 4, .si = 4, .sj = 1, .S = S->p, .temp = temp->p, .target = target->p,
                     .row_pair = pair->p, .site = SITE_NEGATIVE_TEXT, .step = 1, .seed = 1, .out = o->p,
                     .weights = w->p};
    CASE("losses.md 8c");
    execute(launch_negatives, &ng);
    w->n = 4;
    expect(w, (const double[]){0, 0.93623955, 0.04661262, 0.01714783}, 1e-7);
    CASE("losses.md 8c, older rule");
    ng.rule = NEG_SAMPLE_ALL;
    execute(launch_negatives, &ng);
    expect(w, (const double[]){0, 0.26420418, 0.01324897, 0.00493724}, 1e-7);
    CASE("hardest");
    ng.rule = NEG_HARDEST;
    ng.weights = NULL;
    execute(launch_negatives, &ng);
    expect(o, (const double[]){1, 3}, 0);
    CASE("all columns own");
    Buf *ri = in("row_id", DT_I64, 2, 5, 5), *ci = in("col_id", DT_I64, 4, 5, 5);
    ng.row_id = ri->p, ng.col_id = ci->p, ng.rule = NEG_SAMPLE;
    execute(launch_negatives, &ng);
    expect(o, (const double[]){0, 2}, 0);
}
TEST(negative_weights)

/* Frequencies of 40,000 draws are the weights; never an own column;
 * the same pair draws the same wherever its row stands. */
static void negatives(void) {
    enum { ROWS = 40000, N = 6 };
    if (E != DT_F32) return;
    CASE("frequencies");
    double z[N] = {0.3, -0.2, 0.6, 0.1, -1.0, 0.5}, total = 0.0, count[N] = {0};
    Buf *S = in("S", DT_F32, ROWS * N, 0, 0), *temp = in("temp", DT_F32, 1, 0.5, 0.5),
        *target = in("target", DT_I32, ROWS, 2, 2);
    Buf *pair = in("row_pair", DT_I32, ROWS, 0, 0), *o = out("out", DT_I32, ROWS);
    for (int64_t i = 0; i < ROWS * N; i++) set(S, i, z[i % N]);
    for (int64_t i = 0; i < ROWS; i++) set(pair, i, (double)(i < ROWS / 2 ? i : ROWS + ROWS / 2 - 1 - i));
    Negatives ng = (Negatives){.rows = ROWS, .n = N, .si = N, .sj = 1, .S = S->p, .temp = temp->p, .target = target->p,
                     .row_pair = pair->p, .site = SITE_NEGATIVE_IMAGE, .step = 12, .seed = 99, .out = o->p};
    execute(launch_negatives, &ng);
    for (int j = 0; j < N; j++) total += j == 2 ? 0.0 : exp(z[j] / 0.5);
    for (int64_t i = 0; i < ROWS; i++) {
        if (o->y[i] < 0 || o->y[i] >= N) WRONG("row %lld drew column %g", (long long)i, o->y[i]);
        count[(int)o->y[i]]++;
        int64_t twin = i < ROWS / 2 ? ROWS + ROWS / 2 - 1 - i : i;
        if (twin < ROWS && pair->x[twin] == pair->x[i] && o->y[twin] != o->y[i])
            WRONG("pair %g drew twice differently", pair->x[i]);
    }
    for (int j = 0; j < N; j++) {
        double p = j == 2 ? 0.0 : exp(z[j] / 0.5) / total, sigma = sqrt(p * (1 - p) * ROWS);
        if (fabs(count[j] - p * ROWS) > 5 * sigma)
            WRONG("column %d drawn %g times, expected %.1f", j, count[j], p * ROWS);
    }
}
TEST(negatives)
