/* cmd_plan: the command plan: what a run of these sizes takes, on 1 to 512 GPUs, before there is any data: memory,
 * arithmetic, bytes between ranks beside the reference's, and the time they cost.
 * Nothing is computed or read but a vocabulary. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "configs/commands.h"
#include "data/set.h"
#include "eval/setup.h"
#include "kernels/base/status.h"
#include "train/plan.h"
#include "train/recipe.h"
#include "train/run.h"

typedef struct {
    const Options *o;
    Dims d;
    TrainerSpec spec;
    Stage1Spec stage1;
    Plan plan, roomy;                   /* of the longest captions; keeping what could be made again */
    double flops, share;                /* of a step of mean captions; part of it that B negatives of one kind take */
    double negatives;                   /* bytes that B negatives of one kind take, in the longest captions */
    double rate;                        /* FLOP/s that a GPU is taken to keep up */
    int wire_bytes;
} Sizes;

static Status measure(const Sizes *s, int tokens, float itm, bool roomy, Plan *plan) {
    Backend b = *backend_null(strcmp(s->o->run.precision.name, "f32") == 0 ? DT_F32 : DT_BF16);
    TrainerSpec spec = s->spec;
    b.workspace = (size_t)64 << 20;                          /* what the CUDA backend asks for, about */
    spec.tokens = tokens < s->d.T ? tokens : s->d.T;
    spec.roomy = roomy;
    Stage1Spec stage1 = s->stage1;
    stage1.itm = itm;
    spec.spec = &stage1;
    return trainer_foresee(plan, &b, &spec);
}

/* Of the images that the configuration names, where they are there already; else the published ones, which is said. */
static void image_sizes(const Options *o, int64_t *P, int64_t *E) {
    Set *set = NULL;
    *P = o->model.image_tokens, *E = o->model.image_width;
    if (*P && *E) return;
    if (*o->data.train && set_open(&set, o->data.train) == OK) *P = set_P(set), *E = set_E(set);
    else if (*o->data.train)
        status_say("data.train=%s cannot be opened here: images of %lld tokens of %lld are taken for granted "
                   "(model.image_tokens, model.image_width)", o->data.train, (long long)(*P ? *P : 257),
                   (long long)(*E ? *E : 1408));
    err_clear();                                             /* no data yet is what plan is for */
    set_close(set);
    /* ViT-g's */
    *P = *P ? *P : 257, *E = *E ? *E : 1408;
}

static Status open_sizes(Sizes *s, const Options *o) {
    *s = (Sizes){.o = o, .rate = o->plan.tflops * 1e12,
                 .wire_bytes = strcmp(o->dist.wire.name, "bf16") == 0 ? 2 : 4};
    const char *vocab = o->model.vocab;
    int64_t P, E;
    int tokens = (int)o->plan.tokens;
    Tokenizer *tok = NULL;
    Plan mean, without, small;
    image_sizes(o, &P, &E);
    /* planned where there may be nothing yet: a vocabulary is no condition */
    Status st = *vocab && access(vocab, R_OK) == 0 ? tokenizer_open(&tok, vocab) : OK;
    if (st == OK) st = setup_dims(&s->d, o, tok, P, E);
    tokenizer_close(tok);
    if (st != OK) return st;
    s->spec = (TrainerSpec){.d = s->d, .features = DT_F16, .B = o->train.batch, .micro = (int)o->optim.accum,
                            .objective = &stage1_objective};
    recipe_stage1(&s->stage1, o);
    recipe_params(&s->spec.params, o);
    if (s->spec.B < 2 || s->spec.B % s->spec.micro)
        return err_set(ERR_USAGE,
                       "train.batch=%lld in optim.accum=%d pieces is no plan: at least 2 pairs, and a multiple",
                       (long long)s->spec.B, s->spec.micro);
    st = measure(s, s->d.T, s->stage1.itm, false, &s->plan);
    if (st == OK) st = measure(s, s->d.T, s->stage1.itm, true, &s->roomy);
    if (st == OK) st = measure(s, tokens, s->stage1.itm, false, &mean);
    /* what negatives take is the difference to a step without */
    if (st == OK) st = measure(s, tokens, 0, false, &without);
    if (st == OK) st = measure(s, s->d.T, 0, false, &small);
    if (st != OK) return st;
    s->negatives = s->stage1.itm > 0 ? (double)(s->plan.step - small.step) / 3 : 0;
    s->flops = mean.flops;
    s->share = s->stage1.itm > 0 ? (mean.flops - without.flops) / 3 / mean.flops
                                    : 0; /* true pairs, and two kinds of negatives */
    return st;
}

