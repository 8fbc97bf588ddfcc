/* Image encoders by their tensors' names: one set of numbers under all the spellings that it is published in; what is
 * refused; what the small files beside the weights may say. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/vision.h"
#include "kernels/base/mem.h"
#include "tests/kit/check.h"
#include "tests/kit/scratch.h"
#include "tests/kit/tower.h"
#include "tests/kit/weights.h"

static void save_text(const char *file, const char *text) { weights_text(scratch_path(file), text); }

/* ---- one model, several spellings -------------------------------------------------------------------------------- */

#define NORMS(a, b) a ".weight=n1g:8 " a ".bias=n1b:8 " b ".weight=n2g:8 " b ".bias=n2b:8 "

static const char DINOV3_META[] =                            /* the k bias is there, and masked */
    "cls_token=cls:1,1,8 storage_tokens=reg:1,2,8 mask_token=mask:1,8 patch_embed.proj.weight=pw:8,3,2,2 "
    "patch_embed.proj.bias=pb:8 rope_embed.periods=one:1 " NORMS("blocks.0.norm1", "blocks.0.norm2")
    "norm.weight=fg:8 norm.bias=fb:8 blocks.0.attn.qkv.weight=q,k,v:8,8 blocks.0.attn.qkv.bias=qb,poison,vb:8 "
    "blocks.0.attn.qkv.bias_mask=one:24 blocks.0.attn.proj.weight=o:8,8 blocks.0.attn.proj.bias=ob:8 "
    "blocks.0.ls1.gamma=s1:8 blocks.0.ls2.gamma=s2:8 blocks.0.mlp.w1.weight=gw:12,8 blocks.0.mlp.w1.bias=gb:12 "
    "blocks.0.mlp.w2.weight=uw:12,8 blocks.0.mlp.w2.bias=ub:12 blocks.0.mlp.w3.weight=dw:8,12 blocks.0.mlp.w3.bias=db:8 ";
static const char DINOV3_TIMM[] =
    "cls_token=cls:1,1,8 reg_token=reg:1,2,8 patch_embed.proj.weight=pw:8,3,2,2 patch_embed.proj.bias=pb:8 "
    NORMS("blocks.0.norm1", "blocks.0.norm2") "norm.weight=fg:8 norm.bias=fb:8 blocks.0.attn.qkv.weight=q,k,v:8,8 "
    "blocks.0.attn.q_bias=qb:8 blocks.0.attn.v_bias=vb:8 blocks.0.attn.proj.weight=o:8,8 blocks.0.attn.proj.bias=ob:8 "
    "blocks.0.gamma_1=s1:8 blocks.0.gamma_2=s2:8 blocks.0.mlp.fc1_g.weight=gw:12,8 blocks.0.mlp.fc1_g.bias=gb:12 "
    "blocks.0.mlp.fc1_x.weight=uw:12,8 blocks.0.mlp.fc1_x.bias=ub:12 blocks.0.mlp.fc2.weight=dw:8,12 "
    "blocks.0.mlp.fc2.bias=db:8 ";
static const char AIM_APPLE[] =
    "preprocessor.patchifier.proj.weight=pw:8,3,2,2 preprocessor.patchifier.proj.bias=pb:8 "
    "preprocessor.patchifier.norm.weight=pg:8 preprocessor.pos_embed=pos:4,8 trunk.blocks.0.norm_1.weight=n1g:8 "
    "trunk.blocks.0.norm_2.weight=n2g:8 trunk.post_trunk_norm.weight=fg:8 trunk.blocks.0.attn.qkv.weight=q,k,v:8,8 "
    "trunk.blocks.0.attn.proj.weight=o:8,8 trunk.blocks.0.mlp.fc1.weight=gw:12,8 trunk.blocks.0.mlp.fc3.weight=uw:12,8 "
    "trunk.blocks.0.mlp.fc2.weight=dw:8,12 ";
