/* webp: see webp.h. */
#include "data/format/webp.h"

#include <string.h>

#ifdef HAVE_WEBP
#include <webp/decode.h>
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
    if (f.has_animation) return err_set(ERR_FORMAT, "%s: an animated WebP; a single picture is wanted", name);
    *w = f.width;
    *h = f.height;
    return OK;
}

Status webp_decode(uint8_t *rgb, int w, int h, const void *bytes, size_t n, const char *name) {
    if (WebPDecodeRGBInto(bytes, n, rgb, (size_t)w * (size_t)h * 3, 3 * w)) return OK;
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
