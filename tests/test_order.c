/* order: every epoch is a permutation, and no permutation is liked more than another. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "data/order.h"

static void is_permutation(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 2, 3, 7, 127, 128, 129, 255, 256, 257, 1000, 4096, 5001, 65537};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        int64_t n = sizes[k];
        char *seen = calloc((size_t)n, 1);
        for (int64_t i = 0; i < n; i++) {
            int64_t x = order_at(42, 3, n, i);
            assert_in_range(x, 0, n - 1);
            assert_false(seen[x]);
            seen[x] = 1;
        }
        free(seen);
    }
}

/* Chi square of (place, element) over many epochs: the mean is (n-1)^2, its spread about sqrt(2) (n-1). */
static void is_even(void **state) {
    (void)state;
    enum { MOST = 9, EPOCHS = 4000 };
    for (int n = 2; n <= MOST; n++) {
        double count[MOST][MOST] = {{0}}, chi = 0, want = (double)EPOCHS / n;
        for (uint64_t e = 0; e < EPOCHS; e++)
            for (int i = 0; i < n; i++) count[i][order_at(1, e, n, i)]++;
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) chi += (count[i][j] - want) * (count[i][j] - want) / want;
        assert_true(chi < (n - 1) * (n - 1) + 5 * 1.5 * (n - 1) + 6);
    }
}

/* Neighbours do not stay neighbours, and seeds and epochs give unrelated orders. */
static void is_mixed(void **state) {
    (void)state;
    enum { N = 20000 };
    int neighbours = 0, fixed_epoch = 0, fixed_seed = 0, fixed = 0;
    for (int64_t i = 0; i + 1 < N; i++) {
        int64_t x = order_at(5, 0, N, i);
        neighbours += llabs(order_at(5, 0, N, i + 1) - x) == 1;
        fixed_epoch += order_at(5, 1, N, i) == x;
        fixed_seed += order_at(6, 0, N, i) == x;
        fixed += x == i;
    }
    assert_true(neighbours < 12 && fixed_epoch < 9 && fixed_seed < 9 && fixed < 9);      /* 2, 1, 1, 1 expected */
}

static void large(void **state) {
    (void)state;
    int64_t n = INT64_C(4000000000000000);
    for (int64_t i = 0; i < 1000; i++) assert_in_range(order_at(9, 9, n, i * 3999999999999 % n), 0, n - 1);
}

static void draws(void **state) {
    (void)state;
    int count[5] = {0}, same = 0;
    for (int64_t i = 0; i < 10000; i++) {
        int64_t x = order_draw(1, 2, i, 1, 5);
        assert_in_range(x, 0, 4);
        count[x]++;
        same += x == order_draw(1, 2, i, 2, 5);
        assert_int_equal(order_draw(1, 2, i, 1, 1), 0);
    }
    for (int k = 0; k < 5; k++) assert_in_range(count[k], 1800, 2200);
    assert_in_range(same, 1800, 2200);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_permutation), cmocka_unit_test(is_even), cmocka_unit_test(is_mixed),
            cmocka_unit_test(large),
        cmocka_unit_test(draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
