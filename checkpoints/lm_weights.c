/* lm_weights: see lm_weights.h. */
#include "checkpoints/lm_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/lm_config.h"
#include "kernels/base/mem.h"
#include "kernels/model/lm_model.h"

/* A tensor of the language model under any of the names that files give it: as the table says, without "model." in
 * front (older OPT files), and each of them as a part of BLIP-2. */
static const StTensor *find_named(const WeightSource *ws, const char *name) {
    static const char *const fronts[] = {"", "language_model.", "model.language_model."};
    char full[NAME_ROOM];
    for (size_t i = 0; i < sizeof fronts / sizeof *fronts; i++)
        for (int bare = 0; bare < 2; bare++) {
            /* there is nothing to leave out */
            if (bare && strncmp(name, "model.", 6) != 0) continue;
            snprintf(full, sizeof full, "%s%s", fronts[i], bare ? name + 6 : name);
            const StTensor *t = ws_find(ws, full);
            if (t) return t;
        }
    return NULL;
}

static const StTensor *find_tensor(const Lm *m, const ParamTensor *t, const WeightSource *ws) {
    const char *also = m->params.table.row[t->row].also;
    const StTensor *f = find_named(ws, t->name);
    return !f && also ? find_named(ws, also) : f;
}

/* What the configuration leaves open: transformers 5 says of every T5 that its head is tied; Qwen2's biases stand in no
 * key, and Llama files may have them. */
static void settle(LmDims *d, const WeightSource *ws) {
    if (d->head == LM_HEAD_ASK) d->head = find_named(ws, "lm_head.weight") ? LM_HEAD_OWN : LM_HEAD_TIED;
    /* the others' configurations say it all */
    if (d->family != LM_LLAMA) return;
    d->qkv_bias = find_named(ws, "model.layers.0.self_attn.q_proj.bias") != NULL;
    d->out_bias = find_named(ws, "model.layers.0.self_attn.o_proj.bias") != NULL;
    d->ffn_bias = find_named(ws, "model.layers.0.mlp.down_proj.bias") != NULL;
}

/* The type of all the matrices that lm_load will read, by name, where that is one of 16 bits: f32 then need not take
 * more. */
static Status find_type(LmSource *s) {
    Backend null = *backend_null(DT_BF16);
    Arena a;
    Lm m;
    arena_measure(&a, "language model");
    Status st = lm_open(&m, &s->d, &null, &a, 1);
    s->d.held = DT_F32;
    for (int i = 0; st == OK && i < m.params.n; i++) {
        const ParamTensor *t = &m.params.tensor[i];
        const StTensor *f = t->rows > 1 ? find_tensor(&m, t, s->ws) : NULL;
        if (!f) continue;
        bool half = f->dtype == DT_F16 || f->dtype == DT_BF16, first = s->d.held == DT_F32;
        if (half && (first || f->dtype == s->d.held)) s->d.held = f->dtype;
        else { s->d.held = DT_F32; break; }
    }
    lm_close(&m);
    return st;
}

Status lm_source_open(LmSource *s, const char *folder) {
    *s = (LmSource){0};
    Status st = lm_config_read(&s->d, folder);
    if (st == OK) st = ws_open_raw(&s->ws, folder);
    if (st == OK) settle(&s->d, s->ws);
    return st == OK ? find_type(s) : st;
}

void lm_source_close(LmSource *s) {
    ws_close(s->ws);
    *s = (LmSource){0};
}

static Status check_shape(const ParamTensor *t, const StTensor *f, const char *path) {
    char found[ST_SHAPE_TEXT], wanted[ST_SHAPE_TEXT];
    StTensor want = {.ndim = t->ndim, .shape = {t->shape[0], t->shape[1]}};
    st_shape_text(&want, wanted, sizeof wanted);
    if (!f) return err_set(ERR_FORMAT, "%s: has no tensor %s %s", path, t->name, wanted);
    bool same = f->ndim == t->ndim && f->shape[0] == t->shape[0] && (t->ndim < 2 || f->shape[1] == t->shape[1]);
    /* integers are quantised weights, whose scales stand elsewhere */
    bool real = f->dtype == DT_F32 || f->dtype == DT_F16 || f->dtype == DT_BF16 || f->dtype == DT_F64;
    if (same && real) return OK;
    return err_set(ERR_FORMAT, "%s: tensor %s is %s %s, config.json asks for %s numbers", path, t->name,
                   dtype_name(f->dtype), st_shape_text(f, found, sizeof found), wanted);
}

/* T5 with a tied head multiplies its decoder's output by C^-1/2: the norm in front of the head may as well. */
static float folded(const Lm *m, const ParamTensor *t) {
    bool last = m->d.scale_head && strcmp(t->name, "decoder.final_layer_norm.weight") == 0;
    return last ? (float)(1.0 / sqrt((double)m->d.C)) : 1.0f;
}

static Status put_scaled(Lm *m, const ParamTensor *t, const StTensor *f, float scale) {
    float *x = mem_new((size_t)t->n, sizeof *x);
    if (!x) return ERR_MEMORY;
    dtype_to_f32(x, f->data, f->dtype, (size_t)t->n);
    for (int64_t i = 0; i < t->n; i++) x[i] *= scale;
    Status st = params_put(&m->params, t, 0, t->n, x, DT_F32);
    free(x);
    return st;
}

static Status load_tensor(Lm *m, const ParamTensor *t, const WeightSource *ws) {
    const StTensor *f = find_tensor(m, t, ws);
    float scale = folded(m, t);
    Status st = check_shape(t, f, ws_path(ws));
    if (st != OK) return st;
    /* straight from the mapped file; scaled ones go through f32 */
    return scale == 1.0f ? params_put(&m->params, t, 0, t->n, f->data, f->dtype) : put_scaled(m, t, f, scale);
}

Status lm_load(Lm *m, const LmSource *s) {
    Status st = OK;
    for (int i = 0; i < m->params.n && st == OK; i++) st = load_tensor(m, &m->params.tensor[i], s->ws);
    return st == OK ? lm_ready(m) : st;
}
