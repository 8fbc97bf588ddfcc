/* bench_loader: what the loader delivers against plain pread of the same bytes: the limit is 90 %.
 *
 *     build/bench_loader [rows=512] [threads=2] [batch=32] [seconds=1] [dir=/tmp] [clock=wall|cpu]
 *
 * Rows of 257 x 1408 f16 (723,712 bytes) from one shard, in the page cache. Plain pread: as many threads, as large a
 * ring of buffers, random rows, one call a row and nothing else; into memory as aligned_alloc gives it, and into
 * huge pages, which the loader uses where it may. They take turns, nine times; the line gives medians, and the
 * medians of the shares within a turn, since all see the same disturbance. Once with checksums compared (the
 * default) and once without. clock=cpu divides by the processor time of all threads instead: for a machine that
 * others use at the same time. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "data/loader.h"
#include "data/order.h"
#include "kernels/base/mem.h"
#include "tests/bench/seconds.h"

enum { P = 257, E = 1408, ROW = P * E * 2, TURNS = 9, QUEUE = 4 };

typedef struct { int64_t rows, threads, batch; double seconds; const char *dir; } Args;

static clockid_t measured = CLOCK_MONOTONIC;

static double now(void) { return seconds(CLOCK_MONOTONIC); }

static void stop_on(Status st) {
    if (st == OK) return;
    fprintf(stderr, "bench_loader: %s\n", err_message());
    exit(1);
}

/* ---- the set ---- */

static void make_shard(const char *path, int64_t rows) {
    static const char *const caption[] = {"a man riding a wave on top of a surfboard in the ocean"};
    ShardItem *items = mem_new((size_t)rows, sizeof *items);
    char *ids = mem_new((size_t)rows, 24);
    uint16_t *row = mem_new(ROW, 1);
    for (int64_t i = 0; i < rows; i++) {
        snprintf(ids + i * 24, 24, "i%lld", (long long)i);
        items[i] = (ShardItem){ids + i * 24, "train", "", 1, caption};
    }
    ShardSpec spec = {.encoder = {"bench", "", "", "", false}, .dtype = DT_F16, .images = rows, .views = 1, .P = P,
        .E = E,
                      .items = items};
    ShardWriter *w;
    stop_on(shard_create(&w, path, &spec));
    for (int64_t i = 0; i < rows; i++) {
        for (int e = 0; e < P * E; e++) row[e] = (uint16_t)((e * 40503 + i) & 0x3fff);
        stop_on(shard_write(w, i, row, 1));
    }
    stop_on(shard_finish(w));
    free(items);
    free(ids);
    free(row);
}

/* ---- plain pread ---- */

typedef struct {
    const Shard *s;
    char *ring;
    int64_t slots;
    double end;
    atomic_llong next, done;
} Plain;

static void *plain_reader(void *arg) {
    Plain *p = arg;
    while (now() < p->end) {
        int64_t i = atomic_fetch_add(&p->next, 1), row = order_at(1, (uint64_t)(i / p->s->rows), p->s->rows,
                                                                  i % p->s->rows);
        if (pread(p->s->fd, p->ring + i % p->slots * ROW, ROW, (off_t)(p->s->features_at + row * ROW)) != ROW) abort();
        atomic_fetch_add(&p->done, 1);
    }
    return NULL;
}

static double plain_rate(const Args *a, const Shard *s, char *ring) {
    Plain p = {.s = s, .ring = ring, .slots = a->batch * QUEUE};
    pthread_t thread[64];
    double start = seconds(measured);
    p.end = now() + a->seconds;
    for (int64_t i = 0; i < a->threads; i++) if (pthread_create(&thread[i], NULL, plain_reader, &p)) abort();
    for (int64_t i = 0; i < a->threads; i++) pthread_join(thread[i], NULL);
    return (double)p.done * ROW / (seconds(measured) - start);
}

/* ---- the loader ---- */

static double loader_rate(const Args *a, Loader *l) {
    const Batch *t;
    int64_t rows = 0;
    double start = seconds(measured), end = now() + a->seconds, waited;
    while (now() < end) {
        stop_on(loader_next(l, &t, &waited));
        rows += t->B;
        loader_release(l, t);
    }
    return (double)rows * ROW / (seconds(measured) - start);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v) {
    qsort(v, TURNS, sizeof *v, compare);
    return v[TURNS / 2];
}

