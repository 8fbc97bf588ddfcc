/* test_plan: figures on paper against figures from elsewhere. That wire_ours is what a real step receives is checked
 * with the fixtures of several ranks (gold_ranks.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "train/plan.h"

static const Dims FULL = {.L = 12,
                          .C = 768,
                          .H = 12,
                          .F = 3072,
                          .Q = 32,
                          .E = 1408,
                          .P = 257,
                          .Z = 256,
                          .V = 30523,
                          .N = 512,
                          .X = 2,
                          .T = 32};
static const int64_t PARAMS = 186700000;

static void near(double got, double want, double tolerance) {
    if (!(got - want <= tolerance && want - got <= tolerance)) fail_msg("%.10g, wanted %.10g", got, want);
}

/* 8 GPUs of 128 pairs: 1024 images of 257 x 1408 in two bytes are 0.74 GB; a GPU has an eighth already, and the
 * gradient takes two such trips. */
static void reference_gathers_images(void **state) {
    (void)state;
    double all = 1024.0 * 257 * 1408 * 2;
    near(all, 0.741e9, 1e6);
    near(wire_reference(&FULL, PARAMS, 128, 8).image_tokens, 3 * all * 7 / 8, 1);
    near(wire_ours(&FULL, PARAMS, 128, 8, 4).image_tokens, 0, 0);
}

/* Projected features: 2.2 MB of images' queries and text a rank of 128 pairs in bf16's two bytes, twice that in f32. */
static void features_and_gradients(void **state) {
    (void)state;
    Wire w = wire_ours(&FULL, PARAMS, 128, 2, 4), half = wire_ours(&FULL, PARAMS, 128, 2, 2),
         one = wire_ours(&FULL, PARAMS, 128, 1, 4);
    near(w.features, 2 * 128.0 * 33 * 256 * 2, 1);
    near(w.gradients, 4 * (double)PARAMS, 1);  /* two halves of two trips */
    near(half.gradients, 2 * (double)PARAMS, 1);
    near(wire_total(&one), 0, 0);
}

/* Alone nothing is lost; more ranks, slower links and more bytes lose more. */
static void efficiency_falls_where_it_must(void **state) {
    (void)state;
    Links fast = {"fast", 300e9, 50e9, 8}, slow = {"slow", 300e9, 5e9, 8};
    double last = 1.001;
    for (int64_t W = 1; W <= 512; W *= 2) {
        Wire a = wire_ours(&FULL, PARAMS, 128, W, 4), b = wire_reference(&FULL, PARAMS, 128, W);
        StepTime ours = step_time(&FULL, &a, &fast, 128, W, 0.04, 0.2),
                 theirs = step_time(&FULL, &b, &fast, 128, W, 0.04, 0);
        StepTime slower = step_time(&FULL, &a, &slow, 128, W, 0.04, 0.2);
        if (W == 1) near(ours.efficiency, 1, 1e-12);
        assert_true(ours.efficiency < last && slower.efficiency <= ours.efficiency);
        if (W > 1) assert_true(theirs.efficiency < ours.efficiency);
        last = ours.efficiency;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_gathers_images),
        cmocka_unit_test(features_and_gradients),
        cmocka_unit_test(efficiency_falls_where_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
