/* tar: see tar.h. */
#include "data/format/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/filekind.h"
#include "kernels/base/mem.h"

enum { BLOCK = 512, MAX_NAME = 4096, MAX_EXTRA = 1 << 20 };    /* bytes of a pax header, or of a long name */

typedef struct {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6], version[2],
        owner[32], group[32], major[8], minor[8], prefix[155], rest[12];
} Header;
_Static_assert(sizeof(Header) == BLOCK, "a tar header is one block");

struct Tar {
    int fd;                        /* -1: opened anew for each reading, since a set may have thousands of archives */
    char *path;
    int64_t bytes;
    TarMember *member;
    size_t n;
};

/* What headers before a member say of it. */
typedef struct { char name[MAX_NAME]; int64_t size; bool named; } Ahead;

static Status broken(const Tar *t, int64_t at, const char *what) {
    return err_set(ERR_FORMAT, "%s: broken tar archive at byte %lld: %s", t->path, (long long)at, what);
}

static Status read_from(const Tar *t, int fd, int64_t at, void *dst, size_t n) {
    for (uint8_t *to = dst; n;) {
        ssize_t got = pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_set(ERR_IO, "%s: cannot be read: %s", t->path, strerror(errno));
        if (!got) return broken(t, at, "it has become shorter");
        to += got;
        at += got;
        n -= (size_t)got;
    }
    return OK;
}

static Status read_at(const Tar *t, int64_t at, void *dst, size_t n) { return read_from(t, t->fd, at, dst, n); }

/* Octal digits, or (first bit set) 63 bits big-endian; -1: neither. */
static int64_t number(const char *s, size_t n) {
    int64_t v = 0;
    size_t i = 0;
    if ((unsigned char)s[0] == 0x80) {
        for (i = 1; i < n; i++) {
            if (v >> 55) return -1;                          /* the next byte would push bits out */
            v = v << 8 | (unsigned char)s[i];
        }
        return v;
    }
    while (i < n && s[i] == ' ') i++;
    for (; i < n && s[i] >= '0' && s[i] <= '7'; i++) v = v << 3 | (s[i] - '0');
    return i < n && s[i] && s[i] != ' ' ? -1 : v;
}

/* The sum counts its own field as blanks; some old programs added signed bytes. */
static bool sum_fits(const Header *h) {
    const unsigned char *p = (const unsigned char *)h;
    int64_t plain = 0, with_sign = 0, want = number(h->sum, sizeof h->sum);
    for (int i = 0; i < BLOCK; i++) {
        unsigned char c = i >= 148 && i < 156 ? ' ' : p[i];
        plain += c;
        with_sign += (signed char)c;
    }
    return want == plain || want == with_sign;
}

static Status add(Tar *t, const char *name, int64_t at, int64_t size) {
    if (mem_room(&t->member, t->n, 1, sizeof *t->member) != OK) return ERR_MEMORY;
    /* as tar -C folder . writes them, and lists of captions do not */
    while (!strncmp(name, "./", 2)) name += 2;
    char *own = mem_strdup(name);
    if (!own) return ERR_MEMORY;
    t->member[t->n++] = (TarMember){own, at, size};
    return OK;
}

/* "27 path=a/b.jpg\n", one after the other. */
static Status pax(const Tar *t, int64_t at, const char *text, size_t n, Ahead *ahead) {
    while (n) {
        char *end;
        /* pax counts itself, too: the length covers digits, blank and line end */
        size_t digits = strspn(text, "0123456789");
        long long length = digits && digits < 8 ? strtoll(text, &end, 10) : 0;
        if (length < 5 || (size_t)length > n || (size_t)length < digits + 3 || text[digits] != ' ' ||
            text[length - 1] != '\n')
            return broken(t, at, "a record of a pax header");
        const char *key = text + digits + 1, *line_end = text + length - 1;
        size_t room = (size_t)(line_end - key);
        if (room > 5 && !memcmp(key, "path=", 5)) {
            if (room - 5 >= MAX_NAME) return broken(t, at, "a name of more than 4,095 bytes");
            memcpy(ahead->name, key + 5, room - 5);
            ahead->name[room - 5] = 0;
            ahead->named = true;
        } else if (room > 5 && !memcmp(key, "size=", 5)) {
            ahead->size = room - 5 < 19 ? strtoll(key + 5, NULL, 10) : -1;
            if (ahead->size < 0) return broken(t, at, "the size in a pax header");
        } else if (room > 10 && !memcmp(key, "GNU.sparse", 10)) {
            return broken(t, at, "a sparse file, which is not read; write it anew without --sparse");
        }
        text += length;
        n -= (size_t)length;
    }
    return OK;
}

/* A pax header or a long name: what it says belongs to the next member. */
static Status look_ahead(const Tar *t, char type, int64_t at, int64_t size, Ahead *ahead) {
    /* a name has 4 KB at most: more is damage, and would be allocated */
    if (size > MAX_EXTRA) return broken(t, at, "a header of more than 1 MB");
    char *text = mem_new((size_t)size + 1, 1);
    if (!text) return ERR_MEMORY;
    Status st = read_at(t, at, text, (size_t)size);
    /* 'g' and 'K' speak of all members, or of links */
    if (st == OK && type == 'x') st = pax(t, at, text, (size_t)size, ahead);
    if (st == OK && type == 'L') {
        if (strlen(text) >= MAX_NAME) st = broken(t, at, "a name of more than 4,095 bytes");
        else strcpy(ahead->name, text), ahead->named = true;
    }
    free(text);
    return st;
}

