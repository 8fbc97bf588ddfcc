/* lockfile: see lockfile.h. */
#include "kernels/base/lockfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "kernels/base/mem.h"

enum { HOST = 256, ENDING_MS = 30000, LOOK_MS = 20 };        /* how long a killed owner may take to be gone */

struct LockFile {
    char *path;
    int fd;
};

static void this_host(char host[HOST]) {
    if (gethostname(host, HOST) != 0) snprintf(host, HOST, "unknown");
    host[HOST - 1] = 0;                                     /* POSIX leaves it open whether a name that was cut ends */
}

/* Who wrote the file: false when it does not say. */
static bool owner(int fd, long *pid, char host[HOST]) {
    char text[HOST + 64];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = 0;
    return sscanf(text, "process %ld on %255s", pid, host) == 2;
}

static Status in_use(int fd, const char *what) {
    long pid;
    char host[HOST];
    /* it was locked, and not signed yet */
    if (!owner(fd, &pid, host))
        return err_set(ERR_USAGE, "%s is in use by another process: wait for it, or name another", what);
    return err_set(ERR_USAGE, "%s is in use by process %ld on %s: wait for it, or name another", what, pid, host);
}

/* Whether its owner, on this machine, was killed and is not gone yet: its memory is given back before its files are
 * closed, and with much memory that takes seconds. Linux shows no command line of such a process. */
static bool is_ending(int fd) {
    long pid;
    char host[HOST], here[HOST], path[64], letter;
    this_host(here);
    if (!owner(fd, &pid, host) || strcmp(host, here) != 0) return false;
    snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
    int line = open(path, O_RDONLY | O_CLOEXEC);
    if (line < 0) return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
    bool none = read(line, &letter, 1) == 0;
    close(line);
    return none;
}

static bool lock(int fd) {
    struct timespec moment = {.tv_nsec = LOOK_MS * 1000000L};
    /* not fcntl's: those go when any descriptor of the file is closed */
    for (int ms = 0;; ms += LOOK_MS) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
        if (errno != EWOULDBLOCK) return false;
        bool waits = ms < ENDING_MS && is_ending(fd);
        if (waits) nanosleep(&moment, NULL);
        errno = EWOULDBLOCK;
        if (!waits) return false;
    }
}

/* A file system without locks: the word of a process that is still there has to do. */
static bool owner_lives(int fd) {
    long pid;
    char host[HOST], here[HOST];
    this_host(here);
    return owner(fd, &pid, host) && strcmp(host, here) == 0 && pid != (long)getpid() && kill((pid_t)pid, 0) == 0;
}

static Status sign(int fd, const char *path) {
    char host[HOST], text[HOST + 64];
    this_host(host);
    int n = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
    /* for people and for file systems without locks; the lock itself is the kernel's */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) == n) return OK;
    return err_set(ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
}

/* Whether the file that was opened still has its name: its last owner removes it. */
static bool still_named(int fd, const char *path) {
    struct stat ours, named;
    return fstat(fd, &ours) == 0 && stat(path, &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

static Status try_take(const char *path, const char *what, int *fd, bool *again) {
    *again = false;
    /* not truncated here: another may own it, and its name stands in it */
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) return err_set(ERR_IO, "%s: cannot be made: %s", path, strerror(errno));
    bool locked = lock(*fd);
    if (!locked && (errno == EWOULDBLOCK || owner_lives(*fd))) return in_use(*fd, what);
    /* locked, but its last owner removed it between our open and our lock: another file has the name now */
    *again = !still_named(*fd, path);
    return *again ? OK : sign(*fd, path);
}

Status lockfile_take(LockFile **out, const char *path, const char *what) {
    int fd = -1;
    bool again = true;
    Status st = OK;
    *out = NULL;
    /* more than a few times in a row is no coincidence */
    for (int attempt = 0; st == OK && again && attempt < 10; attempt++) {
        if (fd >= 0) close(fd);
        st = try_take(path, what, &fd, &again);
    }
    LockFile *l = st == OK ? mem_new(1, sizeof *l) : NULL;
    if (st == OK && (!l || !(l->path = mem_strdup(path)))) st = ERR_MEMORY;
    if (st == OK) {
        l->fd = fd;
        *out = l;
        return OK;
    }
    if (fd >= 0) close(fd);
    free(l);
    return st;
}

void lockfile_drop(LockFile *l) {
    if (!l) return;
    unlink(l->path);                                         /* while it is locked: nobody else can have taken it */
    close(l->fd);
    mem_free(l->path, l);
}
