/* tar: the regular files of a tar archive, read in place: nothing is unpacked to the disk.
 *
 * Called by pictures for webdataset shards. The headers are walked once when it is opened (a read of 512 bytes a
 * member, as the data are jumped over); then any member is read by its place. Knows the old form, ustar with prefixes,
 * GNU's long names and large sizes, and the path and size of pax headers. Links, devices and folders are passed over;
 * sparse files are refused. Names are only compared, never used as paths, so "../" in one does no harm.
 *
 * Archives are not trusted: checksums of headers are compared, every size is checked against the file, names and
 * headers have limits. An archive without its end mark that stops at a member's end is taken, since tools write such;
 * one cut in the middle of a member is refused.
 *
 * Format: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format". */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct {
    const char *name;              /* without leading "./" */
    int64_t at, size;              /* where its bytes lie in the archive */
} TarMember;

typedef struct Tar Tar;

/* ERR_IO; ERR_FORMAT says what it is instead (compressed by gzip), or what is broken where. */
Status tar_open(Tar **t, const char *path);
Status tar_open_fd(Tar **t, int fd, const char *name);     /* closes fd with the archive, and here on failure */
void tar_close(Tar *t);                                    /* accepts NULL */

size_t tar_count(const Tar *t);
const TarMember *tar_at(const Tar *t, size_t i);           /* in the order of the archive */

/* All bytes of a member: free(*bytes), which has one byte more, a NUL. By several threads at a time. */
Status tar_read(const Tar *t, const TarMember *m, uint8_t **bytes);
