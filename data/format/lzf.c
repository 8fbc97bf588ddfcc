/* lzf: see lzf.h. */
#include "data/format/lzf.h"

#include <stdint.h>
#include <string.h>

size_t lzf_unpack(void *dst, size_t room, const void *src, size_t n) {
    const uint8_t *in = src, *end = in + n;
    uint8_t *out = dst;
    size_t at = 0;
    while (in < end) {
        size_t control = *in++;
        if (control < 32) {
            size_t run = control + 1;
            if (run > (size_t)(end - in) || run > room - at) return 0;
            memcpy(out + at, in, run);
            in += run;
            at += run;
            continue;
        }
        size_t length = control >> 5, back = (control & 31) << 8;
        if (length == 7) {
            if (in == end) return 0;
            length += *in++;
        }
        if (in == end) return 0;
        back += (size_t)*in++ + 1;
        length += 2;
        /* not before the start, not beyond the end: both are the file's word */
        if (back > at || length > room - at) return 0;
        for (; length; length--, at++) out[at] = out[at - back];       /* the two may overlap */
    }
    return at;
}
