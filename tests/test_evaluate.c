/* The commands that use a model, called as a user does, on a tiny model: what they write against what the encoder
 * gives, and what they say to requests that cannot work. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/h5.h"
#include "data/format/json.h"
#include "eval/classify.h"
#include "configs/commands.h"
#include "eval/retrieval.h"
#include "tests/kit/model_fixture.h"

/* ---- running a command ------------------------------------------------------------------------------------------- */

static char said[1 << 16];               /* its stdout */

static Status run_words(Status (*command)(const Options *), const char *name, int n, char **words) {
    Options *o = NULL;
    char path[] = "/tmp/qformer-out-XXXXXX";
    fflush(stdout);
    int kept = dup(1), fd = mkstemp(path);
    assert_true(kept >= 0 && fd >= 0);
    unlink(path);
    dup2(fd, 1);
    Status st = options_parse(&o, name, n, words);
    if (st == OK) st = options_set(o, "overwrite", "true", NULL);
    if (st == OK) st = command(o);
    options_free(o);
    fflush(stdout);
    dup2(kept, 1);
    close(kept);
    ssize_t got = pread(fd, said, sizeof said - 1, 0);
    said[got > 0 ? got : 0] = 0;
    close(fd);
    return st;
}

/* name and key=value words, the last NULL; model, vocabulary and data are given. */
static Status run(const ModelFixture *f, Status (*command)(const Options *), const char *name, ...) {
    char model[200], vocab[200], data[200], heads[] = "model.heads=2", type[] = "precision=f32", cpu[] = "device=cpu",
         tokens[] = "data.max_tokens=16", *words[16] = {model, vocab, data, heads, type, cpu, tokens};
    int n = 7;
    snprintf(model, sizeof model, "in=%s/model.safetensors", f->dir);
    snprintf(vocab, sizeof vocab, "model.vocab=%s/vocab.txt", f->dir);
    snprintf(data, sizeof data, "data.test=%s/set.h5", f->dir);
    va_list ap;
    va_start(ap, name);
    for (char *w; n < 16 && (w = va_arg(ap, char *)); n++) words[n] = w;
    va_end(ap);
    return run_words(command, name, n, words);
}

static char *word(const char *key, const char *value) {
    static char words[8][400];
    static int next;
    char *w = words[next++ % 8];
    snprintf(w, sizeof words[0], "%s=%s", key, value);
    return w;
}

static void refused(const ModelFixture *f, Status got, const char *sentence) {
    (void)f;
    assert_int_not_equal(got, OK);
    if (!strstr(err_message(), sentence)) fail_msg("the message is: %s", err_message());
    err_clear();
}

static Json *read_json(const char *path) {
    Json *doc = NULL;
    if (json_parse_file(&doc, path) != OK) fail_msg("%s", err_message());
    return doc;
}

static double number(const Json *o, const char *key) {
    double v = NAN;
    if (!json_num(json_get(o, key), &v)) fail_msg("no number '%s'", key);
    return v;
}

/* ---- everything by definition ------------------------------------------------------------------------------------ */

typedef struct { float *I, *T, sim[FIX_IMAGES][FIX_TEXTS], logit[FIX_IMAGES][FIX_TEXTS][2]; } Truth;

static Truth truth_of(const ModelFixture *f) {
    Truth t;
    Encoder e;
    const Dims *d = &f->model.d;
    assert_int_equal(encoder_open(&e, f->b, &f->model, 1, DT_F32), OK);
    assert_int_equal(evalset_encode(&f->set, &e, &t.I, &t.T, &(EvalProgress){0}), OK);
    for (int64_t i = 0; i < FIX_IMAGES; i++) {
        assert_int_equal(encode_image_keys(&e, (FeatureRows){f->features[i], NULL}, 1), OK);
        for (int64_t k = 0; k < FIX_TEXTS; k++) {
            float best = -2;
            for (int64_t q = 0; q < d->Q; q++) {
                float dot = 0;
                for (int64_t z = 0; z < d->Z; z++) dot += t.I[(i * d->Q + q) * d->Z + z] * t.T[k * d->Z + z];
                best = fmaxf(best, dot);
            }
            t.sim[i][k] = best;
            assert_int_equal(encode_pairs(&e, &(int32_t){0}, f->set.ids + k * d->T, f->set.len + k, 1, t.logit[i][k]),
                             OK);
        }
    }
    encoder_close(&e);
    return t;
}

