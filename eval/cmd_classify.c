/* cmd_classify: zero-shot classification of a split's images: the five best classes of each (classify.jsonl), and,
 * where the true class is known, how often the first or one of the five is right (classify.json). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/commands.h"
#include "eval/classify.h"
#include "eval/result.h"
#include "eval/retrieval.h"
#include "kernels/base/mem.h"

enum { TOP = 5 };

typedef struct {
    Evaluation e;
    Classes c;
    float *features;                    /* (classes, Z) */
    int32_t *truth;                     /* (NI) or -1 */
    Hit *top;                           /* (NI, TOP); itc is the score */
    int64_t known, first, five;         /* images with a known class; right at the first place; among the five */
    int64_t *of_class, *right;          /* (classes) */
    bool finite;
} Classify;

static void keep_best(Classify *w, int64_t i, const float *score) {
    Hit *top = w->top + i * TOP;
    int n = 0;
    for (int64_t k = 0; k < w->c.n; k++) {
        /* no comparison with NaN holds: it would be passed over unseen */
        if (!isfinite(score[k])) w->finite = false;
        int at = n < TOP ? n++ : TOP;
        while (at > 0 && score[k] > top[at - 1].itc) {       /* of equal scores the class that was named first */
            if (at < TOP) top[at] = top[at - 1];
            at--;
        }
        if (at < TOP) top[at] = (Hit){(int32_t)k, score[k], 0};
    }
}

typedef struct { Classify *w; int64_t first; } Block;

static void block_row(void *ctx, int64_t i, const float *score) {
    const Block *b = ctx;
    keep_best(b->w, b->first + i, score);
}

static Status score_images(Classify *w) {
    const Dims *d = &w->e.use.d;
    const EvalSet *s = &w->e.set;
    int64_t block = 8 * w->e.enc.batch;                      /* several batches a product of similarities */
    float *I = mem_new((size_t)block, (size_t)(d->Q * d->Z) * sizeof *I);
    EvalProgress p = evaluation_progress(&w->e, "classify", "images", s->NI);
    Status st = I ? OK : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < s->NI; i += block) {
        int64_t n = s->NI - i < block ? s->NI - i : block;
        Block b = {w, i};
        /* a block, not all: a million pictures of 32 queries would be 32 GB */
        st = evalset_encode_images(s, &w->e.enc, i, n, I, &p);
        if (st == OK) st = recall_rows(w->e.use.b, I, n, w->features, w->c.n, d->Q, d->Z, block_row, &b);
    }
    free(I);
    if (st == OK) evaluation_progress_end(&w->e, &p);
    if (st == OK && !w->finite)
        st = err_set(ERR_NUMERIC, "scores are not finite: the model or its features are broken");
    return st;
}

static void count(Classify *w) {
    int64_t shown = w->c.n < TOP ? w->c.n : TOP;             /* two classes have no fifth place */
    for (int64_t i = 0; i < w->e.set.NI; i++) {
        int32_t t = w->truth[i];
        if (t < 0) continue;                                 /* unknown */
        w->known++;
        w->of_class[t]++;
        w->right[t] += w->top[i * TOP].index == t;
        w->first += w->top[i * TOP].index == t;
        for (int64_t k = 0; k < shown; k++) w->five += w->top[i * TOP + k].index == t;
    }
}

static double percent(int64_t n, int64_t of) { return of ? 100.0 * (double)n / (double)of : 0; }

static void write_images(JsonWriter *j, const void *classify) {
    const Classify *w = classify;
    const EvalSet *s = &w->e.set;
    for (int64_t i = 0; i < s->NI; i++) {
        jw_object(j, NULL);
        jw_str(j, "image", set_image_id(s->set, s->image[i]));
        if (w->truth[i] >= 0) jw_str(j, "truth", w->c.name[w->truth[i]]);
        jw_array(j, "top");
        for (int64_t k = 0; k < TOP && k < w->c.n; k++) {
            jw_object(j, NULL);
            jw_str(j, "class", w->c.name[w->top[i * TOP + k].index]);
            jw_num(j, "score", w->top[i * TOP + k].itc);
            jw_end(j);
        }
        jw_end(j);
        jw_end(j);
    }
}

static void write_summary(JsonWriter *j, const void *classify) {
    const Classify *w = classify;
    jw_object(j, NULL);
    jw_str(j, "model", w->e.use.path);
    jw_str(j, "data", set_path(w->e.set.set));
    jw_str(j, "split", w->e.use.split);
    jw_str(j, "templates", w->e.use.o->classify.templates);
    jw_int(j, "images", w->e.set.NI);
    jw_int(j, "known", w->known);
    if (w->known) {
        jw_num(j, "top1", percent(w->first, w->known));
        jw_num(j, "top5", percent(w->five, w->known));
        jw_num(j, "chance", 100.0 / (double)w->c.n);
    }
    jw_array(j, "classes");
    for (int64_t k = 0; k < w->c.n; k++) {
        jw_object(j, NULL);
        jw_str(j, "name", w->c.name[k]);
        jw_int(j, "images", w->of_class[k]);
        if (w->of_class[k]) jw_num(j, "top1", percent(w->right[k], w->of_class[k]));
        jw_end(j);
    }
    jw_end(j);
    jw_end(j);
}

static Status open_work(Classify *w, const Options *o) {
    Status st = options_require(o, "classify.names");
    /* the small file first: a slip in it is told before the model is read */
    if (st == OK) st = classes_read(&w->c, o->classify.names);
    if (st == OK)
        st = evaluation_open(&w->e, o, &(EvaluationSpec){.split = true, .result = "classify.json", .beside = "l"});
    if (st != OK) return st;
    size_t images = (size_t)w->e.set.NI, classes = (size_t)w->c.n;
    w->features = mem_new(classes, (size_t)w->e.use.d.Z * sizeof *w->features);
    w->truth = mem_new(images, sizeof *w->truth);
    w->top = mem_new(images, TOP * sizeof *w->top);
    w->of_class = mem_new(classes, sizeof *w->of_class);
    w->right = mem_new(classes, sizeof *w->right);
    w->finite = true;
    if (!w->features || !w->truth || !w->top || !w->of_class || !w->right) return ERR_MEMORY;
    return classes_truth(&w->c, o->classify.labels, &w->e.set, w->truth);
}

Status cmd_classify(const Options *o) {
    Classify w = {0};
    Status st = open_work(&w, o);
    if (st == OK && o->run.dry_run) {
        options_print(o, stdout);
        status_say("%lld images, %lld classes", (long long)w.e.set.NI, (long long)w.c.n);
    } else if (st == OK) {
        st = classes_features(&w.c, o->classify.templates, &w.e, w.features);
        if (st == OK) st = score_images(&w);
        if (st == OK) {
            count(&w);
            status_say("%s on %s (%s): %lld images, %lld classes", w.e.use.path, set_path(w.e.set.set), w.e.use.split,
                       (long long)w.e.set.NI, (long long)w.c.n);
            if (w.known)
                status_say("top-1 %.1f %%, top-5 %.1f %% of %lld images whose class is known; chance %.1f %%",
                           percent(w.first, w.known), percent(w.five, w.known), (long long)w.known,
                           100.0 / (double)w.c.n);
            else
                status_say("no accuracy: no image's class is known; name a file with columns image and label "
                           "(classify.labels=...), or use captions or folders that are class names");
            st = result_write_both(o, "classify.json", write_summary, write_images, "an image", &w);
        }
    }
    mem_free(w.features, w.truth, w.top, w.of_class, w.right);
    classes_free(&w.c);
    evaluation_close(&w.e);
    return st;
}
