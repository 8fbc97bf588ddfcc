/* mem: lists that grow keep what they hold, have the room that was asked for, move seldom; sizes that do not fit into a
 * number are refused. The sanitizers watch the room. */
#include "tests/kit/check.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"

static void a_list_grows(void **state) {
    (void)state;
    int32_t *list = NULL, *before = NULL;
    int moved = 0;
    for (int32_t n = 0; n < 100000; n++, before = list) {
        assert_int_equal(mem_room(&list, (size_t)n, 1, sizeof *list), OK);
        moved += list != before;
        list[n] = n;
    }
    for (int32_t n = 0; n < 100000; n++) assert_int_equal(list[n], n);
    assert_true(moved < 20);
    free(list);
}

/* Several at a time, from nothing, over a power of two, and none. */
static void room_is_what_was_asked_for(void **state) {
    (void)state;
    static const size_t steps[] = {1, 0, 16, 15, 1, 31, 1000, 0, 24, 4096};
    char *text = NULL;
    size_t n = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(mem_room(&text, n, steps[i], 1), OK);
        assert_true(malloc_usable_size(text) >= n + steps[i]);
        memset(text + n, (int)('a' + i), steps[i]);
        n += steps[i];
    }
    n = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        for (size_t k = 0; k < steps[i]; k++) assert_int_equal(text[n++], 'a' + i);
    free(text);
}

static void too_large_is_refused(void **state) {
    (void)state;
    void *list = NULL;
    assert_int_equal(mem_room(&list, SIZE_MAX - 3, 8, 1), ERR_MEMORY);
    assert_int_equal(mem_room(&list, 0, SIZE_MAX / 2, 16), ERR_MEMORY);
    assert_null(list);
    size_t n = 1;
    assert_false(mem_mul(SIZE_MAX / 2, 3, &n));
    assert_true(mem_mul(SIZE_MAX / 3, 3, &n) && n == SIZE_MAX / 3 * 3);
}

/* What is kept belongs to the list, what cannot be kept is gone; the leak checker sees whether all of it goes. */
static void what_is_owned_goes_at_once(void **state) {
    (void)state;
    char **list = NULL;
    size_t n = 0;
    for (int i = 0; i < 100; i++) assert_non_null(mem_keep(&list, &n, mem_format("text %d", i)));
    assert_null(mem_keep(&list, &n, NULL));
    assert_int_equal(n, 100);
    assert_string_equal(list[99], "text 99");
    void *a = mem_new(10, 10), *none = NULL;
    char *b = mem_strdup("b");
    mem_free(a, none, b);
    mem_free_list(list, n);
    mem_free_list(NULL, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_list_grows), cmocka_unit_test(room_is_what_was_asked_for),
                                       cmocka_unit_test(too_large_is_refused),
                                       cmocka_unit_test(what_is_owned_goes_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
