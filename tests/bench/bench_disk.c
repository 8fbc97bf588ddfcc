/* bench_disk: ways to bring rows of features from a disk into memory, and what they cost a core: what data/shard.c does was chosen by it.
 *
 *     build/release/bench/bench_disk [rows=512] [threads=4] [depth=16] [dir=/tmp]
 *
 * Rows of 257 x 1408 f16 (723,712 bytes, one behind the other as in a shard) of one file, each once, in random order, into a ring that was
 * touched before. Cold: the file was dropped from the page cache first. A line a way: GB/s by the clock, and bytes
 * over the processor time of the whole process, kernel included: what a core delivers. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_URING
#include <liburing.h>
#endif

#include "data/format/crc32c.h"
#include "data/order.h"
#include "kernels/base/mem.h"
#include "tests/bench/seconds.h"

enum { ROW = 257 * 1408 * 2, PAGE = 4096, WIDE = (ROW / PAGE + 2) * PAGE, RING = 64 };

static int64_t rows = 512, threads = 4, depth = 16;
static const char *dir = "/tmp";
static char *path, *ring;

typedef struct {
    const char *name;
    bool cold, direct, ask, check;      /* ask: the kernel is told of the whole row first; check: its CRC is made */
    bool queued;                        /* io_uring, `depth` rows at a time by one thread; else pread by threads */
} Way;

typedef struct { const Way *way; int fd; atomic_llong next; } Run;

static void stop_unless(bool ok, const char *what) {
    if (ok) return;
    perror(what);
    exit(1);
}

static char *aligned(size_t bytes) {
    char *p = aligned_alloc(PAGE, bytes);
    stop_unless(p != NULL, "aligned_alloc");
    memset(p, 1, bytes);
    return p;
}

static void make_file(void) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    uint16_t *row = (uint16_t *)(void *)aligned((ROW + PAGE - 1) / PAGE * PAGE);
    stop_unless(fd >= 0, path);
    for (int64_t i = 0; i < rows; i++) {
        for (int e = 0; e < ROW / 2; e++) row[e] = (uint16_t)((e * 40503 + i) & 0x3fff);
        stop_unless(write(fd, row, ROW) == ROW, "write");
    }
    stop_unless(ftruncate(fd, rows * ROW + WIDE) == 0 && fsync(fd) == 0, "fsync");
    close(fd);
    free(row);
}

static int64_t place(int64_t i) { return order_at(1, 0, rows, i) * ROW; }
static char *slot(int64_t i) { return ring + i % RING * ROW; }

/* O_DIRECT reads whole pages, and rows do not begin on them: they are read around the row and copied. */
static void read_row(const Run *r, int64_t i, char *pages) {
    int64_t at = place(i), from = at / PAGE * PAGE;
    if (r->way->direct) {
        stop_unless(pread(r->fd, pages, WIDE, from) >= at - from + ROW, "pread");
        memcpy(slot(i), pages + (at - from), ROW);
    } else {
        if (r->way->ask) posix_fadvise(r->fd, at, ROW, POSIX_FADV_WILLNEED);
        stop_unless(pread(r->fd, slot(i), ROW, at) == ROW, "pread");
    }
}

static void *reader(void *arg) {
    Run *r = arg;
    char *pages = aligned(WIDE);
    volatile uint32_t crc;
    for (int64_t i; (i = atomic_fetch_add(&r->next, 1)) < rows;) {
        read_row(r, i, pages);
        if (r->way->check) crc = crc32c(0, slot(i), ROW);
    }
    (void)crc;
    free(pages);
    return NULL;
}

static void by_threads(Run *r) {
    pthread_t t[64];
    for (int64_t i = 0; i < threads; i++) stop_unless(pthread_create(&t[i], NULL, reader, r) == 0, "pthread_create");
    for (int64_t i = 0; i < threads; i++) pthread_join(t[i], NULL);
}

#ifdef HAVE_URING
static void enqueue(struct io_uring *u, const Run *r, int64_t i, char *pages) {
    struct io_uring_sqe *e = io_uring_get_sqe(u);
    int64_t at = place(i);
    if (r->way->direct) io_uring_prep_read(e, r->fd, pages + i % depth * WIDE, WIDE, (uint64_t)(at / PAGE * PAGE));
    else io_uring_prep_read(e, r->fd, slot(i), ROW, (uint64_t)at);
    io_uring_sqe_set_data64(e, (uint64_t)i);
}

