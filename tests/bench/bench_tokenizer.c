/* Speed of the tokenizer and the caption processor, one thread: a row for people and a line of JSON for each.
 *
 *     bench_tokenizer [vocab.txt strings.jsonl]
 *
 * Texts: "text" of the rows of strings.jsonl; by default the reference's whole set, or the cut in tests/golden. Words
 * are what the tokenizer splits a text into. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/text/caption.h"
#include "data/format/json.h"
#include "data/text/wordpiece.h"
#include "kernels/base/mem.h"

enum { MOST = 10000 };
static const double seconds_each = 1.0;

typedef struct { char *v[MOST]; size_t n[MOST], count, bytes, words; } Texts;
typedef struct { Texts ascii, other; } Corpus;

static Status count_word(void *ctx, const char *word, size_t n, int points) {
    (void)word, (void)n, (void)points;
    ++*(size_t *)ctx;
    return OK;
}

static Status add_row(void *ctx, int64_t i, const Json *row) {
    Corpus *c = ctx;
    size_t n = 0, k = 0;
    (void)i;
    const char *text = json_str(json_get(row, "text"), &n);
    if (!text) return err_set(ERR_FORMAT, "no \"text\"");
    while (k < n && (unsigned char)text[k] < 0x80) k++;
    Texts *t = k == n ? &c->ascii : &c->other;
    if (t->count == MOST) return OK;
    char *copy = mem_new(n + 1, 1);
    if (!copy) return ERR_MEMORY;
    memcpy(copy, text, n);
    t->v[t->count] = copy;
    t->n[t->count++] = n;
    t->bytes += n;
    return wp_words(text, n, count_word, &t->words);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Once over all texts. */
static Status pass(const Wordpiece *wp, const Texts *t) {
    int32_t ids[512];
    int count;
    for (size_t i = 0; i < t->count; i++) {
        char *out = NULL;
        Status st = wp ? wp_encode(wp, t->v[i], t->n[i], 512, ids, &count, NULL)
                       : caption_blip(&out, NULL, t->v[i], t->n[i], NULL, CAPTION_MAX_WORDS);
        free(out);
        if (st != OK) return st;
    }
    return OK;
}

static Status measure(const char *name, const Wordpiece *wp, const Texts *t) {
    JsonWriter w;
    int64_t passes = 0;
    Status st = pass(wp, t);   /* warm */
    double start = now(), spent = 0;
    for (; st == OK && spent < seconds_each; spent = now() - start, passes++) st = pass(wp, t);
    if (st != OK) return st;
    double words = (double)passes * (double)t->words / spent, texts = (double)passes * (double)t->count / spent;
    double bytes = (double)passes * (double)t->bytes / spent;
    printf("%-24s %8.2f M words/s %8.3f M texts/s %8.1f MB/s\n", name, words / 1e6, texts / 1e6, bytes / 1e6);
    jw_begin(&w, stdout, 0);
    jw_object(&w, NULL);
    jw_str(&w, "bench", name);
    jw_num(&w, "words_per_s", words);
    jw_num(&w, "texts_per_s", texts);
    jw_num(&w, "bytes_per_s", bytes);
    jw_int(&w, "texts", (int64_t)t->count);
    jw_end(&w);
    return jw_done(&w);
}

static void drop(Texts *t) {
    for (size_t i = 0; i < t->count; i++) free(t->v[i]);
}

int main(int argc, char **argv) {
    static Corpus c;
    bool alone = access("../shared/golden/tokenizer/vocab.txt", R_OK) != 0;
    const char *folder = alone ? "tests/golden/tokenizer" : "../shared/golden/tokenizer";
    char *vocab = argc > 1 ? mem_strdup(argv[1]) : mem_format("%s/vocab.txt", folder);
    char *strings = argc > 2 ? mem_strdup(argv[2]) : mem_format("%s/strings.jsonl", folder);
    Wordpiece *wp = NULL;
    Status st = vocab && strings ? wp_open(&wp, vocab) : ERR_MEMORY;
    if (st == OK) st = json_each(strings, add_row, &c);
    if (st == OK) st = measure("tokenizer, ASCII", wp, &c.ascii);
    if (st == OK) st = measure("tokenizer, other", wp, &c.other);
    if (st == OK) st = measure("caption processor", NULL, &c.ascii);
    if (st != OK) fprintf(stderr, "bench_tokenizer: %s\n", err_message());
    drop(&c.ascii);
    drop(&c.other);
    wp_close(wp);
    free(vocab);
    free(strings);
    return st == OK ? 0 : 1;
}