static void truth_free(Truth *t) {
    free(t->I);
    free(t->T);
}

/* Per cent of images with an own text among the first K by itm + itc. */
static double txt_recall(const ModelFixture *f, const Truth *t, int K) {
    int right = 0;
    for (int64_t i = 0; i < FIX_IMAGES; i++) {
        int best = FIX_TEXTS;
        for (int64_t k = 0; k < FIX_TEXTS; k++) {
            if (f->set.owner[k] != i) continue;
            int rank = 0;
            for (int64_t j = 0; j < FIX_TEXTS; j++)
                rank += t->logit[i][j][1] + t->sim[i][j] > t->logit[i][k][1] + t->sim[i][k];
            best = rank < best ? rank : best;
        }
        right += best < K;
    }
    return 100.0 * right / FIX_IMAGES;
}

/* ---- retrieval --------------------------------------------------------------------------------------------------- */

typedef struct { int64_t lines, images; double worst; } Lists;

static Status check_line(void *ctx, int64_t index, const Json *o) {
    Lists *l = ctx;
    double before = INFINITY;
    const Json *top = json_get(o, "top");
    l->lines++;
    l->images += strcmp(json_str(json_get(o, "query"), NULL), "image") == 0;
    int64_t rank = -1;
    assert_true(json_int(json_get(o, "rank"), &rank) && rank >= 0);
    for (size_t k = 0; k < json_len(top); k++) {
        const Json *h = json_at(top, k);
        bool own = false;
        json_bool(json_get(h, "true"), &own);
        if (own && (int64_t)k < rank)
            fail_msg("line %lld: a true one at %zu, rank %lld", (long long)index, k, (long long)rank);
        if ((int64_t)k == rank) assert_true(own);
        assert_true(number(h, "score") <= before);
        before = number(h, "score");
        l->worst = fmax(l->worst, fabs(number(h, "itc") + number(h, "itm") - before));
    }
    return OK;
}

static void retrieval(void **state) {
    ModelFixture *f = *state;
    Truth t = truth_of(f);
    Lists l = {0};
    assert_int_equal(run(f, cmd_retrieval, "retrieval", word("out", model_path(f, "r/deep")), "retrieval.max_tokens=16",
                         "retrieval.folds=2", NULL),
                     OK);
    assert_non_null(strstr(said, "6 images, 11 texts"));
    assert_non_null(strstr(said, "chance"));
    Json *j = read_json(model_path(f, "r/deep/retrieval.json"));
    assert_true(fabs(number(j, "txt_r1") - txt_recall(f, &t, 1)) < 1e-9);
    assert_true(fabs(number(j, "txt_r5") - txt_recall(f, &t, 5)) < 1e-9);
    assert_true(fabs(number(j, "txt_r_mean") - (number(j, "txt_r1") + number(j, "txt_r5") + number(j, "txt_r10")) / 3) <
                1e-9);
    assert_true(fabs(number(j, "r_mean") - (number(j, "txt_r_mean") + number(j, "img_r_mean")) / 2) < 1e-9);
    assert_true(number(j, "agg_metrics") == number(j, "txt_r_mean"));
    assert_true(number(j, "pairs") == FIX_IMAGES * FIX_TEXTS && number(j, "k") == 128);
    static const char *const blocks[] = {"itc", "itm", "sum", "chance", "folds"};
    for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++)
        assert_int_equal(json_type(json_get(j, blocks[k])), J_OBJECT);
    json_free(j);
    assert_int_equal(json_each(model_path(f, "r/deep/retrieval.jsonl"), check_line, &l), OK);
    assert_int_equal(l.lines, FIX_IMAGES + FIX_TEXTS);
    assert_int_equal(l.images, FIX_IMAGES);
    assert_true(l.worst < 1e-6);
    truth_free(&t);

    assert_int_equal(run(f, cmd_retrieval, "retrieval", "retrieval.rerank=none", NULL),
                     OK); /* no out: the table alone */
    assert_null(strstr(said, "ITM"));
    assert_int_equal(run(f, cmd_retrieval, "retrieval", "dry_run=true", "retrieval.k=2", NULL), OK);
    assert_non_null(strstr(said, "at most 34 pairs"));
}

