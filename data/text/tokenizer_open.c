/* tokenizer_open: a tokenizer from a model's folder: which file it is in, and what the files beside it say about
 * special tokens. See tokenizer.h. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/format/mapfile.h"
#include "data/format/path.h"
#include "data/text/chat.h"
#include "data/text/tokenizer_parts.h"
#include "kernels/base/mem.h"

/* The files beside; NULL when absent. */
typedef struct {
    char *dir;
    Json *config, *map, *model, *added;
} Beside;

static Status read_beside(const char *dir, const char *file, Json **doc) {
    char *path = mem_format("%s/%s", dir, file);
    if (!path) return ERR_MEMORY;
    Status st = access(path, R_OK) ? OK : json_parse_file(doc, path); /* all four are optional */
    free(path);
    return st;
}

static Status beside_open(Beside *b, const char *dir) {
    *b = (Beside){.dir = mem_strdup(dir)};
    Status st = b->dir ? OK : ERR_MEMORY;
    if (st == OK) st = read_beside(dir, "tokenizer_config.json", &b->config);
    if (st == OK) st = read_beside(dir, "special_tokens_map.json", &b->map);
    if (st == OK) st = read_beside(dir, "config.json", &b->model);
    return st == OK ? read_beside(dir, "added_tokens.json", &b->added) : st;
}

static void beside_close(Beside *b) {
    free(b->dir);
    json_free(b->config);
    json_free(b->map);
    json_free(b->model);
    json_free(b->added);
}

static const char *class_of(const Beside *b) {
    const char *s = json_str(json_get(b->config, "tokenizer_class"), NULL);
    return s ? s : "";
}

/* ---- special tokens ---- */

/* A token as the configurations write it: a text, or an object with "content". */
static const char *token_of(const Json *v) {
    const char *s = json_str(v, NULL);
    return s ? s : json_str(json_get(v, "content"), NULL);
}

static const char *special_of(const Beside *b, const char *which) {
    const char *s = token_of(json_get(b->config, which));    /* newer than special_tokens_map.json, so it goes first */
    return s ? s : token_of(json_get(b->map, which));
}

/* tokenizer_config.json's added_tokens_decoder {"id": {"content", "special"}} and added_tokens.json {"content": id}; a
 * folder without tokenizer.json has its added tokens there. */
static Status add_listed(Tokenizer *t, const Beside *b) {
    const Json *v, *list = json_get(b->config, "added_tokens_decoder");
    Status st = OK;
    for (const char *key = json_next(list, NULL, &v); key && st == OK; key = json_next(list, key, &v)) {
        bool special = true;
        const char *s = token_of(v);
        json_bool(json_get(v, "special"), &special);
        if (s && *s) st = tokenizer_add(t, s, strlen(s), strtoll(key, NULL, 10), special, "tokenizer_config.json");
    }
    for (const char *key = json_next(b->added, NULL, &v); key && st == OK; key = json_next(b->added, key, &v)) {
        int64_t id = -1;
        json_int(v, &id);
        st = tokenizer_add(t, key, strlen(key), id, true, "added_tokens.json");
    }
    return st;
}

