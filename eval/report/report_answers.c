/* report_answers: a stage-2 model at work for the page: the questions of the set, answered, beside what takes no
 * picture to know; and captions, which the page judges as stage 1's. See report.h.
 *
 *     right              of the questions of a kind, how many per cent
 *     most frequent      the answer that is right most often among these very questions: whoever knows nothing else
 *     without picture    the language model behind nothing
 *     some object        an answer that names a property of an object of the picture, drawn blindly: whoever sees what
 *                        is there but not what belongs to what. Of drawn scenes, for colours, shapes and textures
 *     in words           the language model behind the picture's first caption: what it can read at all */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "eval/report/svg.h"
#include "kernels/base/mem.h"

enum { FRONT = 48, NEW_TOKENS = 48 };    /* pieces of a caption in front, new tokens: as far as positions are there */

/* ---- floors ------------------------------------------------------------------------------------------------------ */

static bool says(TextSpan s, const char *word) { return s.n == strlen(word) && memcmp(s.s, word, s.n) == 0; }
static bool of_kind(const Question *q, const char *name) { return says(q->human.type, name); }

static bool same(TextSpan a, TextSpan b) { return a.n == b.n && memcmp(a.s, b.s, a.n) == 0; }
static TextSpan right_answer(const Question *q) { return settext_part(q->human.target, 0); }

/* Share of a kind's questions whose answer is the most frequent one. */
static double most_frequent(const Asked *a, const char *kind) {
    int64_t best = 0, all = 0;
    for (int64_t i = 0; i < a->n; i++) {
        int64_t n = 0;
        if (!of_kind(&a->q[i], kind)) continue;
        all++;
        for (int64_t k = 0; k < a->n; k++)
            /* some hundred questions: no table is worth it */
            n += of_kind(&a->q[k], kind) && same(right_answer(&a->q[i]), right_answer(&a->q[k]));
        if (n > best) best = n;
    }
    return all ? 100.0 * (double)best / (double)all : NAN;
}

/* How likely the property of an object drawn blindly is the answer; NAN: it is no property. */
static double by_chance(const Scene *s, const char *kind, TextSpan answer) {
    int hits = 0;
    for (int i = 0; i < s->n; i++) {
        const SynthObject *o = &s->object[i];
        if (!strcmp(kind, "colour")) hits += says(answer, synth_colours[o->colour]);
        else if (!strcmp(kind, "shape")) hits += says(answer, synth_shapes[o->shape]);
        else if (!strcmp(kind, "texture")) hits += says(answer, synth_textures[o->texture]);
        else return NAN;                                     /* a count belongs to no object */
    }
    return s->n ? (double)hits / s->n : NAN;
}

static double some_object(Quiz *q, const char *kind) {
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < q->asked.n; i++) {
        Scene s;
        bool drawable;
        const Question *x = &q->asked.q[i];
        if (!of_kind(x, kind) || !scenes_find(&q->scenes, q->set.image[x->image], &s, &drawable)) continue;
        sum += by_chance(&s, kind, right_answer(x));
        n++;
    }
    return n ? 100 * sum / (double)n : NAN;
}

/* ---- gathering --------------------------------------------------------------------------------------------------- */

static Status take(Report *r, QuizFront front) {
    Quiz *q = &r->answers.quiz;
    QuizMarks m = {0};
    Status st = quiz_take(q, front, q->set.NI);
    if (st == OK) st = quiz_mark(q, q->set.NI, &m);
    r->answers.tally[front] = m.answers;
    return st;
}

/* The answers and captions that were given with the picture in sight become the page's; others may follow. */
static Status keep(Report *r, int64_t n) {
    r->answers.given = mem_new((size_t)r->answers.quiz.asked.n, sizeof *r->answers.given);
    r->captions.text = mem_new((size_t)n, sizeof *r->captions.text);
    if (!r->answers.given || !r->captions.text) return ERR_MEMORY;
    for (int64_t i = 0; i < r->answers.quiz.asked.n; i++) {
        Question *q = &r->answers.quiz.asked.q[i];
        Status st = q->answer ? asked_accuracy(q, &r->answers.given[i].right) : OK;
        if (st != OK) return st;
        r->answers.given[i].text = q->answer;
        r->answers.n++;
        q->answer = NULL;                                    /* the next pass says another */
    }
    int64_t wanted = r->o->report.captions < n ? r->o->report.captions : n;
    for (r->captions.n = 0; r->captions.n < wanted; r->captions.n++) {
        r->captions.text[r->captions.n] = r->answers.quiz.caption[r->captions.n];
        r->answers.quiz.caption[r->captions.n] = NULL;
    }
    return OK;
}

