/* tokenizer_json: what a tokenizer.json says, for tokenizer.c. Each part is done as it is written there or refused with
 * its name: normalizer, pre_tokenizer, model, post_processor, decoder, added_tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/text/tokenizer_parts.h"
#include "kernels/base/mem.h"

static const char *str_of(const Json *o, const char *key) {
    const char *s = json_str(json_get(o, key), NULL);
    return s ? s : "";
}

static bool flag_of(const Json *o, const char *key, bool otherwise) {
    bool v = otherwise;
    json_bool(json_get(o, key), &v);
    return v;
}

static bool absent(const Json *v) { return json_type(v) == J_NONE || json_type(v) == J_NULL; }

/* Step i of a "Sequence", whose list is called `list`, or the one step that stands alone; NULL behind the last. */
static const Json *step_of(const Json *o, const char *list, size_t i) {
    if (!strcmp(str_of(o, "type"), "Sequence")) return json_at(json_get(o, list), i);
    return i || absent(o) ? NULL : o;
}

static Status refuse(const char *name, const char *part, const char *what) {
    return err_set(ERR_FORMAT, "%s: the %s \"%s\" is not one that is known here", name, part, what);
}

/* ---- normalizer ---- */

static int digit64(unsigned char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52
        : c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Base64 in place; -1 when it is none. */
static int64_t base64(const char *s, size_t n, unsigned char *out) {
    uint32_t bits = 0;
    int have = 0;
    int64_t count = 0;
    while (n && s[n - 1] == '=') n--;                        /* padding says nothing that the length does not */
    for (size_t i = 0; i < n; i++) {
        int d = digit64((unsigned char)s[i]);
        if (d < 0) return -1;
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) out[count++] = (unsigned char)(bits >> (have -= 8));
    }
    return count;
}

static Status read_charsmap(Normalizer *z, const Json *o, const char *name) {
    size_t n;
    const char *text = json_str(json_get(o, "precompiled_charsmap"), &n);
    if (!text || !n) return refuse(name, "normalizer", "Precompiled without a character map");
    unsigned char *bytes = mem_new(n, 1);
    if (!bytes) return ERR_MEMORY;
    int64_t count = base64(text, n, bytes);
    Status st = count < 0 ? refuse(name, "normalizer", "Precompiled whose character map is no base64")
                          : charsmap_open(&z->map, bytes, (size_t)count, name);
    free(bytes);
    z->form = FORM_MAP;
    return st;
}

static Status read_replace(Normalizer *z, const Json *o, int *stage, const char *name) {
    const Json *pattern = json_get(o, "pattern");
    const char *string = str_of(pattern, "String"), *regex = str_of(pattern, "Regex"), *to = str_of(o, "content");
    if (!strcmp(string, " ") && !strcmp(to, MARK)) z->mark_blanks = true, *stage = 4;
    else if (!strcmp(regex, " {2,}") && !strcmp(to, " ")) z->collapse = " ", *stage = 2;
    else if (!strcmp(regex, " {2,}") && !strcmp(to, MARK)) z->collapse = MARK, *stage = 2;
    else return refuse(name, "normalizer", *regex ? regex : "Replace");
    return OK;
}

/* One step; *stage is where it stands in the order of normalize.h. */
static Status read_step(Normalizer *z, const Json *o, int *stage, const char *name) {
    const char *type = str_of(o, "type");
    *stage = 0;
    if (!strcmp(type, "NFC")) z->form = FORM_NFC;
    else if (!strcmp(type, "NFKC")) z->form = FORM_NFKC;
    else if (!strcmp(type, "Precompiled")) return read_charsmap(z, o, name);
    else if (!strcmp(type, "Strip") && !flag_of(o, "strip_left", true) && flag_of(o, "strip_right", true))
        z->strip_right = true, *stage = 1;
    else if (!strcmp(type, "Replace")) return read_replace(z, o, stage, name);
    else if (!strcmp(type, "Prepend") && !strcmp(str_of(o, "prepend"), MARK)) z->mark_front = true, *stage = 3;
    else return refuse(name, "normalizer", type);
    return OK;
}

