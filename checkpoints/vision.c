/* vision: see vision.h. Recognition and sizes; the tensors' way into the model is vision_load.c. */
#include "checkpoints/vision.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/format/mapfile.h"
#include "data/format/path.h"
#include "kernels/base/mem.h"
#include "kernels/base/sha256.h"

enum { MOST_BLOCKS = 512, MOST_WIDTH = 65536 };

/* ---- which family ------------------------------------------------------------------------------------------------ */

static Status recognise(Vision *e) {
    e->print = vision_recognise(e->ws, e->config.name, &e->prefix);
    if (!e->print)
        return err_set(ERR_USAGE, "%s: not an image encoder that is known here (CLIP, EVA-g, SigLIP, DINOv2, DINOv3, "
                       "EVA-02, Perception Encoder, AIMv2, InternViT, timm's ViT): no patch weight under a known name "
                       "among its %zu tensors", e->path, ws_count(e->ws));
    const char *refused = vision_refusal(e->print);
    if (refused) return err_set(ERR_USAGE, "%s: %s", e->path, refused);
    e->names = &vision_names[e->print->dialect];
    return OK;
}

/* ---- what is there ----------------------------------------------------------------------------------------------- */

static unsigned found(const Vision *e, unsigned bit, const char *name, int layer, const char *suffix) {
    return name && vision_find(e, name, layer, suffix) ? bit : 0;
}

/* Meta's .pth files carry a k bias that a mask takes out again: it does not act. */
static unsigned biases(const Vision *e) {
    const VisionNames *n = e->names;
    unsigned fused = found(e, HAS_QV_BIAS | HAS_K_BIAS, n->qkv, 0, "bias");
    if (found(e, 1, n->qkv_mask, 0, NULL)) fused &= ~(unsigned)HAS_K_BIAS;
    return fused | found(e, HAS_QV_BIAS, n->q_bias, 0, NULL) | found(e, HAS_QV_BIAS, n->q, 0, "bias") |
           found(e, HAS_K_BIAS, n->k, 0, "bias");
}

/* transformers' DINOv3 without any writes a table of no rows. */
static unsigned registers_there(const Vision *e) {
    const StTensor *t = e->names->registers ? vision_find(e, e->names->registers, -1, NULL) : NULL;
    return t && st_elements(t) > 0 ? HAS_REGISTERS : 0;
}

