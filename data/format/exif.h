/* exif: which way up a picture was taken, and turning it.
 *
 * Called where the user asks for it (extract.exif): Pillow, and with it the published features, leaves pictures as
 * they are stored. Reads the one tag, from JPEG (APP1), PNG (eXIf) and WebP (EXIF); everything else counts as
 * upright, so does what is broken: decoding says that better. Source: EXIF 2.32, section 4.6.4 A, tag 0x0112. */
#pragma once
#include <stddef.h>

#include "data/format/image.h"

int exif_orientation(const void *bytes, size_t n);         /* 1 to 8; 1 is upright */
Status exif_turn(Image *im, int orientation);              /* ERR_MEMORY only */
