/* ops_harness: arrays with guards, run an op, compare. Included by test_ops.c alone. What a case is made of goes from
 * its test to the functions that launch it and that say its loss as their context; no file keeps any.
 *
 * A Buf is an array of the backend under test with a guard zone on both sides, its start values as double, and after
 * execute() its values as double. execute() launches an op twice from the same start (on the CPU the second time with
 * one thread, but for products of a library, which may split sums by threads): both results must agree to the bit,
 * guards and inputs must be untouched, and the backend must report no error. So every case of every op proves that.
 * Values are drawn from a fixed stream, one for each test, and rounded to the array's type, so that references start
 * from exactly what the backend sees. */
#ifndef TESTS_OPS_HARNESS_H
#define TESTS_OPS_HARNESS_H
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

enum { GUARD = 256, MAX_BUFS = 48, GUARD_BYTE = 0xA5 };

typedef enum { IN, OUT } Kind;

typedef struct {
    const char *name;
    Kind kind;
    DType t;
    int64_t n;
    size_t bytes;
    char *base, *start, *got, *again;   /* device; host images with guards */
    void *p;                            /* device, behind the first guard */
    double *x, *y;                      /* start values; results */
} Buf;

static const char *device = "cpu";      /* what main was asked for */
static const Backend *K;                /* under test now */
static DType E;                         /* its element type */
static char label[256];                 /* of the case, for messages */
static Buf bufs[MAX_BUFS];
static int nbufs;
static uint64_t stream = 1;
static bool library;                    /* the op calls a matrix product */

static struct { double share; char where[400]; } errors;    /* the largest of a test against its bound, where it was */

#define CASE(...) ((void)snprintf(label, sizeof label, __VA_ARGS__))

/* A failed comparison: which op, which case, which array. */
#define WRONG(...) \
    do { \
        print_error("%s %s [%s]: ", K->name, dtype_name(E), label); \
        print_error(__VA_ARGS__); \
        print_error("\n"); \
        fail(); \
    } while (0)

static double uniform(double lo, double hi) {
    stream = stream * 6364136223846793005u + 1442695040888963407u;
    return lo + (hi - lo) * (double)(stream >> 11) * 0x1p-53;
}

static void draw_from(const char *test) { stream = hash_bytes(1, test, strlen(test)); }

static int64_t below(int64_t n) { return (int64_t)uniform(0.0, (double)n) % n; }

static double get(const void *p, DType t, int64_t i) {
    float f;
    switch (t) {
    case DT_F64: return ((const double *)p)[i];
    case DT_I32: return (double)((const int32_t *)p)[i];
    case DT_I64: return (double)((const int64_t *)p)[i];
    case DT_U8: return (double)((const uint8_t *)p)[i];
    default: dtype_to_f32(&f, (const char *)p + i * dtype_size(t), t, 1); return (double)f;
    }
}

static void put(void *p, DType t, int64_t i, double v) {
    float f = (float)v;
    switch (t) {
    case DT_F64: ((double *)p)[i] = v; break;
    case DT_I32: ((int32_t *)p)[i] = (int32_t)v; break;
    case DT_I64: ((int64_t *)p)[i] = (int64_t)v; break;
    case DT_E4M3: ((uint8_t *)p)[i] = e4m3_from_f32(f); break;
    case DT_I8: ((int8_t *)p)[i] = (int8_t)v; break;
    case DT_U8: ((uint8_t *)p)[i] = (uint8_t)v; break;
    default: dtype_from_f32((char *)p + i * dtype_size(t), t, &f, 1);
    }
}

/* What storing as t makes of v. */
static double rounded(DType t, double v) {
    char cell[8];
    put(cell, t, 0, v);
    return get(cell, t, 0);
}

