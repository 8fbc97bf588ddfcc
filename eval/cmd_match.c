/* cmd_match: how well given texts fit given images: the matching head's probability and the cosine of the
 * contrastive features. Pairs come from a caption file that names images of the data set, or are the captions of a
 * split with their own images. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/commands.h"
#include "data/make/annotations.h"
#include "eval/evaluate.h"
#include "eval/rerank.h"
#include "eval/result.h"
#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

typedef struct {
    Evaluation e;
    Annotations a;                      /* of match.pairs, else empty */
    Rerank pairs;
    float *I, *T;
} Match;

/* Every image of the file has to be in the data set. */
static Status find_images(const Match *m, const char *path, int64_t *image) {
    const Set *set = m->e.use.set;
    StrMap ids = {0};
    Status st = OK;
    /* exactly as the set names them: a guess here would score the wrong picture */
    for (int64_t i = 0; st == OK && i < set_images(set); i++) st = strmap_put(&ids, set_image_id(set, i), i);
    for (int64_t i = 0; st == OK && i < m->a.count; i++) {
        const int64_t *at = strmap_get(&ids, m->a.images[i].image);
        if (at) image[i] = *at;
        else
            st = err_set(ERR_USAGE, "%s: image '%s' is not in %s, which names its images like '%s'", path,
                         m->a.images[i].image, set_path(set), set_image_id(set, 0));
    }
    strmap_free(&ids);
    return st;
}

static Status read_pairs(Match *m, const char *path) {
    Status st = annotations_load_captions(&m->a, &(AnnotationFile){.path = path, .split = "all"}, 1);
    if (st != OK) return st;
    const char **texts = mem_new((size_t)m->a.ncaptions, sizeof *texts);
    int64_t *image = mem_new((size_t)m->a.count, sizeof *image), t = 0;
    st = texts && image ? find_images(m, path, image) : ERR_MEMORY;
    for (int64_t i = 0; st == OK && i < m->a.count; i++)
        for (int64_t k = 0; k < m->a.images[i].ncaptions; k++) texts[t++] = m->a.images[i].captions[k];
    if (st == OK) st = evalset_texts(&m->e.set, &m->e.use.text, texts, t);
    free(texts);
    if (st != OK) {
        free(image);
        return st;
    }
    EvalSet *s = &m->e.set;
    /* an evaluation set of its own: the images of the file, each with its texts behind it */
    s->set = m->e.use.set, s->NI = m->a.count, s->image = image;
    t = 0;
    for (int64_t i = 0; i < s->NI; i++)
        for (int64_t k = 0; k < m->a.images[i].ncaptions; k++, t++) s->owner[t] = (int32_t)i, s->caption[t] = k;
    return OK;
}

static const char *text_of(const Match *m, int64_t t, size_t *n) {
    const EvalSet *s = &m->e.set;
    if (!m->a.count) return set_caption(s->set, s->image[s->owner[t]], s->caption[t], n);
    const char *text = m->a.images[s->owner[t]].captions[s->caption[t]];
    *n = strlen(text);
    return text;
}

static double probability(const float *logit) { return 1 / (1 + exp((double)logit[0] - (double)logit[1])); }

static float cosine(const Match *m, int64_t t) {
    int64_t Q = m->e.use.d.Q, Z = m->e.use.d.Z;
    return recall_cosine(m->I + m->e.set.owner[t] * Q * Z, m->T + t * Z, Q, Z);
}

/* One text may hold a tab or a line end: it stays on its line. */
static void print_pairs(const Match *m) {
    const EvalSet *s = &m->e.set;
    puts("match\tcosine\timage\tcaption");
    for (int64_t t = 0; t < s->NT; t++) {
        size_t n;
        const char *text = text_of(m, t, &n);
        printf("%.4f\t%.4f\t%s\t", probability(m->pairs.logit + 2 * t), cosine(m, t),
               set_image_id(s->set, s->image[s->owner[t]]));
        /* a line a pair, whatever the text holds */
        for (size_t k = 0; k < n; k++) putchar((unsigned char)text[k] < ' ' ? ' ' : text[k]);
        putchar('\n');
    }
}

static void write_pairs(JsonWriter *w, const void *match) {
    const Match *m = match;
    const EvalSet *s = &m->e.set;
    for (int64_t t = 0; t < s->NT; t++) {
        size_t n;
        const char *text = text_of(m, t, &n);
        jw_object(w, NULL);
        jw_str(w, "image", set_image_id(s->set, s->image[s->owner[t]]));
        jw_strn(w, "caption", text, n);
        jw_num(w, "match", probability(m->pairs.logit + 2 * t));
        jw_num(w, "cosine", (double)cosine(m, t));
        jw_num(w, "logit", m->pairs.logit[2 * t + 1]);       /* which tells apart what the probability rounds to 1 */
        jw_end(w);
    }
}

static void say_means(const Match *m, const char *path) {
    double match = 0, cos = 0, all = (double)m->e.set.NT;
    int64_t fit = 0;
    for (int64_t t = 0; t < m->e.set.NT; t++) {
        double p = probability(m->pairs.logit + 2 * t);
        match += p, cos += (double)cosine(m, t), fit += p > 0.5;
    }
    status_say("%s: %lld pairs, mean probability of a match %.3f, %.1f %% above one half, mean cosine %.3f", path,
               (long long)m->e.set.NT, match / all, 100 * (double)fit / all, cos / all);
}

Status cmd_match(const Options *o) {
    Match m = {0};
    char *path = NULL;
    const char *pairs = o->match.pairs;
    Status st = evaluation_open(&m.e, o, &(EvaluationSpec){.split = !*pairs, .result = "match.jsonl"});
    if (st != OK) return st;
    if (*pairs && (st = read_pairs(&m, pairs))) goto done;   /* in place of a split */
    if (!m.e.set.NT) {
        st = err_set(ERR_USAGE, "split %s of %s has no captions; name a caption file (match.pairs=...)", m.e.use.split,
                     m.e.use.data);
        goto done;
    }
    if (o->run.dry_run) {
        options_print(o, stdout);
        status_say("%lld pairs of %lld images", (long long)m.e.set.NT, (long long)m.e.set.NI);
        goto done;
    }
    if ((st = result_path(o, "match.jsonl", &path))) goto done;
    m.e.quiet = !path;                   /* the pairs themselves go to stdout */
    if ((st = evaluation_features(&m.e, &m.I, &m.T))) goto done;
    if ((st = rerank_of_owners(&m.pairs, &m.e.set))) goto done;
    EvalProgress p = evaluation_progress(&m.e, "match", "pairs", m.pairs.n);
    if ((st = rerank_score(&m.pairs, &m.e.enc, &m.e.set, &p))) goto done;
    evaluation_progress_end(&m.e, &p);
    if (!path) print_pairs(&m);
    else if ((st = result_json(path, 0, write_pairs, &m)) == OK) say_means(&m, path);
done:
    mem_free(path, m.I, m.T);
    rerank_close(&m.pairs);
    evaluation_close(&m.e);
    annotations_free(&m.a);
    return st;
}
