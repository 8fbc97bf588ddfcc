/* tower: see tower.h. */
#include "tests/kit/tower.h"

#include <string.h>

#include "checkpoints/vision.h"
#include "kernels/base/mem.h"
#include "tests/kit/check.h"

#define NORMS(a, b) a ".weight=n1g:8 " a ".bias=n1b:8 " b ".weight=n2g:8 " b ".bias=n2b:8 "

const char tower_dinov3[] =
    "embeddings.cls_token=cls:1,1,8 embeddings.register_tokens=reg:1,2,8 embeddings.mask_token=mask:1,1,8 "
    "embeddings.patch_embeddings.weight=pw:8,3,2,2 embeddings.patch_embeddings.bias=pb:8 "
    NORMS("layer.0.norm1", "layer.0.norm2") "norm.weight=fg:8 norm.bias=fb:8 "
    "layer.0.attention.q_proj.weight=q:8,8 layer.0.attention.q_proj.bias=qb:8 layer.0.attention.k_proj.weight=k:8,8 "
    "layer.0.attention.v_proj.weight=v:8,8 layer.0.attention.v_proj.bias=vb:8 layer.0.attention.o_proj.weight=o:8,8 "
    "layer.0.attention.o_proj.bias=ob:8 layer.0.layer_scale1.lambda1=s1:8 layer.0.layer_scale2.lambda1=s2:8 "
    "layer.0.mlp.gate_proj.weight=gw:12,8 layer.0.mlp.gate_proj.bias=gb:12 layer.0.mlp.up_proj.weight=uw:12,8 "
    "layer.0.mlp.up_proj.bias=ub:12 layer.0.mlp.down_proj.weight=dw:8,12 layer.0.mlp.down_proj.bias=db:8 ";
const char tower_aimv2[] =
    "embeddings.patch_embed.weight=pw:8,3,2,2 embeddings.patch_embed.bias=pb:8 embeddings.rms_norm.weight=pg:8 "
    "embeddings.position_embedding.weight=pos:4,8 encoder.layers.0.rms_norm1.weight=n1g:8 rms_norm.weight=fg:8 "
    "encoder.layers.0.rms_norm2.weight=n2g:8 encoder.layers.0.attention.q_proj.weight=q:8,8 "
    "encoder.layers.0.attention.k_proj.weight=k:8,8 encoder.layers.0.attention.v_proj.weight=v:8,8 "
    "encoder.layers.0.attention.out_proj.weight=o:8,8 encoder.layers.0.ffn.gate_proj.weight=gw:12,8 "
    "encoder.layers.0.ffn.up_proj.weight=uw:12,8 encoder.layers.0.ffn.down_proj.weight=dw:8,12 ";
const char tower_eva02[] =
    "cls_token=cls:1,1,8 pos_embed=pos:5,8 patch_embed.proj.weight=pw:8,3,2,2 patch_embed.proj.bias=pb:8 "
    "fc_norm.weight=fg:8 " NORMS("blocks.0.norm1", "blocks.0.norm2")
    "blocks.0.attn.q_proj.weight=q:8,8 blocks.0.attn.q_proj.bias=qb:8 blocks.0.attn.k_proj.weight=k:8,8 "
    "blocks.0.attn.v_proj.weight=v:8,8 blocks.0.attn.v_proj.bias=vb:8 blocks.0.attn.proj.weight=o:8,8 "
    "blocks.0.attn.proj.bias=ob:8 blocks.0.mlp.fc1_g.weight=gw:12,8 blocks.0.mlp.fc1_g.bias=gb:12 "
    "blocks.0.mlp.fc1_x.weight=uw:12,8 blocks.0.mlp.fc1_x.bias=ub:12 blocks.0.mlp.fc2.weight=dw:8,12 "
    "blocks.0.mlp.fc2.bias=db:8 ";

float *tower_rows(const char *path, const float *pixels, int S, int blocks, bool normed, int heads, int *P) {
    Vision e;
    Vit v;
    Arena run, step;
    Tape t;
    const Backend *b = backend_cpu(DT_F32);
    if (vision_open(&e, path, heads) != OK) fail_msg("%s", err_message());
    assert_int_equal(arena_open(&run, "run", b, 1 << 22), OK);
    assert_int_equal(arena_open(&step, "step", b, 1 << 22), OK);
    assert_int_equal(tape_open(&t, b, &step), OK);
    assert_int_equal(vit_open(&v, &e.d, S, S, 1, b, &run), OK);
    assert_int_equal(vision_load(&e, &v), OK);
    VitPixels in = {.pixels = pixels, .type = DT_F32, .planar = true, .scale = {1, 1, 1}};
    Tensor x = vit_forward(&t, &v, &in, 1, blocks < 0 ? e.d.L : blocks, normed);
    assert_int_equal(tape_status(&t), OK);
    float *out = mem_new((size_t)tensor_count(x), sizeof *out);
    memcpy(out, x.data, (size_t)tensor_count(x) * sizeof *out);
    *P = (int)x.rows;
    tape_close(&t);
    vit_close(&v);
    arena_close(&run, b);
    arena_close(&step, b);
    vision_close(&e);
    return out;
}