static void own_name(char *to, const Header *h) {
    bool prefixed = !memcmp(h->magic, "ustar\0", 6) && h->prefix[0];
    /* fields that are full end without a NUL */
    snprintf(to, MAX_NAME, "%.155s%s%.100s", prefixed ? h->prefix : "", prefixed ? "/" : "", h->name);
}

static Status member(Tar *t, const Header *h, int64_t *at, Ahead *ahead) {
    int64_t size = number(h->size, sizeof h->size), from = *at + BLOCK;
    bool extra = h->type == 'x' || h->type == 'L' || h->type == 'g' || h->type == 'K';
    /* 0: before POSIX; 7: contiguous once, a file like any other */
    bool regular = h->type == '0' || h->type == 0 || h->type == '7';
    if (!extra && ahead->size >= 0) size = ahead->size;
    if (size < 0) return broken(t, *at, "a size that is no number");
    if (h->type == 'S') return broken(t, *at, "a sparse file, which is not read; write it anew without --sparse");
    if (!extra && !regular && ahead->size < 0 && strchr("123456", h->type))
        size = 0; /* links and folders have no data */
    if (from > t->bytes || size > t->bytes - from) return broken(t, *at, "a member reaches beyond the end of the file");
    Status st = OK;
    if (extra) {
        st = h->type == 'x' || h->type == 'L' ? look_ahead(t, h->type, from, size, ahead) : OK;
    } else {
        if (!ahead->named) own_name(ahead->name, h);
        size_t len = strlen(ahead->name);
        if (regular && len && ahead->name[len - 1] != '/') st = add(t, ahead->name, from, size);
        ahead->named = false;
        ahead->size = -1;
    }
    *at = from + (size + BLOCK - 1) / BLOCK * BLOCK;
    return st;
}

static Status walk(Tar *t) {
    Header h;
    static const Header zero;
    Ahead *ahead = mem_new(1, sizeof *ahead);
    Status st = ahead ? OK : ERR_MEMORY;
    if (ahead) ahead->size = -1;
    for (int64_t at = 0; st == OK && at < t->bytes;) {
        if (t->bytes - at < BLOCK) {
            st = broken(t, at, "it ends within a header");
            break;
        }
        /* an empty block ends the archive */
        if ((st = read_at(t, at, &h, BLOCK)) != OK || !memcmp(&h, &zero, BLOCK)) break;
        if (!sum_fits(&h))
            st = at || !memcmp(h.magic, "ustar", 5) ? broken(t, at, "the checksum of a header")
                                                    : filekind_refuse(t->path, &h, BLOCK, "a tar archive");
        else st = member(t, &h, &at, ahead);
    }
    free(ahead);
    return st;
}

Status tar_open_fd(Tar **out, int fd, const char *name) {
    struct stat about;
    *out = NULL;
    Tar *t = mem_new(1, sizeof *t);
    if (!t) {
        close(fd);
        return ERR_MEMORY;
    }
    t->fd = fd;
    Status st = (t->path = mem_strdup(name)) ? OK : ERR_MEMORY;
    if (st == OK && (fstat(fd, &about) || !S_ISREG(about.st_mode)))
        st = err_set(ERR_IO, "%s: is not a regular file", name);
    if (st == OK) {
        t->bytes = (int64_t)about.st_size;
        char head[FILEKIND_LOOK];
        if (t->bytes < BLOCK) {
            if ((st = read_at(t, 0, head, (size_t)t->bytes)) == OK)
                st = filekind_refuse(name, head, (size_t)t->bytes, "a tar archive");
        } else {
            st = walk(t);
        }
    }
    if (st == OK) *out = t;
    else tar_close(t);
    return st;
}

/* A named pipe must not make us wait for its writer. */
static int open_path(const char *path) { return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); }

Status tar_open(Tar **out, const char *path) {
    *out = NULL;
    int fd = open_path(path);
    if (fd < 0) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    Status st = tar_open_fd(out, fd, path);
    if (st != OK) return st;
    close((*out)->fd);
    (*out)->fd = -1;
    return OK;
}

void tar_close(Tar *t) {
    if (!t) return;
    for (size_t i = 0; i < t->n; i++) free((char *)(uintptr_t)t->member[i].name);
    free(t->member);
    if (t->fd >= 0) close(t->fd);
    mem_free(t->path, t);
}

size_t tar_count(const Tar *t) { return t->n; }
const TarMember *tar_at(const Tar *t, size_t i) { return &t->member[i]; }

/* The archive as it was when its members were listed. */
static Status reopen(const Tar *t, int *fd) {
    struct stat about;
    *fd = t->fd >= 0 ? dup(t->fd) : open_path(t->path);
    if (*fd < 0) return err_set(ERR_IO, "%s: %s", t->path, strerror(errno));
    if (!fstat(*fd, &about) && about.st_size == t->bytes) return OK; /* places are those of the file that was walked */
    close(*fd);
    return err_set(ERR_IO, "%s: has changed since this command listed it", t->path);
}

Status tar_read(const Tar *t, const TarMember *m, uint8_t **bytes) {
    int fd;
    *bytes = NULL;
    Status st = reopen(t, &fd);
    if (st != OK) return st;
    if (!(*bytes = mem_new((size_t)m->size + 1, 1))) st = ERR_MEMORY;
    if (st == OK) st = read_from(t, fd, m->at, *bytes, (size_t)m->size);
    close(fd);
    if (st == OK) return OK;
    free(*bytes);
    *bytes = NULL;
    return st;
}
