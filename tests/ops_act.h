/* ops_act: activations, plain and gated: cases of test_ops.c (included there, once). */

static const struct { int64_t N, F, pad; ActKind kind; bool gated, up_first, bias, place; } act_cases[] = {
    {1, 1, 0, ACT_GELU, false, false, true, false},         {5, 7, 3, ACT_GELU, true, false, false, true},
    {33, 24, 0, ACT_GELU, false, false, false, true},       {130, 96, 0, ACT_GELU, false, false, true, true},
    {5, 7, 0, ACT_GELU_TANH, false, false, true, true},     {9, 40, 2, ACT_GELU_TANH, true, true, true, false},
    {13, 33, 0, ACT_GELU_QUICK, false, false, true, false}, {3, 16, 0, ACT_GELU_QUICK, true, false, true, true},
    {17, 31, 5, ACT_RELU, false, false, true, true},        {6, 20, 0, ACT_RELU, true, false, false, false},
    {40, 48, 0, ACT_SILU, true, false, false, true},        {7, 35, 1, ACT_SILU, true, true, true, true},
    {21, 19, 0, ACT_SILU, false, false, false, false},      {20, 1030, 0, ACT_SILU, true, false, true, false},
};
typedef struct { Act a; ActGrad g; Buf *u, *bias, *dh; int64_t at, up_at; } ActCase;    /* first columns of u and up */
static void launch_act(void *ac) { K->act(&((ActCase *)ac)->a); }
static void launch_act_bwd(void *context) {
    ActCase *ac = context;
    K->act_bwd(&ac->a, &ac->g);
}

/* u + bias, or up + up_bias, of an element */
static double act_input(const ActCase *ac, int64_t i, int64_t c) {
    return ac->u->x[i * ac->a.ldu + c] + (ac->bias ? ac->bias->x[c] : 0.0);
}

static void exact_acts(ActCase *ac, double *h, bool plain) {
    for (int64_t i = 0; i < ac->a.N; i++)
        for (int64_t c = 0; c < ac->a.F; c++) {
            double x = act_input(ac, i, ac->at + c), v = ac->a.up ? act_input(ac, i, ac->up_at + c) : 1.0;
            double y = exact_activation(ac->a.kind, x) * v;
            if (plain) y = plain_stored(E, plain_activation(ac->a.kind, (float)x) * (float)v);
            h[i * ac->a.ldh + c] = y;
        }
}

static double loss_act(void *context) {
    ActCase *ac = context;
    double l = 0.0, *h = doubles(ac->a.N * ac->a.ldh);
    exact_acts(ac, h, false);
    for (int64_t i = 0; i < ac->a.N * ac->a.ldh; i++) l += h[i] * ac->dh->x[i];
    free(h);
    return l;
}

/* h: what the forward gave. */
static void check_act_bwd(ActCase *ac, size_t i, const double *h) {
    int64_t N = ac->a.N, F = ac->a.F, width = ac->a.ldu, es = dtype_size(E);
    Buf *du = out("du", E, N * width), *db = ac->bias ? out("dbias", DT_F32, width) : NULL;
    Buf *place = act_cases[i].place ? out("u, then h", E, N * width) : NULL;     /* in u's place, or not wanted */
    char *d = du->p;
    float *sums = db ? db->p : NULL;
    ac->dh = in("dh", E, N * ac->a.ldh, -1, 1);
    for (int64_t j = 0; j < N; j++)                                              /* between the rows stands nothing */
        for (int64_t c = F; c < ac->a.ldh; c++) set(ac->dh, j * ac->a.ldh + c, 0.0);
    ac->g = (ActGrad){.dh = ac->dh->p, .lddh = ac->a.ldh, .lddu = width, .du = d + ac->at * es,
                      .dup = ac->a.up ? d + ac->up_at * es : NULL, .dbias = sums ? sums + ac->at : NULL,
                      .dup_bias = sums && ac->a.up ? sums + ac->up_at : NULL};
    for (int64_t j = 0; place && j < N * width; j++) set(place, j, ac->u->x[j]);
    int64_t ldh = ac->a.ldh;
    ac->a.h = NULL;
    if (place) {
        ac->a.h = (char *)place->p + ac->at * es, ac->a.ldh = width, ac->a.u = ac->a.h;
        if (ac->a.up) ac->a.up = (char *)place->p + ac->up_at * es;
    }
    execute(launch_act_bwd, ac);
    ac->a.ldh = ldh;
    for (int64_t j = 0; place && j < N * F; j++) {
        double redone = place->y[j / F * width + ac->at + j % F], was = h[j / F * ldh + j % F];
        if (redone != was) WRONG("h[%lld] is %g again, was %g", (long long)j, redone, was);
    }
    differentiate(du, false, ac->u->x, loss_act, ac);
    if (db) differentiate(db, true, ac->bias->x, loss_act, ac);
}

