/* test_report_parts: what the page is made of, each alone: escaping, charts, the log, the gallery, attention. */
#include "tests/kit/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/report/gallery.h"
#include "eval/report/html.h"
#include "eval/report/attention.h"
#include "eval/report/runlog.h"
#include "eval/report/svg.h"
#include "train/stage1.h"
#include "train/trainer.h"

/* ---- words and charts -------------------------------------------------------------------------------------------- */

static void text_is_escaped(void **state) {
    (void)state;
    char *text = NULL, s[HTML_NUMBER];
    size_t n;
    FILE *f = open_memstream(&text, &n);
    html(f, "<p title=\"%s\">%.*s %d %5.2f %lld%%</p>", "a\"b'<&>", 3, "xyzw", -7, 1.5, 1234567890123LL);
    html_textn(f, "\xff" "a\x01\xc3\xa9", 5);
    html_base64(f, "Man", 3), html_base64(f, "Ma", 2), html_base64(f, "M", 1);            /* RFC 4648 */
    fclose(f);
    assert_string_equal(text, "<p title=\"a&quot;b&#39;&lt;&amp;&gt;\">xyz -7  1.50 1234567890123%</p>\xef\xbf\xbd"
                              "a\xef\xbf\xbd\xc3\xa9TWFuTWE=TQ==");
    free(text);
    assert_string_equal(html_count(-1234567, s), "-1,234,567");
    assert_string_equal(html_count(100, s), "100");
    assert_string_equal(html_short(1200, s), "1.2k");
    assert_string_equal(html_short(0.00015, s), "0.00015");
}

static void ticks_are_round(void **state) {
    (void)state;
    double t[16];
    assert_int_equal(svg_ticks(0, 1000, false, t, 16), 6);
    assert_true(t[0] == 0 && t[1] == 200 && t[5] == 1000);
    assert_int_equal(svg_ticks(0.5, 2000, true, t, 16), 4);
    assert_true(fabs(t[0] - 1) < 1e-12 && fabs(t[3] - 1000) < 1e-9);
    assert_true(svg_ticks(2.1, 2.2, true, t, 16) >= 2);
    assert_int_equal(svg_ticks(1, 1, false, t, 16), 0);
    assert_int_equal(svg_ticks(NAN, 1, false, t, 16), 0);
}

static char *chart_of(int64_t n, const double *y, bool log) {
    char *text = NULL;
    size_t len;
    int64_t *x = malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = i;
    SvgChart c = {.title = "a<b", .format = "%.3g", .level = NAN, .log = log, .nseries = 1,
                  .series = {{"y", x, y, sizeof *y, n, 0, false}}};
    FILE *f = open_memstream(&text, &len);
    bool drawn = svg_chart(f, &c);
    fclose(f);
    free(x);
    if (drawn) return text;
    assert_int_equal(len, 0);
    free(text);
    return NULL;
}

/* Points that cannot be drawn leave no trace; a long series becomes a short path with a band. */
static void charts_take_anything(void **state) {
    (void)state;
    double y[4000], bad[3] = {NAN, -1, INFINITY};
    assert_null(chart_of(0, bad, false));
    assert_null(chart_of(3, bad, true));
    for (int i = 0; i < 4000; i++) y[i] = i % 7 == 3 ? NAN : 1 + sin(i * 0.01);
    char *one = chart_of(1, y, false), *many = chart_of(4000, y, false), *logs = chart_of(3, y, true);
    assert_non_null(strstr(one, "<circle"));
    assert_non_null(strstr(one, "a&lt;b"));
    assert_non_null(strstr(many, "class=\"band c0\""));
    assert_true(strlen(many) < 20000);
    assert_null(strstr(many, "nan"));
    assert_null(strstr(logs, "inf"));
    free(one), free(many), free(logs);
}

