/* ops_norm: residual and norm, LN and RMS: cases of test_ops.c (included there, once). */

enum { X = 1, BIAS_IN = 2, ADD_DX = 4, RMS = 8, ALONE = 16, LATER = 32, NO_BETA = 64, FROZEN = 128 };
static const struct { int64_t N, C; float p; int how; } norm_cases[] = {
    {1, 8, 0, X | BIAS_IN},               {5, 7, 0.1f, X | BIAS_IN | ADD_DX},    {33, 64, 0, BIAS_IN},
    {3, 12, 0.5f, 0},                     {130, 96, 0.1f, X | BIAS_IN},          {7, 33, 0, X | ADD_DX},
    {4, 1030, 0.3f, X | BIAS_IN | ADD_DX}, {37, 768, 0.1f, X | BIAS_IN},
    {6, 40, 0, X | RMS | NO_BETA},        {9, 17, 0.2f, X | BIAS_IN | RMS | LATER | ADD_DX},
    {5, 72, 0, X | BIAS_IN | LATER | FROZEN}, {11, 24, 0, X | ALONE | ADD_DX},
    {8, 30, 0, X | ALONE | RMS | NO_BETA | FROZEN}, {3, 4100, 0, X | RMS | NO_BETA | LATER | FROZEN},
    {19, 88, 0, X | ALONE | LATER},       {5, 576, 0, X | ALONE | ADD_DX | NO_BETA},
    {3, 1408, 0.1f, X | BIAS_IN | ADD_DX}, {2, 8192, 0.1f, X | BIAS_IN}, {4, 2048, 0, X | BIAS_IN | RMS | LATER},
    {5, 4096, 0, X | RMS | NO_BETA | LATER | FROZEN},
};
typedef struct { AddNorm a; AddNormGrad g; Buf *s, *x, *bias, *gamma, *beta, *rows, *dy, *dz; } NormCase;
static void launch_add_norm(void *no) { K->add_norm(&((NormCase *)no)->a); }
static void launch_add_norm_bwd(void *context) {
    NormCase *no = context;
    K->add_norm_bwd(&no->a, &no->g);
}

static void row_norm(NormCase *no, double *y, double *mean, double *rstd, const double *z, bool plain) {
    const double *gamma = no->gamma->x, *beta = no->beta ? no->beta->x : NULL;
    double eps = (double)no->a.eps;
    if (no->a.rms) (plain ? plain_rms : exact_rms)(y, rstd, z, gamma, beta, no->a.C, eps);
    else (plain ? plain_norm : exact_norm)(y, mean, rstd, z, gamma, beta, no->a.C, eps);
}

static void exact_sum(NormCase *no, double *z) {
    int64_t C = no->a.C;
    for (int64_t r = 0; r < no->a.N; r++)
        for (int64_t c = 0; c < C; c++) {
            double v = no->s ? no->s->x[r * C + c] + (no->bias ? no->bias->x[c] : 0.0) : 0.0;
            z[r * C + c] = no->x ? no->x->x[r * C + c] : 0.0;
            if (no->s) z[r * C + c] += v * dropped(&no->a.drop, no->rows, r, (uint32_t)c);
        }
}

/* With a later use of z, the loss has a term of z too. */
static double loss_add_norm(void *context) {
    NormCase *no = context;
    int64_t n = no->a.N * no->a.C;
    double l = 0.0, *z = doubles(n), *y = doubles(n), mean, rstd;
    exact_sum(no, z);
    for (int64_t r = 0; r < no->a.N; r++) row_norm(no, y + r * no->a.C, &mean, &rstd, z + r * no->a.C, false);
    for (int64_t i = 0; i < n; i++) l += y[i] * no->dy->x[i] + (no->dz ? z[i] * no->dz->x[i] : 0.0);
    free(z);
    free(y);
    return l;
}

static void check_norm(NormCase *no, Buf *y, Buf *mean, Buf *rstd, double *z, double *wm, double *wr) {
    int64_t N = no->a.N, C = no->a.C, n = N * C;
    double *wy = doubles(n), *pz = doubles(n), *py = doubles(n), *pm = doubles(N), *pr = doubles(N);
    exact_sum(no, z);
    for (int64_t r = 0; r < N; r++) {       /* the plain one rounds z where the backend stores it */
        row_norm(no, wy + r * C, wm + r, wr + r, z + r * C, false);
        for (int64_t c = 0; c < C; c++) pz[r * C + c] = plain_stored(E, (float)z[r * C + c]);
        row_norm(no, py + r * C, pm + r, pr + r, pz + r * C, true);
        for (int64_t c = 0; c < C; c++) py[r * C + c] = plain_stored(E, (float)py[r * C + c]);
    }
    execute(launch_add_norm, no);
    if (no->s) compare(no->s, z, pz);
    compare(y, wy, py);
    if (mean) compare(mean, wm, pm);
    compare(rstd, wr, pr);
    for (int k = 0; k < 5; k++) free((double *[]){wy, pz, py, pm, pr}[k]);
}

