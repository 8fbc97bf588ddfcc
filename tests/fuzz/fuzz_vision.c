/* Files of tensors with the names of image encoders, in any selection and of any shape: recognised or refused; what is
 * taken has heads that make up its width.
 *
 * First byte: whose names. Then six bytes a tensor: which, of which block,
 * what stands behind the name, and its sides. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoints/vision.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 64, FIELDS = sizeof(VisionNames) / sizeof(char *) };
static char name[MOST][160];
static float numbers[24 * 24 * 24];

static const char *field(const VisionNames *n, int k) {
    const char *s;
    memcpy(&s, (const char *)n + (size_t)k * sizeof s, sizeof s);
    return s;
}

/* One spelling of a name, in a block where the dialect has it there. */
static bool spell(char *out, const VisionNames *n, const uint8_t *b) {
    static const char *const tails[] = {".weight", ".bias", "", "weight"};
    int k = b[0] % FIELDS, block = (int)(offsetof(VisionNames, block) / sizeof(char *));
    const char *s = field(n, k), *front = k > block ? n->block : "";
    if (!s || k == block) return false;
    char before[96] = "", *number;
    snprintf(before, sizeof before, "%.*s", (int)strcspn(front, "|"), front);
    if ((number = strstr(before, "%d"))) memmove(number + 1, number + 2, strlen(number + 1)), *number = (char)('0' + b[1] % 3);
    snprintf(out, sizeof name[0], "%s%.*s%s", before, (int)strcspn(s, "|"), s, tails[b[2] % 4]);
    return true;
}

static size_t make(StTensor *t, const uint8_t *data, size_t size) {
    static const int64_t sides[] = {1, 2, 3, 4, 8, 12, 16, 24, 5, 17};
    const VisionNames *n = &vision_names[data[0] % DIALECT_COUNT];
    size_t count = 0;
    for (size_t at = 1; at + 6 <= size && count < MOST; at += 6) {
        const uint8_t *b = data + at;
        if (!spell(name[count], n, b)) continue;
        bool twice = false;
        for (size_t i = 0; i < count; i++) twice |= strcmp(name[i], name[count]) == 0;
        if (twice) continue;
        StTensor *x = &t[count];
        *x = (StTensor){.name = name[count], .dtype = DT_F32, .ndim = 1 + b[3] % 4, .data = numbers};
        for (int i = 0; i < x->ndim; i++) x->shape[i] = i < 2 ? sides[(b[4 + i] & 15) % 10] : sides[(b[4 + i % 2] >> 4) % 4];
        count++;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char path[64];
    StTensor t[MOST];
    Vision e;
    if (!path[0]) snprintf(path, sizeof path, "/tmp/fuzz-vision-%d.safetensors", (int)getpid());
    size_t n = size ? make(t, data, size) : 0;
    if (!n || st_write(path, t, n, NULL, 0) != OK) return 0;
    if (vision_open(&e, path, 0) == OK) {
        char text[VISION_TEXT];
        vision_text(&e, text, sizeof text);
        if (e.d.H * e.d.D != e.d.E || e.d.L < 1) abort();
        vision_close(&e);
    }
    unlink(path);
    return 0;
}
