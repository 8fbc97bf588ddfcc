/* outfile: see outfile.h. */
#include "data/format/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/crc32c.h"
#include "data/format/mapfile.h"
#include "data/format/path.h"
#include "kernels/base/mem.h"

struct OutFile {
    char *path, *temp;             /* temp NULL: a device or a pipe, written to as it is */
    int fd;
    uint64_t bytes;
    uint32_t crc;
};

static OutFileHook *hook;

void outfile_set_hook(OutFileHook *h) { hook = h; }

/* 0, or the errno a test wants this step to fail with. */
static int refused(const char *step, const char *path) { return hook ? hook(step, path) : 0; }

static Status fail(const char *what, const char *path, int error) {
    return err_set(ERR_IO, "%s: cannot %s: %s", path, what, strerror(error));
}

static void destroy(OutFile *f) {
    if (!f) return;
    if (f->fd >= 0) close(f->fd);
    mem_free(f->path, f->temp, f);
}

/* /dev/null, /dev/stdout, a named pipe: nothing may take their name, and nothing is lost by writing to them. */
static bool is_device(const char *path) {
    struct stat sb;
    if (!strncmp(path, "/dev/std", 8) || !strncmp(path, "/dev/fd/", 8)) return true;    /* maybe a file by now */
    return stat(path, &sb) == 0 && !S_ISREG(sb.st_mode) && !S_ISDIR(sb.st_mode);
}

/* Whether its folder, or the nearest one that is there, takes new names: a file appears by taking one. */
static Status can_appear(const char *path) {
    struct stat sb;
    char *at = path_folder(path);
    while (at && strcmp(at, ".") && strcmp(at, "/") && stat(at, &sb) != 0) {
        char *up = path_folder(at);
        free(at);
        at = up;
    }
    if (!at) return ERR_MEMORY;
    int error = stat(at, &sb) != 0 || access(at, W_OK) != 0 ? errno : S_ISDIR(sb.st_mode) ? 0 : ENOTDIR;
    Status st = error ? err_set(ERR_IO, "%s cannot be written: %s: %s", path, at, strerror(error)) : OK;
    free(at);
    return st;
}

Status outfile_claim(const char *path, bool overwrite) {
    if (is_device(path)) return OK;
    if (overwrite || access(path, F_OK)) return can_appear(path);
    return err_set(ERR_USAGE, "%s: exists already; overwrite=true replaces it, or name another out", path);
}

Status outfile_folder(const char *path, const char *ending) {
    static const char *const files[] = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".npy", ".npz", ".pt", ".pth",
                                        ".bin", ".ckpt", ".h5", ".hdf5", ".safetensors", ".tar", ".zip", ".pdf",
                                        ".html", ".parquet", ".pkl", ".yaml", NULL};
    if (!path_ends_in(path, files) || !access(path, F_OK)) return OK;
    return err_set(ERR_USAGE, "out=%s would become a folder of that name; name a folder%s%s", path,
                   ending ? ", or a file that ends in " : "", ending ? ending : "");
}

Status outfile_create(OutFile **out, const char *path) {
    *out = NULL;
    Status st = OK;
    OutFile *f = mem_new(1, sizeof *f);
    if (!f) return ERR_MEMORY;
    f->fd = -1; /* 0 is somebody's, and destroy closes what is not negative */
    f->path = mem_strdup(path);
    bool device = is_device(path);
    f->temp = device ? NULL : mem_format("%s.tmp-%ld", path, (long)getpid());
    if (!f->path || (!f->temp && !device)) { st = ERR_MEMORY; goto done; }

    /* beside its place, not in /tmp: a rename does not cross file systems */
    int e = refused("open", path), how = O_WRONLY | O_CLOEXEC | (device ? 0 : O_CREAT | O_TRUNC);
    bool spoken = !strcmp(path, "/dev/stdout");      /* opened anew it would begin at the front of a file */
    if (!e && (f->fd = spoken ? dup(STDOUT_FILENO) : open(device ? path : f->temp, how, 0666)) < 0) e = errno;
    if (e) { st = fail("be created", path, e); goto done; }
    *out = f;
    f = NULL;
done:
    destroy(f);
    return st;
}