static Status look(Vision *e) {
    const VisionNames *n = e->names;
    bool packed = vision_packed(vision_find(e, n->up, 0, "weight"), vision_find(e, n->down, 0, "weight"));
    e->has = found(e, HAS_CLS, n->cls, -1, NULL) | registers_there(e) |
             found(e, HAS_POSITION, n->position, -1, NULL) | found(e, HAS_PATCH_BIAS, n->patch, -1, "bias") |
             found(e, HAS_PRE, n->pre, -1, "weight") | found(e, HAS_POST, n->post, -1, "weight") |
             found(e, HAS_SCALE, n->scale1, 0, NULL) | found(e, HAS_QK_NORM, n->q_norm, 0, "weight") |
             found(e, HAS_HEADS_NORM, n->heads_norm, 0, "weight") | found(e, HAS_GATE, n->gate, 0, "weight") |
             (packed ? HAS_GATE : 0u) | found(e, HAS_MLP_NORM, n->mlp_norm, 0, "weight") |
             found(e, HAS_OUT_BIAS, n->out, 0, "bias") | found(e, HAS_MLP_BIAS, n->down, 0, "bias") |
             found(e, HAS_NORM_BIAS, n->norm1, 0, "bias") | biases(e);
    /* the fingerprint is by names: a file cut short has some of them */
    unsigned lacking = e->print->must & ~e->has, extra = e->has & ~(e->print->must | e->print->may);
    if (lacking)
        return err_set(ERR_FORMAT, "%s: looks like %s, but its tensors lack the %s", e->path,
                       vision_family_text(e->print->family), vision_has_text(lacking & -lacking));
    if (extra)
        return err_set(ERR_USAGE, "%s: looks like %s, but has what no such model here has: %s", e->path,
                       vision_family_text(e->print->family), vision_has_text(extra & -extra));
    return OK;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static int64_t side(int64_t n) {
    /* rounded, then tried: a root of 2^53 is not exact */
    int64_t s = (int64_t)llround(sqrt((double)n));
    return s * s == n ? s : 0;
}

static Status odd(const Vision *e, const char *what, const StTensor *t) {
    char shape[ST_SHAPE_TEXT];
    return err_set(ERR_FORMAT, "%s: the %s, %s, has the shape %s", e->path, what, t ? t->name : "which is not there",
                   t ? st_shape_text(t, shape, sizeof shape) : "()");
}

static Status patch_size(Vision *e) {
    const StTensor *t = vision_find(e, e->names->patch, -1, "weight");
    /* a convolution, or NaFlex's linear layer over pixels */
    int64_t p = t->ndim == 4 && t->shape[2] == t->shape[3] && t->shape[1] == 3 ? t->shape[3]
              : t->ndim == 2 && t->shape[1] % 3 == 0 ? side(t->shape[1] / 3) : 0;
    if (p < 1 || p > 512 || t->shape[0] < 4 || t->shape[0] > MOST_WIDTH) return odd(e, "patch weight", t);
    e->d.E = (int32_t)t->shape[0];
    e->d.p = (int32_t)p;
    return OK;
}

/* Rows of the learned table: a square, with one more for cls or without. */
static Status position_size(Vision *e) {
    const StTensor *t = e->has & HAS_POSITION ? vision_find(e, e->names->position, -1, NULL) : NULL;
    if (!t) return OK;
    int64_t E = e->d.E, rows = st_elements(t) / E, with = e->d.cls && rows > 1 ? side(rows - 1) : 0;
    if (rows * E != st_elements(t) || rows < 1 || rows > 1 << 20 || (!with && !side(rows)))
        return odd(e, "position table", t);
    e->d.cls_position = with > 0;
    e->grid = (int)(with ? with : side(rows));
    return OK;
}

static Status registers(Vision *e) {
    const StTensor *t = e->has & HAS_REGISTERS ? vision_find(e, e->names->registers, -1, NULL) : NULL;
    int64_t n = t ? st_elements(t) / e->d.E : 0;
    if (t && (n < 1 || n > 256 || n * e->d.E != st_elements(t))) return odd(e, "register tokens", t);
    e->d.registers = (int32_t)n;
    return OK;
}

static Status blocks(Vision *e) {
    /* counted by the norm in front, which every family has */
    while (e->d.L < MOST_BLOCKS && vision_find(e, e->names->norm1, e->d.L, "weight")) e->d.L++;
    const StTensor *down = vision_find(e, e->names->down, 0, "weight");
    if (!down || down->ndim != 2 || down->shape[1] < 1 || down->shape[1] > 4 * MOST_WIDTH)
        return odd(e, "second weight of the first feed-forward", down);
    e->d.F = (int32_t)down->shape[1];
    if (e->print->family == FAMILY_EVA_G && e->print->dialect == DIALECT_TIMM && e->has & HAS_POST && !e->config.timm) {
        e->dropped = 1;
        e->has &= ~(unsigned)HAS_POST;                       /* the norm behind a block that is not used */
    }
    e->d.L -= e->dropped;
    return e->d.L > 0 ? OK : err_set(ERR_FORMAT, "%s: holds no block that can be used", e->path);
}

/* Not in any tensor, but in rotary periods: config, then the caller, then the widths of the published models. */
static Status heads(Vision *e, int asked) {
    const VisionConfig *c = &e->config;
    char periods[256];
    snprintf(periods, sizeof periods, "%srope_embed.periods", e->prefix);
    const StTensor *t = ws_find(e->ws, periods);
    /* a period turns a pair of columns, along each of two axes */
    int E = e->d.E, D = t && t->ndim == 1 && t->shape[0] < MOST_WIDTH ? 4 * (int)t->shape[0] : 0;
    if (!D && c->heads) D = E % c->heads ? -1 : E / c->heads;
    if (!D && c->head_width) D = c->head_width;
    if (!D && asked) D = E % asked ? -1 : E / asked;
    /* last: what somebody says of this file is worth more */
    if (!D) D = vision_head_size(e->print->family, E);
    if (D > 0 && E % D == 0 && (D % 2 || (e->d.rotary && D % 4)))
        return err_set(ERR_USAGE, "%s: has heads of %d numbers; %s is computed here", e->path, D,
                       e->d.rotary ? "with rotary positions a multiple of 4" : "an even number");
    int said = c->heads ? c->heads : asked;
    if ((D < 1 || E % D) && !said)
        return err_set(ERR_USAGE, "%s: nothing says how many attention heads it has, and heads of %d do not divide a "
                       "width of %d; write extract.heads=...", e->path, D, E);
    if (D < 1 || E % D)
        return err_set(ERR_USAGE, "%s: %d heads do not divide a width of %d; write "
                       "extract.heads=... if you know how many there are", e->path, said, E);
    e->d.D = D;
    e->d.H = E / D;
    return OK;
}

static Status frequencies(Vision *e) {
    char name[256];
    int D = e->d.D;
    if (!e->d.rotary) return OK;
    if (!(e->frequency = mem_new((size_t)D / 4, sizeof *e->frequency))) return ERR_MEMORY;
    double theta = e->d.rotary != VIT_ROTARY_DINOV3 ? 10000 : e->config.theta > 0 ? e->config.theta : 100;
    vit_position_frequencies(e->frequency, e->d.rotary, theta, D);
    snprintf(name, sizeof name, "%srope_embed.periods", e->prefix);
    const StTensor *t = ws_find(e->ws, name);
    for (int j = 0; t && t->dtype != DT_BOOL && j < D / 4; j++) {        /* as stored: they went through bf16 */
        float period;
        dtype_to_f32(&period, (const char *)t->data + (size_t)j * (size_t)dtype_size(t->dtype), t->dtype, 1);
        if (!(period > 0)) return odd(e, "periods of rotary positions", t);
        e->frequency[j] = 2 * 3.14159265358979323846 / (double)period;
    }
    return OK;
}

/* ---- the family's custom, and what the files say over it --------------------------------------------------------- */

static VitRotary rotary_of(VisionFamily f) {
    return f == FAMILY_DINOV3 ? VIT_ROTARY_DINOV3 : f == FAMILY_EVA02 ? VIT_ROTARY_EVA02
         : f == FAMILY_PE ? VIT_ROTARY_PE : VIT_ROTARY_NONE;
}

static bool called(const Vision *e, const char *part) { return strstr(e->config.name, part) != NULL; }

/* Published files of EVA-g that say 1e-5 were computed with 1e-6 (BLIP's, under the same names, mean what they say). */
static float eps_of(const Vision *e, float custom) {
    const VisionConfig *c = &e->config;
    if (c->timm && e->print->family == FAMILY_CLIP && !called(e, "clip")) custom = 1e-6f;   /* a ViT, normed in front */
    bool wrong = e->print->family == FAMILY_EVA_G && c->eps == 1e-5 && !called(e, "blip_vision");
    return c->eps > 0 && !wrong ? (float)c->eps : custom;
}

/* The classes of transformers that take any gate say which; DINOv2's is SiLU whatever its config says. timm's SigLIP
 * classes say another GELU than the models were trained with: there the family is right. */
static ActKind act_of(const Vision *e, ActKind custom) {
    const VisionConfig *c = &e->config;
    VisionFamily f = e->print->family;
    bool gate = e->has & HAS_GATE, any_gate = f == FAMILY_DINOV3 || f == FAMILY_AIMV2;
    if (c->act >= 0 && (!gate || any_gate)) return (ActKind)c->act;
    bool timms = c->timm && (f == FAMILY_CLIP || (f == FAMILY_SIGLIP && !called(e, "siglip")));
    return timms ? ACT_GELU : custom;
}

/* OpenAI's TorchScript and what LAVIS made of it are QuickGELU's; other files of CLIP's are of both kinds. */
static Status activation_known(const Vision *e) {
    const VisionConfig *c = &e->config;
    bool openai = ws_is_script(e->ws) || strcmp(e->prefix, "visual_encoder.") == 0;
    if (e->print->family != FAMILY_CLIP || c->act >= 0 || c->openclip || c->timm || openai) return OK;
    if (e->print->dialect == DIALECT_HF_CLIP && c->name[0]) return OK;       /* whose class has a custom */
    return err_set(ERR_USAGE, "%s: nothing says whether this CLIP computes with GELU or QuickGELU; beside it must lie "
                   "its config.json or open_clip_config.json, or a config.json of {\"hidden_act\": \"quick_gelu\"} "
                   "(as OpenAI's) or \"gelu\"", e->path);
}

static void settle(Vision *e) {
    VisionFamily f = e->print->family;
    const VisionConfig *c = &e->config;
    VisionCustom *u = &e->custom;
    *u = vision_custom(f, e->print->dialect, e->has);
    u->eps = eps_of(e, u->eps);
    u->act = act_of(e, u->act);
    bool lavis = strcmp(e->prefix, "visual_encoder.") == 0;
    if (f == FAMILY_CLIP && lavis && !(e->has & HAS_POST)) u->tap = VIT_LAST;  /* LAVIS's CLIP ends where its tap is */
    e->resize = vision_resize(f, e->print->dialect, e->has | found(e, HAS_REGISTERS, e->names->registers, -1, NULL));
    if (f == FAMILY_EVA_G && c->timm) {                      /* all blocks are there: BLIP-2's tap is before the last */
        e->resize = VIT_RESIZE_CUBIC_ANTIALIAS;
        if (e->has & HAS_POST) u->tap = VIT_SECOND_LAST;
    }
    if (c->openclip && e->resize == VIT_RESIZE_CUBIC_CORNERS) e->resize = VIT_RESIZE_CUBIC_ANTIALIAS;
    if (f == FAMILY_DINOV2 && e->print->dialect == DIALECT_TIMM && !c->timm && !(e->has & HAS_REGISTERS))
        e->resize = VIT_RESIZE_CUBIC;                        /* Meta's code under the same names */
    int image = c->image ? c->image : e->grid ? e->grid * e->d.p : u->image;
    if (f == FAMILY_NAFLEX && c->patches && side(c->patches)) image = (int)side(c->patches) * e->d.p;
    u->image = image;
    preprocess_set_size(&u->pre, image);
}

static void switches(Vision *e) {
    VitDims *d = &e->d;
    d->cls = e->has & HAS_CLS;
    d->rms = !(e->has & HAS_NORM_BIAS); /* a norm without a bias is RMS in every encoder known here */
    d->gated = e->has & HAS_GATE;
    d->pre = e->has & HAS_PRE;
    d->pre_first = d->pre && e->print->family == FAMILY_AIMV2;
    d->post = e->has & HAS_POST;
    d->qk_norm = e->has & HAS_QK_NORM;
    d->heads_norm = e->has & HAS_HEADS_NORM;
    d->mlp_norm = e->has & HAS_MLP_NORM;
    d->rotary = rotary_of(e->print->family);
    d->position = e->has & HAS_POSITION || e->print->family == FAMILY_AIMV2;
}

/* ---- nothing unexplained ----------------------------------------------------------------------------------------- */

static bool in_dropped_block(const Vision *e, const char *name) {
    int layer, end = 0;
    char form[64];
    size_t n = strcspn(e->names->block, "|");
    snprintf(form, sizeof form, "%.*s%%n", (int)n, e->names->block);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    /* the format is one of the table of names */
    return sscanf(name, form, &layer, &end) == 1 && end && layer >= e->d.L && layer < e->d.L + e->dropped;
#pragma GCC diagnostic pop
}

static bool explained(const Vision *e, size_t i) {
    const char *name = ws_at(e->ws, i)->name;
    size_t n = strlen(e->prefix), m = strlen(name);
    if (e->used[i] || strncmp(name, e->prefix, n)) return true;
    bool mask = m > 10 && strcmp(name + m - 10, ".bias_mask") == 0;
    return mask || vision_ignored(name + n) || in_dropped_block(e, name + n);
}

/* Part of a whole model without a prefix of its own: towers of other kinds stand beside. */
static Status all_explained(const Vision *e) {
    size_t count = 0, first = 0;
    for (size_t i = 0; i < ws_count(e->ws); i++)
        if (!explained(e, i) && !count++) first = i;
    if (!count) return OK;
    return err_set(ERR_USAGE, "%s: read as %s, but %zu of its tensors have no place there; the first is %s", e->path,
                   vision_family_text(e->print->family), count, ws_at(e->ws, first)->name);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static char *folder_of(const char *path) {
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode) ? mem_strdup(path) : path_folder(path);
}

static Status small_files(Vision *e, bool pixels) {
    char *folder = folder_of(e->path);
    Status st = !folder ? ERR_MEMORY : pixels ? vision_config_pixels(&e->custom.pre, folder)
                                              : vision_config_read(&e->config, folder);
    free(folder);
    return st;
}

static Status open_all(Vision *e, int asked_heads) {
    Status st = ws_open_raw(&e->ws, e->path);
    if (st == OK && !(e->used = mem_new(ws_count(e->ws), sizeof *e->used))) st = ERR_MEMORY;
    if (st == OK) st = small_files(e, false);
    if (st == OK) st = recognise(e);
    if (st == OK) st = look(e);
    if (st == OK) st = patch_size(e);
    if (st == OK) st = blocks(e);
    if (st != OK) return st;
    if (e->print->family == FAMILY_EVA_G && e->d.E == 1792)
        return err_set(ERR_USAGE, "%s: has the width of EVA-02-CLIP-E, which has its norms behind its blocks' parts; "
                       "those are not computed here", e->path);
    switches(e);
    if ((st = registers(e)) == OK) st = position_size(e);
    if (st == OK) st = heads(e, asked_heads);
    if (st == OK) st = frequencies(e);
    if (st != OK) return st;
    if ((st = activation_known(e)) != OK) return st;
    settle(e);
    e->d.eps = e->custom.eps;
    e->d.act = e->custom.act;
    if ((st = vision_check(e)) == OK) st = all_explained(e);
    return st == OK ? small_files(e, true) : st;
}

Status vision_open(Vision *e, const char *path, int asked_heads) {
    *e = (Vision){.path = mem_strdup(path)};
    Status st = e->path ? open_all(e, asked_heads) : ERR_MEMORY;
    if (st != OK) vision_close(e);
    return st;
}

void vision_close(Vision *e) {
    ws_close(e->ws);
    mem_free(e->path, e->used, e->frequency);
    *e = (Vision){0};
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

static const char *dialect_text(const Vision *e) {
    static const char *const text[DIALECT_COUNT] = {"OpenAI's", "transformers'", "OpenGVLab's", "transformers'",
                                                    "transformers'", "transformers'", "transformers'",
                                                    "transformers'", "Apple's", "timm's"};
    return text[e->print->dialect];
}

char *vision_text(const Vision *e, char *buf, size_t n) {
    snprintf(buf, n, "%s %dx%d, %d heads, patch %d, %s names", vision_family_text(e->print->family), e->d.E, e->d.L,
             e->d.H, e->d.p, dialect_text(e));
    return buf;
}

const char *vision_tap_text(const Vision *e, VitTap tap) {
    static const char *const text[] = {[VIT_SECOND_LAST] = "after the last block but one, not normed",
                                       [VIT_LAST] = "after the last block, not normed",
                                       [VIT_NORMED] = "after the last block, normed"};
    (void)e;
    return text[tap];
}

void vision_say(const Vision *e, FILE *f) {
    static const char *const act[] = {"GELU", "GELU (tanh)", "QuickGELU", "ReLU", "SiLU"};
    char name[VISION_TEXT], pixels[PREPROCESS_TEXT];
    size_t used = 0, ignored = 0, count = ws_count(e->ws), n = strlen(e->prefix);
    for (size_t i = 0; i < count; i++) {
        bool ours = !strncmp(ws_at(e->ws, i)->name, e->prefix, n);
        used += e->used[i];
        ignored += ours && !e->used[i];
    }
    fprintf(f, "  %s\n", vision_text(e, name, sizeof name));
    fprintf(f, "  %s%s, %s, eps %g%s%s; features %s\n", e->d.rms ? "RMSNorm" : "LayerNorm",
            e->d.rotary ? ", rotary positions" : "", act[e->d.act], (double)e->d.eps, e->d.gated ? ", gated" : "",
            e->d.registers ? ", registers" : "", vision_tap_text(e, e->custom.tap));
    fprintf(f, "  pixels: %s\n", preprocess_text(&e->custom.pre, pixels, sizeof pixels));
    fprintf(f, "  %zu tensors used, %zu of it not needed (heads, masks%s), %zu of other parts\n", used, ignored,
            e->dropped ? ", the last block" : "", count - used - ignored);
}

/* ---- which weights ----------------------------------------------------------------------------------------------- */

/* A file's bytes, so that sha256sum agrees; of several files the tensors, by name. */
Status vision_sha256(const Vision *e, char *buf) {
    Sha256 s;
    MapFile m = {0};
    const char *path = ws_path(e->ws), *end = strrchr(path, '.');
    struct stat sb;
    bool one = stat(path, &sb) == 0 && S_ISREG(sb.st_mode) && !(end && strcmp(end, ".json") == 0);
    Status st = one ? mapfile_open(&m, path) : OK;
    if (st != OK) return st;
    sha256_begin(&s);
    sha256_add(&s, m.bytes, m.n);
    for (size_t i = 0; !one && i < ws_count(e->ws); i++) {
        const StTensor *t = ws_at(e->ws, i);
        sha256_add(&s, t->name, strlen(t->name) + 1); /* with its end: a name must not run on into numbers */
        sha256_add(&s, t->data, t->nbytes);
    }
    sha256_hex(&s, buf);
    mapfile_close(&m);
    return OK;
}