/* bos, eos, pad and unk are cut out of the text when the vocabulary has them, as the slow tokenizers do. */
static Status add_named(Tokenizer *t, const Beside *b) {
    static const char *const names[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    Status st = OK;
    for (size_t k = 0; k < sizeof names / sizeof *names && st == OK; k++) {
        const char *s = special_of(b, names[k]);
        int32_t id = s && *s ? tokenizer_find(t, s) : -1;
        if (id >= 0) st = tokenizer_add(t, s, strlen(s), id, true, t->kind == KIND_BYTES ? "vocab.json" : "the pieces");
    }
    return st;
}

static void name_special(const Tokenizer *t, const Beside *b, const char *which, int32_t *id) {
    const char *s = special_of(b, which);
    int32_t found = s ? tokenizer_find(t, s) : -1;
    if (found >= 0) *id = found;
}

/* The slow GPT-2 tokenizer, which OPT's folders name, puts bos in front if add_bos_token says so; a fast one has a
 * template for it, which stands in tokenizer.json. */
static void add_begin(Tokenizer *t, const Beside *b) {
    bool add = false;
    const char *type = json_str(json_get(b->model, "model_type"), NULL);
    json_bool(json_get(b->config, "add_bos_token"), &add);
    if (!b->config && type && !strcmp(type, "opt")) {            /* OPT's oldest folders have no configuration of it */
        t->ids.bos = t->ids.eos = tokenizer_find(t, "</s>");
        add = true;
    }
    bool slow = !*class_of(b) || !strcmp(class_of(b), "GPT2Tokenizer");
    if (t->kind == KIND_BYTES && !t->ids.nbegin && add && t->ids.bos >= 0 && slow)
        t->ids.begin[t->ids.nbegin++] = t->ids.bos;
}

static void take_names(Tokenizer *t, const Beside *b) {
    const char *chat = json_str(json_get(b->config, "chat_template"), NULL);
    name_special(t, b, "bos_token", &t->ids.bos);
    name_special(t, b, "eos_token", &t->ids.eos);
    name_special(t, b, "pad_token", &t->ids.pad);
    name_special(t, b, "unk_token", &t->ids.unk);
    json_bool(json_get(b->config, "clean_up_tokenization_spaces"), &t->cleans);
    if (chat) t->chat = chat_of_template(chat);
    add_begin(t, b);
}

/* ---- the forms ---- */

static Status open_json(Tokenizer *t, const Beside *b, const char *path) {
    Json *doc = NULL;
    (void)b;
    Status st = json_parse_file(&doc, path);
    if (st == OK) st = tokenizer_read_json(t, doc, path);
    json_free(doc);
    return st;
}

static Status add_merge_line(Tokenizer *t, const char *s, size_t n, int64_t line, const char *path) {
    const char *blank = memchr(s, ' ', n);
    if (!blank) return err_set(ERR_FORMAT, "%s:%lld: the line is no pair of pieces", path, (long long)line);
    size_t left = (size_t)(blank - s);
    return tokenizer_read_merge(t, s, left, blank + 1, n - left - 1, path);
}

static Status read_merges(Tokenizer *t, const char *path) {
    MapFile m;
    Status st = mapfile_open(&m, path);
    if (st != OK) return st;
    const char *s = (const char *)m.bytes;
    int64_t lines = 1, line = 0;                             /* the last may lack its end */
    for (size_t i = 0; i < m.n; i++) lines += s[i] == '\n';
    st = bpe_begin_merges(&t->bpe, lines, path);
    for (size_t i = 0, n; i < m.n && st == OK; i += n + 1) {
        const char *end = memchr(s + i, '\n', m.n - i);
        n = end ? (size_t)(end - (s + i)) : m.n - i;
        size_t len = n && s[i + n - 1] == '\r' ? n - 1 : n;
        /* only there: # is a piece like any other */
        bool comment = ++line == 1 && len >= 8 && !memcmp(s + i, "#version", 8);
        if (len && !comment) st = add_merge_line(t, s + i, len, line, path);
    }
    mapfile_close(&m);
    return st;
}

/* GPT-2's form. Other tokenizers have left such files too, with other rules, which no file says: so only with the
 * classes that are known. */
static Status open_vocab(Tokenizer *t, const Beside *b, const char *path) {
    Json *vocab = NULL;
    const char *class = class_of(b);
    bool qwen = !strncmp(class, "Qwen2Tokenizer", 14);
    /* CLIP has such files, too, and cuts words in another way */
    if (*class && !qwen && strncmp(class, "GPT2Tokenizer", 13))
        return err_set(ERR_FORMAT,
                       "%s: vocab.json and merges.txt of a %s, whose rules are unknown; a tokenizer.json is wanted",
                       b->dir, class);
    t->kind = KIND_BYTES, t->decode = DECODE_BYTES, t->bpe.of_bytes = true;
    t->split = qwen ? SPLIT_QWEN2 : SPLIT_GPT2;
    t->norm.form = qwen ? FORM_NFC : FORM_NONE;
    char *merges = mem_format("%s/merges.txt", b->dir);
    Status st = merges ? json_parse_file(&vocab, path) : ERR_MEMORY;
    if (st == OK) st = tokenizer_read_vocab(t, vocab, path);
    if (st == OK) st = read_merges(t, merges);
    if (st == OK) st = add_listed(t, b);
    if (st == OK) st = add_named(t, b);
    json_free(vocab);
    free(merges);
    return st;
}

/* T5's folders count their <extra_id_n>, the last n first, and leave them out of the file. */
static Status add_extra(Tokenizer *t, const Beside *b) {
    int64_t extra = 0, size = tokenizer_vocabulary(t)->size;
    if (!json_int(json_get(b->config, "extra_ids"), &extra)) return OK;
    if (extra < 0 || extra > 10000) return err_set(ERR_FORMAT, "%s/tokenizer_config.json: extra_ids %lld", b->dir,
                                                   (long long)extra);
    Status st = OK;
    for (int64_t k = 0; k < extra && st == OK; k++) {
        char token[40];
        int n = snprintf(token, sizeof token, "<extra_id_%lld>", (long long)(extra - 1 - k));
        st = tokenizer_add(t, token, (size_t)n, size + k, true, b->dir);
    }
    return st;
}

static Status open_spm(Tokenizer *t, const Beside *b, const char *path) {
    MapFile m;
    bool bos = true, eos = false;
    Status st = mapfile_open(&m, path);
    if (st != OK) return st;
    st = tokenizer_read_spm(t, m.bytes, m.n, path);
    mapfile_close(&m);
    if (st == OK) st = add_listed(t, b);
    if (st == OK && t->kind == KIND_UNIGRAM) st = add_extra(t, b);
    json_bool(json_get(b->config, "add_bos_token"), &bos);
    json_bool(json_get(b->config, "add_eos_token"), &eos);
    if (t->kind != KIND_MARKS) return st;
    name_special(t, b, "bos_token", &t->ids.bos);
    t->ids.nbegin = bos && t->ids.bos >= 0;                  /* over what the model file said: the configuration wins */
    t->ids.begin[0] = t->ids.bos;
    if (eos && t->ids.eos >= 0) t->ids.end[t->ids.nend++] = t->ids.eos;
    return st;
}

static Status open_wordpiece(Tokenizer *t, const Beside *b, const char *path) {
    (void)b;
    Status st = wp_open(&t->wp, path);
    if (st == OK) tokenizer_take_wordpiece(t);
    return st;
}

/* ---- which of them ---- */

typedef Status OpenFn(Tokenizer *t, const Beside *b, const char *path);

/* The first that a folder has is taken; vocab.txt goes before the tokenizer.json that newer BERT folders have beside
 * it. A file with another name is a vocab.txt. */
static const struct { const char *file; OpenFn *open; } forms[] = {
    {"vocab.txt", open_wordpiece}, {"tokenizer.json", open_json}, {"vocab.json", open_vocab},
    {"spiece.model", open_spm},    {"tokenizer.model", open_spm},
};
enum { FORMS = sizeof forms / sizeof *forms };

static Status in_folder(const char *dir, char **path, OpenFn **open) {
    for (int k = 0; k < FORMS; k++) {
        *path = mem_format("%s/%s", dir, forms[k].file);
        *open = forms[k].open;
        if (!*path) return ERR_MEMORY;
        if (!access(*path, R_OK)) return OK;
        free(*path);
    }
    *path = NULL;
    return err_set(ERR_IO, "%s: no tokenizer.json, vocab.json, spiece.model, tokenizer.model or vocab.txt in it", dir);
}

static OpenFn *form_of_file(const char *path) {
    for (int k = 0; k < FORMS; k++)
        if (path_ends(path, forms[k].file)) return forms[k].open;
    return path_ends(path, ".model") ? open_spm : path_ends(path, ".json") ? open_json : open_wordpiece;
}

static Status finish(Tokenizer **t, Status st, const char *name) {
    if (st == OK) st = tokenizer_ready(*t, name);
    if (st == OK) return OK;
    tokenizer_close(*t);
    *t = NULL;
    return st;
}

static Status open_file(Tokenizer **t, const char *dir, const char *path, OpenFn *open) {
    Beside b = {0};
    Status st = tokenizer_new(t);
    bool alone = open == open_wordpiece;             /* what lies beside a vocab.txt has no say */
    if (st == OK && !alone) st = beside_open(&b, dir);
    if (st == OK) st = open(*t, &b, path);
    st = finish(t, st, path);
    if (st == OK && !alone && (*t)->kind != KIND_WORDPIECE) take_names(*t, &b);
    beside_close(&b);
    return st;
}

Status tokenizer_open(Tokenizer **t, const char *path) {
    OpenFn *open = NULL;
    char *file = NULL;
    *t = NULL;
    char *inside = mem_format("%s/.", path);                 /* a folder, or a link to one */
    if (!inside) return ERR_MEMORY;
    bool is_folder = access(inside, F_OK) == 0;
    free(inside);
    char *dir = is_folder ? mem_strdup(path) : path_folder(path);
    Status st = dir ? OK : ERR_MEMORY;
    if (st == OK && is_folder) st = in_folder(dir, &file, &open);
    if (st == OK) st = open_file(t, dir, is_folder ? file : path, is_folder ? open : form_of_file(path));
    mem_free(file, dir);
    return st;
}

/* ---- from memory ---- */

Status tokenizer_open_lines(Tokenizer **t, const char *text, size_t n, const char *name) {
    Status st = tokenizer_new(t);
    if (st == OK) st = wp_open_lines(&(*t)->wp, text, n, name);
    if (st == OK) tokenizer_take_wordpiece(*t);
    return finish(t, st, name);
}

Status tokenizer_open_json(Tokenizer **t, const char *text, size_t n, const char *name) {
    Json *doc = NULL;
    Status st = tokenizer_new(t);
    if (st == OK) st = json_parse(&doc, text, n, name);
    if (st == OK) st = tokenizer_read_json(*t, doc, name);
    json_free(doc);
    return finish(t, st, name);
}

Status tokenizer_open_spm(Tokenizer **t, const void *bytes, size_t n, const char *name) {
    Status st = tokenizer_new(t);
    if (st == OK) st = tokenizer_read_spm(*t, bytes, n, name);
    return finish(t, st, name);
}
