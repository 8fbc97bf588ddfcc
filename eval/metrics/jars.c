/* jars: see jars.h. A child talks over a socket that is its stdin and stdout, so that a dead one is an error code and
 * not a signal, and a silent one a timeout. */
#include "eval/metrics/jars.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/format/json.h"
#include "kernels/base/mem.h"

extern char **environ;

typedef struct {
    pid_t pid;                   /* 0: not started */
    int fd;                      /* -1: none */
    const char *name;            /* of the metric, for messages */
    char in[1 << 16];            /* read and not yet used: in[at .. end) */
    size_t at, end;
    char *line;                  /* the last line */
    size_t nline;
} Child;

/* ---- child processes ---- */

/* The jar's full name and the folder it lies in, where the program looks for its data. */
static Status find_jar(const char *name, const char *jar, char **path, char **folder) {
    char *slash;
    *folder = NULL;
    if (!(*path = realpath(jar, NULL))) return err_set(ERR_IO, "%s: %s: %s", name, jar, strerror(errno));
    if (access(*path, R_OK)) return err_set(ERR_IO, "%s: %s cannot be read: %s", name, jar, strerror(errno));
    if (!(*folder = mem_strdup(*path))) return ERR_MEMORY;
    slash = strrchr(*folder, '/');
    slash[slash == *folder] = 0;                             /* the root keeps its stroke */
    return OK;
}

static Status child_start(Child *c, const char *name, const char *folder, const char *const *argv) {
    int pair[2], e;
    struct timeval wait = {.tv_sec = JAR_SILENCE_S};
    posix_spawn_file_actions_t actions;
    *c = (Child){.fd = -1, .name = name};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return err_set(ERR_IO, "%s: no socket: %s", name, strerror(errno));
    c->fd = pair[0];
    /* a JVM that hangs becomes an error, not a night */
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
    posix_spawn_file_actions_adddup2(&actions, pair[1], 1);
    posix_spawn_file_actions_addchdir_np(&actions, folder);
    posix_spawnattr_t attributes;                            /* ours blocks the signals that signals.c waits for */
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    /* the cast: it changes nothing, but its type is older than const */
    e = posix_spawnp(&c->pid, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(pair[1]);
    if (!e) return OK;
    c->pid = 0;
    return err_set(ERR_IO, "%s: %s cannot be started: %s", name, argv[0], strerror(e));
}

static Status child_failed(const Child *c, const char *what, int e) {
    if (e == EAGAIN || e == EWOULDBLOCK)
        return err_set(ERR_IO, "%s: the program was silent for %d seconds while %s", c->name, JAR_SILENCE_S, what);
    return err_set(ERR_IO, "%s: the program stopped while %s%s%s", c->name, what, e ? ": " : "", e ? strerror(e) : "");
}

static Status child_write(Child *c, const char *s, size_t n) {
    while (n) {
        ssize_t k = send(c->fd, s, n, MSG_NOSIGNAL);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return child_failed(c, "it was written to", errno);
        s += k;
        n -= (size_t)k;
    }
    return OK;
}

/* The next line, without its end, in c->line. */
static Status child_line(Child *c) {
    for (c->nline = 0;;) {
        const char *end = memchr(c->in + c->at, '\n', c->end - c->at);
        size_t n = (end ? (size_t)(end - c->in) : c->end) - c->at;
        ssize_t k;
        if (mem_room(&c->line, c->nline, n + 1, 1) != OK) return ERR_MEMORY;
        memcpy(c->line + c->nline, c->in + c->at, n);
        c->nline += n;
        c->line[c->nline] = 0;
        c->at += n + (end != NULL);
        if (end) return OK;
        do k = recv(c->fd, c->in, sizeof c->in, 0);
        while (k < 0 && errno == EINTR);
        if (k <= 0) return child_failed(c, "its answer was awaited", k ? errno : 0);
        c->at = 0;
        c->end = (size_t)k;
    }
}

/* Reads away what it says until it closes its stdout; *code: its exit code, or 128 + the signal that ended it. */
static Status child_wait(Child *c, int *code) {
    int status = 0;
    ssize_t k;
    shutdown(c->fd, SHUT_WR);                                /* the end of its input: it may go */
    do k = recv(c->fd, c->in, sizeof c->in, 0);
    while (k > 0 || (k < 0 && errno == EINTR));
    if (k < 0) return child_failed(c, "its end was awaited", errno);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR) {}
    c->pid = 0;
    *code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return OK;
}

