/* annotation_json: captions that people keep as JSON. Entries come one at a time; a document, whole.
 *
 * An entry is an object that names an image, whatever its members are called (annotation_names.h). A document is one of
 * `documents`, a function a form, tried in order. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/make/annotation_store.h"
#include "data/make/questions.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

enum { MAX_TEXT = 1 << 20, KEY = 256 };

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* A string without NUL; NULL (and an error) when it is something else. */
static const char *text_of(const Json *v, const char *what) {
    size_t n = 0;
    const char *s = json_str(v, &n);
    if (!s) err_set(ERR_FORMAT, "%s is not a string", what);
    else if (n > MAX_TEXT || strlen(s) != n) err_set(ERR_FORMAT, "%s is too long or has a NUL in it", what);
    else return s;
    return NULL;
}

/* Names may be numbers where they are ids: 391895 and "391895" are one. */
static const char *name_of(const Json *v, const char *member, char buf[KEY]) {
    int64_t number;
    char what[KEY];
    if (json_type(v) == J_ARRAY && json_len(v) == 1) v = json_at(v, 0);            /* "images": ["a.jpg"] */
    snprintf(what, sizeof what, "\"%.200s\"", member);
    if (!json_int(v, &number) || annotation_rank(ROLE_OTHER, member) == NO_RANK) return text_of(v, what);
    snprintf(buf, KEY, "%lld", (long long)number);
    return buf;
}

static bool is_list(const Json *v) { return json_type(v) == J_ARRAY; }

/* The member that serves a role best; NULL when none does. */
static const Json *member(const Annotations *a, enum AnnotationRole role, const Json *object, const char **key) {
    const Json *best = NULL, *v;
    int rank = NO_RANK;
    if (json_type(object) != J_OBJECT) return NULL;
    for (const char *k = json_next(object, NULL, &v); k; k = json_next(object, k, &v)) {
        /* pandas writes null where a table had nothing */
        int r = json_type(v) == J_NULL ? NO_RANK : annotation_fits(a, role, k);
        if (r >= rank) continue;                             /* of equals the first, as the file has them */
        rank = r;
        best = v;
        *key = k;
    }
    return best;
}