/* The loader is opened anew for each turn: it would go on reading ahead in the others' time. */
static void measure(const Args *a, const Set *set, const Tokenizer *tok, bool crc, char *const ring[2]) {
    double plain[2][TURNS], loader[TURNS], share[2][TURNS];
    LoaderSpec spec = {.split = "train", .shuffle = true, .drop_last = true, .B = a->batch, .ranks = 1, .seed = 1,
        .verify_crc = crc,
                       .threads = (int)a->threads, .queue = QUEUE, .tok = tok, .max_tokens = 32};
    for (int i = 0; i < TURNS; i++) {
        Loader *l;
        for (int k = 0; k < 2; k++) plain[k][i] = plain_rate(a, set_shard(set, 0, NULL), ring[k]);
        stop_on(loader_open(&l, set, &spec));
        Args warm = *a;
        warm.seconds = 0.1;                                 /* its buffers get their pages, as the rings have */
        loader_rate(&warm, l);
        loader[i] = loader_rate(a, l);
        loader_close(l);
        for (int k = 0; k < 2; k++) share[k][i] = loader[i] / plain[k][i];
    }
    double r = median(loader) * 1e-9, p[2], s[2];
    for (int k = 0; k < 2; k++) {
        p[k] = median(plain[k]) * 1e-9;
        s[k] = median(share[k]);
    }
    printf("%-8s %6.2f GB/s %8.2f GB/s %6.1f %% %8.2f GB/s %6.1f %%\n", crc ? "crc" : "no crc", r, p[0], s[0] * 100,
           p[1], s[1] * 100);
    printf("{\"bench\":\"loader\",\"crc\":%s,\"clock\":\"%s\",\"row_bytes\":%d,\"threads\":%lld,\"batch\":%lld,"
           "\"loader_gb_s\":%.3f,\"pread_gb_s\":%.3f,\"share\":%.4f,\"pread_huge_gb_s\":%.3f,\"share_huge\":%.4f}\n",
           crc ? "true" : "false", measured == CLOCK_MONOTONIC ? "wall" : "cpu", ROW, (long long)a->threads,
           (long long)a->batch, r,
           p[0], s[0], p[1], s[1]);
}

/* Touched memory for as many rows as the loader's ring holds. */
static char *make_ring(const Args *a, bool huge) {
    size_t bytes = (size_t)(a->batch * QUEUE) * ROW, unit = (size_t)2 << 20;
    char *p = aligned_alloc(huge ? unit : 4096, (bytes + unit - 1) / unit * unit);
    if (!p) exit(1);
    if (huge) madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

int main(int argc, char **argv) {
    Args a = {512, 2, 32, 1, "/tmp"};
    for (int i = 1; i < argc; i++) {
        const char *v = strchr(argv[i], '=');
        if (!v) return 2;
        if (!strncmp(argv[i], "rows=", 5)) a.rows = atoll(v + 1);
        else if (!strncmp(argv[i], "threads=", 8)) a.threads = atoll(v + 1);
        else if (!strncmp(argv[i], "batch=", 6)) a.batch = atoll(v + 1);
        else if (!strncmp(argv[i], "seconds=", 8)) a.seconds = atof(v + 1);
        else if (!strncmp(argv[i], "dir=", 4)) a.dir = v + 1;
        else if (!strcmp(argv[i], "clock=cpu")) measured = CLOCK_PROCESS_CPUTIME_ID;
        else return 2;
    }
    if (a.threads < 1 || a.threads > 64 || a.batch < 1 || a.rows < a.batch) return 2;
    static const char vocab[] =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nman\nriding\nwave\non\ntop\nof\nsurf\n##board\nin\nthe\nocean\n";
    char *path = mem_format("%s/bench-loader-%ld.h5", a.dir, (long)getpid());
    char *ring[2] = {make_ring(&a, false), make_ring(&a, true)};
    Tokenizer *tok;
    Set *set;
    if (!path) return 1;
    make_shard(path, a.rows);
    stop_on(tokenizer_open_lines(&tok, vocab, sizeof vocab - 1, "vocab"));
    stop_on(set_open(&set, path));
    printf("%lld rows of %d bytes, %lld threads, batches of %lld\n"
           "loader, plain pread, share, the same into huge pages\n", (long long)a.rows, ROW,
           (long long)a.threads, (long long)a.batch);
    measure(&a, set, tok, true, ring);
    measure(&a, set, tok, false, ring);
    set_close(set);
    tokenizer_close(tok);
    unlink(path);
    free(path);
    free(ring[0]);
    free(ring[1]);
    return 0;
}
