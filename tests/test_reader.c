/* reader: a tiny language model of the Llama family that learns from texts: gradients of every tensor against
 * differences of losses, in one piece and in several; then pretrain objective=lm as a user runs it: the loss falls,
 * killed and resumed it ends with the same bytes, and what export makes of it is a folder that stage 2 speaks to and
 * leaves as it is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/lm_weights.h"
#include "data/format/json.h"
#include "eval/quiz.h"
#include "kernels/base/mem.h"
#include "kernels/base/rng.h"
#include "tests/kit/folder.h"
#include "tests/kit/learner.h"
#include "train/reader.h"
#include "train/trainer.h"

enum { B = 4, TEXTS = 3, IDS = 8, FRONT = 5, V = 23 };

static const LmDims DIMS = {.family = LM_LLAMA, .L = 2, .C = 16, .E = 16, .H = 2, .K = 2, .D = 8, .F = 24, .V = V,
                            .N = 40, .eps = 1e-5, .act = ACT_SILU, .gated = true, .pre_norm = true, .last_norm = true,
                            .head = LM_HEAD_TIED, .rope = {.theta = 100.0}, .start = -1, .nends = 1};

/* ---- the objective ----------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t front[B][FRONT], ids[B * TEXTS][IDS];
    ObjectiveView views[B];
    LmItem items[B * TEXTS];
    ObjectiveBatch batch;
} Data;

/* Pictures with 3, 1, 2 and no texts, behind 5, 4, no and 2 words; words come more than once, so that their gradients
 * are sums. The third's texts stand alone. */
static void make_batch(Data *x) {
    static const int texts[B] = {3, 1, 2, 0}, front[B] = {5, 4, 0, 2};
    uint32_t k = 0;
    *x = (Data){.batch = {.views = x->views, .nviews = B, .said = x->items}};
    for (int i = 0; i < B; i++) {
        for (int j = 0; j < FRONT; j++) x->front[i][j] = (int32_t)(philox(k++, 5, 5, 5, 5, 5).v[0] % V);
        x->views[i] = (ObjectiveView){.image = i, .ids = x->front[i], .n = front[i]};
        for (int t = 0; t < texts[i]; t++) {
            int n = x->batch.nsaid++;
            x->items[n] = (LmItem){.image = i, .ids = x->ids[n], .n = IDS - t, .target = 1 + t};
            for (int j = 0; j < IDS; j++) x->ids[n][j] = (int32_t)(philox(k++, 7, 7, 7, 7, 7).v[0] % V);
        }
    }
}

static void open_trainer(Trainer *t, int micro) {
    ReaderSpec spec = {.d = DIMS, .texts = TEXTS, .ids = IDS, .front = FRONT};
    TrainerSpec s = {.params = {.training = true}, .objective = &reader_objective, .spec = &spec, .B = B,
                     .micro = micro, .tokens = IDS, .features = DT_F32};
    assert_int_equal(trainer_open(t, backend_cpu(DT_F32), &s), OK);
    assert_int_equal(params_init(t->params, 5, 0.3f), OK);
}

static double loss_of(Trainer *t, const Data *x, bool grad) {
    ObjectiveLosses l;
    if (trainer_losses(t, &x->batch, 0, 1, grad, &l) != OK) fail_msg("%s", err_message());
    return l.loss;
}

/* A step of h along a tensor's gradient changes the loss by h times its length: central differences. */
static void check_tensor(Trainer *t, const Data *x, const ParamTensor *p, const float *g) {
    float *w = mem_new((size_t)p->n, sizeof *w), *moved = mem_new((size_t)p->n, sizeof *moved);
    double norm = 0, loss[2];
    const double h = 5e-3;
    params_read(t->params, p, t->params->w, w);
    for (int64_t i = 0; i < p->n; i++) norm += (double)g[p->at + i] * (double)g[p->at + i];
    norm = sqrt(norm);
    if (norm < 1e-4) fail_msg("%s: has no gradient", p->name);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < p->n; i++)
            moved[i] = w[i] + (float)((side ? -h : h) * (double)g[p->at + i] / norm);
        params_write(t->params, p, t->params->w, moved);
        loss[side] = loss_of(t, x, false);
    }
    params_write(t->params, p, t->params->w, w);
    double slope = (loss[0] - loss[1]) / (2 * h);
    if (fabs(slope - norm) > 1e-2 * norm + 2e-4) fail_msg("%s: slope %.6g, gradient %.6g", p->name, slope, norm);
    free(w);
    free(moved);
}

