/* Speed of the tokenizers and the caption processor, one thread: a row for people and a line of JSON for each.
 *
 *     bench_tokenizer [FOLDER ...]
 *
 * FOLDER: a model's tokenizer; by default WordPiece and the small ones of tests/golden/tokenizers, whose few pieces
 * make more of a text than real vocabularies do. Texts: those of the reference's strings.jsonl, or the cut in
 * tests/golden. Words are what WordPiece splits a text into. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "data/text/caption.h"
#include "data/format/json.h"
#include "data/text/tokenizer.h"
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

/* Once over all texts; *ids counts. */
static Status pass(const Tokenizer *t, const Texts *x, int64_t *ids) {
    static int32_t room[4096];
    int count;
    for (size_t i = 0; i < x->count; i++) {
        char *out = NULL;
        Status st = t ? tokenizer_encode(t, x->v[i], x->n[i], 4096, room, &count, NULL)
                      : caption_blip(&out, NULL, x->v[i], x->n[i], NULL, CAPTION_MAX_WORDS);
        free(out);
        if (st != OK) return st;
        *ids += t ? count : 0;
    }
    return OK;
}

static Status measure(const char *name, const Tokenizer *tok, const Texts *t) {
    JsonWriter w;
    int64_t passes = 0, ids = 0;
    Status st = pass(tok, t, &ids);   /* warm */
    double start = now(), spent = 0;
    for (ids = 0; st == OK && spent < seconds_each; spent = now() - start, passes++) st = pass(tok, t, &ids);
    if (st != OK) return st;
    double words = (double)passes * (double)t->words / spent, texts = (double)passes * (double)t->count / spent;
    double bytes = (double)passes * (double)t->bytes / spent;
    printf("%-34s %8.2f M words/s %8.3f M texts/s %8.1f MB/s %8.2f M tokens/s\n", name, words / 1e6, texts / 1e6,
           bytes / 1e6,
           (double)ids / spent / 1e6);
    jw_begin(&w, stdout, 0);
    jw_object(&w, NULL);
    jw_str(&w, "bench", name);
    jw_num(&w, "words_per_s", words);
    jw_num(&w, "texts_per_s", texts);
    jw_num(&w, "bytes_per_s", bytes);
    jw_num(&w, "tokens_per_s", (double)ids / spent);
    jw_int(&w, "texts", (int64_t)t->count);
    jw_end(&w);
    return jw_done(&w);
}

/* A folder's tokenizer on both sorts of text. */
static Status measure_folder(const char *folder, const Corpus *c) {
    Tokenizer *t;
    char name[80];
    const char *last = strrchr(folder, '/');
    double start = now();
    Status st = tokenizer_open(&t, folder);
    if (st != OK) return st;
    printf("%s (%s): opened in %.0f ms\n", folder, tokenizer_kind(t), 1e3 * (now() - start));
    snprintf(name, sizeof name, "%.30s, ASCII", last ? last + 1 : folder);
    st = measure(name, t, &c->ascii);
    snprintf(name, sizeof name, "%.30s, other", last ? last + 1 : folder);
    if (st == OK) st = measure(name, t, &c->other);
    tokenizer_close(t);
    return st;
}

static void drop(Texts *t) {
    for (size_t i = 0; i < t->count; i++) free(t->v[i]);
}

int main(int argc, char **argv) {
    static const char *const kinds[] = {"smol", "llama3", "qwen2", "llama2", "opt", "t5"};
    static Corpus c;
    bool alone = access("../shared/golden/tokenizer/vocab.txt", R_OK) != 0;
    const char *folder = alone ? "tests/golden/tokenizer" : "../shared/golden/tokenizer";
    char *strings = mem_format("%s/strings.jsonl", folder);
    Status st = strings ? json_each(strings, add_row, &c) : ERR_MEMORY;
    for (int i = 1; i < argc && st == OK; i++) st = measure_folder(argv[i], &c);
    if (st == OK && argc < 2) st = measure_folder(folder, &c);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds && st == OK && argc < 2; k++) {
        char path[80];
        snprintf(path, sizeof path, "tests/golden/tokenizers/%s", kinds[k]);
        st = measure_folder(path, &c);
    }
    if (st == OK) st = measure("caption processor", NULL, &c.ascii);
    if (st != OK) fprintf(stderr, "bench_tokenizer: %s\n", err_message());
    drop(&c.ascii);
    drop(&c.other);
    free(strings);
    return st == OK ? 0 : 1;
}
