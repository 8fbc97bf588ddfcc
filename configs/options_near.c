/* options_near: what was probably meant by a key or a command that is not there. */
#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "configs/options_table.h"

enum { MAX_KEY = 128 };

/* Letters to add, drop or change to get from a to b; anything longer than a row of the table counts as far. */
static int edit_distance(const char *a, const char *b) {
    enum { LONGEST = 63 };
    int above[LONGEST + 1];
    int na = (int)strnlen(a, LONGEST + 1), nb = (int)strnlen(b, LONGEST + 1);
    if (na > LONGEST || nb > LONGEST) return INT_MAX / 2;    /* half: the caller adds to it */
    for (int j = 0; j <= nb; j++) above[j] = j;
    for (int i = 1; i <= na; i++) {
        int corner = above[0];
        above[0] = i;
        for (int j = 1; j <= nb; j++) {
            int swap = corner + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            corner = above[j];
            int one = 1 + (above[j] < above[j - 1] ? above[j] : above[j - 1]);
            above[j] = swap < one ? swap : one;
        }
    }
    return above[nb];
}

static int near_enough(const char *word) {
    int n = (int)strlen(word);
    return n / 3 > 1 ? n / 3 : 1;
}

const char *options_nearest(const char *word, const char *const *candidates, size_t n) {
    const char *best = NULL;
    int least = near_enough(word) + 1;
    for (size_t i = 0; i < n; i++) {
        int d = edit_distance(word, candidates[i]);
        if (d < least) { least = d; best = candidates[i]; }
    }
    return best;
}

static const char *leaf(const char *key) {
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* What others call it: the first key of the row that the command uses is meant. */
static const struct { const char *words, *keys; } others_say[] = {
    {"batch_size|bs|batchsize|per_device_train_batch_size", "train.batch|use.batch|extract.batch"},
    {"learning_rate|init_lr|base_lr", "optim.lr"},
    {"warmup|warmup_ratio|num_warmup_steps", "optim.warmup_steps"},
    {"wd", "optim.weight_decay"},
    {"num_epochs|max_epoch|num_train_epochs|max_epochs", "train.epochs"},
    {"max_steps|iterations|iters", "train.steps"},
    {"output|output_dir|out_dir|save_dir|outdir|o", "out"},
    {"workers|num_workers", "data.threads|threads"},
    {"data|dataset|train_data|train_set", "data.train|data.test|extract.annotations|in"},
    {"val_data|eval_data|val_set", "data.val"},
    {"test_data|test_set", "data.test"},
    {"checkpoint|ckpt|pretrained|load|weights|model_path|init_from", "train.init|in"},
    {"resume_from|resume_from_checkpoint", "train.resume"},
    {"image_size|resolution|img_size", "extract.size"},
    {"images|image_root|vis_root|image_dir|image_folder", "in|data.test"},
    {"captions|ann|annotation|ann_paths", "extract.annotations"},
    {"vision_tower|vit|vit_model|vision_model|image_encoder", "extract.encoder"},
    {"num_beams|beam_size", "caption.beams|ask.beams"},
    {"max_new_tokens", "ask.max_new|caption.max_length"},
    {"fp16|bf16|amp|half|mixed_precision", "precision"},
    {"num_layers|num_hidden_layers", "model.layers"},
    {"num_heads|num_attention_heads", "model.heads"},
    {"num_query_token|num_queries|num_query_tokens", "model.queries"},
    {"gradient_accumulation_steps|accum_grad_iters|accumulate", "optim.accum"},
};

static const char *meant_by(const char *word, const char *command) {
    char low[MAX_KEY], key[MAX_KEY];
    snprintf(low, sizeof low, "%s", leaf(word));
    for (char *c = low; *c; c++) *c = (char)tolower((unsigned char)*c);
    for (size_t i = 0; i < sizeof others_say / sizeof *others_say; i++) {
        if (!option_has_word(others_say[i].words, '|', low, NULL)) continue;
        for (const char *k = others_say[i].keys; *k; k += strcspn(k, "|"), k += *k == '|') {
            snprintf(key, sizeof key, "%.*s", (int)strcspn(k, "|"), k);
            int r = option_row(key);
            if (r >= 0 && option_used_by(&option_rows[r], command)) return option_rows[r].key;
        }
    }
    return NULL;
}

/* The key that was probably meant: a small slip, or the right name with the wrong group or none (lr, train.lr). */
const char *option_near_key(const char *word, const char *command) {
    const char *best = meant_by(word, command);
    int slips = (int)strlen(leaf(word)) / 2, least = near_enough(word);
    if (best || !word[0]) return best;
    least = 2 * (slips < 2 ? 2 : slips < least ? slips : least) + 2;         /* model.arch is not model.proj */
    for (int r = 0; r < OPTION_ROWS; r++) {
        int whole = edit_distance(word, option_rows[r].key);
        /* the right name in a wrong group is one slip more */
        int last = 1 + edit_distance(leaf(word), leaf(option_rows[r].key));
        /* of two as near, the one that the command uses */
        int d = 2 * (whole < last ? whole : last) + !option_used_by(&option_rows[r], command);
        if (d < least) { least = d; best = option_rows[r].key; }
    }
    return best;
}
