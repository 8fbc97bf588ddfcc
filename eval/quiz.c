/* quiz: see quiz.h. */
#include "eval/quiz.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/caption.h"
#include "eval/say.h"
#include "kernels/base/mem.h"

enum { PICTURES = 8, PREFIXES = 16 };    /* at a time: keys of more would take memory that nobody planned */

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

static Status open_decoder(Quiz *q) {
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
    if (st != OK) return st;
    q->search = search_greedy(length + 1, 2);                /* an answer says something */
    say_rules(&q->search, &m->d, q->spec.speech);
    LmDecoderSpec spec = {.prefixes = PREFIXES, .slots = decode_slots(&q->search, PREFIXES), .rows = rows,
                          .length = decode_length(&q->search, m->d.family == LM_T5)};
    if (spec.length < 1) spec.length = 1;
    st = lm_decoder_open(&q->lm, q->spec.b, m, &spec);
    if (st == OK) q->decoder = lm_decoder(&q->lm);
    return st == OK ? decode_open(&q->decode, &q->decoder, &q->search) : st;
}

static Status open_eyes(Quiz *q) {
    VisualSpec spec = {.images = PICTURES, .features = set_dtype(q->set.set)};
    if (!q->spec.model) return OK;
    Status st = visual_open(&q->visual, q->spec.b, q->spec.model, &spec);
    return st == OK ? evalrows_open(&q->rows, &q->set, q->spec.b, PICTURES) : st;
}

Status quiz_open(Quiz *q, const QuizSpec *spec, const Set *set, const char *split, int64_t limit) {
    TextSpec none = {0};                                     /* no Q-Former reads these captions */
    uint64_t seeds[] = {spec->seed, 42};                     /* the run's, and what synth draws with unless told */
    *q = (Quiz){.spec = *spec};
    Status st = evalset_open(&q->set, set, split, limit, &none);
    if (st == OK) st = asked_of_set(&q->asked, &q->set);
    if (st == OK && !(q->caption = mem_new((size_t)q->set.NI, sizeof *q->caption))) st = ERR_MEMORY;
    if (st == OK) st = open_decoder(q);
    if (st == OK) st = open_eyes(q);
    if (st != OK) {
        quiz_close(q);
        return st;
    }
    scenes_open(&q->scenes, set, seeds, 2);
    return OK;
}

void quiz_close(Quiz *q) {
    for (int64_t i = 0; q->caption && i < q->set.NI; i++) free(q->caption[i]);
    free(q->caption);
    evalrows_close(&q->rows);
    decode_close(&q->decode);
    lm_decoder_close(&q->lm);
    visual_close(&q->visual);
    scenes_close(&q->scenes);
    asked_free(&q->asked);
    evalset_close(&q->set);
    *q = (Quiz){0};
}

/* ---- taking it --------------------------------------------------------------------------------------------------- */

/* Prompts about some pictures, picture by picture: its questions, then its caption; and where each text goes. */
typedef struct {
    TokenIds ids;
    LmPrefix *prefix;
    size_t *start;
    char ***to;
    int64_t n;
    const Tokenizer *tok;
} Sheet;

static void sheet_free(Sheet *s) {
    free(s->ids.v);
    free(s->prefix);
    free(s->start);
    free(s->to);
}

/* The picture's first caption, as it stands in front. */
static Status put_words(const Quiz *q, Sheet *s, int64_t image) {
    size_t n, from = s->ids.n;
    char *clean = NULL;
    Status st = OK;
    for (int64_t k = 0; k < set_ncaptions(q->set.set, image); k++) {
        const char *text = set_caption(q->set.set, image, k, &n);
        if (settext_of(text, n).kind != TEXT_CAPTION) continue;
        st = caption_blip(&clean, &n, text, n, NULL, q->spec.max_words);
        if (st == OK) st = tokenizer_pieces(s->tok, clean, n, &s->ids);
        break;                                               /* the first caption alone */
    }
    if (s->ids.n > from + (size_t)q->spec.front) s->ids.n = from + (size_t)q->spec.front;  /* that much room was made */
    free(clean);
    return st;
}

static Status put_prompt(const Quiz *q, Sheet *s, QuizFront front, int64_t first, int64_t at, char *prompt, char **to) {
    int32_t Q = front == QUIZ_PICTURE ? q->spec.model->d.Q : 0, target;
    Status st = prompt ? OK : ERR_MEMORY;
    s->start[s->n] = s->ids.n;
    if (st == OK && front == QUIZ_WORDS) st = put_words(q, s, q->set.image[at]);
    if (st == OK) st = speech_ids(q->spec.speech, prompt, NULL, &s->ids, &target);
    s->prefix[s->n] = (LmPrefix){.soft = (int32_t)(at - first) * Q, .nsoft = Q,
                                 .n = (int32_t)(s->ids.n - s->start[s->n])};
    s->to[s->n++] = to;
    free(prompt);
    return st;
}