/* A line of a ranked list, kept: ranks and what stands first, with scores. */
typedef struct { int64_t n, rank[32], top[32][10]; double score[32][10]; } Kept;

static Status keep_line(void *ctx, int64_t index, const Json *o) {
    Kept *k = ctx;
    const Json *top = json_get(o, "top");
    assert_true(index < 32 && json_int(json_get(o, "rank"), &k->rank[index]));
    for (size_t j = 0; j < json_len(top) && j < 10; j++) {
        const char *image = json_str(json_get(json_at(top, j), "image"), NULL);
        if (!json_int(json_get(json_at(top, j), "text"), &k->top[index][j]))
            for (int i = 0; i < FIX_IMAGES; i++)
                if (image && !strcmp(image, fix_ids[i])) k->top[index][j] = 100 + i;
        k->score[index][j] = number(json_at(top, j), "score");
    }
    k->n++;
    return OK;
}

/* The program under mpirun: the ranked lists of two ranks are those of one. (Scores to rounding: other pieces.) */
static void two_ranks(void **state) {
    ModelFixture *f = *state;
    const char *program = getenv("QFORMER_BIN") ? getenv("QFORMER_BIN") : "build/qformer";
    char command[1500];
    static Kept kept[2];
    if (access(program, X_OK) || system("command -v mpirun >/dev/null 2>&1")) skip();
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    for (int n = 1; n <= 2; n++) {
        snprintf(command, sizeof command,
                 "mpirun --oversubscribe -n %d %s retrieval in=%s/model.safetensors model.vocab=%s/vocab.txt "
                 "model.heads=2 data.max_tokens=16 precision=f32 device=cpu data.test=%s/set.h5 out=%s/ranks%d "
                 "retrieval.k=4 retrieval.folds=2 >%s/said 2>&1", n, program, f->dir, f->dir, f->dir, f->dir, n,
                     f->dir);
        if (system(command)) fail_msg("failed: %s", command);
        const char *lists = model_path(f, n == 1 ? "ranks1/retrieval.jsonl" : "ranks2/retrieval.jsonl");
        assert_int_equal(json_each(lists, keep_line, &kept[n - 1]), OK);
    }
    assert_int_equal(kept[0].n, FIX_IMAGES + FIX_TEXTS);
    assert_int_equal(kept[1].n, FIX_IMAGES + FIX_TEXTS);
    assert_memory_equal(kept[0].rank, kept[1].rank, sizeof kept[0].rank);
    assert_memory_equal(kept[0].top, kept[1].top, sizeof kept[0].top);
    for (int i = 0; i < 32; i++)
        for (int j = 0; j < 10; j++) assert_true(fabs(kept[0].score[i][j] - kept[1].score[i][j]) < 1e-5);
}

static void requests_that_cannot_work(void **state) {
    ModelFixture *f = *state;
    char *wide = word("data.test", model_path(f, "wide.h5"));
    refused(f, run(f, cmd_retrieval, "retrieval", "data.test_split=nowhere", NULL), "\"test\"");
    refused(f, run(f, cmd_retrieval, "retrieval", "retrieval.folds=7", NULL), "6 images do not make 7 folds");
    refused(f, run(f, cmd_retrieval, "retrieval", word("data.test", "absent.h5"), NULL), "absent.h5");
    float kept[FIX_IMAGES][FIX_P * FIX_E];
    memcpy(kept, f->features, sizeof kept);
    assert_int_equal(model_write_set(f, model_path(f, "wide.h5"), FIX_E / 2), OK);
    memcpy(f->features, kept, sizeof kept);
    refused(f, run(f, cmd_retrieval, "retrieval", wide, NULL),
            "image tokens of 6 numbers, the model was trained on 12");
    refused(f, run(f, cmd_embed, "embed", NULL), "out");
    refused(f, run(f, cmd_classify, "classify", NULL), "classify.names");
    refused(f, run_words(cmd_score, "score", 0, NULL), "score needs gt=FILE and res=FILE");
}

/* ---- match ------------------------------------------------------------------------------------------------------- */

