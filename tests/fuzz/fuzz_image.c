/* Any bytes as an image, with a small limit so that a run is fast; a decoded image is also turned and resized. */
#include <stddef.h>
#include <stdint.h>

#include "data/format/exif.h"
#include "data/format/image.h"
#include "data/format/resize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Image im;
    uint8_t small[9 * 7 * 3];
    if (image_decode(&im, data, size, "fuzz", 1 << 16) == OK)
        if (exif_turn(&im, exif_orientation(data, size)) == OK)
            (void)!resize_bicubic(small, 9, 7, im.rgb, im.w, im.h, (size_t)im.w * 3);
    image_free(&im);
    return 0;
}
