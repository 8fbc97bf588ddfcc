/* folder: see folder.h. */
#include "tests/kit/folder.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kit/scratch.h"

int folder_setup(void **state) { return scratch_open(state); }
int folder_teardown(void **state) { return scratch_teardown(state); }

Run *folder_run(const char *line) {
    Run *r = program_run(scratch_dir(), line);
    if (!r) skip();
    return r;
}

static void show(const char *line, const Run *r) {
    fail_msg("%s: exit code %d, signal %d: %s%s", line, r->code, r->signal, r->out, r->err);
}

void folder_must(const char *line) {
    Run *r = folder_run(line);
    if (r->code) show(line, r);
}

void folder_says(const char *line, const char *sentence) {
    Run *r = folder_run(line);
    if (r->code || !(strstr(r->out, sentence) || strstr(r->err, sentence))) show(line, r);
}

void folder_silent(const char *line, const char *word) {
    Run *r = folder_run(line);
    if (r->code || strstr(r->out, word) || strstr(r->err, word)) show(line, r);
}

static void complains(const char *line, int code, const char *sentence) {
    Run *r = folder_run(line);
    const char *end = strchr(r->err, '\n');
    if (r->code != code || !strstr(r->err, sentence) || !end || end[1]) show(line, r);
}

void folder_refuses(const char *line, const char *sentence) { complains(line, 2, sentence); }
void folder_fails(const char *line, const char *sentence) { complains(line, 1, sentence); }

const char *folder_path(const char *name) { return scratch_path(name); }
void folder_put(const char *name, const void *bytes, size_t n) { scratch_put(name, bytes, n); }
void folder_write(const char *name, const char *text) { scratch_write(name, text); }

bool folder_has(const char *name) { return access(folder_path(name), F_OK) == 0; }

int folder_shell(const char *command) {
    char line[2000];
    const char *path = program_path();
    if (!path) skip();
    snprintf(line, sizeof line, "cd %s && export Q=%s && { %s\n}", scratch_dir(), path, command);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