/* The pictures whose answers are shown, at even distances. */
static int64_t shown(const Report *r) {
    return r->answers.quiz.set.NI < REPORT_SHOWN ? r->answers.quiz.set.NI : REPORT_SHOWN;
}

static int64_t shown_at(const Report *r, int64_t k) { return k * r->answers.quiz.set.NI / shown(r); }

static Status gaze(Report *r) {
    Status st = OK;
    size_t Q = (size_t)r->e.use.d.Q;
    /* T5's rows see the picture by way of its encoder */
    if (r->e.use.speaker.src.d.family == LM_T5) return OK;
    for (int64_t k = 0, i = 0; k < shown(r) && st == OK; k++)
        for (; i < r->answers.n && r->answers.quiz.asked.q[i].image <= shown_at(r, k) && st == OK; i++) {
            if (r->answers.quiz.asked.q[i].image < shown_at(r, k)) continue;
            float *share = r->answers.given[i].gaze = mem_new(Q, sizeof *share);
            st = share ? quiz_gaze(&r->answers.quiz, i, share) : ERR_MEMORY;
        }
    return st;
}

static Status gather(Report *r) {
    const Use *u = &r->e.use;
    const Options *old = r->run.trained ? r->run.trained : r->o;
    QuizSpec spec = {.b = u->b, .lm = &u->speaker.lm, .speech = &u->speaker.speech, .model = &u->model, .tok = u->tok,
                     .prompt = u->lm_prompt, .questions = old->stage2.questions, .front = FRONT,
                     .max_words = (int32_t)old->data.max_words, .max_new = NEW_TOKENS,
                     .seed = (uint64_t)old->run.seed};
    Status st = quiz_open(&r->answers.quiz, &spec, u->set, u->split, r->o->report.limit);
    if (st == OK) st = take(r, QUIZ_PICTURE);
    if (st == OK) st = keep(r, r->answers.quiz.set.NI);
    if (st == OK) st = gaze(r);
    if (st == OK) st = take(r, QUIZ_WORDS);
    if (st == OK) st = take(r, QUIZ_BLIND);
    const Tally *t = r->answers.tally;
    if (st == OK && !(r->answers.floor = mem_new((size_t)t->kinds, sizeof *r->answers.floor))) st = ERR_MEMORY;
    for (int k = 0; st == OK && k < t->kinds; k++) {
        r->answers.floor[k].frequent = most_frequent(&r->answers.quiz.asked, t->kind[k].name);
        r->answers.floor[k].some = some_object(&r->answers.quiz, t->kind[k].name);
    }
    return st;
}

Status report_answers(Report *r) {
    if (!r->speaks) return OK;
    Status st = gather(r);
    /* what the user did or lacks is no excuse on a page */
    if (st == OK || st == ERR_MEMORY || st == ERR_INTERRUPTED) return st;
    report_excuse(&r->answers.none);
    return OK;
}

/* ---- the section ------------------------------------------------------------------------------------------------- */

/* k < 0: all kinds together */
static const TallyKind *kind_of(const Report *r, QuizFront front, int k) {
    const Tally *t = &r->answers.tally[front];
    return k < 0 ? &t->all : &t->kind[k];
}

static void row(FILE *f, Report *r, int k) {
    const TallyKind *first = kind_of(r, QUIZ_PICTURE, k);
    bool all = k < 0;
    html(f, "<tr class=\"%s\"><th scope=\"row\">%s</th><td>%lld</td>", all ? "main" : "plain",
         all ? "all" : first->name, (long long)first->n);
    html_cell(f, "%.1f", tally_share(first));
    html_cell(f, "%.1f", all ? NAN : r->answers.floor[k].frequent);
    html_cell(f, "%.1f", tally_share(kind_of(r, QUIZ_BLIND, k)));
    html_cell(f, "%.1f", all ? NAN : r->answers.floor[k].some);
    html_cell(f, "%.1f", tally_share(kind_of(r, QUIZ_WORDS, k)));
    html(f, "</tr>\n");
}

