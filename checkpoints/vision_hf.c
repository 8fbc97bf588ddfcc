/* vision_hf: see vision_hf.h. */
#include "checkpoints/vision_hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/outfile.h"
#include "kernels/base/mem.h"

/* A row of the table, its name there, and its shape in letters (vit.h). */
static const struct { int row; const char *name, *shape; } once[] = {
    {VIT_TOKENS, "embeddings.class_embedding", "11E"},
    {VIT_POSITION, "embeddings.position_embedding", "1NE"},
    {VIT_PATCH_W, "embeddings.patch_embedding.weight", "E3pp"},
    {VIT_PATCH_B, "embeddings.patch_embedding.bias", "E"}};
static const struct { int row; const char *name, *shape; } block[] = {
    {VIT_NORM1_W, "layer_norm1.weight", "E"}, {VIT_NORM1_B, "layer_norm1.bias", "E"},
    {VIT_QKV_W, "self_attn.qkv.weight", "AE"}, {VIT_QKV_B, "self_attn.qkv.bias", "A"},
    {VIT_OUT_W, "self_attn.projection.weight", "EE"}, {VIT_OUT_B, "self_attn.projection.bias", "E"},
    {VIT_NORM2_W, "layer_norm2.weight", "E"}, {VIT_NORM2_B, "layer_norm2.bias", "E"},
    {VIT_UP_W, "mlp.fc1.weight", "FE"}, {VIT_UP_B, "mlp.fc1.bias", "F"},
    {VIT_DOWN_W, "mlp.fc2.weight", "EF"}, {VIT_DOWN_B, "mlp.fc2.bias", "E"}};
enum { ONCE = sizeof once / sizeof *once, BLOCK = sizeof block / sizeof *block };

typedef struct { const Vision *e; int grid; char (*name)[96]; } Maker;

static Status make(const void *ctx, size_t i, float *dst) {
    const Maker *m = ctx;
    bool first = i < ONCE;
    int row = first ? once[i].row : block[(i - ONCE) % BLOCK].row;
    return vision_part(m->e, row, first ? -1 : (int)((i - ONCE) / BLOCK), m->grid, m->grid, dst);
}

static void shape_of(StTensor *t, const char *letters, const VitDims *d, int grid) {
    for (; *letters; letters++) {
        int64_t n = *letters == 'E' ? d->E : *letters == 'A' ? 3LL * d->E : *letters == 'F' ? d->F
                  : *letters == 'p' ? d->p : *letters == 'N' ? 1 + (int64_t)grid * grid : *letters - '0';
        t->shape[t->ndim++] = n;
    }
}

Status vision_hf(HfTower *t, HfDims *d, const Vision *e, int size) {
    *t = (HfTower){0};
    const VitDims *v = &e->d;
    if (e->print->family != FAMILY_EVA_G)
        return err_set(ERR_USAGE, "%s: is %s; transformers' BLIP-2 has no other vision model than EVA-g", e->path,
                       vision_family_text(e->print->family));
    Maker *m = mem_new(1, sizeof *m);
    size_t n = ONCE + BLOCK * (size_t)v->L;
    StTensor *out = mem_new(n, sizeof *out);
    char (*name)[96] = mem_new(n, sizeof *name);
    t->ctx = m, t->tensors = out, t->n = n, t->make = make;
    if (!m || !out || !name) {
        free(name);
        return ERR_MEMORY;
    }
    d->image_size = size ? size : e->custom.image;
    *m = (Maker){e, (int)d->image_size / v->p, name};
    for (size_t i = 0; i < n; i++) {
        size_t k = i < ONCE ? i : (i - ONCE) % BLOCK, l = i < ONCE ? 0 : (i - ONCE) / BLOCK;
        if (i < ONCE) snprintf(name[i], sizeof *name, "vision_model.%s", once[k].name);
        else snprintf(name[i], sizeof *name, "vision_model.encoder.layers.%zu.%s", l, block[k].name);
        out[i] = (StTensor){.name = name[i], .dtype = DT_F32};
        shape_of(&out[i], i < ONCE ? once[k].shape : block[k].shape, v, m->grid);
    }
    d->vision_layers = v->L, d->vision_heads = v->H, d->vision_mlp = v->F, d->patch_size = v->p;
    d->vision_act = "gelu", d->vision_eps = (double)v->eps;
    return OK;
}

void vision_hf_free(HfTower *t) {
    Maker *m = (Maker *)(uintptr_t)t->ctx;
    if (m) free(m->name);
    free(m);
    free((void *)(uintptr_t)t->tensors);
    *t = (HfTower){0};
}

