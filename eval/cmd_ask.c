/* cmd_ask: questions about pictures, answered by a stage-2 model: a file of them, those that the set holds itself
 * (then our answers are judged), or a conversation at the terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "configs/commands.h"
#include "data/text/chat.h"
#include "eval/asked.h"
#include "eval/metrics/tally.h"
#include "eval/pictureset.h"
#include "eval/result.h"
#include "eval/say.h"
#include "kernels/base/mem.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"

#define USUAL_PROMPT "256"              /* ids: several turns of a conversation */
enum { SHOWN = 8 };

typedef struct {
    const Options *o;
    Options *own;                       /* with room for longer prompts than training has */
    Use use;
    EvalSet set;
    Asked asked;
    Say say;
    const ChatForm *chat;               /* NULL: templates alone */
    EvalRows rows;
} Work;

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

/* {} is the question, {answer} what the step before said. */
static char *filled(const char *form, size_t n, const char *question, const char *answer) {
    char *text = mem_strdup(""), *more;
    for (const char *end = form + n; text && form < end; text = more) {
        bool q = end - form >= 2 && !memcmp(form, "{}", 2), a = end - form >= 8 && !memcmp(form, "{answer}", 8);
        size_t len = q ? 2 : a ? 8 : 1;
        more = mem_format("%s%.*s", text, q ? (int)strlen(question) : a ? (int)strlen(answer) : 1,
                          q ? question : a ? answer : form);
        free(text);
        form += len;
    }
    return text;
}

static int steps_of(const Options *o) { return *o->ask.steps ? (int)settext_templates(o->ask.steps) : 1; }

/* A question in the template of a step; "" is the question as it is. */
static char *asked_in(const Options *o, int step, const char *question, const char *answer) {
    const char *form = *o->ask.steps ? o->ask.steps : o->ask.template;
    for (; *o->ask.steps && step > 0; step--) form = strchr(form, '|') + 1;
    size_t n = *o->ask.steps ? strcspn(form, "|") : strlen(form);
    return n ? filled(form, n, question, answer) : mem_strdup(question);
}