static Status read_normalizer(Tokenizer *t, const Json *o, const char *name) {
    const Json *step;
    Status st = OK;
    int last = -1, stage;
    for (size_t i = 0; st == OK && (step = step_of(o, "normalizers", i)); i++) {
        st = read_step(&t->norm, step, &stage, name);
        /* what is done here has one order */
        if (st == OK && stage <= last) st = refuse(name, "normalizer", "Sequence in an order of its own");
        last = stage;
    }
    return st;
}

/* ---- pre_tokenizer ---- */

static Status read_metaspace(Tokenizer *t, const Json *o, const char *name) {
    const char *scheme = str_of(o, "prepend_scheme");
    if (strcmp(str_of(o, "replacement"), MARK)) return refuse(name, "pre_tokenizer", "Metaspace with another mark");
    if (!*scheme) scheme = flag_of(o, "add_prefix_space", true) ? "always" : "never";
    t->mark = !strcmp(scheme, "always") ? MARK_ALWAYS : !strcmp(scheme, "first") ? MARK_FIRST
        : !strcmp(scheme, "never") ? MARK_NEVER : MARK_OFF;
    t->cut = flag_of(o, "split", true);
    return t->mark == MARK_OFF ? refuse(name, "pre_tokenizer", scheme) : OK;
}

/* A step of the pre-tokenizer and the place it has among the others; the pairs that occur are read off afterwards. */
typedef struct { bool digits, runs, bytes, gpt2, white; SplitRule split; } Steps;

static Status read_cut(Tokenizer *t, Steps *s, const Json *o, const char *name) {
    const char *type = str_of(o, "type"), *regex = str_of(json_get(o, "pattern"), "Regex");
    /* both work on what splitting left: nothing can follow */
    if (s->bytes || t->mark != MARK_OFF) return refuse(name, "pre_tokenizer", "Sequence in an order of its own");
    bool whole = !s->digits && !s->white && s->split == SPLIT_NONE, front = flag_of(o, "add_prefix_space", true);
    /* of a text that is cut already each part would get a blank */
    if (!strcmp(type, "ByteLevel") && (whole || !front)) {
        s->bytes = true;
        t->blank_front = front;
        s->gpt2 = flag_of(o, "use_regex", true);
    } else if (!strcmp(type, "Digits") && s->split == SPLIT_NONE)
        s->digits = true, s->runs = !flag_of(o, "individual_digits", false);
    else if (!strcmp(type, "WhitespaceSplit") && s->split == SPLIT_NONE) s->white = true;
    else if (!strcmp(type, "Metaspace")) return read_metaspace(t, o, name);
    else if (!strcmp(type, "Split") && !strcmp(str_of(o, "behavior"), "Isolated") && !flag_of(o, "invert", false) &&
             !s->digits && !s->white) {
        s->split = split_of_pattern(regex);
        if (s->split == SPLIT_COUNT) return refuse(name, "pattern of the pre_tokenizer", regex);
    } else return refuse(name, "pre_tokenizer", strcmp(type, "ByteLevel") ? type : "ByteLevel with a blank of its own");
    return OK;
}

static Status read_splitting(Tokenizer *t, const Json *o, const char *name) {
    Steps s = {.split = SPLIT_NONE};
    const Json *step;
    Status st = OK;
    for (size_t i = 0; st == OK && (step = step_of(o, "pretokenizers", i)); i++) st = read_cut(t, &s, step, name);
    if (st != OK) return st;
    t->kind = s.bytes ? KIND_BYTES : KIND_MARKS;
    bool pattern = s.split != SPLIT_NONE; /* of steps only those sequences are known that a model is known to have */
    if ((s.gpt2 && (pattern || s.white)) || (s.digits && (!s.gpt2 || s.white)) || (s.white && t->mark == MARK_OFF) ||
        (pattern && !s.bytes))
        return refuse(name, "pre_tokenizer", "Sequence of such parts");
    t->split = s.runs ? SPLIT_RUNS : s.digits ? SPLIT_DIGITS : s.gpt2 ? SPLIT_GPT2 : s.white ? SPLIT_WHITE : s.split;
    return OK;
}