static void table(Report *r, FILE *f) {
    html(f, "<div class=\"card\"><table><caption>Answers that are right, per cent</caption><thead><tr><th></th>"
            "<th scope=\"col\">questions</th><th scope=\"col\">right</th><th scope=\"col\">most frequent answer</th>"
            "<th scope=\"col\">without the picture</th><th scope=\"col\">of some object</th>"
            "<th scope=\"col\">read in words</th></tr></thead><tbody>\n");
    for (int k = -1; k < r->answers.tally->kinds; k++) row(f, r, k);
    html(f, "</tbody></table></div>\n");
}

/* A cell a query, the one that is looked at most the darkest. */
static void gaze_strip(FILE *f, const float *share, int Q) {
    float most = 0, all = 0, *o = mem_new((size_t)Q, sizeof *o);
    int best = 0;
    if (!o) return;
    for (int i = 0; i < Q; i++) {
        all += share[i];
        if (share[i] > most) most = share[i], best = i;
    }
    /* by itself: how much of all is said in the title */
    for (int i = 0; i < Q; i++) o[i] = most > 0 ? share[i] / most : 0;
    html(f, " <svg viewBox=\"0 0 %d 1\" width=\"%d\" height=\"9\" role=\"img\"><title>%.0f %% of the attention is on "
            "the picture, most of it on query %d</title>", Q, 9 * Q, 100 * (double)all, best);
    svg_cells(f, o, 1, Q, Q, 1, "shade");
    html(f, "</svg>");
    free(o);
}

static void card(Report *r, FILE *f, int64_t i) {
    int64_t image = r->e.set.image[i];
    html(f, "<article class=\"card pair\"><div>");
    thumbs_show(f, &r->thumbs, image, "thumb", set_image_id(r->e.set.set, image));
    html(f, "</div><div><ul class=\"refs\">");
    for (int64_t k = 0; k < r->answers.n; k++) {
        const Question *q = &r->answers.quiz.asked.q[k];
        bool good = r->answers.given[k].right >= 0.5;        /* VQA's counts may lie between */
        if (q->image != i || !r->answers.given[k].text) continue;
        html(f, "<li>%s <b class=\"rank %s\">%s</b>", q->text, good ? "good" : "bad", r->answers.given[k].text);
        if (!good) html(f, " (%.*s)", (int)right_answer(q).n, right_answer(q).s);  /* what would have been right */
        if (r->answers.given[k].gaze) gaze_strip(f, r->answers.given[k].gaze, r->e.use.d.Q);
        html(f, "</li>");
    }
    html(f, "</ul></div></article>\n");
}

void report_section_answers(Report *r, FILE *f) {
    if (r->answers.none) html(f, "<p class=\"missing\">Nothing was asked: %s</p>\n", r->answers.none);
    else if (!r->answers.n) html_missing(f, "The set holds no questions.");
    if (!r->answers.n) return;
    html(f, "<p class=\"says\">The questions of %lld pictures of split %s, answered greedily. Beside it what takes no "
            "picture: the answer that is right most often among these very questions, and the language model alone; a "
            "property of any object of the picture, blindly drawn; and what the language model reads off the "
            "picture's first caption. The cells behind an answer are the queries: dark is where the row that says its "
            "first word looks, over all layers and heads.</p>\n",
         (long long)r->answers.quiz.set.NI, r->e.use.split);
    table(r, f);
    html(f, "<div class=\"grid wide\" style=\"margin-top:1rem\">\n");
    for (int64_t k = 0; k < shown(r); k++) card(r, f, shown_at(r, k));
    html(f, "</div>\n");
}

/* ---- as JSON ----------------------------------------------------------------------------------------------------- */

void report_write_answers(JsonWriter *w, const Report *r) {
    static const struct { const char *key; QuizFront of; } passes[] = {
        {"right", QUIZ_PICTURE}, {"without_picture", QUIZ_BLIND}, {"in_words", QUIZ_WORDS}};
    if (!r->answers.n) return;
    jw_object(w, "answers");
    for (int k = -1; k < r->answers.tally->kinds; k++) {
        const TallyKind *first = kind_of(r, QUIZ_PICTURE, k);
        jw_object(w, k < 0 ? "all" : first->name);
        jw_int(w, "asked", first->n);
        for (size_t i = 0; i < sizeof passes / sizeof *passes; i++)
            jw_num(w, passes[i].key, tally_share(kind_of(r, passes[i].of, k)));
        if (k >= 0) report_number(w, "most_frequent", r->answers.floor[k].frequent);
        if (k >= 0) report_number(w, "some_object", r->answers.floor[k].some);
        jw_end(w);
    }
    jw_end(w);
}
