/* program: see program.h. */
#include "tests/kit/program.h"

#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

const char *program_path(void) {
    static char path[4096];
    const char *p = getenv("QFORMER_BIN");
    if (!path[0] && !realpath(p ? p : "build/qformer", path)) path[0] = 0;
    return path[0] && access(path, X_OK) == 0 ? path : NULL;
}

static int program_stream(void) {
    char path[] = "/tmp/qformer-run-XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0) unlink(path), fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

static void program_read_back(int fd, char *buf, size_t size) {
    ssize_t n = pread(fd, buf, size - 1, 0);
    buf[n > 0 ? n : 0] = 0;
    close(fd);
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

int program_wait(pid_t pid, struct rusage *usage) {
    int status = 0;
    pid_t got;
    struct timespec nap = {.tv_nsec = 1000000};
    for (int ms = 0; (got = wait4(pid, &status, WNOHANG, usage)) == 0 || (got < 0 && errno == EINTR); ms++) {
        if (ms == PROGRAM_SECONDS * 1000) kill(pid, SIGKILL);
        nanosleep(&nap, NULL);
    }
    return status;
}

Run *program_run(const char *dir, const char *line) {
    static Run r;
    static char words[8192];
    char *argv[PROGRAM_WORDS + 2] = {NULL}, *rest = NULL;
    const char *path = program_path();
    int argc = 0, out = program_stream(), err = program_stream();
    pid_t pid;
    struct rusage usage = {0};
    posix_spawn_file_actions_t a;
    if (!path || out < 0 || err < 0) return NULL;
    argv[argc++] = (char *)(uintptr_t)path;
    snprintf(words, sizeof words, "%s", line);
    for (char *w = strtok_r(words, " ", &rest); w && argc <= PROGRAM_WORDS; w = strtok_r(NULL, " ", &rest))
        argv[argc++] = w;
    posix_spawn_file_actions_init(&a);
    posix_spawn_file_actions_addopen(&a, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&a, out, 1);
    posix_spawn_file_actions_adddup2(&a, err, 2);
    if (dir) posix_spawn_file_actions_addchdir_np(&a, dir);
    int failed = posix_spawn(&pid, path, &a, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&a);
    if (failed) return NULL;
    int status = program_wait(pid, &usage);
    r.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    r.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    r.cpu = seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
    program_read_back(out, r.out, sizeof r.out);
    program_read_back(err, r.err, sizeof r.err);
    return &r;
}