static void all_weights_have_their_gradient(void **state) {
    (void)state;
    Trainer t;
    Data x;
    make_batch(&x);
    open_trainer(&t, 1);
    size_t bytes = (size_t)t.params->learns * sizeof(float);
    float *g = mem_new(bytes, 1);
    loss_of(&t, &x, true);
    memcpy(g, t.params->g, bytes);
    for (int i = 0; i < t.params->n; i++) check_tensor(&t, &x, &t.params->tensor[i], g);
    free(g);
    trainer_close(&t);
}

static void pieces_are_the_whole(void **state) {
    (void)state;
    Trainer t[2];
    Data x;
    double loss[2];
    make_batch(&x);
    for (int k = 0; k < 2; k++) open_trainer(&t[k], k ? 4 : 1), loss[k] = loss_of(&t[k], &x, true);
    assert_true(fabs(loss[0] - loss[1]) < 1e-6);
    for (int64_t i = 0; i < t[0].params->learns; i++)
        if (fabsf(t[0].params->g[i] - t[1].params->g[i]) > 1e-5f) fail_msg("gradient %lld", (long long)i);
    assert_true(t[1].plan.step < t[0].plan.step);
    for (int k = 0; k < 2; k++) trainer_close(&t[k]);
}

/* What stands in front counts: other words there, another loss behind them; and in texts that stand alone, none. */
static void front_is_seen(void **state) {
    (void)state;
    Trainer t;
    Data x;
    make_batch(&x);
    open_trainer(&t, 1);
    double was = loss_of(&t, &x, false);
    x.front[0][1] = (x.front[0][1] + 1) % V;
    assert_true(fabs(loss_of(&t, &x, false) - was) > 1e-5);
    x.front[0][1] = (x.front[0][1] + V - 1) % V;
    x.front[2][0] = (x.front[2][0] + 1) % V, x.front[3][0] = (x.front[3][0] + 1) % V;       /* nobody reads them */
    assert_true(loss_of(&t, &x, false) == was);
    trainer_close(&t);
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

#define LM "pretrain objective=lm data.train=set.h5 model.vocab=words.txt stage2.questions={} stage2.texts=4" \
    " train.batch=4 lm.layers=2 lm.hidden=16 lm.heads=2 optim.warmup_steps=2 optim.lr=1e-2 train.eval_every=0" \
    " train.log_every=6 precision=f32 threads=1"

static void makes_a_set(void) {
    if (folder_has("set.h5")) return;
    folder_must("synth out=set.h5 synth.train=24 synth.val=8 synth.test=8 synth.captions=2 synth.questions=3 "
                "synth.objects=1 synth.say=all synth.size=16 synth.patch=8");
    folder_must("vocab in=set.h5 out=words.txt vocab.size=300");
}

static int same(const char *a, const char *b) {
    char line[200];
    snprintf(line, sizeof line, "cmp %s %s", a, b);
    return folder_shell(line) == 0;
}

static void resumes_to_the_same_bytes(void **state) {
    (void)state;
    makes_a_set();
    folder_must(LM " out=whole train.steps=24 optim.accum=2");
    folder_must(LM " out=parts train.steps=24 optim.accum=2 train.time_limit=1e-9");
    assert_false(folder_has("parts/step_000024"));           /* it stopped on the way */
    folder_says(LM " out=parts train.steps=24 optim.accum=2", "goes on");
    assert_true(same("whole/step_000024/model.safetensors", "parts/step_000024/model.safetensors"));
    assert_true(same("whole/step_000024/optimizer.safetensors", "parts/step_000024/optimizer.safetensors"));
    folder_refuses(LM " out=whole train.steps=30 optim.accum=2 lm.layers=3", "lm.layers");
}

typedef struct { double first, last; } Curve;

static Status take_loss(void *ctx, int64_t index, const Json *line) {
    Curve *c = ctx;
    double v;
    (void)index;
    if (!json_num(json_get(line, "loss"), &v)) return OK;
    if (c->first == 0) c->first = v;
    c->last = v;
    return OK;
}

static void loss_falls(void **state) {
    (void)state;
    Curve c = {0, 0};
    assert_int_equal(json_each(folder_path("whole/log.jsonl"), take_loss, &c), OK);
    assert_true(c.first > 2 && c.last < 0.8 * c.first);
}

static uint64_t checksum(const char *folder) {
    const Backend *b = backend_cpu(DT_F32);
    LmSource src;
    Lm m, sizes;
    Arena measure, run;
    uint64_t sum = 0;
    assert_int_equal(lm_source_open(&src, folder_path(folder)), OK);
    arena_measure(&measure, "model");
    assert_int_equal(lm_open(&sizes, &src.d, backend_null(DT_F32), &measure, 8), OK);
    lm_close(&sizes);
    assert_int_equal(arena_open(&run, "model", b, measure.peak), OK);
    assert_int_equal(lm_open(&m, &src.d, b, &run, 8), OK);
    assert_int_equal(lm_load(&m, &src), OK);
    assert_int_equal(learner_checksum(&m, &sum), OK);
    lm_close(&m);
    arena_close(&run, b);
    lm_source_close(&src);
    return sum;
}

static void stage_2_speaks_to_it(void **state) {
    (void)state;
    makes_a_set();
    folder_says("export in=whole out=lm", "a LlamaForCausalLM of");
    folder_refuses("export in=whole out=lm", "overwrite=true");
    folder_fails("ask in=whole data.test=set.h5 threads=1", "a language model without eyes");
    uint64_t before = checksum("lm");
    folder_says("pretrain out=two stage=2 stage2.lm=lm data.train=set.h5 stage2.questions={} data.sample=images "
                "train.steps=3 train.batch=4 model.layers=1 model.hidden=16 model.heads=2 model.queries=4 "
                "train.eval_every=0 train.log_every=1 optim.warmup_steps=1 precision=f32 threads=1",
                "speaks    to lm: llama");
    folder_says("ask in=two data.test=set.h5 ask.template={} ask.limit=2 threads=1", "accuracy");
    assert_true(checksum("lm") == before);
}

/* ---- what is watched --------------------------------------------------------------------------------------------- */

static void question(Quiz *q, int64_t image, const char *text, const char *answer) {
    Question *x = &q->asked.q[q->asked.n++];
    *x = (Question){.image = image, .human = settext_of(text, strlen(text))};
    if (answer) x->answer = mem_strdup(answer);
}

/* Worked by hand. Two of three colours are right, articles and case aside; a question that nobody has answered yet does
 * not count; where ten people answered, three of whom say what we say, VQA counts min(1, 2 / 3) for each of the three
 * and min(1, 3 / 3) for the others: 0.9. */
static void marks_are_counted(void **state) {
    (void)state;
    Quiz q = {.asked = {.q = mem_new(8, sizeof(Question))}};
    QuizMarks m;
    Tally *t = &m.answers;
    question(&q, 0, "\x1Dqcolour\x1Dwhat colour?\x1Dred", "red");
    question(&q, 0, "\x1Dqcolour\x1Dwhat colour?\x1Dred", "The Red");
    question(&q, 1, "\x1Dqcount\x1Dhow many?\x1D" "2", "3");
    question(&q, 1, "\x1Dqcolour\x1Dwhat colour?\x1Dgreen", "blue");
    question(&q, 2, "\x1Dqshape\x1Dwhat shape?\x1Dring", NULL);
    question(&q, 2, "\x1Dqmany\x1Dwhat?\x1Dx\x1Ex\x1Ex\x1Ep\x1Eq\x1Er\x1Es\x1Et\x1Eu\x1Ev", "x");
    assert_int_equal(quiz_mark(&q, 3, &m), OK);
    assert_int_equal(t->all.n, 5);
    assert_true(fabs(t->all.right - 2.9) < 1e-9);
    assert_int_equal(t->kinds, 4);
    assert_string_equal(t->kind[0].name, "colour");
    assert_true(t->kind[0].n == 3 && fabs(tally_share(&t->kind[0]) - 200.0 / 3) < 1e-9);
    assert_true(t->kind[1].n == 1 && t->kind[1].right == 0 && t->kind[2].n == 0);
    assert_true(fabs(t->kind[3].right - 0.9) < 1e-9);
    tally_free(t);
    assert_int_equal(quiz_mark(&q, 1, &m), OK);              /* of the first picture alone */
    assert_true(t->all.n == 2 && t->all.right == 2);
    tally_free(t);
    asked_free(&q.asked);
}

/* Captions of the set itself: two are the same, so what is said of the third picture is true by chance at most. */
static void captions_are_looked_at(void **state) {
    (void)state;
    makes_a_set();
    Set *set;
    Quiz q = {.caption = mem_new(3, sizeof(char *))};
    const TextSpec none = {0};
    const uint64_t seed = 42;
    QuizMarks m;
    Scene s[3];
    char text[SYNTH_CAPTION];
    assert_int_equal(set_open(&set, folder_path("set.h5")), OK);
    assert_int_equal(evalset_open(&q.set, set, "val", 3, &none), OK);
    scenes_open(&q.scenes, set, &seed, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(synth_draw(&s[i], &(SynthKind){42, 1, true}, SYNTH_VAL, i), OK);
        synth_caption(&s[i % 2], 0, text);
        q.caption[i] = mem_strdup(text);
    }
    bool alike = s[0].object[0].shape == s[2].object[0].shape && s[0].object[0].colour == s[2].object[0].colour;
    assert_int_equal(quiz_mark(&q, 3, &m), OK);
    assert_true(m.captions == 3 && m.different == 2 && m.shapes == 3 && m.shapes_true == 2 + alike);
    quiz_close(&q);
    set_close(set);
}

/* Each line of the log has them, of stage 2 as of the language model; validation has them by kind. */
static void log_has_answers(void **state) {
    (void)state;
    makes_a_set();
    folder_must(LM " out=seen train.steps=12 train.eval_every=12 train.watched=3");
    const char *look = "grep -v eval seen/log.jsonl | grep -c '\"answers\":.*\"different\": *[1-3],' | grep -qx 2";
    assert_int_equal(folder_shell(look), 0);
    assert_int_equal(folder_shell("grep -q '\"eval\":.*\"answers\":.*\"colour\":' seen/log.jsonl"), 0);
    folder_must(LM " out=unseen train.steps=12 train.watched=0");
    assert_true(folder_shell("grep -q answers unseen/log.jsonl") != 0);
    assert_true(same("seen/step_000012/model.safetensors", "unseen/step_000012/model.safetensors"));
    assert_int_equal(folder_shell("grep -q '\"answers\":' two/log.jsonl"), 0);
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

/* How often the most frequent answer to what is asked about colours is right, counted from the set itself. */
static double most_frequent_colour(const char *split) {
    Set *set;
    int64_t *image, n, count[SYNTH_COLOURS] = {0}, all = 0, most = 0;
    assert_int_equal(set_open(&set, folder_path("set.h5")), OK);
    assert_int_equal(set_select(set, split, &image, &n), OK);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < set_ncaptions(set, image[i]); k++) {
            size_t len;
            const char *text = set_caption(set, image[i], k, &len);
            for (int c = 0; c < SYNTH_COLOURS; c++) {
                char end[SYNTH_CAPTION];
                int m = snprintf(end, sizeof end, "?\x1D%s", synth_colours[c]);
                bool asked = memcmp(text, "\x1Dqcolour\x1D", 9) == 0;
                count[c] += asked && len > (size_t)m && memcmp(text + len - (size_t)m, end, (size_t)m) == 0;
            }
        }
    for (int c = 0; c < SYNTH_COLOURS; c++) all += count[c], most = count[c] > most ? count[c] : most;
    free(image);
    set_close(set);
    return 100.0 * (double)most / (double)all;
}

static double figure(const Json *doc, const char *kind, const char *key) {
    double v = NAN;
    json_num(json_get(json_get(json_get(doc, "answers"), kind), key), &v);
    return v;
}

static void report_shows_answers(void **state) {
    (void)state;
    makes_a_set();
    folder_says("report in=two data.test=set.h5 threads=1", "without the picture");
    Json *doc = NULL;
    assert_int_equal(json_parse_file(&doc, folder_path("two/report.json")), OK);
    assert_true(figure(doc, "all", "asked") == 24);          /* 8 scenes with 3 questions */
    assert_true(fabs(figure(doc, "colour", "most_frequent") - most_frequent_colour("test")) < 1e-9);
    assert_true(figure(doc, "colour", "some_object") == 100);                /* there is one object */
    assert_true(isnan(figure(doc, "count", "some_object")));
    for (int k = 0; k < 3; k++) {
        double v = figure(doc, "all", k == 0 ? "right" : k == 1 ? "without_picture" : "in_words");
        assert_true(v >= 0 && v <= 100);
    }
    json_free(doc);
    assert_int_equal(folder_shell("grep -q 'id=\"answers\"' two/report.html"), 0);
    assert_true(folder_shell("grep -q 'id=\"recall\"' two/report.html") != 0);
    folder_refuses("retrieval in=two data.test=set.h5", "stage-2 model");
}

static void goes_on_from_weights(void **state) {
    (void)state;
    makes_a_set();
    folder_says("finetune in=whole objective=lm data.train=set.h5 stage2.questions={} train.batch=4 train.steps=1 "
                "out=further train.eval_every=0 precision=f32 threads=1", "of 20 tensors come from it");
    folder_refuses(LM " out=no lm.heads=3", "lm.heads=3");
    folder_refuses(LM " out=no lm.positions=20", "lm.positions=20");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_weights_have_their_gradient), cmocka_unit_test(pieces_are_the_whole),
        cmocka_unit_test(front_is_seen), cmocka_unit_test(resumes_to_the_same_bytes), cmocka_unit_test(loss_falls),
        cmocka_unit_test(stage_2_speaks_to_it), cmocka_unit_test(marks_are_counted),
        cmocka_unit_test(captions_are_looked_at), cmocka_unit_test(log_has_answers),
        cmocka_unit_test(report_shows_answers),
        cmocka_unit_test(goes_on_from_weights)};
    return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
