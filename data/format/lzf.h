/* lzf: unpacks LZF, the compression that h5py calls "lzf" (HDF5 filter 32000). Called by h5 only.
 *
 * Format (liblzf): a control byte below 32 starts a run of as many literal bytes plus one; else its upper three bits
 * are a length (7: a byte more follows), its lower five and the next byte a distance back,
 * and length + 2 bytes are copied. */
#pragma once
#include <stddef.h>

/* Bytes written to dst[0..room), 0 when src[0..n) is not LZF or does not fit. */
size_t lzf_unpack(void *dst, size_t room, const void *src, size_t n);
