/* asked: see asked.h. */
#include "eval/asked.h"

#include <stdlib.h>
#include <string.h>

#include "data/format/json.h"
#include "data/format/path.h"
#include "data/format/textfile.h"
#include "eval/caption.h"
#include "eval/metrics/vqa.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

/* ---- pictures by name -------------------------------------------------------------------------------------------- */

typedef struct { StrMap by_name; const EvalSet *e; Asked *a; } Pictures;

static const char *keep(Asked *a, char *text) { return mem_keep(&a->texts, &a->ntexts, text); }

/* The first picture that a name fits has it. */
static Status name_picture(Pictures *p, char *name, int64_t i) {
    const char *own = keep(p->a, name);
    if (!own) return ERR_MEMORY;
    return strmap_get(&p->by_name, own) ? OK : strmap_put(&p->by_name, own, i);
}

/* A file's name without folders and ending. */
static char *stem_of(const char *name) {
    const char *base = path_base(name), *dot = strrchr(base, '.');
    return mem_format("%.*s", (int)(dot ? dot - base : (long)strlen(base)), base);
}

static Status list_pictures(Pictures *p) {
    Status st = OK;
    /* whole names before stems before numbers: what is exact wins */
    for (int pass = 0; pass < 3 && st == OK; pass++)
        for (int64_t i = 0; i < p->e->NI && st == OK; i++) {
            const char *id = set_image_id(p->e->set, p->e->image[i]);
            int64_t number;
            if (pass == 0) st = name_picture(p, mem_strdup(id), i);
            else if (pass == 1) st = name_picture(p, stem_of(id), i);
            else if (caption_id(id, &number)) st = name_picture(p, mem_format("%lld", (long long)number), i);
        }
    return st;
}

static Status find_picture(const Pictures *p, const char *name, int64_t *image) {
    const int64_t *at = strmap_get(&p->by_name, name);
    /* people keep the same picture in other folders and formats */
    char *stem = at ? NULL : stem_of(name);
    if (!at && stem) at = strmap_get(&p->by_name, stem);
    free(stem);
    if (!at) return err_set(ERR_USAGE, "picture %s is none of the %lld of %s", name, (long long)p->e->NI,
                            set_path(p->e->set));
    *image = *at;
    return OK;
}

/* ---- a list ------------------------------------------------------------------------------------------------------ */

static Status add(Asked *a, Question q) {
    if (mem_room(&a->q, (size_t)a->n, 1, sizeof *a->q) != OK) return ERR_MEMORY;
    q.place = a->n;                                          /* qsort alone keeps no order among equals */
    a->q[a->n++] = q;
    return OK;
}

