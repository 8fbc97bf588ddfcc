/* vision_tower: see vision_tower.h. */
#include "checkpoints/vision_tower.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

/* How a reader spells what vision_parts has rows for. last: the last of several spellings, else the first. thirds: the
 * bias of q and of v apart, and none of k, which would add the same to all scores of a query. flat: no sides of 1. */
typedef struct { VisionDialect dialect; const char *front; bool last, thirds, flat; } Layout;
static const Layout hf = {DIALECT_HF_CLIP, "vision_model.", .last = true},
                    lavis_eva = {DIALECT_TIMM, "visual_encoder.", .thirds = true},
                    lavis_clip = {DIALECT_OPENAI, "visual_encoder.", .flat = true};

/* In the order in which they are written: what stands once, then block by block. */
static const int written[] = {
    VIT_TOKENS, VIT_POSITION, VIT_PATCH_W, VIT_PATCH_B, VIT_PRE_W, VIT_PRE_B,
    VIT_NORM1_W, VIT_NORM1_B, VIT_QKV_W, VIT_QKV_B, VISION_Q_BIAS, VISION_V_BIAS, VIT_OUT_W, VIT_OUT_B, VIT_NORM2_W,
    VIT_NORM2_B, VIT_UP_W, VIT_UP_B, VIT_DOWN_W, VIT_DOWN_B};
enum { WRITTEN = sizeof written / sizeof *written, ONCE = 6, NAME_SPACE = 128 };

typedef struct { int row, layer; char name[NAME_SPACE]; } Part;
typedef struct { const Vision *e; const Layout *l; int grid; Part *part; } Maker;

static bool writes(const Vision *e, const Layout *l, int row) {
    /* one form of the bias or the other */
    if (row == VIT_QKV_B) return !l->thirds;
    if (row >= VIT_ROWS) return l->thirds;
    return row == VIT_PATCH_B ? e->has & HAS_PATCH_BIAS : (row != VIT_PRE_W && row != VIT_PRE_B) || e->d.pre;
}

static Status make(const void *ctx, size_t i, float *dst) {
    const Maker *m = ctx;
    const Part *p = &m->part[i];
    size_t E = (size_t)m->e->d.E;
    if (p->row < VIT_ROWS) return vision_part(m->e, p->row, p->layer, m->grid, m->grid, dst);
    float *all = mem_new(3 * E, sizeof *all);
    Status st = all ? vision_part(m->e, VIT_QKV_B, p->layer, m->grid, m->grid, all) : ERR_MEMORY;
    /* made whole, as the model has it; the file has no k */
    if (st == OK) memcpy(dst, all + (p->row == VISION_V_BIAS ? 2 * E : 0), E * sizeof *dst);
    free(all);
    return st;
}

static void shape_of(StTensor *t, const char *letters, const Maker *m) {
    const VitDims *d = &m->e->d;
    for (letters += m->l->flat ? strspn(letters, "1") : 0; *letters; letters++) {
        int64_t n = *letters == 'E' ? d->E : *letters == 'A' ? 3LL * d->E : *letters == 'F' ? d->F
                  : *letters == 'p' ? d->p : *letters == 'N' ? 1 + (int64_t)m->grid * m->grid : *letters - '0';
        t->shape[t->ndim++] = n;
    }
}

static void add(HfTower *t, Maker *m, StTensor *out, int row, int layer) {
    const VisionNames *names = &vision_names[m->l->dialect];
    Part *p = &m->part[t->n];
    if (!writes(m->e, m->l, row)) return;                    /* nor has every dialect a name for it */
    const char *name = vision_part_name(names, vision_parts[row].name), *bar = strrchr(name, '|');
    *p = (Part){.row = row, .layer = layer};
    size_t front = strlen(strcpy(p->name, m->l->front));
    vision_spell(p->name + front, NAME_SPACE - front, names->block, layer, m->l->last && bar ? bar + 1 : name,
                 vision_parts[row].suffix);
    out[t->n] = (StTensor){.name = p->name, .dtype = DT_F32};
    shape_of(&out[t->n++], vision_parts[row].shape, m);
}

static const Layout *layout_of(const Vision *e, VisionTowerKind kind) {
    bool plain = e->print->family == FAMILY_CLIP && e->d.act == ACT_GELU_QUICK && e->d.pre && !(e->has & HAS_SCALE);
    if (e->print->family == FAMILY_EVA_G) return kind == VISION_TOWER_HF ? &hf : &lavis_eva;
    return kind == VISION_TOWER_LAVIS && plain ? &lavis_clip : NULL;
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
    Maker *m = mem_new(1, sizeof *m);
    size_t most = WRITTEN * (size_t)(1 + e->d.L);
    StTensor *out = mem_new(most, sizeof *out);
    Part *part = mem_new(most, sizeof *part);
    t->ctx = m, t->tensors = out, t->make = make;
    if (!m || !out || !part) {
        free(part);
        return ERR_MEMORY;
    }
    *m = (Maker){e, layout_of(e, kind), (size ? size : e->custom.image) / e->d.p, part};
    for (int i = 0; i < ONCE; i++) add(t, m, out, written[i], -1);
    for (int layer = 0; layer < vit_blocks(&e->d, tap); layer++)
        for (int i = ONCE; i < WRITTEN; i++) add(t, m, out, written[i], layer);
    return OK;
}

void vision_tower_free(HfTower *t) {
    Maker *m = (Maker *)(uintptr_t)t->ctx;
    if (m) free(m->part);
    mem_free(m, (void *)(uintptr_t)t->tensors);
    *t = (HfTower){0};
}
