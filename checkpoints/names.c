/* names: see names.h. */
#include "checkpoints/names.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/err.h"

#define EMB "Qformer.bert.embeddings."
#define LAYER "Qformer.bert.encoder.layer."

/* A tensor belongs to the row whose prefix it has; the rest of its name stays. A row without a dot at its end is a
 * whole name; a row that ends in "layer." goes on with a number, a dot and a row of the parts below. */
static const struct { NameForm form; const char *theirs, *ours; } prefixes[] = {
    {NAMES_LAVIS,      "query_tokens",                     "query_tokens"},
    {NAMES_LAVIS,      "Qformer.",                         "Qformer."},
    {NAMES_LAVIS,      "ln_vision.",                       "ln_vision."},
    {NAMES_LAVIS,      "vision_proj.",                     "vision_proj."},
    {NAMES_LAVIS,      "text_proj.",                       "text_proj."},
    {NAMES_LAVIS,      "itm_head.",                        "itm_head."},
    {NAMES_LAVIS,      "temp",                             "temp"},
    {NAMES_LAVIS,      "language_projection.",             "language_projection."},
    {NAMES_LAVIS,      "opt_proj.",                        "language_projection."},
    {NAMES_LAVIS,      "t5_proj.",                         "language_projection."},
    {NAMES_LAVIS,      "llm_proj.",                        "language_projection."},

    {NAMES_HF,         "query_tokens",                     "query_tokens"},
    {NAMES_HF,         "embeddings.word_embeddings.",      EMB "word_embeddings."},
    {NAMES_HF,         "embeddings.position_embeddings.",  EMB "position_embeddings."},
    {NAMES_HF,         "qformer.layernorm.",               EMB "LayerNorm."},
    {NAMES_HF,         "qformer.embeddings.word_embeddings.",     EMB "word_embeddings."},
    {NAMES_HF,         "qformer.embeddings.position_embeddings.", EMB "position_embeddings."},
    {NAMES_HF,         "qformer.embeddings.layernorm.",    EMB "LayerNorm."},
    {NAMES_HF,         "language_projection.",             "language_projection."},
    {NAMES_HF,         "qformer.encoder.layer.",           LAYER},
    {NAMES_HF,         "vision_model.post_layernorm.",     "ln_vision."},
    {NAMES_HF,         "vision_projection.",               "vision_proj."},
    {NAMES_HF,         "text_projection.",                 "text_proj."},
    {NAMES_HF,         "itm_head.",                        "itm_head."},

    {NAMES_HF_QFORMER, "layernorm.",                       EMB "LayerNorm."},
    {NAMES_HF_QFORMER, "encoder.layer.",                   LAYER},

    {NAMES_BERT,       "bert.embeddings.word_embeddings.",     EMB "word_embeddings."},
    {NAMES_BERT,       "bert.embeddings.position_embeddings.", EMB "position_embeddings."},
    {NAMES_BERT,       "bert.embeddings.LayerNorm.",           EMB "LayerNorm."},
    {NAMES_BERT,       "bert.encoder.layer.",                  LAYER},
    {NAMES_BERT,       "cls.predictions.",                     "Qformer.cls.predictions."},

    {NAMES_BERT_BARE,  "embeddings.word_embeddings.",      EMB "word_embeddings."},
    {NAMES_BERT_BARE,  "embeddings.position_embeddings.",  EMB "position_embeddings."},
    {NAMES_BERT_BARE,  "embeddings.LayerNorm.",            EMB "LayerNorm."},
    {NAMES_BERT_BARE,  "encoder.layer.",                   LAYER},
};

