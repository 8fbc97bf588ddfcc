/* dist: see dist.h. Builds without MPI have dist_one.c instead. */
#include "kernels/dist/dist.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/dtype.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist_self.h"
#include "kernels/dist/dist_watch.h"

#ifdef HAVE_MPI
#include <mpi.h>

static double received_;

void dist_step(int64_t step) {
    dist_self.step = step;
    watch_off();
}
double dist_received(void) { return received_; }

enum { CAUSE_SIZE = 640, STAGE = 1 << 22 };                  /* STAGE: elements under way at a time */

/* What runs beside the data. HERE: the sender waits, said anew from time to time. FAILED: it cannot go on; text
 * says why. */
typedef enum { HERE, FAILED } TokenKind;
typedef struct { int32_t kind; char text[CAUSE_SIZE]; } Token;

/* Of another rank: when it last said that it waits, whether it said that it failed, and on how
 * many looks in a row its process was gone. */
typedef struct { double heard; bool failed; int gone; } Peer;

static struct {
    bool started;
    MPI_Comm watch;                     /* tokens have a communicator of their own */
    Peer *peer;                         /* (size) */
    Token out[2];                       /* what was sent last, by kind */
    MPI_Request *sent[2];               /* (size) each */
    int *count, *displ, *in;            /* (size), (size), (2 size): of the exchange under way */
    int piece;                          /* elements of a rank's part under way at a time: STAGE / size */
    void *stage;                        /* (size, piece): other ranks' shares of the own part */
    uint16_t *half;                     /* (size, piece): bf16 on its way out or in */
    char cause[CAUSE_SIZE];             /* why it failed */
} my = {.watch = MPI_COMM_NULL};

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static void send_token(TokenKind kind, const char *text) {
    int done = 0;
    /* the buffer is one: it must have left before it is written anew */
    MPI_Testall(dist_self.size, my.sent[kind], &done, MPI_STATUSES_IGNORE);
    if (!done) return; /* the last of this kind has not left: it says the same or more */
    Token *t = &my.out[kind];
    t->kind = (int32_t)kind;
    snprintf(t->text, sizeof t->text, "%s", text);
    int bytes = (int)(offsetof(Token, text) + strlen(t->text) + 1);
    for (int r = 0; r < dist_self.size; r++)
        if (r != dist_self.rank) MPI_Isend(t, bytes, MPI_BYTE, r, 0, my.watch, &my.sent[kind][r]);
}

