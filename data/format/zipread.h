/* zipread: one member of a zip archive as a stream of bytes. Private to npy.c, which reads .npz.
 *
 * Stored and deflated members, zip64. The member's length and CRC are compared when its last byte has been read. */
#ifndef QF_ZIPREAD_H
#define QF_ZIPREAD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "kernels/base/err.h"

typedef struct ZipMember ZipMember;

/* Chooses a member: called for each name of the directory, returns how well it fits; the highest above 0 wins. `ctx`
 * can count. Two members that fit equally well: the first. */
typedef int ZipChoose(void *ctx, const char *name);

/* ERR_FORMAT names what is broken; OK with *out NULL when no member fits. `f` stays the caller's. */
Status zip_open(ZipMember **out, FILE *f, const char *name, ZipChoose *choose, void *ctx);
uint64_t zip_size(const ZipMember *z);                     /* bytes when unpacked, as the directory says */
const char *zip_name(const ZipMember *z);
Status zip_read(ZipMember *z, void *dst, size_t n);        /* exactly the next n bytes */
void zip_close(ZipMember *z);                              /* accepts NULL */

#endif
