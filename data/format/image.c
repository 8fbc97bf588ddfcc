/* image: see image.h. Both libraries report errors by longjmp, so everything that must survive one lives in a struct
 * outside the jumping function, and the jumping functions hold no locals of their own that change. */
#include "data/format/image.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include "data/format/exif.h"
#include "data/format/filekind.h"
#include "data/format/webp.h"
#include "kernels/base/mem.h"

enum { MAX_SCANS = 500, JPEG_MEMORY = 2000000000 };

typedef struct {
    jmp_buf jump;
    const char *name;
    int64_t max_pixels;
    Image *out;
    const uint8_t *bytes;       /* the file, */
    size_t n, at;               /* its length, and how far the PNG reader is */
    uint8_t **rows;             /* PNG: h pointers into out->rgb */
    uint8_t *line;              /* JPEG: one row as decoded */
    char why[JMSG_LENGTH_MAX];  /* the library's own words */
    struct jpeg_progress_mgr progress;
} Work;

/* Takes the memory of w x h pixels once the size is believable. */
static Status take(Work *k, uint64_t w, uint64_t h) {
    if (!w || !h)
        return err_set(ERR_FORMAT, "%s: an image of %llu x %llu pixels", k->name, (unsigned long long)w,
                       (unsigned long long)h);
    if (w > INT32_MAX / 3 || h > INT32_MAX / 3 || w * h > (uint64_t)k->max_pixels)
        return err_set(ERR_FORMAT, "%s: the header says %llu x %llu pixels, at most %lld are taken", k->name,
                       (unsigned long long)w, (unsigned long long)h, (long long)k->max_pixels);
    k->out->w = (int)w;
    k->out->h = (int)h;
    k->out->rgb = mem_new((size_t)(w * h), 3);
    return k->out->rgb ? OK : ERR_MEMORY;
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------- */

static _Noreturn void jpeg_fail(j_common_ptr c) {
    Work *k = c->client_data;
    c->err->format_message(c, k->why);
    longjmp(k->jump, 1);
}

/* libjpeg goes on after the end of the data with gray rows; that is a broken file. Other warnings pass. */
static void jpeg_message(j_common_ptr c, int level) {
    if (level < 0 && c->err->msg_code == JWRN_JPEG_EOF) jpeg_fail(c);
}

/* A few bytes a scan can ask for a pass over millions of blocks; no honest file has hundreds of scans. */
static void jpeg_scans(j_common_ptr c) {
    Work *k = c->client_data;
    if (((j_decompress_ptr)c)->input_scan_number <= MAX_SCANS) return;
    snprintf(k->why, sizeof k->why, "more than %d scans", MAX_SCANS);
    longjmp(k->jump, 1);
}

static void jpeg_row(uint8_t *dst, const uint8_t *src, unsigned w, int components) {
    for (unsigned i = 0; i < w; i++, dst += 3, src += components)
        for (int c = 0; c < 3; c++)
            dst[c] = components == 1 ? src[0] : (uint8_t)((2u * src[c] * src[3] + 255u) / 510u);
}

static Status jpeg_rows(struct jpeg_decompress_struct *j, Work *k) {
    if (setjmp(k->jump)) return err_set(ERR_FORMAT, "%s: broken JPEG: %s", k->name, k->why);
    jpeg_create_decompress(j);          /* clears all but err and client_data */
    k->progress.progress_monitor = jpeg_scans;
    j->progress = &k->progress;
    j->mem->max_memory_to_use = JPEG_MEMORY;                 /* a progressive one holds all its coefficients */
    jpeg_mem_src(j, k->bytes, (unsigned long)k->n);
    jpeg_read_header(j, TRUE);
    Status st = take(k, j->image_width, j->image_height);
    if (st != OK) return st;
    j->out_color_space = j->num_components == 1 ? JCS_GRAYSCALE : j->num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(j);
    size_t stride = (size_t)j->output_width * 3;
    if (j->output_components != 3 &&
        !(k->line = mem_new(j->output_width, (size_t)j->output_components))) return ERR_MEMORY;
    while (j->output_scanline < j->output_height) {
        uint8_t *dst = k->out->rgb + j->output_scanline * stride, *line = k->line ? k->line : dst;
        jpeg_read_scanlines(j, &line, 1);
        if (k->line) jpeg_row(dst, line, j->output_width, j->output_components);
    }
    return OK;
}

static Status jpeg_decode(Work *k) {
    struct jpeg_error_mgr errors;
    struct jpeg_decompress_struct j;
    memset(&j, 0, sizeof j);
    j.err = jpeg_std_error(&errors);
    errors.error_exit = jpeg_fail;
    errors.emit_message = jpeg_message;
    j.client_data = k;
    Status st = jpeg_rows(&j, k);
    jpeg_destroy_decompress(&j);
    free(k->line);
    return st;
}

/* ---- PNG --------------------------------------------------------------------------------------------------------- */

static void png_fail(png_structp png, png_const_charp msg) {
    Work *k = png_get_error_ptr(png);
    snprintf(k->why, sizeof k->why, "%s", msg);
    longjmp(k->jump, 1);
}

static void png_quiet(png_structp png, png_const_charp msg) { (void)png, (void)msg; }

static void png_bytes(png_structp png, png_bytep dst, size_t n) {
    Work *k = png_get_io_ptr(png);
    if (n > k->n - k->at) png_error(png, "it ends early");
    memcpy(dst, k->bytes + k->at, n);
    k->at += n;
}

static Status png_rows(png_structp png, png_infop info, Work *k) {
    if (setjmp(k->jump)) return err_set(ERR_FORMAT, "%s: broken PNG: %s", k->name, k->why);
    png_set_read_fn(png, k, png_bytes);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);   /* the size is judged here, in words */
    png_set_chunk_malloc_max(png, 8 << 20);                  /* a text chunk may unpack to gigabytes */
    /* profiles are dropped: a bad one must not cost the picture */
    png_set_option(png, PNG_SKIP_sRGB_CHECK_PROFILE, PNG_OPTION_ON);
    png_read_info(png, info);
    uint64_t w = png_get_image_width(png, info), h = png_get_image_height(png, info);
    uint64_t packed = (w * png_get_bit_depth(png, info) * png_get_channels(png, info) + 7) / 8 * h;
    if (w * h <= (uint64_t)k->max_pixels && packed / 1100 > k->n)   /* deflate never packs better than 1,032 to 1 */
        return err_set(ERR_FORMAT, "%s: broken PNG: %zu bytes cannot hold the %llu x %llu pixels of its header",
                       k->name, k->n, (unsigned long long)w, (unsigned long long)h);
    Status st = take(k, w, h);
    if (st != OK) return st;
    png_set_palette_to_rgb(png);
    if (png_get_color_type(png, info) == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);                                   /* the high byte, as Pillow takes it */
    png_set_strip_alpha(png);
    png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
    BUG_ON(png_get_rowbytes(png, info) != 3 * w, "PNG rows of %zu bytes for %llu pixels",
           (size_t)png_get_rowbytes(png, info), (unsigned long long)w);
    k->rows = mem_new((size_t)h, sizeof *k->rows);
    if (!k->rows) return ERR_MEMORY;
    for (uint64_t y = 0; y < h; y++) k->rows[y] = k->out->rgb + y * w * 3;
    png_read_image(png, k->rows);
    return OK;
}

