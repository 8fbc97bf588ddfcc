/* ops_rows: positions as angles, rows that enter a model, patches of pixels:
 * cases of test_ops.c (included there, once). */

/* ---- dropout --------------------------------------------------------------------------------------------------- */

typedef struct { void *x; int64_t N, C, ld; Dropout d; } Drop;

static void launch_dropout(void *ctx) {
    const Drop *o = ctx;
    K->dropout(o->x, o->N, o->C, o->ld, &o->d);
}

/* Element by element by rng.h; columns behind the last one stay. */
static void dropout(void) {
    static const struct { int64_t N, C, pad; float p; } cases[] = {
        {1, 1, 0, 0.5f}, {7, 24, 0, 0.1f}, {9, 13, 3, 0.1f}, {33, 600, 8, 0.25f}, {2, 8, 1, 0.9f}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t N = cases[i].N, C = cases[i].C, ld = C + cases[i].pad;
        CASE("N %lld C %lld ld %lld p %g", (long long)N, (long long)C, (long long)ld, (double)cases[i].p);
        Buf *x = out("x", E, N * ld), *key = in("rows", DT_I32, 2 * N, 0, 1000);
        Drop o = {x->p, N, C, ld, {.p = cases[i].p, .seed = 5, .step = 3, .site = 40000, .rows = key->p}};
        double *want = doubles(N * ld);
        memcpy(want, x->x, (size_t)(N * ld) * sizeof *want);
        for (int64_t r = 0; r < N; r++) {
            RowKey row = {(uint32_t)(int64_t)key->x[2 * r], (uint32_t)(int64_t)key->x[2 * r + 1]};
            for (int64_t c = 0; c < C; c++)
                want[r * ld + c] *= dropout_keep(&o.d, row, (uint32_t)c) ? 1 / (1 - (double)o.d.p) : 0;
        }
        execute(launch_dropout, &o);
        expect(x, want, 2.0 * unit(E) / (1 - (double)o.d.p));
        free(want);
        forget();
    }
}
TEST(dropout)

/* ---- rotary ---------------------------------------------------------------------------------------------------- */

static void launch_rotary(void *ro) { K->rotary(ro); }

/* Turns the row x (in place) by the definition: pair j of a head by the angle at row `at` of the table. */
static void exact_turn(Rotary *ro, double *x, const double *c, const double *s) {
    for (int h = 0; h < ro->H; h++)
        for (int j = 0; j < ro->R / 2; j++) {
            double *a = x + h * ro->D + (ro->interleaved ? 2 * j : j), a0 = *a;
            double *b = a + (ro->interleaved ? 1 : ro->R / 2);
            *a = a0 * c[j] - *b * s[j];
            *b = *b * c[j] + a0 * s[j];
        }
}