static int by_picture(const void *x, const void *y) {
    const Question *a = x, *b = y;
    if (a->image != b->image) return a->image < b->image ? -1 : 1;
    return (a->place > b->place) - (a->place < b->place);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

/* A text, or a number as text. */
static const char *text_of(Asked *a, const Json *v, bool *number) {
    int64_t n;
    const char *s = json_str(v, NULL);
    *number = !s && json_int(v, &n);
    if (*number) return keep(a, mem_format("%lld", (long long)n));
    return s ? keep(a, mem_strdup(s)) : NULL;
}

/* Multiple choice. The list is one block: pointers, then nothing; the texts are kept like all others. */
static Status take_choices(Asked *a, const Json *list, Question *q) {
    size_t n = json_len(list);
    bool number;
    if (!n) return OK;
    const char **choice = mem_new(n, sizeof *choice);
    if (!choice || !keep(a, (char *)(void *)choice)) return ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        if (!(choice[i] = text_of(a, json_at(list, i), &number)))
            return err_set(ERR_FORMAT, "question %lld: choice %zu is no text", (long long)a->n, i + 1);
    q->choices = choice;
    q->nchoices = (int)n;
    return OK;
}

static Status take(Pictures *p, const char *id, const Json *e) {
    static const char *const ids[] = {"question_id", "questionId", "id"},
                      *const images[] = {"image", "image_id", "imageId", "file_name"};
    Asked *a = p->a;
    Question q = {0};
    bool number;
    const char *image = text_of(a, json_any(e, 4, images), &number);
    q.text = text_of(a, json_get(e, "question"), &number);
    q.id = id ? keep(a, mem_strdup(id)) : text_of(a, json_any(e, 3, ids), &q.number);
    /* home-made lists may have none: its place then */
    if (!q.id) q.id = keep(a, mem_format("%lld", (long long)a->n)), q.number = true;
    if (!image || !q.text || number)
        return err_set(ERR_FORMAT, "question %lld: an \"image\" (or \"image_id\") and a \"question\" are wanted",
                       (long long)a->n);
    if (!q.id) return ERR_MEMORY;
    Status st = find_picture(p, image, &q.image);
    if (st == OK) st = take_choices(a, json_get(e, "choices"), &q);
    return st == OK ? add(a, q) : st;
}

static Status take_all(Pictures *p, const Json *doc) {
    const Json *one = json_len(doc) == 1 ? json_at(doc, 0) : NULL, *list = one ? json_get(one, "questions") : NULL, *v;
    Status st = OK;
    /* a file of one object is one question, or a map of them */
    if (!list && (!one || json_str(json_get(one, "question"), NULL))) list = doc;
    for (size_t i = 0; i < json_len(list) && st == OK; i++) st = take(p, NULL, json_at(list, i));
    if (list) return st;                                     /* else a map from ids, as GQA writes it */
    for (const char *id = json_next(one, NULL, &v); id && st == OK; id = json_next(one, id, &v)) st = take(p, id, v);
    return st;
}

Status asked_read(Asked *a, const EvalSet *e, const char *path) {
    Json *doc = NULL;
    *a = (Asked){0};
    Pictures p = {.e = e, .a = a};
    Status st = json_parse_items(&doc, path);
    if (st == OK) st = list_pictures(&p);
    if (st == OK) st = err_context(take_all(&p, doc), "%s", path);
    if (st == OK && !a->n) st = err_set(ERR_FORMAT, "%s: no question in it", path);
    if (st == OK) qsort(a->q, (size_t)a->n, sizeof *a->q, by_picture);
    json_free(doc);
    strmap_free(&p.by_name);
    if (st != OK) asked_free(a);
    return st;
}

/* ---- the set's own ----------------------------------------------------------------------------------------------- */

Status asked_choices(Asked *a, const char *path) {
    char *text = NULL;
    size_t n = 0, count = 0;
    Status st = textfile_read(&text, &n, path, "possible answers, one a line");
    if (st != OK) return st;
    const char *at = text, *line;
    size_t len;
    const char **all = mem_new(n + 1, sizeof *all);          /* no more lines than bytes */
    st = all && keep(a, (char *)(void *)all) ? OK : ERR_MEMORY;
    while (st == OK && textfile_line(&at, text + n, &line, &len))
        if (len && !(all[count++] = keep(a, mem_format("%.*s", (int)len, line)))) st = ERR_MEMORY;
    if (st == OK && !count) st = err_set(ERR_FORMAT, "%s: no answer in it", path);
    for (int64_t i = 0; st == OK && i < a->n; i++)
        if (!a->q[i].nchoices) a->q[i].choices = all, a->q[i].nchoices = (int)count;
    free(text);
    return st;
}

Status asked_of_set(Asked *a, const EvalSet *e) {
    Status st = OK;
    *a = (Asked){.judged = true};
    for (int64_t i = 0; i < e->NI && st == OK; i++)
        for (int64_t k = 0; k < set_ncaptions(e->set, e->image[i]) && st == OK; k++) {
            size_t n;
            const char *s = set_caption(e->set, e->image[i], k, &n);
            SetText t = settext_of(s, n);
            if (t.kind != TEXT_QUESTION) continue;
            Question q = {.image = i, .human = t, .text = keep(a, mem_format("%.*s", (int)t.prompt.n, t.prompt.s)),
                          .id = keep(a, mem_format("%lld", (long long)a->n)), .number = true};
            st = q.text && q.id ? add(a, q) : ERR_MEMORY;
        }
    if (st != OK) asked_free(a);
    return st;
}

Status asked_accuracy(const Question *q, double *accuracy) {
    const char *human[64];
    char *all[64] = {NULL};
    size_t n = q->human.answers < 64 ? (size_t)q->human.answers : 64;  /* as vqa.c takes at most */
    Status st = OK;
    for (size_t i = 0; i < n && st == OK; i++) {
        TextSpan s = settext_part(q->human.target, (int64_t)i);
        human[i] = all[i] = mem_format("%.*s", (int)s.n, s.s);
        if (!all[i]) st = ERR_MEMORY;
    }
    if (st == OK) st = vqa_accuracy(accuracy, n > 1 ? VQA_RULE_VQA : VQA_RULE_EXACT, q->answer, human, n);
    for (size_t i = 0; i < n; i++) free(all[i]);
    return st;
}

void asked_free(Asked *a) {
    for (int64_t i = 0; i < a->n; i++) free(a->q[i].answer);
    mem_free_list(a->texts, a->ntexts);
    free(a->q);
    *a = (Asked){0};
}
