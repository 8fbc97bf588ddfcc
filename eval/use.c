/* use: see use.h. */
#include "eval/use.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoints/params_io.h"
#include "eval/pictureset.h"
#include "eval/setup.h"
#include "kernels/base/mem.h"
#include "kernels/base/status.h"

enum { HEAD_SIZE = 64 };               /* of BERT and of every published Q-Former */

/* What the user gave, else what the model was trained with, else the default. */
#define WHOSE(o, old, key) (options_is_set((o), #key) || !(old) ? (o)->key : (old)->key)

Status use_heads(const Origin *g, const Options *o, int C, int32_t *H) {
    bool asked = options_is_set(o, "model.heads");
    if (asked && g->heads && o->model.heads != g->heads)
        return err_set(ERR_USAGE, "model.heads=%lld, but %s has %lld heads: with others the same weights are another "
                       "function; leave model.heads out", (long long)o->model.heads, g->name, (long long)g->heads);
    int64_t heads = asked ? o->model.heads : g->heads ? g->heads : C % HEAD_SIZE == 0 ? C / HEAD_SIZE : 0;
    if (heads < 1 || C % heads)
        return err_set(ERR_USAGE, "%s does not say how many heads it has, and no tensor tells (its width is %d): write "
                       "model.heads", g->name, C);
    *H = (int32_t)heads;
    return OK;
}

static Status find_sizes(Use *u, const WeightSource *ws, const Origin *g) {
    const Options *old = g->trained;
    Status st = use_heads(g, u->o, u->d.C, &u->d.H);
    origin_habits(g, u->o, &u->d);
    if (st != OK || !u->d.V) return st;                      /* it reads no words: texts have no sizes */
    if (!u->tok) return options_require(u->o, "model.vocab");
    u->d.T = (int32_t)WHOSE(u->o, old, data.max_tokens);
    if (u->d.T > u->d.N) return err_set(ERR_USAGE, "data.max_tokens=%d, but %s has %d positions", u->d.T, ws_path(ws),
                                        u->d.N);
    /* ids would name other words: nothing would fail, and all of it would be nonsense */
    if (tokenizer_size(u->tok) != u->d.V)
        return err_set(ERR_USAGE, "%s has %d word pieces with [DEC], the model %d: it was trained with another "
                       "vocabulary (model.vocab)", u->vocab, tokenizer_size(u->tok), u->d.V);
    return setup_tokens(&u->d, u->tok);
}

/* Room for what is said; prompts are no longer than the positions that are left. */
static void fit_prompts(Use *u, int32_t max_new) {
    Speaker *s = &u->speaker;
    int32_t left = s->src.d.N - u->d.Q - max_new - 1;        /* N 0: no table of positions, and no end of them */
    if (s->src.d.N && s->speech.max_prompt > left) s->speech.max_prompt = left > 1 ? left : 1;
    int32_t rows = u->d.Q + speaker_ids(s) + 1 + max_new;
    s->lm.rows = s->src.d.N && rows > s->src.d.N ? s->src.d.N : rows;
}

/* The language model: as the user says, as the run was made with, or what lies in the same folder of Hugging Face's. */
static Status open_speaker(Use *u, const Origin *g) {
    const Options *o = u->o, *old = g->trained;
    const char *folder = WHOSE(o, old, stage2.lm);
    SpeakerSpec spec = {.instruct = u->d.V > 0, .max_prompt = (int32_t)WHOSE(o, old, stage2.max_prompt),
                        .max_target = (int32_t)WHOSE(o, old, stage2.max_target), .Q = u->d.Q,
                        .fit = true};
    if (!u->d.W) return OK;
    struct stat about;
    /* a whole BLIP-2 holds its language model in the same folder */
    if (!*folder && (stat(o->run.in, &about) || !S_ISDIR(about.st_mode)))
        return err_set(ERR_USAGE, "%s is of stage 2 (it projects into words of %d numbers) and does not say of which "
                       "language model; stage2.lm=FOLDER names it", u->path, u->d.W);
    Status st = speaker_open(&u->speaker, u->b, *folder ? folder : o->run.in, &spec);
    if (st == OK && u->speaker.src.d.E != u->d.W)
        st = err_set(ERR_USAGE, "%s speaks to words of %d numbers, those of %s have %d: it is another language model "
                     "(stage2.lm)", u->path, u->d.W, u->speaker.folder, u->speaker.src.d.E);
    if (st == OK) fit_prompts(u, (int32_t)o->stage2.max_new);
    return st == OK ? speaker_load(&u->speaker) : st;
}