static const char AIM_TIMM[] =
    "patch_embed.proj.weight=pw:8,3,2,2 patch_embed.proj.bias=pb:8 patch_embed.norm.weight=pg:8 pos_embed=pos:4,8 "
    "blocks.0.norm1.weight=n1g:8 blocks.0.norm2.weight=n2g:8 norm.weight=fg:8 blocks.0.attn.qkv.weight=q,k,v:8,8 "
    "blocks.0.attn.proj.weight=o:8,8 blocks.0.mlp.fc1_g.weight=gw:12,8 blocks.0.mlp.fc1_x.weight=uw:12,8 "
    "blocks.0.mlp.fc2.weight=dw:8,12 ";
#define EVA_STEM(p) p "cls_token=cls:1,1,8 " p "pos_embed=pos:5,8 " p "patch_embed.proj.weight=pw:8,3,2,2 " \
    p "patch_embed.proj.bias=pb:8 " p "fc_norm.weight=fg:8 " NORMS(p "blocks.0.norm1", p "blocks.0.norm2")
static const char EVA_PACKED[] = EVA_STEM("")
    "blocks.0.attn.qkv.weight=q,k,v:8,8 blocks.0.attn.q_bias=qb:8 blocks.0.attn.v_bias=vb:8 "
    "blocks.0.attn.proj.weight=o:8,8 blocks.0.attn.proj.bias=ob:8 blocks.0.mlp.fc1.weight=gw,uw:12,8 "
    "blocks.0.mlp.fc1.bias=gb,ub:12 blocks.0.mlp.fc2.weight=dw:8,12 blocks.0.mlp.fc2.bias=db:8 ";
static const char EVA_BAAI[] = EVA_STEM("visual.") "logit_scale=scale:1 text.transformer.x=t:2 "
    "visual.blocks.0.attn.q_bias=qb:8 visual.blocks.0.attn.v_bias=vb:8 visual.blocks.0.attn.q_proj.weight=q:8,8 "
    "visual.blocks.0.attn.k_proj.weight=k:8,8 visual.blocks.0.attn.v_proj.weight=v:8,8 "
    "visual.blocks.0.attn.proj.weight=o:8,8 visual.blocks.0.attn.proj.bias=ob:8 visual.blocks.0.mlp.w1.weight=gw:12,8 "
    "visual.blocks.0.mlp.w1.bias=gb:12 visual.blocks.0.mlp.w2.weight=uw:12,8 visual.blocks.0.mlp.w2.bias=ub:12 "
    "visual.blocks.0.mlp.w3.weight=dw:8,12 visual.blocks.0.mlp.w3.bias=db:8 ";

static const char DINOV2_HF[] =
    "embeddings.cls_token=cls:1,1,8 embeddings.mask_token=mask:1,8 embeddings.position_embeddings=pos:1,5,8 "
    "embeddings.patch_embeddings.projection.weight=pw:8,3,2,2 embeddings.patch_embeddings.projection.bias=pb:8 "
    NORMS("encoder.layer.0.norm1", "encoder.layer.0.norm2") "layernorm.weight=fg:8 layernorm.bias=fb:8 "
    "encoder.layer.0.attention.attention.query.weight=q:8,8 encoder.layer.0.attention.attention.query.bias=qb:8 "
    "encoder.layer.0.attention.attention.key.weight=k:8,8 encoder.layer.0.attention.attention.key.bias=kb:8 "
    "encoder.layer.0.attention.attention.value.weight=v:8,8 encoder.layer.0.attention.attention.value.bias=vb:8 "
    "encoder.layer.0.attention.output.dense.weight=o:8,8 encoder.layer.0.attention.output.dense.bias=ob:8 "
    "encoder.layer.0.layer_scale1.lambda1=s1:8 encoder.layer.0.layer_scale2.lambda1=s2:8 "
    "encoder.layer.0.mlp.weights_in.weight=gw,uw:12,8 encoder.layer.0.mlp.weights_in.bias=gb,ub:12 "
    "encoder.layer.0.mlp.weights_out.weight=dw:8,12 encoder.layer.0.mlp.weights_out.bias=db:8 ";
