/* qformer: the door. `main`, the table of commands, and the help that is made from it.
 *
 *     qformer <command> [config.yaml] [key=value ...]
 *
 * Exit codes: 0 done, 1 the run failed, 2 the request was wrong. */
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/commands.h"
#include "configs/manual.h"
#include "configs/options.h"
#include "kernels/base/patience.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"
#include "kernels/base/version.h"
#include "kernels/dist/dist.h"

typedef enum { ALONE, RANKS } Processes;
typedef struct {
    const char *name;
    Status (*run)(const Options *o);
    Processes processes;
    const char *help, *example;
} Command;

static const Command commands[] = {
#define COMMAND(word, processes, help, example) { #word, cmd_##word, processes, help, example },
#include "configs/commands.def"
};

enum { COMMANDS = sizeof commands / sizeof commands[0] };

static const Command *find_command(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void print_commands(FILE *f) {
    fputs("qformer pretrains, fine-tunes and evaluates BLIP-2's Q-Former on image features.\n\n"
          "usage: qformer <command> [config.yaml] [key=value ...]\n\n", f);
    for (int i = 0; i < COMMANDS; i++) fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
    fputs("\nqformer help <command> lists a command's options, qformer --options all of them, qformer --version\n"
          "says what was built. To begin:  qformer doctor    or    make demo\n", f);
}

static void print_help(const Command *c) {
    printf("qformer %s: %s\n\nusage: qformer %s [config.yaml] %s[key=value ...]\n", c->name, c->help, c->name,
           options_used_by("in", c->name) ? "[input] " : "");
    if (c->example[0]) printf("example: qformer %s %s\n", c->name, c->example);
    puts("\n  option                 default   meaning [bounds]");
    options_help(c->name, stdout);
}

/* The words by which other tools call what is done here. */
static const char *meant_by(const char *word) {
    static const char *const words[][2] = {
        {"train", "pretrain or finetune"},  {"fit", "pretrain or finetune"},
        {"eval", "retrieval, caption or classify"}, {"evaluate", "retrieval, caption or classify"},
        {"test", "retrieval, caption or classify"},
        {"infer", "caption or ask"},        {"inference", "caption or ask"},   {"generate", "caption or ask"},
        {"predict", "caption or classify"}, {"vqa", "ask"},                    {"chat", "ask"},
        {"convert", "export or import"},    {"tokenize", "vocab"},             {"tokenizer", "vocab"},
        {"features", "extract or embed"},   {"encode", "extract or embed"},    {"zeroshot", "classify"},
        {"search", "retrieval"},            {"info", "inspect"},               {"version", "--version"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(word, words[i][0])) return words[i][1];
    return NULL;
}

static int unknown_command(const char *word) {
    const char *names[COMMANDS], *meant = meant_by(word);
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *near = meant ? meant : options_nearest(word, names, COMMANDS);
    if (near) fprintf(stderr, "qformer: there is no command '%s'; the nearest is %s\n", word, near);
    else fprintf(stderr, "qformer: there is no command '%s'; 'qformer --help' lists them\n", word);
    return 2;
}

static bool wants_help(int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
    return argc == 1 && !strcmp(argv[0], "help") && access("help", F_OK);      /* unless something is called so */
}

/* Every rank finds the same mistake in a request: one of them says it. */
static int exit_code(const Command *c, Status st) {
    if (st == OK) return 0;
    if (st != ERR_USAGE || dist_rank() == 0) fprintf(stderr, "qformer %s: %s\n", c->name, err_message());
    return st == ERR_USAGE ? 2 : 1;
}

/* Several ranks must be one program with one configuration, or they end with different weights. */
static Status compare_ranks(const Options *o) {
    char *text = NULL;
    dist_set_timeout(o->dist.timeout_s);
    Status st = dist_same_program(version_string());
    if (!st) st = options_text(o, &text);
    if (!st) st = dist_same("another configuration:", text);
    free(text);
    return st;
}

/* A command that works alone is refused in several processes; another one, where the launcher and MPI disagree. */
static Status check_processes(const Command *c) {
    if (c->processes == RANKS) return dist_alone();
    if (dist_size() == 1) return OK;
    return err_set(ERR_USAGE, "%s works in one process, here are %d: start it without mpirun or srun", c->name,
                   dist_size());
}

static Status run(const Command *c, int argc, char **argv) {
    Options *o = NULL;
    Status st = check_processes(c);
    if (!st) st = options_parse(&o, c->name, argc, argv);
    if (!st) st = options_spare_inputs(o);                   /* before any command can open its output */
    if (!st && dist_size() > 1) st = compare_ranks(o);
    if (!st && o->run.threads > 0) omp_set_num_threads((int)o->run.threads);  /* 0 leaves it to OpenMP: one a core */
    if (!st) status_detailed(o->run.verbose && dist_rank() == 0);
    if (!st) st = c->run(o);
    status_end();                                            /* a live line that the command left unfinished */
    options_free(o);
    return st;
}

/* A stream that the caller closed would be the next file to be opened; and what is said into it is lost, not written
 * there. So it becomes one that cannot be used. A file that grows beyond the limit (ulimit -f) is a failed write, which
 * gets its sentence as on a full disk, not the end by a signal. */
static void hold_streams(void) {
    signal(SIGXFSZ, SIG_IGN);
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd) abort();
}

/* Results on standard output that did not get there are a failure like any other. */
static int all_said(int code) {
    int error = status_lost();
    if (!error) return code;
    fprintf(stderr, "qformer: standard output cannot be written: %s; what was said there is not complete\n",
            strerror(error));
    return code ? code : 1;
}

static int run_command(const Command *c, int argc, char **argv) {
    Status st = dist_open(&argc, &argv);
    if (!st) st = run(c, argc - 2, argv + 2);
    dist_set_timeout(0);                                     /* the end waits for whoever still writes results */
    dist_step(-1);
    st = dist_agree_at(st, "the end");
    int code = exit_code(c, st);
    dist_close();
    return code;
}

/* `qformer help extract` is `qformer extract --help`. */
static int help(const char *word) {
    const Command *c = find_command(word);
    if (!c) return unknown_command(word);
    print_help(c);
    return 0;
}

static int completion(const char *shell) {
    if (manual_completion(shell, stdout) == OK) return 0;
    fprintf(stderr, "qformer: %s\n", err_message());
    return 2;
}

static bool is(const char *word, const char *a, const char *b) { return strcmp(word, a) == 0 || strcmp(word, b) == 0; }

static int answer(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    bool asks = is(word, "--help", "-h") || is(word, "help", "help");
    if (!word[0]) { print_commands(stderr); return 2; }      /* no question: a usage error, told on stderr */
    if (asks && argc > 2 && strcmp(argv[2], "help")) return help(argv[2]);
    if (asks) { print_commands(stdout); return 0; }
    if (is(word, "--version", "-V")) { version_print(stdout); return 0; }
    if (is(word, "--options", "--options")) return options_reference(stdout) ? 1 : 0;
    if (is(word, "--man", "--man")) return manual_page(stdout) ? 1 : 0;
    if (is(word, "--completion", "--completion")) return completion(argc > 2 ? argv[2] : "");
    const Command *c = find_command(word);
    if (!c) return unknown_command(word);
    if (wants_help(argc - 2, argv + 2)) { print_help(c); return 0; }
    patience_set(argv);                                      /* only who computes waits: help is there at once */
    signals_open();
    return run_command(c, argc, argv);
}

int main(int argc, char **argv) {
    hold_streams();
    return all_said(answer(argc, argv));
}
