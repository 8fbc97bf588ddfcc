/* webp: see webp.h. */
#include "data/format/webp.h"

#include <string.h>

#ifdef HAVE_WEBP
#include <webp/decode.h>
#include <webp/demux.h>
#endif

bool webp_looks_like(const void *bytes, size_t n) {
    const char *b = bytes;
    return n >= 12 && !memcmp(b, "RIFF", 4) && !memcmp(b + 8, "WEBP", 4);
}

#ifdef HAVE_WEBP

Status webp_size(const void *bytes, size_t n, const char *name, int *w, int *h) {
    WebPBitstreamFeatures f;
    VP8StatusCode code = WebPGetFeatures(bytes, n, &f);
    if (code == VP8_STATUS_NOT_ENOUGH_DATA) return err_set(ERR_FORMAT, "%s: broken WebP: it ends early", name);
    if (code != VP8_STATUS_OK) return err_set(ERR_FORMAT, "%s: broken WebP: its header is damaged", name);
    *w = f.width;
    *h = f.height;
    return OK;
}

/* The first frame on its canvas, which is black where that is smaller: what Pillow shows. */
static bool first_frame(uint8_t *rgb, int w, int h, const void *bytes, size_t n) {
    WebPAnimDecoderOptions how;
    uint8_t *rgba = NULL;
    int at;
    if (!WebPAnimDecoderOptionsInit(&how)) return false;
    how.color_mode = MODE_RGBA;                              /* the animation decoder has no RGB */
    WebPAnimDecoder *d = WebPAnimDecoderNew(&(WebPData){bytes, n}, &how);
    WebPAnimInfo info;
    bool ok = d && WebPAnimDecoderGetInfo(d, &info) && info.canvas_width == (uint32_t)w &&
              info.canvas_height == (uint32_t)h && WebPAnimDecoderGetNext(d, &rgba, &at);
    for (size_t i = 0; ok && i < (size_t)w * (size_t)h; i++) memcpy(rgb + 3 * i, rgba + 4 * i, 3);
    if (d) WebPAnimDecoderDelete(d);
    return ok;
}

static bool is_animation(const void *bytes, size_t n) {
    WebPBitstreamFeatures f;
    return WebPGetFeatures(bytes, n, &f) == VP8_STATUS_OK && f.has_animation;
}

Status webp_decode(uint8_t *rgb, int w, int h, const void *bytes, size_t n, const char *name) {
    if (is_animation(bytes, n) ? first_frame(rgb, w, h, bytes, n)
                               : WebPDecodeRGBInto(bytes, n, rgb, (size_t)w * (size_t)h * 3, 3 * w) != NULL)
        return OK;
    return err_set(ERR_FORMAT, "%s: broken WebP: its data are damaged or end early", name);
}

#else

Status webp_size(const void *bytes, size_t n, const char *name, int *w, int *h) {
    (void)bytes, (void)n, (void)w, (void)h;
    return err_set(ERR_MISSING,
                   "%s: a WebP image, and this build is without libwebp; install libwebp-dev and make again", name);
}

Status webp_decode(uint8_t *rgb, int w, int h, const void *bytes, size_t n, const char *name) {
    (void)rgb;
    return webp_size(bytes, n, name, &w, &h);
}

#endif
