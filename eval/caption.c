/* caption: see caption.h. */
#include "eval/caption.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "eval/generate.h"
#include "eval/result.h"
#include "eval/say.h"
#include "kernels/base/mem.h"
#include "kernels/dist/dist.h"

/* Ten is COCO's figure; a model of shorter captions would be made to go on after its end. */
static int32_t least_tokens(const Options *o, const Use *u) {
    enum { PUBLISHED = 10 };
    if (o->caption.min_length >= 0) return (int32_t)o->caption.min_length;
    return u->short_text > 0 && u->short_text < PUBLISHED ? (int32_t)u->short_text : PUBLISHED;
}

void caption_search(SearchSpec *s, const Options *o, const Use *u) {
    static const SearchMode modes[] = {SEARCH_BEAM, SEARCH_GREEDY, SEARCH_SAMPLE};         /* ORDER caption.mode */
    SearchMode mode = modes[o->caption.mode.i];
    int32_t beams = (int32_t)o->caption.beams;
    if (mode == SEARCH_BEAM && beams == 1) mode = SEARCH_GREEDY;
    *s = (SearchSpec){.mode = mode, .beams = mode == SEARCH_BEAM ? beams : 1,
                      .max_length = (int32_t)o->caption.max_length,
                      .min_length = least_tokens(o, u),
                      .length_penalty = o->caption.length_penalty,
                      .repetition_penalty = o->caption.repetition_penalty,
                      .no_repeat = (int32_t)o->caption.no_repeat,
                      .early_stopping = o->caption.early_stopping,
                      .temperature = o->caption.temperature, .top_p = o->caption.top_p,
                      .top_k = (int32_t)o->caption.top_k, .seed = (uint64_t)o->run.seed,
                      .start = u->d.dec, .ends = {u->d.sep}, .nends = 1};
    if (!u->d.W) return;
    say_rules(s, &u->speaker.src.d, &u->speaker.speech);
    s->max_length += u->speaker.src.d.family != LM_OPT;              /* new tokens there */
}

/* ---- making them ------------------------------------------------------------------------------------------------ */

static int64_t per_rank(int64_t n) { return (n + dist_size() - 1) / dist_size(); }

static int64_t first_of_rank(int64_t n) {
    int64_t at = per_rank(n) * dist_rank();
    return at < n ? at : n;                                  /* the last ranks may have none */
}

int64_t captions_share(int64_t n) {
    int64_t left = n - first_of_rank(n);
    return left < per_rank(n) ? left : per_rank(n);
}

typedef struct { CaptionEnd *end; int32_t *tokens, max_length; int64_t at; } Found;

static Status found(void *ctx, int64_t i, const Search *s) {
    Found *f = ctx;
    const Hypothesis *h = &s->closed[0];
    f->end[f->at + i] = (CaptionEnd){h->score, h->len, h->ended};
    memcpy(f->tokens + (f->at + i) * f->max_length, h->tokens, (size_t)h->len * sizeof *h->tokens);
    return OK;
}

/* A batch of pictures: by stage 1's text head, or by the language model behind its prompt. */
typedef struct { Generator g; Say say; SayItem *items; bool speaks; } Writer;

static Status writer_open(Writer *w, const Use *u, const GenerateSpec *spec) {
    *w = (Writer){.speaks = u->d.W > 0};
    if (!w->speaks) return generate_open(&w->g, u->b, &u->model, spec);
    w->items = mem_new((size_t)spec->images, sizeof *w->items);
    for (int i = 0; w->items && i < spec->images; i++) w->items[i] = (SayItem){.image = i, .prompt = u->lm_prompt};
    return w->items ? say_open_use(&w->say, u, &spec->search, spec->images, spec->features) : ERR_MEMORY;
}

static Status writer_write(Writer *w, FeatureRows rows, int64_t n, int64_t first, Found *f) {
    return w->speaks ? say_texts(&w->say, rows, (int)n, w->items, n, first, found, f)
                     : generate_captions(&w->g, rows, n, first, found, f);
}

static void writer_close(Writer *w, int64_t *rows) {
    *rows = w->speaks ? w->say.decode.tokens : w->g.decode.tokens;
    if (w->speaks) say_close(&w->say);
    else generate_close(&w->g);
    free(w->items);
}