/* ---- model ---- */

/* Room, and ids, of an object of pieces. */
static Status measure_vocab(const Json *vocab, int64_t *size, size_t *bytes, const char *name) {
    const Json *v;
    *size = 0, *bytes = 0;
    for (const char *key = json_next(vocab, NULL, &v); key; key = json_next(vocab, key, &v)) {
        int64_t id;
        if (!json_int(v, &id) || id < 0) return err_set(ERR_FORMAT, "%s: the piece \"%.40s\" has no id", name, key);
        *size = id >= *size ? id + 1 : *size;
        *bytes += strlen(key);
    }
    return OK;
}

Status tokenizer_read_vocab(Tokenizer *t, const Json *vocab, const char *name) {
    int64_t size, id;
    size_t bytes;
    const Json *v;
    Pieces *p = &t->bpe.pieces;
    if (json_type(vocab) != J_OBJECT) return err_set(ERR_FORMAT, "%s: no vocabulary of pieces with their ids", name);
    Status st = measure_vocab(vocab, &size, &bytes, name);
    if (st == OK) st = pieces_open(p, size, (int64_t)json_len(vocab), bytes, name);
    for (const char *key = json_next(vocab, NULL, &v); key && st == OK; key = json_next(vocab, key, &v)) {
        char raw[PIECE_LONGEST];
        size_t n = strlen(key);
        int64_t count = n > sizeof raw || !t->bpe.of_bytes ? -1 : bpe_bytes_of_letters(key, n, raw);
        if (!n) continue;                            /* found by nothing */
        json_int(v, &id);
        st = pieces_set(p, id, count < 0 ? key : raw, count < 0 ? n : (size_t)count, count >= 0 || !t->bpe.of_bytes,
                        name);
    }
    return st;
}

/* left and right as the vocabulary has them. */
Status tokenizer_read_merge(Tokenizer *t, const char *left, size_t nleft, const char *right, size_t nright,
                            const char *name) {
    char l[PIECE_LONGEST], r[PIECE_LONGEST];
    if (!t->bpe.of_bytes || nleft > sizeof l || nright > sizeof r)
        return bpe_add_merge(&t->bpe, left, nleft, right, nright, name);
    int64_t cl = bpe_bytes_of_letters(left, nleft, l), cr = bpe_bytes_of_letters(right, nright, r);
    if (cl < 0 || cr < 0) cl = cr = 0;               /* no piece is empty, so this says what is wrong */
    return bpe_add_merge(&t->bpe, l, (size_t)cl, r, (size_t)cr, name);
}

static Status read_merges(Tokenizer *t, const Json *merges, const char *name) {
    Status st = bpe_begin_merges(&t->bpe, (int64_t)json_len(merges), name);
    for (size_t i = 0; i < json_len(merges) && st == OK; i++) {
        const Json *m = json_at(merges, i);
        size_t n, nright = 0;
        const char *left = json_str(m, &n), *right = NULL, *blank = left ? memchr(left, ' ', n) : NULL;
        if (blank) right = blank + 1, nright = n - (size_t)(right - left), n = (size_t)(blank - left);
        else if (json_len(m) == 2) left = json_str(json_at(m, 0), &n), right = json_str(json_at(m, 1), &nright);
        if (!left || !right) return err_set(ERR_FORMAT, "%s: merge %zu is no pair of pieces", name, i + 1);
        st = tokenizer_read_merge(t, left, n, right, nright, name);
    }
    return st;
}

