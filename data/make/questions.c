/* questions: see questions.h. */
#include "data/make/questions.h"

#include <stdlib.h>
#include <string.h>

#include "data/text/settext.h"
#include "kernels/base/mem.h"

enum { KEY = 64, NAME = 200 };

static const char *text(const Json *o, const char *key) { return json_str(json_get(o, key), NULL); }

static Status put(Annotations *a, int64_t image, TextKind kind, const char *type, const char *prompt,
                  const char *target) {
    if (!target[strspn(target, " \t\r\n")]) {        /* no answer: dropped like a blank caption, and counted */
        a->blank++;
        a->store->file_texts++;
        return OK;
    }
    char *whole = settext_make(kind, type, prompt, target);
    Status st = whole ? annotation_caption(a, image, whole) : ERR_MEMORY;
    free(whole);
    return st;
}

/* "answers": texts, or objects with "answer"; else "answer". NULL: none, or no memory. */
static char *answers_of(const Json *e) {
    const Json *many = json_get(e, "answers");
    char *list = NULL;
    if (!many) many = json_get(e, "direct_answers");         /* A-OKVQA */
    for (size_t i = 0; i < json_len(many); i++) {
        const char *one = json_str(json_at(many, i), NULL);
        if (!one) one = text(json_at(many, i), "answer");
        if (one) list = settext_add(list, one);
    }
    return list ? list : text(e, "answer") ? settext_add(NULL, text(e, "answer")) : NULL;
}

static Status put_question(Annotations *a, int64_t image, const char *type, const char *question, const Json *e) {
    char *answers = answers_of(e);
    if (!answers) return err_set(ERR_FORMAT, "the question \"%.60s\" has no answer", question);
    Status st = put(a, image, TEXT_QUESTION, type, question, answers);
    free(answers);
    return st;
}

/* ---- VQAv2's two files ------------------------------------------------------------------------------------------- */

static bool is_list_of(const Json *list, const char *key) { return json_get(json_at(list, 0), key) != NULL; }

bool questions_is_asked(const Json *doc) {
    const Json *list = json_get(doc, "questions");
    return is_list_of(list, "question") && is_list_of(list, "question_id") && is_list_of(list, "image_id");
}

bool questions_is_answered(const Json *doc) {
    const Json *list = json_get(doc, "annotations");
    return is_list_of(list, "question_id") && (is_list_of(list, "answers") || is_list_of(list, "answer"));
}

static Status key_of(char key[KEY], const Json *e, const char *name) {
    int64_t number;
    const char *s = text(e, name);
    if (json_int(json_get(e, name), &number)) snprintf(key, KEY, "%lld", (long long)number);
    else if (s && strlen(s) < KEY) snprintf(key, KEY, "%s", s);
    else return err_set(ERR_FORMAT, "there is no \"%s\", a number or a short text", name);
    return OK;
}

/* Splits of COCO's years: train2014 in COCO_train2014_000000000042.jpg. Other sets name pictures by the id itself. */
static void picture_of(char name[NAME], const Json *doc, const char *id) {
    const char *subset = text(doc, "data_subtype");
    /* a year: sets of COCO's pictures say which of its folders */
    bool coco = subset && strstr(subset, "20") && strspn(id, "0123456789") == strlen(id);
    if (coco) snprintf(name, NAME, "COCO_%.80s_%012lld.jpg", subset, strtoll(id, NULL, 10));
    else snprintf(name, NAME, "%.150s.jpg", id);
}

static Status ask(Annotations *a, const char *id, const char *image, const char *question) {
    struct AnnotationStore *s = a->store;
    if (mem_room(&s->question, s->nquestions, 1, sizeof *s->question) != OK) return ERR_MEMORY;
    /* its answers could not tell which */
    if (strmap_get(&s->by_question, id)) return err_set(ERR_FORMAT, "question %s is asked twice", id);
    const char *own = annotation_keep(a, id), *picture = annotation_keep(a, image), *q = annotation_keep(a, question);
    if (!own || !picture || !q) return ERR_MEMORY;
    s->question[s->nquestions].image = picture;
    s->question[s->nquestions].text = q;
    return strmap_put(&s->by_question, own, (int64_t)s->nquestions++);
}

static Status asked(Annotations *a, const Json *e, void *doc) {
    char id[KEY], image[KEY], name[NAME];
    const char *question = text(e, "question");
    Status st = question ? key_of(id, e, "question_id") : err_set(ERR_FORMAT, "there is no \"question\"");
    if (st == OK) st = key_of(image, e, "image_id");
    if (st != OK) return st;
    picture_of(name, *(const Json **)doc, image);
    return ask(a, id, name, question);
}

Status questions_asked(Annotations *a, const Json *doc) { return annotation_each(a, doc, "questions", asked, &doc); }

static Status answer(Annotations *a, const Json *e, void *ctx) {
    (void)ctx;
    const struct AnnotationStore *s = a->store;
    char id[KEY];
    int64_t index;
    Status st = key_of(id, e, "question_id");
    const int64_t *at = st == OK ? strmap_get(&s->by_question, id) : NULL;
    if (st == OK && !at)
        st = err_set(ERR_FORMAT, "question %s is in no file so far; name the file of questions before that of answers",
                     id);
    if (st == OK) st = annotation_image(a, s->question[*at].image, NULL, &index);
    return st == OK ? put_question(a, index, text(e, "answer_type"), s->question[*at].text, e) : st;
}

