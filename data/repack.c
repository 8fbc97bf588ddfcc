/* repack: see repack.h. */
#include "data/repack.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/features.h"
#include "data/fingerprint.h"
#include "data/set.h"
#include "data/setout.h"
#include "data/text/caption.h"
#include "data/text/settext.h"
#include "kernels/base/hash.h"
#include "kernels/base/mem.h"

/* The row that work->raw holds, in the new type: *data points to it, scales are set_scales of the new set. */
typedef struct { void *raw, *out; float *real, *scales; double square, error; } Work;

static Status convert(Work *w, const Set *set, DType to, const void **data) {
    int64_t P = set_P(set), E = set_E(set), S = set_scales(set), n = P * E;
    *data = w->raw;
    if (set_dtype(set) == to) return OK;
    dtype_to_f32(w->real, w->raw, set_dtype(set), (size_t)n);
    /* S is 1 or P: one scale a row, or one a token */
    for (int64_t i = 0; i < n; i++) w->real[i] *= w->scales[i / E * S / P];
    w->scales[0] = 1;                                        /* it is in the numbers now */
    *data = w->out;
    if (to == DT_I8 || to == DT_E4M3)
        return features_quantise_tokens(w->out, w->scales, to, w->real, P, E, &w->square, &w->error);
    dtype_from_f32(w->out, to, w->real, (size_t)n);
    if (features_finite(w->out, to, (size_t)n)) return OK;
    return err_set(ERR_FORMAT, "a number is too large for %s", dtype_name(to));
}

/* ---- one shard ---- */

typedef struct {
    const RepackSpec *spec;
    const Set *set;
    DType dtype;
    bool scale, token_scale;
    const int64_t *images;         /* those of the shard */
    int64_t n, captions;
    ShardItem *items;              /* (n) */
    char **text, *bytes;           /* (captions) captions ended by NULs, in one block */
    uint64_t *offset;              /* (captions + 1) token cache */
    uint32_t *ids;
    TokenCache tokens;
    uint64_t made_from;
} Piece;

static Status list_items(Piece *p) {
    size_t bytes = 0, at = 0, m = 0, n;
    p->captions = 0;
    for (int64_t i = 0; i < p->n; i++)
        for (int64_t k = 0; k < set_ncaptions(p->set, p->images[i]); k++, p->captions++) {
            set_caption(p->set, p->images[i], k, &n);
            bytes += n + 1;
        }
    p->items = mem_new((size_t)p->n, sizeof *p->items);
    p->text = mem_new((size_t)p->captions, sizeof *p->text);
    p->bytes = mem_new(bytes, 1);
    if (!p->items || !p->text || !p->bytes) return ERR_MEMORY;
    for (int64_t i = 0; i < p->n; i++) {
        int64_t image = p->images[i], captions = set_ncaptions(p->set, image);
        p->items[i] = (ShardItem){set_image_id(p->set, image), set_split(p->set, image), set_source(p->set, image),
                                  captions, (const char *const *)p->text + m};
        for (int64_t k = 0; k < captions; k++) {
            const char *c = set_caption(p->set, image, k, &n);
            if (memchr(c, 0, n))                             /* the writer takes texts that end at a NUL */
                return err_set(ERR_FORMAT, "%s: caption %" PRId64 " of image \"%s\" holds a NUL", set_path(p->set), k,
                               p->items[i].image_id);
            p->text[m++] = memcpy(p->bytes + at, c, n);
            at += n + 1;
        }
    }
    return OK;
}

static Status make_tokens(Piece *p) {
    const RepackSpec *s = p->spec;
    int words = s->max_words ? s->max_words : CAPTION_MAX_WORDS, n;
    size_t most;
    int32_t *ids = mem_new((size_t)s->max_tokens, sizeof *ids);
    p->offset = mem_new((size_t)p->captions + 1, sizeof *p->offset);
    p->ids = mem_mul((size_t)p->captions, (size_t)s->max_tokens, &most) ? mem_new(most, sizeof *p->ids) : NULL;
    Status st = ids && p->offset && p->ids ? OK : ERR_MEMORY;
    uint64_t at = 0;
    for (int64_t m = 0; st == OK && m < p->captions; m++) {
        char *clean;
        size_t bytes;
        if ((st = settext_blip(&clean, &bytes, p->text[m], strlen(p->text[m]), s->prompt, words)) != OK) break;
        st = tokenizer_encode(s->tok, clean, bytes, s->max_tokens, ids, &n, NULL);
        free(clean);
        for (int i = 0; st == OK && i < n; i++) p->ids[at++] = (uint32_t)ids[i];
        p->offset[m + 1] = at;
    }
    TokenKey key = {tokenizer_hash(s->tok), s->max_tokens, words, s->prompt ? s->prompt : ""};
    p->tokens = (TokenCache){key, p->offset, p->ids};
    free(ids);
    return st;
}