static Status read_bpe(Tokenizer *t, const Json *m, const char *name) {
    double dropout = 0;
    Bpe *b = &t->bpe;
    json_num(json_get(m, "dropout"), &dropout);
    /* each would give other ids than the file's author saw */
    if (dropout != 0 || *str_of(m, "continuing_subword_prefix") || *str_of(m, "end_of_word_suffix"))
        return refuse(name, "model", "BPE with dropout, or a prefix or suffix of its pieces");
    b->of_bytes = t->kind == KIND_BYTES;
    b->ignore_merges = flag_of(m, "ignore_merges", false);
    b->fallback = flag_of(m, "byte_fallback", false);
    b->fuse_unk = flag_of(m, "fuse_unk", false);
    if (b->of_bytes && b->fallback) return refuse(name, "model", "BPE of bytes with byte_fallback");
    Status st = tokenizer_read_vocab(t, json_get(m, "vocab"), name);
    const char *unk = str_of(m, "unk_token");
    if (st == OK && *unk) b->unk = t->ids.unk = pieces_find(&b->pieces, unk, strlen(unk));
    if (b->of_bytes) b->unk = -1;                    /* a byte without a piece vanishes */
    return st == OK ? read_merges(t, json_get(m, "merges"), name) : st;
}

static Status read_unigram(Tokenizer *t, const Json *m, const char *name) {
    const Json *vocab = json_get(m, "vocab");
    Unigram *u = &t->unigram;
    size_t bytes = 0, n, count = json_len(vocab);
    int64_t unk = -1;
    if (t->kind == KIND_BYTES || flag_of(m, "byte_fallback", false))
        return refuse(name, "model", "Unigram over bytes, or with byte_fallback");
    t->kind = KIND_UNIGRAM;
    if (!json_int(json_get(m, "unk_id"), &unk) || unk < 0 || unk >= (int64_t)count)
        return err_set(ERR_FORMAT, "%s: unk_id names none of its %zu pieces", name, count);
    /* room first, in one block */
    for (size_t i = 0; i < count; i++) bytes += json_str(json_at(json_at(vocab, i), 0), &n) ? n : 0;
    Status st = pieces_open(&u->pieces, (int64_t)count, (int64_t)count, bytes, name);
    if (st == OK && !(u->score = mem_new(count + 1, sizeof *u->score))) st = ERR_MEMORY;
    for (size_t i = 0; i < count && st == OK; i++) {
        const Json *one = json_at(vocab, i);
        const char *s = json_str(json_at(one, 0), &n);
        if (!s || !json_num(json_at(one, 1), &u->score[i]))
            return err_set(ERR_FORMAT, "%s: piece %zu is not a text with a score", name, i);
        if (n) st = pieces_set(&u->pieces, (int64_t)i, s, n, true, name);
    }
    u->unk = t->ids.unk = (int32_t)unk;
    return st;
}

static Status read_model(Tokenizer *t, const Json *m, const char *name) {
    const char *type = str_of(m, "type");            /* older files leave it out */
    if (!*type) type = json_type(json_get(m, "vocab")) == J_ARRAY ? "Unigram" : json_get(m, "merges") ? "BPE" : "";
    if (!strcmp(type, "BPE")) return read_bpe(t, m, name);
    if (!strcmp(type, "Unigram")) return read_unigram(t, m, name);
    return refuse(name, "model", type);
}

/* ---- post_processor ---- */

static Status add_around(const Json *ids, size_t from, int32_t *to, int *n, const char *name) {
    for (size_t i = from; i < json_len(ids); i++) {
        int64_t id;
        if (*n == TOKENIZER_AROUND || !json_int(json_at(ids, i), &id) || id < 0 || id >= PIECES_MAX_IDS)
            return refuse(name, "post_processor", "with such ids");
        to[(*n)++] = (int32_t)id;
    }
    return OK;
}

static Status read_template(Tokenizer *t, const Json *o, const char *name) {
    const Json *single = json_get(o, "single"), *tokens = json_get(o, "special_tokens");
    bool behind = false;
    Status st = OK;
    for (size_t i = 0; i < json_len(single) && st == OK; i++) {
        const char *special = json_str(json_get(json_get(json_at(single, i), "SpecialToken"), "id"), NULL);
        if (!special && behind) return refuse(name, "post_processor", "TemplateProcessing with the text twice");
        if (!special) behind = true;
        const Json *ids = special ? json_get(json_get(tokens, special), "ids") : NULL;
        if (special) st = behind ? add_around(ids, 0, t->ids.end, &t->ids.nend, name)
                                 : add_around(ids, 0, t->ids.begin, &t->ids.nbegin, name);
    }
    return st == OK && !behind ? refuse(name, "post_processor", "TemplateProcessing without the text") : st;
}