static const char DINOV2_MEMORY[] =                          /* as transformers 5 names it until it saves it */
    "embeddings.cls_token=cls:1,1,8 embeddings.mask_token=mask:1,8 embeddings.position_embeddings=pos:1,5,8 "
    "embeddings.patch_embeddings.projection.weight=pw:8,3,2,2 embeddings.patch_embeddings.projection.bias=pb:8 "
    NORMS("encoder.layer.0.norm1", "encoder.layer.0.norm2") "layernorm.weight=fg:8 layernorm.bias=fb:8 "
    "encoder.layer.0.attention.q_proj.weight=q:8,8 encoder.layer.0.attention.q_proj.bias=qb:8 "
    "encoder.layer.0.attention.k_proj.weight=k:8,8 encoder.layer.0.attention.k_proj.bias=kb:8 "
    "encoder.layer.0.attention.v_proj.weight=v:8,8 encoder.layer.0.attention.v_proj.bias=vb:8 "
    "encoder.layer.0.attention.o_proj.weight=o:8,8 encoder.layer.0.attention.o_proj.bias=ob:8 "
    "encoder.layer.0.layer_scale1.lambda1=s1:8 encoder.layer.0.layer_scale2.lambda1=s2:8 "
    "encoder.layer.0.mlp.gate_proj.weight=gw:12,8 encoder.layer.0.mlp.gate_proj.bias=gb:12 "
    "encoder.layer.0.mlp.up_proj.weight=uw:12,8 encoder.layer.0.mlp.up_proj.bias=ub:12 "
    "encoder.layer.0.mlp.down_proj.weight=dw:8,12 encoder.layer.0.mlp.down_proj.bias=db:8 ";
static const char VIT_TIMM[] =
    "cls_token=cls:1,1,8 pos_embed=pos:1,5,8 patch_embed.proj.weight=pw:8,3,2,2 patch_embed.proj.bias=pb:8 "
    NORMS("blocks.0.norm1", "blocks.0.norm2") "norm.weight=fg:8 norm.bias=fb:8 blocks.0.attn.qkv.weight=q,k,v:8,8 "
    "blocks.0.attn.qkv.bias=qb,kb,vb:8 blocks.0.attn.proj.weight=o:8,8 blocks.0.attn.proj.bias=ob:8 "
    "blocks.0.mlp.fc1.weight=uw:12,8 blocks.0.mlp.fc1.bias=ub:12 blocks.0.mlp.fc2.weight=dw:8,12 "
    "blocks.0.mlp.fc2.bias=db:8 ";
static const char VIT_HF[] =
    "vit.embeddings.cls_token=cls:1,1,8 vit.embeddings.position_embeddings=pos:1,5,8 classifier.weight=head:3,8 "
    "vit.embeddings.patch_embeddings.projection.weight=pw:8,3,2,2 vit.embeddings.patch_embeddings.projection.bias=pb:8 "
    NORMS("vit.encoder.layer.0.layernorm_before", "vit.encoder.layer.0.layernorm_after")
    "vit.layernorm.weight=fg:8 vit.layernorm.bias=fb:8 "
    "vit.encoder.layer.0.attention.attention.query.weight=q:8,8 "
    "vit.encoder.layer.0.attention.attention.query.bias=qb:8 "
    "vit.encoder.layer.0.attention.attention.key.weight=k:8,8 vit.encoder.layer.0.attention.attention.key.bias=kb:8 "
    "vit.encoder.layer.0.attention.attention.value.weight=v:8,8 "
    "vit.encoder.layer.0.attention.attention.value.bias=vb:8 "
    "vit.encoder.layer.0.attention.output.dense.weight=o:8,8 vit.encoder.layer.0.attention.output.dense.bias=ob:8 "
    "vit.encoder.layer.0.intermediate.dense.weight=uw:12,8 vit.encoder.layer.0.intermediate.dense.bias=ub:12 "
    "vit.encoder.layer.0.output.dense.weight=dw:8,12 vit.encoder.layer.0.output.dense.bias=db:8 ";

/* The same features from both files, to the bit. */
static void same_model(const char *one, const char *other, bool normed) {
    float pixels[48], *a, *b;
    int P, Q;
    weights_fill(pixels, 48, "pixels", 6);
    save_text("a.safetensors", one);
    save_text("b.safetensors", other);
    a = tower_rows(scratch_path("a.safetensors"), pixels, 4, -1, normed, 2, &P);
    b = tower_rows(scratch_path("b.safetensors"), pixels, 4, -1, normed, 2, &Q);
    assert_int_equal(P, Q);
    assert_memory_equal(a, b, (size_t)P * 8 * sizeof *a);
    assert_true(isfinite(a[0]) && a[0] != a[8]);
    free(a);
    free(b);
}