static void print_sizes(const Sizes *s) {
    const Dims *d = &s->d;
    const Plan *p = &s->plan;
    double B = (double)s->spec.B;
    char parts[PLAN_TEXT];
    status_say("model     %.1f M parameters: L %d, C %d, H %d, F %d, Q %d, Z %d, V %d; images of %d tokens of %d",
               (double)p->params / 1e6, d->L, d->C, d->H, d->F, d->Q, d->Z, d->V, d->P, d->E);
    status_say("step      %g pairs a GPU, %.1f GFLOP a pair (captions of %d word pieces), %.0f ms at %g TFLOP/s", B,
               s->flops / 1e9 / B, (int)s->o->plan.tokens, 1e3 * s->flops / s->rate, s->rate / 1e12);
    status_say("memory    %.2f GiB a GPU: %s, a step of the longest captions %.2f", plan_gib((double)plan_bytes(p)),
               plan_text(p, parts), plan_gib((double)p->step));
    status_say("          with %.2f GiB free, %.2f of them are taken to keep the feed-forward nets' middle rows",
               /* a quarter more: trainer.c leaves as much to others */
               1.25 * plan_gib((double)plan_bytes(&s->roomy)), plan_gib((double)(s->roomy.step - p->step)));
    status_say("          with dist.zero=true the %.2f of moments are shared out among the GPUs",
               plan_gib(8.0 * (double)p->params)); /* two moments of four bytes */
}

/* Every pair brings its picture's rows: what has to come from the disk while GPUs compute at that speed. */
static void print_disk(const Sizes *s) {
    double row = 2.0 * s->d.P * s->d.E, rate = row * (double)s->spec.B / (s->flops / s->rate);
    status_say("disk      %.0f kB a picture in f16: %.2f GB/s a GPU, %.1f GB/s a machine of eight; half of it in e4m3 "
               "or i8", row / 1e3, rate / 1e9, 8 * rate / 1e9);
}

/* The largest batch, a multiple of 8, that so many bytes hold in one piece; 0: none. */
static Status largest_batch(const Sizes *s, double bytes, int64_t *batch) {
    Sizes at = *s;
    Plan plan;
    at.spec.micro = 1;
    *batch = 0;
    for (int64_t step = 1024; step >= 8; step /= 2) {        /* as with weights on a scale: eight plans, not hundreds */
        at.spec.B = *batch + step;
        Status st = measure(&at, s->d.T, s->stage1.itm, false, &plan);
        if (st != OK) return st;
        if ((double)plan_bytes(&plan) <= bytes) *batch = at.spec.B;
    }
    return OK;
}

/* A twentieth of a card is the driver's and the libraries'. */
static Status print_cards(const Sizes *s) {
    static const int cards[] = {24, 48, 80};
    int64_t most[3];
    Status st = OK;
    for (int i = 0; st == OK && i < 3; i++) st = largest_batch(s, cards[i] * 0.95e9, &most[i]);
    if (st == OK)
        status_say("          in one piece (predicted): %lld pairs on a card of %d GB, %lld of %d, %lld of %d; in "
                   "optim.accum pieces more", (long long)most[0], cards[0], (long long)most[1], cards[1],
                   (long long)most[2], cards[2]);
    return st;
}

static void print_row(const char *what, double ours, double reference) {
    status_say("  %-34s %12.4g MB %12.4g MB", what, ours / 1e6, reference / 1e6);
}

static void print_wire(const Sizes *s, int64_t W) {
    Wire a = wire_ours(&s->d, s->plan.params, s->spec.B, W, s->wire_bytes),
         b = wire_reference(&s->d, s->plan.params, s->spec.B, W);
    status_say("\nA GPU of %lld receives in a step, and sends as much:", (long long)W);
    status_say("  %-34s %15s %15s", "", "this program", "LAVIS");
    print_row("image tokens, and their gradient", a.image_tokens, b.image_tokens);
    print_row("features of the contrastive loss", a.features, b.features);
    print_row("texts and draws", a.texts, b.texts);
    print_row("gradients", a.gradients, b.gradients);
    print_row("together", wire_total(&a), wire_total(&b));
}

