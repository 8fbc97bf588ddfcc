/* golden: runs every fixture below a folder and prints a line a case with its largest error.
 *
 *     build/release/golden DIR [device=cpu|cuda] [precision=f32|bf16]
 *
 * Under mpirun every rank runs every case and prints it: for kinds that share work among ranks (retrieval). Kind ranks
 * starts its processes itself.
 *
 * Kinds without a runner here are listed as not supported and never counted as passed. Exit code 1 when a case failed,
 * or when nothing was found. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/dist/dist.h"
#include "tests/gold.h"
#include "tests/gold_lm.h"

static const struct { const char *kind; GoldFn *run; } kinds[] = {
    {"step", gold_step},
    {"negatives", gold_negatives},
    {"train", gold_train},
    {"schedule", gold_schedule},
    {"generate", gold_generate},
    {"retrieval", gold_retrieval},
    {"pth", gold_pth},
    {"hf", gold_hf},
    {"ranks", gold_ranks},
};

/* Cases that say no kind: a file of such looks is one. */
static const struct { const char *kind; GoldIs *is; GoldFn *run; } forms[] = {
    {"images", gold_is_images, gold_images},
    {"positions", gold_is_positions, gold_positions},
    {"causal", gold_is_causal, gold_causal},
    {"lavis", gold_is_lavis, gold_lavis},
    {"writing", gold_is_writing, gold_writing},
    {"captions", gold_is_caption_scores, gold_caption_scores},
    {"ptb", gold_is_ptb, gold_ptb},
    {"answers", gold_is_answers, gold_answers},
    {"vqa", gold_is_vqa, gold_vqa},
    {"smollm2", gold_is_smollm2, gold_smollm2},
    {"blip2", gold_is_blip2, gold_blip2},
    {"whole", gold_is_whole, gold_whole},
    {"strings", gold_is_strings, gold_strings},
    {"processors", gold_is_processors, gold_processors},
    {"invalid", gold_is_invalid, gold_invalid},
    {"tower", gold_is_tower, gold_tower},
};

typedef struct { const Backend *b; DType precision; int passed, failed, unsupported; } Tally;

static void report(Tally *t, Case *c, Status st) {
    bool ok = st == OK && c->compared > 0 && c->worst <= 1.0;
    if (st == ERR_MISSING) {
        printf("-     %-12s %-9s %s\n", c->name, c->kind, err_message());
        t->unsupported++;
        return;
    }
    if (st != OK) printf("FAIL  %-12s %-9s %s\n", c->name, c->kind, err_message());
    else printf("%s  %-12s %-9s %4d compared, worst %.2g of its tolerance (%s)\n", ok ? "ok  " : "FAIL", c->name, c->kind,
                c->compared, c->worst, c->worst_what);
    if (ok) t->passed++;
    else t->failed++;
}

static Case case_of(const Tally *t, const char *dir, const char *file) {
    Case c = {.b = t->b, .precision = t->precision};
    snprintf(c.dir, sizeof c.dir, "%s", dir);
    snprintf(c.file, sizeof c.file, "%s/%s", dir, file);
    return c;
}

static void run_case(Tally *t, const char *dir, const char *file) {
    Json *doc = NULL;
    Case c = case_of(t, dir, file);
    if (json_parse_file(&doc, c.file) != OK) {
        printf("FAIL  %s: %s\n", c.file, err_message());
        t->failed++;
        return;
    }
    c.json = doc;
    c.kind = json_str(json_get(doc, "kind"), NULL);
    c.name = json_str(json_get(doc, "case"), NULL);
    if (!c.name) c.name = file;
    GoldFn *run = NULL;
    for (size_t i = 0; c.kind && i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].kind, c.kind) == 0) run = kinds[i].run;
    if (run) {
        Status st = run(&c);
        if (st == OK && json_get(doc, "greedy")) st = gold_greedy(&c);
        report(t, &c, st);
    } else if (c.kind) {
        printf("-     %-12s kind '%s' has no runner here\n", c.name, c.kind);
        t->unsupported++;
    }
    json_free(doc);
}

/* The folder's name tells such a case from its neighbours. */
static void run_form(Tally *t, const char *dir, const char *file, size_t form) {
    Json *doc = NULL;
    Case c = case_of(t, dir, file);
    size_t n = strlen(file);
    const char *last = strrchr(dir, '/');
    char name[600];
    snprintf(name, sizeof name, "%s/%s", last ? last + 1 : dir, file);
    c.name = name;
    c.kind = forms[form].kind;
    Status st = n > 5 && strcmp(file + n - 5, ".json") == 0 ? json_parse_file(&doc, c.file) : OK;
    c.json = doc;
    if (st == OK) st = forms[form].run(&c);
    report(t, &c, st);
    json_free(doc);
}

/* A file may be a case of several: of losses, and of texts that are written. */
static void run_forms(Tally *t, const char *dir, const char *file) {
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].is(dir, file)) run_form(t, dir, file, i);
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static void walk(Tally *t, const char *dir) {
    struct dirent **list;
    int n = scandir(dir, &list, NULL, by_name);
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        size_t len = strlen(name);
        char path[1024];
        struct stat st;
        int w = snprintf(path, sizeof path, "%s/%s", dir, name);
        if (name[0] != '.' && w > 0 && (size_t)w < sizeof path && stat(path, &st) == 0) {
            if (S_ISDIR(st.st_mode)) walk(t, path);
            else if (strcmp(name, "case.json") == 0 || (len > 13 && strcmp(name + len - 13, "schedule.json") == 0) ||
                     strcmp(name, "schedule.json") == 0)
                run_case(t, dir, name);
            else run_forms(t, dir, name);
        }
        free(list[i]);
    }
    if (n >= 0) free(list);
}

int main(int argc, char **argv) {
    const char *dir = NULL, *device = "cpu", *precision = "f32";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "device=", 7) == 0) device = argv[i] + 7;
        else if (strncmp(argv[i], "precision=", 10) == 0) precision = argv[i] + 10;
        else dir = argv[i];
    }
    int dt = dtype_from_name(precision);
    Tally t = {.precision = (DType)dt};
    if (!dir || (dt != DT_F32 && dt != DT_BF16)) {
        fprintf(stderr, "usage: golden DIR [device=cpu|cuda] [precision=f32|bf16]\n");
        return 2;
    }
    if (dist_open(&argc, &argv) != OK || backend_open(&t.b, device, t.precision, dist_local_rank()) != OK ||
        dist_open_device(t.b) != OK) {
        fprintf(stderr, "golden: %s\n", err_message());
        return 1;
    }
    walk(&t, dir);
    backend_close(t.b);
    dist_close();
    printf("golden: %d passed, %d failed, %d not supported\n", t.passed, t.failed, t.unsupported);
    return t.failed || !t.passed;
}
