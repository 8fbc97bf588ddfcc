/* gold_smollm2: a real model, SmolLM2-135M-Instruct: the folder that SMOLLM2=... names (tools/smollm2.py beside the
 * fixtures makes it from a package). Logits behind nine prompts, greedy continuations with cached keys, the loss of a
 * paragraph, losses and gradients behind soft rows. Tolerances as the README gives them, which are those of f32. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/mem.h"
#include "tests/gold_lm.h"

static const double LOGIT = 5e-4, LOSS = 1e-4, GRADIENT = 2e-4;

bool gold_is_smollm2(const char *dir, const char *name) {
    size_t n = strlen(dir);
    return n >= 7 && strcmp(dir + n - 7, "smollm2") == 0 && strcmp(name, "expected.json") == 0;
}

static int32_t *ids_of(const Json *list, int32_t *n) {
    *n = (int32_t)json_len(list);
    int32_t *x = mem_new((size_t)*n + 1, sizeof *x);
    BUG_ON(!x, "out of memory");
    for (int32_t i = 0; i < *n; i++) {
        int64_t v = 0;
        json_int(json_at(list, (size_t)i), &v);
        x[i] = (int32_t)v;
    }
    return x;
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

static void check_logits(Case *c, const char *name, const Json *j, const float *logits, int32_t V) {
    const Json *top = json_get(j, "top10");
    double most = -INFINITY, sum = 0, want;
    for (int32_t v = 0; v < V; v++) if (logits[v] > most) most = logits[v];
    for (int32_t v = 0; v < V; v++) sum += exp(logits[v] - most);
    gold_check(c, name, most + log(sum) - gold_num(j, "log_sum_exp"), LOGIT);
    for (size_t i = 0; i < json_len(top); i++) {
        int64_t v = 0;
        json_int(json_at(json_at(top, i), 0), &v);
        json_num(json_at(json_at(top, i), 1), &want);
        gold_check(c, name, logits[v] - want, LOGIT);
    }
}

static int32_t best_of(const float *logits, int32_t V) {
    int32_t best = 0;
    for (int32_t v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

static Status run_prompt(Case *c, GoldLm *g, const char *name, const Json *j) {
    int32_t n, k, V = g->m.d.V, *ids = ids_of(json_get(j, "ids"), &n), *want = ids_of(json_get(j, "greedy_ids"), &k);
    LmDecoder dec = {0};
    LmPrefix p = {.ids = ids, .n = n};
    const float *logits = NULL;
    Status st = lm_decoder_open(&dec, g->b, &g->m, &(LmDecoderSpec){1, 1, k ? k : 1, n});
    Decoder d = lm_decoder(&dec);
    if (st == OK) st = d.prefix(d.self, &(LmGiven){.prefixes = &p}, 0, 1, &logits);
    if (st == OK) check_logits(c, name, j, logits, V);
    for (int32_t at = 0; st == OK && at < k; at++) {
        DecoderRow row = {0, 0, best_of(logits, V)};
        gold_check(c, name, row.token == want[at] ? 0 : 1, 0.5);
        if (at + 1 < k) st = d.step(d.self, at, &row, 1, NULL, 0, &logits);
    }
    lm_decoder_close(&dec);
    free(ids);
    free(want);
    return st;
}

static Status run_paragraph(Case *c, GoldLm *g, const Json *j) {
    int32_t n, *ids = ids_of(json_get(j, "ids"), &n);
    LmItem item = {.ids = ids, .n = n, .target = 1};
    float nothing = 0;
    GoldTexts x = {.query = &nothing, .images = 1, .Cq = g->m.d.E, .items = &item, .n = 1, .shared = true};
    GoldSaid s = {0};
    Status st = gold_lm_run(g, &x, &s);
    if (st == OK) gold_check(c, "paragraph", s.loss - gold_num(j, "mean_nll"), LOSS);
    gold_lm_free(&s);
    free(ids);
    return st;
}

/* ---- soft rows --------------------------------------------------------------------------------------------------- */