static void rotary(void) {
    Rotary ro = {0};
    static const struct { int64_t N; int32_t H, D, R; int64_t pad; bool interleaved, at; } cases[] = {
        {1, 1, 2, 2, 0, false, false},  {7, 3, 12, 12, 5, false, true},  {7, 3, 12, 12, 0, true, true},
        {33, 2, 64, 64, 64, false, false}, {12, 4, 80, 32, 0, false, true}, {12, 1, 72, 72, 3, true, false},
        {5, 2, 88, 40, 0, true, true}};
    enum { PERIOD = 6 };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t N = cases[i].N, ld = cases[i].H * cases[i].D + cases[i].pad, half = cases[i].R / 2;
        CASE("N %lld H %d D %d R %d%s", (long long)N, cases[i].H, cases[i].D, cases[i].R,
             cases[i].interleaved ? " neighbours" : "");
        Buf *x = out("x", E, N * ld), *c = in("cos", DT_F32, PERIOD * half, 0, 0), *s = in("sin", DT_F32,
                PERIOD * half, 0, 0);
        Buf *at = cases[i].at ? in("at", DT_I32, N, -0.99, PERIOD - 1e-6) : NULL;
        for (int64_t j = 0; j < PERIOD * half; j++) {
            double angle = uniform(-4, 4);
            set(c, j, cos(angle));
            set(s, j, sin(angle));
        }
        if (at && N > 2) set(at, 2, -1);                         /* a row without a position */
        ro = (Rotary){.N = N, .ld = ld, .H = cases[i].H, .D = cases[i].D, .R = cases[i].R, .period = PERIOD,
                      .interleaved = cases[i].interleaved, .x = x->p, .cos = c->p, .sin = s->p,
                          .at = at ? at->p : NULL};
        double *want = doubles(N * ld);
        memcpy(want, x->x, (size_t)(N * ld) * sizeof *want);
        for (int64_t r = 0; r < N; r++) {
            int64_t p = at ? (int64_t)at->x[r] : r % PERIOD;
            if (p >= 0) exact_turn(&ro, want + r * ld, c->x + p * half, s->x + p * half);
        }
        execute(launch_rotary, &ro);
        expect(x, want, 2.0 * unit(E));                          /* of values up to 2 sqrt 2 */
        memcpy(want, x->x, (size_t)(N * ld) * sizeof *want);
        for (int64_t j = 0; j < N * ld; j++) set(x, j, x->y[j]);
        ro.inverse = true;                                       /* the transposed, which is the backward: x again */
        execute(launch_rotary, &ro);
        expect(x, want, 3.0 * unit(E));
        free(want);
        forget();
    }
}
TEST(rotary)

/* spec/stage2.md 2b and spec/vit.md 7b.3: half-split by positions of words, neighbours by positions of patches. */
static void rotary_worked(void) {
    Rotary ro;
    static const double words[] = {-1.413352521, 1.879118067, -2.828857482, 4.058191135};
    CASE("h 4, theta 10000, p 3");
    Buf *x = out("x", E, 4), *c = in("cos", DT_F32, 2, 0, 0), *s = in("sin", DT_F32, 2, 0, 0);
    for (int j = 0; j < 4; j++) set(x, j, j + 1);
    for (int j = 0; j < 2; j++) set(c, j, cos(j ? 0.03 : 3)), set(s, j, sin(j ? 0.03 : 3));
    ro = (Rotary){.N = 1, .ld = 4, .H = 1, .D = 4, .R = 4, .period = 1, .x = x->p, .cos = c->p, .sin = s->p};
    execute(launch_rotary, &ro);
    expect(x, words, 8.0 * unit(E));
    forget();
    static const double patch[] = {-0.318058128, -0.459716246, 0.719667025, 1.022046659, -1.884129686, 0.512401529,
                                   1.709652678, 2.034597680};
    static const double sines[] = {0.141120008, 0.029995500, 0.909297427, 0.019998667};      /* x: 3, then y: 2 */
    CASE("PE with cls, patch 6 of a grid 3 x 4");
    x = out("x", E, 8), c = in("cos", DT_F32, 4, 0, 0), s = in("sin", DT_F32, 4, 0, 0);
    for (int j = 0; j < 8; j++) set(x, j, 0.25 * (j + 1));
    for (int j = 0; j < 4; j++) set(c, j, cos((j < 2 ? 3 : 2) * (j % 2 ? 0.01 : 1))), set(s, j, sines[j]);
    ro = (Rotary){.N = 1, .ld = 8, .H = 1, .D = 8, .R = 8, .period = 1, .interleaved = true, .x = x->p, .cos = c->p,
                  .sin = s->p};
    execute(launch_rotary, &ro);
    expect(x, patch, 4.0 * unit(E));
}
TEST(rotary_worked)

/* ---- lookup ---------------------------------------------------------------------------------------------------- */

typedef struct { Lookup a; void *drows; const void *dy; bool add; } LookupCase;
static void launch_lookup(void *lo) { K->lookup(&((LookupCase *)lo)->a); }
static void launch_lookup_bwd(void *context) {
    LookupCase *lo = context;
    K->lookup_bwd(&lo->a, lo->drows, lo->dy, lo->add);
}

