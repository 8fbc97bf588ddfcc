/* vision_hf: see vision_hf.h. */
#include "checkpoints/vision_hf.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/format/jsonfile.h"
#include "kernels/base/mem.h"

Status vision_hf(HfTower *t, HfDims *d, const Vision *e, int size, VitTap tap) {
    Status st = vision_tower(t, e, VISION_TOWER_HF, size, tap);
    if (st != OK) return st;
    const VitDims *v = &e->d;
    d->image_size = size ? size : e->custom.image;
    d->vision_layers = vit_blocks(v, tap), d->vision_heads = v->H, d->vision_mlp = v->F, d->patch_size = v->p;
    d->vision_act = "gelu", d->vision_eps = (double)v->eps;
    return OK;
}

/* ---- small files ------------------------------------------------------------------------------------------------- */

static Status page_begin(JsonFile *p) {
    Status st = jsonfile_open(p, 2);
    if (st == OK) jw_object(&p->w, NULL);
    return st;
}

static Status page_end(JsonFile *p, const char *folder, const char *name) {
    char *path = mem_format("%s/%s", folder, name);
    jw_end(&p->w);
    Status st = jsonfile_write(p, path ? OK : ERR_MEMORY, path);
    free(path);
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

static void square(JsonWriter *w, const char *key, int pixels) {
    jw_object(w, key);
    jw_int(w, "height", pixels);
    jw_int(w, "width", pixels);
    jw_end(w);
}

static void cut(JsonWriter *w, const Preprocess *p) {
    jw_object(w, "size");
    jw_int(w, "shortest_edge", p->edge);
    jw_end(w);
    jw_bool(w, "do_center_crop", true);
    square(w, "crop_size", p->size);
}

Status vision_hf_pixels(const char *folder, const Preprocess *p) {
    JsonFile g;
    Status st = page_begin(&g);
    if (st != OK) return st;
    jw_str(&g.w, "image_processor_type", p->squash ? "BlipImageProcessor" : "CLIPImageProcessor");
    jw_str(&g.w, "processor_class", "Blip2Processor");
    jw_bool(&g.w, "do_convert_rgb", true);
    jw_bool(&g.w, "do_resize", true);
    if (p->squash) square(&g.w, "size", p->size);
    else cut(&g.w, p);
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

Status vision_hf_tokenizer(const char *folder, int64_t V) {
    JsonFile g;
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
    JsonFile g;
    if (p->squash && p->edge != p->size)
        return err_set(ERR_USAGE, "pictures are squashed to %d and cut to %d by this encoder's recipe: no class of "
                       "transformers does that", p->edge, p->size);
    Status st = vision_hf_pixels(folder, p);
    if (st == OK) st = vision_hf_tokenizer(folder, V);
    if (st != OK || (st = page_begin(&g)) != OK) return st;
    jw_str(&g.w, "processor_class", "Blip2Processor");
    return page_end(&g, folder, "processor_config.json");
}