static double *doubles(int64_t n) {
    double *p = calloc((size_t)n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

static Buf *array(const char *name, Kind kind, DType t, int64_t n, double lo, double hi) {
    assert_true(nbufs < MAX_BUFS);
    Buf *b = &bufs[nbufs++];
    *b = (Buf){.name = name, .kind = kind, .t = t, .n = n, .bytes = (size_t)n * (size_t)dtype_size(t)};
    size_t all = b->bytes + 2 * GUARD;
    void *p;
    assert_int_equal(K->alloc(&p, all), OK);
    b->base = p;
    b->p = b->base + GUARD;
    assert_int_equal(K->host_alloc(&p, all), OK);
    b->start = p;
    assert_int_equal(K->host_alloc(&p, all), OK);
    b->got = p;
    b->again = malloc(all);
    assert_non_null(b->again);
    memset(b->start, GUARD_BYTE, all);
    b->x = doubles(n);
    b->y = doubles(n);
    for (int64_t i = 0; i < n; i++) {
        b->x[i] = rounded(t, uniform(lo, hi));
        put(b->start + GUARD, t, i, b->x[i]);
    }
    return b;
}

static Buf *in(const char *name, DType t, int64_t n, double lo, double hi) { return array(name, IN, t, n, lo, hi); }
static Buf *out(const char *name, DType t, int64_t n) { return array(name, OUT, t, n, -2.0, 2.0); }

static void set(Buf *b, int64_t i, double v) {
    b->x[i] = rounded(b->t, v);
    put(b->start + GUARD, b->t, i, b->x[i]);
}

/* Bytes that are no numbers (row keys, items). */
static Buf *raw(const char *name, const void *src, size_t bytes) {
    Buf *b = in(name, DT_U8, (int64_t)bytes, 0.0, 0.0);
    if (bytes) memcpy(b->start + GUARD, src, bytes);
    return b;
}

static void restore(void) {
    for (int i = 0; i < nbufs; i++) K->upload(bufs[i].base, bufs[i].start, bufs[i].bytes + 2 * GUARD);
}

static void collect(bool again) {
    K->sync();
    Status st = K->status();
    if (st != OK) WRONG("%s", err_message());
    for (int i = 0; i < nbufs; i++) {
        Buf *b = &bufs[i];
        if (again) memcpy(b->again, b->got, b->bytes + 2 * GUARD);
        K->download(b->got, b->base, b->bytes + 2 * GUARD);
    }
}

static void execute(void (*launch)(void *), void *context) {
    int threads = omp_get_max_threads();
    restore();
    launch(context);
    collect(false);
    restore();
    if (K->unified && !library) omp_set_num_threads(1);
    launch(context);
    omp_set_num_threads(threads);
    collect(true);
    for (int i = 0; i < nbufs; i++) {
        Buf *b = &bufs[i];
        for (size_t j = 0; j < GUARD; j++) {
            if ((uint8_t)b->got[j] != GUARD_BYTE)
                WRONG("%s: written %zu bytes in front of the array", b->name, GUARD - j);
            if ((uint8_t)b->got[GUARD + b->bytes + j] != GUARD_BYTE)
                WRONG("%s: written %zu bytes behind the end", b->name, j + 1);
        }
        if (b->kind == IN && memcmp(b->got, b->start, b->bytes + 2 * GUARD) != 0)
            WRONG("%s: an input was changed", b->name);
        if (memcmp(b->got, b->again, b->bytes + 2 * GUARD) != 0) WRONG("%s: the second run gave other bits", b->name);
        for (int64_t j = 0; j < b->n; j++) b->y[j] = get(b->got + GUARD, b->t, j);
    }
}

static void forget(void) {
    for (int i = 0; i < nbufs; i++) {
        Buf *b = &bufs[i];
        K->release(b->base);
        K->host_release(b->start);
        K->host_release(b->got);
        free(b->again);
        free(b->x);
        free(b->y);
    }
    nbufs = 0;
}

static double largest(const double *v, int64_t n) {
    double m = 0.0;
    for (int64_t i = 0; i < n; i++) m = fmax(m, fabs(v[i]));
    return m;
}

static double unit(DType t) { return t == DT_BF16 ? 0x1p-8 : t == DT_F64 ? 0x1p-52 : 0x1p-23; }

/* Results against the exact values: the largest error is at most twice that of the plain implementation in the same
 * precision, or 2 units of the largest value (where the plain one was lucky). NaN in `want`: not looked at. */
static void compare(const Buf *b, const double *want, const double *plain) {
    double bound = 2.0 * unit(b->t), worst = 0.0, scale = 0.0, off = 0.0;
    for (int64_t i = 0; i < b->n; i++) {
        if (isnan(want[i])) continue;
        scale = fmax(scale, fabs(want[i]));
        worst = fmax(worst, fabs(plain[i] - want[i]));
    }
    bound = fmax(bound * scale, 2.0 * worst);
    for (int64_t i = 0; i < b->n; i++) {
        off = fmax(off, isnan(want[i]) ? 0.0 : fabs(b->y[i] - want[i]));
        if (!isnan(want[i]) && !(fabs(b->y[i] - want[i]) <= bound))
            WRONG("%s[%lld] is %.9g, not %.9g: off by %.3g, bound %.3g", b->name, (long long)i, b->y[i], want[i],
                  fabs(b->y[i] - want[i]), bound);
    }
    if (bound > 0.0 && off / bound >= errors.share) {
        errors.share = off / bound;
        snprintf(errors.where, sizeof errors.where, "%s: %s off by %.3g", label, b->name, off);
    }
}

/* Results against values to within a bound. */
static void expect(const Buf *b, const double *want, double bound) {
    for (int64_t i = 0; i < b->n; i++)
        if (!(fabs(b->y[i] - want[i]) <= bound))
            WRONG("%s[%lld] is %.9g, not %.9g", b->name, (long long)i, b->y[i], want[i]);
}

/* A gradient against central differences of `loss` (in double) with respect to x: all elements, or a sample of a large
 * array. `g` holds the gradient, its start value subtracted where `added`. Bounds: 2e-5 (f32), 2^-6 (bf16) of the
 * largest, and what 1e-13 of the loss, its own rounding, makes of a difference. */
static void differentiate(const Buf *g, bool added, double *x, double (*loss)(void *), void *context) {
    enum { SAMPLE = 48, SMALL = 500 };
    const double h = 1e-5;
    int64_t n = g->n <= SMALL ? g->n : SAMPLE, *at = calloc((size_t)n + 1, sizeof *at);
    double *fd = doubles(n), scale = added ? largest(g->x, g->n) : 0.0;
    assert_non_null(at);
    for (int64_t i = 0; i < n; i++) {
        int64_t j = at[i] = g->n <= SMALL ? i : below(g->n);
        double keep = x[j];
        x[j] = keep + h;
        double up = loss(context);
        x[j] = keep - h;
        fd[i] = (up - loss(context)) / (2.0 * h);
        x[j] = keep;
        scale = fmax(scale, fabs(fd[i]));
    }
    double bound = (E == DT_BF16 ? 0x1p-6 : 2e-5) * scale + 1e-13 / h * fmax(1.0, fabs(loss(context)));
    for (int64_t i = 0; i < n; i++) {
        double v = g->y[at[i]] - (added ? g->x[at[i]] : 0.0);
        if (!(fabs(v - fd[i]) <= bound))
            WRONG("%s[%lld]: gradient %.9g, differences give %.9g: bound %.3g", g->name, (long long)at[i], v, fd[i],
                  bound);
    }
    free(at);
    free(fd);
}

/* Row keys: pairs and tokens that are no row numbers. */
static Buf *row_keys(int64_t n) {
    RowKey *k = calloc((size_t)n + 1, sizeof *k);
    assert_non_null(k);
    for (int64_t i = 0; i < n; i++) k[i] = (RowKey){(uint32_t)(7 * i + 3), (uint32_t)(i % 5) | 1u << 16};
    Buf *b = raw("rows", k, (size_t)n * sizeof *k);
    free(k);
    return b;
}

static double dropped(const Dropout *d, const Buf *rows, int64_t row, uint32_t element) {
    if (d->p <= 0.0f) return 1.0;
    RowKey k;
    memcpy(&k, rows->start + GUARD + (size_t)row * sizeof k, sizeof k);
    return dropout_keep(d, k, element) ? 1.0 / (1.0 - (double)d->p) : 0.0;
}

#endif