/* Roberta's and BERT's: [text, id] in front, and another one behind. */
static Status read_pair(Tokenizer *t, const Json *o, const char *name) {
    const Json *cls = json_get(o, "cls"), *sep = json_get(o, "sep");
    if (json_len(cls) != 2 || json_len(sep) != 2) return refuse(name, "post_processor", "without cls and sep");
    Status st = add_around(cls, 1, t->ids.begin, &t->ids.nbegin, name);
    return st == OK ? add_around(sep, 1, t->ids.end, &t->ids.nend, name) : st;
}

static Status read_post(Tokenizer *t, const Json *o, const char *name) {
    const char *type = str_of(o, "type");
    const Json *list = json_get(o, "processors");
    Status st = OK;
    if (absent(o) || !strcmp(type, "ByteLevel")) return OK;       /* it trims offsets, which nobody asks for */
    if (!strcmp(type, "TemplateProcessing")) return read_template(t, o, name);
    if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) return read_pair(t, o, name);
    if (strcmp(type, "Sequence")) return refuse(name, "post_processor", type);
    for (size_t i = 0; i < json_len(list) && st == OK; i++) {
        if (!strcmp(str_of(json_at(list, i), "type"), "Sequence"))
            return refuse(name, "post_processor", "Sequence in a Sequence");
        st = read_post(t, json_at(list, i), name);
    }
    return st;
}

/* ---- decoder, added tokens ---- */

static Status read_decoder(Tokenizer *t, const Json *o, const char *name) {
    static const char *const marks[] = {"Replace", "ByteFallback", "Fuse", "Strip"};
    const char *type = str_of(o, "type");
    const Json *list = json_get(o, "decoders");
    size_t parts = json_len(list);
    /* the fourth part, Strip, takes the blank in front */
    t->keep_front = parts == 3 || !strcmp(str_of(o, "prepend_scheme"), "never");
    if (!strcmp(type, "ByteLevel") && t->kind == KIND_BYTES) t->decode = DECODE_BYTES;
    else if (!strcmp(type, "Metaspace") && t->kind != KIND_BYTES) t->decode = DECODE_WORDS;
    else if (!strcmp(type, "Sequence") && t->kind == KIND_MARKS && (parts == 3 || parts == 4)) {
        for (size_t i = 0; i < parts; i++)
            if (strcmp(str_of(json_at(list, i), "type"), marks[i]))
                return refuse(name, "decoder", str_of(json_at(list, i), "type"));
        t->decode = DECODE_MARKS;
    } else return refuse(name, "decoder", absent(o) ? "null" : type);
    return OK;
}

static Status read_added(Tokenizer *t, const Json *list, const char *name) {
    bool normalizes = t->norm.form != FORM_NONE || t->norm.mark_front || t->norm.mark_blanks;
    Status st = OK;
    for (size_t i = 0; i < json_len(list) && st == OK; i++) {
        const Json *a = json_at(list, i);
        size_t n = 0;
        int64_t id = -1;
        const char *s = json_str(json_get(a, "content"), &n);
        bool normalized = flag_of(a, "normalized", false) && normalizes; /* without a normalizer the two are the same */
        if (flag_of(a, "single_word", false) || flag_of(a, "lstrip", false) || flag_of(a, "rstrip", false) ||
            normalized)
            return refuse(name, "kind of added token", s ? s : "");
        json_int(json_get(a, "id"), &id);
        st = tokenizer_add(t, s ? s : "", n, id, flag_of(a, "special", false), name);
    }
    return st;
}

/* ---- WordPiece: BERT's, as wordpiece.h does it ---- */

