/* fingerprint: see fingerprint.h. */
#include "data/fingerprint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

enum { SMALL = 1 << 20, PIECES = 64, PIECE = 4096 };

static uint64_t add_stat(uint64_t h, const struct stat *sb) {
    h = hash_int(h, (int64_t)sb->st_size);
    return hash_int(hash_int(h, (int64_t)sb->st_mtim.tv_sec), (int64_t)sb->st_mtim.tv_nsec);
}

static Status cannot(const char *path) { return err_set(ERR_IO, "%s: cannot be read: %s", path, strerror(errno)); }

Status fingerprint_stat(uint64_t *h, const char *path) {
    struct stat sb;
    if (stat(path, &sb) != 0) return cannot(path);
    *h = add_stat(*h, &sb);
    return OK;
}

/* Bytes [at, at + n), as far as there are any. */
static Status add_piece(uint64_t *h, int fd, const char *path, off_t at, size_t n) {
    char buf[PIECE];
    while (n > 0) {
        ssize_t k = pread(fd, buf, n < sizeof buf ? n : sizeof buf, at);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return cannot(path);
        if (k == 0) break;                                   /* it has become shorter since */
        *h = hash_bytes(*h, buf, (size_t)k);
        at += k;
        n -= (size_t)k;
    }
    return OK;
}

/* A small file is its bytes, whenever it was written. Of a large one the time says what the pieces might miss. */
static Status add_contents(uint64_t *h, const char *path, const struct stat *sb) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return cannot(path);
    Status st = OK;
    /* touching a small file does not make it another */
    *h = sb->st_size > SMALL ? add_stat(*h, sb) : hash_int(*h, (int64_t)sb->st_size);
    if (sb->st_size <= SMALL) st = add_piece(h, fd, path, 0, SMALL);
    for (int i = 0; st == OK && sb->st_size > SMALL && i < PIECES; i++)
        st = add_piece(h, fd, path, (sb->st_size - PIECE) / (PIECES - 1) * i, PIECE);
    close(fd);
    return st;
}

static int in_order(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

/* Links are not followed into folders, so that none is walked twice. */
static Status add_folder(uint64_t *h, const char *path) {
    struct dirent **entry;
    int n = scandir(path, &entry, NULL, in_order);
    if (n < 0) return cannot(path);
    Status st = OK;
    for (int i = 0; i < n; i++) {
        struct stat sb;
        const char *name = entry[i]->d_name;
        char *file = mem_format("%s/%s", path, name);
        if (!file) st = ERR_MEMORY;
        bool there = st == OK && name[0] != '.' && lstat(file, &sb) == 0; /* hidden files come and go by themselves */
        if (there && S_ISDIR(sb.st_mode)) st = add_folder(h, file);
        else if (there && stat(file, &sb) == 0 && S_ISREG(sb.st_mode)) *h = add_stat(hash_text(*h, name), &sb);
        mem_free(file, entry[i]);
    }
    free(entry);
    return st;
}

Status fingerprint_file(uint64_t *h, const char *path) {
    struct stat sb;
    if (stat(path, &sb) != 0) return cannot(path);
    /* its files by name and time: reading all would take as long as importing them */
    if (S_ISDIR(sb.st_mode)) return add_folder(h, path);
    return S_ISREG(sb.st_mode) ? add_contents(h, path, &sb) : OK;
}
