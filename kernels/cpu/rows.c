/* rows: copying and summing rows and plain arrays. All of it is bound by memory: a copy moves 2n, an addition 3n. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec.h"

/* db(C) += column sums of dy(N,C). Blocks of rows, then the blocks: see cpu.h. */
void FN(colsum)(float *db, const void *dy0, int64_t N, int64_t C, int64_t ldy) {
    const elem *dy = dy0;
    /* borders that depend on N alone: the same bits with any number of threads */
    int64_t R = row_block(N), nb = row_blocks(N);
    float *partial = cpu_scratch((size_t)(nb * C) * sizeof(float));
    if (!partial) return;
#pragma omp parallel for schedule(static) if (PARALLEL(N * C))
    for (int64_t b = 0; b < nb; b++) {
        float *s = partial + b * C;
        memset(s, 0, (size_t)C * sizeof(float));
        for (int64_t r = b * R; r < MIN(N, b * R + R); r++) {
#pragma omp simd
            for (int64_t c = 0; c < C; c++) s[c] += ld(dy[r * ldy + c]);
        }
    }
    cpu_add_partials(db, partial, nb, C, C);
}

void FN(copy_rows)(void *dst0, int64_t ldd, const int32_t *di, const void *src0, int64_t lds, const int32_t *si,
                   int64_t n, int64_t width, bool add) {
    elem *dst = dst0;
    const elem *src = src0;
#pragma omp parallel for schedule(static) if (PARALLEL(n * width))
    for (int64_t i = 0; i < n; i++) {
        elem *d = dst + (di ? di[i] : i) * ldd;
        const elem *s = src + (si ? si[i] : i) * lds;
        if (add) {
#pragma omp simd
            for (int64_t c = 0; c < width; c++) d[c] = st(ld(d[c]) + ld(s[c]));
        } else {
            memcpy(d, s, (size_t)width * sizeof(elem));
        }
    }
}

void FN(dropout)(void *x0, int64_t N, int64_t C, int64_t ldx, const Dropout *d) {
#pragma omp parallel if (PARALLEL(N * C))
    {
        Mask m;
        mask_open(&m, d);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < N; r++) {
            elem *x = (elem *)x0 + r * ldx;
            for (int64_t c0 = 0; c0 < C; c0 += CHUNK) {
                int64_t end = MIN(C, c0 + CHUNK);
                mask_draw(&m, r, c0, end - c0);
                for (int64_t c = c0; c < end; c += LANES) stv(x + c, masked(&m, ldv(x + c, C - c), c - c0), C - c);
            }
        }
    }
}

void FN(cast)(void *dst, DType dt, const void *src, DType t, int64_t n) {
    if (dt == t) {
        /* f32 masters are their own copies */
        if (dst != src) memcpy(dst, src, (size_t)n * (size_t)dtype_size(dt));
    } else if (dt == DT_F32) {
        float *d = dst;
        const uint16_t *s = src;
#pragma omp parallel for schedule(static) if (PARALLEL(n))
        for (int64_t i = 0; i < n; i += LANES)
            stf(d + i, t == DT_F16 ? ld_f16(s + i, n - i) : ld_bf16(s + i, n - i), n - i);
    } else {
        elem *d = dst;
        const float *s = src;
#pragma omp parallel for simd schedule(static) if (PARALLEL(n))
        for (int64_t i = 0; i < n; i++) d[i] = st(s[i]);
    }
}

void FN(axpy)(float *y, const float *x, float a, int64_t n) {
#pragma omp parallel for simd schedule(static) if (PARALLEL(n))
    for (int64_t i = 0; i < n; i++) y[i] = fmadd(a, x[i], y[i]);
}

void FN(sum)(float *out, const float *x, int64_t n, bool add) {
    double s = 0.0;
#pragma omp simd reduction(+ : s)
    /* in f64: a mean of thousands of losses is logged with seven digits */
    for (int64_t i = 0; i < n; i++) s += (double)x[i];
    out[0] = (float)(add ? (double)out[0] + s : s);
}
