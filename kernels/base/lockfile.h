/* lockfile: one process at a time. A file that is locked while its owner lives, and says who that is; the lock goes
 * with the process, however it ends, so nothing has to be cleaned up by hand, and an owner that was killed and is not
 * gone yet is waited for. Works between machines where the file system locks over the network (NFS does); where it
 * cannot lock at all, an owner on this machine is still seen. */
#pragma once
#include "kernels/base/err.h"

typedef struct LockFile LockFile;

/* ERR_USAGE: another process has it, by number and host; `what` is what it has. ERR_IO: the file cannot be made. */
Status lockfile_take(LockFile **l, const char *path, const char *what);
void lockfile_drop(LockFile *l);                             /* removes the file; accepts NULL */
