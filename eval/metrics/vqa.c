/* vqa: see vqa.h. */
#include "eval/metrics/vqa.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/strmap.h"

enum { HUMANS = 64 };          /* answers to a question, at most */

struct VqaStore {
    Json *human, *ours;
    StrMap by_id;              /* question to its index */
    char **texts;              /* ids that the files write as numbers */
    size_t ntexts;
};

/* ---- one question ---- */

static bool all_alike(char *const *human, size_t n) {
    for (size_t i = 1; i < n; i++)
        if (strcmp(human[i], human[0])) return false;
    return true;
}

static double by_others(const char *answer, char *const *human, size_t n) {
    double sum = 0;
    int equal = 0;
    for (size_t i = 0; i < n; i++) equal += !strcmp(human[i], answer);
    /* each human in turn is left out */
    for (size_t i = 0; i < n; i++) sum += fmin(1, (double)(equal - !strcmp(human[i], answer)) / 3);
    return sum / (double)n;
}

static double by_count(const char *answer, char *const *human, size_t n) {
    int equal = 0;
    for (size_t i = 0; i < n; i++) equal += !strcmp(human[i], answer);
    return fmin(1, equal / 3.0);
}

static double by_one(const char *answer, char *const *human, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(human[i], answer)) return 1;
    return 0;
}

static Status normalise_all(char **own, char **human, const char *answer, const char *const *raw, size_t n,
                            enum VqaSteps steps) {
    Status st = vqa_normalise(own, answer, strlen(answer), steps);
    for (size_t i = 0; i < n && st == OK; i++) st = vqa_normalise(&human[i], raw[i], strlen(raw[i]), steps);
    return st;
}

static void drop(char **own, char **human, size_t n) {
    free(*own);
    *own = NULL;
    for (size_t i = 0; i < n; i++) free(human[i]), human[i] = NULL;
}

Status vqa_accuracy(double *accuracy, VqaRule rule, const char *answer, const char *const *human, size_t n) {
    char *own = NULL, *all[HUMANS] = {NULL};
    *accuracy = 0;
    /* the files give ten */
    if (!n || n > HUMANS) return err_set(ERR_FORMAT, "%zu human answers; 1 to %d can be", n, HUMANS);
    Status st = normalise_all(&own, all, answer, human, n, rule == VQA_RULE_EXACT ? VQA_ALL : VQA_STRIP);
    /* the official program touches answers only where people disagree */
    if (st == OK && rule == VQA_RULE_VQA && !all_alike(all, n)) {
        drop(&own, all, n);
        st = normalise_all(&own, all, answer, human, n, VQA_ALL);
    }
    if (st == OK)
        *accuracy = rule == VQA_RULE_VQA ? by_others(own, all, n)
            : rule == VQA_RULE_DIRECT ? by_count(own, all, n) : by_one(own, all, n);
    drop(&own, all, n);
    return st;
}

/* ---- reading ---- */

/* What a file holds, one entry at a time: a list, {"annotations": list}, or a map from ids to entries (GQA). */
typedef Status EntryFn(VqaScores *s, const char *id, const Json *entry, const char *path);

static const char *const id_names[] = {"question_id", "questionId", "qid", "id"};
enum { ID_NAMES = sizeof id_names / sizeof *id_names };

static bool names_question(const Json *entry) { return json_any(entry, ID_NAMES, id_names) != NULL; }

/* An id as text: 7 and "7" are one question. NULL with ERR_FORMAT set, or ERR_MEMORY. */
static const char *id_of(VqaScores *s, const Json *entry, const char *path, Status *st) {
    const Json *v = json_any(entry, ID_NAMES, id_names);
    int64_t number;
    const char *id = json_str(v, NULL);
    if (!id && json_int(v, &number)) {
        id = mem_keep(&s->store->texts, &s->store->ntexts, mem_format("%lld", (long long)number));
        if (!id) *st = ERR_MEMORY;
    } else if (!id) *st = err_set(ERR_FORMAT, "%s: an entry has no \"question_id\"", path);
    return id;
}