static Status png_decode(Work *k) {
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, k, png_fail, png_quiet);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    Status st = info ? png_rows(png, info, k) : err_set(ERR_MEMORY, "%s: no memory for the PNG reader", k->name);
    png_destroy_read_struct(&png, &info, NULL);
    free(k->rows);
    return st;
}

/* ---- WebP -------------------------------------------------------------------------------------------------------- */

static Status webp_pixels(Work *k) {
    int w = 0, h = 0;
    Status st = webp_size(k->bytes, k->n, k->name, &w, &h);
    if (st == OK) st = take(k, (uint64_t)w, (uint64_t)h);
    return st == OK ? webp_decode(k->out->rgb, w, h, k->bytes, k->n, k->name) : st;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

Status image_decode(Image *out, const void *bytes, size_t n, const char *name, int64_t max_pixels) {
    static const uint8_t png_magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    *out = (Image){0};
    Work k = {.name = name, .max_pixels = max_pixels, .out = out, .bytes = bytes, .n = n};
    Status st;
    if (n >= 3 && !memcmp(bytes, "\xff\xd8\xff", 3)) st = jpeg_decode(&k);
    else if (n >= 8 && !memcmp(bytes, png_magic, 8)) st = png_decode(&k);
    else if (webp_looks_like(bytes, n)) st = webp_pixels(&k);
    else st = filekind_refuse(name, bytes, n, "a JPEG, PNG or WebP image");
    if (st != OK) image_free(out);
    return st;
}

Status image_decode_turned(Image *out, const void *bytes, size_t n, const char *name, bool upright) {
    Status st = image_decode(out, bytes, n, name, IMAGE_MAX_PIXELS);
    if (st == OK && upright) st = exif_turn(out, exif_orientation(bytes, n));
    if (st != OK) image_free(out);
    return st;
}

Status image_read(Image *out, const char *path) { return image_read_turned(out, path, false); }

Status image_read_turned(Image *out, const char *path, bool upright) {
    Status st = OK;
    struct stat about;
    uint8_t *bytes = NULL;
    *out = (Image){0};
    FILE *f = fopen(path, "rb");
    if (!f) return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    if (fstat(fileno(f), &about) || !S_ISREG(about.st_mode)) { /* a pipe has no size */
        st = err_set(ERR_IO, "%s: not a regular file", path);
        goto done;
    }
    if (!(bytes = mem_new((size_t)about.st_size, 1))) {
        st = ERR_MEMORY;
        goto done;
    }
    size_t n = fread(bytes, 1, (size_t)about.st_size, f);
    st = ferror(f) ? err_set(ERR_IO, "%s: %s", path, strerror(errno))
                   : image_decode_turned(out, bytes, n, path, upright);
done:
    free(bytes);
    fclose(f);
    return st;
}

static png_image png_of(int w, int h) {
    return (png_image){.version = PNG_IMAGE_VERSION, .width = (png_uint_32)w, .height = (png_uint_32)h,
                       .format = PNG_FORMAT_RGB};
}

Status image_write_png(const char *path, const uint8_t *rgb, int w, int h) {
    png_image im = png_of(w, h);
    if (png_image_write_to_file(&im, path, 0, rgb, 0, NULL)) return OK;
    return err_set(ERR_IO, "%s: cannot be written: %s", path, im.message);
}

Status image_put_png(FILE *f, const uint8_t *rgb, int w, int h) {
    png_image im = png_of(w, h);
    if (png_image_write_to_stdio(&im, f, 0, rgb, 0, NULL)) return OK;
    return err_set(ERR_IO, "a PNG cannot be written: %s", im.message);
}

void image_free(Image *im) {
    free(im->rgb);
    *im = (Image){0};
}
