/* vision_hf: see vision_hf.h. */
#include "checkpoints/vision_hf.h"

#include <stdio.h>

#include "checkpoints/config_write.h"

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

#define SQUARE(key, pixels) CONFIG_OBJECT(key), CONFIG_INT("height", pixels), CONFIG_INT("width", pixels), CONFIG_CLOSE
#define PICTURES(class) CONFIG_TEXT("image_processor_type", class), CONFIG_TEXT("processor_class", "Blip2Processor"), \
    CONFIG_BOOL("do_convert_rgb", true), CONFIG_BOOL("do_resize", true)
#define NORMED CONFIG_INT("resample", p->kernel == TAPS_CUBIC ? 3 : p->kernel == TAPS_LINEAR ? 2 : 1), \
    CONFIG_BOOL("do_rescale", true), CONFIG_NUM("rescale_factor", 1.0 / 255), CONFIG_BOOL("do_normalize", true), \
    CONFIG_COLOURS("image_mean", p->mean), CONFIG_COLOURS("image_std", p->std)
#define TOKENS CONFIG_TEXT("bos_token", "[DEC]"), CONFIG_TEXT("cls_token", "[CLS]"), \
    CONFIG_TEXT("mask_token", "[MASK]"), CONFIG_TEXT("pad_token", "[PAD]"), CONFIG_TEXT("sep_token", "[SEP]"), \
    CONFIG_TEXT("unk_token", "[UNK]")

Status vision_hf_pixels(const char *folder, const Preprocess *p) {
    static const char name[] = "preprocessor_config.json";
    if (p->squash) return CONFIG_FILE(folder, name, PICTURES("BlipImageProcessor"), SQUARE("size", p->size), NORMED);
    return CONFIG_FILE(folder, name, PICTURES("CLIPImageProcessor"), CONFIG_OBJECT("size"),
                       CONFIG_INT("shortest_edge", p->edge), CONFIG_CLOSE, CONFIG_BOOL("do_center_crop", true),
                       SQUARE("crop_size", p->size), NORMED);
}

Status vision_hf_tokenizer(const char *folder, int64_t V) {
    char dec[24];
    snprintf(dec, sizeof dec, "%lld", (long long)V - 1);     /* the last: transformers' BERT has no such word */
    Status st = CONFIG_FILE(folder, "tokenizer_config.json", CONFIG_TEXT("tokenizer_class", "BertTokenizer"),
                            CONFIG_TEXT("processor_class", "Blip2Processor"), CONFIG_BOOL("do_lower_case", true),
                            CONFIG_INT("model_max_length", 512), CONFIG_TEXT("truncation_side", "right"), TOKENS,
                            CONFIG_OBJECT("added_tokens_decoder"), CONFIG_OBJECT(dec), CONFIG_TEXT("content", "[DEC]"),
                            CONFIG_BOOL("special", true), CONFIG_CLOSE, CONFIG_CLOSE);
    return st == OK ? CONFIG_FILE(folder, "special_tokens_map.json", TOKENS) : st;
}

Status vision_hf_files(const char *folder, const Preprocess *p) {
    if (p->squash && p->edge != p->size)
        return err_set(ERR_USAGE, "pictures are squashed to %d and cut to %d by this encoder's recipe: no class of "
                       "transformers does that", p->edge, p->size);
    Status st = vision_hf_pixels(folder, p);
    return st == OK ? CONFIG_FILE(folder, "processor_config.json", CONFIG_TEXT("processor_class", "Blip2Processor"))
                    : st;
}