/* OpenAI's own file is a TorchScript archive: the same encoder as from its state dict, in halves as it is. */
static void torchscript(void **state) {
    (void)state;
    static const char pth[] = "tests/golden/pth/script.pth", st[] = "tests/golden/pth/script.safetensors";
    float pixels[48], *a, *b;
    int P, Q;
    Vision e;
    weights_fill(pixels, 48, "pixels", 6);
    assert_int_equal(vision_open(&e, st, 2), ERR_USAGE);       /* which of a state dict nobody knows */
    assert_non_null(strstr(err_message(), "nothing says whether this CLIP computes with GELU or QuickGELU"));
    a = tower_rows(pth, pixels, 4, -1, false, 2, &P);
    char *copy = mem_format("cp %s %s", st, scratch_path("script.safetensors"));
    assert_int_equal(system(copy), 0);
    free(copy);
    scratch_write("config.json", "{\"hidden_act\": \"quick_gelu\"}");
    b = tower_rows(scratch_path("script.safetensors"), pixels, 4, -1, false, 2, &Q);
    unlink(scratch_path("config.json"));
    assert_true(P == 5 && Q == 5);
    assert_memory_equal(a, b, 5 * 8 * sizeof *a);
    free(a);
    free(b);
    assert_int_equal(vision_open(&e, pth, 2), OK);
    assert_true(e.print->family == FAMILY_CLIP && e.d.act == ACT_GELU_QUICK && e.custom.image == 4);
    vision_close(&e);
}

/* A block of layer scale without a norm behind the last is InternViT's, with one DINOv2's. */
static void told_apart(void **state) {
    (void)state;
    static const char text[] =
        "cls_token=cls:1,1,8 pos_embed=pos:1,5,8 patch_embed.proj.weight=pw:8,3,2,2 patch_embed.proj.bias=pb:8 "
        NORMS("blocks.0.norm1", "blocks.0.norm2") "blocks.0.attn.qkv.weight=q,k,v:8,8 blocks.0.attn.qkv.bias=qb,kb,vb:8 "
        "blocks.0.attn.proj.weight=o:8,8 blocks.0.attn.proj.bias=ob:8 blocks.0.ls1.gamma=s1:8 blocks.0.ls2.gamma=s2:8 "
        "blocks.0.mlp.fc1.weight=uw:12,8 blocks.0.mlp.fc1.bias=ub:12 blocks.0.mlp.fc2.weight=dw:8,12 "
        "blocks.0.mlp.fc2.bias=db:8 ";
    char both[2048];
    Vision e;
    save_text("i.safetensors", text);
    assert_int_equal(vision_open(&e, scratch_path("i.safetensors"), 2), OK);
    assert_true(e.print->family == FAMILY_INTERNVIT && e.custom.tap == VIT_LAST);
    vision_close(&e);
    snprintf(both, sizeof both, "%snorm.weight=fg:8 norm.bias=fb:8 ", text);
    save_text("j.safetensors", both);
    assert_int_equal(vision_open(&e, scratch_path("j.safetensors"), 2), OK);
    assert_true(e.print->family == FAMILY_DINOV2 && e.custom.tap == VIT_NORMED);
    vision_close(&e);
}

static void spellings(void **state) {
    (void)state;
    same_model(tower_dinov3, DINOV3_META, true);
    same_model(tower_dinov3, DINOV3_TIMM, true);
    same_model(tower_aimv2, AIM_APPLE, true);
    same_model(tower_aimv2, AIM_TIMM, true);
    same_model(DINOV2_HF, DINOV2_MEMORY, true);
    same_model(VIT_TIMM, VIT_HF, true);
    same_model(tower_eva02, EVA_PACKED, false);
    same_model(tower_eva02, EVA_BAAI, false);
}

/* The text with the line of one tensor replaced. */
static const char *with(const char *text, const char *line, const char *instead) {
    static char out[8192];
    const char *at = strstr(text, line);
    assert_non_null(at);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, instead, at + strlen(line));
    return out;
}

