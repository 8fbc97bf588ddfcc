/* search: see search.h. */
#include "eval/search.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "kernels/base/rng.h"

static const double NOT_YET = -1e9;      /* start of all beams but one: they are copies until they differ */

Status search_open(Search *s, const SearchSpec *spec, int32_t V) {
    *s = (Search){.spec = *spec, .V = V};
    size_t beams = (size_t)spec->beams, length = (size_t)spec->max_length;
    BUG_ON(spec->beams < 1 || spec->beams > SEARCH_MAX_BEAMS || (spec->mode != SEARCH_BEAM && beams != 1),
           "search: %d beams", spec->beams);
    BUG_ON(spec->max_length < 2 || V < 2 || spec->nends < 0 || spec->nends > SEARCH_MAX_ENDS,
           "search: length %d, %d end tokens, %d ids", spec->max_length, spec->nends, V);
    for (int32_t i = 0; i < spec->nends; i++)
        BUG_ON(spec->ends[i] < 0 || spec->ends[i] >= V, "search: end token %d of %d", spec->ends[i], V);
    BUG_ON(!(spec->repetition_penalty > 0) || (spec->mode == SEARCH_SAMPLE && !(spec->temperature > 0)),
           "search: penalty %g, temperature %g", spec->repetition_penalty, spec->temperature);
    /* transformers' number: ends cannot leave too few to go on with */
    s->room = spec->beams * (spec->nends > 1 ? 1 + spec->nends : 2);
    s->tokens = mem_new(beams, length * sizeof *s->tokens);
    s->spare = mem_new(beams, length * sizeof *s->spare);
    s->parent = mem_new(beams, sizeof *s->parent);
    s->sum = mem_new(beams, sizeof *s->sum);
    s->score = mem_new((size_t)V, sizeof *s->score);
    s->cand = mem_new(spec->mode == SEARCH_SAMPLE ? (size_t)V : (size_t)s->room, sizeof *s->cand);
    s->closed = mem_new(beams + 1, sizeof *s->closed);
    bool ok = s->tokens && s->spare && s->parent && s->sum && s->score && s->cand && s->closed;
    for (size_t i = 0; ok && i <= beams; i++) ok = (s->closed[i].tokens = mem_new(length, sizeof(int32_t))) != NULL;
    if (!ok) search_close(s);
    return ok ? OK : ERR_MEMORY;
}

void search_close(Search *s) {
    for (int32_t i = 0; s->closed && i <= s->spec.beams; i++) free(s->closed[i].tokens);
    mem_free(s->closed, s->tokens, s->spare, s->parent, s->sum, s->score, s->cand);
    *s = (Search){0};
}

void search_begin(Search *s, uint32_t image) {
    s->image = image;
    s->rows = s->len = 1;
    s->nclosed = 0;
    for (int32_t b = 0; b < s->spec.beams; b++) {
        s->tokens[b * s->spec.max_length] = s->spec.start;
        s->sum[b] = b ? NOT_YET : 0;
        s->parent[b] = 0;
    }
}

/* ---- scores of one row ------------------------------------------------------------------------------------------ */

/* log sum exp; the sum in double, its terms in f32: as exact as the logits are. */
static double log_sum_exp(const float *x, int32_t n) {
    float max = -INFINITY;
    for (int32_t i = 0; i < n; i++) max = x[i] > max ? x[i] : max;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += (double)expf(x[i] - max);
    return (double)max + log(sum);
}

/* What would end a run of tokens that is there already. Shorter texts than a run bar nothing. */
static void bar_repeats(Search *s, const int32_t *tokens) {
    int32_t n = s->spec.no_repeat, last = s->len - n + 1;    /* the run that the next token ends begins there */
    for (int32_t i = 0; n && i < last; i++) {
        int32_t id = tokens[i + n - 1];
        if (id >= 0 && id < s->V && !memcmp(tokens + i, tokens + last, (size_t)(n - 1) * sizeof *tokens))
            s->score[id] = -INFINITY;
    }
}

/* score[v] = logit - shift, then the repetition penalty once for each distinct token present,
 * then no end before min_length. */
static void next_scores(Search *s, const float *logits, double shift, const int32_t *tokens) {
    for (int32_t v = 0; v < s->V; v++) s->score[v] = (double)logits[v] - shift;
    double penalty = s->spec.repetition_penalty;
    for (int32_t i = 0; penalty != 1.0 && i < s->len; i++) {
        int32_t seen = 0;
        /* a token that came twice is punished once */
        while (tokens[seen] != tokens[i]) seen++;
        if (seen < i || tokens[i] < 0 || tokens[i] >= s->V) continue;
        double *x = &s->score[tokens[i]];
        /* either way it becomes less likely */
        *x = *x < 0 ? *x * penalty : *x / penalty;
    }
    bar_repeats(s, tokens);
    for (int32_t i = 0; s->len < s->spec.min_length && i < s->spec.nends; i++) s->score[s->spec.ends[i]] = -INFINITY;
}

/* ---- closed hypotheses ------------------------------------------------------------------------------------------ */