static void act(void) {
    ActCase ac = {0};
    for (size_t i = 0; i < COUNT(act_cases); i++) {
        int64_t N = act_cases[i].N, F = act_cases[i].F, ldh = F + act_cases[i].pad;
        bool gated = act_cases[i].gated;
        int64_t width = gated ? 2 * F : F, es = dtype_size(E);
        CASE("kind %d N %lld F %lld%s", act_cases[i].kind, (long long)N, (long long)F, gated ? " gated" : "");
        ac.at = gated && act_cases[i].up_first ? F : 0, ac.up_at = gated ? F - ac.at : 0;
        ac.u = in("u", E, N * width, -7, 7), ac.bias = act_cases[i].bias ? in("bias", DT_F32, width, -1, 1) : NULL;
        Buf *h = out("h", E, N * ldh);
        const char *u = ac.u->p;
        const float *b = ac.bias ? ac.bias->p : NULL;
        ac.a = (Act){.kind = act_cases[i].kind, .N = N, .F = F, .ldu = width, .ldh = ldh, .u = u + ac.at * es,
                     .up = gated ? u + ac.up_at * es : NULL, .bias = b ? b + ac.at : NULL,
                     .up_bias = b && gated ? b + ac.up_at : NULL, .h = h->p};
        double *want = doubles(h->n), *plain = doubles(h->n);
        /* what stands between the rows stays */
        for (int64_t j = 0; j < h->n; j++) want[j] = plain[j] = h->x[j];
        exact_acts(&ac, want, false);
        exact_acts(&ac, plain, true);
        execute(launch_act, &ac);
        compare(h, want, plain);
        memcpy(want, h->y, (size_t)h->n * sizeof *want);
        check_act_bwd(&ac, i, want);
        free(want);
        free(plain);
        forget();
    }
}
TEST(act)

/* Values of spec/stage2.md 2b and 3a. */
static void act_worked(void) {
    ActCase ac = {0};
    static const struct { ActKind kind; double y[4]; } known[] = {
        {ACT_SILU, {-0.238405844, -0.268941421, 0.731058579, 1.761594156}},
        {ACT_GELU, {-0.045500264, -0.158655254, 0.841344746, 1.954499736}},
        {ACT_GELU_TANH, {-0.045402306, -0.158808009, 0.841191991, 1.954597694}},
        {ACT_RELU, {0, 0, 1, 2}}};
    for (size_t i = 0; i < COUNT(known); i++) {
        CASE("kind %d at -2, -1, 1, 2", known[i].kind);
        Buf *u = in("u", E, 4, 0, 0), *h = out("h", E, 4);
        for (int j = 0; j < 4; j++) set(u, j, ((const double[]){-2, -1, 1, 2})[j]);
        ac.a = (Act){.kind = known[i].kind, .N = 1, .F = 4, .ldu = 4, .ldh = 4, .u = u->p, .h = h->p};
        execute(launch_act, &ac);
        expect(h, known[i].y, 2.0 * unit(E));
        forget();
    }
}
TEST(act_worked)

/* Each kind over the whole line against double, f and its slope; far out too, where exp would overflow. */
static void act_everywhere(void) {
    ActCase ac = {0};
    if (E != DT_F32) return;
    enum { N = 40001 };
    for (int kind = ACT_GELU; kind <= ACT_SILU; kind++) {
        CASE("kind %d, x from -20 to 20 and far out", kind);
        Buf *u = in("u", E, N, -1, 1), *h = out("h", E, N), *du = out("du", E, N), *dh = in("dh", E, N, 1, 1);
        for (int64_t i = 0; i < N; i++) set(u, i, (double)(i - N / 2) * (i % 100 ? 1e-3 : 1.0));
        ac.a = (Act){.kind = kind, .N = 1, .F = N, .ldu = N, .ldh = N, .u = u->p, .h = h->p};
        ac.g = (ActGrad){.dh = dh->p, .du = du->p, .lddh = N, .lddu = N};
        execute(launch_act, &ac);
        double worst = 0.0, steep = 0.0;
        for (int64_t i = 0; i < N; i++) {
            double x = u->x[i], far = fmax(1.0, fabs(x));
            worst = fmax(worst, fabs(h->y[i] - exact_activation(kind, x)) / far);
        }
        ac.a.h = NULL;
        execute(launch_act_bwd, &ac);
        for (int64_t i = 0; i < N; i++) {
            double x = u->x[i], d = 1e-6 * fmax(1.0, fabs(x));
            if (kind == ACT_RELU && fabs(x) < d) continue;
            double slope = (exact_activation(kind, x + d) - exact_activation(kind, x - d)) / (2.0 * d);
            steep = fmax(steep, fabs(du->y[i] - slope));
        }
        if (!(worst < 2e-7) || !(steep < 5e-7)) WRONG("off by %.3g, its slope by %.3g", worst, steep);
        forget();
    }
}
TEST(act_everywhere)