/* ---- small files ---------------------------------------------------------------------------------------------------
 * */

typedef struct { JsonWriter w; FILE *f; char *text; size_t n; } Page;

static Status page_begin(Page *p) {
    *p = (Page){0};
    if (!(p->f = open_memstream(&p->text, &p->n))) return err_set(ERR_MEMORY, "out of memory");
    jw_begin(&p->w, p->f, 2);
    jw_object(&p->w, NULL);
    return OK;
}

static Status page_end(Page *p, const char *folder, const char *name) {
    jw_end(&p->w);
    Status st = jw_done(&p->w);
    if (fclose(p->f) != 0 && st == OK) st = err_set(ERR_MEMORY, "out of memory");
    char *path = mem_format("%s/%s", folder, name);
    if (st == OK) st = path ? outfile_put(path, p->text, p->n) : ERR_MEMORY;
    free(path);
    free(p->text);
    return st;
}

static void triple(JsonWriter *w, const char *key, const float x[3]) {
    jw_array(w, key);
    for (int c = 0; c < 3; c++) {
        char digits[32];
        snprintf(digits, sizeof digits, "%.8g", (double)x[c]);
        jw_raw(w, NULL, digits);
    }
    jw_end(w);
}

Status vision_hf_pixels(const char *folder, const Preprocess *p) {
    Page g;
    Status st = page_begin(&g);
    if (st != OK) return st;
    jw_str(&g.w, "image_processor_type", "BlipImageProcessor");
    jw_str(&g.w, "processor_class", "Blip2Processor");
    jw_bool(&g.w, "do_convert_rgb", true);
    jw_bool(&g.w, "do_resize", true);
    jw_object(&g.w, "size");
    jw_int(&g.w, "height", p->size);
    jw_int(&g.w, "width", p->size);
    jw_end(&g.w);
    jw_int(&g.w, "resample", p->kernel == TAPS_CUBIC ? 3 : p->kernel == TAPS_LINEAR ? 2 : 1);
    jw_bool(&g.w, "do_rescale", true);
    jw_num(&g.w, "rescale_factor", 1.0 / 255);
    jw_bool(&g.w, "do_normalize", true);
    triple(&g.w, "image_mean", p->mean);
    triple(&g.w, "image_std", p->std);
    return page_end(&g, folder, "preprocessor_config.json");
}

static void special_tokens(JsonWriter *w) {
    static const char *const all[][2] = {{"bos_token", "[DEC]"}, {"cls_token", "[CLS]"}, {"mask_token", "[MASK]"},
                                         {"pad_token", "[PAD]"}, {"sep_token", "[SEP]"}, {"unk_token", "[UNK]"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) jw_str(w, all[i][0], all[i][1]);
}

static Status write_tokenizer(const char *folder, int64_t V) {
    Page g;
    char id[24];
    Status st = page_begin(&g);
    if (st != OK) return st;
    jw_str(&g.w, "tokenizer_class", "BertTokenizer");
    jw_str(&g.w, "processor_class", "Blip2Processor");
    jw_bool(&g.w, "do_lower_case", true);
    jw_int(&g.w, "model_max_length", 512);
    jw_str(&g.w, "truncation_side", "right");
    special_tokens(&g.w);
    jw_object(&g.w, "added_tokens_decoder");
    snprintf(id, sizeof id, "%lld", (long long)V - 1);
    jw_object(&g.w, id);
    jw_str(&g.w, "content", "[DEC]");
    jw_bool(&g.w, "special", true);
    jw_end(&g.w);
    jw_end(&g.w);
    st = page_end(&g, folder, "tokenizer_config.json");
    if (st != OK || (st = page_begin(&g)) != OK) return st;
    special_tokens(&g.w);
    return page_end(&g, folder, "special_tokens_map.json");
}

Status vision_hf_files(const char *folder, const Preprocess *p, int64_t V) {
    Page g;
    if (!p->squash || p->edge != p->size)
        return err_set(ERR_USAGE, "pictures are squashed by transformers' BLIP-2, and by this encoder's recipe not");
    Status st = vision_hf_pixels(folder, p);
    if (st == OK) st = write_tokenizer(folder, V);
    if (st != OK || (st = page_begin(&g)) != OK) return st;
    jw_str(&g.w, "processor_class", "Blip2Processor");
    return page_end(&g, folder, "processor_config.json");
}
