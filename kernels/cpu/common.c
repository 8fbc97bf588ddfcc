/* common: what the kernels share and no element type enters: scratch, the error that sticks,
 * partial sums, dropout bits. */
#include "kernels/cpu/vec.h"

#if !ELEM_BF16      /* once for both element types */

static Status first_failure = OK;
static const char *failed_what;

void cpu_fail(Status s, const char *what) {
    /* the first is the cause, later ones may be its consequences */
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
    /* before the new block, not realloc: nothing in it is wanted, and both at once would be the peak */
    free(memory);
    /* a quarter more: batches of packed text grow by little, and each time would be a new mapping */
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
        /* in the order of the blocks, whoever made them */
        for (int64_t b = 0; b < blocks; b++) s += partial[b * stride + c];
        out[c] += s;
    }
}

/* ---- dropout bits -------------------------------------------------------------------------------------------------
 * Eight Philox calls side by side, a 64-bit lane each: the multiplication takes the low halves, so what piles up in the
 * high halves does no harm. Seven instructions a round, so about one an element. */
#if LANES == 16
enum { CALLS = 8 };


typedef struct { __m512i x[4]; } Calls;         /* the low halves of the lanes are the calls' words */

static inline Calls philox8(__m512i x0, __m512i x1, __m512i x2, __m512i x3, uint32_t k0, uint32_t k1) {
    const __m512i ma = _mm512_set1_epi64(0xD2511F53), mb = _mm512_set1_epi64(0xCD9E8D57);
    for (int r = 0; r < 10; r++) {
        /* 32 x 32 bits give 64: both halves that a round wants come out of one product */
        __m512i a = _mm512_mul_epu32(ma, x0), b = _mm512_mul_epu32(mb, x2);
        x0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(b, 32), x1, _mm512_set1_epi64(k0), 0x96);
        x2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(a, 32), x3, _mm512_set1_epi64(k1), 0x96);
        x1 = b;
        x3 = a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (Calls){{x0, x1, x2, x3}};
}

void cpu_dropout_bits(uint16_t *bits, const Dropout *d, RowKey row, uint32_t first, int64_t n) {
    const __m512i low = _mm512_set1_epi64(0xffffffff);
    const __m512i front = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    const __m512i back = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    __m512i c0 = _mm512_add_epi64(_mm512_set1_epi64(first), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
    for (int64_t j = 0; j < n; j += CALLS, c0 = _mm512_add_epi64(c0, _mm512_set1_epi64(CALLS))) {
        Calls w = philox8(c0, _mm512_set1_epi64(row.token), _mm512_set1_epi64(row.pair), _mm512_set1_epi64(d->site),
                          rng_key0(d->seed), d->step);
        __m512i v01 = _mm512_or_si512(_mm512_and_si512(w.x[0], low), _mm512_slli_epi64(w.x[1], 32));
        __m512i v23 = _mm512_or_si512(_mm512_and_si512(w.x[2], low), _mm512_slli_epi64(w.x[3], 32));
        _mm512_storeu_si512(bits + 8 * j, _mm512_permutex2var_epi64(v01, front, v23));
        _mm512_storeu_si512(bits + 8 * j + 32, _mm512_permutex2var_epi64(v01, back, v23));
    }
}

void cpu_dropout_words(uint32_t words[4][LANES], const Dropout *d, const RowKey rows[LANES], uint32_t block) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512i site = _mm512_set1_epi64(d->site);                  /* a key is pair | token << 32 */
    __m512i lo = _mm512_loadu_si512(rows), hi = _mm512_loadu_si512(rows + 8), c0 = _mm512_set1_epi64(block);
    Calls a = philox8(c0, _mm512_srli_epi64(lo, 32), lo, site, rng_key0(d->seed), d->step);
    Calls b = philox8(c0, _mm512_srli_epi64(hi, 32), hi, site, rng_key0(d->seed), d->step);
    for (int i = 0; i < 4; i++) _mm512_storeu_si512(words[i], _mm512_permutex2var_epi32(a.x[i], even, b.x[i]));
}
#else
void cpu_dropout_bits(uint16_t *bits, const Dropout *d, RowKey row, uint32_t first, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        Philox x = dropout_block(d, row, first + (uint32_t)i);
        /* the order of rng.h: masks are the same on every device */
        for (uint32_t e = 0; e < 8; e++) bits[8 * i + e] = (uint16_t)dropout_bits(x, e);
    }
}

void cpu_dropout_words(uint32_t words[4][LANES], const Dropout *d, const RowKey rows[LANES], uint32_t block) {
    for (int r = 0; r < LANES; r++) {
        Philox x = dropout_block(d, rows[r], block);
        for (int i = 0; i < 4; i++) words[i][r] = x.v[i];
    }
}
#endif

_Static_assert(sizeof(RowKey) == 8 && offsetof(RowKey, token) == 4,
               "cpu_dropout_words loads a row's key as one number");

#endif
