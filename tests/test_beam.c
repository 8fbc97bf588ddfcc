/* The searches against enumeration of every sequence of a tiny vocabulary, against worked cases, and against
 * themselves where one must equal another. The "model" is a table:
 * logits follow from a hash of the sequence so far. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/search.h"
#include "tests/kit/table.h"

enum { V = 5, START = 4, END = 0, LONGEST = 8 };

static const SearchSpec PLAIN = {.mode = SEARCH_GREEDY, .beams = 1, .max_length = LONGEST, .length_penalty = 1,
                                 .repetition_penalty = 1, .temperature = 1, .top_p = 1, .start = START, .ends = {END},
                                     .nends = 1};

static void table(uint64_t model, const int32_t *tokens, int32_t len, float *logits) {
    table_logits((uint64_t)model, tokens, len, V, START, logits);
}

static void run(Search *s, uint64_t model, uint32_t image) {
    float logits[SEARCH_MAX_BEAMS * V];
    search_begin(s, image);
    while (s->rows) {
        for (int32_t r = 0; r < s->rows; r++) table(model, s->tokens + r * s->spec.max_length, s->len, logits + r * V);
        assert_int_equal(search_step(s, logits, V), OK);
    }
}

static Search searched(SearchSpec spec, uint64_t model, uint32_t image) {
    Search s;
    assert_int_equal(search_open(&s, &spec, V), OK);
    run(&s, model, image);
    return s;
}

static void assert_same(const Hypothesis *a, const Hypothesis *b) {
    assert_int_equal(a->len, b->len);
    assert_int_equal(a->ended, b->ended);
    assert_memory_equal(a->tokens, b->tokens, (size_t)a->len * sizeof *a->tokens);
    assert_true(fabs(a->sum - b->sum) < 1e-9);
}

/* ---- enumeration ------------------------------------------------------------------------------------------------ */

typedef struct { int32_t tokens[LONGEST], len; double sum, score; } Sequence;
typedef struct { const SearchSpec *spec; uint64_t model; Sequence all[40]; int n; } Every;

static void log_softmax(const float *x, double *y) {
    double sum = 0;
    for (int v = 0; v < V; v++) sum += exp((double)x[v]);
    for (int v = 0; v < V; v++) y[v] = (double)x[v] - log(sum);
}

/* Every caption that can be: ended after each length, or cut at max_length. */
static void enumerate(Every *e, const int32_t *tokens, int32_t len, double sum) {
    float logits[V];
    double logp[V];
    const SearchSpec *spec = e->spec;
    if (len == spec->max_length || len == LONGEST) {
        Sequence *q = &e->all[e->n++];
        *q = (Sequence){.len = len, .sum = sum, .score = sum / pow(len, spec->length_penalty)};
        memcpy(q->tokens, tokens, (size_t)len * sizeof *tokens);
        return;
    }
    table(e->model, tokens, len, logits);
    log_softmax(logits, logp);
    for (int32_t v = 0; v < START; v++) {
        double p = logp[v];
        for (int32_t i = 0; i < len; i++)
            if (tokens[i] == v) {
                p *= spec->repetition_penalty;       /* log-probabilities are never positive */
                break;
            }
        if (v == END) {
            if (len < spec->min_length) continue;
            Sequence *q = &e->all[e->n++];
            *q = (Sequence){.len = len, .sum = sum + p, .score = (sum + p) / pow(len, spec->length_penalty)};
            memcpy(q->tokens, tokens, (size_t)len * sizeof *tokens);
        } else {
            int32_t longer[LONGEST + 1];
            memcpy(longer, tokens, (size_t)len * sizeof *tokens);
            longer[len] = v;
            enumerate(e, longer, len + 1, sum + p);
        }
    }
}

static int best_first(const void *a, const void *b) {
    const Sequence *x = a, *y = b;
    return (x->score < y->score) - (x->score > y->score);
}

/* What the search's float32 may cost a score: two units of a log-probability (expf, and its sum, 2^-22 near 4) for
 * each of four tokens, half as much again under the penalty of repetition, times the length under the penalty -1. */
static const double ROUNDING = 4 * 0x1p-22 * 1.5 * 4;