/* Parts of a layer, in the two dialects. */
enum { DIALECT_HF = 1, DIALECT_BERT = 2 };
static const struct { int dialects; const char *theirs, *ours; } parts[] = {
    {DIALECT_HF,                "attention.attention.",      "attention.self."},
    {DIALECT_BERT,              "attention.self.",           "attention.self."},
    {DIALECT_HF | DIALECT_BERT, "attention.output.",         "attention.output."},
    {DIALECT_HF,                "crossattention.attention.", "crossattention.self."},
    {DIALECT_HF,                "crossattention.output.",    "crossattention.output."},
    {DIALECT_HF | DIALECT_BERT, "intermediate.",             "intermediate."},
    {DIALECT_HF | DIALECT_BERT, "output.",                   "output."},
    {DIALECT_HF,                "intermediate_query.",       "intermediate_query."},
    {DIALECT_HF,                "output_query.",             "output_query."},
};

enum { PREFIXES = sizeof prefixes / sizeof *prefixes, PARTS = sizeof parts / sizeof *parts };

/* The part of s behind prefix, NULL when s does not begin with it (or, for a whole name, is longer). */
static const char *behind(const char *s, const char *prefix) {
    size_t n = strlen(prefix);
    if (strncmp(s, prefix, n) != 0 || (n && prefix[n - 1] != '.' && s[n] != 0)) return NULL;
    return s + n;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), e = strlen(end);
    return n >= e && strcmp(s + n - e, end) == 0;
}

static bool put(char *buf, const char *a, const char *b, int nb, const char *c, const char *d) {
    int n = snprintf(buf, NAME_ROOM, "%s%.*s%s%s", a, nb, b, c, d);
    return n >= 0 && n < NAME_ROOM;
}

static bool translate(NameForm form, const char *name, char *buf, bool forward) {
    int dialect = form == NAMES_HF || form == NAMES_HF_QFORMER ? DIALECT_HF : DIALECT_BERT;
    for (size_t i = 0; i < PREFIXES; i++) {
        const char *from = forward ? prefixes[i].theirs : prefixes[i].ours,
                   *to = forward ? prefixes[i].ours : prefixes[i].theirs;
        /* the first row that fits: longer prefixes stand before shorter ones */
        const char *rest = prefixes[i].form == form ? behind(name, from) : NULL;
        if (!rest) continue;
        /* the rest of a name is the same everywhere */
        if (!ends_with(from, "layer.")) return put(buf, to, rest, (int)strlen(rest), "", "");
        size_t digits = strspn(rest, "0123456789");
        /* a number, and no longer than an int */
        if (digits == 0 || digits > 9 || rest[digits] != '.') return false;
        for (size_t k = 0; k < PARTS; k++) {
            const char *end = parts[k].dialects & dialect
                                  ? behind(rest + digits + 1, forward ? parts[k].theirs : parts[k].ours)
                                  : NULL;
            if (end) return put(buf, to, rest, (int)digits + 1, forward ? parts[k].ours : parts[k].theirs, end);
        }
        return false;
    }
    return false;
}

bool name_to_lavis(NameForm form, const char *name, char *buf) {
    static const char *const old[2][2] = {{".gamma", ".weight"}, {".beta", ".bias"}};
    if (!translate(form, name, buf, true)) return false;
    for (int i = 0; i < 2; i++) {
        /* TensorFlow's names, which BERT's first files still have */
        if (form == NAMES_LAVIS || !ends_with(buf, old[i][0])) continue;
        size_t at = strlen(buf) - strlen(old[i][0]);
        if (at + strlen(old[i][1]) >= NAME_ROOM) return false;
        strcpy(buf + at, old[i][1]);
    }
    return true;
}

bool name_from_lavis(NameForm form, const char *lavis, char *buf) { return translate(form, lavis, buf, false); }

const struct NameAlias name_aliases[NAME_ALIASES] = {
    {"Qformer.cls.predictions.decoder.weight", EMB "word_embeddings.weight"},
    {"Qformer.cls.predictions.decoder.bias",   "Qformer.cls.predictions.bias"},
};

const char *name_alias(const char *lavis) {
    for (int i = 0; i < NAME_ALIASES; i++)
        if (strcmp(lavis, name_aliases[i].alias) == 0) return name_aliases[i].real;
    return NULL;
}
