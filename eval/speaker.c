/* speaker: see speaker.h. */
#include "eval/speaker.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

int32_t speaker_ids(const Speaker *s) {
    bool one = s->speech.family != LM_T5 && !s->speech.instruct;
    return s->speech.max_prompt + (one ? 0 : s->speech.max_target);
}

Status speaker_open(Speaker *s, const Backend *b, const char *folder, const SpeakerSpec *spec) {
    *s = (Speaker){.b = b};
    Status st = (s->folder = mem_strdup(folder)) ? lm_source_open(&s->src, folder) : ERR_MEMORY;
    /* LAVIS and the published BLIP-2 give Flan-T5 the exact GELU where it was trained with the tanh form; a whole
     * BLIP-2 says itself what it has */
    bool whole = st == OK && ws_find(s->src.ws, "language_model.shared.weight");
    if (s->src.d.family == LM_T5 && s->src.d.act == ACT_GELU_TANH && !whole) s->src.d.act = ACT_GELU;
    if (st == OK) st = tokenizer_open(&s->tok, folder);
    if (st == OK) st = speech_open(&s->speech, &s->src.d, s->tok, spec->instruct);
    if (st != OK) return err_context(st, "stage2.lm=%s", folder);
    if (spec->max_prompt) s->speech.max_prompt = spec->max_prompt;
    if (spec->max_target) s->speech.max_target = spec->max_target;
    /* visual rows and the begin token stand in front of all ids */
    int32_t room = s->src.d.N - spec->Q - 1, over = speaker_ids(s) - room;
    if (spec->fit && s->src.d.N && over > 0) {               /* targets first: what is asked counts more */
        bool two = speaker_ids(s) > s->speech.max_prompt;
        if (two) s->speech.max_target = s->speech.max_target - over > room / 2 ? s->speech.max_target - over : room / 2;
        if (speaker_ids(s) > room) s->speech.max_prompt = two ? room - s->speech.max_target : room;
    }
    s->lm.rows = spec->Q + speaker_ids(s) + 1;
    if (s->src.d.N && s->lm.rows > s->src.d.N)
        return err_set(ERR_USAGE, "stage2.lm=%s has %d positions, not the %d of texts of up to %d ids behind %d visual "
                       "rows: stage2.max_prompt and stage2.max_target make them shorter", folder, s->src.d.N,
                       s->lm.rows, speaker_ids(s), spec->Q);
    return OK;
}

Status speaker_measure(Speaker *s) {
    Arena a;
    int32_t rows = s->lm.rows;
    s->null = backend_measuring(s->b);
    arena_measure(&a, "language model");
    lm_close(&s->lm);
    Status st = lm_open(&s->lm, &s->src.d, &s->null, &a, rows);
    s->lm.rows = rows;
    s->bytes = a.peak;
    return st;
}

Status speaker_load(Speaker *s) {
    int32_t rows = s->lm.rows;
    Status st = speaker_measure(s);
    lm_close(&s->lm);
    if (st == OK) st = arena_open(&s->mem, "language model's", s->b, s->bytes);
    if (st == OK) st = lm_open(&s->lm, &s->src.d, s->b, &s->mem, rows);
    if (st == OK) st = lm_load(&s->lm, &s->src);
    ws_close(s->src.ws);                                     /* gigabytes of mapped files that nobody reads again */
    s->src.ws = NULL;
    return err_context(st, "stage2.lm=%s", s->folder);
}

void speaker_close(Speaker *s) {
    lm_close(&s->lm);
    if (s->b) arena_close(&s->mem, s->b);
    lm_source_close(&s->src);
    tokenizer_close(s->tok);
    free(s->folder);
    *s = (Speaker){0};
}