static void child_end(Child *c) {
    if (c->fd >= 0) close(c->fd);
    if (c->pid) {
        /* something failed: what it would still say is not wanted */
        kill(c->pid, SIGTERM);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR) {}
    }
    free(c->line);
    *c = (Child){.fd = -1};
}

/* ---- METEOR ---- */

typedef struct { char *s; size_t n; } Line;

static bool line_add(Line *l, const char *s, size_t n) {
    if (mem_room(&l->s, l->n, n, 1) != OK) return false;
    memcpy(l->s + l->n, s, n);
    l->n += n;
    return true;
}

/* The candidate as the toolkit sends it: no "|||", and one pass that makes two spaces one. */
static bool line_candidate(Line *l, const char *s) {
    size_t begin = l->n, to;
    for (; *s; s += strncmp(s, "|||", 3) ? 1 : 3) {
        if (strncmp(s, "|||", 3) && !line_add(l, s, 1)) return false;
    }
    to = begin;
    for (size_t i = begin; i < l->n; i++) {
        l->s[to++] = l->s[i];
        if (l->s[i] == ' ' && i + 1 < l->n && l->s[i + 1] == ' ') i++;
    }
    l->n = to;
    return true;
}

static bool score_line(Line *l, const JarImage *im) {
    l->n = 0;
    if (!line_add(l, "SCORE", 5)) return false;
    for (size_t r = 0; r < im->nrefs; r++) {
        if (!line_add(l, " ||| ", 5) || !line_add(l, im->references[r], strlen(im->references[r]))) return false;
    }
    return line_add(l, " ||| ", 5) && line_candidate(l, im->candidate) && line_add(l, "\n", 1);
}

static Status meteor_number(Child *c, double *out) {
    char *end;
    Status st = child_line(c);
    if (st) return st;
    *out = strtod(c->line, &end);
    while (*end == ' ' || *end == '\r') end++;
    if (end == c->line || *end || !isfinite(*out))
        return err_set(ERR_FORMAT, "METEOR: \"%.60s\" came where a score was awaited", c->line);
    return OK;
}

static Status meteor_talk(Child *c, const JarImage *images, size_t n, double *corpus, double *out) {
    Line ask = {0}, eval = {0};
    Status st = OK;
    if (!line_add(&eval, "EVAL", 4)) st = ERR_MEMORY;
    for (size_t i = 0; i < n && !st; i++) {
        if (!score_line(&ask, &images[i])) { st = ERR_MEMORY; break; }
        if ((st = child_write(c, ask.s, ask.n)) || (st = child_line(c))) break;
        while (c->nline && (c->line[c->nline - 1] == ' ' || c->line[c->nline - 1] == '\r')) c->nline--;
        /* statistics are numbers; anything else is a complaint */
        if (!c->nline || !strchr("0123456789-", c->line[0])) {
            st = err_set(ERR_FORMAT, "METEOR: \"%.60s\" came for the statistics of image %zu", c->line, i);
        } else if (!line_add(&eval, " ||| ", 5) || !line_add(&eval, c->line, c->nline)) st = ERR_MEMORY;
    }
    if (!st && !line_add(&eval, "\n", 1)) st = ERR_MEMORY;
    if (!st) st = child_write(c, eval.s, eval.n);
    for (size_t i = 0; i < n && !st; i++) st = meteor_number(c, &out[i]);
    if (!st) st = meteor_number(c, corpus);
    mem_free(ask.s, eval.s);
    return st;
}

