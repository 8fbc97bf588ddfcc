/* test_report: the page and its parts. A tiny run is trained in a temporary folder on pictures whose captions hold
 * markup, and its page must be well-formed, fetch nothing, run nothing, have all its parts, and show that markup as
 * text. Where headless Chromium is installed it must lay the page out without an error and without scrolling sideways
 * at 360 pixels. */
#include "tests/kit/check.h"

#include <ctype.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/format/image.h"
#include "data/shard_write.h"
#include "configs/commands.h"
#include "eval/report/report.h"
#include "kernels/base/rng.h"

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

static char dir[64];

static int remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw) {
    (void)sb, (void)type, (void)ftw;
    return remove(path);
}

static const char *in_dir(const char *name) {
    static char path[8][160];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)size, f), (size_t)size);
    text[size] = 0;
    fclose(f);
    if (n) *n = (size_t)size;
    return text;
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* Runs a command with "key=value" words up to NULL. */
static Status command(Status (*run)(const Options *), const char *name, ...) {
    char *argv[40];
    int argc = 0;
    va_list ap;
    va_start(ap, name);
    for (const char *w; (w = va_arg(ap, const char *)) && argc < 40;) argv[argc++] = (char *)(uintptr_t)w;
    va_end(ap);
    Options *o = NULL;
    Status st = options_parse(&o, name, argc, argv);
    if (st == OK) st = options_set(o, "overwrite", "true", NULL);           /* pages are made again and again here */
    if (st == OK) st = run(o);
    options_free(o);
    return st;
}

/* "key" "=" "dir/name" */
static char *option(const char *key, const char *name) {
    static char text[8][200];
    static int next;
    char *p = text[next++ % 8];
    snprintf(p, sizeof text[0], "%s=%s/%s", key, dir, name);
    return p;
}

/* ---- a checker of pages ------------------------------------------------------------------------------------------ */

enum { DEPTH = 64, NAME = 24 };

/* Attributes must be quoted, values must not hold '<', references must stay on the page. */
static void check_attributes(const char *tag, size_t n) {
    const char *end = tag + n;
    for (const char *p = tag; p < end; p++) {
        if (*p != '=') continue;
        const char *name = p;
        while (name > tag && (isalnum((unsigned char)name[-1]) || name[-1] == '-')) name--;
        if (p[1] != '"') fail_msg("an attribute without quotes: %.60s", tag);
        const char *value = p + 2, *close = memchr(value, '"', (size_t)(end - value));
        assert_non_null(close);
        assert_null(memchr(value, '<', (size_t)(close - value)));
        bool link = (p - name == 4 && !strncmp(name, "href", 4)) || (p - name == 3 && !strncmp(name, "src", 3));
        if (link && *value != '#' && strncmp(value, "data:", 5) != 0) fail_msg("leads out of the page: %.80s", value);
        if (p - name > 2 && name[0] == 'o' && name[1] == 'n') fail_msg("runs something: %.60s", name);
        p = close;
    }
}

static void check_page(const char *page) {
    char stack[DEPTH][NAME];
    int depth = 0;
    const char *p = strstr(page, "<html");
    assert_int_equal(strncmp(page, "<!DOCTYPE html>", 15), 0);
    assert_non_null(p);
    while ((p = strchr(p, '<'))) {
        const char *end = strchr(p, '>');
        assert_non_null(end);
        bool closing = p[1] == '/', alone = end[-1] == '/';
        const char *name = p + 1 + closing;
        size_t n = strcspn(name, " />\n");
        if (!n || n >= NAME || !isalpha((unsigned char)*name)) fail_msg("no tag: %.40s", p);
        if (!strncmp(name, "script", 6)) fail_msg("a script: %.40s", p);
        if (closing) {
            if (!depth || strlen(stack[depth - 1]) != n || strncmp(stack[depth - 1], name, n) != 0)
                fail_msg("</%.*s> closes <%s>", (int)n, name, depth ? stack[depth - 1] : "nothing");
            depth--;
        } else {
            check_attributes(name + n, (size_t)(end - name) - n);
            if (!alone) {
                assert_true(depth < DEPTH);
                memcpy(stack[depth], name, n);
                stack[depth++][n] = 0;
                if (!strcmp(stack[depth - 1], "style")) end = strstr(end, "</style>") - 1;
            }
        }
        p = end + 1;
    }
    assert_int_equal(depth, 0);
    assert_null(strstr(page, "http:"));
    assert_null(strstr(page, "https:"));
    assert_null(strstr(page, "url("));
    assert_null(strstr(page, "@import"));
    assert_null(strstr(page, ">nan<"));
    assert_null(strstr(page, "nan "));
}

static void has(const char *page, const char *wanted) {
    if (!strstr(page, wanted)) fail_msg("'%s' is missing on the page", wanted);
}