/* Images [first, first + n) of the split into f. */
static Status make_share(Found *f, const Use *u, const EvalSet *e, const GenerateSpec *spec, int64_t first, int64_t n,
                         int64_t *rows, EvalProgress *p) {
    Writer w;
    EvalRows r = {0};
    Status st = writer_open(&w, u, spec);
    if (st == OK) st = evalrows_open(&r, e, u->b, spec->images);
    for (f->at = 0; st == OK && f->at < n; f->at += spec->images) {
        int64_t m = n - f->at < spec->images ? n - f->at : spec->images;
        st = evalrows_read(&r, first + f->at, m);
        if (st == OK) st = writer_write(&w, r.rows, m, first + f->at, f);
        if (st == OK && p) st = evalprogress(p, m);
    }
    evalrows_close(&r);
    writer_close(&w, rows);
    return st;
}

static Status to_text(Captions *c, const Use *u) {
    c->text = mem_new((size_t)c->n, sizeof *c->text);
    Status st = c->text ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < c->n; i++) {
        int32_t *ids = c->tokens + i * c->max_length, len = c->end[i].len;
        st = u->d.W ? say_text(u->speaker.tok, &(Hypothesis){.tokens = ids, .len = len}, &c->text[i])
                    : tokenizer_decode(u->tok, ids + 1, (size_t)len - 1, &c->text[i], NULL);
    }
    return st;
}

Status captions_make(Captions *c, const Use *u, const EvalSet *e, const SearchSpec *s, int batch, EvalProgress *p) {
    /* a gather moves blocks of one size */
    size_t per = (size_t)per_rank(e->NI), all = per * (size_t)dist_size(), length = (size_t)s->max_length;
    int64_t share = captions_share(e->NI);
    GenerateSpec spec = {
        /* no caches for images that are not there */
        .search = *s, .images = share > 0 && share < batch ? (int)share : batch, .features = set_dtype(e->set)};
    Found f = {.end = mem_new(per, sizeof *f.end), .tokens = mem_new(per, length * sizeof *f.tokens),
               .max_length = s->max_length};
    *c = (Captions){.n = e->NI, .max_length = s->max_length, .end = mem_new(all, sizeof *c->end),
                    .tokens = mem_new(all, length * sizeof *c->tokens)};
    Status st = f.end && f.tokens && c->end && c->tokens ? OK : ERR_MEMORY;
    if (st == OK && share > 0) st = make_share(&f, u, e, &spec, first_of_rank(e->NI), share, &c->rows, p);
    st = dist_agree(st);
    if (st == OK) st = dist_all_gather(c->end, f.end, per * sizeof *f.end, "the gather of captions");
    if (st == OK) st = dist_all_gather(c->tokens, f.tokens, per * length * sizeof *f.tokens,
                                         "the gather of captions");
    if (st == OK) st = to_text(c, u);
    mem_free(f.end, f.tokens);
    if (st != OK) captions_free(c);
    return st;
}

void captions_free(Captions *c) {
    mem_free_list(c->text, (size_t)c->n);
    mem_free(c->end, c->tokens);
    *c = (Captions){0};
}

/* ---- COCO's files ----------------------------------------------------------------------------------------------- */

/* Length of a name without an ending like .jpg: a dot, a letter, at most four more letters or digits. */
static size_t stem_length(const char *name) {
    const char *dot = strrchr(name, '.');
    size_t n = strlen(name), ending = dot ? strlen(dot + 1) : 0;
    if (ending < 1 || ending > 5 || !isalpha((unsigned char)dot[1])) return n;
    for (size_t i = 1; i < ending; i++)
        if (!isalnum((unsigned char)dot[1 + i])) return n;
    return (size_t)(dot - name);
}

