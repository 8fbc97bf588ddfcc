/* watched: what a model that speaks says of pictures it does not learn from, while it learns (run.h): a few at each
 * line of the log, more at a validation. The loss falls by form alone for a long time; this shows whether the picture
 * is in it. Rank 0 alone asks: all ranks have the same model. */
#include <math.h>

#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/reader.h"
#include "train/run.h"

enum { MOST = 200, NEW_TOKENS = 48 };    /* pictures of a validation; new tokens of a text, at most */

static QuizFront front_of(const Run *r) { return r->learns == LEARNS_LM ? QUIZ_WORDS : QUIZ_PICTURE; }

static bool answers(const Run *r) {
    return r->learns != LEARNS_STAGE1 && (r->o->train.watched || r->validates) && dist_rank() == 0;
}

/* A split that has no pictures, no room for answers, or no memory for them is no reason not to train. */
Status watched_open(Run *r) {
    const Options *o = r->o;
    bool lm = r->learns == LEARNS_LM;
    int64_t most = r->validates ? MOST : o->train.watched;
    if (!answers(r) || set_parts(r->val) > 1) return OK;
    if (r->validates && o->train.eval_images && o->train.eval_images < most) most = o->train.eval_images;
    if (most < o->train.watched) most = o->train.watched;
    QuizSpec spec = {.b = r->b, .lm = lm ? reader_model(r->t.self) : &r->speaker.lm,
                     .speech = lm ? &r->speech : &r->speaker.speech, .model = lm ? NULL : &r->t.model, .tok = r->tok,
                     .prompt = o->stage2.prompt, .questions = o->stage2.questions,
                     .front = lm ? r->reader.front : 0, .max_words = (int32_t)o->data.max_words,
                     .max_new = NEW_TOKENS, .seed = (uint64_t)o->run.seed};
    Status st = quiz_open(&r->quiz, &spec, r->val, o->data.val_split, most);
    if (st != ERR_USAGE && st != ERR_MEMORY) return st;
    status_say("nothing is watched: %s", err_message());
    err_clear();
    return OK;
}

static Status ask(Run *r, int64_t n, QuizMarks *m) {
    Status st = quiz_take(&r->quiz, front_of(r), n);
    return st == OK ? quiz_mark(&r->quiz, n, m) : st;
}

static double share(int64_t part, int64_t of) { return of ? 100.0 * (double)part / (double)of : NAN; }

Status watched_look(Run *r, LogStep *s) {
    int64_t n = r->o->train.watched;
    QuizMarks m;
    bool due = s->step % r->o->train.log_every == 0 || s->step == r->steps;
    if (!r->quiz.set.NI || !n || !due) return OK;
    Status st = ask(r, n, &m);
    if (st != OK) return st;
    s->answers = m.answers.all.n ? tally_share(&m.answers.all) : NAN;
    s->different = (double)m.different;
    s->shapes = share(m.shapes_true, m.shapes);
    tally_free(&m.answers);
    log_pause(r->log);                                       /* it is no part of the step's time */
    return OK;
}

Status watched_validate(Run *r, QuizMarks *m, LogValue *v, int *n) {
    if (!r->quiz.set.NI) return OK;
    Status st = ask(r, r->quiz.set.NI, m);
    if (st != OK) return st;
    const Tally *t = &m->answers;
    if (t->all.n) v[(*n)++] = (LogValue){"answers", tally_share(&t->all)};
    /* a line of the log has room for so many; sets with more kinds of questions have them in the report */
    for (int k = 0; k < t->kinds && k < WATCHED_KINDS; k++)
        v[(*n)++] = (LogValue){t->kind[k].name, tally_share(&t->kind[k])};
    if (m->captions) v[(*n)++] = (LogValue){"different", (double)m->different};
    if (m->shapes) v[(*n)++] = (LogValue){"shapes", share(m->shapes_true, m->shapes)};
    return OK;
}