/* "image", "foo": the members of an object, as far as they fit. */
static void members_of(const Json *object, char *text, size_t size) {
    size_t used = 0;
    const Json *v;
    text[0] = 0;
    if (json_type(object) != J_OBJECT) return;
    for (const char *k = json_next(object, NULL, &v); k && used + 1 < size; k = json_next(object, k, &v)) {
        int n = snprintf(text + used, size - used, "%s\"%.40s\"", used ? ", " : "", k);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* ---- an entry ---------------------------------------------------------------------------------------------------- */

static Status no_caption_in(const Json *v, const char *what) {
    char list[400];
    const Json *first;
    const char *key = json_next(v, NULL, &first);
    members_of(v, list, sizeof list);
    return err_set(ERR_FORMAT, "%s has no member that is a caption (raw, caption, text); there are %s%s%.40s", what,
                   key ? list : "none", key ? "; extract.caption_column=NAME says which, as " : "", key ? key : "");
}

/* One caption: a string, or an object that has one. */
static Status one_caption(Annotations *a, int64_t index, const Json *v, const char *what) {
    const char *key = NULL, *text;
    const Json *all = v;
    if (json_type(v) == J_OBJECT && !(v = member(a, ROLE_CAPTION, all, &key))) return no_caption_in(all, what);
    return (text = text_of(v, what)) ? annotation_caption(a, index, text) : ERR_FORMAT;
}

static Status captions_of(Annotations *a, int64_t index, const Json *v, const char *key) {
    char what[KEY];
    snprintf(what, sizeof what, "\"%.200s\"", key);
    if (json_type(v) != J_ARRAY) return one_caption(a, index, v, what);
    Status st = OK;
    for (size_t i = 0; i < json_len(v) && st == OK; i++) {
        const Json *item = json_at(v, i), *said;
        snprintf(what, sizeof what, "%.200s %zu", key, i + 1);
        if (json_get(item, "from") || json_get(item, "role")) {
            /* the first: later ones answer questions nobody sees */
            if (questions_turn(item, &said)) return one_caption(a, index, said, what);
        } else {
            st = one_caption(a, index, item, what);
        }
    }
    return st;
}

/* The captions of an entry: of the best member, and of its kin (caption_1, caption_2). A name that the user gave may
 * also be one within it ("caption": {"en": ..., "de": ...}). */
static Status captions_in(Annotations *a, int64_t index, const Json *e, const Json *first, const char *key) {
    const Json *v;
    int rank = annotation_fits(a, ROLE_CAPTION, key);
    Status st = captions_of(a, index, first, key);
    for (const char *k = json_next(e, NULL, &v); rank >= 100 && rank < NO_RANK && k && st == OK;
         k = json_next(e, k, &v))
        if (v != first && json_type(v) != J_NULL && annotation_fits(a, ROLE_CAPTION, k) == rank)
            st = captions_of(a, index, v, k);
    return st;
}

static const Json *usual_caption(const Json *e, const char **key) {
    const Json *v, *best = NULL;
    int rank = NO_RANK;
    for (const char *k = json_next(e, NULL, &v); k; k = json_next(e, k, &v)) {
        int r = json_type(v) == J_OBJECT || is_list(v) ? annotation_rank(ROLE_CAPTION, k) : NO_RANK;
        if (r < rank) rank = r, best = v, *key = k;
    }
    return best;
}

/* A member that might hold captions under a name nobody has told us: any text that is no address. */
static const char *stranger(const Json *e, const char *image_key) {
    const Json *v;
    for (const char *k = json_next(e, NULL, &v); k; k = json_next(e, k, &v)) {
        const char *s = json_str(json_type(v) == J_ARRAY ? json_at(v, 0) : v, NULL);
        /* neither is what somebody wrote about a picture */
        if (!s || !strcmp(k, image_key) || strstr(s, "://") || annotation_is_picture(s)) continue;
        if (annotation_rank(ROLE_OTHER, k) == NO_RANK && annotation_rank(ROLE_SPLIT, k) == NO_RANK &&
            annotation_rank(ROLE_IMAGE, k) == NO_RANK) return k;
    }
    return NULL;
}

static Status no_image(const Json *e) {
    char list[400];
    members_of(e, list, sizeof list);
    return err_set(ERR_FORMAT, "no member names the image's file (image, file_name, image_path, ...); there are %s; "
                   "extract.image_column=NAME says which one", list[0] ? list : "none");
}

static Status no_caption(const Annotations *a, const char *found) {
    const char *given = annotation_columns(a)->caption;
    return err_set(ERR_FORMAT, "there is no \"%s\"; extract.caption_column=%s takes \"%s\" for it, "
                   "extract.caption_column=none takes the images alone",
                   given && given[0] ? given : "caption", found, found);
}

static Status object_entry(Annotations *a, const Json *e) {
    const char *image_key = "", *key = "", *split_key = "", *split = NULL, *name, *found;
    char number[KEY];
    int64_t index;
    bool none = annotation_columns(a)->caption && !strcmp(annotation_columns(a)->caption, "none");
    const Json *image = member(a, ROLE_IMAGE, e, &image_key), *split_value = member(a, ROLE_SPLIT, e, &split_key);
    bool asks = !none && questions_in(a, e);
    const Json *caption = none || asks ? NULL : member(a, ROLE_CAPTION, e, &key);
    if (!caption && !none && !asks) caption = usual_caption(e, &key);
    if (json_type(image) == J_OBJECT)
        image = member(a, ROLE_IMAGE, image, &image_key); /* {"path": ..., "bytes": null} */
    /* a number under which no file need lie */
    bool id_alone = image && annotation_rank(ROLE_OTHER, image_key) != NO_RANK;
    bool said = json_get(e, "conversations") || json_get(e, "messages");
    if ((said && (!image || id_alone)) || (is_list(image) && json_len(image) != 1)) { /* about none, or many */
        a->imageless++; /* counted, not refused: LLaVA mixes texts without pictures in */
        return OK;
    }
    if (!image) return no_image(e);
    if (!(name = name_of(image, image_key, number))) return ERR_FORMAT;
    /* an id may be a number, a split never */
    if (split_value && !(split = text_of(split_value, "the split"))) return ERR_FORMAT;
    if (!caption && !none && !asks && (found = stranger(e, image_key))) return no_caption(a, found);
    Status st = annotation_image(a, name, split, &index);
    if (st == OK && asks) return questions_of(a, index, e);
    return st == OK && caption ? captions_in(a, index, e, caption, key) : st;
}

/* An object; the name of an image; or a pair of name and caption(s). */
static Status entry(Annotations *a, size_t i, const Json *e) {
    const char *name;
    int64_t index;
    Status st = OK;
    if (json_type(e) == J_OBJECT) {
        st = object_entry(a, e);
    } else if (json_type(e) == J_STR) {
        st = (name = text_of(e, "the name")) ? annotation_image(a, name, NULL, &index) : ERR_FORMAT;
    } else if (json_type(e) == J_ARRAY && json_len(e) == 2) {
        st = (name = text_of(json_at(e, 0), "the name")) ? annotation_image(a, name, NULL, &index) : ERR_FORMAT;
        if (st == OK) st = captions_of(a, index, json_at(e, 1), "caption");
    } else {
        st = err_set(ERR_FORMAT, "an object {...} is wanted here");
    }
    return err_context(st, "entry %zu", i + 1);
}

static Status entries(Annotations *a, const Json *list) {
    Status st = OK;
    for (size_t i = 0; i < json_len(list) && st == OK; i++) st = entry(a, i, json_at(list, i));
    return st;
}

/* ---- documents --------------------------------------------------------------------------------------------------- */

/* {"images": [...], "annotations": [...]} where the former have ids */
static bool is_coco(const Json *doc) {
    return is_list(json_get(doc, "images")) && is_list(json_get(doc, "annotations"));
}

/* COCO ids are numbers; some sets use strings. Both become a key. */
static Status coco_key(char key[KEY], const Json *object, const char *name) {
    int64_t number;
    const Json *v = json_get(object, name);
    const char *s;
    if (json_int(v, &number)) {
        snprintf(key, KEY, "%lld", (long long)number);
        return OK;
    }
    if (!v) return err_set(ERR_FORMAT, "there is no \"%s\"", name);
    if (json_type(v) != J_STR) return err_set(ERR_FORMAT, "\"%s\" is neither a whole number nor a string", name);
    if (!(s = text_of(v, name))) return ERR_FORMAT;
    /* the quote keeps "1" and 1 apart */
    return (size_t)snprintf(key, KEY, "\"%s", s) >= KEY ? err_set(ERR_FORMAT, "\"%s\" is too long", name) : OK;
}

static const char *quote(const char *key) { return key[0] == '"' ? "\"" : ""; }

static Status coco_image(Annotations *a, const Json *e, void *ids) {
    const char *image_key = "", *split_key = "", *name, *own, *split = NULL;
    char key[KEY], number[KEY];
    int64_t index;
    const Json *image = member(a, ROLE_IMAGE, e, &image_key), *split_value = member(a, ROLE_SPLIT, e, &split_key);
    if (!image || annotation_rank(ROLE_OTHER, image_key) != NO_RANK)
        return err_set(ERR_FORMAT, "there is no \"file_name\"");
    if (!(name = name_of(image, image_key, number))) return ERR_FORMAT;
    /* NoCaps and others keep objects under that name */
    if (json_type(split_value) == J_STR && !(split = text_of(split_value, "the split"))) return ERR_FORMAT;
    Status st = coco_key(key, e, "id");
    if (st == OK && strmap_get(ids, key)) st = err_set(ERR_FORMAT, "id %s%s occurs twice", key, quote(key));
    if (st == OK) st = annotation_image(a, name, split, &index);
    if (st == OK && !(own = annotation_keep(a, key))) st = ERR_MEMORY;
    return st == OK ? strmap_put(ids, own, index) : st;
}

/* Boxes and masks have no caption: a file of those lists images. */
static Status coco_note(Annotations *a, const Json *e, void *ids) {
    const char *key_of = "";
    char key[KEY];
    if (json_type(e) != J_OBJECT) return err_set(ERR_FORMAT, "an object {...} is wanted here");
    const Json *caption = member(a, ROLE_CAPTION, e, &key_of);
    if (!caption && json_get(e, "category_id")) return OK;   /* a box */
    if (!caption) return err_set(ERR_FORMAT, "there is no \"caption\"");
    Status st = coco_key(key, e, "image_id");
    int64_t *index = st == OK ? strmap_get(ids, key) : NULL;
    if (st == OK && !index) st = err_set(ERR_FORMAT, "image_id %s%s is not among \"images\"", key, quote(key));
    return st == OK ? captions_of(a, *index, caption, key_of) : st;
}

static Status coco(Annotations *a, const Json *doc) {
    StrMap ids = {0};
    Status st = annotation_each(a, doc, "images", coco_image, &ids);
    if (st == OK) st = annotation_each(a, doc, "annotations", coco_note, &ids);
    strmap_free(&ids);
    return st;
}

/* {"images": [{filename, filepath?, split, sentences: [{raw}]}]} */
static bool is_karpathy(const Json *doc) { return is_list(json_get(json_at(json_get(doc, "images"), 0), "sentences")); }

static Status karpathy_image(Annotations *a, const Json *e, void *ctx) {
    (void)ctx;
    const char *name = text_of(json_get(e, "filename"), "\"filename\""),
               *folder = json_str(json_get(e, "filepath"), NULL);
    const char *split = json_str(json_get(e, "split"), NULL);
    int64_t index;
    if (!name) return ERR_FORMAT;
    char *path = folder && folder[0] ? mem_format("%s/%s", folder, name) : mem_strdup(name);
    Status st = path ? annotation_image(a, path, split, &index) : ERR_MEMORY;
    if (st == OK) st = captions_of(a, index, json_get(e, "sentences"), "sentences");
    free(path);
    return st;
}

static Status karpathy(Annotations *a, const Json *doc) {
    return annotation_each(a, doc, "images", karpathy_image, NULL);
}

/* A list of objects, or of names. */
static bool is_entries(const Json *v) {
    const char *name = json_str(json_at(v, 0), NULL);
    return is_list(v) && (json_type(json_at(v, 0)) == J_OBJECT || (name && annotation_is_picture(name)));
}

/* {"data": [...]}, {"annotations": [...]}: TextCaps, MiniGPT-4, image_info of COCO; the first list of objects. */
static const Json *list_in(const Json *doc) {
    static const char *const usual[] = {"data",  "annotations", "images",   "samples",
                                        "items", "rows",        "examples", "entries"};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (is_entries(json_get(doc, usual[i]))) return json_get(doc, usual[i]);
    return NULL;
}

static bool is_wrapped(const Json *doc) { return list_in(doc) != NULL; }
static Status wrapped(Annotations *a, const Json *doc) { return entries(a, list_in(doc)); }

/* {"train": [...], "val": [...]} */
static bool is_by_split(const Json *doc) {
    const Json *v;
    bool any = false;
    for (const char *k = json_next(doc, NULL, &v); k; k = json_next(doc, k, &v), any = true)
        if (!annotation_split_in(k) || !is_list(v) || (json_len(v) && !is_entries(v))) return false;
    return any;
}

static Status by_split(Annotations *a, const Json *doc) {
    const Json *v;
    Status st = OK;
    const char *given = a->store->split;                       /* the caller's word wins */
    for (const char *k = json_next(doc, NULL, &v); k && st == OK; k = json_next(doc, k, &v)) {
        if (!given) a->store->split = annotation_split_in(k); /* for the entries of this list alone */
        st = err_context(entries(a, v), "\"%.100s\"", k);
    }
    a->store->split = given;
    return st;
}

/* {"image": [...], "caption": [...]}, or with objects {"0": ..., "1": ...} in their place, as pandas writes them */
static const Json *column_of(const Annotations *a, const Json *doc, enum AnnotationRole role) {
    const char *key;
    const Json *v = member(a, role, doc, &key);
    return is_list(v) || json_type(v) == J_OBJECT ? v : NULL;
}

static enum AnnotationRole columns_ask(const Json *doc, const Annotations *a) {
    const Json *images = column_of(a, doc, ROLE_IMAGE), *captions = column_of(a, doc, ROLE_CAPTION);
    return images && captions && json_type(images) == json_type(captions) && json_len(images) == json_len(captions)
               ? ROLE_CAPTION : ROLES;
}

static Status columns(Annotations *a, const Json *doc) {
    const Json *images = column_of(a, doc, ROLE_IMAGE), *captions = column_of(a, doc, ROLE_CAPTION), *v;
    const Json *splits = column_of(a, doc, ROLE_SPLIT);
    const char *k = NULL, *name, *split;
    Status st = OK;
    for (size_t i = 0; i < json_len(images) && st == OK; i++) {
        int64_t index;
        char number[KEY];
        if (json_type(images) == J_OBJECT) k = json_next(images, k, &v);
        else v = json_at(images, i);
        split = json_str(k ? json_get(splits, k) : json_at(splits, i), NULL);
        st = (name = name_of(v, "id", number)) ? annotation_image(a, name, split, &index) : ERR_FORMAT;
        if (st == OK) st = captions_of(a, index, k ? json_get(captions, k) : json_at(captions, i), "caption");
        err_context(st, "entry %zu", i + 1);
    }
    return st;
}

/* {"x.jpg": "...", "y.jpg": ["...", "..."], "z.jpg": {"caption": ..., "split": ...}}: keys that are files or numbers */
static bool is_map(const Json *doc) {
    const Json *v;
    bool any = false;
    for (const char *k = json_next(doc, NULL, &v); k; k = json_next(doc, k, &v), any = true) {
        bool name = annotation_is_picture(k) || strspn(k, "0123456789") == strlen(k);
        /* a single stranger, and it is no map of pictures */
        if (!name || (json_type(v) != J_STR && json_type(v) != J_OBJECT && !is_list(v))) return false;
    }
    return any;
}

static Status map(Annotations *a, const Json *doc) {
    const Json *v;
    Status st = OK;
    for (const char *k = json_next(doc, NULL, &v); k && st == OK; k = json_next(doc, k, &v)) {
        int64_t index;
        const char *key = "caption", *split_key;
        bool object = json_type(v) == J_OBJECT;
        const Json *image = object ? member(a, ROLE_IMAGE, v, &split_key) : NULL;
        if (image && annotation_rank(ROLE_OTHER, split_key) == NO_RANK) {              /* {"0": {"image": ...}} */
            st = err_context(object_entry(a, v), "entry \"%.100s\"", k);
            continue;
        }
        const Json *caption = object ? member(a, ROLE_CAPTION, v, &key) : v;
        st = annotation_image(a, k, object ? json_str(member(a, ROLE_SPLIT, v, &split_key), NULL) : NULL, &index);
        if (st == OK && caption) st = captions_of(a, index, caption, key);
        err_context(st, "entry \"%.100s\"", k);
    }
    return st;
}

static const struct { bool (*is)(const Json *doc); Status (*read)(Annotations *a, const Json *doc); } documents[] = {
    {questions_is_asked, questions_asked}, {questions_is_answered, questions_answered},
    {questions_is_gqa, questions_gqa},
    {is_coco, coco}, {is_karpathy, karpathy}, {is_wrapped, wrapped}, {is_by_split, by_split}, {is_map, map},
};

static Status document(Annotations *a, const Json *doc) {
    char list[400];
    /* before the table: only this one depends on what the user called things */
    if (columns_ask(doc, a) == ROLE_CAPTION) return columns(a, doc);
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
        if (documents[i].is(doc)) return documents[i].read(a, doc);
    members_of(doc, list, sizeof list);
    return err_set(ERR_FORMAT,
                   "this JSON is none of the known forms: a list of {image, caption}, one such a line, COCO (images, "
                   "annotations), Karpathy (images with sentences), {name: caption}; %s%s",
                   list[0] ? "it has the members " : "it is empty", list);
}

/* An entry names an image by a string or a number. */
static bool is_entry(const Annotations *a, const Json *v) {
    const char *key;
    const Json *image = member(a, ROLE_IMAGE, v, &key);
    enum JsonType t = json_type(image);
    return t == J_STR || t == J_INT || is_list(json_get(v, "conversations")) || is_list(json_get(v, "messages")) ||
           json_get(image, "path");
}

typedef struct { Annotations *a; bool list; } Reading;

/* Items of an array and lines are entries; a lone object may be a document. */
static Status item(void *ctx, int64_t i, const Json *v) {
    Reading *r = ctx;
    bool object = json_type(v) == J_OBJECT;
    if (!r->list && i == 0 && object && !is_entry(r->a, v)) { /* names no image: maybe all of a document */
        const char *key;
        bool line = member(r->a, ROLE_CAPTION, v, &key) && json_type(member(r->a, ROLE_CAPTION, v, &key)) == J_STR;
        return line ? entry(r->a, 0, v) : document(r->a, v);
    }
    return entry(r->a, (size_t)i, v);
}

Status annotation_json(Annotations *a, const char *text, size_t n, const char *name) {
    Reading r = {.a = a, .list = text[strspn(text, " \t\r\n")] == '['};
    FILE *f = fmemopen((void *)(uintptr_t)text, n, "rb");              /* only read */
    if (!f) return ERR_MEMORY;
    Status st = json_each_of(f, name, item, &r);
    fclose(f);
    return st;
}

Status annotation_object(Annotations *a, int64_t index, const char *text, size_t n, const char *name) {
    Json *doc = NULL;
    const char *key = NULL;
    Status st = json_parse(&doc, text, n, name);
    if (st != OK) return st;
    const Json *caption = member(a, ROLE_CAPTION, doc, &key);
    if (caption) st = err_context(captions_of(a, index, caption, key), "%s", name);
    json_free(doc);
    return st;
}