static Status write_all(OutFile *f, const char *p, size_t n) {
    while (n > 0) {
        ssize_t k = write(f->fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        /* 0 of n bytes is no error to write(), and no progress: a full disk */
        if (k <= 0) return fail("be written", f->path, k < 0 ? errno : ENOSPC);
        p += k;
        n -= (size_t)k;
    }
    return OK;
}

Status outfile_write(OutFile *f, const void *data, size_t n) {
    int e = refused("write", f->path);
    if (e) {
        Status st = write_all(f, data, n / 2);
        return st == OK ? fail("be written", f->path, e) : st;
    }
    Status st = write_all(f, data, n);
    if (st != OK) return st;
    f->crc = crc32c(f->crc, data, n);
    f->bytes += n;
    return OK;
}

uint64_t outfile_bytes(const OutFile *f) { return f->bytes; }
uint32_t outfile_crc(const OutFile *f) { return f->crc; }

Status outfile_commit(OutFile *f) {
    Status st = OK;
    int e = refused("fsync", f->path);
    /* a pipe has nothing to flush */
    if (!e && fsync(f->fd) != 0 && f->temp) e = errno;
    if (e) { st = fail("be flushed to the disk", f->path, e); goto done; }
    int closed = close(f->fd);             /* network file systems report a full disk here */
    f->fd = -1;
    if (closed != 0) { st = fail("be closed", f->path, errno); goto done; }
    /* whole on the disk before it has its name; then the name, too, must outlive a crash */
    if (f->temp && (st = outfile_rename(f->temp, f->path)) == OK) st = outfile_sync_parent(f->path);
done:
    if (st == OK) destroy(f);
    else outfile_abandon(f);
    return st;
}

void outfile_abandon(OutFile *f) {
    if (f && f->temp) unlink(f->temp);
    destroy(f);
}

Status outfile_put(const char *path, const void *data, size_t n) {
    OutFile *f;
    Status st = outfile_create(&f, path);
    if (st != OK) return st;
    if ((st = outfile_write(f, data, n)) == OK) return outfile_commit(f);
    outfile_abandon(f);
    return st;
}

Status outfile_copy(const char *from, const char *to) {
    MapFile m = {0};
    Status st = mapfile_open(&m, from);
    if (st == OK) st = outfile_put(to, m.bytes, m.n);
    mapfile_close(&m);
    return st;
}

Status outfile_mkdir(const char *path) {
    int e = refused("mkdir", path);
    if (!e && mkdir(path, 0777) != 0 && errno != EEXIST) e = errno;
    return e ? fail("be made", path, e) : OK;
}

Status outfile_parents(const char *path) {
    char *folder = mem_strdup(path);
    Status st = folder ? OK : ERR_MEMORY;
    for (char *c = folder; st == OK && *c; c++) {
        if (*c != '/' || c == folder) continue;              /* the root is there */
        *c = 0;
        st = outfile_mkdir(folder);
        *c = '/';
    }
    free(folder);
    return st;
}

Status outfile_rename(const char *from, const char *to) {
    int e = refused("rename", to);
    if (!e && rename(from, to) != 0) e = errno;
    return e ? fail("take its name", to, e) : OK;
}

Status outfile_swap(const char *from, const char *to) {
    int e = refused("rename", to);
    if (e) return fail("take its name", to, e);
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0) return OK;
    if (errno != EINVAL && errno != ENOSYS) return fail("take its name", to, errno);
    /* A file system that cannot swap: for a moment nothing has the name `to`. */
    char *aside = mem_format("%s.tmp-%ld", from, (long)getpid());
    if (!aside) return ERR_MEMORY;
    Status st = outfile_rename(to, aside);
    if (st == OK && (st = outfile_rename(from, to)) != OK) rename(aside, to); /* back, so that something has the name */
    else if (st == OK) st = outfile_rename(aside, from);
    free(aside);
    return st;
}

Status outfile_sync_dir(const char *path) {
    int e = refused("fsync", path);
    if (e) return fail("be flushed to the disk", path, e);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail("be opened", path, errno);
    /* Some file systems know no fsync of a folder and answer EINVAL; a rename is all they have. */
    Status st = fsync(fd) == 0 || errno == EINVAL ? OK : fail("be flushed to the disk", path, errno);
    close(fd);
    return st;
}

Status outfile_sync_parent(const char *path) {
    char *dir = path_folder(path);
    if (!dir) return ERR_MEMORY;
    Status st = outfile_sync_dir(dir);
    free(dir);
    return st;
}