static Status copy_rows(const Piece *p, ShardWriter *w, int64_t before, int64_t total, RepackReport *r) {
    int64_t V = set_views(p->set);
    size_t n = (size_t)(set_P(p->set) * set_E(p->set));
    Work work = {mem_new(set_row_bytes(p->set), 1), mem_new(n, (size_t)dtype_size(p->dtype)),
        mem_new(n, sizeof(float)), mem_new((size_t)set_P(p->set), sizeof(float)), 0, 0};
    Status st = work.raw && work.out && work.real && work.scales ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < p->n; i++) {
        for (int64_t v = 0; st == OK && v < V; v++) {
            const void *data;
            if (shard_has(w, i * V + v)) continue;           /* from before the run was killed */
            /* damage must not get a checksum that fits */
            if ((st = set_read_row(p->set, p->images[i] * V + v, true, work.raw, work.scales)) != OK) break;
            st = convert(&work, p->set, p->dtype, &data);
            if (st != OK) st = err_context(st, "%s: image \"%s\"", set_path(p->set), p->items[i].image_id);
            else st = shard_write_scaled(w, i * V + v, data, work.scales);
        }
        if (st == OK) st = listener_tell(&p->spec->listener, before + i + 1, total);
    }
    r->square += work.square;
    r->error += work.error;
    mem_free(work.raw, work.out, work.real, work.scales);
    return st;
}

/* All that the input says of itself, checksums of rows among it; where it has none, the files' size and time. */
static Status fingerprint_input(const Set *set, uint64_t *made_from) {
    uint64_t h = hash_text(HASH_START, "repack");
    Status st = OK;
    for (int64_t k = 0; st == OK && k < set_shards(set); k++) {
        const Shard *s = set_shard(set, k, NULL);
        h = hash_int(h, shard_content(s));
        if (!s->crc) st = fingerprint_stat(&h, s->path);     /* without checksums the tables say nothing of the rows */
    }
    *made_from = fingerprint_end(h);
    return st;
}

static Status write_piece(Piece *p, SetOut *out, int64_t k, int64_t before, int64_t total, RepackReport *r) {
    ShardWriter *w = NULL;
    Status st = list_items(p);
    if (st == OK && p->spec->tok) st = make_tokens(p);
    if (st != OK) return st;
    ShardSpec spec = {.encoder = *set_encoder(p->set), .dtype = p->dtype, .images = p->n, .views = set_views(p->set),
                      .P = set_P(p->set), .E = set_E(p->set), .scale = p->scale, .token_scale = p->token_scale,
                      .items = p->items, .tokens = p->spec->tok ? &p->tokens : NULL, .made_from = p->made_from};
    if ((st = setout_shard(out, k, &spec, &w)) != OK) return st;
    if (!w) return listener_tell(&p->spec->listener, before + p->n, total); /* an earlier run finished it */
    if ((st = copy_rows(p, w, before, total, r)) == OK) return shard_finish(w);
    shard_abandon(w);
    return st;
}

static void free_piece(Piece *p) {
    mem_free(p->items, p->text, p->bytes, p->offset, p->ids);
    p->items = NULL;
    p->text = NULL;
    p->bytes = NULL;
    p->offset = NULL;
    p->ids = NULL;
}

/* ---- all of them ---- */

static Status write_pieces(Piece *p, const int64_t *images, int64_t n, RepackReport *r) {
    const RepackSpec *s = p->spec;
    int64_t size = s->shard_images > 0 && !setout_is_file(s->out) ? s->shard_images : n;
    SetOut out = {0};
    Status st = setout_open(&out, s->out, (n + size - 1) / size, s->overwrite);
    for (int64_t k = 0; st == OK && k * size < n; k++) {
        p->images = images + k * size;
        p->n = n - k * size < size ? n - k * size : size;
        st = write_piece(p, &out, k, k * size, n, r);
        r->images += p->n;
        r->captions += p->captions;
        r->shards++;
        free_piece(p);
    }
    return setout_close(&out, st);
}

/* A killed run would leave half of the one and half of the other. */
static Status not_onto_itself(const RepackSpec *s) {
    char *in = realpath(s->in, NULL), *out = realpath(s->out, NULL); /* links may name one folder twice */
    bool same = in && out && strcmp(in, out) == 0;
    mem_free(in, out);
    return same ? err_set(ERR_USAGE, "%s: a set cannot be rewritten onto itself; name another out", s->out) : OK;
}

Status repack(const RepackSpec *spec, RepackReport *r) {
    *r = (RepackReport){0};
    Set *set;
    int64_t *images = NULL, n;
    BUG_ON(spec->tok && spec->max_tokens < 2, "repack: max_tokens %d", spec->max_tokens);
    Status st = not_onto_itself(spec);
    if (st == OK) st = set_open(&set, spec->in);
    if (st != OK) return st;
    Piece p = {.spec = spec, .set = set, .dtype = spec->dtype < 0 ? set_dtype(set) : (DType)spec->dtype};
    /* eight bits need scales of their own; unchanged rows keep theirs */
    p.scale = p.dtype == set_dtype(set) ? set_scaled(set) : p.dtype == DT_I8 || p.dtype == DT_E4M3;
    p.token_scale = p.dtype == set_dtype(set) ? set_scales(set) > 1 : p.scale;
    st = set_select(set, spec->split ? spec->split : "", &images, &n);
    if (st == OK) st = fingerprint_input(set, &p.made_from);
    if (st == OK) st = write_pieces(&p, images, n, r);
    free(images);
    set_close(set);
    return st;
}