static char *prompt_of(const Work *w, int step, const char *question, const char *answer) {
    char *text = asked_in(w->o, step, question, answer), *whole = text;
    if (text && w->chat) {
        whole = chat_prompt(w->chat, *w->o->ask.system ? w->o->ask.system : w->chat->usual, text);
        free(text);
    }
    return whole;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static Status choose_chat(Work *w) {
    const char *name = w->o->ask.chat.name;
    /* as the tokenizer's own template shows it */
    if (!strcmp(name, "auto")) name = tokenizer_chat(w->use.speaker.tok);
    w->chat = chat_find(name);
    return OK;
}

static void search_of(const Work *w, SearchSpec *s) {
    static const SearchMode modes[] = {SEARCH_BEAM, SEARCH_GREEDY, SEARCH_SAMPLE};         /* ORDER ask.mode */
    const Options *o = w->o;
    *s = (SearchSpec){.mode = modes[o->ask.mode.i], .beams = (int32_t)o->ask.beams,
                      .max_length = (int32_t)o->ask.max_new + 1, .min_length = (int32_t)o->ask.min_new + 1,
                      .length_penalty = o->ask.length_penalty, .repetition_penalty = o->ask.repetition_penalty,
                      .no_repeat = (int32_t)o->ask.no_repeat,
                      .temperature = o->ask.temperature, .top_p = o->ask.top_p, .top_k = (int32_t)o->ask.top_k,
                      .seed = (uint64_t)o->run.seed};
    if (s->mode == SEARCH_BEAM && s->beams == 1) s->mode = SEARCH_GREEDY;  /* as transformers has it */
    if (s->mode != SEARCH_BEAM) s->beams = 1;
    say_rules(s, &w->use.speaker.src.d, &w->use.speaker.speech);
}

static Status open_say(Work *w, DType features) {
    SearchSpec s;
    int images = w->o->use.batch ? (int)w->o->use.batch : w->use.b->unified ? 8 : 32;
    search_of(w, &s);
    Status st = say_open_use(&w->say, &w->use, &s, images, features);
    return st == OK ? evalrows_open(&w->rows, &w->set, w->use.b, images) : st;
}

static Status all_or_none(const Asked *a) {
    int64_t n = 0;
    for (int64_t i = 0; i < a->n; i++) n += a->q[i].nchoices > 0;
    if (!n || n == a->n) return OK;                          /* one list is answered one way: said, or chosen */
    return err_set(ERR_USAGE, "%lld of %lld questions have choices, the others none; ask.choices gives them some",
                   (long long)n, (long long)a->n);
}

static Status open_work(Work *w, const Options *o) {
    *w = (Work){.o = o};
    signals_ask();
    Status st = result_claim(o, "answers.json", NULL);
    if (st == OK) st = options_copy(&w->own, o);
    if (st == OK && !options_is_set(o, "stage2.max_prompt"))
        /* training needs less: one question. A conversation carries its turns along */
        st = options_set(w->own, "stage2.max_prompt", USUAL_PROMPT, "ask");
    if (st == OK) st = use_open(&w->use, w->own);
    if (st == OK && !w->use.d.W)
        st = err_set(ERR_USAGE, "%s is a stage-1 model, which answers nothing; 'pretrain stage=2' teaches one to speak",
                     w->use.path);
    if (st == OK) st = choose_chat(w);
    if (st == OK) st = evalset_open(&w->set, w->use.set, w->use.split, o->ask.limit, &w->use.text);
    if (st == OK)
        st = *o->ask.questions ? asked_read(&w->asked, &w->set, o->ask.questions) : asked_of_set(&w->asked, &w->set);
    if (st == OK && *o->ask.choices) st = asked_choices(&w->asked, o->ask.choices);
    if (st == OK) st = all_or_none(&w->asked);
    return st == OK ? open_say(w, set_dtype(w->use.set)) : st;
}

static void close_work(Work *w) {
    say_close(&w->say);
    evalrows_close(&w->rows);
    asked_free(&w->asked);
    evalset_close(&w->set);
    use_close(&w->use);
    options_free(w->own);
}

/* ---- a list of questions ----------------------------------------------------------------------------------------- */

/* The likeliest of the choices. */
static Status choose(Work *w, const SayItem *item, Question *q) {
    double *score = mem_new((size_t)q->nchoices, sizeof *score);
    Status st = score ? say_rank(&w->say, item, q->choices, q->nchoices, score) : ERR_MEMORY;
    int best = 0;
    /* of equal ones the first */
    for (int k = 1; st == OK && k < q->nchoices; k++) best = score[k] > score[best] ? k : best;
    mem_free(score, q->answer);
    q->answer = st == OK ? mem_strdup(q->choices[best]) : NULL;
    return st == OK && !q->answer ? ERR_MEMORY : st;
}

static Status choose_answers(Work *w, int n, const SaySheet *s, int64_t from) {
    Status st = say_look(&w->say, w->rows.rows, n);
    for (int64_t i = 0; i < s->n && st == OK; i++) st = choose(w, &s->item[i], &w->asked.q[from + i]);
    return st;
}

/* Questions [from, to) are about pictures [first, first + n). */
static Status answer_piece(Work *w, int step, int64_t first, int n, int64_t from, int64_t to) {
    SaySheet s = {0};
    bool last = step + 1 == steps_of(w->o);                  /* steps before are said freely */
    Status st = evalrows_read(&w->rows, first, n);
    for (int64_t i = from; i < to && st == OK; i++) {
        Question *q = &w->asked.q[i];
        /* the answer at hand is the step before's */
        char *prompt = prompt_of(w, step, q->text, q->answer ? q->answer : "");
        st = say_put(&s, (int32_t)(q->image - first), prompt, NULL, &q->answer);
    }
    if (st == OK)
        st = last && w->asked.q[from].nchoices ? choose_answers(w, n, &s, from)
                                               : say_answers(&w->say, w->rows.rows, n, &s, from);
    say_sheet_free(&s);
    return st;
}

static Status answer_all(Work *w) {
    const Asked *a = &w->asked;
    Meter m = meter_start("ask", "questions", a->n * steps_of(w->o), 0);
    Status st = OK;
    for (int step = 0; step < steps_of(w->o) && st == OK; step++)
        for (int64_t from = 0, to; from < a->n && st == OK; from = to) {
            int64_t first = a->q[from].image, last = first;
            /* as many as fall on the pictures that are looked at together */
            for (to = from; to < a->n && a->q[to].image < first + w->say.spec.images; to++) last = a->q[to].image;
            st = stop_requested() ? err_set(ERR_INTERRUPTED, "stopped on request")
                : answer_piece(w, step, first, (int)(last - first + 1), from, to);
            meter_at(&m, step * a->n + to);
        }
    meter_end(&m, a->n * steps_of(w->o));
    return st;
}

/* ---- judging and writing ----------------------------------------------------------------------------------------- */

/* Accuracy overall and by sort of question. */
static Status judge(const Work *w) {
    Tally t = {0};
    Status st = OK;
    for (int64_t i = 0; i < w->asked.n && st == OK; i++) {
        const Question *q = &w->asked.q[i];
        double accuracy = 0;
        TallyKind *kind = tally_kind(&t, q->human.type.s, q->human.type.n);
        st = kind ? asked_accuracy(q, &accuracy) : ERR_MEMORY;
        if (st == OK) tally_count(kind, accuracy), tally_count(&t.all, accuracy);
    }
    status_say("accuracy %.2f %% of %lld questions", tally_share(&t.all), (long long)w->asked.n);
    for (int k = 0; k < t.kinds && (t.kinds > 1 || *t.kind[0].name); k++)
        status_say("  %-24s %6.2f %%  of %lld", *t.kind[k].name ? t.kind[k].name : "(no sort)", tally_share(&t.kind[k]),
                   (long long)t.kind[k].n);
    tally_free(&t);
    return st;
}

static void write_answers(JsonWriter *w, const void *asked) {
    const Asked *a = asked;
    jw_array(w, NULL);
    for (int64_t i = 0; i < a->n; i++) {
        jw_object(w, NULL);
        if (a->q[i].number) jw_raw(w, "question_id", a->q[i].id);
        else jw_str(w, "question_id", a->q[i].id);
        jw_str(w, "answer", a->q[i].answer);
        jw_end(w);
    }
    jw_end(w);
}

static Status ask_list(Work *w) {
    Status st = answer_all(w);
    if (st != OK) return st;
    int64_t shown = w->asked.n < SHOWN ? w->asked.n : SHOWN;
    for (int64_t k = 0; k < shown; k++) {
        const Question *q = &w->asked.q[k * w->asked.n / shown];  /* at even distances */
        status_say("  %s: %s  %s", set_image_id(w->use.set, w->set.image[q->image]), q->text, q->answer);
    }
    if (w->asked.judged) st = judge(w);
    return st == OK ? result_write(w->o, "answers.json", write_answers, &w->asked) : st;
}

/* ---- a conversation ---------------------------------------------------------------------------------------------- */

/* Another picture in place of the set's. */
static Status take_picture(Work *w, const char *path) {
    WeightSource *ws = NULL;
    Origin g = {0};
    Set *set = NULL;
    if (access(path, R_OK)) return err_set(ERR_IO, "%s cannot be read", path);
    Status st = ws_open(&ws, w->o->run.in, NULL, NULL);      /* the weights say which encoder a picture needs */
    if (st == OK) st = origin_read(&g, ws);
    if (st == OK) st = pictureset_open(&set, w->own, &g, w->use.b, path);
    if (st == OK && (set_E(set) != w->use.d.E || set_P(set) != w->use.d.P || set_dtype(set) != set_dtype(w->use.set)))
        st = err_set(ERR_USAGE, "%s: its features are not of the form of those of %s", path, set_path(w->use.set));
    if (st == OK) {
        evalset_close(&w->set);
        set_close(w->use.set);
        w->use.set = set;
        st = evalset_open(&w->set, set, "all", 1, &w->use.text);
    } else set_close(set);                                   /* the picture before stays in sight */
    origin_free(&g);
    ws_close(ws);
    return st;
}

/* BLIP-2's demo: earlier turns in the template with their answers, then the question. */
static char *turn_prompt(const Work *w, const char *so_far, const char *question) {
    if (w->chat && *so_far) return chat_turn(w->chat, so_far, question);
    char *own = prompt_of(w, 0, question, ""), *text = own;
    if (own && *so_far) {
        text = mem_format("%s %s", so_far, own);
        free(own);
    }
    return text;
}

/* One turn; *so_far grows by it. */
static Status turn(Work *w, char **so_far, const char *question) {
    char *prompt = turn_prompt(w, *so_far, question), *answer = NULL;
    SaySheet s = {0};
    Status st = say_put(&s, 0, prompt, NULL, &answer);
    if (st == OK) st = evalrows_read(&w->rows, 0, 1);
    if (st == OK) st = say_answers(&w->say, w->rows.rows, 1, &s, 0);
    if (st == OK) {
        printf("%s\n", answer);
        fflush(stdout);
        free(*so_far);
        /* BLIP-2 ends an answer with a dot, a chat form by itself */
        *so_far = mem_format("%s %s%s", prompt, answer, w->chat ? "" : ".");
        if (!*so_far) st = ERR_MEMORY;
    }
    say_sheet_free(&s);
    free(answer);
    return st;
}

static void say_help(void) {
    puts("a question, or /image FILE for another picture, /reset to forget the turns so far, /quit");
}

/* A line that begins with a stroke; false ends the conversation. */
static bool command(Work *w, char **so_far, const char *line) {
    Status st = OK;
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) return false;
    if (!strncmp(line, "/image ", 7)) st = take_picture(w, line + 7);
    else if (strcmp(line, "/reset")) say_help();
    if (st != OK) fprintf(stderr, "%s\n", err_message());
    /* what was said was of another picture, or is to be forgotten */
    if (strcmp(line, "/help")) **so_far = 0;
    return true;
}

static Status converse(Work *w) {
    char *line = NULL, *so_far = mem_strdup("");
    size_t room = 0;
    ssize_t n;
    bool terminal = isatty(STDIN_FILENO);
    Status st = so_far ? OK : ERR_MEMORY;
    if (st == OK && terminal) printf("%s\n", set_image_id(w->use.set, w->set.image[0])), say_help();
    while (st == OK && !stop_requested()) {
        /* who pipes questions in wants answers alone */
        if (terminal) fputs("> ", stdout), fflush(stdout);
        if ((n = getline(&line, &room, stdin)) < 0) break;
        while (n && strchr(" \r\n\t", line[n - 1])) line[--n] = 0;
        if (!n) continue;
        if (line[0] == '/') {
            if (!command(w, &so_far, line)) break;
        } else st = turn(w, &so_far, line);
    }
    mem_free(line, so_far);
    return st;
}

Status cmd_ask(const Options *o) {
    Work w;
    Status st = open_work(&w, o);
    if (st == OK && o->run.dry_run) st = options_print(o, stdout);
    /* nobody has a question: the user asks */
    else if (st == OK) st = w.asked.n ? ask_list(&w) : converse(&w);
    close_work(&w);
    return st;
}