static Buf *given(const char *name, DType t, const double *x, int64_t n) {
    Buf *b = in(name, t, n, 0, 0);
    for (int64_t i = 0; i < n; i++) set(b, i, x[i]);
    return b;
}

static void check_norm_bwd(NormCase *no, int how, const double *z, const double *mean, const double *rstd) {
    int64_t N = no->a.N, C = no->a.C, n = N * C;
    bool learns = !(how & FROZEN);
    no->dy = in("dy", E, n, -1, 1);
    Buf *ds = no->s ? out("ds", E, n) : NULL, *dx = no->x ? out("dx", E, n) : NULL;
    Buf *db = no->bias && learns ? out("dbias", DT_F32, C) : NULL;
    Buf *dg = learns ? out("dgamma", DT_F32, C) : NULL, *dbeta = no->beta && learns ? out("dbeta", DT_F32, C) : NULL;
    /* where ds will be, as a tape has it */
    no->dz = how & LATER ? no->s ? ds : in("dz", E, n, -1, 1) : NULL;
    Buf *zs = given("z", E, z, n);
    if (no->s) no->a.s = zs->p;
    no->a.mean = no->a.rms ? NULL : given("mean", DT_F32, mean, N)->p, no->a.rstd = given("rstd", DT_F32, rstd, N)->p;
    no->g = (AddNormGrad){.dy = no->dy->p, .dz = no->dz ? no->dz->p : NULL, .ds = ds ? ds->p : NULL,
                          .dx = dx ? dx->p : NULL, .dbias = db ? db->p : NULL, .dgamma = dg ? dg->p : NULL,
                          .dbeta = dbeta ? dbeta->p : NULL, .add_dx = how & ADD_DX};
    execute(launch_add_norm_bwd, no);
    if (ds) differentiate(ds, false, no->s->x, loss_add_norm, no);
    if (dx) differentiate(dx, how & ADD_DX, no->x->x, loss_add_norm, no);
    if (db) differentiate(db, true, no->bias->x, loss_add_norm, no);
    if (dg) differentiate(dg, true, no->gamma->x, loss_add_norm, no);
    if (dbeta) differentiate(dbeta, true, no->beta->x, loss_add_norm, no);
}

static void add_norm(void) {
    NormCase no = {0};
    for (size_t i = 0; i < COUNT(norm_cases); i++) {
        int how = norm_cases[i].how;
        int64_t N = norm_cases[i].N, C = norm_cases[i].C, n = N * C;
        CASE("N %lld C %lld p %g how %d", (long long)N, (long long)C, (double)norm_cases[i].p, how);
        no.s = how & ALONE ? NULL : out("s", E, n);                              /* in and out: from -2 to 2 */
        no.x = how & X ? in("x", E, n, -2, 2) : NULL, no.bias = how & BIAS_IN ? in("bias", DT_F32, C, -1, 1) : NULL;
        no.gamma = in("gamma", DT_F32, C, 0.5, 1.5), no.rows = row_keys(N);
        no.beta = how & NO_BETA ? NULL : in("beta", DT_F32, C, -1, 1);
        Buf *y = out("y", E, n), *mean = how & RMS ? NULL : out("mean", DT_F32, N), *rstd = out("rstd", DT_F32, N);
        no.a = (AddNorm){.N = N, .C = (int32_t)C, .eps = 1e-12f, .rms = how & RMS, .s = no.s ? no.s->p : NULL,
                         .x = no.x ? no.x->p : NULL, .bias = no.bias ? no.bias->p : NULL, .gamma = no.gamma->p,
                         .beta = no.beta ? no.beta->p : NULL, .y = y->p, .mean = mean ? mean->p : NULL,
                         .rstd = rstd->p, .drop = {norm_cases[i].p, 17, 0x123456789abcdefu, 3, no.rows->p}};
        double *z = doubles(n), *wm = doubles(N), *wr = doubles(N);
        check_norm(&no, y, mean, rstd, z, wm, wr);
        check_norm_bwd(&no, how, z, wm, wr);
        for (int k = 0; k < 3; k++) free((double *[]){z, wm, wr}[k]);
        forget();
    }
}
TEST(add_norm)

