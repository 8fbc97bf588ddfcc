/* feed: captions of a batch's pictures become what a language model is given and shall say: all of a picture, or the
 * drawn one; split, a caption's words are in prompt and target, cut where the draw says, and never elsewhere in a
 * resumed run. */
#include <stdlib.h>
#include <string.h>

#include "tests/kit/check.h"
#include "tests/kit/set_fixture.h"
#include "train/feed.h"

typedef struct { Set *set; Tokenizer *tok; Speech speech; } Room;
static Room room;

static int setup(void **state) {
    static Fixture f;
    char path[128];
    LmDims t5 = {.family = LM_T5, .V = 1 << 20, .end = {1}, .nends = 1};
    if (fix_setup(state)) return 1;
    snprintf(path, sizeof path, "%s/set.h5", fix_dir);
    fix_init(&f, 0, 20, 1, DT_F32, false);
    Status st = fix_write(path, &f, 0);
    if (st == OK) st = set_open(&room.set, path);
    if (st == OK) st = tokenizer_open(&room.tok, "tests/golden/tokenizers/t5/tokenizer.json");
    if (st == OK) st = speech_open(&room.speech, &t5, room.tok, false);
    return st != OK;
}

static int teardown(void **state) {
    set_close(room.set);
    tokenizer_close(room.tok);
    return fix_teardown(state);
}

/* Images 3, 7 and 2 of the fixture have 3, 3 and 2 captions. */
static const int64_t images[] = {3, 7, 2}, drawn[] = {1, 0, 1};
static Batch batch(int64_t step) { return (Batch){.B = 3, .image = images, .caption = drawn, .step = step}; }

static char *decoded(const int32_t *ids, int32_t n) {
    char *text = NULL;
    assert_int_equal(tokenizer_decode(room.tok, ids, (size_t)n, &text, NULL), OK);
    return text;
}

static FeedSpec spec(bool all, bool split) {
    return (FeedSpec){.speech = &room.speech, .set = room.set, .prompt = "", .questions = "Question: {} Answer:", .all = all, .texts = all ? 5 : 1,
                      .max_words = 50, .split = split, .seed = 4};
}

static void texts_of_pictures(void **state) {
    (void)state;
    Feed f;
    ObjectiveBatch out;
    Batch b = batch(0);
    FeedSpec all = spec(true, false), one = spec(false, false);
    feed_open(&f, &all);
    assert_int_equal(feed_batch(&f, &b, &out), OK);
    assert_int_equal(out.nsaid, 8);
    const int rows[] = {0, 0, 0, 1, 1, 1, 2, 2};
    for (int i = 0; i < 8; i++) assert_int_equal(out.said[i].image, rows[i]);
    feed_close(&f);
    feed_open(&f, &one);
    assert_int_equal(feed_batch(&f, &b, &out), OK);
    assert_int_equal(out.nsaid, 3);
    char *text = decoded(out.said[1].ids + out.said[1].target, out.said[1].n - out.said[1].target);
    assert_string_equal(text, "the red car");                /* fixture: caption k of image n is word (n + k) % 6 */
    assert_int_equal(out.said[1].target, 1);                 /* an empty prompt: T5's end alone */
    free(text);
    feed_close(&f);
}

static void splits_at_a_word(void **state) {
    (void)state;
    Feed f, again;
    ObjectiveBatch out, same;
    FeedSpec s = spec(false, true);
    int seen = 0;
    feed_open(&f, &s);
    feed_open(&again, &s);
    for (int64_t step = 0; step < 20; step++) {
        Batch b = batch(step);
        assert_int_equal(feed_batch(&f, &b, &out), OK);
        assert_int_equal(feed_batch(&again, &b, &same), OK);
        const LmItem *it = &out.said[1];
        char *front = decoded(it->ids, it->target), *rest = decoded(it->ids + it->target, it->n - it->target);
        bool early = strcmp(front, "the") == 0 && strcmp(rest, "red car") == 0;
        bool late = strcmp(front, "the red") == 0 && strcmp(rest, "car") == 0;
        if (!early && !late) fail_msg("'%s', then '%s'", front, rest);
        seen |= early ? 1 : 2;
        assert_int_equal(it->target, same.said[1].target);
        free(front);
        free(rest);
    }
    assert_int_equal(seen, 3);                               /* both cuts are drawn */
    feed_close(&f);
    feed_close(&again);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(texts_of_pictures), cmocka_unit_test(splits_at_a_word)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
