/* vision_tower: see vision_tower.h. */
#include "checkpoints/vision_tower.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

/* A row of the table (vit.h), its name there, and its shape in letters. LAVIS keeps the thirds of EVA-g's bias apart,
 * and has none for k: it would add the same to all scores of a query. */
typedef struct { int row; const char *name, *shape; int third; } Row;
enum { WHOLE, Q_THIRD, V_THIRD };

static const Row hf[] = {
    {VIT_TOKENS, "embeddings.class_embedding", "11E", 0}, {VIT_POSITION, "embeddings.position_embedding", "1NE", 0},
    {VIT_PATCH_W, "embeddings.patch_embedding.weight", "E3pp", 0},
    {VIT_PATCH_B, "embeddings.patch_embedding.bias", "E", 0},
    {VIT_NORM1_W, "layer_norm1.weight", "E", 0}, {VIT_NORM1_B, "layer_norm1.bias", "E", 0},
    {VIT_QKV_W, "self_attn.qkv.weight", "AE", 0}, {VIT_QKV_B, "self_attn.qkv.bias", "A", 0},
    {VIT_OUT_W, "self_attn.projection.weight", "EE", 0}, {VIT_OUT_B, "self_attn.projection.bias", "E", 0},
    {VIT_NORM2_W, "layer_norm2.weight", "E", 0}, {VIT_NORM2_B, "layer_norm2.bias", "E", 0},
    {VIT_UP_W, "mlp.fc1.weight", "FE", 0}, {VIT_UP_B, "mlp.fc1.bias", "F", 0},
    {VIT_DOWN_W, "mlp.fc2.weight", "EF", 0}, {VIT_DOWN_B, "mlp.fc2.bias", "E", 0}};
static const Row lavis_eva[] = {
    {VIT_TOKENS, "cls_token", "11E", 0}, {VIT_POSITION, "pos_embed", "1NE", 0},
    {VIT_PATCH_W, "patch_embed.proj.weight", "E3pp", 0}, {VIT_PATCH_B, "patch_embed.proj.bias", "E", 0},
    {VIT_NORM1_W, "norm1.weight", "E", 0}, {VIT_NORM1_B, "norm1.bias", "E", 0},
    {VIT_QKV_W, "attn.qkv.weight", "AE", 0}, {VIT_QKV_B, "attn.q_bias", "E", Q_THIRD},
    {VIT_QKV_B, "attn.v_bias", "E", V_THIRD}, {VIT_OUT_W, "attn.proj.weight", "EE", 0},
    {VIT_OUT_B, "attn.proj.bias", "E", 0}, {VIT_NORM2_W, "norm2.weight", "E", 0}, {VIT_NORM2_B, "norm2.bias", "E", 0},
    {VIT_UP_W, "mlp.fc1.weight", "FE", 0}, {VIT_UP_B, "mlp.fc1.bias", "F", 0},
    {VIT_DOWN_W, "mlp.fc2.weight", "EF", 0}, {VIT_DOWN_B, "mlp.fc2.bias", "E", 0}};
static const Row lavis_clip[] = {
    {VIT_TOKENS, "class_embedding", "E", 0}, {VIT_POSITION, "positional_embedding", "NE", 0},
    {VIT_PATCH_W, "conv1.weight", "E3pp", 0}, {VIT_PRE_W, "ln_pre.weight", "E", 0}, {VIT_PRE_B, "ln_pre.bias", "E", 0},
    {VIT_NORM1_W, "ln_1.weight", "E", 0}, {VIT_NORM1_B, "ln_1.bias", "E", 0},
    {VIT_QKV_W, "attn.in_proj_weight", "AE", 0}, {VIT_QKV_B, "attn.in_proj_bias", "A", 0},
    {VIT_OUT_W, "attn.out_proj.weight", "EE", 0}, {VIT_OUT_B, "attn.out_proj.bias", "E", 0},
    {VIT_NORM2_W, "ln_2.weight", "E", 0}, {VIT_NORM2_B, "ln_2.bias", "E", 0},
    {VIT_UP_W, "mlp.c_fc.weight", "FE", 0}, {VIT_UP_B, "mlp.c_fc.bias", "F", 0},
    {VIT_DOWN_W, "mlp.c_proj.weight", "EF", 0}, {VIT_DOWN_B, "mlp.c_proj.bias", "E", 0}};

/* The rows of a block stand behind those that stand once. */
typedef struct { const Row *rows; size_t n; const char *front, *block; } Layout;
#define LAYOUT(rows, front, block) {rows, sizeof rows / sizeof *(rows), front, block}
static const Layout layouts[] = {LAYOUT(hf, "vision_model.", "encoder.layers."),
                                 LAYOUT(lavis_eva, "visual_encoder.", "blocks."),
                                 LAYOUT(lavis_clip, "visual_encoder.", "transformer.resblocks.")};
