/* plan_stage2: what stage 2 takes, on paper; see plan.h. */
#include "train/plan.h"

#include <string.h>

#include "checkpoints/lm_config.h"
#include "data/format/path.h"
#include "eval/setup.h"
#include "eval/speaker.h"
#include "kernels/base/status.h"
#include "train/recipe.h"

typedef struct {
    const Options *o;
    Backend b;                          /* does nothing, and asks for what a GPU would */
    LmDims ld;
    Lm lm;
    size_t lm_bytes;
    Dims d;
    Stage2Spec stage2;
    TrainerSpec spec;
    Plan plan, mean;                    /* of the longest texts; of mean ones */
} Sizes;

static double all_bytes(const Sizes *s) { return (double)plan_bytes(&s->plan) + (double)s->lm_bytes; }

static Status read_lm(Sizes *s) {
    const char *name = s->o->stage2.lm;
    Status st = options_require(s->o, "stage2.lm");
    if (st == OK && !lm_config_known(&s->ld, path_base(name))) {
        st = lm_config_read(&s->ld, name);
        if (st == ERR_IO)
            st = err_set(ERR_USAGE, "stage2.lm=%s is neither a folder with a config.json nor one of %s", name,
                         lm_config_names());
    }
    /* only weights tell: the larger of the two */
    if (st == OK && s->ld.head == LM_HEAD_ASK) s->ld.head = LM_HEAD_OWN;
    if (st == OK && s->ld.family == LM_LLAMA && s->ld.N > 8192) s->ld.N = 8192;      /* the rotation's tables */
    return st;
}

static Status measure_lm(Sizes *s, int32_t rows) {
    Arena a;
    arena_measure(&a, "language model");
    Status st = lm_open(&s->lm, &s->ld, &s->b, &a, rows);
    s->lm_bytes = a.peak;
    return st;
}

static int32_t asked_ids(const Options *o, bool prompt) {
    int64_t n = prompt ? o->stage2.max_prompt : o->stage2.max_target;
    return n ? (int32_t)n : 32;                              /* LAVIS's */
}

/* Of T5 a text is a prompt for the encoder and a target; of the others one text. */
static Status measure(Sizes *s, int32_t ids, Plan *plan) {
    s->stage2.ids = ids;
    return trainer_foresee(plan, &s->b, &s->spec);
}

static Status open_sizes(Sizes *s, const Options *o) {
    int64_t P = o->model.image_tokens, E = o->model.image_width;
    DType e = strcmp(o->run.precision.name, "f32") == 0 ? DT_F32 : DT_BF16;
    bool cpu = strcmp(o->run.device.name, "cpu") == 0;
    *s = (Sizes){.o = o, .b = cpu ? backend_measuring(backend_cpu(e)) : *backend_null(e)};
    if (!cpu) s->b.workspace = (size_t)64 << 20;             /* what the CUDA backend asks for, about */
    Status st = read_lm(s);
    bool t5 = s->ld.family == LM_T5;
    int32_t longest = asked_ids(o, true) + (t5 || o->stage2.instruct ? asked_ids(o, false) : 0);
    if (st == OK) st = setup_dims(&s->d, o, NULL, P ? P : 257, E ? E : 1408);
    if (st == OK) st = measure_lm(s, s->d.Q + longest + 1);
    if (st != OK) return st;
    s->d.Z = 0, s->d.W = s->ld.E;                            /* nothing is compared, so there are no heads */
    if (!o->stage2.instruct) s->d.V = s->d.N = 0;
    recipe_stage2(&s->stage2, o, &s->lm, longest);
    s->spec = (TrainerSpec){.d = s->d, .features = DT_F16, .B = o->train.batch, .micro = (int)o->optim.accum,
                            .objective = &stage2_objective, .spec = &s->stage2};
    recipe_params(&s->spec.params, o);
    if (s->spec.B % s->spec.micro)
        return err_set(ERR_USAGE, "optim.accum=%d does not divide train.batch=%lld", s->spec.micro,
                       (long long)s->spec.B);
    st = measure(s, longest, &s->plan);
    return st == OK ? measure(s, (int32_t)o->plan.tokens + 1, &s->mean) : st;
}

static void print_step(const Sizes *s) {
    const Options *o = s->o;
    double images = (double)s->spec.B, texts = s->stage2.texts, mean = (double)o->plan.tokens, seconds;
    bool t5 = s->ld.family == LM_T5;
    seconds = s->mean.flops / (o->plan.tflops * 1e12);
    status_say("step      %g pictures with %g texts each, %.1f GFLOP a text (of %g ids), %.0f ms at %g TFLOP/s: %.0f "
               "pairs/s", images, texts, s->mean.flops / 1e9 / (images * texts), mean, 1e3 * seconds, o->plan.tflops,
               images * texts / seconds);
    if (!t5)
        status_say("          rows of the language model a picture: %g; each text apart and padded to %d: %g",
                   s->d.Q + texts * mean, asked_ids(o, true), texts * (s->d.Q + asked_ids(o, true)));
}

/* The fewest pieces in which it fits. */
static Status print_fit(Sizes *s) {
    double room = s->o->plan.memory * (double)(1 << 30);
    int micro = s->spec.micro;
    if (all_bytes(s) <= room) {
        status_say("          it fits into %g GiB", s->o->plan.memory);
        return OK;
    }
    for (int k = micro + 1; k <= s->spec.B; k++) {
        if (s->spec.B % k) continue;                         /* pieces are of one size */
        s->spec.micro = k;
        Status st = measure(s, s->stage2.ids, &s->plan);
        if (st != OK) return st;
        if (all_bytes(s) > room) continue;
        status_say("          that is more than %g GiB; with optim.accum=%d it is %.2f", s->o->plan.memory, k,
                   plan_gib(all_bytes(s)));
        return OK;
    }
    status_say("          that is more than %g GiB, in however many pieces (optim.accum): a smaller language model, or "
               "precision=bf16", s->o->plan.memory);
    return OK;
}

Status plan_stage2(const Options *o) {
    Sizes s;
    Status st = open_sizes(&s, o);
    if (st == OK) {
        const Plan *p = &s.plan;
        int32_t longest = s.stage2.ids;
        char parts[PLAN_TEXT];
        status_say("speaks    to %s: %s, %.1f M numbers, frozen: %.2f GiB in %s", o->stage2.lm,
                   lm_family_name(s.ld.family), (double)s.lm.params.count / 1e6, plan_gib((double)s.lm_bytes),
                   dtype_name(s.lm.params.type));
        status_say("learns    %.1f M parameters: L %d, C %d, H %d, F %d, Q %d, projection to %d; images of %d tokens "
                   "of %d", (double)p->params / 1e6, s.d.L, s.d.C, s.d.H, s.d.F, s.d.Q, s.d.W, s.d.P, s.d.E);
        print_step(&s);
        status_say("memory    %.2f GiB a GPU: language model %.2f, %s, a step of the longest texts %.2f",
                   plan_gib(all_bytes(&s)), plan_gib((double)s.lm_bytes), plan_text(p, parts),
                   plan_gib((double)p->step));
        s.stage2.ids = longest;
        st = print_fit(&s);
        status_say("Paper, not measured; %g TFLOP/s a GPU is taken for granted (plan.tflops).", o->plan.tflops);
    }
    lm_close(&s.lm);
    return st;
}