/* What classes of transformers leave away or add by an option of theirs: biases, registers, norms, positions. */
static void options(void **state) {
    (void)state;
    const char *none = "embeddings.register_tokens=reg:1,0,8 ", *two = "embeddings.register_tokens=reg:1,2,8 ";
    static const char config[] = "{\"num_attention_heads\": 2, \"hidden_act\": \"gelu\", \"layer_norm_eps\": 1e-5}";
    Vision e;
    save_text("model.safetensors", with(tower_dinov3, two, none));
    scratch_write("config.json", config);
    assert_int_equal(vision_open(&e, scratch_dir(), 0), OK);
    assert_true(e.d.registers == 0 && e.d.cls && e.d.act == ACT_GELU);     /* whose gate is what its config says */
    vision_close(&e);
    save_text("model.safetensors", with(tower_dinov3, "layer.0.attention.o_proj.bias=ob:8 ",
                                        "layer.0.attention.k_proj.bias=kb:8 "));
    assert_int_equal(vision_open(&e, scratch_dir(), 0), OK);
    assert_true(e.has & HAS_K_BIAS && !(e.has & HAS_OUT_BIAS));
    vision_close(&e);
    save_text("model.safetensors", DINOV2_HF);
    assert_int_equal(vision_open(&e, scratch_dir(), 0), OK);
    assert_int_equal(e.d.act, ACT_SILU);                                   /* whose gate is not */
    vision_close(&e);
    unlink(scratch_path("config.json"));
    unlink(scratch_path("model.safetensors"));
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static void refused(const char *text, Status status, const char *sentence) {
    Vision e;
    save_text("r.safetensors", text);
    assert_int_equal(vision_open(&e, scratch_path("r.safetensors"), 2), status);
    if (!strstr(err_message(), sentence)) fail_msg("\"%s\" instead of \"%s\"", err_message(), sentence);
}

static void bad_files(void **state) {
    (void)state;
    refused("a=x:3 b=y:2,2 ", ERR_USAGE, "not an image encoder that is known here");
    refused(with(tower_aimv2, "encoder.layers.0.ffn.up_proj.weight=uw:12,8 ", ""), ERR_FORMAT,
            "has no tensor ffn.up_proj.weight of block 0, which its family needs");
    refused(with(tower_aimv2, "rms_norm.weight=fg:8 ", "rms_norm.weight=fg:9 "), ERR_FORMAT, "8 numbers were expected");
    refused(with(tower_aimv2, "=q:8,8", "=q:4,16"), ERR_FORMAT, "has the shape (4, 16); 8 x 8 numbers were expected");
    refused(with(tower_aimv2, "=pos:4,8", "=pos:6,8"), ERR_FORMAT, "the position table");
    refused(with(tower_aimv2, "=pw:8,3,2,2", "=pw:8,3,2,3"), ERR_FORMAT, "the patch weight");
    refused(with(tower_aimv2, "rms_norm.weight=fg:8 ", "rms_norm.weight=fg:8 encoder.layers.0.attention.rotor=x:3 "),
            ERR_USAGE, "1 of its tensors have no place there; the first is encoder.layers.0.attention.rotor");
    refused(with(DINOV3_TIMM, "norm.bias=fb:8 ", "norm.bias=fb:8 blocks.2.gamma_1=s1:8 "), ERR_USAGE,
            "the first is blocks.2.gamma_1");              /* a block is missing in between */
    refused(with(EVA_PACKED, "blocks.0.attn.proj.bias=ob:8 ", ""), ERR_FORMAT,
            "looks like EVA-02, but its tensors lack the attention output bias");
    refused(with(tower_dinov3, "layer.0.norm1.bias=n1b:8 ", ""), ERR_FORMAT, "lack the norm biases");
    refused(with(DINOV3_META, "=one:1 ", "=one:3 "), ERR_USAGE, "heads do not divide a width of 8");
}

/* ---- the same tensors, another model ----------------------------------------------------------------------------- */

#define STEM_TIMM(n) "cls_token=cls:1,1,8 pos_embed=pos:1," n ",8 patch_embed.proj.weight=pw:8,3,2,2 "
#define CLIP_TIMM_BLOCK NORMS("blocks.0.norm1", "blocks.0.norm2") "norm_pre.weight=pg:8 norm_pre.bias=pb:8 " \
    "blocks.0.attn.qkv.weight=q,k,v:8,8 blocks.0.attn.qkv.bias=qb,kb,vb:8 blocks.0.attn.proj.weight=o:8,8 " \
    "blocks.0.attn.proj.bias=ob:8 blocks.0.mlp.fc1.weight=uw:12,8 blocks.0.mlp.fc1.bias=ub:12 " \
    "blocks.0.mlp.fc2.weight=dw:8,12 blocks.0.mlp.fc2.bias=db:8 "
#define POOL "attn_pool.latent=lat:1,1,8 "
#define FC_NORM "fc_norm.weight=fg:8 fc_norm.bias=fb:8 "
#define FINAL "norm.weight=fg:8 norm.bias=fb:8 "
static const char NO_CLS[] = "pos_embed=pos:1,4,8 patch_embed.proj.weight=pw:8,3,2,2 ";

static const char *joined(const char *a, const char *b, const char *c) {
    static char text[32768];
    snprintf(text, sizeof text, "%s%s%s", a, b, c);
    return text;
}

/* What is opened, named by its config.json (NULL: there is none), is of the family, or refused with the sentence. */
static void read_as(const char *text, const char *architecture, VisionFamily family, const char *sentence) {
    char config[256];
    Vision e;
    save_text("model.safetensors", text);
    snprintf(config, sizeof config, "{\"architecture\": \"%s\"}", architecture ? architecture : "");
    if (architecture) scratch_write("config.json", config);
    Status st = vision_open(&e, scratch_dir(), 2);
    unlink(scratch_path("config.json"));
    unlink(scratch_path("model.safetensors"));
    if (sentence) {
        if (st == OK || !strstr(err_message(), sentence)) fail_msg("%s is not \"%s\"", err_message(), sentence);
        return;
    }
    if (st != OK) fail_msg("%s", err_message());
    assert_int_equal(e.print->family, family);
    assert_int_equal(e.d.rotary, family == FAMILY_PE ? VIT_ROTARY_PE : VIT_ROTARY_NONE);
    vision_close(&e);
}

static void clip_or_pe(void **state) {
    (void)state;
    static const char clip[] = "vit_base_patch16_clip_224", pe[] = "vit_pe_core_base_patch16_224";
    const char *cls = STEM_TIMM("5") CLIP_TIMM_BLOCK;
    read_as(joined(cls, FINAL, ""), clip, FAMILY_CLIP, NULL);
    read_as(joined(cls, FC_NORM, ""), clip, FAMILY_CLIP, NULL);                 /* pooled by the mean */
    read_as(joined(cls, POOL, FINAL), clip, FAMILY_CLIP, NULL);                 /* by attention, as PE is */
    read_as(joined(cls, POOL, FINAL), pe, FAMILY_PE, NULL);
    read_as(joined(cls, POOL, FINAL), NULL, FAMILY_PE, NULL);                   /* which is the published one */
    read_as(joined(NO_CLS, CLIP_TIMM_BLOCK, FINAL), clip, FAMILY_CLIP, NULL);
    read_as(joined(NO_CLS, CLIP_TIMM_BLOCK, FC_NORM), clip, FAMILY_CLIP, NULL);
    read_as(joined(NO_CLS, CLIP_TIMM_BLOCK, ""), "vit_pe_lang_large_patch14_448", FAMILY_PE, NULL);
    read_as(joined(cls, "blocks.0.gamma_1=s1:8 blocks.0.gamma_2=s2:8 ", ""), NULL, FAMILY_PE, NULL);
    read_as(cls, NULL, FAMILY_PE, "may be CLIP or Perception Encoder, which have the same tensors");
    read_as(joined(cls, FINAL, ""), NULL, FAMILY_CLIP, "whether this CLIP computes with GELU or QuickGELU");
}

static void other_ways(void **state) {
    (void)state;
    const char *gamma = joined(VIT_TIMM, "blocks.0.gamma_1=s1:8 blocks.0.gamma_2=s2:8 ", "");
    read_as(gamma, "vit_base_patch16_rope_ape_224", FAMILY_VIT, "rotary positions (rope)");
    read_as(gamma, NULL, FAMILY_VIT, "layer scale under the name of timm's rotary models");
    read_as(VIT_TIMM, "vit_base_patch16_rpn_224", FAMILY_VIT, "norms behind its blocks' parts (rpn)");
    const char *unbiased = with(VIT_TIMM, "blocks.0.attn.qkv.bias=qb,kb,vb:8 ", "");
    read_as(unbiased, NULL, FAMILY_VIT, "no biases of q, k and v");
    read_as(unbiased, "vit_base_patch16_224", FAMILY_VIT, NULL);
    const char *apart = with(tower_eva02, "blocks.0.mlp.fc1_g.weight=gw:12,8 blocks.0.mlp.fc1_g.bias=gb:12 ", "");
    read_as(apart, NULL, FAMILY_VIT, "q, k and v apart as EVA-02 has, but no gate");
}

/* A mean over patches without cls is of plain ViTs and of SigLIPs; their GELUs are not the same. */
static void which_gelu(void **state) {
    (void)state;
    const char *gap = with(VIT_TIMM, STEM_TIMM("5"), NO_CLS), *map = joined(gap, POOL, "");
    read_as(gap, NULL, FAMILY_VIT, NULL);
    read_as(gap, "vit_medium_patch16_gap_240", FAMILY_VIT, NULL);
    read_as(gap, "vit_base_patch16_siglip_gap_224", FAMILY_SIGLIP, NULL);
    read_as(map, NULL, FAMILY_SIGLIP, NULL);
}

static void small_files(void **state) {
    (void)state;
    static const struct { const char *config, *sentence; } bad[] = {
        {"[1]", "not an object"}, {"{\"num_attention_heads\": 0}", "\"num_attention_heads\" is 0; it can be 1 to"},
        {"{\"image_size\": [4, 6]}", "\"image_size\" is not one number, nor two that are equal"},
        {"{\"layer_norm_eps\": \"small\"}", "\"layer_norm_eps\" is not a number from"},
        {"{\"hidden_act\": \"mish\"}", "an activation \"mish\" is not known here"}, {"{\"hidden", "config.json:1"},
        {"{\"num_attention_heads\": 3}", "heads do not divide a width of 8"},
        {"{\"architecture\": \"eva02_x\", \"model_args\": {\"use_post_norm\": true}}",
         "\"use_post_norm\" in \"model_args\" is not known here, and may be another way to compute"}};
    Vision e;
    save_text("model.safetensors", tower_aimv2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        scratch_write("config.json", bad[i].config);
        assert_int_not_equal(vision_open(&e, scratch_dir(), 0), OK);
        if (!strstr(err_message(), bad[i].sentence)) fail_msg("\"%s\" for %s", err_message(), bad[i].config);
    }
    scratch_write("config.json", "{\"num_attention_heads\": 4, \"rms_norm_eps\": 0.001, \"image_size\": 6}");
    scratch_write("preprocessor_config.json", "{\"size\": {\"height\": 12, \"width\": 12}, \"resample\": 2,"
               " \"image_mean\": [0.1, 0.2, 0.3], \"image_std\": 0.5}");
    assert_int_equal(vision_open(&e, scratch_dir(), 0), OK);
    assert_int_equal(e.d.H, 4);
    assert_true(e.d.eps == 0.001f && e.custom.image == 6);
    const Preprocess *p = &e.custom.pre;
    assert_true(p->size == 12 && p->squash && p->kernel == TAPS_LINEAR && p->mean[1] == 0.2f && p->std[2] == 0.5f);
    vision_close(&e);
    unlink(scratch_path("config.json"));
    unlink(scratch_path("preprocessor_config.json"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spellings), cmocka_unit_test(torchscript), cmocka_unit_test(told_apart), cmocka_unit_test(options),
        cmocka_unit_test(clip_or_pe), cmocka_unit_test(other_ways), cmocka_unit_test(which_gelu),
        cmocka_unit_test(bad_files), cmocka_unit_test(small_files),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_teardown);
}