Status meteor_score(const char *java, const char *jar, const JarImage *images, size_t n, double *corpus, double *out) {
    char *path = NULL, *folder = NULL;
    Child *c = mem_new(1, sizeof *c);
    Status st;
    if (!c) return ERR_MEMORY;
    c->fd = -1;
    if ((st = find_jar("METEOR", jar, &path, &folder))) goto done;
    /* as pycocoevalcap starts it */
    const char *argv[] = {java ? java : "java", "-Xmx2G", "-jar", path, "-", "-", "-stdio", "-l", "en", "-norm", NULL};
    if ((st = child_start(c, "METEOR", folder, argv))) goto done;
    st = meteor_talk(c, images, n, corpus, out);
done:
    child_end(c);
    mem_free(c, path, folder);
    return st;
}

/* ---- SPICE ---- */

static Status spice_input(const char *path, const JarImage *images, size_t n) {
    FILE *f = fopen(path, "w");
    JsonWriter w;
    Status st;
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    jw_begin(&w, f, 0);
    jw_array(&w, NULL);
    for (size_t i = 0; i < n; i++) {
        jw_object(&w, NULL);
        jw_int(&w, "image_id", (int64_t)i);
        jw_str(&w, "test", images[i].candidate);
        jw_array(&w, "refs");
        for (size_t r = 0; r < images[i].nrefs; r++) jw_str(&w, NULL, images[i].references[r]);
        jw_end(&w);
        jw_end(&w);
    }
    jw_end(&w);
    st = jw_done(&w);
    if (fclose(f) && !st) st = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    return st;
}

static Status spice_output(const char *path, size_t n, double *corpus, double *out) {
    Json *doc = NULL;
    double sum = 0;
    size_t with = 0;
    Status st = json_parse_file(&doc, path);
    for (size_t i = 0; i < n; i++) out[i] = NAN;             /* it leaves images out that it cannot parse */
    for (size_t i = 0; i < json_len(doc) && !st; i++) {
        const Json *item = json_at(doc, i);
        int64_t id = -1;
        if (!json_int(json_get(item, "image_id"), &id) || id < 0 || (size_t)id >= n) {
            st = err_set(ERR_FORMAT, "%s: item %zu has no image_id of 0 to %zu", path, i, n - 1);
        } else if (json_num(json_get(json_get(json_get(item, "scores"), "All"), "f"), &out[id])) {
            sum += out[id];
            with++;
        }
    }
    /* a mean of nothing would be a score */
    if (!st && !with) st = err_set(ERR_FORMAT, "%s: no image has a score", path);
    *corpus = with ? sum / (double)with : 0;
    json_free(doc);
    return st;
}

Status spice_score(const char *java, const char *jar, const JarImage *images, size_t n, double *corpus, double *out) {
    const char *parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char *path = NULL, *folder = NULL, *in = NULL, *result = NULL;
    char *temp = mem_format("%s/qformer-spice-XXXXXX", parent);
    Child *c = mem_new(1, sizeof *c);
    bool made = false;
    int code = 0;
    Status st = ERR_MEMORY;
    if (c) c->fd = -1;
    if (!temp || !c || (st = find_jar("SPICE", jar, &path, &folder))) goto done;
    /* SPICE knows files only */
    if (!mkdtemp(temp)) { st = err_set(ERR_IO, "SPICE: %s: %s", temp, strerror(errno)); goto done; }
    made = true;
    in = mem_format("%s/in.json", temp);
    result = mem_format("%s/out.json", temp);
    if (!in || !result) { st = ERR_MEMORY; goto done; }
    if ((st = spice_input(in, images, n))) goto done;
    /* as pycocoevalcap starts it, too */
    const char *argv[] = {java ? java : "java", "-Xmx8G", "-jar", path, in, "-out", result, "-subset", "-silent", NULL};
    if ((st = child_start(c, "SPICE", folder, argv)) || (st = child_wait(c, &code))) goto done;
    if (code) { st = err_set(ERR_IO, "SPICE: the program ended with code %d", code); goto done; }
    st = spice_output(result, n, corpus, out);
done:
    if (c) child_end(c);
    free(c);
    if (in) unlink(in);
    if (result) unlink(result);
    if (made) rmdir(temp);
    mem_free(temp, in, result, path, folder);
    return st;
}