/* Stated speeds: what collectives reach, not what is printed on the box. */
static const Links LINKS[] = {
    {"NVLink, 400 Gb/s a GPU", 300e9, 45e9, 8},
    {"NVLink, 100 Gb/s a GPU", 300e9, 11e9, 8},
    {"PCIe, 100 Gb/s a machine", 20e9, 11e9 / 8, 8},
};
enum { NLINKS = sizeof LINKS / sizeof *LINKS };

/* Padded captions, the images' keys computed four times: 240.7 GFLOP a pair at full size where ours are 121.7. */
static const double LAVIS_ARITHMETIC = 240.7 / 121.7;

static void print_table(const Sizes *s) {
    int64_t B = s->spec.B;
    char line[200];
    int n = snprintf(line, sizeof line, "%5s %9s %8s", "", "", "");
    status_say("\nShare of a step that is computing; LAVIS at the same TFLOP/s, with its own arithmetic and traffic:");
    for (int k = 0; k < NLINKS; k++) n += snprintf(line + n, sizeof line - (size_t)n, "  %-24s", LINKS[k].name);
    status_say("%s", line);
    status_say("%5s %9s %8s  %-24s  %-24s  %-24s", "GPUs", "pairs", "memory", "here  LAVIS   pairs/s",
               "here  LAVIS   pairs/s", "here  LAVIS   pairs/s");
    for (int64_t W = 8; W <= 512; W *= 2) {
        Wire a = wire_ours(&s->d, s->plan.params, B, W, s->wire_bytes), b = wire_reference(&s->d, s->plan.params, B, W);
        double compute = s->flops / s->rate;
        double memory = (double)plan_bytes(&s->plan) + contrast_bytes(&s->d, B, W) - contrast_bytes(&s->d, B, 1) +
                        s->negatives * (1 + 64.0 / (double)B); /* draws of others may crowd here: stage1.h, itm_cap */
        n = snprintf(line, sizeof line, "%5lld %9lld %4.1f GiB", (long long)W, (long long)(B * W), plan_gib(memory));
        for (int k = 0; k < NLINKS; k++) {
            StepTime ours = step_time(&s->d, &a, &LINKS[k], B, W, compute, s->share),
                     theirs = step_time(&s->d, &b, &LINKS[k], B, W, compute * LAVIS_ARITHMETIC, 0);
            n += snprintf(line + n, sizeof line - (size_t)n, "  %3.0f %%  %3.0f %% %10.0f ", 100 * ours.efficiency,
                          100 * theirs.efficiency, (double)(B * W) / compute * ours.efficiency);
        }
        status_say("%s", line);
    }
    StepTime t;
    Wire a = wire_ours(&s->d, s->plan.params, B, 64, s->wire_bytes);
    t = step_time(&s->d, &a, &LINKS[0], B, 64, s->flops / s->rate, s->share);
    status_say("\n64 GPUs, %s, in ms: computing %.1f, larger similarities %.2f, waiting for the rank with most "
               "negatives %.1f, moving %.1f, latency %.2f.",
               LINKS[0].name, 1e3 * t.compute, 1e3 * t.similarity, 1e3 * t.waiting, 1e3 * t.moving, 1e3 * t.latency);
    status_say("Taken for granted: %g TFLOP/s a GPU (plan.tflops), collectives of %g GB/s a GPU over NVLink, %g over "
               "PCIe, and between machines",
               s->rate / 1e12, LINKS[0].node / 1e9, LINKS[2].node / 1e9);
    status_say("%g, %g and %.1f; gradients move beside the two thirds of a step that walk back, but for the %.0f %% "
               "that are finished last;",
               LINKS[0].net / 1e9, LINKS[1].net / 1e9, LINKS[2].net / 1e9, 100 * a.tail);
    status_say("gradients as %s; 15 us a hop of a device's operation, 8 us of a host's. Paper, not measured.",
               s->wire_bytes == 2 ? "bf16" : "f32");
}

static Status plan(const Options *o) {
    Sizes s;
    if (o->run.stage == 2) return plan_stage2(o);
    Status st = open_sizes(&s, o);
    if (st != OK) return st;
    print_sizes(&s);
    st = print_cards(&s);
    print_disk(&s);
    print_wire(&s, 8);
    print_table(&s);
    return st;
}

/* Sizes that the configuration does not give are those of the weights it starts from, where they are there. */
Status cmd_plan(const Options *asked) {
    Options *o = NULL;
    Status st = options_copy(&o, asked);
    if (st == OK && *o->train.init && access(o->train.init, R_OK) == 0) st = start_sizes(o, o->train.init);
    if (st == OK) st = plan(o);
    options_free(o);
    return st;
}