static Status each_entry(VqaScores *s, const Json *doc, const char *path, EntryFn *fn) {
    const Json *list = doc, *v;
    Status st = OK;
    /* json_parse_items made a list of one of a document */
    if (json_len(doc) == 1 && json_get(json_at(doc, 0), "annotations")) list = json_get(json_at(doc, 0), "annotations");
    else if (json_len(doc) == 1 && !names_question(json_at(doc, 0))) doc = json_at(doc, 0), list = NULL;
    for (size_t i = 0; i < json_len(list) && st == OK; i++) {
        const char *id = id_of(s, json_at(list, i), path, &st);
        if (st == OK) st = fn(s, id, json_at(list, i), path);
    }
    if (list) return st;
    for (const char *key = json_next(doc, NULL, &v); key && st == OK; key = json_next(doc, key, &v))
        st = json_type(v) == J_OBJECT ? fn(s, key, v, path)
            : err_set(ERR_FORMAT, "%s: neither a list of answers nor a map from question ids to them", path);
    return st;
}

/* The human answers of an entry, at most HUMANS. */
static size_t human_answers(const Json *entry, const char **to) {
    const Json *many = json_get(entry, "answers"), *one = json_get(entry, "answer");
    size_t n = 0;
    if (!many) many = json_get(entry, "direct_answers");     /* A-OKVQA's name for them */
    for (size_t i = 0; i < json_len(many) && n < HUMANS; i++) {
        const Json *a = json_at(many, i);
        const char *text = json_str(a, NULL);
        if (!text) text = json_str(json_get(a, "answer"), NULL);  /* VQAv2 wraps each one */
        if (text) to[n++] = text;
    }
    if (!n && json_str(one, NULL)) to[n++] = json_str(one, NULL);
    return n;
}

static Status add_human(VqaScores *s, const char *id, const Json *entry, const char *path) {
    const char *human[HUMANS];
    if (strmap_get(&s->store->by_id, id)) return err_set(ERR_FORMAT, "%s: question %s stands there twice", path, id);
    if (!human_answers(entry, human)) return err_set(ERR_FORMAT, "%s: question %s has no answer", path, id);
    if (mem_room(&s->question, (size_t)s->n, 1, sizeof *s->question) != OK) return ERR_MEMORY;
    s->question[s->n] = (struct VqaQuestion){id, NULL, 0};
    /* the first question tells for all: files do not mix */
    if (s->rule == VQA_RULE_FOUND)
        s->rule = json_get(entry, "direct_answers") ? VQA_RULE_DIRECT
            : json_len(json_get(entry, "answers")) > 1 ? VQA_RULE_VQA : VQA_RULE_EXACT;
    return strmap_put(&s->store->by_id, id, s->n++);
}

static Status add_own(VqaScores *s, const char *id, const Json *entry, const char *path) {
    static const char *const names[] = {"answer", "prediction", "direct_answer"};
    const char *answer = json_str(json_any(entry, sizeof names / sizeof *names, names), NULL);
    const int64_t *at = strmap_get(&s->store->by_id, id);
    if (!at) return err_set(ERR_FORMAT, "%s: question %s is none of those that have human answers", path, id);
    if (!answer) return err_set(ERR_FORMAT, "%s: question %s has no \"answer\"", path, id);
    if (s->question[*at].answer) return err_set(ERR_FORMAT, "%s: question %s is answered twice", path, id);
    s->question[*at].answer = answer;
    return OK;
}

/* ---- sums ---- */

static Status count_part(Tally *t, const char *name, double accuracy) {
    TallyKind *kind = name ? tally_kind(t, name, strlen(name)) : NULL;
    if (kind) tally_count(kind, accuracy);
    return kind || !name ? OK : ERR_MEMORY;
}

static const char *type_of(const Json *entry, const char *key, const char *gqa) {
    const char *type = json_str(json_get(entry, key), NULL);
    return type ? type : json_str(json_get(json_get(entry, "types"), gqa), NULL);
}

