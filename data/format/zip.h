/* zip: where the members of a zip archive lie in memory, and their bytes.
 *
 * Called by npy (.npz) and pth (.pth, .pt), which map the file. Reads the central directory, with the 64-bit forms, and
 * the local header of each member. Every offset and length is checked against the file. A stored member is used where
 * it lies; zip_stream gives any member's bytes from front to back, stored or deflated, and compares length and CRC when
 * the last byte has been read (pth does not stream: torch can be told to write no CRC). Refused: archives in several
 * parts, duplicate names; encrypted members and other methods of packing when they are asked for.
 *
 * Never allocates more than the directory.
 *
 * Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.5.3. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    const char *name;           /* not ended by NUL */
    size_t name_len;
    const uint8_t *data;        /* (packed) */
    size_t size, packed;        /* bytes unpacked, and in the file: the same when it is stored */
    uint32_t crc;
    int method;                 /* 0: stored; 8: deflated; -1: encrypted */
} ZipRecord;

typedef struct {
    ZipRecord *records;         /* sorted by name */
    size_t count;
} ZipMap;

bool zip_looks_like(const uint8_t *bytes, size_t n);
/* ERR_FORMAT. Records point into bytes. */
Status zip_read(ZipMap *z, const uint8_t *bytes, size_t n, const char *path);
void zip_free(ZipMap *z);
Status zip_sort(ZipMap *z, const char *path);        /* by name; ERR_FORMAT when one stands twice */
const ZipRecord *zip_find(const ZipMap *z, const char *name, size_t name_len);     /* NULL when absent */

typedef struct ZipStream ZipStream;
Status zip_stream_open(ZipStream **s, const ZipRecord *r, const char *path);   /* ERR_FORMAT: how it is packed */
Status zip_stream_read(ZipStream *s, void *dst, size_t n);                     /* exactly the next n bytes */
void zip_stream_close(ZipStream *s);                                           /* accepts NULL */