typedef struct { const ModelFixture *f; const Truth *t; int64_t n; } MatchLines;

static Status check_match(void *ctx, int64_t index, const Json *o) {
    MatchLines *l = ctx;
    int64_t i = l->f->set.owner[index];
    const float *x = l->t->logit[i][index];
    assert_string_equal(json_str(json_get(o, "image"), NULL), fix_ids[i]);
    assert_true(fabs(number(o, "match") - exp(x[1]) / (exp(x[0]) + exp(x[1]))) < 1e-5);
    assert_true(fabs(number(o, "cosine") - l->t->sim[i][index]) < 1e-5);
    l->n++;
    return OK;
}

static void match(void **state) {
    ModelFixture *f = *state;
    Truth t = truth_of(f);
    MatchLines l = {f, &t, 0};
    assert_int_equal(run(f, cmd_match, "match", word("out", model_path(f, "m.jsonl")), NULL), OK);
    assert_int_equal(json_each(model_path(f, "m.jsonl"), check_match, &l), OK);
    assert_int_equal(l.n, FIX_TEXTS);

    /* A file with two of the texts, for other images than their own. */
    char want[64];
    assert_int_equal(model_write_text(model_path(f, "p.tsv"),
                                      "image\tcaption\nsky/1.png\tthe dog\ndog/1.png\tblue sky\nsky/1.png\tcat\n"),
                     0);
    assert_int_equal(run(f, cmd_match, "match", word("match.pairs", model_path(f, "p.tsv")), NULL), OK);
    const float *a = t.logit[3][3];
    snprintf(want, sizeof want, "%.4f\t%.4f\tsky/1.png\tthe dog", exp(a[1]) / (exp(a[0]) + exp(a[1])), t.sim[3][3]);
    assert_non_null(strstr(said, want));
    assert_non_null(strstr(said, "sky/1.png\tcat\n"));
    assert_int_equal(model_write_text(model_path(f, "p.tsv"), "image\tcaption\nhorse.png\tthe dog\n"), 0);
    refused(f, run(f, cmd_match, "match", word("match.pairs", model_path(f, "p.tsv")), NULL),
            "image 'horse.png' is not in");
    truth_free(&t);
}

/* ---- embed ------------------------------------------------------------------------------------------------------- */

static void embed(void **state) {
    ModelFixture *f = *state;
    Truth t = truth_of(f);
    const Dims *d = &f->model.d;
    H5File *h;
    H5Info info;
    float *x = malloc((size_t)(FIX_IMAGES * d->Q * d->Z) * sizeof *x);
    int64_t image[FIX_TEXTS];
    uint64_t offset[FIX_TEXTS + 1];
    char bytes[400];
    assert_int_equal(run(f, cmd_embed, "embed", word("out", model_path(f, "e")), "use.batch=2", NULL), OK);
    assert_int_not_equal(access(model_path(f, "e/embeddings.h5.part"), F_OK), 0);
    assert_int_equal(h5_open(&h, model_path(f, "e/embeddings.h5")), OK);
    assert_int_equal(h5_info(h, "/images/queries", &info), OK);
    assert_true(info.ndim == 3 && info.dim[0] == FIX_IMAGES && info.dim[1] == d->Q && info.dim[2] == d->Z);
    assert_int_equal(h5_get(h, "/images/queries", &info, H5K_F32, x), OK);
    for (int64_t k = 0; k < info.count; k++) assert_true(fabsf(x[k] - t.I[k]) < 1e-5f);
    assert_int_equal(h5_info(h, "/texts/features", &info), OK);
    assert_int_equal(h5_get(h, "/texts/features", &info, H5K_F32, x), OK);
    assert_int_equal(info.count, FIX_TEXTS * d->Z);
    for (int64_t k = 0; k < info.count; k++) assert_true(fabsf(x[k] - t.T[k]) < 1e-5f);
    assert_int_equal(h5_info(h, "/texts/image", &info), OK);
    assert_int_equal(h5_get(h, "/texts/image", &info, H5K_I64, image), OK);
    assert_int_equal(h5_info(h, "/texts/offset", &info), OK);
    assert_int_equal(h5_get(h, "/texts/offset", &info, H5K_U64, offset), OK);
    assert_int_equal(h5_info(h, "/texts/bytes", &info), OK);
    assert_true(info.count < (int64_t)sizeof bytes && (uint64_t)info.count == offset[FIX_TEXTS]);
    assert_int_equal(h5_get(h, "/texts/bytes", &info, H5K_U8, bytes), OK);
    assert_memory_equal(bytes + offset[6], "blue sky", offset[7] - offset[6]);
    assert_int_equal(image[6], 3);
    assert_int_equal(h5_close(h), OK);
    free(x);
    truth_free(&t);
}

