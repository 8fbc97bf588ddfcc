/* Any bytes as an annotation file. */
#include <stddef.h>
#include <stdint.h>

#include "data/make/annotations.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Annotations a = {0};
    if (annotations_add_text(&a, (const char *)data, size, &(AnnotationFile){.path = "fuzz"}) == OK && annotations_finish(&a) == OK)
        for (int64_t i = 0; i < a.count; i++)
            if (annotations_find(&a, a.images[i].image) != i || !a.images[i].image[0] ||
                (a.images[i].ncaptions ? !a.images[i].captions[0][0] : !a.images[i].bare)) __builtin_trap();
    annotations_free(&a);
    return 0;
}
