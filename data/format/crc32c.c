/* crc32c: see crc32c.h.
 *
 * Polynomials over GF(2) modulo P are held reflected: bit 31 is x^0. Appending n zero bits to a message multiplies
 * its CRC register by x^n; so the CRC of A|B is crc(A) * x^(8|B|) + crc(B), which joins streams that were summed
 * side by side. */
#include "data/format/crc32c.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define POLY 0x82F63B78u           /* Castagnoli, reflected */

enum { STREAM = 1024 };            /* bytes of each of the three streams */

static uint32_t slice[8][256];     /* [k][b]: byte b followed by k zero bytes */
static uint32_t shift[4][256];     /* [k][b]: byte k of a register being b, times x^(8 STREAM) */
static uint64_t fold[2][2];        /* see fold_constant: distances of 512 and 64 bytes */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint32_t (*best)(uint32_t crc, const unsigned char *p, size_t n);

/* a * b mod P. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t r = 0;
    for (int i = 31; i >= 0; i--) {
        if (a >> i & 1) r ^= b;
        b = b & 1 ? b >> 1 ^ POLY : b >> 1;
    }
    return r;
}

static uint32_t x_to_the(uint64_t n) {
    uint32_t r = 1u << 31, square = 1u << 30;              /* x^0, x^1 */
    for (; n; n >>= 1, square = multiply(square, square))
        if (n & 1) r = multiply(r, square);
    return r;
}

static inline uint64_t load64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* ---- tables ---- */

static uint32_t soft(uint32_t c, const unsigned char *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint32_t a = c ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        c = slice[7][a & 255] ^ slice[6][a >> 8 & 255] ^ slice[5][a >> 16 & 255] ^ slice[4][a >> 24]
          ^ slice[3][p[4]] ^ slice[2][p[5]] ^ slice[1][p[6]] ^ slice[0][p[7]];
    }
    for (; n; p++, n--) c = c >> 8 ^ slice[0][(c ^ *p) & 255];
    return c;
}

/* ---- the instruction, three streams ---- */

static inline uint32_t shifted(uint32_t c) {
    return shift[0][c & 255] ^ shift[1][c >> 8 & 255] ^ shift[2][c >> 16 & 255] ^ shift[3][c >> 24];
}

#define THREE_STREAMS(STEP8, STEP1)                                                                     \
    for (; n >= 3 * STREAM; p += 3 * STREAM, n -= 3 * STREAM) {                                         \
        uint32_t c1 = 0, c2 = 0;                                                                        \
        for (size_t i = 0; i < STREAM; i += 8) {                                                        \
            c = STEP8(c, load64(p + i));                                                                \
            c1 = STEP8(c1, load64(p + STREAM + i));                                                     \
            c2 = STEP8(c2, load64(p + 2 * STREAM + i));                                                 \
        }                                                                                               \
        c = shifted(shifted(c) ^ c1) ^ c2;                                                              \
    }                                                                                                   \
    for (; n >= 8; p += 8, n -= 8) c = STEP8(c, load64(p));                                             \
    for (; n; p++, n--) c = STEP1(c, *p);                                                               \
    return c

#if defined(__x86_64__)

#define X86_STEP8(c, v) ((uint32_t)_mm_crc32_u64(c, v))

__attribute__((target("sse4.2")))
static uint32_t sse42(uint32_t c, const unsigned char *p, size_t n) {
    THREE_STREAMS(X86_STEP8, _mm_crc32_u8);
}

/* Gopal et al., "Fast CRC computation for generic polynomials using PCLMULQDQ" (Intel, 2009), 64 bytes wide: 512
 * bytes are kept as a remainder that stands for all before them; each step multiplies it by x^4096 and adds the next
 * 512 bytes. */
__attribute__((target("avx512f,vpclmulqdq"), always_inline))
static inline __m512i folded(__m512i a, __m512i k, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(a, k, 0x00), _mm512_clmulepi64_epi128(a, k, 0x11), next,
                                     0x96);
}

__attribute__((target("avx512f,vpclmulqdq"), always_inline))
static inline __m512i fold_by(int i) {
    return _mm512_broadcast_i32x4(_mm_set_epi64x((long long)fold[i][1], (long long)fold[i][0]));
}

__attribute__((target("sse4.2,avx512f,avx512vl,vpclmulqdq")))
static uint32_t avx512(uint32_t c, const unsigned char *p, size_t n) {
    if (n < 1024) return sse42(c, p, n);                     /* less does not fill the eight registers twice */
    __m512i a[8], k = fold_by(0);
    for (int j = 0; j < 8; j++) a[j] = _mm512_loadu_si512(p + 64 * j);
    a[0] = _mm512_xor_si512(a[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)c)));
    for (p += 512, n -= 512; n >= 512; p += 512, n -= 512)
        for (int j = 0; j < 8; j++) a[j] = folded(a[j], k, _mm512_loadu_si512(p + 64 * j));
    k = fold_by(1);
    for (int j = 1; j < 8; j++) a[0] = folded(a[0], k, a[j]);

    /* 64 bytes that stand for all: their CRC, and that of the tail after them, is the CRC. */
    unsigned char rest[64];
    _mm512_storeu_si512(rest, a[0]);
    return sse42(sse42(0, rest, sizeof rest), p, n);
}

static void choose(void) {
    if (__builtin_cpu_supports("sse4.2")) best = sse42;
    /* last: the best that there is wins */
    if (__builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("vpclmulqdq")) best = avx512;
}

#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

static uint32_t arm(uint32_t c, const unsigned char *p, size_t n) { THREE_STREAMS(__crc32cd, __crc32cb); }
static void choose(void) { best = arm; }

#else
static void choose(void) {}
#endif

/* Multipliers that move a 16-byte remainder on by `bytes`: of its first 8 bytes (which stand 32 bits further on than a
 * register would) and of its last. The shift makes up for the product of two reflected numbers being one bit short. */
static void fold_constant(uint64_t k[2], uint64_t bytes) {
    k[0] = (uint64_t)x_to_the(8 * bytes + 32) << 1;
    k[1] = (uint64_t)x_to_the(8 * bytes - 32) << 1;
}

static void prepare(void) {
    uint32_t by = x_to_the(8 * STREAM);
    for (uint32_t b = 0; b < 256; b++) {
        slice[0][b] = multiply(b, x_to_the(8));
        for (int k = 0; k < 4; k++) shift[k][b] = multiply(b << 8 * k, by);
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++) slice[k][b] = slice[k - 1][b] >> 8 ^ slice[0][slice[k - 1][b] & 255];
    fold_constant(fold[0], 512);
    fold_constant(fold[1], 64);
    best = soft;                                             /* for choose() to better */
    choose();
}

uint32_t crc32c(uint32_t crc, const void *p, size_t n) {
    pthread_once(&once, prepare);
    return ~best(~crc, p, n);
}

uint32_t crc32c_soft(uint32_t crc, const void *p, size_t n) {
    pthread_once(&once, prepare);
    return ~soft(~crc, p, n);
}