/* ---- a run ------------------------------------------------------------------------------------------------------- */

enum { SET = 40, SET_P = 4, SET_E = 8 };
static const char NASTY[] = "a red <script>alert(\"x\")</script> dog & 'cat'";

/* 24 train, 6 val, 10 test images of 2 x 2 tokens; pictures beside the set, but for one name that leads out of it. */
static void make_set(void) {
    static char id[SET][40];
    static const char *caption[SET][2];
    ShardItem item[SET];
    ShardWriter *w = NULL;
    uint8_t rgb[30 * 20 * 3];
    static const char *const words[] = {"a dog runs", "two red boats", "a small cat", "blue sky over snow", NASTY};
    passes(mkdir(in_dir("pics"), 0777) ? ERR_IO : OK);
    for (int i = 0; i < SET; i++) {
        snprintf(id[i], sizeof id[i], i == 39 ? "../../<b>%d.png" : "pics/%d", i);
        caption[i][0] = words[i % 5], caption[i][1] = words[(i + 1) % 5];
        item[i] = (ShardItem){id[i], i < 24 ? "train" : i < 30 ? "val" : "test", "", 1 + i % 2, caption[i]};
        for (int k = 0; k < 30 * 20 * 3; k++) rgb[k] = (uint8_t)(i * 37 + k % 3 * 80);
        char name[40];
        snprintf(name, sizeof name, "pics/%d.png", i);
        if (i < 39) passes(image_write_png(in_dir(name), rgb, 30, 20));
    }
    ShardSpec spec = {.encoder = {"test", "", "last", "none", false},
                      .dtype = DT_F32,
                      .images = SET,
                      .views = 1,
                      .P = SET_P,
                      .E = SET_E,
                      .items = item};
    passes(shard_create(&w, in_dir("set.h5"), &spec));
    for (int i = 0; i < SET; i++) {
        float row[SET_P * SET_E];
        for (uint32_t k = 0; k < SET_P * SET_E; k++)
            row[k] = 2 * rng_unit(philox((uint32_t)i, k, 0, 0, 1, 2).v[0]) - 1 + (float)(i % 5);
        passes(shard_write(w, i, row, 1));
    }
    passes(shard_finish(w));
}

/* Six steps of a model of a few thousand numbers. */
static void make_run(const char *out, const char *set, const char *vocab) {
    passes(command(cmd_pretrain, "pretrain", option("out", out), option("data.train", set), option("model.vocab", vocab),
                 "model.layers=2", "model.hidden=16", "model.heads=2", "model.queries=3", "model.proj=8",
                 "model.positions=32", "train.batch=8", "train.steps=6", "train.log_every=1", "train.eval_every=3",
                 "train.save_every=6", "optim.warmup_steps=2", "optim.lr=1e-3", "precision=f32", "device=cpu",
                 "threads=1", "train.events=false", NULL));
}

static void the_page_is_whole(void **state) {
    (void)state;
    size_t n;
    make_set();
    passes(command(cmd_vocab, "vocab", option("in", "set.h5"), option("out", "vocab.txt"), "vocab.size=80",
                 "vocab.min_count=1", NULL));
    make_run("run", "set.h5", "vocab.txt");
    passes(command(cmd_report, "report", option("in", "run"), "device=cpu", "precision=f32", NULL));
    char *page = slurp(in_dir("run/report.html"), &n);
    check_page(page);
    static const char *const parts[] = {"id=\"training\"",
                                        "id=\"recall\"",
                                        "id=\"gallery\"",
                                        "id=\"captions\"",
                                        "id=\"attention\"",
                                        "id=\"batch\"",
                                        "id=\"speed\"",
                                        "id=\"about\"",
                                        "Total loss",
                                        "Contrastive loss (ITC)",
                                        "Matching loss (ITM)",
                                        "Generation loss (ITG)",
                                        "Learning rate",
                                        "Validation recall, image to text",
                                        "Pairs a second",
                                        "Where the time went",
                                        "chance",
                                        "ITC (cosine)",
                                        "Image to text",
                                        "class=\"heat\"",
                                        "class=\"veil\"",
                                        "query 0",
                                        "layer 0",
                                        "The run's whole configuration",
                                        "hidden: 16",
                                        "<image id=\"im",
                                        "data:image/png;base64,iVBOR",
                                        "BLEU-4",
                                        "prefers-color-scheme:dark",
                                        "@media print"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) has(page, parts[i]);
    has(page, "a red &lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; dog &amp; &#39;cat&#39;");
    has(page, "../../&lt;b&gt;39.png");                      /* no picture was looked for there: its name stands */
    assert_null(strstr(page, "class=\"claims\""));            /* no drawn scenes, nothing to judge */
    free(page);
    Json *j = NULL;
    int64_t v;
    passes(json_parse_file(&j, in_dir("run/report.json")));
    assert_true(json_int(json_get(j, "images"), &v) && v == 10);
    assert_true(json_int(json_get(j, "captions"), &v) && v == 10);
    assert_true(json_int(json_get(json_get(j, "training"), "steps"), &v) && v == 6);
    assert_non_null(json_get(json_get(json_get(j, "recall"), "itc"), "txt_r1"));
    json_free(j);
}

