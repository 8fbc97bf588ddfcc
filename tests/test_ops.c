/* test_ops: every op of a backend against its mathematics, over tables of awkward and of real shapes, in f32 and bf16.
 *
 *     build/test_ops [device=cuda] [pattern]        or QFORMER_DEVICE=cuda; pattern: as "*attention*"
 *
 * Forward: the definitions in double (ops_reference.h); bound: twice the error of the same text compiled for float.
 * Backward: central differences of the definition in double. Losses: the worked numbers of spec/losses.md 8 as well.
 * ops_harness.h adds to each case guards, untouched inputs, no error, and the same bits twice. A case's numbers are a
 * row of a table: add rows. */
#include "kernels/backend.h"

/* The backend under test with a count before each op: what every_op_was_run asks. */
enum {
#define OP(kind, name, params, args) OP_##name,
#include "kernels/backend.def"
    OP_COUNT
};
static int64_t calls[2][OP_COUNT];      /* by element type: f32, bf16 */
static bool filtered;                   /* a pattern was given: not all cases run */
static const Backend *tested;

#define OP(kind, name, params, args) \
    static void counted_##name params { calls[tested->elem == DT_BF16][OP_##name]++; tested->name args; }
#include "kernels/backend.def"

static const Backend *counting(const Backend *b) {
    static Backend c;
    tested = b;
    c = *b;
#define OP(kind, name, params, args) c.name = b->name ? counted_##name : NULL;
#include "kernels/backend.def"
    return &c;
}

#include "tests/ops_harness.h"

#define real double
#define REF(name) exact_##name
#include "tests/ops_reference.h"
#undef real
#undef REF
#define real float
#define REF(name) plain_##name
#include "tests/ops_reference.h"
#undef real
#undef REF

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* TEST_ERRORS=1: how near to its bound a test came. What emulated instructions hide, a GPU shows here first. */
static void each_element_type(const char *name, void (*test)(void)) {
    static const DType types[] = {DT_F32, DT_BF16};
    for (int i = 0; i < 2; i++) {
        void *workspace = NULL;
        E = types[i];
        nbufs = 0;                      /* what a failed test left behind */
        const Backend *opened;
        if (backend_open(&opened, device, E, 0) != OK) fail_msg("%s", err_message());
        K = counting(opened);
        assert_int_equal(K->alloc(&workspace, K->workspace + 1), OK);
        K->set_workspace(workspace, K->workspace);
        library = false;
        errors.share = 0, errors.where[0] = 0;
        test();
        forget();
        if (errors.where[0] && getenv("TEST_ERRORS"))
            printf("error %-24s %-4s %3.0f %% of its bound, %s\n", name, dtype_name(E), 100 * errors.share, errors.where);
        K->sync();
        K->release(workspace);
        backend_close(opened);
    }
}

#define TEST(name) static void test_##name(void **state) { (void)state; draw_from(#name); each_element_type(#name, name); }

/* ---- the list -------------------------------------------------------------------------------------------------- */

static void slots_are_filled(void) {
    const struct { const char *name; void (*f)(void); } slots[] = {
#define MEMORY(type, name, params) {#name, (void (*)(void))K->name},
#define OP(kind, name, params, args) {#name, (void (*)(void))K->name},
#include "kernels/backend.def"
    };
    for (size_t i = 0; i < COUNT(slots); i++)
        if (!slots[i].f) fail_msg("%s %s: no %s", K->name, dtype_name(E), slots[i].name);
    assert_int_equal(K->elem, E);
}
TEST(slots_are_filled)

/* Last of all: a row of the list that no case above has run is an op without a test. What is made once an element type
 * is asked for in each; of what is SHARED, one of the two will do. */
static void every_op_was_run(void) {
    enum { SHARED, TYPED, CPU };
    static const struct { const char *name; int kind; } ops[] = {
#define OP(kind, name, params, args) {#name, kind},
#include "kernels/backend.def"
    };
    for (size_t i = 0; !filtered && i < COUNT(ops); i++)
        if (!calls[E == DT_BF16][i] && (ops[i].kind != SHARED || !calls[E != DT_BF16][i]))
            fail_msg("%s %s: no case runs %s", K->name, dtype_name(E), ops[i].name);
}
TEST(every_op_was_run)

/* ---- gemm ------------------------------------------------------------------------------------------------------ */

