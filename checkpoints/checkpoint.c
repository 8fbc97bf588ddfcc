/* checkpoint: saving; see checkpoint.h. Opening is in checkpoint_load.c. */
#include "checkpoints/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/outfile.h"
#include "kernels/base/mem.h"

static void warn(const CkptSpec *spec, const char *what, const char *path) {
    char *sentence = mem_format("%s: %s: %s", path, what, strerror(errno));
    if (spec->warn && sentence) spec->warn(spec->ctx, sentence);
    free(sentence);
}

/* ---- removing ---------------------------------------------------------------------------------------------------- */

/* Removes a file, or a directory of files; directories inside it make it fail, links are not followed. */
static bool remove_flat(const char *path) {
    struct stat info;
    /* lstat, O_NOFOLLOW: nothing outside the run is removed, whatever somebody linked into it */
    if (lstat(path, &info) != 0) return errno == ENOENT;
    /* a link is removed, not what it leads to */
    if (!S_ISDIR(info.st_mode)) return unlink(path) == 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) close(fd);
        return false;
    }
    bool ok = true;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) ok = unlinkat(fd, e->d_name, 0) == 0 && ok;
    closedir(d);
    return ok && rmdir(path) == 0;
}

/* A step directory first loses its name, so that one half removed is never mistaken for a checkpoint. */
static void remove_step(const CkptSpec *spec, const char *dir) {
    char *gone = mem_format("%s.tmp-%ld", dir, (long)getpid());
    if (gone && (outfile_rename(dir, gone) != OK || !remove_flat(gone))) warn(spec, "cannot be removed", dir);
    free(gone);
}

/* NAME.tmp-PID with a PID that is ours or no process's. */
static bool is_leftover(const char *name) {
    const char *tmp = strstr(name, ".tmp-");
    /* the last: what is put aside while two trade names has two */
    for (const char *later = tmp; later; later = strstr(later + 1, ".tmp-")) tmp = later;
    if (!tmp || (strncmp(name, "step_", 5) != 0 && strncmp(name, "latest.", 7) != 0 && strncmp(name, "best.", 5) != 0))
        return false;
    /* a name like ours with anything behind it is somebody else's */
    size_t digits = strspn(tmp + 5, "0123456789");
    if (digits == 0 || digits > 9 || tmp[5 + digits] != 0) return false;
    long pid = strtol(tmp + 5, NULL, 10); /* ours: of a save that failed; of none: of a run that was killed */
    return pid == (long)getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

static void remove_leftovers(const CkptSpec *spec) {
    DIR *d = opendir(spec->out);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        if (!is_leftover(e->d_name)) continue;
        char *path = mem_format("%s/%s", spec->out, e->d_name);
        if (path && !remove_flat(path)) warn(spec, "left behind by a process that is gone, cannot be removed", path);
        free(path);
    }
    closedir(d);
}

Status ckpt_remove_all(const char *out) {
    static const char *const pointers[] = {"latest", "best"};
    int64_t *steps;
    size_t n;
    Status st = ckpt_list(out, &steps, &n);
    if (st != OK) return st;
    for (size_t i = 0; i < n + 2; i++) {
        char *path = i < n ? ckpt_step_dir(out, steps[i]) : mem_format("%s/%s", out, pointers[i - n]);
        if (path && i < n) remove_step(&(CkptSpec){.out = out}, path);
        else if (path) unlink(path);
        free(path);
    }
    free(steps);
    return OK;
}

