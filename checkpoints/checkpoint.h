/* checkpoint: step directories that are whole or absent, and finding the newest that loads.
 *
 *     out/step_000123/            model.safetensors, optimizer.safetensors, ... as the caller names them
 *                     state.json  {"format", "crc32c", "step", "files": {name: {"bytes", "crc32c"}}, "run": what the
 * caller gave}
 *     out/latest, out/best        the name of a step directory and a newline; for people and scripts
 *
 * Called by the training loop (save, resume) and by weights.c. The one idea: everything is written into
 * out/step_000123.tmp-PID, flushed to the disk, and the folder then takes its name by one rename; so a full disk, a
 * kill or a power cut at any moment leaves the checkpoints that were there. The bytes are a function of what is
 * saved only: no clock, no host name, so two runs can be compared with cmp.
 *
 * One process saves into `out`. What a killed one left behind (*.tmp-PID of a process that is gone) goes at the
 * next save. Does not know the model: parts are arrays of named tensors, `run` is any JSON object. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/format/json.h"
#include "data/format/safetensors.h"
#include "kernels/base/err.h"

/* ---- saving ---- */

/* One file of a checkpoint, NAME.safetensors. By convention: "model" f32 masters under LAVIS names; "ema" the same
 * names; "optimizer" exp_avg.NAME and exp_avg_sq.NAME. */
typedef struct { const char *name; const StTensor *tensors; size_t n; } CkptPart;

/* Brings the t->nbytes of tensor `t` of a part into host memory at dst,
 * for tensors whose data is NULL (on a device). */
typedef Status CkptFetch(void *ctx, const CkptPart *part, const StTensor *t, void *dst);

/* One sentence about something that was survived. */
typedef void CkptWarn(void *ctx, const char *sentence);

typedef struct {
    const char *out;            /* the run's directory; made if absent (its parent must exist) */
    int64_t step;               /* >= 0 */
    const CkptPart *parts;
    size_t nparts;
    const char *run;            /* JSON object: config, seed, sampler position, averages, best metric, ...; NULL: {} */
    int keep;                   /* step directories that stay, this one included; < 1: all. The best always stays */
    bool best;                  /* this is the best so far: out/best names it */
    CkptFetch *fetch;           /* may be NULL when all tensors have data */
    CkptWarn *warn;             /* may be NULL; failures to remove old things come here */
    void *ctx;                  /* for both */
} CkptSpec;

/* ERR_IO (with the path and the cause), ERR_FORMAT (run is no JSON object), ERR_MEMORY. After a failure the checkpoints
 * that were there still are. Saving a step again replaces it. */
Status ckpt_save(const CkptSpec *spec);

/* ---- loading ---- */

typedef struct Ckpt Ckpt;

/* Opens one step directory: every file that state.json lists must be there with its size, be a sound safetensors
 * file, and, with `verify`, have its crc32c (reads everything once). */
Status ckpt_open(Ckpt **c, const char *dir, bool verify);

/* Opens the newest step directory below `out` that ckpt_open(.., true) takes, or with `name` ("best", "latest") the one
 * that file names. Each broken one is skipped with a warning. OK with *c NULL: there is none at all, or no directory;
 * ERR_FORMAT: there are some and none loads. */
Status ckpt_find_latest(Ckpt **c, const char *out, CkptWarn *warn, void *ctx);
Status ckpt_find_named(Ckpt **c, const char *out, const char *name);

void ckpt_close(Ckpt *c);                                       /* accepts NULL */
int64_t ckpt_step(const Ckpt *c);
const char *ckpt_dir(const Ckpt *c);
const StFile *ckpt_part(const Ckpt *c, const char *name);       /* "model"; NULL when absent */
const Json *ckpt_run(const Ckpt *c);                            /* the object given as `run` */

/* The steps that have a directory below `out`, newest first; none when there is no such directory. Free *steps. */
Status ckpt_list(const char *out, int64_t **steps, size_t *n);

/* Removes all steps below `out`, and the names `latest` and `best`: a run that begins anew there. */
Status ckpt_remove_all(const char *out);

/* Below `out`: a step's directory (free it); the step that a pointer names, -1 when it names none. */
char *ckpt_step_dir(const char *out, int64_t step);
int64_t ckpt_pointer(const char *out, const char *name);

/* The step of a directory's name ("step_000123", also behind a path), -1 when it is no step directory. */
int64_t ckpt_step_of(const char *name);

/* ---- for checkpoint.c and the fuzz target ---- */

typedef struct { const char *name; int64_t bytes; uint32_t crc; } CkptFileInfo;

/* The CRC of state.json's text: with its own eight digits, which begin at *digits,
 * taken as zeros. false: it has none. */
bool ckpt_state_crc(const char *text, size_t n, uint32_t *crc, size_t *digits);

/* Reads state.json's text; `files` (to be freed) borrows names from doc. */
Status ckpt_parse_state(const char *text, size_t n, const char *path, Json **doc, int64_t *step, CkptFileInfo **files,
                        size_t *nfiles);
