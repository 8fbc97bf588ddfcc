/* Any bytes as the small files of an image encoder: config.json, open_clip_config.json, and a recipe of pixels in three
 * dialects. What is taken is inside its bounds and can be drawn with. */
#include <stdint.h>
#include <stdlib.h>

#include "checkpoints/vision_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void draw(const Preprocess *p) {
    if (p->size < 1 || p->size > PREPROCESS_MAX_SIZE || p->edge < p->size) abort();
    if (p->edge > 128) return;                               /* large ones only cost time */
    uint8_t rgb[5 * 7 * 3] = {0};
    Image im = {5, 7, rgb};
    void *pixels = malloc(preprocess_bytes(p));
    char text[PREPROCESS_TEXT];
    if (pixels) (void)!preprocess_view(pixels, p, &im, "x", 3);
    preprocess_text(p, text, sizeof text);
    free(pixels);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static Status (*const read[])(Preprocess *, const Json *, const char *) = {
        preprocess_read_transformers, preprocess_read_openclip, preprocess_read_timm};
    Json *doc;
    VisionConfig c;
    if (json_parse(&doc, (const char *)data, size, "fuzz") != OK) return 0;
    vision_config_none(&c);
    if (vision_config_openclip(&c, doc, "fuzz") == OK) vision_config_json(&c, doc, "fuzz");
    vision_config_none(&c);
    if (vision_config_json(&c, doc, "fuzz") == OK && (c.heads < 0 || c.image < 0 || c.eps < 0)) abort();
    for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
        Preprocess p = {.size = 16, .edge = 16, .squash = true, .kernel = TAPS_CUBIC, .std = {1, 1, 1}};
        if (read[i](&p, doc, "fuzz") == OK) draw(&p);
    }
    json_free(doc);
    return 0;
}