/* 64 beams hold all 27 captions that are cut at 4 tokens and the 13 that end before: nothing can get lost. */
static void enough_beams_find_the_best_of_all(void **state) {
    (void)state;
    const double lengths[] = {0, 0.5, 1, 2, -1}, repeats[] = {1, 1.5, 0.7};
    for (uint64_t model = 0; model < 20; model++)
        for (size_t i = 0; i < 5; i++)
            for (size_t k = 0; k < 3; k++) {
                SearchSpec spec = PLAIN;
                spec.mode = SEARCH_BEAM, spec.beams = 64, spec.max_length = 4;
                spec.length_penalty = lengths[i], spec.repetition_penalty = repeats[k];
                spec.min_length = (int32_t)(model % 4);
                Search s = searched(spec, model, 0);
                Every e = {.spec = &s.spec, .model = model};
                enumerate(&e, &(int32_t){START}, 1, 0);
                qsort(e.all, (size_t)e.n, sizeof *e.all, best_first);
                assert_int_equal(s.nclosed, 64);
                for (int h = 0; h < e.n; h++) {
                    assert_true(fabs(s.closed[h].score - e.all[h].score) < ROUNDING);
                    if (h && e.all[h - 1].score - e.all[h].score < 2 * ROUNDING) continue;
                    if (h + 1 < e.n && e.all[h].score - e.all[h + 1].score < 2 * ROUNDING) continue;
                    assert_int_equal(s.closed[h].len, e.all[h].len);
                    assert_memory_equal(s.closed[h].tokens, e.all[h].tokens, (size_t)e.all[h].len * sizeof(int32_t));
                }
                search_close(&s);
            }
}

/* ---- one search equals another ---------------------------------------------------------------------------------- */

static void one_beam_that_stops_early_is_greedy(void **state) {
    (void)state;
    for (uint64_t model = 0; model < 200; model++) {
        SearchSpec greedy = PLAIN, beam = PLAIN;
        beam.mode = SEARCH_BEAM, beam.early_stopping = true;
        greedy.min_length = beam.min_length = (int32_t)(model % 6);
        Search a = searched(greedy, model, 0), b = searched(beam, model, 0);
        assert_same(&a.closed[0], &b.closed[0]);
        search_close(&a);
        search_close(&b);
    }
}

static void sampling_of_the_likeliest_is_greedy(void **state) {
    (void)state;
    for (uint64_t model = 0; model < 50; model++) {
        SearchSpec one = PLAIN, small = PLAIN, cold = PLAIN;
        one.mode = small.mode = cold.mode = SEARCH_SAMPLE;
        one.top_k = 1, small.top_p = 0, cold.temperature = 1e-4;
        Search greedy = searched(PLAIN, model, 7), a = searched(one, model, 7), b = searched(small, model, 7),
               c = searched(cold, model, 7);
        assert_same(&greedy.closed[0], &a.closed[0]);
        assert_same(&greedy.closed[0], &b.closed[0]);
        assert_same(&greedy.closed[0], &c.closed[0]);
        search_close(&greedy);
        search_close(&a);
        search_close(&b);
        search_close(&c);
    }
}

static void lengths_are_kept(void **state) {
    (void)state;
    for (uint64_t model = 0; model < 100; model++)
        for (int32_t beams = 1; beams <= 4; beams++) {
            SearchSpec spec = PLAIN;
            spec.mode = SEARCH_BEAM, spec.beams = beams, spec.min_length = 5;
            Search s = searched(spec, model, 0);
            assert_int_equal(s.nclosed, beams);
            for (int32_t i = 0; i < s.nclosed; i++) {
                const Hypothesis *h = &s.closed[i];
                assert_in_range(h->len, 5, LONGEST);
                assert_true(h->ended || h->len == LONGEST);
                assert_true(i == 0 || s.closed[i - 1].score >= h->score);
                assert_true(fabs(h->score - h->sum / h->len) < 1e-12);
                for (int32_t t = 0; t < h->len; t++) assert_int_not_equal(h->tokens[t], END);
            }
            search_close(&s);
        }
}

/* ---- worked cases ----------------------------------------------------------------------------------------------- */

static Status give(Search *s, const double *p, int rows) {
    float logits[4 * V];
    for (int i = 0; i < rows * V; i++) logits[i] = p[i] > 0 ? (float)log(p[i]) : -INFINITY;
    return search_step(s, logits, V);
}

/* One beam, mean log-probability: the end is likeliest at once (log 0.5 over length 1), but the sum that just
 * closed, spread over length 2, would still be better; so the search goes on, and 0.3 * 0.9 over length 2 wins.
 * With a pure sum it stops. */
