/* features: see features.h. An element is not finite when all bits of its exponent are set. */
#include "data/features.h"

#include <stdint.h>
#include <string.h>

#define SCAN(type, mask)                                   \
    do {                                                   \
        const type *v = x;                                 \
        bool bad = false;                                  \
        for (size_t i = 0; i < n; i++) bad |= (v[i] & (mask)) == (mask); \
        return !bad;                                       \
    } while (0)

bool features_finite(const void *x, DType t, size_t n) {
    switch (t) {
    case DT_F64:  SCAN(uint64_t, 0x7ff0000000000000u);
    case DT_F32:  SCAN(uint32_t, 0x7f800000u);
    case DT_F16:  SCAN(uint16_t, 0x7c00u);
    case DT_BF16: SCAN(uint16_t, 0x7f80u);
    case DT_E4M3: SCAN(uint8_t, 0x7fu);
    default:      return true;
    }
}

RowKind features_kind(const void *row, size_t bytes, size_t size) {
    static const char zero[8];
    /* each element equals the next: one memcmp of the row with itself */
    bool flat = bytes == size || !memcmp(row, (const char *)row + size, bytes - size);
    if (!flat) return ROW_COMPUTED;
    return !memcmp(row, zero, size) ? ROW_ZERO : bytes > size ? ROW_FLAT : ROW_COMPUTED;
}