/* Takes in what has come; the first FAILED gives the cause. */
static void read_tokens(char *cause) {
    for (;;) {
        int there = 0;
        MPI_Status from;
        Token t = {0};
        /* looked at first: a receive would wait */
        if (MPI_Iprobe(MPI_ANY_SOURCE, 0, my.watch, &there, &from) != MPI_SUCCESS || !there) return;
        if (MPI_Recv(&t, sizeof t, MPI_BYTE, from.MPI_SOURCE, 0, my.watch, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
        Peer *p = &my.peer[from.MPI_SOURCE];
        p->heard = status_clock();
        t.text[CAUSE_SIZE - 1] = 0;                         /* it came over a wire */
        if (t.kind == (int32_t)FAILED && !p->failed && !*cause) snprintf(cause, CAUSE_SIZE, "%s", t.text);
        p->failed = p->failed || t.kind == (int32_t)FAILED;
    }
}

/* ---- failing ----------------------------------------------------------------------------------------------------- */

/* Everybody says that it failed and hears it of everybody who still can: after that no rank needs MPI any more, and
 * memory that operations under way still point to may be freed. Ranks of other machines may be gone, and a launcher
 * ends this one soon: for them a second must do. */
static void fail(const char *cause) {
    enum { PATIENCE = 10, ELSEWHERE = 1 };
    double start = status_clock();
    double limit = dist_self.timeout > 0 && dist_self.timeout < PATIENCE ? dist_self.timeout : PATIENCE;
    char ignored[CAUSE_SIZE] = "x";
    /* the first cause stands: what fails after it fails because of it */
    if (dist_self.failed) return;
    snprintf(my.cause, sizeof my.cause, "%s", cause);
    dist_self.failed = true;
    send_token(FAILED, cause);
    for (bool all = false; !all && status_clock() - start < limit; nap(1e-3)) {
        read_tokens(ignored); /* the cause is known; who else has said that it failed is not */
        int left = 0;
        MPI_Testall(dist_self.size, my.sent[FAILED], &left, MPI_STATUSES_IGNORE);
        all = true;
        for (int r = 0; r < dist_self.size; r++) {
            char state = r == dist_self.rank || my.peer[r].failed ? 'X' : process_state(dist_self.pid[r]);
            if (state == 'R' || (state == '?' && status_clock() - start < ELSEWHERE)) all = false;
        }
    }
}

static Status failed(void) { return err_set(ERR_DIST, "%s", my.cause); }

/* Waiting ranks speak every `period`; whoever has been silent for longer is busy elsewhere, stopped, or cut off. */
static double period(void) { return dist_self.timeout > 0 ? dist_self.timeout / 8 : 60; }

static void name_missing(char *cause, const char *what) {
    char who[200] = "", state[80] = "";
    int n = 0;
    for (int r = 0; r < dist_self.size; r++) {
        bool stopped = process_state(dist_self.pid[r]) == 'T'; /* it was heard a moment ago and will not be again */
        if (r == dist_self.rank || (status_clock() - my.peer[r].heard < 3 * period() && !stopped)) continue;
        size_t at = strlen(who);
        if (n < 8) snprintf(who + at, sizeof who - at, "%s%d", n ? ", " : "", r);
        if (!n++ && stopped) snprintf(state, sizeof state, " (process %d, which is stopped)", (int)dist_self.pid[r]);
    }
    if (n)
        snprintf(cause, CAUSE_SIZE, "rank%s %s%s%s did not come to %s%s within %g s", n > 1 ? "s" : "", who,
                 n > 8 ? ", ..." : "", state, what, dist_in_step(), dist_self.timeout);
    else
        snprintf(cause, CAUSE_SIZE,
                 "all ranks wait, but %s%s did not end within %g s: the network between them does not work", what,
                 dist_in_step(), dist_self.timeout);
}

/* A process that is gone on two looks: the first time its last words may still be on their way. */
static void name_gone(char *cause, const char *what) {
    for (int r = 0; r < dist_self.size && !*cause; r++) {
        Peer *p = &my.peer[r];
        bool gone = r != dist_self.rank && !p->failed && process_state(dist_self.pid[r]) == 'X';
        p->gone = gone ? p->gone + 1 : 0;
        if (p->gone < 2) continue;
        snprintf(cause, CAUSE_SIZE, "rank %d is gone (process %d ended) before %s%s was done", r,
                 (int)dist_self.pid[r], what, dist_in_step());
    }
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static Status check(int code, const char *what) {
    if (code == MPI_SUCCESS) return OK;
    char text[MPI_MAX_ERROR_STRING], cause[CAUSE_SIZE];
    int n = 0;
    MPI_Error_string(code, text, &n);
    snprintf(cause, sizeof cause, "rank %d: %s%s failed: %.*s", dist_self.rank, what, dist_in_step(), n, text);
    fail(cause);
    return failed();
}

/* Before an operation: whether there is any use. */
static Status begin(void) {
    watch_off();
    return dist_self.failed ? failed() : OK;
}

/* Polls until the operation is done. First yielding the core, which keeps operations at their speed (MPI moves data
 * only while it is polled: sleeping between looks made the sum of a full-size gradient three times as slow); then
 * sleeping, because whoever is late may need this core. */
static Status wait_for(int code, MPI_Request *request, const char *what) {
    const double AWAKE = 0.01, AWAKE_FOR_DATA = 1, LOOK = 0.02;              /* seconds */
    static double before;
    /* after much data much data comes: then it is worth a core */
    double start = 0, looked = 0, told = 0, awake = received_ - before > 1e6 ? AWAKE_FOR_DATA : AWAKE;
    before = received_;
    for (int polls = 0;; polls++) {
        int done = 0;
        if (code == MPI_SUCCESS) code = MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS) return check(code, what);
        if (done) return OK;
        double t = status_clock();
        if (!polls) start = looked = told = t;
        if (t - start < awake) sched_yield();
        else nap(1e-4);
        /* looking costs system calls: fifty times a second is enough for a sentence */
        if (t - looked < LOOK) continue;
        if (t - looked > 1) start += t - looked; /* this process was stopped itself: that time does not count */
        char cause[CAUSE_SIZE] = "";
        looked = t;
        read_tokens(cause);
        /* a process that is gone explains more than a deadline that passed, so it is asked first */
        if (!*cause) name_gone(cause, what);
        if (!*cause && t - told > period()) send_token(HERE, ""), told = t;
        if (!*cause && dist_self.timeout > 0 && t - start > dist_self.timeout) name_missing(cause, what);
        if (!*cause) continue;
        fail(cause);
        return failed();
    }
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* A launcher leaves its mark in the environment. Without one MPI_Init would start daemons of its own for nothing. */
static bool launched(void) {
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (getenv(marks[i])) return true;
    return false;
}

/* Processes of the same machine and the same process namespace can be looked at. */
static Status meet_neighbours(void) {
    struct { int64_t leader, space, pid; } mine = {dist_self.rank, 0, getpid()}, *all;
    all = mem_new((size_t)dist_self.size, sizeof *all);
    struct stat ns;
    MPI_Comm node;
    if (!all) return ERR_MEMORY;
    /* in containers the same number is another process */
    if (stat("/proc/self/ns/pid", &ns) == 0) mine.space = (int64_t)ns.st_ino;
    int rank = dist_self.rank;
    if (MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node) == MPI_SUCCESS) {
        MPI_Comm_rank(node, &dist_self.local);
        MPI_Bcast(&mine.leader, 1, MPI_INT64_T, 0, node);
        MPI_Comm_free(&node);
    }
    Status st = dist_all_gather(all, &mine, sizeof mine, "the first gather");
    for (int r = 0; st == OK && r < dist_self.size; r++)
        if (mine.space && all[r].leader == mine.leader && all[r].space == mine.space)
            dist_self.pid[r] = (pid_t)all[r].pid;
    free(all);
    return st;
}

Status dist_open(int *argc, char ***argv) {
    if (!launched()) return OK;
    int provided;
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return err_set(ERR_DIST, "MPI does not start");
    my.started = true;
    /* else MPI ends the program, without a sentence of ours */
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &dist_self.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &dist_self.size);
    if (dist_self.size == 1) return OK;
    /* words of the watch must not be taken for data of a collective */
    if (MPI_Comm_dup(MPI_COMM_WORLD, &my.watch) != MPI_SUCCESS)
        return err_set(ERR_DIST, "MPI gives no second communicator");
    size_t n = (size_t)dist_self.size;
    my.peer = mem_new(n, sizeof *my.peer);
    dist_self.pid = mem_new(n, sizeof *dist_self.pid);
    my.sent[0] = mem_new(2 * n, sizeof **my.sent);
    my.count = mem_new(4 * n, sizeof *my.count);
    my.piece = STAGE / dist_self.size > 64 ? STAGE / dist_self.size : 64;
    my.stage = mem_new(n * (size_t)my.piece, sizeof(float));
    my.half = mem_new(n * (size_t)my.piece, sizeof *my.half);
    if (!my.peer || !dist_self.pid || !my.sent[0] || !my.count || !my.stage || !my.half) return ERR_MEMORY;
    my.sent[1] = my.sent[0] + n;
    my.displ = my.count + n;
    my.in = my.count + 2 * n;
    for (size_t i = 0; i < 2 * n; i++) my.sent[0][i] = MPI_REQUEST_NULL;
    return meet_neighbours();
}

/* After a failure: a moment for the others to print their sentence too,
 * because the launcher ends them when this rank ends. */
void dist_close(void) {
    if (my.started && dist_self.failed) {
        nap(0.4);
        return;
    }
    watch_close();
    if (my.started) MPI_Finalize();                          /* only where all are well: it waits for everybody */
    mem_free(my.peer, dist_self.pid, my.sent[0], my.count, my.stage, my.half);
    memset(&my, 0, sizeof my);
    dist_self = (DistSelf){.size = 1, .timeout = dist_self.timeout, .step = -1};
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

Status dist_all_gather(void *dst, const void *src, size_t bytes, const char *op) {
    if (dist_self.size == 1) {
        if (dst != src) memmove(dst, src, bytes);
        return OK;
    }
    MPI_Request q;
    Status st = begin();
    if (st != OK) return st;
    /* MPI 3 counts in ints */
    if (bytes > INT_MAX) return err_set(ERR_DIST, "a gather of %zu bytes a rank is more than MPI takes at once", bytes);
    received_ += (double)bytes * (dist_self.size - 1);
    /* MPI forbids buffers that overlap */
    const void *from = (const char *)dst + (size_t)dist_self.rank * bytes == src ? MPI_IN_PLACE : src;
    return wait_for(MPI_Iallgather(from, (int)bytes, MPI_BYTE, dst, (int)bytes, MPI_BYTE, MPI_COMM_WORLD, &q), &q,
                    op);
}

Status dist_broadcast(void *x, size_t bytes, int root, const char *op) {
    if (dist_self.size == 1) return OK;
    MPI_Request q;
    Status st = begin();
    if (st != OK) return st;
    if (bytes > INT_MAX) return err_set(ERR_DIST, "a broadcast of %zu bytes is more than MPI takes at once", bytes);
    if (dist_self.rank != root) received_ += (double)bytes;
    return wait_for(MPI_Ibcast(x, (int)bytes, MPI_BYTE, root, MPI_COMM_WORLD, &q), &q, op);
}

Status dist_barrier(const char *op) {
    if (dist_self.size == 1) return OK;
    MPI_Request q;
    Status st = begin();
    return st != OK ? st : wait_for(MPI_Ibarrier(MPI_COMM_WORLD, &q), &q, op);
}

/* The elements [at, at + piece) of every rank's part: how many and where, in the array or in the staging buffers. */
static void pieces(int64_t total, int64_t at, bool staged) {
    for (int r = 0; r < dist_self.size; r++) {
        DistPart p = dist_part(total, r);
        int64_t n = p.n - at < my.piece ? p.n - at : my.piece;
        my.count[r] = n > 0 ? (int)n : 0;
        my.displ[r] = staged ? r * my.piece : n > 0 ? (int)(p.at + at) : 0;
    }
}

static void to_half(const float *x, int64_t total, int64_t at, int first, int last) {
    for (int r = first; r <= last; r++)
        dtype_from_f32(my.half + (size_t)r * (size_t)my.piece, DT_BF16, x + dist_part(total, r).at + at,
                       (size_t)my.count[r]);
}

/* Everybody's share of the own piece arrives in my.stage, a row a rank; added up in rank order,
 * the own share in its place. */
static Status reduce_piece(const char *what, float *x, int64_t total, int64_t at, bool half) {
    MPI_Request q;
    int *in = my.in, *place = my.in + dist_self.size;
    MPI_Datatype type = half ? MPI_UINT16_T : MPI_FLOAT;
    pieces(total, at, half);
    int64_t n = my.count[dist_self.rank];
    /* rows of the staging room have one stride, so that a rank's share is found without a list */
    for (int r = 0; r < dist_self.size; r++) in[r] = (int)n, place[r] = r * my.piece;
    if (half) to_half(x, total, at, 0, dist_self.size - 1);
    received_ += (double)n * (dist_self.size - 1) * (half ? 2 : 4);
    Status st = wait_for(MPI_Ialltoallv(half ? (void *)my.half : x, my.count, my.displ, type, my.stage, in, place, type,
                                        MPI_COMM_WORLD, &q),
                         &q, what);
    if (st != OK || !n) return st;
    float *own = x + dist_part(total, dist_self.rank).at + at;
    const float *f = my.stage;
    const uint16_t *h = my.stage;
    for (int64_t i = 0; i < n; i++) {
        float s = half ? bf16_to_f32(h[i]) : f[i];
        for (int r = 1; r < dist_self.size; r++)
            s += half ? bf16_to_f32(h[(int64_t)r * my.piece + i]) : f[(int64_t)r * my.piece + i];
        own[i] = s;
    }
    return OK;
}

static Status gather_piece(const char *what, float *x, int64_t total, int64_t at, bool half) {
    MPI_Request q;
    pieces(total, at, half);
    for (int r = 0; r < dist_self.size; r++)
        if (r != dist_self.rank) received_ += (double)my.count[r] * (half ? 2 : 4);
    if (!half)
        return wait_for(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, x, my.count, my.displ, MPI_FLOAT, MPI_COMM_WORLD,
                                        &q),
                        &q, what);
    to_half(x, total, at, dist_self.rank, dist_self.rank);
    Status st = wait_for(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_UINT16_T, my.half, my.count, my.displ, MPI_UINT16_T,
                                         MPI_COMM_WORLD, &q),
                         &q, what);
    /* our own part, too, as it went out: all ranks hold the same numbers */
    for (int r = 0; st == OK && r < dist_self.size; r++)
        dtype_to_f32(x + dist_part(total, r).at + at, my.half + (size_t)r * (size_t)my.piece, DT_BF16,
                     (size_t)my.count[r]);
    return st;
}