/* With results of `qformer retrieval`, an earlier run, chosen rows, and figures that do not fit. */
static void more_is_shown_when_there_is_more(void **state) {
    (void)state;
    passes(command(cmd_retrieval, "retrieval", option("in", "run"), option("out", "run"), "device=cpu", "precision=f32",
                 NULL));
    passes(command(cmd_report, "report", option("in", "run"), option("report.before", "run"), "report.queries=2,0",
                 "report.layers=0", "report.attention=1", option("out", "page.html"), "device=cpu", "precision=f32",
                 NULL));
    char *page = slurp(in_dir("page.html"), NULL);
    check_page(page);
    has(page, "re-ranked by ITM + ITC");
    has(page, "earlier run: ITC (cosine)");
    has(page, "Ranked as in retrieval.jsonl");
    has(page, "query 2");
    assert_null(strstr(page, "query 1<"));
    free(page);
    assert_int_equal(command(cmd_report, "report", option("in", "run"), "report.queries=3", "device=cpu", NULL),
                     ERR_USAGE);
    assert_non_null(strstr(err_message(), "report.queries=3"));
    assert_int_equal(command(cmd_report, "report", option("in", "run"), "report.layers=1", "device=cpu", NULL),
                     ERR_USAGE);
    assert_int_equal(command(cmd_report, "report", option("in", "run"), option("report.before", "nowhere"),
                             "device=cpu", NULL),
                     ERR_USAGE);
    assert_int_equal(command(cmd_report, "report", option("in", "run"), option("data.test", "nowhere.h5"), "device=cpu",
                             NULL),
                     ERR_IO);
}

/* A log alone, with damage; then the same beside a broken result; then nothing at all. */
static void a_page_without_a_model(void **state) {
    (void)state;
    passes(mkdir(in_dir("bare"), 0777) ? ERR_IO : OK);
    assert_int_equal(command(cmd_report, "report", option("in", "bare"), NULL), ERR_USAGE);
    assert_non_null(strstr(err_message(), "is no run"));
    put(in_dir("bare/log.jsonl"),
        "{\"step\":0,\"time\":1,\"start\":{\"command\":\"pretrain\",\"total_steps\":9,\"config\":\"nonsense: [\"}}\n"
        "{\"step\":1,\"time\":2,\"loss\":5,\"skipped\":1,\"step_ms\":10}\n{\"step\":2,\"time\":3,\"skipped\":2,\"step_"
        "ms\":90}\n{\"st");
    put(in_dir("bare/retrieval.json"), "{\"itc\": 5");
    passes(command(cmd_report, "report", option("in", "bare"), NULL));
    char *page = slurp(in_dir("bare/report.html"), NULL);
    check_page(page);
    has(page, "The model and its data could not be opened");
    has(page, "2 of 2 steps were left out");
    has(page, "retrieval.json:");
    has(page, "nothing shows whether it learned by heart");
    has(page, "not validated");
    free(page);
    remove(in_dir("bare/log.jsonl"));
    put(in_dir("bare/retrieval.json"),
        "{\"split\":\"<i>\",\"chance\":{\"txt_r1\":1,\"txt_r5\":5,\"txt_r10\":10,\"img_r1\":1,\"img_r5\":5,\"img_r10\":"
        "10},"
        "\"itc\":{\"txt_r1\":2,\"txt_r5\":5,\"txt_r10\":10,\"img_r1\":2,\"img_r5\":5,\"img_r10\":10}}");
    passes(command(cmd_report, "report", option("in", "bare"), NULL));
    page = slurp(in_dir("bare/report.html"), NULL);
    check_page(page);
    has(page, "there are no curves");
    has(page, "hardly learned to tell pairs apart");
    has(page, "split &lt;i&gt;");
    free(page);
}

