/* mapfile: see mapfile.h. */
#include "data/format/mapfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

Status mapfile_open(MapFile *m, const char *path) {
    *m = (MapFile){0};
    Status st = OK;
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);     /* not to hang on a pipe before fstat has seen it */
    if (fd < 0) return err_set(ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &info) != 0) {
        st = err_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        st = err_set(ERR_IO, "%s: is not a regular file", path);
    } else if (info.st_size > 0) {                           /* mmap refuses a length of 0 */
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) st = err_set(ERR_IO, "%s: cannot be mapped: %s", path, strerror(errno));
        else *m = (MapFile){p, (size_t)info.st_size, true};
    }
    close(fd);
    return st;
}

void mapfile_close(MapFile *m) {
    if (m->mapped) munmap((void *)(uintptr_t)m->bytes, m->n);
    *m = (MapFile){0};
}