Status questions_answered(Annotations *a, const Json *doc) {
    return annotation_each(a, doc, "annotations", answer, NULL);
}

/* ---- GQA --------------------------------------------------------------------------------------------------------- */

bool questions_is_gqa(const Json *doc) {
    const Json *v = NULL;
    return json_type(doc) == J_OBJECT && json_next(doc, NULL, &v) && text(v, "question") && json_get(v, "imageId");
}

Status questions_gqa(Annotations *a, const Json *doc) {
    const Json *v;
    Status st = OK;
    for (const char *id = json_next(doc, NULL, &v); id && st == OK; id = json_next(doc, id, &v)) {
        char image[KEY], name[NAME];
        int64_t index;
        const char *question = text(v, "question");
        st = question ? key_of(image, v, "imageId") : err_set(ERR_FORMAT, "there is no \"question\"");
        if (st == OK) picture_of(name, NULL, image);
        if (st == OK) st = annotation_image(a, name, NULL, &index);
        if (st == OK) st = put_question(a, index, text(json_get(v, "types"), "semantic"), question, v);
        err_context(st, "question %s", id);
    }
    return st;
}

/* ---- entries ----------------------------------------------------------------------------------------------------- */

/* LLaVA's {from, value}, or what chat models take: {role, content}. */
static const Json *turns_of(const Json *e) {
    const Json *list = json_get(e, "conversations"), *first;
    if (!list) list = json_get(e, "messages");
    first = json_at(list, 0);
    return json_get(first, "value") || json_get(first, "content") ? list : NULL;
}

bool questions_turn(const Json *turn, const Json **said) {
    const char *who = text(turn, "from");
    *said = json_get(turn, who ? "value" : "content");
    if (!who) who = text(turn, "role");
    const Json *parts = json_type(*said) == J_ARRAY ? *said : NULL;                /* [{"type": "text", "text": ...}] */
    for (size_t i = 0; i < json_len(parts); i++)
        if (json_get(json_at(parts, i), "text")) *said = json_get(json_at(parts, i), "text");
    return who && (!strcmp(who, "gpt") || !strcmp(who, "assistant"));
}

bool questions_in(const Annotations *a, const Json *e) {
    return text(e, "question") || (text(e, "text_output") && json_get(e, "text_input")) ||
           (annotation_columns(a)->questions && turns_of(e));
}

/* Without the place that LLaVA marks for the picture, and without what stands around it. */
static char *spoken(const char *value) {
    char *s = mem_strdup(value), *mark;
    if (!s) return NULL;
    /* the picture comes before the text here, wherever it was marked */
    while ((mark = strstr(s, "<image>"))) memmove(mark, mark + 7, strlen(mark + 7) + 1);
    size_t from = strspn(s, " \r\n\t"), n = strlen(s);
    while (n > from && strchr(" \r\n\t", s[n - 1])) n--;
    memmove(s, s + from, n - from);
    s[n - from] = 0;
    return s;
}

static Status conversation(Annotations *a, int64_t image, const Json *turns) {
    char *so_far = NULL;
    Status st = OK;
    for (size_t i = 0, system = 0; i < json_len(turns) && st == OK; i++) {
        const Json *turn = json_at(turns, i), *words;
        const char *who = text(turn, json_get(turn, "from") ? "from" : "role");
        if (!i && who && !strcmp(who, "system") && ++system) continue; /* how to behave, not what is seen */
        bool answers = questions_turn(turn, &words);
        const char *value = json_str(words, NULL);
        char *said = value ? spoken(value) : NULL;
        if (!value) st = err_set(ERR_FORMAT, "turn %zu has no \"value\"", i + 1);
        else if (!said) st = ERR_MEMORY;
        else if (answers != ((i - system) % 2 == 1))
            st = err_set(ERR_FORMAT, "turn %zu is not by %s: question and answer take turns", i + 1,
                         (i - system) % 2 ? "gpt" : "human");
        /* every answer is a target, with what was said before as its prompt */
        if (st == OK && answers) st = put(a, image, TEXT_CONVERSATION, NULL, so_far, said);
        if (st == OK && !(so_far = settext_add(so_far, said))) st = ERR_MEMORY;
        free(said);
    }
    free(so_far);
    return st;
}

Status questions_of(Annotations *a, int64_t image, const Json *e) {
    const char *question = text(e, "question"), *type = text(e, "answer_type"), *input = text(e, "text_input");
    if (question) return put_question(a, image, type ? type : text(e, "type"), question, e);
    const char *output = text(e, "text_output");
    if (output) return put(a, image, TEXT_INSTRUCTION, type, input ? input : "", output);
    return conversation(a, image, turns_of(e));
}

Status questions_field(Annotations *a, int64_t image, const char *question, const char *answer_field) {
    Json *doc = NULL;
    char *list = NULL;
    /* else a text that begins with a bracket */
    if (answer_field[0] == '[' && json_parse(&doc, answer_field, strlen(answer_field), "") == OK)
        for (size_t i = 0; i < json_len(doc); i++)
            if (json_str(json_at(doc, i), NULL)) list = settext_add(list, json_str(json_at(doc, i), NULL));
    if (!list) list = settext_add(NULL, answer_field);
    json_free(doc);
    Status st = list ? put(a, image, TEXT_QUESTION, NULL, question, list) : ERR_MEMORY;
    free(list);
    return st;
}
