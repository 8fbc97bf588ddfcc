/* quiz: see quiz.h. */
#include "eval/quiz.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "kernels/base/mem.h"

enum { TOGETHER = 16 };                 /* at a time: keys of more would take memory that nobody planned */

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static char *prompt_of(const Quiz *q, const Question *x) {
    return settext_fill(q->spec.questions, 0, (TextSpan){x->text, strlen(x->text)});
}

/* Ids of the longest prompt. */
static Status longest_prompt(const Quiz *q, int32_t *most) {
    TokenIds ids = {0};
    Status st = OK;
    *most = 0;
    for (int64_t i = -1; i < q->asked.n && st == OK; i++) {  /* -1: the prompt in front of captions */
        char *prompt = i < 0 ? mem_strdup(q->spec.prompt) : prompt_of(q, &q->asked.q[i]);
        int32_t target;
        ids.n = 0;
        st = prompt ? speech_ids(q->spec.speech, prompt, NULL, &ids, &target) : ERR_MEMORY;
        if ((int32_t)ids.n > *most) *most = (int32_t)ids.n;
        free(prompt);
    }
    free(ids.v);
    return st;
}

static Status open_say(Quiz *q) {
    const Lm *m = q->spec.lm;
    /* one decoder for all fronts: room for the longest */
    int32_t Q = q->spec.model ? q->spec.model->d.Q : 0, front = q->spec.front > Q ? q->spec.front : Q, prompt = 0;
    Status st = longest_prompt(q, &prompt);
    /* T5 writes at positions of its own, the others behind the prompt */
    int32_t rows = front + prompt, room = m->d.family == LM_T5 ? q->spec.max_new : m->rows - rows;
    int32_t length = room < q->spec.max_new ? room : q->spec.max_new;
    if (st == OK && length < 1)
        st = err_set(ERR_USAGE, "a prompt of %d tokens behind %d leaves no room for an answer in %d "
                     "(stage2.max_prompt)", prompt, front, m->rows);
    SearchSpec search = search_greedy(length + 1, 2);        /* an answer says something */
    SaySpec spec = {.b = q->spec.b, .lm = m, .speech = q->spec.speech, .model = q->spec.model, .tok = q->spec.tok,
                    .images = TOGETHER, .front = q->spec.front, .rows = rows, .features = set_dtype(q->set.set)};
    say_rules(&search, &m->d, q->spec.speech);
    if (st == OK) st = say_open(&q->say, &spec, &search);
    return st == OK && q->spec.model ? evalrows_open(&q->rows, &q->set, q->spec.b, TOGETHER) : st;
}

Status quiz_open(Quiz *q, const QuizSpec *spec, const Set *set, const char *split, int64_t limit) {
    TextSpec none = {0};                                     /* no Q-Former reads these captions */
    uint64_t seeds[] = {spec->seed, 42};                     /* the run's, and what synth draws with unless told */
    *q = (Quiz){.spec = *spec};
    Status st = evalset_open(&q->set, set, split, limit, &none);
    if (st == OK) st = asked_of_set(&q->asked, &q->set);
    if (st == OK && !(q->caption = mem_new((size_t)q->set.NI, sizeof *q->caption))) st = ERR_MEMORY;
    if (st == OK) st = open_say(q);
    if (st != OK) {
        quiz_close(q);
        return st;
    }
    scenes_open(&q->scenes, set, seeds, 2);
    return OK;
}

void quiz_close(Quiz *q) {
    mem_free_list(q->caption, (size_t)q->set.NI);
    evalrows_close(&q->rows);
    say_close(&q->say);
    scenes_close(&q->scenes);
    asked_free(&q->asked);
    evalset_close(&q->set);
    *q = (Quiz){0};
}

/* ---- taking it --------------------------------------------------------------------------------------------------- */

/* The picture's first caption, as it stands in front; *words NULL: it has none. */
static Status words_of(const Quiz *q, int64_t image, char **words) {
    size_t n;
    for (int64_t k = 0; k < set_ncaptions(q->set.set, image); k++) {
        const char *text = set_caption(q->set.set, image, k, &n);
        if (settext_of(text, n).kind == TEXT_CAPTION)
            return caption_blip(words, &n, text, n, NULL, q->spec.max_words);
    }
    return OK;
}