static void remove_closed(Search *s, int32_t at) {
    Hypothesis gone = s->closed[at];
    for (int32_t i = at; i + 1 < s->nclosed; i++) s->closed[i] = s->closed[i + 1];
    s->closed[--s->nclosed] = gone;      /* its tokens' memory goes back to the end of the list */
}

static int32_t worst_closed(const Search *s) {
    int32_t at = 0;
    for (int32_t i = 1; i < s->nclosed; i++)
        if (s->closed[i].score < s->closed[at].score) at = i;
    return at;
}

/* end -1: cut. The list stays in the order of closing; of more than `beams`,
 * the worst (of equals the oldest) leaves. */
static void close_hypothesis(Search *s, const int32_t *tokens, int32_t len, double sum, int32_t end) {
    bool cut = end < 0, fewer = cut && s->spec.rule == SEARCH_V5;
    double score = sum / pow(len - fewer, s->spec.length_penalty);
    if (s->nclosed >= s->spec.beams && !(score > s->closed[worst_closed(s)].score)) return;
    Hypothesis *h = &s->closed[s->nclosed++];
    h->len = len, h->sum = sum, h->score = score, h->ended = !cut, h->end = end;
    memcpy(h->tokens, tokens, (size_t)len * sizeof *tokens);
    if (s->nclosed > s->spec.beams) remove_closed(s, worst_closed(s));
}

/* Best first; of equals the one closed last. Insertion sort: there are as many as beams. */
static void finish(Search *s) {
    s->rows = 0;
    for (int32_t i = 1; i < s->nclosed; i++)
        for (int32_t k = i; k > 0 && s->closed[k].score >= s->closed[k - 1].score; k--) {
            Hypothesis h = s->closed[k];
            s->closed[k] = s->closed[k - 1];
            s->closed[k - 1] = h;
        }
}

/* ---- one token further ------------------------------------------------------------------------------------------ */

static void extend(Search *s, int32_t beam, const Candidate *c) {
    int32_t *to = s->spare + beam * s->spec.max_length;
    memcpy(to, s->tokens + c->row * s->spec.max_length, (size_t)s->len * sizeof *to);
    to[s->len] = c->token;
    s->parent[beam] = s->rows == 1 ? 0 : c->row;
    s->sum[beam] = c->score;
}

static void advance(Search *s) {
    int32_t *old = s->tokens;
    s->tokens = s->spare;
    s->spare = old;
    s->len++;
    s->rows = s->spec.beams;
}

/* The best continuations of all beams, best first: so many that the ended ones leave enough to go on with. */
static int32_t best_continuations(Search *s, const float *logits, int64_t ld) {
    int32_t n = 0, room = s->room;
    for (int32_t b = 0; b < s->spec.beams; b++) {
        const float *row = logits + (s->rows == 1 ? 0 : b) * ld;
        next_scores(s, row, log_sum_exp(row, s->V), s->tokens + b * s->spec.max_length);
        for (int32_t v = 0; v < s->V; v++) {
            double score = s->score[v] + s->sum[b];
            /* of equal scores the lower beam, the lower token stays in front: on every device the same search */
            if (score == -INFINITY || (n == room && score <= s->cand[n - 1].score)) continue;
            int32_t at = n < room ? n++ : n - 1;
            for (; at > 0 && score > s->cand[at - 1].score; at--) s->cand[at] = s->cand[at - 1];
            s->cand[at] = (Candidate){score, b, v};
        }
    }
    return n;
}

static bool is_end(const Search *s, int32_t token) {
    for (int32_t i = 0; i < s->spec.nends; i++)
        if (s->spec.ends[i] == token) return true;
    return false;
}

/* After the step that made `len` tokens of s->len: could anything running still be better than the worst closed one?
 * V4 asks it of the best continuation, ended or not, V5 of the best that runs. */
static bool beams_done(const Search *s, double best, double running) {
    if (s->nclosed < s->spec.beams) return false;
    if (s->spec.early_stopping) return true;
    double hope = s->spec.rule == SEARCH_V4 ? best / pow(s->len + 1, s->spec.length_penalty)
                                            : running / pow(s->len, s->spec.length_penalty);
    return s->closed[worst_closed(s)].score >= hope;
}

/* V4 closes what runs at max_length, V5 whatever is among the best `beams` continuations then. */
static void close_cut(Search *s, int32_t n) {
    int32_t beams = s->spec.beams, length = s->spec.max_length;
    for (int32_t b = 0; s->spec.rule == SEARCH_V4 && b < beams; b++)
        close_hypothesis(s, s->tokens + b * length, length, s->sum[b], -1);
    for (int32_t rank = 0, b = 0; s->spec.rule == SEARCH_V5 && rank < n && rank < beams; rank++)
        if (!is_end(s, s->cand[rank].token)) close_hypothesis(s, s->tokens + b * length, length, s->sum[b], -1), b++;
}