/* Dropout's mask: the rate is p; rows of one key have one mask wherever they stand; other keys have others. */
static void dropout_mask(void) {
    NormCase no = {0};
    enum { N = 200, C = 776 };
    CASE("rate and keys");
    no.s = out("s", E, N * C), no.x = NULL, no.bias = NULL;
    for (int64_t i = 0; i < N * C; i++) set(no.s, i, 1.0);
    RowKey keys[N];
    /* row i and row i + 100 are the same */
    for (uint32_t i = 0; i < N; i++) keys[i] = (RowKey){i % 100, 4};
    Buf *rows = raw("rows", keys, sizeof keys), *gamma = in("gamma", DT_F32, C, 1, 1),
        *beta = in("beta", DT_F32, C, 0, 0);
    Buf *y = out("y", E, N * C), *mean = out("mean", DT_F32, N), *rstd = out("rstd", DT_F32, N);
    no.a = (AddNorm){.N = N, .C = C, .eps = 1e-12f, .s = no.s->p, .gamma = gamma->p, .beta = beta->p, .y = y->p,
                     .mean = mean->p, .rstd = rstd->p, .drop = {0.1f, 3, 77, 9, rows->p}};
    execute(launch_add_norm, &no);
    int64_t zeros = 0, equal = 0;
    for (int64_t i = 0; i < N / 2 * C; i++) {
        zeros += no.s->y[i] == 0.0;
        if (no.s->y[i] != no.s->y[i + N / 2 * C]) WRONG("element %lld differs between rows of one key", (long long)i);
        equal += i + C < N / 2 * C && no.s->y[i] == no.s->y[i + C];
    }
    double n = N / 2 * C, sigma = sqrt(0.1 * 0.9 * n);
    if (fabs((double)zeros - 0.1 * n) > 5 * sigma) WRONG("%lld of %g elements dropped at p = 0.1", (long long)zeros, n);
    if (fabs((double)equal - 0.82 * (n - C)) > 5 * sqrt(0.82 * 0.18 * n))
        WRONG("masks of neighbours agree in %lld", (long long)equal);
}
TEST(dropout_mask)

/* ---- norms of column blocks ------------------------------------------------------------------------------------ */

static const struct { int64_t N, blocks, C, pad; bool rms, beta, frozen; } head_cases[] = {
    {1, 1, 8, 0, true, false, false},  {5, 3, 7, 4, false, true, false}, {33, 4, 64, 64, true, false, false},
    {9, 1, 200, 13, true, true, true}, {40, 2, 40, 0, false, false, false},
};
typedef struct { HeadNorm a; Buf *x, *gamma, *beta, *dy; void *dx; float *dgamma, *dbeta; } HeadNormCase;
static void launch_head_norm(void *hn) { K->head_norm(&((HeadNormCase *)hn)->a); }
static void launch_head_norm_bwd(void *context) {
    HeadNormCase *hn = context;
    K->head_norm_bwd(&hn->a, hn->dx, hn->dgamma, hn->dbeta);
}

static void exact_head_norm(HeadNormCase *hn, double *y, double *mean, double *rstd, bool plain) {
    int64_t C = hn->a.C, H = hn->a.blocks;
    const double *beta = hn->beta ? hn->beta->x : NULL;
    for (int64_t i = 0; i < hn->a.N * H; i++) {
        int64_t at = i / H * hn->a.ld + i % H * C;
        if (hn->a.rms) (plain ? plain_rms : exact_rms)(y + at, rstd + i, hn->x->x + at, hn->gamma->x, beta, C,
                                                      (double)hn->a.eps);
        else (plain ? plain_norm : exact_norm)(y + at, mean + i, rstd + i, hn->x->x + at, hn->gamma->x, beta, C,
                                               (double)hn->a.eps);
        for (int64_t c = 0; plain && c < C; c++) y[at + c] = plain_stored(E, (float)y[at + c]);
    }
}

