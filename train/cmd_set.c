/* cmd_set: the commands that look after data sets: verify and repack. The work is in data/. */
#include <math.h>
#include <stdio.h>

#include "configs/commands.h"
#include "data/repack.h"
#include "data/verify.h"
#include "kernels/base/signals.h"
#include "kernels/base/status.h"

enum { MOST_SENTENCES = 50 };

typedef struct {
    const VerifyReport *r;
    int n;
    char first[512];           /* problem, among warnings */
} Said;

static void say(void *ctx, const char *sentence) {
    Said *s = ctx;
    if (!s->first[0] && s->r->problems) snprintf(s->first, sizeof s->first, "%s", sentence);
    /* a broken disk says the same of a million rows */
    if (++s->n <= MOST_SENTENCES) status_say("  %s", sentence);
}

Status cmd_verify(const Options *o) {
    signals_ask();
    Meter m = meter_start("verify", "rows", 0, 0);
    Listener listener = {meter_listen, &m};
    VerifyReport r = {0};
    Said said = {.r = &r};
    Status st = options_require(o, "in");
    if (st == OK) st = verify_set(o->run.in, say, &said, &listener, &r);
    status_end();
    if (st != OK) return st;
    if (said.n > MOST_SENTENCES) status_say("  ... and %d more", said.n - MOST_SENTENCES);
    status_say("%s: %lld shards, %lld images, %lld rows, %lld captions; %lld problems, %lld warnings", o->run.in,
               (long long)r.shards, (long long)r.images, (long long)r.rows, (long long)r.captions,
               (long long)r.problems, (long long)r.warnings);
    if (r.uncaptioned) status_say("  %lld images have no caption", (long long)r.uncaptioned);
    return r.problems
               ? err_set(ERR_FORMAT, "%s is not in order, %lld problem%s; first: %s", o->run.in,
                         (long long)r.problems, r.problems > 1 ? "s" : "", said.first)
               : OK;
}

Status cmd_repack(const Options *o) {
    static const int types[] = {-1, DT_F16, DT_BF16, DT_F32, DT_E4M3, DT_I8};     /* ORDER repack.dtype */
    signals_ask();
    Meter m = meter_start("repack", "images", 0, 0);
    Tokenizer *tok = NULL;
    RepackReport r = {0};
    Status st = options_require(o, "in");
    if (st == OK) st = options_require(o, "out");
    if (st == OK && o->model.vocab[0]) st = tokenizer_open(&tok, o->model.vocab);
    RepackSpec s = {
        .in = o->run.in, .out = o->run.out, .shard_images = o->repack.shard_images,
        .dtype = types[o->repack.dtype.i], .split = o->repack.split, .tok = tok,
        .max_tokens = (int)o->data.max_tokens, .max_words = (int)o->data.max_words,
        .prompt = o->data.prompt, .overwrite = o->run.overwrite, .listener = {meter_listen, &m},
    };
    if (st == OK && o->run.dry_run) st = options_print(o, stdout);
    else if (st == OK) st = repack(&s, &r);
    status_end();
    if (st == OK && r.shards)
        status_say("%s: %lld images, %lld captions in %lld file%s%s", s.out, (long long)r.images, (long long)r.captions,
                   (long long)r.shards, r.shards > 1 ? "s" : "", tok ? ", with word pieces" : "");
    if (st == OK && r.square > 0)
        status_say("  %s loses %.2f %% of the features (root of the mean square, relative)", o->repack.dtype.name,
                   100 * sqrt(r.error / r.square));
    tokenizer_close(tok);
    return st;
}
