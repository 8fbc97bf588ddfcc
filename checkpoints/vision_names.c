/* vision_names: see vision_names.h. */
#include "checkpoints/vision_names.h"

#include <stdio.h>
#include <string.h>

/* ---- dialects ---------------------------------------------------------------------------------------------------- */

#define HF_LAYERS .block = "encoder.layers.%d."
#define MLP .up = "mlp.fc1", .down = "mlp.fc2"
/* As files have it, and as transformers 5 has it in memory. */
#define HF_OLD_ATTENTION \
    .q = "attention.attention.query|attention.q_proj", .k = "attention.attention.key|attention.k_proj", \
    .v = "attention.attention.value|attention.v_proj", .out = "attention.output.dense|attention.o_proj"

const VisionNames vision_names[DIALECT_COUNT] = {
    [DIALECT_OPENAI] = {
        .cls = "class_embedding", .position = "positional_embedding", .patch = "conv1", .pre = "ln_pre",
        .post = "ln_post", .block = "transformer.resblocks.%d.", .norm1 = "ln_1", .qkv = "attn.in_proj_",
        .out = "attn.out_proj", .scale1 = "ls_1.gamma", .norm2 = "ln_2", .up = "mlp.c_fc", .down = "mlp.c_proj",
        .scale2 = "ls_2.gamma"},
    [DIALECT_HF_CLIP] = {                                    /* also SigLIP, and EVA-g in BLIP-2 */
        .cls = "embeddings.class_embedding",
        .position = "embeddings.position_embedding.weight|embeddings.position_embedding",
        .patch = "embeddings.patch_embedding", .pre = "pre_layrnorm", .post = "post_layernorm", HF_LAYERS,
        .norm1 = "layer_norm1", .qkv = "self_attn.qkv", .q = "self_attn.q_proj", .k = "self_attn.k_proj",
        .v = "self_attn.v_proj", .q_bias = "self_attn.q_bias", .v_bias = "self_attn.v_bias",
        .out = "self_attn.out_proj|self_attn.projection", .norm2 = "layer_norm2", MLP},
    [DIALECT_OPENGVLAB] = {
        .cls = "embeddings.class_embedding", .position = "embeddings.position_embedding",
        .patch = "embeddings.patch_embedding", HF_LAYERS, .norm1 = "norm1", .qkv = "attn.qkv", .q_norm = "attn.q_norm",
        .k_norm = "attn.k_norm", .out = "attn.proj", .scale1 = "ls1", .norm2 = "norm2", MLP, .scale2 = "ls2"},
    [DIALECT_HF_DINOV2] = {
        .cls = "embeddings.cls_token", .registers = "embeddings.register_tokens",
        .position = "embeddings.position_embeddings", .patch = "embeddings.patch_embeddings.projection",
        .post = "layernorm", .block = "encoder.layer.%d.", .norm1 = "norm1", HF_OLD_ATTENTION,
        .scale1 = "layer_scale1.lambda1", .norm2 = "norm2", .gate = "mlp.gate_proj",
        .up = "mlp.fc1|mlp.weights_in|mlp.up_proj", .down = "mlp.fc2|mlp.weights_out|mlp.down_proj",
        .scale2 = "layer_scale2.lambda1"},
    [DIALECT_HF_INTERNVIT] = {
        .cls = "embeddings.cls_token", .position = "embeddings.position_embeddings",
        .patch = "embeddings.patch_embeddings.projection", .post = "layernorm", .block = "encoder.layer.%d.",
        .norm1 = "layernorm_before", .q = "attention.q_proj", .k = "attention.k_proj", .v = "attention.v_proj",
        .q_norm = "attention.q_norm", .k_norm = "attention.k_norm", .out = "attention.projection_layer",
        .scale1 = "lambda_1", .norm2 = "layernorm_after", MLP, .scale2 = "lambda_2"},
    [DIALECT_HF_VIT] = {
        .cls = "embeddings.cls_token", .position = "embeddings.position_embeddings",
        .patch = "embeddings.patch_embeddings.projection", .post = "layernorm", .block = "encoder.layer.%d.|layers.%d.",
        .norm1 = "layernorm_before", HF_OLD_ATTENTION, .norm2 = "layernorm_after",
        .up = "intermediate.dense|mlp.fc1", .down = "output.dense|mlp.fc2"},
    [DIALECT_HF_DINOV3] = {
        .cls = "embeddings.cls_token", .registers = "embeddings.register_tokens",
        .patch = "embeddings.patch_embeddings", .post = "norm", .block = "layer.%d.|model.layer.%d.", .norm1 = "norm1",
        .q = "attention.q_proj", .k = "attention.k_proj", .v = "attention.v_proj", .out = "attention.o_proj",
        .scale1 = "layer_scale1.lambda1", .norm2 = "norm2", .gate = "mlp.gate_proj", .up = "mlp.up_proj",
        .down = "mlp.down_proj", .scale2 = "layer_scale2.lambda1"},
    [DIALECT_HF_AIMV2] = {
        .position = "embeddings.position_embedding.weight", .patch = "embeddings.patch_embed",
        .pre = "embeddings.rms_norm", .post = "rms_norm", HF_LAYERS, .norm1 = "rms_norm1", .q = "attention.q_proj",
        .k = "attention.k_proj", .v = "attention.v_proj", .out = "attention.out_proj", .norm2 = "rms_norm2",
        .gate = "ffn.gate_proj", .up = "ffn.up_proj", .down = "ffn.down_proj"},
    [DIALECT_APPLE] = {
        .position = "preprocessor.pos_embed", .patch = "preprocessor.patchifier.proj",
        .pre = "preprocessor.patchifier.norm", .post = "trunk.post_trunk_norm", .block = "trunk.blocks.%d.",
        .norm1 = "norm_1", .qkv = "attn.qkv", .out = "attn.proj", .norm2 = "norm_2", .gate = "mlp.fc1", .up = "mlp.fc3",
        .down = "mlp.fc2"},
    [DIALECT_TIMM] = {                                       /* also Meta's DINO, LAVIS's EVA-g, BAAI's EVA-CLIP */
        .cls = "cls_token", .registers = "reg_token|register_tokens|storage_tokens", .position = "pos_embed",
        .patch = "patch_embed.proj", .pre = "norm_pre|patch_embed.norm", .post = "norm", .block = "blocks.%d.",
        .norm1 = "norm1", .qkv = "attn.qkv", .q = "attn.q_proj", .k = "attn.k_proj", .v = "attn.v_proj",
        .q_bias = "attn.q_bias", .v_bias = "attn.v_bias", .qkv_mask = "attn.qkv.bias_mask",
        .heads_norm = "attn.norm|attn.inner_attn_ln", .out = "attn.proj", .scale1 = "gamma_1|ls1.gamma",
        .norm2 = "norm2", .gate = "mlp.fc1_g|mlp.w1", .up = "mlp.fc1|mlp.fc1_x|mlp.w12|mlp.w2",
        .mlp_norm = "mlp.norm|mlp.ffn_ln", .down = "mlp.fc2|mlp.w3", .scale2 = "gamma_2|ls2.gamma"},
};