static Status put(const Quiz *q, SaySheet *s, QuizFront front, int64_t first, int64_t at, char *prompt, char **to) {
    char *words = NULL;
    Status st = front == QUIZ_WORDS ? words_of(q, q->set.image[at], &words) : OK;
    Status put = say_put(s, (int32_t)(at - first), prompt, words, to);   /* in any case: the prompt is the sheet's */
    return st == OK ? put : st;
}

/* Picture by picture its questions, then its caption. *from: the first question about pictures from `first` on; then
 * the first behind them. */
static Status fill_sheet(Quiz *q, SaySheet *s, QuizFront front, int64_t first, int64_t n, int64_t *from) {
    Status st = OK;
    for (int64_t i = first; i < first + n && st == OK; i++) {
        for (; *from < q->asked.n && q->asked.q[*from].image == i && st == OK; ++*from) {
            Question *x = &q->asked.q[*from];
            st = put(q, s, front, first, i, prompt_of(q, x), &x->answer);
        }
        if (st == OK) st = put(q, s, front, first, i, mem_strdup(q->spec.prompt), &q->caption[i]);
    }
    return st;
}

Status quiz_take(Quiz *q, QuizFront front, int64_t n) {
    Status st = OK;
    bool looks = front == QUIZ_PICTURE;
    if (n > q->set.NI) n = q->set.NI;
    BUG_ON(looks ? !q->spec.model : front == QUIZ_WORDS && !q->spec.front, "quiz: nothing to look at");
    for (int64_t first = 0, from = 0; first < n && st == OK; first += TOGETHER) {
        SaySheet s = {0};
        int some = (int)(n - first < TOGETHER ? n - first : TOGETHER);
        st = fill_sheet(q, &s, front, first, some, &from);
        if (st == OK && looks) st = evalrows_read(&q->rows, first, some);
        if (st == OK) st = say_answers(&q->say, q->rows.rows, looks ? some : 0, &s, 0);
        say_sheet_free(&s);
    }
    return st;
}

Status quiz_gaze(Quiz *q, int64_t question, float *share) {
    const Question *x = &q->asked.q[question];
    char *prompt = prompt_of(q, x);
    Status st = prompt ? evalrows_read(&q->rows, x->image, 1) : ERR_MEMORY;
    if (st == OK) st = say_look(&q->say, q->rows.rows, 1);
    if (st == OK) st = say_gaze(&q->say, &(SayItem){.prompt = prompt}, share);
    free(prompt);
    return st;
}

/* ---- marks ------------------------------------------------------------------------------------------------------- */

static void mark_caption(Quiz *q, int64_t i, QuizMarks *m) {
    Scene scene;
    SynthClaims c;
    bool drawable, again = false;
    /* who says one thing of every picture has learned the form alone */
    for (int64_t k = 0; k < i && !again; k++) again = q->caption[k] && !strcmp(q->caption[k], q->caption[i]);
    m->captions++;
    m->different += !again;
    if (!scenes_find(&q->scenes, q->set.image[i], &scene, &drawable)) return;
    synth_check_caption(&scene, q->caption[i], &c);
    m->shapes += c.pairs, m->shapes_true += c.pairs_true;
}

static Status mark_answer(const Question *x, Tally *t) {
    double right = 0;
    TallyKind *kind = x->human.type.n ? tally_kind(t, x->human.type.s, x->human.type.n) : NULL;
    if (x->human.type.n && !kind) return ERR_MEMORY;
    Status st = x->answer ? asked_accuracy(x, &right) : OK;
    if (!x->answer || st != OK) return st;
    tally_count(&t->all, right);
    if (kind) tally_count(kind, right);
    return OK;
}

Status quiz_mark(Quiz *q, int64_t n, QuizMarks *m) {
    Status st = OK;
    *m = (QuizMarks){0};
    for (int64_t i = 0; i < q->asked.n && q->asked.q[i].image < n && st == OK; i++)
        st = mark_answer(&q->asked.q[i], &m->answers);
    for (int64_t i = 0; i < n && i < q->set.NI && st == OK; i++)
        if (q->caption[i]) mark_caption(q, i, m);
    return st;
}
