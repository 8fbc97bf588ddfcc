/* ops_held: what is held in 16 bits and read as f32, against the same numbers held as f32: every bit. Cases of
 * test_ops.c (included there, once). */

static uint16_t *halves(int64_t n, DType t) {
    uint16_t *h = mem_new((size_t)n, sizeof *h);
    for (int64_t i = 0; i < n; i++) {
        float x = (2 * rng_unit(philox((uint32_t)i, 1, 2, 3, 4, 5).v[0]) - 1) * (i % 7 ? 1.0f : 1e-6f);
        dtype_from_f32(h + i, t, &x, 1);                     /* every seventh: f16's subnormals */
    }
    return h;
}

static float *widened_halves(const uint16_t *h, DType t, int64_t n) {
    float *x = mem_new((size_t)n, sizeof *x), *y = mem_new((size_t)n, sizeof *y);
    dtype_to_f32(x, h, t, (size_t)n);
    K->cast(y, DT_F32, h, t, n);
    assert_memory_equal(x, y, (size_t)n * sizeof *x);
    free(y);
    return x;
}

static void same_product(Gemm g, const void *held, DType t, const float *wide) {
    size_t n = (size_t)(g.m * g.ldc);
    float *a = mem_new((size_t)(g.m * g.lda), sizeof *a), *bias = mem_new((size_t)g.n, sizeof *bias);
    float *c[2] = {mem_new(n, sizeof(float)), mem_new(n, sizeof(float))};
    for (int64_t i = 0; i < g.m * g.lda; i++) a[i] = rng_unit(philox((uint32_t)i, 9, 9, 9, 9, 9).v[0]) - 0.4f;
    for (int64_t i = 0; i < g.n; i++) bias[i] = (float)(i % 13) * 0.1f;
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < n; i++) c[k][i] = (float)(i % 11);
        g.a = a, g.bias = g.add ? NULL : bias, g.c = c[k], g.b = k ? held : (const void *)wide;
        g.held = k ? t : (DType)0;
        assert_true(K->reads_held(&g));
        K->gemm(&g);
    }
    if (memcmp(c[0], c[1], n * sizeof(float))) fail_msg("%s: %lld rows, n %lld, k %lld: other bits", dtype_name(t),
                                                       (long long)g.m, (long long)g.n, (long long)g.k);
    free(c[0]), free(c[1]), free(a), free(bias);
}

static void same_lookup(const uint16_t *held, DType t, const float *wide) {
    enum { C = 37, N = 6 };
    static const int32_t ids[N] = {5, -1, 0, 99, -2, 7}, pos[N] = {0, 1, 2, 3, 4, 40};
    float rows[2 * C], y[2][N * C];
    for (int i = 0; i < 2 * C; i++) rows[i] = 0.3f * (float)(i % 17);
    for (int k = 0; k < 2; k++)
        K->lookup(&(Lookup){.N = N, .C = C, .scale = 1.5f, .word = k ? (const void *)held : wide, .rows = rows,
                            .pos = k ? (const void *)(held + C) : wide + C, .held = k ? t : (DType)0, .ids = ids,
                            .pos_id = pos, .y = y[k]});
    assert_memory_equal(y[0], y[1], sizeof y[0]);
}

static void held(void) {
    static const struct { int64_t n, k, pad; } shapes[] = {{1031, 133, 0}, {96, 1408, 3}, {1030, 128, 1}};
    static const int64_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 32};
    static const DType types[] = {DT_BF16, DT_F16};
    /* on a GPU products read what they are given */
    if (!K->reads_held) return;
    for (size_t i = 0; i < COUNT(types); i++)
        for (size_t s = 0; s < COUNT(shapes); s++) {
            int64_t n = shapes[s].n, k = shapes[s].k, ld = k + shapes[s].pad;
            uint16_t *h = halves(n * ld, types[i]);
            float *wide = widened_halves(h, types[i], n * ld);
            for (size_t r = 0; r < COUNT(rows); r++)
                same_product((Gemm){.m = rows[r], .n = n, .k = k, .lda = k, .ldb = ld, .ldc = n + 2, .ab = DT_F32,
                                    .ct = DT_F32, .tb = true, .add = r % 2}, h, types[i], wide);
            same_lookup(h, types[i], wide);
            free(wide), free(h);
        }
}
TEST(held)
