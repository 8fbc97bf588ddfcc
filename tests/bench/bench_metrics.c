/* Speed of the caption metrics, one thread, against the limit of 2.2 s for 40,000 candidates with 5 references of 16
 * words on average (the Java and Python toolkit: 43 s).
 *
 *     bench_metrics [images] [references]
 *
 * Captions are drawn: words of a made-up vocabulary of 12,000 with Zipf's frequencies, half of them from the image's
 * own ten words, so that references share n-grams as people's captions do; a capital first, a full stop last, and now
 * and then a comma, a hyphen, an apostrophe, brackets or an é. A pair is a candidate and one of its references. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/format/json.h"
#include "kernels/base/splitmix.h"
#include "eval/metrics/metrics.h"
#include "eval/metrics/ptb.h"
#include "kernels/base/mem.h"

enum { WORDS = 12000, TOPIC = 10, LONGEST = 32, WORD_BYTES = 24 };
static const double LIMIT = 2.2;   /* seconds */

typedef struct {
    char *text;
    size_t n, cap, *at, count, words;   /* caption i: text[at[i] .. at[i+1]) */
} Captions;

static char vocabulary[WORDS][WORD_BYTES];
static double cumulative[WORDS];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);   /* one thread: seconds of one core */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void make_vocabulary(SplitMix *r) {
    static const char *const onset[] = {"b", "c", "d", "f", "g", "h", "l", "m",
                                        "n", "p", "r", "s", "st", "t", "tr", "w"};
    static const char *const rime[] = {"a", "e", "i", "o", "u", "an", "er", "in", "on", "ing", "ed", "at", "all", "ow"};
    double sum = 0;
    for (int i = 0; i < WORDS; i++) {
        int syllables = 1 + (i > 40) + (i > 1500 && splitmix_below(r, 2));
        vocabulary[i][0] = 0;
        for (int k = 0; k < syllables; k++) {
            strcat(vocabulary[i], onset[splitmix_below(r, 16)]);
            strcat(vocabulary[i], rime[splitmix_below(r, 14)]);
        }
        cumulative[i] = sum += 1.0 / (i + 2.7);
    }
    for (int i = 0; i < WORDS; i++) cumulative[i] /= sum;
}

static int draw_word(SplitMix *r) {
    double u = splitmix_unit(r);
    int low = 0, high = WORDS - 1;
    while (low < high) {
        int mid = (low + high) / 2;
        if (cumulative[mid] < u) low = mid + 1;
        else high = mid;
    }
    return low;
}

static void put(Captions *c, const char *s) {
    size_t n = strlen(s);
    memcpy(c->text + c->n, s, n);
    c->n += n;
}

static Status draw_caption(Captions *c, SplitMix *r, const int *topic) {
    static const char *const after[] = {",", ")", "-colored", "'s", "\xC3\xA9"};
    uint32_t words = 8 + splitmix_below(r, 17);   /* 16 on average */
    size_t begin = c->n;
    if (c->cap - c->n < LONGEST * (WORD_BYTES + 8)) {
        size_t cap = c->cap ? 2 * c->cap : 1 << 20;
        char *grown = mem_grow(c->text, cap, 1);
        if (!grown) return ERR_MEMORY;
        c->text = grown;
        c->cap = cap;
    }
    c->at[c->count++] = begin;
    c->words += words;
    for (uint32_t i = 0; i < words; i++) {
        const char *w = vocabulary[i % 2 ? topic[splitmix_below(r, TOPIC)] : draw_word(r)];
        uint32_t kind = splitmix_below(r, 64);
        if (i) put(c, " ");
        if (kind == 1) put(c, "(");
        put(c, w);
        put(c, kind < 5 ? after[kind] : "");
    }
    put(c, ".");
    c->text[begin] = (char)(c->text[begin] >= 'a' ? c->text[begin] - 32 : c->text[begin]);
    return OK;
}

static Status draw_captions(Captions *c, size_t images, size_t references) {
    SplitMix r = {.state = 1};
    Status st = OK;
    make_vocabulary(&r);
    if (!(c->at = mem_new(images * (references + 1) + 1, sizeof *c->at))) return ERR_MEMORY;
    for (size_t i = 0; i < images && !st; i++) {
        int topic[TOPIC];
        for (int k = 0; k < TOPIC; k++) topic[k] = draw_word(&r);
        for (size_t k = 0; k <= references && !st; k++) st = draw_caption(c, &r, topic);
    }
    c->at[c->count] = c->n;
    return st;
}

static Status score(const Captions *c, size_t references, double *tokenize, double *compute, MetricScores *corpus) {
    Ptb *ptb = NULL;
    Metrics *m = NULL;
    double t0 = now(), t1;
    Status st = ptb_new(&ptb);
    if (!st) st = metrics_new(&m);
    for (size_t i = 0; i < c->count && !st; i++) {
        const char *tokens;
        size_t n;
        if ((st = ptb_tokenize(ptb, c->text + c->at[i], c->at[i + 1] - c->at[i], &tokens, &n))) break;
        st = i % (references + 1) ? metrics_reference(m, tokens, n) : metrics_image(m, tokens, n);
    }
    t1 = now();
    *tokenize = t1 - t0;
    if (!st) st = metrics_compute(m, corpus, NULL);
    *compute = now() - t1;
    metrics_free(m);
    ptb_free(ptb);
    return st;
}

int main(int argc, char **argv) {
    size_t images = argc > 1 ? strtoul(argv[1], NULL, 10) : 40000;
    size_t references = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    Captions c = {0};
    MetricScores corpus = {0};
    double tokenize = 0, compute = 0, total, pairs = (double)images * (double)references;
    JsonWriter w;
    Status st = draw_captions(&c, images, references);
    if (!st) st = score(&c, references, &tokenize, &compute, &corpus);
    if (st) {
        fprintf(stderr, "bench_metrics: %s\n", err_message());
        return 1;
    }
    total = tokenize + compute;
    printf("%-24s %8zu captions %5.1f words  tokenize %6.3f s  score %6.3f s  total %6.3f s  %9.0f pairs/s  "
           "limit %.1f s\n", "caption metrics", c.count, (double)c.words / (double)c.count, tokenize, compute, total,
           pairs / total, LIMIT);
    jw_begin(&w, stdout, 0);
    jw_object(&w, NULL);
    jw_str(&w, "bench", "caption metrics");
    jw_int(&w, "images", (int64_t)images);
    jw_int(&w, "references", (int64_t)references);
    jw_num(&w, "tokenize_s", tokenize);
    jw_num(&w, "score_s", compute);
    jw_num(&w, "total_s", total);
    jw_num(&w, "pairs_per_s", pairs / total);
    jw_num(&w, "limit_s", LIMIT);
    jw_num(&w, "CIDEr", corpus.cider);
    jw_end(&w);
    st = jw_done(&w);
    free(c.text);
    free(c.at);
    return st || (images == 40000 && references == 5 && total > LIMIT);
}