enum { TA = 1, TB = 2, ADD = 4, BIAS = 8, F32IN = 16, F32OUT = 32, SUM = 64, ZEROS = 128 };
static const struct { int64_t m, n, k, pad; int how; } gemm_cases[] = {
    {1, 1, 1, 0, 0},               {7, 5, 3, 2, TB | BIAS},          {67, 33, 129, 1, 0},
    {67, 33, 129, 0, TA | ADD | F32OUT},
    {31, 2, 64, 0, TB | BIAS | F32OUT}, {5, 9, 0, 0, BIAS | ADD},    {333, 64, 64, 0, TB},        {333, 64, 64, 8, ADD},
    {64, 64, 333, 0, TA | ADD | F32OUT}, {301, 192, 64, 0, TB | BIAS}, {70, 128, 512, 0, TB},
    {515, 128, 400, 0, TB | BIAS},
    {70, 512, 128, 3, ADD},        {40, 40, 40, 0, TB | F32IN | F32OUT}, {37, 96, 50, 0, F32IN},
    {90, 768, 768, 0, TB | BIAS},
    {50, 2304, 768, 0, TB | BIAS}, {45, 768, 3072, 0, TB},           {3072, 33, 45, 0, TA | ADD | F32OUT},
    {16, 3001, 96, 0, TB | BIAS | F32OUT}, {5, 1030, 1100, 3, TB | BIAS}, {12, 2050, 513, 0, TB | ADD},
    {4, 3001, 400, 1, TB | F32OUT},        {9, 1025, 1024, 0, TB | BIAS | ADD | F32OUT}, {2, 1100, 1000, 0, TB},
    {1, 1100, 1000, 0, TB | BIAS},         {67, 40, 129, 0, TA | F32OUT | SUM | ZEROS},
    {192, 64, 333, 8, TA | ADD | F32OUT | SUM}, {64, 192, 1030, 0, TA | ADD | F32OUT | SUM | ZEROS},
};
static void launch_gemm(void *gm) { K->gemm(gm); }

/* Sums of A's columns, added to what sums holds. */
static void compare_sums(const Buf *sums, const Gemm *g, const Buf *a) {
    double *want = doubles(g->m), *plain = doubles(g->m);
    for (int64_t i = 0; i < g->m; i++) {
        float s = (float)sums->x[i];
        want[i] = sums->x[i];
        for (int64_t p = 0; p < g->k; p++) want[i] += a->x[p * g->lda + i], s += (float)a->x[p * g->lda + i];
        plain[i] = (double)s;
    }
    compare(sums, want, plain);
    free(want);
    free(plain);
}

static void gemm(void) {
    Gemm gm = {0};
    library = true;
    for (size_t i = 0; i < COUNT(gemm_cases); i++) {
        int64_t m = gemm_cases[i].m, n = gemm_cases[i].n, k = gemm_cases[i].k, pad = gemm_cases[i].pad;
        int how = gemm_cases[i].how;
        CASE("m %lld n %lld k %lld pad %lld how %d", (long long)m, (long long)n, (long long)k, (long long)pad, how);
        gm = (Gemm){.m = m, .n = n, .k = k, .ta = how & TA, .tb = how & TB, .add = how & ADD, .ab = how & F32IN ? DT_F32
                    : E, .ct = how & F32OUT ? DT_F32 : E};
        gm.lda = (gm.ta ? m : k) + pad, gm.ldb = (gm.tb ? k : n) + pad, gm.ldc = n + pad;
        Buf *a = in("a", gm.ab, (gm.ta ? k : m) * gm.lda, -1, 1), *b = in("b", gm.ab, (gm.tb ? n : k) * gm.ldb, -1, 1);
        Buf *c = out("c", gm.ct, m * gm.ldc), *bias = how & BIAS ? in("bias", E, n, -1, 1) : NULL;
        Buf *sums = how & SUM ? out("sums", DT_F32, m) : NULL;
        for (int64_t j = 0; j < m && how & ZEROS; j++) set(sums, j, 0);
        gm.sums = sums ? sums->p : NULL, gm.sums_zero = how & ZEROS;
        gm.a = a->p, gm.b = b->p, gm.c = c->p, gm.bias = bias ? bias->p : NULL;
        double *want = doubles(c->n), *plain = doubles(c->n);
        memcpy(want, c->x, (size_t)c->n * sizeof *want);             /* what stands between the rows must stay */
        memcpy(plain, c->x, (size_t)c->n * sizeof *want);
        exact_gemm(want, &gm, a->x, b->x, bias ? bias->x : NULL);
        plain_gemm(plain, &gm, a->x, b->x, bias ? bias->x : NULL);
        execute(launch_gemm, &gm);
        compare(c, want, plain);
        if (sums) compare_sums(sums, &gm, a);
        free(want);
        free(plain);
        forget();
    }
}
TEST(gemm)

