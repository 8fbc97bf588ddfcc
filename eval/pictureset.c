/* pictureset: see pictureset.h. */
#include "eval/pictureset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/make/extract.h"
#include "data/make/patches.h"
#include "data/manifest.h"
#include "eval/setup.h"
#include "kernels/base/mem.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"

/* ---- what is a picture ------------------------------------------------------------------------------------------- */

static bool holds_shards(const char *folder) {
    char **names = NULL, *manifest = mem_format("%s/manifest.json", folder);
    int64_t n = 0;
    bool found = manifest && access(manifest, F_OK) == 0;
    free(manifest);
    if (!found && manifest_scan(folder, &names, &n) != OK) err_clear();  /* what cannot be read holds none */
    mem_free_list(names, (size_t)n);
    return found || n > 0;
}

static bool is_picture(const char *path) {
    static const char *const sets[] = {".h5", ".hdf5", ".json"};
    struct stat sb;
    size_t n = strlen(path);
    if (stat(path, &sb) != 0) return false;
    if (S_ISDIR(sb.st_mode)) return !holds_shards(path);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        size_t m = strlen(sets[i]);
        if (n > m && strcmp(path + n - m, sets[i]) == 0) return false;
    }
    return true;
}

bool pictureset_is(const char *path) {
    char *first = mem_strdup(path);
    if (!first) return false;
    if (access(path, F_OK) != 0) first[strcspn(first, ",")] = 0;  /* a name may hold a comma itself */
    bool yes = is_picture(first);
    free(first);
    return yes;
}

/* ---- which encoder ----------------------------------------------------------------------------------------------- */

/* A whole BLIP-2 of Hugging Face's has its own. */
static Status own_encoder(ImageEncoder **e, const Options *o, const Backend *b) {
    Options *own = NULL;
    Status st = options_copy(&own, o);
    if (st == OK) st = options_set(own, "extract.encoder", o->run.in, NULL);
    if (st == OK) st = setup_encoder(e, own, b, NULL);
    options_free(own);
    return st;
}

/* A run on patches says in their name all that it takes to make them: "patches8-64". */
static Status encoder_of(ImageEncoder **e, const Options *o, const Origin *g, const Backend *b) {
    int patch = 0, size = 0, end = 0;
    const char *name = g->features.name ? g->features.name : "";
    bool patches = sscanf(name, "patches%d-%d%n", &patch, &size, &end) == 2 && !name[end];
    /* patches of another size than the run's would fit no weights */
    if (options_is_set(o, "extract.encoder") && (!patches || strcmp(o->extract.encoder, "patches")))
        return setup_encoder(e, o, b, NULL);
    if (patches) return patches_encoder(e, size, patch);
    if (g->tower) return own_encoder(e, o, b);
    return err_set(ERR_USAGE, "%s are pictures, and the model was trained on features of %s; extract.encoder=FOLDER "
                   "says where that is", o->data.test, name[0] ? name : "an encoder that it does not name");
}

/* ---- the set ----------------------------------------------------------------------------------------------------- */

static Status encode(const Options *o, const ImageEncoder *e, const char *pictures, const char *shard) {
    Meter m = meter_start("encode", "pictures", 0, 0);
    ExtractReport r;
    /* f32: it is read once, so its size does not matter */
    ExtractSpec s = {.images = pictures, .out = shard, .encoder = e, .dtype = DT_F32, .views = 1,
                     .skip_bad = o->extract.skip_bad, .upright = o->extract.exif, .listener = {meter_listen, &m}};
    Status st = extract(&s, &r);
    status_end();
    if (st == OK && r.skipped)
        status_say("%lld pictures left out; the first: %s", (long long)r.skipped, r.first_skipped);
    return st;
}

Status pictureset_open(Set **set, const Options *o, const Origin *g, const Backend *b, const char *path) {
    if (dist_size() > 1)
        return err_set(ERR_USAGE, "%s: pictures are taken by one process; extract makes a set of them for several",
                       path);
    const char *tmp = getenv("TMPDIR");
    char *folder = mem_format("%s/qformer-XXXXXX", tmp && *tmp ? tmp : "/tmp"), *shard = NULL;
    ImageEncoder *e = NULL;
    if (!folder) return ERR_MEMORY;
    if (!mkdtemp(folder)) {
        Status st = err_set(ERR_IO, "%s: %s", folder, strerror(errno));
        free(folder);
        return st;
    }
    signals_ask();                                           /* a folder of photos may take a while */
    Status st = (shard = mem_format("%s/pictures.h5", folder)) ? encoder_of(&e, o, g, b) : ERR_MEMORY;
    if (st == OK) st = encode(o, e, path, shard);
    if (st == OK) st = set_open(set, shard);
    if (st == OK) st = set_call(*set, path);
    encoder_free(e);
    char *part = mem_format("%s.part", shard ? shard : "");
    if (shard) unlink(shard);                                /* the set holds it open: it lives as long as it is read */
    if (part) unlink(part);
    rmdir(folder);
    mem_free(part, shard, folder);
    return st;
}
