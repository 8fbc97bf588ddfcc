/* common: what the kernels share and no element type enters: scratch, the error that sticks, partial sums, dropout bits. */
#include "kernels/cpu/cpu.h"

#if !ELEM_BF16      /* once for both element types */

static Status first_failure = OK;
static const char *failed_what;

void cpu_fail(Status s, const char *what) {
    if (first_failure == OK) first_failure = s, failed_what = what;
}

Status cpu_status(void) {
    Status s = first_failure;
    if (s == OK) return OK;
    first_failure = OK;
    return err_set(s, "cpu backend: %s: %s", failed_what, s == ERR_MEMORY ? "out of memory for scratch" : "failed");
}

void *cpu_scratch(size_t bytes) {
    static _Thread_local void *memory;
    static _Thread_local size_t have;
    if (bytes <= have && memory) return memory;
    free(memory);
    have = (bytes + bytes / 4 + 4095) & ~(size_t)4095;
    if (posix_memalign(&memory, 64, have)) {
        memory = NULL;
        have = 0;
        cpu_fail(ERR_MEMORY, "scratch");
    }
    return memory;
}

void cpu_add_partials(float *out, const float *partial, int64_t blocks, int64_t stride, int64_t n) {
#pragma omp parallel for simd schedule(static) if (PARALLEL(blocks * n))
    for (int64_t c = 0; c < n; c++) {
        float s = 0.0f;
        for (int64_t b = 0; b < blocks; b++) s += partial[b * stride + c];
        out[c] += s;
    }
}

/* ---- dropout bits ------------------------------------------------------------------------------------------------------
 * Eight Philox calls side by side, a 64-bit lane each: the multiplication takes the low halves, so what piles up in the high
 * halves does no harm. Seven instructions a round, so about one an element. */
enum { LANES = 8 };

#ifdef __AVX512F__
#include <immintrin.h>

static void philox8(uint16_t *bits, const uint64_t c0[LANES], const uint64_t c1[LANES], const uint64_t c2[LANES], uint32_t site,
                    uint32_t k0, uint32_t k1) {
    const __m512i ma = _mm512_set1_epi64(0xD2511F53), mb = _mm512_set1_epi64(0xCD9E8D57);
    __m512i x0 = _mm512_loadu_si512(c0), x1 = _mm512_loadu_si512(c1), x2 = _mm512_loadu_si512(c2), x3 = _mm512_set1_epi64(site);
    for (int r = 0; r < 10; r++) {
        __m512i a = _mm512_mul_epu32(ma, x0), b = _mm512_mul_epu32(mb, x2);
        x0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(b, 32), x1, _mm512_set1_epi64(k0), 0x96);      /* xor of three */
        x2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(a, 32), x3, _mm512_set1_epi64(k1), 0x96);
        x1 = b;
        x3 = a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    __m512i low = _mm512_set1_epi64(0xffffffff);
    __m512i v01 = _mm512_or_si512(_mm512_and_si512(x0, low), _mm512_slli_epi64(x1, 32));
    __m512i v23 = _mm512_or_si512(_mm512_and_si512(x2, low), _mm512_slli_epi64(x3, 32));
    _mm512_storeu_si512(bits, _mm512_permutex2var_epi64(v01, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), v23));
    _mm512_storeu_si512(bits + 32, _mm512_permutex2var_epi64(v01, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), v23));
}
#else
static void philox8(uint16_t *bits, const uint64_t c0[LANES], const uint64_t c1[LANES], const uint64_t c2[LANES], uint32_t site,
                    uint32_t k0, uint32_t k1) {
    for (int i = 0; i < LANES; i++) {
        Philox x = philox((uint32_t)c0[i], (uint32_t)c1[i], (uint32_t)c2[i], site, k0, k1);
        for (uint32_t e = 0; e < 8; e++) bits[8 * (uint32_t)i + e] = (uint16_t)dropout_bits(x, e);
    }
}
#endif

void cpu_dropout_bits(uint16_t *bits, const Dropout *d, RowKey row, uint32_t first, int64_t n) {
    uint64_t c0[LANES], c1[LANES], c2[LANES];
    uint32_t k0 = rng_key0(d->seed);
    for (int i = 0; i < LANES; i++) c1[i] = row.token, c2[i] = row.pair;
    for (int64_t j = 0; j < n; j += LANES) {
        for (int i = 0; i < LANES; i++) c0[i] = first + (uint64_t)(j + i);
        philox8(bits + 8 * j, c0, c1, c2, d->site, k0, d->step);
    }
}

void cpu_dropout_rows(uint16_t *bits, const Dropout *d, const RowKey *rows, int64_t nrows, uint32_t first, int64_t n) {
    uint64_t c0[LANES], c1[LANES], c2[LANES];
    uint32_t k0 = rng_key0(d->seed);
    int64_t row = 0, block = 0;
    for (int64_t j = 0; j < nrows * n; j += LANES) {
        for (int i = 0; i < LANES; i++) {
            c0[i] = first + (uint64_t)block;
            c1[i] = rows[row].token;
            c2[i] = rows[row].pair;
            if (++block == n) {
                block = 0;
                if (row + 1 < nrows) row++;              /* lanes past the end repeat the last row */
            }
        }
        philox8(bits + 8 * j, c0, c1, c2, d->site, k0, d->step);
    }
}

#endif
