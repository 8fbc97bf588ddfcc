/* outfile: a file that is either the old one or the new one, whole, whatever happens in between.
 *
 * Called by everything that writes results another run will read: safetensors, checkpoints, pointer files. The one
 * idea: bytes go to PATH.tmp-PID, are flushed to the disk, and only then take the name PATH by rename, after which
 * the folder is flushed too. A full disk, a kill -9 or a power cut leaves what stood at PATH before; a killed
 * writer leaves a PATH.tmp-PID behind, which whoever owns the folder removes (checkpoint.c does).
 *
 * A running crc32c of the bytes is kept, so that a caller can record what it wrote without reading it back.
 * Does not: append, seek, read. Not for HDF5 shards, which have their own rule (data/FORMAT.md). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct OutFile OutFile;

/* The one rule for every command: what `out` names already stays, unless the user said overwrite=true. ERR_USAGE with
 * that sentence when something is at `path`, ERR_IO when nothing can be made there; asked before anything is computed,
 * so that no work ends without its file. Devices and pipes are always free, and
 * are written to as they are: nothing takes their name. */
Status outfile_claim(const char *path, bool overwrite);

/* ERR_USAGE when `path`, which is to be a folder, is none yet and ends like a file (x.csv). ending: of the file that
 * the command could write instead, NULL: none. */
Status outfile_folder(const char *path, const char *ending);

Status outfile_create(OutFile **f, const char *path);              /* ERR_IO: the temporary file cannot be made */
Status outfile_write(OutFile *f, const void *data, size_t n);      /* ERR_IO names the path and the cause (disk full) */
Status outfile_commit(OutFile *f);                                 /* flush, rename; frees f also when it fails */
void outfile_abandon(OutFile *f);                                  /* removes the temporary file; accepts NULL */
uint64_t outfile_bytes(const OutFile *f);                          /* accepted so far */
uint32_t outfile_crc(const OutFile *f);                            /* crc32c of them */

Status outfile_put(const char *path, const void *data, size_t n);  /* create, write, commit */
Status outfile_copy(const char *from, const char *to);             /* the same with another file's bytes */

Status outfile_parents(const char *path);                          /* makes the folders that path lies in */

/* The four steps below make a folder appear whole in the same way; `what` in messages is the path. */
Status outfile_mkdir(const char *path);
Status outfile_rename(const char *from, const char *to);
Status outfile_swap(const char *from, const char *to);             /* two trade names, in one step if possible */
Status outfile_sync_dir(const char *path);                         /* makes the names in the folder durable */
Status outfile_sync_parent(const char *path);                      /* the same for the folder that holds path */

/* Tests only: called before each step that touches the disk ("open", "write", "fsync", "rename", "mkdir"), with the
 * path. Returns 0 to go on or an errno to fail with; a failing "write" first writes half, as a full disk does. */
typedef int OutFileHook(const char *step, const char *path);
void outfile_set_hook(OutFileHook *hook);