bool caption_id(const char *name, int64_t *id) {
    enum { MOST = 18 };                 /* digits that always fit */
    size_t end = stem_length(name), at = end;
    while (at > 0 && isdigit((unsigned char)name[at - 1])) at--;
    while (at < end && name[at] == '0' && end - at > 1) at++;  /* COCO pads its numbers with zeros */
    if (at == end || end - at > MOST) return false;
    *id = 0;
    for (; at < end; at++) *id = *id * 10 + (name[at] - '0');
    return true;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

Status caption_ids(const EvalSet *e, int64_t **ids) {
    int64_t *id = mem_new((size_t)e->NI, sizeof *id), *sorted = mem_new((size_t)e->NI, sizeof *sorted);
    *ids = NULL;
    bool good = true;
    for (int64_t i = 0; id && sorted && good && i < e->NI; i++) {
        good = caption_id(set_image_id(e->set, e->image[i]), &id[i]);
        sorted[i] = id[i];
    }
    if (id && sorted && good) {
        qsort(sorted, (size_t)e->NI, sizeof *sorted, ascending);
        /* two images of one number would be one to COCO's programs */
        for (int64_t i = 1; good && i < e->NI; i++) good = sorted[i] != sorted[i - 1];
    }
    Status st = id && sorted ? OK : ERR_MEMORY;
    free(sorted);
    if (st == OK && good) *ids = id;
    else free(id);
    return st;
}

static void write_id(JsonWriter *w, const char *key, const EvalSet *e, const int64_t *ids, int64_t i) {
    if (ids) jw_int(w, key, ids[i]);
    else jw_str(w, key, set_image_id(e->set, e->image[i]));
}

typedef struct { const Captions *c; const EvalSet *e; const int64_t *ids; } Written;

static void write_captions(JsonWriter *w, const void *written) {
    const Written *x = written;
    jw_array(w, NULL);
    for (int64_t i = 0; i < x->c->n; i++) {
        jw_object(w, NULL);
        write_id(w, "image_id", x->e, x->ids, i);
        jw_str(w, "caption", x->c->text[i]);
        jw_end(w);
    }
    jw_end(w);
}

Status captions_json(const Captions *c, const EvalSet *e, const int64_t *ids, char **text, size_t *len) {
    return result_text(text, len, 1, write_captions, &(Written){c, e, ids});
}

static void put_field(FILE *f, const char *s) {
    putc('"', f);
    for (; *s; s++) fprintf(f, *s == '"' ? "\"\"" : "%c", *s);
    putc('"', f);
}

Status captions_csv(const Captions *c, const EvalSet *e, char **text, size_t *len) {
    FILE *f = open_memstream(text, len);
    if (!f) return err_set(ERR_MEMORY, "out of memory");
    fputs("image,caption\n", f);
    for (int64_t i = 0; i < c->n; i++) {
        put_field(f, set_image_id(e->set, e->image[i]));
        putc(',', f);
        put_field(f, c->text[i]);
        putc('\n', f);
    }
    return fclose(f) ? err_set(ERR_MEMORY, "out of memory") : OK;
}

/* Questions are no references. */
static bool has_caption(const Set *s, int64_t image) {
    for (int64_t k = 0; k < set_ncaptions(s, image); k++) {
        size_t n;
        const char *text = set_caption(s, image, k, &n);
        if (settext_of(text, n).kind == TEXT_CAPTION) return true;
    }
    return false;
}

static void write_references(JsonWriter *w, const void *written) {
    const Written *x = written;
    const EvalSet *e = x->e;
    jw_object(w, NULL);
    jw_array(w, "images");
    for (int64_t i = 0; i < e->NI; i++) {
        if (!has_caption(e->set, e->image[i])) continue;
        jw_object(w, NULL);
        write_id(w, "id", e, x->ids, i);
        jw_end(w);
    }
    jw_end(w);
    jw_array(w, "annotations");
    for (int64_t k = 0; k < e->NT; k++) {
        size_t n;
        const char *caption = set_caption(e->set, e->image[e->owner[k]], e->caption[k], &n);
        if (settext_of(caption, n).kind != TEXT_CAPTION) continue;  /* a question is no reference */
        jw_object(w, NULL);
        write_id(w, "image_id", e, x->ids, e->owner[k]);
        jw_int(w, "id", k + 1);                              /* COCO's ids begin at 1 */
        jw_strn(w, "caption", caption, n);
        jw_end(w);
    }
    jw_end(w);
    jw_end(w);
}

Status references_json(const EvalSet *e, const int64_t *ids, char **text, size_t *len) {
    return result_text(text, len, 1, write_references, &(Written){NULL, e, ids});
}
