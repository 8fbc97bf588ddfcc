/* classify: see classify.h. */
#include "eval/classify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/format/csv.h"
#include "data/format/json.h"
#include "data/format/textfile.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

/* ---- names ------------------------------------------------------------------------------------------------------- */

static Status read_text(const char *path, char **text) {
    size_t n = 0;
    Status st = textfile_read(text, &n, path, "a list of names");
    if (st == OK && strlen(*text) != n)
        st = err_set(ERR_FORMAT, "%s is no text: byte %zu is zero", path, strlen(*text));
    return st;
}

/* JSON where a list of lines is wanted. A class may be called "[dog]": the whole must be a document. */
static bool is_json(const char *text, const char *path) {
    Json *doc = NULL;
    bool is = (*text == '[' || *text == '{') && json_parse(&doc, text, strlen(text), path) == OK;
    json_free(doc);
    err_clear();
    return is;
}

static char *trim(char *s) {
    s += strspn(s, " \t\r");
    size_t n = strlen(s);
    while (n && strchr(" \t\r", s[n - 1])) s[--n] = 0;
    return s;
}

int64_t classes_find(const Classes *c, const char *name, size_t n) {
    for (int64_t k = 0; k < c->n; k++)
        if (strlen(c->name[k]) == n && strncasecmp(c->name[k], name, n) == 0) return k;
    return -1;
}

Status classes_read(Classes *c, const char *path) {
    *c = (Classes){.file = path};
    Status st = read_text(path, &c->text);
    int64_t lines = 1, line = 0;
    for (const char *p = c->text; st == OK && *p; p++) lines += *p == '\n';
    if (st == OK && !(c->name = mem_new((size_t)lines, sizeof *c->name))) st = ERR_MEMORY;
    if (st == OK && is_json(c->text, path))
        st = err_set(ERR_FORMAT, "%s: is JSON; one name a line is wanted: python3 -c \"import json; "
                     "d = json.load(open('%s')); print(*(d.values() if isinstance(d, dict) else d), sep='\\n')\" > "
                     "names.txt", path, path);
    char *rest = c->text;
    for (char *s; st == OK && (s = strsep(&rest, "\n"));) {
        line++;
        s = trim(s);                                         /* files of Windows end lines with CR */
        if (!*s) continue;
        if (classes_find(c, s, strlen(s)) >= 0)
            st = err_set(ERR_FORMAT, "%s:%lld: class '%s' stands there twice", path, (long long)line, s);
        else c->name[c->n++] = s;                            /* points into the text, which lives as long */
    }
    if (st == OK && c->n == 0) st = err_set(ERR_FORMAT, "%s names no class; it wants one name a line", path);
    if (st != OK) classes_free(c);
    return st;
}

void classes_free(Classes *c) {
    mem_free(c->text, c->name);
    *c = (Classes){0};
}

/* ---- features ---------------------------------------------------------------------------------------------------- */

static char *fill_in(const char *template, const char *name) {
    const char *hole = strstr(template, "{}");               /* the caller has looked: there is one */
    return mem_format("%.*s%s%s", (int)(hole - template), template, name, hole + 2);
}

/* The normalised mean of n features. */
static void mean_feature(float *out, const float *T, int64_t n, int64_t Z) {
    double norm = 0;
    for (int64_t z = 0; z < Z; z++) {
        double sum = 0;
        for (int64_t k = 0; k < n; k++) sum += T[k * Z + z];
        out[z] = (float)(sum / (double)n);
        norm += (double)out[z] * out[z];
    }
    /* texts that cancel out have no direction */
    for (int64_t z = 0; z < Z; z++) out[z] = norm > 0 ? (float)(out[z] / sqrt(norm)) : 0;
}

/* One class at a time: its texts, their features, their mean. */
static Status one_class(const char *name, char *const *templates, int64_t n, Evaluation *e, float *T, float *out,
                        EvalProgress *p) {
    char **texts = mem_new((size_t)n, sizeof *texts);
    EvalSet s = {0};
    Status st = texts ? OK : ERR_MEMORY;
    for (int64_t k = 0; st == OK && k < n; k++)
        if (!(texts[k] = fill_in(templates[k], name))) st = ERR_MEMORY;
    if (st == OK) st = evalset_texts(&s, &e->use.text, (const char *const *)texts, n);
    if (st == OK) st = evalset_encode_texts(&s, &e->enc, 0, n, T, p);
    if (st == OK) mean_feature(out, T, n, e->use.d.Z);
    evalset_close(&s);
    mem_free_list(texts, (size_t)n);
    return st;
}

