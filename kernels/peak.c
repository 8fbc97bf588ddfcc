/* peak: see peak.h. */
#include "kernels/peak.h"

#include <math.h>

#include "kernels/base/splitmix.h"
#include "kernels/base/status.h"

/* bytes of x = numbers from -1 to 1: some from the host, then doubled where they lie. */
static bool fill(const Backend *b, char *x, size_t bytes) {
    enum { COUNT = 1 << 16 };
    size_t one = (size_t)dtype_size(b->elem), done = COUNT * one < bytes ? COUNT * one : bytes;
    void *host;
    if (b->host_alloc(&host, done) != OK) return false;
    SplitMix r = {1};
    for (size_t i = 0; i < done / one; i++) {
        float v = (float)splitmix_sym(&r, 1.0);
        dtype_from_f32((char *)host + i * one, b->elem, &v, 1);
    }
    b->upload(x, host, done);
    /* doubled on the device: hundreds of MB over the bus would take longer than what is measured */
    for (size_t n; done < bytes; done += n) {
        n = done < bytes - done ? done : bytes - done;
        b->copy(x + done, x, n);
    }
    b->sync();
    b->host_release(host);
    return true;
}

double peak_of_product(const Backend *b, int64_t m, int64_t n, int64_t k) {
    size_t one = (size_t)dtype_size(b->elem);
    size_t bytes[] = {(size_t)(m * k) * one, (size_t)(n * k) * one, (size_t)(m * n) * one};
    void *x[3] = {NULL};
    double best = INFINITY;
    bool room = true;
    for (int i = 0; i < 3; i++) room = room && b->alloc(&x[i], bytes[i]) == OK;
    /* random numbers: products of zeros take less power, and a GPU then clocks higher */
    room = room && fill(b, x[0], bytes[0]) && fill(b, x[1], bytes[1]);
    Gemm g = {.m = m, .n = n, .k = k, .a = x[0], .b = x[1], .c = x[2], .lda = k, .ldb = k, .ldc = n, .ab = b->elem,
              .ct = b->elem, .tb = true};
    for (int i = 0; room && i < 4; i++) {
        double t = status_clock();
        b->gemm(&g);
        b->sync();
        t = status_clock() - t;
        /* the first warms up; the best of the others is the machine undisturbed */
        if (i) best = fmin(best, t);
    }
    for (int i = 0; i < 3; i++)
        if (x[i]) b->release(x[i]);
    return 2.0 * (double)m * (double)n * (double)k / best;
}

/* The size doubles while a product takes less than a millisecond. */
double peak_rate(const Backend *b) {
    double t = 0, rate = 0;
    for (int64_t N = 1024; N <= 8192 && t < 1e-3; N *= 2) {
        double r = peak_of_product(b, N, N, N);
        rate = fmax(rate, r);
        /* shorter ones measure the launch */
        t = 2.0 * (double)(N * N * N) / r;
    }
    return rate;
}