enum { NAME_SPACE = 128 };

static size_t once(const Layout *l) {
    size_t n = 0;
    while (l->rows[n].row < VIT_NORM1_W) n++;
    return n;
}

typedef struct { const Vision *e; const Layout *l; int grid; char (*name)[NAME_SPACE]; } Maker;

/* Row number and block, -1 outside of blocks, of tensor i. */
static const Row *row_of(const Layout *l, size_t i, int *layer) {
    size_t k = once(l), m = l->n - k;
    *layer = i < k ? -1 : (int)((i - k) / m);
    return &l->rows[i < k ? i : k + (i - k) % m];
}

static Status make(const void *ctx, size_t i, float *dst) {
    const Maker *m = ctx;
    int layer, E = m->e->d.E;
    const Row *r = row_of(m->l, i, &layer);
    if (r->third == WHOLE) return vision_part(m->e, r->row, layer, m->grid, m->grid, dst);
    float *all = mem_new(3 * (size_t)E, sizeof *all);
    Status st = all ? vision_part(m->e, r->row, layer, m->grid, m->grid, all) : ERR_MEMORY;
    if (st == OK) memcpy(dst, all + (r->third == V_THIRD ? 2 * E : 0), (size_t)E * sizeof *dst);
    free(all);
    return st;
}

static void shape_of(StTensor *t, const char *letters, const VitDims *d, int grid) {
    for (; *letters; letters++) {
        int64_t n = *letters == 'E' ? d->E : *letters == 'A' ? 3LL * d->E : *letters == 'F' ? d->F
                  : *letters == 'p' ? d->p : *letters == 'N' ? 1 + (int64_t)grid * grid : *letters - '0';
        t->shape[t->ndim++] = n;
    }
}

static const Layout *layout_of(const Vision *e, VisionTowerKind kind) {
    bool plain = e->print->family == FAMILY_CLIP && e->d.act == ACT_GELU_QUICK && e->d.pre && !(e->has & HAS_SCALE);
    if (e->print->family == FAMILY_EVA_G) return &layouts[kind == VISION_TOWER_HF ? 0 : 1];
    return kind == VISION_TOWER_LAVIS && plain ? &layouts[2] : NULL;
}

static Status check(const Vision *e, VisionTowerKind kind, VitTap tap) {
    bool lavis = kind == VISION_TOWER_LAVIS;
    if (!layout_of(e, kind))
        return err_set(ERR_USAGE, "%s: is %s; %s no other vision model than EVA-g%s", e->path,
                       vision_family_text(e->print->family), lavis ? "LAVIS has" : "transformers' BLIP-2 has",
                       lavis ? ", and CLIP with QuickGELU" : "");
    if (tap == VIT_NORMED)
        return err_set(ERR_USAGE, "%s: the features are normed by the encoder; BLIP-2 knows only the norm that it "
                       "learned", e->path);
    return OK;
}

Status vision_tower(HfTower *t, const Vision *e, VisionTowerKind kind, int size, VitTap tap) {
    *t = (HfTower){0};
    Status st = check(e, kind, tap);
    if (st != OK) return st;
    const Layout *l = layout_of(e, kind);
    Maker *m = mem_new(1, sizeof *m);
    size_t k = once(l), n = k + (l->n - k) * (size_t)vit_blocks(&e->d, tap);
    StTensor *out = mem_new(n, sizeof *out);
    char (*name)[NAME_SPACE] = mem_new(n, sizeof *name);
    t->ctx = m, t->tensors = out, t->n = n, t->make = make;
    if (!m || !out || !name) {
        free(name);
        return ERR_MEMORY;
    }
    *m = (Maker){e, l, (size ? size : e->custom.image) / e->d.p, name};
    for (size_t i = 0; i < n; i++) {
        int layer;
        const Row *r = row_of(l, i, &layer);
        if (layer < 0) snprintf(name[i], sizeof *name, "%s%s", l->front, r->name);
        else snprintf(name[i], sizeof *name, "%s%s%d.%s", l->front, l->block, layer, r->name);
        out[i] = (StTensor){.name = name[i], .dtype = DT_F32};
        shape_of(&out[i], r->shape, &e->d, m->grid);
    }
    return OK;
}

void vision_tower_free(HfTower *t) {
    Maker *m = (Maker *)(uintptr_t)t->ctx;
    if (m) free(m->name);
    free(m);
    free((void *)(uintptr_t)t->tensors);
    *t = (HfTower){0};
}