/* ---- classify ---------------------------------------------------------------------------------------------------- */

static void classify(void **state) {
    ModelFixture *f = *state;
    assert_int_equal(model_write_text(model_path(f, "names"), "dog\n\n  cat \nsofa\n"), 0);
    assert_int_equal(run(f, cmd_classify, "classify", word("classify.names", model_path(f, "names")),
                         word("out", model_path(f, "c")), "classify.templates=a photo of a {}|the {}", NULL),
                     OK);
    Json *j = read_json(model_path(f, "c/classify.json"));
    assert_true(number(j, "known") == 4 && fabs(number(j, "chance") - 100.0 / 3) < 1e-9 &&
                number(j, "top5") == 100); /* by folder */
    double top1 = number(j, "top1");
    json_free(j);

    /* The first place by definition: mean of two normalised features, normalised. */
    Encoder e;
    const Dims *d = &f->model.d;
    float c[3][64];
    static const char *const names[] = {"dog", "cat", "sofa"};
    Truth t = truth_of(f);
    TextSpec text = {f->tok, FIX_T, 50, ""};
    assert_int_equal(encoder_open(&e, f->b, &f->model, 1, DT_F32), OK);
    for (int k = 0; k < 3; k++) {
        int32_t ids[FIX_T], len;
        char s[64];
        float x[2][64];
        double norm = 0;
        for (int j2 = 0; j2 < 2; j2++) {
            snprintf(s, sizeof s, j2 ? "the %s" : "a photo of a %s", names[k]);
            assert_int_equal(text_encode(&text, s, strlen(s), ids, &len), OK);
            assert_int_equal(encode_texts(&e, ids, &len, 1, x[j2]), OK);
        }
        for (int z = 0; z < d->Z; z++) c[k][z] = x[0][z] + x[1][z], norm += (double)c[k][z] * c[k][z];
        for (int z = 0; z < d->Z; z++) c[k][z] = (float)(c[k][z] / sqrt(norm));
    }
    int right = 0;
    for (int i = 0; i < FIX_IMAGES; i++) {
        int best = 0, want = strncmp(fix_ids[i], "dog/", 4) == 0 ? 0 : strncmp(fix_ids[i], "cat/", 4) == 0 ? 1 : -1;
        float score[3];
        for (int k = 0; k < 3; k++) {
            score[k] = -2;
            for (int q = 0; q < d->Q; q++) {
                float dot = 0;
                for (int z = 0; z < d->Z; z++) dot += t.I[(i * d->Q + q) * d->Z + z] * c[k][z];
                score[k] = fmaxf(score[k], dot);
            }
            if (score[k] > score[best]) best = k;
        }
        right += best == want;
    }
    assert_true(fabs(top1 - 25.0 * right) < 1e-9);
    encoder_close(&e);
    truth_free(&t);

    char *name = word("classify.names", model_path(f, "names")),
         *labels = word("classify.labels", model_path(f, "l.csv"));
    refused(f, run(f, cmd_classify, "classify", name, "classify.templates=a photo", NULL), "'a photo' has no {}");
    assert_int_equal(
        model_write_text(model_path(f, "l.csv"), "image,label\nsky/1.png,2\nelsewhere.png,9\ncat/1.png,Cat\n"), 0);
    assert_int_equal(run(f, cmd_classify, "classify", name, labels, NULL), OK);
    assert_non_null(strstr(said, "of 2 images whose class is known"));
    assert_int_equal(model_write_text(model_path(f, "l.csv"), "image,label\nsky/1.png,heaven\n"), 0);
    refused(f, run(f, cmd_classify, "classify", name, labels, NULL), "l.csv:2: 'heaven' is no class");
    assert_int_equal(model_write_text(model_path(f, "names"), "dog\ncat\nDOG\n"), 0);
    refused(f, run(f, cmd_classify, "classify", name, NULL), ":3: class 'DOG' stands there twice");
    assert_int_equal(model_write_text(model_path(f, "names"), "\n\n"), 0);
    refused(f, run(f, cmd_classify, "classify", name, NULL), "names no class");
}