static void step_beams(Search *s, const float *logits, int64_t ld) {
    int32_t beams = s->spec.beams, n = best_continuations(s, logits, ld), next = 0;
    for (int32_t rank = 0; rank < n && next < beams; rank++) {
        const Candidate *c = &s->cand[rank];
        if (!is_end(s, c->token)) extend(s, next++, c);
        /* an end further down is worse than all that go on, and closes nothing */
        else if (rank < beams)
            close_hypothesis(s, s->tokens + c->row * s->spec.max_length, s->len, c->score, c->token);
    }
    BUG_ON(next < beams, "search: %d continuations for %d beams", next, beams);
    /* before advance: lengths are those that the candidates were scored at */
    bool done = beams_done(s, s->cand[0].score, s->sum[0]);
    advance(s);
    if ((!done || s->spec.rule == SEARCH_V5) && s->len == s->spec.max_length) close_cut(s, n);
    if (done || s->len == s->spec.max_length) finish(s);
}

static int32_t draw(Search *s) {
    int32_t n = search_filter(&s->spec, s->score, s->V, s->cand), i = 0;
    Philox r = philox(0, (uint32_t)s->len, s->image, SITE_SAMPLE, rng_key0(s->spec.seed), 0);
    /* 53 bits, as many as a double has: u < 1 */
    double u = (double)(((uint64_t)r.v[0] << 32 | r.v[1]) >> 11) * 0x1p-53;
    /* the last takes what rounding leaves over */
    for (; i < n - 1 && u >= s->cand[i].score; i++) u -= s->cand[i].score;
    return s->cand[i].token;
}

static void step_one(Search *s, const float *logits) {
    next_scores(s, logits, 0, s->tokens);
    int32_t token = 0;
    if (s->spec.mode == SEARCH_SAMPLE) token = draw(s);
    else
        for (int32_t v = 1; v < s->V; v++)
            if (s->score[v] > s->score[token]) token = v;
    /* of the model's own probability, not of what temperature and penalties made of it */
    double sum = s->sum[0] + (double)logits[token] - log_sum_exp(logits, s->V);
    bool end = is_end(s, token);
    if (end) close_hypothesis(s, s->tokens, s->len, sum, token);
    extend(s, 0, &(Candidate){sum, 0, token});
    advance(s);
    if (!end && s->len == s->spec.max_length) close_hypothesis(s, s->tokens, s->len, sum, -1);
    if (s->nclosed) finish(s);
}

Status search_step(Search *s, const float *logits, int64_t ld) {
    BUG_ON(!s->rows, "search: a step after the end");
    for (int32_t r = 0; r < s->rows; r++) {
        const float *x = logits + r * ld;
        bool broken = false;
        float max = -INFINITY;
        /* -inf is a ban and welcome; NaN or +inf is a broken model, and would win every comparison or lose it */
        for (int32_t v = 0; v < s->V; v++) broken |= isnan(x[v]), max = x[v] > max ? x[v] : max;
        if (broken || !isfinite(max))
            return err_set(ERR_NUMERIC, "the model's logits for token %d of image %u are not finite", s->len, s->image);
    }
    if (s->spec.mode == SEARCH_BEAM) step_beams(s, logits, ld);
    else step_one(s, logits);
    return OK;
}

/* ---- sampling --------------------------------------------------------------------------------------------------- */

static void sift_down(double *heap, int32_t n, double x) {      /* x replaces the smallest */
    int32_t i = 0;
    for (int32_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && heap[k + 1] < heap[k]) k++;
        if (heap[k] >= x) break;
        heap[i] = heap[k];
    }
    heap[i] = x;
}

/* The k-th largest score: a heap of the k largest so far, kept in the room of the candidates. */
static double kth_largest(const double *score, int32_t V, int32_t k, Candidate *room) {
    double *heap = (double *)(void *)room;
    for (int32_t i = 0; i < k; i++) heap[i] = -INFINITY;
    for (int32_t v = 0; v < V; v++)
        if (score[v] > heap[0]) sift_down(heap, k, score[v]);
    return heap[0];
}

static int likeliest_first(const void *a, const void *b) {
    const Candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

int32_t search_filter(const SearchSpec *spec, const double *score, int32_t V, Candidate *c) {
    bool some = spec->top_k > 0 && spec->top_k < V;
    double least = some ? kth_largest(score, V, spec->top_k, c) : -INFINITY, total = 0, before = 0;
    int32_t n = 0, kept = 0;
    for (int32_t v = 0; v < V; v++)      /* whatever equals the k-th stays too, as in transformers */
        if (score[v] >= least && score[v] > -INFINITY) c[n++] = (Candidate){score[v], 0, v};
    BUG_ON(!n, "search: no token can follow");
    qsort(c, (size_t)n, sizeof *c, likeliest_first);
    double max = c[0].score;
    /* temperature after the cut by k: it changes no order, and sums fewer terms */
    for (int32_t i = 0; i < n; i++) total += c[i].score = exp((c[i].score - max) / spec->temperature);
    for (; kept < n && (kept == 0 || spec->top_p >= 1 || before < spec->top_p * total); kept++) before += c[kept].score;
    for (int32_t i = 0; i < kept; i++) c[i].score /= before;
    return kept;
}