/* Drawn scenes: captions are judged, by the seed and, when nobody knows it, by scenes.json. */
static void scenes_are_judged(void **state) {
    (void)state;
    passes(mkdir(in_dir("drawn"), 0777) ? ERR_IO : OK);
    passes(command(cmd_synth, "synth", option("out", "drawn/set.h5"), "seed=77", "synth.train=24", "synth.val=6",
                 "synth.test=8", "synth.size=32", "synth.patch=16", "synth.images=none", NULL));
    passes(command(cmd_vocab, "vocab", option("in", "drawn/set.h5"), option("out", "drawn/vocab.txt"), "vocab.size=120",
                 NULL));
    make_run("drawn", "drawn/set.h5", "drawn/vocab.txt");
    static const char *const seeds[] = {"seed=77", "seed=1"};
    for (int k = 0; k < 2; k++) {
        Json *j = NULL;
        int64_t n;
        passes(command(cmd_report, "report", option("in", "drawn"), seeds[k], "device=cpu", "precision=f32",
                     "report.captions=5", NULL));
        passes(json_parse_file(&j, in_dir("drawn/report.json")));
        assert_true(json_int(json_get(json_get(j, "claims"), "captions"), &n) && n == 5);
        assert_true(json_int(json_get(json_get(json_get(j, "claims"), "coloured_shapes"), "said"), &n) && n >= 0);
        json_free(j);
        char *page = slurp(in_dir("drawn/report.html"), NULL);
        check_page(page);
        has(page, "What captions say, and what is really there");
        assert_int_equal(strstr(page, "<image id=") != NULL, k == 0);      /* only who knows the seed can draw */
        free(page);
    }
    Set *set = NULL;                                          /* the two ways know the same of a scene */
    passes(set_open(&set, in_dir("drawn/set.h5")));
    Scenes a, b;
    const uint64_t right = 77, wrong = 3;
    scenes_open(&a, set, &right, 1);
    scenes_open(&b, set, &wrong, 1);
    for (int64_t i = 0; i < set_images(set); i++) {
        Scene x, y;
        bool xd, yd;
        assert_true(scenes_find(&a, i, &x, &xd) && xd);
        assert_true(scenes_find(&b, i, &y, &yd) && !yd);
        for (int64_t k = 0; k < set_ncaptions(set, i); k++) {
            size_t n;
            char own[SYNTH_CAPTION];
            SynthClaims c;
            const char *s = set_caption(set, i, k, &n);
            snprintf(own, sizeof own, "%.*s", (int)n, s);
            synth_check_caption(&y, own, &c);
            assert_true(c.all_true);
        }
    }
    scenes_close(&a);
    scenes_close(&b);
    set_close(set);
}

/* ---- a browser --------------------------------------------------------------------------------------------------- */

/* Loads the page into a frame of 360 pixels, in a document that says as its title how wide it came out and what it
 * fetched. */
static void a_browser_takes_it(void **state) {
    (void)state;
    static const char frame[] =
        "<!DOCTYPE html><title>none</title><iframe id=f src=run/report.html width=360 height=800></iframe><script>\n"
        "onload=()=>{const w=document.getElementById('f').contentWindow,d=w.document,e=d.documentElement;\n"
        "const n=w.performance.getEntriesByType('resource').filter(r=>!r.name.startsWith('data:')).length;\n"
        "document.title=`frame ${w.innerWidth} width ${e.scrollWidth} parts ${d.querySelectorAll('section').length} "
        "fetched ${n}`}</script>";
    char line[1024];
    if (system("command -v chromium >/dev/null 2>&1") != 0) skip();
    put(in_dir("frame.html"), frame);
    snprintf(line, sizeof line,
             "cd %s && timeout 60 chromium --headless=new --no-sandbox --disable-gpu --user-data-dir=%s/browser "
             "--allow-file-access-from-files --enable-logging=stderr --virtual-time-budget=2000 --dump-dom "
             "file://%s/frame.html >dom.html 2>errors.txt", dir, dir, dir);
    if (system(line) != 0) fail_msg("chromium failed");
    char *dom = slurp(in_dir("dom.html"), NULL), *errors = slurp(in_dir("errors.txt"), NULL);
    int frame_width = 0, width = 0, parts = 0, fetched = -1;
    char *title = strstr(dom, "<title>frame ");
    if (!title) fail_msg("the browser did not load the page: %.300s", errors);
    int got = sscanf(title, "<title>frame %d width %d parts %d fetched %d", &frame_width, &width, &parts, &fetched);
    assert_int_equal(got, 4);
    assert_true(frame_width > 300 && frame_width <= 360);
    if (width > frame_width) fail_msg("the page is %d wide in a window of %d", width, frame_width);
    assert_int_equal(parts, 8);
    assert_int_equal(fetched, 0);
    assert_null(strstr(errors, "CONSOLE"));
    free(dom);
    free(errors);
}

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/qformer-report-XXXXXX");
    return mkdtemp(dir) ? 0 : 1;
}

static int tear_down(void **state) {
    (void)state;
    return nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_whole),
        cmocka_unit_test(more_is_shown_when_there_is_more),
        cmocka_unit_test(a_page_without_a_model),
        cmocka_unit_test(scenes_are_judged),
        cmocka_unit_test(a_browser_takes_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
