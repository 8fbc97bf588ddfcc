/* model_fixture: see model_fixture.h. */
#include "tests/kit/model_fixture.h"

#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char fix_vocab[] =
    "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nred\nblue\ndog\ncat\nphoto\nof\non\nthe\nsofa\nstreet\nsky\n";

const char *const fix_ids[FIX_IMAGES] = {"dog/1.png", "cat/1.png", "dog/2.png",
                                                "sky/1.png", "cat/2.png", "street/1.png"};

static const char *const fix_captions[FIX_IMAGES][3] = {
    {"a red dog", "a dog on the street"}, {"a blue cat"}, {"the dog", "a dog", "red dog on the sofa"},
    {"blue sky"}, {"cat", "the cat on the sofa"}, {"the street", "a red street"}};

const char *model_path(const ModelFixture *f, const char *name) {
    static char path[16][160];
    static int next;
    char *p = path[next++ % 16];
    snprintf(p, sizeof path[0], "%s/%s", f->dir, name);
    return p;
}

int model_write_text(const char *path, const char *text) {
    FILE *o = fopen(path, "wb");
    if (!o) return 1;
    fputs(text, o);
    return fclose(o);
}

Status model_write_set(ModelFixture *f, const char *path, int64_t E) {
    ShardWriter *w;
    ShardItem item[FIX_IMAGES];
    for (int i = 0; i < FIX_IMAGES; i++) {
        int64_t n = 0;
        while (n < 3 && fix_captions[i][n]) n++;
        item[i] = (ShardItem){.image_id = fix_ids[i], .split = "test", .ncaptions = n, .captions = fix_captions[i]};
        for (int k = 0; k < FIX_P * FIX_E; k++)
            f->features[i][k] = 2 * rng_unit(philox((uint32_t)k, 0, (uint32_t)i, 0, 3, 4).v[0]) - 1;
    }
    ShardSpec spec = {.encoder = {"test", "", "", "", false}, .dtype = DT_F32, .images = FIX_IMAGES, .views = 1,
                      .P = FIX_P, .E = E, .items = item};
    Status st = shard_create(&w, path, &spec);
    for (int i = 0; st == OK && i < FIX_IMAGES; i++) st = shard_write(w, i, f->features[i], 1);
    return st == OK ? shard_finish(w) : st;
}

static Status model_open(ModelFixture *f) {
    Dims d = {.L = 2, .C = 16, .H = 2, .F = 32, .Q = 3, .E = FIX_E, .P = FIX_P, .Z = 8, .N = 24, .X = 1, .T = FIX_T};
    snprintf(f->dir, sizeof f->dir, "/tmp/qformer-test-XXXXXX");
    if (!mkdtemp(f->dir) || model_write_text(model_path(f, "vocab.txt"), fix_vocab)) return ERR_IO;
    Status st = tokenizer_open(&f->tok, model_path(f, "vocab.txt"));
    if (st == OK) st = setup_tokens(&d, f->tok);
    if (st != OK) return st;
    f->b = backend_cpu(DT_F32);
    st = qformer_open_alone(&f->model, &f->mem, &d, f->b, &(ParamsSpec){0});
    if (st != OK) return st;
    st = params_init(&f->model.params, 3, 0.3f);
    if (st == OK) st = save_weights(&f->model.params, f->model.params.w, model_path(f, "model.safetensors"));
    if (st == OK) st = model_write_set(f, model_path(f, "set.h5"), FIX_E);
    if (st == OK) st = set_open(&f->data, model_path(f, "set.h5"));
    if (st == OK) st = evalset_open(&f->set, f->data, "test", 0, &(TextSpec){f->tok, FIX_T, 50, ""});
    return st;
}

int model_setup(void **state) {
    static ModelFixture f;
    Status st = model_open(&f);
    if (st != OK) fprintf(stderr, "model_fixture: %s\n", err_message());
    *state = &f;
    return st != OK;
}

static int model_remove(const char *path, const struct stat *sb, int type, struct FTW *ftw) {
    (void)sb, (void)type, (void)ftw;
    return remove(path);
}

int model_teardown(void **state) {
    ModelFixture *f = *state;
    evalset_close(&f->set);
    set_close(f->data);
    tokenizer_close(f->tok);
    qformer_close(&f->model);
    arena_close(&f->mem, f->b);
    return nftw(f->dir, model_remove, 8, FTW_DEPTH | FTW_PHYS);
}