static void rotate(const CkptSpec *spec) {
    int64_t *steps;
    size_t n, kept = 1;                       /* the one just written */
    /* what cannot be listed is not removed */
    if (spec->keep < 1 || ckpt_list(spec->out, &steps, &n) != OK) return;
    int64_t best = ckpt_pointer(spec->out, "best");
    for (size_t i = 0; i < n; i++) {
        if (steps[i] == spec->step || steps[i] == best) continue;
        if (kept < (size_t)spec->keep) { kept++; continue; }
        char *dir = ckpt_step_dir(spec->out, steps[i]);
        if (dir) remove_step(spec, dir);
        free(dir);
    }
    free(steps);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static Status write_tensors(StWriter *w, const CkptSpec *spec, const CkptPart *part) {
    void *buffer = NULL;
    size_t room = 0;
    Status st = OK;
    for (size_t i = 0; i < part->n && st == OK; i++) {
        StTensor t = part->tensors[i];
        t.nbytes = (size_t)st_elements(&t) * (size_t)dtype_size(t.dtype);      /* st_create checked the product */
        if (!t.data && t.nbytes) {
            BUG_ON(!spec->fetch, "checkpoint: %s has no data and there is no way to fetch it", t.name);
            if (t.nbytes > room) {
                free(buffer);
                room = t.nbytes;
                if (!(buffer = mem_new(room, 1))) { st = ERR_MEMORY; break; }
            }
            if ((st = spec->fetch(spec->ctx, part, &t, buffer)) != OK) break;
            t.data = buffer;
        }
        st = st_put(w, t.data, t.nbytes);
    }
    free(buffer);
    return st;
}

/* NAME.safetensors of one part, and its line in state.json. */
static Status write_part(const CkptSpec *spec, const CkptPart *part, const char *dir, JsonWriter *state) {
    StWriter *w = NULL;
    Status st = OK;
    char crc[9];
    char *path = mem_format("%s/%s.safetensors", dir, part->name);
    if (!path) return ERR_MEMORY;
    if ((st = st_create(&w, path, part->tensors, part->n, NULL, 0)) != OK) goto done;
    if ((st = write_tensors(w, spec, part)) != OK) goto done;
    /* as written: what the disk holds is compared with it, not with memory */
    snprintf(crc, sizeof crc, "%08x", st_crc(w));
    jw_object(state, strrchr(path, '/') + 1);
    jw_int(state, "bytes", (int64_t)st_written(w));
    jw_str(state, "crc32c", crc);
    jw_end(state);
    st = st_commit(w);
    w = NULL;
done:
    st_abandon(w);
    free(path);
    return st;
}

static void put_own_crc(char *text, size_t n) {
    uint32_t crc;
    size_t at;
    char digits[9];
    BUG_ON(!ckpt_state_crc(text, n, &crc, &at), "checkpoint: state.json without crc32c");
    snprintf(digits, sizeof digits, "%08x", crc);
    memcpy(text + at, digits, 8);
}

/* All files of the checkpoint, into `dir`. */
static Status write_files(const CkptSpec *spec, const char *dir) {
    char *text = NULL, *path = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    JsonWriter state;
    jw_begin(&state, f, 1);
    jw_object(&state, NULL);
    jw_int(&state, "format", 1);
    /* room for its own sum, which is that of the text with zeros here */
    jw_str(&state, "crc32c", "00000000");
    jw_int(&state, "step", spec->step);
    jw_object(&state, "files");
    Status st = OK;
    for (size_t i = 0; i < spec->nparts && st == OK; i++) st = write_part(spec, &spec->parts[i], dir, &state);
    if (st == OK) {
        jw_end(&state);
        jw_raw(&state, "run", spec->run ? spec->run : "{}");
        jw_end(&state);
        st = jw_done(&state);
    }
    if (fclose(f) != 0 && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    if (st == OK) put_own_crc(text, size);
    if (st == OK && !(path = mem_format("%s/state.json", dir))) st = ERR_MEMORY;
    if (st == OK) st = outfile_put(path, text, size);
    mem_free(path, text);
    return st;
}

/* Gives the finished directory its name; an older one of that name trades places with it and is removed. */
static Status publish(const CkptSpec *spec, const char *temp, const char *dir) {
    struct stat info;
    /* no step of that number yet: the usual way */
    if (lstat(dir, &info) != 0) return outfile_rename(temp, dir);
    Status st = outfile_swap(temp, dir);
    if (st == OK && !remove_flat(temp)) warn(spec, "cannot be removed", temp);
    return st;
}

static Status write_pointer(const CkptSpec *spec, const char *name) {
    char *path = mem_format("%s/%s", spec->out, name), *line = mem_format("step_%06" PRId64 "\n", spec->step);
    Status st = path && line ? outfile_put(path, line, strlen(line)) : ERR_MEMORY;
    mem_free(path, line);
    return st;
}

static Status check_run(const CkptSpec *spec) {
    Json *run;
    if (!spec->run) return OK;
    Status st = json_parse(&run, spec->run, strlen(spec->run), "state of the run");
    if (st != OK) return st;
    if (json_type(run) != J_OBJECT) st = err_set(ERR_FORMAT, "state of the run: a JSON object was expected");
    json_free(run);
    return st;
}

Status ckpt_save(const CkptSpec *spec) {
    BUG_ON(spec->step < 0, "checkpoint: step %" PRId64, spec->step);
    char *dir = ckpt_step_dir(spec->out, spec->step);
    char *temp = dir ? mem_format("%s.tmp-%ld", dir, (long)getpid()) : NULL;
    Status st = dir && temp ? check_run(spec) : ERR_MEMORY;
    bool named = false;
    if (st == OK) st = outfile_mkdir(spec->out);
    if (st != OK) goto done;
    /* before writing: the disk may be full of what a killed run left */
    remove_leftovers(spec);
    if ((st = outfile_mkdir(temp)) != OK || (st = write_files(spec, temp)) != OK ||
        /* data before names: after a crash a name stands for whole files, or is not there */
        (st = outfile_sync_dir(temp)) != OK || (st = publish(spec, temp, dir)) != OK)
        goto done;
    named = true;
    if ((st = outfile_sync_dir(spec->out)) != OK) goto done;
    /* best before latest: the state of the step that latest names says which one is best */
    if (spec->best && (st = write_pointer(spec, "best")) != OK) goto done;
    if ((st = write_pointer(spec, "latest")) != OK) goto done;
    /* last: until latest names the new step, the old one may be all there is */
    rotate(spec);
done:
    if (st != OK && !named && temp) remove_flat(temp);
    mem_free(dir, temp);
    return st == OK ? OK : err_context(st, "saving step %" PRId64, spec->step);
}