typedef Status PieceFn(const char *what, float *x, int64_t total, int64_t at, bool half);

static Status by_pieces(PieceFn *piece, const char *op, float *x, int64_t total, bool half) {
    if (dist_self.size == 1) return OK;
    BUG_ON(total > INT_MAX, "dist: %lld elements at once", (long long)total);
    Status st = begin();
    /* the first part is the longest: all ranks go through as many pieces, some of them empty */
    int64_t most = dist_part(total, 0).n;
    for (int64_t at = 0; st == OK && at < most; at += my.piece) st = piece(op, x, total, at, half);
    return st;
}

Status dist_reduce_parts(float *x, int64_t total, bool half, const char *op) {
    return by_pieces(reduce_piece, op, x, total, half);
}
Status dist_gather_parts(float *x, int64_t total, bool half, const char *op) {
    return by_pieces(gather_piece, op, x, total, half);
}

/* ---- agreeing ---------------------------------------------------------------------------------------------------- */

Status dist_agree(Status mine) { return dist_agree_at(mine, "the agreement on the state"); }

Status dist_agree_at(Status mine, const char *op) {
    /* the others know already, and are told once */
    if (dist_self.size == 1 || (dist_self.failed && mine != OK)) return mine;
    if (mine != OK) {
        char cause[CAUSE_SIZE], own[CAUSE_SIZE];
        snprintf(own, sizeof own, "%s", err_message());
        snprintf(cause, sizeof cause, "rank %d failed%s: %.*s", dist_self.rank, dist_in_step(), CAUSE_SIZE - 64, own);
        fail(cause);
        return mine;
    }
    return dist_barrier(op);
}

const char *dist_version(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n = 0;
    MPI_Get_library_version(text, &n);
    text[strcspn(text, ",\n")] = 0;                         /* the library adds who built it, and when */
    return text;
}

#endif
