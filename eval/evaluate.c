/* evaluate: see evaluate.h. */
#include "eval/evaluate.h"

#include "eval/result.h"
#include "kernels/base/signals.h"
#include "kernels/dist/dist.h"

static void limit_texts(Use *u, int tokens) {
    enum { LEAST = 3 };                 /* [CLS], a piece, [SEP] */
    if (!tokens) return;
    if (tokens > u->d.N) tokens = u->d.N;
    if (tokens < LEAST) tokens = LEAST;
    u->d.T = u->model.d.T = tokens;
    u->text.T = tokens;
}

static Status open_parts(Evaluation *e, const EvaluationSpec *spec) {
    const Use *u = &e->use;
    Status st = OK;
    limit_texts(&e->use, spec->tokens);
    /* what fills the device, and of what only so many keys fit */
    e->batch = u->o->use.batch ? (int)u->o->use.batch : u->b->unified ? 32 : 128;
    if (spec->split) st = evalset_open(&e->set, u->set, u->split, spec->limit, &u->text);
    if (st == OK && u->d.W && !spec->any && !spec->writes)
        st = err_set(ERR_USAGE, "%s is a stage-2 model, which compares nothing: caption and ask let it speak",
                     u->path);
    if (st == OK && !u->d.W && !spec->writes)
        st = encoder_open(&e->enc, u->b, &u->model, e->batch, set_dtype(u->set));
    for (int64_t i = 0; st == OK && e->speaks && set_warning(u->set, i); i++)
        status_say("warning: %s", set_warning(u->set, i));
    return st;
}

Status evaluation_open(Evaluation *e, const Options *o, const EvaluationSpec *spec) {
    *e = (Evaluation){.speaks = dist_rank() == 0};
    signals_ask();                       /* from here on a signal is a wish to stop: evaluation_progress hands it on */
    Status st = e->speaks ? result_claim(o, spec->result, spec->beside) : OK;
    if (st == OK) st = use_open(&e->use, o);
    if (st == OK && spec->writes && !e->use.d.W) st = use_text_head(&e->use);
    if (st == OK) st = open_parts(e, spec);
    st = dist_agree(st);                 /* a rank that cannot open says so before the others wait for it */
    if (st != OK) evaluation_close(e);
    return st;
}

void evaluation_close(Evaluation *e) {
    encoder_close(&e->enc);
    evalset_close(&e->set);
    use_close(&e->use);
    *e = (Evaluation){0};
}

static bool tell(void *ctx, int64_t done, int64_t total) {
    (void)total;
    Evaluation *e = ctx;
    if (e->speaks && (!e->quiet || status_is_live())) meter_at(&e->meter, done);
    return !stop_requested();
}

EvalProgress evaluation_progress(Evaluation *e, const char *what, const char *unit, int64_t total) {
    e->meter = meter_start(what, unit, total, 0);
    return (EvalProgress){tell, e, 0, total};
}

void evaluation_progress_end(Evaluation *e, const EvalProgress *p) {
    if (e->speaks && !e->quiet) meter_end(&e->meter, p->done);
}

Status evaluation_features(Evaluation *e, float **I, float **T) {
    EvalProgress p = evaluation_progress(e, "encode", "images and texts", evalset_share(&e->set));
    Status st = evalset_encode(&e->set, &e->enc, I, T, &p);
    if (st == OK) evaluation_progress_end(e, &p);
    return st;
}
