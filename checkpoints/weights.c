/* weights: see weights.h. */
#include "checkpoints/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoints/shards.h"
#include "data/format/filekind.h"
#include "data/format/path.h"
#include "data/format/pth.h"
#include "kernels/base/mem.h"

/* One file of tensors. */
typedef struct { StFile *st; PthFile *pth; } WeightFile;

struct WeightSource {
    char *path;
    Ckpt *ckpt;               /* the data are here, or in the files: one, or the shards of an index */
    WeightFile *files;
    size_t nfiles;
    NameForm form;
    char *prefix;             /* taken off the names */
    bool in_folder;
    StTensor *tensors;        /* (count) sorted by name; names are ours */
    size_t count;
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static Status open_file(WeightFile *f, const char *path) {
    char first[512];
    /* a named pipe would wait for a writer */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return err_set(ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    ssize_t n = pread(fd, first, sizeof first, 0);
    int e = errno;
    close(fd);
    if (n < 0) return err_set(ERR_IO, "%s: cannot be read: %s", path, strerror(e));
    if (n >= 8 && memcmp(first, "\x89HDF\r\n\x1a\n", 8) == 0)
        return err_set(ERR_FORMAT,
                       "%s: an HDF5 file, so a data set and not weights: those are a run's folder, .safetensors "
                       "or .pth", path);
    if (pth_looks_like(first, (size_t)n)) return pth_open(&f->pth, path);
    /* a safetensors header is shorter than 2^56 bytes */
    if (n > 8 && filekind_name(first, (size_t)n) && first[7])
        return err_set(ERR_FORMAT, "%s: is %s, not weights: those are a run's folder, .safetensors or .pth", path,
                       filekind_name(first, (size_t)n));
    return st_open(&f->st, path);
}

static Status open_only(WeightSource *ws, const char *path) {
    ws->path = mem_strdup(path);
    ws->files = mem_new(1, sizeof *ws->files);
    if (!ws->path || !ws->files) return ERR_MEMORY;
    ws->nfiles = 1;
    return open_file(&ws->files[0], path);
}

/* Also a link that leads nowhere: that is to be complained of, not to be passed over. */
static bool exists(const char *dir, const char *name) {
    struct stat info;
    char *path = mem_format("%s/%s", dir, name);
    bool found = path && lstat(path, &info) == 0;
    free(path);
    return found;
}

static Status open_in(WeightSource *ws, const char *dir, const char *name) {
    char *path = mem_format("%s/%s", dir, name);
    Status st = path ? open_only(ws, path) : ERR_MEMORY;
    free(path);
    return st;
}

static bool holds(const WeightFile *f, const char *name) {
    const StTensor *t = NULL;
    if (f->st) return st_find(f->st, name) != NULL;
    return pth_find(f->pth, name, &t) == OK && t;
}

/* The shards that an index names: all must be there, and hold what it says. */
static Status open_shards(WeightSource *ws, const char *dir, const char *name) {
    ShardIndex index;
    if (!(ws->path = mem_format("%s/%s", dir, name))) return ERR_MEMORY;
    Status st = shards_read(&index, ws->path);
    if (st == OK && !(ws->files = mem_new(index.nfiles, sizeof *ws->files))) st = ERR_MEMORY;
    for (; st == OK && ws->nfiles < index.nfiles; ws->nfiles++) {
        char *path = mem_format("%s/%s", dir, index.files[ws->nfiles]);
        st = path ? err_context(open_file(&ws->files[ws->nfiles], path), "%s: one of its %zu files", ws->path,
                                index.nfiles)
                  : ERR_MEMORY;
        free(path);
    }
    for (size_t i = 0; st == OK && i < index.n; i++)
        if (!holds(&ws->files[index.entries[i].file], index.entries[i].name))
            st = err_set(ERR_FORMAT, "%s: says that %s is in %s, which does not hold it", ws->path,
                         index.entries[i].name, index.files[index.entries[i].file]);
    shards_free(&index);
    return st;
}

/* As Hugging Face publishes models, in the order in which transformers looks for them. */
static const struct { const char *name; Status (*open)(WeightSource *, const char *, const char *); } published[] = {
    {"model.safetensors", open_in},
    {"model.safetensors.index.json", open_shards},
    {"pytorch_model.bin", open_in},
    {"pytorch_model.bin.index.json", open_shards},
    {"open_clip_model.safetensors", open_in},
    {"open_clip_pytorch_model.bin", open_in},
    {"mp_rank_00_model_states.pt", open_in},                 /* DeepSpeed's */
};

/* What other trainers leave, and what joins it. */
static Status refuse_directory(const char *dir) {
    static const struct { const char *file, *what; } others[] = {
        {"zero_to_fp32.py",
         "a checkpoint of DeepSpeed in parts; python3 zero_to_fp32.py . joined, in it, makes weights of them"},
        {".metadata",
         "a sharded checkpoint of PyTorch (FSDP); python3 -m torch.distributed.checkpoint.format_utils dcp_to_torch "
                      "THIS weights.pth makes weights of it"},
        {"trainer_state.json", "a checkpoint of a trainer without its weights"},
        {"adapter_model.safetensors", "an adapter (LoRA), not a model; peft's merge_and_unload makes one of both"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (exists(dir, others[i].file)) return err_set(ERR_FORMAT, "%s: is %s", dir, others[i].what);
    return err_set(ERR_FORMAT, "%s: no weights here: a step_NNNNNN directory, state.json, model.safetensors or "
                   "pytorch_model.bin (or the .index.json of one in several files) was expected", dir);
}

/* The weights of a step that was opened. */
static Status take_step(WeightSource *ws) {
    const StFile *model = ckpt_part(ws->ckpt, "model");
    if (!model) return err_set(ERR_FORMAT, "%s: a checkpoint without model.safetensors", ckpt_dir(ws->ckpt));
    return (ws->path = mem_strdup(st_path(model))) ? OK : ERR_MEMORY;
}

/* RUN/best and RUN/latest are files with the name of a step in them. */
static bool is_pointer(const char *path) {
    return !strcmp(path_base(path), "best") || !strcmp(path_base(path), "latest");
}

static Status open_pointer(WeightSource *ws, const char *path) {
    char *dir = path_folder(path);
    Status st = dir ? ckpt_find_named(&ws->ckpt, dir, path_base(path)) : ERR_MEMORY;
    free(dir);
    ws->in_folder = true;                                    /* as if the run's folder had been named */
    return st == OK ? take_step(ws) : st;
}

static Status open_directory(WeightSource *ws, const char *dir, CkptWarn *warn, void *ctx) {
    Status st;
    if (exists(dir, "state.json")) {
        if ((st = ckpt_open(&ws->ckpt, dir, true)) != OK) return st;
    } else {
        for (size_t i = 0; i < sizeof published / sizeof *published; i++)
            /* it says itself what it is; steps are looked for last */
            if (exists(dir, published[i].name)) return published[i].open(ws, dir, published[i].name);
        if ((st = ckpt_find_latest(&ws->ckpt, dir, warn, ctx)) != OK) return st;
    }
    return ws->ckpt ? take_step(ws) : refuse_directory(dir);
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static Status add_tensor(WeightSource *ws, const StTensor *t) {
    ws->tensors[ws->count] = *t;                             /* with a name of its own: it may get another one below */
    if (!(ws->tensors[ws->count].name = mem_strdup(t->name))) return ERR_MEMORY;
    ws->count++;
    return OK;
}

static Status list_safetensors(WeightSource *ws, const StFile *f) {
    Status st = OK;
    for (size_t i = 0; i < st_count(f) && st == OK; i++) st = add_tensor(ws, st_at(f, i));
    return st;
}

static Status list_pth(WeightSource *ws, PthFile *f) {
    Status st = OK;
    for (size_t i = 0; i < pth_count(f) && st == OK; i++) {
        const StTensor *t;
        if (!pth_in_model(f, i)) continue;                   /* optimizer and arguments: the run's, not the model's */
        st = pth_tensor(f, i, &t);
        if (st == OK) st = add_tensor(ws, t);
    }
    return st;
}

/* The tensors under the names of the files, unsorted. */
static Status list_tensors(WeightSource *ws) {
    const StFile *own = ws->ckpt ? ckpt_part(ws->ckpt, "model") : NULL;
    size_t n = own ? st_count(own) : 0;
    for (size_t i = 0; i < ws->nfiles; i++) n += ws->files[i].st ? st_count(ws->files[i].st)
        : pth_count(ws->files[i].pth);
    if (!(ws->tensors = mem_new(n, sizeof *ws->tensors))) return ERR_MEMORY;
    Status st = own ? list_safetensors(ws, own) : OK;
    for (size_t i = 0; i < ws->nfiles && st == OK; i++)
        st = ws->files[i].st ? list_safetensors(ws, ws->files[i].st) : list_pth(ws, ws->files[i].pth);
    return st;
}

/* What stands in front of names that some form knows: "", "module.", "model._orig_mod.", ... */
enum { MOST_PREFIXES = 64, MOST_DOTS = 5 };
typedef struct { const char *text; size_t n, fits; NameForm form; } Prefix;

static size_t count_fitting(const WeightSource *ws, NameForm form, const char *prefix, size_t n) {
    char buf[NAME_ROOM];
    size_t fits = 0;
    for (size_t i = 0; i < ws->count; i++) {
        const char *name = ws->tensors[i].name;
        fits += strncmp(name, prefix, n) == 0 && name_to_lavis(form, name + n, buf);
    }
    return fits;
}

static bool known_by_any(const char *name) {
    char buf[NAME_ROOM];
    for (int form = 0; form < NAME_FORM_COUNT; form++)
        if (name_to_lavis((NameForm)form, name, buf)) return true;
    return false;
}

/* Moments of an optimizer have the shapes and the names of weights, and are none. */
static bool of_optimizer(const char *prefix, size_t n) {
    return memmem(prefix, n, "exp_avg", 7) || memmem(prefix, n, "optim", 5) || memmem(prefix, n, "moment", 6);
}

static void note_prefix(Prefix *list, int *count, const char *name, size_t n) {
    if (of_optimizer(name, n)) return;
    for (int k = 0; k < *count; k++)
        if (list[k].n == n && memcmp(list[k].text, name, n) == 0) return;
    if (*count < MOST_PREFIXES) list[(*count)++] = (Prefix){.text = name, .n = n};
}

/* Weights come before their running average; of two prefixes that fit as many, the shorter is the truth. */
static bool better(const Prefix *a, const Prefix *b) {
    bool ema_a = memmem(a->text, a->n, "ema", 3) != NULL, ema_b = memmem(b->text, b->n, "ema", 3) != NULL;
    if (a->fits != b->fits) return a->fits > b->fits;
    return ema_a != ema_b ? ema_b : a->n < b->n;
}

static Prefix detect(const WeightSource *ws) {
    Prefix list[MOST_PREFIXES] = {{.text = "", .form = NAMES_LAVIS}}, best = list[0];
    int count = 1;
    for (size_t i = 0; i < ws->count; i++) {
        const char *name = ws->tensors[i].name, *dot = name;
        for (int k = 0; k < MOST_DOTS && (dot = strchr(dot, '.')); k++)
            /* what stands before a name that somebody knows may be a wrapper's */
            if (known_by_any(++dot)) note_prefix(list, &count, name, (size_t)(dot - name));
    }
    for (int k = 0; k < count; k++)
        for (int form = 0; form < NAME_FORM_COUNT; form++) {
            Prefix p = list[k];
            p.form = (NameForm)form;
            p.fits = count_fitting(ws, p.form, p.text, p.n);
            if (p.fits > best.fits || (p.fits && p.fits == best.fits && better(&p, &best))) best = p;
        }
    return best;
}

static Status rename_tensor(StTensor *t, const char *name) {
    char *copy = mem_strdup(name);
    if (!copy) return ERR_MEMORY;
    free((char *)(uintptr_t)t->name);
    t->name = copy;
    return OK;
}

int ws_by_name(const void *a, const void *b) {
    return strcmp(((const StTensor *)a)->name, ((const StTensor *)b)->name);
}

static const StTensor *look_up(const WeightSource *ws, const char *name) {
    StTensor key = {.name = name};
    return ws->count ? bsearch(&key, ws->tensors, ws->count, sizeof key, ws_by_name) : NULL;
}

static Status name_tensors(WeightSource *ws, bool raw) {
    char buf[NAME_ROOM];
    Prefix p = raw ? (Prefix){.text = "", .form = NAMES_LAVIS} : detect(ws);
    ws->form = p.form;
    Status st = (ws->prefix = mem_format("%.*s", (int)p.n, p.text)) ? OK : ERR_MEMORY;
    for (size_t i = 0; i < ws->count && st == OK && !raw; i++) {
        const char *name = ws->tensors[i].name;
        if (strncmp(name, ws->prefix, p.n) != 0) continue;
        if (name_to_lavis(ws->form, name + p.n, buf)) st = rename_tensor(&ws->tensors[i], buf);
        /* in the wrapper, but none of ours: the rest of its name is its own */
        else if (p.n && strlen(name) > p.n) st = rename_tensor(&ws->tensors[i], name + p.n);
    }
    if (st != OK) return st;
    if (ws->count) qsort(ws->tensors, ws->count, sizeof *ws->tensors, ws_by_name);
    for (size_t i = 1; i < ws->count; i++)
        /* two wrappers in one file: which is meant nobody can say */
        if (ws_by_name(&ws->tensors[i - 1], &ws->tensors[i]) == 0)
            return err_set(ERR_FORMAT, "%s: two tensors stand for %s", ws->path, ws->tensors[i].name);
    return OK;
}

/* A file may hold a tied tensor under its alias only; it then takes the name it stands for. */
static Status resolve_aliases(WeightSource *ws) {
    Status st = OK;
    for (int k = 0; k < NAME_ALIASES && st == OK; k++) {
        const StTensor *t = look_up(ws, name_aliases[k].alias);
        if (!t || look_up(ws, name_aliases[k].real)) continue;
        /* its place in the order may be another now */
        st = rename_tensor(&ws->tensors[t - ws->tensors], name_aliases[k].real);
        qsort(ws->tensors, ws->count, sizeof *ws->tensors, ws_by_name);
    }
    return st;
}

/* ---- public ------------------------------------------------------------------------------------------------------ */

/* "openai/clip-vit-base-patch32": one slash, and no such folder. */
static bool is_hub_name(const char *path) {
    const char *slash = strchr(path, '/');
    struct stat info;
    char *owner = slash && slash > path && path[0] != '.' && !strchr(slash + 1, '/')
                      ? mem_format("%.*s", (int)(slash - path), path) : NULL;
    bool hub = owner && stat(owner, &info) != 0;
    free(owner);
    return hub;
}

static Status open_source(WeightSource **out, const char *path, bool raw, CkptWarn *warn, void *ctx) {
    struct stat info;
    *out = NULL;
    if (stat(path, &info) != 0)
        return err_set(ERR_IO, "%s: cannot be opened: %s%s", path, strerror(errno),
                       errno == ENOENT && is_hub_name(path)
                           ? "; nothing is downloaded here: hf download NAME --local-dir FOLDER "
                       "fetches what the hub calls so" : "");
    WeightSource *ws = mem_new(1, sizeof *ws);
    if (!ws) return ERR_MEMORY;
    ws->in_folder = S_ISDIR(info.st_mode);
    Status st = ws->in_folder ? open_directory(ws, path, warn, ctx)
                : is_pointer(path) ? open_pointer(ws, path) : open_only(ws, path);
    if (st == OK) st = list_tensors(ws);
    if (st == OK) st = name_tensors(ws, raw);
    if (st == OK && !raw) st = resolve_aliases(ws);
    if (st == OK) *out = ws;
    else ws_close(ws);
    return st;
}

Status ws_open(WeightSource **ws, const char *path, CkptWarn *warn, void *ctx) {
    return open_source(ws, path, false, warn, ctx);
}

Status ws_open_raw(WeightSource **ws, const char *path) { return open_source(ws, path, true, NULL, NULL); }

void ws_close(WeightSource *ws) {
    if (!ws) return;
    for (size_t i = 0; i < ws->count; i++) free((char *)(uintptr_t)ws->tensors[i].name);
    free(ws->tensors);
    ckpt_close(ws->ckpt);
    for (size_t i = 0; i < ws->nfiles; i++) {
        st_close(ws->files[i].st);
        pth_close(ws->files[i].pth);
    }
    mem_free(ws->files, ws->path, ws->prefix, ws);
}

const StTensor *ws_find(const WeightSource *ws, const char *lavis_name) {
    const char *real = name_alias(lavis_name); /* tied tensors are kept once, under the name that is real */
    return look_up(ws, real ? real : lavis_name);
}

size_t ws_count(const WeightSource *ws) { return ws->count; }
const StTensor *ws_at(const WeightSource *ws, size_t i) { return &ws->tensors[i]; }
NameForm ws_form(const WeightSource *ws) { return ws->form; }
const char *ws_prefix(const WeightSource *ws) { return ws->prefix; }
bool ws_is_script(const WeightSource *ws) { return ws->nfiles && ws->files[0].pth && pth_is_script(ws->files[0].pth); }
bool ws_in_folder(const WeightSource *ws) { return ws->in_folder; }
const char *ws_path(const WeightSource *ws) { return ws->path; }
const Ckpt *ws_checkpoint(const WeightSource *ws) { return ws->ckpt; }