static Status open_set(Use *u, const Origin *g) {
    const char *prepared = NULL;
    const char *path = u->o->data.test;
    u->split = u->o->data.test_split;
    if (!*path && g->trained) path = g->trained->data.train;  /* a set mostly holds its own test split */
    if (!*path) return options_require(u->o, "data.test");
    u->data = mem_strdup(path);
    bool pictures = pictureset_is(path);
    /* photos know no splits */
    if (pictures && !options_is_set(u->o, "data.test_split")) u->split = "all";
    Status st = !u->data ? ERR_MEMORY : pictures ? pictureset_open(&u->set, u->o, g, u->b, path)
                                                 : set_open(&u->set, u->data);
    if (st == OK) st = origin_features(g, u->set, &prepared);
    if (st != OK) return st;
    if (set_E(u->set) != u->d.E)
        return err_set(ERR_USAGE, "%s has image tokens of %lld numbers, the model was trained on %d: not the same "
                       "encoder", path, (long long)set_E(u->set), u->d.E);
    /* a warning only: another crop or filter makes features worse, not wrong */
    if (prepared)
        status_say("warning: images of %s were prepared otherwise (%s) than those %s was trained on (%s)", path,
                   set_encoder(u->set)->preprocessing, g->name, prepared);
    u->d.P = (int32_t)set_P(u->set);                         /* the weights know no number of image tokens */
    u->d.S = (int32_t)set_scales(u->set);
    return OK;
}

static Status open_params(Use *u, const WeightSource *ws) {
    LoadReport r;
    Status st = qformer_open_alone(&u->model, &u->mem, &u->d, u->b, &(ParamsSpec){0});
    if (st != OK) return st;
    st = load_weights(&u->model.params, ws, u->o->use.ema, &r);
    u->text_head = r.text_head;
    if (st == OK && r.needed)
        st = err_set(ERR_FORMAT, "%s lacks %d of %d tensors of a stage-1 Q-Former (the first: %s)", ws_path(ws),
                     r.missing, r.n, r.first);
    return st;
}

Status use_text_head(const Use *u) {
    if (u->text_head) return OK;
    return err_set(ERR_FORMAT, "%s has no head that writes captions (Qformer.cls.*), as those that transformers' "
                   "Blip2ForImageTextRetrieval publishes: it can be compared with texts, but not write them", u->path);
}

Status use_open(Use *u, const Options *o) {
    *u = (Use){.o = o, .step = -1};
    WeightSource *ws = NULL;
    Origin g = {0};
    Status st = options_require(o, "in");
    if (st == OK) st = ws_open(&ws, o->run.in, status_warn, NULL);
    if (st != OK) return st;
    st = origin_read(&g, ws);
    const Options *old = g.trained;
    u->short_text = g.short_text;
    snprintf(u->path, sizeof u->path, "%s", ws_path(ws));
    if (ws_checkpoint(ws)) u->step = ckpt_step(ws_checkpoint(ws));
    if (st == OK) st = setup_backend(&u->b, o);
    if (st == OK && !(u->prompt = mem_strdup(WHOSE(o, old, data.prompt)))) st = ERR_MEMORY;
    if (st == OK && !(u->lm_prompt = mem_strdup(WHOSE(o, old, stage2.prompt)))) st = ERR_MEMORY;
    if (st == OK) st = dims_of_weights(&u->d, ws);
    if (st == OK && u->d.V) st = origin_vocab(&g, o->model.vocab, &u->tok, &u->vocab);
    /* before the language model: its prompts stand behind Q rows */
    if (st == OK) st = find_sizes(u, ws, &g);
    if (st == OK) st = open_speaker(u, &g);
    /* a set of another encoder is refused before the weights are read */
    if (st == OK) st = open_set(u, &g);
    if (st == OK) st = open_params(u, ws);
    u->text = (TextSpec){u->tok, u->d.T, (int)WHOSE(o, old, data.max_words), u->prompt};
    origin_free(&g);
    ws_close(ws);
    if (st != OK) use_close(u);
    return st;
}

void use_close(Use *u) {
    qformer_close(&u->model);
    if (u->b) {
        arena_close(&u->mem, u->b);
        backend_close(u->b);
    }
    set_close(u->set);
    speaker_close(&u->speaker);
    tokenizer_close(u->tok);
    mem_free(u->vocab, u->lm_prompt, u->prompt, u->data);
    *u = (Use){0};
}