/* The row `depth` behind a finished one takes its pages. */
static void by_queue(Run *r) {
    struct io_uring u;
    struct io_uring_cqe *c;
    char *pages = aligned((size_t)depth * WIDE);
    stop_unless(io_uring_queue_init((unsigned)depth, &u, 0) == 0, "io_uring_queue_init");
    for (int64_t i = 0; i < depth && i < rows; i++) enqueue(&u, r, i, pages);
    for (int64_t done = 0; done < rows; done++) {
        io_uring_submit(&u);
        stop_unless(io_uring_wait_cqe(&u, &c) == 0 && c->res >= ROW, "io_uring");
        int64_t i = (int64_t)c->user_data;
        io_uring_cqe_seen(&u, c);
        if (r->way->direct) memcpy(slot(i), pages + i % depth * WIDE + place(i) % PAGE, ROW);
        if (i + depth < rows) enqueue(&u, r, i + depth, pages);
    }
    io_uring_queue_exit(&u);
    free(pages);
}
#endif

static void measure(const Way *w) {
    Run r = {.way = w, .fd = open(path, O_RDONLY | (w->direct ? O_DIRECT : 0))};
    if (r.fd < 0) {
        printf("%-42s not here: the file system has no O_DIRECT\n", w->name);
        return;
    }
    if (w->cold) posix_fadvise(r.fd, 0, 0, POSIX_FADV_DONTNEED);
    double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), bytes = (double)rows * ROW;
#ifdef HAVE_URING
    if (w->queued) by_queue(&r);
    else
#endif
        by_threads(&r);
    wall = seconds(CLOCK_MONOTONIC) - wall, cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%-42s %7.2f GB/s %7.2f GB/s of a core\n", w->name, bytes / wall * 1e-9, bytes / cpu * 1e-9);
    close(r.fd);
}

/* In the cache of a core, as data/shard.c sums what it has just read, and from memory. */
static void measure_crc(const char *name, size_t piece) {
    volatile uint32_t crc = 0;
    size_t all = (size_t)RING * ROW / piece * piece;
    double best = 0;
    for (int k = 0; k < 7; k++) {
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        for (size_t at = 0; at < all; at += piece) crc = crc32c(crc, ring + (piece < ROW ? 0 : at), piece);
        cpu = (double)all / (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) * 1e-9;
        best = cpu > best ? cpu : best;
    }
    printf("%-42s %12s %7.2f GB/s of a core\n", name, "", best);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *v = strchr(argv[i], '=');
        if (!v) return 2;
        if (!strncmp(argv[i], "rows=", 5)) rows = atoll(v + 1);
        else if (!strncmp(argv[i], "threads=", 8)) threads = atoll(v + 1);
        else if (!strncmp(argv[i], "depth=", 6)) depth = atoll(v + 1);
        else if (!strncmp(argv[i], "dir=", 4)) dir = v + 1;
        else return 2;
    }
    if (threads < 1 || threads > 64 || depth < 1 || depth > RING || rows < 1) return 2;
    static const Way ways[] = {
        {.name = "page cache, pread"},
        {.name = "page cache, pread and CRC-32C", .check = true},
        {.name = "page cache, io_uring", .queued = true},
        {.name = "cold, pread", .cold = true},
        {.name = "cold, the row asked for first, pread", .cold = true, .ask = true},
        {.name = "cold, io_uring", .cold = true, .queued = true},
        {.name = "O_DIRECT, pread and copy", .direct = true},
        {.name = "O_DIRECT, io_uring and copy", .direct = true, .queued = true},
    };
    path = mem_format("%s/bench-disk-%ld", dir, (long)getpid());
    if (!path) return 1;
    ring = aligned(((size_t)RING * ROW + PAGE - 1) / PAGE * PAGE);
    make_file();
    printf("%lld rows of %d bytes, %lld threads; io_uring: one thread, %lld rows under way\n", (long long)rows, ROW,
           (long long)threads, (long long)depth);
    for (size_t k = 0; k < 2 * sizeof ways / sizeof *ways; k++) {               /* twice: the second time is warm code */
        const Way *w = &ways[k / 2];
#ifndef HAVE_URING
        if (w->queued) continue;
#endif
        measure(w);
    }
    measure_crc("CRC-32C of what a core's cache holds", (size_t)1 << 18);
    measure_crc("CRC-32C from memory", (size_t)ROW);
    unlink(path);
    free(path);
    free(ring);
    return 0;
}
