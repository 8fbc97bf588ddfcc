/* vision_config: see vision_config.h. */
#include "checkpoints/vision_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/act_names.h"
#include "kernels/base/mem.h"

void vision_config_none(VisionConfig *c) { *c = (VisionConfig){.act = -1}; }

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* The first of "a|b|c" that is in the object. */
static const Json *any(const Json *o, const char *keys, const char **which) {
    static _Thread_local char key[64];                       /* lives on: messages name the spelling that was found */
    while (*keys) {
        size_t n = strcspn(keys, "|");
        snprintf(key, sizeof key, "%.*s", (int)n, keys);
        const Json *v = json_get(o, key);
        if (v && json_type(v) != J_NULL) {
            *which = key;
            return v;
        }
        keys += n + (keys[n] == '|');
    }
    return NULL;
}

/* A whole number, or the first of a list of two equal ones. */
static Status whole(int *to, const Json *o, const char *keys, int64_t most, const char *name) {
    const char *key;
    int64_t n = 0, other;
    const Json *v = any(o, keys, &key);
    if (!v) return OK;
    if (json_len(v) == 2) {                                  /* height and width: only squares are computed */
        if (!json_int(json_at(v, 1), &other) || !json_int(json_at(v, 0), &n) || n != other)
            return err_set(ERR_FORMAT, "%s: \"%s\" is not one number, nor two that are equal", name, key);
    } else if (!json_int(v, &n)) {
        return err_set(ERR_FORMAT, "%s: \"%s\" is not a whole number", name, key);
    }
    if (n < 1 || n > most)
        return err_set(ERR_FORMAT, "%s: \"%s\" is %lld; it can be 1 to %lld", name, key, (long long)n, (long long)most);
    *to = (int)n;
    return OK;
}

static Status real(double *to, const Json *o, const char *keys, double lo, double hi, const char *name) {
    const char *key;
    double x;
    const Json *v = any(o, keys, &key);
    if (!v) return OK;
    if (!json_num(v, &x) || !(x >= lo && x <= hi))
        return err_set(ERR_FORMAT, "%s: \"%s\" is not a number from %g to %g", name, key, lo, hi);
    *to = x;
    return OK;
}

static Status activation(int *to, const Json *v, const char *name) {
    const char *s = json_str(v, NULL);
    ActKind act;
    if (act_named(&act, s)) {
        *to = (int)act;
        return OK;
    }
    return v ? err_set(ERR_FORMAT, "%s: an activation \"%.40s\" is not known here", name, s ? s : "?") : OK;
}

/* timm and OpenCLIP say what the name says: vit_base_patch16_clip_quickgelu_224. */
static void named(VisionConfig *c, const char *architecture) {
    if (!architecture) return;
    snprintf(c->name, sizeof c->name, "%s", architecture);
    /* no other key says it, and the wrong GELU still gives plausible features */
    if (strstr(architecture, "quickgelu")) c->act = ACT_GELU_QUICK;
}

/* ---- the files --------------------------------------------------------------------------------------------------- */

enum { MOST_HEADS = 1024, MOST_PATCHES = 65536 };

static Status sizes(VisionConfig *c, const Json *o, const char *name) {
    const char *key;
    Status st = whole(&c->heads, o, "num_attention_heads|num_heads|heads", MOST_HEADS, name);
    if (st == OK) st = whole(&c->image, o, "image_size|img_size", PREPROCESS_MAX_SIZE, name);
    if (st == OK) st = whole(&c->patches, o, "num_patches", MOST_PATCHES, name);
    if (st == OK) st = whole(&c->reference, o, "ref_feat_shape", 4096, name);
    if (st == OK) st = real(&c->eps, o, "layer_norm_eps|rms_norm_eps", 1e-12, 1e-2, name);
    if (st == OK) st = real(&c->theta, o, "rope_theta", 1, 1e9, name);
    return st == OK ? activation(&c->act, any(o, "hidden_act|activation|act_layer", &key), name) : st;
}

/* timm's and OpenCLIP's arguments that are read here, that tensors tell of, or that change nothing. */
static const char timm_known[] =
    " patch_size embed_dim depth num_heads mlp_ratio img_size in_chans num_classes global_pool ref_feat_shape "
    "class_token reg_tokens num_reg_tokens no_embed_class init_values qkv_bias qkv_fused qk_norm pre_norm "
    "fc_norm use_fc_norm final_norm use_post_transformer_norm scale_attn_norm scale_mlp_norm scale_attn_inner "
    "act_layer dynamic_img_size strict_img_size weight_init fix_init drop_rate pos_drop_rate patch_drop_rate "
    "proj_drop_rate attn_drop_rate drop_path_rate ";
static const char openclip_known[] =
    " layers width head_width mlp_ratio patch_size image_size ls_init_value patch_dropout attentional_pool "
    "attn_pooler_queries attn_pooler_heads no_ln_pre pos_embed_type final_ln_after_pool pool_type "
    "output_tokens qk_norm scale_attn scale_fc scale_heads timm_model_name timm_model_pretrained timm_pool "
    "timm_proj timm_proj_bias timm_drop timm_drop_path ";