/* Three of one call: each as it would be alone. The last are enough tiles for a GPU's kernel that makes them at once. */
static const struct { int64_t m, n, k; int how; } gemms_cases[][3] = {
    {{33, 24, 70, ADD}, {5, 8, 1, ZEROS}, {300, 136, 129, 0}},
    {{40, 520, 64, ADD | ZEROS}, {24, 8, 333, ADD}, {64, 8, 8, 0}},
    {{8, 16904, 24, ADD}, {300, 136, 129, ZEROS}, {33, 24, 70, 0}},
};
typedef struct { Gemm g[3]; Buf *a[3], *b[3], *c[3], *sums[3]; } GemmsCase;
static void launch_gemms(void *context) { K->gemms(((GemmsCase *)context)->g, 3); }

static void gemms(void) {
    library = true;
    for (size_t i = 0; i < COUNT(gemms_cases); i++) {
        GemmsCase s = {0};
        CASE("%lld", (long long)i);
        for (int j = 0; j < 3; j++) {
            int64_t m = gemms_cases[i][j].m, n = gemms_cases[i][j].n, k = gemms_cases[i][j].k, lda = (m + 7) / 8 * 8;
            int how = gemms_cases[i][j].how;
            s.a[j] = in("a", E, k * lda, -1, 1), s.b[j] = in("b", E, k * n, -1, 1), s.c[j] = out("c", DT_F32, m * n);
            s.sums[j] = j < 2 ? out("sums", DT_F32, m) : NULL;
            for (int64_t x = 0; x < m && how & ZEROS; x++) set(s.sums[j], x, 0);
            s.g[j] = (Gemm){.m = m, .n = n, .k = k, .ta = true, .add = how & ADD, .ab = E, .ct = DT_F32, .lda = lda,
                            .ldb = n, .ldc = n, .a = s.a[j]->p, .b = s.b[j]->p, .c = s.c[j]->p,
                            .sums = s.sums[j] ? s.sums[j]->p : NULL, .sums_zero = how & ZEROS};
        }
        execute(launch_gemms, &s);
        for (int j = 0; j < 3; j++) {
            double *want = doubles(s.c[j]->n), *plain = doubles(s.c[j]->n);
            memcpy(want, s.c[j]->x, (size_t)s.c[j]->n * sizeof *want);
            memcpy(plain, s.c[j]->x, (size_t)s.c[j]->n * sizeof *plain);
            exact_gemm(want, &s.g[j], s.a[j]->x, s.b[j]->x, NULL);
            plain_gemm(plain, &s.g[j], s.a[j]->x, s.b[j]->x, NULL);
            compare(s.c[j], want, plain);
            if (s.sums[j]) compare_sums(s.sums[j], &s.g[j], s.a[j]);
            free(want), free(plain);
        }
        forget();
    }
}
TEST(gemms)

/* ---- column sums ----------------------------------------------------------------------------------------------- */

static const struct { int64_t N, C; } matrices[] = {{1, 1}, {5, 7}, {33, 64}, {130, 96}, {1029, 33}, {77, 3072}};
typedef struct { float *db; const void *dy; int64_t N, C, ld; } ColsumCase;
static void launch_colsum(void *context) {
    ColsumCase *cs = context;
    K->colsum(cs->db, cs->dy, cs->N, cs->C, cs->ld);
}

static void colsum(void) {
    ColsumCase cs = {0};
    for (size_t i = 0; i < COUNT(matrices); i++) {
        cs.N = matrices[i].N, cs.C = matrices[i].C, cs.ld = cs.C + (int64_t)(i % 2) * 5;
        CASE("N %lld C %lld", (long long)cs.N, (long long)cs.C);
        Buf *dy = in("dy", E, cs.N * cs.ld, -1, 1), *db = out("db", DT_F32, cs.C);
        double *want = doubles(cs.C), *plain = doubles(cs.C);
        if (i == 2) cs.C -= 3; /* rows of whole eights, columns left over; the last three of db stay */
        for (int64_t c = 0; c < db->n; c++) {
            float s = (float)db->x[c];
            want[c] = db->x[c];
            for (int64_t r = 0; c < cs.C && r < cs.N; r++)
                want[c] += dy->x[r * cs.ld + c], s += (float)dy->x[r * cs.ld + c];
            plain[c] = (double)s;
        }
        cs.dy = dy->p, cs.db = db->p;
        execute(launch_colsum, &cs);
        compare(db, want, plain);
        free(want);
        free(plain);
        forget();
    }
}
TEST(colsum)