/* ---- score ------------------------------------------------------------------------------------------------------- */

/* Two images, four texts, f4, row-major; what ranks follow is plain to see. */
static void write_matrix(const char *path) {
    static const float sim[2][4] = {{0.1f, 0.9f, 0.3f, 0.2f}, {0.5f, 0.4f, 0.1f, 0.8f}};
    char head[128];
    memset(head, ' ', sizeof head);
    static const char start[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }";
    memcpy(head, start, sizeof start - 1);
    head[127] = '\n';
    FILE *f = fopen(path, "wb");
    fwrite(head, 1, sizeof head, f);
    fwrite(sim, 1, sizeof sim, f);
    fclose(f);
}

static void score(void **state) {
    ModelFixture *f = *state;
    char *words[3] = {word("score.sim", model_path(f, "s.npy")), word("out", model_path(f, "s")),
                      word("score.owner", model_path(f, "o.json"))};
    write_matrix(model_path(f, "s.npy"));
    assert_int_equal(run_words(cmd_score, "score", 2, words), OK); /* texts 0 and 1 of image 0, 2 and 3 of image 1 */
    Json *j = read_json(model_path(f, "s/recall.json"));
    assert_true(number(j, "txt_r1") == 100);                                 /* 0.9 and 0.8 come first */
    assert_true(number(j, "img_r1") == 50); /* text 0 prefers image 1, text 2 image 0 */
    assert_true(number(j, "txt_mean_rank") == 1 && number(j, "img_mean_rank") == 1.5);
    json_free(j);
    assert_int_equal(model_write_text(model_path(f, "o.json"), "[1, 0, 0, 1]"), 0);
    assert_int_equal(run_words(cmd_score, "score", 3, words), OK);
    j = read_json(model_path(f, "s/recall.json"));
    assert_true(number(j, "img_r1") == 100);
    json_free(j);
    assert_int_equal(model_write_text(model_path(f, "o.json"), "[1, 0, 2, 1]"), 0);
    refused(f, run_words(cmd_score, "score", 3, words), "item 2 is no image");
    assert_int_equal(model_write_text(model_path(f, "o.json"), "[1]"), 0);
    refused(f, run_words(cmd_score, "score", 3, words), "a list of 4 numbers is wanted");

    char *captions[3] = {word("gt", model_path(f, "gt.json")), word("res", model_path(f, "res.json")),
                         word("out", model_path(f, "s"))};
    model_write_text(model_path(f, "gt.json"),
                     "{\"images\":[{\"id\":1},{\"id\":2}],\"annotations\":["
                     "{\"image_id\":1,\"id\":1,\"caption\":\"a cat is on the mat\"},"
                     "{\"image_id\":1,\"id\":2,\"caption\":\"there is a cat on the mat\"},"
                     "{\"image_id\":2,\"id\":3,\"caption\":\"two dogs are running in the park\"},"
                     "{\"image_id\":2,\"id\":4,\"caption\":\"dogs run in a park\"}]}");
    model_write_text(
        model_path(f, "res.json"),
        "[{\"image_id\":1,\"caption\":\"a cat sits on the mat\"},{\"image_id\":2,\"caption\":\"two dogs run\"}]");
    assert_int_equal(run_words(cmd_score, "score", 3, captions), OK);
    j = read_json(model_path(f, "s/scores.json"));
    assert_true(fabs(number(json_get(j, "corpus"), "CIDEr") - 2.819674804) < 1e-6);      /* evaluation.md 7g */
    json_free(j);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retrieval), cmocka_unit_test(two_ranks), cmocka_unit_test(requests_that_cannot_work),
        cmocka_unit_test(match),     cmocka_unit_test(embed),     cmocka_unit_test(classify),
        cmocka_unit_test(score),
    };
    return cmocka_run_group_tests(tests, model_setup, model_teardown);
}
