/* lmfolder: see lmfolder.h. */
#include "tests/kit/lmfolder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/lm_config.h"
#include "data/format/safetensors.h"
#include "kernels/base/mem.h"
#include "kernels/model/lm_model.h"
#include "tests/kit/folder.h"

static const char config[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 640, \"hidden_size\": 24, \"num_hidden_layers\": 2, "
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 40, "
    "\"attention_dropout\": 0.1, \"max_position_embeddings\": " LMFOLDER_POSITIONS ", \"bos_token_id\": 1, "
    "\"eos_token_id\": 2, \"tie_word_embeddings\": true}";

static void copy_tokenizer(const char *name) {
    static char bytes[1 << 17];
    char path[200];
    FILE *f = fopen("tests/golden/tokenizers/llama2/tokenizer.json", "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    snprintf(path, sizeof path, "%s/tokenizer.json", name);
    folder_put(path, bytes, n);
}

static void put_tensor(StTensor *t, const Params *p, const ParamTensor *q, DType stored) {
    float *x = mem_new((size_t)q->n, sizeof *x);
    size_t bytes = (size_t)q->n * (size_t)dtype_size(stored);
    void *y = mem_new(bytes, 1);
    assert_true(x && y);
    assert_int_equal(params_values(p, q, x), OK);
    for (int64_t k = 0; k < q->n && q->ndim == 1; k++) x[k] += 0.3f * sinf((float)k);       /* gains of norms */
    dtype_from_f32(y, stored, x, (size_t)q->n);
    free(x);
    *t = (StTensor){.name = q->name, .dtype = stored, .ndim = q->ndim, .shape = {q->shape[0], q->shape[1]},
                    .nbytes = bytes, .data = y};
}

static void write_weights(const char *folder, const char *name, DType stored) {
    const Backend *b = backend_cpu(DT_F32);
    LmDims d;
    Lm m, sizes;
    Arena measure, run;
    assert_int_equal(lm_config_read(&d, folder_path(folder)), OK);
    arena_measure(&measure, "model");
    assert_int_equal(lm_open(&sizes, &d, backend_null(DT_F32), &measure, 8), OK);
    lm_close(&sizes);
    assert_int_equal(arena_open(&run, "model", b, measure.peak), OK);
    assert_int_equal(lm_open(&m, &d, b, &run, 8), OK);
    assert_int_equal(params_init(&m.params, 11, 0.3f), OK);
    StTensor *t = mem_new((size_t)m.params.n, sizeof *t);
    assert_non_null(t);
    for (int i = 0; i < m.params.n; i++) put_tensor(&t[i], &m.params, &m.params.tensor[i], stored);
    assert_int_equal(st_write(folder_path(name), t, (size_t)m.params.n, NULL, 0), OK);
    for (int i = 0; i < m.params.n; i++) free((void *)(uintptr_t)t[i].data);
    free(t);
    lm_close(&m);
    arena_close(&run, b);
}

void lmfolder_make(const char *name, DType stored) {
    char path[200], command[300];
    snprintf(command, sizeof command, "mkdir -p %s", name);
    assert_int_equal(folder_shell(command), 0);
    snprintf(path, sizeof path, "%s/config.json", name);
    folder_write(path, config);
    copy_tokenizer(name);
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    write_weights(name, path, stored);
}
