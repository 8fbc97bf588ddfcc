/* report_about: with what the run was made: machine, model, configuration, and what it said; see report.h. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "eval/report/html.h"
#include "eval/report/report.h"
#include "kernels/base/version.h"

static void fact(FILE *f, const char *name, const char *value) {
    html(f, "<tr><th>%s</th><td>%s</td></tr>\n", name, value);
}

/* The processor of the machine that makes this page, as Linux names it. */
static void processor(char *to, size_t n) {
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    int cores = 0;
    snprintf(to, n, "a processor without a name");           /* ARM's list has none */
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "processor", 9) == 0) cores++;
        if (cores == 1 && colon && strncmp(line, "model name", 10) == 0)  /* the first core speaks for all */
            snprintf(to, n, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    }
    if (f) fclose(f);
    size_t used = strlen(to);
    if (cores) snprintf(to + used, n - used, ", %d threads", cores);
}

static void machine_facts(const Report *r, FILE *f) {
    char s[400], t[32];
    const RunStart *first = r->run.log.starts ? &r->run.log.start[0] : NULL,
                   *last = first ? &r->run.log.start[r->run.log.starts - 1] : NULL;
    if (last && last->peak_flops > 0) {                      /* of the machine that trained, which may be another */
        snprintf(s, sizeof s, "%.4g GFLOP/s of one large product when the run began", last->peak_flops / 1e9);
        fact(f, "the run's device", s);
    }
    if (r->model) {
        snprintf(s, sizeof s, "%s in %s", r->e.use.b->name, dtype_name(r->e.use.b->elem));
        fact(f, "device of this page", s);
    }
    processor(s, sizeof s);
    fact(f, "machine of this page", s);
    double memory = runlog_last(&r->run.log, RL_memory);
    if (isfinite(memory)) {
        snprintf(s, sizeof s, "%.2f GiB on the device", memory / (1 << 30));
        fact(f, "memory", s);
    }
    if (first && first->time > 0) {
        time_t when = (time_t)first->time;
        struct tm tm;
        if (gmtime_r(&when, &tm) && strftime(s, sizeof s, "%Y-%m-%d %H:%M UTC", &tm)) fact(f, "begun", s);
        snprintf(s, sizeof s, "%s in %lld session%s", status_time(r->run.sums.wall_s, t, sizeof t),
                 (long long)r->run.log.starts, r->run.log.starts > 1 ? "s" : "");
        fact(f, "ran", s);
    }
    fact(f, "program", version_string());
}

static void model_facts(const Report *r, FILE *f) {
    const Dims *d = &r->e.use.d;
    char s[400], looks[80];
    if (!r->model) {
        fact(f, "model", r->no_model ? r->no_model : "not opened");
        return;
    }
    snprintf(looks, sizeof looks, d->X > 1 ? "layers 0, %d, %d ... look" : "all layers look", d->X, 2 * d->X);
    snprintf(s, sizeof s, "%.2f M", (double)r->e.use.model.params.count / 1e6);
    fact(f, "parameters", s);
    snprintf(s, sizeof s, "%d layers of width %d, %d heads, feed-forward %d; %d queries; %s at the image", d->L, d->C,
             d->H, d->F, d->Q, looks);
    fact(f, "Q-Former", s);
    snprintf(s, sizeof s, "%d tokens of %d from %s", d->P, d->E, set_encoder(r->e.use.set)->name);
    fact(f, "images", s);
    if (d->V) {                                              /* one that reads no words has none */
        snprintf(s, sizeof s, "%d word pieces of %s", d->V, r->e.use.vocab);
        fact(f, "vocabulary", s);
    }
    if (d->W) fact(f, "speaks to", r->e.use.speaker.folder);
    fact(f, "weights", r->e.use.path);
}

void report_section_about(Report *r, FILE *f) {
    html(f, "<div class=\"two\"><div class=\"card\"><table class=\"facts\"><tbody>\n");
    model_facts(r, f);
    html(f, "</tbody></table></div><div class=\"card\"><table class=\"facts\"><tbody>\n");
    machine_facts(r, f);
    html(f, "</tbody></table></div></div>\n");
    if (r->run.config) {
        html(f, "<details><summary>The run's whole configuration</summary><pre>");
        html_text(f, r->run.config);
        html(f, "</pre></details>\n");
    } else {
        html_missing(f, "The run's configuration is not known: its log does not begin with one.");
    }
    if (r->run.log.texts) {
        html(f, "<details><summary>What the run said (%lld)</summary><pre>", (long long)r->run.log.texts);
        for (int64_t i = 0; i < r->run.log.texts; i++)
            html(f, "step %lld: %s\n", (long long)r->run.log.text[i].step, r->run.log.text[i].text);
        html(f, "</pre></details>\n");
    }
}
