/* zipmap: where the records of a stored (uncompressed) zip archive lie in memory. For pth.c, whose files are such
 * archives.
 *
 * Reads the central directory, with the 64-bit forms, and the local header of each record. Every offset and length
 * is checked against the file. Refused: compressed or encrypted records, archives in several parts, duplicate
 * names. Does not check the CRC of records (torch can be told to write none), does not unpack (data/format/zipread.h
 * streams and unpacks; here a record is used where it lies), and never allocates more than the directory.
 *
 * Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16, 4.5.3. */
#ifndef QF_ZIPMAP_H
#define QF_ZIPMAP_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    const char *name;           /* not ended by NUL */
    size_t name_len;
    const uint8_t *data;
    size_t size;
} ZipRecord;

typedef struct {
    ZipRecord *records;         /* sorted by name */
    size_t count;
} ZipMap;

bool zipmap_looks_like(const uint8_t *bytes, size_t n);
/* ERR_FORMAT. Records point into bytes. */
Status zipmap_read(ZipMap *z, const uint8_t *bytes, size_t n, const char *path);
void zipmap_free(ZipMap *z);
Status zipmap_sort(ZipMap *z, const char *path);     /* by name; ERR_FORMAT when one stands twice */
const ZipRecord *zipmap_find(const ZipMap *z, const char *name, size_t name_len);  /* NULL when absent */

#endif