static void a_closed_caption_waits_for_what_could_beat_it(void **state) {
    (void)state;
    const double first[V] = {0.5, 0.3, 0.1, 0.1, 0}, second[V] = {0.9, 0.05, 0.05, 0, 0};
    SearchSpec spec = PLAIN;
    spec.mode = SEARCH_BEAM, spec.max_length = 3;
    Search s;
    assert_int_equal(search_open(&s, &spec, V), OK);
    search_begin(&s, 0);
    assert_int_equal(give(&s, first, 1), OK);
    assert_int_equal(s.nclosed, 1);
    assert_int_equal(s.rows, 1);
    assert_true(fabs(s.closed[0].score - log(0.5)) < 1e-6);
    assert_int_equal(search_last(&s, 0), 1);
    assert_int_equal(give(&s, second, 1), OK);
    assert_int_equal(s.rows, 0);
    assert_int_equal(s.nclosed, 1);
    assert_int_equal(s.closed[0].len, 2);
    assert_true(fabs(s.closed[0].score - log(0.3 * 0.9) / 2) < 1e-6);
    search_close(&s);

    spec.length_penalty = 0;
    assert_int_equal(search_open(&s, &spec, V), OK);
    search_begin(&s, 0);
    assert_int_equal(give(&s, first, 1), OK);
    assert_int_equal(s.rows, 0);
    assert_int_equal(s.closed[0].len, 1);
    search_close(&s);
}

/* Two beams: an end token of rank 2 closes nothing; ties go to the lower beam and token; parents are told. */
static void only_the_best_ranks_close(void **state) {
    (void)state;
    const double first[V] = {0.2, 0.4, 0.4, 0, 0};
    const double second[2 * V] = {0.1, 0.45, 0.45, 0, 0, 0.1, 0.45, 0.45, 0, 0};
    SearchSpec spec = PLAIN;
    spec.mode = SEARCH_BEAM, spec.beams = 2;
    Search s;
    assert_int_equal(search_open(&s, &spec, V), OK);
    search_begin(&s, 0);
    assert_int_equal(give(&s, first, 1), OK);
    assert_int_equal(s.nclosed, 0);
    assert_int_equal(search_last(&s, 0), 1);
    assert_int_equal(search_last(&s, 1), 2);
    assert_int_equal(give(&s, second, 2), OK);
    assert_int_equal(s.parent[0], 0);
    assert_int_equal(s.parent[1], 0);
    assert_int_equal(search_last(&s, 0), 1);
    assert_int_equal(search_last(&s, 1), 2);
    search_close(&s);
}

/* Raw logits in greedy search: positive ones are divided, negative ones multiplied, each token once. */
static void repetition_penalty_of_greedy(void **state) {
    (void)state;
    const float logits[V] = {-9, 2, 1.5f, -9, 4};
    SearchSpec spec = PLAIN;
    spec.repetition_penalty = 2;
    Search s;
    assert_int_equal(search_open(&s, &spec, V), OK);
    search_begin(&s, 0);
    const int32_t want[] = {1, 4, 4, 4}; /* 4/2 ties with 2: the lower token; then 4/2 > 1.5, and stays 2 */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(search_step(&s, logits, V), OK);
        assert_int_equal(search_last(&s, 0), want[i]);
    }
    search_close(&s);
}

static void numbers_that_are_none(void **state) {
    (void)state;
    const float bad[3][V] = {
        {1, NAN, 0, 0, 0}, {INFINITY, 0, 0, 0, 0}, {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY}};
    for (int i = 0; i < 3; i++)
        for (int mode = SEARCH_GREEDY; mode <= SEARCH_SAMPLE; mode++) {
            SearchSpec spec = PLAIN;
            Search s;
            spec.mode = (SearchMode)mode;
            assert_int_equal(search_open(&s, &spec, V), OK);
            search_begin(&s, 3);
            assert_int_equal(search_step(&s, bad[i], V), ERR_NUMERIC);
            assert_non_null(strstr(err_message(), "image 3"));
            search_close(&s);
        }
}

/* ---- sampling --------------------------------------------------------------------------------------------------- */

static void check_filter(double top_p, int32_t top_k, double temperature, int n, const int32_t *tokens,
                         const double *p) {
    const double probs[V] = {0.1, 0.2, 0.5, 0.2, 0};
    double score[V];
    Candidate c[V];
    SearchSpec spec = PLAIN;
    spec.top_p = top_p, spec.top_k = top_k, spec.temperature = temperature;
    for (int v = 0; v < V; v++) score[v] = log(probs[v]) + 3;
    assert_int_equal(search_filter(&spec, score, V, c), n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(c[i].token, tokens[i]);
        assert_true(fabs(c[i].score - p[i]) < 1e-12);
    }
}

