/* vision_hf: an image encoder's weights under the names of transformers' Blip2VisionModel, and the small files beside
 * them, for export.c. That class is EVA-g alone: joined q, k, v with a bias, GELU, no norm in front; others are
 * refused. Positions are resized to the pixels that are asked for. */
#ifndef QF_VISION_HF_H
#define QF_VISION_HF_H
#include "checkpoints/export.h"
#include "checkpoints/vision.h"

/* size: pixels of a side, 0: the encoder's own. ERR_USAGE: another family. Fills the vision fields of d, and a tower
 * that lives as long as e, until vision_hf_free. */
Status vision_hf(HfTower *t, HfDims *d, const Vision *e, int size);
void vision_hf_free(HfTower *t);

/* preprocessor_config.json, processor_config.json, tokenizer_config.json, special_tokens_map.json in the folder, for
 * pixels made as p says and a BERT vocabulary with [DEC] behind its words, of V in all. */
Status vision_hf_pixels(const char *folder, const Preprocess *p);           /* the first of them alone */
Status vision_hf_files(const char *folder, const Preprocess *p, int64_t V);

#endif