static Status check_bert(const Json *doc, const char *name) {
    const Json *z = json_get(doc, "normalizer"), *m = json_get(doc, "model");
    bool plain = flag_of(z, "clean_text", true) && flag_of(z, "handle_chinese_chars", true) &&
                 flag_of(z, "lowercase", true) && flag_of(z, "strip_accents", true);
    int64_t longest = WP_MAX_WORD;
    json_int(json_get(m, "max_input_chars_per_word"), &longest);
    if (strcmp(str_of(z, "type"), "BertNormalizer") || !plain)
        return refuse(name, "normalizer", "of a WordPiece that is not BERT's uncased one");
    if (strcmp(str_of(json_get(doc, "pre_tokenizer"), "type"), "BertPreTokenizer"))
        return refuse(name, "pre_tokenizer", str_of(json_get(doc, "pre_tokenizer"), "type"));
    if (strcmp(str_of(m, "unk_token"), "[UNK]") || strcmp(str_of(m, "continuing_subword_prefix"), "##") ||
        longest != WP_MAX_WORD)
        return refuse(name, "model", "WordPiece of other rules");
    return OK;
}

/* The piece goes to its line; none has two. */
static Status put_line(const char **line, size_t count, const char *piece, const Json *id, const char *name) {
    int64_t at = -1;
    /* it is to be a line */
    bool fits = piece && !strchr(piece, '\n') && json_int(id, &at) && at >= 0 && at < (int64_t)count;
    if (!fits || (line[at] && strcmp(line[at], piece)))
        return err_set(ERR_FORMAT, "%s: the id of \"%.40s\" is not one of %zu, each with one piece", name,
                       piece ? piece : "", count);
    line[at] = piece;
    return OK;
}

/* Its pieces in the order of their ids are the lines of a vocab.txt. */
static Status read_wordpiece(Tokenizer *t, const Json *doc, const char *name) {
    const Json *vocab = json_get(json_get(doc, "model"), "vocab"), *added = json_get(doc, "added_tokens"), *v;
    size_t count = json_len(vocab), n = 0;
    /* most of BERT's added tokens are pieces already */
    for (size_t i = 0; i < json_len(added); i++) count += !json_get(vocab, str_of(json_at(added, i), "content"));
    const char **line = mem_new(count + 1, sizeof *line);
    char *text = NULL;
    FILE *f = open_memstream(&text, &n);
    Status st = line && f ? check_bert(doc, name) : err_set(ERR_MEMORY, "%s: out of memory", name);
    for (const char *key = json_next(vocab, NULL, &v); key && st == OK; key = json_next(vocab, key, &v))
        st = put_line(line, count, key, v, name);
    for (size_t i = 0; i < json_len(added) && st == OK; i++)
        st = put_line(line, count, str_of(json_at(added, i), "content"), json_get(json_at(added, i), "id"), name);
    for (size_t i = 0; i < count && st == OK; i++)
        if (line[i]) fprintf(f, "%s\n", line[i]);
        else st = err_set(ERR_FORMAT, "%s: no piece has the id %zu", name, i);
    if (f && fclose(f) != 0 && st == OK) st = err_set(ERR_MEMORY, "%s: out of memory", name);
    if (st == OK) st = wp_open_lines(&t->wp, text, n, name);
    if (st == OK) tokenizer_take_wordpiece(t);
    mem_free(line, text);
    return st;
}

Status tokenizer_read_json(Tokenizer *t, const Json *doc, const char *name) {
    if (json_type(json_get(doc, "model")) != J_OBJECT)
        return err_set(ERR_FORMAT, "%s: no \"model\": this is not a tokenizer.json", name);
    if (!strcmp(str_of(json_get(doc, "model"), "type"), "WordPiece")) return read_wordpiece(t, doc, name);
    Status st = read_normalizer(t, json_get(doc, "normalizer"), name);
    if (st == OK) st = read_splitting(t, json_get(doc, "pre_tokenizer"), name);
    if (st == OK) st = read_model(t, json_get(doc, "model"), name);
    if (st == OK) st = read_post(t, json_get(doc, "post_processor"), name);
    if (st == OK) st = read_decoder(t, json_get(doc, "decoder"), name);
    return st == OK ? read_added(t, json_get(doc, "added_tokens"), name) : st;
}