#include "tests/ops_act.h"
#include "tests/ops_product.h"
#include "tests/ops_norm.h"

/* ---- embed ----------------------------------------------------------------------------------------------------- */

static const struct { int64_t images, nt; int32_t Q, C, V; float p; } embed_cases[] = {
    {2, 9, 3, 8, 11, 0}, {3, 0, 4, 33, 5, 0.1f}, {0, 20, 4, 7, 4, 0.2f}, {5, 61, 32, 64, 40, 0.1f},
    {1, 30, 3, 768, 100, 0.1f}, {2, 5, 1, 1030, 9, 0.3f},
};
typedef struct { Embed e; EmbedGrad g; Buf *query, *word, *pos, *gamma, *beta, *rows, *dy, *ids, *pos_id; } EmbedCase;
static void launch_embed(void *em) { K->embed(&((EmbedCase *)em)->e); }
static void launch_embed_bwd(void *context) {
    EmbedCase *em = context;
    K->embed_bwd(&em->e, &em->g);
}

static void exact_embed(EmbedCase *em, double *y, double *mean, double *rstd, bool plain) {
    int64_t C = em->e.C;
    double *u = doubles(C);
    for (int64_t r = 0; r < em->e.nq + em->e.nt; r++) {
        for (int64_t c = 0; c < C; c++)
            u[c] = r < em->e.nq ? em->query->x[r % em->e.Q * C + c]
                               : em->word->x[(int64_t)em->ids->x[r - em->e.nq] * C + c] +
                                 em->pos->x[(int64_t)em->pos_id->x[r - em->e.nq] * C + c];
        (plain ? plain_norm : exact_norm)(y + r * C, mean + r, rstd + r, u, em->gamma->x, em->beta->x, C,
                                          (double)em->e.eps);
        for (int64_t c = 0; c < C; c++) {
            y[r * C + c] *= dropped(&em->e.drop, em->rows, r, (uint32_t)c);
            if (plain) y[r * C + c] = plain_stored(E, (float)y[r * C + c]);
        }
    }
    free(u);
}

static double loss_embed(void *context) {
    EmbedCase *em = context;
    int64_t N = em->e.nq + em->e.nt, n = N * em->e.C;
    double l = 0.0, *y = doubles(n), *mean = doubles(N), *rstd = doubles(N);
    exact_embed(em, y, mean, rstd, false);
    for (int64_t i = 0; i < n; i++) l += y[i] * em->dy->x[i];
    free(y);
    free(mean);
    free(rstd);
    return l;
}

/* Rows sorted by what they hold, compressed: distinct values, where each begins, the rows. */
static int32_t sorted_rows(const Buf *ids, int32_t values, Buf **id, Buf **ptr, Buf **row) {
    int32_t n = 0, at = 0;
    *id = in("id", DT_I32, values, 0, 0), *ptr = in("ptr", DT_I32, values + 1, 0, 0);
    *row = in("row", DT_I32, ids->n, 0, 0);
    for (int32_t v = 0; v < values; v++) {
        int32_t first = at;
        for (int64_t t = 0; t < ids->n; t++)
            if ((int32_t)ids->x[t] == v) set(*row, at++, (double)t);
        if (at == first) continue;
        set(*id, n, v);
        set(*ptr, ++n, at);
    }
    return n;
}