static void logs_are_read(void **state) {
    (void)state;
    static const char text[] =
        "{\"step\":0,\"time\":100,\"start\":{\"command\":\"pretrain\",\"total_steps\":40,\"peak_flops\":5e9,\"config\":"
        "\"seed: 7\\n\"}}\n"
        "{\"step\":10,\"time\":101,\"loss\":4,\"step_ms\":100,\"pairs_per_s\":80,\"wait_percent\":10,\"skipped\":0}\n"
        "no json\n"
        "{\"step\":20,\"time\":102,\"loss\":3,\"step_ms\":100,\"pairs_per_s\":80,\"wait_percent\":30,\"skipped\":2}\n"
        "{\"step\":20,\"time\":103,\"eval\":{\"txt_r1\":10,\"img_r1\":20,\"txt_r10\":50,\"img_r10\":60}}\n"
        "{\"step\":15,\"time\":200,\"start\":{\"command\":\"pretrain\",\"total_steps\":40,\"peak_flops\":5e9,"
        "\"config\":\"seed: 7\\n\"}}\n"
        "[1,2]\n"
        "{\"step\":30,\"time\":203,\"loss\":2,\"step_ms\":200,\"pairs_per_s\":40}\n"
        "{\"step\":30,\"time\":203,\"text\":\"a <b>\"}\n"
        "{\"step\":40,\"time\":204,\"los";
    RunLog l;
    RunSums s;
    passes(runlog_parse(&l, text, sizeof text - 1));
    assert_int_equal(l.lines, 3);
    assert_int_equal(l.evals, 1);
    assert_int_equal(l.texts, 1);
    assert_int_equal(l.starts, 2);
    assert_int_equal(l.bad, 3);
    assert_true(l.torn);
    assert_int_equal(runlog_span(&l, 1), 10);
    assert_int_equal(runlog_span(&l, 2), 15);                /* resumed at 15 */
    runlog_sums(&l, &s);
    assert_int_equal(s.steps, 30);
    assert_int_equal(s.total_steps, 40);
    assert_true(fabs(s.wall_s - 6) < 1e-9 && fabs(s.step_s - 5) < 1e-9 && fabs(s.wait_s - 0.4) < 1e-9);
    assert_true(s.pairs == 80 + 80 + 120 && s.skipped == 2);
    assert_true(runlog_last(&l, RL_loss) == 2 && isnan(runlog_last(&l, RL_itc)));
    assert_int_equal(runlog_best(&l), 0);
    runlog_close(&l);
}

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void the_gallery_chooses(void **state) {
    (void)state;
    char path[] = "/tmp/qformer-lists-XXXXXX", *text = NULL;
    size_t n;
    Gallery g;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    FILE *f = open_memstream(&text, &n);
    for (int i = 0; i < 20; i++)                             /* ranks 0 0 3 0 0 8 0 ...: found but for every third */
        fprintf(f,
                "{\"query\":\"text\",\"caption\":\"c%d\",\"image\":\"i%d\",\"rank\":%d,\"top\":[{\"image\":\"i%d\","
                "\"true\":true,\"score\":0.5}]}\n",
                i, i, i % 3 == 2 ? i + 1 : 0, i);
    fprintf(f, "{\"query\":\"image\",\"image\":\"i0\",\"rank\":null,\"top\":[]}\n");
    fclose(f);
    put(path, text);
    free(text);
    passes(gallery_from_file(&g, path, NULL));
    assert_int_equal(g.queries[ASKS_TEXT], 20);
    assert_int_equal(g.first[ASKS_TEXT], 14);
    assert_int_equal(g.n[ASKS_TEXT][WENT_WELL], 4);
    assert_int_equal(g.n[ASKS_TEXT][WENT_WRONG], 4);
    assert_string_equal(g.query[ASKS_TEXT][WENT_WRONG][0].text, "c17");
    assert_string_equal(g.query[ASKS_TEXT][WENT_WRONG][3].text, "c8");
    assert_int_equal(g.query[ASKS_TEXT][WENT_WRONG][0].rank, 18);
    assert_true(g.query[ASKS_TEXT][WENT_WELL][0].hit[0].own);
    assert_int_equal(g.n[ASKS_IMAGE][WENT_WELL] + g.n[ASKS_IMAGE][WENT_WRONG], 0);
    gallery_close(&g);
    put(path, "{\"query\":\"neither\"}\n");
    assert_int_equal(gallery_from_file(&g, path, NULL), ERR_FORMAT);
    unlink(path);
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

static const Dims DIMS = {.L = 3,
                          .C = 40,
                          .H = 2,
                          .F = 72,
                          .Q = 5,
                          .E = 28,
                          .P = 9,
                          .Z = 20,
                          .V = 90,
                          .N = 16,
                          .X = 2,
                          .T = 10,
                          .pad = 0,
                          .cls = 1,
                          .sep = 2,
                          .dec = 89};
enum { IMAGES = 2, TOKENS = IMAGES * 9 * 28 };

static void attention_of(Attention *a, const QFormer *p, const float *features) {
    passes(attention_open(a, backend_cpu(DT_F32), p, (FeatureRows){features, NULL}, DT_F32, IMAGES));
    assert_int_equal(a->layers, 2);
    assert_int_equal(a->layer[1], 2);
}

/* Shares sum to one; they move with the tokens; keys moved by one vector change nothing; queries without weights see
 * all alike. */
static void attention_is_a_softmax(void **state) {
    (void)state;
    Trainer t;
    Stage1Spec losses = {.itc = 1, .seed = 5};
    TrainerSpec spec = {.d = DIMS, .tokens = 10, .features = DT_F32, .params = {.training = true}, .B = 2, .micro = 1,
                        .objective = &stage1_objective, .spec = &losses};
    float x[TOKENS], turned[TOKENS];
    Attention a, b;
    int rows = 0;
    passes(trainer_open(&t, backend_cpu(DT_F32), &spec));
    passes(params_init(&t.model.params, 3, 0.3f));
    for (uint32_t i = 0; i < TOKENS; i++) x[i] = 4 * rng_unit(philox(i, 1, 0, 0, 9, 9).v[0]) - 2;
    for (int i = 0; i < IMAGES * 9; i++) memcpy(turned + (i / 9 * 9 + (i + 4) % 9) * 28, x + i * 28, 28 * sizeof *x);
    attention_of(&a, &t.model, x);
    attention_of(&b, &t.model, turned);
    for (int64_t r = 0; r < a.images * a.layers * a.Q; r++, rows++) {
        double sum = 0;
        for (int k = 0; k < 9; k++) {
            sum += (double)a.w[r * 9 + k];
            assert_true(fabsf(a.w[r * 9 + k] - b.w[r * 9 + (k + 4) % 9]) < 1e-5f);
        }
        assert_true(fabs(sum - 1) < 1e-5);
        assert_true(attention_spread(a.w + r * 9, 9) < 0.9999);
    }
    assert_int_equal(rows, IMAGES * 2 * 5);
    attention_close(&b);
    for (int l = 0; l < 3; l += 2)
        for (int64_t i = 0; i < DIMS.C; i++) params_get(&t.model.params, P_CROSS_K_B, l).w[i] += 1.5f;
    params_refresh(&t.model.params);
    attention_of(&b, &t.model, x);
    for (int64_t i = 0; i < a.images * a.layers * a.Q * 9; i++) assert_true(fabsf(a.w[i] - b.w[i]) < 1e-4f);
    attention_close(&b);
    for (int l = 0; l < 3; l += 2)
        memset(params_get(&t.model.params, P_CROSS_Q_W, l).w, 0, (size_t)(DIMS.C * DIMS.C) * sizeof(float));
    params_refresh(&t.model.params);
    attention_of(&b, &t.model, x);
    for (int64_t i = 0; i < a.images * a.layers * a.Q * 9; i++) assert_true(fabsf(b.w[i] - 1.0f / 9) < 1e-6f);
    assert_true(fabs(attention_spread(b.w, 9) - 1) < 1e-6);
    attention_close(&a);
    attention_close(&b);
    trainer_close(&t);
}

static void patches_make_a_square(void **state) {
    (void)state;
    int side, lead;
    assert_true(attention_grid(257, &side, &lead) && side == 16 && lead == 1);
    assert_true(attention_grid(16, &side, &lead) && side == 4 && lead == 0);
    assert_true(attention_grid(197, &side, &lead) && side == 14 && lead == 1);
    assert_false(attention_grid(7, &side, &lead));
    assert_false(attention_grid(1, &side, &lead));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_is_escaped),
        cmocka_unit_test(ticks_are_round),
        cmocka_unit_test(charts_take_anything),
        cmocka_unit_test(logs_are_read),
        cmocka_unit_test(the_gallery_chooses),
        cmocka_unit_test(attention_is_a_softmax),
        cmocka_unit_test(patches_make_a_square),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