static bool said(const Json *v) {
    bool on = true;
    double x = 1;
    return json_type(v) != J_NULL && !(json_bool(v, &on) && !on) && !(json_num(v, &x) && x == 0);
}

/* `off`: a value that says no says nothing. */
static Status only_known(const Json *o, const char *known, bool off, const char *what, const char *name) {
    const Json *v;
    for (const char *key = json_next(o, NULL, &v); key; key = json_next(o, key, &v)) {
        char word[64];
        snprintf(word, sizeof word, " %.60s ", key);
        if (!strstr(known, word) && (!off || said(v)))
            return err_set(ERR_USAGE, "%s: \"%.60s\" in \"%s\" is not known here, and may be another way to compute",
                           name, key, what);
    }
    return OK;
}

Status vision_config_json(VisionConfig *c, const Json *doc, const char *name) {
    const Json *vision = json_get(doc, "vision_config"), *args = json_get(doc, "model_args");
    if (json_type(doc) != J_OBJECT) return err_set(ERR_FORMAT, "%s: not an object", name);
    const char *architecture = json_str(json_get(doc, "architecture"), NULL);
    const char *type = json_str(json_get(vision ? vision : doc, "model_type"), NULL);
    if (type && !c->name[0]) snprintf(c->name, sizeof c->name, "%s", type);
    c->timm |= architecture != NULL;                         /* no other maker's config.json has that key */
    if (architecture) named(c, architecture);
    Status st = sizes(c, vision ? vision : doc, name);
    if (st == OK && args) st = only_known(args, timm_known, false, "model_args", name);
    return st == OK && args ? sizes(c, args, name) : st;
}

Status vision_config_openclip(VisionConfig *c, const Json *doc, const char *name) {
    const Json *model = json_get(doc, "model_cfg"), *vision = json_get(model, "vision_cfg");
    bool quick = false;
    if (json_type(vision) != J_OBJECT)
        return err_set(ERR_FORMAT, "%s: no \"vision_cfg\" inside \"model_cfg\"", name);
    c->openclip = true;
    json_bool(json_get(model, "quick_gelu"), &quick);
    c->act = quick ? ACT_GELU_QUICK : ACT_GELU;
    const char *trunk = json_str(json_get(vision, "timm_model_name"), NULL);
    /* timm's own name says more than quick_gelu does */
    if (trunk) c->act = -1, c->timm = true;
    named(c, trunk);
    Status st = only_known(vision, openclip_known, true, "vision_cfg", name);
    if (st == OK) st = whole(&c->image, vision, "image_size", PREPROCESS_MAX_SIZE, name);
    return st == OK && !trunk ? whole(&c->head_width, vision, "head_width", 4096, name) : st;
}

typedef Status Reader(void *to, const Json *doc, const char *path);

static Status read_if_there(void *to, const char *folder, const char *file, Reader *read) {
    char *path = mem_format("%s/%s", folder, file);
    Json *doc = NULL;
    Status st = path ? OK : ERR_MEMORY;
    if (path && access(path, F_OK) == 0) {                   /* none of them must be there */
        st = json_parse_file(&doc, path);
        if (st == OK) st = read(to, doc, path);
    }
    json_free(doc);
    free(path);
    return st;
}

static Status read_openclip(void *to, const Json *doc, const char *path) {
    return vision_config_openclip(to, doc, path);
}

static Status read_config(void *to, const Json *doc, const char *path) { return vision_config_json(to, doc, path); }

Status vision_config_read(VisionConfig *c, const char *folder) {
    vision_config_none(c);
    /* first: config.json beside it is a copy for timm, and knows more */
    Status st = read_if_there(c, folder, "open_clip_config.json", read_openclip);
    return st == OK ? read_if_there(c, folder, "config.json", read_config) : st;
}

static Status pixels_timm(void *to, const Json *doc, const char *path) {
    const Json *cfg = json_get(doc, "pretrained_cfg");
    return cfg ? preprocess_read_timm(to, cfg, path) : OK;
}

static Status pixels_openclip(void *to, const Json *doc, const char *path) {
    const Json *cfg = json_get(doc, "preprocess_cfg");
    return cfg ? preprocess_read_openclip(to, cfg, path) : OK;
}

static Status pixels_transformers(void *to, const Json *doc, const char *path) {
    return preprocess_read_transformers(to, doc, path);
}

Status vision_config_pixels(Preprocess *p, const char *folder) {
    static const struct { const char *file; Reader *read; } files[] = {
        {"config.json", pixels_timm}, {"open_clip_config.json", pixels_openclip},
        {"preprocessor_config.json", pixels_transformers}};   /* the later one wins */
    Status st = OK;
    for (size_t i = 0; st == OK && i < sizeof files / sizeof *files; i++)
        st = read_if_there(p, folder, files[i].file, files[i].read);
    return st;
}