static void check_lookup_bwd(LookupCase *lo, const Buf *ids, int64_t ngiven) {
    int64_t N = lo->a.N, C = lo->a.C;
    Buf *dy = in("dy", E, N * C, -1, 1), *d = out("drows", E, ngiven * C);
    double *want = doubles(d->n);
    memcpy(want, d->x, (size_t)d->n * sizeof *want);
    for (int64_t i = 0; i < N; i++) {
        int64_t from = ids ? -1 - (int64_t)ids->x[i] : i;
        for (int64_t c = 0; from >= 0 && c < C; c++)
            want[from * C + c] = rounded(E, dy->x[i * C + c] + (lo->add ? d->x[from * C + c] : 0.0));
    }
    lo->drows = d->p, lo->dy = dy->p;
    execute(launch_lookup_bwd, lo);
    expect(d, want, 0);
    free(want);
}

typedef struct { const Lookup *a; float *dword; int64_t words; const void *dy; } WordsCase;
static void launch_lookup_words(void *context) {
    WordsCase *c = context;
    K->lookup_words(c->a, c->dword, c->words, c->dy);
}

/* Each sum has the order of the rows; scaling it at its end or term by term differs by a rounding a row. */
static void check_lookup_words(const LookupCase *lo, const Buf *ids, int64_t words) {
    int64_t N = lo->a.N, C = lo->a.C;
    Buf *dy = in("dy", E, N * C, -1, 1), *d = out("dword", DT_F32, words * C);
    double *want = doubles(d->n);
    memcpy(want, d->x, (size_t)d->n * sizeof *want);
    for (int64_t i = 0; i < N; i++)
        for (int64_t c = 0; ids->x[i] >= 0 && c < C; c++)
            want[(int64_t)ids->x[i] * C + c] += dy->x[i * C + c] * (double)lo->a.scale;
    execute(launch_lookup_words, &(WordsCase){&lo->a, d->p, words, dy->p});
    expect(d, want, 4e-6);
    free(want);
}

static void lookup(void) {
    LookupCase lo = {0};
    static const struct { int64_t N, C, given; bool words, pos, add; float scale; } cases[] = {
        {1, 8, 0, true, false, false, 1},    {9, 7, 4, true, true, true, 1},    {40, 33, 11, true, true, false, 4},
        {12, 16, 12, false, true, true, 1},  {30, 1030, 8, true, false, false, 1}, {6, 24, 6, false, false, false, 1}};
    enum { WORDS = 13, POSITIONS = 10 };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t N = cases[i].N, C = cases[i].C, n = cases[i].given;
        CASE("N %lld C %lld, %lld given", (long long)N, (long long)C, (long long)n);
        Buf *word = in("word", E, WORDS * C, -1, 1), *rows = in("rows", E, n * C, -1, 1), *pos = in("pos", E,
                POSITIONS * C, -1, 1);
        Buf *ids = cases[i].words ? in("ids", DT_I32, N, 0, WORDS - 1e-6) : NULL, *y = out("y", E, N * C);
        Buf *pos_id = cases[i].pos ? in("pos_id", DT_I32, N, -0.99, POSITIONS - 1e-6) : NULL;
        for (int64_t j = 0; ids && j < n; j++) set(ids, (3 * j + 1) % N == 1 && j ? N - 1 : (2 * j + 1) % N,
                                                   -1.0 - (double)j);
        if (pos_id) set(pos_id, N / 2, -1);
        lo.a = (Lookup){.N = N, .C = (int32_t)C, .scale = cases[i].scale, .word = word->p, .rows = rows->p,
                        .pos = cases[i].pos ? pos->p : NULL, .ids = ids ? ids->p : NULL,
                        .pos_id = pos_id ? pos_id->p : NULL, .y = y->p};
        double *want = doubles(N * C);
        for (int64_t r = 0; r < N; r++) {
            int64_t id = ids ? (int64_t)ids->x[r] : -1 - r, p = pos_id ? (int64_t)pos_id->x[r] : -1;
            for (int64_t c = 0; c < C; c++) {
                double v = id >= 0 ? word->x[id * C + c] * (double)cases[i].scale : rows->x[(-1 - id) * C + c];
                want[r * C + c] = rounded(E, v + (p >= 0 ? pos->x[p * C + c] : 0.0));
            }
        }
        execute(launch_lookup, &lo);
        expect(y, want, 0);
        lo.add = cases[i].add;
        check_lookup_bwd(&lo, ids, n);
        if (ids) check_lookup_words(&lo, ids, WORDS);
        free(want);
        forget();
    }
}
TEST(lookup)