static const int64_t *longs(const StFile *f, const char *name) {
    const StTensor *t = st_find(f, name);
    return t && t->dtype == DT_I64 ? t->data : NULL;
}

/* Rows of input_ids; labels begin with the soft rows'. */
static void io_items(const StFile *f, int64_t rows, int64_t width, int32_t Q, LmItem *items, int32_t *ids) {
    const int64_t *in = longs(f, "input_ids"), *labels = longs(f, "labels"), *mask = longs(f, "attention_mask");
    BUG_ON(!in || !labels || !mask, "io.safetensors has no input_ids, labels or attention_mask");
    for (int64_t r = 0; r < rows; r++) {
        LmItem *it = &items[r];
        *it = (LmItem){.image = (int32_t)r, .ids = ids + r * width, .target = -1};
        for (int64_t i = 0; i < width && mask[r * (width + Q) + Q + i]; i++) {
            ids[r * width + it->n] = (int32_t)in[r * width + i];
            if (it->target < 0 && labels[r * (width + Q) + Q + i] >= 0) it->target = it->n;
            it->n++;
        }
    }
}

static void check_io(Case *c, const Json *j, const StFile *f, const GoldTexts *x, const GoldSaid *s) {
    const Json *nll = json_get(j, "nll_float64");
    int64_t k = 0;
    gold_check(c, "io loss", s->loss - gold_num(j, "loss_float64"), LOSS);
    for (size_t r = 0; r < json_len(nll); r++)
        for (size_t i = 0; i < json_len(json_at(nll, r)); i++) {
            double want = 0;
            json_num(json_at(json_at(nll, r), i), &want);
            gold_check(c, "io nll", s->nll[k++] - want, LOGIT);
        }
    gold_tensor(c, "io gradient", s->dsoft, (int64_t)x->images * x->Q * x->Cq, st_find(f, "grad.soft.float64"),
                GRADIENT, 0);
}

static Status run_io(Case *c, GoldLm *g, const Json *j) {
    StFile *f = NULL;
    StTensor soft = {0};
    Status st = gold_open(c, NULL, "io.safetensors", &f);
    const StTensor *in = st == OK ? st_find(f, "input_ids") : NULL;
    float *rows = in ? gold_floats(f, "soft", &soft) : NULL;
    if (st == OK && (!rows || soft.ndim != 3)) st = err_set(ERR_FORMAT, "io.safetensors has no soft rows");
    if (st == OK) {
        int64_t n = in->shape[0], width = in->shape[1];
        LmItem *items = mem_new((size_t)n, sizeof *items);
        int32_t *ids = mem_new((size_t)(n * width), sizeof *ids);
        GoldSaid s = {0};
        GoldTexts x = {.query = rows, .images = (int32_t)n, .Q = (int32_t)soft.shape[1], .Cq = (int32_t)soft.shape[2],
                       .items = items, .n = (int)n, .shared = true};
        BUG_ON(!items || !ids, "out of memory");
        io_items(f, n, width, x.Q, items, ids);
        st = gold_lm_run(g, &x, &s);
        if (st == OK) check_io(c, j, f, &x, &s);
        gold_lm_free(&s);
        free(items);
        free(ids);
    }
    free(rows);
    st_close(f);
    return st;
}

Status gold_smollm2(Case *c) {
    const char *folder = getenv("SMOLLM2");
    const Json *prompts = json_get(c->json, "prompts"), *j;
    GoldLm g;
    if (!folder || !*folder)
        return err_set(ERR_MISSING, "SMOLLM2=FOLDER names the model that tools/smollm2.py makes");
    if (c->precision != DT_F32) return err_set(ERR_MISSING, "its tolerances are those of f32");
    Status st = gold_lm_open(&g, c->b, folder, NULL, 256);
    for (const char *name = json_next(prompts, NULL, &j); name && st == OK; name = json_next(prompts, name, &j))
        st = run_prompt(c, &g, name, j);
    if (st == OK) st = run_paragraph(c, &g, json_get(c->json, "paragraph"));
    if (st == OK) st = run_io(c, &g, json_get(c->json, "io"));
    gold_lm_close(&g);
    return st;
}