static void filters(void **state) {
    (void)state;
    const int32_t order[] = {2, 1, 3, 0};
    check_filter(1, 0, 1, 4, order, (double[]){0.5, 0.2, 0.2, 0.1});
    check_filter(0.6, 0, 1, 2, order, (double[]){5.0 / 7, 2.0 / 7});         /* a tie: the lower token is taken */
    check_filter(0.05, 0, 1, 1, order, (double[]){1});
    check_filter(1, 2, 1, 3, order, (double[]){5.0 / 9, 2.0 / 9, 2.0 / 9});  /* what ties with the second stays */
    check_filter(1, 1, 1, 1, order, (double[]){1});
    check_filter(1, 99, 1, 4, order, (double[]){0.5, 0.2, 0.2, 0.1});
    check_filter(0.6, 2, 1, 2, order, (double[]){5.0 / 7, 2.0 / 7});         /* top_p after top_k: 5/9 < 0.6 */
    check_filter(1, 0, 0.5, 4, order, (double[]){25 / 34.0, 4 / 34.0, 4 / 34.0, 1 / 34.0});
    check_filter(0.6, 0, 2, 2, order, (double[]){sqrt(5) / (sqrt(5) + sqrt(2)), sqrt(2) / (sqrt(5) + sqrt(2))});
}

static void filters_of_a_large_vocabulary(void **state) {
    (void)state;
    enum { N = 5000 };
    static double score[N];
    static Candidate c[N];
    SearchSpec spec = PLAIN;
    for (int v = 0; v < N; v++) score[v] = (double)((v * 2357) % N) * 1e-3;  /* all different */
    for (int32_t k = 1; k < N; k = k * 3 + 1) {
        spec.top_k = k;
        assert_int_equal(search_filter(&spec, score, N, c), k);
        for (int32_t i = 0; i < k; i++) assert_int_equal((c[i].token * 2357) % N, N - 1 - i);
    }
}

/* Ten thousand first tokens against the distribution, within five deviations;
 * the same bits again for the same image. */
static void draws_follow_the_distribution(void **state) {
    (void)state;
    enum { DRAWS = 10000 };
    const double p[V] = {0, 0.2, 0.5, 0.25, 0.05};
    float logits[V];
    int count[V] = {0};
    SearchSpec spec = PLAIN;
    spec.mode = SEARCH_SAMPLE, spec.max_length = 2, spec.seed = 42;
    for (int v = 0; v < V; v++) logits[v] = p[v] > 0 ? (float)log(p[v]) : -INFINITY;
    Search s;
    assert_int_equal(search_open(&s, &spec, V), OK);
    for (uint32_t image = 0; image < DRAWS; image++) {
        search_begin(&s, image);
        assert_int_equal(search_step(&s, logits, V), OK);
        count[s.closed[0].tokens[1]]++;
    }
    for (int v = 0; v < V; v++) assert_true(fabs(count[v] - DRAWS * p[v]) <= 5 * sqrt(DRAWS * p[v] * (1 - p[v])));
    search_close(&s);

    spec.max_length = LONGEST;
    Search a = searched(spec, 1, 5), b = searched(spec, 1, 5);
    assert_same(&a.closed[0], &b.closed[0]);
    int same = 0;
    for (uint32_t image = 6; image < 16; image++) {
        run(&b, 1, image);
        same += b.closed[0].len == a.closed[0].len &&
                !memcmp(a.closed[0].tokens, b.closed[0].tokens, (size_t)a.closed[0].len * sizeof(int32_t));
    }
    assert_true(same < 5);
    search_close(&a);
    search_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enough_beams_find_the_best_of_all),
        cmocka_unit_test(one_beam_that_stops_early_is_greedy),
        cmocka_unit_test(sampling_of_the_likeliest_is_greedy),
        cmocka_unit_test(lengths_are_kept),
        cmocka_unit_test(a_closed_caption_waits_for_what_could_beat_it),
        cmocka_unit_test(only_the_best_ranks_close),
        cmocka_unit_test(repetition_penalty_of_greedy),
        cmocka_unit_test(numbers_that_are_none),
        cmocka_unit_test(filters),
        cmocka_unit_test(filters_of_a_large_vocabulary),
        cmocka_unit_test(draws_follow_the_distribution),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