static Status judge(VqaScores *s, const char *id, const Json *entry, const char *path) {
    const char *human[HUMANS], *answer_type = type_of(entry, "answer_type", "semantic"),
        *question_type = type_of(entry, "question_type", "structural");
    struct VqaQuestion *q = &s->question[*strmap_get(&s->store->by_id, id)];
    size_t n = human_answers(entry, human);
    Status st = OK;
    (void)path;
    s->unanswered += !q->answer;                             /* which counts as wrong: leaving out is no way to score */
    if (q->answer) st = vqa_accuracy(&q->accuracy, s->rule, q->answer, human, n);
    s->accuracy += q->accuracy;
    if (st == OK) st = count_part(&s->answer_type, answer_type, q->accuracy);
    if (st == OK) st = count_part(&s->question_type, question_type, q->accuracy);
    return st;
}

Status vqa_score(VqaScores *s, const char *human_path, const char *our_path, VqaRule rule) {
    *s = (VqaScores){.rule = rule, .store = mem_new(1, sizeof *s->store)};
    Status st = s->store ? json_parse_items(&s->store->human, human_path) : ERR_MEMORY;
    if (st == OK) st = each_entry(s, s->store->human, human_path, add_human);
    if (st == OK && !s->n) st = err_set(ERR_FORMAT, "%s: no question in it", human_path);
    if (st == OK) st = json_parse_items(&s->store->ours, our_path);
    if (st == OK) st = each_entry(s, s->store->ours, our_path, add_own);
    if (st == OK && s->rule == VQA_RULE_FOUND) s->rule = VQA_RULE_EXACT;
    if (st == OK) st = each_entry(s, s->store->human, human_path, judge);
    if (st == OK) s->accuracy /= (double)s->n;
    else vqa_free(s);
    return st;
}

void vqa_free(VqaScores *s) {
    struct VqaStore *k = s->store;
    if (k) {
        json_free(k->human);
        json_free(k->ours);
        strmap_free(&k->by_id);
        mem_free_list(k->texts, k->ntexts);
        free(k);
    }
    free(s->question);
    tally_free(&s->answer_type);
    tally_free(&s->question_type);
    *s = (VqaScores){0};
}

/* ---- saying it ---- */

static void print_parts(const Tally *t, const char *title, FILE *f) {
    if (t->kinds) fprintf(f, "%s\n", title);
    for (int k = 0; k < t->kinds; k++)
        fprintf(f, "  %-30s %6.2f %%  of %lld\n", t->kind[k].name, tally_share(&t->kind[k]), (long long)t->kind[k].n);
}

void vqa_print(const VqaScores *s, FILE *f) {
    static const char *const rules[] = {"", "VQA accuracy", "exact answers", "direct answers"};
    fprintf(f, "%-32s %6.2f %%  of %lld questions\n", rules[s->rule], 100 * s->accuracy, (long long)s->n);
    if (s->unanswered) fprintf(f, "%lld questions have no answer and count as wrong\n", (long long)s->unanswered);
    print_parts(&s->answer_type, "by the answer's type", f);
    print_parts(&s->question_type, "by the question's type", f);
}

/* Two decimals of percent, as Python's round. */
static double rounded(double accuracy) { return rint(1e4 * accuracy) / 100; }

static void write_parts(JsonWriter *w, const char *key, const Tally *t) {
    jw_object(w, key);
    for (int k = 0; k < t->kinds; k++) jw_num(w, t->kind[k].name, rounded(t->kind[k].right / (double)t->kind[k].n));
    jw_end(w);
}

void vqa_json(JsonWriter *w, const void *scores) {
    const VqaScores *s = scores;
    jw_object(w, NULL);
    jw_object(w, "accuracy");
    jw_num(w, "overall", rounded(s->accuracy));
    write_parts(w, "perAnswerType", &s->answer_type);
    write_parts(w, "perQuestionType", &s->question_type);
    jw_end(w);
    jw_array(w, "questions");
    for (int64_t i = 0; i < s->n; i++) {
        const struct VqaQuestion *q = &s->question[i];
        jw_object(w, NULL);
        jw_str(w, "question_id", q->id);
        jw_str(w, "answer", q->answer);
        jw_num(w, "accuracy", rounded(q->accuracy));
        jw_end(w);
    }
    jw_end(w);
    jw_end(w);
}