/* *from: the first question about pictures from `first` on; then the first behind them. */
static Status fill_sheet(Quiz *q, Sheet *s, QuizFront front, int64_t first, int64_t n, int64_t *from) {
    int64_t to = *from;
    while (to < q->asked.n && q->asked.q[to].image < first + n) to++;
    size_t most = (size_t)(to - *from + n);
    *s = (Sheet){.prefix = mem_new(most, sizeof *s->prefix), .start = mem_new(most, sizeof *s->start),
                 .to = mem_new(most, sizeof *s->to), .tok = q->spec.speech->t};
    Status st = s->prefix && s->start && s->to ? OK : ERR_MEMORY;
    for (int64_t i = first; i < first + n && st == OK; i++) {
        for (; *from < to && q->asked.q[*from].image == i && st == OK; ++*from) {
            Question *x = &q->asked.q[*from];
            st = put_prompt(q, s, front, first, i, prompt_of(q, x), &x->answer);
        }
        if (st == OK) st = put_prompt(q, s, front, first, i, mem_strdup(q->spec.prompt), &q->caption[i]);
    }
    for (int64_t i = 0; i < s->n; i++) s->prefix[i].ids = s->ids.v + s->start[i];           /* they stand still now */
    return st;
}

static Status found(void *ctx, int64_t i, const Search *search) {
    const Sheet *s = ctx;
    free(*s->to[i]);
    *s->to[i] = NULL;
    return say_text(s->tok, &search->closed[0], s->to[i]);
}

static Status look(Quiz *q, int64_t first, int64_t n) {
    Status st = evalrows_read(&q->rows, first, n);
    return st == OK ? visual_rows(&q->visual, q->rows.rows, (int)n, NULL, &q->soft) : st;
}

Status quiz_take(Quiz *q, QuizFront front, int64_t n) {
    Status st = OK;
    if (n > q->set.NI) n = q->set.NI;
    BUG_ON(front == QUIZ_PICTURE ? !q->spec.model : front == QUIZ_WORDS && !q->spec.front, "quiz: nothing to look at");
    for (int64_t first = 0, from = 0; first < n && st == OK; first += PICTURES) {
        Sheet s = {0};
        int64_t some = n - first < PICTURES ? n - first : PICTURES;
        st = fill_sheet(q, &s, front, first, some, &from);
        if (st == OK && front == QUIZ_PICTURE) st = look(q, first, some);
        if (st == OK)
            st = decode_texts(&q->decode, &(LmGiven){.soft = q->soft, .prefixes = s.prefix}, s.n, 0, found, &s);
        sheet_free(&s);
    }
    return st;
}

Status quiz_gaze(Quiz *q, int64_t question, float *share) {
    const Question *x = &q->asked.q[question];
    int32_t Q = q->spec.model->d.Q, target;
    TokenIds ids = {0};
    char *prompt = prompt_of(q, x);
    Status st = prompt ? speech_ids(q->spec.speech, prompt, NULL, &ids, &target) : ERR_MEMORY;
    float *all = st == OK ? mem_new((size_t)Q + ids.n, sizeof *all) : NULL;
    if (st == OK && !all) st = ERR_MEMORY;
    if (st == OK) st = look(q, x->image, 1);
    LmPrefix p = {.nsoft = Q, .ids = ids.v, .n = (int32_t)ids.n};
    if (st == OK) st = lm_decoder_gaze(&q->lm, q->soft, &p, all);
    if (st == OK) memcpy(share, all, (size_t)Q * sizeof *share);
    free(all);
    free(ids.v);
    free(prompt);
    return st;
}

/* ---- marks ------------------------------------------------------------------------------------------------------- */

static QuizKind *kind_of(QuizMarks *m, TextSpan type) {
    char name[QUIZ_NAME];
    snprintf(name, sizeof name, "%.*s", (int)(type.n < QUIZ_NAME - 1 ? type.n : QUIZ_NAME - 1), type.n ? type.s : "");
    int k = 0;
    while (k < m->kinds && strcmp(m->kind[k].name, name)) k++;
    if (k == QUIZ_KINDS || !*name) return NULL;
    if (k == m->kinds) memcpy(m->kind[m->kinds++].name, name, sizeof name);
    return &m->kind[k];
}

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

Status quiz_mark(Quiz *q, int64_t n, QuizMarks *m) {
    Status st = OK;
    *m = (QuizMarks){.all.name = "answers"};
    for (int64_t i = 0; i < q->asked.n && q->asked.q[i].image < n && st == OK; i++) {
        const Question *x = &q->asked.q[i];
        double right = 0;
        QuizKind *k = kind_of(m, x->human.type);
        /* after its kind: all marks then have the same kinds, in one order */
        if (!x->answer) continue;
        st = asked_accuracy(x, &right);
        m->all.asked++, m->all.right += right;
        if (k) k->asked++, k->right += right;
    }
    for (int64_t i = 0; i < n && i < q->set.NI && st == OK; i++)
        if (q->caption[i]) mark_caption(q, i, m);
    return st;
}
