/* Searches over a Decoder against the same searches by hand: a model that is a table keeps its slots as a model keeps
 * its caches, so that a slot handed to the wrong beam,
 * a copy left out or a row at the wrong place gives other texts. */
#include "tests/kit/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/decode.h"
#include "tests/kit/table.h"

enum { V = 7, START = 6, END = 0, OTHER_END = 1, PREFIXES = 3, TEXTS = 7, SLOTS = 60, LONGEST = 9 };

static void table(int64_t prefix, const int32_t *tokens, int32_t len, float *logits) {
    table_logits((uint64_t)prefix, tokens, len, V, START, logits);
}

typedef struct {
    int32_t slot[SLOTS][LONGEST];
    int64_t first;
    float logits[SLOTS * V];
    bool starts;
} Table;

static Status prefix(void *self, const void *input, int64_t first, int n, const float **logits) {
    Table *t = self;
    assert_ptr_equal(input, t);
    t->first = first;
    memset(t->slot, 0x55, sizeof t->slot);           /* whatever is not written since is no past */
    for (int i = 0; i < n && !t->starts; i++) table(first + i, NULL, 0, t->logits + i * V);
    if (!t->starts) *logits = t->logits;
    return OK;
}

static Status step(void *self, int32_t at, const DecoderRow *rows, int n, const DecoderCopy *copies, int ncopies,
                   const float **logits) {
    Table *t = self;
    for (int i = 0; i < ncopies; i++)
        memcpy(t->slot[copies[i].to], t->slot[copies[i].from], (size_t)at * sizeof(int32_t));
    for (int i = 0; i < n; i++) {
        t->slot[rows[i].slot][at] = rows[i].token;
        table(t->first + rows[i].prefix, t->slot[rows[i].slot], at + 1, t->logits + i * V);
    }
    *logits = t->logits;
    return OK;
}

/* The same by hand: all tokens of each row, every time. */
static void by_hand(Search *s, int64_t text, bool starts) {
    float logits[SEARCH_MAX_BEAMS * V];
    search_begin(s, (uint32_t)text);
    while (s->rows) {
        for (int32_t r = 0; r < s->rows; r++)
            table(text, s->tokens + r * s->spec.max_length + !starts, s->len - !starts, logits + r * V);
        assert_int_equal(search_step(s, logits, V), OK);
    }
}

typedef struct { SearchSpec spec; bool starts; int seen, cut; } Expect;

static Status compare(void *ctx, int64_t i, const Search *got) {
    Expect *e = ctx;
    Search s;
    assert_int_equal(search_open(&s, &e->spec, V), OK);
    by_hand(&s, i, e->starts);
    assert_int_equal(s.nclosed, got->nclosed);
    for (int32_t k = 0; k < s.nclosed; k++) {
        const Hypothesis *a = &s.closed[k], *b = &got->closed[k];
        assert_int_equal(a->len, b->len);
        assert_int_equal(a->end, b->end);
        assert_memory_equal(a->tokens, b->tokens, (size_t)a->len * sizeof *a->tokens);
        assert_true(a->score == b->score);
        e->cut += !a->ended;
    }
    search_close(&s);
    e->seen++;
    return OK;
}

static void same_texts(SearchSpec spec, bool starts) {
    static Table t;
    Decode x;
    t.starts = starts;
    spec.start = starts ? START : -1;
    Decoder d = {&t, V, PREFIXES, decode_slots(&spec, PREFIXES), decode_length(&spec, starts), starts, prefix, step};
    Expect e = {spec, starts, 0, 0};
    assert_true(d.slots <= SLOTS);
    assert_int_equal(decode_open(&x, &d, &spec), OK);
    assert_int_equal(decode_texts(&x, &t, TEXTS, 0, compare, &e), OK);
    assert_int_equal(e.seen, TEXTS);
    decode_close(&x);
}

static const SearchSpec PLAIN = {.mode = SEARCH_GREEDY, .beams = 1, .max_length = LONGEST, .length_penalty = 1,
                                 .repetition_penalty = 1.2, .temperature = 1, .top_p = 1, .ends = {END}, .nends = 1};

static void slots_follow_beams(void **state) {
    (void)state;
    for (int starts = 0; starts < 2; starts++)
        for (int32_t beams = 1; beams <= 5; beams += 2)
            for (int rule = 0; rule < 2; rule++) {
                SearchSpec s = PLAIN;
                s.mode = SEARCH_BEAM, s.beams = beams, s.rule = rule ? SEARCH_V5 : SEARCH_V4;
                same_texts(s, starts);
                s.min_length = 5, s.early_stopping = true;
                same_texts(s, starts);
            }
    same_texts(PLAIN, true);
    same_texts(PLAIN, false);
}

static void samples(void **state) {
    (void)state;
    SearchSpec s = PLAIN;
    s.mode = SEARCH_SAMPLE, s.seed = 7;
    same_texts(s, true);
    same_texts(s, false);
}

/* Either end token ends a text, min_length bars both, and a text says which it was. */
static void several_ends(void **state) {
    (void)state;
    SearchSpec s = PLAIN;
    int found[2] = {0};
    s.ends[1] = OTHER_END, s.nends = 2;
    for (int mode = 0; mode < 2; mode++) {
        s.mode = mode ? SEARCH_BEAM : SEARCH_GREEDY, s.beams = mode ? 3 : 1;
        same_texts(s, false);
        for (int i = 0; i < 40; i++) {
            Search x;
            s.start = -1;
            s.min_length = i % 5;
            assert_int_equal(search_open(&x, &s, V), OK);
            by_hand(&x, i, false);
            assert_true(x.closed->len >= s.min_length);
            for (int32_t k = 1; k < x.closed->len; k++) assert_true(x.closed->tokens[k] > OTHER_END);
            if (x.closed->ended) found[x.closed->end]++;
            search_close(&x);
        }
    }
    assert_true(found[0] && found[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slots_follow_beams), cmocka_unit_test(samples), cmocka_unit_test(several_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
