/* export with the encoder, as a user does it: LAVIS's file and transformers' folder, read back by the same program from
 * pictures alone, give the scores that the model and its encoder gave apart. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/format/image.h"
#include "data/format/textfile.h"
#include "tests/kit/folder.h"
#include "tests/kit/same_json.h"
#include "tests/kit/weights.h"

#define NORM(name, key) name ".weight=" key "g:8 " name ".bias=" key "b:8 "
#define EVA_BLOCK(b, k) \
    NORM(b "norm1", k "1") NORM(b "norm2", k "2") b "attn.qkv.weight=" k "q," k "k," k "v:8,8 " \
    b "attn.q_bias=" k "qb:8 " b "attn.v_bias=" k "vb:8 " b "attn.proj.weight=" k "o:8,8 " \
    b "attn.proj.bias=" k "ob:8 " b "mlp.fc1.weight=" k "u:12,8 " b "mlp.fc1.bias=" k "ub:12 " \
    b "mlp.fc2.weight=" k "d:8,12 " b "mlp.fc2.bias=" k "db:8 "
#define CLIP_BLOCK(b, k) \
    NORM(b "ln_1", k "1") NORM(b "ln_2", k "2") b "attn.in_proj_weight=" k "q," k "k," k "v:8,8 " \
    b "attn.in_proj_bias=" k "qb," k "kb," k "vb:8 " b "attn.out_proj.weight=" k "o:8,8 " \
    b "attn.out_proj.bias=" k "ob:8 " \
    b "mlp.c_fc.weight=" k "u:12,8 " b "mlp.c_fc.bias=" k "ub:12 " b "mlp.c_proj.weight=" k "d:8,12 " \
    b "mlp.c_proj.bias=" k "db:8 "

/* The last block of each is in front of a norm and behind the tap. */
static const char eva[] =
    "cls_token=cls:1,1,8 pos_embed=pos:1,5,8 patch_embed.proj.weight=pw:8,3,2,2 patch_embed.proj.bias=pb:8 "
    EVA_BLOCK("blocks.0.", "a") EVA_BLOCK("blocks.1.", "b") EVA_BLOCK("blocks.2.", "c") NORM("norm", "f");
static const char clip[] =
    "visual.class_embedding=cls:8 visual.positional_embedding=pos:5,8 visual.conv1.weight=pw:8,3,2,2 "
    NORM("visual.ln_pre", "p") CLIP_BLOCK("visual.transformer.resblocks.0.", "a")
    CLIP_BLOCK("visual.transformer.resblocks.1.", "b") NORM("visual.ln_post", "f") "visual.proj=j:8,3 ";

static int setup(void **state) {
    static const char *const captions[] = {"a red cat", "two blue dogs", "the old house", "birds fly"};
    char name[32], ann[512] = "[";
    uint8_t rgb[8 * 8 * 3];
    if (folder_setup(state)) return 1;
    folder_shell("mkdir pics");
    for (int k = 0; k < 4; k++) {
        for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)((i * 7 + (size_t)k * 91) * 2654435761u >> 13);
        snprintf(name, sizeof name, "pics/%d.png", k);
        if (image_write_png(folder_path(name), rgb, 8, 8) != OK) return 1;
        snprintf(ann + strlen(ann), sizeof ann - strlen(ann), "%s{\"image\": \"%d.png\", \"caption\": \"%s\"}",
                 k ? ", " : "", k, captions[k]);
    }
    strcat(ann, "]");
    folder_write("ann.json", ann);
    weights_text(folder_path("eva.safetensors"), eva);
    weights_text(folder_path("clip.safetensors"), clip);
    return 0;
}

#define LOOK " data.test=pics match.pairs=ann.json model.vocab=words.txt extract.heads=2 model.heads=2 precision=f32" \
    " threads=1"

static void model_for(const char *encoder) {
    char line[300];
    snprintf(line, sizeof line, "extract in=pics extract.annotations=ann.json encoder=%s.safetensors extract.heads=2 "
             "out=%s.h5", encoder, encoder);
    folder_must(line);
    snprintf(line, sizeof line, "vocab in=%s.h5 out=words.txt vocab.size=60 vocab.min_count=1 overwrite=true", encoder);
    folder_must(line);
    snprintf(line, sizeof line, "init out=%s-q.safetensors model.vocab=words.txt model.image_width=8 "
             "model.image_tokens=5 model.layers=2 model.hidden=16 model.heads=2 model.queries=4 "
             "model.cross_every=1", encoder);
    folder_must(line);
    snprintf(line, sizeof line, "match %s-q.safetensors encoder=%s.safetensors out=%s-apart" LOOK, encoder, encoder,
             encoder);
    folder_must(line);
}

static void same_scores(const char *a, const char *b, double limit) {
    char *text[2] = {NULL, NULL}, name[64];
    const char *const of[] = {a, b};
    for (int i = 0; i < 2; i++) {
        size_t n;
        snprintf(name, sizeof name, "%s/match.jsonl", of[i]);
        if (textfile_read(&text[i], &n, folder_path(name), "results") != OK) fail_msg("%s", err_message());
    }
    same_results(text[0], text[1], "match.jsonl", limit);
    free(text[0]);
    free(text[1]);
}

static void eva_to_both(void **state) {
    (void)state;
    model_for("eva");
    folder_must("export eva-q.safetensors form=lavis encoder=eva.safetensors extract.heads=2 model.heads=2 "
                "out=l.safetensors");
    folder_must("match l.safetensors out=eva-lavis" LOOK);
    same_scores("eva-apart", "eva-lavis", 1e-6);
    folder_must("export eva-q.safetensors form=hf encoder=eva.safetensors extract.heads=2 model.heads=2 "
                "model.vocab=words.txt model.eps_vision=1e-6 out=hf");
    folder_must("match hf model.eps_vision=1e-5 out=eva-hf" LOOK);
    same_scores("eva-apart", "eva-hf", 1e-6);
}

static void clip_to_lavis(void **state) {
    (void)state;
    folder_write("config.json", "{\"hidden_act\": \"quick_gelu\"}");
    model_for("clip");
    folder_must("export clip-q.safetensors form=lavis encoder=clip.safetensors extract.heads=2 model.heads=2 "
                "out=c.safetensors");
    folder_must("match c.safetensors out=clip-lavis" LOOK);
    same_scores("clip-apart", "clip-lavis", 1e-6);
    folder_refuses("export clip-q.safetensors form=hf encoder=clip.safetensors extract.heads=2 model.heads=2 "
                   "model.vocab=words.txt out=no", "transformers' BLIP-2 has no other vision model than EVA-g");
    folder_shell("rm config.json");
    folder_refuses("extract in=pics extract.annotations=ann.json encoder=clip.safetensors extract.heads=2 out=no.h5",
                   "nothing says whether this CLIP computes with GELU or QuickGELU");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(eva_to_both), cmocka_unit_test(clip_to_lavis)};
    return cmocka_run_group_tests(tests, setup, folder_teardown);
}