static void embed(void) {
    EmbedCase em = {0};
    for (size_t i = 0; i < COUNT(embed_cases); i++) {
        int32_t Q = embed_cases[i].Q, C = embed_cases[i].C, V = embed_cases[i].V, positions = 12;
        int64_t nq = embed_cases[i].images * Q, nt = embed_cases[i].nt, N = nq + nt, n = N * C;
        CASE("nq %lld nt %lld C %d p %g", (long long)nq, (long long)nt, C, (double)embed_cases[i].p);
        em.query = in("query", E, Q * C, -1, 1), em.word = in("word", E, V * C, -1, 1),
            em.pos = in("pos", E, positions * C, -1, 1);
        em.gamma = in("gamma", DT_F32, C, 0.5, 1.5), em.beta = in("beta", DT_F32, C, -1, 1), em.rows = row_keys(N);
        em.ids = in("ids", DT_I32, nt, 0, V - 1e-9), em.pos_id = in("pos_id", DT_I32, nt, 0, positions - 1e-9);
        Buf *y = out("y", E, n), *mean = out("mean", DT_F32, N), *rstd = out("rstd", DT_F32, N), *ti, *tp, *tr, *pi,
            *pp, *pr;
        int32_t ntok = sorted_rows(em.ids, V, &ti, &tp, &tr), nposn = sorted_rows(em.pos_id, positions, &pi, &pp, &pr);
        em.e = (Embed){.nq = nq, .nt = nt, .Q = Q, .C = C, .eps = 1e-12f, .query = em.query->p, .word = em.word->p,
                       .pos = em.pos->p, .ids = em.ids->p, .pos_id = em.pos_id->p, .tok_id = ti->p, .tok_ptr = tp->p,
                       .tok_row = tr->p,
                       .posn_id = pi->p, .posn_ptr = pp->p, .posn_row = pr->p, .ntok = ntok, .nposn = nposn,
                       .gamma = em.gamma->p,
                       .beta = em.beta->p, .y = y->p, .mean = mean->p, .rstd = rstd->p,
                       .drop = {embed_cases[i].p, SITE_EMBED, 5, 1, em.rows->p}};
        double *wy = doubles(n), *wm = doubles(N), *wr = doubles(N), *py = doubles(n), *pm = doubles(N),
            *prs = doubles(N);
        exact_embed(&em, wy, wm, wr, false);
        exact_embed(&em, py, pm, prs, true);
        execute(launch_embed, &em);
        compare(y, wy, py);
        compare(mean, wm, pm);
        compare(rstd, wr, prs);
        Buf *m2 = in("mean", DT_F32, N, 0, 0), *r2 = in("rstd", DT_F32, N, 0, 0);
        for (int64_t j = 0; j < N; j++) set(m2, j, wm[j]), set(r2, j, wr[j]);
        em.e.mean = m2->p, em.e.rstd = r2->p;
        em.dy = in("dy", E, n, -1, 1);
        Buf *dsum = out("dsum", E, n), *dq = out("dquery", DT_F32, Q * C), *dw = out("dword", DT_F32, V * C);
        Buf *dp = out("dpos", DT_F32, positions * C), *dg = out("dgamma", DT_F32, C), *db = out("dbeta", DT_F32, C);
        em.g = (EmbedGrad){.dy = em.dy->p, .dsum = dsum->p, .dquery = dq->p, .dword = dw->p, .dpos = dp->p,
                           .dgamma = dg->p, .dbeta = db->p};
        execute(launch_embed_bwd, &em);
        differentiate(dq, true, em.query->x, loss_embed, &em);
        differentiate(dw, true, em.word->x, loss_embed, &em);
        differentiate(dp, true, em.pos->x, loss_embed, &em);
        differentiate(dg, true, em.gamma->x, loss_embed, &em);
        differentiate(db, true, em.beta->x, loss_embed, &em);
        for (int k = 0; k < 6; k++) free((double *[]){wy, wm, wr, py, pm, prs}[k]);
        forget();
    }
}
TEST(embed)

#include "tests/ops_rows.h"
#include "tests/ops_attention.h"
#include "tests/ops_heads.h"
#include "tests/ops_arrays.h"
#include "tests/ops_held.h"

int main(int argc, char **argv) {
    const char *wanted = getenv("QFORMER_DEVICE");
    if (wanted) device = wanted;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "device=", 7) == 0) device = argv[i] + 7;
        else cmocka_set_test_filter(argv[i]), filtered = true;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_filled), cmocka_unit_test(test_gemm), cmocka_unit_test(test_gemms),
        cmocka_unit_test(test_colsum), cmocka_unit_test(test_act), cmocka_unit_test(test_act_worked),
        cmocka_unit_test(test_act_everywhere), cmocka_unit_test(test_product), cmocka_unit_test(test_held),
        cmocka_unit_test(test_add_norm), cmocka_unit_test(test_dropout_mask), cmocka_unit_test(test_head_norm),
        cmocka_unit_test(test_dropout), cmocka_unit_test(test_rotary), cmocka_unit_test(test_rotary_worked),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_patches), cmocka_unit_test(test_embed), cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_permuted), cmocka_unit_test(test_attention_alone),
        cmocka_unit_test(test_attention_many),
        cmocka_unit_test(test_attention_one_key), cmocka_unit_test(test_image), cmocka_unit_test(test_packed),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_heads), cmocka_unit_test(test_simmax), cmocka_unit_test(test_simmax_nan),
        cmocka_unit_test(test_itc), cmocka_unit_test(test_itc_worked), cmocka_unit_test(test_negatives),
        cmocka_unit_test(test_negative_weights), cmocka_unit_test(test_xent), cmocka_unit_test(test_xent_worked),
        cmocka_unit_test(test_rows), cmocka_unit_test(test_sums), cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_philox), cmocka_unit_test(test_open), cmocka_unit_test(test_every_op_was_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
