/* sha256: which bytes these were. Called for the weights of an encoder, whose set says by what it was computed.
 * Source: FIPS 180-4. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t h[8];
    uint64_t bytes;
    uint8_t block[64];         /* what is not a whole block yet */
} Sha256;

void sha256_begin(Sha256 *s);
void sha256_add(Sha256 *s, const void *bytes, size_t n);
void sha256_hex(Sha256 *s, char hex[65]);                  /* ends it */