#define AT(member) offsetof(VisionNames, member)
#define WHEN(member) .when = offsetof(VitDims, member)
/* A norm, and a product whose bias and layer scale may be there. */
#define NORM(row, member, cols, ...) \
    [VIT_##row##_W] = {AT(member), "weight", cols, __VA_ARGS__}, \
    [VIT_##row##_B] = {AT(member), "bias", cols, .has = HAS_NORM_BIAS, __VA_ARGS__}
#define PRODUCT(row, member, sides, bias, ...) \
    [VIT_##row##_W] = {AT(member), "weight", sides, __VA_ARGS__}, \
    [VIT_##row##_B] = {AT(member), "bias", "E", .has = bias, __VA_ARGS__}
const VisionPart vision_parts[VISION_PARTS] = {
    PRODUCT(PATCH, patch, "E3pp", HAS_PATCH_BIAS, .scale = 0),
    [VIT_TOKENS] = {AT(cls), NULL, "11E"},
    [VIT_POSITION] = {AT(position), NULL, "1NE", WHEN(position)},
    NORM(PRE, pre, "E", WHEN(pre)),
    NORM(NORM1, norm1, "E", .when = 0),
    [VIT_QKV_W] = {AT(qkv), "weight", "AE"},
    [VIT_QKV_B] = {AT(qkv), "bias", "A"},
    [VISION_Q_BIAS] = {AT(q_bias), NULL, "E"},
    [VISION_V_BIAS] = {AT(v_bias), NULL, "E"},
    [VIT_Q_NORM] = {AT(q_norm), "weight", "E", WHEN(qk_norm)},
    [VIT_K_NORM] = {AT(k_norm), "weight", "E", WHEN(qk_norm)},
    NORM(HEADS, heads_norm, "E", WHEN(heads_norm)),
    PRODUCT(OUT, out, "EE", HAS_OUT_BIAS, .scale = AT(scale1)),
    NORM(NORM2, norm2, "E", .when = 0),
    [VIT_UP_W] = {AT(up), "weight", "FE"},
    [VIT_UP_B] = {AT(up), "bias", "F"},
    NORM(MLP, mlp_norm, "F", WHEN(mlp_norm)),
    PRODUCT(DOWN, down, "EF", HAS_MLP_BIAS, .scale = AT(scale2)),
    NORM(POST, post, "E", WHEN(post)),
};

void vision_spell(char *buf, size_t n, const char *block, int layer, const char *name, const char *suffix) {
    size_t b = strcspn(block, "|"), d = strcspn(block, "%"), m = strcspn(name, "|");
    char front[128] = "";
    /* by hand: a format that comes out of a table is one that the compiler cannot check */
    if (layer >= 0) snprintf(front, sizeof front, "%.*s%d%.*s", (int)d, block, layer, (int)(b - d - 2), block + d + 2);
    snprintf(buf, n, "%s%.*s%s%s", front, (int)m, name, suffix && name[m - 1] != '_' ? "." : "", suffix ? suffix : "");
}

const char *vision_has_text(unsigned bit) {
    static const char *const text[] = {"cls token", "registers", "position table", "patch bias", "norm in front",
                                       "norm behind", "layer scale", "norm of q and k", "norm of the heads", "gate",
                                       "norm in the feed-forward", "q and v bias", "k bias", "attention output bias",
                                       "feed-forward biases", "norm biases"};
    for (unsigned i = 0; i < sizeof text / sizeof *text; i++)
        if (bit == 1u << i) return text[i];
    return "?";
}

/* ---- fingerprints ------------------------------------------------------------------------------------------------ */

#define LN_BLOCK (HAS_NORM_BIAS | HAS_OUT_BIAS | HAS_MLP_BIAS)
#define QKV_BIAS (HAS_QV_BIAS | HAS_K_BIAS)
#define CLIP (HAS_CLS | HAS_POSITION | HAS_PRE | LN_BLOCK | QKV_BIAS)
#define OPENCLIP (CLIP & ~HAS_PRE)
#define OPENCLIP_MAY (HAS_PRE | HAS_POST | HAS_SCALE)
#define EVA_MAY (HAS_QV_BIAS | HAS_K_BIAS | HAS_POST)
#define EVA (HAS_CLS | HAS_POSITION | HAS_PATCH_BIAS | LN_BLOCK | HAS_QV_BIAS)
#define SIGLIP (HAS_POSITION | HAS_PATCH_BIAS | HAS_POST | LN_BLOCK | QKV_BIAS)
#define INTERN (HAS_CLS | HAS_PATCH_BIAS | HAS_SCALE | HAS_OUT_BIAS | HAS_MLP_BIAS)
#define INTERN_MAY (HAS_POSITION | HAS_NORM_BIAS | QKV_BIAS | HAS_QK_NORM | HAS_POST)
#define DINO2 (HAS_CLS | HAS_POSITION | HAS_PATCH_BIAS | HAS_SCALE | HAS_POST | LN_BLOCK)
#define DINO2_MAY (QKV_BIAS | HAS_REGISTERS | HAS_GATE)
#define DINO3 (HAS_CLS | HAS_PATCH_BIAS | HAS_SCALE | HAS_POST | HAS_NORM_BIAS)
#define DINO3_MAY (QKV_BIAS | HAS_OUT_BIAS | HAS_MLP_BIAS | HAS_REGISTERS | HAS_GATE)
#define AIM (HAS_PATCH_BIAS | HAS_PRE | HAS_POST | HAS_GATE)
#define AIM_MAY (HAS_POSITION | QKV_BIAS | HAS_OUT_BIAS | HAS_MLP_BIAS)
#define PE (HAS_POSITION | HAS_PRE | LN_BLOCK | QKV_BIAS)
#define PE_MAY (HAS_CLS | HAS_SCALE | HAS_POST)
#define EVA2 (EVA | HAS_GATE)
#define EVA2_MAY (HAS_POST | HAS_HEADS_NORM | HAS_MLP_NORM)
#define PLAIN (HAS_POSITION | HAS_PATCH_BIAS | LN_BLOCK)
#define PLAIN_MAY (HAS_CLS | HAS_REGISTERS | HAS_SCALE | HAS_GATE | QKV_BIAS | HAS_POST)

static const char HF_PATCH[] = "embeddings.patch_embedding.weight", TIMM_PATCH[] = "patch_embed.proj.weight";
static const char HF_PATCHES[] = "embeddings.patch_embeddings.projection.weight";
#define B0 "blocks.0."

/* What is refused by name, and why: "FILE: " and a line are a sentence. */
enum { CLIP_OR_PE, RPN, ROPE, ENORMOUS, NO_GATE, GAMMA, APART, NO_BIAS };
static const char *const refusals[] = {
    [CLIP_OR_PE] = "may be CLIP or Perception Encoder, which have the same tensors without a norm behind the last "
                   "block; beside it must lie its config.json, or one of {\"model_type\": \"clip\"} or \"pe_spatial\"",
    [RPN] = "is a ViT with its norms behind its blocks' parts (rpn); those are not computed here",
    [ROPE] = "is a ViT of timm's with rotary positions (rope); of those DINOv3, EVA-02 and Perception Encoder are "
             "computed here",
    [ENORMOUS] = "is EVA-02-CLIP-E, which has its norms behind its blocks' parts; those are not computed here",
    [NO_GATE] = "is called EVA-02, but its feed-forward has no gate",
    [GAMMA] = "has layer scale under the name of timm's rotary models, and is none of those that are computed here",
    [APART] = "has q, k and v apart as EVA-02 has, but no gate by EVA-02's names",
    [NO_BIAS] = "has no biases of q, k and v, as ViTs with their norms in front of their parts and with their norms "
                "behind (rpn), which have the same tensors; beside it must lie its config.json",
};
#define NO(why) FAMILY_COUNT, DIALECT_COUNT, why, 0
static const VisionPrint prints[] = {
    {"conv1.weight", "lavis", FAMILY_CLIP, DIALECT_OPENAI, CLIP, HAS_POST},
    {"conv1.weight", "+ln_post.weight -attn_pool.probe", FAMILY_CLIP, DIALECT_OPENAI, OPENCLIP,
     OPENCLIP_MAY},
    {"conv1.weight", "+attn_pool.probe", FAMILY_PE, DIALECT_OPENAI, PE, PE_MAY},
    {"conv1.weight", "+transformer.resblocks.0.ls_1.gamma", FAMILY_PE, DIALECT_OPENAI, PE, PE_MAY},
    {"conv1.weight", "~pe_", FAMILY_PE, DIALECT_OPENAI, PE, PE_MAY},
    {"conv1.weight", "~clip", FAMILY_CLIP, DIALECT_OPENAI, OPENCLIP, OPENCLIP_MAY},
    {"conv1.weight", "", NO(CLIP_OR_PE)},
    {HF_PATCH, "+pre_layrnorm.weight", FAMILY_CLIP, DIALECT_HF_CLIP, CLIP, HAS_POST},
    {HF_PATCH, "+encoder.layers.0.self_attn.qkv.weight", FAMILY_EVA_G, DIALECT_HF_CLIP,
     EVA & ~HAS_QV_BIAS, EVA_MAY},
    {HF_PATCH, "+encoder.layers.0.attn.qkv.weight +encoder.layers.0.ls1", FAMILY_INTERNVIT, DIALECT_OPENGVLAB, INTERN,
     INTERN_MAY},
    {HF_PATCH, "2d -embeddings.class_embedding", FAMILY_NAFLEX, DIALECT_HF_CLIP, SIGLIP, 0},
    {HF_PATCH, "-embeddings.class_embedding", FAMILY_SIGLIP, DIALECT_HF_CLIP, SIGLIP, 0},
    {HF_PATCHES, "+encoder.layer.0.layer_scale1.lambda1", FAMILY_DINOV2, DIALECT_HF_DINOV2, DINO2, DINO2_MAY},
    {HF_PATCHES, "+encoder.layer.0.lambda_1", FAMILY_INTERNVIT, DIALECT_HF_INTERNVIT, INTERN, INTERN_MAY},
    {HF_PATCHES, "+encoder.layer.0.intermediate.dense.weight", FAMILY_VIT, DIALECT_HF_VIT, PLAIN, PLAIN_MAY},
    {HF_PATCHES, "+layers.0.layernorm_before.weight", FAMILY_VIT, DIALECT_HF_VIT, PLAIN, PLAIN_MAY},
    {"embeddings.patch_embeddings.weight", "+layer.0.norm1.weight", FAMILY_DINOV3, DIALECT_HF_DINOV3, DINO3, DINO3_MAY},
    {"embeddings.patch_embeddings.weight", "+model.layer.0.norm1.weight", FAMILY_DINOV3, DIALECT_HF_DINOV3, DINO3,
     DINO3_MAY},
    {"embeddings.patch_embed.weight", "+embeddings.rms_norm.weight", FAMILY_AIMV2, DIALECT_HF_AIMV2, AIM, AIM_MAY},
    {"preprocessor.patchifier.proj.weight", "+trunk.blocks.0.norm_1.weight", FAMILY_AIMV2, DIALECT_APPLE, AIM,
     AIM_MAY},
    {TIMM_PATCH, "~_rpn", NO(RPN)},
    {TIMM_PATCH, "~_rope", NO(ROPE)},
    {TIMM_PATCH, "+storage_tokens", FAMILY_DINOV3, DIALECT_TIMM, DINO3, DINO3_MAY},
    {TIMM_PATCH, "+reg_token -pos_embed", FAMILY_DINOV3, DIALECT_TIMM, DINO3, DINO3_MAY},
    {TIMM_PATCH, "+" B0 "norm1.weight -" B0 "norm1.bias", FAMILY_AIMV2, DIALECT_TIMM, AIM, AIM_MAY},
    {TIMM_PATCH, "+norm_pre.weight +" B0 "gamma_1", FAMILY_PE, DIALECT_TIMM, PE, PE_MAY},
    {TIMM_PATCH, "+norm_pre.weight ~_pe_", FAMILY_PE, DIALECT_TIMM, PE, PE_MAY},
    {TIMM_PATCH, "+norm_pre.weight +attn_pool.latent ?", FAMILY_PE, DIALECT_TIMM, PE, PE_MAY},
    {TIMM_PATCH, "+norm_pre.weight -norm.weight -fc_norm.weight ?", NO(CLIP_OR_PE)},
    {TIMM_PATCH, "+norm_pre.weight", FAMILY_CLIP, DIALECT_TIMM, CLIP & ~HAS_CLS, HAS_CLS | HAS_POST | HAS_SCALE},
    {TIMM_PATCH, "+" B0 "attn.q_proj.bias +" B0 "mlp.fc1_g.weight", FAMILY_EVA02, DIALECT_TIMM, EVA2, EVA2_MAY},
    {TIMM_PATCH, "+" B0 "attn.q_bias +" B0 "mlp.w1.weight", FAMILY_EVA02, DIALECT_TIMM, EVA2, EVA2_MAY},
    {TIMM_PATCH, "+" B0 "attn.q_bias packed", FAMILY_EVA02, DIALECT_TIMM, EVA2, EVA2_MAY},
    {TIMM_PATCH, "+" B0 "attn.q_bias ~eva02_enormous", NO(ENORMOUS)},
    {TIMM_PATCH, "+" B0 "attn.q_bias ~eva02", NO(NO_GATE)},
    {TIMM_PATCH, "+" B0 "attn.q_bias", FAMILY_EVA_G, DIALECT_TIMM, EVA, HAS_POST},
    {TIMM_PATCH, "+reg_token -cls_token", FAMILY_VIT, DIALECT_TIMM, PLAIN, PLAIN_MAY},
    {TIMM_PATCH, "+cls_token +" B0 "ls1.gamma -norm.weight", FAMILY_INTERNVIT, DIALECT_TIMM, INTERN, INTERN_MAY},
    {TIMM_PATCH, "+cls_token +" B0 "ls1.gamma", FAMILY_DINOV2, DIALECT_TIMM, DINO2, DINO2_MAY},
    {TIMM_PATCH, "-cls_token +norm.weight +attn_pool.latent -" B0 "ls1.gamma", FAMILY_SIGLIP, DIALECT_TIMM, SIGLIP, 0},
    {TIMM_PATCH, "-cls_token +norm.weight ~siglip -" B0 "ls1.gamma", FAMILY_SIGLIP, DIALECT_TIMM, SIGLIP, 0},
    {TIMM_PATCH, "+" B0 "gamma_1", NO(GAMMA)},
    {TIMM_PATCH, "-" B0 "attn.qkv.weight", NO(APART)},
    {TIMM_PATCH, "-" B0 "attn.qkv.bias ?", NO(NO_BIAS)},
    {TIMM_PATCH, "", FAMILY_VIT, DIALECT_TIMM, PLAIN, PLAIN_MAY},
};

#define LAVIS_PREFIX "visual_encoder."
/* Longest first where one ends another. */
static const char *const prefixes[] = {
    "model.vision_tower.vision_model.", "vision_tower.vision_model.", "model.vision_tower.", "vision_tower.",
    "model.vision_model.", "vision_model.", "visual.trunk.", "visual.", LAVIS_PREFIX, "image_encoder.",
    "vision_tower.timm_model.", "timm_model.", "dinov2_with_registers.", "dinov2.", "vit.", "",
};

typedef struct { const WeightSource *ws; const char *name, *prefix; } At;

static const StTensor *find(const At *at, const char *name, size_t n) {
    char full[256];
    int w = snprintf(full, sizeof full, "%s%.*s", at->prefix, (int)n, name);
    return w > 0 && (size_t)w < sizeof full ? ws_find(at->ws, full) : NULL;
}

bool vision_packed(const StTensor *up, const StTensor *down) {
    return up && down && up->ndim == 2 && down->ndim == 2 && up->shape[0] == 2 * down->shape[1];
}

static bool packed(const At *at) {
    static const char up[] = B0 "mlp.fc1.weight", down[] = B0 "mlp.fc2.weight";
    return vision_packed(find(at, up, strlen(up)), find(at, down, strlen(down)));
}

static bool called(const At *at, const char *part, size_t n) { return memmem(at->name, strlen(at->name), part, n); }

static bool fits(const At *at, const VisionPrint *p) {
    const StTensor *patch = find(at, p->patch, strlen(p->patch));
    if (!patch) return false;
    for (const char *word = p->when; *word;) {
        size_t n = strcspn(word, " ");
        bool yes = *word == '+' ? find(at, word + 1, n - 1) != NULL : *word == '-' ? !find(at, word + 1, n - 1)
                 : *word == '~' ? called(at, word + 1, n - 1) : *word == '?' ? !*at->name
                 : *word == '2' ? patch->ndim == 2 : *word == 'l' ? strcmp(at->prefix, LAVIS_PREFIX) == 0
                 : packed(at);
        if (!yes) return false;
        word += n + (word[n] == ' ');
    }
    return true;
}

const VisionPrint *vision_recognise(const WeightSource *ws, const char *name, const char **prefix) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        for (size_t k = 0; k < sizeof prints / sizeof *prints; k++)
            if (fits(&(At){ws, name, prefixes[i]}, &prints[k])) {
                *prefix = prefixes[i];
                return &prints[k];
            }
    return NULL;
}

bool vision_ignored(const char *name) {
    static const char *const starts[] = {"head.", "attn_pool.", "fc_norm.", "rope.freqs_", "rope_embed.",
                                         "local_cls_norm.",
                                         "ln_post.", "norm.", "post_layernorm.", "mask_token", "embeddings.mask_token",
                                         "embeddings.position_ids", "classifier.", "pooler."};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strncmp(name, starts[i], strlen(starts[i])) == 0) return true;
    return strcmp(name, "proj") == 0 || strcmp(name, "head") == 0;
}

/* ---- families ---------------------------------------------------------------------------------------------------- */

const char *vision_refusal(const VisionPrint *p) { return p->family == FAMILY_COUNT ? refusals[p->must] : NULL; }

const char *vision_family_text(VisionFamily f) {
    static const char *const text[FAMILY_COUNT] = {
#define X(id, name) name,
        VISION_FAMILIES(X)
#undef X
    };
    return text[f];
}

int vision_head_size(VisionFamily f, int E) {
    static const struct { VisionFamily f; int E, D; } odd[] = {
        {FAMILY_CLIP, 1280, 80}, {FAMILY_CLIP, 1408, 88}, {FAMILY_CLIP, 1664, 104}, {FAMILY_CLIP, 1792, 112},
        {FAMILY_EVA_G, 1408, 88}, {FAMILY_SIGLIP, 1152, 72}, {FAMILY_SIGLIP, 1536, 96}, {FAMILY_NAFLEX, 1152, 72},
        {FAMILY_DINOV3, 4096, 128}, {FAMILY_PE, 1536, 96}, {FAMILY_INTERNVIT, 3200, 128}};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        if (odd[i].f == f && odd[i].E == E) return odd[i].D;
    return f == FAMILY_AIMV2 ? 128 : 64;                     /* what all others have */
}

VitResize vision_resize(VisionFamily f, VisionDialect d, unsigned has) {
    if (f == FAMILY_NAFLEX) return VIT_RESIZE_LINEAR_ANTIALIAS;
    /* Meta's own code; timm's readers resize as timm does */
    if (f == FAMILY_PE && d == DIALECT_OPENAI) return VIT_RESIZE_LINEAR;
    if (f == FAMILY_EVA_G) return VIT_RESIZE_CUBIC;
    if (d == DIALECT_TIMM || (f == FAMILY_DINOV2 && has & HAS_REGISTERS)) return VIT_RESIZE_CUBIC_ANTIALIAS;
    if (f == FAMILY_AIMV2) return VIT_RESIZE_NONE;
    return f == FAMILY_CLIP && d == DIALECT_OPENAI ? VIT_RESIZE_CUBIC_CORNERS : VIT_RESIZE_CUBIC;
}

enum Colours { COLOURS_CLIP, COLOURS_IMAGENET, COLOURS_HALF };

static void colour(Preprocess *p, enum Colours c) {
    static const float half[3] = {0.5f, 0.5f, 0.5f};
    const float *mean[] = {preprocess_clip_mean, preprocess_imagenet_mean, half};
    const float *std[] = {preprocess_clip_std, preprocess_imagenet_std, half};
    memcpy(p->mean, mean[c], sizeof p->mean);
    memcpy(p->std, std[c], sizeof p->std);
}

VisionCustom vision_custom(VisionFamily f, VisionDialect d, unsigned has) {
    static const struct {
        float eps;
        ActKind act;
        int image, edge;                /* edge 0: squash */
        VitTap tap;
        TapsKernel kernel;
        enum Colours colours;
    } table[FAMILY_COUNT] = {
        [FAMILY_CLIP] = {1e-5f, ACT_GELU, 224, 224, VIT_SECOND_LAST, TAPS_CUBIC, COLOURS_CLIP},
        [FAMILY_EVA_G] = {1e-6f, ACT_GELU, 224, 0, VIT_LAST, TAPS_CUBIC, COLOURS_CLIP},
        [FAMILY_SIGLIP] = {1e-6f, ACT_GELU_TANH, 224, 0, VIT_NORMED, TAPS_CUBIC, COLOURS_HALF},
        [FAMILY_NAFLEX] = {1e-6f, ACT_GELU_TANH, 256, 0, VIT_NORMED, TAPS_LINEAR, COLOURS_HALF},
        [FAMILY_DINOV2] = {1e-6f, ACT_GELU, 224, 256, VIT_NORMED, TAPS_CUBIC, COLOURS_IMAGENET},
        [FAMILY_DINOV3] = {1e-5f, ACT_GELU, 224, 0, VIT_NORMED, TAPS_LINEAR, COLOURS_IMAGENET},
        [FAMILY_EVA02] = {1e-6f, ACT_SILU, 448, 0, VIT_NORMED, TAPS_CUBIC, COLOURS_CLIP},
        [FAMILY_PE] = {1e-5f, ACT_GELU, 224, 0, VIT_NORMED, TAPS_LINEAR, COLOURS_HALF},
        [FAMILY_AIMV2] = {1e-5f, ACT_SILU, 224, 224, VIT_NORMED, TAPS_CUBIC, COLOURS_CLIP},
        [FAMILY_INTERNVIT] = {1e-6f, ACT_GELU, 448, 0, VIT_LAST, TAPS_CUBIC, COLOURS_IMAGENET},
        [FAMILY_VIT] = {1e-6f, ACT_GELU, 224, 248, VIT_NORMED, TAPS_CUBIC, COLOURS_HALF},
    };
    VisionCustom c = {.eps = table[f].eps, .act = table[f].act, .image = table[f].image, .tap = table[f].tap};
    c.pre = (Preprocess){.size = table[f].image, .edge = table[f].edge ? table[f].edge : table[f].image,
                         .squash = !table[f].edge, .kernel = table[f].kernel, .in_float = f == FAMILY_DINOV3,
                         .half_even = d == DIALECT_TIMM};
    colour(&c.pre, table[f].colours);
    if (f == FAMILY_CLIP && d != DIALECT_TIMM) c.act = ACT_GELU_QUICK;     /* of OpenAI and LAVIS; others say theirs */
    if (has & HAS_HEADS_NORM) c.pre.squash = false, c.image = 224, preprocess_set_size(&c.pre, 224); /* EVA-02-CLIP */
    /* there is no norm to go through */
    if (c.tap == VIT_NORMED && !(has & HAS_POST)) c.tap = VIT_LAST;
    if (has & HAS_GATE) c.act = ACT_SILU;
    return c;
}