Status classes_features(const Classes *c, const char *templates, Evaluation *e, float *out) {
    int64_t n = 1, k = 0, Z = e->use.d.Z;
    for (const char *p = templates; *p; p++) n += *p == '|';
    char *copy = mem_strdup(templates), *rest = copy, **list = mem_new((size_t)n, sizeof *list);
    float *T = mem_new((size_t)n, (size_t)Z * sizeof *T);
    Status st = copy && list && T ? OK : ERR_MEMORY;
    while (st == OK && rest) {
        list[k] = trim(strsep(&rest, "|"));
        if (!strstr(list[k], "{}")) st = err_set(ERR_USAGE, "classify.templates: '%s' has no {} for the name", list[k]);
        k++;
    }
    EvalProgress p = evaluation_progress(e, "classes", "texts", c->n * n);
    for (k = 0; st == OK && k < c->n; k++) st = one_class(c->name[k], list, n, e, T, out + k * Z, &p);
    if (st == OK) evaluation_progress_end(e, &p);
    mem_free(copy, list, T);
    return st;
}

/* ---- truth ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const Classes *c;
    StrMap images;                      /* id to position in the set */
    int32_t *truth;
    size_t image, label, columns;       /* columns is 0 before the header */
    int64_t found;                      /* rows that concern an image of the set */
} Labels;

/* The first field that is one of the words, which bars divide. */
static size_t column(size_t n, const char *const *fields, const char *words) {
    for (size_t i = 0; i < n; i++)
        for (const char *w = words; *w; w += strcspn(w, "|"), w += *w == '|')
            if (strlen(fields[i]) == strcspn(w, "|") && !strncasecmp(fields[i], w, strlen(fields[i]))) return i;
    return n;
}

static Status label_row(void *ctx, int64_t line, size_t n, const char *const *fields) {
    (void)line;
    Labels *l = ctx;
    if (!l->columns) {
        l->image = column(n, fields, "image|image_id|file|file_name|filename|path|filepath|image_path");
        l->label = column(n, fields, "label|class|class_name|category|target|label_name");
        l->columns = n;
        if (l->image == n || l->label == n) return err_set(ERR_FORMAT, "the header has no columns image and label");
        return OK;
    }
    const int64_t *at = strmap_get(&l->images, fields[l->image]);
    if (!at) return OK;                  /* labels of images elsewhere may stand there too */
    const char *label = fields[l->label];
    char *end;
    int64_t k = classes_find(l->c, label, strlen(label));
    long number = strtol(label, &end, 10);
    /* a class may be called "7": names come before places */
    if (k < 0 && *label && !*end && number >= 0 && number < l->c->n) k = number;
    if (k < 0)
        return err_set(ERR_FORMAT, "'%s' is no class: neither one of the %lld names of %s nor a number below that",
                       label, (long long)l->c->n, l->c->file);
    l->truth[*at] = (int32_t)k;
    l->found++;
    return OK;
}

static Status truth_of_file(const Classes *c, const char *path, const EvalSet *s, int32_t *truth) {
    Labels l = {.c = c, .truth = truth};
    char *text = NULL;
    size_t n = 0;
    Status st = textfile_read(&text, &n, path, "a table of labels");
    for (int64_t i = 0; st == OK && i < s->NI; i++) st = strmap_put(&l.images, set_image_id(s->set, s->image[i]), i);
    if (st == OK) st = csv_read(text, n, path, 0, label_row, &l);
    if (st == OK && !l.columns) st = err_set(ERR_FORMAT, "%s is empty; columns image and label are wanted", path);
    if (st == OK && !l.found)
        st = err_set(ERR_FORMAT, "%s has a label for none of the %lld images, which have names like '%s'", path,
                     (long long)s->NI, s->NI ? set_image_id(s->set, s->image[0]) : "");
    free(text);
    strmap_free(&l.images);
    return st;
}

/* The folder nearest to the file that is a class name: "dog/1.png", "val/dog/x/1.png". */
static int64_t class_of_folder(const Classes *c, const char *id) {
    const char *end = strrchr(id, '/');
    /* from the file outwards: the nearest folder is the most special */
    while (end) {
        const char *start = end;
        while (start > id && start[-1] != '/') start--;
        int64_t k = classes_find(c, start, (size_t)(end - start));
        if (k >= 0) return k;
        end = start > id ? start - 1 : NULL;
    }
    return -1;
}

static int64_t class_of_caption(const Classes *c, const Set *set, int64_t image) {
    for (int64_t k = 0; k < set_ncaptions(set, image); k++) {
        size_t n;
        const char *text = set_caption(set, image, k, &n);
        int64_t found = classes_find(c, text, n);
        if (found >= 0) return found;
    }
    return -1;
}

Status classes_truth(const Classes *c, const char *labels_path, const EvalSet *s, int32_t *truth) {
    for (int64_t i = 0; i < s->NI; i++) truth[i] = -1;       /* unknown until something tells */
    if (labels_path && *labels_path) return truth_of_file(c, labels_path, s, truth);
    for (int64_t i = 0; i < s->NI; i++) {
        truth[i] = (int32_t)class_of_caption(c, s->set, s->image[i]);
        if (truth[i] < 0) truth[i] = (int32_t)class_of_folder(c, set_image_id(s->set, s->image[i]));
    }
    return OK;
}
