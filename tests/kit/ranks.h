/* ranks: runs of several processes, by the program itself under mpirun (QFORMER_BIN, build/qformer by default), and
 * what they leave: the curve, the checkpoints, their sentences, processes.
 *
 * Used by the tests of several ranks (test_ranks on the CPU, test_cuda_ranks, test_hosts). Everything happens in the
 * folder `dir`; a run named "x" writes checkpoints and log to x/ and what it says to x.txt. Waiting is for a state,
 * with a limit far beyond what a loaded machine needs, never for a time. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "data/format/json.h"
#include "data/set.h"
#include "kernels/base/mem.h"

/* TIMEOUT: of an operation, where a test waits for it to run out; PATIENCE: in all other runs, and with us. Seconds. */
enum { TIMEOUT = 4, PATIENCE = 100, MOST_STEPS = 60 };
extern char dir[64];
extern bool able;                            /* there are mpirun, a program with MPI, and what else a test wants */
double now(void);
void nap(double s);

/* ---- starting and watching processes ----------------------------------------------------------------------------- */
/* A shell line in the test's folder, output to the file `log`. It may use $M (mpirun),
 * $Q (the program) and $A (options). */
pid_t start(const char *log, const char *line);

/* Exit code, or 1000 + signal. */
int finish(pid_t pid);
char *text_of(const char *name);

/* The last words of a run, for messages: at most some lines of them. */
const char *end_of(const char *out);
int count(const char *text, const char *word);

/* One of the words, each ended by a 0, of a file of /proc: that word itself, or one that begins so. */
bool has_word(const char *path, const char *word, bool begins);

/* A process whose arguments name `out`; of that rank when rank >= 0. 0: none. */
pid_t find_process(const char *out, int rank);

/* Never to process 0, which would be everybody here. */
void send_to(const char *out, int rank, int sig);

/* One run of `ranks` processes with these options on top of $A. */
pid_t train(int ranks, const char *out, const char *more);
void ended_well(pid_t m, const char *out);
void trained(int ranks, const char *out, const char *more);
void must(const char *line);

/* ---- what a run left --------------------------------------------------------------------------------------------- */
/* The gradient's norm beside the losses: AdamW hides a gradient of a wrong size from them. */
enum { LOSSES = 4, NORM = LOSSES, COLUMNS };
typedef struct { double loss[MOST_STEPS + 1][COLUMNS]; int n; } Curve;
void read_curve(Curve *c, const char *out);

/* Says and judges the distance of two curves, of losses and (five times the tolerance, relative) of norms. */
void alike(const char *what, const Curve *a, const Curve *b, int from, int to, double tolerance);

/* The last step that has a whole checkpoint, 0 when none has. */
int last_checkpoint(const char *out);

/* The last checkpoint loads: one rank goes on from it. */
void goes_on(const char *out, int global_batch, const char *more);

/* Waits until the run `m` has saved at that step or later. */
void wait_for_checkpoint(pid_t m, const char *out, int step);
void no_process_is_left(const char *out);

/* How many ranks said a sentence that holds all of these words. */
int sentences(const char *text, const char *a, const char *b, const char *c);

/* `least` to `most` ranks of the run `out` said it. */
void said(const char *out, int least, int most, const char *a, const char *b, const char *c);

/* SIGTERM to one rank, after the checkpoint of `step`: all save and end, and one rank goes on from there. */
void terminated(int ranks, int victim, const char *more, int step, int global_batch, const char *then);
void need_ranks(void);

/* ---- every rank with its own shard ------------------------------------------------------------------------------- */
/* Two ranks, each in a folder of its own, which holds its own shard alone. */
void prepare_local_shards(const char *name);
pid_t train_local(const char *name, const char *more);

/* Overwrites an image's features in rank 1's shard with ones: not a number in every float type. */
void poison_rank_1(const char *name);

/* ---- the folder -------------------------------------------------------------------------------------------------- */
/* Options of this test on top of COMMON; a condition for the shell beyond MPI. */
int ranks_setup(const char *options, const char *condition);
int ranks_teardown(void **state);
