/* crc32c: the Castagnoli CRC (RFC 3720 appendix B.4; polynomial 0x1EDC6F41, reflected 0x82F63B78), which guards
 * every row of a data set, TensorBoard records and checkpoints.
 *
 * With SSE4.2 or the ARMv8 CRC instructions three streams run side by side, since the instruction takes one 8-byte
 * word a cycle but needs three cycles to finish; partial sums are joined by multiplying with x^n mod P. On
 * a Zen 5 core that is 27 GB/s. Elsewhere eight tables (slicing by eight).
 * Where the processor multiplies polynomials in 64-byte registers (AVX-512 with VPCLMULQDQ), folding takes
 * over: 52 GB/s. Chosen at run time on x86: one build runs on all. Not a cryptographic hash. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The CRC of what `crc` was the CRC of (0: nothing), followed by n bytes at p. crc32c(0,
 * "123456789", 9) == 0xE3069283. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

uint32_t crc32c_soft(uint32_t crc, const void *p, size_t n);   /* the table form, whatever the processor can (tests) */