static double loss_head_norm(void *context) {
    HeadNormCase *hn = context;
    int64_t n = hn->a.N * hn->a.ld, blocks = hn->a.N * hn->a.blocks, width = (int64_t)hn->a.blocks * hn->a.C;
    double l = 0.0, *y = doubles(n), *mean = doubles(blocks), *rstd = doubles(blocks);
    exact_head_norm(hn, y, mean, rstd, false);
    for (int64_t i = 0; i < n; i++)
        if (i % hn->a.ld < width) l += y[i] * hn->dy->x[i];
    free(y);
    free(mean);
    free(rstd);
    return l;
}

/* z, mean and rstd are what the forward left. */
static void check_head_norm_bwd(HeadNormCase *hn, bool learns, const Buf *mean, const Buf *rstd) {
    int64_t n = hn->a.N * hn->a.ld, width = (int64_t)hn->a.blocks * hn->a.C;
    double *z = doubles(hn->a.N * width);
    for (int64_t i = 0; i < hn->a.N * width; i++) z[i] = hn->x->x[i / width * hn->a.ld + i % width];
    hn->a.z = given("z", E, z, hn->a.N * width)->p;
    hn->a.rstd = given("rstd", DT_F32, rstd->y, rstd->n)->p, hn->a.mean = mean ? given("mean", DT_F32, mean->y,
            mean->n)->p : NULL;
    Buf *dx = out("dx", E, n), *dg = learns ? out("dgamma", DT_F32, hn->a.C) : NULL;
    Buf *db = learns && hn->beta ? out("dbeta", DT_F32, hn->a.C) : NULL;
    hn->dy = dx, hn->dx = dx->p, hn->dgamma = dg ? dg->p : NULL, hn->dbeta = db ? db->p : NULL;
    execute(launch_head_norm_bwd, hn);
    for (int64_t i = 0; i < n; i++)
        if (i % hn->a.ld >= width) {
            if (dx->y[i] != dx->x[i]) WRONG("dx written between rows at %lld", (long long)i);
            dx->y[i] = 0.0;
        }
    differentiate(dx, false, hn->x->x, loss_head_norm, hn);
    if (dg) differentiate(dg, true, hn->gamma->x, loss_head_norm, hn);
    if (db) differentiate(db, true, hn->beta->x, loss_head_norm, hn);
    free(z);
}

static void head_norm(void) {
    HeadNormCase hn = {0};
    for (size_t i = 0; i < COUNT(head_cases); i++) {
        int64_t N = head_cases[i].N, H = head_cases[i].blocks, C = head_cases[i].C, ld = H * C + head_cases[i].pad;
        CASE("N %lld blocks %lld of %lld%s", (long long)N, (long long)H, (long long)C, head_cases[i].rms ? " rms" : "");
        hn.x = out("x", E, N * ld), hn.gamma = in("gamma", DT_F32, C, 0.5, 1.5);
        hn.beta = head_cases[i].beta ? in("beta", DT_F32, C, -1, 1) : NULL;
        Buf *z = out("z", E, N * H * C), *rstd = out("rstd", DT_F32, N * H);
        Buf *mean = head_cases[i].rms ? NULL : out("mean", DT_F32, N * H);
        hn.a = (HeadNorm){.N = N, .ld = ld, .lddx = ld, .blocks = (int32_t)H, .C = (int32_t)C, .eps = 1e-6f,
                          .rms = head_cases[i].rms,
                          .x = hn.x->p, .gamma = hn.gamma->p, .beta = hn.beta ? hn.beta->p : NULL,
                          .z = head_cases[i].frozen ? NULL : z->p, .mean = mean ? mean->p : NULL, .rstd = rstd->p};
        double *want = doubles(N * ld), *plain = doubles(N * ld), *wm = doubles(N * H), *wr = doubles(N * H),
               *pm = doubles(N * H), *pr = doubles(N * H);
        for (int64_t j = 0; j < N * ld; j++) want[j] = plain[j] = hn.x->x[j];
        exact_head_norm(&hn, want, wm, wr, false);
        exact_head_norm(&hn, plain, pm, pr, true);
        execute(launch_head_norm, &hn);
        compare(hn.x, want, plain);
        compare(rstd, wr, pr);
        if (mean) compare(mean, wm, pm);
        for (int64_t j = 0; hn.a.z && j < z->n; j++)
            if (z->y[j] != hn.x->x[j / (H * C) * ld + j % (H * C)]) WRONG("z[%lld] is not x", (long long)j);
        check_head_norm_bwd(&hn, !head_cases[i].frozen, mean, rstd);
        for (int k = 0; k < 6; k++) free((double *[]){want, plain, wm, wr, pm, pr}[k]);
        forget();
    }
}
TEST(head_norm)
