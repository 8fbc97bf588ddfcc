/* cmd_train: the commands pretrain and finetune: one run; they differ in their presets only (configs/). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "configs/commands.h"
#include "eval/use.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"
#include "kernels/dist/dist.h"
#include "train/run.h"

Status cmd_pretrain(const Options *o) {
    Run r;
    signals_ask();
    Status st = run_open(&r, o);
    if (st == OK && dist_rank() == 0) {
        if (o->run.dry_run) options_print(o, stdout);
        run_describe(&r, stdout);
        fflush(stdout);
    }
    if (st == OK && !o->run.dry_run) {
        if (r.step >= r.steps && dist_rank() == 0)
            status_say("%s has its %lld steps already; train.steps=N goes on, another out= starts anew",
                       o->run.out, (long long)r.steps);
        st = run_loop(&r);
    }
    run_close(&r);
    return st;
}

/* A model's sizes are those of the checkpoint it starts from, where the user did not say otherwise. */
static Status sizes_from(Options *o, const Options *asked, const char *path) {
    static const char *const keys[] = {"model.layers", "model.hidden", "model.heads", "model.ffn", "model.queries",
                                       "model.proj",
                                       "model.cross_every", "model.positions", "model.vocab", "data.max_tokens"};
    WeightSource *ws = NULL;
    Status st = ws_open(&ws, path, NULL, NULL);
    Options *old = NULL;
    if (st == OK) st = use_trained_with(&old, ws);
    for (size_t i = 0; st == OK && old && i < sizeof keys / sizeof *keys; i++) {
        char buf[64];
        if (options_is_set(asked, keys[i])) continue;
        st = options_set(o, keys[i], options_value(old, keys[i], buf), path);
    }
    options_free(old);
    ws_close(ws);
    return st;
}

Status cmd_finetune(const Options *asked) {
    char *text = NULL;
    Options *o = NULL;
    Status st = options_require(asked, "train.init");
    if (st == OK) st = options_text(asked, &text);
    if (st == OK) st = options_parse_text(&o, "finetune", text, strlen(text), "the configuration");
    if (st == OK && asked->run.dry_run) st = options_set(o, "dry_run", "true", NULL);
    if (st == OK) st = sizes_from(o, asked, asked->train.init);
    if (st == OK) st = cmd_pretrain(o);
    options_free(o);
    free(text);
    return st;
}