/* ---- patches --------------------------------------------------------------------------------------------------- */

static void launch_patches(void *pa) { K->patches(pa); }

/* Element (row, column) of the result, from the pixels. */
static double exact_patch(Patches *pa, const Buf *pixels, int64_t row, int64_t col) {
    int64_t p = pa->p, gx = pa->width / p, gy = pa->height / p;
    int64_t image = row / (gx * gy), c, y, x;
    if (pa->channels_last) c = col % 3, y = col / 3 / p, x = col / 3 % p;
    else c = col / (p * p), y = col / p % p, x = col % p;
    y += row / gx % gy * p, x += row % gx * p;
    int64_t planar = ((image * 3 + c) * pa->height + y) * pa->width + x;
    int64_t at = pa->planar ? planar : ((image * pa->height + y) * pa->width + x) * 3 + c;
    return pixels->x[at] * (double)pa->scale[c] + (double)pa->shift[c];
}

static void patches(void) {
    Patches pa = {0};
    static const struct {
        int64_t images;
        int32_t height, width, p;
        int64_t pad;
        bool f32, planar, last, out32;
    } cases[] = {
        {1, 4, 4, 2, 0, false, false, false, true},   {2, 7, 11, 3, 5, false, false, false, false},
        {3, 28, 28, 14, 0, true, true, false, true},  {2, 12, 8, 4, 0, true, false, true, false},
        {2, 33, 16, 16, 8, false, false, true, true}, {1, 10, 10, 5, 0, false, true, false, true}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        int32_t h = cases[i].height, w = cases[i].width, p = cases[i].p;
        int64_t N = cases[i].images * (h / p) * (w / p), cols = 3 * p * p, ld = cols + cases[i].pad;
        CASE("%lld images of %d x %d in patches of %d", (long long)cases[i].images, h, w, p);
        DType t = cases[i].f32 ? DT_F32 : DT_U8, ty = cases[i].out32 ? DT_F32 : E;
        Buf *pixels = in("pixels", t, cases[i].images * h * w * 3, 0, cases[i].f32 ? 1 : 255.99), *y = out("y", ty,
                N * ld);
        double size = cases[i].f32 ? 2.0 : 4.0;
        pa = (Patches){.images = cases[i].images, .height = h, .width = w, .p = p, .t = t, .ty = ty,
                       .planar = cases[i].planar,
                       .channels_last = cases[i].last, .ldy = ld, .pixels = pixels->p, .y = y->p,
                       .scale = {1.0f, 0.5f, 0.25f}, .shift = {0.0f, -0.5f, 0.125f}};
        if (!cases[i].f32)
            for (int c = 0; c < 3; c++) pa.scale[c] /= 64.0f;
        double *want = doubles(N * ld);
        for (int64_t r = 0; r < N; r++)
            for (int64_t c = 0; c < ld; c++) want[r * ld + c] = c < cols ? rounded(ty, exact_patch(&pa, pixels, r,
                    c)) : y->x[r * ld + c];
        execute(launch_patches, &pa);
        expect(y, want, unit(ty) * size);
        free(want);
        forget();
    }
}
TEST(patches)
